"""Free mode: threads run side by side, and what fails becomes a token that replays under control.

What happens here is the machine's business, so each hunt has a budget that it misses with a chance
below 1e-6: the races are met in one of ten schedules or more.
"""

from __future__ import annotations

import select
import sys
import threading
from collections.abc import Callable

import pytest

from harness import (
    Condition,
    Event,
    Exploration,
    Failure,
    LockClass,
    Mutex,
    Shared,
    UsageError,
    explore,
    invariant,
    minimize,
    monotonic,
    parallel,
    replay,
    sleep,
    spawn,
)
from harness.search import free
from harness.sync.mutex import Lock

BUDGET = 400


def freely(program: Callable[[], object], **options: object) -> Exploration:
    options.setdefault("schedules", BUDGET)
    return explore(program, mode="free", **options)  # type: ignore[arg-type] # by name


def captured(program: Callable[[], object]) -> Failure:
    """What free mode finds; its token replays under control, and it can be minimized."""
    report = freely(program)
    assert report.failure is not None, report.reason
    found = report.failure
    again = replay(program, found.token)
    assert again is not None
    assert (found.kind, found.digest) == (again.kind, again.digest)
    assert minimize(program, found).fingerprint == found.fingerprint
    return found


def test_a_lost_update_becomes_a_token() -> None:
    def program() -> None:
        cell = Shared(0, "cell")

        def add() -> None:
            cell.set(cell.get() + 1)

        parallel(add, add)
        assert cell.get() == 2

    assert "assertion" == captured(program).kind


def test_a_deadlock_becomes_a_token() -> None:
    def program() -> None:
        one, two = Mutex("one"), Mutex("two")

        def cross(first: Mutex, second: Mutex) -> None:
            with first, second:
                pass

        threads = [spawn(cross, one, two), spawn(cross, two, one)]
        for thread in threads:
            thread.join()

    assert "deadlock" == captured(program).kind


def test_a_lost_wakeup_becomes_a_token() -> None:
    def program() -> None:
        mutex = Mutex("mutex")
        ready = Condition(mutex)

        def get() -> None:
            with mutex:
                ready.wait()

        def put() -> None:
            with mutex:
                ready.notify()

        parallel(get, put)

    assert "lost-wakeup" == captured(program).kind


def test_lock_rules_are_on_and_a_lock_that_has_an_invariant_is_watched() -> None:
    def order() -> None:
        one, two = Mutex("one", LockClass("One")), Mutex("two", LockClass("Two"))
        turn = Event()

        def first() -> None:
            with one, two:
                pass
            turn.set()

        def second() -> None:
            turn.wait()
            with two, one:
                pass

        parallel(first, second)

    def broken() -> None:
        count = [0]
        mutex = Mutex("mutex")
        invariant(lambda: count[0] < 3, every=mutex)

        def add() -> None:
            with mutex:
                count[0] += 1

        parallel(add, add, add)

    assert "lock-order" == captured(order).kind
    assert "invariant" == captured(broken).kind


def test_a_correct_program_passes_and_its_time_is_virtual() -> None:
    def program() -> None:
        mutex, cell = Mutex("mutex"), Shared(0, "cell")

        def add() -> None:
            for _ in range(5):
                with mutex:
                    cell.set(cell.get() + 1)
            sleep(1_000)

        parallel(add, add, add)
        assert (cell.get(), monotonic()) == (15, 1_000)

    report = freely(program, schedules=40, stop_at_first=False)

    assert ("pass", 40) == (report.verdict, report.schedules)
    assert 40 * 65 == report.steps


def test_between_two_operations_threads_run_side_by_side() -> None:
    """One waits for the other without any operation, which would be a hang under control."""
    met: list[bool] = []

    def program() -> None:
        cell, flag = Shared(0, "cell"), list[int]()

        def wait() -> None:
            cell.get()
            while not flag:
                pass
            met.append(True)

        def signal() -> None:
            cell.get()
            flag.append(1)

        parallel(wait, signal)

    assert "pass" == freely(program, schedules=5).verdict
    assert [True] * 5 == met


def test_what_passes_under_control_is_told_and_is_no_pass() -> None:
    """A race between operations, on plain data: the order of operations does not decide it."""

    def program() -> None:
        cell, plain = Shared(0, "cell"), [0]

        def look() -> None:
            cell.get()
            before = plain[0]
            for _ in range(200_000):
                if plain[0] != before:
                    break
            assert plain[0] == before

        def change() -> None:
            cell.get()
            plain[0] += 1

        parallel(look, change)

    report = freely(program, schedules=100)

    assert "inconclusive" == report.verdict
    assert "failures of freely running threads passed under control" in report.reason
    assert report.failure is None


def test_a_hang_ends_the_exploration_and_the_next_one_works() -> None:
    def program() -> None:
        cell = Shared(0, "cell")

        def stuck() -> None:
            cell.get()
            select.select((), (), (), 1.5)

        parallel(stuck, cell.get)

    def fine() -> None:
        cell = Shared(0, "cell")
        parallel(cell.get, cell.get)

    report = freely(program, schedules=3, hang_seconds=0.3)

    assert ("inconclusive", 1) == (report.verdict, report.schedules)
    assert "blocked in something the harness does not control" in report.reason
    assert "select.select(" in report.detail
    assert "pass" == freely(fine, schedules=20).verdict
    assert "pass" == explore(fine, schedules=20).verdict


def test_a_hang_of_the_callers_own_thread_is_reported_on_standard_error(
    capfd: pytest.CaptureFixture[str],
) -> None:
    def program() -> None:
        cell = Shared(0, "cell")
        parallel(cell.get, cell.get)
        select.select((), (), (), 1.5)

    report = freely(program, schedules=1, hang_seconds=0.3)

    assert "inconclusive" == report.verdict
    text = capfd.readouterr().err
    assert "the caller's own" in text
    assert "select.select(" in text


def test_a_failing_thread_takes_all_others_down() -> None:
    ended: list[str] = []

    def program() -> None:
        never, cell = Event(), Shared(0, "cell")

        def wait() -> None:
            try:
                never.wait()
            finally:
                ended.append("wait")

        def fail() -> None:
            cell.get()
            raise LookupError("on purpose")

        parallel(wait, wait, fail)

    report = freely(program, schedules=20, stop_at_first=False)

    assert {"exception": 20} == report.failing
    assert 1 == len(report.failures)
    assert len(ended) >= 40


def test_everything_is_as_before_afterwards() -> None:
    before = dict(vars(Lock)), sys.getswitchinterval(), threading.active_count()
    with free.freely():
        assert before[0] != dict(vars(Lock))

    captured_steps = freely(lambda: parallel(Mutex("m").locked, Mutex("m").locked), schedules=5)

    assert captured_steps.steps == 5 * 3
    assert before == (dict(vars(Lock)), sys.getswitchinterval(), threading.active_count())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"patch": True}, "it takes no patch or lines"),
        ({"lines": ["harness.errors"]}, "it takes no patch or lines"),
        ({"races": True}, "it takes no races"),
        ({"strategy": "dfs"}, "it takes no strategy 'dfs'"),
        ({"processes": 2}, "leave processes out"),
    ],
    ids=["patch", "lines", "races", "dfs", "processes"],
)
def test_what_needs_a_schedule_that_is_decided_is_refused(
    options: dict[str, object], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        explore(lambda: None, **{"mode": "free", **options})  # type: ignore[arg-type] # by name
