"""Locks with one owner: ``Mutex``, and ``SpinLock``, under which nothing may block."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, ClassVar

from harness.engine.core import CORE
from harness.engine.finding import place
from harness.engine.thread import Thread, called, refuse_nan
from harness.errors import UsageError
from harness.lockorder.classes import LockClass, LockFlags, classed
from harness.lockorder.rules import HeldLocks
from harness.sync.base import Primitive, failing, outcome, point

Check = Callable[[], object]


class Lock(Primitive):
    """What both locks have in common; not reentrant, and only its owner releases it.

    Attributes:
        owner: The thread that holds it, or None; reading it is no schedule point.
        lock_class: Its class for the lock rules; None is watched for deadlock only.
        order: Nesting order of this instance, for a NESTABLE class.
        checks: ``(name, predicate)`` evaluated at each release, before others can have the lock.
        plain: Neither lock rules nor an invariant look at it.
    """

    __slots__ = ("checks", "lock_class", "order", "owner", "plain")

    kinds: ClassVar[tuple[str, str, str]] = ("acquire", "try-acquire", "release")

    def __init__(
        self,
        name: str | None = None,
        lock_class: LockClass | None = None,
        *,
        invariant: Check | None = None,
        order: int = 0,
    ) -> None:
        """Make an unowned lock.

        Args:
            name: Shown in traces; defaults to the lock class's name.
            lock_class: Judged by the lock rules; None exempts this lock from them.
            invariant: Of what this lock protects; checked at every release. Returns False, or
                raises AssertionError with the values, when broken.
            order: See the attribute; ``acquire(order=...)`` overrides it.

        Raises:
            UsageError: One of them is something else.
        """
        classed(lock_class)
        super().__init__(name if name is not None or lock_class is None else lock_class.name)
        self.owner: Thread | None = None
        self.lock_class = lock_class
        self.order = order
        self.plain = lock_class is None and not self.spins
        self.checks: list[tuple[str, Check]] = []
        if invariant is not None:
            if not callable(invariant):
                raise UsageError(f"the invariant of a lock is a function, got {invariant!r}")
            self.check((called(invariant), invariant))

    def check(self, named: tuple[str, Check]) -> None:
        """Evaluate one more invariant at every release."""
        self.checks.append(named)
        self.plain = False

    def acquire(
        self, blocking: bool = True, timeout: float = -1, *, order: int | None = None
    ) -> bool:
        """Take the lock, waiting until it is free; one step.

        Args:
            blocking: False tries once.
            timeout: Seconds of virtual time; -1 waits for ever.
            order: Nesting order of this acquisition, for a NESTABLE class.

        Returns:
            Whether the lock was taken; always True for ``acquire()``.

        Raises:
            ValueError: A timeout with a non-blocking call, or a negative one.

        Locks: a thread that already holds this lock waits for itself: a deadlock finding.
        """
        core = CORE
        me = core.cur
        if blocking is not True or timeout != -1:
            return self._attempt(me, blocking, timeout, order)
        if core.steps < core.lease and self.plain and self.owner is None and not me.spins:
            core.steps += 1
        else:
            me.kind = "acquire"
            me.obj = self
            if me.spins and not self.spins:
                core.under_spin(me, "acquire")
            if self.lock_class is not None:
                self.judge(me, order, attempt=False)
            if self.owner is not None:
                self.wanters.append(me)
                try:
                    core.block(me)
                finally:
                    self.wanters.remove(me)
            elif core.steps < core.lease:
                core.steps += 1
            else:
                chosen = core.choose()
                if chosen is not me:
                    me.excused = False
                    self.wanters.append(me)
                    try:
                        core.preempt(me, chosen)
                    finally:
                        self.wanters.remove(me)
        self.owner = me
        if self.wanters:
            core.disable_all(self.wanters)
        me.held.append(self)
        return True

    __enter__ = acquire

    def _attempt(self, me: Thread, blocking: bool, timeout: float, order: int | None) -> bool:
        """``acquire`` with a limit: try once, or wait for some virtual time."""
        core = CORE
        if not blocking and timeout != -1:
            raise ValueError("can't specify a timeout for a non-blocking call")
        if timeout != -1 and timeout < 0:
            raise ValueError("timeout value must be a non-negative number")
        refuse_nan(timeout)
        me.kind = "acquire" if blocking else "try-acquire"
        me.obj = self
        if blocking and timeout == -1:
            return self.acquire(order=order)
        if blocking and me.spins and not self.spins:
            core.under_spin(me, "acquire")
        if not blocking:
            chosen = core.choose()
            if chosen is not me:
                core.preempt(me, chosen)
        elif self.owner is None:
            self._wait_turn(me, timeout)
        else:
            self.wanters.append(me)
            try:
                core.block(me, timeout)
            finally:
                self.wanters.remove(me)
        taken = self.owner is None
        if taken:
            if self.lock_class is not None:
                self.judge(me, order, attempt=True)
            self.take(me)
        outcome(taken)
        return taken

    def _wait_turn(self, me: Thread, timeout: float) -> None:
        """Before a limited acquire of a free lock; others may take it meanwhile."""
        core = CORE
        me.excused = False
        # Before the choice: who looks at the announced operations sees that it has a limit.
        core.arm(me, timeout)
        self.wanters.append(me)
        try:
            chosen = core.choose()
            if chosen is not me:
                core.preempt(me, chosen)
        finally:
            self.wanters.remove(me)
            core.disarm(me)

    def want_back(self, waiter: Thread) -> None:
        """``waiter``, parked, has been woken and needs this lock before it can go on."""
        waiter.kind = "re-acquire"
        waiter.obj = self
        self.wanters.append(waiter)
        if self.owner is None:
            CORE.enable(waiter)

    def take_back(self, me: Thread) -> None:
        """After a wait: wait until the lock is free if need be, and take it.

        Part of the step that ended the wait where the lock is free; a step of its own where that
        step fired a timeout early, since others may act between the timer and the lock.
        """
        core = CORE
        if self.owner is not None or me.excused:
            me.kind = "re-acquire"
            me.obj = self
            self.wanters.append(me)
            try:
                if self.owner is not None:
                    core.block(me)
                else:
                    me.excused = False
                    chosen = core.choose()
                    if chosen is not me:
                        core.preempt(me, chosen)
            finally:
                self.wanters.remove(me)
        if self.lock_class is not None:
            self.judge(me, None, attempt=False)
        self.take(me)

    def take(self, me: Thread) -> None:
        """Become the owner; the lock is free. Wanters cannot run any more."""
        self.owner = me
        if self.wanters:
            CORE.disable_all(self.wanters)
        me.held.append(self)

    def release(self) -> None:
        """Give the lock up; one step. Its invariant is checked first, without a schedule point.

        Raises:
            RuntimeError: The calling thread does not hold it.
        """
        core = CORE
        me = core.cur
        if self.owner is not me:
            self._not_mine(me)
            return
        if core.steps < core.lease:
            core.steps += 1
        else:
            me.kind = "release"
            me.obj = self
            chosen = core.choose()
            if chosen is not me:
                core.preempt(me, chosen)
        if not self.plain:
            self.give_up(me)
            return
        # ``give_up``, written out: most locks have neither rules nor an invariant.
        self.owner = None
        me.held.remove(self)
        if self.wanters:
            core.enable_all(self.wanters)

    def give_up(self, me: Thread, broken_off: bool = False) -> None:
        """The effect of a release, within the current step.

        Args:
            me: The owner.
            broken_off: By an exception: what the lock protects may be half-way there, and its
                invariant would only hide the exception.
        """
        core = CORE
        if self.checks and not broken_off and not core.aborting:
            core.examine(self.checks)
        self.owner = None
        me.held.remove(self)
        if self.wanters:
            core.enable_all(self.wanters)
        if self.lock_class is not None and me.locks is not None:
            core.rules.released(me.locks, self.address)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        """Release; a failed assertion on its way out makes that no step (see ``failing``)."""
        if kind is None:
            self.release()
            return
        me = CORE.cur
        if self.owner is not me:
            self._not_mine(me)
            return
        if not failing(kind):
            point("release", self)
        self.give_up(me, broken_off=True)

    def locked(self) -> bool:
        """Whether somebody holds it; one step, since what it sees may change at any other."""
        point("locked", self)
        outcome(self.owner is not None)
        return self.owner is not None

    def blockers(self, waiter: Thread) -> Sequence[Thread]:
        """The owner."""
        return () if self.owner is None else (self.owner,)

    def reset(self) -> None:
        """See ``Primitive.reset``."""
        self.owner = None
        self.wanters.clear()

    def judge(self, me: Thread, order: int | None, *, attempt: bool) -> None:
        """Put this acquisition before the lock rules."""
        core = CORE
        held = me.locks
        if held is None:
            held = me.locks = HeldLocks(me.name)
        lock_class: Any = self.lock_class
        finding = core.rules.acquired(
            held,
            lock_class,
            self.address,
            self.order if order is None else order,
            "exclusive",
            attempt,
            place(),
        )
        if finding is not None and not core.aborting:
            core.violated("lock-order", finding.rule, finding.message, order=finding)

    def _not_mine(self, me: Thread) -> None:
        """A release without ownership; while unwinding, the natural end of a broken wait."""
        if CORE.aborting:
            return
        who = "nobody" if self.owner is None else self.owner.name
        raise RuntimeError(f"release of {CORE.label(self)} by {me.name}, but it is held by {who}")


class Mutex(Lock):
    """A mutual exclusion lock that blocks; the kernel's ``Mutex`` behind ``DECLARE_MUTEX``."""

    __slots__ = ()


class SpinLock(Lock):
    """A lock under which nothing may block: not a ``Mutex``, not a wait, not a join.

    Mirrors the kernel's ``SpinLock``. Blocking while it is held is a ``lock-order`` finding.
    """

    __slots__ = ()

    spins = True

    def acquire(
        self, blocking: bool = True, timeout: float = -1, *, order: int | None = None
    ) -> bool:
        """As ``Mutex.acquire``."""
        if blocking is not True or timeout != -1:
            return self._attempt(CORE.cur, blocking, timeout, order)
        Lock.acquire(self, order=order)
        CORE.cur.spins += 1
        return True

    __enter__ = acquire

    def take(self, me: Thread) -> None:
        """See ``Lock.take``."""
        Lock.take(self, me)
        me.spins += 1

    def give_up(self, me: Thread, broken_off: bool = False) -> None:
        """See ``Lock.give_up``."""
        me.spins -= 1
        Lock.give_up(self, me, broken_off=broken_off)


class _Several:
    """What ``acquire_all`` returns: releases in the reverse order when the block ends."""

    __slots__ = ("_locks",)

    def __init__(self, locks: list[Lock]) -> None:
        self._locks = locks

    def __enter__(self) -> None:
        for taken, lock in enumerate(self._locks):
            try:
                lock.acquire(order=lock.address)
            except BaseException:
                for other in reversed(self._locks[:taken]):
                    other.release()
                raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for lock in reversed(self._locks):
            lock.__exit__(kind, error, traceback)


def acquire_all(*locks: Lock) -> _Several:
    """Take several locks of a MULTI_ACQUIRE class, in the order of their creation.

    Mirrors the kernel's ``GuardMultiple``, which goes by address. Use it in a ``with`` statement.

    Raises:
        UsageError: No lock, the same one twice, or a lock whose class is not MULTI_ACQUIRE.
    """
    if not locks:
        raise UsageError("acquire_all() needs at least one lock")
    for lock in locks:
        if not isinstance(lock, Lock):
            raise UsageError(f"acquire_all() takes locks of the harness, got {lock!r}")
    ordered = sorted(locks, key=lambda lock: lock.address)
    for first, second in itertools.pairwise(ordered):
        if first is second:
            raise UsageError(f"acquire_all() was given {first!r} twice")
    for lock in ordered:
        if lock.lock_class is not None and not lock.lock_class.flags & LockFlags.MULTI_ACQUIRE:
            raise UsageError(
                f"acquire_all() takes locks of a MULTI_ACQUIRE class; "
                f"{lock.lock_class.name} is not one"
            )
    return _Several(ordered)
