"""``VmAspace``: VMOs mapped into an address space, and the faults of those who touch them.

A faulting thread looks its page up under the address space's lock and the VMO's. Where the page has
to come from a page source it drops both, and waits with nothing but its request in hand: that keeps
the source alive, not the VMO, which may be unmapped and closed meanwhile.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from harness.sync import Atomic, Mutex, guarded_by, requires
from model.cow_dirty import prepare_for_write_locked
from model.locks import VM_ASPACE
from model.page import CONTENT_BYTES, PAGE_SIZE, ZEROES, DirtyState, VmPage
from model.page_request import PageRequest
from model.refs import Mortal
from model.status import Status

if TYPE_CHECKING:
    from model.vmo import VmObjectPaged
    from model.world import World


class ZeroPage:
    """The one page that reads of absent pages of a contiguous VMO see. Kernel: ``zero_page``."""

    def __repr__(self) -> str:
        """For traces."""
        return "zero-page"


ZERO_PAGE: Final = ZeroPage()


class PageTableEntry(NamedTuple):
    """What the hardware finds where something is mapped; where nothing is, it faults.

    Attributes:
        page: What it reads, or writes to.
        writable: Whether it may write; otherwise a write faults, too.
    """

    page: VmPage | ZeroPage
    writable: bool


Entry = PageTableEntry | None


class VmMapping(Mortal):
    """A range of one VMO in an address space, with the page table entries for it.

    Attributes:
        lock: The address space's.
        vmo: Counted reference, dropped at unmapping; None from then on.
        object_offset: Where in the VMO the mapping begins, bytes.
        size: Bytes.
        dirty_tracked: Pages that are not Dirty are write-protected: the first write must fault.
        entries: One atomic per page: the hardware reads them without a lock, and they change under
            the VMO lock.

    A dead mapping remains for whoever knows it: it has no VMO.

    Kernel: ``VmMapping``. Omits: protection, the lock of the architecture's page tables (held for
    the length of one change, which is a step here), fault-ahead.
    """

    remains = True

    def __init__(self, aspace: VmAspace, vmo: VmObjectPaged, offset: int, size: int) -> None:
        """Nothing faulted in; takes over the caller's reference of ``vmo``. No schedule points."""
        super().__init__(aspace.world.name("mapping"))
        self.aspace = aspace
        self.lock = aspace.lock
        self.vmo: VmObjectPaged | None = vmo
        self.object_offset = offset
        self.size = size
        self.dirty_tracked = vmo.cow.paged_parent(offset)[0].dirty_tracked
        self.entries: list[Atomic[Entry]] = [
            Atomic(None, f"{self.name}.pte{index}") for index in range(size // PAGE_SIZE)
        ]

    @requires("lock")
    def page_fault_locked(self, offset: int, request: PageRequest, *, write: bool) -> Status:
        """Find the page at ``offset`` and enter it, or ask for it.

        Locks: address space lock held; takes the VMO lock.
        Kernel: ``VmMapping::PageFault``.
        """
        if self.vmo is None:
            return Status.NOT_FOUND
        cow = self.vmo.cow
        with cow.lock:
            at = self.object_offset + offset
            status, page = cow.lookup_page_locked(at, request, write=write)
            if write and page is not None:
                root, at = cow.paged_parent(at)
                status, page = prepare_for_write_locked(root, page, at, request)
            if status is Status.OK:
                self.entries[offset // PAGE_SIZE].store(self._entry_for(page))
            return status

    def _entry_for(self, page: VmPage | None) -> PageTableEntry:
        """How ``page`` is mapped, None for the zero page. Locks: VMO lock held."""
        if page is None:
            return PageTableEntry(ZERO_PAGE, writable=False)
        dirty = page.dirty_state is DirtyState.DIRTY
        return PageTableEntry(page, writable=dirty or not self.dirty_tracked)

    def unmap_object_range_locked(self, offset: int, length: int) -> None:
        """The VMO's pages in the range change: whoever touches them must fault again.

        Args:
            offset: In the VMO, bytes.
            length: Bytes.

        Locks: VMO lock held.
        Kernel: ``VmMapping::AspaceUnmapVmoRangeLocked``.
        """
        for entry in self._entries_of(offset, length):
            if entry.peek() is not None:
                entry.store(None)

    def remove_write_object_range_locked(self, offset: int, length: int) -> None:
        """Whoever writes to the VMO's pages in the range must fault first.

        Args:
            offset: In the VMO, bytes.
            length: Bytes.

        Locks: VMO lock held.
        Kernel: ``VmMapping::AspaceRemoveWriteVmoRangeLocked``.
        """
        for entry in self._entries_of(offset, length):
            mapped = entry.peek()
            if mapped is not None and mapped.writable:
                entry.store(mapped._replace(writable=False))

    def _entries_of(self, offset: int, length: int) -> list[Atomic[Entry]]:
        """The entries for a range of the VMO."""
        start = max(offset - self.object_offset, 0)
        end = min(offset + length - self.object_offset, self.size)
        return self.entries[start // PAGE_SIZE : max(end, 0) // PAGE_SIZE]

    def decommit_range(self, offset: int, length: int) -> Status:
        """Decommit a range of the VMO through the mapping.

        Locks: holds the address space lock over the whole of ``VmObjectPaged.decommit_range``.
        Kernel: ``VmMapping::DecommitRange``.
        """
        with self.lock:
            if self.vmo is None:
                return Status.BAD_STATE
            return self.vmo.decommit_range(self.object_offset + offset, length)

    @requires("lock")
    def destroy_locked(self) -> None:
        """Take every entry away and let the VMO go; that may be its last reference.

        Locks: address space lock held; takes the VMO lock, and what recycling takes.
        Kernel: ``VmMapping::DestroyLocked``.
        """
        vmo = self.vmo
        self.die()
        if vmo is None:
            return
        with vmo.cow.lock:
            self.unmap_object_range_locked(self.object_offset, self.size)
            vmo.cow.mappings.remove(self)
        self.vmo = None
        vmo.release()

    # -- what the hardware does -----------------------------------------------------------------

    def load(self, offset: int) -> bytes | None:
        """Read the page at ``offset``: no lock, one step; None where it faults."""
        entry = self.entries[offset // PAGE_SIZE].load()
        if entry is None:
            return None
        page = entry.page
        if isinstance(page, ZeroPage):
            return ZEROES
        self._touched(page, offset)
        return bytes(page.contents)

    def store(self, offset: int, content: bytes) -> bool:
        """Write the page at ``offset``: no lock, one step; False where it faults."""
        entry = self.entries[offset // PAGE_SIZE].load()
        if entry is None or not entry.writable or isinstance(entry.page, ZeroPage):
            return False
        page = entry.page
        self._touched(page, offset)
        page.contents[:] = content[:CONTENT_BYTES].ljust(CONTENT_BYTES, b"\0")
        return True

    def _touched(self, page: VmPage, offset: int) -> None:
        if self.vmo is not None:
            at = self.object_offset + offset
            self.aspace.world.oracle.at_access(page, self.vmo.cow, at)


class VmAspace:
    """One address space.

    Attributes:
        lock: Guards the mappings; taken before every VMO lock.

    Kernel: ``VmAspace``. Omits: regions within regions, addresses (a mapping names itself), the
    mapping that faulted last.
    """

    mappings = guarded_by("lock")

    def __init__(self, world: World, name: str) -> None:
        """Nothing mapped. No schedule points."""
        self.world = world
        self.name = name
        self.lock = Mutex(f"{name}.lock", VM_ASPACE)
        self.mappings = []

    def __repr__(self) -> str:
        """The name."""
        return self.name

    def map(self, vmo: VmObjectPaged, offset: int, length: int) -> tuple[Status, VmMapping | None]:
        """Map a range of ``vmo``; the mapping keeps the VMO alive.

        Returns:
            OK and the mapping, or OUT_OF_RANGE.

        Locks: takes ``lock``, then the VMO lock.
        Kernel: ``VmAddressRegion::CreateVmMapping``. Omits: ranges beyond the end of the VMO.
        """
        with self.lock:
            with vmo.cow.lock:
                if offset + length > vmo.size:
                    return Status.OUT_OF_RANGE, None
                vmo.add_ref()
                mapping = VmMapping(self, vmo, offset, length)
                vmo.cow.mappings.append(mapping)
            self.mappings.append(mapping)
            return Status.OK, mapping

    def unmap(self, mapping: VmMapping) -> Status:
        """Take ``mapping`` away.

        Returns:
            OK, or NOT_FOUND where it is gone already.

        Locks: holds ``lock`` throughout, over the recycling of the VMO too if this was its last
            reference.
        Kernel: ``VmAspace::FreeRegion``.
        """
        with self.lock:
            if mapping not in self.mappings:
                return Status.NOT_FOUND
            self.mappings.remove(mapping)
            mapping.destroy_locked()
            return Status.OK

    def destroy(self) -> None:
        """Unmap everything. Locks: as ``unmap``. Kernel: ``VmAspace::Destroy``."""
        with self.lock:
            while self.mappings:
                self.mappings.pop().destroy_locked()

    def page_fault(self, mapping: VmMapping, offset: int, *, write: bool) -> Status:
        """Bring the page at ``offset`` of ``mapping`` in, whoever has it now.

        Returns:
            OK; NOT_FOUND where nothing is mapped there (any more); what the page source answered;
            INTR_KILLED or INTR_RETRY where the calling thread was interrupted.

        Locks: none may be held; takes ``lock`` for each look, and holds nothing while it waits.
        Kernel: ``VmAspace::PageFault``.
        """
        with PageRequest(self.world, batching=False) as request:
            while True:
                with self.lock:
                    if mapping not in self.mappings:
                        return Status.NOT_FOUND
                    status = mapping.page_fault_locked(offset, request, write=write)
                if status is Status.SHOULD_WAIT:
                    status = request.wait()
                    if status is Status.OK:
                        continue
                return status
