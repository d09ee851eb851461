"""The two threads under which pages grow old: one begins generations, the other empties them.

The MRU thread sleeps until too many pages count as in use, and begins a generation. There are only
so many: where the oldest one has to be emptied first, it waits for the LRU thread, which sleeps
until then, and borrows for pages in use on the way.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

from harness.sync import Atomic, Semaphore, Thread, spawn
from model.event import AutounsignalEvent

if TYPE_CHECKING:
    from model.page_queues import PageQueues
    from model.world import World


class AgeReason(enum.Enum):
    """Why a generation begins. Kernel: ``PageQueues::AgeReason``. Omits: timeouts."""

    NONE = "none"
    ACTIVE_RATIO = "active_ratio"


class QueueThreads:
    """The threads of one ``PageQueues``, and what they wait for.

    Attributes:
        aging_event: The MRU thread may have to begin a generation.
        lru_event: The LRU thread may have to empty one.
        mru_semaphore: Generations that may still begin before one has to be emptied.

    Kernel: ``PageQueues``, its part about threads. Omits: the times between which the MRU thread
    may run and must run, and aging that is switched off.
    """

    def __init__(self, world: World, page_queues: PageQueues, generations: int) -> None:
        """No threads; whoever ages the queues does everything. No schedule points."""
        self._world = world
        self._page_queues = page_queues
        self.aging_event = AutounsignalEvent(world, "pq.aging_event")
        self.lru_event = AutounsignalEvent(world, "pq.lru_event")
        self.mru_semaphore = Semaphore(generations - 1, "pq.mru_semaphore")
        self._mru_shutdown = Atomic(False, "pq.mru_shutdown")
        self._lru_shutdown = Atomic(False, "pq.lru_shutdown")
        self._mru: Thread | None = None
        self._lru: Thread | None = None

    @property
    def running(self) -> bool:
        """Whether there are threads; no schedule point."""
        return self._lru is not None

    def start(self) -> None:
        """Start both threads; there are none yet. Kernel: ``PageQueues::StartThreads``."""
        self._mru_shutdown.store(False)
        self._lru_shutdown.store(False)
        self._lru = spawn(self.lru_thread, name="page-queue-lru-thread")
        self._mru = spawn(self.mru_thread, name="page-queue-mru-thread")

    def stop(self) -> None:
        """Let both threads end, and wait for that; nobody else ages the queues meanwhile.

        Locks: none may be held.
        Kernel: ``PageQueues::StopThreads``.
        """
        # This one first: it may be waiting for the other.
        if self._mru is not None:
            self._mru_shutdown.store(True)
            self.aging_event.signal()
            self._mru.join()
        if self._lru is not None:
            self._lru_shutdown.store(True)
            self.lru_event.signal()
            self._lru.join()
        self._mru = self._lru = None

    def mru_thread(self) -> None:
        """Begin a generation whenever there is a reason to.

        Locks: none held; takes the page queues lock.
        Kernel: ``PageQueues::MruThread``.
        """
        while not self._mru_shutdown.load():
            reason = self._page_queues.get_age_reason()
            if reason is AgeReason.NONE:
                self.aging_event.wait(interruptible=False)
                continue
            self._page_queues.rotate_pager_backed_queues()
            self._world.counters[f"pq.aging.reason.{reason.value}"] += 1
            self.maybe_trigger_lru_processing()

    def lru_thread(self) -> None:
        """Empty the oldest generation whenever that has to be.

        Locks: none held; takes the page queues lock, and VMO locks.
        Kernel: ``PageQueues::LruThread``.
        """
        while not self._lru_shutdown.load():
            self.lru_event.wait(interruptible=False)
            if self._page_queues.needs_lru_processing():
                self._page_queues.process_dont_need_and_lru_queues()

    def maybe_trigger_lru_processing(self) -> None:
        """Wake the LRU thread if it has something to do.

        Locks: takes the page queues lock, then the thread lock.
        Kernel: ``PageQueues::MaybeTriggerLruProcessing``.
        """
        if self._page_queues.needs_lru_processing():
            self.lru_event.signal()

    def wait_for_room(self) -> None:
        """Wait until the LRU thread has emptied a generation.

        Locks: none may be held.
        Kernel: part of ``PageQueues::RotatePagerBackedQueues``.
        """
        self._world.counters["pq.aging.blocked_on_lru"] += 1
        self.maybe_trigger_lru_processing()
        self.mru_semaphore.acquire()
