"""Exact outcomes of waiting: conditions, events, semaphores, barriers, wait queues, time."""

from __future__ import annotations

import pytest
from exploring import every, failure, outcomes, passes

from harness import (
    Barrier,
    Condition,
    Event,
    Mutex,
    Semaphore,
    Shared,
    monotonic,
    parallel,
    sleep,
    spawn,
)

# -- conditions (19-26) ---------------------------------------------------------------------------


def test_notify_wakes_in_the_order_of_waiting() -> None:
    def program() -> object:
        condition = Condition(Mutex("m"))
        arrived, awake = Semaphore(0), Semaphore(0)
        slept: list[int] = []
        woken: list[int] = []

        def waiter(i: int) -> None:
            with condition:
                slept.append(i)
                arrived.release()
                condition.wait()
                woken.append(i)
                awake.release()

        threads = [spawn(waiter, i) for i in (1, 2)]
        for _ in threads:
            arrived.acquire()
        for _ in threads:
            with condition:
                condition.notify()
            awake.acquire()
        for thread in threads:
            thread.join()
        assert slept == woken
        return tuple(woken)

    # Who waits first is up to the schedule; who is woken first is not.
    assert {(1, 2), (2, 1)} == outcomes(program)


@pytest.mark.parametrize(("notified", "left"), [(1, 1), (2, 0), (3, 0)])
def test_notify_wakes_as_many_as_it_says(notified: int, left: int) -> None:
    def program() -> object:
        condition = Condition(Mutex("m"))
        arrived = Semaphore(0)

        def waiter() -> bool:
            with condition:
                arrived.release()
                return condition.wait(10)

        threads = [spawn(waiter) for _ in range(2)]
        for _ in threads:
            arrived.acquire()
        with condition:
            condition.notify(notified)
        for thread in threads:
            thread.join()
        return sorted(thread.result for thread in threads).count(False)

    assert {left} == outcomes(program)


def test_notify_all_wakes_all() -> None:
    def program() -> object:
        condition = Condition(Mutex("m"))
        ready = Shared(False)

        def waiter() -> None:
            with condition:
                while not ready.peek():
                    condition.wait()

        def waker() -> None:
            with condition:
                ready.set(True)
                condition.notify_all()

        parallel(waiter, waiter, waker)
        return True

    assert {True} == outcomes(program)


def test_a_wait_that_nobody_ends_is_a_lost_wakeup() -> None:
    def program() -> None:
        condition = Condition(Mutex("m"), "ready")

        def waiter() -> None:
            with condition:
                condition.wait()

        parallel(waiter)

    report = every(program)
    assert {"lost-wakeup": report.schedules} == report.failing
    assert "waiter waits for ready (wait)" in report.failures[0].message


def test_a_notify_before_the_wait_is_lost_and_one_after_it_is_not() -> None:
    def program() -> None:
        condition = Condition(Mutex("m"), "ready")

        def waiter() -> None:
            with condition:
                condition.wait()

        def waker() -> None:
            with condition:
                condition.notify()

        parallel(waiter, waker)

    report = every(program)
    assert list(report.failing) == ["lost-wakeup"]
    assert 0 < report.failing["lost-wakeup"] < report.schedules


def _single_slot(*, loop: bool, conditions: int) -> None:
    """One producer of two items, two consumers of one each, one slot."""
    lock = Mutex("m")
    empty = Condition(lock, "empty")
    full = Condition(lock, "full") if conditions == 2 else empty
    slot: list[int] = []

    def produce() -> None:
        for item in (1, 2):
            with lock:
                while slot:
                    empty.wait()
                slot.append(item)
                full.notify()

    def consume() -> int:
        with lock:
            while not slot:
                full.wait()
                if not loop:
                    break
            assert slot, "nothing to get"
            item = slot.pop()
            empty.notify()
            return item

    results = parallel(produce, consume, consume)
    assert sorted(results[1:]) == [1, 2]


def test_waiting_without_a_loop_finds_nothing_to_get() -> None:
    found = failure(lambda: _single_slot(loop=False, conditions=2), "random", schedules=2_000)

    assert found.kind == "assertion"
    assert "nothing to get" in found.message


def test_one_condition_for_two_purposes_wakes_the_wrong_thread() -> None:
    found = failure(lambda: _single_slot(loop=True, conditions=1), "random", schedules=5_000)

    assert found.kind == "lost-wakeup"


def test_two_conditions_with_loops_pass() -> None:
    passes(lambda: _single_slot(loop=True, conditions=2), preemptions=2)
    passes(lambda: _single_slot(loop=True, conditions=2), "random", schedules=1_000)


def test_an_assumption_on_who_is_woken_fails() -> None:
    def program() -> None:
        condition = Condition(Mutex("m"))
        arrived = Semaphore(0)
        woken: list[int] = []

        def waiter(i: int) -> None:
            with condition:
                arrived.release()
                condition.wait()
                woken.append(i)
                condition.notify()

        threads = [spawn(waiter, i) for i in (1, 2)]
        for _ in threads:
            arrived.acquire()
        with condition:
            condition.notify()
        for thread in threads:
            thread.join()
        assert woken == [1, 2]

    assert failure(program).kind == "assertion"


@pytest.mark.parametrize("method", ["wait", "notify", "notify_all"])
def test_a_condition_without_its_lock_complains_as_threading_does(method: str) -> None:
    def program() -> object:
        condition = Condition(Mutex("m"))
        with pytest.raises(RuntimeError, match="un-acquired lock"):
            getattr(condition, method)()
        return True

    assert {True} == outcomes(program)


def test_a_timed_wait_runs_out_where_nothing_else_can_run() -> None:
    def program() -> object:
        condition = Condition(Mutex("m"))

        def waiter() -> tuple[bool, float]:
            with condition:
                return condition.wait(1.5), monotonic()

        return parallel(waiter)[0]

    assert {(False, 1.5)} == outcomes(program)


def test_a_timed_wait_is_ended_by_a_notify_that_comes_after_it() -> None:
    def program() -> object:
        condition = Condition(Mutex("m"))

        def waiter() -> tuple[bool, float]:
            with condition:
                return condition.wait(1.0), monotonic()

        def waker() -> None:
            with condition:
                condition.notify()

        return parallel(waiter, waker)[0]

    assert {(True, 0.0), (False, 1.0)} == outcomes(program)
    # With early timeouts it may also run out although the waker could still run.
    assert {(True, 0.0), (False, 1.0)} == outcomes(program, early_timeouts=True)


def test_timeouts_fire_in_the_order_of_their_deadlines() -> None:
    def program() -> object:
        fired: list[float] = []

        def waiter(seconds: float) -> None:
            condition = Condition(Mutex())
            with condition:
                condition.wait(seconds)
            fired.append(seconds)
            assert monotonic() == seconds

        parallel(*[lambda s=s: waiter(s) for s in (3.0, 1.0, 2.0)])
        return tuple(fired)

    assert {(1.0, 2.0, 3.0)} == outcomes(program)


def test_wait_for_gives_the_last_value_and_respects_its_deadline() -> None:
    def program() -> object:
        condition = Condition(Mutex("m"))
        value: list[int] = []

        def waiter() -> tuple[bool, float]:
            with condition:
                return bool(condition.wait_for(lambda: len(value) == 2, timeout=5.0)), monotonic()

        def once() -> None:
            with condition:
                value.append(1)
                condition.notify()

        return parallel(waiter, once)[0]

    assert {(False, 5.0)} == outcomes(program)


# -- events ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("auto", [False, True])
def test_a_set_before_the_wait_is_not_lost(auto: bool) -> None:
    def program() -> object:
        event = Event(auto_unsignal=auto)
        return parallel(event.wait, event.set)[0], event.peek()

    assert {(True, not auto)} == outcomes(program)


def test_a_sleeper_is_woken_for_good_though_the_event_is_cleared() -> None:
    def program() -> object:
        event = Event()
        asleep = Semaphore(0)

        def sleeper() -> bool:
            asleep.release()
            return event.wait(10)

        def pulse() -> None:
            asleep.acquire()
            event.set()
            event.clear()

        return parallel(sleeper, pulse)[0], monotonic()

    # The code between the release and the wait belongs to the release: whoever could acquire finds
    # the sleeper asleep.
    assert {(True, 0.0)} == outcomes(program)


def test_one_signal_of_an_auto_unsignal_event_frees_one_waiter() -> None:
    def program() -> object:
        event = Event("e", auto_unsignal=True)
        return tuple(sorted(parallel(lambda: event.wait(1), lambda: event.wait(1), event.set)[:2]))

    assert {(False, True)} == outcomes(program)


def test_a_manual_event_frees_all() -> None:
    def program() -> object:
        event = Event("e")
        return tuple(parallel(event.wait, event.wait, event.set)[:2])

    assert {(True, True)} == outcomes(program)


def test_an_event_that_nobody_sets_is_a_lost_wakeup() -> None:
    found = failure(lambda: parallel(Event("go").wait, names=["guest"]))

    assert found.kind == "lost-wakeup"
    assert "guest waits for go (event-wait)" in found.message


def test_is_set_and_clear_are_steps_that_others_can_come_between() -> None:
    def program() -> object:
        event = Event()

        def taker() -> bool:
            if event.is_set():
                event.clear()
                return True
            return False

        event.set()
        return sum(parallel(taker, taker))

    assert {1, 2} == outcomes(program)


# -- semaphores and barriers ----------------------------------------------------------------------


def test_a_semaphore_never_lets_in_more_than_its_permits() -> None:
    def program() -> object:
        permits = Semaphore(2)
        inside: list[int] = []
        most = [0]

        def guest(i: int) -> None:
            with permits:
                inside.append(i)
                most[0] = max(most[0], len(inside))
                permits.peek()
                step.get()
                inside.remove(i)

        step = Shared(0)
        parallel(*[lambda i=i: guest(i) for i in range(3)])
        assert permits.peek() == 2
        return most[0]

    assert {1, 2} == outcomes(program)


def test_a_waiter_that_gave_up_swallows_no_permit() -> None:
    def program() -> object:
        permits = Semaphore(0)

        def impatient() -> bool:
            return permits.acquire(timeout=1)

        def patient() -> bool:
            return permits.acquire()

        def giver() -> None:
            sleep(2)
            permits.release()

        return tuple(parallel(impatient, patient, giver)[:2])

    assert {(False, True)} == outcomes(program)


def test_a_semaphore_refuses_what_threading_refuses() -> None:
    def program() -> object:
        with pytest.raises(ValueError, match="initial value must be >= 0"):
            Semaphore(-1)
        with pytest.raises(ValueError, match="can't specify timeout for non-blocking acquire"):
            Semaphore(1).acquire(blocking=False, timeout=1)
        with pytest.raises(ValueError, match="n must be one or more"):
            Semaphore(1).release(0)
        return True

    assert {True} == outcomes(program)


def test_nobody_leaves_a_barrier_before_all_have_come() -> None:
    def program() -> object:
        barrier = Barrier(3)
        come: list[int] = []

        def party(i: int) -> int:
            come.append(i)
            index = barrier.wait()
            assert len(come) == 3
            return index

        return tuple(sorted(parallel(*[lambda i=i: party(i) for i in range(3)])))

    assert {(0, 1, 2)} == outcomes(program)


def test_a_barrier_that_one_never_reaches_is_a_lost_wakeup() -> None:
    def program() -> None:
        barrier = Barrier(3, name="gate")
        parallel(barrier.wait, barrier.wait, names=["a", "b"])

    found = failure(program)
    assert found.kind == "lost-wakeup"
    assert "a waits for gate (barrier-leave)" in found.message
