"""What ``VmCowPages`` notes of pages that are written: dirty until the pager has them back.

Functions, each of them a method of ``VmCowPages`` in the kernel; the first argument is ``this``.
The way of a page that is tracked::

    Clean --write (the pager agreed, where it traps writes)--> Dirty
    Dirty --writeback begins--> AwaitingClean --writeback ends--> Clean
    AwaitingClean --write, as above--> Dirty: the end of the writeback leaves it so

A page that is not Clean stays: no evictor takes it, and a loaned page is none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.sync import requires
from model.cow_pages import RangeChangeOp
from model.cow_replace import not_loaned_locked
from model.page import PAGE_SIZE, DirtyState
from model.status import Status

if TYPE_CHECKING:
    from model.cow_pages import VmCowPages
    from model.page import VmPage
    from model.page_request import PageRequest


@requires("lock")
def prepare_for_write_locked(
    cow: VmCowPages, page: VmPage, offset: int, request: PageRequest, length: int = PAGE_SIZE
) -> tuple[Status, VmPage | None]:
    """The page to write to at ``offset``: Dirty from here on, where this VMO tracks that.

    Args:
        cow: The VMO that has the page.
        page: What is at ``offset``.
        offset: Bytes.
        request: Asks the pager, where that traps writes; not in use otherwise.
        length: How much from ``offset`` on is to be written: the pager is asked for a run at once.

    Returns:
        OK and the page; SHOULD_WAIT: wait for the request, then look the page up again; BAD_STATE
        where the pager cannot be asked any more; NO_MEMORY: a dirty page is never a loaned one.

    Locks: VMO lock held; takes page source, page queues and PMM locks.
    Kernel: ``VmCowPages::PrepareForWriteLocked``.
    """
    if not cow.dirty_tracked or page.dirty_state is DirtyState.DIRTY:
        return Status.OK, page
    if cow.trap_dirty:
        run = _run_to_ask_for_locked(cow, offset, offset + length)
        return cow.page_source.request_dirty_transition(request, offset, run), None
    status, kept = not_loaned_locked(cow, page, offset)
    if kept is not None:
        _mark_dirty_locked(cow, kept)
    return status, kept


@requires("lock")
def _run_to_ask_for_locked(cow: VmCowPages, offset: int, end: int) -> int:
    """Bytes from ``offset`` on whose pages are there and may not be written yet."""
    at = offset + PAGE_SIZE
    while at < end:
        page = cow.page_list.lookup(at)
        if page is None or page.dirty_state is DirtyState.DIRTY:
            break
        at += PAGE_SIZE
    return at - offset


@requires("lock")
def _mark_dirty_locked(cow: VmCowPages, page: VmPage) -> None:
    """Kernel: ``VmCowPages::UpdateDirtyStateLocked``, to Dirty."""
    page.dirty_state = DirtyState.DIRTY
    page.touch()
    if not page.pin_count:
        cow.world.page_queues.move_to_pager_backed_dirty(page)


@requires("lock")
def dirty_pages_locked(cow: VmCowPages, offset: int, length: int) -> Status:
    """The pager agrees to writes: the pages of the range are Dirty, and whoever waits goes on.

    Returns:
        OK; NOT_SUPPORTED (writes are not trapped); OUT_OF_RANGE; NOT_FOUND where a page is absent:
        it was evicted since it was asked for. Whoever waits is told all the same, since he has to
        look again, and to ask for the page first.

    Locks: VMO lock held; takes page queues and page source locks.
    Kernel: ``VmCowPages::DirtyPages``. Omits: dirtying what was never supplied.
    """
    if not cow.trap_dirty:
        return Status.NOT_SUPPORTED
    if offset > cow.size or length > cow.size - offset:
        return Status.OUT_OF_RANGE
    present = cow.page_list.present(offset, length)
    status = Status.NOT_FOUND
    if len(present) * PAGE_SIZE == length:
        status = Status.OK
        for _, page in present:
            if page.dirty_state is not DirtyState.DIRTY:
                _mark_dirty_locked(cow, page)
    cow.page_source.on_pages_dirtied(offset, length)
    return status


@requires("lock")
def dirty_offsets_locked(cow: VmCowPages, offset: int, length: int) -> list[int]:
    """Where in the range the pager has pages to write back, those that it has begun with included.

    Locks: VMO lock held.
    Kernel: ``VmCowPages::EnumerateDirtyRangesLocked``. Omits: ranges; one offset for each page.
    What a resize has cut off is left out, where the kernel refuses the whole range.
    """
    length = min(length, max(cow.size - offset, 0))
    return [at for at, page in cow.page_list.present(offset, length) if page.unclean]


@requires("lock")
def writeback_begin_locked(cow: VmCowPages, offset: int, length: int) -> Status:
    """The pager is about to read the Dirty pages of the range: who writes from now on is noticed.

    Returns:
        OK, or OUT_OF_RANGE.

    Locks: VMO lock held.
    Kernel: ``VmCowPages::WritebackBeginLocked``.
    """
    if offset > cow.size or length > cow.size - offset:
        return Status.OUT_OF_RANGE
    for _, page in cow.page_list.present(offset, length):
        if page.dirty_state is DirtyState.DIRTY:
            page.dirty_state = DirtyState.AWAITING_CLEAN
            page.touch()
    # Write-protected: who writes through a mapping must fault, and so make the page Dirty anew.
    cow.range_change_update_locked(offset, length, RangeChangeOp.REMOVE_WRITE)
    return Status.OK


@requires("lock")
def writeback_end_locked(cow: VmCowPages, offset: int, length: int) -> Status:
    """The pager has the pages that it began with: Clean, unless they were written meanwhile.

    Returns:
        OK, or OUT_OF_RANGE.

    Locks: VMO lock held; takes the page queues lock.
    Kernel: ``VmCowPages::WritebackEndLocked``.
    """
    if offset > cow.size or length > cow.size - offset:
        return Status.OUT_OF_RANGE
    for _, page in cow.page_list.present(offset, length):
        if page.dirty_state is not DirtyState.AWAITING_CLEAN:
            continue
        page.dirty_state = DirtyState.CLEAN
        page.touch()
        if not page.pin_count:
            cow.world.page_queues.move_to_pager_backed(page)
    return Status.OK
