"""Spin loops under strategies that draw: nobody looks for one until a schedule gets long.

``Spins`` wants to be asked at every step, which is too dear where schedules are drawn by the
thousand and hardly any spins. So a schedule is looked at once it has taken a few hundred steps: if
the running thread is about to look at something, the steps that follow are watched for a while, and
from the first spin on all of them are. A thread that spins is hidden from the strategy until what
it reads has changed. A step that is not watched pays nothing: the step limit is lowered to where
the next look is due, so that a strategy asks where it would otherwise end the schedule.

Which loops spin is a guess (see ``spins``). Under a strategy that must be fair a thread that is
held may therefore still be chosen at every eighth step: slowed, never stopped, so that a schedule
without an end remains a livelock. Where threads have priorities (``urgent_first``) the most urgent
ones are all that is seen here: where those spin, they do starve the thread that they wait for.

What was chosen stands in the schedule's choices as ever; a replay needs none of this.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from harness.strategies.spins import Spins, looking

if TYPE_CHECKING:
    from harness.engine.core import Choose, Core
    from harness.engine.thread import Thread

# Steps before the first look, and steps that are watched after one that looked like a spin. With
# each watch that was in vain it takes twice as long until the next look.
STEPS: Final = 256
# Every so many steps of a fair strategy threads that are held may be chosen too.
_SHARE: Final = 8


class Lookout:
    """Takes the place of ``Core.over`` for one schedule of a strategy that draws."""

    __slots__ = ("_bound", "_core", "_end", "_fair", "_found", "_pause", "_spins")

    def __init__(self, core: Core, *, fair: bool) -> None:
        """Args: core: The engine; a schedule is about to begin. fair: Whether it must be fair."""
        self._core = core
        self._fair = fair
        self._bound = core.limit
        self._pause = self._end = STEPS
        self._spins: Spins | None = None
        self._found = False
        # ``_look_at``, written out: each schedule comes here.
        core.limit = min(core.limit, STEPS)
        if core.stop is not None:
            core.limit = 0

    def due(self, choose: Choose) -> Thread:
        """The limit is passed: look whether somebody spins, and let the strategy choose again.

        Args:
            choose: The caller, which has counted the step; it is called once more.

        Returns:
            What the caller is to return.

        Raises:
            ScheduleAborted: It was the step bound, or somebody outside asked to stop.
        """
        core = self._core
        if core.aborting or core.stop is not None or core.steps > self._bound:
            core.over()
        core.steps -= 1
        if self._spins is None:
            if not looking(core.cur):
                self._look_at(core.steps + self._pause)
                return choose()
            self._spins = Spins(core)
            self._end = core.steps + STEPS
            self._pause *= 2
        thread = self._watched(choose, self._spins)
        if self._found or core.steps < self._end:
            self._look_at(core.steps)
        else:
            self._spins = None
            self._look_at(core.steps + self._pause)
        return thread

    def _look_at(self, step: int) -> None:
        """The next look is due after ``step``."""
        core = self._core
        core.limit = min(step, self._bound)
        if core.stop is not None:  # set from outside, which has lowered the limit: keep it so
            core.limit = 0

    def _watched(self, choose: Choose, spins: Spins) -> Thread:
        """Let the strategy choose among those that do not spin."""
        core = self._core
        self._look_at(self._bound)
        core.steady = 0
        free = spins.choosing(core.run)
        if len(free) < len(core.run):
            self._found = True
            if self._fair and core.steps % _SHARE == 0:
                free = core.run
        thread = choose() if len(free) == len(core.run) else self._among(free, choose)
        spins.chosen(thread)
        core.steady = core.lease = 0
        return thread

    def _among(self, free: list[Thread], choose: Choose) -> Thread:
        """Hide all but ``free``, some of those that can run, while ``choose`` looks."""
        core = self._core
        run, choices = core.run, core.choices
        everyone, before = run[:], len(choices)
        hidden = [thread for thread in everyone if thread not in free]
        for thread in hidden:
            thread.enabled = False
        run[:] = free
        try:
            thread = choose()
        finally:
            for other in hidden:
                other.enabled = True
            run[:] = everyone
        if len(choices) == before:  # the strategy saw one thread, a replay sees them all
            choices.append(thread.index)
        return thread
