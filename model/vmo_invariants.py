"""What must hold of the pages that are in a VMO, and of those who were told that they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from model.asserts import require
from model.page import PageQueue

if TYPE_CHECKING:
    from model.cow_pages import VmCowPages
    from model.page import VmPage
    from model.page_request import PageRequest


class Told(NamedTuple):
    """What the waiter of a request was told: the pages of the range are there.

    Attributes:
        start: First byte.
        end: One past the last byte.
        departures: How many pages had left the VMO when the request was sent.
    """

    start: int
    end: int
    departures: int


def check_pager_backed(cow: VmCowPages) -> None:
    """I21 and I22 for all pages of a pager-backed VMO, whenever its lock is released."""
    if not cow.alive:
        return  # The lock of a hierarchy outlives each of its VMOs.
    present = cow.page_list.present(0, cow.size)
    for offset, page in present:
        i22_queued_here(page, cow, offset)
        if page.loaned:
            i21_may_leave(page, cow)
    alike = cow.backlinks == len(present)
    require("I22", alike, cow, "has", len(present), "pages and", cow.backlinks, "backlinks to it")


def i21_may_leave(page: VmPage, cow: VmCowPages) -> None:
    """I21: a loaned page in a VMO may be evicted at any time."""
    free = not page.pin_count and not page.always_need and not page.unclean
    require("I21", free, page, "is loaned, and must stay in", cow)


def i21_suits(page: VmPage, cow: VmCowPages) -> None:
    """I21, as a page joins: whatever the switches say, some VMOs must have no loaned pages.

    Locks: VMO lock held.
    """
    if page.loaned:
        suits = cow.is_pager_backed() and not cow.trap_dirty
        suits = suits and not cow.is_latency_sensitive and not cow.ever_pinned
        require("I21", suits, page, "is loaned, and goes to", cow, "which must not borrow")


def i22_queued_here(page: VmPage, cow: VmCowPages, offset: int) -> None:
    """I22: slot, backlink and queue agree."""
    queued = page.page_queue is not PageQueue.NONE and page.queue_node is not None
    require("I22", queued, page, f"is at {offset:#x} of", cow, "and on no page queue")
    wired = page.page_queue is PageQueue.WIRED
    require("I22", wired == (page.pin_count > 0), page, "is pinned or wired, and not both")
    back = page.word.peek() is cow and page.page_offset == offset
    require("I22", back, page, f"is at {offset:#x} of", cow, "and points back elsewhere")


def i23_pinned_is_ours(page: VmPage) -> None:
    """I23: nobody else has a claim on a pinned page."""
    require("I23", not page.loaned, page, "is pinned and loaned")


def i25_told_the_truth(cow: VmCowPages, offset: int, request: PageRequest) -> None:
    """I25: who was told that his pages are there finds them, or something left the VMO since."""
    told = request.told
    if told is None or not told.start <= offset < told.end:
        return
    request.told = None
    left = cow.page_source.departures != told.departures
    require("I25", left, f"{offset:#x} of", cow, "is absent, and", request, "was told otherwise")
