"""Abstract deadlock patterns: circles of requests that distinct threads could make at once.

A request at a lock waits for a thread that holds it in a conflicting mode; a request at the end of
a thread, or at a signal that only one thread ever gives, waits for that thread wherever it is
blocked itself. The sets of locks held must not conflict: a lock that two of the threads hold is a
*guard*, which keeps them apart. Reference: Bensalem, Havelund; MagicLock's pruning.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple, TypeAlias

from harness.predict.trace import Request

Pattern: TypeAlias = tuple[Request, ...]

SAME_THREAD: Final = "one thread makes both requests"
GUARDED: Final = "a lock that both threads hold keeps them apart"


PATHS_MAX: Final = 1_000_000
"""Waits that are followed in search of patterns: of many locks and few circles there is no end."""


class Dropped(NamedTuple):
    """A circle of two requests that is no pattern.

    Attributes:
        reason: ``SAME_THREAD`` or ``GUARDED``.
        pattern: The two requests.
        guard: The lock that keeps them apart, else -1.
    """

    reason: str
    pattern: Pattern
    guard: int = -1


class Patterns:
    """Enumerates the patterns of one run.

    Attributes:
        cut: Whether a search was given up after ``PATHS_MAX`` waits, before it had seen all.
    """

    def __init__(self, requests: list[Request], size_max: int) -> None:
        """Prune: what nobody could block, or what blocks nobody, lies on no circle."""
        self._size_max = size_max
        self._requests = _pruned(requests)
        self._by_lock, self._by_thread = _index(self._requests)
        self._paths = 0
        self.cut = False

    def __iter__(self) -> Iterator[Pattern]:
        """Yield each pattern once, beginning with its least thread."""
        for first in self._requests:
            yield from self._extend((first,))

    def blockers(self, request: Request) -> list[Request]:
        """List the requests of other threads, made while holding what ``request`` wants."""
        if request.lock is None:
            return self._by_thread.get(request.provider, [])
        return [
            other
            for other, shared in self._by_lock.get(request.lock, ())
            if other.thread != request.thread and not (shared and request.shared)
        ]

    def dropped(self) -> Iterator[Dropped]:
        """Yield the circles of two lock requests that a common thread or a guard rules out.

        Of the first ``PATHS_MAX`` pairs; ``cut`` is set where there are more.
        """
        pairs = (
            (first, second, shared)
            for first in self._requests
            if first.lock is not None
            for second, shared in self._by_lock.get(first.lock, ())
        )
        for number, (first, second, shared) in enumerate(pairs):
            if number == PATHS_MAX:
                self.cut = True
                return
            if (shared and first.shared) or second.lock is None or second.lock == first.lock:
                continue
            if not _waits(second, first) or (second.thread, second) < (first.thread, first):
                continue
            if first.thread == second.thread:
                yield Dropped(SAME_THREAD, (first, second))
                continue
            guard = common(first, second)
            if guard is not None:
                yield Dropped(GUARDED, (first, second), guard)

    def _extend(self, path: Pattern) -> Iterator[Pattern]:
        """Go on along the waits; the first thread is the least of the circle."""
        last, first = path[-1], path[0]
        for request in self.blockers(last):
            if request.thread < first.thread:
                continue
            self._paths += 1
            if self._paths > PATHS_MAX:
                self.cut = True
                return
            if request is first:
                if len(path) > 1 and any(each.lock is not None for each in path):
                    yield path
                continue
            if len(path) == self._size_max or any(
                each.thread == request.thread
                or (each.lock == request.lock and each.lock is not None)
                or common(each, request) is not None
                for each in path
            ):
                continue
            yield from self._extend((*path, request))


def common(one: Request, other: Request) -> int | None:
    """Return a lock that the two cannot hold at once, if there is one."""
    for lock, shared in one.held:
        for theirs, too in other.held:
            if lock == theirs and not (shared and too):
                return lock
    return None


def _waits(request: Request, other: Request) -> bool:
    """Tell whether ``request`` waits for a lock that ``other`` holds."""
    return any(
        lock == request.lock and not (shared and request.shared) for lock, shared in other.held
    )


_ByLock: TypeAlias = dict[int, list[tuple[Request, bool]]]


def _index(requests: list[Request]) -> tuple[_ByLock, dict[int, list[Request]]]:
    by_lock: _ByLock = {}
    by_thread: dict[int, list[Request]] = {}
    for request in requests:
        by_thread.setdefault(request.thread, []).append(request)
        for lock, shared in request.held:
            by_lock.setdefault(lock, []).append((request, shared))
    return by_lock, by_thread


def _pruned(requests: list[Request]) -> list[Request]:
    """Drop requests that lie on no circle, until none is left to drop."""
    kept = requests
    while True:
        by_lock, _ = _index(kept)
        present = {request.thread for request in kept}
        wanted = {request.lock for request in kept}
        provide = {request.provider for request in kept}
        more = [
            request
            for request in kept
            if (
                request.lock in by_lock if request.lock is not None else request.provider in present
            )
            and (request.thread in provide or any(lock in wanted for lock, _ in request.held))
        ]
        if len(more) == len(kept):
            return more
        kept = more
