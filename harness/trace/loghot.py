"""``HOT001``: a lock that was held far longer than usual while others waited for it.

Judged where a log's time is time. In a controlled run it is the step, and who goes on when is the
strategy's doing: that says nothing about speed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, NamedTuple, Protocol

from harness.lockorder.findings import Finding, Witness
from harness.lockorder.rules import LockRules
from harness.trace.events import Site
from harness.trace.locklog import Event

NANOSECONDS: Final = {"mono_ns": 1, "ns": 1, "us": 1_000, "s": 1_000_000_000}
"""What a unit of a log's time is, by the ``clock`` of its header."""

# With fewer holds nobody can say what is usual.
_HOLDS_MIN: Final = 16
_TIMES_USUAL: Final = 16
_UNITS: Final = (("s", 1e9), ("ms", 1e6), ("us", 1e3))


class Run(Protocol):
    """What the rule needs of a run."""

    index: int
    rules: LockRules

    def label(self, lock: int) -> str:
        """Name the class of a lock; the lock itself where it has none."""

    def place(self, event: Event) -> Site | None:
        """Return the place of an event."""

    def thread_name(self, tid: int) -> str:
        """Name a thread."""


class _Longest(NamedTuple):
    """The longest hold of a class for which somebody waited."""

    lasted: int  # nanoseconds
    taken: Event
    given: Event
    waiters: tuple[Event, ...]


class LogHot:
    """Follows who holds and who waits in one run; memory is that of its locks and classes."""

    def __init__(self, run: Run, nanoseconds: int) -> None:
        """Args: run: Whose events follow. nanoseconds: What a unit of its time is."""
        self._run = run
        self._unit = nanoseconds
        self._taken: dict[tuple[int, int], Event] = {}  # (thread, lock) -> when it was acquired
        self._waiting: dict[int, dict[int, Event]] = {}  # lock -> thread -> its request
        # Class -> powers of two -> how many holds lasted about so long.
        self._usual: dict[str, dict[int, int]] = {}
        self._longest: dict[str, _Longest] = {}

    def play(self, events: Iterable[Event]) -> None:
        """Follow events."""
        for event in events:
            play = _PLAYS.get(event.op)
            if play is not None:
                play(self, event)

    def _ask(self, event: Event) -> None:
        self._waiting.setdefault(event.obj, {})[event.tid] = event

    def _give_up(self, event: Event) -> None:
        self._waiting.get(event.obj, {}).pop(event.tid, None)

    def _take(self, event: Event) -> None:
        self._give_up(event)
        self._taken.setdefault((event.tid, event.obj), event)

    def _give(self, event: Event) -> None:
        taken = self._taken.pop((event.tid, event.obj), None)
        if taken is None:
            return
        lasted = int((event.ts - taken.ts) * self._unit)
        label = self._run.label(event.obj)
        usual = self._usual.setdefault(label, {})
        power = lasted.bit_length()
        usual[power] = usual.get(power, 0) + 1
        waiting = self._waiting.get(event.obj)
        known = self._longest.get(label)
        if waiting and (known is None or lasted > known.lasted):
            self._longest[label] = _Longest(lasted, taken, event, tuple(waiting.values()))

    def close(self) -> None:
        """The run has ended: what was usual is known."""
        for label, longest in sorted(self._longest.items()):
            holds = sum(self._usual[label].values())
            bound = 1 << _middle(self._usual[label])
            if holds >= _HOLDS_MIN and longest.lasted >= _TIMES_USUAL * bound:
                self._report(label, longest, holds, bound)

    def _report(self, label: str, longest: _Longest, holds: int, bound: int) -> None:
        run = self._run
        first, *others = longest.waiters
        holder, waiter = run.thread_name(longest.taken.tid), run.thread_name(first.tid)
        more = f" and {len(others)} more" if others else ""
        message = (
            f"{holder} held {label} for {_shown(longest.lasted)} while {waiter}"
            f"{more} waited; half of its {holds:,} holds took less than {_shown(bound)}"
        )
        held = Witness(
            outer=label,
            inner="",
            inner_mode="",
            outer_site=run.place(longest.taken),
            inner_site=run.place(longest.given),
            thread=holder,
            schedule=run.index,
            outer_address=longest.taken.obj,
        )
        wanted = Witness(
            outer="",
            inner=label,
            inner_site=run.place(first),
            thread=waiter,
            schedule=run.index,
            inner_address=first.obj,
        )
        run.rules.record(
            Finding(
                rule="HOT001",
                result="HeldLong",
                tier="latent",
                message=message,
                classes=(label,),
                edges=(held, wanted),
                schedule=run.index,
                thread=holder,
            )
        )


def _middle(usual: dict[int, int]) -> int:
    """Return the power of two below which half of the holds lie."""
    left = sum(usual.values()) / 2
    for power in sorted(usual):
        left -= usual[power]
        if left <= 0:
            return power
    return 0


def _shown(nanoseconds: int) -> str:
    """Show a time in the unit that fits."""
    unit, size = next((each for each in _UNITS if nanoseconds >= each[1]), ("ns", 1))
    return f"{nanoseconds / size:.3g} {unit}"


_PLAYS: Final[dict[str, Callable[[LogHot, Event], None]]] = {
    "req": LogHot._ask,
    "acq": LogHot._take,
    "fail": LogHot._give_up,
    "rel": LogHot._give,
}
