"""The loan sweeper: goes over all pages and moves content to where it should be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from harness.sync import Atomic, Mutex, Thread, requires, spawn
from model.event import AutounsignalEvent
from model.locks import LOAN_SWEEPER
from model.status import Status

if TYPE_CHECKING:
    from model.page import VmPage
    from model.world import World

# How often a page is followed that keeps moving.
CHASES_MAX: Final = 3


class LoanSweeper:
    """Moves content into loaned pages, or out of them where borrowing is off.

    Attributes:
        lock: One sweep at a time; taken before every other lock.

    Kernel: ``LoanSweeper``. Omits: sweeping on and on while that is enabled (each enabling is one
    sweep of the thread), and going on where the last sweep ended.
    """

    def __init__(self, world: World) -> None:
        """Sweeps when asked, without a thread. No schedule points."""
        self._world = world
        self.lock = Mutex("loan_sweeper.lock", LOAN_SWEEPER)
        self._unblock_thread_loop = AutounsignalEvent(world, "loan_sweeper.unblock_thread_loop")
        self._continuous_sweep_enabled = Atomic(False, "loan_sweeper.continuous_sweep_enabled")
        self._exiting = Atomic(False, "loan_sweeper.exiting")
        self._thread: Thread | None = None

    def init(self) -> None:
        """Start the thread; there is none yet. Kernel: ``LoanSweeper::Init``."""
        self._exiting.store(False)
        self._thread = spawn(self.thread_loop, name="loan-sweeper-thread")

    def destroy(self) -> None:
        """Let the thread end, a sweep of it quickly, and wait for that.

        Locks: none may be held.
        Kernel: ``~LoanSweeper``.
        """
        if self._thread is not None:
            self.disable_continuous_sweep()
            self._exiting.store(True)
            self._unblock_thread_loop.signal()
            self._thread.join()
        self._thread = None

    def enable_continuous_sweep(self) -> None:
        """Have the thread sweep. Locks: takes the thread lock.

        Kernel: ``LoanSweeper::EnableContinuousSweep``.
        """
        self._continuous_sweep_enabled.store(True)
        self._unblock_thread_loop.signal()

    def disable_continuous_sweep(self) -> None:
        """Have the thread sweep no more, nor go on with a sweep. Locks: takes the thread lock.

        Kernel: ``LoanSweeper::DisableContinuousSweep``.
        """
        self._continuous_sweep_enabled.store(False)
        self._unblock_thread_loop.unsignal()

    def thread_loop(self) -> None:
        """Sweep whenever that is enabled. Locks: none held; as a sweep.

        Kernel: ``LoanSweeper::ThreadLoop``.
        """
        while not self._exiting.load():
            self._unblock_thread_loop.wait(interruptible=False)
            if self._continuous_sweep_enabled.load():
                self.force_synchronous_sweep(is_continuous_sweep=True)

    def force_synchronous_sweep(self, *, is_continuous_sweep: bool = False) -> int:
        """Look at every page once; stop where memory runs out.

        Args:
            is_continuous_sweep: Stop as soon as continuous sweeps are disabled.

        Returns:
            How many pages were replaced.

        Locks: holds ``lock`` throughout; takes page queues, VMO and PMM locks.
        Kernel: ``LoanSweeper::ForceSynchronousSweep``.
        """
        replaced = 0
        with self.lock:
            for page in self._world.pmm.pages:
                if is_continuous_sweep and not self._continuous_sweep_enabled.load():
                    break
                status = self._sweep_page_locked(page)
                if status is Status.NO_MEMORY:
                    break
                replaced += status is Status.OK
        self._world.counters["vm.reclamation.sweep_pages_swept"] += replaced
        return replaced

    @requires("lock")
    def _sweep_page_locked(self, page: VmPage) -> Status:
        """Replace ``page`` where some VMO has it and it is of the wrong kind.

        Returns:
            OK where it was replaced; NOT_FOUND where there is nothing to do, or it cannot be caught
            up with; else why it stays.
        """
        for _ in range(CHASES_MAX):
            borrow = self._world.borrowing.is_any_borrowing_enabled()
            if self._world.pmm.is_loaned(page) is borrow:
                break
            # Nobody to wait for: who has no lender's claim leaves a page in transit alone.
            backlink = self._world.page_queues.get_cow_with_replaceable_page(page, None)
            if backlink is None:
                break
            container = backlink.container
            status = container.replace_page(page, backlink.offset, with_loaned=borrow)
            container.release()
            if status is not Status.NOT_FOUND:
                return status
        return Status.NOT_FOUND
