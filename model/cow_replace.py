"""What ``VmCowPages`` does to a page where it is: replace it, protect it, give it up.

Functions, each of them a method of ``VmCowPages`` in the kernel; the first argument is ``this``.
A loaned page may leave at any time, so whatever must stay is replaced by an ordinary page first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.sync import requires
from model.asserts import kassert
from model.page import PAGE_SIZE
from model.pmm import AllocFlag
from model.solpi import StackOwnedLoanedPagesInterval
from model.status import Status

if TYPE_CHECKING:
    from model.cow_pages import VmCowPages
    from model.page import VmPage


def replace_page(cow: VmCowPages, before: VmPage, offset: int, *, with_loaned: bool) -> Status:
    """See ``replace_page_locked``: for callers that found ``before`` by its backlink.

    Locks: a reference of the VMO or its container held; takes the VMO lock.
    Kernel: ``VmCowPages::ReplacePage``, ``VmCowPages::ReplacePageWithLoaned``.
    """
    cow.check_alive("a page of it is replaced")
    with cow.lock:
        status, _ = replace_page_locked(cow, before, offset, with_loaned=with_loaned)
        return status


@requires("lock")
def replace_page_locked(
    cow: VmCowPages, before: VmPage, offset: int, *, with_loaned: bool
) -> tuple[Status, VmPage | None]:
    """Put another physical page with the same content where ``before`` is, and free that.

    Args:
        cow: A pager-backed VMO.
        before: The page that the caller wants replaced, if it is still at ``offset``.
        offset: Bytes.
        with_loaned: Borrow the new page; otherwise the new page is an ordinary one.

    Returns:
        OK and the new page; NOT_FOUND where ``before`` is not there any more; BAD_STATE where it is
        pinned, always needed, or dirty and not to be replaced by a loaned page; NOT_SUPPORTED where
        this VMO may not borrow; NO_MEMORY.

    Locks: VMO lock held; takes page queues and PMM locks.
    Kernel: ``VmCowPages::ReplacePageLocked``.
    """
    if offset >= cow.size or cow.page_list.lookup(offset) is not before:
        return Status.NOT_FOUND, None
    if before.pin_count:
        kassert("a.cow.replace_not_loaned", not before.loaned, before, "is pinned")
        return Status.BAD_STATE, None
    if before.always_need:
        kassert("a.cow.replace_not_loaned", not before.loaned, before, "is always needed")
        return Status.BAD_STATE, None
    flags = AllocFlag.ANY
    if with_loaned:
        if not cow.can_borrow_locked():
            return Status.NOT_SUPPORTED, None
        if before.unclean:
            return Status.BAD_STATE, None
        flags = AllocFlag.CAN_BORROW | AllocFlag.MUST_BORROW
    with StackOwnedLoanedPagesInterval(cow.world):
        status, after = cow.world.pmm.alloc_page(flags, "replace")
        if after is None:
            return status, None
        _swap_page_locked(cow, offset, before, after)
        cow.world.page_queues.remove(before)
        cow.world.pmm.free_page(before)
    return Status.OK, after


@requires("lock")
def _swap_page_locked(cow: VmCowPages, offset: int, old: VmPage, new: VmPage) -> None:
    """Put ``new`` in the slot of ``old``, which keeps its backlink until it is removed.

    Kernel: ``VmCowPages::SwapPageLocked``.
    """
    cow.range_change_update_locked(offset, PAGE_SIZE)
    cow.initialize_vm_page(new)
    new.copy_from(old)
    new.always_need = old.always_need
    new.dirty_state = old.dirty_state
    cow.world.oracle.at_replaced(old, new)
    right = cow.page_source.debug_is_page_ok(new, offset)
    kassert("a.cow.add", right, new, "does not belong at", f"{offset:#x} of", cow)
    cow.set_not_wired_locked(new, offset)
    cow.page_list.swap(offset, new)


@requires("lock")
def not_loaned_locked(cow: VmCowPages, page: VmPage, offset: int) -> tuple[Status, VmPage | None]:
    """The page to keep at ``offset``: ``page``, or what replaces it where it is loaned.

    The loan bit is the PMM's, but while the page is here it can only fall: so to look once, under
    the VMO lock, is enough.

    Returns:
        OK and the page, or NO_MEMORY.

    Locks: VMO lock held; takes page queues and PMM locks.
    Kernel: part of ``VmCowPages::PinRangeLocked`` and of each hint; later
    ``VmCowPages::ReplacePagesWithNonLoanedLocked``.
    """
    if cow.world.pmm.is_loaned(page):
        return replace_page_locked(cow, page, offset, with_loaned=False)
    return Status.OK, page


@requires("lock")
def protect_page_locked(cow: VmCowPages, page: VmPage, offset: int) -> Status:
    """Keep ``page`` from eviction that follows hints; it must not be loaned then.

    Returns:
        OK, or NO_MEMORY.

    Locks: VMO lock held; takes page queues and PMM locks.
    Kernel: ``VmCowPages::ProtectRangeFromReclamationLocked``, for one page.
    """
    status, kept = not_loaned_locked(cow, page, offset)
    if kept is not None:
        kept.always_need = True
        kept.touch()
        cow.world.page_queues.mark_accessed(kept)
    return status


@requires("lock")
def promote_range_for_reclamation_locked(cow: VmCowPages, offset: int, length: int) -> None:
    """The present pages of the range are to go before all others; no page is always needed there.

    Locks: VMO lock held; takes the page queues lock.
    Kernel: ``VmCowPages::PromoteRangeForReclamationLocked``.
    """
    for _, page in cow.page_list.present(offset, length):
        page.always_need = False
        page.touch()
        if not page.pin_count and not page.unclean:
            cow.world.page_queues.move_to_pager_backed_dont_need(page)
