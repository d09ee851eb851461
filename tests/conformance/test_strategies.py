"""What every registered strategy must do; a new one is tested by registering."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from exploring import failure, stretch

from harness import (
    Condition,
    Event,
    Failure,
    Mutex,
    Semaphore,
    Shared,
    UsageError,
    explore,
    parallel,
    replay,
    sleep,
    spawn,
    yield_now,
)
from harness.search.setup import Setup
from harness.strategies import Strategy, base, names, register, strategy_named
from harness.strategies.base import deciding
from harness.sync import current_schedule

if TYPE_CHECKING:
    from harness.engine.core import Choose, Core

strategies = pytest.mark.parametrize("strategy", names())
fair = pytest.mark.parametrize("strategy", [n for n in names() if strategy_named(n).fair])


def test_the_strategies_of_this_version_are_registered() -> None:
    assert {
        "dfs",
        "dpor",
        "pct",
        "portfolio",
        "pos",
        "random",
        "round-robin",
        "surw",
        "urw",
    } <= set(names())


# -- programs -----------------------------------------------------------------------------------


def mixed(log: list[str] | None = None) -> None:
    """Locks, cells, a semaphore, time; never fails. Notes who did what in ``log``."""
    seen: list[str] = [] if log is None else log
    lock, cell, gate = Mutex("m"), Shared(0, "c"), Semaphore(0, "gate")

    def worker(name: str) -> None:
        for i in range(3):
            with lock:
                cell.set(cell.get() + 1)
                seen.append(f"{name}{i}")
        gate.release()

    def napper() -> None:
        sleep(1)
        seen.append("nap")
        yield_now()
        seen.append("yield")

    late = spawn(napper)
    parallel(lambda: worker("a"), lambda: worker("b"), lambda: worker("c"))
    late.join()
    for _ in range(3):
        gate.acquire()
    assert cell.get() == 9


def loses_an_update() -> None:
    cell = Shared(0, "counter")

    def increment() -> None:
        cell.set(cell.get() + 1)

    parallel(increment, increment)
    assert cell.get() == 2


def deadlocks() -> None:
    a, b = Mutex("a"), Mutex("b")

    def take(first: Mutex, second: Mutex) -> None:
        with first, second:
            pass

    threads = [spawn(take, a, b, name="ab"), spawn(take, b, a, name="ba")]
    for thread in threads:
        thread.join()


def loses_a_wakeup() -> None:
    ready = Condition(Mutex("m"), "ready")

    def wait() -> None:
        with ready:
            ready.wait()

    def wake() -> None:
        with ready:
            ready.notify()

    parallel(wait, wake)


def raises() -> None:
    cell: Shared[int | None] = Shared(0, "pointer")

    def use() -> None:
        if cell.get() is not None:
            value = cell.get()
            assert value is not None, "taken away"

    def take() -> None:
        cell.set(None)
        raise KeyError("after the fact")

    parallel(use, take)


def uses_too_early() -> None:
    cell: Shared[int | None] = Shared(None, "pointer")

    def use() -> None:
        assert cell.get() is not None

    parallel(lambda: cell.set(1), use)


def runs_out() -> None:
    event = Event("done")

    def wait() -> None:
        assert event.wait(5), "too late"

    cell = Shared(0)
    parallel(wait, event.set, lambda: cell.set(1))


FAILING: list[Callable[[], None]] = [loses_an_update, deadlocks, loses_a_wakeup, raises]


def turns_for_ever() -> None:
    cell = Shared(0, "c")

    def turn() -> None:
        while True:
            cell.get()

    parallel(turn, turn, turn)


# -- running ------------------------------------------------------------------------------------


@strategies
def test_a_correct_program_passes(strategy: str) -> None:
    report = explore(mixed, strategy, schedules=50)

    assert (report.verdict, report.schedules) == ("pass", 50)
    assert report.steps > 50 * 30


@strategies
def test_the_program_runs_once_per_schedule_plus_pilots(strategy: str) -> None:
    runs = [0]

    def program() -> None:
        runs[0] += 1
        mixed()

    report = explore(program, strategy, schedules=50)

    kind = strategy_named(strategy)
    # A search holds its first schedule against a second run; what is drawn comes to that later.
    pilots = runs[0] - report.schedules - kind.sequential
    assert (pilots > 0) == kind.needs_pilot


@strategies
def test_threads_that_cannot_run_are_never_chosen(strategy: str) -> None:
    def program() -> None:
        lock = Mutex("m")
        inside = [0]
        cell = Shared(0)

        def enter() -> None:
            with lock:
                inside[0] += 1
                cell.get()
                assert inside == [1]
                inside[0] -= 1

        parallel(enter, enter, enter)

    assert explore(program, strategy, schedules=100).verdict == "pass"


@strategies
@pytest.mark.parametrize("bound", [1, 2, 3, 5, 64, 500])
def test_the_step_bound_is_met_exactly(strategy: str, bound: int) -> None:
    report = explore(turns_for_ever, strategy, schedules=4, steps_max=bound, stop_at_first=False)

    # An exhaustive search has fewer schedules than that of one step.
    fewer = strategy_named(strategy).sequential and report.schedules < 4
    assert report.schedules == 4 or fewer
    assert report.schedules * bound == report.steps
    assert {"livelock"} >= set(report.failing)


# -- fairness -----------------------------------------------------------------------------------


@fair
def test_a_fair_strategy_lets_every_thread_go_on(strategy: str) -> None:
    """In 400 steps each of three threads takes some; for a walk the chance that not is 3e-70."""
    turns: dict[int, list[int]] = {}

    def program() -> None:
        taken = turns[current_schedule()] = [0, 0, 0]
        cell = Shared(0)

        def turn(i: int) -> None:
            while True:
                cell.get()
                taken[i] += 1

        parallel(lambda: turn(0), lambda: turn(1), lambda: turn(2))

    # A schedule of round-robin lets each thread take as many steps in a row as its number.
    fair_in = [n for n in range(1, 13) if strategy_named(strategy)(base.Options()).fair_in(n)]
    explore(program, strategy, schedules=12, steps_max=400, stop_at_first=False)

    assert fair_in
    assert all(min(turns[number]) >= 5 for number in fair_in)


@fair
def test_a_spin_without_a_yield_ends_under_a_fair_strategy(strategy: str) -> None:
    def program() -> None:
        flag = Shared(False)

        def wait() -> None:
            while not flag.get():
                pass

        parallel(wait, lambda: flag.set(True))

    report = explore(program, strategy, schedules=20, steps_max=1_000, stop_at_first=False)

    assert not report.failing


@strategies
def test_a_livelock_is_only_found_by_a_fair_schedule(strategy: str) -> None:
    kind = strategy_named(strategy)
    report = explore(turns_for_ever, strategy, schedules=8, steps_max=60, stop_at_first=False)

    proof = sum(kind(base.Options()).fair_in(number) for number in range(1, 9))
    assert proof == report.failing.get("livelock", 0)
    assert ("fail" if proof else "inconclusive") == report.verdict


# -- a schedule is a function of (seed, number) -------------------------------------------------


def _histories(setup: Setup, first: int, last: int) -> list[tuple[str, ...]]:
    runs: dict[int, list[str]] = {}

    def program() -> None:
        mixed(runs.setdefault(current_schedule(), []))

    stretch(program, setup, first, last)
    return [tuple(runs[number]) for number in range(first, last + 1)]


@strategies
@pytest.mark.parametrize("seed", [0, 1, 2**63])
def test_the_same_seed_gives_the_same_schedules(strategy: str, seed: int) -> None:
    setup = Setup(strategy=strategy, seed=seed)

    assert _histories(setup, 1, 20) == _histories(setup, 1, 20)


@strategies
def test_a_schedule_does_not_depend_on_those_before_it(strategy: str) -> None:
    setup = Setup(strategy=strategy, seed=7)
    if strategy_named(strategy).sequential:
        with pytest.raises(UsageError, match="cannot begin at schedule 5"):
            _histories(setup, 5, 5)
        return

    whole = _histories(setup, 1, 24)

    for number in (1, 2, 5, 12, 24):
        assert whole[number - 1 : number] == _histories(setup, number, number)
    assert whole[9:20] == _histories(setup, 10, 20)


@strategies
def test_schedules_of_one_exploration_differ(strategy: str) -> None:
    assert len(set(_histories(Setup(strategy=strategy, seed=3), 1, 24))) > 1


def _facts(failure: Failure) -> tuple[object, ...]:
    return (
        failure.kind,
        failure.message,
        failure.schedule,
        failure.token,
        failure.preemptions,
        failure.steps,
        failure.fingerprint,
        failure.digest,
    )


@strategies
@pytest.mark.parametrize("program", FAILING)
def test_findings_are_the_same_each_time(strategy: str, program: Callable[[], None]) -> None:
    def found() -> tuple[object, ...]:
        report = explore(program, strategy, schedules=60, seed=5, stop_at_first=False)
        assert report.failure is not None
        counts = (report.schedules, report.steps, report.switches, report.preemptions)
        return (*map(_facts, report.failures), counts, tuple(report.failing.items()))

    assert found() == found()


@strategies
def test_stopping_at_the_first_finds_what_going_on_finds_first(strategy: str) -> None:
    stopped = explore(raises, strategy, schedules=60, seed=5)
    whole = explore(raises, strategy, schedules=60, seed=5, stop_at_first=False)

    assert stopped.failure is not None
    assert whole.failure is not None
    assert _facts(stopped.failure) == _facts(whole.failure)
    assert stopped.schedules == stopped.failure.schedule


# -- tokens -------------------------------------------------------------------------------------


@strategies
@pytest.mark.parametrize("program", FAILING)
def test_a_token_replays_to_the_same_failure(strategy: str, program: Callable[[], None]) -> None:
    report = explore(program, strategy, schedules=60, seed=11, stop_at_first=False)

    assert report.failures
    for found in report.failures:
        again = replay(program, found.token)
        assert again is not None
        assert _facts(found) == _facts(again)
        assert found.trace() == again.trace()
        assert found.steps == len(again.trace())


@strategies
def test_a_timeout_that_fires_early_replays(strategy: str) -> None:
    """Virtual time stands still while anybody can set the event."""
    assert explore(runs_out, strategy, schedules=60).verdict == "pass"

    found = failure(runs_out, strategy, schedules=200, early_timeouts=True)

    again = replay(runs_out, found.token)
    assert again is not None
    assert _facts(found) == _facts(again)


@strategies
def test_a_livelock_replays_with_every_step(strategy: str) -> None:
    report = explore(turns_for_ever, strategy, schedules=4, steps_max=100)
    if report.failure is None:
        assert report.verdict == "inconclusive"
        return

    again = replay(turns_for_ever, report.failure.token)

    assert again is not None
    assert _facts(report.failure) == _facts(again)


# -- registration -------------------------------------------------------------------------------


def test_a_new_strategy_registers_by_one_class(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "_REGISTRY", dict(base._REGISTRY))

    @register
    class Youngest(Strategy):
        name = "youngest"
        fair = False

        def begin(self, core: Core, schedule: int) -> Choose:
            return deciding(core, lambda enabled: enabled[-1])

    order: list[str] = []

    def program() -> None:
        cell = Shared(0)

        def note(name: str) -> None:
            cell.get()
            order.append(name)

        parallel(lambda: note("a"), lambda: note("b"), lambda: note("c"))

    report = explore(program, "youngest", schedules=2)

    assert order == ["c", "b", "a"] * 2
    assert report.verdict == "pass"
    assert "youngest" in names()
    # Its tokens replay like all others.
    found = failure(uses_too_early, "youngest", schedules=1)
    assert replay(uses_too_early, found.token) is not None


def test_two_strategies_of_one_name_are_refused() -> None:
    with pytest.raises(UsageError, match="'random' is registered already"):

        @register
        class Impostor(Strategy):
            name = "random"


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"seed": -1}, "seed must be 0 or more"),
        ({"depth": 0}, "depth must be at least 1"),
        ({"preemptions": -1}, "preemptions must be 0 or more"),
        ({"steps_max": 0}, "steps_max must be at least 1"),
        ({"schedules": 0}, "schedules must be at least 1"),
        ({"seconds": 0}, "seconds must be more than 0"),
        ({"hang_seconds": 0}, "hang_seconds must be more than 0"),
        ({"processes": 0}, "processes must be at least 1"),
    ],
)
def test_an_option_out_of_its_range_is_refused(options: dict[str, int], complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        explore(mixed, "dfs", **options)  # type: ignore[arg-type] # that is the point


@strategies
def test_a_preemption_bound_is_refused_where_it_means_nothing(strategy: str) -> None:
    if strategy_named(strategy).bounded:
        assert explore(mixed, strategy, schedules=5, preemptions=0).failure is None
        return
    with pytest.raises(UsageError, match="takes no bound"):
        explore(mixed, strategy, preemptions=1)


@pytest.mark.parametrize("strategy", [n for n in names() if not strategy_named(n).sequential])
def test_a_search_without_an_end_needs_a_budget(strategy: str) -> None:
    with pytest.raises(UsageError, match="never ends"):
        explore(mixed, strategy, schedules=None)
