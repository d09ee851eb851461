"""Looking at a schedule while it runs: which thread took each step, on what, beside whom.

A log costs a call and an append a step, so only some schedules are looked at; which ones is a
function of their number alone.
"""

from __future__ import annotations

from typing import Any, Final

from harness.engine.core import Choose, Core
from harness.engine.finding import place, place_of
from harness.engine.thread import Thread
from harness.strategies.lore import spread, thinning

# The first schedules are all looked at, then one in so many, fewer where there are very many; and
# one in so many runs twice.
LOOKED_FIRST: Final = 32
LOOKED_EVERY: Final = 64
TWICE_EVERY: Final = 512

Place = tuple[Any, int]


def looked_at(schedule: int) -> bool:
    """Whether schedule number ``schedule`` (from 1) is looked at."""
    if spread(schedule) % LOOKED_EVERY:
        return schedule <= LOOKED_FIRST
    # What is kept of those grows with their number: over hours, ever fewer.
    return spread(schedule) % (LOOKED_EVERY << thinning(schedule)) == 0


def run_twice(schedule: int, every: int) -> bool:
    """Whether schedule number ``schedule`` is run a second time.

    Args:
        schedule: From 1.
        every: About one in so many; 0 for none.
    """
    return every > 0 and spread(schedule) % every == 0


class Log:
    """The steps of one schedule; to be read before the next one begins.

    Attributes:
        steps: Of each step who took it, its operation, what that was on, and how many threads could
            have run.
        enabled: Who could have run; empty where nobody else could. Only if asked for, as places.
        places: Where each operation stands.
    """

    __slots__ = ("enabled", "places", "steps")

    def __init__(self) -> None:
        """Nothing has happened yet."""
        self.steps: list[tuple[Thread, str, Any, int]] = []
        self.enabled: list[tuple[Thread, ...]] = []
        self.places: list[Place] = []

    def watching(self, core: Core, inner: Choose) -> Choose:
        """Wrap the strategy's ``choose``."""
        note = self.steps.append
        run = core.run

        def choose() -> Thread:
            thread = inner()
            note((thread, thread.kind, thread.obj, len(run)))
            return thread

        return choose

    def locating(self, core: Core, inner: Choose) -> Choose:
        """The same, and notes where each operation stands, and who could have run."""
        watching = self.watching(core, inner)
        run = core.run
        published: dict[int, Place] = {}

        def choose() -> Thread:
            cur = core.cur
            if not cur.done:
                published[cur.index] = place()
            thread = watching()
            self.enabled.append(tuple(run) if len(run) > 1 else ())
            known = published.get(thread.index)
            # The first operation of a thread is published while it is being started.
            self.places.append(place_of(thread) if known is None else known)
            return thread

        return choose
