"""A kernel whose operations are noted and held against the reference (``model.reference``)."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from harness.sync import Thread, current_thread
from model.kernel import Kernel, PendingCommit
from model.observed_calls import NotedKernel, R, filled, named, span, stored
from model.observed_pages import ObservedPages
from model.observed_request import ObservedPending
from model.page import PAGE_SIZE
from model.page_operations import PageOperations
from model.pager_port import Packet, PacketKind
from model.status import Status
from model.vmo import VmObjectPaged

if TYPE_CHECKING:
    from model.vm_aspace import VmAspace, VmMapping

# Operations that change nothing which the reference describes.
UNNOTED: Final = frozenset(
    {
        "aspace",
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


class ObservedKernel(ObservedPages):
    """See ``Kernel``; the operations are the same, and noted."""

    # -- creating VMOs --------------------------------------------------------------------------

    def create_contiguous(
        self, pages: int, name: str | None = None
    ) -> tuple[Status, VmObjectPaged | None]:
        """See ``Kernel``."""
        if not self._noting or self.history is None:
            return super().create_contiguous(pages, name)
        name = name or self._world.name("lender")
        number = self.system.expect(name, pages, lends=True)
        call = self.history.call("create", number)
        status, vmo = super().create_contiguous(pages, name)
        if vmo is not None:
            self.system.made(number, vmo)
        self.history.returns(call, status.name)
        return status, vmo

    def borrower(
        self,
        pages: int,
        name: str | None = None,
        *,
        resizable: bool = False,
        dirty_tracked: bool = False,
        trap_dirty: bool = False,
    ) -> VmObjectPaged:
        """See ``Kernel``."""
        vmo = super().borrower(
            pages,
            name,
            resizable=resizable,
            dirty_tracked=dirty_tracked,
            trap_dirty=trap_dirty,
        )
        if self._noting and self.history is not None:
            dirty = 2 * trap_dirty or int(dirty_tracked)
            number = self.system.expect(vmo.name, pages, dirty=dirty)
            self.system.made(number, vmo)
            self.history.returns(self.history.call("create", number), "OK")
        return vmo

    def slice(
        self, vmo: VmObjectPaged, first: int = 0, count: int | None = None, name: str | None = None
    ) -> tuple[Status, VmObjectPaged | None]:
        """See ``Kernel``."""
        parent = self._known(vmo)
        if parent is None or self.history is None:
            return super().slice(vmo, first, count, name)
        name = name or self._world.name("slice")
        number = self.system.expect(name, 0, parent=parent)
        first, count = span(vmo, first, count)
        whole = vmo.alive and (first + count) * PAGE_SIZE <= vmo.size
        resizable = vmo.alive and vmo.cow.resizable
        call = self.history.call("slice", parent, number, whole, resizable)
        status, child = super().slice(vmo, first, count, name)
        if child is not None:
            self.system.made(number, child)
        self.history.returns(call, status.name)
        return status, child

    # -- the operations -------------------------------------------------------------------------

    def commit(
        self, vmo: VmObjectPaged, first: int = 0, count: int | None = None, *, retry: bool = True
    ) -> Status:
        """See ``Kernel``."""
        first, count = span(vmo, first, count)
        run = functools.partial(super().commit, vmo, first, count, retry=retry)
        return self._note("commit", vmo, (first, count), run, named)

    def begin_commit(
        self, vmo: VmObjectPaged, first: int = 0, count: int | None = None
    ) -> PendingCommit:
        """See ``Kernel``; noted when it ends, by whatever ends it."""
        first, count = span(vmo, first, count)
        pending = ObservedPending(self, self._world, vmo, (first, count))
        if self._noting and self.history is not None:
            pending.note()
        else:
            self._pending.append(pending)
        pending.sent(super().begin_commit(vmo, first, count))
        return pending

    def decommit(self, vmo: VmObjectPaged, first: int = 0, count: int | None = None) -> Status:
        """See ``Kernel``."""
        first, count = span(vmo, first, count)
        run = functools.partial(super().decommit, vmo, first, count)
        return self._note("decommit", vmo, (first, count), run, named)

    def supply(
        self,
        vmo: VmObjectPaged,
        first: int = 0,
        count: int | None = None,
        content: bytes = b"pager",
    ) -> Status:
        """See ``Kernel``."""
        first, count = span(vmo, first, count)
        run = functools.partial(super().supply, vmo, first, count, content)
        args = (first, count, filled(content))
        return self._note("supply", vmo, args, run, named)

    def answer_pager(self, vmo: VmObjectPaged, status: Status = Status.OK) -> bool:
        """See ``Kernel``; noted from when there is a packet on."""
        return self._filled_by(functools.partial(super().answer_pager, vmo, status))

    def serve_pager(self, vmo: VmObjectPaged, status: Status = Status.OK) -> bool:
        """See ``Kernel``; noted from when there is a packet on."""
        return self._filled_by(functools.partial(super().serve_pager, vmo, status))

    def _answer(self, vmo: VmObjectPaged, packet: Packet, status: Status) -> None:
        """See ``Kernel``; the pager keeps the VMO for a little longer."""
        number = self._known(vmo)
        if number is not None and self.history is not None:
            place = number, packet.offset // PAGE_SIZE, packet.length // PAGE_SIZE
            if status is not Status.OK:
                call = self.history.call("refuse", number, status.name)
            elif packet.kind is PacketKind.DIRTY:
                call = self.history.call("agreed", *place)
            else:
                call = self.history.call("fill", *place, filled(b"pager"))
            self._fills[current_thread().name] = call
        super()._answer(vmo, packet, status)

    def _filled_by(self, run: Callable[[], bool]) -> bool:
        answered = run()
        call = self._fills.pop(current_thread().name, None)
        if call is not None and self.history is not None:
            self.history.returns(call, None)
        return answered

    def detach(self, vmo: VmObjectPaged) -> Status:
        """See ``Kernel``."""
        return self._note("detach", vmo, (), functools.partial(super().detach, vmo), named)

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
        return self._note("write", vmo, (page, stored(content)), run, named)

    def zero(self, vmo: VmObjectPaged, first: int = 0, count: int | None = None) -> Status:
        """See ``Kernel``."""
        first, count = span(vmo, first, count)
        run = functools.partial(super().zero, vmo, first, count)
        return self._note("zero", vmo, (first, count), run, named)

    # -- address spaces -------------------------------------------------------------------------

    def map(
        self, aspace: VmAspace, vmo: VmObjectPaged, first: int = 0, count: int | None = None
    ) -> tuple[Status, VmMapping | None]:
        """See ``Kernel``."""
        first, count = span(vmo, first, count)
        number = self._known(vmo)
        if self.history is None or number is None:
            status, mapping = super().map(aspace, vmo, first, count)
        else:
            call = self.ranged("map", vmo, first, count)
            status, mapping = super().map(aspace, vmo, first, count)
            if call.name == "map" and status.name != "OUT_OF_RANGE":
                call.args = number, len(self.system.mappings)
            self.end_call(call, status.name, number)
        if mapping is not None:
            self.system.mappings.append(mapping)
            if number is not None:
                self.system.found(mapping)
        return status, mapping

    def _shown(self, mapping: VmMapping) -> tuple[int, int, int] | None:
        """What a mapping shows while operations are noted, see ``System.places``; else None."""
        shown = self.system.places.get(mapping.name) if self._noting else None
        if shown is None:
            self._abandon("a mapping of a VMO that was closed before it began")
        return shown

    def unmap(self, mapping: VmMapping) -> Status:
        """See ``Kernel``."""
        run = functools.partial(super().unmap, mapping)
        shown = self._shown(mapping)
        if shown is None or self.history is None:
            return run()
        args = shown[0], self.system.mappings.index(mapping)
        return self.history.run("unmap", args, run, named)

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
        shown = None if thread in self._inside else self._shown(mapping)
        if shown is None or self.history is None:
            return run()
        _, root, first = shown
        number = self.system.mappings.index(mapping)
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
        return self._touch("touch", mapping, page, (write,), run, named)

    def load(self, mapping: VmMapping, page: int = 0) -> tuple[Status, bytes]:
        """See ``Kernel``."""
        run = functools.partial(super().load, mapping, page)
        return self._touch("load", mapping, page, (), run, lambda got: (got[0].name, got[1]))

    def store(self, mapping: VmMapping, page: int, content: bytes) -> Status:
        """See ``Kernel``."""
        run = functools.partial(super().store, mapping, page, content)
        return self._touch("store", mapping, page, (stored(content),), run, named)

    def decommit_mapped(
        self, mapping: VmMapping, first: int = 0, count: int | None = None
    ) -> Status:
        """See ``Kernel``."""
        run = functools.partial(super().decommit_mapped, mapping, first, count)
        pages = mapping.size // PAGE_SIZE - first if count is None else count
        return self._touch("decommit_mapped", mapping, first, (pages,), run, named)

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


def _unknown(name: str) -> Callable[..., Any]:
    """An operation that the reference does not know: it runs, and the history is not judged."""
    method = getattr(Kernel, name)

    @functools.wraps(method)
    def run(self: ObservedKernel, *args: Any, **options: Any) -> Any:
        self._abandon(name)
        return method(self, *args, **options)

    return run


NOTED: Final = frozenset(
    name for kind in (ObservedKernel, ObservedPages, NotedKernel) for name in vars(kind)
)
UNKNOWN: Final = tuple(
    name
    for owner in (PageOperations, Kernel)
    for name, value in vars(owner).items()
    if callable(value) and not name.startswith("_") and name not in NOTED | UNNOTED
)
for _method in UNKNOWN:
    setattr(ObservedKernel, _method, _unknown(_method))
