"""``WaitQueue``: the bare sleeping place that kernel objects are made of, with an owner."""

from __future__ import annotations

import enum
from collections.abc import Sequence

from harness.engine.core import CORE
from harness.engine.thread import Thread, refuse_nan
from harness.errors import UsageError
from harness.sync.base import Primitive, outcome, point
from harness.sync.mutex import Lock


class WaitResult(enum.Enum):
    """How a wait ended."""

    WOKEN = "woken"
    TIMED_OUT = "timed-out"
    INTERRUPTED = "interrupted"


class WaitQueue(Primitive):
    """Threads asleep until somebody wakes them; nothing is latched.

    Mirrors the kernel's ``OwnedWaitQueue``: with an owner, waiters lend it their priority
    (``Thread.effective_priority``, through chains of owners), and every wait-for graph has an edge
    from each waiter to the owner. Wakes the most urgent first, of equals the longest waiting.
    """

    __slots__ = ("_asleep", "owner")

    def __init__(self, name: str | None = None) -> None:
        """Make an empty queue without an owner."""
        super().__init__(name)
        self.owner: Thread | None = None
        # In the order of falling asleep, with the lock each wants back.
        self._asleep: list[tuple[Thread, Lock | None]] = []

    @property
    def waiters(self) -> tuple[Thread, ...]:
        """Threads asleep, longest waiting first; no schedule point."""
        return tuple(thread for thread, _ in self._asleep)

    def block(
        self,
        timeout: float | None = None,
        interruptible: bool = False,
        *,
        releasing: Lock | None = None,
    ) -> WaitResult:
        """Fall asleep (one step) until woken (another).

        Args:
            timeout: Seconds of virtual time; None waits for ever.
            interruptible: ``Thread.interrupt`` ends the wait.
            releasing: A lock that the caller holds: given up in the step that falls asleep, so that
                a waker who holds it cannot come in between, and taken back before this returns.

        Raises:
            UsageError: ``releasing`` is not held by the caller.
        """
        core = CORE
        me = core.cur
        if releasing is not None and releasing.owner is not me:
            raise UsageError(f"block(releasing={releasing!r}): {me.name} does not hold that lock")
        if timeout is not None:
            refuse_nan(timeout)
        me.kind = "queue-block"
        me.obj = self
        me.releasing = releasing
        core.waiting(me, "queue-block", releasing)
        chosen = core.choose()
        if chosen is not me:
            core.preempt(me, chosen)
        me.released = False
        if interruptible and me.interrupted:
            me.interrupted = False
            outcome(WaitResult.INTERRUPTED)
            return WaitResult.INTERRUPTED
        if releasing is not None:
            releasing.give_up(me)
        self._sleep(me, timeout, interruptible, releasing)
        result = self._result(me, interruptible)
        if releasing is not None:
            releasing.take_back(me)
        outcome(result)
        return result

    def _sleep(
        self, me: Thread, timeout: float | None, interruptible: bool, lock: Lock | None
    ) -> None:
        self._asleep.append((me, lock))
        me.interruptible = interruptible
        try:
            CORE.block(me, timeout)
        finally:
            me.interruptible = False
            if (me, lock) in self._asleep:
                self._asleep.remove((me, lock))
            if lock is not None and me in lock.wanters:
                lock.wanters.remove(me)

    def _result(self, me: Thread, interruptible: bool) -> WaitResult:
        if me.released:
            return WaitResult.WOKEN
        if interruptible and me.interrupted:
            me.interrupted = False
            return WaitResult.INTERRUPTED
        return WaitResult.TIMED_OUT

    def wake(self, n: int = 1) -> int:
        """Wake up to ``n`` threads; one step.

        Returns:
            How many were asleep and woke.
        """
        point("queue-wake", self)
        return self._wake(n)

    def wake_all(self) -> int:
        """Wake every thread asleep; one step. Returns how many."""
        point("queue-wake", self)
        return self._wake(len(self._asleep))

    def _wake(self, n: int) -> int:
        order = sorted(self._asleep, key=lambda entry: -entry[0].effective_priority)
        for thread, _ in order[:n]:
            thread.released = True
            CORE.cancel(thread)
            self._leave(thread)
        woken = min(n, len(order))
        outcome(woken)
        return woken

    def expire(self, thread: Thread) -> None:
        """See ``Primitive.expire``."""
        self._leave(thread)

    def _leave(self, thread: Thread) -> None:
        """``thread`` sleeps no more: it goes on, or wants its lock back first."""
        for entry in self._asleep:
            if entry[0] is thread:
                self._asleep.remove(entry)
                if entry[1] is None:
                    thread.excused = True
                    CORE.enable(thread)
                else:
                    thread.interruptible = False
                    CORE.cancel(thread)
                    entry[1].want_back(thread)
                return

    def assign_owner(self, thread: Thread | None) -> None:
        """Name the thread that the waiters wait for; None for nobody. One step.

        Raises:
            ScheduleAborted: A cycle of waits closed; the deadlock is recorded.
        """
        point("queue-assign", self)
        if self.owner is not None:
            self.owner.owned.remove(self)
        self.owner = thread
        if thread is not None:
            thread.owned.append(self)
        for waiter in self.waiters:
            CORE.look_for_cycle(waiter)

    def blockers(self, waiter: Thread) -> Sequence[Thread]:
        """The owner."""
        return () if self.owner is None else (self.owner,)
