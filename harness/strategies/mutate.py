"""``mutate``: coverage-guided; schedules that showed something new, changed a little.

Schedules that showed a new class, or two operations in an order that was never seen, are kept. Each
further schedule takes one of them and either breaks off somewhere and goes on at random, or takes
other turns at a few places and follows the rest as far as it can.

Reference: the corpus of Fest (Fray's feedback-guided scheduler) and greybox fuzzing at large. We
depart in that choices are mutated, not random streams, and in that the corpus changes at fixed
schedules only, so that a schedule is still named by the seed and its number.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.strategies.base import Blocks, Options, Strategy, deciding, numbers, register
from harness.strategies.lookout import Lookout
from harness.strategies.lore import NOTHING, Lore

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from harness.engine.core import Choose, Core
    from harness.engine.thread import Thread

_TURNS_MAX = 4


@register
class Mutate(Strategy):
    """Follows a kept schedule up to a break or but for a few turns; a random walk without any."""

    name = "mutate"
    learns = 4

    def __init__(self, options: Options) -> None:
        """One stream of blocks for all schedules; nothing has been kept."""
        super().__init__(options)
        self._blocks = Blocks(self.name, options.seed)
        self._lore = NOTHING

    def learn(self, lore: Lore) -> None:
        """See ``Strategy.learn``."""
        self._lore = lore

    def begin(self, core: Core, schedule: int) -> Choose:
        """See ``Strategy.begin``."""
        draw = numbers(self._blocks.of(schedule))
        corpus = self._lore.corpus
        # The newer, the likelier.
        kept = corpus[max(draw(), draw()) * len(corpus) >> 32] if corpus else ()
        lookout = Lookout(core, fair=True)
        return deciding(core, _Follower(core, kept, draw).pick, lookout=lookout)


class _Follower:
    """Takes the choices of one schedule, changed by what ``draw`` gives."""

    def __init__(self, core: Core, kept: Sequence[int], draw: Callable[[], int]) -> None:
        self._core = core
        self._kept = kept
        self._draw = draw
        self._end = len(kept)
        self._turns: set[int] = set()
        if not kept:
            return
        if draw() & 1:
            self._end = self._position()
        else:
            for _ in range(1 + (draw() * _TURNS_MAX >> 32)):
                self._turns.add(self._position())

    def _position(self) -> int:
        return self._draw() * len(self._kept) >> 32

    def pick(self, enabled: list[Thread]) -> Thread:
        """The next thread."""
        at = len(self._core.choices)
        if at >= self._end or at in self._turns:
            return enabled[self._draw() * len(enabled) >> 32]
        wanted = self._kept[at]
        for thread in enabled:
            if thread.index == wanted:
                return thread
        # It does not fit any more: let the running thread go on.
        cur = self._core.cur
        return cur if cur.enabled and not cur.done else enabled[0]
