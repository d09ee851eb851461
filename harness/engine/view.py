"""Views: what a program shows of itself while a schedule is recorded.

A view names *things* (pages, buffers, accounts) and says where each is. The recorder looks after
every step; nobody looks while schedules are only explored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from harness.engine.thread import OUTSIDE

if TYPE_CHECKING:
    from harness.engine.core import Core


class Placed(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where a thing is, and how it looks.

    Attributes:
        place: What it is in: a list, an object, a thread's stack.
        at: Its position there; empty where there is none.
        state: Its state in a word.
        marks: What else is to be seen of it, a few words each.
    """

    place: str
    at: str = ""
    state: str = ""
    marks: tuple[str, ...] = ()


View: TypeAlias = Callable[[], Mapping[str, Placed]]


def seen(core: Core, views: Iterable[View]) -> dict[str, Placed]:
    """Everything that ``views`` show now, by name, in their order.

    They are evaluated as if outside of the schedule, where every operation is refused: a recorded
    schedule must go on like the one that was explored. A view that fails is shown as one.
    """
    found: dict[str, Placed] = {}
    cur = core.cur
    core.cur = OUTSIDE
    try:
        for view in views:
            try:
                found.update(view())
            except Exception as error:
                found["this view"] = Placed("cannot be shown", state=type(error).__name__)
    finally:
        core.cur = cur
    return found
