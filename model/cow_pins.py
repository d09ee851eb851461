"""Pins of ``VmCowPages``: devices may access the pages by address, so that none may go.

Functions, each of them a method of ``VmCowPages`` in the kernel; the first argument is ``this``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from harness.sync import requires
from model.asserts import kassert
from model.cow_replace import not_loaned_locked
from model.page import PAGE_SIZE, PageState
from model.status import Status

if TYPE_CHECKING:
    from model.cow_pages import VmCowPages

# Five bits.
PIN_COUNT_MAX: Final = 31


@requires("lock")
def pin_range_locked(cow: VmCowPages, offset: int, length: int) -> Status:
    """Pin every page of the range, or none.

    Returns:
        OK; OUT_OF_RANGE; BAD_STATE where a page is absent; UNAVAILABLE where one is pinned too
        often; NO_MEMORY where there is no ordinary page to replace a loaned one by.

    Locks: VMO lock held; takes page queues and PMM locks.
    Kernel: ``VmCowPages::PinRangeLocked``.
    """
    if offset > cow.size or length > cow.size - offset:
        return Status.OUT_OF_RANGE
    cow.ever_pinned = True
    status = Status.OK
    at = offset
    while at < offset + length:
        status = _pin_page_locked(cow, at)
        if status is not Status.OK:
            break
        at += PAGE_SIZE
    if status is not Status.OK:
        unpin_range_locked(cow, offset, at - offset)
    return status


@requires("lock")
def _pin_page_locked(cow: VmCowPages, offset: int) -> Status:
    page = cow.page_list.lookup(offset)
    if page is None:
        return Status.BAD_STATE
    if page.pin_count == PIN_COUNT_MAX:
        return Status.UNAVAILABLE
    status, page = not_loaned_locked(cow, page, offset)
    if page is None:
        return status
    fit = page.state.peek() is PageState.OBJECT and not page.loaned
    kassert("a.cow.pin_not_loaned", fit, page, "is pinned")
    page.pin_count += 1
    page.touch()
    if page.pin_count == 1:
        cow.world.page_queues.move_to_wired(page)
    return Status.OK


@requires("lock")
def unpin_range_locked(cow: VmCowPages, offset: int, length: int) -> None:
    """Take one pin from every page of the range.

    Locks: VMO lock held; takes the page queues lock.
    Kernel: ``VmCowPages::UnpinLocked``.
    """
    for at in range(offset, offset + length, PAGE_SIZE):
        page = cow.page_list.lookup(at)
        if page is None or not page.pin_count:
            kassert("a.cow.unpin", False, f"no pinned page at {at:#x} of", cow, "but", page)
            return
        page.pin_count -= 1
        page.touch()
        if page.pin_count == 0:
            cow.move_to_not_wired_locked(page)


@requires("lock")
def pinned_pages_locked(cow: VmCowPages) -> int:
    """How many pages are pinned. Locks: VMO lock held.

    Kernel: ``VmCowPages::pinned_page_count_locked``.
    """
    return sum(page.pin_count > 0 for _, page in cow.page_list.present(0, cow.size))
