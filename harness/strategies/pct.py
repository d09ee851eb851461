"""``pct``: random priorities and *d - 1* random change points.

Reference: Burckhardt et al., "A Randomized Scheduler with Probabilistic Guarantees of Finding
Bugs", ASPLOS 2010, section 4: a bug of depth *d* in a program of *n* threads and *k* steps is hit
with a probability of at least ``1 / (n * k**(d - 1))`` in every schedule.

We depart from the paper in four ways. Steps with a single enabled thread are not counted: nothing
is decided there (as section 4.1 suggests). *k* comes from pilot schedules of the same seed, as the
steps between the first decision and the end: an upper bound of the decisions in any order. Change
points are at most half of *k*: beyond that nearly every step would be one, and the schedule
would degenerate to a rotation. A thread that yields falls behind all others, or a loop that waits
politely would never end; for those that just spin see ``lookout``.
"""

from __future__ import annotations

import random
from operator import attrgetter
from typing import TYPE_CHECKING, Final

from harness.strategies.base import Options, Strategy, register
from harness.strategies.lookout import Lookout

if TYPE_CHECKING:
    from harness.engine.core import Choose, Core
    from harness.engine.thread import Thread

# A pilot that fails at its first steps says nothing of how long schedules are.
_LENGTH_MIN: Final = 8
_NEVER: Final = 1 << 62
_rank: Final = attrgetter("rank")


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
        # What it inherits; its own looks first for other kinds of seeds.
        self._seed = super(random.Random, self._random).seed
        self._stream = options.stream(self.name, 0)
        # The last one made. Were it to refer to itself, only the collector could free it.
        self._choose: Choose

    def begin(self, core: Core, schedule: int) -> Choose:
        """See ``Strategy.begin``."""
        draw = self._random
        self._seed(self._stream | schedule)
        length = max(self.options.length, _LENGTH_MIN)
        changes = min(self.options.depth - 1, max(length // 2, 1))
        # Decision numbers, the next one last; one that never comes ends the list.
        points = [_NEVER, *sorted(sample(draw, length, changes), reverse=True)]
        due = Lookout(core, fair=False).due
        run, choices = core.run, core.choices
        decisions = lowest = 0
        next_change = points.pop()
        # The last step that was looked at, and whether it was a decision. Between two looks the
        # same threads are enabled and the same one runs on, so all that is to be done can be done
        # at the next look.
        seen = 0
        several = False

        def choose() -> Thread:
            nonlocal decisions, lowest, next_change, seen, several
            core.steps = steps = core.steps + 1
            if steps <= core.steady:
                return core.cur
            until = core.limit
            if steps > until:
                return due(self._choose)
            if several and steps - seen > 1:
                passed = steps - 1 - seen
                decisions += passed
                choices.extend(choices[-1:] * passed)
            seen = steps
            several = len(run) > 1
            if several:
                decisions += 1
                cur = core.cur
                change = decisions == next_change
                if change:
                    next_change = points.pop()
                if change or cur.rested == steps - 1:
                    lowest -= 1
                    cur.rank = lowest
                until = min(until, steps + next_change - decisions - 1)
                thread = run[0]
                try:
                    for other in run:
                        if other.rank > thread.rank:
                            thread = other
                except TypeError:  # somebody is new
                    draw_ranks(run, draw)
                    thread = max(run, key=_rank)
                choices.append(thread.index)
            else:
                thread = run[0]
            core.steady = until
            if core.choose is self._choose:
                core.lease = until
            if steps > core.limit:  # lowered from outside meanwhile
                core.steady = core.lease = 0
            return thread

        self._choose = choose
        return choose


def draw_ranks(run: list[Thread], draw: random.Random) -> None:
    """Give a priority to each thread that has none."""
    for thread in run:
        if thread.rank is None:
            thread.rank = draw.getrandbits(48)


def sample(draw: random.Random, length: int, count: int) -> list[int]:
    """What ``draw.sample(range(1, length + 1), count)`` gives, in a fifth of the time where few."""
    if count > 5:
        return draw.sample(range(1, length + 1), count)
    numbers: list[int] = []
    if length > 21:
        bits = length.bit_length()
        while len(numbers) < count:
            number = draw.getrandbits(bits) + 1
            if number <= length and number not in numbers:
                numbers.append(number)
        return numbers
    left = [*range(1, length + 1)]
    while len(numbers) < count:
        bits = len(left).bit_length()
        place = draw.getrandbits(bits)
        if place < len(left):
            numbers.append(left[place])
            left[place] = left[-1]
            left.pop()
    return numbers
