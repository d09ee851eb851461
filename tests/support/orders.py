"""Random traces, and an exhaustive oracle that knows nothing of how predictions are made."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

from harness.predict.patterns import Pattern
from harness.predict.trace import Happening, Trace

CELL = 100  # objects from here on are data


class Op(NamedTuple):
    """One event: ``acq``, ``shr`` (shared), ``rel``, ``r``, ``w``, ``fork`` or ``join``."""

    thread: int
    kind: str
    obj: int


def draw(
    rng: random.Random, *, threads: int = 4, locks: int = 4, events: int = 34, readers: bool = False
) -> list[Op]:
    """Draw a run: it happened, so locks exclude, and a joined thread has ended."""
    threads, locks = rng.randint(2, threads), rng.randint(2, locks)
    ring = rng.random() < 0.3  # each thread takes two neighbouring locks
    if ring:
        threads = locks = rng.randint(3, 4)
    length = rng.randint(8, events)
    parents = {t: rng.randrange(t) for t in range(1, threads) if rng.random() < 0.3}
    started = {t for t in range(threads) if t not in parents}
    ended: set[int] = set()
    held: dict[int, list[int]] = {t: [] for t in range(threads)}
    owners: dict[int, dict[int, bool]] = {lock: {} for lock in range(locks)}
    run: list[Op] = []

    def release(thread: int, at: int) -> None:
        lock = held[thread].pop(at)
        del owners[lock][thread]
        run.append(Op(thread, "rel", lock))

    while len(run) < length:
        thread = rng.choice(sorted(started - ended) or [-1])
        if thread < 0:
            break
        mine, dice = held[thread], rng.random()
        children = [t for t, parent in parents.items() if parent == thread]
        if dice < 0.08 and (waiting := [t for t in children if t not in started]):
            run.append(Op(thread, "fork", waiting[0]))
            started.add(waiting[0])
        elif dice < 0.14 and (done := [t for t in children if t in ended]):
            run.append(Op(thread, "join", done[0]))
        elif dice < 0.17 and not mine and thread in parents:
            ended.add(thread)
        elif dice < (0.20 if ring else 0.30):
            run.append(Op(thread, rng.choice("rw"), CELL + rng.randrange(2)))
        elif dice < 0.65 and len(mine) < 3:
            lock = (thread + rng.randrange(2)) % locks if ring else rng.randrange(locks)
            shared = readers and rng.random() < 0.4
            free = all(shared and theirs for theirs in owners[lock].values())
            if lock not in mine and free:
                mine.append(lock)
                owners[lock][thread] = shared
                run.append(Op(thread, "shr" if shared else "acq", lock))
        elif mine:
            release(thread, -1 if rng.random() < 0.85 else rng.randrange(len(mine)))
    for thread in sorted(held):
        while held[thread]:
            release(thread, -1)
    return run


def trace_of(run: Sequence[Op]) -> Trace:
    """Build the trace of a run; the tag of each event is its index."""
    trace = Trace()
    for index, (thread, kind, obj) in enumerate(run):
        if kind in ("acq", "shr"):
            trace.acquire(thread, obj, index, shared=kind == "shr")
        elif kind == "rel":
            trace.release(thread, obj, index)
        elif kind == "r":
            trace.read(thread, obj, index)
        elif kind == "w":
            trace.write(thread, obj, index)
        elif kind == "fork":
            trace.fork(thread, obj, index)
        else:
            trace.join(thread, obj, index)
    trace.close()
    return trace


class Oracle:
    """All correct reorderings of a run, one state after the other, with nothing clever."""

    def __init__(self, run: Sequence[Op]) -> None:
        self.run = run
        self.threads = sorted({op.thread for op in run} | {o.obj for o in run if o.kind == "fork"})
        self.lanes = [[i for i, o in enumerate(run) if o.thread == t] for t in self.threads]
        self.saw: dict[int, int] = {}
        self.forked: dict[int, int] = {}
        writes: dict[int, int] = {}
        for index, (_, kind, obj) in enumerate(run):
            if kind == "w":
                writes[obj] = index
            elif kind == "r":
                self.saw[index] = writes.get(obj, -1)
            elif kind == "fork":
                self.forked[obj] = index

    def reaches(self, *, preserving: bool) -> set[tuple[int, ...]]:
        """Return the positions of all threads in every state that can be reached.

        Args:
            preserving: Critical sections on each lock keep the order that they had.
        """
        start: tuple[tuple[int, ...], tuple[tuple[int, int], ...]] = ((0,) * len(self.lanes), ())
        seen = {start}
        queue = deque([start])
        while queue:
            positions, writers = queue.popleft()
            for lane in range(len(self.lanes)):
                index = self._next(positions, lane)
                if index is None or not self._can(index, positions, dict(writers), preserving):
                    continue
                moved = (*positions[:lane], positions[lane] + 1, *positions[lane + 1 :])
                fresh = dict(writers)
                if self.run[index].kind == "w":
                    fresh[self.run[index].obj] = index
                state = (moved, tuple(sorted(fresh.items())))
                if state not in seen:
                    seen.add(state)
                    queue.append(state)
        return {positions for positions, _ in seen}

    def _next(self, positions: tuple[int, ...], lane: int) -> int | None:
        position = positions[lane]
        return self.lanes[lane][position] if position < len(self.lanes[lane]) else None

    def _done(self, positions: tuple[int, ...], index: int) -> bool:
        lane = self.threads.index(self.run[index].thread)
        return self.lanes[lane].index(index) < positions[lane]

    def _can(
        self, index: int, positions: tuple[int, ...], writers: dict[int, int], preserving: bool
    ) -> bool:
        thread, kind, obj = self.run[index]
        if thread in self.forked and not self._done(positions, self.forked[thread]):
            return False
        if kind == "r":
            return writers.get(obj, -1) == self.saw[index]
        if kind == "join":
            lane = self.threads.index(obj)
            return positions[lane] == len(self.lanes[lane])
        if kind in ("acq", "shr"):
            done = [i for i, o in enumerate(self.run) if o.obj == obj and self._done(positions, i)]
            holders = dict[int, str]()
            for other in done:
                if self.run[other].kind in ("acq", "shr"):
                    holders[self.run[other].thread] = self.run[other].kind
                elif self.run[other].kind == "rel":
                    holders.pop(self.run[other].thread, None)
            rivals = [i for i in done if self.run[i].kind == "acq" or kind == "acq"]
            late = any(i > index for i in rivals if self.run[i].kind in ("acq", "shr"))
            if preserving and late:
                return False
            return all(kind == "shr" and held == "shr" for held in holders.values())
        return True


def reachable(oracle: Oracle, trace: Trace, pattern: Pattern, states: set[tuple[int, ...]]) -> bool:
    """Tell whether all requests of a pattern can be pending at once, on some occasion of each."""
    places = {thread: lane for lane, thread in enumerate(oracle.threads)}
    occasions: list[list[Happening]] = [trace.requests[request] for request in pattern]
    for chosen in product(*occasions):
        goal = {
            places[trace.threads[event.thread]]: oracle.lanes[
                places[trace.threads[event.thread]]
            ].index(event.tag)
            for event in chosen
        }
        if any(all(state[lane] == at for lane, at in goal.items()) for state in states):
            return True
    return False
