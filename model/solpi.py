"""Stack-owned intervals: how a reclaimer waits for a page that is in some thread's hands.

While a loaned page is neither FREE nor in a VMO, its word points to an object on the stack of the
thread that holds it. A reclaimer that meets such a page marks it, then sleeps on that object's wait
queue, lending the owner its priority, until the interval ends. The handshake in five steps:

1. The waiter, under the thread lock, sets the waiter bit in the page's word.
2. If it was the first, it readies the interval's queue: the owner will look there.
3. It sleeps, which gives the thread lock up in the same instant.
4. The owner, on clearing the word, sees the bit and takes the thread lock: not before step 3.
5. So when the owner ends its interval and looks for a ready queue, the waiter is in it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Self

from harness.sync import Atomic, WaitQueue, WaitResult, assert_no_locks_held, current_thread
from model.asserts import kassert
from model.refs import Mortal

if TYPE_CHECKING:
    from types import TracebackType

    from harness.sync import Thread
    from model.page import VmPage
    from model.world import World

# Key of the outermost interval in ``Thread.local``.
_CURRENT: Final = "stack_owned_loaned_pages_interval"
# The kernel's debugging aid: a blocked waiter looks up once per second and says so.
BLOCK_SECONDS: Final = 1.0


class StackOwnedLoanedPagesInterval(Mortal):
    """A span of one thread's execution that may own loaned pages; a context manager.

    Nested intervals of one thread do nothing: the outermost wins.

    Attributes:
        owning_thread: The thread on whose stack this lies; None for an inner interval.
        pages: For the invariants only: every page that this interval ever owned.
        alive: False once ended: the stack frame is gone.

    Kernel: ``StackOwnedLoanedPagesInterval``. Omits: the canary.
    """

    invariant = "I24"

    def __init__(self, world: World) -> None:
        """Open the interval unless the thread has one. No lock, no schedule point."""
        thread = current_thread()
        super().__init__(f"interval within {thread.name}'s")
        self._world = world
        self.pages: list[VmPage] = []
        self.owning_thread: Thread | None = None
        self.owned_wait_queue: WaitQueue | None = None
        if thread.local.get(_CURRENT) is not None:
            return
        self.name = world.name("interval")
        self.is_ready_for_waiter = Atomic(False, f"{self.name}.ready")
        self.owning_thread = thread
        thread.local[_CURRENT] = self

    def __repr__(self) -> str:
        """Name and owner, for messages and traces."""
        owner = self.owning_thread
        return self.name if owner is None else f"{self.name} of {owner.name}"

    def __enter__(self) -> Self:
        """The interval began with its construction."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End the interval; where the thread is being unwound, only forget it."""
        if kind is None:
            self._end()
        elif self.owning_thread is not None:
            self.owning_thread.local[_CURRENT] = None

    def _end(self) -> None:
        """Wake everybody who waited for a page of this interval.

        Locks: takes the thread lock, only where somebody waits.
        Kernel: ``~StackOwnedLoanedPagesInterval``.
        """
        if self.owning_thread is None:
            return
        me = current_thread()
        kassert("a.solpi.owner", self.owning_thread is me, self, "ends in thread", me.name)
        current = me.local.get(_CURRENT)
        kassert("a.solpi.owner", current is self, self, "ends while", current, "is outermost")
        self._world.oracle.at_interval_end(self)
        # First: whoever takes a page from here on must find no interval.
        me.local[_CURRENT] = None
        if self.is_ready_for_waiter.load():
            self._wake_waiters_and_clear_owner()
        self.die()

    @staticmethod
    def current_or_none() -> StackOwnedLoanedPagesInterval | None:
        """The calling thread's outermost interval.

        Kernel: ``StackOwnedLoanedPagesInterval::current_or_null``.
        """
        return current_interval()

    def _prepare_for_waiter(self) -> None:
        """Ready the wait queue and let the owner inherit its waiters' priority.

        Locks: thread lock held.
        Kernel: ``StackOwnedLoanedPagesInterval::PrepareForWaiter``.
        """
        me = current_thread()
        kassert("a.solpi.not_self", self.owning_thread is not me, me.name, "waits for itself")
        if self.is_ready_for_waiter.load():
            return
        self.owned_wait_queue = WaitQueue(f"{self.name}.waiters")
        self.owned_wait_queue.assign_owner(self.owning_thread)
        self.is_ready_for_waiter.store(True)

    def _wake_waiters_and_clear_owner(self) -> None:
        """Wake every waiter; the owner's priority relaxes.

        Locks: takes the thread lock.
        Kernel: ``StackOwnedLoanedPagesInterval::WakeWaitersAndClearOwner``.
        """
        with self._world.thread_lock:
            queue = self.owned_wait_queue
            owner = None if queue is None else queue.owner
            mine = queue is not None and owner is current_thread()
            kassert("a.solpi.wake_owner", mine, "the queue of", self, "is owned by", owner)
            if queue is not None:
                queue.wake_all()
                queue.assign_owner(None)
            self._world.oracle.after_wake(self)

    @staticmethod
    def wait_until_contiguous_page_not_stack_owned(world: World, page: VmPage) -> None:
        """Sleep until the interval that owns ``page`` has ended; at once if none does.

        The caller knows nothing afterwards but that: it must look at the page again. As upstream
        does later, it sleeps without a deadline (defect L4: it looks up now and then).

        Locks: none may be held, since the owner may need any of them; takes the thread lock.
        Kernel: ``StackOwnedLoanedPagesInterval::WaitUntilContiguousPageNotStackOwned``.
        """
        assert_no_locks_held("wait for a stack-owned page")
        if not page.is_stack_owned():
            return
        with world.thread_lock:
            owner = page.try_set_has_waiter()
            if owner is None:
                return
            interval, first_setter = owner
            if first_setter:
                interval._prepare_for_waiter()
            ready = interval.is_ready_for_waiter.peek()
            kassert("a.solpi.ready", ready, interval, "has a waiter and no queue")
            # Upstream dropped the timed block: whoever times out leaves the queue, and the interval
            # may end before he is back in it.
            seconds = BLOCK_SECONDS if "L4" in world.defects else None
            while True:
                queue = interval.owned_wait_queue
                world.oracle.at_sleep(interval, page)
                if queue is None:
                    return
                if seconds is not None and world.faults.hit("timer", "interval"):
                    # Asleep for no time at all: in the queue, and out of it again.
                    world.thread_lock.release()
                    world.thread_lock.acquire()
                    continue
                result = queue.block(seconds, releasing=world.thread_lock)
                if result is not WaitResult.TIMED_OUT:
                    break


def current_interval() -> StackOwnedLoanedPagesInterval | None:
    """The calling thread's outermost interval; no schedule point."""
    found: StackOwnedLoanedPagesInterval | None = current_thread().local.get(_CURRENT)
    return found


def interval_of(thread: Thread) -> StackOwnedLoanedPagesInterval | None:
    """For the invariants only: the outermost interval of ``thread``."""
    found: StackOwnedLoanedPagesInterval | None = thread.local.get(_CURRENT)
    return found
