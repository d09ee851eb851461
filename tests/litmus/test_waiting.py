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
    SpinLock,
    WaitQueue,
    WaitResult,
    current_thread,
    explore,
    monotonic,
    parallel,
    priority_scheduling,
    sleep,
    spawn,
    yield_now,
)

# -- conditions (19-26) -------------------------------------------------------------------------


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


# -- events -------------------------------------------------------------------------------------


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


# -- semaphores and barriers --------------------------------------------------------------------


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


# -- wait queues --------------------------------------------------------------------------------


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


# -- time ---------------------------------------------------------------------------------------


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
