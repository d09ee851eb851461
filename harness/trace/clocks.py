"""Vector clocks and the accesses that they leave unordered: one judge for live runs and for logs.

What one thread does *happens before* what another does where an operation of the one is known to
the other. Who follows a run says which operation makes what known to whom; threads are numbers, and
whatever carries knowledge from one to the other (a lock, an event) is a key.

Reference: Flanagan and Freund, "FastTrack: Efficient and Precise Dynamic Race Detection", PLDI
2009. We depart from it in that a cell keeps what a reader of the report wants to know of each
access.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import Any, NamedTuple, TypeAlias

Clock: TypeAlias = list[int]


def join(clock: Clock, other: Sequence[int]) -> None:
    """``clock`` knows what ``other`` knows, too."""
    missing = len(other) - len(clock)
    if missing > 0:
        clock += [0] * missing
    for index, time in enumerate(other):
        if time > clock[index]:  # noqa: PLR1730 - twice as fast as max()
            clock[index] = time


class Clocks:
    """What every thread knows of every other one, and what it can learn from objects.

    Attributes:
        of: The clock of each thread that was seen.
        born: What a thread that has not been seen yet knows, by its number.
        inherited: What all others know that have not been seen yet.
        known: What is to be learnt from each object.
    """

    __slots__ = ("born", "inherited", "known", "of")

    def __init__(self) -> None:
        """Nobody knows anything."""
        self.of: dict[int, Clock] = {}
        self.born: dict[int, Clock] = {}
        self.inherited: Clock = []
        self.known: dict[Hashable, Clock] = {}

    def clock(self, thread: int) -> Clock:
        """Return the clock of a thread."""
        clock = self.of.get(thread)
        if clock is None:
            clock = self.of[thread] = list(self.born.pop(thread, self.inherited))
            clock += [0] * (thread + 1 - len(clock))
            clock[thread] = 1
        return clock

    def told(self, thread: int) -> Clock:
        """Return what a thread knows now; what it does from here on is not known by that."""
        clock = self.clock(thread)
        told = list(clock)
        clock[thread] += 1
        return told

    def publish(self, key: Hashable, thread: int) -> None:
        """From here on ``key`` knows what the thread knows, beside what it knew."""
        clock = self.clock(thread)
        join(self.known.setdefault(key, []), clock)
        clock[thread] += 1

    def store(self, key: Hashable, thread: int) -> None:
        """From here on ``key`` knows what the thread knows, and nothing else."""
        self.known[key] = self.told(thread)

    def learn(self, key: Hashable, thread: int) -> None:
        """The thread knows what ``key`` knows, too."""
        join(self.clock(thread), self.known.get(key, ()))


class Access(NamedTuple):
    """One access of a cell.

    Attributes:
        thread: Number of the thread.
        time: Its own time then.
        writes: Whether it wrote.
        held: The locks that it held; of each pair that protects, some part is equal in both.
        tag: The caller's: where, in which step.
    """

    thread: int
    time: int
    writes: bool
    held: tuple[Any, ...]
    tag: Any

    def before(self, clock: Clock) -> bool:
        """Whether a thread with ``clock`` knows of this access."""
        return self.thread < len(clock) and self.time <= clock[self.thread]


class Cell:
    """What is known of one cell: its last write, the reads since, and the locks of all accesses."""

    __slots__ = ("accesses", "reads", "under", "write")

    def __init__(self) -> None:
        """Nobody has touched it."""
        self.write: Access | None = None
        self.reads: list[Access] = []
        self.accesses = 0
        self.under: dict[Any, int] = {}

    def rival(self, access: Access, clock: Clock) -> Access | None:
        """Find an earlier access that races with ``access``."""
        if self.write is not None and not self.write.before(clock):
            return self.write
        if access.writes:
            for read in self.reads:
                if not read.before(clock):
                    return read
        return None

    def enter(self, access: Access, clock: Clock) -> None:
        """Remember ``access``; what happens before it races with nothing that it does not."""
        self.accesses += 1
        for lock in access.held:
            self.under[lock] = self.under.get(lock, 0) + 1
        if access.writes:
            self.write = access
            self.reads.clear()
        else:
            self.reads = [read for read in self.reads if not read.before(clock)]
            self.reads.append(access)

    def usual(self, racing: Iterable[Access]) -> list[tuple[Any, int]]:
        """List the locks that were held most often, and not at all of ``racing``; and how often."""
        most = max(self.under.values(), default=0)
        return [
            (lock, count)
            for lock, count in self.under.items()
            if count == most and any(lock not in access.held for access in racing)
        ]
