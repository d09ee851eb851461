"""Injected faults that a finding does not need: it is shown without them.

Every fault of the plan is left out in turn, the last one first. What is left must still fail in the
same way: in the schedule of the same number (where the fault never struck, that is the same
schedule), or in one of the first few. A drawn program is given instead of drawn, so that it is the
same one in all of them. Like all else here, a function of the seed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from harness.explore import Failure, Setup, explore_part
from harness.strategies import strategy_named
from stress.catalogue import RANGE, Context, Spec, find, plan_of, program_of

# Schedules that may be run for each fault that is left out.
SCHEDULES_MAX: Final = 200


@dataclass(frozen=True, slots=True)
class Needed:
    """A finding with the faults that it needs.

    Attributes:
        spec: With those faults alone, each at one occurrence.
        failure: Of that spec.
        dropped: The others, as they are written.
    """

    spec: Spec
    failure: Failure
    dropped: tuple[str, ...] = ()


def drop(spec: Spec, setup: Setup, failure: Failure) -> Needed:
    """Leave out of ``spec`` what ``failure`` does not need.

    Args:
        spec: The program that failed; a mutant that it names is planted.
        setup: What decided its schedules; what ran free is searched under control.
        failure: In one of these.
    """
    from model.faults import NONE

    entry = find(spec.scenario)
    plan = plan_of(spec, entry, failure.schedule)
    best = Needed(spec, failure)
    ranges = RANGE in (spec.faults or entry.faults)
    if plan.faults:
        spec = _given(spec, failure.schedule)
    if ranges:
        # First of all the very occurrences that struck.
        exact = replace(spec, faults=str(plan))
        again = _failing_alike(exact, setup, failure)
        best = best if again is None else Needed(exact, again)
    for index in reversed(range(len(plan.faults))):
        fewer = plan.without(index)
        left = replace(spec, faults=str(fewer) or NONE)
        again = _failing_alike(left, setup, failure)
        if again is not None:
            fault = str(type(fewer)((plan.faults[index],)))
            best = Needed(left, again, (*best.dropped, fault))
            plan = fewer
    return best


def _given(spec: Spec, schedule: int) -> Spec:
    """With the program that one schedule draws, as its parameter; as it is where none is drawn."""
    entry = find(spec.scenario)
    if entry.drawing is None:
        return spec
    context = Context(spec, entry)
    text = entry.drawing.drawn(context, context.seed_of(schedule))
    params = dict(spec.params) | {entry.drawing.param: text}
    return replace(spec, params=tuple(params.items()), draw=0)


def _failing_alike(spec: Spec, setup: Setup, failure: Failure) -> Failure | None:
    program = program_of(spec)
    setup = replace(setup, meta=spec.meta(), stop_at_first=False, mode="controlled")
    number = failure.schedule
    if strategy_named(setup.strategy).sequential:
        spans = [(1, SCHEDULES_MAX)]
    else:
        spans = [(number, number), (1, SCHEDULES_MAX)]
    for first, last in spans:
        part = explore_part(program, setup, first, last, worker=0)
        for found in part.failures:
            if found.fingerprint == failure.fingerprint:
                return found.attach(program)
    return None
