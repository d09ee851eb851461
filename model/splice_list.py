"""``VmPageSpliceList``: pages on their way into a VMO."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from model.page import VmPage
    from model.world import World


class VmPageSpliceList:
    """Pages for consecutive offsets, given out in order.

    Kernel: ``VmPageSpliceList``. Omits: page list nodes, markers, gaps.
    """

    def __init__(self, world: World, offset: int, length: int) -> None:
        """Empty; ``create_from_page_list`` fills it."""
        self._world = world
        self.offset = offset
        self.length = length
        self._pages: list[VmPage] = []

    @classmethod
    def create_from_page_list(
        cls, world: World, offset: int, length: int, pages: list[VmPage]
    ) -> VmPageSpliceList:
        """Move ``pages`` into a new splice list; the given list is empty afterwards.

        Kernel: ``VmPageSpliceList::CreateFromPageList``.
        """
        splice = cls(world, offset, length)
        splice._pages.extend(pages)
        pages.clear()
        return splice

    def pop(self) -> VmPage:
        """Take the next page. Kernel: ``VmPageSpliceList::Pop``."""
        return self._pages.pop(0)

    def is_done(self) -> bool:
        """Whether every page was taken. Kernel: ``VmPageSpliceList::IsDone``."""
        return not self._pages

    def pop_rest_into(self, pages: list[VmPage]) -> None:
        """Move the pages that nobody took to the end of ``pages``."""
        while not self.is_done():
            pages.append(self.pop())

    def destroy(self) -> None:
        """Free the pages that nobody took, as ordinary pages.

        Locks: takes the PMM lock where there are any.
        Kernel: ``~VmPageSpliceList``.
        """
        while not self.is_done():
            self._world.pmm.free_page(self.pop())
