"""The loan sweeper: goes over all pages and moves content to where it should be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from harness.sync import Mutex, requires
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

    Kernel: ``LoanSweeper``. Omits: the thread, partial sweeps.
    """

    def __init__(self, world: World) -> None:
        """Sweeps when asked. No schedule points."""
        self._world = world
        self.lock = Mutex("loan_sweeper.lock", LOAN_SWEEPER)

    def force_synchronous_sweep(self) -> int:
        """Look at every page once; stop where memory runs out.

        Returns:
            How many pages were replaced.

        Locks: holds ``lock`` throughout; takes page queues, VMO and PMM locks.
        Kernel: ``LoanSweeper::ForceSynchronousSweep``.
        """
        replaced = 0
        with self.lock:
            for page in self._world.pmm.pages:
                status = self._sweep_page_locked(page)
                if status is Status.NO_MEMORY:
                    break
                replaced += status is Status.OK
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
