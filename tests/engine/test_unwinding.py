"""After a failure every thread is taken down, and the next schedule starts clean."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from exploring import failure, passes

from harness import (
    Atomic,
    Condition,
    Event,
    Mutex,
    Semaphore,
    Shared,
    UsageError,
    check,
    explore,
    in_schedule,
    parallel,
    replay,
    spawn,
)
from harness.engine import pool
from harness.trace.token import STEPS_MAX


def _fails_after_two_steps() -> None:
    cell = Shared(0)
    cell.get()
    cell.get()
    raise LookupError("enough")


# -- finally ------------------------------------------------------------------------------------


def test_finally_blocks_run_in_every_thread_and_may_use_primitives() -> None:
    log: list[str] = []
    condition = Condition(Mutex("m"))
    event, gate, atomic = Event("e"), Semaphore(1, "s"), Atomic(0)

    def program() -> None:
        log.clear()

        def worker(name: str) -> None:
            try:
                with condition:
                    condition.wait()
            finally:
                atomic.fetch_add()
                event.set()
                with gate:
                    atomic.store(0)
                with condition:
                    condition.notify_all()
                log.append(name)

        try:
            threads = [spawn(worker, name) for name in "abc"]
            _fails_after_two_steps()
            threads[0].join()
        finally:
            log.append("main")

    for _ in range(20):
        assert "exception" == failure(program, "random").kind
        assert ["a", "b", "c", "main"] == sorted(log)
        assert condition.mutex.owner is None
        assert not condition.waiters
        assert 1 == gate.peek()


def test_context_managers_release_while_unwinding() -> None:
    outer, inner = Mutex("outer"), Mutex("inner")

    def program() -> None:
        def worker() -> None:
            with outer, inner:
                Semaphore(0).acquire()

        spawn(worker)
        cell = Shared(0)
        cell.get()
        raise LookupError("enough")

    report = explore(program, "random", schedules=50, stop_at_first=False)

    assert {"exception": 50} == report.failing
    assert outer.owner is None
    assert inner.owner is None


def test_an_error_in_a_finally_block_does_not_hide_the_failure() -> None:
    def program() -> None:
        def worker() -> None:
            try:
                Semaphore(0).acquire()
            finally:
                raise ValueError("while unwinding")

        spawn(worker)
        _fails_after_two_steps()

    found = failure(program)
    assert "LookupError: enough" in found.message


def test_a_thread_that_never_began_is_not_started_to_be_taken_down() -> None:
    ran: list[int] = []

    def program() -> None:
        cell = Shared(0)

        def breaks() -> None:
            raise LookupError("before any operation")

        parallel(breaks, lambda: ran.append(1))
        cell.get()

    assert "exception" == failure(program).kind
    assert [] == ran


# -- swallowing ---------------------------------------------------------------------------------


def test_a_thread_that_swallows_the_abort_is_taken_down_at_its_next_operation() -> None:
    swallowed: list[int] = []

    def program() -> None:
        gate = Semaphore(0, "gate")

        def stubborn() -> None:
            for i in range(5):
                try:
                    gate.acquire()
                except BaseException:
                    swallowed.append(i)

        spawn(stubborn)
        _fails_after_two_steps()

    report = explore(program, "random", schedules=20, stop_at_first=False)

    assert {"exception": 20} == report.failing
    assert swallowed
    passes(lambda: parallel(Shared(0).get, Shared(0).get))


def test_a_program_that_swallows_everything_still_fails() -> None:
    def program() -> None:
        lock = Mutex("m")
        lock.acquire()
        try:
            lock.acquire()
        except BaseException:
            pass

    found = failure(program)
    assert "deadlock" == found.kind


def test_except_exception_does_not_see_the_abort() -> None:
    def program() -> None:
        gate = Semaphore(0, "gate")

        def worker() -> None:
            try:
                gate.acquire()
            except Exception:
                pytest.fail("an abort is no Exception")

        spawn(worker)
        _fails_after_two_steps()

    assert "LookupError" in failure(program).message


def _run(script: str, *, seconds: float = 30) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
        cwd=Path.cwd(),
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )


def test_a_thread_that_swallows_the_abort_for_ever_is_given_up() -> None:
    """In a process of its own, because the abandoned thread spins as long as the process lives."""
    done = _run(
        """
        import os
        from harness import Semaphore, Shared, explore, parallel, spawn

        def program():
            def stubborn():
                while True:
                    try:
                        Semaphore(0).acquire()
                    except BaseException:
                        pass

            spawn(stubborn)
            Shared(0).get()
            raise LookupError("enough")

        report = explore(program, "random", schedules=5, stop_at_first=False, hang_seconds=0.5)
        print(report.verdict, "stubborn" in report.reason or report.failure.kind, flush=True)

        def fine():
            cell = Shared(0)
            parallel(cell.get, cell.get)

        print(explore(fine, "dfs", schedules=None).verdict, flush=True)
        os._exit(0)
        """
    )

    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first in ("inconclusive True", "fail exception", "fail True")
    assert "pass" == second


# -- Ctrl-C -------------------------------------------------------------------------------------


def _interrupt_main_thread() -> None:
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)


@pytest.mark.parametrize("in_main", [True, False])
def test_ctrl_c_ends_the_schedule_cleanly_and_is_raised(in_main: bool) -> None:
    ended: list[str] = []
    lock = Mutex("m")

    def program() -> None:
        cell = Shared(0)

        def turn() -> None:
            try:
                while True:
                    with lock:
                        cell.set(cell.get() + 1)
                    if not in_main and cell.peek() == 50:
                        _interrupt_main_thread()
            finally:
                ended.append("thread")

        try:
            spawn(turn)
            for _ in range(20):
                cell.get()
            if in_main:
                _interrupt_main_thread()
            while True:
                cell.get()
        finally:
            ended.append("main")

    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        explore(program, "random", schedules=10, steps_max=STEPS_MAX)

    assert ["main", "thread"] == sorted(ended)
    assert lock.owner is None
    assert handler is signal.getsignal(signal.SIGINT)
    assert not in_schedule()
    passes(lambda: parallel(Shared(0).get, Shared(0).get))


def test_a_signal_of_the_program_disturbs_no_thread_that_is_parked() -> None:
    """The handler runs in the main thread, which is parked: its wait for the baton goes on."""
    heard: list[int] = []

    def program() -> None:
        cell = Shared(0)

        def disturb() -> None:
            cell.get()
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)
            cell.get()

        parallel(disturb, disturb)

    handler = signal.signal(signal.SIGUSR1, lambda number, _frame: heard.append(number))
    try:
        report = explore(program, "random", schedules=50)
    finally:
        signal.signal(signal.SIGUSR1, handler)

    assert (report.verdict, report.schedules) == ("pass", 50)
    assert len(heard) > 10


def test_ctrl_c_between_schedules_is_raised() -> None:
    runs: list[int] = []

    def program() -> None:
        runs.append(1)
        parallel(Shared(0).get, Shared(0).get)
        if len(runs) == 3:
            _interrupt_main_thread()

    with pytest.raises(KeyboardInterrupt):
        explore(program, "random", schedules=1_000)

    assert len(runs) in (3, 4)


# -- misuse -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "inner",
    [
        lambda: explore(_fails_after_two_steps),
        lambda: check(_fails_after_two_steps),
        lambda: replay(_fails_after_two_steps, explore_token),
    ],
    ids=["explore", "check", "replay"],
)
def test_exploring_inside_a_schedule_is_refused(inner: Callable[[], object]) -> None:
    def program() -> None:
        parallel(inner)

    with pytest.raises(UsageError, match="inside a schedule"):
        explore(program, schedules=5)
    passes(lambda: parallel(Shared(0).get, Shared(0).get))


@pytest.mark.parametrize(
    ("where", "error"),
    [
        ("_start_new_thread", RuntimeError("can't start new thread")),
        ("Baton", OSError(errno.EMFILE, "Too many open files")),
    ],
)
def test_a_system_that_gives_no_thread_is_no_failure_of_the_program(
    where: str, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be a finding with a token that fails nowhere else."""
    real, made = getattr(pool, where), [0]

    def scarce(*args: object) -> object:
        made[0] += 1
        if made[0] > 2:
            raise error
        return real(*args)

    monkeypatch.setattr(pool, where, scarce)
    with pytest.raises(UsageError, match="gives the program no further thread"):
        explore(lambda: parallel(*[Shared(0).get] * 4), schedules=5)
    monkeypatch.undo()
    passes(lambda: parallel(*[Shared(0).get] * 4))


explore_token = ""


@pytest.fixture(autouse=True)
def _token() -> None:
    global explore_token
    if not explore_token:
        found = explore(_fails_after_two_steps, "random", schedules=1).failure
        assert found is not None
        explore_token = found.token


def test_exploring_in_two_threads_at_once_is_refused() -> None:
    inside, done = threading.Event(), threading.Event()
    refused: list[str] = []

    def program() -> None:
        if not inside.is_set():
            inside.set()
            done.wait(10)
        parallel(Shared(0).get, Shared(0).get)

    def elsewhere() -> None:
        inside.wait(10)
        try:
            explore(program, schedules=1)
        except UsageError as error:
            refused.append(str(error))
        done.set()

    other = threading.Thread(target=elsewhere)
    other.start()
    explore(program, "random", schedules=2)
    other.join()

    assert 1 == len(refused)
    assert "inside a schedule" in refused[0] or "another thread" in refused[0]


def test_exploring_works_in_any_thread() -> None:
    verdicts: list[str] = []

    def elsewhere() -> None:
        report = explore(lambda: parallel(Shared(0).get, Shared(0).get), "dfs", schedules=None)
        verdicts.append(report.verdict)

    other = threading.Thread(target=elsewhere)
    other.start()
    other.join()

    assert ["pass"] == verdicts


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("others", [0, 2])
def test_a_primitive_in_a_thread_of_threading_is_refused(others: int) -> None:
    lock, cell = Mutex("m"), Shared(0)

    def program() -> None:
        def hidden() -> None:
            real = threading.Thread(target=lambda: [cell.get() for _ in range(20)])
            real.start()
            real.join()
            with lock:
                cell.get()

        parallel(hidden, *([cell.get] * others))

    with pytest.raises(UsageError, match=r"start every thread of the program with spawn\(\)"):
        explore(program, "random", schedules=20)
    assert lock.owner is None
    passes(lambda: parallel(Shared(0).get, Shared(0).get))


def test_a_misuse_in_a_spawned_thread_reaches_the_caller() -> None:
    def program() -> None:
        parallel(parallel)

    with pytest.raises(UsageError, match="at least one function"):
        explore(program, schedules=3)
    passes(lambda: parallel(Shared(0).get, Shared(0).get))


def test_objects_made_outside_serve_one_schedule_after_the_other() -> None:
    lock, cell = Mutex("m"), Shared(0)

    def program() -> None:
        cell.set(0)

        def count() -> None:
            with lock:
                cell.set(cell.get() + 1)

        parallel(count, count)
        assert cell.peek() == 2

    passes(program)
