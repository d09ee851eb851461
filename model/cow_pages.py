"""``VmCowPages``: the pages of one VMO, contiguous or pager-backed."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

from harness.sync import guarded_by, requires
from model.asserts import kassert
from model.cow_replace import replace_page
from model.hierarchy import VmHierarchyState
from model.page import PAGE_SIZE, DirtyState, PageState, VmPage
from model.page_list import VmPageList
from model.page_queues import BatchPQRemove
from model.pmm import AllocFlag
from model.refs import RefCounted
from model.solpi import StackOwnedLoanedPagesInterval
from model.status import Status

if TYPE_CHECKING:
    from model.page_request import PageRequest
    from model.page_source import PageSource
    from model.splice_list import VmPageSpliceList
    from model.world import World


class EvictionHintAction(enum.Enum):
    """Kernel: ``VmCowPages::EvictionHintAction``."""

    FOLLOW = "Follow"
    IGNORE = "Ignore"


class RangeChangeOp(enum.Enum):
    """What becomes of mappings of a range. Kernel: ``RangeChangeOp``. Omits: cache operations."""

    UNMAP = "Unmap"
    REMOVE_WRITE = "RemoveWrite"


class VmCowPagesContainer(RefCounted):
    """Memory of a ``VmCowPages``, which outlives the recycling of it.

    Whoever has a reference may call ``remove_page_for_eviction``, also while the VMO's own count is
    zero already.

    Kernel: ``VmCowPagesContainer``.
    """

    def __init__(self, cow: VmCowPages) -> None:
        """The one reference is the VMO's own."""
        super().__init__(f"{cow.name}.container")
        self._cow = cow

    def remove_page_for_eviction(self, page: VmPage, offset: int, hint: EvictionHintAction) -> bool:
        """See ``VmCowPages.remove_page_for_eviction``."""
        self.check_alive("a page is removed from it")
        return self._cow.remove_page_for_eviction(page, offset, hint)

    def replace_page(self, page: VmPage, offset: int, *, with_loaned: bool) -> Status:
        """See ``cow_replace.replace_page``."""
        self.check_alive("a page of it is replaced")
        return replace_page(self._cow, page, offset, with_loaned=with_loaned)

    def _on_zero(self) -> None:
        """Kernel: ``~VmCowPagesContainer`` with ``~VmCowPages`` inside."""
        cow = self._cow
        self.die()
        cow.end()


class VmCowPages(RefCounted):
    """Pages of one VMO and the lock of its hierarchy.

    Attributes:
        hierarchy: Shared with slices of this VMO.
        lock: The hierarchy's: guards the page list, pin counts, size and children.
        page_source: Where absent pages come from; immutable.
        resizable: Whether ``size`` may change; a resizable VMO has no slices.
        dirty_tracked: Written pages are dirty until the pager has them back.
        trap_dirty: The pager wants to be asked before, as the page source's properties say; such a
            VMO does not borrow.
        is_latency_sensitive: Somebody cannot wait for a page to be replaced.
        ever_pinned: A page of it was or will be pinned.
        children: Slices, without references: each has one of its parent.
        mappings: Mappings of this very VMO, without references.
        recycled: The last reference is gone and the pages have left.
        backlinks: For the invariants only: how many pages point back to this VMO.

    Kernel: ``VmCowPages``. Omits: clones, compression. Mappings hang
    here and not on the ``VmObjectPaged``.
    """

    page_list = guarded_by("lock")
    is_latency_sensitive = guarded_by("lock")
    ever_pinned = guarded_by("lock")
    children = guarded_by("lock")
    mappings = guarded_by("lock")

    def __init__(
        self,
        world: World,
        name: str,
        size: int,
        page_source: PageSource,
        hierarchy: VmHierarchyState | None = None,
        *,
        resizable: bool = False,
        dirty_tracked: bool = False,
        trap_dirty: bool = False,
    ) -> None:
        """Empty; takes over the caller's reference of ``page_source``. No schedule points.

        Args:
            world: What all parts share.
            name: Unique in it.
            size: Bytes.
            page_source: Where absent pages come from.
            hierarchy: The parent's; None begins one.
            resizable: Whether the size may change.
            dirty_tracked: Whether written pages are dirty.
            trap_dirty: Whether the pager wants to know before.
        """
        super().__init__(name)
        self.world = world
        self.size = size
        self.page_source = page_source
        self.resizable = resizable
        self.dirty_tracked = dirty_tracked
        self.trap_dirty = trap_dirty
        self.hierarchy = VmHierarchyState(name) if hierarchy is None else hierarchy
        self.lock = self.hierarchy.lock
        self.page_list = VmPageList(world, self, size)
        self.children = []
        self.mappings = []
        self._container = VmCowPagesContainer(self)
        self.is_latency_sensitive = False
        self.ever_pinned = False
        self.recycled = False
        self.backlinks = 0
        self.eviction_count = 0
        self.generation = 0
        check = world.oracle.vmo_lock(self) if hierarchy is None else None
        if check is not None:
            self.lock.checks.append(("vmo", check))

    def raw_container(self) -> VmCowPagesContainer:
        """The container without a reference. Kernel: ``VmCowPages::raw_container``."""
        return self._container

    def is_contiguous(self) -> bool:
        """Whether the pages are specific physical ones."""
        return self.page_source.properties.is_providing_specific_physical_pages

    def is_pager_backed(self) -> bool:
        """Whether pages can be had again from the source. Kernel: ``can_evict``."""
        return self.page_source.properties.is_preserving_page_content

    def paged_parent(self, offset: int) -> tuple[VmCowPages, int]:
        """The VMO that has the pages, and where ``offset`` of this one is in it.

        Kernel: ``VmCowPages::PagedParentOfSliceLocked``.
        """
        return self, offset

    @requires("lock")
    def range_change_update_locked(
        self, offset: int, length: int, op: RangeChangeOp = RangeChangeOp.UNMAP
    ) -> None:
        """The pages of the range change: tell every mapping, of slices too.

        Args:
            offset: Bytes.
            length: Bytes.
            op: What the mappings lose: the pages, or the right to write to them.

        Kernel: ``VmCowPages::RangeChangeUpdateLocked``.
        """
        for mapping in self.mappings:
            if op is RangeChangeOp.UNMAP:
                mapping.unmap_object_range_locked(offset, length)
            else:
                mapping.remove_write_object_range_locked(offset, length)
        for child in self.children:
            start = max(offset, child.parent_offset)
            end = min(offset + length, child.parent_offset + child.size)
            if start < end:
                child.range_change_update_locked(start - child.parent_offset, end - start, op)

    @requires("lock")
    def can_borrow_locked(self) -> bool:
        """Whether this VMO may take loaned pages now.

        Kernel: ``VmCowPages::can_borrow_locked``.
        """
        suits = self.is_pager_backed() and not self.trap_dirty
        suits = suits and not self.is_latency_sensitive and not self.ever_pinned
        return suits and self.world.borrowing.is_any_borrowing_enabled()

    # -- adding pages ---------------------------------------------------------------------------

    def initialize_vm_page(self, page: VmPage) -> None:
        """Make a page in the caller's hands ready for a VMO (t3).

        Kernel: ``InitializeVmPage``.
        """
        kassert("a.cow.init", page.state.peek() is PageState.ALLOC, page, "is not fresh")
        page.pin_count = 0
        page.always_need = False
        page.dirty_state = DirtyState.UNTRACKED
        page.set_state(PageState.OBJECT)

    @requires("lock")
    def add_new_pages_locked(self, offset: int, pages: list[VmPage]) -> Status:
        """Add fresh pages from ``offset`` on, zeroed; owns them all, whatever happens.

        Kernel: ``VmCowPages::AddNewPagesLocked``.
        """
        start = offset
        while pages:
            page = pages.pop(0)
            status = self.add_new_page_locked(offset, page, zero=True)
            if status is not Status.OK:
                pages.insert(0, page)
                if offset > start:
                    self._remove_and_free_locked(start, offset - start)
                self.free_pages_locked(pages)
                return status
            offset += PAGE_SIZE
        return Status.OK

    @requires("lock")
    def add_new_page_locked(self, offset: int, page: VmPage, *, zero: bool) -> Status:
        """Add a fresh page to an empty slot. Kernel: ``VmCowPages::AddNewPageLocked``."""
        self.initialize_vm_page(page)
        if zero:
            page.zero()
        return self.add_page_locked(offset, page)

    @requires("lock")
    def add_page_locked(self, offset: int, page: VmPage) -> Status:
        """Put a page in OBJECT state into an empty slot; it is the caller's if that fails.

        Returns:
            OK, OUT_OF_RANGE, NO_MEMORY, or ALREADY_EXISTS.

        Kernel: ``VmCowPages::AddPageLocked``. Omits: overwriting.
        """
        if offset >= self.size:
            return Status.OUT_OF_RANGE
        status: Status = self.page_list.allocate_node()
        if status is not Status.OK:
            return status
        if self.page_list.lookup(offset) is not None:
            return Status.ALREADY_EXISTS
        right = self.page_source.debug_is_page_ok(page, offset)
        kassert("a.cow.add", right, page, "does not belong at", f"{offset:#x} of", self)
        ready = page.state.peek() is PageState.OBJECT and page.pin_count == 0
        kassert("a.cow.add", ready, page, "is added")
        self.set_not_wired_locked(page, offset)
        self.page_list.set(offset, page)
        # The zero page may be mapped here.
        self.range_change_update_locked(offset, PAGE_SIZE)
        return Status.OK

    @requires("lock")
    def set_not_wired_locked(self, page: VmPage, offset: int) -> None:
        """Queue a page that joins this VMO; only evictable ones get a backlink.

        Kernel: ``VmCowPages::SetNotWiredLocked``.
        """
        self.world.oracle.at_add(page, self)
        if self.is_pager_backed():
            self.world.page_queues.set_pager_backed(page, self, offset)
        else:
            self.world.page_queues.set_unswappable(page)

    @requires("lock")
    def move_to_not_wired_locked(self, page: VmPage) -> None:
        """Queue a page again that is pinned no more.

        Kernel: ``VmCowPages::MoveToNotWiredLocked``.
        """
        if not self.is_pager_backed():
            self.world.page_queues.move_to_unswappable(page)
        elif page.unclean:
            self.world.page_queues.move_to_pager_backed_dirty(page)
        else:
            self.world.page_queues.move_to_pager_backed(page)

    # -- looking pages up -----------------------------------------------------------------------

    @requires("lock")
    def lookup_page_locked(
        self, offset: int, request: PageRequest | None, *, write: bool
    ) -> tuple[Status, VmPage | None]:
        """Find the page at ``offset``, or ask for it.

        Returns:
            OK and the page; OK and None where a read of a contiguous VMO sees the zero page; or
            what the page source answers.

        Kernel: ``VmCowPages::LookupPagesLocked``. Omits: runs of pages, dirty tracking.
        """
        if offset >= self.size:
            return Status.OUT_OF_RANGE, None
        page: VmPage | None = self.page_list.lookup(offset)
        if page is not None:
            if self.is_pager_backed():
                self.world.page_queues.mark_accessed(page)
            return Status.OK, page
        if not write and not self.is_pager_backed():
            return Status.OK, None
        if request is None:
            return Status.NOT_FOUND, None
        self.world.oracle.at_look(self, offset, request)
        return self.page_source.get_page(offset, request)

    @requires("lock")
    def commit_range_locked(
        self, offset: int, length: int, request: PageRequest
    ) -> tuple[Status, int]:
        """Walk the range, gathering absent pages into ``request``.

        Returns:
            Status and the bytes known to be committed from ``offset`` on. SHOULD_WAIT: wait for the
            request, then go on after those bytes.

        Kernel: ``VmCowPages::CommitRangeLocked``. Omits: preallocation for anonymous VMOs.
        """
        committed = length
        gap = False
        for at in range(offset, offset + length, PAGE_SIZE):
            status, _ = self.lookup_page_locked(at, request, write=True)
            if status is Status.SHOULD_WAIT:
                if not gap:
                    committed = at - offset
                    gap = True
                if not request.batch_accepting():
                    return status, committed
            elif status is not Status.OK:
                return status, committed
        if gap:
            return request.finalize(), committed
        return Status.OK, committed

    # -- supplying ------------------------------------------------------------------------------

    def supply_pages(
        self, offset: int, length: int, splice: VmPageSpliceList, *, new_zeroed_pages: bool
    ) -> Status:
        """Fill absent slots from ``splice`` and tell the page source.

        Returns:
            OK, also where pages were there already; NO_MEMORY with the untried pages still in
            ``splice``.

        Locks: takes ``lock``.
        Kernel: ``VmCowPages::SupplyPages``.
        """
        self.check_alive("pages are supplied to it")
        with self.lock:
            self.generation += 1
            return self._supply_pages_locked(
                offset, length, splice, new_zeroed_pages=new_zeroed_pages
            )

    @requires("lock")
    def _supply_pages_locked(
        self, offset: int, length: int, splice: VmPageSpliceList, *, new_zeroed_pages: bool
    ) -> Status:
        """Kernel: ``VmCowPages::SupplyPagesLocked``."""
        if offset + length > self.size:
            return Status.OUT_OF_RANGE
        status = Status.OK
        with StackOwnedLoanedPagesInterval(self.world):
            freed: list[VmPage] = []
            run_start = at = offset
            while not splice.is_done():
                page = self._borrow_instead_locked(splice.pop(), freed)
                if self.dirty_tracked:
                    page.dirty_state = DirtyState.CLEAN
                if new_zeroed_pages:
                    status = self.add_new_page_locked(at, page, zero=False)
                else:
                    status = self.add_page_locked(at, page)
                if status is not Status.OK:
                    freed.append(page)
                    self._supplied_locked(run_start, at)
                    run_start = at + PAGE_SIZE
                    if status is not Status.ALREADY_EXISTS:
                        break
                    status = Status.OK
                at += PAGE_SIZE
            # In the VMO first, then the waiters are told: they look as soon as they get the lock.
            self._supplied_locked(run_start, at)
            if freed:
                self.free_pages_locked(freed)
        return status

    @requires("lock")
    def _borrow_instead_locked(self, page: VmPage, freed: list[VmPage]) -> VmPage:
        """Replace a page on its way in by a loaned one, where this VMO may borrow.

        Kernel: part of ``VmCowPages::SupplyPagesLocked``.
        """
        enabled = self.world.borrowing.is_borrowing_in_supplypages_enabled()
        if not self.can_borrow_locked() or not enabled:
            return page
        flags = AllocFlag.CAN_BORROW | AllocFlag.MUST_BORROW
        _, loaned = self.world.pmm.alloc_page(flags, "supply")
        if loaned is None:
            return page
        self.initialize_vm_page(loaned)
        loaned.copy_from(page)
        freed.append(page)
        return loaned

    @requires("lock")
    def _supplied_locked(self, start: int, end: int) -> None:
        if end > start:
            self.page_source.on_pages_supplied(start, end - start)

    # -- removing -------------------------------------------------------------------------------

    def remove_page_for_eviction(self, page: VmPage, offset: int, hint: EvictionHintAction) -> bool:
        """Take ``page`` out of this VMO if it is still at ``offset`` and can be had again.

        Returns:
            Whether the page is the caller's now. A loaned page that is not here any more is FREE,
            or in another thread's interval on its way there.

        Locks: a container reference held; takes ``lock``.
        Kernel: ``VmCowPages::RemovePageForEviction``.
        """
        self.check_alive("a page is evicted from it")
        with self.lock:
            if not self.is_pager_backed():
                return False
            if offset >= self.size or self.page_list.lookup(offset) is not page:
                return False
            if page.pin_count:
                return False
            if page.unclean:
                kassert("a.cow.evict_not_loaned", not page.loaned, page, "is dirty")
                return False
            if page.always_need and hint is EvictionHintAction.FOLLOW:
                kassert("a.cow.evict_not_loaned", not page.loaned, page, "is always needed")
                self.world.page_queues.move_to_pager_backed(page)
                return False
            self.range_change_update_locked(offset, PAGE_SIZE)
            self.page_list.remove(offset)
            self.world.page_queues.remove(page)
            self.eviction_count += 1
            return True

    @requires("lock")
    def decommit_range_locked(self, offset: int, length: int) -> Status:
        """Give the pages of the range away: to borrowers, where this VMO is contiguous.

        Returns:
            OK, OUT_OF_RANGE, INVALID_ARGS, NOT_SUPPORTED (pager-backed), or BAD_STATE (pinned).

        Kernel: ``VmCowPages::DecommitRangeLocked``.
        """
        if offset > self.size or length > self.size - offset:
            return Status.OUT_OF_RANGE
        if self.is_pager_backed():
            return Status.NOT_SUPPORTED
        if offset % PAGE_SIZE or length % PAGE_SIZE:
            return Status.INVALID_ARGS
        status, pages = self._unmap_and_remove_pages_locked(offset, length)
        if status is not Status.OK:
            return status
        # Still under the lock: nobody may see a page absent that is not loaned.
        self.free_pages_locked(pages)
        return Status.OK

    @requires("lock")
    def _unmap_and_remove_pages_locked(
        self, offset: int, length: int
    ) -> tuple[Status, list[VmPage]]:
        """Kernel: ``VmCowPages::UnmapAndRemovePagesLocked``."""
        present = self.page_list.present(offset, length)
        if any(page.pin_count for _, page in present):
            return Status.BAD_STATE, []
        self.range_change_update_locked(offset, length)
        return Status.OK, self.remove_pages_locked(present)

    @requires("lock")
    def remove_pages_locked(self, present: list[tuple[int, VmPage]]) -> list[VmPage]:
        """Take pages out of the list and their queues; no mapping may have them any more.

        Locks: VMO lock held; takes the page queues lock per batch.
        Kernel: ``VmCowPages::RemovePages`` with a ``BatchPQRemove``.
        """
        removed: list[VmPage] = []
        batch = BatchPQRemove(self.world.page_queues, removed)
        for at, page in present:
            self.page_list.remove(at)
            batch.push(page)
        batch.flush()
        return removed

    @requires("lock")
    def _remove_and_free_locked(self, offset: int, length: int) -> None:
        _, pages = self._unmap_and_remove_pages_locked(offset, length)
        self.free_pages_locked(pages)

    @requires("lock")
    def free_pages_locked(self, pages: list[VmPage]) -> None:
        """Free pages that left this VMO, or that it was given in vain; empties the list.

        Kernel: ``VmCowPages::FreePages``.
        """
        if self.page_source.properties.is_handling_free:
            self.page_source.free_pages(pages)
        else:
            self.world.pmm.free_list_of_pages(pages)

    # -- the end --------------------------------------------------------------------------------

    def _on_zero(self) -> None:
        """Free all pages and close the source, in the thread that dropped the last reference.

        Locks: takes ``lock``.
        Kernel: ``VmCowPages::fbl_recycle``.
        """
        with self.lock:
            with self.world.discardable_lock:
                # No modelled VMO is discardable; the kernel takes the lock to find out.
                pass
            mapped = self.mappings or self.children
            kassert("a.cow.recycle_unmapped", not mapped, self, "dies and still has", mapped)
            with StackOwnedLoanedPagesInterval(self.world):
                present = self.page_list.present(0, self.size)
                for _, page in present:
                    kassert("a.cow.recycle_unpinned", page.pin_count == 0, page, "dies pinned")
                pages = self.remove_pages_locked(present)
                self.free_pages_locked(pages)
                self.page_source.close()
            self.recycled = True
        # Last: a reclaimer may still come through the container until the pages are FREE.
        self._container.release()

    def end(self) -> None:
        """The memory goes, and only now the reference of the page source.

        Locks: takes the page source's lock, where this is its last reference.
        Kernel: ``~VmCowPages``.
        """
        page_source = self.page_source
        self.die()
        page_source.release()

    @requires("lock")
    def dump_locked(self) -> list[str]:
        """One line per page. Kernel: ``VmCowPages::DumpLocked``."""
        head = f"vm_cow_pages {self.name} size {self.size:#x} evicted {self.eviction_count}"
        head += " latency-sensitive" * self.is_latency_sensitive + " ever-pinned" * self.ever_pinned
        present = self.page_list.present(0, self.size)
        return [head] + [f"  {offset:#x} {page}" for offset, page in present]
