"""Failures of the program itself, of its end and of its determinism: when and what they say."""

from __future__ import annotations

import pytest
from exploring import every, failure

from harness import (
    Atomic,
    Mutex,
    Shared,
    SpinLock,
    check,
    current_thread,
    explore,
    parallel,
    sometimes,
    spawn,
)
from harness.errors import ScheduleFailure

# -- exceptions and assertions --------------------------------------------------------------------


def test_an_assertion_keeps_its_message_and_its_place() -> None:
    def program() -> None:
        cell = Shared(0)

        def checker() -> None:
            seen = cell.get()
            assert seen == 1, f"saw {seen}"

        parallel(checker, lambda: cell.set(1))

    found = failure(program)
    assert "assertion" == found.kind
    assert "saw 0" in found.message
    assert "in checker" in found.story().exception_text
    assert "saw 0" in found.story().exception_text


def test_an_exception_in_any_thread_comes_with_its_traceback_and_without_our_frames() -> None:
    def program() -> None:
        lock = Mutex("m")

        def fetch() -> None:
            with lock:
                dict[str, int]()["missing"]

        def outer() -> None:
            fetch()

        parallel(outer)

    found = failure(program)
    assert "exception" == found.kind
    assert "KeyError: 'missing'" in found.message
    text = found.story().exception_text
    assert text.index("in outer") < text.index("in fetch")
    assert "KeyError: 'missing'" in text
    assert "harness/engine" not in text
    assert "harness/sync" not in text


def test_an_exception_ends_the_schedule_at_once() -> None:
    def program() -> None:
        cell = Shared(0)

        def raiser() -> None:
            cell.get()
            raise ValueError("now")

        def other() -> None:
            for _ in range(5):
                cell.get()

        parallel(raiser, other)

    for found in (explore(program, "random", schedules=30, seed=i).failure for i in range(5)):
        assert found is not None
        assert "raiser" == found.trace()[-1].name
        assert found.steps == len(found.trace()) <= 7


def test_an_exception_of_the_program_itself_is_a_failure() -> None:
    def program() -> None:
        parallel(Shared(0).get, Shared(0).get)
        raise OSError("disk on fire")

    found = failure(program)
    assert "exception" == found.kind
    assert "OSError: disk on fire" in found.message


@pytest.mark.parametrize("error", [SystemExit, GeneratorExit, KeyboardInterrupt])
def test_exceptions_that_are_no_errors_are_failures_too(error: type[BaseException]) -> None:
    def program() -> None:
        def work() -> None:
            raise error("odd")

        parallel(work)

    found = failure(program)
    assert "exception" == found.kind
    assert error.__name__ in found.message


def test_failures_at_two_places_are_two_failures() -> None:
    def program() -> None:
        cell = Shared(0)

        def checker() -> None:
            first = cell.get()
            assert first != 1, "at the first"
            second = cell.get()
            assert second != 1, "at the second"

        parallel(checker, lambda: cell.set(1))

    report = every(program)

    assert {"assertion": 2} == report.failing
    assert 2 == len(report.failures) == len({found.fingerprint for found in report.failures})
    assert 2 == len({found.digest for found in report.failures})


def test_a_failure_at_one_place_is_one_failure_whatever_its_message() -> None:
    def program() -> None:
        cell = Atomic(0)

        def worker() -> None:
            place = cell.fetch_add()
            raise RuntimeError(f"worker was number {place} of {current_thread().name}")

        parallel(worker, worker)

    report = every(program)

    assert 2 == report.failing["exception"]
    assert 1 == len(report.failures)


# -- leaks ----------------------------------------------------------------------------------------


def test_a_thread_left_running_is_a_leak() -> None:
    def program() -> None:
        cell = Shared(0)

        def straggler() -> None:
            cell.get()
            cell.get()

        spawn(straggler)
        cell.get()

    report = every(program)

    assert ["leak"] == list(report.failing)
    # Where the straggler is quicker than the program, nothing leaks.
    assert report.failing["leak"] < report.schedules
    assert "straggler" in report.failures[0].message
    assert "still run" in report.failures[0].message


@pytest.mark.parametrize("kind", [Mutex, SpinLock])
def test_a_lock_held_at_the_end_of_its_thread_is_a_leak(kind: type[Mutex | SpinLock]) -> None:
    def program() -> None:
        lock = kind("m")

        def forgetful() -> None:
            lock.acquire()

        parallel(forgetful)

    found = failure(program)
    assert "leak" == found.kind
    assert "forgetful ended while it held m" in found.message


def test_a_lock_held_by_the_program_at_its_end_is_a_leak() -> None:
    def program() -> None:
        Mutex("m").acquire()

    found = failure(program)
    assert "leak" == found.kind
    assert "main ended while it held m" in found.message


# -- livelock -------------------------------------------------------------------------------------


def test_a_livelock_says_how_many_steps_and_who_still_runs() -> None:
    def program() -> None:
        left, right = Shared(True, "left"), Shared(True, "right")

        def step_aside(mine: Shared[bool], other: Shared[bool]) -> None:
            while other.get():
                mine.set(False)
                mine.set(True)

        parallel(
            lambda: step_aside(left, right),
            lambda: step_aside(right, left),
            names=["polite", "courteous"],
        )

    report = explore(program, "round-robin", schedules=1, steps_max=200)

    assert report.failure is not None
    assert "livelock" == report.failure.kind
    assert "200 steps" in report.failure.message
    assert "polite" in report.failure.message
    assert "courteous" in report.failure.message


# -- nondeterminism -------------------------------------------------------------------------------


def test_a_failure_that_does_not_come_again_is_nondeterminism() -> None:
    calls = [0]

    def program() -> None:
        calls[0] += 1
        parallel(Shared(0).get, Shared(0).get)
        assert calls[0] != 3, "third time unlucky"

    found = failure(program, "random", schedules=10)
    assert "nondeterminism" == found.kind
    assert 3 == found.schedule
    assert "third time unlucky" in found.message
    assert "passed" in found.message


def test_other_threads_after_the_same_choices_are_nondeterminism() -> None:
    calls = [0]

    def program() -> None:
        calls[0] += 1
        cell = Shared(0)
        parallel(*[cell.get] * (2 + calls[0] % 2), names=["a", "b", "c"][: 2 + calls[0] % 2])

    found = failure(program, "dfs")
    assert "nondeterminism" == found.kind
    assert "step 2" in found.message


def test_other_operations_after_the_same_choices_are_nondeterminism() -> None:
    calls = [0]

    def program() -> None:
        calls[0] += 1
        even = calls[0] % 2 == 0
        cell, lock = Shared(0, "cell"), Mutex("m")

        def work() -> None:
            if even:
                cell.get()
            else:
                with lock:
                    pass
            cell.set(1)
            assert cell.get() == 2, "always"

        parallel(work, work)

    found = failure(program, "random", schedules=10)
    assert "nondeterminism" == found.kind


# -- check ----------------------------------------------------------------------------------------


def _crossed() -> None:
    a, b = Mutex("a"), Mutex("b")

    def cross(first: Mutex, second: Mutex) -> None:
        with first, second:
            pass

    parallel(lambda: cross(a, b), lambda: cross(b, a))


def test_check_raises_the_failure_with_the_replay_command_last() -> None:
    with pytest.raises(ScheduleFailure) as caught:
        check(_crossed, "random", schedules=500)

    found = caught.value.failure
    assert "deadlock" == found.kind
    text = str(caught.value).rstrip()
    assert max(map(len, text.splitlines())) <= 100
    # The shell joins continued lines, as we do here.
    assert found.token in text.replace("\\\n", "").splitlines()[-1]


def test_check_returns_what_it_ran_where_nothing_fails() -> None:
    def program() -> None:
        sometimes("reached")
        parallel(Shared(0).get, Shared(0).get)

    report = check(program, "dfs", schedules=100)
    assert ("pass", 2) == (report.verdict, report.schedules)
    assert ("reached",) == report.reached
