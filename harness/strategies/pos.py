"""``pos``: partial order sampling.

Every pending operation has a random priority, drawn when it becomes pending; the enabled one of the
highest runs. Then every other pending operation that races with it draws anew, so that an order
that was decided once does not decide all that follow.

Reference: Yuan, Yang and Gu, "Partial Order Aware Concurrency Sampling", CAV 2018, section 5. We
depart in that now and then every pending operation draws anew: one that nobody races with and that
drew low would otherwise wait as long as others go on, a schedule that we could not call fair.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from harness.strategies.base import Blocks, Options, Strategy, deciding, numbers, register
from harness.strategies.lookout import Lookout
from harness.strategies.profile import races

if TYPE_CHECKING:
    from harness.engine.core import Choose, Core
    from harness.engine.thread import Thread

# Steps after which all priorities are drawn anew.
AFRESH: Final = 32


@register
class PartialOrderSampling(Strategy):
    """Random priorities of operations, drawn anew by whoever races with one that ran."""

    name = "pos"

    def __init__(self, options: Options) -> None:
        """One stream of blocks for all schedules."""
        super().__init__(options)
        self._blocks = Blocks(self.name, options.seed)

    def begin(self, core: Core, schedule: int) -> Choose:
        """See ``Strategy.begin``."""
        draw = numbers(self._blocks.of(schedule))
        threads = core.threads

        def pick(enabled: list[Thread]) -> Thread:
            thread = highest(enabled, draw)
            kind, obj = thread.kind, thread.obj
            afresh = core.steps % AFRESH == 0
            for other in threads:
                if afresh or races(kind, obj, other):
                    other.rank = None
            thread.rank = None
            return thread

        return deciding(core, pick, always=True, lookout=Lookout(core, fair=True))


def highest(enabled: list[Thread], draw: Callable[[], int]) -> Thread:
    """The thread whose pending operation has the highest priority; draws those that are missing."""
    best = enabled[0]
    top = -1
    for thread in enabled:
        rank = thread.rank
        if rank is None:
            rank = thread.rank = draw()
        if rank > top:
            best, top = thread, rank
    return best
