"""``urw``: a random walk that is uniform over interleavings, not over choices.

A thread is drawn with the number of steps it still has to take as its weight, so that with exact
counts and threads that never block every interleaving has the same chance: the product of the
weights telescopes to the reciprocal of the multinomial coefficient.

Reference: Zhao et al., "Selectively Uniform Concurrency Testing", ASPLOS 2025, section 3.1. We
depart in that counts are the largest of a few pilot schedules instead of those of one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.strategies.base import Blocks, Options, Strategy, deciding, numbers, register
from harness.strategies.lookout import Lookout
from harness.strategies.profile import Weights

if TYPE_CHECKING:
    from harness.engine.core import Choose, Core
    from harness.engine.thread import Thread


@register
class UniformRandomWalk(Strategy):
    """Each interleaving is as likely as every other, as far as the counts are right."""

    name = "urw"
    needs_pilot = needs_profile = True

    def __init__(self, options: Options) -> None:
        """One stream of blocks for all schedules."""
        super().__init__(options)
        self._blocks = Blocks(self.name, options.seed)

    def begin(self, core: Core, schedule: int) -> Choose:
        """See ``Strategy.begin``."""
        draw = numbers(self._blocks.of(schedule))
        weights = Weights(core, self.options.profile)

        def pick(enabled: list[Thread]) -> Thread:
            weights.meet()
            if len(enabled) == 1:
                thread = enabled[0]
            else:
                thread = weights.draw(enabled, draw())
            weights.spend(thread)
            return thread

        return deciding(core, pick, always=True, lookout=Lookout(core, fair=True))
