"""The evictor: frees the least recently used pages when memory is short."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from model.cow_pages import EvictionHintAction
from model.solpi import StackOwnedLoanedPagesInterval

if TYPE_CHECKING:
    from model.page import VmPage
    from model.world import World

# Peeks at a dying VMO before giving up.
MISSES_MAX: Final = 3


class Evictor:
    """Kernel: ``Evictor``. Omits: the thread, discardable memory, target levels."""

    def __init__(self, world: World) -> None:
        """Evicts when asked."""
        self._world = world

    def evict_pages(self, target: int) -> int:
        """Evict until ``target`` ordinary pages are free again, or nothing is left to evict.

        One interval owns all pages until they are freed together, while more VMO locks are taken:
        a reclaimer may have to wait long for one of them. Loaned pages do not count.

        Returns:
            How many pages were evicted, loaned ones included.

        Locks: none held; takes VMO locks one after another, then the PMM lock.
        Kernel: ``Evictor::EvictPageQueues``. Omits: trying for ever where a VMO is dying;
            sparing the youngest generations, where a page goes that is always needed.
        """
        evicted: list[VmPage] = []
        refused: list[VmPage] = []
        stuck = False
        counted = misses = 0
        with StackOwnedLoanedPagesInterval(self._world):
            while counted < target and misses < MISSES_MAX and not stuck:
                backlink = self._world.page_queues.peek_pager_backed()
                if backlink is None:
                    break
                if backlink.cow is None:
                    misses += 1
                    continue
                page = backlink.page
                if backlink.cow.remove_page_for_eviction(
                    page, backlink.offset, EvictionHintAction.FOLLOW
                ):
                    counted += not page.loaned
                    evicted.append(page)
                elif page in refused:
                    # It is always needed, and all others have had their turn.
                    stuck = True
                else:
                    refused.append(page)
                # May be the last reference: then the VMO is recycled here, within the interval.
                backlink.cow.release()
            total = len(evicted)
            if evicted:
                self._world.pmm.free_list_of_pages(evicted)
        return total
