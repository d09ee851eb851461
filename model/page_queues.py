"""Page queues: which VMO a page belongs to, and which page is evicted next."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from harness.sync import Mutex, requires
from model.asserts import kassert
from model.locks import PAGE_QUEUES
from model.page import PageList, PageQueue, PageState, StackOwner, VmPage
from model.solpi import StackOwnedLoanedPagesInterval

if TYPE_CHECKING:
    from model.cow_pages import VmCowPages, VmCowPagesContainer
    from model.world import World

# Pages that one hold of the lock removes at most.
BATCH_PAGES: Final = 64
# A reclaimer that asks this often about one page is not getting anywhere.
LOOPS_ALARM: Final = 200


class ContainerBacklink(NamedTuple):
    """Where a page was found; the reference is the caller's to release."""

    container: VmCowPagesContainer
    page: VmPage
    offset: int


class VmoBacklink(NamedTuple):
    """Where a page was found; ``cow`` is None where that VMO is already dying."""

    cow: VmCowPages | None
    page: VmPage
    offset: int


class PageQueues:
    """Owns the links and the backlink of every page that is in a VMO.

    Attributes:
        lock: Guards queue links, backlinks and page offsets.

    Kernel: ``PageQueues``. Omits: generations, aging, the DontNeed and zero-fork queues, counts of
    active and inactive pages.
    """

    def __init__(self, world: World) -> None:
        """All queues empty. No schedule points."""
        self._world = world
        self.lock = Mutex("pq.lock", PAGE_QUEUES)
        self._queues: dict[PageQueue, PageList] = {
            queue: PageList(f"queue {queue}") for queue in PageQueue if queue is not PageQueue.NONE
        }

    # -- a page joins, moves, leaves ------------------------------------------------------------

    def set_unswappable(self, page: VmPage) -> None:
        """Queue a page that cannot be evicted, without a backlink.

        Locks: takes ``lock``.
        Kernel: ``PageQueues::SetUnswappable``.
        """
        with self.lock:
            self._set_queue_locked(page, PageQueue.UNSWAPPABLE)

    def set_pager_backed(self, page: VmPage, cow: VmCowPages, offset: int) -> None:
        """Queue an evictable page with a backlink to its slot (t4).

        Locks: takes ``lock``.
        Kernel: ``PageQueues::SetPagerBacked``.
        """
        with self.lock:
            self._set_queue_backlink_locked(page, cow, offset, PageQueue.PAGER_BACKED)

    def move_to_pager_backed(self, page: VmPage) -> None:
        """Make ``page`` the most recently used. Locks: takes ``lock``.

        Kernel: ``PageQueues::MoveToPagerBacked``.
        """
        with self.lock:
            self._move_to_queue_locked(page, PageQueue.PAGER_BACKED)

    def move_to_wired(self, page: VmPage) -> None:
        """Keep ``page`` from eviction. Locks: takes ``lock``.

        Kernel: ``PageQueues::MoveToWired``.
        """
        with self.lock:
            self._move_to_queue_locked(page, PageQueue.WIRED)

    def mark_accessed(self, page: VmPage) -> None:
        """Make ``page`` the most recently used if it is pager-backed and still queued.

        Locks: takes ``lock``.
        Kernel: ``PageQueues::MarkAccessed``.
        """
        with self.lock:
            if page.page_queue is PageQueue.PAGER_BACKED:
                self._move_to_queue_locked(page, PageQueue.PAGER_BACKED)

    def remove(self, page: VmPage) -> None:
        """Take ``page`` from its VMO; a loaned one goes to the caller's interval (t5).

        Locks: takes ``lock``.
        Kernel: ``PageQueues::Remove``.
        """
        with self.lock:
            self._remove_locked(page)

    def remove_array_into_list(self, pages: list[VmPage], out: list[VmPage]) -> None:
        """Take up to 64 pages from their VMO under one hold of the lock, into ``out``.

        Locks: takes ``lock``.
        Kernel: ``PageQueues::RemoveArrayIntoList``.
        """
        with self.lock:
            for page in pages:
                self._remove_locked(page)
                out.append(page)

    @requires("lock")
    def _set_queue_locked(self, page: VmPage, queue: PageQueue) -> None:
        """Kernel: ``PageQueues::SetQueueLocked``."""
        kassert("a.pq.set", _may_be_queued(page), page, "is queued on", queue)
        page.page_queue = queue
        self._queues[queue].add_head(page)

    @requires("lock")
    def _set_queue_backlink_locked(
        self, page: VmPage, cow: VmCowPages, offset: int, queue: PageQueue
    ) -> None:
        """Kernel: ``PageQueues::SetQueueBacklinkLocked``."""
        fit = _may_be_queued(page) and page.page_offset == 0
        kassert("a.pq.set", fit, page, "is queued on", queue, "for", cow)
        page.set_object(cow, offset)
        page.page_queue = queue
        self._queues[queue].add_head(page)

    @requires("lock")
    def _move_to_queue_locked(self, page: VmPage, queue: PageQueue) -> None:
        """Kernel: ``PageQueues::MoveToQueueLocked``."""
        linked = page.queue_node is not None and page.page_queue is not PageQueue.NONE
        fit = linked and page.state.peek() is PageState.OBJECT
        kassert("a.pq.move", fit, page, "moves to", queue)
        self._queues[page.page_queue].remove(page)
        page.page_queue = queue
        self._queues[queue].add_head(page)

    @requires("lock")
    def _remove_locked(self, page: VmPage) -> None:
        """Kernel: ``PageQueues::RemoveLocked``."""
        queued = page.page_queue is not PageQueue.NONE
        kassert("a.pq.remove", queued, page, "is on no page queue and leaves one")
        self._queues[page.page_queue].remove(page)
        page.page_queue = PageQueue.NONE
        page.clear_object()

    # -- who has a page -------------------------------------------------------------------------

    def get_cow_with_replaceable_page(
        self, page: VmPage, owning_cow: VmCowPages | None
    ) -> ContainerBacklink | None:
        """Find the VMO that has ``page``, waiting while a thread's stack has it.

        Args:
            page: A page whose loan is cancelled (or any, for a sweeper).
            owning_cow: The lender, which wants the page back; None for a sweeper, which never
                waits and takes None for an answer.

        Returns:
            Container, page and offset, with a reference for the caller to release; None where the
            page is FREE (for a lender).

        Locks: none may be held; takes ``lock``.
        Kernel: ``PageQueues::GetCowWithReplaceablePage``.
        """
        loops = 0
        while True:
            loops += 1
            self._world.oracle.alarm("GetCowWithReplaceablePage", loops, LOOPS_ALARM, page)
            with self.lock:
                state = page.state.load()
                if state is PageState.FREE:
                    return None
                if state is PageState.OBJECT:
                    cow = page.get_object()
                    if cow is None:
                        # Between a VMO and FREE, or on its way into a VMO.
                        if owning_cow is None:
                            return None
                    else:
                        self_owned = cow is owning_cow
                        kassert("a.pq.panic_self", not self_owned, page, "is in its own lender")
                        if owning_cow is None and page.page_queue is PageQueue.WIRED:
                            return None
                        # The backlink keeps the raw pointer valid: it goes, under this lock,
                        # before the container does. The VMO's own lock comes before this one, so
                        # all we can do is hand out a reference; the caller looks again.
                        container = cow.raw_container()
                        if container.try_upgrade():
                            return ContainerBacklink(container, page, page.page_offset)
                        free = page.state.peek() is PageState.FREE
                        kassert("a.pq.upgrade_free", free, page, "outlives its container", cow)
                        self._world.oracle.at_upgrade_failed(page)
                        continue
                elif state is PageState.ALLOC:
                    if owning_cow is None:
                        return None
                else:
                    kassert("a.pq.state", owning_cow is None, page, "cannot have been borrowed")
                    return None
            StackOwnedLoanedPagesInterval.wait_until_contiguous_page_not_stack_owned(
                self._world, page
            )

    def peek_pager_backed(self) -> VmoBacklink | None:
        """The least recently used pager-backed page, with a reference to its VMO if it lives.

        Locks: takes ``lock``.
        Kernel: ``PageQueues::PeekPagerBacked``.
        """
        with self.lock:
            page = self._queues[PageQueue.PAGER_BACKED].peek_tail()
            if page is None:
                return None
            cow = page.get_object()
            if cow is not None and not cow.try_upgrade():
                cow = None
            return VmoBacklink(cow, page, page.page_offset)

    def debug_page_is_pager_backed(self, page: VmPage) -> bool:
        """Whether ``page`` is evictable. Kernel: ``PageQueues::DebugPageIsPagerBacked``."""
        with self.lock:
            return page.page_queue is PageQueue.PAGER_BACKED


def _may_be_queued(page: VmPage) -> bool:
    word = page.word.peek()
    free_word = word is None or isinstance(word, StackOwner)
    idle = page.page_queue is PageQueue.NONE and page.queue_node is None
    return page.state.peek() is PageState.OBJECT and idle and free_word


class BatchPQRemove:
    """Collects pages that leave their VMO, and removes them from the queues in batches.

    Until ``flush`` a pushed page has a backlink but no slot: the VMO lock must be held throughout.

    Kernel: ``BatchPQRemove``.
    """

    def __init__(self, page_queues: PageQueues, out: list[VmPage]) -> None:
        """``out`` receives the pages, in the order pushed."""
        self._page_queues = page_queues
        self._out = out
        self._batch: list[VmPage] = []

    def push(self, page: VmPage) -> None:
        """Add a page; a full batch is flushed."""
        self._batch.append(page)
        if len(self._batch) == BATCH_PAGES:
            self.flush()

    def flush(self) -> None:
        """Remove what was collected. Locks: takes the page queues lock."""
        if self._batch:
            self._page_queues.remove_array_into_list(self._batch, self._out)
            self._batch = []
