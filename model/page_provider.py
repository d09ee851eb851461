"""The side of a page source that knows where pages come from."""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING, NamedTuple

from model.page_request import PageRequest, PageRequestType

if TYPE_CHECKING:
    from model.event import AutounsignalEvent
    from model.page import VmPage
    from model.status import Status


class PageSourceProperties(NamedTuple):
    """What a VMO may rely on. Kernel: ``PageSourceProperties``."""

    is_user_pager: bool
    is_preserving_page_content: bool
    is_providing_specific_physical_pages: bool
    is_handling_free: bool


class PageProvider(abc.ABC):
    """What a page source asks of its provider.

    Kernel: ``PageProvider``. Omits: debug pages of other kinds, the reference count (a page source
    owns its provider alone).
    """

    @property
    @abc.abstractmethod
    def properties(self) -> PageSourceProperties:
        """Constant for the life of the provider."""

    @abc.abstractmethod
    def get_page_sync(self, offset: int) -> VmPage | None:
        """A page at once, if that is possible. Kernel: ``GetPageSync``."""

    @abc.abstractmethod
    def send_async_request(self, request: PageRequest) -> None:
        """Take ``request`` on. Locks: VMO, page source held. Kernel: ``SendAsyncRequest``."""

    @abc.abstractmethod
    def clear_async_request(self, request: PageRequest) -> None:
        """Forget ``request``. Locks: page source lock held. Kernel: ``ClearAsyncRequest``."""

    @abc.abstractmethod
    def swap_async_request(self, old: PageRequest, new: PageRequest) -> None:
        """Put ``new`` in the place of ``old``. Locks: as above. Kernel: ``SwapAsyncRequest``."""

    @abc.abstractmethod
    def free_pages(self, pages: list[VmPage]) -> None:
        """Take pages back that left the VMO; empties the list. Kernel: ``FreePages``."""

    @abc.abstractmethod
    def debug_is_page_ok(self, page: VmPage, offset: int) -> bool:
        """Whether ``page`` may be at ``offset``. Kernel: ``DebugIsPageOk``."""

    @abc.abstractmethod
    def on_detach(self) -> None:
        """No more requests are served. Kernel: ``OnDetach``."""

    @abc.abstractmethod
    def on_close(self) -> None:
        """Nothing more comes from the source. Kernel: ``OnClose``."""

    @abc.abstractmethod
    def wait_on_event(self, event: AutounsignalEvent) -> Status:
        """Wait for the event of a sent request. Locks: none held. Kernel: ``WaitOnEvent``."""

    @abc.abstractmethod
    def supports_page_request_type(self, kind: PageRequestType) -> bool:
        """Whether requests of ``kind`` may be sent. Kernel: ``SupportsPageRequestType``."""

    @abc.abstractmethod
    def dump(self) -> list[str]:
        """One line per fact, for a reader. Kernel: ``Dump``."""

    def is_queued(self, request: PageRequest) -> bool:
        """For the invariants only: whether ``request`` is linked here; no schedule point."""
        return request in self.queued()

    @abc.abstractmethod
    def queued(self) -> list[PageRequest]:
        """For the invariants only: the linked requests, first to last; no schedule point."""

    @staticmethod
    def get_request_offset(request: PageRequest) -> int:
        """Read the offset of a request that may be another thread's; a schedule point.

        Kernel: ``PageProvider::GetRequestOffset``.
        """
        request.check_alive("a provider reads its offset")
        return request.offset.get()

    @staticmethod
    def get_request_len(request: PageRequest) -> int:
        """Kernel: ``PageProvider::GetRequestLen``."""
        request.check_alive("a provider reads its length")
        return request.length

    @staticmethod
    def get_request_type(request: PageRequest) -> PageRequestType:
        """Kernel: ``PageProvider::GetRequestType``."""
        request.check_alive("a provider reads its type")
        return request.type
