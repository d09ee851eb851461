"""Which calls the patches take over, and what stood there before.

A patched name serves everybody: for the thread that holds the baton of a schedule it is controlled;
for every other thread of the process (a watchdog, a test runner, the caller between two schedules)
it is the real thing. The two states of one lock are apart: a program that shares a lock with
threads outside of its schedule is not a function of its choices anyway.
"""

from __future__ import annotations

import _thread
import sys
from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar

from harness.engine.core import CORE
from harness.engine.pool import holder
from harness.engine.thread import OUTSIDE, Thread

T = TypeVar("T")

_get_ident: Final = _thread.get_ident
# Locks of these are the interpreter's and the harness's own business.
_OWNERS_LEFT_ALONE: Final = ("importlib.", "harness.", "_frozen_importlib")


def inside() -> Thread | None:
    """The calling thread, if it is the one of a schedule that runs now."""
    me = holder()
    if me is OUTSIDE or me.ident != _get_ident():
        return None
    return me


def makes_its_own() -> bool:
    """Whether the caller's caller shall get the real thing."""
    if inside() is None:
        return True
    name = sys._getframe(2).f_globals.get("__name__") or ""
    return name.startswith(_OWNERS_LEFT_ALONE)


class PerSchedule(Generic[T]):
    """A value that every schedule begins anew with."""

    __slots__ = ("_make", "_of", "_value")

    def __init__(self, make: Callable[[], T]) -> None:
        """Args: make: Called at the first use in each schedule."""
        self._make = make
        self._of: Any = None
        self._value: Any = None

    def get(self) -> T:
        """This schedule's value. The list of its threads stands for the schedule."""
        if self._of is not CORE.threads:
            self._of = CORE.threads
            self._value = self._make()
        value: T = self._value
        return value


def shadow(of: Any, key: str, make: Callable[[Any], T]) -> T:
    """What controls the object ``of`` in this schedule; made by ``make(of)`` at the first use."""
    held: tuple[object, T] | None = of.__dict__.get(key)
    if held is None or held[0] is not CORE.threads:
        held = of.__dict__[key] = (CORE.threads, make(of))
    return held[1]
