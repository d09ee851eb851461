"""Exact outcomes of wait queues: who is woken, who inherits, whose interrupts count."""

from __future__ import annotations

import pytest
from exploring import every, failure, outcomes

from harness import (
    Event,
    Mutex,
    Semaphore,
    Shared,
    SpinLock,
    WaitQueue,
    WaitResult,
    current_thread,
    explore,
    monotonic,
    parallel,
    priority_scheduling,
    spawn,
    yield_now,
)


def test_a_wake_finds_only_those_asleep() -> None:
    def program() -> object:
        queue = WaitQueue("q")
        return tuple(parallel(lambda: queue.block(1.0), lambda: queue.wake(1)))

    assert {(WaitResult.WOKEN, 1), (WaitResult.TIMED_OUT, 0)} == outcomes(program)


def test_going_to_sleep_and_giving_the_lock_up_are_one_step() -> None:
    """A waker that holds the lock never misses a sleeper that saw no reason to wake."""

    def program() -> object:
        lock, queue, ready = Mutex("m"), WaitQueue("q"), Shared(False)

        def sleeper() -> WaitResult | None:
            with lock:
                if ready.get():
                    return None
                result = queue.block(releasing=lock)
                assert lock.owner is current_thread()
                return result

        def waker() -> None:
            with lock:
                ready.set(True)
                queue.wake_all()

        return parallel(sleeper, waker)[0]

    assert {None, WaitResult.WOKEN} == outcomes(program)


def test_without_releasing_a_sleeper_can_be_missed() -> None:
    def program() -> None:
        lock, queue, ready = Mutex("m"), WaitQueue("q"), Shared(False)

        def sleeper() -> None:
            with lock:
                asleep = not ready.get()
            if asleep:
                queue.block()

        def waker() -> None:
            with lock:
                ready.set(True)
                queue.wake_all()

        parallel(sleeper, waker)

    found = failure(program)
    assert found.kind == "lost-wakeup"
    assert "sleeper waits for q (queue-block)" in found.message


def test_the_most_urgent_sleeper_is_woken_first_and_among_equals_the_longest() -> None:
    def program() -> object:
        queue, lock = WaitQueue("q"), Mutex("m")
        arrived, awake = Semaphore(0), Semaphore(0)
        slept: list[str] = []
        woken: list[str] = []

        def sleeper(name: str) -> None:
            with lock:
                slept.append(name)
                arrived.release()
                queue.block(releasing=lock)
                woken.append(name)
            awake.release()

        threads = [
            spawn(sleeper, "low", priority=1),
            spawn(sleeper, "low too", priority=1),
            spawn(sleeper, "high", priority=5),
        ]
        for _ in threads:
            arrived.acquire()
        for _ in threads:
            with lock:
                queue.wake()
            awake.acquire()
        for thread in threads:
            thread.join()
        assert woken[0] == "high"
        assert woken[1:] == [name for name in slept if name != "high"]
        return tuple(woken)

    report = every(program, preemptions=1)
    assert not report.failing


def test_waiters_lend_their_owner_their_priority_through_chains() -> None:
    def program() -> object:
        first, second = WaitQueue("first"), WaitQueue("second")
        seen: list[int] = []
        arrived = Semaphore(0)
        lock = Mutex("m")

        def sleep_in(queue: WaitQueue, owns: WaitQueue | None) -> None:
            if owns is not None:
                owns.assign_owner(current_thread())
            with lock:
                arrived.release()
                queue.block(releasing=lock)
            if owns is not None:
                owns.assign_owner(None)

        first.assign_owner(current_thread())
        middle = spawn(sleep_in, first, second, priority=3)
        arrived.acquire()
        with lock:
            seen.append(current_thread().effective_priority)
        high = spawn(sleep_in, second, None, priority=9)
        arrived.acquire()
        with lock:
            seen.append(middle.effective_priority)
            seen.append(current_thread().effective_priority)
        second.wake_all()
        high.join()
        seen.append(current_thread().effective_priority)
        first.assign_owner(None)
        seen.append(current_thread().effective_priority)
        first.wake_all()
        middle.join()
        return tuple(seen)

    assert {(3, 9, 9, 3, 0)} == outcomes(program)


def race_of_three_priorities(*, inherits: bool) -> object:
    """A low owner of a queue, a high waiter, a hog in between: who of the last two ends first."""
    priority_scheduling()
    order: list[str] = []
    queue, lock, owned = WaitQueue("q"), SpinLock("s"), Event("owned")

    def low() -> None:
        if inherits:
            queue.assign_owner(current_thread())
        owned.set()
        with lock:
            queue.wake_all()
            queue.assign_owner(None)

    def high() -> None:
        owned.wait()
        with lock:
            queue.block(releasing=lock)
        order.append("high")

    def hog() -> None:
        owned.wait()
        for _ in range(5):
            yield_now()
        order.append("hog")

    threads = [spawn(low, priority=-3), spawn(high, priority=-1), spawn(hog, priority=-2)]
    for thread in threads:
        thread.join()
    return tuple(order)


def test_under_priority_scheduling_an_owner_that_inherits_is_not_starved() -> None:
    assert outcomes(lambda: race_of_three_priorities(inherits=True)) == {("high", "hog")}


def test_under_priority_scheduling_an_owner_that_inherits_nothing_is_starved() -> None:
    assert outcomes(lambda: race_of_three_priorities(inherits=False)) == {("hog", "high")}


@pytest.mark.parametrize("strategy", ["random", "pct", "pos", "urw", "surw", "round-robin", "dfs"])
def test_under_priority_scheduling_only_the_most_urgent_is_chosen(strategy: str) -> None:
    def program() -> None:
        priority_scheduling()
        order: list[int] = []

        def work(priority: int) -> None:
            for _ in range(2):
                yield_now()
                order.append(priority)

        threads = [spawn(work, priority, priority=priority) for priority in (-1, -3, -2, -1)]
        for thread in threads:
            thread.join()
        assert order == [-1, -1, -1, -1, -2, -2, -3, -3]

    report = explore(program, strategy, 40)
    assert report.verdict == "pass", report.failure or report.reason


@pytest.mark.parametrize("mode", ["controlled", "free"])
def test_priorities_decide_where_somebody_chooses(mode: str) -> None:
    def program() -> None:
        assert priority_scheduling() is (mode == "controlled")
        parallel(yield_now, yield_now)

    report = explore(program, schedules=5, mode=mode)
    assert report.failure is None, report.failure


def test_being_pushed_aside_by_a_more_urgent_thread_is_no_preemption() -> None:
    def program() -> None:
        priority_scheduling()
        cell = Shared(0, "cell")

        def low() -> None:
            cell.set(1)
            woken.set()
            cell.set(3)

        def high() -> None:
            woken.wait()
            cell.set(2)

        woken = Event("woken")
        threads = [spawn(low, priority=-2), spawn(high, priority=-1)]
        for thread in threads:
            thread.join()
        assert cell.get() == 2, cell.get()

    found = explore(program, "random", 5).failure
    assert found is not None
    assert "3 == 2" in found.message
    assert found.preemptions == 0


def test_a_wait_for_the_owner_of_a_queue_closes_a_deadlock() -> None:
    def program() -> None:
        lock, queue = Mutex("m"), WaitQueue("q")

        def owner() -> None:
            queue.assign_owner(current_thread())
            with lock:
                pass
            queue.assign_owner(None)
            queue.wake_all()

        def waiter() -> None:
            with lock:
                queue.block()

        parallel(owner, waiter)

    report = every(program)
    cycles = [found.message for found in report.failures if found.kind == "deadlock"]
    assert any(
        "waiter waits for q (queue-block), held by owner" in message
        and "owner waits for m (acquire), held by waiter" in message
        for message in cycles
    )


def test_an_interrupt_ends_only_an_interruptible_wait() -> None:
    def program(*, interruptible: bool) -> object:
        queue = WaitQueue("q")
        thread = spawn(lambda: queue.block(1.0, interruptible=interruptible))
        thread.interrupt()
        thread.join()
        return thread.result, monotonic()

    assert {(WaitResult.INTERRUPTED, 0.0)} == outcomes(lambda: program(interruptible=True))
    assert {(WaitResult.TIMED_OUT, 1.0)} == outcomes(lambda: program(interruptible=False))


def test_an_interrupt_ends_an_interruptible_wait_on_an_event() -> None:
    def program() -> object:
        event = Event("e")
        thread = spawn(lambda: event.wait(interruptible=True))
        thread.interrupt()
        thread.join()
        return thread.result

    assert {False} == outcomes(program)
