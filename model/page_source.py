"""``PageSource``: which pages are being asked for, and who waits for them.

The cast: a VMO asks its source for an absent page, under the VMO lock. The source keeps each
thread's request in a tree of disjoint ranges and hands it to the provider, unless a request for the
same range is outstanding: then the new one only waits along. When pages are supplied or failed, the
source completes whatever the range covers.
"""

from __future__ import annotations

from bisect import insort
from typing import TYPE_CHECKING

from harness.sync import Mutex, guarded_by, requires
from model.asserts import kassert
from model.locks import PAGE_SOURCE
from model.page import PAGE_SIZE
from model.page_request import INACTIVE, BatchState, PageRequest, PageRequestType
from model.refs import RefCounted
from model.status import Status, is_valid_internal_failure_code

if TYPE_CHECKING:
    from model.page import VmPage
    from model.page_provider import PageProvider
    from model.world import World


class PageSource(RefCounted):
    """Requests of one VMO, between the VMO and its provider.

    Attributes:
        mtx: Guards everything here, and the fields of active requests.
        provider: Owned; called under ``mtx`` except for waiting.
        properties: The provider's, cached.
        departures: For the invariants only: how many pages have left the VMO; its lock.
        recent: For the invariants only: requests that changed since ``mtx`` was last released.

    Kernel: ``PageSource``.
    """

    detached = guarded_by("mtx")
    closed = guarded_by("mtx")
    outstanding_requests = guarded_by("mtx")
    current_request = guarded_by("mtx")

    def __init__(self, world: World, name: str, provider: PageProvider) -> None:
        """Neither detached nor closed. No schedule points."""
        super().__init__(name)
        self._world = world
        self.provider = provider
        self.properties = provider.properties
        self.mtx = Mutex(f"{name}.mtx", PAGE_SOURCE, invariant=world.oracle.source_lock(self))
        self.detached = False
        self.closed = False
        # Of each type, sorted by end: stands for the tree.
        self.outstanding_requests = {kind: [] for kind in PageRequestType}
        self.current_request = None
        self.departures = 0
        self.recent: list[PageRequest] = []
        self._sent = 0

    def _on_zero(self) -> None:
        """Kernel: ``~PageSource``."""
        # Without the lock: this may run under the sweeper's, where the kernel never takes it.
        done = PageSource.detached.unchecked(self) and PageSource.closed.unchecked(self)
        kassert("a.ps.dtor", done, self.name, "dies before it was closed")
        self.die()

    # -- asking for pages -----------------------------------------------------------------------

    def get_page(self, offset: int, request: PageRequest) -> tuple[Status, VmPage | None]:
        """Ask for the page at ``offset``; it joins ``request`` where that batches.

        Returns:
            SHOULD_WAIT where the request was sent or still accepts pages, BAD_STATE once detached,
            OK and the page where the provider had it at hand.

        Locks: VMO lock held; takes ``mtx``.
        Kernel: ``PageSource::GetPage``.
        """
        if not self.provider.supports_page_request_type(PageRequestType.READ):
            return Status.NOT_SUPPORTED, None
        with self.mtx:
            if self.detached:
                return Status.BAD_STATE, None
            page = self.provider.get_page_sync(offset)
            if page is not None:
                return Status.OK, page
            if not request.active:
                self._begin_request_locked(request, offset, PageRequestType.READ)
            else:
                reusable = request.batch_accepting() and request.source is self
                kassert("a.ps.batch", reusable, request, "is sent and asks for more")
            return self._populate_request_locked(request, offset), None

    def request_dirty_transition(self, request: PageRequest, offset: int, length: int) -> Status:
        """Ask whether the pages of the range may be written; the answer may cover fewer of them.

        Args:
            request: Not in use.
            offset: First byte: the page that the caller is about to write.
            length: Bytes.

        Returns:
            SHOULD_WAIT where the request was sent; NOT_SUPPORTED where nobody wants to be asked;
            BAD_STATE once detached.

        Locks: VMO lock held; takes ``mtx``.
        Kernel: ``PageSource::RequestDirtyTransition``.
        """
        if not self.provider.supports_page_request_type(PageRequestType.DIRTY):
            return Status.NOT_SUPPORTED
        with self.mtx:
            if self.detached:
                return Status.BAD_STATE
            kassert("a.ps.batch", not request.active, request, "is sent and asks for more")
            self._begin_request_locked(request, offset, PageRequestType.DIRTY)
            status = Status.NEXT
            for at in range(offset, offset + length, PAGE_SIZE):
                status = self._populate_request_locked(request, at)
                if status is not Status.NEXT:
                    return status
            self._send_request_to_provider_locked(request)
            return Status.SHOULD_WAIT

    @requires("mtx")
    def _begin_request_locked(
        self, request: PageRequest, offset: int, kind: PageRequestType
    ) -> None:
        """Let ``request`` be the one that is built. Kernel: part of ``PageSource::GetPage``."""
        request.init(self, offset, kind)
        kassert("a.ps.current", self.current_request is None, "two requests are built")
        self.current_request = request

    @requires("mtx")
    def _populate_request_locked(self, request: PageRequest, offset: int) -> Status:
        """Add the page at ``offset``; send the request where its batch ends.

        Returns:
            SHOULD_WAIT; NEXT where the page source itself is batching and more may join.

        Kernel: ``PageSource::PopulateRequestLocked``.
        """
        mine = self.current_request is request
        kassert("a.ps.current", mine, request, "grows while", self.current_request, "is built")
        kassert("a.ps.owned", not request.provider_owned, request, "grows after it was sent")
        internal = request.batch is BatchState.INTERNAL
        if not request.batch_accepting() and not internal:
            request.length = PAGE_SIZE
            self._send_request_to_provider_locked(request)
            return Status.SHOULD_WAIT
        if request.length and offset != request.end:
            # Not adjacent: what there is goes out, and the caller comes again for this page.
            self._send_request_to_provider_locked(request)
            return Status.SHOULD_WAIT
        request.length += PAGE_SIZE
        start = request.offset.peek()
        node = self._upper_bound(request.type, start)
        if node is not None:
            # A request must lie within one outstanding request, or outside of all of them.
            edge = node.end if node.offset.peek() <= start else node.offset.peek()
            if request.end == edge:
                self._send_request_to_provider_locked(request)
                return Status.SHOULD_WAIT
        return Status.NEXT if internal else Status.SHOULD_WAIT

    def finalize_request(self, request: PageRequest) -> Status:
        """Send a batch that ended with its range. Locks: VMO lock held; takes ``mtx``.

        Kernel: ``PageSource::FinalizeRequest``.
        """
        with self.mtx:
            if self.detached:
                return Status.BAD_STATE
            accepting = request.active and request.batch_accepting()
            kassert("a.ps.batch", accepting, request, "is finalized twice")
            self._send_request_to_provider_locked(request)
            return Status.SHOULD_WAIT

    @requires("mtx")
    def _send_request_to_provider_locked(self, request: PageRequest) -> None:
        """Make ``request`` outstanding, or let it wait along with one that covers it.

        Kernel: ``PageSource::SendRequestToProviderLocked``.
        """
        self.current_request = None
        if request.batch_accepting():
            request.batch = BatchState.FINALIZED
        self.recent.append(request)
        kassert("a.ps.owned", not request.provider_owned, request, "is sent twice")
        start = request.offset.peek()
        node = self._upper_bound(request.type, start)
        if node is not None and node.offset.peek() <= start:
            node.overlap.append(request)
            request.departures = node.departures
            return
        self._sent += 1
        request.sequence = self._sent
        request.departures = self.departures
        request.pending_size = request.length
        request.provider_owned = True
        self.provider.send_async_request(request)
        insort(self.outstanding_requests[request.type], request, key=_end_of)

    @requires("mtx")
    def _upper_bound(self, kind: PageRequestType, offset: int) -> PageRequest | None:
        """The outstanding request of that kind with the smallest end above ``offset``."""
        for node in self.outstanding_requests[kind]:
            if node.end > offset:
                found: PageRequest = node
                return found
        return None

    # -- answers --------------------------------------------------------------------------------

    def on_pages_supplied(self, offset: int, length: int) -> None:
        """Pages ``[offset, offset + length)`` are in the VMO: complete what they complete.

        Locks: VMO lock held; takes ``mtx``.
        Kernel: ``PageSource::OnPagesSupplied``.
        """
        with self.mtx:
            if self.detached:
                return
            self._resolve_requests_locked(PageRequestType.READ, offset, length)

    def on_pages_dirtied(self, offset: int, length: int) -> None:
        """Pages ``[offset, offset + length)`` may be written: complete what that completes.

        Locks: VMO lock held; takes ``mtx``.
        Kernel: ``PageSource::OnPagesDirtied``.
        """
        with self.mtx:
            if self.detached:
                return
            self._resolve_requests_locked(PageRequestType.DIRTY, offset, length)

    @requires("mtx")
    def _resolve_requests_locked(self, kind: PageRequestType, offset: int, length: int) -> None:
        """Kernel: ``PageSource::ResolveRequestsLocked``."""
        end = offset + length
        for node in self._intersecting(kind, offset, end):
            fulfilled = min(end, node.end) - max(offset, node.offset.peek())
            if fulfilled < node.pending_size:
                node.pending_size -= fulfilled
                continue
            self.outstanding_requests[kind].remove(node)
            self._complete_request_locked(node, Status.OK)

    def on_pages_failed(self, offset: int, length: int, status: Status) -> None:
        """Nothing will come for ``[offset, offset + length)``: fail every request that meets it.

        Locks: takes ``mtx``.
        Kernel: ``PageSource::OnPagesFailed``.
        """
        valid = is_valid_internal_failure_code(status)
        kassert("a.ps.code", valid, status, "is no status to fail a request with")
        with self.mtx:
            if self.detached:
                return
            for kind, nodes in self.outstanding_requests.items():
                for node in self._intersecting(kind, offset, offset + length):
                    nodes.remove(node)
                    # Who batches without the caller's knowing fails him for his own page only; for
                    # another one he looks again.
                    added = node.batch is BatchState.INTERNAL and offset > node.offset.peek()
                    self._complete_request_locked(node, Status.OK if added else status)

    @requires("mtx")
    def _intersecting(self, kind: PageRequestType, offset: int, end: int) -> list[PageRequest]:
        nodes = self.outstanding_requests[kind]
        return [node for node in nodes if node.end > offset and node.offset.peek() < end]

    @requires("mtx")
    def _complete_request_locked(self, request: PageRequest, status: Status) -> None:
        """Tell everybody who waits for ``request``; it has left the tree already.

        Kernel: ``PageSource::CompleteRequestLocked``.
        """
        request.check_alive("is completed")
        kassert("a.ps.owned", request.provider_owned, request, "is completed and was never sent")
        self.provider.clear_async_request(request)
        request.provider_owned = False
        self.recent.append(request)
        # Once detached, OK says no more than that there is nothing to wait for.
        told = status is Status.OK and not self.detached and request.type is PageRequestType.READ
        while request.overlap:
            waiter = request.overlap.pop(0)
            waiter.check_alive("is completed")
            self.recent.append(waiter)
            self._world.oracle.at_signal(waiter, told=told)
            waiter.offset.set(INACTIVE)
            waiter.event.signal(status)
        self._world.oracle.at_signal(request, told=told)
        # The waiter may free the request as soon as it is told: nothing touches it after this.
        request.offset.set(INACTIVE)
        request.event.signal(status)

    # -- giving up ------------------------------------------------------------------------------

    def cancel_request(self, request: PageRequest) -> None:
        """Forget ``request``, whatever became of it; its event stays unsignalled.

        Locks: takes ``mtx``.
        Kernel: ``PageSource::CancelRequest``.
        """
        with self.mtx:
            if not request.active:
                return
            self.recent.append(request)
            outstanding = self.outstanding_requests[request.type]
            if request in outstanding:
                if request.overlap:
                    self._promote_overlap_locked(request)
                else:
                    outstanding.remove(request)
                    self.provider.clear_async_request(request)
                kassert("a.ps.owned", request.provider_owned, request, "was never sent")
                request.provider_owned = False
            elif self.current_request is request:
                self.current_request = None
            else:
                main = self._upper_bound(request.type, request.offset.peek())
                if main is not None and request in main.overlap:
                    main.overlap.remove(request)
            request.offset.set(INACTIVE)

    @requires("mtx")
    def _promote_overlap_locked(self, old: PageRequest) -> None:
        """The first request that waits along with ``old`` becomes the outstanding one.

        Kernel: ``PageSource::CancelRequest``, its middle part.
        """
        new = old.overlap.pop(0)
        self.recent.append(new)
        kassert("a.ps.owned", not new.provider_owned, new, "waits along and is provider-owned")
        new.overlap.extend(old.overlap)
        old.overlap.clear()
        new.offset.set(old.offset.peek())
        new.length = old.length
        new.pending_size = old.pending_size
        new.sequence = old.sequence
        new.departures = old.departures
        new.in_flight = old.in_flight
        outstanding = self.outstanding_requests[old.type]
        outstanding.remove(old)
        insort(outstanding, new, key=_end_of)
        new.provider_owned = True
        self.provider.swap_async_request(old, new)

    # -- the end --------------------------------------------------------------------------------

    def detach(self) -> None:
        """Complete every request with OK and accept no more; the waiters look again.

        Locks: VMO lock held; takes ``mtx``.
        Kernel: ``PageSource::Detach``.
        """
        with self.mtx:
            if self.detached:
                return
            self.detached = True
            for outstanding in self.outstanding_requests.values():
                while outstanding:
                    self._complete_request_locked(outstanding.pop(0), Status.OK)
            self.provider.on_detach()

    def close(self) -> None:
        """Detach, then tell the provider that the VMO is gone.

        Locks: VMO lock held; takes ``mtx`` twice.
        Kernel: ``PageSource::Close``.
        """
        self.detach()
        with self.mtx:
            if self.closed:
                return
            self.closed = True
            self.provider.on_close()

    # -- passed through -------------------------------------------------------------------------

    def wait_on_request(self, request: PageRequest) -> Status:
        """Wait for the answer to ``request``. Locks: none may be held.

        Kernel: ``PageSource::WaitOnRequest``.
        """
        return self.provider.wait_on_event(request.event)

    def free_pages(self, pages: list[VmPage]) -> None:
        """Give pages to the provider. Kernel: ``PageSource::FreePages``."""
        self.provider.free_pages(pages)

    def debug_is_page_ok(self, page: VmPage, offset: int) -> bool:
        """Whether ``page`` may be at ``offset``. Kernel: ``PageSource::DebugIsPageOk``."""
        return self.provider.debug_is_page_ok(page, offset)

    def dump(self) -> list[str]:
        """One line per fact. Locks: takes ``mtx``. Kernel: ``PageSource::Dump``."""
        with self.mtx:
            lines = [f"page_source {self.name} detached {self.detached} closed {self.closed}"]
            for outstanding in self.outstanding_requests.values():
                for node in outstanding:
                    lines.append(f"  outstanding {node}")
                    lines += [f"    overlapped by {waiter}" for waiter in node.overlap]
        return lines + self.provider.dump()


def _end_of(request: PageRequest) -> int:
    return request.end
