"""Sync-preserving closure: which events must have happened, if critical sections keep their order.

A set of events that is closed under it, taken in the order of the run, is a run by itself.
Reference: Tunc et al., section 4. Sets are prefixes of threads, so a set is a vector of positions.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Final, TypeAlias

from harness.predict.trace import ACQUIRE, RELEASE, Happening, Trace

Vector: TypeAlias = list[int]
Closed: TypeAlias = tuple[tuple[Happening, ...], Vector]


class Section:
    """A critical section: from an acquisition to the release of the same thread."""

    __slots__ = ("index", "lock", "released", "shared")

    def __init__(self, index: int, lock: int, shared: bool) -> None:
        """Begin at the event ``index``."""
        self.index = index
        self.lock = lock
        self.shared = shared
        self.released: Happening | None = None  # None: held to the end of the run


class Order:
    """What must precede what, whatever the order of the locks: thread order, forks, joins, data.

    Clocks change only where an event of another thread precedes; they are kept for those.
    """

    def __init__(self, trace: Trace) -> None:
        """Compute the clocks of a trace and its critical sections."""
        self.trace = trace
        self.width: Final = len(trace.threads)
        self._starts: list[list[int]] = [[] for _ in trace.threads]  # positions where clocks change
        self._clocks: list[list[Vector]] = [[] for _ in trace.threads]
        # Of each thread: the position of each acquisition, and its critical section.
        self.taken: list[list[int]] = [[] for _ in trace.threads]
        self.sections: list[list[Section]] = [[] for _ in trace.threads]
        self._by_lock: dict[int, dict[int, tuple[list[int], list[Section]]]] = {}
        running: list[Vector] = [[0] * self.width for _ in trace.threads]
        open_: dict[tuple[int, int], Section] = {}
        for index, event in enumerate(trace.events):
            thread = event.thread
            if event.after:
                running[thread] = self._joined(running[thread], event)
            if event.kind == ACQUIRE:
                section = Section(index, event.obj, event.shared)
                open_[thread, event.obj] = section
                self.taken[thread].append(event.position)
                self.sections[thread].append(section)
                mine = self._by_lock.setdefault(event.obj, {}).setdefault(thread, ([], []))
                mine[0].append(event.position)
                mine[1].append(section)
            elif event.kind == RELEASE:
                open_.pop((thread, event.obj)).released = event

    def is_held(self, positions: Sequence[int], wanted: Happening) -> bool:
        """Tell whether another thread holds a lock in a conflicting mode."""
        for thread, (taken, sections) in self._by_lock.get(wanted.obj, {}).items():
            if thread == wanted.thread:
                continue
            last = bisect_right(taken, positions[thread]) - 1
            if last < 0 or (sections[last].shared and wanted.shared):
                continue
            released = sections[last].released
            if released is None or released.position > positions[thread]:
                return True
        return False

    def _joined(self, clock: Vector, event: Happening) -> Vector:
        """Take over the clocks of the events that precede one of another thread."""
        events = self.trace.events
        fresh = list(clock)
        for index in event.after:
            self.join(fresh, events[index])
        if fresh != clock:
            self._starts[event.thread].append(event.position)
            self._clocks[event.thread].append(fresh)
            return fresh
        return clock

    def join(self, into: Vector, event: Happening) -> bool:
        """Add an event and all that must precede it to a set; tell whether the set grew."""
        thread = event.thread
        if into[thread] >= event.position:
            return False
        segment = bisect_right(self._starts[thread], event.position) - 1
        if segment >= 0:
            for other, position in enumerate(self._clocks[thread][segment]):
                into[other] = max(into[other], position)
        into[thread] = event.position
        return True

    def join_before(self, into: Vector, event: Happening) -> None:
        """Add all that must precede an event of a thread in that thread: all before it."""
        lane = self.trace.lanes[event.thread]
        if event.position > 1:
            self.join(into, self.trace.events[lane[event.position - 2]])
        elif event.position <= len(lane):
            for index in self.trace.events[lane[0]].after:
                self.join(into, self.trace.events[index])


class Closure:
    """A growing closed set."""

    def __init__(self, order: Order) -> None:
        """Start empty."""
        self._order = order
        self.inside: Vector = [0] * order.width
        self._walked = [0] * order.width  # sections of each thread that lie inside
        # lock -> (thread, shared) -> the last critical section inside
        self._last: dict[int, dict[tuple[int, bool], Section]] = {}

    def close(self) -> bool:
        """Close ``inside``; tell whether that is possible at all.

        Goes on until nothing changes: a release that comes in may bring acquisitions of any lock.
        """
        order, inside = self._order, self.inside
        while dirty := self._walk():
            for lock in dirty:
                for section in self._unfinished(self._last[lock]):
                    if section.released is None:
                        return False
                    order.join(inside, section.released)
        return True

    def _walk(self) -> list[int]:
        """Take in the critical sections that came inside; return their locks."""
        dirty: dict[int, None] = {}
        for thread, inside in enumerate(self.inside):
            taken = self._order.taken[thread]
            begin = self._walked[thread]
            if begin == len(taken) or taken[begin] > inside:
                continue
            end = bisect_right(taken, inside, begin)
            for section in self._order.sections[thread][begin:end]:
                self._last.setdefault(section.lock, {})[thread, section.shared] = section
                dirty[section.lock] = None
            self._walked[thread] = end
        return list(dirty)

    @staticmethod
    def _unfinished(last: dict[tuple[int, bool], Section]) -> list[Section]:
        """List the sections that a later one, conflicting and of another thread, must follow."""
        found = []
        items = sorted(last.items(), key=lambda item: item[1].index)
        later_writers: set[int] = set()
        later: set[int] = set()
        for (thread, shared), section in reversed(items):
            rivals = later_writers if shared else later
            if rivals - {thread}:
                found.append(section)
            later.add(thread)
            if not shared:
                later_writers.add(thread)
        return found


def can_deadlock(order: Order, heads: Sequence[Sequence[Happening]]) -> Closed | None:
    """Find one occasion of each request of a pattern such that all can be pending at once.

    Args:
        order: Of the run.
        heads: The occasions of each request, in order.

    Each occasion is passed over at most once: what is inside for one choice is inside for all later
    ones. That makes the search linear.
    """
    closure = Closure(order)
    at = [0] * len(heads)
    while all(index < len(head) for index, head in zip(at, heads, strict=True)):
        chosen = [head[index] for index, head in zip(at, heads, strict=True)]
        for event in chosen:
            order.join_before(closure.inside, event)
        if not closure.close():
            return None
        inside = closure.inside
        if all(_is_outside(order, inside, event) for event in chosen):
            return tuple(chosen), list(inside)
        moved = False
        for number, head in enumerate(heads):
            while at[number] < len(head) and not _is_outside(order, inside, head[at[number]]):
                at[number] += 1
                moved = True
        assert moved
    return None


def _is_outside(order: Order, inside: Vector, event: Happening) -> bool:
    """Tell whether an occasion can still be pending: neither it nor what ends it has happened."""
    if inside[event.thread] >= event.position:
        return False
    trace = order.trace
    return all(
        inside[each.thread] < each.position
        for each in map(trace.events.__getitem__, trace.ends(event))
    )


def plan(trace: Trace, inside: Vector) -> list[int]:
    """Return the events of a closed set in the order of the run: a schedule of it."""
    return [
        index for index, event in enumerate(trace.events) if event.position <= inside[event.thread]
    ]
