"""Some passing schedules run twice: a program that is no function of its choices is found out."""

from __future__ import annotations

import pytest
import seeded

from harness import Exploration, Semaphore, Shared, UsageError, explore, parallel
from harness.search.watch import run_twice


class Counting:
    """Called once for each run; what a run does may depend on how many there were before."""

    def __init__(self) -> None:
        self.runs = 0

    def count(self) -> int:
        self.runs += 1
        return self.runs


def _explored(program: Counting, schedules: int = 40) -> Exploration:
    return explore(program, "random", schedules, twice_every=4)  # type: ignore[arg-type] # called


class OtherOperation(Counting):
    def __call__(self) -> None:
        odd = self.count() % 2
        cell = Shared(0, "cell")

        def work() -> None:
            cell.get()
            if odd:
                cell.set(1)
            else:
                cell.get()

        parallel(work, work, names=["one", "two"])


class OtherObject(Counting):
    def __call__(self) -> None:
        odd = self.count() % 2
        here, there = Shared(0, "here"), Shared(0, "there")
        parallel(lambda: (here if odd else there).get(), here.get, names=["one", "two"])


class OtherEnabled(Counting):
    """Where the first thread goes first the steps are the same, but not who else could run."""

    def __call__(self) -> None:
        gate, cell = Semaphore(self.count() % 2, "gate"), Shared(0, "cell")

        def one() -> None:
            cell.get()
            gate.release()

        parallel(one, gate.acquire, names=["one", "two"])


class EndsEarly(Counting):
    def __call__(self) -> None:
        odd = self.count() % 2
        cell = Shared(0, "cell")
        parallel(cell.get, cell.get, names=["one", "two"])
        if odd:
            cell.set(1)


@pytest.mark.parametrize("kind", [OtherOperation, OtherObject, OtherEnabled, EndsEarly])
def test_a_program_that_depends_on_its_past_is_found_although_it_passes(
    kind: type[Counting],
) -> None:
    report = _explored(kind())

    assert report.verdict == "fail"
    assert report.failure is not None
    assert report.failure.kind == "nondeterminism"
    assert "running the same choices of a passing schedule again" in report.failure.message


def test_threads_that_could_run_are_compared_at_every_step() -> None:
    """The first schedule that runs twice tells, also where its steps themselves are the same."""
    first = next(number for number in range(1, 100) if run_twice(number, 4))
    for seed in range(8):
        program = OtherEnabled()
        report = explore(program, "random", 40, seed=seed, twice_every=4)

        assert report.failure is not None
        assert report.failure.schedule == first
        assert report.failure.message.count("can run: one, two") == 1


def test_both_operations_are_shown_with_their_source_lines() -> None:
    failure = _explored(OtherOperation()).failure
    assert failure is not None
    told, first, then = failure.message.splitlines()

    assert told.startswith("step ")
    assert first.startswith("first: ")
    lines = {line.rsplit("`", 2)[1] for line in (first, then)}
    assert lines == {"cell.set(1)", "cell.get()"}
    assert all("test_twice.py:" in line for line in (first, then))


def test_a_schedule_that_passes_and_then_fails_is_nondeterminism() -> None:
    first = next(number for number in range(1, 100) if run_twice(number, 4))

    class FailsOnce(Counting):
        def __call__(self) -> None:
            cell = Shared(0, "cell")
            parallel(cell.get, cell.get)
            assert self.count() != first + 1, "once in a while"

    failure = _explored(FailsOnce()).failure
    assert failure is not None
    assert (failure.kind, failure.schedule) == ("nondeterminism", first)
    assert "once in a while" in failure.message


def test_the_default_strategy_checks_its_first_schedule() -> None:
    report = explore(OtherOperation(), schedules=1)

    assert report.failure is not None
    assert report.failure.kind == "nondeterminism"


@pytest.mark.parametrize("strategy", ["dfs", "dpor"])
@pytest.mark.parametrize("program", [OtherOperation, OtherObject])
def test_a_search_that_says_every_schedule_checks_its_first(
    strategy: str, program: type[Counting]
) -> None:
    """Both programs come to their end within few schedules, and are other programs each time."""
    report = explore(program(), strategy, schedules=None)  # type: ignore[arg-type] # called

    assert report.failure is not None
    assert report.failure.kind == "nondeterminism"
    first, then = report.failure.message.splitlines()[1:]
    assert first.startswith("first: ")
    assert then.startswith("then : ")
    assert first.count("test_twice.py:") == then.count("test_twice.py:") == 1


def test_it_can_be_turned_off() -> None:
    program = OtherOperation()

    assert explore(program, "random", 300, twice_every=0).verdict == "pass"
    assert program.runs == 300
    with pytest.raises(UsageError, match="twice_every must be 0"):
        explore(program, "random", 3, twice_every=-1)


def test_few_schedules_run_twice_by_default() -> None:
    program = Counting()

    def steady() -> None:
        program.count()
        cell = Shared(0)
        parallel(cell.get, cell.get)

    assert explore(steady, "random", 5_120).verdict == "pass"
    assert 5_120 + 5 <= program.runs <= 5_120 + 20


@pytest.mark.parametrize("name", sorted(seeded.PROGRAMS))
def test_a_program_that_keeps_its_promise_is_never_accused(name: str) -> None:
    """Every schedule that passes runs twice: time, timeouts, conditions, unnamed objects, sets."""
    report = explore(
        seeded.PROGRAMS[name], schedules=40, seed=9, stop_at_first=False, twice_every=1
    )

    assert "nondeterminism" not in report.failing
