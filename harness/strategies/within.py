"""``dpor`` within a bound on preemptions: every schedule, but no state twice.

Reductions that leave threads asleep or reverse races are unsound under a bound: the schedule that
stands for a class may need more preemptions than another of it. So this is a depth-first search of
all schedules within the bound that gives up a schedule where it comes to a state that was searched
already, with as few preemptions spent. A state is known by the partial order of the steps that led
to it, since equivalent beginnings end in the same state, and by the thread that could go on for
free.

Reference: Musuvathi and Qadeer, "Partial-Order Reduction for Context-Bounded State Exploration",
Microsoft Research MSR-TR-2007-12, section 4. The bounded reduction of Coons, Musuvathi and McKinley
(OOPSLA 2013) keeps no states, and needs conservative reversals instead; programs here are small
enough for the states.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

from harness.strategies.base import estimated_left
from harness.strategies.order import PartialOrder, following

if TYPE_CHECKING:
    from harness.engine.core import Choose, Core
    from harness.engine.thread import Thread

_STATES: Final = 1 << 128


class _Turn:
    """One step of the schedule that runs: who could take it within the bound, and who does.

    Attributes:
        enabled: Indexes of the threads that can run.
        choices: Of those, whom the bound allows; in the order in which they are tried.
        taken: Position of the one that takes it.
        state: What the steps before it led to.
    """

    __slots__ = ("choices", "enabled", "state", "taken")

    def __init__(self, enabled: list[Thread], choices: list[Thread], state: int) -> None:
        self.enabled = tuple(thread.index for thread in enabled)
        self.choices = tuple(thread.index for thread in choices)
        self.taken = 0
        self.state = state

    @property
    def chosen(self) -> int:
        """Index of the thread that takes the step."""
        return self.choices[self.taken]


class WithinBound:
    """The search; used by ``Dpor``.

    Attributes:
        exhausted: Every schedule within the bound was run, or ended like one that was.
        path: The steps of the schedule that runs.
    """

    def __init__(self, bound: int) -> None:
        """Args: bound: On preemptions."""
        self.exhausted = False
        self.path: list[_Turn] = []
        self._bound = bound
        self._order = PartialOrder()
        self._fresh = 0
        self._schedules = 0
        # For each state and thread that could go on there (-1: switching is free), the fewest
        # preemptions with which it was met.
        self._met: dict[tuple[int, int], int] = {}

    @property
    def left(self) -> float:
        """See ``Strategy.left``; what is known already when it is met comes out as too much."""
        path = [(turn.taken, len(turn.choices) - turn.taken) for turn in self.path]
        return estimated_left(path, self._schedules) if path else 0.0

    def begin(self, core: Core) -> Choose:
        """See ``Strategy.begin``; follows the stored path, then first choices."""
        _, choose = following(core, self._order, self.path, self._fresh, self._open)
        return choose

    def _open(self, core: Core, enabled: list[Thread]) -> None:
        """A step that no schedule has come to; ends the schedule if its state is known."""
        path = self.path
        cur = core.cur
        state = (path[-1].state + self._identity(len(path) - 1)) % _STATES if path else 0
        choices = sorted(enabled, key=lambda thread: (thread is not cur, thread.index))
        kept = -1
        if cur.enabled and any(core.costs(other) for other in choices if other is not cur):
            kept = cur.index
            if core.preemptions >= self._bound:
                choices = [t for t in choices if t is cur or not core.costs(t)]
                if not choices:
                    core.end("blocked")  # the bound leaves it to one that would spin for ever
        # Where nobody else can run any more, the first such step is as good as all that follow.
        if len(enabled) > 1 or (path and len(path[-1].enabled) > 1):
            met = self._met.get((state, kept))
            if met is not None and met <= core.preemptions:
                core.end("blocked")
            self._met[state, kept] = core.preemptions
        path.append(_Turn(enabled, choices, state))

    def _identity(self, number: int) -> int:
        """A number for one step and what it had to come after, whatever else came before it."""
        order = self._order
        step = order.steps[number]
        seen = [order.steps[other].ordinal if other >= 0 else -1 for other in step.clock]
        text = f"{step.thread} {seen}".encode()
        return int.from_bytes(hashlib.blake2b(text, digest_size=16).digest(), "little")

    def backtrack(self) -> None:
        """Move to the next choice; called after every schedule."""
        self._schedules += 1
        path = self.path
        while path:
            turn = path[-1]
            turn.taken += 1
            if turn.taken < len(turn.choices):
                self._fresh = len(path) - 1
                self._order.restart(self._fresh)
                return
            path.pop()
        self._met.clear()
        self.exhausted = True
