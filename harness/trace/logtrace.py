"""From the events of one run in a lock log to the deadlocks that it could have had."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol

import msgspec

from harness.lockorder.deadlocks import REFUTED, circle_of, named
from harness.lockorder.findings import EXCLUSIVE, SHARED, TIERS, Finding, Move, Witness
from harness.predict import Trace, predict
from harness.predict.judge import Prediction, held_since
from harness.predict.patterns import GUARDED, Pattern
from harness.predict.trace import ACQUIRE, JOIN, WAKE, Happening, Request
from harness.trace.events import Site, place_alone
from harness.trace.locklog import REFUSED, Event

_ORDERED: Final = frozenset(("semaphore", "barrier"))
_SELDOM: Final = frozenset(("try", "fail", "join", "wake", "down", "fork", "exit"))
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


class Forecast(NamedTuple):
    """What the instance tier says of a run.

    Attributes:
        findings: ``ORD002``, ``EVT001`` and ``EVT003`` of every tier but ``refuted``, and how many
            patterns each stands for.
        dropped: Why which candidate is none, and how many of them.
    """

    findings: list[tuple[Finding, int]]
    dropped: dict[tuple[str, str], int]


class Before(NamedTuple):
    """What the events of a run have led to: where those that follow begin.

    Attributes:
        held: The acquisition of each lock that is held, by thread and outermost first.
        asked: What each thread wants, and has neither got nor given up.
        alive: Threads that have begun and not ended, ascending.
        events: How many there were.
    """

    held: tuple[Event, ...] = ()
    asked: Mapping[int, Event] = {}
    alive: tuple[int, ...] = ()
    events: int = 0


BEGINNING: Final = Before()


class Watch:
    """Watches the events of a run go by: can it have a pattern at all, and what do threads hold?

    Most runs have none, and to see that is much faster than to look for one. A pattern is a circle
    in the graph of locks wanted while others are held, or it contains a wait for a thread with a
    lock held.

    Attributes:
        events: How many there were.
    """

    def __init__(self) -> None:
        """Nothing has happened."""
        self.events = 0
        self._held: dict[int, list[Event]] = {}
        self._asked: dict[int, Event] = {}
        self._forked: dict[int, None] = {}
        self._ended: dict[int, None] = {}
        self._wants: dict[int, dict[int, None]] = {}
        self._waits = self._circles = False
        self._edges = 0  # of the graph when it was last searched

    def may_circle(self) -> bool:
        """Tell whether there can be a pattern so far."""
        edges = sum(map(len, self._wants.values()))
        if not self._circles and edges > self._edges:
            self._circles, self._edges = _has_circle(self._wants), edges
        return self._waits or self._circles

    def now(self, begun: Iterable[int]) -> Before:
        """Tell where things stand.

        Args:
            begun: Threads that had an event.
        """
        held = (taken for _, mine in sorted(self._held.items()) for taken in mine)
        alive = {*begun, *self._forked} - {*self._ended}
        return Before(tuple(held), dict(self._asked), tuple(sorted(alive)), self.events)

    def add(self, events: Sequence[Event]) -> None:
        """Let further events go by."""
        held, asked = self._held, self._asked
        self.events += len(events)
        for event in events:
            op = event.op
            if op == "req":
                asked[event.tid] = event
                mine = held.get(event.tid)
                if mine:
                    self._want(mine, event.obj)
            elif op == "acq":
                request = asked.pop(event.tid, None)
                mine = held.get(event.tid)
                if mine is None:
                    mine = held[event.tid] = []
                if request is None or request.obj != event.obj:
                    self._want(mine, event.obj)
                mine.append(_wanted_at(event, request))
            elif op == "rel":
                mine = held.get(event.tid)
                if mine and mine[-1].obj == event.obj:
                    mine.pop()
                elif mine:
                    _let_go(mine, event.obj)
            elif op in _SELDOM:
                self._seldom(event)

    def _want(self, mine: list[Event], obj: int) -> None:
        wants = self._wants
        for taken in mine:
            lock = taken.obj
            if lock != obj:
                after = wants.get(lock)
                if after is None:
                    wants[lock] = {obj: None}
                else:
                    after[obj] = None

    def _seldom(self, event: Event) -> None:
        op, tid = event.op, event.tid
        if op == "try":
            self._asked[tid] = event
        elif op == "fail":
            self._asked.pop(tid, None)
        elif op in ("join", "wake"):
            self._waits = self._waits or bool(self._held.get(tid))
        elif op == "down":
            mine = self._held.get(tid, [])
            shared = msgspec.structs.replace
            mine[:] = [shared(each, mode="s") if each.obj == event.obj else each for each in mine]
        elif op == "fork":
            self._forked[event.obj] = None
        else:
            self._ended[tid] = None


def _let_go(mine: list[Event], obj: int) -> None:
    """Take out the last acquisition of a lock."""
    for at in range(len(mine) - 1, -1, -1):
        if mine[at].obj == obj:
            del mine[at]
            return


def forecast(
    events: list[Event],
    names: Names,
    run: int,
    *,
    size_max: int,
    budget: int,
    before: Before = BEGINNING,
    whole: bool = True,
) -> Forecast:
    """Predict the deadlocks of a run, or of a stretch of it.

    Args:
        events: In order; a stretch is as sound as the run, since what was before stays before.
        names: What their numbers mean.
        run: Index of the run.
        size_max: Longest circle of threads.
        budget: States that the exhaustive search may visit.
        before: What came before them.
        whole: They are the whole run. Only then is known who signals what.
    """
    trace = _trace(events, names.type_of, before, whole=whole)
    teller = _Teller(trace, names, run, before.events)
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
            findings.append((teller.finding(each), each.alike))
    for circle in outcome.dropped:
        guard = f" ({names.label(circle.guard)})" if circle.reason == GUARDED else ""
        subject = (f"{circle.reason}{guard}", teller.circle(circle.pattern))
        dropped[subject] = dropped.get(subject, 0) + 1
    if outcome.cut:
        dropped["more patterns than are judged", "the rest of a run"] = 1
    return Forecast(findings, dropped)


def together(forecasts: Sequence[Forecast]) -> Forecast:
    """Put together what stretches of one run say; what two of them share counts once."""
    found: dict[object, tuple[Finding, int]] = {}
    dropped: dict[tuple[str, str], int] = {}
    for each in forecasts:
        here: dict[object, int] = {}
        for finding, count in each.findings:
            key = named(finding)
            here[key] = here.get(key, 0) + count
            known, counted = found.get(key, (finding, 0))
            surer = max(known, finding, key=lambda one: TIERS.index(one.tier))
            found[key] = surer, max(here[key], counted)
        for subject, count in each.dropped.items():
            dropped[subject] = max(count, dropped.get(subject, 0))
    return Forecast(list(found.values()), dropped)


def _has_circle(wants: Mapping[int, Mapping[int, None]]) -> bool:
    """Take away what nobody wants, one after the other; a circle remains."""
    wanted: dict[int, int] = {}
    for after in wants.values():
        for lock in after:
            wanted[lock] = wanted.get(lock, 0) + 1
    free = [lock for lock in wants if lock not in wanted]
    while free:
        for lock in wants.get(free.pop(), ()):
            wanted[lock] -= 1
            if not wanted[lock]:
                del wanted[lock]
                free.append(lock)
    return bool(wanted)


def _trace(
    events: Iterable[Event], type_of: Callable[[int], str], before: Before, *, whole: bool
) -> Trace:
    """Build the trace of a run; the tag of each happening is its event."""
    trace = Trace()
    asked = dict(before.asked)
    if before.events:
        held = ((event.tid, event.obj, event.mode == "s", event) for event in before.held)
        trace.resume(held, before.alive)
    for event in events:
        play = _PLAYS.get(event.op)
        if play is not None:
            play(trace, event, asked, type_of)
    for tid, event in asked.items():
        if event.op == "req" and not _limited(event) and not (event.extra or {}).get(REFUSED):
            trace.wanted(tid, event.obj, event, shared=event.mode == "s")
    trace.close(whole=whole)
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
    event = _wanted_at(event, request)
    trace.acquire(event.tid, event.obj, event, shared=event.mode == "s", limited=limited)


def _wanted_at(event: Event, request: Event | None) -> Event:
    """Return an acquisition with its own step, and the place where it was wanted."""
    if request is not None and request.site and request.site != event.site:
        return msgspec.structs.replace(event, site=request.site)
    return event


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

    def __init__(self, trace: Trace, names: Names, run: int, skipped: int) -> None:
        """Begin with the trace of a run.

        Args:
            trace: Of the run, or of a stretch of it.
            names: What its numbers mean.
            run: Its index.
            skipped: Events of the run before that stretch.
        """
        self._skipped = skipped
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
            if self._skipped:
                said += f", as the run goes on behind its first {self._skipped:,}"
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
        if prediction.tier != "predicted" or self._skipped:
            return ()
        happened = [self._trace.events[index].tag for index in prediction.schedule]
        stops = [(event.tid, int(event.ts)) for event in happened]
        stops += [(each.tag.tid, int(each.tag.ts) - 1) for each in prediction.events]
        legs: list[tuple[int, int]] = []
        for tid, step in stops:
            if legs and legs[-1][0] == tid:
                legs.pop()
            legs.append((tid, step))
        return tuple(legs)

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
