"""Classes of ``threading`` that are written in Python: their methods are replaced in place.

So a class that was imported by name, subclassed or instantiated before the patch is controlled too.
Each object has a *shadow* in each schedule, a primitive of ``harness.sync``; the object's own field
(``_flag``, ``_value``) stays the one place where its state is.
"""

from __future__ import annotations

import math
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, Final

from harness.patch.inside import in_order, inside, number, shadow
from harness.patch.locks import Lock, RLock
from harness.patch.threads import of_thread
from harness.sync import condition as sync
from harness.sync.base import now


class _Event(sync.Event):
    """The shadow of a ``threading.Event``."""

    __slots__ = ("_of",)

    def __init__(self, of: Any) -> None:
        self._of = of
        flag = of._flag
        super().__init__("Event")
        of._flag = flag

    @property
    def _set(self) -> bool:
        return bool(self._of._flag)

    @_set.setter
    def _set(self, value: bool) -> None:
        self._of._flag = value


class _Semaphore(sync.Semaphore):
    """The shadow of a ``threading.Semaphore``, bounded or not."""

    __slots__ = ("_most", "_of")

    def __init__(self, of: Any) -> None:
        self._of = of
        self._most: int | None = getattr(of, "_initial_value", None)
        super().__init__(of._value, type(of).__name__)

    @property
    def _value(self) -> int:
        return int(self._of._value)

    @_value.setter
    def _value(self, value: int) -> None:
        self._of._value = value

    def _put(self, n: int) -> None:
        if self._most is not None and self._value + n > self._most:
            raise ValueError("Semaphore released too many times")
        super()._put(n)


def _condition(of: Any) -> sync.Condition:
    return sync.Condition(of._lock, "Condition")


def _barrier(of: Any) -> sync.Barrier:
    return sync.Barrier(of._parties, "Barrier", action=of._action)


# -- the methods --------------------------------------------------------------------------------
#
# Each function takes what its class did before, by name, and returns what it does from now on.

Method = Callable[..., Any]
Methods = dict[str, Any]


def _controlled(condition: Any) -> bool:
    """Whether a condition's lock is one that a shadow can wait under; the program may bring any."""
    return inside() is not None and type(condition._lock) in (Lock, RLock)


def _making(real: Methods) -> Methods:
    """``__init__``, which notes the order of creation, and the hash that it gives."""
    before = real["__init__"]

    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        if inside() is not None:
            number(self)
        before(self, *args, **kwargs)

    return {"__init__": init, "__hash__": in_order}


# A comparison with NaN is false, and the old condition asks for ``timeout > 0``.
_NAN_IS_NOTHING: Final = sys.version_info < (3, 14)


def _limit(timeout: float | None) -> float | None:
    """Before 3.14 a condition takes a NaN for no time at all; since then it refuses it."""
    return 0.0 if timeout is not None and _NAN_IS_NOTHING and math.isnan(timeout) else timeout


def _of_condition(real: Methods) -> Methods:
    def wait(self: Any, timeout: float | None = None) -> bool:
        if not _controlled(self):
            return bool(real["wait"](self, timeout))
        count = getattr(self._lock, "count", 0)
        try:
            return shadow(self, _condition).wait(_limit(timeout))
        finally:
            if count:
                self._lock.count = count

    def wait_for(self: Any, predicate: Callable[[], Any], timeout: float | None = None) -> Any:
        if not _controlled(self):
            return real["wait_for"](self, predicate, timeout)
        end = None if timeout is None else now() + timeout
        result = predicate()
        while not result:
            left = None if end is None else end - now()
            if left is not None and left <= 0:
                break
            self.wait(left)
            result = predicate()
        return result

    def notify(self: Any, n: int = 1) -> None:
        if _controlled(self):
            shadow(self, _condition).notify(n)
        else:
            real["notify"](self, n)

    def notify_all(self: Any) -> None:
        if _controlled(self):
            shadow(self, _condition).notify_all()
        else:
            real["notify_all"](self)

    return _making(real) | {
        "wait": wait,
        "wait_for": wait_for,
        "notify": notify,
        "notify_all": notify_all,
    }


def _of_event(real: Methods) -> Methods:
    def is_set(self: Any) -> bool:
        if inside() is None:
            return bool(real["is_set"](self))
        return shadow(self, _Event).is_set()

    def set_(self: Any) -> None:
        if inside() is None:
            real["set"](self)
        else:
            shadow(self, _Event).set()

    def clear(self: Any) -> None:
        if inside() is None:
            real["clear"](self)
        else:
            shadow(self, _Event).clear()

    def wait(self: Any, timeout: float | None = None) -> bool:
        if inside() is None:
            return bool(real["wait"](self, timeout))
        return shadow(self, _Event).wait(_limit(timeout))

    return _making(real) | {
        "is_set": is_set,
        "isSet": is_set,
        "set": set_,
        "clear": clear,
        "wait": wait,
    }


def _of_semaphore(real: Methods) -> Methods:
    def acquire(self: Any, blocking: bool = True, timeout: float | None = None) -> bool:
        if inside() is None:
            return bool(real["acquire"](self, blocking, timeout))
        return shadow(self, _Semaphore).acquire(bool(blocking), timeout)

    def release(self: Any, n: int = 1) -> None:
        if inside() is None:
            real["release"](self, n)
        else:
            shadow(self, _Semaphore).release(n)

    methods: Methods = {"acquire": acquire, "__enter__": acquire, "release": release}
    return _making(real) | {name: each for name, each in methods.items() if name in real}


def _of_barrier(real: Methods) -> Methods:
    def wait(self: Any, timeout: float | None = None) -> int:
        if inside() is None:
            return int(real["wait"](self, timeout))
        if timeout is None:
            timeout = self._timeout
        return shadow(self, _barrier).wait(timeout)

    def abort(self: Any) -> None:
        if inside() is None:
            real["abort"](self)
        else:
            shadow(self, _barrier).abort()

    def reset(self: Any) -> None:
        if inside() is None:
            real["reset"](self)
        else:
            shadow(self, _barrier).reset()

    def n_waiting(self: Any) -> int:
        if inside() is None:
            return int(real["n_waiting"].fget(self))
        return shadow(self, _barrier).n_waiting

    def broken(self: Any) -> bool:
        if inside() is None:
            return bool(real["broken"].fget(self))
        return shadow(self, _barrier).broken

    return _making(real) | {
        "wait": wait,
        "abort": abort,
        "reset": reset,
        "n_waiting": property(n_waiting),
        "broken": property(broken),
    }


METHODS: Final[Sequence[tuple[type, Callable[[Methods], Methods]]]] = (
    (threading.Condition, _of_condition),
    (threading.Event, _of_event),
    (threading.Semaphore, _of_semaphore),
    (threading.BoundedSemaphore, _of_semaphore),
    (threading.Barrier, _of_barrier),
    (threading.Thread, lambda real: _making(real) | of_thread(real)),
    # Written over conditions and locks, but walked in sets.
    (Future, _making),
)
