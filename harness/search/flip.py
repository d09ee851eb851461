"""The one pair of steps whose order decides between the failing schedule and one that passes.

A failing and a passing schedule are brought together until they differ in one exchange of two
neighbouring steps: first the longest beginning of the failing one is looked for after which going
on like the passing one still passes, then how far the next step can be put off. Every schedule on
the way is run, so the pair is a fact of two runs, not a deduction.

Reference: the search of Hermit's ``analyze`` (bisection between a passing and a failing schedule).
We depart from it in that the second bisection is over steps, not over branch counts.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from harness.search.attempts import Attempt, Attempts
from harness.trace.events import Step, Story
from harness.trace.interleaving import place

# Rows of the picture before and after the pair.
_BEFORE: Final = 2
_AFTER: Final = 5
# Columns of a place in the table of the two orders.
_PLACE_MIN: Final = 12
_PLACE_MAX: Final = 24


@dataclass(frozen=True)
class Flip:
    """Two steps, next to each other, that decide.

    Attributes:
        first: In the failing schedule this comes first,
        second: and then this; the passing one has them the other way round.
        failing: All steps of the failing schedule.
        passing: All steps of the passing one.
        at: Steps that both have in common before the pair.
        passes: The other order passes; False where it fails in another way.
        stories: Both schedules, recorded in full: the failing one, the passing one.
    """

    first: Step
    second: Step
    failing: tuple[Step, ...]
    passing: tuple[Step, ...]
    at: int
    passes: bool
    stories: tuple[Story, Story]


def flipped(attempts: Attempts, failing: Attempt) -> Flip | None:
    """Find the pair.

    Args:
        attempts: Where ``failing`` was found; a passing schedule among its attempts is the other
            end.
        failing: The schedule to explain.

    Returns:
        The pair, or None where nothing that was run passes.

    Raises:
        SpentError: The budget is spent.
    """
    passing = _nearest(failing.order, attempts.passing)
    if passing is None:
        return None
    ends = _closer(attempts, failing, passing)
    return None if ends is None else _pair(attempts, *ends)


def _nearest(order: Sequence[int], passing: dict[tuple[int, ...], None]) -> tuple[int, ...] | None:
    """The passing schedule that has the longest beginning in common with ``order``."""
    return max(passing, key=lambda other: _common(order, other), default=None)


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many elements are equal at the beginning."""
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(one, other)))  # noqa: B905


def _closer(
    attempts: Attempts, failing: Attempt, passing: tuple[int, ...]
) -> tuple[Attempt, Attempt] | None:
    """A failing and a passing schedule that differ in one exchange."""
    known: dict[int, Attempt] = {}

    def like_failing(count: int) -> bool:
        """Whether the failing beginning, then the passing way, fails."""
        order = [*failing.order[:count], *_rest(passing, failing.order[:count])]
        known[count] = attempts.order(order)
        return known[count].fails

    begin, end = _common(failing.order, passing), len(failing.order)
    if like_failing(begin) or not like_failing(end):
        return None
    count = _boundary(begin, end, like_failing)
    base = known[count].order
    thread = failing.order[count]
    place = next((at for at in range(count, len(base)) if base[at] == thread), len(base))
    tried: dict[int, Attempt] = {}

    def put_off(last: int) -> bool:
        """Whether it passes with the deciding step at place ``last`` of the passing schedule."""
        rest = [*base[count:place], *base[place + 1 :]]
        order = [*base[:count], *rest[: last - count], thread, *rest[last - count :]]
        tried[last] = attempts.order(order)
        return not tried[last].fails

    if put_off(count) or not put_off(place):
        return None
    last = _boundary(count, place, put_off)
    return tried[last], tried[last + 1]


def _rest(order: Sequence[int], taken: Sequence[int]) -> list[int]:
    """What is left of ``order`` once each thread has taken its steps of ``taken``."""
    own: dict[int, int] = {}
    for thread in taken:
        own[thread] = own.get(thread, 0) + 1
    left: list[int] = []
    for thread in order:
        if own.get(thread, 0):
            own[thread] -= 1
        else:
            left.append(thread)
    return left


def _boundary(low: int, high: int, holds: Callable[[int], bool]) -> int:
    """Some n from ``low`` on with ``holds(n + 1)`` and not ``holds(n)``; it does not at ``low``."""
    while high - low > 1:
        middle = (low + high) // 2
        if holds(middle):
            high = middle
        else:
            low = middle
    return low


def _pair(attempts: Attempts, failing: Attempt, passing: Attempt) -> Flip | None:
    """What was exchanged, with names and places."""
    stories = attempts.story(failing), attempts.story(passing)
    bad, good = stories[0].steps, stories[1].steps
    at = _common(failing.order, passing.order)
    if at >= min(len(bad), len(good)):
        return None
    first, second = bad[at], good[at]
    return Flip(first, second, bad, good, at, passing.passes, stories)


def side_by_side(flip: Flip, width: int = 100) -> list[str]:
    """The failing and the passing order beside each other, from a little before the pair.

    Args:
        flip: The pair with both schedules.
        width: The most columns of a line.
    """
    ending = "passes" if flip.passes else "fails in another way"
    column = (width - 9) // 2
    begin = max(0, flip.at - _BEFORE)
    lines = [f"step  {'this order fails':{column}} this order {ending}"]
    for at in range(begin, flip.at + 2 + _AFTER):
        left = _line(flip.failing, at, column - 1)
        right = _line(flip.passing, at, column)
        if not left and not right:
            break
        mark = "*" if at in (flip.at, flip.at + 1) else " "
        lines.append(f"{at + 1:4} {mark}{left:{column}} {right}".rstrip())
    return lines


def _line(steps: Sequence[Step], at: int, room: int) -> str:
    """One step: thread, operation, place, of which the line number is kept where room is short."""
    if at >= len(steps):
        return ""
    step = steps[at]
    text = f"{step.name}  {operation(step)}"
    where = ""
    if step.site is not None:
        left = max(room - len(text) - 2, _PLACE_MIN)
        where = "  " + place(step.site, min(left, _PLACE_MAX))
    room -= len(where)
    return (text if len(text) <= room else f"{text[: room - 1]}…") + where


def operation(step: Step) -> str:
    """Operation and object of a step."""
    text = step.kind if step.obj in ("", "-") else f"{step.kind} {step.obj}"
    return text if step.outcome in ("", "None") else f"{text} → {step.outcome}"
