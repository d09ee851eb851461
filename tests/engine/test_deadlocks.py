"""Deadlocks and lost wakeups: when they are found, and what they say."""

from __future__ import annotations

import pytest
from exploring import every, failure, passes

from harness import (
    Condition,
    Event,
    Failure,
    Mutex,
    RwLock,
    Semaphore,
    Shared,
    WaitQueue,
    parallel,
    sleep,
    spawn,
)


def _states(found: Failure) -> dict[str, str]:
    return {state.name: state.state for state in found.story().final}


# -- deadlock -------------------------------------------------------------------------------------


def _abba_beside_a_busy_thread() -> None:
    a, b, cell = Mutex("a"), Mutex("b"), Shared(0, "cell")

    def forwards() -> None:
        with a, b:
            pass

    def backwards() -> None:
        with b, a:
            pass

    def busy() -> None:
        for _ in range(300):
            cell.get()

    parallel(forwards, backwards, busy)


def test_a_deadlock_is_reported_the_moment_it_closes_though_others_could_go_on() -> None:
    found = failure(_abba_beside_a_busy_thread, "random", schedules=500)

    assert "deadlock" == found.kind
    assert found.steps < 100
    assert {
        "main": "blocked",
        "forwards": "blocked",
        "backwards": "blocked",
        "busy": "running",
    } == _states(found)


def test_a_cycle_names_where_each_waits_and_where_the_other_took_the_lock() -> None:
    story = failure(_abba_beside_a_busy_thread, "random", schedules=500).story()

    waits = {wait.thread: wait for wait in story.cycle}
    assert {"forwards", "backwards"} == set(waits)
    for name, wants, holder in (("forwards", "b", "backwards"), ("backwards", "a", "forwards")):
        wait = waits[name]
        assert ("acquire", wants, holder) == (wait.kind, wait.wants, wait.holder)
        assert wait.site is not None
        assert wait.held_since is not None
        assert wait.site.qualname.endswith(f".{name}")
        assert wait.held_since.qualname.endswith(f".{holder}")


def test_the_schedule_ends_with_the_last_step_before_the_cycle() -> None:
    """parallel, a, b: the third acquisition is announced in the third step and closes the cycle."""

    def program() -> None:
        a, b = Mutex("a"), Mutex("b")

        def forwards() -> None:
            with a, b:
                pass

        def backwards() -> None:
            with b, a:
                pass

        parallel(forwards, backwards)

    report = every(program)

    assert {"deadlock": 2} == report.failing
    assert 3 == report.failures[0].steps
    assert ["parallel", "acquire", "acquire"] == [s.kind for s in report.failures[0].trace()]


def test_a_deadlock_through_a_join() -> None:
    def program() -> None:
        lock, go = Mutex("m"), Event("go")

        def worker() -> None:
            go.wait()
            with lock:
                pass

        thread = spawn(worker)
        with lock:
            go.set()
            thread.join()

    found = failure(program)
    assert "deadlock" == found.kind
    assert "main waits for worker (join), which has not ended" in found.message
    assert "worker waits for m (acquire), held by main" in found.message


def test_a_deadlock_of_two_that_join_each_other() -> None:
    def program() -> None:
        threads: list[object] = []

        def join(other: int) -> None:
            ready.wait()
            threads[other].join()  # type: ignore[attr-defined] # threads, filled below

        ready = Event("ready")
        threads += [spawn(join, 1, name="first"), spawn(join, 0, name="second")]
        ready.set()
        for thread in threads:
            thread.join()  # type: ignore[attr-defined] # threads

    found = failure(program)
    assert "deadlock" == found.kind
    assert "first waits for second (join)" in found.message
    assert "second waits for first (join)" in found.message


def test_a_deadlock_through_parallel() -> None:
    def program() -> None:
        lock = Mutex("m")
        with lock:
            parallel(lambda: lock.acquire(), names=["inner"])

    found = failure(program)
    assert "deadlock" == found.kind
    assert "inner waits for m (acquire), held by main" in found.message
    assert "main waits for inner (parallel)" in found.message


def test_a_deadlock_through_an_owned_wait_queue_is_found_when_the_owner_is_named_late() -> None:
    def program() -> None:
        lock, queue, asleep = Mutex("m"), WaitQueue("q"), Semaphore(0, "asleep")

        def sleeper() -> None:
            with lock:
                asleep.release()
                queue.block()

        def owner() -> None:
            with lock:
                pass

        thread = spawn(sleeper)
        asleep.acquire()
        other = spawn(owner)
        queue.assign_owner(other)
        thread.join()

    found = failure(program)
    assert "deadlock" == found.kind
    assert "sleeper waits for q (queue-block), held by owner" in found.message
    assert "owner waits for m (acquire), held by sleeper" in found.message


@pytest.mark.parametrize("late", [True, False])
def test_a_lock_whose_holder_has_ended_is_a_deadlock_for_who_wants_it(late: bool) -> None:
    def program() -> None:
        lock = Mutex("m")

        def forgetful() -> None:
            lock.acquire()

        thread = spawn(forgetful)
        if late:
            thread.join()
        else:
            sleep(0)
        lock.acquire()
        lock.release()
        thread.join()

    report = every(program)

    found = next(found for found in report.failures if found.kind == "deadlock")
    assert "main waits for m (acquire), kept by forgetful, which has ended" in found.message
    assert {"deadlock", "leak"} >= set(report.failing)


def test_a_timed_wait_in_a_cycle_is_no_deadlock() -> None:
    def program() -> None:
        a, b = Mutex("a"), Mutex("b")

        def patient() -> None:
            with a, b:
                pass

        def impatient() -> None:
            with b:
                if a.acquire(timeout=1):
                    a.release()

        parallel(patient, impatient)

    passes(program)


def test_a_deadlock_of_readers_and_writers() -> None:
    def program() -> None:
        rw, lock = RwLock("rw"), Mutex("m")

        def reader() -> None:
            with rw.read(), lock:
                pass

        def writer() -> None:
            with lock, rw.write():
                pass

        parallel(reader, writer)

    found = failure(program)
    assert "deadlock" == found.kind
    assert "writer waits for rw (write-acquire), held by reader" in found.message
    assert "reader waits for m (acquire), held by writer" in found.message


# -- lost wakeups ---------------------------------------------------------------------------------


def test_a_lost_wakeup_names_what_every_thread_waits_for() -> None:
    def program() -> None:
        event, queue, gate = Event("e"), WaitQueue("q"), Semaphore(0, "gate")
        condition = Condition(Mutex("m"), "c")

        def in_condition() -> None:
            with condition:
                condition.wait()

        parallel(event.wait, queue.block, gate.acquire, in_condition, names=["a", "b", "c", "d"])

    found = failure(program)
    assert "lost-wakeup" == found.kind
    for line in (
        "a waits for e (event-wait)",
        "b waits for q (queue-block)",
        "c waits for gate (sem-acquire)",
        "d waits for c (wait)",
        "main waits for a+b+c+d (parallel)",
    ):
        assert line in found.message


def test_a_lock_held_by_a_sleeper_is_no_cycle() -> None:
    """The wanter waits for the sleeper, who waits for nobody in particular."""

    def program() -> None:
        lock, event = Mutex("m"), Event("e")

        def sleeper() -> None:
            with lock:
                event.wait()

        def wanter() -> None:
            with lock:
                event.set()

        parallel(sleeper, wanter)

    report = every(program)
    assert ["lost-wakeup"] == list(report.failing)
    assert "wanter waits for m (acquire)" in report.failures[0].message
