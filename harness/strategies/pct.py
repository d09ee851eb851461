"""``pct``: random priorities and *d - 1* random change points.

Reference: Burckhardt et al., "A Randomized Scheduler with Probabilistic Guarantees of Finding
Bugs", ASPLOS 2010, section 4: a bug of depth *d* in a program of *n* threads and *k* steps is hit
with a probability of at least ``1 / (n * k**(d - 1))`` in every schedule.

We depart from the paper in four ways. Steps with a single enabled thread are not counted: nothing
is decided there (as section 4.1 suggests). *k* comes from pilot schedules of the same seed, as the
steps between the first decision and the end: an upper bound of the decisions in any order. Change
points are at most half of *k*: beyond that nearly every step would be one, and the schedule
would degenerate to a rotation. A thread that yields falls behind all others, or a spin loop would
never end.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final

from harness.strategies.base import Options, Strategy, register

if TYPE_CHECKING:
    from harness.engine.core import Choose, Core
    from harness.engine.thread import Thread

# A pilot that fails at its first steps says nothing of how long schedules are.
_LENGTH_MIN: Final = 8


class _Ranks:
    """Priorities of one schedule's threads, drawn when a thread is first seen."""

    __slots__ = ("_draw", "_lowest", "_run")

    def __init__(self, run: list[Thread], draw: random.Random) -> None:
        self._run = run
        self._draw = draw
        self._lowest = 0

    def demote(self, thread: Thread) -> None:
        """Put ``thread`` below all priorities there have been."""
        self._lowest -= 1
        thread.rank = self._lowest

    def highest(self) -> Thread:
        """The enabled thread of the highest priority."""
        best = None
        top = self._lowest - 1
        for thread in self._run:
            rank = thread.rank
            if rank is None:
                rank = thread.rank = self._draw.getrandbits(48)
            if rank > top:
                best = thread
                top = rank
        assert best is not None, "the strategy was asked with nothing enabled"
        return best


@register
class Pct(Strategy):
    """Run the enabled thread of the highest priority; demote the running one at change points."""

    name = "pct"
    fair = False
    needs_pilot = True

    def __init__(self, options: Options) -> None:
        """One generator for all schedules; each schedule seeds it anew."""
        super().__init__(options)
        self._random = random.Random()

    def begin(self, core: Core, schedule: int) -> Choose:
        """See ``Strategy.begin``."""
        draw = self._random
        draw.seed(self.options.stream(self.name, schedule))
        length = max(self.options.length, _LENGTH_MIN)
        changes = min(self.options.depth - 1, max(length // 2, 1))
        # Decision numbers, the next one last; a sentinel that never comes ends the list.
        points = sorted(draw.sample(range(1, length + 1), changes), reverse=True)
        points.insert(0, -1)
        run = core.run
        choices = core.choices
        ranks = _Ranks(run, draw)
        decisions = 0
        next_change = points.pop()
        # The last step that was looked at, whether it was a decision, and the step at which to look
        # again even if nothing changes. Between two looks the same threads are enabled and the same
        # one runs on, so all that is to be done can be done at the next look.
        seen = 0
        several = False
        look_at = 0

        def choose() -> Thread:
            core.steps = steps = core.steps + 1
            if steps < look_at and not core.fresh:
                return core.cur
            return look(steps)

        def look(steps: int) -> Thread:
            nonlocal decisions, next_change, seen, several, look_at
            if steps > core.limit:
                core.over()
            if several:
                passed = steps - 1 - seen
                decisions += passed
                choices.extend(choices[-1:] * passed)
            core.fresh = False
            seen = steps
            look_at = core.limit + 1
            several = len(run) > 1
            if not several:
                return run[0]
            decisions += 1
            cur = core.cur
            if decisions == next_change:
                next_change = points.pop()
                ranks.demote(cur)
            elif cur.rested == steps - 1:
                ranks.demote(cur)
            if next_change > 0:
                look_at = min(look_at, steps + next_change - decisions)
            thread = ranks.highest()
            choices.append(thread.index)
            return thread

        return choose
