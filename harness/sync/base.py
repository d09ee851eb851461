"""What all primitives share: a name, a place in the order of creation, and those who want it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from harness.engine.core import CORE
from harness.engine.thread import OUTSIDE, OUTSIDE_MESSAGE, Thread
from harness.errors import UsageError


class Primitive:
    """Base of everything that an operation can be on.

    Attributes:
        name: As given; unnamed ones are numbered per schedule in the order of first use.
        address: Order of creation, which stands for the address; larger is younger.
        wanters: Parked threads whose pending operation is on this object.
    """

    __slots__ = ("address", "name", "wanters")

    # Whether holding this lock forbids blocking.
    spins: ClassVar[bool] = False
    # Whether a thread that ends must not keep it.
    leaks: ClassVar[bool] = True

    def __init__(self, name: str | None) -> None:
        """Nobody wants it yet.

        Raises:
            UsageError: ``name`` is no text.
        """
        if name is not None and not isinstance(name, str):
            raise UsageError(f"the name of a {type(self).__name__} must be a text, got {name!r}")
        self.name = name
        self.address = next(CORE.addresses)
        self.wanters: list[Thread] = []

    def blockers(self, waiter: Thread) -> Iterable[Thread]:
        """Threads that must act before ``waiter`` can go on; nobody owns this object."""
        return ()

    def expire(self, thread: Thread) -> None:
        """The wait of ``thread`` on this object ran out or was interrupted: it may go on."""
        thread.excused = True
        CORE.enable(thread)

    def reset(self) -> None:
        """Back to unowned, after a schedule that left it taken."""

    def __repr__(self) -> str:
        """Type and name; never an address in memory."""
        return f"<{type(self).__name__} {self.name or '(unnamed)'}>"


def point(kind: str, obj: object) -> Thread:
    """One operation that can always run: publish, choose, and return when it is its turn."""
    core = CORE
    me = core.cur
    me.kind = kind
    me.obj = obj
    if core.steps < core.lease:
        core.steps += 1
        return me
    chosen = core.choose()
    if chosen is not me:
        core.preempt(me, chosen)
    return me


def current() -> Thread:
    """The thread that runs now.

    Raises:
        UsageError: No schedule is running.
    """
    me = CORE.cur
    if me is OUTSIDE:
        raise UsageError(OUTSIDE_MESSAGE)
    return me


def now() -> float:
    """Virtual time as the program reads it; no schedule point."""
    CORE.told = True
    return CORE.clock


def failing(kind: type[BaseException] | None) -> bool:
    """Whether a ``with`` block is left by a failed assertion.

    That has ended the schedule already: no other thread runs before it is reported, so giving up
    what the block held is no step.
    """
    return kind is not None and issubclass(kind, AssertionError)


def outcome(value: object) -> None:
    """Tell the recorder, where there is one, what the operation of this step returned."""
    if CORE.recorder is not None:
        CORE.recorder.outcome(value)
