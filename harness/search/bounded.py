"""Every schedule with at most so many preemptions, the nearest to a failing one first.

Reference: Musuvathi and Qadeer, "Iterative Context Bounding for Systematic Testing of Multithreaded
Programs", PLDI 2007. We depart from it in the order within a bound.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

from harness.engine.core import Choose, Core
from harness.engine.thread import Thread
from harness.search.attempts import Attempt, Attempts


@dataclass(frozen=True)
class _Node:
    """A prefix of choices that is still to be run: ``parent`` and one choice more."""

    parent: _Node | None
    depth: int
    index: int

    def choices(self) -> list[int]:
        """Thread indexes of all decisions up to this one, -1 for the default."""
        found: dict[int, int] = {}
        node: _Node | None = self
        while node is not None:
            found[node.depth] = node.index
            node = node.parent
        return [found.get(depth, -1) for depth in range(self.depth + 1)]


class Bounded:
    """The search: a queue of prefixes that are still to be run.

    A schedule is the default but for some decisions. Those that switch away from a thread where the
    failing schedule does, or to a thread where the failing schedule does, are near.
    """

    def __init__(self, attempts: Attempts, failing: Attempt, bound: int) -> None:
        self._attempts = attempts
        self._bound = bound
        self._left, self._entered = _switches(failing)
        self._queue: list[tuple[int, int, _Node | None]] = [(0, 0, None)]
        self._pushed = 0

    def failing(self) -> Attempt | None:
        """The first schedule that fails; None when all have been run.

        Raises:
            SpentError: The budget is spent.
        """
        while self._queue:
            attempt = self._next()
            if attempt.fails:
                return attempt
        return None

    def passing(self, replays: int) -> Attempt | None:
        """The first of ``replays`` schedules that passes; None where none of them does.

        Raises:
            SpentError: The budget is spent.
        """
        while self._queue and replays:
            replays -= 1
            attempt = self._next()
            if attempt.passes:
                return attempt
        return None

    def _next(self) -> Attempt:
        far, _, node = heapq.heappop(self._queue)
        return self._attempts.run(lambda core: self._begin(core, far, node))

    def _begin(self, core: Core, far: int, node: _Node | None) -> Choose:
        run = core.run
        prefix = node.choices() if node is not None else []
        own: dict[int, int] = {}
        depth = 0

        def choose() -> Thread:
            nonlocal depth
            core.steps += 1
            if core.steps > core.limit:
                core.over()
            if len(run) == 1:
                thread = run[0]
            else:
                order = sorted(run, key=lambda other: (other is not core.cur, other.index))
                thread = order[0]
                if depth < len(prefix):
                    if prefix[depth] >= 0:
                        found = [other for other in run if other.index == prefix[depth]]
                        thread = found[0] if found else thread
                else:
                    self._branch(core, order, depth, far, node, own)
                depth += 1
                core.choices.append(thread.index)
            own[thread.index] = own.get(thread.index, 0) + 1
            return thread

        return choose

    def _branch(
        self,
        core: Core,
        order: Sequence[Thread],
        depth: int,
        far: int,
        node: _Node | None,
        own: dict[int, int],
    ) -> None:
        """Remember the alternatives of a decision that a prefix leads to for the first time."""
        cur = core.cur
        left = order[0]
        spent = cur.enabled and core.preemptions >= self._bound
        for other in order[1:]:
            if spent and core.costs(other):
                continue
            near = (left.index, own.get(left.index, 0)) in self._left
            near = near or (other.index, own.get(other.index, 0)) in self._entered
            self._pushed += 1
            entry = (far + (not near), self._pushed, _Node(node, depth, other.index))
            heapq.heappush(self._queue, entry)


def _switches(attempt: Attempt) -> tuple[set[tuple[int, int]], set[tuple[int, int]]]:
    """Where the schedule leaves a thread, and where it enters one: thread and its own steps."""
    own: dict[int, int] = {}
    left: set[tuple[int, int]] = set()
    entered: set[tuple[int, int]] = set()
    last: int | None = None
    for thread in attempt.order:
        if last is not None and thread != last:
            left.add((last, own[last]))
            entered.add((thread, own.get(thread, 0)))
        own[thread] = own.get(thread, 0) + 1
        last = thread
    return left, entered
