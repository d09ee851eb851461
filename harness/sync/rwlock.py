"""``RwLock``: many readers or one writer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from harness.engine.core import CORE
from harness.engine.finding import place
from harness.engine.thread import Thread
from harness.errors import UsageError
from harness.lockorder.classes import LockClass, classed
from harness.lockorder.rules import HeldLocks
from harness.sync.base import Primitive, failing


class _Side:
    """What ``read()`` and ``write()`` return: takes the lock in a ``with`` statement."""

    __slots__ = ("_lock", "_writes")

    def __init__(self, lock: RwLock, *, writes: bool) -> None:
        self._lock = lock
        self._writes = writes

    def __enter__(self) -> RwLock:
        self._lock.acquire(writes=self._writes)
        return self._lock

    def __exit__(self, kind: type[BaseException] | None, *_exc: object) -> None:
        self._lock.release(writes=self._writes, failing=failing(kind))


class RwLock(Primitive):
    """A lock that many readers, or one writer, may hold.

    With ``prefer="writer"`` no new reader gets in once a writer was found waiting, not even one
    that reads already (so reading twice may deadlock); with ``"reader"`` writers wait for a moment
    without readers. There is no upgrade: a reader that wants to write waits for itself.

    Attributes:
        readers: Threads that read, one entry for each time.
        writer: The thread that writes, or None.
    """

    __slots__ = ("lock_class", "prefer", "queued", "readers", "writer")

    def __init__(
        self,
        name: str | None = None,
        lock_class: LockClass | None = None,
        *,
        prefer: Literal["writer", "reader"] = "writer",
    ) -> None:
        """Make a free lock.

        Raises:
            UsageError: ``prefer`` is neither "writer" nor "reader", or ``lock_class`` is none.
        """
        classed(lock_class)
        super().__init__(name if name is not None or lock_class is None else lock_class.name)
        if prefer not in ("writer", "reader"):
            raise UsageError(f"prefer must be 'writer' or 'reader', got {prefer!r}")
        self.prefer = prefer
        self.lock_class = lock_class
        self.readers: list[Thread] = []
        self.writer: Thread | None = None
        # Writers that were found waiting and have not had the lock since.
        self.queued: list[Thread] = []

    def read(self) -> _Side:
        """``with lock.read():`` reads; one step each to enter and leave."""
        return _Side(self, writes=False)

    def write(self) -> _Side:
        """``with lock.write():`` writes; one step each to enter and leave."""
        return _Side(self, writes=True)

    def acquire(self, *, writes: bool) -> None:
        """Take the lock for reading or writing, waiting until that is possible; one step."""
        core = CORE
        me = core.cur
        me.kind = "write-acquire" if writes else "read-acquire"
        me.obj = self
        if me.spins:
            core.under_spin(me, me.kind)
        if self.lock_class is not None:
            self._judge(me, writes=writes)
        me.excused = False
        self.wanters.append(me)
        try:
            if self._possible(me):
                chosen = core.choose()
                if chosen is not me:
                    core.preempt(me, chosen)
            else:
                if writes:
                    self.queued.append(me)
                    self._refresh()
                core.block(me)
        finally:
            self.wanters.remove(me)
            if me in self.queued:
                self.queued.remove(me)
        if writes:
            self.writer = me
        else:
            self.readers.append(me)
        me.held.append(self)
        self._refresh()

    def release(self, *, writes: bool, failing: bool = False) -> None:
        """Leave; one step, unless a failed assertion is on its way out (``failing``).

        Raises:
            RuntimeError: The calling thread does not hold the lock in that way.
        """
        core = CORE
        me = core.cur
        holds = self.writer is me if writes else me in self.readers
        if not holds:
            if core.aborting:
                return
            raise RuntimeError(f"{me.name} leaves {core.label(self)} without having entered it")
        me.kind = "write-release" if writes else "read-release"
        me.obj = self
        if not failing:
            chosen = core.choose()
            if chosen is not me:
                core.preempt(me, chosen)
        if writes:
            self.writer = None
        else:
            self.readers.remove(me)
        me.held.remove(self)
        self._refresh()
        if self.lock_class is not None and me.locks is not None:
            core.rules.released(me.locks, self.address)

    def _possible(self, waiter: Thread) -> bool:
        """Whether ``waiter``'s published operation can run now."""
        if waiter.kind == "write-acquire":
            return self.writer is None and not self.readers
        return self.writer is None and (self.prefer == "reader" or not self.queued)

    def _refresh(self) -> None:
        """Let parked wanters run or not, after any change; writers first: they block readers."""
        core = CORE
        for waiter in self.wanters:
            if waiter.kind == "write-acquire" and not self._possible(waiter):
                if waiter not in self.queued:
                    self.queued.append(waiter)
                if waiter is not core.cur:
                    core.disable(waiter)
        for waiter in self.wanters:
            if waiter is core.cur:
                continue
            if self._possible(waiter):
                core.enable(waiter)
            else:
                core.disable(waiter)

    def blockers(self, waiter: Thread) -> Sequence[Thread]:
        """Whoever writes, or reads; a reader may also wait for writers that came before."""
        if self.writer is not None:
            return (self.writer,)
        if waiter.kind == "write-acquire":
            return tuple(self.readers)
        return tuple(self.queued)

    def reset(self) -> None:
        """See ``Primitive.reset``."""
        self.readers.clear()
        self.queued.clear()
        self.wanters.clear()
        self.writer = None

    def _judge(self, me: Thread, *, writes: bool) -> None:
        core = CORE
        held = me.locks
        if held is None:
            held = me.locks = HeldLocks(me.name)
        assert self.lock_class is not None
        mode = "exclusive" if writes else "shared"
        finding = core.rules.acquired(held, self.lock_class, self.address, 0, mode, False, place())
        if finding is not None and not core.aborting:
            core.violated("lock-order", finding.rule, finding.message, order=finding)
