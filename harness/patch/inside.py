"""Which calls the patches take over, and what stood there before.

A patched name serves everybody: for the thread that holds the baton of a schedule it is controlled;
for every other thread of the process (a watchdog, a test runner, the caller between two schedules)
it is the real thing. The two states of one lock are apart: a program that shares a lock with
threads outside of its schedule is not a function of its choices anyway.
"""

from __future__ import annotations

import _thread
import itertools
import sys
from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar

from harness.engine.core import CORE
from harness.engine.pool import holder
from harness.engine.thread import OUTSIDE, Thread
from harness.sync.base import Primitive

T = TypeVar("T")
P = TypeVar("P", bound=Primitive)

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


_SHADOW: Final = "_lockloom_shadow"
NUMBER: Final = "_lockloom_number"
_EARLIER: Final = "_lockloom_earlier"
# Of objects that were made before the schedule; these keep theirs as long as the patches last.
_earlier: Final = itertools.count(1)
_marked: Final[list[dict[str, Any]]] = []


def number(of: Any) -> None:
    """``of`` has been made in a schedule: note its place in the order of creation.

    A shadow is made at the first use, whose order is the schedule's; searches that compare steps
    of several schedules need a number that is the object's.
    """
    of.__dict__.setdefault(NUMBER, next(CORE.addresses))


def in_order(of: Any) -> int:
    """A hash, or an identity, that is the same in every run: the place in the order of creation.

    Sets of threads and of futures are walked by it; what is older than the schedule keeps its own.
    """
    place: int | None = vars(of).get(NUMBER)
    return object.__hash__(of) if place is None else place


def shadow(of: Any, make: Callable[[Any], P]) -> P:
    """What controls the object ``of`` in this schedule; made by ``make(of)`` at the first use."""
    mine = of.__dict__
    held: tuple[object, P] | None = mine.get(_SHADOW)
    if held is None or held[0] is not CORE.threads:
        if NUMBER not in mine and _EARLIER not in mine:
            mine[_EARLIER] = next(_earlier)
            _marked.append(mine)
        held = mine[_SHADOW] = (CORE.threads, make(of))
        held[1].address = mine.get(NUMBER) or mine[_EARLIER]
    return held[1]


def forget_shadows() -> None:
    """Objects that are older than the schedules look as before."""
    while _marked:
        mine = _marked.pop()
        del mine[_EARLIER], mine[_SHADOW]
