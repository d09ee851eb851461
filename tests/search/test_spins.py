"""Loops that only wait do not drown a search; all other loops are run as they stand."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from harness import (
    Atomic,
    Event,
    Mutex,
    Shared,
    WaitQueue,
    explore,
    parallel,
    sleep,
    yield_now,
)
from harness.strategies.spins import ROUNDS
from harness.sync import WaitResult

searches = pytest.mark.parametrize("strategy", ["dfs", "dpor"])


def _flag(wait: Callable[[Shared[bool]], object]) -> Callable[[], None]:
    def program() -> None:
        flag, data = Shared(False, "flag"), Shared(0, "data")

        def send() -> None:
            data.set(7)
            flag.set(True)

        def receive() -> int:
            wait(flag)
            return data.get()

        assert parallel(send, receive)[1] == 7

    return program


def _plainly(flag: Shared[bool]) -> None:
    while not flag.get():
        pass


def _politely(flag: Shared[bool]) -> None:
    while not flag.get():
        yield_now()


def _through_a_function(flag: Shared[bool]) -> None:
    def ready() -> bool:
        return flag.get()

    while True:
        if ready():
            break


@searches
@pytest.mark.parametrize("wait", [_plainly, _politely, _through_a_function])
def test_a_loop_that_waits_for_a_flag_is_searched_to_the_end(
    strategy: str, wait: Callable[[Shared[bool]], object]
) -> None:
    report = explore(_flag(wait), strategy, schedules=3_000)

    assert (report.verdict, report.exhausted) == ("pass", True)
    assert report.schedules < 200
    assert report.steps < report.schedules * 40


@searches
def test_a_lock_made_of_compare_exchange_is_searched_to_the_end(strategy: str) -> None:
    def program() -> None:
        lock, cell = Atomic(0, "lock"), Shared(0, "cell")

        def add() -> None:
            while not lock.compare_exchange(0, 1):
                pass
            cell.set(cell.get() + 1)
            lock.store(0)

        parallel(add, add)
        assert cell.peek() == 2

    report = explore(program, strategy, schedules=3_000)

    assert (report.verdict, report.exhausted) == ("pass", True)


@searches
def test_a_bug_behind_a_spin_is_found(strategy: str) -> None:
    def program() -> None:
        flag, data = Shared(False, "flag"), Shared(0, "data")

        def send() -> None:
            flag.set(True)
            data.set(7)

        def receive() -> None:
            _plainly(flag)
            assert data.get() == 7

        parallel(send, receive)

    report = explore(program, strategy, schedules=3_000)

    assert report.failure is not None
    assert report.failure.kind == "assertion"


@searches
def test_where_everybody_spins_the_schedule_runs_into_its_bound(strategy: str) -> None:
    def program() -> None:
        left, right = Shared(False), Shared(False)

        def wait(mine: Shared[bool], other: Shared[bool]) -> None:
            _plainly(other)
            mine.set(True)

        parallel(lambda: wait(left, right), lambda: wait(right, left))

    report = explore(program, strategy, schedules=20, steps_max=100)

    assert (report.verdict, report.exhausted) == ("inconclusive", False)


def _patiently(event: Event, _queue: WaitQueue, _lock: Mutex) -> None:
    while not event.wait(1):
        pass


def _asleep(event: Event, queue: WaitQueue, lock: Mutex) -> None:
    with lock:
        while not event.is_set():
            queue.block(1, releasing=lock)


def _napping(event: Event, _queue: WaitQueue, _lock: Mutex) -> None:
    while not event.is_set():
        sleep(1)


@searches
@pytest.mark.parametrize("wait", [_patiently, _asleep, _napping])
@pytest.mark.parametrize("waiters", [1, 2])
def test_a_wait_that_times_out_again_and_again_does_not_drown_a_search(
    strategy: str, wait: Callable[[Event, WaitQueue, Mutex], None], waiters: int
) -> None:
    """Two of them do not wake each other for ever; their search is long, and so not run out."""

    def program() -> None:
        event, queue, lock = Event("e"), WaitQueue("q"), Mutex("m")

        def waker() -> None:
            with lock:
                event.set()
                queue.wake_all()

        parallel(waker, *[lambda: wait(event, queue, lock)] * waiters)

    schedules = 2_000 if waiters == 1 else 100
    report = explore(program, strategy, schedules=schedules, early_timeouts=True)

    assert report.verdict == "pass"
    assert report.exhausted or waiters == 2
    assert report.steps < report.schedules * 100


@searches
def test_a_bug_behind_an_early_timeout_is_found(strategy: str) -> None:
    """The waiter must be out of the queue for its time, and not yet back, as it is woken."""

    def program() -> None:
        queue, lock, state = WaitQueue("q"), Mutex("m"), Shared("asleep", "state")

        def waker() -> None:
            with lock:
                state.set("gone")
                queue.wake_all()

        def waiter() -> None:
            with lock:
                while queue.block(1, releasing=lock) is WaitResult.TIMED_OUT:
                    assert state.get() == "asleep", "woken, and nobody told"

        parallel(waiter, waker)

    report = explore(program, strategy, schedules=2_000, early_timeouts=True)

    assert report.failure is not None
    assert report.failure.kind == "assertion"
    assert report.steps < report.schedules * 100


# -- loops that have an end of their own --------------------------------------------------------


def _for_loop(cell: Shared[int]) -> None:
    for _ in [None] * (ROUNDS + 3):
        cell.get()


def _counting(cell: Shared[int]) -> None:
    rounds = 0
    while rounds < ROUNDS + 3:
        cell.get()
        rounds += 1


def _comprehension(cell: Shared[int]) -> None:
    assert [cell.get() for _ in [None] * (ROUNDS + 3)]


@searches
@pytest.mark.parametrize("reads", [_for_loop, _counting, _comprehension])
def test_other_loops_meet_a_write_at_each_of_their_rounds(
    strategy: str, reads: Callable[[Shared[int]], None]
) -> None:
    def program() -> None:
        cell = Shared(0)
        parallel(lambda: reads(cell), lambda: cell.set(1))

    report = explore(program, strategy, schedules=None)

    assert (report.schedules, report.blocked) == (ROUNDS + 4, 0)
