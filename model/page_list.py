"""``VmPageList``: which page is at which offset of a VMO."""

from __future__ import annotations

from typing import TYPE_CHECKING

from model.asserts import kassert
from model.page import PAGE_SIZE
from model.status import Status

if TYPE_CHECKING:
    from model.cow_pages import VmCowPages
    from model.page import VmPage
    from model.world import World


class VmPageList:
    """Slots of one VMO, empty or with a page.

    Kernel: ``VmPageList``. Omits: markers, nodes of 16 slots (each slot needs memory of its own).
    """

    def __init__(self, world: World, cow: VmCowPages, size: int) -> None:
        """All slots empty."""
        self._world = world
        self._cow = cow
        self._slots: list[VmPage | None] = [None] * (size // PAGE_SIZE)

    def lookup(self, offset: int) -> VmPage | None:
        """The page at ``offset``. Kernel: ``VmPageList::Lookup``."""
        return self._slots[offset // PAGE_SIZE]

    def allocate_node(self) -> Status:
        """Make room for one more page: here memory can run out.

        Kernel: ``VmPageList::LookupOrAllocate``.
        """
        return Status.NO_MEMORY if self._world.faults.hit("page_list_node") else Status.OK

    def set(self, offset: int, page: VmPage) -> None:
        """Store ``page`` in an empty slot."""
        index = offset // PAGE_SIZE
        kassert("a.cow.slot", self._slots[index] is None, self._slots[index], "is in the way")
        self._slots[index] = page
        page.slots.append((self._cow, offset))
        page.touch()

    def swap(self, offset: int, page: VmPage) -> None:
        """Store ``page`` over the one that is at ``offset``; no memory is needed for that."""
        index = offset // PAGE_SIZE
        old = self._slots[index]
        if old is not None:
            old.slots.remove((self._cow, offset))
            old.touch()
        self._slots[index] = None
        self.set(offset, page)

    def remove(self, offset: int) -> VmPage | None:
        """Empty the slot at ``offset`` and return its page.

        Kernel: ``VmPageList::RemoveContent``.
        """
        index = offset // PAGE_SIZE
        page = self._slots[index]
        self._slots[index] = None
        if page is not None:
            page.slots.remove((self._cow, offset))
            page.touch()
            self._cow.page_source.departures += 1
        return page

    def resize(self, size: int) -> None:
        """Slots for ``size`` bytes; those that go are empty."""
        # Who waits for a page that is cut off is told that it is there, and must look again.
        self._cow.page_source.departures += size // PAGE_SIZE < len(self._slots)
        del self._slots[size // PAGE_SIZE :]
        self._slots += [None] * (size // PAGE_SIZE - len(self._slots))

    def present(self, offset: int, length: int) -> list[tuple[int, VmPage]]:
        """Offset and page of every slot in the range that has one."""
        found = []
        for at in range(offset, offset + length, PAGE_SIZE):
            page = self.lookup(at)
            if page is not None:
                found.append((at, page))
        return found


class VmPageListView:
    """The part of a page list that a slice shows; nothing is added or removed through it."""

    def __init__(self, page_list: VmPageList, base: int) -> None:
        """What ``page_list`` has from ``base`` on. No schedule points."""
        self._page_list = page_list
        self._base = base

    def lookup(self, offset: int) -> VmPage | None:
        """See ``VmPageList.lookup``."""
        return self._page_list.lookup(self._base + offset)

    def present(self, offset: int, length: int) -> list[tuple[int, VmPage]]:
        """See ``VmPageList.present``; offsets are the slice's."""
        found = self._page_list.present(self._base + offset, length)
        return [(at - self._base, page) for at, page in found]
