"""``dpor``: one schedule of each class of equivalent ones; optimal dynamic partial-order reduction.

Two schedules are equivalent where one becomes the other by exchanging neighbouring steps that do
not depend on each other. After each schedule every race in it is looked at: two dependent steps
that nothing else orders. The sequence that reverses it is kept in a *wakeup tree* of the place
where the race began, unless something that runs there anyway covers it. Steps that have been
explored at a place *sleep* in what follows, until a step that depends on them is taken.

Reference: Abdulla, Aronsson, Jonsson and Sagonas, "Source Sets: A Foundation for Optimal Dynamic
Partial Order Reduction", JACM 64(4), 2017, sections 5 and 7. We depart in three ways. Steps that
make another one possible (a release, the end of a thread) are told from races by what is held and
who can run. A failing schedule is over for all threads: whatever else could run instead of the
failing step is tried, and a failure that is not the thread's own (a deadlock) does not sleep.
Sequences are made from the schedule as it was; where one does not fit, the search goes on as it
would without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from harness.strategies.base import Options, Strategy, estimated_left, register
from harness.strategies.dependence import Footprint, at, depend
from harness.strategies.order import PartialOrder, Step, Watch, excludes, following, waits_for_state
from harness.strategies.within import WithinBound

if TYPE_CHECKING:
    from harness.engine.core import Choose, Core
    from harness.engine.thread import Thread

# What a thread does wrong by itself: nobody else's step could have prevented it later.
_OWN: Final = frozenset({"assertion", "exception", "guard"})


class Branch:
    """A step that is still to be explored, with what is to follow it."""

    __slots__ = ("children", "footprint", "thread")

    def __init__(self, thread: int, footprint: Footprint) -> None:
        """Nothing follows yet."""
        self.thread = thread
        self.footprint = footprint
        self.children: list[Branch] = []


class Place:
    """One step of the schedule that runs: who could have taken it, who does, who sleeps.

    Attributes:
        enabled: Indexes of the threads that can run.
        sleep: Threads whose step was explored here or before, with what it touches.
        tree: What is still to be explored here.
        chosen: Index of the thread that takes the step.
        follows: What is to be explored after it.
        failed: Threads whose step fails here, which does not let them sleep in what follows.
        last: Of those that sleep, whose step fails: nothing that could come after it is known.
        done: How many steps were explored here before.
    """

    __slots__ = ("chosen", "done", "enabled", "failed", "follows", "last", "sleep", "tree")

    def __init__(self, enabled: tuple[int, ...], sleep: dict[int, Footprint]) -> None:
        """Nothing is chosen yet."""
        self.enabled = enabled
        self.sleep = sleep
        self.tree: list[Branch] = []
        self.chosen = -1
        self.follows: list[Branch] = []
        self.failed: list[int] = []
        self.last: set[int] = set()
        self.done = 0

    def over(self, thread: int) -> bool:
        """Whether there is nothing new in letting ``thread`` take this step."""
        return thread in self.sleep or thread in self.failed

    def take_next(self) -> bool:
        """Choose from the tree; False where it has nothing (any more) that can run."""
        while self.tree:
            branch = self.tree.pop(0)
            if branch.thread in self.enabled and not self.over(branch.thread):
                self.chosen = branch.thread
                self.follows = branch.children
                return True
        return False


@register
class Dpor(Strategy):
    """Explores every class of equivalent schedules once; see the module."""

    name = "dpor"
    fair = False
    sequential = True
    bounded = True

    def __init__(self, options: Options) -> None:
        """Start at the root."""
        super().__init__(options)
        bound = options.preemptions
        self._within = None if bound is None else WithinBound(bound)
        self.order = PartialOrder()
        self._path: list[Place] = []
        self._fresh = 0
        self._exhausted = False
        self._schedules = 0
        self._watch: Watch | None = None
        self._core: Core | None = None

    @property
    def exhausted(self) -> bool:
        """Whether every class, or all within the bound, has been explored."""
        return self._exhausted if self._within is None else self._within.exhausted

    @property
    def left(self) -> float:
        """See ``Strategy.left``; races that are still to be found are not in it."""
        if self._within is not None:
            return self._within.left
        path = [(place.done, 1 + len(place.tree)) for place in self._path]
        return estimated_left(path, self._schedules) if path else 0.0

    def begin(self, core: Core, schedule: int) -> Choose:
        """See ``Strategy.begin``; follows the stored path, then whoever does not sleep."""
        if self._within is not None:
            return self._within.begin(core)
        self._core = core
        self._watch, choose = following(core, self.order, self._path, self._fresh, self._open)
        return choose

    def _open(self, core: Core, enabled: list[Thread]) -> None:
        """A place that no schedule has come to: the tree decides, else who ran last."""
        path = self._path
        place = Place(tuple(thread.index for thread in enabled), {})
        if path:
            before = path[-1]
            step = self.order.steps[-1]
            place.sleep = {
                index: footprint
                for index, footprint in before.sleep.items()
                if not depend(footprint, step.footprint)
            }
            place.last = before.last.intersection(place.sleep)
            place.tree = before.follows
        if not place.take_next():
            awake = [thread for thread in enabled if thread.index not in place.sleep]
            if not awake:
                core.end("blocked")
            place.chosen = (core.cur if core.cur in awake else awake[0]).index
        path.append(place)

    # -- between schedules ----------------------------------------------------------------------

    def backtrack(self) -> None:
        """Look for races in the schedule that has ended, and move to what is still to explore."""
        if self._within is not None:
            self._within.backtrack()
            return
        core, watch, path, order = self._core, self._watch, self._path, self.order
        self._schedules += 1
        assert core is not None
        assert watch is not None
        order.end(core)
        del path[len(order.steps) :]  # a program that is not deterministic may end before its time
        for number in range(self._fresh, len(order.steps)):
            self._reverse_all(order.steps[number], number)
        failed = core.finding
        if failed is not None and path:
            self._instead(watch)
        asleep = failed is None or failed.kind in _OWN
        while path:
            place = path[-1]
            footprint = order.steps[len(path) - 1].footprint
            if asleep:
                place.sleep[place.chosen] = footprint
                if failed is not None:
                    place.last.add(place.chosen)
            else:
                place.failed.append(place.chosen)
            asleep, failed = True, None
            place.done += 1
            if place.take_next():
                self._fresh = len(path) - 1
                order.restart(self._fresh)
                return
            path.pop()
        self._exhausted = True

    def _instead(self, watch: Watch) -> None:
        """The last step failed: what the others were about to do never came to pass."""
        order = self.order
        place = self._path[-1]
        for operation in watch.left:
            index = operation.thread.index
            step = Step(operation, order.past(index))
            step.footprint = operation.footprint()
            self._reverse_all(step, len(order.steps))
            planned = [place.chosen, *(branch.thread for branch in place.tree)]
            if index in place.enabled and index not in planned and not place.over(index):
                place.tree.append(Branch(index, None))

    def _reverse_all(self, step: Step, number: int) -> None:
        """Plan the reversal of every race between ``step``, the ``number``th, and one before it."""
        order = self.order
        seen = step.past
        for other in order.rivals(step, number):
            earlier = order.steps[other]
            if at(seen, earlier.thread) >= other or excludes(earlier, step):
                continue
            if self._reverse(other, step, number) and not waits_for_state(step):
                seen = order.after(seen, other)

    def _reverse(self, first: int, step: Step, number: int) -> bool:
        """Plan a sequence in which ``step`` comes before step ``first``; False if there is none."""
        order = self.order
        place = self._path[first]
        beside = order.beside(first, step, number)
        clock = order.ordered(beside, step)
        sequence = _Sequence(order, beside, step, clock)
        if sequence.leads(step.thread) == len(beside) and step.thread not in place.enabled:
            return False
        if any(
            sequence.begins_with(index, footprint)
            for index, footprint in place.sleep.items()
            if index not in place.last
        ):
            return True
        if any(sequence.leads(index) >= 0 for index in (*place.failed, *place.last)):
            return True
        tree = place.tree
        while tree is not None:
            found = next((b for b in tree if sequence.begins_with(b.thread, b.footprint)), None)
            if found is None:
                tree.append(sequence.branches())
                break
            sequence.drop(found.thread)
            if not found.children:
                break
            tree = found.children
        return True


class _Sequence:
    """Steps that are to be taken at some place: some of a schedule's, then one more."""

    def __init__(self, order: PartialOrder, numbers: list[int], last: Step, clock: Any) -> None:
        self._steps = [(order.steps[n].thread, order.steps[n].footprint) for n in numbers]
        self._clocks = [order.steps[n].clock for n in numbers]
        self._numbers = list(numbers)
        self._steps.append((last.thread, last.footprint))
        self._clocks.append(clock)
        self._numbers.append(-1)

    def leads(self, thread: int) -> int:
        """Position of the first step of ``thread`` if no step has to come before it; else -1."""
        for position, (other, _) in enumerate(self._steps):
            if other == thread:
                clock = self._clocks[position]
                for before in range(position):
                    if at(clock, self._steps[before][0]) >= self._numbers[before]:
                        return -1
                return position
        return -1

    def begins_with(self, thread: int, footprint: Footprint) -> bool:
        """Whether some equivalent of this, or of a longer sequence, begins with that step."""
        if any(other == thread for other, _ in self._steps):
            return self.leads(thread) >= 0
        return not any(depend(footprint, other) for _, other in self._steps)

    def drop(self, thread: int) -> None:
        """The first step of ``thread`` has been taken."""
        position = self.leads(thread)
        if position >= 0:
            del self._steps[position], self._clocks[position], self._numbers[position]

    def branches(self) -> Branch:
        """The whole, as a branch that has one child at each step."""
        first = branch = Branch(*self._steps[0])
        for thread, footprint in self._steps[1:]:
            child = Branch(thread, footprint)
            branch.children.append(child)
            branch = child
        return first
