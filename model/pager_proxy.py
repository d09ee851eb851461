"""The provider of pager-backed VMOs: requests wait here until a pager answers them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from harness.sync import Mutex, guarded_by
from model.asserts import kassert
from model.locks import PAGER_PROXY
from model.page_provider import PageProvider, PageSourceProperties
from model.page_request import PageRequest, PageRequestType

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


class PagerProxy(PageProvider):
    """Queues requests for a pager thread, which reads their ranges as packets.

    Kernel: ``PagerProxy``. Omits: the port with its one packet in flight (packets are read in
    order), overtime, the dispatcher's own lock.
    """

    pending_requests = guarded_by("mtx")
    closed = guarded_by("mtx")

    def __init__(self, world: World, name: str) -> None:
        """No requests. No schedule points."""
        self._world = world
        self.name = name
        self.mtx = Mutex(f"{name}.mtx", PAGER_PROXY)
        self.pending_requests = []
        self.closed = False

    @property
    def properties(self) -> PageSourceProperties:
        """Kernel: ``PagerProxy::properties``."""
        return _PROPERTIES

    def get_page_sync(self, offset: int) -> VmPage | None:
        """None: a pager takes its time. Kernel: ``PagerProxy::GetPageSync``."""
        del offset
        return None

    def send_async_request(self, request: PageRequest) -> None:
        """Locks: VMO and page source locks held; takes ``mtx``.

        Kernel: ``PagerProxy::SendAsyncRequest``.
        """
        with self.mtx:
            kassert("a.pager.notclosed", not self.closed, self.name, "gets", request)
            self.pending_requests.append(request)

    def clear_async_request(self, request: PageRequest) -> None:
        """Locks: page source lock held; takes ``mtx``.

        Kernel: ``PagerProxy::ClearAsyncRequest``.
        """
        with self.mtx:
            if request in self.pending_requests:
                self.pending_requests.remove(request)

    def swap_async_request(self, old: PageRequest, new: PageRequest) -> None:
        """Locks: page source lock held; takes ``mtx``. Kernel: ``PagerProxy::SwapAsyncRequest``."""
        with self.mtx:
            if old in self.pending_requests:
                self.pending_requests[self.pending_requests.index(old)] = new

    def read_packet(self) -> tuple[int, int] | None:
        """What a pager thread reads: offset and length of the first request, which stays queued.

        Locks: takes ``mtx``.
        """
        with self.mtx:
            if not self.pending_requests:
                return None
            request = self.pending_requests[0]
            return self.get_request_offset(request), self.get_request_len(request)

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
        """Locks: page source lock held; takes ``mtx``. Kernel: ``PagerProxy::OnDetach``."""
        with self.mtx:
            kassert("a.pager.notclosed", not self.closed, self.name, "is detached after close")

    def on_close(self) -> None:
        """Locks: page source lock held; takes ``mtx``. Kernel: ``PagerProxy::OnClose``."""
        with self.mtx:
            kassert("a.pager.notclosed", not self.closed, self.name, "is closed twice")
            self.closed = True

    def wait_on_event(self, event: AutounsignalEvent) -> Status:
        """Sleep until the pager has answered. Kernel: ``PagerProxy::WaitOnEvent``."""
        return event.wait()

    def supports_page_request_type(self, kind: PageRequestType) -> bool:
        """Kernel: ``PagerProxy::SupportsPageRequestType``. Omits: DIRTY and WRITEBACK."""
        return kind is PageRequestType.READ

    def queued(self) -> list[PageRequest]:
        """See ``PageProvider.queued``; inside invariants only."""
        pending: list[PageRequest] = self.pending_requests
        return pending

    def dump(self) -> list[str]:
        """Locks: takes ``mtx``. Kernel: ``PagerProxy::Dump``."""
        with self.mtx:
            pending = [f"  pending {request}" for request in self.pending_requests]
            return [f"pager_proxy {self.name} closed {self.closed}", *pending]
