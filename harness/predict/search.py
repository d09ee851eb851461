"""Bounded exhaustive search: decides what the closure leaves open.

It looks for any correct reordering, whatever the order of critical sections, that brings each
thread of a pattern to its request. A state is how far each thread has come, and who wrote each
object last.
"""

from __future__ import annotations

from typing import Final, TypeAlias

from harness.predict.closure import Order, Vector
from harness.predict.trace import ACQUIRE, FAIL, READ, RELEASE, WAKE, WRITE, Happening, Trace

_State: TypeAlias = tuple[tuple[int, ...], tuple[int, ...]]

_READS: Final = (READ, WAKE)


class Search:
    """A search for one choice of requests."""

    def __init__(self, order: Order, goal: tuple[Happening, ...]) -> None:
        """Confine the search to what can matter."""
        self._order = order
        self._trace: Trace = order.trace
        self._goal = {event.thread: event.position - 1 for event in goal}
        self._requests = goal
        self._limit = self._reach(goal)
        events = self._trace.events
        inside = [e for e in events if e.position <= self._limit[e.thread]]
        failing = {event.obj for event in inside if event.kind == FAIL}
        self._failing = failing
        read = {event.obj for event in inside if event.kind in _READS}
        written = {e.obj for e in inside if e.kind == WRITE} & read
        self._cells = {obj: number for number, obj in enumerate(sorted(written))}

    def _reach(self, goal: tuple[Happening, ...]) -> Vector:
        """Bound each thread: what the requests need, and the releases of what that acquires."""
        order, trace = self._order, self._trace
        limit: Vector = [0] * order.width
        for event in goal:
            order.join_before(limit, event)
        walked = [0] * order.width
        grew = True
        while grew:
            grew = False
            for thread, sections in enumerate(order.sections):
                while walked[thread] < len(sections):
                    section = sections[walked[thread]]
                    if trace.events[section.index].position > limit[thread]:
                        break
                    walked[thread] += 1
                    if section.released is not None:
                        grew |= order.join(limit, section.released)
        for thread, position in self._goal.items():
            limit[thread] = min(limit[thread], position)
        return limit

    def run(self, budget: int) -> tuple[list[int] | None, int]:
        """Search depth first.

        Returns:
            A schedule (indexes of events) that ends with all requests pending, or None; and how
            much of the budget is left, at least 1 where all was searched.
        """
        start: _State = ((0,) * self._order.width, (-1,) * len(self._cells))
        state, path = self._advance(start)
        seen = {state}
        came: dict[_State, tuple[_State, list[int]]] = {}
        stack = [state]
        while stack and budget > 0:
            state = stack.pop()
            budget -= 1
            if self._reached(state):
                return path + self._path(came, state), budget
            for thread in range(self._order.width):
                index = self._next(state, thread)
                if index is None or not self._enabled(state, index):
                    continue
                following, more = self._advance(self._perform(state, index))
                if following not in seen:
                    seen.add(following)
                    came[following] = (state, [index, *more])
                    stack.append(following)
        return None, budget

    @staticmethod
    def _path(came: dict[_State, tuple[_State, list[int]]], state: _State) -> list[int]:
        parts = []
        while state in came:
            state, steps = came[state]
            parts.append(steps)
        return [index for part in reversed(parts) for index in part]

    def _reached(self, state: _State) -> bool:
        positions = state[0]
        if any(positions[thread] != position for thread, position in self._goal.items()):
            return False
        trace = self._trace
        return all(
            positions[each.thread] < each.position
            for event in self._requests
            for each in map(trace.events.__getitem__, trace.ends(event))
        )

    def _next(self, state: _State, thread: int) -> int | None:
        """Return the next event of a thread, within the bounds."""
        position = state[0][thread]
        return self._trace.lanes[thread][position] if position < self._limit[thread] else None

    def _enabled(self, state: _State, index: int) -> bool:
        """Tell whether an event can happen now."""
        event, events = self._trace.events[index], self._trace.events
        positions = state[0]
        if any(positions[events[i].thread] < events[i].position for i in event.after):
            return False
        if event.kind == ACQUIRE:
            return not self._order.is_held(positions, event)
        if event.kind == FAIL:
            return self._order.is_held(positions, event)
        if event.kind in _READS and event.obj in self._cells:
            return state[1][self._cells[event.obj]] == self._trace.seen.get(index, -1)
        return True

    def _perform(self, state: _State, index: int) -> _State:
        event = self._trace.events[index]
        positions = list(state[0])
        positions[event.thread] += 1
        writers = state[1]
        if event.kind == WRITE and event.obj in self._cells:
            fresh = list(writers)
            fresh[self._cells[event.obj]] = index
            writers = tuple(fresh)
        return tuple(positions), writers

    def _advance(self, state: _State) -> tuple[_State, list[int]]:
        """Perform all that takes no freedom from anybody: only acquisitions and writes do."""
        done: list[int] = []
        again = True
        while again:
            again = False
            for thread in range(self._order.width):
                while (index := self._next(state, thread)) is not None:
                    event = self._trace.events[index]
                    takes = (
                        event.kind == ACQUIRE
                        or (event.kind == WRITE and event.obj in self._cells)
                        or (event.kind == RELEASE and event.obj in self._failing)
                    )
                    if takes or not self._enabled(state, index):
                        break
                    state = self._perform(state, index)
                    done.append(index)
                    again = True
        return state, done
