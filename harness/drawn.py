"""Schedules that Hypothesis draws, and so shrinks beside everything else that a test draws.

A test draws its operations as Hypothesis tests do, and a ``Schedule``; the program of these
operations runs once under it. Where that fails, Hypothesis looks for fewer and smaller operations
and for fewer and earlier preemptions at the same time.

This is the one module that imports Hypothesis.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from hypothesis import reject
from hypothesis import strategies as st

from harness.engine.core import Choose, Core
from harness.engine.thread import Thread
from harness.errors import ScheduleFailure, UsageError
from harness.patch.install import active as patches_active
from harness.search.recording import Failure, key_of, order_key, record
from harness.search.setup import PATCH, Program, Setup, runnable, whole
from harness.search.stage import Stage
from harness.strategies.base import deciding
from harness.strategies.replay import default_order

DEVIATIONS_MAX: Final = 4
DISTANCE_MAX: Final = 40
# More other threads than that can seldom run at once; the last one stands for the rest.
OTHERS_MAX: Final = 3
# The steps of a short operation: a lock, some accesses, and out again.
NEARBY: Final = 10


class Schedule:
    """One way to decide: the running thread goes on, but for a few deviations.

    A decision is a step at which more than one thread can run. The *default* lets the thread that
    ran last go on (of several that start together, the last); where it cannot, the one that was
    created first. A *deviation* is ``(after, other)``: after so many decisions by default take the
    ``other``-th of the other threads, from 1 in the order of their creation, the last of them where
    there are fewer. Behind the last deviation everything goes by default. So any deviations fit any
    program, and fewer and smaller ones are simpler.

    Attributes:
        deviations: In their order.
    """

    __slots__ = ("deviations",)

    def __init__(self, *deviations: tuple[int, int]) -> None:
        """Take the deviations.

        Raises:
            UsageError: One is no pair of a number from 0 and a number from 1.
        """
        for deviation in deviations:
            match deviation:
                case (int(after), int(other)) if after >= 0 and other >= 1:
                    continue
            raise UsageError(
                "a deviation is (decisions before it, from 0; which other thread, from 1), "
                f"got {deviation!r}"
            )
        self.deviations = deviations

    def __repr__(self) -> str:
        """As it is written in ``@example``."""
        return f"Schedule({', '.join(map(str, self.deviations))})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Schedule) and self.deviations == other.deviations

    def __hash__(self) -> int:
        return hash(self.deviations)

    def run(
        self,
        program: Program,
        *,
        nearby: int = NEARBY,
        steps_max: int = 20_000,
        races: bool = False,
        patch: bool = False,
        hang_seconds: float = 5.0,
    ) -> None:
        """Run ``program`` under this schedule, and under some whose last deviation is earlier.

        An operation that Hypothesis takes away brings all that follows nearer, the step at which
        the failure needs its preemption too. So what passes is tried again with the last deviation
        up to ``nearby`` decisions earlier; one behind the end counts from the end.

        Args:
            program: As for ``explore``.
            nearby: 0 for exactly this schedule; best as many as an operation has steps.
            steps_max: As for ``explore``; a schedule that gets there says nothing.
            races: As for ``explore``.
            patch: As for ``explore``.
            hang_seconds: As for ``explore``.

        Raises:
            ScheduleFailure: It fails; of one type for each kind of failure, from the program's own
                error where there is one, so that Hypothesis tells them apart while it shrinks.
            UsageError: The program misused a primitive, or blocks in something uncontrolled.
        """
        control = (PATCH,) if patch or patches_active() else ()
        setup = Setup(
            "random",
            steps_max=steps_max,
            hang_seconds=hang_seconds,
            races=races,
            control=control,
            twice_every=0,
        )
        runnable(program)
        whole("nearby", nearby)
        setup.check()
        with Stage(hang_seconds, control=control) as stage:
            failure, error = _searched(stage, program, setup, self.deviations, nearby)
        if failure is not None:
            kind = _TYPES.setdefault(failure.kind, type(_name(failure.kind), _BASES, {}))
            failure.attach(program)
            raise kind(failure, failure.command()) from error


def _searched(
    stage: Stage,
    program: Program,
    setup: Setup,
    deviations: Sequence[tuple[int, int]],
    nearby: int,
) -> tuple[Failure | None, BaseException | None]:
    """The failure of these deviations, or with the last of them earlier; and its error."""
    while True:
        failure, error, decisions = _once(stage, program, setup, partial(_begin, deviations))
        if failure is not None or not deviations or not nearby:
            return failure, error
        *before, (after, other) = deviations
        beyond = sum(each + 1 for each, _ in deviations) - decisions
        if beyond > 0:
            # It lies behind the end: the last decision is the first where it changes anything.
            after -= beyond
        else:
            after -= 1
            nearby -= 1
        if after < 0:
            return None, None
        deviations = [*before, (after, other)]


def _begin(deviations: Sequence[tuple[int, int]], core: Core) -> Choose:
    """What decides one schedule."""
    left = iter(deviations)
    after, other = next(left, (-1, 0))

    def pick(enabled: list[Thread]) -> Thread:
        nonlocal after, other
        order = default_order(core, enabled)
        if after:
            after -= 1
            return order[0]
        thread = order[min(other, len(order) - 1)]
        after, other = next(left, (-1, 0))
        return thread

    return deciding(core, pick)


_TYPES: Final[dict[str, type[ScheduleFailure]]] = {}
_BASES: Final = (ScheduleFailure,)


def _name(kind: str) -> str:
    """Of the type that is raised: ``LostWakeupFailure`` for ``lost-wakeup``."""
    return "".join(map(str.capitalize, kind.split("-"))) + "Failure"


def _once(
    stage: Stage, program: Program, setup: Setup, begin: Callable[[Core], Choose]
) -> tuple[Failure | None, BaseException | None, int]:
    """Run one schedule; where it fails, twice more with everything recorded.

    Returns:
        Its failure, if it has one, the error behind that, and the number of its decisions.

    Raises:
        KeyboardInterrupt: Ctrl-C.
        UsageError: A thread blocks in something uncontrolled.
    """
    core, _ = stage.run(program, setup.rules(), setup.limits(), begin, 1)
    if core.cut == "interrupted":
        raise KeyboardInterrupt
    if core.cut == "hang":
        name, stacks = stage.pool.hung or ("a thread", "")
        raise UsageError(f"{name} blocks in something the harness does not control\n{stacks}")
    if core.cut == "bound":
        # Who goes on by default may spin for ever: that is no finding, and no pass either.
        reject()
    finding, orders = core.finding, core.rules.findings
    if finding is None and not orders:
        return None, None, len(core.choices)
    error = None if finding is None else finding.error
    recordings = [record(stage, program, setup, 1, begin, []) for _ in range(2)]
    if finding is None:
        order = orders[0]
        return recordings[0].order_failure(order, order_key(order), setup), None, 0
    key = key_of(finding) if finding.order is None else order_key(finding.order)
    return recordings[0].failure(finding, key, setup, 1, recordings[1]), error, 0


def schedules(
    *, deviations: int = DEVIATIONS_MAX, distance: int = DISTANCE_MAX
) -> st.SearchStrategy[Schedule]:
    """A Hypothesis strategy for schedules; they shrink to fewer, then to earlier deviations.

    Args:
        deviations: At most so many; few suffice for most bugs.
        distance: At most so many decisions from one to the next; about the length of the program.

    Raises:
        UsageError: One of them is less than 1.
    """
    whole("deviations", deviations)
    whole("distance", distance)
    if deviations < 1 or distance < 1:
        raise UsageError(
            f"deviations and distance must be at least 1, got {deviations} and {distance}"
        )
    one = st.tuples(st.integers(0, distance), st.integers(1, OTHERS_MAX))
    return st.lists(one, max_size=deviations).map(lambda drawn: Schedule(*drawn))
