"""Cells: ``Shared`` (plain, racy) and ``Atomic`` (sequentially consistent); each access a step."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from harness.engine.core import CORE
from harness.sync.base import Primitive, point

T = TypeVar("T")


class Shared(Primitive, Generic[T]):
    """A plain cell that threads race on; reads and writes are separate steps."""

    __slots__ = ("_value",)

    def __init__(self, value: T, name: str | None = None) -> None:
        """Args: value: The initial value. name: Shown in traces."""
        super().__init__(name)
        self._value = value

    def get(self) -> T:
        """Read; one step."""
        core = CORE
        if core.steps < core.lease:
            core.steps += 1
            return self._value
        me = core.cur
        me.kind = "get"
        me.obj = self
        chosen = core.choose()
        if chosen is not me:
            core.preempt(me, chosen)
        if core.recorder is not None:
            core.recorder.outcome(self._value)
        return self._value

    def set(self, value: T) -> None:
        """Write; one step."""
        core = CORE
        if core.steps < core.lease:
            core.steps += 1
            self._value = value
            return
        me = core.cur
        me.kind = "set"
        me.obj = self
        chosen = core.choose()
        if chosen is not me:
            core.preempt(me, chosen)
        self._value = value
        if core.recorder is not None:
            core.recorder.outcome(value)

    def peek(self) -> T:
        """Read without a schedule point: for invariants, assertions after the end, and dumps."""
        return self._value


class Atomic(Primitive, Generic[T]):
    """A cell whose operations are atomic; each is one step, and sequentially consistent."""

    __slots__ = ("_value",)

    def __init__(self, value: T, name: str | None = None) -> None:
        """Args: value: The initial value. name: Shown in traces."""
        super().__init__(name)
        self._value = value

    def load(self) -> T:
        """Read; one step."""
        core = CORE
        if core.steps < core.lease:
            core.steps += 1
            return self._value
        me = core.cur
        me.kind = "load"
        me.obj = self
        chosen = core.choose()
        if chosen is not me:
            core.preempt(me, chosen)
        if core.recorder is not None:
            core.recorder.outcome(self._value)
        return self._value

    def store(self, value: T) -> None:
        """Write; one step."""
        core = CORE
        if core.steps < core.lease:
            core.steps += 1
            self._value = value
            return
        me = core.cur
        me.kind = "store"
        me.obj = self
        chosen = core.choose()
        if chosen is not me:
            core.preempt(me, chosen)
        self._value = value
        if core.recorder is not None:
            core.recorder.outcome(value)

    def exchange(self, value: T) -> T:
        """Write, and return what was there; one step."""
        point("exchange", self)
        old = self._value
        self._value = value
        if CORE.recorder is not None:
            CORE.recorder.outcome(old)
        return old

    def compare_exchange(self, expected: T, new: T) -> bool:
        """Write ``new`` if the value equals ``expected``; one step, a mere read where it does not.

        Returns:
            Whether it was written.
        """
        point("compare-exchange", self)
        matches = bool(self._value == expected)
        if matches:
            self._value = new
        if CORE.recorder is not None:
            CORE.recorder.outcome(matches)
        return matches

    def fetch_add(self, amount: Any = 1) -> T:
        """Add, and return what was there before; one step."""
        point("fetch-add", self)
        old: Any = self._value
        self._value = old + amount
        if CORE.recorder is not None:
            CORE.recorder.outcome(old)
        return old  # type: ignore[no-any-return] # whatever type supports +

    def peek(self) -> T:
        """Read without a schedule point: for invariants, assertions after the end, and dumps."""
        return self._value
