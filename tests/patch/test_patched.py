"""Code that nobody rewrote is controlled while it is patched, and is what it was afterwards."""

from __future__ import annotations

import _thread
import os
import queue
import threading
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, as_completed, wait
from typing import Any

import ordinary
import pytest
from exploring import clean, failure, outcomes, passes

from harness import (
    Barrier,
    Condition,
    Event,
    Exploration,
    Mutex,
    Semaphore,
    explore,
    minimize,
    parallel,
    patched,
    replay,
)

Program = Callable[[], object]


# -- a step is one operation, patched or not ------------------------------------------------------


def pairs() -> dict[str, Callable[[Any], Program]]:
    """Programs over either kind of primitive; what they get has ``threading``'s interface."""

    def mutual(kind: Any) -> Program:
        def program() -> int:
            lock = kind.lock()
            seen: list[int] = []

            def body() -> None:
                with lock:
                    seen.append(len(seen))
                if lock.acquire(False):
                    lock.release()

            parallel(body, body)
            return len(seen)

        return program

    def condition(kind: Any) -> Program:
        def program() -> object:
            ready = kind.condition()
            items: list[int] = []

            def put() -> None:
                with ready:
                    items.append(1)
                    ready.notify()

            def get() -> object:
                with ready:
                    while not items:
                        ready.wait()
                    return items.pop()

            return tuple(parallel(put, get))

        return program

    def event(kind: Any) -> Program:
        def program() -> object:
            flag = kind.event()

            def look() -> tuple[bool, bool]:
                return flag.is_set(), flag.wait(1)

            def change() -> None:
                flag.set()
                flag.clear()

            return tuple(parallel(look, change))

        return program

    def semaphore(kind: Any) -> Program:
        def program() -> object:
            slots = kind.semaphore(1)

            def use() -> bool:
                taken: bool = slots.acquire(timeout=1)
                if taken:
                    slots.release()
                return taken

            return tuple(parallel(use, use))

        return program

    def barrier(kind: Any) -> Program:
        def program() -> object:
            gate = kind.barrier(2)
            return tuple(parallel(gate.wait, gate.wait))

        return program

    return {f.__name__: f for f in (mutual, condition, event, semaphore, barrier)}


class Ours:
    lock, condition, event, semaphore, barrier = Mutex, Condition, Event, Semaphore, Barrier


class Theirs:
    """The names as they are when the program runs."""

    @property
    def lock(self) -> Any:
        return threading.Lock

    condition, event = threading.Condition, threading.Event
    semaphore, barrier = threading.Semaphore, threading.Barrier


@pytest.mark.parametrize("name", pairs())
def test_a_patched_primitive_takes_the_steps_of_ours(name: str) -> None:
    """Every interleaving, by number and by outcome."""
    make = pairs()[name]
    seen: list[set[object]] = []
    counts: list[tuple[int, int]] = []
    for kind in (Ours(), Theirs()):
        ends: set[object] = set()
        program = make(kind)

        def noting(ends: set[object] = ends, program: Program = program) -> None:
            ends.add(program())

        report = passes(noting, "dfs", patch=True)
        assert report.exhausted
        counts.append((report.schedules, report.steps))
        seen.append(ends)

    assert counts[0] == counts[1]
    assert seen[0] == seen[1]


def test_a_search_that_reduces_reaches_every_outcome() -> None:
    """Objects are told apart by their creation; the order of their first use is the schedule's."""

    def crossed() -> object:
        one, two = threading.Event(), threading.Event()
        slots = threading.Semaphore(1)

        def set_and_look(mine: threading.Event, other: threading.Event) -> tuple[bool, bool]:
            mine.set()
            return other.is_set(), slots.acquire(False)

        return tuple(parallel(lambda: set_and_look(one, two), lambda: set_and_look(two, one)))

    everything: list[set[object]] = []
    schedules: list[int] = []
    for strategy in ("dfs", "dpor"):
        ends: set[object] = set()

        def noting(ends: set[object] = ends) -> None:
            ends.add(crossed())

        schedules.append(passes(noting, strategy, schedules=None, patch=True).schedules)
        everything.append(ends)

    assert everything[0] == everything[1]
    assert schedules[1] < schedules[0]


def test_an_object_is_known_by_its_creation_whoever_is_used_first() -> None:
    def program() -> bool:
        older, younger = threading.Event(), threading.Event()
        parallel(younger.set, younger.is_set)
        parallel(older.set, older.is_set)
        addresses = [vars(each)["_lockloom_shadow"][1].address for each in (older, younger)]
        return addresses == sorted(addresses)

    assert {True} == outcomes(program, patch=True)


def test_start_and_join_are_one_step_each_and_a_name_is_counted_from_one() -> None:
    def program() -> None:
        lock = threading.Lock()
        threads = [threading.Thread(target=lock.locked) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        raise LookupError

    found = failure(program, "random", patch=True)

    told = [(step.name, step.kind) for step in found.trace()]
    assert [("main", "spawn")] * 2 == [each for each in told if each[1] == "spawn"]
    assert 2 == told.count(("main", "join"))
    assert {"main", "Thread-1 (locked)", "Thread-2 (locked)"} == {name for name, _ in told}


def test_the_token_is_the_same_on_every_python() -> None:
    """Found on one, written here, found on all."""
    found = failure(ordinary.lost_update, "random", patch=True)

    token = (
        "ll1-TvlFKp-rbG9zdF91cGRhdGWmcmFuZG9tAAHEBgAIAAAAAAwBxAzNZArNJ1Bk"
        "CidRULKpYXNzZXJ0aW9uqGFjY2RlOTc0zU4gwoCQkaYtcGF0Y2g"
    )
    assert (token, "b97ddf4a6ff98338") == (found.token, found.digest)


# -- races, deadlocks, tokens ---------------------------------------------------------------------


def test_a_race_is_found_minimized_and_replayed_without_the_block_around_it() -> None:
    with patched():
        report = explore(ordinary.lost_update)
    assert report.failure is not None
    least = minimize(ordinary.lost_update, report.failure)
    again = replay(ordinary.lost_update, least.token)

    assert again is not None
    assert ("assertion", 1, least.digest) == (again.kind, again.preemptions, again.digest)


@pytest.mark.parametrize("by_with", [True, False])
def test_crossed_locks_deadlock_as_a_cycle(by_with: bool) -> None:
    def program() -> None:
        one, two = threading.Lock(), threading.Lock()

        def cross(first: Any, second: Any) -> None:
            if by_with:
                with first, second:
                    pass
                return
            first.acquire()
            second.acquire()
            second.release()
            first.release()

        ordinary.both(lambda: cross(one, two), lambda: cross(two, one))

    found = failure(program, "random", patch=True)

    assert "deadlock" == found.kind
    assert "2 threads wait in a cycle" in found.message


def test_a_lock_that_another_thread_releases_is_no_deadlock() -> None:
    """A cycle by owners while a third thread is on its way to release: not with acquire()."""

    def program() -> None:
        gate = threading.Lock()
        gate.acquire()
        waiting = threading.Thread(target=gate.acquire)
        opening = threading.Thread(target=gate.release)
        waiting.start()
        opening.start()
        waiting.join()
        opening.join()

    clean(program, "dfs", schedules=None)


def test_a_wakeup_that_comes_too_early_is_lost() -> None:
    def program() -> None:
        ready = threading.Condition()

        def get() -> None:
            with ready:
                ready.wait()

        def put() -> None:
            with ready:
                ready.notify()

        ordinary.both(get, put)

    assert "lost-wakeup" == failure(program, "random", patch=True).kind


def test_an_exception_in_a_thread_is_a_failure_and_a_hook_of_the_program_deals_with_it() -> None:
    def program(hook: Any = None) -> object:
        caught: list[object] = []
        before = threading.excepthook
        if hook is not None:
            threading.excepthook = lambda args: caught.append(args.exc_type)
        try:
            ordinary.both(lambda: 1 // 0, ordinary.LOCK.locked)
        finally:
            threading.excepthook = before
        return tuple(caught)

    found = failure(program, "random", patch=True)
    assert ("exception", "ZeroDivisionError") == (found.kind, found.message.split(":")[0])
    assert {(ZeroDivisionError,)} == outcomes(lambda: program(1), patch=True)


def test_threads_end_by_system_exit_and_daemons_by_the_end_of_the_program() -> None:
    ended: list[str] = []

    def forever() -> None:
        try:
            threading.Event().wait()
        finally:
            ended.append("daemon")

    def program() -> None:
        threading.Thread(target=forever, daemon=True).start()
        raw: queue.Queue[str] = queue.Queue()

        def leave() -> None:
            raw.put("raw")
            _thread.exit()

        _thread.start_new_thread(leave, ())
        ordinary.both(leave, ordinary.LOCK.locked)
        assert raw.get() == raw.get() == "raw"

    passes(program, "random", schedules=20, patch=True)

    assert ["daemon"] * 20 == ended


def test_a_thread_that_nobody_joined_is_a_leak() -> None:
    def program() -> None:
        gate = threading.Event()
        threading.Thread(target=gate.wait).start()
        ordinary.LOCK.locked()

    assert "leak" == failure(program, "random", patch=True).kind


# -- uncontrolled ---------------------------------------------------------------------------------


def test_blocking_in_something_uncontrolled_is_inconclusive_with_all_stacks() -> None:
    read, write = os.pipe()

    def program() -> None:
        ordinary.both(lambda: os.read(read, 1), ordinary.LOCK.locked)

    try:
        report: Exploration = explore(program, schedules=5, patch=True, hang_seconds=0.3)
    finally:
        os.write(write, b"x")

    assert "inconclusive" == report.verdict
    assert "first blocked in something the harness does not control" in report.reason
    assert "os.read(read, 1)" in report.detail
    os.close(read)
    os.close(write)


# -- thread pools ---------------------------------------------------------------------------------


def test_a_thread_pool_is_controlled_and_its_threads_have_the_same_names_in_every_run() -> None:
    def program() -> object:
        with ThreadPoolExecutor(2) as pool:
            squares = [pool.submit(pow, n, 2) for n in range(3)]
            done, left = wait(squares, timeout=9)
            assert (3, 0) == (len(done), len(left))
            names = pool.map(lambda _: threading.current_thread().name, range(2))
            assert {"ThreadPoolExecutor-0_0", "ThreadPoolExecutor-0_1"} >= set(names)
            return tuple(each.result() for each in squares)

    report = passes(program, "random", schedules=100, patch=True)

    assert report.preemptions > 100


@pytest.mark.parametrize("late", [False, True])
def test_futures_and_threads_in_sets_are_walked_in_the_same_order_in_every_run(late: bool) -> None:
    """Every schedule runs twice; a pool joins its threads by a set, ``wait`` locks by identity."""

    def program() -> None:
        with ThreadPoolExecutor(3) as pool:
            asked = {pool.submit(pow, n, 2) for n in range(4)}
            if late:
                assert sorted(each.result() for each in as_completed(asked)) == [0, 1, 4, 9]
            else:
                assert len(wait(asked, return_when=FIRST_COMPLETED).done) >= 1
        for thread in {threading.Thread(target=ordinary.LOCK.locked) for _ in range(4)}:
            thread.start()
            thread.join()

    passes(program, "random", schedules=60, patch=True, twice_every=1)


def test_unwinding_a_pool_is_no_news(caplog: pytest.LogCaptureFixture) -> None:
    def program() -> None:
        with ThreadPoolExecutor(1) as pool:
            pool.submit(threading.Event().wait).result()

    assert "lost-wakeup" == failure(program, "random", patch=True).kind
    assert [] == caplog.records
