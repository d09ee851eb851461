"""From the events of one run in a lock log to the deadlocks that it could have had."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple, Protocol

from harness.lockorder.deadlocks import REFUTED, circle_of, named
from harness.lockorder.findings import EVERYBODY, EXCLUSIVE, SHARED, TIERS, Finding, Move, Witness
from harness.predict import Trace, predict
from harness.predict.judge import Prediction, held_since
from harness.predict.patterns import GUARDED, Pattern
from harness.predict.trace import ACQUIRE, JOIN, WAKE, Happening, Request
from harness.trace.events import Site, place_alone
from harness.trace.locklog import REFUSED, Event
from harness.trace.logwatch import (
    ANNOUNCED,
    BEGINNING,
    NO_SIGNALS,
    Before,
    Signals,
    Watch,
    wanted_at,
)

SIGNALLED_ELSEWHERE: Final = "elsewhere in the run another thread signals, too"

_ORDERED: Final = frozenset(("semaphore", "barrier"))
_TURNS: Final = frozenset(("sem-acquire", "barrier"))


class Names(Protocol):
    """What the numbers of a run mean."""

    def label(self, lock: int) -> str:
        """Name the class of a lock; the lock itself where it has none."""

    def instance(self, lock: int) -> str:
        """Name a lock or another object."""

    def type_of(self, obj: int) -> str:
        """Return the type of an object in lower case, as far as it is known."""

    def thread_name(self, tid: int) -> str:
        """Name a thread."""

    def place(self, event: Event) -> Site | None:
        """Return the place of an event."""


class Foretold(NamedTuple):
    """A deadlock that a run could have had.

    Attributes:
        finding: ``ORD002``, ``EVT001`` or ``EVT003``, of every tier but ``refuted``.
        patterns: How many it stands for.
        circle: The locks and signals of the circle.
        signals: What it takes for granted: an object, a thread that waits for its signal, and
            another one that alone gives it.
    """

    finding: Finding
    patterns: int
    circle: str
    signals: tuple[tuple[int, int, int], ...]


class Forecast(NamedTuple):
    """What the instance tier says of a run.

    Attributes:
        findings: Those that are alike once.
        dropped: Why which candidate is none, and how many of them.
    """

    findings: list[Foretold]
    dropped: dict[tuple[str, str], int]


def forecast(
    events: list[Event],
    names: Names,
    run: int,
    *,
    size_max: int,
    budget: int,
    before: Before = BEGINNING,
    whole: bool = True,
    signals: Signals = NO_SIGNALS,
) -> Forecast:
    """Predict the deadlocks of a run, or of a stretch of it.

    Args:
        events: In order; a stretch is as sound as the run, since what was before stays before.
        names: What their numbers mean.
        run: Index of the run.
        size_max: Longest circle of threads.
        budget: States that the exhaustive search may visit.
        before: What came before them.
        whole: They are the whole run.
        signals: Of the run up to here; see ``Watch``.
    """
    trace = _trace(events, names.type_of, before, signals)
    teller = _Teller(trace, names, run, before, _torn(events, before))
    outcome = predict(trace, teller.alike, size_max=size_max, budget=budget)
    dropped: dict[tuple[str, str], int] = {}
    findings = []
    for each in outcome.predictions:
        if each.tier == "refuted":
            # Of a stretch of a run not even an exhaustive search says that of all of it.
            said = REFUTED if whole else "not reached within the window"
            subject = (f"{said}: {each.reason}", teller.circle(each.pattern))
            dropped[subject] = dropped.get(subject, 0) + each.alike
        else:
            named_so = teller.circle(each.pattern)
            waits = teller.signals(each)
            findings.append(Foretold(teller.finding(each), each.alike, named_so, waits))
    for circle in outcome.dropped:
        guard = f" ({names.label(circle.guard)})" if circle.reason == GUARDED else ""
        subject = (f"{circle.reason}{guard}", teller.circle(circle.pattern))
        dropped[subject] = dropped.get(subject, 0) + 1
    if outcome.cut:
        dropped["more patterns than are judged", "the rest of a run"] = 1
    return Forecast(findings, dropped)


def together(forecasts: Sequence[Forecast]) -> Forecast:
    """Put together what stretches of one run say; what two of them share counts once."""
    found: dict[object, Foretold] = {}
    dropped: dict[tuple[str, str], int] = {}
    for each in forecasts:
        here: dict[object, int] = {}
        for foretold in each.findings:
            key = named(foretold.finding)
            here[key] = here.get(key, 0) + foretold.patterns
            known = found.get(key, foretold)
            surer = max(known, foretold, key=lambda one: TIERS.index(one.finding.tier))
            found[key] = surer._replace(patterns=max(here[key], known.patterns))
        for subject, count in each.dropped.items():
            dropped[subject] = max(count, dropped.get(subject, 0))
    return Forecast(list(found.values()), dropped)


def confirmed(forecast: Forecast, watch: Watch) -> Forecast:
    """Hold what a stretch says of signals against the whole run."""
    findings, dropped = [], dict(forecast.dropped)
    for each in forecast.findings:
        if watch.alone(each.signals):
            findings.append(each)
        else:
            subject = (SIGNALLED_ELSEWHERE, each.circle)
            dropped[subject] = dropped.get(subject, 0) + each.patterns
    return Forecast(findings, dropped)


def _torn(events: Sequence[Event], before: Before) -> set[int]:
    """Number the events of the last step before a stretch: it cannot go without them."""
    torn = set()
    for event in events:
        if event.ts > before.step:
            break
        if event.op in _PLAYS and event.op not in ANNOUNCED:
            torn.add(event.seq)
    return torn


def _trace(
    events: Sequence[Event],
    type_of: Callable[[int], str],
    before: Before,
    signals: Signals,
) -> Trace:
    """Build the trace of a run; the tag of each happening is its event."""
    trace = Trace()
    asked = dict(before.asked)
    if before.events:
        held = ((event.tid, event.obj, event.mode == "s", event) for event in before.held)
        start = events[0].seq if events else 0
        trace.resume(held, before.alive, {obj for obj, (at, _) in signals.items() if at < start})
    for event in events:
        play = _PLAYS.get(event.op)
        if play is not None:
            play(trace, event, asked, type_of)
    for tid, event in asked.items():
        if event.op == "req" and not _limited(event) and not (event.extra or {}).get(REFUSED):
            trace.wanted(tid, event.obj, event, shared=event.mode == "s")
    trace.close()
    return trace


def _limited(event: Event) -> bool:
    return event.op == "try" or bool(event.extra and event.extra.get("t"))


_Asked = dict[int, Event]
_TypeOf = Callable[[int], str]


def _ask(_: Trace, event: Event, asked: _Asked, __: _TypeOf) -> None:
    asked[event.tid] = event


def _acquire(trace: Trace, event: Event, asked: _Asked, _: _TypeOf) -> None:
    request = asked.pop(event.tid, None)
    limited = request is not None and request.obj == event.obj and _limited(request)
    event = wanted_at(event, request)
    trace.acquire(event.tid, event.obj, event, shared=event.mode == "s", limited=limited)


def _fail(trace: Trace, event: Event, asked: _Asked, _: _TypeOf) -> None:
    asked.pop(event.tid, None)
    trace.fail(event.tid, event.obj, event)


def _release(trace: Trace, event: Event, _: _Asked, __: _TypeOf) -> None:
    trace.release(event.tid, event.obj, event)


def _downgrade(trace: Trace, event: Event, _: _Asked, __: _TypeOf) -> None:
    trace.release(event.tid, event.obj, event)
    trace.acquire(event.tid, event.obj, event, shared=True, limited=True)


def _read(trace: Trace, event: Event, _: _Asked, __: _TypeOf) -> None:
    trace.read(event.tid, event.obj, event)


def _write(trace: Trace, event: Event, _: _Asked, type_of: _TypeOf) -> None:
    trace.write(event.tid, event.obj, event, update=type_of(event.obj) == "atomic")


def _sleep(trace: Trace, event: Event, _: _Asked, __: _TypeOf) -> None:
    if _what(event) in ("wait", "queue-block", ""):
        trace.sleep(event.tid, event.obj, event)


def _wake(trace: Trace, event: Event, _: _Asked, type_of: _TypeOf) -> None:
    what, limited = _what(event), _limited(event)
    if what == "event-wait" or type_of(event.obj) == "event":
        trace.saw_flag(event.tid, event.obj, event, limited=limited)
    elif what in _TURNS:
        trace.ordered(event.tid, event.obj, event)
    elif what in ("wait", "queue-block", ""):
        trace.wake(event.tid, event.obj, event, limited=limited)


def _signal(trace: Trace, event: Event, _: _Asked, type_of: _TypeOf) -> None:
    kind = type_of(event.obj)
    if kind == "event":
        trace.set_flag(event.tid, event.obj, event)
    elif kind in _ORDERED:
        trace.ordered(event.tid, event.obj, event)
    else:
        trace.signal(event.tid, event.obj, event)


def _fork(trace: Trace, event: Event, _: _Asked, __: _TypeOf) -> None:
    trace.fork(event.tid, event.obj, event)


def _join(trace: Trace, event: Event, _: _Asked, __: _TypeOf) -> None:
    trace.join(event.tid, event.obj, event, limited=_limited(event))


def _kill(trace: Trace, event: Event, _: _Asked, __: _TypeOf) -> None:
    trace.interrupt(event.tid, event.obj, event)


_Play = Callable[[Trace, Event, _Asked, _TypeOf], None]
_PLAYS: Final[dict[str, _Play]] = {
    "req": _ask,
    "try": _ask,
    "acq": _acquire,
    "fail": _fail,
    "rel": _release,
    "down": _downgrade,
    "r": _read,
    "w": _write,
    "wait": _sleep,
    "wake": _wake,
    "sig": _signal,
    "bcast": _signal,
    "fork": _fork,
    "join": _join,
    "kill": _kill,
}


def _what(event: Event) -> str:
    what = event.extra.get("what", "") if event.extra else ""
    return what if isinstance(what, str) else ""


def _rule(events: Sequence[Happening]) -> str:
    """Name the rule of a circle by what its threads wait for."""
    kinds = {event.kind for event in events}
    return "EVT003" if JOIN in kinds else "EVT001" if WAKE in kinds else "ORD002"


class _Teller:
    """Says of patterns what a report needs."""

    def __init__(
        self, trace: Trace, names: Names, run: int, before: Before, torn: set[int]
    ) -> None:
        """Begin with the trace of a run.

        Args:
            trace: Of the run, or of a stretch of it.
            names: What its numbers mean.
            run: Its index.
            before: What came before that stretch.
            torn: Sequence numbers of its first events, where it begins within a step.
        """
        self._before = before
        self._torn = torn
        self._trace = trace
        self._names = names
        self._run = run

    def circle(self, pattern: Pattern) -> str:
        """Name the locks of a circle."""
        return circle_of([self._wanted(request) for request in pattern])

    def alike(self, pattern: Pattern) -> Any:
        """Name a pattern by classes and places, whatever thread comes first."""
        steps = []
        for request in pattern:
            site = self._names.place(self._trace.requests[request][0].tag)
            steps.append((self._wanted(request), request.shared, repr(place_alone(site))))
        start = steps.index(min(steps))
        return tuple(steps[start:] + steps[:start])

    def finding(self, prediction: Prediction) -> Finding:
        """Describe a prediction, beginning with the least class that is held."""
        pattern, events = prediction.pattern, prediction.events
        before = (pattern[-1], *pattern[:-1])
        edges = [
            self._witness(request, event, waiting)
            for request, event, waiting in zip(pattern, events, before, strict=True)
        ]
        start = min(range(len(edges)), key=lambda i: (edges[i].outer, edges[i].thread))
        classes = [self._wanted(waiting) for waiting in before]
        edges, classes = edges[start:] + edges[:start], classes[start:] + classes[:start]
        who = ", ".join(edge.thread for edge in edges)
        could = "can end" if prediction.tier == "predicted" else "may end"
        return Finding(
            rule=_rule(events),
            result="Deadlock",
            tier=prediction.tier,
            message=f"{who} {could} waiting for each other",
            classes=tuple(classes),
            edges=tuple(edges),
            schedule=self._run,
            thread=edges[0].thread,
            proof=self._proof(prediction),
            scenario=tuple(self._moves(prediction)),
            legs=self._legs(prediction),
            last=tuple(self._trace.threads[request.thread] for request in pattern),
        )

    def _witness(self, request: Request, event: Happening, waiting: Request) -> Witness:
        """Describe a request, and the lock that the one before it waits for."""
        names, held = self._names, dict(request.held)
        kept = waiting.lock if waiting.lock in held else None
        since = None if kept is None else held_since(self._trace, event, kept)
        return Witness(
            outer="" if kept is None else names.label(kept),
            inner=self._wanted(request),
            outer_mode=SHARED if kept is not None and held[kept] else EXCLUSIVE,
            inner_mode=SHARED if request.shared else EXCLUSIVE,
            outer_site=None if since is None else names.place(since.tag),
            inner_site=names.place(event.tag),
            thread=self._thread(request.thread),
            schedule=self._run,
            outer_address=kept or 0,
            inner_address=request.lock or 0,
            guards=tuple(held),
        )

    def _proof(self, prediction: Prediction) -> str:
        """Say why nothing rules the deadlock out."""
        held = " / ".join(
            "{" + ", ".join(self._names.instance(lock) for lock, _ in request.held) + "}"
            for request in prediction.pattern
        )
        said = f"different threads; no common guard (held {held}); {prediction.reason}"
        if prediction.schedule:
            count = sum(self._trace.events[at].tag is not None for at in prediction.schedule)
            said += f"; witness of {count} events"
            if self._before.events:
                said += f", as the run goes on behind its first {self._before.events:,}"
        return said

    def _moves(self, prediction: Prediction) -> list[Move]:
        """List what the threads of the circle do at last: take what they hold, then wait."""
        trace, names = self._trace, self._names
        moves: list[tuple[int, Move]] = []
        pattern, events = prediction.pattern, prediction.events
        for request, event in zip(pattern, events, strict=True):
            for lock, _ in request.held:
                taken = held_since(trace, event, lock)
                if taken is not None:
                    index = trace.lanes[taken.thread][taken.position - 1]
                    what = f"lock({names.label(lock)} {names.instance(lock)})"
                    moves.append((index, Move(self._thread(taken.thread), what)))
        order = {index: at for at, index in enumerate(prediction.schedule)}
        moves.sort(key=lambda item: order.get(item[0], item[0]))
        following = (*pattern[1:], pattern[0])
        for request, event, other in zip(pattern, events, following, strict=True):
            what = self._wanted(request)
            if request.lock is not None:
                what = f"lock({what} {names.instance(request.lock)})"
            move = Move(self._thread(event.thread), what, self._thread(other.thread))
            moves.append((0, move))
        return [move for _, move in moves]

    def _legs(self, prediction: Prediction) -> tuple[tuple[int, int], ...]:
        """Tell how far each thread goes, in turns, up to the requests at last."""
        if prediction.tier != "predicted":
            return ()
        tags = (self._trace.events[index].tag for index in prediction.schedule)
        happened = [tag for tag in tags if tag is not None]
        stops = [(event.tid, int(event.ts)) for event in happened]
        stops += [(each.tag.tid, int(each.tag.ts) - 1) for each in prediction.events]
        if self._torn - {event.seq for event in happened}:
            return ()
        legs = [(EVERYBODY, int(self._before.step))] if self._before.events else []
        for tid, step in stops:
            if legs and legs[-1][0] == tid:
                legs.pop()
            legs.append((tid, step))
        return tuple(legs)

    def signals(self, prediction: Prediction) -> tuple[tuple[int, int, int], ...]:
        """List the signals that it waits for; see ``Foretold``."""
        threads = self._trace.threads
        return tuple(
            (event.obj, threads[event.thread], threads[request.provider])
            for request, event in zip(prediction.pattern, prediction.events, strict=True)
            if event.kind == WAKE
        )

    def _thread(self, dense: int) -> str:
        return self._names.thread_name(self._trace.threads[dense])

    def _wanted(self, request: Request) -> str:
        """Name what a request waits for."""
        if request.lock is not None:
            return self._names.label(request.lock)
        event = self._trace.requests[request][0]
        provider = self._thread(request.provider)
        if event.kind == JOIN:
            return f"the end of {provider}"
        assert event.kind != ACQUIRE
        return f"{self._names.instance(event.obj)}, signalled by {provider}"
