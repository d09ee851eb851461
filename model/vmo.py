"""``VmObjectPaged``: what a handle names, and what system calls do with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.sync import assert_no_locks_held
from model.cow_dirty import (
    dirty_offsets_locked,
    dirty_pages_locked,
    prepare_for_write_locked,
    writeback_begin_locked,
    writeback_end_locked,
)
from model.cow_pages import EvictionHintAction, VmCowPages
from model.cow_pins import pin_range_locked, pinned_pages_locked, unpin_range_locked
from model.cow_ranges import detach_source_locked, resize_locked, zero_pages_locked
from model.cow_replace import (
    promote_range_for_reclamation_locked,
    protect_page_locked,
    replace_page,
)
from model.cow_slice import VmCowSlice
from model.page import CONTENT_BYTES, PAGE_SIZE, ZEROES, VmPage
from model.page_request import PageRequest
from model.page_source import PageSource
from model.pager_proxy import PagerProxy
from model.physical_page_provider import PhysicalPageProvider
from model.refs import RefCounted
from model.solpi import StackOwnedLoanedPagesInterval
from model.splice_list import VmPageSpliceList
from model.status import Status

if TYPE_CHECKING:
    from model.world import World


class VmObjectPaged(RefCounted):
    """A VMO: contiguous (``create_contiguous``) or pager-backed (``create_external``).

    All offsets and lengths are bytes and page-aligned.

    Kernel: ``VmObjectPaged``. Omits: parents and mappings, which hang on the ``VmCowPages`` alone;
    cache policy.
    """

    def __init__(self, world: World, cow: VmCowPages) -> None:
        """Takes over the caller's reference of ``cow``. No schedule points."""
        super().__init__(f"vmo {cow.name}")
        self._world = world
        self.cow = cow

    def _on_zero(self) -> None:
        """Kernel: ``~VmObjectPaged``."""
        cow = self.cow
        self.die()
        cow.release()

    @property
    def size(self) -> int:
        """Bytes."""
        return self.cow.size

    # -- creation -------------------------------------------------------------------------------

    @staticmethod
    def create_contiguous(
        world: World, size: int, name: str
    ) -> tuple[Status, VmObjectPaged | None]:
        """A VMO of consecutive physical pages, all present and zero.

        Returns:
            OK and the VMO; NO_MEMORY where there is no such run, or no page list node.

        Locks: takes the new VMO's lock.
        Kernel: ``VmObjectPaged::CreateContiguous``. Omits: alignment, cache policy.
        """
        provider = PhysicalPageProvider(world, f"{name}.provider", size)
        source = PageSource(world, f"{name}.page_source", provider)
        cow = VmCowPages(world, name, size, source)
        vmo = VmObjectPaged(world, cow)
        if size == 0:
            return Status.OK, vmo
        status, pages = world.pmm.alloc_contiguous(size // PAGE_SIZE)
        if status is not Status.OK:
            vmo.release()
            return status, None
        phys_base = pages[0].paddr
        with cow.lock:
            # Where this fails, the provider gets the pages back and is never initialised.
            status = cow.add_new_pages_locked(0, pages)
            if status is Status.OK:
                provider.init(cow, source, phys_base)
        if status is not Status.OK:
            vmo.release()
            return status, None
        return Status.OK, vmo

    @staticmethod
    def create_external(
        world: World,
        size: int,
        name: str,
        *,
        resizable: bool = False,
        dirty_tracked: bool = False,
        trap_dirty: bool = False,
    ) -> VmObjectPaged:
        """A pager-backed VMO, empty. No schedule points.

        Kernel: ``VmObjectPaged::CreateExternal``.
        """
        proxy = PagerProxy(world, f"{name}.proxy", trap_dirty=trap_dirty)
        source = PageSource(world, f"{name}.page_source", proxy)
        cow = VmCowPages(
            world,
            name,
            size,
            source,
            resizable=resizable,
            dirty_tracked=dirty_tracked or trap_dirty,
            trap_dirty=trap_dirty,
        )
        return VmObjectPaged(world, cow)

    def create_child_slice(
        self, offset: int, size: int, name: str
    ) -> tuple[Status, VmObjectPaged | None]:
        """A VMO that shows a range of this one; it keeps the pages alive, not the handle.

        Returns:
            OK and the slice; INVALID_ARGS where the range reaches out of this VMO; NOT_SUPPORTED
            where this one is resizable.

        Locks: takes the VMO lock, which is the slice's too.
        Kernel: ``VmObjectPaged::CreateChildSlice``.
        """
        with self.cow.lock:
            if self.cow.resizable:
                return Status.NOT_SUPPORTED, None
            if offset + size > self.size:
                return Status.INVALID_ARGS, None
            self.cow.add_ref()
            child = VmCowSlice(self._world, name, self.cow, offset, size)
            self.cow.children.append(child)
        return Status.OK, VmObjectPaged(self._world, child)

    # -- commit, decommit, supply ---------------------------------------------------------------

    def commit_range(self, offset: int, length: int) -> Status:
        """Make every page of the range present, each at some time during the call.

        Returns:
            OK; what the page source answered; INTR_KILLED or INTR_RETRY where the calling thread
            was interrupted.

        Locks: none may be held; takes the VMO lock.
        Kernel: ``VmObjectPaged::CommitRangeInternal``, where it does not pin.
        """
        assert_no_locks_held("a.ps.nolocks: VmObjectPaged.commit_range")
        if length > self.size or offset > self.size - length:
            return Status.OUT_OF_RANGE
        with PageRequest(self._world) as request:
            while length > 0:
                with self.cow.lock:
                    # It may have shrunk meanwhile: what is gone needs no commit.
                    length = min(length, max(self.size - offset, 0))
                    status, committed = self.cow.commit_range_locked(offset, length, request)
                offset += committed
                length -= committed
                if status is Status.SHOULD_WAIT:
                    status = request.wait()
                if status is not Status.OK:
                    return status
        return Status.OK

    def send_commit(self, offset: int, length: int, request: PageRequest) -> Status:
        """The first half of a commit or write fault: ask, and leave the waiting to the caller.

        Locks: takes the VMO lock.
        """
        with self.cow.lock:
            status, _ = self.cow.commit_range_locked(offset, length, request)
            return status

    def decommit_range(self, offset: int, length: int) -> Status:
        """Give the pages of the range away.

        Returns:
            OK, NOT_SUPPORTED (pager-backed, or loaning is off), OUT_OF_RANGE, INVALID_ARGS.

        Locks: takes the VMO lock.
        Kernel: ``VmObjectPaged::DecommitRange``.
        """
        if self.cow.is_contiguous() and not self._world.borrowing.is_loaning_enabled():
            return Status.NOT_SUPPORTED
        with self.cow.lock:
            return self.cow.decommit_range_locked(offset, length)

    def supply(self, offset: int, length: int, content: bytes) -> Status:
        """Supply pages as a pager does: from an auxiliary VMO, every page filled with ``content``.

        Returns:
            OK, or NO_MEMORY.

        Locks: takes the VMO lock.
        Kernel: ``VmObjectPaged::SupplyPages`` after ``TakePages``. Omits: the auxiliary VMO itself.
        """
        status, pages = self._world.pmm.alloc_pages(length // PAGE_SIZE, place="supply")
        if status is not Status.OK:
            return status
        for page in pages:
            self.cow.initialize_vm_page(page)
            page.contents[:] = content
        splice = VmPageSpliceList.create_from_page_list(self._world, offset, length, pages)
        status = self.cow.supply_pages(offset, length, splice, new_zeroed_pages=False)
        splice.destroy()
        return status

    def fail_pages(self, offset: int, length: int, status: Status) -> None:
        """Answer requests for the range with an error, as a pager does.

        Locks: takes the VMO lock.
        Kernel: ``VmCowPages::FailPageRequests``.
        """
        with self.cow.lock:
            self.cow.page_source.on_pages_failed(offset, length, status)

    def detach_source(self) -> None:
        """The pager detaches this VMO. Locks: takes the VMO lock.

        Kernel: ``VmObjectPaged::DetachSource``.
        """
        with self.cow.lock:
            detach_source_locked(self.cow)

    # -- pins -----------------------------------------------------------------------------------

    def commit_range_pinned(
        self, offset: int, length: int, *, reuse_request: bool = False
    ) -> Status:
        """Make every page of the range present and pin it, in order; undo the pins on failure.

        Args:
            offset: First byte.
            length: Bytes, at least a page.
            reuse_request: Give the request up as soon as there is something to pin, since replacing
                loaned pages may need the object, and ask again for the rest, all under the lock.
                Later kernels do so; the seed's waits for the request that it has sent.

        Returns:
            As ``commit_range``; INVALID_ARGS for no pages; UNAVAILABLE where a page is pinned too
            often.

        Locks: none may be held; takes the VMO lock.
        Kernel: ``VmObjectPaged::CommitRangePinned``, ``VmObjectPaged::CommitRangeInternal``.
        """
        assert_no_locks_held("a.ps.nolocks: VmObjectPaged.commit_range_pinned")
        if length == 0:
            return Status.INVALID_ARGS
        start, end = offset, offset + length
        status = Status.OK
        with PageRequest(self._world) as request:
            while status is Status.OK and offset < end:
                with self.cow.lock:
                    status, offset = self._commit_and_pin_locked(
                        offset, end, request, reuse_request=reuse_request
                    )
                if status is Status.SHOULD_WAIT:
                    status = request.wait()
        if status is not Status.OK and offset > start:
            self.unpin(start, offset - start)
        return status

    def _commit_and_pin_locked(
        self, offset: int, end: int, request: PageRequest, *, reuse_request: bool
    ) -> tuple[Status, int]:
        """Pin what is there from ``offset`` on, and ask for the rest.

        Returns:
            Status, and how far the range is pinned. SHOULD_WAIT: wait for the request, then go on
            from there.

        Locks: VMO lock held.
        """
        while offset < end:
            if end > self.size:
                return Status.OUT_OF_RANGE, offset
            status, committed = self.cow.commit_range_locked(offset, end - offset, request)
            if status not in (Status.OK, Status.SHOULD_WAIT):
                return status, offset
            if committed:
                cow, at = self.cow.paged_parent(offset)
                if reuse_request and status is Status.SHOULD_WAIT:
                    request.cancel()
                pinned = pin_range_locked(cow, at, committed)
                if pinned is not Status.OK:
                    return pinned, offset
                offset += committed
            if status is Status.SHOULD_WAIT and not (reuse_request and committed):
                return status, offset
        return Status.OK, offset

    def unpin(self, offset: int, length: int) -> None:
        """Take one pin from every page of the range. Locks: takes the VMO lock.

        Kernel: ``VmObjectPaged::Unpin``.
        """
        cow, at = self.cow.paged_parent(offset)
        with cow.lock:
            unpin_range_locked(cow, at, length)

    def pinned_pages(self) -> int:
        """How many pages are pinned. Locks: takes the VMO lock."""
        cow, _ = self.cow.paged_parent(0)
        with cow.lock:
            return pinned_pages_locked(cow)

    # -- hints, replacement, writing back -------------------------------------------------------

    def hint_always_need(self, offset: int, length: int) -> Status:
        """Commit the pages of the range and keep them; a VMO that cannot be evicted needs no hint.

        Returns:
            OK, OUT_OF_RANGE, or why a page could not be had; the ones before it are kept.

        Locks: none may be held; takes the VMO lock.
        Kernel: ``VmObjectPaged::HintRange``, ``VmCowPages::ProtectRangeFromReclamationLocked``.
        """
        assert_no_locks_held("a.ps.nolocks: VmObjectPaged.hint_always_need")
        end = offset + length
        with PageRequest(self._world, batching=False) as request:
            while offset < end and self.cow.is_pager_backed():
                with self.cow.lock:
                    status, page = self.cow.lookup_page_locked(offset, request, write=False)
                    if page is not None:
                        cow, at = self.cow.paged_parent(offset)
                        status = protect_page_locked(cow, page, at)
                        offset += PAGE_SIZE
                if status is Status.SHOULD_WAIT:
                    status = request.wait()
                if status is not Status.OK:
                    return status
        return Status.OK

    def hint_dont_need(self, offset: int, length: int) -> Status:
        """Let the pages of the range be evicted before all others.

        Returns:
            OK, or OUT_OF_RANGE.

        Locks: takes the VMO lock.
        Kernel: ``VmObjectPaged::HintRange``.
        """
        with self.cow.lock:
            if offset > self.size or length > self.size - offset:
                return Status.OUT_OF_RANGE
            cow, at = self.cow.paged_parent(offset)
            if cow.is_pager_backed():
                promote_range_for_reclamation_locked(cow, at, length)
            return Status.OK

    def replace_page(self, offset: int, *, with_loaned: bool) -> Status:
        """Replace the page at ``offset``, whichever it is; NOT_FOUND where there is none.

        Locks: takes the VMO lock.
        Kernel: as the borrowing tests do it: lookup, then ``VmCowPages::ReplacePageWithLoaned``.
        """
        with self.cow.lock:
            if offset >= self.size:
                return Status.NOT_FOUND
            page = self.cow.page_list.lookup(offset)
        if page is None:
            return Status.NOT_FOUND
        cow, at = self.cow.paged_parent(offset)
        return replace_page(cow, page, at, with_loaned=with_loaned)

    def dirty_pages(self, offset: int, length: int) -> Status:
        """The pager agrees to writes; see ``dirty_pages_locked``. Locks: takes the VMO lock.

        Kernel: ``VmObjectPaged::DirtyPages``.
        """
        with self.cow.lock:
            return dirty_pages_locked(self.cow, offset, length)

    def dirty_offsets(self, offset: int, length: int) -> list[int]:
        """Where there is something to write back. Locks: takes the VMO lock.

        Kernel: ``VmObjectPaged::EnumerateDirtyRanges``.
        """
        with self.cow.lock:
            return dirty_offsets_locked(self.cow, offset, length)

    def writeback_begin(self, offset: int, length: int) -> Status:
        """The pager begins to write back. Locks: takes the VMO lock.

        Kernel: ``VmObjectPaged::WritebackBegin``.
        """
        with self.cow.lock:
            return writeback_begin_locked(self.cow, offset, length)

    def writeback_end(self, offset: int, length: int) -> Status:
        """The pager has written back. Locks: takes the VMO lock.

        Kernel: ``VmObjectPaged::WritebackEnd``.
        """
        with self.cow.lock:
            return writeback_end_locked(self.cow, offset, length)

    def mark_as_latency_sensitive(self) -> None:
        """Borrow no more. Locks: takes the VMO lock.

        Kernel: ``VmCowPages::MarkAsLatencySensitiveLocked``.
        """
        cow, _ = self.cow.paged_parent(0)
        with cow.lock:
            cow.is_latency_sensitive = True

    def attributed_pages_in_range(self, offset: int, length: int) -> int:
        """How many pages of the range are there. Locks: takes the VMO lock.

        Kernel: ``VmObjectPaged::AttributedPagesInRange``.
        """
        with self.cow.lock:
            length = min(length, max(self.size - offset, 0))
            return len(self.cow.page_list.present(offset, length))

    def _prepare_for_write_locked(
        self, page: VmPage, offset: int, request: PageRequest
    ) -> tuple[Status, VmPage | None]:
        """See ``prepare_for_write_locked``. Locks: VMO lock held."""
        cow, at = self.cow.paged_parent(offset)
        return prepare_for_write_locked(cow, page, at, request)

    # -- size and content of ranges -------------------------------------------------------------

    def resize(self, size: int) -> Status:
        """Change the size; see ``resize_locked``. Locks: takes the VMO lock.

        Kernel: ``VmObjectPaged::Resize``.
        """
        with self.cow.lock:
            return resize_locked(self.cow, size)

    def zero_range(self, offset: int, length: int) -> Status:
        """Zero pages, without decommitting any; those of a pager come from it first.

        Returns:
            OK, OUT_OF_RANGE, or what the page source answered.

        Locks: none may be held; takes the VMO lock.
        Kernel: ``VmObjectPaged::ZeroRange``.
        """
        assert_no_locks_held("a.ps.nolocks: VmObjectPaged.zero_range")
        with PageRequest(self._world, batching=False) as request:
            while True:
                with self.cow.lock:
                    if length > self.size or offset > self.size - length:
                        return Status.OUT_OF_RANGE
                    status, zeroed = zero_pages_locked(self.cow, offset, length, request)
                offset += zeroed
                length -= zeroed
                if status is Status.SHOULD_WAIT:
                    status = request.wait()
                    if status is Status.OK:
                        continue
                return status

    # -- access ---------------------------------------------------------------------------------

    def read(self, offset: int) -> tuple[Status, bytes]:
        """Read the page at ``offset``; an absent page of a contiguous VMO reads as zeroes.

        Locks: none may be held; takes the VMO lock.
        Kernel: ``VmObjectPaged::Read``. Omits: parts of pages, the copy to user memory.
        """
        with PageRequest(self._world, batching=False) as request:
            while True:
                with self.cow.lock:
                    status, page = self.cow.lookup_page_locked(offset, request, write=False)
                    if status is Status.OK:
                        return status, ZEROES if page is None else bytes(page.contents)
                if status is Status.SHOULD_WAIT:
                    status = request.wait()
                if status is not Status.OK:
                    return status, b""

    def write(self, offset: int, content: bytes) -> Status:
        """Write the page at ``offset``, committing it first.

        Locks: none may be held; takes the VMO lock.
        Kernel: ``VmObjectPaged::Write``. Omits: parts of pages.
        """
        with PageRequest(self._world, batching=False) as request:
            while True:
                with self.cow.lock:
                    status, page = self.cow.lookup_page_locked(offset, request, write=True)
                    if page is not None:
                        status, page = self._prepare_for_write_locked(page, offset, request)
                    if page is not None:
                        page.contents[:] = content[:CONTENT_BYTES].ljust(CONTENT_BYTES, b"\0")
                        return Status.OK
                if status is Status.SHOULD_WAIT:
                    status = request.wait()
                if status is not Status.OK:
                    return status

    def evict_page(self, offset: int) -> bool:
        """Evict one page of this VMO, whatever its age, and free it.

        Returns:
            Whether the page was there and could go.

        Locks: takes the VMO lock, then the PMM lock.
        Kernel: as the eviction tests do it: lookup, ``RemovePageForEviction``, ``pmm_free_page``.
        """
        cow, offset = self.cow.paged_parent(offset)
        with cow.lock:
            page: VmPage | None = None
            if offset < cow.size:
                page = cow.page_list.lookup(offset)
        if page is None:
            return False
        with StackOwnedLoanedPagesInterval(self._world):
            if not cow.remove_page_for_eviction(page, offset, EvictionHintAction.FOLLOW):
                return False
            self._world.pmm.free_page(page)
        return True
