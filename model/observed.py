"""A kernel whose operations are noted and held against the reference (``model.reference``).

Between ``watch`` and ``look`` every operation is noted as it is called and as it returns; noting is
no schedule point. An operation that the reference does not know abandons the history, so that
nothing is judged by halves.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final, TypeVar

from harness.sync import Thread, current_thread
from harness.sync.history import Call, History
from model.cow_slice import VmCowSlice
from model.kernel import Kernel, PendingCommit
from model.observed_request import ObservedPending
from model.page import CONTENT_BYTES, PAGE_SIZE, ZEROES
from model.page_operations import PageOperations
from model.physical_page_provider import PhysicalPageProvider
from model.pinned import PinnedVmObject
from model.reference import KernelReference
from model.reference_state import CLOSED, OPEN, Cell, Shape, State
from model.status import Status
from model.vmo import VmObjectPaged

if TYPE_CHECKING:
    from model.cow_pages import VmCowPages
    from model.pager_port import Packet
    from model.vm_aspace import VmAspace, VmMapping

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
        "read_packet",
        "sliced",
        "wake_sweeper_thread",
    }
)


# A history that needs more at once takes the better part of a second.
_STATES_MAX: Final = 1_500
# Operations that name pages of a VMO: one page, or the first of some.
_ONE_PAGE: Final = frozenset(("load", "read", "store", "touch", "write"))
_SOME_PAGES: Final = frozenset(
    ("ask", "commit", "decommit", "decommit_mapped", "fault", "hint", "map", "supply")
)


def _unlike(kernel: Kernel) -> Iterator[str]:
    """What there is that the reference does not know."""
    if any(vmo.cow.dirty_tracked for vmo in kernel.vmos):
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
        # Threads of the kernel's own that run, and the call that stands for each.
        self._threads: dict[str, Call | None] = {}
        self._pending: list[ObservedPending] = []
        self._inside: set[str] = set()  # threads whose faults are parts of another operation
        self._fills: dict[str, Call] = {}  # by the thread of the pager
        # What there is, from the beginning on, in the order in which it was made.
        self._pins: list[PinnedVmObject] = []
        self._mappings: list[VmMapping] = []
        # Of each mapping, by its name: the VMO that it keeps, the one with the pages, the first.
        self._places: dict[str, tuple[int, int, int]] = {}
        self._index: dict[str, int] = {}
        self._all: list[VmObjectPaged] = []
        self._cows: list[VmCowPages] = []

    # -- the history ----------------------------------------------------------------------------

    def watch(self) -> None:
        """Note operations from here on; nothing runs, and no closed VMO has a slice."""
        mapped = [mapping.vmo for mapping in self._mappings if mapping.vmo is not None]
        pinned = [pin.vmo for pin in self._pins]
        self._all = list(dict.fromkeys((*self.vmos, *mapped, *pinned)))
        self._cows = [vmo.cow for vmo in self._all]
        self._index = {vmo.name: number for number, vmo in enumerate(self._all)}
        for mapping in self._mappings:
            self._found(mapping)
        shape, cells = self._shape()
        self.history = History(
            KernelReference(
                shape,
                cells,
                [OPEN if vmo in self.vmos else CLOSED for vmo in self._all],
                [
                    (number, self._index[mapping.vmo.name])
                    for number, mapping in enumerate(self._mappings)
                    if mapping.vmo is not None
                ],
                map(self._pinned, self._pins),
            ),
            states_max=_STATES_MAX,
        )
        self._noting = True
        for what in [*_unlike(self), *self._threads]:
            self._abandon(what)
        for pending in self._pending:
            pending.note(self.history)

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
        if isinstance(vmo.cow, VmCowSlice):
            return ()
        pages = self.pages_of(vmo)
        return tuple(None if page is None else bytes(page.contents) for page in pages)

    def _shape(self) -> tuple[Shape, list[list[Cell]]]:
        """What there is at rest, for the reference."""
        bits: list[int] = []
        known: dict[int, int] = {}
        parents: list[int] = []
        for vmo in self._all:
            bits.append(len(known))
            provider = vmo.cow.page_source.provider
            cow = vmo.cow
            parents.append(self._of(cow.parent) if isinstance(cow, VmCowSlice) else -1)
            if parents[-1] < 0 and isinstance(provider, PhysicalPageProvider):
                for offset in range(0, vmo.size, PAGE_SIZE):
                    known[provider.page_at(offset).index] = len(known)
        cells: list[list[Cell]] = []
        ordinary = 0
        for vmo in self._all:
            row: list[Cell] = []
            for page in () if isinstance(vmo.cow, VmCowSlice) else self.pages_of(vmo):
                if page is None:
                    row.append(None)
                    continue
                ordinary += page.index not in known
                row.append((bytes(page.contents), 1 << known[page.index] if page.loaned else 0))
            cells.append(row)
        shape = Shape(
            names=tuple(vmo.cow.name for vmo in self._all),
            lender=tuple(
                parent < 0 and vmo.cow.is_contiguous()
                for vmo, parent in zip(self._all, parents, strict=True)
            ),
            sizes=tuple(map(len, cells)),
            bits=tuple(bits),
            pages=len(known) + ordinary + self.pmm.count_free_pages(),
            faults=self.faults.strikes("page_list_node", "alloc", "borrow"),
            zero=ZEROES,
            struck=self.faults.strikes("kill", "suspend", "timer"),
            parents=tuple(parents) if max(parents, default=-1) >= 0 else (),
        )
        return shape, cells

    def _of(self, cow: VmCowPages | None) -> int:
        """The number of the VMO that has these pages."""
        return next(number for number, mine in enumerate(self._cows) if mine is cow)

    def place(self, vmo: VmObjectPaged, first: int) -> tuple[int, int]:
        """The VMO that has the pages of ``vmo``, and which its page ``first`` is there."""
        number = self._index[vmo.name]
        if vmo.alive and isinstance(vmo.cow, VmCowSlice):
            root, offset = vmo.cow.paged_parent(first * PAGE_SIZE)
            return self._of(root), offset // PAGE_SIZE
        return number, first

    def number(self, vmo: VmObjectPaged) -> int:
        """As which the reference knows a VMO."""
        return self._index[vmo.name]

    def _found(self, mapping: VmMapping) -> None:
        """Keep what a mapping shows: unmapped it does not say so any more."""
        if mapping.vmo is not None:
            place = self.place(mapping.vmo, mapping.object_offset // PAGE_SIZE)
            self._places[mapping.name] = self._index[mapping.vmo.name], *place

    def _pinned(self, pin: PinnedVmObject) -> tuple[int, int, int, int]:
        """As the reference knows a pin."""
        root, first = self.place(pin.vmo, pin.offset // PAGE_SIZE)
        return root, first, pin.length // PAGE_SIZE, self._index[pin.vmo.name]

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
        if args and isinstance(args[0], int):
            root, first = self.place(vmo, args[0])
            call = self.history.call(name, root, first, *args[1:])
        else:
            call = self.history.call(name, number, *args)
        result = run()
        self.end_call(call, result if seen is None else seen(result), number)
        return result

    def end_call(self, call: Call, result: object, number: int) -> None:
        """Note the result of a call on that VMO; whatever is refused is alike."""
        assert self.history is not None
        status = result[0] if isinstance(result, tuple) else result
        if status == "BAD_HANDLE" and call.args[0] != number:
            call.name, call.args, result = "refused", (number,), status
        elif status == "OUT_OF_RANGE" and call.name in _ONE_PAGE | _SOME_PAGES:
            count = call.args[2] if call.name in _SOME_PAGES else 1
            call.name, call.args, result = "beyond", (*call.args[:2], count), status
        self.history.returns(call, result)

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
        pending = ObservedPending(self, self._world, vmo, _range(vmo, first, count))
        if self._noting and self.history is not None:
            pending.note(self.history)
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
        """See ``Kernel``; noted from when there is a packet on."""
        return self._filled_by(functools.partial(super().answer_pager, vmo, status))

    def serve_pager(self, vmo: VmObjectPaged, status: Status = Status.OK) -> bool:
        """See ``Kernel``; noted from when there is a packet on."""
        return self._filled_by(functools.partial(super().serve_pager, vmo, status))

    def _answer(self, vmo: VmObjectPaged, packet: Packet, status: Status) -> None:
        """See ``Kernel``; the pager keeps the VMO for a little longer."""
        number = self._index.get(vmo.name)
        if status is not Status.OK:
            self._abandon("pagers that fail")
        if number is None:
            self._abandon("a VMO that was made meanwhile")
        elif self._noting and self.history is not None:
            args = number, packet.offset // PAGE_SIZE, packet.length // PAGE_SIZE, _filled(b"pager")
            self._fills[current_thread().name] = self.history.call("fill", *args)
        super()._answer(vmo, packet, status)

    def _filled_by(self, run: Callable[[], bool]) -> bool:
        answered = run()
        call = self._fills.pop(current_thread().name, None)
        if call is not None and self.history is not None:
            self.history.returns(call, None)
        return answered

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
        return self._note("write", vmo, (page, _stored(content)), run, _name)

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
        run = functools.partial(super().pin, vmo, first, count, reuse_request=reuse_request)
        args = (*_range(vmo, first, count), self._index.get(vmo.name))
        status, pinned = self._note("pin", vmo, args, run, lambda got: got[0].name)
        if pinned is not None:
            self._pins.append(pinned)
        return status, pinned

    def unpin(self, pinned: PinnedVmObject) -> None:
        """See ``Kernel``."""
        self._pins.remove(pinned)
        run = functools.partial(super().unpin, pinned)
        if not self._noting or self.history is None or pinned.vmo.name not in self._index:
            run()
        else:
            self.history.run("unpin", self._pinned(pinned), run)

    # -- address spaces -------------------------------------------------------------------------

    def map(
        self, aspace: VmAspace, vmo: VmObjectPaged, first: int = 0, count: int | None = None
    ) -> tuple[Status, VmMapping | None]:
        """See ``Kernel``."""
        number = self._index.get(vmo.name)
        place = 0, 0
        if not self._noting or self.history is None or number is None:
            self._abandon("a VMO that was made meanwhile")
            status, mapping = super().map(aspace, vmo, first, count)
        else:
            place = self.place(vmo, first)
            call = self.history.call("map", *place, _range(vmo, first, count)[1])
            status, mapping = super().map(aspace, vmo, first, count)
            if status.name != "OUT_OF_RANGE":
                call.args = number, len(self._mappings)
            self.end_call(call, status.name, number)
        if mapping is not None:
            self._mappings.append(mapping)
            if number is not None:
                self._places[mapping.name] = number, *place
        return status, mapping

    def _known(self, mapping: VmMapping) -> bool:
        """Whether what is done by way of a mapping is noted."""
        if self._noting and mapping.name not in self._places:
            self._abandon("a mapping of a VMO that was made meanwhile")
            return False
        return self._noting

    def unmap(self, mapping: VmMapping) -> Status:
        """See ``Kernel``."""
        run = functools.partial(super().unmap, mapping)
        if not self._known(mapping) or self.history is None:
            return run()
        args = self._places[mapping.name][0], self._mappings.index(mapping)
        return self.history.run("unmap", args, run, _name)

    def _touch(
        self,
        name: str,
        mapping: VmMapping,
        page: int,
        args: tuple[Any, ...],
        run: Callable[[], R],
        seen: Callable[[R], Any],
    ) -> R:
        """Note an access by way of a mapping."""
        thread = current_thread().name
        if thread in self._inside or not self._known(mapping) or self.history is None:
            return run()
        _, root, first = self._places[mapping.name]
        number = self._mappings.index(mapping)
        self._inside.add(thread)
        call = self.history.call(name, root, first + page, *args, number)
        result = run()
        self.end_call(call, seen(result), root)
        self._inside.remove(thread)
        return result

    def fault(
        self, mapping: VmMapping, page: int = 0, *, write: bool = True, retry: bool = True
    ) -> Status:
        """See ``Kernel``."""
        run = functools.partial(super().fault, mapping, page, write=write, retry=retry)
        return self._touch("touch", mapping, page, (write,), run, _name)

    def load(self, mapping: VmMapping, page: int = 0) -> tuple[Status, bytes]:
        """See ``Kernel``."""
        run = functools.partial(super().load, mapping, page)
        return self._touch("load", mapping, page, (), run, lambda got: (got[0].name, got[1]))

    def store(self, mapping: VmMapping, page: int, content: bytes) -> Status:
        """See ``Kernel``."""
        run = functools.partial(super().store, mapping, page, content)
        return self._touch("store", mapping, page, (_stored(content),), run, _name)

    def decommit_mapped(
        self, mapping: VmMapping, first: int = 0, count: int | None = None
    ) -> Status:
        """See ``Kernel``."""
        run = functools.partial(super().decommit_mapped, mapping, first, count)
        pages = mapping.size // PAGE_SIZE - first if count is None else count
        return self._touch("decommit_mapped", mapping, first, (pages,), run, _name)

    # -- pages ----------------------------------------------------------------------------------

    def resize(self, vmo: VmObjectPaged, pages: int) -> Status:
        """See ``Kernel``."""
        run = functools.partial(super().resize, vmo, pages)
        number = self._index.get(vmo.name)
        if not self._noting or self.history is None or number is None:
            return run()
        return self.history.run("resize", (number, pages), run, _name)

    def always_need(self, vmo: VmObjectPaged, first: int = 0, count: int | None = None) -> Status:
        """See ``Kernel``."""
        run = functools.partial(super().always_need, vmo, first, count)
        return self._note("need", vmo, _range(vmo, first, count), run, _name)

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


def _range(vmo: VmObjectPaged, first: int, count: int | None) -> tuple[int, int]:
    if count is None:
        # Of a VMO that is gone, none: the operation will say so.
        count = vmo.size // PAGE_SIZE - first if vmo.alive else 0
    return first, count


def _stored(content: bytes) -> bytes:
    return content[:CONTENT_BYTES].ljust(CONTENT_BYTES, b"\0")


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
