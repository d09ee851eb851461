"""A thread that blocks in something the harness does not control ends nothing but its exploration.

These tests cannot do without wall time: a hang is defined by it. Each gives up after 0.4 s.
"""

from __future__ import annotations

import gc
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from exploring import passes

from harness import Exploration, Mutex, Shared, explore, in_schedule, parallel

HANG_SECONDS = 0.4


class Trap:
    """Ways to hang for as long as the test runs, and not longer."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.lock.acquire()
        self.open = False

    def in_a_lock(self) -> None:
        with self.lock:
            pass

    def in_a_sleep(self) -> None:
        while not self.open:
            time.sleep(0.8)

    def in_a_loop(self) -> None:
        while not self.open:
            pass


@pytest.fixture
def trap() -> Iterator[Trap]:
    made = Trap()
    yield made
    made.open = True
    made.lock.release()


def _fine() -> None:
    lock, cell = Mutex("m"), Shared(0, "cell")

    def count() -> None:
        with lock:
            cell.set(cell.get() + 1)

    parallel(count, count)
    assert cell.peek() == 2


def _hanging(hang: Callable[[], None], log: list[str]) -> Exploration:
    def program() -> None:
        cell, lock = Shared(0, "cell"), Mutex("m")

        def stuck() -> None:
            cell.get()
            with lock:
                hang()
                cell.set(7)
                log.append("came back")

        def other() -> None:
            try:
                cell.get()
                with lock:
                    cell.get()
            finally:
                log.append("other ended")

        parallel(stuck, other)

    return explore(program, "random", schedules=50, hang_seconds=HANG_SECONDS)


@pytest.mark.parametrize("way", ["in_a_lock", "in_a_sleep", "in_a_loop"])
def test_a_hang_is_inconclusive_names_the_thread_and_shows_all_stacks(trap: Trap, way: str) -> None:
    log: list[str] = []
    report = _hanging(getattr(trap, way), log)

    assert ("inconclusive", 1) == (report.verdict, report.schedules)
    assert "thread stuck blocked in something the harness does not control" in report.reason
    assert report.failure is None
    assert f"in {way}" in report.detail
    assert "'stuck' runs" in report.detail
    assert "'main' waits (parallel)" in report.detail
    assert "other ended" in log
    assert not in_schedule()


@pytest.mark.parametrize("way", ["in_a_lock", "in_a_sleep", "in_a_loop"])
def test_the_next_exploration_works_while_the_thread_still_hangs(trap: Trap, way: str) -> None:
    _hanging(getattr(trap, way), [])
    before = explore(_fine, "random", schedules=200, seed=3)
    trap.open = True
    after = explore(_fine, "random", schedules=200, seed=3)

    for report in (before, after):
        assert ("pass", 200) == (report.verdict, report.schedules)
    assert (before.steps, before.switches) == (after.steps, after.switches)


def test_a_thread_that_comes_back_late_changes_nothing() -> None:
    """It is let go while another schedule runs, and must not act as the baton's holder."""
    trap = Trap()
    log: list[str] = []
    _hanging(trap.in_a_lock, log)
    report = explore(_fine, "random", schedules=100, seed=3)
    released = [False]

    def program() -> None:
        cell = Shared(0)

        def writer() -> None:
            for i in range(200):
                if i == 100 and not released[0]:
                    released[0] = True
                    trap.lock.release()
                    # Real time, so that the late thread really gets to run.
                    time.sleep(0.05)
                cell.set(i)
                assert cell.peek() == i

        parallel(writer)

    explore(program, "random", schedules=3)

    assert released == [True]
    assert "came back" not in log
    again = explore(_fine, "random", schedules=100, seed=3)
    assert (report.steps, report.switches) == (again.steps, again.switches)


def test_abandoned_threads_end_once_they_can() -> None:
    trap = Trap()
    gc.collect()
    before = len(sys._current_frames())
    _hanging(trap.in_a_lock, [])
    assert before + 1 == len(sys._current_frames())
    trap.lock.release()
    deadline = time.monotonic() + 10
    while len(sys._current_frames()) > before and time.monotonic() < deadline:
        time.sleep(0.01)

    assert before == len(sys._current_frames())


def test_a_hang_of_the_callers_own_thread_is_reported_on_standard_error(
    capfd: pytest.CaptureFixture[str],
) -> None:
    def program() -> None:
        cell = Shared(0)
        parallel(cell.get, cell.get)
        time.sleep(1.0)

    report = explore(program, "random", schedules=1, hang_seconds=HANG_SECONDS)

    text = capfd.readouterr().err
    assert "the caller's own" in text
    assert "thread 0 'main' runs" in text
    assert "time.sleep(1.0)" in text
    # It came back, so the exploration is as good as any.
    assert "pass" == report.verdict


def test_time_between_steps_is_no_hang_while_steps_are_taken() -> None:
    def program() -> None:
        cell = Shared(0)

        def slow() -> None:
            for _ in range(5):
                time.sleep(0.12)
                cell.get()

        parallel(slow, cell.get)

    passes(program, "random", schedules=1, hang_seconds=HANG_SECONDS)


@pytest.mark.parametrize("run", [2, 3])
def test_a_hang_while_a_failure_is_recorded_ends_the_exploration_too(trap: Trap, run: int) -> None:
    """A failing schedule runs again, twice, with somebody looking on who is told of its end."""
    runs: list[int] = []

    def program() -> None:
        cell = Shared(0, "cell")

        def stuck() -> None:
            cell.set(1)
            runs.append(1)
            if len(runs) == run:
                trap.in_a_lock()
            raise AssertionError

        parallel(stuck, cell.get)

    report = explore(program, "random", schedules=5, hang_seconds=HANG_SECONDS)

    assert ("inconclusive", 1, {"assertion": 1}) == (
        report.verdict,
        report.schedules,
        report.failing,
    )
    assert "thread stuck blocked in something the harness does not control" in report.reason
    assert len(runs) == run
    passes(_fine, "random", schedules=20)
