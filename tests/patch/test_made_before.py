"""Names that were taken and objects that were made before the patch are controlled too."""

from __future__ import annotations

import contextvars
import re
import sched
import threading
import time
from collections.abc import Callable
from typing import Any

import ordinary
import pytest
from exploring import clean, outcomes, passes

from harness import (
    explore,
    parallel,
    spawn,
)


@pytest.mark.parametrize(
    "lock",
    [
        lambda: ordinary.LOCK,
        lambda: ordinary.RLOCK,
        lambda: ordinary.CONDITION,
        lambda: ordinary.TABLE["locks"][0],
        lambda: ordinary.Shelf.shared,
        lambda: ordinary.SHELF.own,
        ordinary.CLOSURE,
        lambda: ordinary.QUEUE.mutex,
    ],
    ids=["global", "rlock", "condition", "container", "class", "slot", "closure", "queue"],
)
def test_a_lock_made_before_is_controlled_wherever_it_is_kept(lock: Callable[[], Any]) -> None:
    """Two critical sections after each other: two interleavings, none of which blocks for real."""

    def program() -> None:
        def use() -> None:
            with lock():
                pass

        parallel(use, use)

    report = passes(program, "dfs", patch=True, hang_seconds=0.5)

    assert (2, 10) == (report.schedules, report.steps)


def test_queues_and_conditions_made_before_work_in_every_schedule() -> None:
    def program() -> None:
        got: list[int] = []

        def put() -> None:
            for number in range(2):
                ordinary.QUEUE.put(number)
                ordinary.SIMPLE.put(number)

        def get() -> None:
            for _ in range(2):
                got.append(ordinary.QUEUE.get(timeout=9))
                got.append(ordinary.SIMPLE.get(timeout=9))

        ordinary.both(put, get)
        assert got == [0, 0, 1, 1]
        with ordinary.CONDITION:
            assert not ordinary.CONDITION.wait(1)

    passes(program, "random", schedules=50, patch=True, hang_seconds=0.5)


def test_a_lock_that_was_taken_before_begins_every_schedule_taken() -> None:
    def program() -> None:
        assert not ordinary.TAKEN.acquire(timeout=1)
        ordinary.both(ordinary.TAKEN.acquire, ordinary.TAKEN.release)

    clean(program, "dfs", schedules=None)

    assert ordinary.TAKEN.locked()


def test_thread_local_data_is_fresh_in_every_thread_of_every_schedule() -> None:
    def program() -> None:
        own = threading.local()
        assert ordinary.LOCAL.mine == "outside"
        ordinary.LOCAL.mine = "inside"

        def look() -> None:
            assert not hasattr(ordinary.LOCAL, "mine")
            assert not hasattr(own, "x")
            assert ordinary.CONTEXT.seen == []
            own.x = 1
            ordinary.LOCAL.mine = "thread"
            ordinary.CONTEXT.seen.append("thread")
            ordinary.LOCK.locked()
            assert own.x == 1

        ordinary.both(look, look)
        parallel(look, look)
        assert ordinary.LOCAL.mine == "inside"

    passes(program, "random", schedules=20, patch=True)

    assert "outside" == ordinary.LOCAL.mine


def test_names_taken_by_import_and_by_default_arguments_are_on_the_virtual_clock() -> None:
    def program() -> None:
        began, wall = time.monotonic(), time.time()
        ordinary.nap(3600)
        parallel(lambda: ordinary.nap(1), lambda: ordinary.nap(2))
        assert ordinary.age(began) == 3602
        assert time.time() - wall == 3602
        assert time.perf_counter_ns() - round(began * 1e9) == 3602 * 10**9

    before = time.monotonic()
    clean(program, "random", schedules=5)

    assert time.monotonic() - before < 60


def test_a_scheduler_of_the_library_has_taken_the_clock_as_a_default() -> None:
    def program() -> None:
        began, ran = time.monotonic(), list[float]()
        plan = sched.scheduler()
        for delay in (7_200, 3_600):
            plan.enter(delay, 1, lambda: ran.append(time.monotonic() - began))
        threading.Thread(target=plan.run).start()
        time.sleep(10_000)
        assert ran == [3_600, 7_200]

    clean(program, "random", schedules=3)


def test_a_timer_fires_when_its_time_has_come_unless_it_is_cancelled() -> None:
    def program() -> None:
        fired: list[float] = []
        began = time.monotonic()
        timers = [
            threading.Timer(seconds, lambda: fired.append(time.monotonic() - began))
            for seconds in (60, 30, 90)
        ]
        for timer in timers:
            timer.start()
        timers[2].cancel()
        for timer in timers:
            timer.join()
        assert fired == [30, 60]

    clean(program, "random", schedules=50)


def test_threads_know_each_other_by_the_same_names_and_numbers_in_every_run() -> None:
    def program() -> object:
        seen: list[object] = []

        def look() -> None:
            ordinary.LOCK.locked()
            seen.append(ordinary.whoami())

        ordinary.both(look, look)
        spawn(look, name="spawned").join()
        assert threading.current_thread() is threading.main_thread()
        assert threading.get_ident() == threading.main_thread().ident
        return tuple(sorted(map(str, seen))), threading.active_count()

    names = "('first', 1)", "('second', 2)", "('spawned', 3)"
    assert {(names, 1)} == outcomes(program, patch=True)


def test_a_lock_looks_like_the_real_one() -> None:
    def looks() -> list[str]:
        lock, again = threading.Lock(), threading.RLock()
        shown = [repr(lock), repr(again)]
        with lock, again, again:
            shown += [repr(lock), repr(again)]
        return [re.sub(r"(owner=|at )(0x)?[1-9a-f]\w+", r"\1…", text) for text in shown]

    got: list[list[str]] = []
    explore(lambda: parallel(lambda: got.append(looks())), "random", schedules=1, patch=True)
    assert [[re.sub("owner=1 ", "owner=… ", text) for text in got[0]]] == [looks()]


VARIABLE = contextvars.ContextVar("VARIABLE", default="default")


def contexts() -> list[str]:
    """What threads see of a variable that their starter has set."""
    VARIABLE.set("the starter's")
    seen: list[str] = []
    threads = [threading.Thread(target=lambda: seen.append(VARIABLE.get()))]
    if hasattr(threads[0], "_context"):  # from 3.14 on
        given = contextvars.Context()
        given.run(VARIABLE.set, "its own")
        threads.append(threading.Thread(target=lambda: seen.append(VARIABLE.get()), context=given))  # type: ignore[call-arg] # likewise
    for thread in threads:
        thread.start()
        thread.join()
    return seen


def test_a_thread_runs_in_the_context_that_the_real_one_runs_in() -> None:
    wanted = contextvars.Context().run(contexts)

    def program() -> None:
        assert contexts() == wanted

    report = explore(program, "random", schedules=3, patch=True)
    assert report.failure is None, report.failure


def test_enumerate_names_those_that_run() -> None:
    def program() -> object:
        gate = threading.Event()
        thread = threading.Thread(target=gate.wait, name="waiting")
        assert not thread.is_alive()
        thread.start()
        alive = thread.is_alive(), [each.name for each in threading.enumerate()]
        gate.set()
        thread.join()
        return alive[0], tuple(alive[1]), thread.is_alive(), threading.active_count()

    main = threading.main_thread().name
    assert {(True, (main, "waiting"), False, 1)} == outcomes(program, patch=True)
