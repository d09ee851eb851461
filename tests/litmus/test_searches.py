"""What a search finds, what it cannot find, when it stops, and what must never be found."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable
from functools import partial

import pytest
from exploring import failure, outcomes, passes
from pythons import on_each

from harness import (
    Atomic,
    Barrier,
    BrokenBarrierError,
    Condition,
    Event,
    Mutex,
    Shared,
    UsageError,
    WaitQueue,
    explore,
    parallel,
    spawn,
    yield_now,
)
from harness.engine.core import CORE

# -- depth (6A, 9 and 37; Burckhardt et al., figures 1 and 5) -----------------------------------


def one_thread_runs_twenty_steps_on_end() -> None:
    cell, started = Shared(0), Shared(False)

    def long() -> None:
        for _ in range(20):
            cell.set(1)
        assert started.get(), "the other has not even begun"

    def other() -> None:
        started.set(True)

    parallel(long, other)


def test_pct_finds_a_long_run_of_one_thread_that_a_random_walk_misses() -> None:
    """PCT of depth 1 fails with 1/2, so 20 schedules miss with 1e-6; a walk fails with 2^-21."""
    failure(one_thread_runs_twenty_steps_on_end, "pct", depth=1, schedules=20)
    passes(one_thread_runs_twenty_steps_on_end, "random", schedules=1_000)


def used_before_it_is_made() -> None:
    pointer: Shared[str | None] = Shared(None)

    def make() -> None:
        pointer.set("object")

    def use() -> None:
        assert pointer.get() is not None

    parallel(make, use)


def taken_away_after_the_check(noise: int) -> None:
    pointer: Shared[str | None] = Shared("object")
    other = Shared(0)

    def use() -> None:
        if pointer.get() is not None:
            assert pointer.get() is not None

    def take() -> None:
        pointer.set(None)

    def hum() -> None:
        other.set(1)
        other.set(2)

    parallel(use, take, *([hum] * noise))


def test_a_use_before_initialisation_has_depth_1() -> None:
    """Chance 1/2 per schedule: 20 miss with 1e-6."""
    failure(used_before_it_is_made, "pct", depth=1, schedules=20)


@pytest.mark.parametrize(("noise", "schedules"), on_each({0}, [(0, 200), (50, 8_000)]))
def test_a_check_then_use_has_depth_2(noise: int, schedules: int) -> None:
    """At least 1/(n k): with noise 1/(52 * 104), so 8,000 schedules miss with less than 1/4.

    The seed is literal; it either always finds it or never.
    """

    def program() -> None:
        taken_away_after_the_check(noise)

    passes(program, "pct", depth=1, schedules=500)
    assert failure(program, "pct", depth=2, schedules=schedules).preemptions == 1


def test_a_schedule_with_too_few_preemptions_is_not_among_the_bounded_ones() -> None:
    def program() -> None:
        taken_away_after_the_check(0)

    passes(program, preemptions=0)
    assert failure(program, preemptions=1).preemptions == 1


def timed_waits(spent: Counter[int]) -> None:
    event, cell, gate = Event("e"), Shared(0), Barrier(2)

    def waiter() -> None:
        cell.get()
        event.wait(timeout=1)

    def late() -> None:
        cell.get()
        with contextlib.suppress(BrokenBarrierError):
            gate.wait(timeout=1)

    parallel(waiter, late)
    spent[CORE.preemptions] += 1


@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize("bound", [0, 1])
def test_a_bound_keeps_every_schedule_that_is_within_it(bound: int, early: bool) -> None:
    """Who waits can go on by its timeout alone, so to go on with another is no preemption."""
    every, within = Counter[int](), Counter[int]()
    for spent, most in ((every, None), (within, bound)):
        report = explore(
            partial(timed_waits, spent),
            "dfs",
            schedules=None,
            preemptions=most,
            early_timeouts=early,
            twice_every=0,
        )
        assert report.exhausted
    assert within == Counter({n: count for n, count in every.items() if n <= bound})


def interrupts(_spent: object) -> None:
    """To go from a thread to one that interrupts another is no preemption."""
    cell, queue = Shared(0, "cell"), WaitQueue("q")

    def busy() -> None:
        for number in range(4):
            cell.set(number)

    def interrupter() -> None:
        for _ in range(2):
            sleeper.interrupt()
            cell.get()

    def sleep() -> None:
        queue.block(interruptible=True)

    sleeper = spawn(sleep)
    parallel(busy, interrupter)
    sleeper.join()


@pytest.mark.parametrize("body", [timed_waits, interrupts])
def test_the_preemptions_of_a_failure_are_those_of_its_trace(
    body: Callable[[Counter[int]], None],
) -> None:
    def program() -> None:
        body(Counter())
        raise AssertionError

    for seed in range(20):
        found = failure(program, "random", seed=seed, schedules=1, early_timeouts=True)
        assert found.preemptions == sum(step.preemption for step in found.trace())


# -- spinning and the step bound (38, 51) -------------------------------------------------------


def spin(*, yields: bool) -> None:
    flag = Shared(False)

    def wait() -> None:
        while not flag.get():
            if yields:
                yield_now()

    parallel(wait, lambda: flag.set(True))


@pytest.mark.parametrize("strategy", ["random", "pct", "round-robin", "portfolio"])
def test_a_spin_loop_that_yields_ends_under_every_strategy(strategy: str) -> None:
    report = passes(lambda: spin(yields=True), strategy, schedules=200, steps_max=1_000)

    # No schedule came near the bound.
    assert report.steps < 200 * 50


def test_a_spin_loop_that_does_not_yield_meets_the_bound_where_it_is_preferred() -> None:
    """That is no livelock: pct is not fair."""
    report = passes(lambda: spin(yields=False), "pct", depth=1, schedules=100, steps_max=500)

    assert report.steps > 25 * 500
    assert not report.failing


def spin_for_ever() -> None:
    cell = Shared(0)

    def turn() -> None:
        while True:
            cell.get()

    parallel(turn, turn)


@pytest.mark.parametrize("strategy", ["random", "round-robin"])
@pytest.mark.parametrize("bound", [1, 2, 7, 100])
def test_a_fair_schedule_without_end_is_a_livelock_at_exactly_the_bound(
    strategy: str, bound: int
) -> None:
    report = explore(spin_for_ever, strategy, schedules=1, steps_max=bound)

    assert report.failure is not None
    assert ("livelock", bound) == (report.failure.kind, report.failure.steps)
    assert bound == report.steps
    assert len(report.failure.trace()) == bound


@pytest.mark.parametrize("strategy", ["pct", "dfs"])
def test_an_unfair_schedule_without_end_proves_nothing(strategy: str) -> None:
    report = explore(spin_for_ever, strategy, schedules=5, steps_max=50)

    assert (report.verdict, report.schedules, report.steps) == ("inconclusive", 5, 250)
    assert "step bound of 50" in report.reason


def test_a_schedule_of_exactly_the_bound_is_not_cut() -> None:
    def program() -> None:
        cell = Shared(0)
        parallel(lambda: cell.set(1), lambda: cell.set(2))

    assert passes(program, steps_max=3).steps == 6
    assert explore(program, "dfs", schedules=None, steps_max=2).verdict == "inconclusive"


# -- budgets (6, 45, 63) ------------------------------------------------------------------------


def test_a_budget_of_schedules_is_met_exactly() -> None:
    report = passes(one_thread_runs_twenty_steps_on_end, "random", schedules=100)

    assert report.schedules == 100
    assert not report.exhausted


def test_a_search_ends_when_it_is_exhausted() -> None:
    report = explore(used_before_it_is_made, "dfs", schedules=1_000, stop_at_first=False)

    assert (report.schedules, report.exhausted) == (2, True)


def test_time_runs_out_between_schedules_long_before_the_budget() -> None:
    report = explore(spin_for_ever, "pct", schedules=10**9, seconds=0.05, steps_max=400)

    assert report.schedules * 400 == report.steps
    assert 0 < report.schedules < 10**6
    assert not report.exhausted


def test_no_schedule_is_no_pass() -> None:
    report = explore(used_before_it_is_made, "random", schedules=5, seconds=1e-9)

    assert (report.verdict, report.schedules) == ("inconclusive", 0)
    assert "no schedule" in report.reason


# -- many threads (34) --------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", on_each({"random"}, ["random", "pct"]))
def test_a_thousand_threads_work(strategy: str) -> None:
    def program() -> None:
        lock = Mutex("m")
        total = [0]

        def work() -> None:
            with lock:
                total[0] += 1

        threads = [spawn(work) for _ in range(1_000)]
        for thread in threads:
            thread.join()
        assert total == [1_000]

    report = passes(program, strategy, schedules=2)
    # spawn, acquire, release and join of each.
    assert report.steps == 2 * 4_000


# -- what must never be found (64) --------------------------------------------------------------


def bounded_buffer() -> None:
    lock = Mutex("m")
    not_full, not_empty = Condition(lock, "not full"), Condition(lock, "not empty")
    ring: list[int] = []

    def produce() -> None:
        for item in range(4):
            with lock:
                while len(ring) == 2:
                    not_full.wait()
                ring.append(item)
                not_empty.notify()

    def consume() -> list[int]:
        taken = []
        for _ in range(4):
            with lock:
                while not ring:
                    not_empty.wait()
                taken.append(ring.pop(0))
                not_full.notify()
        return taken

    assert parallel(produce, consume)[1] == [0, 1, 2, 3]


def peterson(*, polite: bool = True) -> None:
    wants = [Atomic(False, "wants0"), Atomic(False, "wants1")]
    turn = Atomic(0, "turn")
    inside = [0]
    cell = Shared(0, "work")

    def contender(i: int) -> None:
        wants[i].store(True)
        if polite:
            turn.store(1 - i)
        while wants[1 - i].load() and turn.load() == 1 - i:
            yield_now()
        inside[0] += 1
        cell.get()
        assert inside[0] == 1
        inside[0] -= 1
        wants[i].store(False)

    parallel(lambda: contender(0), lambda: contender(1))


def ticket_lock() -> None:
    following, serving = Atomic(0, "next"), Atomic(0, "serving")
    inside = [0]
    cell = Shared(0, "work")

    def contender() -> None:
        ticket = following.fetch_add()
        while serving.load() != ticket:
            yield_now()
        inside[0] += 1
        cell.get()
        assert inside[0] == 1
        inside[0] -= 1
        serving.store(ticket + 1)

    parallel(contender, contender, contender)


def szymanski() -> None:
    """0 is outside, 1 at the door, 2 waiting for others to enter, 3 in the doorway, 4 inside."""
    flags = [Atomic(0, "flag0"), Atomic(0, "flag1")]
    inside = [0]
    cell = Shared(0, "work")

    def contender(i: int) -> None:
        mine, other = flags[i], flags[1 - i]
        mine.store(1)
        while other.load() >= 3:
            yield_now()
        mine.store(3)
        if other.load() == 1:
            mine.store(2)
            while other.load() != 4:
                yield_now()
        mine.store(4)
        while i == 1 and other.load() in (2, 3, 4):
            yield_now()
        inside[0] += 1
        cell.get()
        assert inside[0] == 1
        inside[0] -= 1
        while i == 0 and other.load() in (2, 3):
            yield_now()
        mine.store(0)

    parallel(lambda: contender(0), lambda: contender(1))


CORRECT = [bounded_buffer, peterson, ticket_lock, szymanski]


@pytest.mark.parametrize("strategy", ["random", "pct", "portfolio", "round-robin"])
@pytest.mark.parametrize("program", CORRECT)
def test_a_correct_program_never_fails(program: Callable[[], None], strategy: str) -> None:
    passes(program, strategy, schedules=500, steps_max=2_000)


@pytest.mark.parametrize("program", on_each({bounded_buffer, peterson}, CORRECT))
def test_a_correct_program_never_fails_within_two_preemptions(program: Callable[[], None]) -> None:
    report = explore(program, "dfs", schedules=3_000, preemptions=2, steps_max=300)

    assert report.failure is None


def test_the_same_check_finds_the_incorrect_program() -> None:
    assert failure(lambda: peterson(polite=False), "random").kind == "assertion"


def test_an_event_makes_a_handshake_exact() -> None:
    def program() -> object:
        event = Event()
        cell = Shared(0)

        def send() -> None:
            cell.set(1)
            event.set()

        def receive() -> int:
            event.wait()
            return cell.get()

        return parallel(send, receive)[1]

    assert {1} == outcomes(program)


# -- misuse (52) --------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["dfs", "random"])
def test_a_program_without_concurrency_is_not_called_interleaved(strategy: str) -> None:
    report = explore(lambda: None, strategy, schedules=3)

    assert report.verdict == "inconclusive"
    assert report.failure is None


def test_an_unknown_strategy_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match=r"unknown strategy 'pcd'; known: .*pct"):
        explore(bounded_buffer, "pcd")
    with pytest.raises(UsageError, match=r"^unknown strategy 'p{80}'; known: "):
        explore(bounded_buffer, "p" * 5_000)
