"""Slices: a VMO that is a window into another one, with no pages of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.sync import requires
from model.cow_pages import VmCowPages
from model.page_list import VmPageListView
from model.status import Status

if TYPE_CHECKING:
    from model.page import VmPage
    from model.page_request import PageRequest
    from model.splice_list import VmPageSpliceList
    from model.world import World


class VmCowSlice(VmCowPages):
    """A child that passes everything on to the parent that has the pages.

    Attributes:
        parent: Counted reference; None once recycled. May be a slice itself.
        parent_offset: Where in the parent the slice begins, bytes.

    Kernel: ``VmCowPages`` with ``is_slice_locked()``.
    """

    def __init__(self, world: World, name: str, parent: VmCowPages, offset: int, size: int) -> None:
        """Takes over the caller's reference of ``parent``. No schedule points."""
        super().__init__(world, name, size, parent.page_source, parent.hierarchy)
        self.parent: VmCowPages | None = parent
        self.parent_offset = offset
        root, base = parent.paged_parent(offset)
        self._root, self._base = root, base
        self.page_list = VmPageListView(root.page_list, base)

    def paged_parent(self, offset: int) -> tuple[VmCowPages, int]:
        """See ``VmCowPages.paged_parent``."""
        return self._root, self._base + offset

    @requires("lock")
    def lookup_page_locked(
        self, offset: int, request: PageRequest | None, *, write: bool
    ) -> tuple[Status, VmPage | None]:
        """See ``VmCowPages.lookup_page_locked``."""
        if offset >= self.size:
            return Status.OUT_OF_RANGE, None
        return self._root.lookup_page_locked(self._base + offset, request, write=write)

    @requires("lock")
    def decommit_range_locked(self, offset: int, length: int) -> Status:
        """See ``VmCowPages.decommit_range_locked``: the parent decommits, and its rules hold."""
        if offset > self.size or length > self.size - offset:
            return Status.OUT_OF_RANGE
        return self._root.decommit_range_locked(self._base + offset, length)

    def supply_pages(
        self, offset: int, length: int, splice: VmPageSpliceList, *, new_zeroed_pages: bool
    ) -> Status:
        """See ``VmCowPages.supply_pages``; NOT_SUPPORTED: pagers supply what they made."""
        del offset, length, splice, new_zeroed_pages
        return Status.NOT_SUPPORTED

    def _on_zero(self) -> None:
        """Leave the parent, whose last reference this may have been.

        Locks: takes ``lock``, and again where the parent dies with this.
        Kernel: ``VmCowPages::fbl_recycle``, its part for VMOs with a parent.
        """
        with self.lock:
            with self.world.discardable_lock:
                # As in any recycling.
                pass
            parent = self.parent
            if parent is not None:
                parent.children.remove(self)
            self.parent = None
            self.recycled = True
        if parent is not None:
            # Not under the lock: this may be the last reference, and recycling takes the lock.
            self.hierarchy.do_deferred_delete(parent)
        self.raw_container().release()

    def end(self) -> None:
        """See ``VmCowPages.end``; the page source is the parent's. Kernel: ``~VmCowPages``."""
        self.die()
