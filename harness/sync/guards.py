"""Clang's thread-safety annotations, executable: every access without the lock is a finding."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Generic, ParamSpec, TypeVar, cast, overload

from harness.engine.core import CORE
from harness.engine.finding import place
from harness.engine.thread import OUTSIDE
from harness.errors import UsageError
from harness.sync.mutex import Lock
from harness.sync.rwlock import RwLock

T = TypeVar("T")
P = ParamSpec("P")
R = TypeVar("R")

AnyLock = Lock | RwLock


def _holds(lock: AnyLock) -> bool:
    """Whether the calling thread holds ``lock`` (in either way)."""
    me = CORE.cur
    if isinstance(lock, Lock):
        return lock.owner is me
    return lock.writer is me or me in lock.readers


def _unchecked() -> bool:
    """Where no rule applies: outside schedules, while unwinding, inside invariants."""
    return CORE.cur is OUTSIDE or CORE.aborting or CORE.examining


def _held_by(lock: AnyLock) -> str:
    if isinstance(lock, Lock):
        return "nobody" if lock.owner is None else lock.owner.name
    holders = [lock.writer] if lock.writer is not None else lock.readers
    return ", ".join(thread.name for thread in holders) or "nobody"


class GuardedBy(Generic[T]):
    """The descriptor that ``guarded_by`` makes."""

    __slots__ = ("_lock", "_name", "_slot")

    def __init__(self, lock: str) -> None:
        self._lock = lock
        self._name = ""
        self._slot = ""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = f"{owner.__name__}.{name}"
        self._slot = f"_guarded_{name}"

    @overload
    def __get__(self, instance: None, owner: type) -> GuardedBy[T]: ...

    @overload
    def __get__(self, instance: object, owner: type) -> T: ...

    def __get__(self, instance: object | None, owner: type) -> GuardedBy[T] | T:
        if instance is None:
            return self
        lock = getattr(instance, self._lock)
        if lock.__class__ is RwLock or lock.owner is not CORE.cur:
            self._check(lock, "read")
        try:
            return cast("T", instance.__dict__[self._slot])
        except KeyError:
            raise AttributeError(f"{self._name} has not been set yet") from None

    def __set__(self, instance: object, value: T) -> None:
        # The first assignment is the constructor's: nobody else can see the object yet.
        if self._slot in instance.__dict__:
            lock = getattr(instance, self._lock)
            if lock.__class__ is RwLock or lock.owner is not CORE.cur:
                self._check(lock, "written")
        instance.__dict__[self._slot] = value

    def unchecked(self, instance: object) -> T:
        """The value, whoever holds the lock: for a destructor, whose object nobody else can reach.

        Clang's analysis leaves destructors out for the same reason.
        """
        return cast("T", instance.__dict__[self._slot])

    def _check(self, lock: AnyLock, access: str) -> None:
        if _unchecked() or _holds(lock):
            return
        CORE.violated(
            "guard",
            self._name,
            f"{self._name} was {access} by {CORE.cur.name} without {CORE.label(lock)}, "
            f"which is held by {_held_by(lock)}",
        )


def _lock_named(asker: str, lock: object) -> None:
    if not isinstance(lock, (str, Lock, RwLock)):
        raise UsageError(f"{asker}() takes a lock, or the name of an attribute, got {lock!r}")


def guarded_by(lock: str) -> Any:
    """A field that may only be touched with a lock held.

    Use it as a class attribute, ``pending = guarded_by("_mtx")``; the owning class needs a
    ``__dict__``. The first assignment (the constructor's) is free, as are accesses outside
    schedules and inside invariants. Any other access ends the schedule with a ``guard`` finding;
    a destructor reads by ``Provider.pending.unchecked(self)``.

    Args:
        lock: Name of the attribute of the same object that holds the lock.
    """
    if not isinstance(lock, str):
        raise UsageError(f"guarded_by() takes the name of an attribute, got {lock!r}")
    return GuardedBy(lock)


def requires(lock: str | AnyLock) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """A function that may only be called with ``lock`` held; else a ``guard`` finding.

    Args:
        lock: A lock, or the name of an attribute of the function's first argument.
    """
    _lock_named("requires", lock)
    return _annotate(lock, wanted=True)


def excludes(lock: str | AnyLock) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """A function that may only be called without ``lock`` held, for it takes it; else a finding.

    Args:
        lock: A lock, or the name of an attribute of the function's first argument.
    """
    _lock_named("excludes", lock)
    return _annotate(lock, wanted=False)


def _annotate(lock: str | AnyLock, *, wanted: bool) -> Callable[[Callable[P, R]], Callable[P, R]]:
    def decorate(fn: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(fn)
        def checked(*args: P.args, **kwargs: P.kwargs) -> R:
            which = getattr(args[0], lock) if isinstance(lock, str) else lock
            if not _unchecked() and _holds(which) is not wanted:
                _misheld(which, fn.__qualname__, wanted=wanted)
            return fn(*args, **kwargs)

        return checked

    return decorate


def _misheld(lock: AnyLock, what: str, *, wanted: bool) -> None:
    label = CORE.label(lock)
    if wanted:
        text = f"{what}() needs {label}, which is held by {_held_by(lock)}"
    else:
        text = f"{what}() must be called without {label}, which {CORE.cur.name} holds"
    CORE.violated("guard", what, text)


def assert_held(lock: AnyLock) -> None:
    """A ``guard`` finding unless the calling thread holds ``lock``; no schedule point."""
    if _unchecked():
        return
    if CORE.recorder is not None:
        CORE.recorder.claim(lock, "assert_held")
    if not _holds(lock):
        _misheld(lock, "assert_held", wanted=True)


def assert_no_locks_held(what: str = "") -> None:
    """A fatal ``lock-order`` finding (ShouldNotHold) if the thread holds a tracked lock.

    Mirrors the kernel's ``AssertNoLocksHeld``: locks without a class, and of TRACKING_DISABLED or
    ACTIVE_LIST_DISABLED ones, do not count. No schedule point.

    Args:
        what: What is about to happen, for the message.
    """
    core = CORE
    me = core.cur
    if _unchecked():
        return
    what = what or "assert_no_locks_held"
    if core.recorder is not None:
        core.recorder.claim(None, what)
    if me.locks is None:
        return
    finding = core.rules.none_held(me.locks, place(), what)
    if finding is not None:
        core.violated("lock-order", finding.rule, finding.message, order=finding)
