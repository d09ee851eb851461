"""The page film: where every physical page is, for pictures of a recorded schedule."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from harness.sync import Placed
from model.cow_pages import VmCowPages
from model.page import PageQueue, StackOwner, VmPage

if TYPE_CHECKING:
    from model.pmm import PmmNode

_LISTS: Final = {"free_list": "free list", "free_loaned_list": "free, loaned"}
# On no list, in no VMO, on nobody's stack: in a local variable of whoever moves it.
LIMBO: Final = "limbo"


def page_film(pmm: PmmNode) -> Mapping[str, Placed]:
    """Each page of the machine by name. No lock, no schedule point: it only peeks."""
    return {repr(page): _placed(page) for page in pmm.pages}


def _placed(page: VmPage) -> Placed:
    place, at = _place(page)
    word = page.word.peek()
    waited = isinstance(word, StackOwner) and word.has_waiter
    marks = [
        f"of {page.lender.name.removesuffix('.provider')}" if page.lender is not None else "",
        "loaned" * page.loaned,
        "cancelled" * page.loan_cancelled,
        "pinned" * bool(page.pin_count),
        "waited for" * waited,
        "" if page.page_queue is PageQueue.NONE else f"queue {page.page_queue}",
        f"backlink {word!r}" if isinstance(word, VmCowPages) and not page.slots else "",
    ]
    return Placed(place, at, str(page.state.peek()), tuple(mark for mark in marks if mark))


def _place(page: VmPage) -> tuple[str, str]:
    """Where the page is: in a VMO, on a thread's stack, on a list; and its offset in a VMO."""
    if page.slots:
        cow, offset = page.slots[0]
        return cow.name, f"{offset:#x}"
    word = page.word.peek()
    if isinstance(word, StackOwner):
        owner = word.interval.owning_thread
        return f"stack of {'a thread' if owner is None else owner.name}", ""
    if page.queue_node is not None and page.queue_node.name in _LISTS:
        return _LISTS[page.queue_node.name], ""
    return LIMBO, ""
