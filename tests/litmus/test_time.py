"""Exact outcomes of time: it moves when nothing else can."""

from __future__ import annotations

import pytest
from exploring import outcomes

from harness import (
    Mutex,
    Semaphore,
    Shared,
    monotonic,
    parallel,
    sleep,
    spawn,
)


def test_sleepers_wake_in_the_order_of_their_time_whatever_the_schedule() -> None:
    def program() -> object:
        order: list[float] = []

        def nap(seconds: float) -> None:
            sleep(seconds)
            order.append(monotonic())

        parallel(lambda: nap(0.3), lambda: nap(0.1), lambda: nap(0.2))
        return tuple(order)

    assert {(0.1, 0.2, 0.3)} == outcomes(program)


def test_time_stands_still_while_anything_can_run() -> None:
    def program() -> object:
        cell = Shared(0)

        def busy() -> float:
            for _ in range(3):
                cell.get()
            return monotonic()

        return parallel(busy, lambda: sleep(1))[0]

    assert {0.0} == outcomes(program)


def test_a_timed_acquire_gets_the_lock_or_runs_out() -> None:
    def program() -> object:
        lock = Mutex("m")

        def holder(seconds: float) -> None:
            with lock:
                sleep(seconds)

        def taker() -> bool:
            taken = lock.acquire(timeout=2.0)
            if taken:
                lock.release()
            return taken

        return parallel(lambda: holder(5.0), taker)[1], monotonic()

    assert {(True, 5.0), (False, 5.0)} == outcomes(program)


@pytest.mark.parametrize("make", [Mutex, Semaphore])
def test_who_gave_no_time_fails_at_once_where_another_was_faster(
    make: type[Mutex | Semaphore],
) -> None:
    def program() -> object:
        lock, cell = make(), Shared(0)

        def try_once() -> tuple[bool, int]:
            taken = lock.acquire(timeout=0)
            seen = cell.peek()
            if taken:
                lock.release()
            return taken, seen

        def take() -> None:
            lock.acquire()
            cell.set(1)
            cell.set(2)
            lock.release()

        # It announces itself while the lock is free.
        threads = spawn(try_once), spawn(take)
        for thread in threads:
            thread.join()
        return threads[0].result

    failed = {(False, 0), (False, 1), (False, 2)}
    assert outcomes(program) == {(True, 0), (True, 2)} | failed


def test_a_timed_join_runs_out() -> None:
    def program() -> object:
        thread = spawn(sleep, 5.0)
        thread.join(timeout=1.0)
        early = thread.is_alive(), monotonic()
        thread.join()
        return early, monotonic()

    assert {((True, 1.0), 5.0)} == outcomes(program)
