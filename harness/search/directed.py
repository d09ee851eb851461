"""Running a schedule that was worked out elsewhere: who goes how far, and in which order.

A deadlock that is predicted from a lock log comes with such a route. Whether the program follows it
is for the run to say: what was not logged (plain data, time) may stand in the way.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from harness.engine.core import CORE, Choose, Core
from harness.engine.thread import Thread
from harness.lockorder.findings import EVERYBODY
from harness.search.recording import (
    Failure,
    finding_of,
    key_of,
    order_key,
    record,
    record_schedule,
)
from harness.search.setup import Program, Setup
from harness.search.stage import Stage
from harness.strategies.base import deciding
from harness.trace.events import Step

Leg = tuple[int, int]
"""A thread, or ``EVERYBODY``, and the step of the known schedule up to which it goes."""


def reach(
    program: Program, setup: Setup, schedule: int, legs: Sequence[Leg], last: Sequence[int]
) -> Failure | None:
    """Run a program along a route, and return the deadlock at its end.

    Args:
        program: As for ``explore``.
        setup: What decided the schedule that the route was derived from.
        schedule: Its number.
        legs: The route, leg by leg, in the steps of that schedule.
        last: The threads that are to block each other at the end.

    Returns:
        None where the route does not end in a deadlock.

    Raises:
        UsageError: The schedule cannot be run again by its number.
    """
    _, story = record_schedule(program, setup, schedule)
    steps: dict[int, list[int]] = {}
    for step in story.steps:
        steps.setdefault(step.thread, []).append(step.step)
    route: list[Leg] = []
    for thread, upto in legs:
        if thread == EVERYBODY:
            route += _as_they_went(story.steps, upto)
        else:
            route.append((thread, bisect_right(steps.get(thread, []), upto)))
    failure = _along(program, setup, schedule, route, last)
    if failure is None and not setup.early_timeouts:
        # What timed out on the way did so when nothing else could go on; here it may do so before.
        early = replace(setup, early_timeouts=True)
        failure = _along(program, early, schedule, route, last)
    return failure


def _as_they_went(steps: Sequence[Step], upto: int) -> list[Leg]:
    """The legs of a schedule itself, up to one of its steps."""
    done: dict[int, int] = {}
    legs: list[Leg] = []
    for step in steps:
        if step.step > upto:
            break
        done[step.thread] = count = done.get(step.thread, 0) + 1
        if legs and legs[-1][0] == step.thread:
            legs.pop()
        legs.append((step.thread, count))
    return legs


def _along(
    program: Program, setup: Setup, schedule: int, route: list[Leg], last: Sequence[int]
) -> Failure | None:
    """Run along a route once."""
    with Stage(setup.hang_seconds, control=setup.control) as stage:
        begin = partial(_begin, route, tuple(last))
        recording = record(stage, program, setup, schedule, begin, [], film=False)
        if recording.cut in ("interrupted", "hang"):
            return None
        finding = finding_of(CORE, setup, fair=False)
        if finding is None or finding.kind not in ("deadlock", "lost-wakeup"):
            return None
        key = order_key(finding.order) if finding.order is not None else key_of(finding)
        return recording.made(finding, key, setup, schedule).attach(program)


def _begin(route: list[Leg], last: tuple[int, ...], core: Core) -> Choose:
    """Choose along the route; off it, whoever still has a way to go."""
    done: dict[int, int] = {}
    goal = dict(route)  # the farthest that each thread goes: its last leg
    at = 0

    def pick(enabled: list[Thread]) -> Thread:
        nonlocal at
        while at < len(route) and done.get(route[at][0], 0) >= route[at][1]:
            at += 1
        wanted = route[at][0] if at < len(route) else -1
        for thread in enabled:
            if thread.index == wanted:
                return thread
        under_way = [t for t in enabled if done.get(t.index, 0) < goal.get(t.index, 0)]
        closing = [t for t in enabled if t.index in last]
        return (under_way or closing or enabled)[0]

    inner = deciding(core, pick)

    def choose() -> Thread:
        thread = inner()
        done[thread.index] = done.get(thread.index, 0) + 1
        return thread

    return choose
