"""What ``VmCowPages`` does to ranges of itself: resize, zero, detach.

Functions, each of them a method of ``VmCowPages`` in the kernel; the first argument is ``this``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.sync import requires
from model.cow_dirty import prepare_for_write_locked
from model.page import PAGE_SIZE
from model.solpi import StackOwnedLoanedPagesInterval
from model.status import Status

if TYPE_CHECKING:
    from model.cow_pages import VmCowPages
    from model.page_request import PageRequest


@requires("lock")
def resize_locked(cow: VmCowPages, size: int) -> Status:
    """Change the size; a shrink drops the pages beyond, and answers whoever waits for one of them.

    Args:
        cow: A resizable VMO.
        size: New size in bytes, a multiple of the page size.

    Returns:
        OK, UNAVAILABLE (not resizable), or BAD_STATE (a page beyond is pinned; nothing changes).

    Locks: VMO lock held; takes page source, page queues and PMM locks.
    Kernel: ``VmCowPages::ResizeLocked``. Omits: clones.
    """
    if not cow.resizable:
        return Status.UNAVAILABLE
    if size >= cow.size:
        _set_size_locked(cow, size)
        return Status.OK
    start, length = size, cow.size - size
    present = cow.page_list.present(start, length)
    if any(page.pin_count for _, page in present):
        return Status.BAD_STATE
    with StackOwnedLoanedPagesInterval(cow.world):
        cow.range_change_update_locked(start, length)
        for gap_start, gap_end in _gaps_locked(cow, start, cow.size):
            # Nobody will ever supply these: their readers look again, and see the new size.
            cow.page_source.on_pages_supplied(gap_start, gap_end - gap_start)
        # Nor may they be written: nothing is made dirty, the writers look again.
        cow.page_source.on_pages_dirtied(start, length)
        pages = cow.remove_pages_locked(present)
        _set_size_locked(cow, size)
        cow.free_pages_locked(pages)
    return Status.OK


@requires("lock")
def _set_size_locked(cow: VmCowPages, size: int) -> None:
    cow.size = size
    cow.page_list.resize(size)


@requires("lock")
def _gaps_locked(cow: VmCowPages, start: int, end: int) -> list[tuple[int, int]]:
    """Runs of empty slots in ``[start, end)``, as start and end."""
    gaps: list[tuple[int, int]] = []
    for at in range(start, end, PAGE_SIZE):
        if cow.page_list.lookup(at) is not None:
            continue
        if gaps and gaps[-1][1] == at:
            gaps[-1] = (gaps[-1][0], at + PAGE_SIZE)
        else:
            gaps.append((at, at + PAGE_SIZE))
    return gaps


@requires("lock")
def zero_pages_locked(
    cow: VmCowPages, offset: int, length: int, request: PageRequest
) -> tuple[Status, int]:
    """Zero a range, page by page, from its start.

    Pages of a contiguous VMO are zeroed where they are, never decommitted: whoever zeroes does not
    mean to loan. An absent one reads as zeroes already. An absent page of a pager-backed VMO has to
    come from its pager first; where writes are tracked, or trapped, zeroing is one.

    Returns:
        Status and the bytes zeroed. SHOULD_WAIT: wait for the request, then go on after those.

    Locks: VMO lock held.
    Kernel: ``VmCowPages::ZeroPagesLocked``. Omits: markers, parents.
    """
    with StackOwnedLoanedPagesInterval(cow.world):
        for at in range(offset, offset + length, PAGE_SIZE):
            page = cow.page_list.lookup(at)
            if page is None and cow.is_pager_backed():
                status, page = cow.lookup_page_locked(at, request, write=True)
                if status is not Status.OK:
                    return status, at - offset
            if page is not None:
                root, root_offset = cow.paged_parent(at)
                rest = offset + length - at
                status, page = prepare_for_write_locked(root, page, root_offset, request, rest)
                if page is None:
                    return status, at - offset
                page.zero()
    return Status.OK, length


@requires("lock")
def detach_source_locked(cow: VmCowPages) -> None:
    """The pager is gone: answer what is asked for, then drop every page that it could have back.

    Pinned and dirty pages stay.

    Locks: VMO lock held; takes page source, page queues and PMM locks.
    Kernel: ``VmCowPages::DetachSourceLocked``.
    """
    cow.page_source.detach()
    with StackOwnedLoanedPagesInterval(cow.world):
        cow.range_change_update_locked(0, cow.size)
        present = cow.page_list.present(0, cow.size)
        clean = [(at, page) for at, page in present if not page.unclean and not page.pin_count]
        cow.free_pages_locked(cow.remove_pages_locked(clean))
