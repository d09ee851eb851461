"""Page queues: which VMO a page belongs to, and which page is evicted next."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from harness.sync import Mutex, guarded_by, requires
from model.asserts import kassert
from model.cow_replace import replace_page
from model.locks import PAGE_QUEUES
from model.page import PageList, PageQueue, PageState, StackOwner, VmPage
from model.queue_threads import AgeReason, QueueThreads
from model.solpi import StackOwnedLoanedPagesInterval
from model.status import Status

if TYPE_CHECKING:
    from model.cow_pages import VmCowPages, VmCowPagesContainer
    from model.world import World

# Pages that one hold of the lock removes at most.
BATCH_PAGES: Final = 64
# Generations of pager-backed pages at any time.
GENERATIONS: Final = 8
# The newest ones: their pages count as in use.
ACTIVE_GENERATIONS: Final = 2
# Pages that one hold of the lock sets aside to be replaced by loaned ones.
DEFERRED_MAX: Final = 16
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
        lock: Guards queue links, backlinks, page offsets and generations.
        mru_generation: Number of the newest generation; only grows.
        lru_generation: Number of the oldest one; only grows, and follows closely.
        active_ratio_multiplier: A generation begins where this many times the active pages are more
            than the inactive ones; 0 leaves that to whoever calls.
        threads: Those that age the queues; without them, operations do.

    A page belongs to the generation in which it was used last. Its link lags behind: using a page
    stores the generation and no more, and whoever looks for old pages relinks what is young.

    Kernel: ``PageQueues``. Omits: the zero-fork queue, the second DontNeed queue.
    """

    mru_generation = guarded_by("lock")
    lru_generation = guarded_by("lock")
    active_ratio_multiplier = guarded_by("lock")

    def __init__(self, world: World) -> None:
        """All queues empty. No schedule points."""
        self._world = world
        self.lock = Mutex("pq.lock", PAGE_QUEUES)
        self._queues: dict[PageQueue, PageList] = {
            queue: PageList(f"queue {queue}")
            for queue in PageQueue
            if queue not in (PageQueue.NONE, PageQueue.PAGER_BACKED)
        }
        name = f"queue {PageQueue.PAGER_BACKED}"
        self._generations = [PageList(f"{name}{number}") for number in range(GENERATIONS)]
        self.mru_generation = 0
        self.lru_generation = 0
        self.active_ratio_multiplier = 0
        self.threads = QueueThreads(world, self, GENERATIONS)

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

    def move_to_pager_backed_dont_need(self, page: VmPage) -> None:
        """Let ``page`` be the next to be evicted. Locks: takes ``lock``.

        Kernel: ``PageQueues::MoveToPagerBackedDontNeed``.
        """
        with self.lock:
            self._move_to_queue_locked(page, PageQueue.DONT_NEED)

    def move_to_pager_backed_dirty(self, page: VmPage) -> None:
        """Keep ``page`` from eviction until it is written back. Locks: takes ``lock``.

        Kernel: ``PageQueues::MoveToPagerBackedDirty``.
        """
        with self.lock:
            self._move_to_queue_locked(page, PageQueue.PAGER_BACKED_DIRTY)

    def move_to_unswappable(self, page: VmPage) -> None:
        """Undo ``move_to_wired`` for a page without a backlink. Locks: takes ``lock``.

        Kernel: ``PageQueues::MoveToUnswappable``.
        """
        with self.lock:
            self._move_to_queue_locked(page, PageQueue.UNSWAPPABLE)

    def move_to_wired(self, page: VmPage) -> None:
        """Keep ``page`` from eviction. Locks: takes ``lock``.

        Kernel: ``PageQueues::MoveToWired``.
        """
        with self.lock:
            self._move_to_queue_locked(page, PageQueue.WIRED)

    def mark_accessed(self, page: VmPage) -> None:
        """Let ``page`` be of the newest generation if it is evictable; its link stays behind.

        Locks: takes ``lock``, unlike the kernel, which swaps one byte.
        Kernel: ``PageQueues::MarkAccessed``.
        """
        with self.lock:
            if page.page_queue in (PageQueue.PAGER_BACKED, PageQueue.DONT_NEED):
                page.page_queue = PageQueue.PAGER_BACKED
                page.generation = self.mru_generation
                page.touch()
                self._maybe_trigger_aging_locked()

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
        self._link_locked(page, queue)

    @requires("lock")
    def _set_queue_backlink_locked(
        self, page: VmPage, cow: VmCowPages, offset: int, queue: PageQueue
    ) -> None:
        """Kernel: ``PageQueues::SetQueueBacklinkLocked``."""
        fit = _may_be_queued(page) and page.page_offset == 0
        kassert("a.pq.set", fit, page, "is queued on", queue, "for", cow)
        page.set_object(cow, offset)
        self._link_locked(page, queue)

    @requires("lock")
    def _move_to_queue_locked(self, page: VmPage, queue: PageQueue) -> None:
        """Kernel: ``PageQueues::MoveToQueueLocked``."""
        linked = page.queue_node is not None and page.page_queue is not PageQueue.NONE
        fit = linked and page.state.peek() is PageState.OBJECT
        kassert("a.pq.move", fit, page, "moves to", queue)
        self._unlink_locked(page)
        self._link_locked(page, queue)

    @requires("lock")
    def _remove_locked(self, page: VmPage) -> None:
        """Kernel: ``PageQueues::RemoveLocked``."""
        queued = page.page_queue is not PageQueue.NONE
        kassert("a.pq.remove", queued, page, "is on no page queue and leaves one")
        self._unlink_locked(page)
        page.page_queue = PageQueue.NONE
        page.clear_object()
        self._maybe_trigger_aging_locked()

    @requires("lock")
    def _link_locked(self, page: VmPage, queue: PageQueue) -> None:
        """Put an unlinked page at the head of ``queue``; an evictable one is just used."""
        page.page_queue = queue
        page.generation = self.mru_generation
        self._list_locked(page).add_head(page)
        self._maybe_trigger_aging_locked()

    @requires("lock")
    def _unlink_locked(self, page: VmPage) -> None:
        """Take a page from the list that it is on, which may not be that of its generation."""
        if page.queue_node is not None:
            page.queue_node.remove(page)

    @requires("lock")
    def _list_locked(self, page: VmPage) -> PageList:
        """The list that ``page`` belongs on."""
        if page.page_queue is PageQueue.PAGER_BACKED:
            return self._generations[page.generation % GENERATIONS]
        return self._queues[page.page_queue]

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

    # -- who goes next --------------------------------------------------------------------------

    def peek_pager_backed(self) -> VmoBacklink | None:
        """The least recently used evictable page, with a reference to its VMO if it lives.

        Locks: takes ``lock``.
        Kernel: ``PageQueues::PeekPagerBacked``.
        """
        with self.lock:
            page = self._least_recently_used_locked()
            if page is None:
                return None
            cow = page.get_object()
            if cow is not None and not cow.try_upgrade():
                cow = None
            return VmoBacklink(cow, page, page.page_offset)

    @requires("lock")
    def _least_recently_used_locked(self) -> VmPage | None:
        """The oldest evictable page; relinks the younger ones that it meets.

        Kernel: part of ``PageQueues::ProcessQueueHelper``.
        """
        oldest_first = range(self.lru_generation, self.mru_generation + 1)
        queues = [self._queues[PageQueue.DONT_NEED]]
        queues += [self._generations[number % GENERATIONS] for number in oldest_first]
        for queue in queues:
            while (page := queue.peek_tail()) is not None:
                if self._list_locked(page) is queue:
                    return page
                self._relink_locked(page)
        return None

    @requires("lock")
    def _relink_locked(self, page: VmPage) -> None:
        self._unlink_locked(page)
        self._list_locked(page).add_head(page)

    def rotate_pager_backed_queues(self) -> int:
        """Begin a new generation; where there would be too many, the oldest one is emptied before.

        Returns:
            How many pages the caller replaced by loaned ones on the way.

        Locks: none may be held; as ``process_dont_need_and_lru_queues``. Where there is an LRU
            thread, waits for that.
        Kernel: ``PageQueues::RotatePagerBackedQueues``.
        """
        replaced = 0
        while not self.threads.mru_semaphore.acquire(blocking=False):
            if self.threads.running:
                self.threads.wait_for_room()
                break
            replaced += self.process_dont_need_and_lru_queues()
        with self.lock:
            room = self.mru_generation - self.lru_generation < GENERATIONS - 1
            kassert("a.pq.rotate", room, "generation", self.lru_generation, "is not empty")
            self.mru_generation += 1
            self._world.oracle.at_rotate(self.mru_generation, self.lru_generation)
        return replaced

    def get_age_reason(self) -> AgeReason:
        """Whether a generation should begin now. Locks: takes ``lock``.

        Kernel: ``PageQueues::GetAgeReason``.
        """
        with self.lock:
            return self._get_age_reason_locked()

    @requires("lock")
    def _get_age_reason_locked(self) -> AgeReason:
        """Kernel: ``PageQueues::GetAgeReasonLocked``."""
        active, inactive = self._active_inactive_locked()
        many = active * self.active_ratio_multiplier > inactive
        return AgeReason.ACTIVE_RATIO if many else AgeReason.NONE

    @requires("lock")
    def _maybe_trigger_aging_locked(self) -> None:
        """Wake the MRU thread, if there is one and a reason.

        Kernel: ``PageQueues::MaybeTriggerAgingLocked``.
        """
        if self.threads.running and self._get_age_reason_locked() is not AgeReason.NONE:
            self.threads.aging_event.signal()

    def set_active_ratio_multiplier(self, multiplier: int) -> None:
        """See the attribute. Locks: takes ``lock``.

        Kernel: ``PageQueues::SetActiveRatioMultiplier``.
        """
        with self.lock:
            self.active_ratio_multiplier = multiplier
            self._maybe_trigger_aging_locked()

    def needs_lru_processing(self) -> bool:
        """Whether no generation can begin until the oldest one is empty. Locks: takes ``lock``.

        Kernel: ``PageQueues::NeedsLruProcessing``.
        """
        with self.lock:
            begun: int = self.mru_generation - self.lru_generation
            return begun == GENERATIONS - 1

    def process_dont_need_and_lru_queues(self) -> int:
        """Empty the oldest generation: what is unused grows older, what is in use is relinked.

        While there are pages to borrow, ordinary pages found in use are replaced by such: they are
        likely to stay, and an ordinary page is worth more.

        Returns:
            How many pages were replaced.

        Locks: none may be held; takes ``lock``, then one VMO lock after another.
        Kernel: ``PageQueues::ProcessDontNeedAndLruQueues``, ``PageQueues::ProcessQueueHelper``.
        """
        replaced = 0
        done = False
        while not done:
            deferred: list[VmoBacklink] = []
            with self.lock:
                done = self._process_queues_locked(deferred)
            # Not under the lock: the VMO's comes before it, and the last reference may be ours.
            for cow, page, offset in deferred:
                if cow is None:
                    continue
                # It may have moved or been pinned meanwhile: then it is not worth another look.
                status = replace_page(cow, page, offset, with_loaned=True)
                replaced += status is Status.OK
                cow.release()
        return replaced

    @requires("lock")
    def _process_queues_locked(self, deferred: list[VmoBacklink]) -> bool:
        """Go through the DontNeed queue and the oldest generation, unless that is the newest.

        Args:
            deferred: Receives pages to replace, with references to their VMOs.

        Returns:
            Whether all is done; otherwise ``deferred`` is full.

        Kernel: ``PageQueues::ProcessQueueHelper``.
        """
        queues = [self._queues[PageQueue.DONT_NEED]]
        if self.lru_generation < self.mru_generation:
            queues.append(self._generations[self.lru_generation % GENERATIONS])
        for queue in queues:
            for page in reversed(queue.pages()):
                if len(deferred) == DEFERRED_MAX:
                    return False
                if self._list_locked(page) is not queue:
                    self._defer_locked(page, deferred)
                elif page.page_queue is PageQueue.PAGER_BACKED:
                    page.generation += 1
                else:
                    continue
                self._relink_locked(page)
        if self.lru_generation < self.mru_generation:
            self.lru_generation += 1
            self.threads.mru_semaphore.release()
        return True

    @requires("lock")
    def _defer_locked(self, page: VmPage, deferred: list[VmoBacklink]) -> None:
        """Set a page in use aside for borrowing, if there is a point in it."""
        pmm, borrowing = self._world.pmm, self._world.borrowing
        # Both read without a lock, as a hint: whoever replaces looks again.
        if page.loaned or not pmm.has_free_loaned_pages():
            return
        if not borrowing.is_borrowing_on_mru_enabled():
            return
        cow = page.get_object()
        if cow is not None and cow.try_upgrade():
            deferred.append(VmoBacklink(cow, page, page.page_offset))

    # -- looking --------------------------------------------------------------------------------

    def queue_counts(self) -> dict[str, int]:
        """How many pages each queue has; evictable ones as active and inactive.

        Locks: takes ``lock``.
        Kernel: ``PageQueues::QueueCounts``, ``PageQueues::GetActiveInactiveCounts``.
        """
        with self.lock:
            counts = {f"{queue}": len(pages) for queue, pages in self._queues.items()}
            counts[f"{PageQueue.DONT_NEED}"] -= len(self._lagging_locked())
            counts["active"], counts["inactive"] = self._active_inactive_locked()
            return counts

    @requires("lock")
    def _lagging_locked(self) -> list[VmPage]:
        """Pages that were used since they were put on the DontNeed queue, and are on it still."""
        dont_need = self._queues[PageQueue.DONT_NEED].pages()
        return [page for page in dont_need if page.page_queue is PageQueue.PAGER_BACKED]

    @requires("lock")
    def _active_inactive_locked(self) -> tuple[int, int]:
        """How many evictable pages count as in use, and how many do not.

        Kernel: ``PageQueues::GetActiveInactiveCounts``.
        """
        pages = [page for queue in self._generations for page in queue.pages()]
        pages += self._lagging_locked()
        oldest_active = self.mru_generation - ACTIVE_GENERATIONS
        active = sum(page.generation > oldest_active for page in pages)
        return active, len(pages) - active

    def dump(self) -> list[str]:
        """One line. Locks: takes ``lock``. Kernel: ``PageQueues::Dump``."""
        with self.lock:
            head = f"page_queues MRU generation {self.mru_generation} LRU {self.lru_generation}"
        return [" ".join([head, *(f"{name} {n}" for name, n in self.queue_counts().items())])]

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
