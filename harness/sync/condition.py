"""Waiting for others: ``Condition``, ``Event``, ``Semaphore``, ``Barrier``, as in ``threading``."""

from __future__ import annotations

from collections.abc import Callable
from threading import BrokenBarrierError
from types import TracebackType
from typing import Any, TypeVar

from harness.engine.core import CORE
from harness.engine.thread import Thread, refuse_nan
from harness.errors import ScheduleAborted, UsageError
from harness.sync.base import Primitive, failing, now, outcome, point
from harness.sync.mutex import Lock, Mutex

T = TypeVar("T")


class Condition(Primitive):
    """A condition variable over a ``Mutex``; wakes in the order of waiting, as CPython does.

    A wait is two steps: giving the mutex up (with going to sleep), and taking it back.
    """

    __slots__ = ("mutex", "waiters")

    def __init__(self, mutex: Lock | None = None, name: str | None = None) -> None:
        """Args: mutex: The lock to wait under; None makes one.

        Raises:
            UsageError: ``mutex`` is no lock of the harness.
        """
        super().__init__(name)
        if mutex is not None and not isinstance(mutex, Lock):
            raise UsageError(f"a Condition waits under a lock of the harness, got {mutex!r}")
        self.mutex = Mutex() if mutex is None else mutex
        self.waiters: list[Thread] = []

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take the mutex; see ``Mutex.acquire``."""
        return self.mutex.acquire(blocking, timeout)

    def release(self) -> None:
        """Release the mutex."""
        self.mutex.release()

    def __enter__(self) -> bool:
        """Take the mutex."""
        return self.mutex.acquire()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Release the mutex."""
        self.mutex.__exit__(kind, error, traceback)

    def wait(self, timeout: float | None = None) -> bool:
        """Give the mutex up and sleep until notified; then take it back.

        Args:
            timeout: Seconds of virtual time; None waits for ever.

        Returns:
            False if the time ran out.

        Raises:
            RuntimeError: The calling thread does not hold the mutex.
        """
        core = CORE
        me = core.cur
        me.kind = "wait"
        me.obj = self
        mutex = self.mutex
        if mutex.owner is not me:
            raise RuntimeError("cannot wait on un-acquired lock")
        if timeout is not None:
            refuse_nan(timeout)
        core.waiting(me, "wait", mutex)
        chosen = core.choose()
        if chosen is not me:
            core.preempt(me, chosen)
        me.released = False
        mutex.give_up(me)
        self.waiters.append(me)
        try:
            core.block(me, timeout)
        finally:
            if me in self.waiters:
                self.waiters.remove(me)
            if me in mutex.wanters:
                mutex.wanters.remove(me)
        notified = me.released
        mutex.take_back(me)
        outcome(notified)
        return notified

    def wait_for(self, predicate: Callable[[], T], timeout: float | None = None) -> T:
        """Wait until ``predicate()`` is true; returns its last value."""
        deadline = None if timeout is None else now() + timeout
        result = predicate()
        while not result:
            left = None if deadline is None else deadline - now()
            if left is not None and left <= 0:
                break
            self.wait(left)
            result = predicate()
        return result

    def notify(self, n: int = 1) -> None:
        """Wake the ``n`` threads that have waited longest; one step.

        Raises:
            RuntimeError: The calling thread does not hold the mutex.
        """
        core = CORE
        me = core.cur
        me.kind = "notify"
        me.obj = self
        if self.mutex.owner is not me:
            raise RuntimeError("cannot notify on un-acquired lock")
        point("notify", self)
        for waiter in self.waiters[:n]:
            waiter.released = True
            core.cancel(waiter)
            self._send_back(waiter)

    def notify_all(self) -> None:
        """Wake all that wait; one step."""
        self.notify(len(CORE.threads))

    def expire(self, thread: Thread) -> None:
        """The time of ``thread`` ran out: it wants the mutex back like anybody who was notified."""
        self._send_back(thread)

    def _send_back(self, waiter: Thread) -> None:
        self.waiters.remove(waiter)
        self.mutex.want_back(waiter)

    def reset(self) -> None:
        """See ``Primitive.reset``."""
        self.waiters.clear()


class Event(Primitive):
    """A flag to wait for.

    With ``auto_unsignal`` it mirrors the kernel's ``AutounsignalEvent``: one waiter consumes a
    signal. A waiter that was asleep when ``set`` came is woken for good, even if ``clear`` follows
    before it runs, as in ``threading``.
    """

    __slots__ = ("_auto", "_set")

    def __init__(self, name: str | None = None, *, auto_unsignal: bool = False) -> None:
        """Make a clear event."""
        super().__init__(name)
        self._auto = auto_unsignal
        self._set = False

    @property
    def auto_unsignal(self) -> bool:
        """Whether one waiter consumes a signal."""
        return self._auto

    def set(self) -> None:
        """Wake the waiters (with ``auto_unsignal`` the first), or latch; one step."""
        point("event-set", self)
        core = CORE
        asleep = [w for w in self.wanters if not w.released and (not w.enabled or w.early)]
        if self._auto:
            asleep = asleep[:1]
            self._set = self._set or not asleep
        else:
            self._set = True
        for waiter in asleep:
            waiter.released = True
            core.cancel(waiter)
            core.enable(waiter)

    def clear(self) -> None:
        """Take the flag down; one step."""
        point("event-clear", self)
        self._lower()

    def _lower(self) -> None:
        self._set = False
        for waiter in self.wanters:
            if not waiter.released:
                CORE.disable(waiter)

    def is_set(self) -> bool:
        """Read the flag; one step."""
        point("event-is-set", self)
        outcome(self._set)
        return self._set

    def peek(self) -> bool:
        """Read the flag without a schedule point, for invariants and dumps."""
        return self._set

    def wait(self, timeout: float | None = None, *, interruptible: bool = False) -> bool:
        """Wait until the event is set; one step.

        Args:
            timeout: Seconds of virtual time; None waits for ever.
            interruptible: ``Thread.interrupt`` ends the wait.

        Returns:
            False if the time ran out or the thread was interrupted.
        """
        if timeout is not None:
            refuse_nan(timeout)
        core = CORE
        me = core.cur
        me.kind = "event-wait"
        me.obj = self
        me.released = me.excused = False
        stopped = interruptible and me.interrupted
        if not self._set and not stopped:
            core.waiting(me, "event-wait")
        self.wanters.append(me)
        me.interruptible = interruptible
        try:
            if stopped:
                me.excused = True
            if self._set or stopped:
                self._wait_turn(me, timeout)
            else:
                core.block(me, timeout)
        finally:
            me.interruptible = False
            self.wanters.remove(me)
        signalled = me.released or self._set
        if signalled and not me.released and self._auto:
            self._lower()
        if not signalled and interruptible:
            me.interrupted = False
        outcome(signalled)
        return signalled

    def _wait_turn(self, me: Thread, timeout: float | None) -> None:
        """The event is set (or the wait was interrupted already); it may be cleared meanwhile."""
        core = CORE
        if timeout is not None:
            core.arm(me, timeout)
        try:
            chosen = core.choose()
            if chosen is not me:
                core.preempt(me, chosen)
        finally:
            core.disarm(me)

    def reset(self) -> None:
        """See ``Primitive.reset``."""
        self.wanters.clear()


class Semaphore(Primitive):
    """A counter that ``acquire`` takes from, waiting while it is 0. Wakes nobody in particular."""

    __slots__ = ("_value",)

    def __init__(self, value: int = 1, name: str | None = None) -> None:
        """Args: value: What it starts at.

        Raises:
            ValueError: ``value`` is negative.
        """
        if value < 0:
            raise ValueError("semaphore initial value must be >= 0")
        super().__init__(name)
        self._value = value

    def acquire(self, blocking: bool = True, timeout: float | None = None) -> bool:
        """Take one, waiting until there is one; one step.

        Returns:
            Whether one was taken; always True for ``acquire()``.

        Raises:
            ValueError: A timeout with a non-blocking call.
        """
        if not blocking and timeout is not None:
            raise ValueError("can't specify timeout for non-blocking acquire")
        if timeout is not None:
            refuse_nan(timeout)
        core = CORE
        me = core.cur
        me.kind = "sem-acquire"
        me.obj = self
        me.excused = not blocking
        if blocking and self._value == 0:
            core.waiting(me, "sem-acquire")
        self.wanters.append(me)
        try:
            if self._value > 0 or not blocking:
                if timeout is not None:
                    core.arm(me, timeout)
                chosen = core.choose()
                if chosen is not me:
                    core.preempt(me, chosen)
            else:
                core.block(me, timeout)
        finally:
            self.wanters.remove(me)
            core.disarm(me)
        taken = self._value > 0
        if taken:
            self._value -= 1
            if self._value == 0:
                for waiter in self.wanters:
                    core.disable(waiter)
        outcome(taken)
        return taken

    def __enter__(self) -> bool:
        """Take one."""
        return self.acquire()

    def __exit__(self, kind: type[BaseException] | None, *_exc: object) -> None:
        """Give one back."""
        if failing(kind):
            self._put(1)
        else:
            self.release()

    def release(self, n: int = 1) -> None:
        """Give ``n`` back; one step.

        Raises:
            ValueError: ``n`` is less than 1.
        """
        if n < 1:
            raise ValueError("n must be one or more")
        point("sem-release", self)
        self._put(n)

    def _put(self, n: int) -> None:
        self._value += n
        CORE.enable_all(self.wanters)

    def peek(self) -> int:
        """The count, without a schedule point: for invariants and dumps."""
        return self._value


class _Generation:
    """One round of a barrier: those who arrived, and how it ended."""

    __slots__ = ("arrived", "state")

    def __init__(self) -> None:
        self.arrived = 0
        self.state = "filling"


class Barrier(Primitive):
    """Holds threads until ``parties`` of them have come; arriving and leaving are one step each."""

    __slots__ = ("_action", "_generation", "parties")

    def __init__(
        self, parties: int, name: str | None = None, *, action: Callable[[], Any] | None = None
    ) -> None:
        """Make an empty barrier.

        Args:
            parties: How many threads make a round; at least 1.
            name: Shown in traces.
            action: Called by the last thread to arrive, before any leaves.

        Raises:
            ValueError: ``parties`` is less than 1.
        """
        if parties < 1:
            raise ValueError("parties must be > 0")
        super().__init__(name)
        self.parties = parties
        self._action = action
        self._generation = _Generation()

    @property
    def n_waiting(self) -> int:
        """How many have arrived in this round; no schedule point."""
        return self._generation.arrived if self._generation.state == "filling" else 0

    @property
    def broken(self) -> bool:
        """Whether the barrier is broken; no schedule point."""
        return self._generation.state == "broken"

    def wait(self, timeout: float | None = None) -> int:
        """Arrive, wait for the others, leave.

        Returns:
            The order of arrival in this round, from 0.

        Raises:
            BrokenBarrierError: The barrier is or was broken: a timeout, ``abort`` or ``reset``.
        """
        if timeout is not None:
            refuse_nan(timeout)
        core = CORE
        me = point("barrier-arrive", self)
        generation = self._generation
        if generation.state == "broken":
            raise BrokenBarrierError
        index = generation.arrived
        generation.arrived += 1
        if generation.arrived == self.parties:
            self._trip(generation)
        me.kind = "barrier-leave"
        me.obj = self
        if generation.state == "filling":
            core.waiting(me, "barrier")
            self._stay(me, generation, timeout)
        else:
            chosen = core.choose()
            if chosen is not me:
                core.preempt(me, chosen)
        if generation.state == "filling":
            self._break(generation)
        if generation.state == "broken":
            raise BrokenBarrierError
        outcome(index)
        return index

    def _stay(self, me: Thread, generation: _Generation, timeout: float | None) -> None:
        self.wanters.append(me)
        try:
            CORE.block(me, timeout)
        except ScheduleAborted:
            # The barrier may outlive the schedule; a thread that is gone has no place in it.
            generation.arrived -= 1
            raise
        finally:
            self.wanters.remove(me)

    def _trip(self, generation: _Generation) -> None:
        try:
            if self._action is not None:
                self._action()
        except BaseException:
            self._break(generation)
            raise
        generation.state = "tripped"
        self._generation = _Generation()
        self._let_go()

    def _break(self, generation: _Generation) -> None:
        generation.state = "broken"
        self._let_go()

    def _let_go(self) -> None:
        for waiter in self.wanters:
            CORE.cancel(waiter)
            CORE.enable(waiter)

    def abort(self) -> None:
        """Break the barrier: who waits or comes gets ``BrokenBarrierError``; one step."""
        point("barrier-abort", self)
        self._break(self._generation)

    def reset(self) -> None:
        """Start over; whoever waits gets ``BrokenBarrierError``. One step within a schedule."""
        point("barrier-reset", self)
        if self._generation.arrived:
            self._break(self._generation)
        self._generation = _Generation()


__all__ = ["Barrier", "BrokenBarrierError", "Condition", "Event", "Semaphore"]
