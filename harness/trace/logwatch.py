"""The events of a run as they go by: what threads hold, what can circle, who signals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Final, NamedTuple, TypeAlias

import msgspec

from harness.trace.locklog import Event

_SELDOM: Final = frozenset(("try", "fail", "join", "wake", "down", "fork", "exit", "sig", "bcast"))
# Of a thread that holds more locks nobody looks whether they can circle: it is taken for granted.
_HELD_MAX: Final = 16
# Pending, as far as their time tells, and done later.
ANNOUNCED: Final = frozenset(("req", "try", "start", "wait"))

Signals: TypeAlias = Mapping[int, tuple[int, tuple[int, ...]]]
"""Of each object that was signalled: the number of the first signal, and who gave one."""
NO_SIGNALS: Final[Signals] = MappingProxyType({})


class Before(NamedTuple):
    """What the events of a run have led to: where those that follow begin.

    Attributes:
        held: The acquisition of each lock that is held, by thread and outermost first.
        asked: What each thread wants, and has neither got nor given up.
        alive: Threads that have begun and not ended, ascending.
        events: How many there were.
        step: Time of the last one that had happened, and was not only announced.
    """

    held: tuple[Event, ...] = ()
    asked: Mapping[int, Event] = {}
    alive: tuple[int, ...] = ()
    events: int = 0
    step: float = 0


BEGINNING: Final = Before()


class Watch:
    """Watches the events of a run go by: can it have a pattern at all, and what do threads hold?

    Most runs have none, and to see that is much faster than to look for one. A pattern is a circle
    in the graph of locks wanted while others are held, or it contains a wait for a thread with a
    lock held.

    Attributes:
        events: How many there were.
        signals: Of each object that was signalled: the sequence number of the first signal, and
            the threads that gave one.
    """

    def __init__(self) -> None:
        """Nothing has happened."""
        self.events = 0
        self.signals: dict[int, tuple[int, tuple[int, ...]]] = {}
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

    def now(self, begun: Iterable[int], events: Sequence[Event]) -> Before:
        """Tell where things stand.

        Args:
            begun: Threads that had an event.
            events: The last ones.
        """
        held = (taken for _, mine in sorted(self._held.items()) for taken in mine)
        alive = tuple(sorted({*begun, *self._forked} - {*self._ended}))
        done = (event.ts for event in reversed(events) if event.op not in ANNOUNCED)
        return Before(tuple(held), dict(self._asked), alive, self.events, next(done, 0))

    def alone(self, signals: Iterable[tuple[int, int, int]]) -> bool:
        """Tell whether those who signal are the only ones; see ``Foretold.signals``."""
        return all(
            {*self.signals.get(obj, (0, ()))[1]} - {waiter} == {provider}
            for obj, waiter, provider in signals
        )

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
                mine.append(wanted_at(event, request))
            elif op == "rel":
                mine = held.get(event.tid)
                if mine and mine[-1].obj == event.obj:
                    mine.pop()
                elif mine:
                    _let_go(mine, event.obj)
            elif op in _SELDOM:
                self._seldom(event)

    def _want(self, mine: list[Event], obj: int) -> None:
        if len(mine) > _HELD_MAX:
            self._waits = True
            return
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
        elif op in ("sig", "bcast"):
            first, by = self.signals.get(event.obj, (event.seq, ()))
            if tid not in by:
                self.signals[event.obj] = (first, (*by, tid))
        else:
            self._ended[tid] = None


def _let_go(mine: list[Event], obj: int) -> None:
    """Take out the last acquisition of a lock."""
    for at in range(len(mine) - 1, -1, -1):
        if mine[at].obj == obj:
            del mine[at]
            return


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


def wanted_at(event: Event, request: Event | None) -> Event:
    """Return an acquisition with its own step, and the place where it was wanted."""
    if request is not None and request.site and request.site != event.site:
        return msgspec.structs.replace(event, site=request.site)
    return event
