"""``round-robin``: every enabled thread takes as many steps in turn as the schedule's number."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.strategies.base import Strategy, deciding, register
from harness.strategies.lookout import Lookout

if TYPE_CHECKING:
    from harness.engine.core import Choose, Core
    from harness.engine.thread import Thread


@register
class RoundRobin(Strategy):
    """The next enabled thread after the one that took the last step, in the order of creation.

    Schedule *i* lets each thread take *i* steps in a row, so that schedules differ.
    """

    name = "round-robin"
    samples = False

    def begin(self, core: Core, schedule: int) -> Choose:
        """See ``Strategy.begin``."""
        taken = 0

        def pick(enabled: list[Thread]) -> Thread:
            nonlocal taken
            cur = core.cur
            if cur.enabled and taken < schedule and cur.rested != core.steps - 1:
                taken += 1
                return cur
            taken = 1
            for thread in enabled:
                if thread.index > cur.index:
                    return thread
            return enabled[0]

        return deciding(core, pick, lookout=Lookout(core, fair=True))
