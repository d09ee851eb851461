"""``portfolio``: several strategies in a fixed rotation, by the number of the schedule.

Preemptions at random places are cheap and find most lock bugs (``pct`` at depths 1 to 3); bugs that
want many switches are left to ``random``. Which member runs schedule *i* depends on *i* alone, so a
portfolio is as reproducible as its members.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from harness.strategies.base import Options, Strategy, register
from harness.strategies.pct import Pct
from harness.strategies.random_walk import RandomWalk

if TYPE_CHECKING:
    from harness.engine.core import Choose, Core

_ROTATION: Final = (2, 0, 3, 1)  # depth of pct; 0 is a random walk


@register
class Portfolio(Strategy):
    """Rotates through pct of depth 2, a random walk, pct of depth 3 or as asked, pct of depth 1."""

    name = "portfolio"
    needs_pilot = True

    def __init__(self, options: Options) -> None:
        """Make the members; they share the options but for the depth."""
        super().__init__(options)
        self._members: list[Strategy] = [self._member(depth) for depth in _ROTATION]

    def _member(self, depth: int) -> Strategy:
        if depth == 0:
            return RandomWalk(self.options)
        options = Options(
            self.options.seed, max(depth, self.options.depth) if depth == max(_ROTATION) else depth
        )
        options.length = self.options.length
        options.threads = self.options.threads
        return Pct(options)

    def begin(self, core: Core, schedule: int) -> Choose:
        """See ``Strategy.begin``."""
        return self._of(schedule).begin(core, schedule)

    def fair_in(self, schedule: int) -> bool:
        """As fair as the member whose turn it is."""
        return self._of(schedule).fair

    def _of(self, schedule: int) -> Strategy:
        return self._members[(schedule - 1) % len(self._members)]
