"""``random``: a uniform draw among the enabled threads at every step."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from harness.strategies.base import Blocks, Options, Strategy, register
from harness.strategies.lookout import Lookout

if TYPE_CHECKING:
    from harness.engine.core import Choose, Core
    from harness.engine.thread import Thread

# Draws are 16 bits wide and made 32 at a time: one digest for 32 decisions.
_DRAWS = struct.Struct("<32H")


@register
class RandomWalk(Strategy):
    """Each enabled thread is as likely as every other, at every step.

    The draw is ``bits * n >> 16``, whose bias is below n / 65536.
    """

    name = "random"

    def __init__(self, options: Options) -> None:
        """One stream of blocks for all schedules."""
        super().__init__(options)
        self._blocks = Blocks(self.name, options.seed)
        # The last one made. Were it to refer to itself, only the collector could free it.
        self._choose: Choose

    def begin(self, core: Core, schedule: int) -> Choose:
        """See ``Strategy.begin``."""
        block = self._blocks.of(schedule)
        due = Lookout(core, fair=True).due
        run = core.run
        record = core.choices.append
        draws: list[int] = [*_DRAWS.unpack(block())]
        draw = draws.pop

        def choose() -> Thread:
            core.steps = steps = core.steps + 1
            if steps > core.limit:
                return due(self._choose)
            n = len(run)
            if n == 1:
                if core.choose is self._choose:
                    core.lease = core.limit
                    if steps > core.limit:  # lowered from outside meanwhile
                        core.lease = 0
                return run[0]
            try:
                bits = draw()
            except IndexError:
                draws.extend(_DRAWS.unpack(block()))
                bits = draw()
            thread = run[bits * n >> 16]
            record(thread.index)
            return thread

        self._choose = choose
        return choose
