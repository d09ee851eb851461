"""The provider of pager-backed VMOs: requests wait here until a pager answers them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from harness.sync import Mutex, guarded_by, requires
from model.asserts import kassert
from model.locks import PAGER_PROXY
from model.page_provider import PageProvider, PageSourceProperties
from model.page_request import PageRequest, PageRequestType
from model.pager_port import Packet, PacketKind, PagerPort

if TYPE_CHECKING:
    from model.event import AutounsignalEvent
    from model.page import VmPage
    from model.status import Status
    from model.world import World

_PROPERTIES: Final = PageSourceProperties(
    is_user_pager=True,
    is_preserving_page_content=True,
    is_providing_specific_physical_pages=False,
    is_handling_free=False,
)


class CompleteRequest:
    """Stands in the queue for the last packet of all. Kernel: ``complete_request_``."""

    def __repr__(self) -> str:
        """For traces."""
        return "complete-request"


COMPLETE_REQUEST: Final = CompleteRequest()
Request = PageRequest | CompleteRequest


class PagerProxy(PageProvider):
    """Hands requests to a pager thread, one packet after another; the others queue here.

    Attributes:
        mtx: Guards all that follows; taken last of VMO, page source and this.
        port: Where the packet goes; the proxy may be closed before its last packet is read.
        packet_busy: The packet is in the port, or in the hands of a thread that has just read it.
        active_request: What the packet is about; None once that request was taken back.
        pending_requests: Those that wait for the packet, first to last.
        complete_pending: The COMPLETE packet is on its way.

    Kernel: ``PagerProxy``. Omits: the dispatcher with its own lock, a pager that goes away.
    """

    pending_requests = guarded_by("mtx")
    active_request = guarded_by("mtx")
    packet_busy = guarded_by("mtx")
    complete_pending = guarded_by("mtx")
    closed = guarded_by("mtx")

    def __init__(self, world: World, name: str, *, trap_dirty: bool = False) -> None:
        """No requests; ``trap_dirty`` for a pager that wants to be asked before pages are written.

        No schedule points.
        """
        self._world = world
        self._trap_dirty = trap_dirty
        self.name = name
        self.mtx = Mutex(f"{name}.mtx", PAGER_PROXY)
        self.port = PagerPort(name)
        self.pending_requests = []
        self.active_request = None
        self.packet_busy = False
        self.complete_pending = False
        self.closed = False

    @property
    def properties(self) -> PageSourceProperties:
        """Kernel: ``PagerProxy::properties``."""
        return _PROPERTIES

    def get_page_sync(self, offset: int) -> VmPage | None:
        """None: a pager takes its time. Kernel: ``PagerProxy::GetPageSync``."""
        del offset
        return None

    # -- requests -------------------------------------------------------------------------------

    def send_async_request(self, request: PageRequest) -> None:
        """Locks: VMO and page source locks held; takes ``mtx``.

        Kernel: ``PagerProxy::SendAsyncRequest``.
        """
        with self.mtx:
            kassert("a.pager.notclosed", not self.closed, self.name, "gets", request)
            self._queue_packet_locked(request)

    @requires("mtx")
    def _queue_packet_locked(self, request: Request) -> None:
        """Put a packet about ``request`` into the port, as soon as the packet is free.

        Kernel: ``PagerProxy::QueuePacketLocked``.
        """
        if self.packet_busy:
            self.pending_requests.append(request)
            return
        self.packet_busy = True
        self.active_request = request
        if isinstance(request, CompleteRequest):
            self.port.queue(Packet(PacketKind.COMPLETE, 0, 0))
        else:
            offset, length = self.get_request_offset(request), self.get_request_len(request)
            dirty = self.get_request_type(request) is PageRequestType.DIRTY
            kind = PacketKind.DIRTY if dirty else PacketKind.READ
            self.port.queue(Packet(kind, offset, length))

    def clear_async_request(self, request: PageRequest) -> None:
        """Forget ``request``. A pager thread may have read its packet: its supply is for nobody.

        Locks: page source lock held; takes ``mtx``.
        Kernel: ``PagerProxy::ClearAsyncRequest``.
        """
        with self.mtx:
            kassert("a.pager.notclosed", not self.closed, self.name, "clears", request)
            if request is self.active_request:
                self.active_request = None
                if self.port.cancel_queued():
                    self._on_packet_freed_locked()
            elif request in self.pending_requests:
                self.pending_requests.remove(request)

    def swap_async_request(self, old: PageRequest, new: PageRequest) -> None:
        """Let ``new``, of the same range, take the place of ``old``.

        Locks: page source lock held; takes ``mtx``.
        Kernel: ``PagerProxy::SwapAsyncRequest``.
        """
        with self.mtx:
            kassert("a.pager.notclosed", not self.closed, self.name, "swaps", old)
            if old is self.active_request:
                self.active_request = new
            elif old in self.pending_requests:
                self.pending_requests[self.pending_requests.index(old)] = new

    # -- packets --------------------------------------------------------------------------------

    def read_packet(self, *, wait: bool = False) -> Packet | None:
        """What a pager thread does at the port; a packet is read once.

        Args:
            wait: Sleep until there is a packet; else None where there is none.

        Locks: none held; takes ``mtx`` once the packet has left the port.
        Kernel: ``PortDispatcher::Dequeue``, then ``PagerProxy::Free``.
        """
        packet = self.port.dequeue(wait=wait)
        if packet is not None:
            self._free()
        return packet

    def _free(self) -> None:
        """The packet was read: the next request may have it.

        Locks: takes ``mtx``.
        Kernel: ``PagerProxy::Free``.
        """
        with self.mtx:
            if self.active_request is COMPLETE_REQUEST:
                self.complete_pending = False
            self._on_packet_freed_locked()

    @requires("mtx")
    def _on_packet_freed_locked(self) -> None:
        """Kernel: ``PagerProxy::OnPacketFreedLocked``."""
        self.packet_busy = False
        self.active_request = None
        if self.pending_requests:
            self._queue_packet_locked(self.pending_requests.pop(0))

    # -- lifetime -------------------------------------------------------------------------------

    def free_pages(self, pages: list[VmPage]) -> None:
        """Never called: pages of a pager-backed VMO are ordinary.

        Kernel: ``PagerProxy::FreePages``.
        """
        kassert("a.pager.free", False, self.name, "gets pages:", pages)

    def debug_is_page_ok(self, page: VmPage, offset: int) -> bool:
        """Any page will do. Kernel: ``PagerProxy::DebugIsPageOk``."""
        del page, offset
        return True

    def on_detach(self) -> None:
        """Tell the pager thread that nothing more comes.

        Locks: page source lock held; takes ``mtx``.
        Kernel: ``PagerProxy::OnDetach``.
        """
        with self.mtx:
            kassert("a.pager.notclosed", not self.closed, self.name, "is detached after close")
            self.complete_pending = True
            self._queue_packet_locked(COMPLETE_REQUEST)

    def on_close(self) -> None:
        """Locks: page source lock held; takes ``mtx``. Kernel: ``PagerProxy::OnClose``."""
        with self.mtx:
            kassert("a.pager.notclosed", not self.closed, self.name, "is closed twice")
            self.closed = True

    def wait_on_event(self, event: AutounsignalEvent) -> Status:
        """Sleep until the pager has answered, or for too long (TIMED_OUT, an injected fault).

        Kernel: ``PagerProxy::WaitOnEvent``. Omits: looking up now and then to complain.
        """
        return event.wait("pager")

    def supports_page_request_type(self, kind: PageRequestType) -> bool:
        """Kernel: ``PagerProxy::SupportsPageRequestType``."""
        if kind is PageRequestType.DIRTY:
            return self._trap_dirty
        return kind is PageRequestType.READ

    def queued(self) -> list[PageRequest]:
        """See ``PageProvider.queued``; inside invariants only."""
        linked = [self.active_request, *self.pending_requests]
        return [request for request in linked if isinstance(request, PageRequest)]

    def dump(self) -> list[str]:
        """Locks: takes ``mtx``. Kernel: ``PagerProxy::Dump``."""
        with self.mtx:
            head = f"pager_proxy {self.name} closed {self.closed} packet_busy {self.packet_busy}"
            active = [f"  active {self.active_request}"] if self.active_request else []
            return [head, *active, *(f"  pending {request}" for request in self.pending_requests)]
