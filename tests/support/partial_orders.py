"""Classes of equivalent schedules: the partial orders of those that a strategy runs."""

from __future__ import annotations

from collections.abc import Callable

from harness import explore
from harness.engine.core import Choose, Core
from harness.engine.thread import Thread
from harness.engine.view import View
from harness.strategies import Strategy, base, register, strategy_named
from harness.strategies.dependence import Operation
from harness.strategies.dfs import DepthFirst
from harness.strategies.dpor import Dpor
from harness.strategies.order import PartialOrder

# For each step its thread, which step of that thread it is, and whose steps had to come before.
Order = frozenset[tuple[int, int, tuple[int, ...]]]


class _Listener:
    """Hears what the operation of the running step returns."""

    operation: Operation | None = None

    def publish(self, thread: Thread) -> None: ...

    def step(self, thread: Thread, steps: int) -> None: ...

    def note(self, text: str) -> None: ...

    def claim(self, lock: object, what: str) -> None: ...

    def observe(self, view: View) -> None: ...

    def ended(self) -> None: ...

    def freeze(self) -> None: ...

    def outcome(self, value: object) -> None:
        if self.operation is not None:
            self.operation.value = value


def classes(program: Callable[[], object]) -> int:
    """How many classes the schedules of ``program`` fall into; none of them may fail."""
    return len(_collect(program, DepthFirst, None))


def sampled(program: Callable[[], object], strategy: str, schedules: int) -> set[Order]:
    """The classes that so many schedules of a strategy fall into; none may fail."""
    return _collect(program, strategy_named(strategy), schedules)


def explored(program: Callable[[], object]) -> set[Order]:
    """The classes that ``dpor`` explores, to its end; none may fail."""
    return _collect(program, Dpor, None)


def _collect(
    program: Callable[[], object], kind: type[Strategy], schedules: int | None
) -> set[Order]:
    """Run a strategy, and order each of its schedules that was not cut short."""
    orders: set[Order] = set()

    class Ordering(kind):  # type: ignore[valid-type, misc] # a class like any other
        name = "ordering"

        def begin(self, core: Core, schedule: int) -> Choose:
            self.at = core
            inner: Choose = super().begin(core, schedule)
            if isinstance(self, Dpor):
                self.partial = self.order
                return inner
            self.partial = PartialOrder()
            core.recorder = listener = _Listener()

            def choose() -> Thread:
                self.partial.end(core)
                thread = inner()
                listener.operation = self.partial.begin(core, thread)
                return thread

            return choose

        def backtrack(self) -> None:
            self.partial.end(self.at)
            if self.at.cut is None:
                orders.add(_order(self.partial))
            if hasattr(super(), "backtrack"):
                super().backtrack()

    known = dict(base._REGISTRY)
    register(Ordering)
    try:
        report = explore(
            program, "ordering", schedules=schedules, stop_at_first=False, twice_every=0
        )
    finally:
        base._REGISTRY.clear()
        base._REGISTRY.update(known)
    assert report.failure is None
    return orders


def _order(order: PartialOrder) -> Order:
    """The schedule as a partial order: two schedules of one class have the same."""
    ordinals: list[int] = []
    taken: dict[int, int] = {}
    for step in order.steps:
        ordinals.append(taken.get(step.thread, 0))
        taken[step.thread] = ordinals[-1] + 1
    return frozenset(
        (step.thread, ordinals[i], tuple(ordinals[n] if n >= 0 else -1 for n in step.clock))
        for i, step in enumerate(order.steps)
    )
