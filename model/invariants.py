"""What must hold, when: the invariants of the model, one named predicate each.

Scopes:

* *step*: after every step, for the pages that changed in it. A page that is legally half-way
  (within the PMM) stays on the list until it is judged.
* *lock*: whenever the lock is released, before anybody else can have it.
* *action*: at the named place in the code (``Oracle``).
* *quiescent*: when no thread is inside of an operation (``check_quiescent``).

Nothing here changes the model: predicates look through ``peek`` and raise ``InvariantBroken`` with
the values involved.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING

from harness.sync import invariant
from model.asserts import require as _require
from model.oracle import LockInvariant, Oracle
from model.page import FREE_PATTERN, PAGE_SIZE, ZEROES, PageState, StackOwner, VmPage
from model.page_queues import GENERATIONS
from model.page_request import PageRequestType
from model.physical_page_provider import INVALID_PHYS_BASE, PhysicalPageProvider
from model.solpi import interval_of
from model.vmo_invariants import (
    Told,
    check_pager_backed,
    i21_suits,
    i23_pinned_is_ours,
    i25_told_the_truth,
)

if TYPE_CHECKING:
    from model.cow_pages import VmCowPages
    from model.page_request import PageRequest
    from model.page_source import PageSource
    from model.pmm import PmmNode
    from model.solpi import StackOwnedLoanedPagesInterval
    from model.world import World


# Beside the numbers of pages: a place where a fault may be injected was come to.
_COUNTED = -2


class Invariants(Oracle):
    """All invariants of one modelled system, switched on."""

    world: World

    def __init__(self) -> None:
        """Inert until ``install``; the locks take their invariants as they are made."""
        self._installed = False
        # Intervals that somebody sleeps on.
        self._awaited: list[StackOwnedLoanedPagesInterval] = []
        self._generations = (0, 0)
        self._loaned = 0
        self._cancelled = 0
        self._judged: list[VmPage] = []
        self._half_way: list[VmPage] = []
        self._counted = 0

    def install(self, world: World) -> None:
        """Register the step invariants with the running schedule; once."""
        if not self._installed:
            self._installed = True
            self.world = world
            invariant(self.check_step, "model step", every="step", judges=self._numbers)

    # -- step -----------------------------------------------------------------------------------

    def check_step(self) -> None:
        """Judge every page that changed since the last step, and who is waited for."""
        for interval in self._awaited:
            i29_owner_inherits(interval)
        touched = self.world.touched
        pages = self._judged = touched[:]
        if not touched and not self._half_way:
            return
        touched.clear()
        for page in pages:
            page.touched = False
        pages = pages + [page for page in self._half_way if page not in pages]
        self._half_way = []
        for page in pages:
            if self.half_way(page):
                self._half_way.append(page)
            else:
                check_page(page)

    def _numbers(self) -> list[int]:
        """The pages that the last step changed, and whether it was counted for a fault.

        The order of such steps matters.
        """
        counted, self._counted = self._counted, self.world.faults.occurrences
        numbers = [page.index for page in self._judged]
        return numbers if counted == self._counted else [*numbers, _COUNTED]

    def half_way(self, page: VmPage) -> bool:
        """Whether ``page`` is legally inside of a transition.

        These are leaving FREE and becoming FREE (I14, under the PMM lock), and marked by a
        BeginLoan that has not freed it yet (I16).
        """
        if page.state.peek() is not PageState.FREE:
            return page.marked and not page.slots
        return page.word.peek() is not None and self.world.pmm.lock.owner is not None

    # -- locks ----------------------------------------------------------------------------------

    def pmm_lock(self, pmm: PmmNode) -> LockInvariant | None:
        """I12 and I13 for the pages that changed, and the counters."""
        return partial(self.check_pmm, pmm)

    def check_pmm(self, pmm: PmmNode) -> None:
        """Judge what the PMM lock protects."""
        changed = self.world.changed
        if changed:
            for page in changed:
                page.changed = False
                loaned, cancelled = page.loaned, page.loan_cancelled
                self._loaned += loaned - page.counted[0]
                self._cancelled += cancelled - page.counted[1]
                page.counted = (loaned, cancelled)
            pages = changed[:]
            changed.clear()
            for page in pages:
                i12_one_place(page, pmm)
                i13_lists(page, pmm)
        i13_counts(pmm, self._loaned, self._cancelled)

    def vmo_lock(self, cow: VmCowPages) -> LockInvariant | None:
        """I1 for lenders, I21 and I22 for borrowers."""
        provider = cow.page_source.provider
        if isinstance(provider, PhysicalPageProvider):
            return partial(i1_absent_is_loaned, cow, provider)
        return partial(check_pager_backed, cow)

    def source_lock(self, source: PageSource) -> LockInvariant | None:
        """I7 (its second half), I9 and I10."""
        return partial(check_source, source)

    def provider_lock(self, provider: PhysicalPageProvider) -> LockInvariant | None:
        """I7 and I8."""
        return partial(check_provider, provider)

    # -- actions --------------------------------------------------------------------------------

    def at_alloc(self, page: VmPage, *, can_borrow: bool) -> None:
        """I6."""
        _require("I6", can_borrow or not page.loaned, page, "goes to somebody who may not borrow")

    def at_begin_loan(self, page: VmPage) -> None:
        """I19."""
        plain = not page.loaned and not page.loan_cancelled
        _require("I19", plain, "BeginLoan of", page, "which is loaned already")
        word = page.word.peek()
        idle = page.state.peek() is not PageState.FREE and not page.pin_count
        idle = idle and not page.slots and (word is None or isinstance(word, StackOwner))
        _require("I19", idle, "BeginLoan of", page, "which is in use")

    def at_cancel_loan(self, page: VmPage) -> None:
        """I18."""
        fit = page.loaned and not page.loan_cancelled
        _require("I18", fit, "CancelLoan of", page, "which needs loaned and not cancelled")

    def at_end_loan(self, page: VmPage) -> None:
        """I17."""
        fit = page.state.peek() is PageState.FREE and page.loaned and page.loan_cancelled
        fit = fit and page.queue_node is None and page.word.peek() is None
        _require("I17", fit, "EndLoan of", page, "which needs FREE, loaned, cancelled, unlinked")

    def at_delete_lender(self, page: VmPage) -> None:
        """I20, before."""
        _require("I20", page.loaned, "DeleteLender of", page, "which is not loaned")

    def after_delete_lender(self, pages: list[VmPage]) -> None:
        """I20, afterwards."""
        free_list = self.world.pmm.free_list
        for page in pages:
            bare = not page.loaned and not page.loan_cancelled
            home = page.state.peek() is not PageState.FREE or page.queue_node is free_list
            _require("I20", bare and home, "DeleteLender left", page)

    def at_interval_end(self, interval: StackOwnedLoanedPagesInterval) -> None:
        """I15."""
        for page in interval.pages:
            word = page.word.peek()
            mine = isinstance(word, StackOwner) and word.interval is interval
            _require("I15", not mine, interval, "ends and still owns", page)
            adrift = page.loaned and page.state.peek() is not PageState.FREE and word is None
            adrift = adrift and not page.marked
            _require("I15", not adrift, interval, "ends and left", page, "to nobody")

    def at_add(self, page: VmPage, cow: VmCowPages) -> None:
        """I21, as the page comes."""
        i21_suits(page, cow)

    def at_signal(self, request: PageRequest, *, told: bool) -> None:
        """I25: remember what the waiter is told."""
        request.told = None
        if told:
            request.told = Told(request.offset.peek(), request.end, request.departures)

    def at_look(self, cow: VmCowPages, offset: int, request: PageRequest) -> None:
        """I25, as the waiter looks again."""
        i25_told_the_truth(cow, offset, request)

    def at_rotate(self, mru_generation: int, lru_generation: int) -> None:
        """I30, for generations: they only grow, and are never too many."""
        newest, oldest = self._generations
        grown = mru_generation > newest and lru_generation >= oldest
        within = lru_generation <= mru_generation < lru_generation + GENERATIONS
        now = (mru_generation, lru_generation)
        _require("I30", grown and within, "generations are", now, "after", self._generations)
        self._generations = now

    def at_wait_ok(self, request: PageRequest) -> None:
        """I31."""
        _require("I31", not request.active, request, "was waited for with OK and is still active")

    def at_upgrade_failed(self, page: VmPage) -> None:
        """I28, for containers."""
        free = page.state.peek() is PageState.FREE
        _require("I28", free, "the container of", page, "is gone, and the page is not FREE")

    def at_supplied(self, page: VmPage) -> None:
        """I26, for pages on their way home."""
        _require("I26", page.contents == ZEROES, page, "is supplied with", bytes(page.contents))

    def at_replaced(self, old: VmPage, new: VmPage) -> None:
        """I26, for borrowers: the content stays, whichever page it is in."""
        same = old.contents == new.contents
        _require("I26", same, new, "replaces", old, "and reads", bytes(new.contents))

    def at_content(self, page: VmPage) -> None:
        """I26, for free memory."""
        intact = page.contents == FREE_PATTERN
        _require("I26", intact, page, "was written while FREE:", bytes(page.contents))

    def at_access(self, page: VmPage, cow: VmCowPages, offset: int) -> None:
        """I26, for mapped memory: an entry goes before its page leaves the VMO."""
        there = cow.paged_parent(offset) in page.slots
        _require("I26", there, f"a mapping of {cow} at {offset:#x} reaches", page)

    def alarm(self, what: str, iterations: int, limit: int, page: VmPage) -> None:
        """I24, for loops."""
        _require("I24", iterations < limit, what, "is in iteration", iterations, "for", page)

    def at_sleep(self, interval: StackOwnedLoanedPagesInterval, page: VmPage) -> None:
        """I24, for intervals: nobody wakes a waiter of one that has ended."""
        _require("I24", interval.alive, "a waiter for", page, "would sleep on ended", interval)
        if interval not in self._awaited:
            self._awaited.append(interval)

    def after_wake(self, interval: StackOwnedLoanedPagesInterval) -> None:
        """I29, afterwards: the owner has its own priority, but for what others lend it."""
        if interval in self._awaited:
            self._awaited.remove(interval)
        queue = interval.owned_wait_queue
        i29_owner_relaxes(interval)
        free = queue is None or (queue.owner is None and not queue.waiters)
        _require("I29", free, interval, "has woken its waiters and still has an owner or waiters")

    # -- quiescent ------------------------------------------------------------------------------

    def check_quiescent(self, held: Iterable[VmPage] = ()) -> None:
        """Judge everything: no thread may be inside of an operation.

        Args:
            held: Pages that the caller took from the PMM and keeps.

        Locks: takes the PMM lock.
        """
        kept = list(held)
        pmm = self.world.pmm
        with pmm.lock:
            for page in pmm.pages:
                page.touch()
                i1_strictly(page)
                i2_none_cancelled(page)
                if page not in kept:
                    i12_not_lost(page)
        i30_counters(self.world)

    def check_all_gone(self, initial_free: int) -> None:
        """I32: every VMO is destroyed. Locks: takes the PMM lock."""
        pmm = self.world.pmm
        with pmm.lock:
            counts = (pmm.loaned_count, pmm.loan_cancelled_count, pmm.free_loaned_count)
            free = pmm.free_count
        message = "loaned, cancelled and free-loaned are"
        _require("I32", counts == (0, 0, 0), message, counts, "with every VMO destroyed")
        _require("I32", free == initial_free, free, "pages are free of", initial_free)


# -- pages, at every step ------------------------------------------------------------------------


def check_page(page: VmPage) -> None:
    """The step invariants of one page that is not half-way."""
    if page.loan_cancelled:
        i2_cancelled_is_in_flight(page)
    if page.alloc_cancelled:
        i5_cancelled_stays_free(page)
    if page.pin_count:
        i23_pinned_is_ours(page)
    if page.slots:
        i3_right_page(page)
        i4_home_is_not_loaned(page)
    word = page.word.peek()
    if isinstance(word, StackOwner):
        i14_owner_lives(page, word)
    elif page.loaned:
        i16_owned_in_transit(page, word)


def i2_cancelled_is_in_flight(page: VmPage) -> None:
    """I2: a cancelled page is loaned, and some thread is taking it back."""
    _require("I2", page.loaned, page, "is cancelled and not loaned")
    lender = page.lender
    if lender is not None:
        _require("I2", _in_flight(lender, page), page, "is cancelled; in flight:", lender.in_flight)


def i3_right_page(page: VmPage) -> None:
    """I3: slot i of a contiguous VMO has its i-th physical page."""
    for cow, offset in page.slots:
        base = _phys_base(cow)
        if base is not None:
            right = page.paddr - base == offset
            _require("I3", right, page, f"is at {offset:#x} of", cow, f"based at {base:#x}")


def i4_home_is_not_loaned(page: VmPage) -> None:
    """I4: a page in its own lender is not loaned."""
    for cow, _ in page.slots:
        home = _phys_base(cow) is not None
        _require("I4", not home or not page.loaned, page, "is at home and loaned")


def i5_cancelled_stays_free(page: VmPage) -> None:
    """I5: only EndLoan takes a cancelled page from FREE."""
    _require("I5", not page.alloc_cancelled, page, "was allocated while its loan was cancelled")


def i14_owner_lives(page: VmPage, word: StackOwner) -> None:
    """I14: a page's interval is alive and the outermost of its thread; the page is not FREE."""
    interval = word.interval
    owner = interval.owning_thread
    lives = interval.alive and owner is not None and interval_of(owner) is interval
    _require("I14", lives, page, "is owned by an interval that does not count")
    _require("I14", page.state.peek() is not PageState.FREE, page, "is FREE and owned")


def i16_owned_in_transit(page: VmPage, word: object) -> None:
    """I16: a loaned page that is neither FREE nor in a VMO is on somebody's stack."""
    adrift = word is None and page.state.peek() is not PageState.FREE
    adrift = adrift or page.state.peek() is PageState.ALLOC
    _require("I16", not adrift, page, "is loaned and in use, and nobody owns it")


def i29_owner_inherits(interval: StackOwnedLoanedPagesInterval) -> None:
    """I29: while somebody sleeps on an interval, its owner is as urgent as he."""
    owner, queue = interval.owning_thread, interval.owned_wait_queue
    if owner is None or queue is None:
        return
    own = owner.effective_priority
    for waiter in queue.waiters:
        lent = waiter.effective_priority
        _require(
            "I29", own >= lent, owner.name, "of", own, "keeps", waiter.name, "of", lent, "waiting"
        )


def i29_owner_relaxes(interval: StackOwnedLoanedPagesInterval) -> None:
    """I29: once its waiters are woken, the owner is as urgent as those who wait for it elsewhere.

    Where it owns nothing else that somebody waits for, that is its base priority.
    """
    owner = interval.owning_thread
    if owner is None:
        return
    others = [queue for queue in owner.owned if queue is not interval.owned_wait_queue]
    lent = [waiter.effective_priority for queue in others for waiter in queue.waiters]
    right, own = max([owner.priority, *lent]), owner.effective_priority
    _require("I29", own == right, owner.name, "of", right, "has woken its waiters and is of", own)


# -- the PMM lock --------------------------------------------------------------------------------


def i12_one_place(page: VmPage, pmm: PmmNode) -> None:
    """I12: a page is in exactly one place."""
    listed = page.queue_node is pmm.free_list or page.queue_node is pmm.free_loaned_list
    places = listed + len(page.slots)
    _require("I12", places <= 1, page, "is in", places, "places")
    if page.state.peek() is PageState.FREE:
        limbo = page.loaned and page.loan_cancelled
        _require("I12", listed or limbo, page, "is FREE and lost")
        _require("I12", not page.slots, page, "is FREE and in a VMO")


def i13_lists(page: VmPage, pmm: PmmNode) -> None:
    """I13 (P1-P3, P6, P7): the lists agree with state and loan bits."""
    free = page.state.peek() is PageState.FREE
    node = page.queue_node
    if node is pmm.free_list:
        plain = free and not page.loaned and not page.loan_cancelled
        _require("I13", plain, "P1:", page, "is on the free list")
    elif node is pmm.free_loaned_list:
        lent = free and page.loaned and not page.loan_cancelled
        _require("I13", lent, "P2:", page, "is on the loaned list")
    elif free:
        _require("I13", page.loaned and page.loan_cancelled, "P3:", page, "is in limbo")
    _require("I13", page.loaned or not page.loan_cancelled, "P6:", page, "has half a loan")
    _require("I13", not free or page.word.peek() is None, "P7:", page, "is FREE and owned")


def i13_counts(pmm: PmmNode, loaned: int, cancelled: int) -> None:
    """I13 (P4, P5, P8): the counters agree with the lists and with the bits."""
    free_count, free_loaned = pmm.free_count, pmm.free_loaned_count
    listed = (len(pmm.free_list), len(pmm.free_loaned_list))
    counted = (free_count, free_loaned)
    _require("I13", listed == counted, "P4: listed", listed, "counted", counted)
    bits = (loaned, cancelled)
    counted = (pmm.loaned_count, pmm.loan_cancelled_count)
    _require("I13", bits == counted, "P5: loaned, cancelled are", bits, "counted", counted)
    ordered = free_loaned <= loaned and cancelled <= loaned
    _require("I13", ordered, "P8:", free_loaned, "free and", cancelled, "cancelled of", loaned)


# -- the VMO lock --------------------------------------------------------------------------------


def i1_absent_is_loaned(cow: VmCowPages, provider: PhysicalPageProvider) -> None:
    """I1: in a lender a page is present, or loaned, or in the hands of a reclaimer."""
    if provider.cow_pages is None or not cow.alive or cow.recycled:
        return
    for offset in range(0, cow.size, PAGE_SIZE):
        page = provider.page_at(offset)
        where = ("offset", offset, "of", cow.name)
        if cow.page_list.lookup(offset) is None:
            fine = page.loaned or _in_flight(provider, page)
            _require("I1", fine, *where, "is absent, and not loaned is", page)
        else:
            _require("I1", not page.loaned, *where, "is present, and loaned is", page)


# -- page source and provider --------------------------------------------------------------------


def check_source(source: PageSource) -> None:
    """What the page source's lock protects."""
    trees = source.outstanding_requests.values()
    tree = [node for nodes in trees for node in nodes]
    queued = source.provider.queued()
    i7_queued_is_outstanding(tree, queued)
    for nodes in trees:
        i9_disjoint(nodes, queued)
    for request in source.recent:
        i10_inactive_is_nowhere(request, tree, queued)
    source.recent.clear()


def i7_queued_is_outstanding(tree: list[PageRequest], queued: list[PageRequest]) -> None:
    """I7, at the page source: what the provider has queued is outstanding."""
    for request in queued:
        _require("I7", request in tree, request, "is queued and not outstanding")


def i9_disjoint(tree: list[PageRequest], queued: list[PageRequest]) -> None:
    """I9: outstanding ranges are disjoint; overlapping requests lie within theirs."""
    last = 0
    for node in tree:
        start = node.offset.peek()
        _require("I9", start >= last, node, "meets another outstanding request")
        last = node.end
        sane = 0 < node.pending_size <= node.length
        _require("I9", sane, node, "has a pending size out of range")
        for waiter in node.overlap:
            within = start <= waiter.offset.peek() and waiter.end <= node.end
            _require("I9", within, waiter, "reaches out of", node)
            apart = waiter not in tree and waiter not in queued
            _require("I9", apart, waiter, "overlaps and is outstanding itself")


def i10_inactive_is_nowhere(
    request: PageRequest, tree: list[PageRequest], queued: list[PageRequest]
) -> None:
    """I10: an inactive request is in no container and nobody's."""
    if request.active:
        return
    linked = request in tree or request in queued
    linked = linked or any(request in node.overlap for node in tree)
    _require("I10", not linked, request, "is still linked")
    _require("I10", not request.provider_owned, request, "is still provider-owned")


def check_provider(provider: PhysicalPageProvider) -> None:
    """What the provider's lock protects."""
    i7_fifo(provider)
    i8_closed_is_empty(provider)


def i7_fifo(provider: PhysicalPageProvider) -> None:
    """I7: queued requests are sound, each there once, in the order of sending."""
    last = 0
    for request in provider.pending_requests:
        _require("I11", request.alive, request, "is queued and its owner's frame has ended")
        sound = request.active and request.provider_owned and request.type is PageRequestType.READ
        _require("I7", sound, request, "is queued")
        _require("I7", request.end <= provider.size, request, "is out of range")
        _require("I7", request.sequence > last, request, "is out of order, or queued twice")
        _require("I7", not request.in_flight, request, "is queued and in flight")
        last = request.sequence


def i8_closed_is_empty(provider: PhysicalPageProvider) -> None:
    """I8: a closed provider is detached and has nothing queued."""
    if provider.closed:
        _require("I8", provider.detached, provider.name, "is closed and was never detached")
        pending = provider.pending_requests
        _require("I8", not pending, provider.name, "is closed and has queued", pending)


# -- quiescent -----------------------------------------------------------------------------------


def i1_strictly(page: VmPage) -> None:
    """I1, when nothing runs: a lender's page is present or loaned, never both, never neither."""
    lender = page.lender
    cow = None if lender is None else lender.cow_pages
    if lender is None or cow is None or not cow.alive or cow.recycled:
        return
    home = any(cow is lender.cow_pages for cow, _ in page.slots)
    _require("I1", home or page.loaned, page, "of", lender.cow_pages, "is absent and not loaned")
    _require(
        "I1", not home or not page.loaned, page, "of", lender.cow_pages, "is at home and loaned"
    )


def i2_none_cancelled(page: VmPage) -> None:
    """I2, when nothing runs: no loan is being cancelled."""
    _require("I2", not page.loan_cancelled, page, "is cancelled and nobody takes it back")


def i12_not_lost(page: VmPage) -> None:
    """I12, when nothing runs: a page that is in use is in a VMO."""
    free = page.state.peek() is PageState.FREE
    _require("I12", free or page.slots, page, "is in use by nobody")


def i30_counters(world: World) -> None:
    """I30: every reclaim either succeeded or failed."""
    total, good, bad = (
        world.counters[f"physical.reclaim.{which}_requests"]
        for which in ("total", "succeeded", "failed")
    )
    _require("I30", total == good + bad, total, "reclaims,", good, "succeeded,", bad, "failed")


# -- helpers -------------------------------------------------------------------------------------


def _in_flight(provider: PhysicalPageProvider, page: VmPage) -> bool:
    offset = page.paddr - provider.phys_base
    return any(start <= offset < start + length for start, length in provider.in_flight)


def _phys_base(cow: VmCowPages) -> int | None:
    """The address of the first page of a contiguous VMO that is initialised."""
    provider = cow.page_source.provider
    if isinstance(provider, PhysicalPageProvider) and provider.phys_base != INVALID_PHYS_BASE:
        return provider.phys_base
    return None
