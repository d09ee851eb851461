"""Packages and modules whose source nobody here wrote, explored as they are."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

import cachetools
import pytest
from exploring import failure, passes
from pyrate_limiter import BucketFactory, InMemoryBucket, Limiter, MonotonicClock, Rate, RateItem
from readerwriterlock import rwlock

from harness import Failure, explore, minimize, parallel

# -- queue ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [queue.Queue, queue.LifoQueue, queue.PriorityQueue])
def test_queues_lose_and_double_nothing(kind: Callable[[int], queue.Queue[int]]) -> None:
    def program() -> None:
        items, got = kind(1), list[int]()

        def work() -> None:
            while (item := items.get()) >= 0:
                got.append(item)
                items.task_done()
            items.task_done()

        workers = [threading.Thread(target=work) for _ in range(2)]
        for worker in workers:
            worker.start()
        for item in (1, 2, 3):
            items.put(item)
        items.join()
        assert sorted(got) == [1, 2, 3]
        for _ in workers:
            items.put(-1)
        for worker in workers:
            worker.join()

    passes(program, schedules=60, patch=True)


def test_a_queue_that_looked_filled_may_be_empty_when_it_is_asked() -> None:
    """Documented at ``Queue.qsize``: more than 0 does not mean that ``get`` will not block."""

    def program() -> None:
        items: queue.Queue[int] = queue.Queue()
        items.put(1)

        def take() -> None:
            if items.qsize() > 0:
                items.get()

        parallel(take, take)

    least = minimize(program, failure(program, "pct", patch=True))

    assert ("lost-wakeup", 1) == (least.kind, least.preemptions)


# -- concurrent.futures ---------------------------------------------------------------------------


def test_a_pool_runs_each_task_once_and_in_order_of_map() -> None:
    def program() -> None:
        ran: list[int] = []

        def square(n: int) -> int:
            ran.append(n)
            return n * n

        with ThreadPoolExecutor(2) as pool:
            assert list(pool.map(square, range(3))) == [0, 1, 4]
        assert sorted(ran) == [0, 1, 2]

    passes(program, schedules=60, patch=True)


def test_tasks_that_wait_for_each_other_hang_their_pool() -> None:
    """Documented at ``ThreadPoolExecutor``; whether it happens depends on the schedule here."""

    def program() -> None:
        made: queue.Queue[Future[int]] = queue.Queue()

        def first() -> int:
            return made.get().result()

        with ThreadPoolExecutor(1) as pool:
            pool.submit(first)
            made.put(pool.submit(int))

    found = failure(program, schedules=50, patch=True)

    assert "lost-wakeup" == found.kind
    assert "ThreadPoolExecutor-0_0 waits for" in found.message


# -- cachetools -----------------------------------------------------------------------------------


def test_a_cache_without_a_lock_loses_its_own_keys() -> None:
    """Documented: the classes are not thread-safe. Two threads evict the same key."""

    def program() -> None:
        cache: cachetools.LRUCache[int, int] = cachetools.LRUCache(1)
        cache[0] = 0

        def fill(key: int) -> None:
            cache[key] = key

        parallel(partial(fill, 1), partial(fill, 2))

    report = explore(program, "pct", schedules=300, lines=[cachetools])
    assert report.failure is not None
    least = minimize(program, report.failure)

    assert ("exception", "KeyError") == (least.kind, least.message.partition(":")[0])
    assert least.preemptions <= 1


def test_the_decorator_with_a_lock_is_safe_but_may_compute_twice() -> None:
    """Documented at ``cached``: the lock is not held while the function runs."""
    counts: set[int] = set()

    def program() -> None:
        calls: list[int] = []

        @cachetools.cached(cachetools.LRUCache(1), lock=threading.Lock())
        def square(n: int) -> int:
            calls.append(n)
            return n * n

        assert parallel(partial(square, 3), partial(square, 3), partial(square, 4)) == [9, 9, 16]
        counts.add(len(calls))

    passes(program, schedules=150, patch=True, lines=[cachetools])

    assert counts == {2, 3}


# -- readerwriterlock -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [rwlock.RWLockRead, rwlock.RWLockWrite, rwlock.RWLockFair])
def test_a_writer_is_alone_and_readers_are_not(kind: Callable[[], Any]) -> None:
    together: set[int] = set()

    def program() -> None:
        lock, inside = kind(), list[str]()

        def read() -> None:
            with lock.gen_rlock():
                inside.append("reader")
                time.sleep(1)
                together.add(len(inside))
                assert "writer" not in inside
                inside.remove("reader")

        def write() -> None:
            with lock.gen_wlock():
                assert not inside
                inside.append("writer")
                time.sleep(1)
                assert inside == ["writer"]
                inside.clear()

        parallel(read, read, write)

    passes(program, schedules=60, patch=True)

    assert together == {1, 2}


def test_readers_that_want_to_write_deadlock() -> None:
    def program() -> None:
        lock = rwlock.RWLockFair()

        def upgrade() -> None:
            with lock.gen_rlock():
                lock.gen_wlock().acquire()

        parallel(upgrade, upgrade)

    assert failure(program, patch=True).kind in ("deadlock", "lost-wakeup")


# -- pyrate-limiter -------------------------------------------------------------------------------


class Guarded(InMemoryBucket):
    """As later versions have it: a lock around both."""

    def __init__(self, rates: list[Rate]) -> None:
        super().__init__(rates)
        self.guard = threading.RLock()

    def put(self, item: RateItem) -> bool:
        with self.guard:
            return super().put(item)

    def leak(self, current_timestamp: int | None = None) -> int:
        with self.guard:
            return super().leak(current_timestamp)


def admitting(kind: Callable[[list[Rate]], InMemoryBucket]) -> Callable[[], None]:
    """The background leaker drops what has expired while an item of weight 2 asks for room."""

    def program() -> None:
        bucket = kind([Rate(2, 1_000)])
        assert bucket.put(RateItem("old", 0))
        assert bucket.put(RateItem("young", 900))
        parallel(lambda: bucket.put(RateItem("heavy", 1_001, weight=2)), lambda: bucket.leak(1_001))
        window = [item for item in bucket.items if item.timestamp > 1]
        assert len(window) <= 2, f"{len(window)} within a second, where 2 are allowed"

    return program


def racing(program: Callable[[], None]) -> Failure:
    report = explore(program, "pct", schedules=500, patch=True, lines=[MODULE])
    assert report.failure is not None, report.reason
    return minimize(program, report.failure)


MODULE = "pyrate_limiter.buckets.in_memory_bucket"


def test_the_leaker_races_the_bucket() -> None:
    """Issue 300 of vutran1710/PyrateLimiter, mended after 4.1: more is let through than allowed."""
    least = racing(admitting(InMemoryBucket))

    assert ("assertion", 1) == (least.kind, least.preemptions)
    assert "3 within a second, where 2 are allowed" in least.message
    sites = {step.site.qualname for step in least.trace() if step.site is not None}
    assert {"InMemoryBucket.put", "InMemoryBucket.leak"} <= sites


def test_with_the_lock_of_its_correction_it_does_not() -> None:
    passes(admitting(Guarded), "pct", schedules=500, patch=True, lines=[MODULE])


class OneBucket(BucketFactory):
    """All items go to one bucket, and nothing is dropped in the background."""

    def __init__(self) -> None:
        self.clock = MonotonicClock()
        self.bucket = InMemoryBucket([Rate(2, 1_000)])

    def wrap_item(self, name: str, weight: int = 1) -> RateItem:
        return RateItem(name, self.clock.now(), weight=weight)

    def get(self, item: RateItem) -> InMemoryBucket:
        return self.bucket


def test_a_limiter_delays_the_third_by_a_second_of_virtual_time() -> None:
    def program() -> None:
        limiter, began = Limiter(OneBucket()), time.monotonic()
        waited: list[float] = []

        def ask() -> None:
            assert limiter.try_acquire("x")
            waited.append(time.monotonic() - began)

        parallel(ask, ask, ask)
        assert [0, 0] == waited[:2]
        assert waited[2] >= 1

    passes(program, schedules=60, patch=True)
