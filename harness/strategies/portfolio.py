"""``portfolio``: several strategies share the schedules; the default.

No strategy is the best for every program: ``surw`` finds what hangs on the order of the operations
on one object, ``pct`` what few preemptions at the right places bring about, ``pos`` and ``random``
what wants many switches, and ``mutate`` goes on from what was new. The first epoch gives each its
fixed share. From then on a member's share grows with how often its schedules were new, of those
that were looked at lately; none ever falls to nothing.

Which member takes schedule *i* depends on the seed, on *i*, and on the looked-at schedules of the
epochs before, which themselves do: the same for any number of processes (see ``lore``).
"""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING, Final

from harness.strategies.base import Options, Strategy, register
from harness.strategies.lore import NOTHING, UNIT, Lore, spread
from harness.strategies.mutate import Mutate
from harness.strategies.pct import Pct
from harness.strategies.pos import PartialOrderSampling
from harness.strategies.random_walk import RandomWalk
from harness.strategies.surw import SelectivelyUniform

if TYPE_CHECKING:
    from harness.engine.core import Choose, Core

# The first epoch's order of members; how often one stands here is its weight ever after.
_ROTATION: Final = (
    "pct-2", "surw", "random", "surw", "pct-3", "surw", "pos", "surw",
    "pct-2", "surw", "random", "surw", "pct-1", "surw", "pos", "surw",
)  # fmt: skip
_MUTATE: Final = 4
# No member falls below a quarter of its weight.
_LEAST: Final = 250


@register
class Portfolio(Strategy):
    """Shares schedules among surw, pct of depths 1 to 3 or as asked, pos, random and mutate."""

    name = "portfolio"
    needs_pilot = needs_profile = True
    learns = 8

    def __init__(self, options: Options) -> None:
        """Make the members; they share the options but for the depth."""
        super().__init__(options)
        self._members: dict[str, Strategy] = {
            "surw": SelectivelyUniform(options),
            "pos": PartialOrderSampling(options),
            "random": RandomWalk(options),
            "mutate": Mutate(options),
            "pct-1": self._pct(1),
            "pct-2": self._pct(2),
            "pct-3": self._pct(max(3, options.depth)),
        }
        self._weights = {name: _ROTATION.count(name) for name in self._members}
        self._weights["mutate"] = _MUTATE
        self._lore = NOTHING
        self._names: list[str] = []
        self._bounds: list[int] = []

    def _pct(self, depth: int) -> Strategy:
        options = Options(self.options.seed, depth)
        options.length = self.options.length
        options.threads = self.options.threads
        return Pct(options)

    def learn(self, lore: Lore) -> None:
        """See ``Strategy.learn``: shares, the mutated schedules, and the length that pct needs."""
        self._lore = lore
        for member in self._members.values():
            if member.learns:
                member.learn(lore)
            if isinstance(member, Pct):
                member.options.length = max(self.options.length, lore.length)
        # In whole numbers, so that every machine divides alike.
        shares = []
        for name, weight in self._weights.items():
            looked, fresh = lore.looked.get(name, 0), lore.fresh.get(name, 0)
            shares.append(weight * max(1_000 * (fresh + UNIT) // (looked + 2 * UNIT), _LEAST))
        self._names = list(self._weights)
        self._bounds = list(accumulate(shares))

    def begin(self, core: Core, schedule: int) -> Choose:
        """See ``Strategy.begin``."""
        return self._members[self.member(schedule)].begin(core, schedule)

    def fair_in(self, schedule: int) -> bool:
        """As fair as the member whose turn it is."""
        return self._members[self.member(schedule)].fair

    def member(self, schedule: int) -> str:
        """See ``Strategy.member``."""
        if self._lore is NOTHING:
            return _ROTATION[(schedule - 1) % len(_ROTATION)]
        at = spread(schedule) * self._bounds[-1] >> 24
        return next(
            name for name, bound in zip(self._names, self._bounds, strict=True) if at < bound
        )
