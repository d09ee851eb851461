"""What a thread holds, and where that stands among the sequences of classes seen before."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from harness.lockorder.classes import LockClass
from harness.lockorder.findings import SiteRef
from harness.lockorder.graph import Pair

_ALWAYS_JUDGED: Final = -1  # no schedule has this index, so such a chain never takes the hot path


class Chain:
    """A sequence of classes held, as a node of a trie; internal."""

    __slots__ = ("attempt", "count", "key", "lock_class", "muted", "next", "pairs", "schedule")

    def __init__(self, key: Any, lock_class: LockClass | None, *, muted: bool) -> None:
        """Make a node that no acquisition has reached yet."""
        self.key = key
        self.lock_class = lock_class
        self.muted = muted
        self.attempt = False  # reached by a try-acquire that left edges out
        self.next: dict[Any, Chain] = {}
        self.pairs: tuple[Pair, ...] | None = None  # None: never judged
        self.count = 0  # acquisitions not yet added to the pairs
        self.schedule = _ALWAYS_JUDGED  # the schedule in which the hot path is open


class Held(msgspec.Struct, gc=False):
    """A lock that a thread holds.

    Attributes:
        lock_class: Its class.
        address: Its instance number.
        order: The nesting order given at its acquisition.
        mode: ``exclusive`` or ``shared``.
        site: Where it was acquired.
        before: The chain that was held before it; internal.
    """

    lock_class: LockClass
    address: int
    order: int
    mode: str
    site: SiteRef
    before: Any


class HeldLocks:
    """The classed locks that one thread holds.

    Attributes:
        name: The thread's name, for findings.
        entries: The locks in the order of acquisition.
        chain: Where the thread stands among the known chains; internal.
    """

    __slots__ = ("chain", "entries", "name")

    def __init__(self, name: str = "") -> None:
        """Start with nothing held."""
        self.name = name
        self.entries: list[Held] = []
        self.chain: Any = None
