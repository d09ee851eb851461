"""Operations of ``Kernel`` on single pages: pins, replacement, hints, writing back, sweeps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.sync import current_thread
from model.event import resume_after_suspend
from model.page import PAGE_SIZE
from model.pinned import PinnedVmObject
from model.status import Status

if TYPE_CHECKING:
    from model.loan_sweeper import LoanSweeper
    from model.vmo import VmObjectPaged
    from model.world import World


class PageOperations:
    """The part of ``Kernel`` that is about what happens to pages that are in a VMO.

    Attributes:
        sweeper: Moves content into loaned pages, or out of them.
    """

    _world: World
    sweeper: LoanSweeper

    # -- pins -----------------------------------------------------------------------------------

    def pin(
        self,
        vmo: VmObjectPaged,
        first: int = 0,
        count: int | None = None,
        *,
        reuse_request: bool = False,
    ) -> tuple[Status, PinnedVmObject | None]:
        """Commit pages and pin them, as a device driver does before it lets a device at them.

        Args:
            vmo: A lender or a borrower; of a borrower, loaned pages are replaced first.
            first: First page.
            count: Number of pages; None for all from ``first`` on.
            reuse_request: As later kernels do: a request is given up as soon as some pages can be
                pinned, and sent anew for the rest.

        Returns:
            OK and what keeps the pages pinned, for ``unpin``; BAD_HANDLE, OUT_OF_RANGE,
            INVALID_ARGS (no pages), BAD_STATE (detached), UNAVAILABLE (pinned too often),
            NO_MEMORY, or INTR_KILLED.
        """
        if not self._use(vmo):
            return Status.BAD_HANDLE, None
        offset, length = span_of(vmo, first, count)
        while True:
            status = vmo.commit_range_pinned(offset, length, reuse_request=reuse_request)
            if status is not Status.INTR_RETRY or not resume_after_suspend(current_thread()):
                break
        pinned = PinnedVmObject(vmo, offset, length) if status is Status.OK else None
        vmo.release()
        return status, pinned

    def unpin(self, pinned: PinnedVmObject) -> None:
        """Let the pages go; may destroy the VMO, if its handle is closed."""
        pinned.unpin()

    # -- replacement ----------------------------------------------------------------------------

    def replace_page(self, vmo: VmObjectPaged, page: int = 0, *, with_loaned: bool) -> Status:
        """Put another physical page with the same content in the place of one of a borrower.

        Returns:
            OK, BAD_HANDLE, NOT_FOUND (absent), BAD_STATE (it must stay), NOT_SUPPORTED (may not
            borrow), or NO_MEMORY.
        """
        if not self._use(vmo):
            return Status.BAD_HANDLE
        status = vmo.replace_page(page * PAGE_SIZE, with_loaned=with_loaned)
        vmo.release()
        return status

    def sweep(self) -> int:
        """Run the loan sweeper over all pages; returns how many it replaced."""
        return self.sweeper.force_synchronous_sweep()

    def age(self) -> int:
        """Begin a generation of pages, borrowing for those in use; returns how many borrowed."""
        return self._world.page_queues.rotate_pager_backed_queues()

    def process_queues(self) -> int:
        """Empty the oldest generation, borrowing for pages in use; returns how many borrowed."""
        return self._world.page_queues.process_dont_need_and_lru_queues()

    def start_queue_threads(self, active_ratio_multiplier: int) -> None:
        """Start the threads that let pages grow old; ``stop_queue_threads`` must follow.

        Args:
            active_ratio_multiplier: A generation begins while this many times the pages in use are
                more than the others.
        """
        self._world.page_queues.threads.start()
        self._world.page_queues.set_active_ratio_multiplier(active_ratio_multiplier)

    def stop_queue_threads(self) -> None:
        """Let the threads of the page queues end, and wait for that."""
        self._world.page_queues.threads.stop()

    def start_sweeper_thread(self) -> None:
        """Start the sweeper's thread; ``stop_sweeper_thread`` must follow."""
        self.sweeper.init()

    def wake_sweeper_thread(self) -> None:
        """Have the sweeper's thread sweep."""
        self.sweeper.enable_continuous_sweep()

    def stop_sweeper_thread(self) -> None:
        """Let the sweeper's thread end, and wait for that."""
        self.sweeper.destroy()

    # -- hints and writing ----------------------------------------------------------------------

    def always_need(self, vmo: VmObjectPaged, first: int = 0, count: int | None = None) -> Status:
        """Hint that pages be kept: they are committed, and replaced where they are loaned.

        Returns:
            OK, BAD_HANDLE, OUT_OF_RANGE, or why a page could not be had.
        """
        if not self._use(vmo):
            return Status.BAD_HANDLE
        status = vmo.hint_always_need(*span_of(vmo, first, count))
        vmo.release()
        return status

    def dont_need(self, vmo: VmObjectPaged, first: int = 0, count: int | None = None) -> Status:
        """Hint that pages be the next to be evicted. Returns OK, BAD_HANDLE, OUT_OF_RANGE."""
        if not self._use(vmo):
            return Status.BAD_HANDLE
        status = vmo.hint_dont_need(*span_of(vmo, first, count))
        vmo.release()
        return status

    def dirty_pages(self, vmo: VmObjectPaged, first: int = 0, count: int | None = None) -> Status:
        """Agree to writes, as a pager does that traps them: the pages are dirty from here on.

        Returns:
            OK, BAD_HANDLE, NOT_SUPPORTED (not trapped), OUT_OF_RANGE, or NOT_FOUND (evicted).
        """
        if not self._use(vmo):
            return Status.BAD_HANDLE
        status = vmo.dirty_pages(*span_of(vmo, first, count))
        vmo.release()
        return status

    def dirty_ranges(
        self, vmo: VmObjectPaged, first: int = 0, count: int | None = None
    ) -> list[int]:
        """Numbers of the pages that a pager has to write back; none for a closed handle."""
        if not self._use(vmo):
            return []
        offsets = vmo.dirty_offsets(*span_of(vmo, first, count))
        vmo.release()
        return [offset // PAGE_SIZE for offset in offsets]

    def writeback_begin(
        self, vmo: VmObjectPaged, first: int = 0, count: int | None = None
    ) -> Status:
        """Begin to write pages back: read them now. Returns OK, BAD_HANDLE, OUT_OF_RANGE."""
        if not self._use(vmo):
            return Status.BAD_HANDLE
        status = vmo.writeback_begin(*span_of(vmo, first, count))
        vmo.release()
        return status

    def writeback_end(self, vmo: VmObjectPaged, first: int = 0, count: int | None = None) -> Status:
        """Pages that were begun with are clean, unless they were written meanwhile.

        Returns:
            OK, BAD_HANDLE, or OUT_OF_RANGE.
        """
        if not self._use(vmo):
            return Status.BAD_HANDLE
        status = vmo.writeback_end(*span_of(vmo, first, count))
        vmo.release()
        return status

    def mark_latency_sensitive(self, vmo: VmObjectPaged) -> Status:
        """Let ``vmo`` borrow no more; pages that it has stay. Returns OK or BAD_HANDLE."""
        if not self._use(vmo):
            return Status.BAD_HANDLE
        vmo.mark_as_latency_sensitive()
        vmo.release()
        return Status.OK

    # -- switches and numbers -------------------------------------------------------------------

    def ppb(
        self,
        *,
        loaning: bool | None = None,
        in_supplypages: bool | None = None,
        on_mru: bool | None = None,
    ) -> str:
        """Set those switches of borrowing that are given; return all of them, and the numbers.

        Kernel: the console command ``k ppb``.
        """
        borrowing = self._world.borrowing
        if loaning is not None:
            borrowing.set_loaning_enabled(loaning)
        if in_supplypages is not None:
            borrowing.set_borrowing_in_supplypages_enabled(in_supplypages)
        if on_mru is not None:
            borrowing.set_borrowing_on_mru_enabled(on_mru)
        numbers = " ".join(f"{name} {value}" for name, value in self.memory_stats().items())
        return f"{borrowing}\n{numbers}"

    def memory_stats(self) -> dict[str, int]:
        """Pages by kind, as far as the model has them.

        Locks: takes the PMM lock, then the page queues lock.
        Kernel: ``zx_info_kmem_stats``, in pages. Omits: heaps, tables, IPC.
        """
        pmm = self._world.pmm
        with pmm.lock:
            counts = {
                "total": len(pmm.pages),
                "free": int(pmm.free_count),
                "free_loaned": int(pmm.free_loaned_count),
                "loaned": int(pmm.loaned_count),
                "loan_cancelled": int(pmm.loan_cancelled_count),
            }
        queues = self._world.page_queues.queue_counts()
        counts["vmo"] = sum(queues.values())
        counts["wired"] = queues["Wired"]
        return counts

    def attributed(self, vmo: VmObjectPaged, first: int = 0, count: int | None = None) -> int:
        """How many pages of the range are there; 0 for a closed handle."""
        if not self._use(vmo):
            return 0
        pages = vmo.attributed_pages_in_range(*span_of(vmo, first, count))
        vmo.release()
        return pages

    def pinned_pages(self, vmo: VmObjectPaged) -> int:
        """How many pages of ``vmo`` are pinned; 0 for a closed handle."""
        if not self._use(vmo):
            return 0
        pages = vmo.pinned_pages()
        vmo.release()
        return pages

    def _use(self, vmo: VmObjectPaged) -> bool:
        """Look a handle up: a reference for the length of one operation, unless it is closed."""
        return vmo.try_use()


def span_of(vmo: VmObjectPaged, first: int, count: int | None) -> tuple[int, int]:
    """Offset and length in bytes."""
    pages = vmo.size // PAGE_SIZE - first if count is None else count
    return first * PAGE_SIZE, pages * PAGE_SIZE
