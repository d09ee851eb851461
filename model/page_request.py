r"""``PageRequest``: one thread's wish for pages, from batching to its answer.

Lies on the stack of the thread that waits for it. Its life::

    inactive --get_page--> building --batch ends--> outstanding, queued at the provider
                                             \----> overlapping another request
    outstanding, queued --dequeued--> outstanding, in flight
    any --complete--> inactive, event signalled        any --cancel--> inactive
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final, Self

from harness.sync import Shared, assert_no_locks_held
from model.asserts import kassert
from model.event import AutounsignalEvent
from model.refs import Mortal
from model.status import Status, is_valid_internal_failure_code

if TYPE_CHECKING:
    from types import TracebackType

    from model.page_source import PageSource
    from model.vmo_invariants import Told
    from model.world import World

INACTIVE: Final = (1 << 64) - 1


class PageRequestType(enum.Enum):
    """What a request asks for; WRITEBACK has a name, and nobody asks for it, as in the kernel.

    Kernel: ``page_request_type``.
    """

    READ = "READ"
    DIRTY = "DIRTY"
    WRITEBACK = "WRITEBACK"


class BatchState(enum.Enum):
    """Whether more pages may join. Kernel: ``PageRequest::BatchState``."""

    UNBATCHED = "Unbatched"
    ACCEPTING = "Accepting"
    FINALIZED = "Finalized"
    # The page source batches by itself; the caller asked for the first page only.
    INTERNAL = "Internal"


class PageRequest(Mortal):
    """A request and the event that its one waiter sleeps on; a context manager.

    Attributes:
        offset: First byte; ``INACTIVE`` while the request asks for nothing. A racy cell: who reads
            it without the locks that keep the request in place reads another thread's stack.
        length: Bytes asked for.
        pending_size: Bytes not yet supplied; a count, not a map.
        overlap: Requests contained in this one, waiting for the same pages; page source lock.
        provider_owned: The provider may hold a pointer to this.
        sequence: For the invariants only: order of sending; a promoted request takes it over.
        in_flight: For the invariants only: the provider has dequeued the range; likewise.
        departures: For the invariants only: how many pages had left the VMO when this was sent, or
            the request that it waits along with.
        told: For the invariants only: what the last answer said.

    Kernel: ``PageRequest``.
    """

    invariant = "I11"

    def __init__(self, world: World, *, batching: bool = True) -> None:
        """Inactive. No schedule points."""
        super().__init__(world.name("request"))
        self._world = world
        self._batching = batching
        self.batch = BatchState.UNBATCHED
        self.event = AutounsignalEvent(world, f"{self.name}.event")
        self.offset = Shared(INACTIVE, f"{self.name}.offset")
        self.length = 0
        self.type = PageRequestType.READ
        self.pending_size = 0
        self.overlap: list[PageRequest] = []
        self.provider_owned = False
        self.source: PageSource | None = None
        self.sequence = 0
        self.in_flight = False
        self.departures = 0
        self.told: Told | None = None

    def __enter__(self) -> Self:
        """The frame that owns the request begins."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """The frame ends: the request is destroyed, unless the thread is being unwound."""
        if kind is None:
            self.destroy()

    def destroy(self) -> None:
        """Cancel what is still asked for; the memory goes.

        Locks: takes the page source lock where the request was ever used.
        Kernel: ``~PageRequest``.
        """
        source = self.source
        self.cancel()
        self.source = None
        self.die()
        if source is not None:
            source.release()

    def cancel(self) -> None:
        """Ask for nothing any more; the object may be used again.

        Locks: takes the page source lock where the request was ever used.
        Kernel: ``PageRequest::CancelRequest``.
        """
        if self.source is not None:
            self.source.cancel_request(self)

    def init(self, source: PageSource, offset: int, kind: PageRequestType) -> None:
        """Begin to ask ``source`` for pages from ``offset`` on.

        Locks: page source lock held; takes the thread lock.
        Kernel: ``PageRequest::Init``.
        """
        if self.source is not source:
            kassert("a.ps.owned", self.source is None, self, "changes its source")
            source.add_ref()
            self.source = source
        kassert("a.ps.owned", not self.provider_owned, self, "is reused while provider-owned")
        self.length = 0
        self.type = kind
        self.pending_size = 0
        self.in_flight = False
        if kind is PageRequestType.DIRTY:
            self.batch = BatchState.INTERNAL
        else:
            self.batch = BatchState.ACCEPTING if self._batching else BatchState.UNBATCHED
        self.event.unsignal()
        self.offset.set(offset)

    @property
    def active(self) -> bool:
        """Whether the request asks for something; no schedule point."""
        return self.offset.peek() != INACTIVE

    @property
    def end(self) -> int:
        """One past the last byte asked for; no schedule point."""
        return self.offset.peek() + self.length

    def batch_accepting(self) -> bool:
        """Whether another page may join. Kernel: ``PageRequest::BatchAccepting``."""
        return self.batch is BatchState.ACCEPTING

    def finalize(self) -> Status:
        """Send what was collected. Locks: takes the page source lock.

        Kernel: ``PageRequest::FinalizeRequest``.
        """
        if self.source is None:
            kassert("a.ps.batch", False, self, "is sent before it asked for a page")
            return Status.BAD_STATE
        return self.source.finalize_request(self)

    def wait(self) -> Status:
        """Wait until every page was supplied, or failed.

        Returns:
            OK, the failure of the request, or INTR_KILLED / INTR_RETRY where this thread was
            interrupted; the request is then cancelled.

        Locks: none may be held.
        Kernel: ``PageRequest::Wait``.
        """
        assert_no_locks_held("a.ps.nolocks: PageRequest.wait")
        kassert("a.ps.batch", not self.batch_accepting(), self, "is waited for and not sent")
        if self.source is None:
            kassert("a.ps.batch", False, self, "is waited for before it asked for a page")
            return Status.BAD_STATE
        status = self.source.wait_on_request(self)
        if status is Status.OK:
            self._world.oracle.at_wait_ok(self)
        elif not is_valid_internal_failure_code(status):
            self.source.cancel_request(self)
        return status

    def __str__(self) -> str:
        """Range and whereabouts, for messages."""
        if not self.active:
            return f"{self.name} (inactive)"
        owned = ", provider-owned" if self.provider_owned else ""
        span = f"[{self.offset.peek():#x}, {self.end:#x})"
        kind = "" if self.type is PageRequestType.READ else f" {self.type.value}"
        return f"{self.name}{kind} {span} pending {self.pending_size:#x}{owned}"
