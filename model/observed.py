"""A kernel whose operations are noted and held against the reference (``model.reference``).

Between ``watch`` and ``look`` every operation is noted as it is called and as it returns; noting is
no schedule point. An operation that the reference does not know abandons the history, so that
nothing is judged by halves.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final, TypeVar

from harness.sync import Thread
from harness.sync.history import Call, History
from model.cow_slice import VmCowSlice
from model.kernel import Kernel, PendingCommit
from model.page import CONTENT_BYTES, PAGE_SIZE, ZEROES
from model.page_operations import PageOperations
from model.page_request import PageRequest
from model.physical_page_provider import PhysicalPageProvider
from model.pinned import PinnedVmObject
from model.reference import KernelReference
from model.reference_state import Cell, Shape, State
from model.status import Status
from model.vmo import VmObjectPaged

if TYPE_CHECKING:
    from model.world import World

R = TypeVar("R")

# Operations that change nothing which the reference describes.
UNNOTED: Final = frozenset(
    {
        "aspace",
        "borrower",
        "destroy_all",
        "dump",
        "interval",
        "lender",
        "mapped",
        "memory_stats",
        "pages_of",
        "ppb",
        "quiesce",
        "sliced",
        "wake_sweeper_thread",
    }
)


def _unlike(kernel: Kernel) -> Iterator[str]:
    """What there is that the reference does not know."""
    if kernel.aspaces:
        yield "mappings"
    for vmo in kernel.vmos:
        if isinstance(vmo.cow, VmCowSlice):
            yield "slices"
        elif vmo.cow.resizable:
            yield "resizable VMOs"
        elif vmo.cow.dirty_tracked:
            yield "dirty pages"


def _name(status: Status) -> str:
    return status.name


class ObservedKernel(Kernel):
    """See ``Kernel``; the operations are the same.

    Attributes:
        history: What was noted; None where nothing is held against the reference.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        """As a kernel; nothing is noted yet."""
        super().__init__(*args, **options)
        self.history: History[State] | None = None
        self._noting = False
        self._pending: list[_ObservedPending] = []
        self._pins: list[tuple[PinnedVmObject, Call]] = []
        # Threads of the kernel's own that run, and the call that stands for each.
        self._threads: dict[str, Call | None] = {}
        self._index: dict[str, int] = {}
        self._all: list[VmObjectPaged] = []

    # -- the history ----------------------------------------------------------------------------

    def watch(self) -> None:
        """Note operations from here on; nothing runs, and every VMO has an open handle."""
        shape, cells = self._shape()
        self._all = self.vmos[:]
        self._index = {vmo.name: number for number, vmo in enumerate(self._all)}
        self.history = History(KernelReference(shape, cells))
        self._noting = True
        for what in [*_unlike(self), *self._threads]:
            self._abandon(what)
        for pending in self._pending:
            pending.note(self.history, self._index)

    def look(self) -> None:
        """Note what there is, once nothing runs any more, and note no more.

        Locks: takes each VMO's lock.
        """
        if self.history is None or not self._noting:
            return
        self._noting = False
        call = self.history.call("look")
        self.history.returns(call, tuple(self._seen(vmo) for vmo in self._all))

    def _seen(self, vmo: VmObjectPaged) -> tuple[bytes | None, ...] | None:
        """The content of every page; None where there is no handle any more."""
        if vmo not in self.vmos:
            return None
        pages = self.pages_of(vmo)
        return tuple(None if page is None else bytes(page.contents) for page in pages)

    def _shape(self) -> tuple[Shape, list[list[Cell]]]:
        """What there is at rest, for the reference."""
        bits: list[int] = []
        known: dict[int, int] = {}
        for vmo in self.vmos:
            bits.append(len(known))
            provider = vmo.cow.page_source.provider
            if isinstance(provider, PhysicalPageProvider):
                for offset in range(0, vmo.size, PAGE_SIZE):
                    known[provider.page_at(offset).index] = len(known)
        cells: list[list[Cell]] = []
        ordinary = 0
        for vmo in self.vmos:
            row: list[Cell] = []
            for page in self.pages_of(vmo):
                if page is None:
                    row.append(None)
                    continue
                ordinary += page.index not in known
                row.append((bytes(page.contents), 1 << known[page.index] if page.loaned else 0))
            cells.append(row)
        shape = Shape(
            names=tuple(vmo.cow.name for vmo in self.vmos),
            lender=tuple(vmo.cow.is_contiguous() for vmo in self.vmos),
            sizes=tuple(vmo.size // PAGE_SIZE for vmo in self.vmos),
            bits=tuple(bits),
            pages=len(known) + ordinary + self.pmm.count_free_pages(),
            faults=self.faults.strikes("page_list_node", "alloc", "borrow"),
            zero=ZEROES,
            struck=self.faults.strikes("kill", "suspend", "timer"),
        )
        return shape, cells

    def _note(
        self,
        name: str,
        vmo: VmObjectPaged,
        args: tuple[Any, ...],
        run: Callable[[], R],
        seen: Callable[[R], Any] | None = None,
    ) -> R:
        if not self._noting or self.history is None:
            return run()
        number = self._index.get(vmo.name)
        if number is None:
            self._abandon("a VMO that was made meanwhile")
            return run()
        return self.history.run(name, (number, *args), run, seen)

    def _abandon(self, what: str) -> None:
        if self._noting and self.history is not None:
            self.history.abandon(f"the reference does not know {what}")

    # -- the operations -------------------------------------------------------------------------

    def commit(
        self, vmo: VmObjectPaged, first: int = 0, count: int | None = None, *, retry: bool = True
    ) -> Status:
        """See ``Kernel``."""
        run = functools.partial(super().commit, vmo, first, count, retry=retry)
        return self._note("commit", vmo, _range(vmo, first, count), run, _name)

    def begin_commit(
        self, vmo: VmObjectPaged, first: int = 0, count: int | None = None
    ) -> PendingCommit:
        """See ``Kernel``; noted when it ends, by whatever ends it."""
        pending = _ObservedPending(self._world, (vmo.name, *_range(vmo, first, count)))
        if self._noting and self.history is not None:
            pending.note(self.history, self._index)
        else:
            self._pending.append(pending)
        pending.sent(super().begin_commit(vmo, first, count))
        return pending

    def decommit(self, vmo: VmObjectPaged, first: int = 0, count: int | None = None) -> Status:
        """See ``Kernel``."""
        run = functools.partial(super().decommit, vmo, first, count)
        return self._note("decommit", vmo, _range(vmo, first, count), run, _name)

    def supply(
        self,
        vmo: VmObjectPaged,
        first: int = 0,
        count: int | None = None,
        content: bytes = b"pager",
    ) -> Status:
        """See ``Kernel``."""
        run = functools.partial(super().supply, vmo, first, count, content)
        args = (*_range(vmo, first, count), _filled(content))
        return self._note("supply", vmo, args, run, _name)

    def answer_pager(self, vmo: VmObjectPaged, status: Status = Status.OK) -> bool:
        """See ``Kernel``."""
        run = functools.partial(super().answer_pager, vmo, status)
        return self._note("answer", vmo, (_filled(b"pager"),), run)

    def detach(self, vmo: VmObjectPaged) -> Status:
        """See ``Kernel``."""
        return self._note("detach", vmo, (), functools.partial(super().detach, vmo), _name)

    def evict(self, target: int = 1) -> int:
        """See ``Kernel``."""
        if not self._noting or self.history is None:
            return super().evict(target)
        return self.history.run("evict", (target,), functools.partial(super().evict, target))

    def evict_page(self, vmo: VmObjectPaged, page: int = 0) -> bool:
        """See ``Kernel``."""
        run = functools.partial(super().evict_page, vmo, page)
        return self._note("evict_page", vmo, (page,), run)

    def read(self, vmo: VmObjectPaged, page: int = 0) -> tuple[Status, bytes]:
        """See ``Kernel``."""
        run = functools.partial(super().read, vmo, page)
        return self._note("read", vmo, (page,), run, lambda got: (got[0].name, got[1]))

    def write(self, vmo: VmObjectPaged, page: int, content: bytes) -> Status:
        """See ``Kernel``."""
        run = functools.partial(super().write, vmo, page, content)
        stored = content[:CONTENT_BYTES].ljust(CONTENT_BYTES, b"\0")
        return self._note("write", vmo, (page, stored), run, _name)

    def zero(self, vmo: VmObjectPaged, first: int = 0, count: int | None = None) -> Status:
        """See ``Kernel``."""
        run = functools.partial(super().zero, vmo, first, count)
        return self._note("zero", vmo, _range(vmo, first, count), run, _name)

    def pin(
        self,
        vmo: VmObjectPaged,
        first: int = 0,
        count: int | None = None,
        *,
        reuse_request: bool = False,
    ) -> tuple[Status, PinnedVmObject | None]:
        """See ``Kernel``; noted together with its unpin, for lenders."""
        call = None
        # A VMO that is gone has no pages to pin, whatever it was: the operation will say so.
        if vmo.alive and not vmo.cow.is_contiguous():
            self._abandon("pins of borrowers")
        elif self._noting and self.history is not None:
            call = self.history.call("pin", self._index[vmo.name], *_range(vmo, first, count))
        status, pinned = super().pin(vmo, first, count, reuse_request=reuse_request)
        if call is not None and self.history is not None:
            if pinned is None:
                self.history.returns(call, status.name)
            else:
                self._pins.append((pinned, call))
        return status, pinned

    def unpin(self, pinned: PinnedVmObject) -> None:
        """See ``Kernel``."""
        super().unpin(pinned)
        for at, (mine, call) in enumerate(self._pins):
            if mine is pinned and self.history is not None:
                self.history.returns(call, "OK")
                del self._pins[at]
                break

    def replace_page(self, vmo: VmObjectPaged, page: int = 0, *, with_loaned: bool) -> Status:
        """See ``Kernel``."""
        run = functools.partial(super().replace_page, vmo, page, with_loaned=with_loaned)
        return self._note("replace", vmo, (page, with_loaned), run, _name)

    def dont_need(self, vmo: VmObjectPaged, first: int = 0, count: int | None = None) -> Status:
        """See ``Kernel``."""
        run = functools.partial(super().dont_need, vmo, first, count)
        return self._note("hint", vmo, _range(vmo, first, count), run, _name)

    def mark_latency_sensitive(self, vmo: VmObjectPaged) -> Status:
        """See ``Kernel``."""
        run = functools.partial(super().mark_latency_sensitive, vmo)
        return self._note("hint", vmo, (), run, _name)

    def sweep(self) -> int:
        """See ``Kernel``."""
        return self._churn(super().sweep)

    def age(self) -> int:
        """See ``Kernel``."""
        return self._churn(super().age)

    def process_queues(self) -> int:
        """See ``Kernel``."""
        return self._churn(super().process_queues)

    def start_queue_threads(self, active_ratio_multiplier: int) -> None:
        """See ``Kernel``; to the reference, aging that lasts until the threads are stopped."""
        self._begin_churn("the threads of the page queues")
        super().start_queue_threads(active_ratio_multiplier)

    def stop_queue_threads(self) -> None:
        """See ``Kernel``."""
        super().stop_queue_threads()
        self._end_churn("the threads of the page queues")

    def start_sweeper_thread(self) -> None:
        """See ``Kernel``; to the reference, a sweep that lasts until the thread is stopped."""
        self._begin_churn("the thread of the sweeper")
        super().start_sweeper_thread()

    def stop_sweeper_thread(self) -> None:
        """See ``Kernel``."""
        super().stop_sweeper_thread()
        self._end_churn("the thread of the sweeper")

    def _begin_churn(self, thread: str) -> None:
        call = None
        if self._noting and self.history is not None:
            call = self.history.call("churn")
        self._threads[thread] = call

    def _end_churn(self, thread: str) -> None:
        call = self._threads.pop(thread, None)
        if call is not None and self.history is not None:
            self.history.returns(call, 0)

    def _churn(self, run: Callable[[], int]) -> int:
        if not self._noting or self.history is None:
            return run()
        return self.history.run("churn", (), run)

    def destroy(self, vmo: VmObjectPaged) -> None:
        """See ``Kernel``."""
        self._note("close", vmo, (), functools.partial(super().destroy, vmo))

    def kill(self, thread: Thread) -> None:
        """See ``Kernel``."""
        self._interrupt("kill", thread, super().kill)

    def suspend(self, thread: Thread) -> None:
        """See ``Kernel``."""
        self._interrupt("suspend", thread, super().suspend)

    def _interrupt(self, name: str, thread: Thread, run: Callable[[Thread], None]) -> None:
        if self._noting and self.history is not None:
            self.history.run(name, (thread.name,), functools.partial(run, thread))
        else:
            run(thread)


class _ObservedPending(PendingCommit):
    """A request on its way; noted as a fault where it is waited for, else as one given up."""

    def __init__(self, world: World, args: tuple[str, int, int]) -> None:
        super().__init__(PageRequest(world), Status.SHOULD_WAIT)
        self._args = args
        self._noted: tuple[History[State], Call] | None = None
        self._over = False

    def sent(self, pending: PendingCommit) -> None:
        """It was sent."""
        self.request, self.status = pending.request, pending.status

    def note(self, history: History[State], index: dict[str, int]) -> None:
        """Note it from here on, unless it is over."""
        if not self._over:
            name, first, count = self._args
            self._noted = history, history.call("ask", index[name], first, count)

    def wait(self) -> Status:
        """See ``PendingCommit``."""
        if self._noted is not None:
            self._noted[1].name = "fault"
        status = super().wait()
        self._end(status)
        return status

    def cancel(self) -> None:
        """See ``PendingCommit``."""
        super().cancel()
        self._end(self.status)

    def _end(self, status: Status) -> None:
        self._over = True
        if self._noted is not None:
            history, call = self._noted
            history.returns(call, status.name)


def _range(vmo: VmObjectPaged, first: int, count: int | None) -> tuple[int, int]:
    if count is None:
        # Of a VMO that is gone, none: the operation will say so.
        count = vmo.size // PAGE_SIZE - first if vmo.alive else 0
    return first, count


def _filled(content: bytes) -> bytes:
    return content[:CONTENT_BYTES].ljust(CONTENT_BYTES, b".")


def _unknown(name: str) -> Callable[..., Any]:
    """An operation that the reference does not know: it runs, and the history is not judged."""
    method = getattr(Kernel, name)

    @functools.wraps(method)
    def run(self: ObservedKernel, *args: Any, **options: Any) -> Any:
        self._abandon(name)
        return method(self, *args, **options)

    return run


UNKNOWN: Final = tuple(
    name
    for owner in (PageOperations, Kernel)
    for name, value in vars(owner).items()
    if callable(value)
    and not name.startswith("_")
    and name not in vars(ObservedKernel)
    and name not in UNNOTED
)
for _method in UNKNOWN:
    setattr(ObservedKernel, _method, _unknown(_method))
