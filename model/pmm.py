"""The physical memory manager: free lists, loans, and the limbo between them.

A FREE page is on ``free_list`` (nobody loaned it), on ``free_loaned_list`` (loaned, may be
borrowed), or, where its loan is cancelled, on no list at all: in *limbo*, so that nobody can borrow
it while its lender is taking it back.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final

from harness.sync import Mutex, guarded_by, requires
from model.asserts import kassert
from model.locks import PMM_NODE
from model.page import PAGE_SIZE, PageList, PageState, VmPage
from model.solpi import current_interval
from model.status import Status

if TYPE_CHECKING:
    from model.world import World

ARENA_BASE: Final = 0x10_0000


class AllocFlag(enum.IntFlag):
    """Which pages an allocation may return. Kernel: ``PMM_ALLOC_FLAG_*``."""

    ANY = 0
    CAN_BORROW = 1
    MUST_BORROW = 2


class PmmNode:
    """All physical pages of one modelled system.

    Attributes:
        lock: Guards both lists, the counters, the loan bits and FREE <-> ALLOC.
        pages: Every page, in address order; never changes.

    Kernel: ``PmmNode``. Omits: arenas, watermarks, delayed allocation, asan's tail frees.
    """

    free_count = guarded_by("lock")
    free_loaned_count = guarded_by("lock")
    loaned_count = guarded_by("lock")
    loan_cancelled_count = guarded_by("lock")

    def __init__(self, world: World, page_count: int) -> None:
        """All pages FREE. No schedule points."""
        self._world = world
        self.lock = Mutex("pmm.lock", PMM_NODE, invariant=world.oracle.pmm_lock(self))
        self.free_list = PageList("free_list")
        self.free_loaned_list = PageList("free_loaned_list")
        self.pages = [
            VmPage(world, index, ARENA_BASE + index * PAGE_SIZE) for index in range(page_count)
        ]
        for page in self.pages:
            self.free_list.add_tail(page)
        self.free_count = page_count
        self.free_loaned_count = 0
        self.loaned_count = 0
        self.loan_cancelled_count = 0

    def paddr_to_vm_page(self, paddr: int) -> VmPage:
        """The page at ``paddr``. Kernel: ``paddr_to_vm_page``."""
        index = (paddr - ARENA_BASE) // PAGE_SIZE
        kassert("a.pmm.paddr", 0 <= index < len(self.pages), f"no page at {paddr:#x}")
        return self.pages[index]

    # -- allocation -----------------------------------------------------------------------------

    def alloc_page(
        self, flags: AllocFlag = AllocFlag.ANY, place: str = ""
    ) -> tuple[Status, VmPage | None]:
        """Allocate one page, ALLOC from here on; a loaned one belongs to the caller's interval.

        Args:
            flags: Which pages will do.
            place: The allocation site, for injected faults (``model.faults.SITES``).

        Locks: takes ``lock``.
        Kernel: ``PmmNode::AllocPage``.
        """
        kassert("a.pmm.borrow_flag", _consistent(flags), "MUST_BORROW without CAN_BORROW:", flags)
        can_borrow, must_borrow = self._may_borrow(flags)
        if self._world.faults.hit("borrow" if must_borrow else "alloc", place):
            return Status.NO_MEMORY, None
        with self.lock:
            use_loaned = can_borrow and (must_borrow or len(self.free_loaned_list) > 0)
            source = self.free_loaned_list if use_loaned else self.free_list
            page = source.remove_head()
            if page is None:
                return Status.NO_MEMORY, None
            kassert("a.pmm.borrow_flag", can_borrow or not page.loaned, page, "is loaned")
            self._alloc_page_helper_locked(page)
            if use_loaned:
                self.free_loaned_count -= 1
            else:
                self.free_count -= 1
            self._world.oracle.at_alloc(page, can_borrow=can_borrow)
            return Status.OK, page

    def alloc_pages(
        self, count: int, flags: AllocFlag = AllocFlag.ANY, place: str = ""
    ) -> tuple[Status, list[VmPage]]:
        """Allocate ``count`` pages or none, loaned ones first where the flags allow them.

        ``place`` is the allocation site, as for ``alloc_page``.

        Locks: takes ``lock``.
        Kernel: ``PmmNode::AllocPages``.
        """
        kassert("a.pmm.borrow_flag", _consistent(flags), "MUST_BORROW without CAN_BORROW:", flags)
        can_borrow, must_borrow = self._may_borrow(flags)
        if self._world.faults.hit("borrow" if must_borrow else "alloc", place):
            return Status.NO_MEMORY, []
        with self.lock:
            available = 0 if must_borrow else self.free_count
            available += self.free_loaned_count if can_borrow else 0
            if available < count:
                return Status.NO_MEMORY, []
            pages = []
            for _ in range(count):
                page = self.free_loaned_list.remove_head() if can_borrow else None
                if page is not None:
                    self.free_loaned_count -= 1
                else:
                    page = self.free_list.remove_head()
                    self.free_count -= 1
                if page is None:
                    kassert("a.pmm.count", False, available, "pages counted, lists empty")
                    break
                kassert("a.pmm.borrow_flag", can_borrow or not page.loaned, page, "is loaned")
                self._alloc_page_helper_locked(page)
                self._world.oracle.at_alloc(page, can_borrow=can_borrow)
                pages.append(page)
            return Status.OK, pages

    def alloc_contiguous(self, count: int) -> tuple[Status, list[VmPage]]:
        """Allocate the first run of ``count`` FREE pages that nobody has loaned.

        Locks: takes ``lock``.
        Kernel: ``PmmNode::AllocContiguous``. Omits: alignment.
        """
        if self._world.faults.hit("alloc_contiguous"):
            return Status.NO_MEMORY, []
        with self.lock:
            for start in range(len(self.pages) - count + 1):
                run = self.pages[start : start + count]
                if all(page.queue_node is self.free_list for page in run):
                    break
            else:
                return Status.NO_MEMORY, []
            for page in run:
                kassert("a.pmm.alloc_free", page.state.peek() is PageState.FREE, page, "is in use")
                self._world.oracle.at_content(page)
                self.free_list.remove(page)
                page.alloc_cancelled = page.loan_cancelled
                page.set_state(PageState.ALLOC)
                self._world.oracle.at_alloc(page, can_borrow=False)
            self.free_count -= count
            return Status.OK, run

    @requires("lock")
    def _alloc_page_helper_locked(self, page: VmPage) -> None:
        """Make an unlinked FREE page ALLOC (t1, t2).

        Kernel: ``PmmNode::AllocPageHelperLocked``.
        """
        kassert("a.pmm.alloc_free", page.state.peek() is PageState.FREE, page, "is allocated")
        kassert("a.pmm.alloc_free", page.word.peek() is None, page, "is FREE and owned")
        self._world.oracle.at_content(page)
        page.alloc_cancelled = page.loan_cancelled
        if page.loaned:
            interval = current_interval()
            kassert("a.pmm.interval", interval is not None, page, "is borrowed outside an interval")
            if interval is not None:
                # Before ALLOC: whoever reads ALLOC must find an owner to wait for.
                page.set_stack_owner(interval)
        page.set_state(PageState.ALLOC)

    def _may_borrow(self, flags: AllocFlag) -> tuple[bool, bool]:
        """Both flags mean nothing while no site may borrow."""
        enabled = self._world.borrowing.is_any_borrowing_enabled()
        can_borrow = enabled and bool(flags & AllocFlag.CAN_BORROW)
        return can_borrow, can_borrow and bool(flags & AllocFlag.MUST_BORROW)

    # -- freeing --------------------------------------------------------------------------------

    def free_page(self, page: VmPage) -> None:
        """Free ``page`` to the list that its loan bits name, or to limbo.

        Locks: takes ``lock``; the thread lock within it where somebody waits for the page.
        Kernel: ``PmmNode::FreePage``.
        """
        with self.lock:
            kassert("a.pmm.free_unlinked", page.queue_node is None, page, "is freed while linked")
            self._free_page_helper_locked(page)
            self._link_freed_locked(page)

    def free_list_of_pages(self, pages: list[VmPage]) -> None:
        """Free ``pages``, in one critical section; the list is empty afterwards.

        Locks: takes ``lock``.
        Kernel: ``PmmNode::FreeList``.
        """
        with self.lock:
            self._free_list_locked(pages)

    @requires("lock")
    def _free_list_locked(self, pages: list[VmPage]) -> None:
        """Kernel: ``PmmNode::FreeListLocked``."""
        # From the tail, each to a head: the first page is then the next to be allocated.
        while pages:
            page = pages.pop()
            kassert("a.pmm.free_unlinked", page.queue_node is None, page, "is freed while linked")
            self._free_page_helper_locked(page)
            self._link_freed_locked(page)

    @requires("lock")
    def _free_page_helper_locked(self, page: VmPage) -> None:
        """Make a page FREE (t6).

        Kernel: ``PmmNode::FreePageHelperLocked``.
        """
        state = page.state.peek()
        kassert("a.pmm.free_not_free", state is not PageState.FREE, page, "is freed twice")
        unpinned = state is not PageState.OBJECT or page.pin_count == 0
        kassert("a.pmm.free_not_free", unpinned, page, "is freed with pins:", page.pin_count)
        page.fill_pattern()
        owned = page.word.peek() is not None
        # FREE first: whoever finds no owner any more must find the page FREE.
        page.set_state(PageState.FREE)
        if owned:
            page.clear_stack_owner()

    @requires("lock")
    def _link_freed_locked(self, page: VmPage) -> None:
        if not page.loaned:
            self.free_list.add_head(page)
            self.free_count += 1
        elif not page.loan_cancelled:
            self.free_loaned_list.add_head(page)
            self.free_loaned_count += 1

    # -- loans ----------------------------------------------------------------------------------

    def begin_loan(self, pages: list[VmPage]) -> None:
        """Loan ``pages``, which are in the caller's hands, and free them; empties the list.

        Locks: takes ``lock``.
        Kernel: ``PmmNode::BeginLoan``.
        """
        with self.lock:
            for page in pages:
                self._world.oracle.at_begin_loan(page)
                fit = not page.loaned and not page.loan_cancelled
                fit = fit and page.state.peek() is not PageState.FREE
                kassert("a.pmm.begin", fit, page, "cannot be loaned")
                page.set_is_loaned()
            self.loaned_count += len(pages)
            self._free_list_locked(pages)

    def cancel_loan(self, paddr: int, count: int) -> None:
        """Nobody may borrow these pages any more; does not wait for those who have.

        Locks: takes ``lock``.
        Kernel: ``PmmNode::CancelLoan``.
        """
        with self.lock:
            for page in self._range(paddr, count):
                self._cancel_loan_locked(page)

    def cancel_loan_if_loaned(self, paddr: int, count: int) -> list[tuple[int, int]]:
        """Cancel the loans of those pages whose loan stands, and of no others.

        Returns:
            The runs of pages cancelled here, as ``(paddr, count)``: the caller, and it alone, takes
            these back. The others are at home already, or in the hands of whoever cancelled them.

        Locks: takes ``lock``.
        Kernel: none; stands for the per-page checks of the later ``UnloanRange``.
        """
        runs: list[tuple[int, int]] = []
        with self.lock:
            for page in self._range(paddr, count):
                if not page.loaned or page.loan_cancelled:
                    continue
                self._cancel_loan_locked(page)
                if runs and runs[-1][0] + runs[-1][1] * PAGE_SIZE == page.paddr:
                    runs[-1] = (runs[-1][0], runs[-1][1] + 1)
                else:
                    runs.append((page.paddr, 1))
        return runs

    @requires("lock")
    def _cancel_loan_locked(self, page: VmPage) -> None:
        self._world.oracle.at_cancel_loan(page)
        kassert("a.pmm.cancel", page.loaned and not page.loan_cancelled, page, "has no loan")
        page.set_is_loan_cancelled()
        self.loan_cancelled_count += 1
        if page.state.peek() is PageState.FREE:
            linked = page.queue_node is not None
            kassert("a.pmm.cancel", linked, page, "is FREE and on no list")
            self.free_loaned_list.remove(page)
            self.free_loaned_count -= 1

    def end_loan(self, paddr: int, count: int, pages_out: list[VmPage]) -> None:
        """Take FREE pages with cancelled loans back: ALLOC, ordinary, in the caller's hands.

        Args:
            paddr: Address of the first page.
            count: How many pages.
            pages_out: Receives the pages in address order.

        Locks: takes ``lock``.
        Kernel: ``PmmNode::EndLoan``.
        """
        with self.lock:
            for page in self._range(paddr, count):
                self._world.oracle.at_end_loan(page)
                fit = page.loaned and page.loan_cancelled and page.queue_node is None
                fit = fit and page.state.peek() is PageState.FREE
                kassert("a.pmm.end", fit, page, "cannot be taken back")
                page.clear_is_loaned()
                page.clear_is_loan_cancelled()
                self._alloc_page_helper_locked(page)
                pages_out.append(page)
            self.loaned_count -= count
            self.loan_cancelled_count -= count

    def delete_lender(self, paddr: int, count: int) -> None:
        """The lender is gone: its pages, all of them loaned, become everybody's.

        Locks: takes ``lock``.
        Kernel: ``PmmNode::DeleteLender``.
        """
        with self.lock:
            pages = self._range(paddr, count)
            for page in pages:
                self._world.oracle.at_delete_lender(page)
                kassert("a.pmm.delete", page.loaned, page, "is not loaned and loses its lender")
                if page.state.peek() is PageState.FREE:
                    if not page.loan_cancelled:
                        self.free_loaned_list.remove(page)
                        self.free_loaned_count -= 1
                    self.free_list.add_tail(page)
                    self.free_count += 1
                if page.loan_cancelled:
                    page.clear_is_loan_cancelled()
                    self.loan_cancelled_count -= 1
                page.clear_is_loaned()
                self.loaned_count -= 1
            self._world.oracle.after_delete_lender(pages)

    def is_loaned(self, page: VmPage) -> bool:
        """Whether somebody loaned ``page``.

        Locks: takes ``lock``.
        Kernel: ``PmmNode::IsLoaned``.
        """
        with self.lock:
            return page.loaned

    def _range(self, paddr: int, count: int) -> list[VmPage]:
        return [self.paddr_to_vm_page(paddr + i * PAGE_SIZE) for i in range(count)]

    def has_free_loaned_pages(self) -> bool:
        """Whether there is a page to borrow, read without a lock: a hint.

        Kernel: ``PmmNode::CountLoanedFreePages`` by those who may not take the lock.
        """
        return len(self.free_loaned_list) > 0

    # -- counts ---------------------------------------------------------------------------------

    def count_free_pages(self) -> int:
        """Ordinary FREE pages. Locks: takes ``lock``. Kernel: ``PmmNode::CountFreePages``."""
        with self.lock:
            return int(self.free_count)

    def count_loaned_free_pages(self) -> int:
        """Pages to borrow. Locks: takes ``lock``. Kernel: ``PmmNode::CountLoanedFreePages``."""
        with self.lock:
            return int(self.free_loaned_count)

    def count_loaned_not_free_pages(self) -> int:
        """Loaned pages that cannot be borrowed now, limbo included.

        Locks: takes ``lock``.
        Kernel: ``PmmNode::CountLoanedNotFreePages``.
        """
        with self.lock:
            return int(self.loaned_count - self.free_loaned_count)

    def count_loaned_pages(self) -> int:
        """Loaned pages. Locks: takes ``lock``. Kernel: ``PmmNode::CountLoanedPages``."""
        with self.lock:
            return int(self.loaned_count)

    def count_loan_cancelled_pages(self) -> int:
        """Loans being ended. Locks: takes ``lock``.

        Kernel: ``PmmNode::CountLoanCancelledPages``.
        """
        with self.lock:
            return int(self.loan_cancelled_count)

    def check_all_free_pages(self) -> None:
        """Check that the counters agree with the lists, and every free page's content.

        Locks: takes ``lock``.
        Kernel: ``PmmNode::CheckAllFreePages``.
        """
        with self.lock:
            free, free_loaned = len(self.free_list), len(self.free_loaned_list)
            kassert("a.pmm.count", free == self.free_count, free, "listed", self.free_count)
            loaned = self.free_loaned_count
            kassert("a.pmm.count", free_loaned == loaned, free_loaned, "loaned listed", loaned)
            for page in self.free_list.pages() + self.free_loaned_list.pages():
                self._world.oracle.at_content(page)


def _consistent(flags: AllocFlag) -> bool:
    return not flags & AllocFlag.MUST_BORROW or bool(flags & AllocFlag.CAN_BORROW)
