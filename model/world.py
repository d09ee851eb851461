"""What all parts of one modelled system share."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from harness.sync import Mutex, SpinLock
from model.borrowing import PhysicalPageBorrowingConfig
from model.faults import FaultPlan
from model.locks import DISCARDABLE_VMOS, THREAD_LOCK
from model.oracle import Oracle

if TYPE_CHECKING:
    from model.page import VmPage
    from model.page_queues import PageQueues
    from model.pmm import PmmNode


class World:
    """The kernel's globals, one set per modelled system.

    Attributes:
        discardable_lock: The singleton lock of the discardable lists.
        thread_lock: The global spinlock of wait queues, events and the interval handshake.
        defects: Names of the seed's latent defects that stand in this system.
        counters: Kernel counters by name (``physical.reclaim.*``).
        touched: Pages that changed since the last step; the invariants empty it.
        changed: Pages that changed since the PMM lock was last released; likewise.
    """

    pmm: PmmNode
    page_queues: PageQueues

    def __init__(self, *, oracle: Oracle, faults: FaultPlan, defects: frozenset[str]) -> None:
        """``pmm`` and ``page_queues`` are set by the kernel that builds the rest."""
        self.oracle = oracle
        self.faults = faults
        self.defects = defects
        self.borrowing = PhysicalPageBorrowingConfig()
        self.discardable_lock = Mutex("discardable.lock", DISCARDABLE_VMOS)
        self.thread_lock = SpinLock("thread_lock", THREAD_LOCK)
        self.counters: Counter[str] = Counter()
        self.touched: list[VmPage] = []
        self.changed: list[VmPage] = []
        self._named: Counter[str] = Counter()

    def name(self, kind: str) -> str:
        """A name for the next object of ``kind``: the kind and a number from 1."""
        self._named[kind] += 1
        return f"{kind}{self._named[kind]}"
