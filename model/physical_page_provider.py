"""``PhysicalPageProvider``: takes the very pages of a contiguous VMO back from whoever has them.

The thread that wants pages back does the work itself, in ``wait_on_event``, holding no lock: it
cancels the loans, follows each page through VMOs and stacks until it is FREE, ends the loans, and
supplies the pages to its VMO, which completes the request.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from harness.sync import Mutex, guarded_by, requires
from model.asserts import kassert
from model.cow_pages import EvictionHintAction
from model.locks import PHYSICAL_PAGE_PROVIDER
from model.page import PAGE_SIZE, PageState, VmPage
from model.page_provider import PageProvider, PageSourceProperties
from model.page_request import PageRequest, PageRequestType
from model.solpi import StackOwnedLoanedPagesInterval
from model.splice_list import VmPageSpliceList
from model.status import Status, is_valid_internal_failure_code

if TYPE_CHECKING:
    from model.cow_pages import VmCowPages
    from model.event import AutounsignalEvent
    from model.page_source import PageSource
    from model.world import World

INVALID_PHYS_BASE: Final = (1 << 64) - 1
# Passes over one page after which the kernel complains, and the model alarms.
ITERATIONS_ALARM: Final = 10

_PROPERTIES: Final = PageSourceProperties(
    is_user_pager=False,
    is_preserving_page_content=False,
    is_providing_specific_physical_pages=True,
    is_handling_free=True,
)


class PhysicalPageProvider(PageProvider):
    """Provides the physical pages ``[phys_base, phys_base + size)`` of one contiguous VMO.

    Attributes:
        mtx: Guards the queue and the two flags; taken last of VMO, page source and this.
        phys_base: Written once, under ``mtx``; read without a lock afterwards.
        in_flight: For the invariants only: ranges dequeued and not yet done with.

    Kernel: ``PhysicalPageProvider``.
    """

    pending_requests = guarded_by("mtx")
    detached = guarded_by("mtx")
    closed = guarded_by("mtx")

    def __init__(self, world: World, name: str, size: int) -> None:
        """Not initialised: creation of the VMO may still fail. No schedule points.

        Kernel: ``PhysicalPageProvider::PhysicalPageProvider``.
        """
        self._world = world
        self.name = name
        self.size = size
        self.phys_base = INVALID_PHYS_BASE
        self.cow_pages: VmCowPages | None = None
        self.page_source: PageSource | None = None
        self.mtx = Mutex(
            f"{name}.mtx", PHYSICAL_PAGE_PROVIDER, invariant=world.oracle.provider_lock(self)
        )
        self.pending_requests = []
        self.detached = False
        self.closed = False
        self.in_flight: list[tuple[int, int]] = []

    @property
    def properties(self) -> PageSourceProperties:
        """Kernel: ``PhysicalPageProvider::properties``."""
        return _PROPERTIES

    def init(self, cow_pages: VmCowPages, page_source: PageSource, phys_base: int) -> None:
        """Name the pages this provider stands for; called once, when the VMO has them.

        Locks: VMO lock held; takes ``mtx``.
        Kernel: ``PhysicalPageProvider::Init``.
        """
        kassert("a.ppp.init", self.phys_base == INVALID_PHYS_BASE, self.name, "is initialised")
        kassert("a.ppp.init", INVALID_PHYS_BASE % PAGE_SIZE, "the sentinel could be a page")
        kassert("a.ppp.init", phys_base % PAGE_SIZE == 0, f"{phys_base:#x} is no page address")
        kassert("a.ppp.init", self.cow_pages is None, self.name, "has a VMO")
        with self.mtx:
            self.cow_pages = cow_pages
            self.page_source = page_source
            self.phys_base = phys_base
        for index in range(self.size // PAGE_SIZE):
            self.page_at(index * PAGE_SIZE).lender = self

    # -- the queue ------------------------------------------------------------------------------

    def get_page_sync(self, offset: int) -> VmPage | None:
        """None: everything here is asynchronous, so that one batch covers a whole commit.

        Kernel: ``PhysicalPageProvider::GetPageSync``.
        """
        kassert("a.ppp.inited", self._inited, self.name, f"is asked for {offset:#x} before Init")
        return None

    def send_async_request(self, request: PageRequest) -> None:
        """Queue ``request``; whoever waits next works through the queue.

        The pages may be in other VMOs by now. Their locks are of the class that the caller holds,
        so nothing can be looked at here.

        Locks: VMO and page source locks held; takes ``mtx``.
        Kernel: ``PhysicalPageProvider::SendAsyncRequest``.
        """
        kassert("a.ppp.inited", self._inited, self.name, "gets", request, "before Init")
        self._check_type(request)
        kassert("a.ppp.type", request.provider_owned, request, "is sent and not provider-owned")
        with self.mtx:
            kassert("a.ppp.notclosed", not self.closed, self.name, "gets", request, "after close")
            self._queue_request_locked(request)

    @requires("mtx")
    def _queue_request_locked(self, request: PageRequest) -> None:
        """Kernel: ``PhysicalPageProvider::QueueRequestLocked``."""
        kassert("a.ppp.inited", self._inited, self.name, "queues before Init")
        self._check_type(request)
        kassert("a.ppp.notclosed", not self.closed, self.name, "queues after close")
        self.pending_requests.append(request)

    def clear_async_request(self, request: PageRequest) -> None:
        """Forget ``request``; afterwards no pointer to it is left here.

        A request that some thread is processing right now is not chased: that thread works with
        values that it copied under ``mtx``.

        Locks: page source lock held; takes ``mtx``.
        Kernel: ``PhysicalPageProvider::ClearAsyncRequest``.
        """
        kassert("a.ppp.inited", self._inited, self.name, "clears before Init")
        self._check_type(request)
        with self.mtx:
            kassert("a.ppp.notclosed", not self.closed, self.name, "clears after close")
            if request in self.pending_requests:
                self.pending_requests.remove(request)

    def swap_async_request(self, old: PageRequest, new: PageRequest) -> None:
        """Let ``new`` take the place of ``old`` in the queue, if ``old`` is still there.

        Where it is not, some thread is processing its range, and completes ``new`` by that range.

        Locks: page source lock held; takes ``mtx``.
        Kernel: ``PhysicalPageProvider::SwapAsyncRequest``.
        """
        kassert("a.ppp.inited", self._inited, self.name, "swaps before Init")
        self._check_type(old)
        self._check_type(new)
        owned = old.provider_owned and new.provider_owned
        kassert("a.ppp.type", owned, old, "is swapped for", new, "and one is not provider-owned")
        with self.mtx:
            kassert("a.ppp.notclosed", not self.closed, self.name, "swaps after close")
            if old in self.pending_requests:
                self.pending_requests.insert(self.pending_requests.index(old), new)
                self.pending_requests.remove(old)

    def _dequeue_request(self) -> tuple[int, int] | None:
        """Take the first request from the queue: offset and length, or None where there is none.

        Locks: none held; takes ``mtx``.
        Kernel: ``PhysicalPageProvider::DequeueRequest``.
        """
        with self.mtx:
            empty = not self.pending_requests
            kassert("a.ppp.closed_empty", not self.closed or empty, self.name, "is closed")
            if empty:
                return None
            request = self.pending_requests.pop(0)
            self._check_type(request)
            request.in_flight = True
            # Copied under the lock: from its release on, the request may be cancelled and freed.
            request_offset = self.get_request_offset(request)
            request_length = self.get_request_len(request)
            inside = request_offset + request_length <= self.size
            kassert("a.ppp.range", inside, f"[{request_offset:#x}, +{request_length:#x})")
            self.in_flight.append((request_offset, request_length))
        return request_offset, request_length

    # -- loans and lifetime ---------------------------------------------------------------------

    def free_pages(self, pages: list[VmPage]) -> None:
        """Loan pages that left the VMO to whoever can borrow.

        The pages of a VMO whose creation failed are freed as ordinary ones: nobody would ever end
        their loans (defect L5). No later revision of the kernel that we know repairs this.

        Locks: VMO lock held, so that no thread sees a page absent and not loaned.
        Kernel: ``PhysicalPageProvider::FreePages``.
        """
        if not self._inited and "L5" not in self._world.defects:
            self._world.pmm.free_list_of_pages(pages)
            return
        self._world.pmm.begin_loan(pages)

    def debug_is_page_ok(self, page: VmPage, offset: int) -> bool:
        """Whether ``page`` is the one physical page that belongs at ``offset``.

        Locks: VMO lock held; takes ``mtx``.
        Kernel: ``PhysicalPageProvider::DebugIsPageOk``.
        """
        with self.mtx:
            both = (self.cow_pages is not None) == self._inited
            kassert("a.ppp.inited", both, self.name, "is half initialised")
            if self.cow_pages is None:
                return True
            return page.paddr - self.phys_base == offset

    def on_detach(self) -> None:
        """Locks: VMO and page source locks held; takes ``mtx``.

        Kernel: ``PhysicalPageProvider::OnDetach``.
        """
        with self.mtx:
            kassert("a.ppp.notclosed", not self.closed, self.name, "is detached after close")
            self.detached = True

    def on_close(self) -> None:
        """End the loans for good: by now every page of the range is loaned.

        Locks: VMO and page source locks held; takes ``mtx``.
        Kernel: ``PhysicalPageProvider::OnClose``.
        """
        with self.mtx:
            kassert("a.ppp.notclosed", not self.closed, self.name, "is closed twice")
            self.closed = True
            if self._inited:
                self._world.pmm.delete_lender(self.phys_base, self.size // PAGE_SIZE)

    # -- reclaim --------------------------------------------------------------------------------

    def wait_on_event(self, event: AutounsignalEvent) -> Status:
        """Work through every queued request, whoever sent it; then wait for ``event``.

        The wait sleeps only where another thread is processing the request of ``event``.

        A faulting thread keeps the page source alive, not the VMO. Upstream therefore takes a
        reference of the VMO for the length of the work, and does none where the VMO is being
        closed, which answers the request (defect L3). The last drop may be ours, hence no lock.

        Locks: none held.
        Kernel: ``PhysicalPageProvider::WaitOnEvent``.
        """
        if "L3" in self._world.defects:
            self._process_requests()
        elif (cow_pages := self._upgrade_cow_pages()) is not None:
            self._process_requests()
            cow_pages.release()
        self._world.counters["physical.reclaim.total_requests"] += 1
        result = event.wait("reclaim")
        if result is Status.OK:
            self._world.counters["physical.reclaim.succeeded_requests"] += 1
        else:
            self._world.counters["physical.reclaim.failed_requests"] += 1
        return result

    def _upgrade_cow_pages(self) -> VmCowPages | None:
        """A reference of the VMO, unless it is being closed.

        Locks: none held; takes ``mtx``: the VMO is detached before its memory goes.
        """
        with self.mtx:
            if self.detached or self.cow_pages is None or not self.cow_pages.try_upgrade():
                return None
            return self.cow_pages

    def _process_requests(self) -> None:
        """Reclaim what the queued requests ask for, first to last."""
        while (span := self._dequeue_request()) is not None:
            request_offset, request_length = span
            kassert("a.ppp.nonzero", request_length > 0, f"nothing asked at {request_offset:#x}")
            runs = self._cancel_loans(request_offset, request_length)
            for run_offset, run_length in runs:
                self._evict_pages(run_offset, run_length)
            for run_offset, run_length in runs:
                self._take_back_pages(run_offset, run_length)
            self._done(request_offset, request_length)

    def _cancel_loans(self, request_offset: int, request_length: int) -> list[tuple[int, int]]:
        """Stop borrowing of the requested pages; return the runs that this thread takes back.

        As upstream's later ``UnloanRange``, which looks at each page, this skips those that are not
        on loan any more (defect L1).
        """
        pmm, paddr = self._world.pmm, self.phys_base + request_offset
        if "L1" in self._world.defects:
            pmm.cancel_loan(paddr, request_length // PAGE_SIZE)
            return [(request_offset, request_length)]
        # A request for these pages may have been cancelled while it was in flight. Its thread goes
        # on, and its supply completes our request by range: those pages are not ours to take back.
        runs = pmm.cancel_loan_if_loaned(paddr, request_length // PAGE_SIZE)
        return [(start - self.phys_base, count * PAGE_SIZE) for start, count in runs]

    def _evict_pages(self, offset: int, length: int) -> None:
        """Follow each page of the range until it is FREE; its loan is cancelled, so it stays so."""
        for page_offset in range(offset, offset + length, PAGE_SIZE):
            page = self.page_at(page_offset)
            iterations = 0
            while not page.is_free():
                iterations += 1
                self._world.oracle.alarm("WaitOnEvent", iterations, ITERATIONS_ALARM, page)
                self._evict_page(page)

    def _evict_page(self, page: VmPage) -> None:
        """Take one page from the VMO that borrows it, or wait for the stack that has it."""
        backlink = self._world.page_queues.get_cow_with_replaceable_page(page, self.cow_pages)
        if backlink is None:
            kassert("a.ppp.free_after_none", page.state.peek() is PageState.FREE, page)
            return
        container = backlink.container
        own = self.cow_pages is not None and container is self.cow_pages.raw_container()
        kassert("a.ppp.not_self", not own, page, "is in its own lender")
        with StackOwnedLoanedPagesInterval(self._world):
            kassert("a.ppp.not_always_need", not page.always_need, page, "is always needed")
            evicted = container.remove_page_for_eviction(
                page, backlink.offset, EvictionHintAction.FOLLOW
            )
            if not evicted:
                # On its way to FREE in another thread's hands.
                StackOwnedLoanedPagesInterval.wait_until_contiguous_page_not_stack_owned(
                    self._world, page
                )
            else:
                self._world.pmm.free_page(page)
            kassert("a.ppp.free_after_evict", page.state.peek() is PageState.FREE, page)
        container.release()

    def _take_back_pages(self, offset: int, length: int) -> None:
        """End the loans of FREE pages and supply them to the VMO, zeroed.

        A supply that fails leaves pages in the splice list, which would free them as ordinary ones.
        As upstream does later, they are taken from it to be loaned again (defect L2).
        """
        pages_in_transit: list[VmPage] = []
        pmm = self._world.pmm
        pmm.end_loan(self.phys_base + offset, length // PAGE_SIZE, pages_in_transit)
        for page in pages_in_transit:
            page.zero()
            self._world.oracle.at_supplied(page)
        splice = VmPageSpliceList.create_from_page_list(
            self._world, offset, length, pages_in_transit
        )
        if self.cow_pages is None or self.page_source is None:
            kassert("a.ppp.inited", False, self.name, "takes pages back before Init")
            return
        status = self.cow_pages.supply_pages(offset, length, splice, new_zeroed_pages=True)
        if status is not Status.OK:
            known = status is Status.NO_MEMORY and is_valid_internal_failure_code(status)
            kassert("a.ppp.supply_status", known, "supply failed with", status)
            if "L2" not in self._world.defects:
                splice.pop_rest_into(pages_in_transit)
            # Loaned again before anybody is told: absent pages are loaned pages.
            pmm.begin_loan(pages_in_transit)
            self.page_source.on_pages_failed(offset, length, status)
        splice.destroy()

    def _done(self, request_offset: int, request_length: int) -> None:
        """For the invariants only: the range is in flight no more."""
        self.in_flight.remove((request_offset, request_length))
        for offset in range(request_offset, request_offset + request_length, PAGE_SIZE):
            self.page_at(offset).touch()

    def page_at(self, offset: int) -> VmPage:
        """The physical page that belongs at ``offset``, wherever it is now."""
        return self._world.pmm.paddr_to_vm_page(self.phys_base + offset)

    # -- odds and ends --------------------------------------------------------------------------

    def supports_page_request_type(self, kind: PageRequestType) -> bool:
        """Kernel: ``PhysicalPageProvider::SupportsPageRequestType``."""
        return kind is PageRequestType.READ

    def queued(self) -> list[PageRequest]:
        """See ``PageProvider.queued``; inside invariants only, where no lock is needed."""
        pending: list[PageRequest] = self.pending_requests
        return pending

    def dump(self) -> list[str]:
        """Locks: takes ``mtx``. Kernel: ``PhysicalPageProvider::Dump``."""
        with self.mtx:
            head = f"physical_page_provider {self.name} cow_pages {self.cow_pages}"
            lines = [f"{head} phys_base {self.phys_base:#x} closed {self.closed}"]
            for request in self.pending_requests:
                self._check_type(request)
                lines.append(f"  pending {request}")
        return lines

    @property
    def _inited(self) -> bool:
        return self.phys_base != INVALID_PHYS_BASE

    def _check_type(self, request: PageRequest) -> None:
        supported = self.supports_page_request_type(self.get_request_type(request))
        kassert("a.ppp.type", supported, request, "is no READ request")
