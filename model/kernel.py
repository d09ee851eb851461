"""One small modelled system, and the operations that scenarios run against it.

All operations count in pages. They take a reference to the VMO for as long as they run, as a system
call does, and return BAD_HANDLE where it is gone.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Final

from harness.errors import UsageError
from harness.sync import Thread, current_thread, observe
from model.asserts import kassert
from model.event import kill, resume_after_suspend, suspend
from model.evictor import Evictor
from model.faults import FaultPlan
from model.film import page_film
from model.invariants import Invariants
from model.loan_sweeper import LoanSweeper
from model.oracle import Oracle
from model.page import CONTENT_BYTES, PAGE_SIZE, VmPage
from model.page_operations import PageOperations, span_of
from model.page_queues import PageQueues
from model.page_request import PageRequest
from model.pager_port import Packet, PacketKind
from model.pager_proxy import PagerProxy
from model.pmm import PmmNode
from model.solpi import StackOwnedLoanedPagesInterval
from model.status import Status, is_valid_external_failure_code
from model.vm_aspace import VmAspace, VmMapping
from model.vmo import VmObjectPaged
from model.world import World

# Latent defects of the seed; the fixed revision has none of them.
DEFECTS: Final = frozenset({"L1", "L2", "L3", "L4", "L5"})
REVISIONS: Final[dict[str, frozenset[str]]] = {"seed": DEFECTS, "fixed": frozenset()}


class Kernel(PageOperations):
    """Physical memory, page queues, an evictor, and the VMOs that a scenario creates.

    Attributes:
        pmm: Physical memory.
        page_queues: Which page is in which VMO.
        evictor: Frees pages of pager-backed VMOs.
        borrowing: Switches for loaning and borrowing.
        faults: Injected faults; ``faults.restart()`` after the setup.
        counters: Kernel counters by name.
        invariants: None with checks off.
        vmos: VMOs with an open handle, in order of creation.
        aspaces: Address spaces, in order of creation.
    """

    def __init__(
        self,
        revision: str = "fixed",
        *,
        defects: Iterable[str] | None = None,
        pages: int = 8,
        faults: FaultPlan | None = None,
        checks: bool = True,
    ) -> None:
        """Boot; no schedule points.

        Args:
            revision: ``"seed"`` has the latent defects L1 to L5, ``"fixed"`` has none.
            defects: Exactly these instead.
            pages: Physical pages of the machine.
            faults: What fails; copied, nothing counted yet.
            checks: Whether the invariants are on. The kernel's own asserts always are.

        Raises:
            UsageError: An unknown revision or defect.
        """
        if revision not in REVISIONS:
            raise UsageError(f"unknown revision {revision!r}; known are {', '.join(REVISIONS)}")
        chosen = REVISIONS[revision] if defects is None else frozenset(defects)
        unknown = sorted(chosen - DEFECTS)
        if unknown:
            raise UsageError(f"unknown defects {', '.join(unknown)}; known are L1 to L5")
        self.invariants = Invariants() if checks else None
        oracle = self.invariants or Oracle()
        plan = FaultPlan() if faults is None else faults.copy()
        self._world = World(oracle=oracle, faults=plan, defects=chosen)
        self._world.pmm = self.pmm = PmmNode(self._world, pages)
        self._world.page_queues = self.page_queues = PageQueues(self._world)
        self.evictor = Evictor(self._world)
        self.sweeper = LoanSweeper(self._world)
        self.borrowing = self._world.borrowing
        self.faults = plan
        self.counters = self._world.counters
        self.defects = chosen
        self.vmos: list[VmObjectPaged] = []
        self.aspaces: list[VmAspace] = []
        # What a pager thread has of each VMO, by the VMO's name: that may be gone.
        self._ports: dict[str, PagerProxy] = {}
        if self.invariants is not None:
            self.invariants.install(self._world)
        observe(partial(page_film, self.pmm))

    # -- creating and destroying ----------------------------------------------------------------

    def create_contiguous(
        self, pages: int, name: str | None = None
    ) -> tuple[Status, VmObjectPaged | None]:
        """Create a contiguous VMO, all pages present.

        Returns:
            OK and the VMO, or NO_MEMORY.
        """
        name = name or self._world.name("lender")
        status, vmo = VmObjectPaged.create_contiguous(self._world, pages * PAGE_SIZE, name)
        if vmo is not None:
            self.vmos.append(vmo)
        return status, vmo

    def lender(self, pages: int, name: str | None = None, *, absent: int = 0) -> VmObjectPaged:
        """A contiguous VMO whose last ``absent`` pages are decommitted (so loaned and FREE)."""
        status, vmo = self.create_contiguous(pages, name)
        if vmo is None:
            raise UsageError(f"no {pages} contiguous pages for a lender: {status}; boot with more")
        if absent:
            status = self.decommit(vmo, pages - absent, absent)
            kassert("a.setup", status is Status.OK, "decommit of a new lender:", status)
        return vmo

    def borrower(
        self,
        pages: int,
        name: str | None = None,
        *,
        resizable: bool = False,
        dirty_tracked: bool = False,
        trap_dirty: bool = False,
    ) -> VmObjectPaged:
        """A pager-backed VMO, empty; ``supply`` lets it borrow.

        Args:
            pages: Its size.
            name: Shown in messages.
            resizable: Whether ``resize`` may change the size.
            dirty_tracked: Whether pages that are written are dirty: then they stay, and ordinary.
            trap_dirty: Whether the pager is asked before a write: then it never borrows.
        """
        name = name or self._world.name("borrower")
        size = pages * PAGE_SIZE
        vmo = VmObjectPaged.create_external(
            self._world,
            size,
            name,
            resizable=resizable,
            dirty_tracked=dirty_tracked,
            trap_dirty=trap_dirty,
        )
        self.vmos.append(vmo)
        self._ports[vmo.name] = _proxy(vmo)
        return vmo

    def slice(
        self, vmo: VmObjectPaged, first: int = 0, count: int | None = None, name: str | None = None
    ) -> tuple[Status, VmObjectPaged | None]:
        """Create a slice: a VMO that shows some pages of ``vmo``.

        Returns:
            OK and the slice, BAD_HANDLE, INVALID_ARGS, or NOT_SUPPORTED (``vmo`` is resizable).
        """
        if not self._use(vmo):
            return Status.BAD_HANDLE, None
        name = name or self._world.name("slice")
        status, child = vmo.create_child_slice(*span_of(vmo, first, count), name)
        vmo.release()
        if child is not None:
            self.vmos.append(child)
        return status, child

    def sliced(self, vmo: VmObjectPaged, first: int = 0, count: int | None = None) -> VmObjectPaged:
        """``slice`` for setups, where it must succeed."""
        status, child = self.slice(vmo, first, count)
        if child is None:
            raise UsageError(f"cannot slice pages {first} on of {vmo}: {status}")
        return child

    def destroy(self, vmo: VmObjectPaged) -> None:
        """Close the handle of ``vmo``; dropping the last reference destroys it, in any thread."""
        if vmo in self.vmos:
            self.vmos.remove(vmo)
            vmo.release()

    def destroy_all(self) -> None:
        """Unmap and close everything; nothing may run. Checks that every page came back (I32)."""
        for aspace in self.aspaces:
            aspace.destroy()
        for vmo in self.vmos[:]:
            self.destroy(vmo)
        if self.invariants is not None:
            self.invariants.check_all_gone(len(self.pmm.pages))

    # -- contiguous VMOs ------------------------------------------------------------------------

    def commit(
        self, vmo: VmObjectPaged, first: int = 0, count: int | None = None, *, retry: bool = True
    ) -> Status:
        """Commit pages, reclaiming those that are loaned.

        Args:
            vmo: Usually a lender.
            first: First page.
            count: Number of pages; None for all from ``first`` on.
            retry: Go on after a suspend, as a resumed thread does; False returns INTR_RETRY.

        Returns:
            OK, BAD_HANDLE, OUT_OF_RANGE, BAD_STATE (detached), NO_MEMORY, INTR_KILLED, INTR_RETRY.
        """
        if not self._use(vmo):
            return Status.BAD_HANDLE
        offset, length = span_of(vmo, first, count)
        while True:
            status = vmo.commit_range(offset, length)
            if status is not Status.INTR_RETRY or not resume_after_suspend(current_thread()):
                break
            if not retry:
                break
        vmo.release()
        return status

    def begin_commit(
        self, vmo: VmObjectPaged, first: int = 0, count: int | None = None
    ) -> PendingCommit:
        """Send the request of a commit or write fault and go on: the caller waits, or gives up.

        The VMO is not kept alive meanwhile, only its page source is: as for a faulting thread.
        """
        request = PageRequest(self._world)
        if not self._use(vmo):
            return PendingCommit(request, Status.BAD_HANDLE)
        status = vmo.send_commit(*span_of(vmo, first, count), request)
        vmo.release()
        return PendingCommit(request, status)

    def decommit(self, vmo: VmObjectPaged, first: int = 0, count: int | None = None) -> Status:
        """Decommit pages: a lender loans them."""
        if not self._use(vmo):
            return Status.BAD_HANDLE
        status = vmo.decommit_range(*span_of(vmo, first, count))
        vmo.release()
        return status

    # -- pager-backed VMOs ----------------------------------------------------------------------

    def supply(
        self,
        vmo: VmObjectPaged,
        first: int = 0,
        count: int | None = None,
        content: bytes = b"pager",
    ) -> Status:
        """Supply pages as a pager does; they are borrowed where borrowing is on.

        Returns:
            OK, BAD_HANDLE, or NO_MEMORY (no ordinary pages to supply, or no page list node).
        """
        if not self._use(vmo):
            return Status.BAD_HANDLE
        filled = content[:CONTENT_BYTES].ljust(CONTENT_BYTES, b".")
        status = vmo.supply(*span_of(vmo, first, count), filled)
        vmo.release()
        return status

    def answer_pager(self, vmo: VmObjectPaged, status: Status = Status.OK) -> bool:
        """Answer the first request that waits for the pager: do what it asks for, or fail it.

        Returns:
            Whether there was one.
        """
        if not self._use(vmo):
            return False
        packet = _proxy(vmo).read_packet()
        answered = packet is not None and packet.kind is not PacketKind.COMPLETE
        if packet is not None and answered:
            self._answer(vmo, packet, status)
        vmo.release()
        return answered

    def serve_pager(self, vmo: VmObjectPaged, status: Status = Status.OK) -> bool:
        """As ``answer_pager``, but sleep until there is a packet.

        A pager thread has the port and not the VMO: that may be closed meanwhile.

        Returns:
            False where the packet says that nothing more comes: detached, or closed.
        """
        packet = self.read_packet(vmo)
        if packet is None:
            return False
        if self._use(vmo):
            self._answer(vmo, packet, status)
            vmo.release()
        return True

    def read_packet(self, vmo: VmObjectPaged) -> Packet | None:
        """Sleep at the port of ``vmo`` until there is a packet, for a pager that answers by itself.

        Returns:
            What is asked for, in bytes; None where nothing more comes.
        """
        port = self._ports.get(vmo.name)
        if port is None:
            raise UsageError(f"{vmo} has no pager; only a borrower has")
        packet = port.read_packet(wait=True)
        return None if packet is None or packet.kind is PacketKind.COMPLETE else packet

    def _answer(self, vmo: VmObjectPaged, packet: Packet, status: Status) -> None:
        """Do what ``packet`` asks for, or fail it where ``status`` or a supply says so.

        A resize may have cut off the end of it, again and again: what is left must still come.
        """
        left = packet.length
        while status is Status.OK and left > 0:
            if packet.kind is PacketKind.DIRTY:
                status = vmo.dirty_pages(packet.offset, left)
            else:
                status = vmo.supply(packet.offset, left, b"pager".ljust(CONTENT_BYTES, b"."))
            if status is not Status.OUT_OF_RANGE:
                break
            status, left = Status.OK, min(left, vmo.size - packet.offset)
        if status is Status.NO_MEMORY or is_valid_external_failure_code(status):
            vmo.fail_pages(packet.offset, packet.length, status)

    def detach(self, vmo: VmObjectPaged) -> Status:
        """Detach a pager-backed VMO from its pager."""
        if not self._use(vmo):
            return Status.BAD_HANDLE
        vmo.detach_source()
        vmo.release()
        return Status.OK

    def evict(self, target: int = 1) -> int:
        """Run the evictor until ``target`` ordinary pages are free; returns pages evicted."""
        return self.evictor.evict_pages(target)

    def evict_page(self, vmo: VmObjectPaged, page: int = 0) -> bool:
        """Evict one page of ``vmo``; returns whether it was there and went."""
        if not self._use(vmo):
            return False
        evicted = vmo.evict_page(page * PAGE_SIZE)
        vmo.release()
        return evicted

    # -- access ---------------------------------------------------------------------------------

    def read(self, vmo: VmObjectPaged, page: int = 0) -> tuple[Status, bytes]:
        """Read a page; of an absent page of a lender, zeroes."""
        if not self._use(vmo):
            return Status.BAD_HANDLE, b""
        result = vmo.read(page * PAGE_SIZE)
        vmo.release()
        return result

    def write(self, vmo: VmObjectPaged, page: int, content: bytes) -> Status:
        """Write a page, committing it first."""
        if not self._use(vmo):
            return Status.BAD_HANDLE
        status = vmo.write(page * PAGE_SIZE, content)
        vmo.release()
        return status

    def zero(self, vmo: VmObjectPaged, first: int = 0, count: int | None = None) -> Status:
        """Zero pages where they are; a lender's absent pages stay loaned.

        Returns:
            OK, BAD_HANDLE, OUT_OF_RANGE, or what the page source answered.
        """
        if not self._use(vmo):
            return Status.BAD_HANDLE
        status = vmo.zero_range(*span_of(vmo, first, count))
        vmo.release()
        return status

    def resize(self, vmo: VmObjectPaged, pages: int) -> Status:
        """Change the size of a resizable VMO.

        Returns:
            OK, BAD_HANDLE, UNAVAILABLE (not resizable), or BAD_STATE (pins in the way).
        """
        if not self._use(vmo):
            return Status.BAD_HANDLE
        status = vmo.resize(pages * PAGE_SIZE)
        vmo.release()
        return status

    # -- address spaces -------------------------------------------------------------------------

    def aspace(self, name: str | None = None) -> VmAspace:
        """A new address space, empty."""
        aspace = VmAspace(self._world, name or self._world.name("aspace"))
        self.aspaces.append(aspace)
        return aspace

    def map(
        self, aspace: VmAspace, vmo: VmObjectPaged, first: int = 0, count: int | None = None
    ) -> tuple[Status, VmMapping | None]:
        """Map pages of ``vmo``; the mapping keeps the VMO alive without its handle.

        Returns:
            OK and the mapping, BAD_HANDLE, or OUT_OF_RANGE.
        """
        if not self._use(vmo):
            return Status.BAD_HANDLE, None
        status, mapping = aspace.map(vmo, *span_of(vmo, first, count))
        vmo.release()
        return status, mapping

    def mapped(
        self, vmo: VmObjectPaged, first: int = 0, count: int | None = None, *, close: bool = False
    ) -> VmMapping:
        """Pages of ``vmo`` in an address space of their own; ``close`` closes the handle too."""
        status, mapping = self.map(self.aspace(), vmo, first, count)
        if mapping is None:
            raise UsageError(f"cannot map pages {first} on of {vmo}: {status}")
        if close:
            self.destroy(vmo)
        return mapping

    def unmap(self, mapping: VmMapping) -> Status:
        """Unmap; where the handle is closed, this may destroy the VMO. OK or NOT_FOUND."""
        return mapping.aspace.unmap(mapping)

    def fault(
        self, mapping: VmMapping, page: int = 0, *, write: bool = True, retry: bool = True
    ) -> Status:
        """Fault a page of ``mapping`` in; while it waits, only the page source is kept alive.

        Args:
            mapping: Where user code touched memory.
            page: Which of its pages.
            write: Whether it wrote; a read of a lender's absent page sees the zero page.
            retry: Go on after a suspend, as a resumed thread does; False returns INTR_RETRY.

        Returns:
            OK, NOT_FOUND (not mapped any more), OUT_OF_RANGE, BAD_STATE (detached), NO_MEMORY,
            INTR_KILLED, INTR_RETRY.
        """
        while True:
            status = mapping.aspace.page_fault(mapping, page * PAGE_SIZE, write=write)
            if status is not Status.INTR_RETRY or not resume_after_suspend(current_thread()):
                return status
            if not retry:
                return status

    def load(self, mapping: VmMapping, page: int = 0) -> tuple[Status, bytes]:
        """Read a page as user code does: through the mapping, faulting where it must."""
        while (content := mapping.load(page * PAGE_SIZE)) is None:
            status = self.fault(mapping, page, write=False)
            if status is not Status.OK:
                return status, b""
        return Status.OK, content

    def store(self, mapping: VmMapping, page: int, content: bytes) -> Status:
        """Write a page as user code does: through the mapping, faulting where it must."""
        while not mapping.store(page * PAGE_SIZE, content):
            status = self.fault(mapping, page)
            if status is not Status.OK:
                return status
        return Status.OK

    def decommit_mapped(
        self, mapping: VmMapping, first: int = 0, count: int | None = None
    ) -> Status:
        """Decommit pages of the VMO through a mapping of it; BAD_STATE once it is unmapped."""
        pages = mapping.size // PAGE_SIZE - first if count is None else count
        return mapping.decommit_range(first * PAGE_SIZE, pages * PAGE_SIZE)

    # -- threads --------------------------------------------------------------------------------

    def kill(self, thread: Thread) -> None:
        """Kill ``thread``: its interruptible waits return INTR_KILLED."""
        kill(thread)

    def suspend(self, thread: Thread) -> None:
        """Suspend ``thread``: one interruptible wait of it returns INTR_RETRY."""
        suspend(thread)

    def interval(self) -> StackOwnedLoanedPagesInterval:
        """An interval of the calling thread, for ``with``: all that runs within is nested in it."""
        return StackOwnedLoanedPagesInterval(self._world)

    # -- looking --------------------------------------------------------------------------------

    def pages_of(self, vmo: VmObjectPaged) -> list[VmPage | None]:
        """The page in each slot; for use when nothing runs. Locks: takes the VMO lock."""
        with vmo.cow.lock:
            page_list = vmo.cow.page_list
            return [page_list.lookup(offset) for offset in range(0, vmo.size, PAGE_SIZE)]

    def quiesce(self, held: Iterable[VmPage] = ()) -> None:
        """Check everything that must hold while no thread is inside of an operation.

        Args:
            held: Pages that the caller allocated and keeps.
        """
        if self.invariants is not None:
            self.invariants.check_quiescent(held)

    def dump(self) -> str:
        """The whole system as text, for a reader. Locks: takes each VMO's lock."""
        pmm = self.pmm
        with pmm.lock:
            free = f"pmm free {pmm.free_count} free-loaned {pmm.free_loaned_count}"
            loans = f"loaned {pmm.loaned_count} cancelled {pmm.loan_cancelled_count}"
        lines = [f"{free} {loans}", *self.page_queues.dump(), f"{self.borrowing}"]
        lines += [f"  {page}" for page in pmm.pages]
        for vmo in self.vmos:
            with vmo.cow.lock:
                lines += vmo.cow.dump_locked()
                lines += vmo.cow.page_source.dump()
        lines += [f"{name} {value}" for name, value in sorted(self.counters.items())]
        return "\n".join(lines)


class PendingCommit:
    """A request that was sent, in the hands of the thread that will wait for it or give up.

    Attributes:
        request: Lies on this thread's stack.
        status: SHOULD_WAIT where there is something to wait for.
    """

    def __init__(self, request: PageRequest, status: Status) -> None:
        """``request`` was sent if ``status`` is SHOULD_WAIT."""
        self.request = request
        self.status = status

    def wait(self) -> Status:
        """Wait for the answer (for a lender: do the work); then the request is gone."""
        status = self.status
        if status is Status.SHOULD_WAIT:
            status = self.request.wait()
        self.request.destroy()
        return status

    def cancel(self) -> None:
        """Give up without waiting: the request's frame ends."""
        self.request.destroy()


def _proxy(vmo: VmObjectPaged) -> PagerProxy:
    """The side of ``vmo`` that its pager sees."""
    provider = vmo.cow.page_source.provider
    if not isinstance(provider, PagerProxy):
        raise UsageError(f"{vmo} has no pager; only a borrower has")
    return provider
