"""The schedule that runs now as a partial order: who had to come before whom.

Each step has a vector clock: for every thread, its last step that had to come before. Beside it
stands what ordered the thread already when it announced the step: the step races with whatever
else it depends on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from harness.strategies.base import deciding, diverged
from harness.strategies.dependence import (
    Clock,
    Footprint,
    Operation,
    at,
    depend,
    joined,
    judged,
    limited,
    taken_by,
    waits,
    with_step,
)
from harness.strategies.spins import Spins

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from harness.engine.core import Choose, Core
    from harness.engine.thread import Recorder, Thread
    from harness.engine.view import View


class Step:
    """One step of the schedule.

    Attributes:
        thread: Its index.
        kind: Of its operation.
        footprint: What it touched.
        clock: What had to come before, itself included.
        past: What had to come before its announcement.
        takes: The lock that it cannot do without, and whether alone.
        holds: Locks that its thread held alone when it began.
        shares: All locks that its thread held.
        joins: The thread that it waited for to end; -1 for none.
        ordinal: Which of its thread's steps it is, from 0.
    """

    __slots__ = (
        "clock",
        "footprint",
        "holds",
        "joins",
        "kind",
        "ordinal",
        "past",
        "shares",
        "takes",
        "thread",
    )

    def __init__(self, operation: Operation, past: Clock) -> None:
        """As it begins; ``footprint`` and ``clock`` follow."""
        self.thread = operation.thread.index
        self.kind = operation.kind
        self.footprint: Footprint = None
        self.clock: Clock = ()
        self.past = past
        timed = operation.timed
        self.takes = (None, False) if timed else taken_by(operation.kind, operation.obj)
        self.holds = operation.holds
        self.shares = operation.shares
        self.joins = operation.obj.index if operation.kind == "join" and not timed else -1
        self.ordinal = 0


class PartialOrder:
    """The steps of the schedule so far, and what orders the next of each thread.

    Attributes:
        steps: One for each step taken.
    """

    def __init__(self) -> None:
        """No schedule has begun."""
        self.steps: list[Step] = []
        # For each object the steps that touched it, each with whether it changed it.
        self._touched: dict[int, list[tuple[int, bool]]] = {}
        self._wild: list[int] = []
        # For each thread what orders its next step already; and what was before time went on last,
        # which nothing that follows can come before. One copy for each step, as it was before.
        self._now: list[Clock] = [()]
        self._floor: Clock = ()
        # For each thread what it waited for with a limit until another one ended that, until it
        # goes on.
        self._ended: dict[int, int] = {}
        self._snapshots: list[tuple[list[Clock], Clock, dict[int, int]]] = []
        self._announced: list[tuple[str, object]] = []
        # Threads whose wait a timeout could end at any step, each with what it waits for.
        self._limited: dict[int, int] = {}
        self._operation: Operation | None = None
        self._time = 0.0

    def restart(self, depth: int) -> None:
        """The next schedule begins like the last, up to the step at ``depth`` (exclusive)."""
        for step in self.steps[depth:]:
            for key, _ in step.footprint or ():
                self._touched[key].pop()
        del self.steps[depth:]
        while self._wild and self._wild[-1] >= depth:
            self._wild.pop()
        if depth < len(self._snapshots):
            self._now, self._floor, self._ended = self._snapshots[depth]
            del self._snapshots[depth:]
        self._operation = None

    # -- as the schedule goes on ----------------------------------------------------------------

    def begin(self, core: Core, thread: Thread) -> Operation:
        """``thread`` is about to take the next step."""
        self._snapshots.append((list(self._now), self._floor, dict(self._ended)))
        self._announced = [(other.kind, other.obj) for other in core.threads]
        early = core.early
        self._limited = {
            other.index: waits(other) for other in core.threads if limited(other, early=early)
        }
        # A timeout that fires before its time moves the clock so far, and no further.
        self._time = core.clock
        if thread.early and thread.deadline is not None:
            self._time = max(core.clock, thread.deadline)
        judged(core)  # what was before this step is not its own
        core.told = False
        self._operation = Operation(thread, early=early, ended=self._ended.pop(thread.index, None))
        return self._operation

    def pending(self, core: Core, thread: Thread) -> Operation:
        """What ``thread`` would do next."""
        return Operation(thread, early=core.early, ended=self._ended.get(thread.index))

    def end(self, core: Core) -> None:
        """The step that began last is over, and so is the code that belongs to it."""
        operation = self._operation
        if operation is None:
            return
        self._operation = None
        number = len(self.steps)
        thread = operation.thread
        now = self._now
        step = Step(operation, now[thread.index])
        known = len(self._announced)
        announced = [
            other
            for other in core.threads
            if not other.done
            and (other.started or other.index == 0)
            and (
                other is thread
                or other.index >= known
                or self._announced[other.index] != (other.kind, other.obj)
            )
        ]
        ended = self._waits_ended(core, thread)
        self._ended.update(ended)
        step.footprint = operation.footprint(
            announced,
            judged(core),
            over=thread.done,
            ended=ended.values(),
            told=core.told or any(limited(other, early=core.early) for other in announced),
        )
        before = joined(joined(step.past, self._floor), self._seen(step))
        step.clock = with_step(before, thread.index, number)
        own = at(before, thread.index)
        step.ordinal = self.steps[own].ordinal + 1 if own >= 0 else 0
        self.steps.append(step)
        if step.footprint is None:
            self._wild.append(number)
        for key, changed in step.footprint or ():
            self._touched.setdefault(key, []).append((number, changed))
        now[thread.index] = step.clock
        now += [()] * (len(core.threads) - len(now))
        for other in announced:
            # Who was woken from a wait with a limit could have gone on without that.
            if other.index not in self._limited or other is thread or self._new(other, known):
                self._order(other, step.clock, known)
        if core.clock != self._time:
            # Nothing could run, so time went on: all that was had to come before all that follows.
            # Who was waiting may have been able to run before, though: that is still a race.
            for clock in now:
                self._floor = joined(self._floor, clock)

    def _waits_ended(self, core: Core, thread: Thread) -> dict[int, int]:
        """Others whose wait with a limit this step ended, each with what it waited for."""
        threads = core.threads
        return {
            index: key
            for index, key in self._limited.items()
            if index != thread.index and not limited(threads[index], early=core.early)
        }

    def _new(self, thread: Thread, known: int) -> bool:
        """Whether ``thread`` was started in this step, or all that it had started have ended."""
        return thread.index >= known or self._announced[thread.index][0] == "parallel"

    def _order(self, thread: Thread, clock: Clock, known: int) -> None:
        """``thread``'s operation was announced by the step of ``clock``."""
        now = self._now
        now[thread.index] = joined(now[thread.index], clock)
        if thread.index < known and self._announced[thread.index][0] == "parallel":
            group = self._announced[thread.index][1]
            for member in getattr(group, "members", ()):
                now[thread.index] = joined(now[thread.index], now[member.index])

    def _seen(self, step: Step) -> Clock:
        """What a step had to come after because of what it touched."""
        clock: Clock = ()
        steps = self.steps
        if step.footprint is None:
            for last in self._now:
                clock = joined(clock, last)
            return clock
        if self._wild:
            clock = steps[self._wild[-1]].clock
        for key, changed in step.footprint:
            for number, wrote in reversed(self._touched.get(key, ())):
                if changed or wrote:
                    clock = joined(clock, steps[number].clock)
                if wrote:
                    break
        return clock

    # -- looking back ---------------------------------------------------------------------------

    def before(self, one: int, other: int) -> bool:
        """Whether step ``one`` had to come before step ``other``."""
        return at(self.steps[other].clock, self.steps[one].thread) >= one

    def past(self, thread: int) -> Clock:
        """What had to come before ``thread``'s next step was announced."""
        return self._now[thread] if thread < len(self._now) else ()

    def after(self, clock: Clock, number: int) -> Clock:
        """``clock``, when it has seen step ``number`` too."""
        return joined(clock, self.steps[number].clock)

    def rivals(self, step: Step, number: int) -> list[int]:
        """Steps before ``number`` that race with ``step``, directly or not, the youngest first."""
        steps = self.steps
        found: set[int] = set()
        if step.footprint is None:
            found.update(range(number))
        else:
            found.update(other for other in self._wild if other < number)
            for key, changed in step.footprint:
                for other, wrote in reversed(self._touched.get(key, ())):
                    if other >= number or not (changed or wrote):
                        continue
                    found.add(other)
        return [
            other
            for other in sorted(found, reverse=True)
            if steps[other].thread != step.thread and at(step.past, steps[other].thread) < other
        ]

    def beside(self, number: int, step: Step, last: int | None) -> list[int]:
        """Steps after ``number`` that did not have to come after it, without step ``last``."""
        steps = self.steps
        thread = steps[number].thread
        return [
            other
            for other in range(number + 1, len(steps))
            if other != last and at(steps[other].clock, thread) < number
        ]

    def ordered(self, numbers: Sequence[int], step: Step) -> Clock:
        """What of ``numbers`` the step had to come after, were they all that came before."""
        clock = step.past
        for number in numbers:
            if depend(self.steps[number].footprint, step.footprint):
                clock = joined(clock, self.steps[number].clock)
        return clock


def waits_for_state(step: Step) -> bool:
    """Whether the step cannot be taken in every state, and which ones is not known here.

    That it cannot come right before a rival shows only when that is tried; what came before the
    rival is one all the same. Of locks and threads ``excludes`` knows.
    """
    return step.kind in ("event-wait", "sem-acquire")


def excludes(earlier: Step, later: Step) -> bool:
    """Whether ``later`` cannot run right before ``earlier``, whatever it depends on.

    It needs a lock that the other's thread holds there, or waits for that thread to end; not so
    where a timer could have ended its wait.
    """
    if later.footprint is None:
        return False
    if later.joins == earlier.thread:
        return True
    lock, alone = later.takes
    return lock is not None and lock in (earlier.shares if alone else earlier.holds)


class Watch:
    """Hears what operations return, and of the end of a schedule before anything is taken down."""

    def __init__(self, order: PartialOrder, core: Core, steps: int) -> None:
        """Listens to the schedule that is about to run, beside whoever listens already.

        Args:
            order: Grows with the schedule.
            core: The engine.
            steps: How many the schedule has at least, if the program is deterministic.
        """
        self._order = order
        self._core = core
        self._steps = steps
        self._other: Recorder | None = core.recorder
        self.operation: Operation | None = None
        # What could have run, or waited, when the schedule failed.
        self.left: list[Operation] = []

    def publish(self, thread: Thread) -> None:
        """See ``Recorder``; what is announced is read when the step is over."""
        if self._other is not None:
            self._other.publish(thread)

    def step(self, thread: Thread, steps: int) -> None:
        """See ``Recorder``."""
        if self._other is not None:
            self._other.step(thread, steps)

    def note(self, text: str) -> None:
        """See ``Recorder``."""
        if self._other is not None:
            self._other.note(text)

    def claim(self, lock: object, what: str) -> None:
        """See ``Recorder``."""
        if self._other is not None:
            self._other.claim(lock, what)

    def observe(self, view: View) -> None:
        """See ``Recorder``."""
        if self._other is not None:
            self._other.observe(view)

    def ended(self) -> None:
        """The program has returned; no earlier than it did with the same choices before."""
        core = self._core
        if core.steps < self._steps:
            core.nondeterministic(
                f"after the same choices, the program ended at step {core.steps} "
                f"and went on there before"
            )
        if self._other is not None:
            self._other.ended()

    def outcome(self, value: object) -> None:
        """The operation of the step that runs returned ``value``."""
        if self.operation is not None:
            self.operation.value = value
        if self._other is not None:
            self._other.outcome(value)

    def freeze(self) -> None:
        """The schedule ends here."""
        core = self._core
        self._order.end(core)
        for thread in core.threads:
            if not thread.done and (thread.started or thread.index == 0):
                self.left.append(self._order.pending(core, thread))
        if self._other is not None:
            self._other.freeze()


class Taken(Protocol):
    """One step of a path that a search follows."""

    @property
    def enabled(self) -> tuple[int, ...]:
        """Indexes of the threads that can run."""

    @property
    def chosen(self) -> int:
        """Index of the thread that takes the step."""


def following(
    core: Core,
    order: PartialOrder,
    path: Sequence[Taken],
    fresh: int,
    extend: Callable[[Core, list[Thread]], None],
) -> tuple[Watch, Choose]:
    """Begin a schedule that follows ``path``, and goes on as ``extend`` has it.

    Args:
        core: The engine.
        order: Knows the steps of ``path`` before ``fresh``; grows with the schedule.
        path: A step for each that is decided.
        fresh: The first step that is another one than in the schedule before.
        extend: Called with the threads that can run and do not spin; adds a step to ``path``.

    Returns:
        What hears of the schedule, and its ``choose``.
    """
    watch = Watch(order, core, fresh + 1 if path else 0)
    core.recorder = watch
    spins = Spins(core)

    def pick(able: list[Thread]) -> Thread:
        depth = core.steps - 1
        enabled = spins.choosing(able)
        order.end(core)
        if depth >= len(path):
            extend(core, enabled)
        taken = path[depth]
        if depth <= fresh and taken.enabled != tuple([thread.index for thread in enabled]):
            diverged(core, taken.enabled, enabled)
        thread = core.threads[taken.chosen]
        spins.chosen(thread)
        if depth >= fresh:
            watch.operation = order.begin(core, thread)
        return thread

    return watch, deciding(core, pick, always=True)
