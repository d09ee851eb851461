"""From a trace to predictions, each with its tier and its proof."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice, product
from math import prod
from typing import Any, Final, NamedTuple

from harness.predict.closure import Order, can_deadlock, plan
from harness.predict.patterns import Dropped, Pattern, Patterns
from harness.predict.search import Search
from harness.predict.trace import ACQUIRE, Happening, Trace

SIZE_MAX: Final = 4
BUDGET: Final = 20_000
PATTERNS_MAX: Final = 20_000
_CHOICES_MAX: Final = 8  # combinations of occasions that the exhaustive search tries

SYNC_PRESERVING: Final = "keeps every lock's critical sections in their order"
REORDERED: Final = "found by the exhaustive search: critical sections change places"
NOT_DECIDED: Final = "not decided: the exhaustive search ran out of its budget"
ORDERED: Final = "one of the requests always precedes another (forks, joins, signals, data)"
NO_REORDERING: Final = "no reordering reaches it: searched exhaustively"


class Prediction(NamedTuple):
    """What was found out about a pattern, or about several that are alike.

    Attributes:
        tier: ``predicted``, ``possible`` or ``refuted``.
        reason: Why it has that tier.
        pattern: The requests, each blocked by the next one's thread.
        events: One occasion of each request.
        schedule: Indexes of the events to happen first, in order; empty unless ``predicted``.
        alike: How many patterns are named alike.
    """

    tier: str
    reason: str
    pattern: Pattern
    events: tuple[Happening, ...]
    schedule: tuple[int, ...]
    alike: int


class Outcome(NamedTuple):
    """All that one run gives.

    Attributes:
        predictions: Those that are alike once, in the order of their first pattern.
        dropped: Circles of two requests that are no pattern.
        cut: Whether there were more than ``PATTERNS_MAX`` patterns, more to search than
            ``patterns.PATHS_MAX`` waits, or a request beyond ``trace.HELD_MAX`` locks.
    """

    predictions: list[Prediction]
    dropped: list[Dropped]
    cut: bool


_RANK: Final = {"refuted": 0, "possible": 1, "predicted": 2}


def predict(
    trace: Trace,
    alike: Callable[[Pattern], Any] | None = None,
    *,
    size_max: int = SIZE_MAX,
    budget: int = BUDGET,
) -> Outcome:
    """Judge every deadlock pattern of a run.

    Args:
        trace: Of the run, closed.
        alike: Names a pattern; of those with the same name, one that is predicted stands for all.
        size_max: Longest circle.
        budget: States that the exhaustive search may visit for one name; 0 leaves it out.
    """
    patterns = Patterns(list(trace.requests), size_max)
    found: dict[Any, Prediction] = {}
    order: Order | None = None
    number = 0
    left: dict[Any, int] = {}
    for number, pattern in enumerate(islice(patterns, PATTERNS_MAX + 1), 1):
        if number > PATTERNS_MAX:
            break
        order = order or Order(trace)
        name = pattern if alike is None else alike(pattern)
        known = found.get(name)
        if known is not None and known.tier == "predicted":
            found[name] = known._replace(alike=known.alike + 1)
            continue
        judged, left[name] = _judge(order, pattern, left.get(name, budget))
        if known is not None:
            better = max(known, judged, key=lambda each: _RANK[each.tier])
            judged = better._replace(alike=known.alike + 1)
        found[name] = judged
    dropped = list(patterns.dropped())
    cut = number > PATTERNS_MAX or patterns.cut or trace.cut
    return Outcome(list(found.values()), dropped, cut)


def _judge(order: Order, pattern: Pattern, budget: int) -> tuple[Prediction, int]:
    """Judge one pattern; return what is left of the budget too."""
    trace = order.trace
    heads = [trace.requests[request] for request in pattern]
    first = tuple(head[0] for head in heads)
    closed = can_deadlock(order, heads)
    if closed is not None:
        events, inside = closed
        schedule = tuple(plan(trace, inside))
        return Prediction("predicted", SYNC_PRESERVING, pattern, events, schedule, 1), budget
    ordered = True
    for choice in islice(product(*heads), _CHOICES_MAX):
        if _ordered(order, choice):
            continue
        ordered = False
        if budget <= 0:
            break
        path, budget = Search(order, choice).run(budget)
        if path is not None:
            return Prediction("predicted", REORDERED, pattern, choice, tuple(path), 1), budget
    if (budget <= 0 and not ordered) or prod(map(len, heads)) > _CHOICES_MAX:
        return Prediction("possible", NOT_DECIDED, pattern, first, (), 1), budget
    reason = ORDERED if ordered else NO_REORDERING
    return Prediction("refuted", reason, pattern, first, (), 1), budget


def _ordered(order: Order, choice: tuple[Happening, ...]) -> bool:
    """Tell whether one of the requests must have been granted before another can be made."""
    inside = [0] * order.width
    for event in choice:
        order.join_before(inside, event)
    return any(inside[event.thread] >= event.position for event in choice)


def held_since(trace: Trace, event: Happening, lock: int) -> Happening | None:
    """Find where the thread of an event had acquired a lock that it holds there."""
    lane = trace.lanes[event.thread]
    for index in reversed(lane[: event.position - 1]):
        before = trace.events[index]
        if before.kind == ACQUIRE and before.obj == lock:
            return before
    return None
