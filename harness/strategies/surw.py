"""``surw``: uniform over the interleavings of one shared object, random priorities elsewhere.

Each schedule picks one object that several threads use, as likely as it is used often. Whose turn
it is on that object is drawn ahead, by the number of steps that each thread still takes on it; a
thread that comes to the object out of turn is held back until the intended one has come.

Reference: Zhao et al., "Selectively Uniform Concurrency Testing", ASPLOS 2025, section 3.2 and the
choice of interesting events in its evaluation. We depart in four ways. Objects of every kind
count, not memory alone. Where nothing is shared, every step is interesting. An intended thread that
does not come to the object for a whole pilot's length is given up: it may wait, in a loop that the
engine cannot see through, for one that is held back. And now and then all priorities are drawn
anew, as under ``pos``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.strategies.base import Blocks, Options, Strategy, deciding, numbers, register
from harness.strategies.lookout import Lookout
from harness.strategies.pos import AFRESH, highest
from harness.strategies.profile import Weights

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.engine.core import Choose, Core
    from harness.engine.thread import Thread

# Steps that an intended thread has to come to its object, at least.
_PATIENCE_MIN = 64


@register
class SelectivelyUniform(Strategy):
    """Uniform over the interleavings of the steps on one object, a new one for each schedule."""

    name = "surw"
    needs_pilot = needs_profile = True

    def __init__(self, options: Options) -> None:
        """One stream of blocks for all schedules."""
        super().__init__(options)
        self._blocks = Blocks(self.name, options.seed)
        self._shared = options.profile.shared()

    def begin(self, core: Core, schedule: int) -> Choose:
        """See ``Strategy.begin``."""
        draw = numbers(self._blocks.of(schedule))
        turns = _Turns(core, self.options, self._object(draw()), draw)
        lookout = Lookout(core, fair=True)
        return deciding(core, turns.pick, always=True, lookout=lookout)

    def _object(self, number: int) -> int | None:
        """The object of one schedule, by its order of creation; None where nothing is shared."""
        at = number * sum(count for _, count in self._shared) >> 32
        for address, count in self._shared:
            at -= count
            if at < 0:
                return address
        return None


class _Turns:
    """Whose turn it is on the object of one schedule."""

    def __init__(
        self, core: Core, options: Options, address: int | None, draw: Callable[[], int]
    ) -> None:
        self._address = address
        self._draw = draw
        self._weights = Weights(core, options.profile, address)
        self._patience = max(options.length, _PATIENCE_MIN)
        self._intended: Thread | None = None
        self._held: set[int] = set()
        self._since = 0
        self._core = core
        self._threads = core.threads
        self._met = 0

    def pick(self, enabled: list[Thread]) -> Thread:
        """The next thread: by priority, but on the object by turns."""
        if len(self._threads) != self._met:
            self._meet()
        if self._core.steps % AFRESH == 0:
            for other in self._threads:
                other.rank = None
        held = self._held
        if held and self._core.steps - self._since > self._patience:
            self._forget()
        while True:
            free = [thread for thread in enabled if thread.index not in held] if held else enabled
            if not free:
                self._forget()
                continue
            thread = highest(free, self._draw)
            if not self._interesting(thread):
                break
            intended = self._intended
            if intended is None:
                intended = self._intended = self._weights.draw(free, self._draw())
            if thread is intended:
                self._weights.spend(thread)
                self._forget()
                break
            if not held:
                self._since = self._core.steps
            held.add(thread.index)
        thread.rank = None
        return thread

    def _meet(self) -> None:
        """Threads were started: the turn may have been meant for what is a child's now."""
        self._met = len(self._threads)
        for parent, child, before, whole in self._weights.meet():
            if parent is self._intended and self._draw() * before >> 32 < whole:
                self._intended = child

    def _interesting(self, thread: Thread) -> bool:
        if self._address is None:
            return True
        return getattr(thread.obj, "address", None) == self._address

    def _forget(self) -> None:
        """Nobody is intended any more and nobody held back."""
        self._intended = None
        self._held.clear()
