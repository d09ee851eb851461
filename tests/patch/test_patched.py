"""Code that nobody rewrote is controlled while it is patched, and is what it was afterwards."""

from __future__ import annotations

import _queue
import _thread
import contextvars
import math
import os
import queue
import re
import sched
import threading
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, as_completed, wait
from typing import Any

import ordinary
import pytest
from exploring import failure, outcomes, passes

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
    spawn,
)
from harness.patch import install

Program = Callable[[], object]


def clean(program: Program, strategy: str, **options: Any) -> None:
    """``program`` ran and never failed, also where there was nothing to choose."""
    report = explore(program, strategy, patch=True, **options)
    assert report.failure is None, report.failure
    assert report.steps > 0


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
    found = failure(lost_update, "random", patch=True)

    token = (
        "ll1-RqIERZ-rbG9zdF91cGRhdGWmcmFuZG9tAAHEBgAIAAAAAAwBxAzNZArNJ1Bk"
        "CidRULKpYXNzZXJ0aW9uqDExYWU0ZjU0zU4gwoCQkaYtcGF0Y2g"
    )
    assert (token, "95d39a5e160704e8") == (found.token, found.digest)


# -- races, deadlocks, tokens ---------------------------------------------------------------------


def lost_update() -> None:
    count = [0]

    def add() -> None:
        with ordinary.LOCK:
            seen = count[0]
        with ordinary.LOCK:
            count[0] = seen + 1

    ordinary.both(add, add)
    assert count[0] == 2


def test_a_race_is_found_minimized_and_replayed_without_the_block_around_it() -> None:
    with patched():
        report = explore(lost_update)
    assert report.failure is not None
    least = minimize(lost_update, report.failure)
    again = replay(lost_update, least.token)

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


# -- what was taken or made before ---------------------------------------------------------------


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


# -- the errors of the real ones ------------------------------------------------------------------


def _start_twice() -> None:
    thread = threading.Thread()
    thread.start()
    thread.start()


def _overfill() -> None:
    full: queue.Queue[int] = queue.Queue(1)
    full.put(1)
    full.put(2, timeout=0.01)


def misuses() -> dict[str, Callable[[], object]]:
    return {
        "release": lambda: threading.Lock().release(),
        "rlock release": lambda: threading.RLock().release(),
        "limit without blocking": lambda: threading.Lock().acquire(False, 1),
        "negative limit": lambda: threading.Lock().acquire(timeout=-2),
        "rlock negative limit": lambda: threading.RLock().acquire(timeout=-2),
        "huge limit": lambda: threading.Lock().acquire(timeout=1e12),
        "text as limit": lambda: threading.Lock().acquire(timeout="1"),  # type: ignore[arg-type]
        "wait": lambda: threading.Condition().wait(),
        "notify": lambda: threading.Condition(threading.Lock()).notify(),
        "semaphore": lambda: threading.Semaphore(-1),
        "semaphore limit": lambda: threading.Semaphore().acquire(False, 1),
        "semaphore none": lambda: threading.Semaphore().release(0),
        "bounded": lambda: threading.BoundedSemaphore().release(),
        "barrier": lambda: threading.Barrier(2).wait(0),
        "join before start": lambda: threading.Thread().join(),
        "join itself": lambda: threading.current_thread().join(),
        "start twice": _start_twice,
        "daemon": lambda: setattr(threading.current_thread(), "daemon", True),
        "raw": lambda: _thread.start_new_thread(1, ()),  # type: ignore[call-overload]
        "raw arguments": lambda: _thread.start_new_thread(print, []),  # type: ignore[call-overload]
        "sleep": lambda: time.sleep(-1),
        "lock nan": lambda: threading.Lock().acquire(timeout=math.nan),
        "sleep nan": lambda: time.sleep(math.nan),
        "simple queue nan": lambda: queue.SimpleQueue().get(timeout=math.nan),
        "sleep text": lambda: time.sleep("1"),  # type: ignore[arg-type]
        "empty": lambda: queue.Queue().get(timeout=0.01),
        "empty simple": lambda: queue.SimpleQueue().get(timeout=0.01),
        "full": _overfill,
        "queue limit": lambda: queue.SimpleQueue().get(timeout=-1),
        "done": lambda: queue.Queue().task_done(),
    }


def raised(misuse: Callable[[], object]) -> tuple[type, str]:
    try:
        misuse()
    except Exception as error:
        return type(error), str(error)
    return type(None), ""


def _wait_for_nan() -> None:
    condition = threading.Condition()
    with condition:
        try:
            condition.wait(math.nan)
        finally:
            assert condition._is_owned()  # type: ignore[attr-defined] # what ``with`` relies on


@pytest.mark.parametrize("wait", [lambda: threading.Event().wait(math.nan), _wait_for_nan])
def test_a_timeout_that_is_no_number_is_none_at_all_until_python_refuses_it(
    wait: Callable[[], object],
) -> None:
    got: list[object] = []
    explore(lambda: got.append(raised(wait)), "random", schedules=1, patch=True)
    assert [raised(wait)] == got


@pytest.mark.parametrize("name", misuses())
def test_misuse_raises_what_the_real_one_raises(name: str) -> None:
    misuse = misuses()[name]
    wanted = raised(misuse)
    got: list[object] = []

    def program() -> None:
        got.append(raised(misuse))

    explore(program, "random", schedules=1, patch=True)

    assert wanted[0] is not type(None)
    assert got[-1] == wanted


# -- exactly as before ----------------------------------------------------------------------------


def state() -> dict[str, dict[str, object]]:
    """Every name of what is patched, and what the program keeps."""
    owners: list[Any] = [
        threading,
        _thread,
        time,
        queue,
        _queue,
        ordinary,
        ordinary.Shelf,
        ThreadPoolExecutor,
        threading.Thread,
        threading.Condition,
        threading.Event,
        threading.Semaphore,
        threading.BoundedSemaphore,
        threading.Barrier,
    ]
    found = {str(owner): dict(vars(owner)) for owner in owners}
    found["age"] = {"defaults": ordinary.age.__defaults__, **(ordinary.age.__kwdefaults__ or {})}
    found["queue"] = dict(vars(ordinary.QUEUE))
    found["condition"] = dict(vars(ordinary.CONDITION))
    found["closure"] = {"inner": ordinary.CLOSURE(), "own": ordinary.SHELF.own}
    found["table"] = {"first": ordinary.TABLE["locks"][0]}
    return found


def changed(before: dict[str, dict[str, object]]) -> list[str]:
    after = state()
    return [
        f"{owner}.{name}"
        for owner, names in before.items()
        for name in {**names, **after[owner]}
        if names.get(name) is not after[owner].get(name)
    ]


def _nothing() -> None:
    """Inconclusive."""


def _fails() -> None:
    lost_update()


def _misuses() -> None:
    ordinary.both(ordinary.LOCK.locked, ordinary.LOCK.locked)
    explore(_fails)


@pytest.mark.parametrize("program", [_nothing, _fails, _misuses])
def test_everything_is_what_it_was_also_after_failures(program: Program) -> None:
    before = state()
    with pytest.raises(ZeroDivisionError), patched(), patched():
        assert "_thread.allocate_lock" not in changed(before)
        assert len(changed(before)) > 60
        try:
            explore(program, schedules=50)
        except Exception:
            assert program is _misuses
        raise ZeroDivisionError

    assert [] == changed(before)
    assert not install.active()


def test_threads_outside_of_the_schedule_keep_the_real_thing() -> None:
    """A thread that exchanges messages with the caller, while schedules run in between."""
    asked: queue.Queue[int | None] = queue.Queue()
    answered: queue.Queue[tuple[int, bool]] = queue.Queue()

    def serve() -> None:
        while (number := asked.get()) is not None:
            began = time.monotonic()
            threading.Event().wait(0.01)
            answered.put((number, time.monotonic() - began >= 0.009))

    server = threading.Thread(target=serve)
    server.start()
    with patched():
        for number in range(3):
            asked.put(number)
            passes(lambda: ordinary.both(ordinary.LOCK.locked, ordinary.LOCK.locked), schedules=20)
            assert answered.get(timeout=30) == (number, True)
        asked.put(None)
        server.join(30)

    assert not server.is_alive()


def test_locks_made_in_a_schedule_work_outside_of_it() -> None:
    kept: list[Any] = []

    def program() -> None:
        kept[:] = [threading.Lock(), threading.RLock(), queue.SimpleQueue(), queue.Queue()]
        ordinary.both(kept[0].locked, kept[0].locked)

    passes(program, "random", schedules=3, patch=True)

    lock, rlock, simple, plain = kept
    with lock:
        assert not lock.acquire(False)
    with rlock, rlock:
        pass
    simple.put(1)
    plain.put(2)
    assert (1, 2) == (simple.get(timeout=1), plain.get(timeout=1))
    assert isinstance(lock, type(_thread.allocate_lock())) is False
    assert not lock.locked()


def test_a_block_within_the_program_works_too() -> None:
    def program() -> None:
        with patched():
            lost_update()

    found = failure(program, "random")

    assert "assertion" == found.kind
    assert [] == changed(state())


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
