"""``Lock``, ``RLock`` and ``SimpleQueue``: types that are written in C, and replaced as a whole."""

from __future__ import annotations

import _queue
import _thread
from collections.abc import Sequence
from types import GenericAlias, TracebackType
from typing import Any, ClassVar, Final, Self

from harness.engine.core import CORE
from harness.engine.thread import Thread
from harness.patch.inside import inside, makes_its_own
from harness.sync.base import Primitive, failing, outcome, point
from harness.sync.condition import Semaphore
from harness.sync.mutex import Lock as Owned

REAL_LOCK: Final = _thread.allocate_lock
REAL_LOCK_TYPE: Final = _thread.LockType
REAL_RLOCK: Final = _thread.RLock
REAL_QUEUE: Final = _queue.SimpleQueue
LOCAL: Final = _thread._local
# Always free: judges the arguments of an acquire as this Python's own lock does.
_JUDGE: Final = REAL_LOCK()
# Who holds a lock that was taken before the schedule began.
_EARLIER: Final = Thread(-1, "a thread outside of the schedule")


class _Either(type):
    """The class of a replaced type: what the real one made is an instance too."""

    real_type: type

    def __instancecheck__(cls, instance: object) -> bool:
        return type.__instancecheck__(cls, instance) or isinstance(instance, cls.real_type)


class _Dual(Owned, metaclass=_Either):
    """A lock of the schedule and a real one, under one name; see ``inside``."""

    __slots__ = ("__weakref__", "real")

    real_type: ClassVar[type]
    # Code that nobody rewrote may end a thread that holds one; whoever waits for it then is stuck.
    leaks = False

    def __init__(self, real: Any = None) -> None:
        """Args: real: The one that this stands in for; None makes one."""
        super().__init__()
        self.real = self._make() if real is None else real

    @staticmethod
    def _make() -> Any:
        raise NotImplementedError

    def _try(self, blocking: Any, timeout: Any) -> bool | None:
        """An acquire with a limit; None where it has none. Wrong arguments as the real one."""
        if blocking is True and timeout == -1:
            return None
        if _JUDGE.acquire(blocking, timeout):
            _JUDGE.release()
        if blocking and timeout == -1:
            return None
        return self._attempt(CORE.cur, bool(blocking), timeout, None)

    def _at_fork_reinit(self) -> None:
        self.real._at_fork_reinit()
        self.owner = None

    def __hash__(self) -> int:
        """The same in every run."""
        return self.address

    def __repr__(self) -> str:
        """As the real one, with the order of creation for the address."""
        name = f"{self.real_type.__module__}.{self.real_type.__name__}"
        state = "unlocked" if self.owner is None else "locked"
        return f"<{state} {name} object{self._details()} at {self.address}>"

    def _details(self) -> str:
        return ""


class Lock(_Dual):
    """``threading.Lock``: any thread may release it.

    So a wait for it is not a wait for its owner, unless it was taken by ``with``, which promises
    that the owner gives it back, or nobody is left who could.
    """

    __slots__ = ("_promised",)

    real_type: ClassVar[type] = REAL_LOCK_TYPE

    def __new__(cls, *args: Any) -> Any:
        """A real lock, outside of a schedule."""
        if not args and makes_its_own():
            return REAL_LOCK()
        return object.__new__(cls)

    def __init__(self, real: Any = None) -> None:
        """See ``_Dual``."""
        self._promised = False
        super().__init__(real)

    @staticmethod
    def _make() -> Any:
        return REAL_LOCK()

    def acquire(self, blocking: Any = True, timeout: Any = -1, **_: Any) -> bool:
        """As the real one; one step."""
        if inside() is None:
            return bool(self.real.acquire(blocking, timeout))
        taken = self._try(blocking, timeout)
        return Owned.acquire(self) if taken is None else taken

    def __enter__(self, *_: Any, **__: Any) -> bool:
        """Take it, to be given back by this thread."""
        taken = self.acquire()
        self._promised = self.owner is not None
        return taken

    def release(self) -> None:
        """As the real one; one step.

        Raises:
            RuntimeError: Nobody holds it.
        """
        if inside() is None:
            self.real.release()
            return
        if self.owner is not None:
            point("release", self)
        if self.owner is None:
            if CORE.aborting:
                return
            raise RuntimeError("release unlocked lock")
        self.give_up(self.owner)

    def give_up(self, me: Thread, broken_off: bool = False) -> None:
        """See ``harness.sync.mutex``; ``me`` is the owner, not always the caller."""
        self._promised = False
        super().give_up(me, broken_off=broken_off)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        """Release."""
        me = inside()
        if me is not None and failing(kind) and self.owner is me:
            self.give_up(me)
        else:
            self.release()

    def locked(self) -> bool:
        """As the real one; one step."""
        return bool(self.real.locked()) if inside() is None else super().locked()

    def blockers(self, waiter: Thread) -> Sequence[Thread]:
        """The owner, where only that one can give it back."""
        if self.owner is None or not (self._promised or not (CORE.run or CORE.timers)):
            return ()
        return (self.owner,)

    def mirror(self) -> None:
        """Begin a schedule as the real lock stands."""
        self.owner = _EARLIER if self.real.locked() else None
        _EARLIER.held = [lock for lock in _EARLIER.held if lock is not self]
        if self.owner is not None:
            _EARLIER.held.append(self)

    def _is_owned(self) -> bool:
        """What ``Condition`` takes for owned: locked by anybody."""
        return bool(self.real.locked()) if inside() is None else self.owner is not None

    acquire_lock = acquire
    release_lock = release
    locked_lock = locked


class RLock(_Dual):
    """``threading.RLock``: its owner may take it again; one step each time."""

    __slots__ = ("count",)

    real_type: ClassVar[type] = REAL_RLOCK

    def __new__(cls, *args: Any) -> Any:
        """A real lock, outside of a schedule."""
        if not args and makes_its_own():
            return REAL_RLOCK()
        return object.__new__(cls)

    def __init__(self, real: Any = None) -> None:
        """See ``_Dual``."""
        self.count = 0
        super().__init__(real)

    @staticmethod
    def _make() -> Any:
        return REAL_RLOCK()

    def acquire(self, blocking: Any = True, timeout: Any = -1, **_: Any) -> bool:
        """As the real one; one step, also where the caller has it already."""
        me = inside()
        if me is None:
            return bool(self.real.acquire(blocking, timeout))
        if self.owner is me:
            if _JUDGE.acquire(blocking, timeout):
                _JUDGE.release()
            point("acquire", self)
            self.count += 1
            return True
        taken = self._try(blocking, timeout)
        if taken is None:
            taken = Owned.acquire(self)
        if taken:
            self.count = 1
        return taken

    def __enter__(self, *_: Any, **__: Any) -> bool:
        """Take it."""
        return self.acquire()

    def release(self) -> None:
        """As the real one; one step.

        Raises:
            RuntimeError: The caller does not hold it.
        """
        me = inside()
        if me is None:
            self.real.release()
            return
        if self.owner is not me:
            if CORE.aborting:
                return
            raise RuntimeError("cannot release un-acquired lock")
        point("release", self)
        self._let_go(me)

    def _let_go(self, me: Thread) -> None:
        self.count -= 1
        if self.count == 0:
            self.give_up(me)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        """Release."""
        me = inside()
        if me is not None and failing(kind) and self.owner is me:
            self._let_go(me)
        else:
            self.release()

    def reset(self) -> None:
        """See ``Primitive.reset``."""
        super().reset()
        self.count = 0

    def _details(self) -> str:
        owner = 0 if self.owner is None else self.owner.index
        return f" owner={owner} count={self.count}"

    def _is_owned(self) -> bool:
        me = inside()
        return bool(self.real._is_owned()) if me is None else self.owner is me

    def _recursion_count(self) -> int:
        me = inside()
        if me is None:
            return int(self.real._recursion_count())
        return self.count if self.owner is me else 0

    def _release_save(self) -> Any:
        """Give it up however often it was taken; one step. For ``Condition``."""
        me = inside()
        if me is None:
            return self.real._release_save()
        if self.owner is not me:
            raise RuntimeError("cannot release un-acquired lock")
        point("release", self)
        count, self.count = self.count, 0
        self.give_up(me)
        return count

    def _acquire_restore(self, state: Any) -> None:
        """Take it as often as before; one step. For ``Condition``."""
        if inside() is None:
            self.real._acquire_restore(state)
            return
        Owned.acquire(self)
        self.count = state


class _Items(Semaphore):
    """The items of a ``SimpleQueue``: a semaphore whose counter is their number."""

    __slots__ = ("_real", "taken")

    def __init__(self, real: Any) -> None:
        Primitive.__init__(self, "SimpleQueue")
        self._real = real
        self.taken: Any = None

    @property
    def _value(self) -> int:
        return int(self._real.qsize())

    @_value.setter
    def _value(self, _less: int) -> None:
        """Taking one from the counter takes the item."""
        self.taken = self._real.get_nowait()


class SimpleQueue(metaclass=_Either):
    """``queue.SimpleQueue``; the items are in a real one."""

    real_type: ClassVar[type] = REAL_QUEUE

    def __new__(cls, *args: Any) -> Any:
        """A real queue, outside of a schedule."""
        if not args and makes_its_own():
            return REAL_QUEUE()
        return object.__new__(cls)

    def __init__(self, real: Any = None) -> None:
        """Args: real: The one that this stands in for; None makes one."""
        self.real = REAL_QUEUE() if real is None else real
        self._items = _Items(self.real)

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """As the real one, which never blocks; one step."""
        if inside() is not None:
            point("sem-release", self._items)
        self.real.put(item)
        if inside() is not None:
            CORE.enable_all(self._items.wanters)

    def put_nowait(self, item: Any) -> None:
        """See ``put``."""
        self.put(item, block=False)

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """As the real one; one step.

        Raises:
            _queue.Empty: There is nothing, in time.
            ValueError: ``timeout`` is negative.
        """
        if inside() is None:
            return self.real.get(block, timeout)
        if not block:
            timeout = None
        elif timeout is not None and timeout < 0:
            raise ValueError("'timeout' must be a non-negative number")
        if not self._items.acquire(bool(block), timeout):
            raise _queue.Empty
        taken, self._items.taken = self._items.taken, None
        return taken

    def get_nowait(self) -> Any:
        """See ``get``."""
        return self.get(block=False)

    def empty(self) -> bool:
        """As the real one; one step."""
        return self.qsize() == 0

    def qsize(self) -> int:
        """As the real one; one step."""
        if inside() is not None:
            point("sem-value", self._items)
            outcome(self.real.qsize())
        return int(self.real.qsize())

    __class_getitem__: Any = classmethod(GenericAlias)


class Local(_thread._local, metaclass=_Either):
    """``threading.local`` as it is, but no OS thread that has seen one runs a second thread."""

    real_type: ClassVar[type] = LOCAL

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Make one."""
        if inside() is not None:
            CORE.workers.reuse = False
        return super().__new__(cls, *args, **kwargs)


__all__ = ["REAL_LOCK", "REAL_QUEUE", "REAL_RLOCK", "Local", "Lock", "RLock", "SimpleQueue"]
