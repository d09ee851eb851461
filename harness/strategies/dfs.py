"""``dfs``: every interleaving, one after the other, or every one within a preemption bound."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.strategies.base import Options, Strategy, deciding, diverged, estimated_left, register
from harness.strategies.spins import Spins

if TYPE_CHECKING:
    from harness.engine.core import Choose, Core
    from harness.engine.thread import Thread


class _Decision:
    """One place of the choice tree: who was enabled, the alternatives, which is taken."""

    __slots__ = ("alternatives", "enabled", "taken")

    def __init__(self, enabled: list[int], alternatives: list[int]) -> None:
        self.enabled = enabled
        self.alternatives = alternatives
        self.taken = 0


@register
class DepthFirst(Strategy):
    """Stateless depth-first search of the choice tree: the running thread first, then by index.

    The schedules are exactly the interleavings of the program's operations: each once.
    """

    name = "dfs"
    samples = False
    fair = False
    sequential = True
    bounded = True

    def __init__(self, options: Options) -> None:
        """Start at the root."""
        super().__init__(options)
        self._path: list[_Decision] = []
        self._done = False
        self._schedules = 0

    @property
    def exhausted(self) -> bool:
        """Whether the tree (within the bound) is done."""
        return self._done

    @property
    def left(self) -> float:
        """See ``Strategy.left``."""
        path = [(d.taken, len(d.alternatives) - d.taken) for d in self._path]
        return estimated_left(path, self._schedules) if path else 0.0

    def begin(self, core: Core, schedule: int) -> Choose:
        """See ``Strategy.begin``; follows the stored path, then takes first alternatives."""
        path = self._path
        bound = self.options.preemptions
        depth = 0
        spins = Spins(core)

        def pick(enabled: list[Thread]) -> Thread:
            nonlocal depth
            awake = spins.choosing(enabled)
            if len(enabled) == 1:
                spins.chosen(enabled[0])
                return enabled[0]
            if depth == len(path):
                path.append(self._open(core, enabled, awake, bound))
            decision = path[depth]
            depth += 1
            index = decision.alternatives[decision.taken]
            thread = core.threads[index] if index < len(core.threads) else core.cur
            if decision.enabled != [other.index for other in enabled]:
                diverged(core, decision.enabled, enabled)
            spins.chosen(thread)
            return thread

        return deciding(core, pick, always=True)

    def _open(
        self, core: Core, enabled: list[Thread], awake: list[Thread], bound: int | None
    ) -> _Decision:
        """A decision seen for the first time: its alternatives within the bound, without spins."""
        cur = core.cur
        order = sorted(awake, key=lambda thread: (thread is not cur, thread.index))
        if bound is not None and cur.enabled and core.preemptions >= bound:
            order = [thread for thread in order if thread is cur or not core.costs(thread)]
            if not order:
                core.end("blocked")  # the bound leaves it to one that would spin for ever
        return _Decision([thread.index for thread in enabled], [thread.index for thread in order])

    def backtrack(self) -> None:
        """Move to the next unexplored alternative; called after every schedule."""
        self._schedules += 1
        path = self._path
        while path:
            decision = path[-1]
            decision.taken += 1
            if decision.taken < len(decision.alternatives):
                return
            path.pop()
        self._done = True
