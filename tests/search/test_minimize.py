"""Minimizing: fewest preemptions, then switches, then steps; its proof; the pair that decides."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from harness import (
    Failure,
    Mutex,
    ReplayDivergence,
    Shared,
    explore,
    minimize,
    parallel,
    replay,
    spawn,
    yield_now,
)
from harness.search import minimize as minimizing
from harness.search.flip import side_by_side
from harness.search.minimize import minimized
from harness.search.recording import setup_of
from harness.search.regroup import regrouped
from harness.search.setup import Setup
from harness.trace.token import Token
from stress.shorter import summary

Program = Callable[[], object]


def lost_update() -> None:
    """Three threads; one preemption between a read and its write is enough."""
    counter = Shared(0, "counter")
    noise = Mutex("noise")

    def increment() -> None:
        with noise:
            pass
        counter.set(counter.get() + 1)
        with noise:
            pass

    threads = [spawn(increment, name=f"t{i}") for i in range(3)]
    for thread in threads:
        thread.join()
    assert counter.get() == 3


def crossed() -> None:
    """Two locks in opposite orders: one preemption."""
    one, other = Mutex("one"), Mutex("other")

    def there() -> None:
        for _ in range(3):
            yield_now()
        with one, other:
            pass

    def back() -> None:
        for _ in range(3):
            yield_now()
        with other, one:
            pass

    parallel(there, back)


def seen_between() -> None:
    """Fails when a read sees 1 and the next 2 (three preemptions), or 0 and then 3 (one)."""
    cell = Shared(0, "cell")

    def write() -> None:
        for value in (1, 2, 3):
            cell.set(value)

    def read() -> None:
        seen = cell.get(), cell.get()
        assert seen not in ((1, 2), (0, 3))

    parallel(write, read)


def twice() -> None:
    """The reader must come in twice, each time between the two writes of a pair."""
    cell = Shared(0, "cell")

    def write() -> None:
        for value in (1, 2, 3, 4):
            cell.set(value)

    def read() -> None:
        seen = cell.get(), cell.get()
        assert seen != (1, 3)

    parallel(write, read)


def by_order() -> None:
    """No preemption at all: it is the order of the threads that matters."""
    cell = Shared(0, "cell")

    def write() -> None:
        cell.set(1)

    def read() -> None:
        assert cell.get() == 1

    parallel(write, read)


def failing(program: Program, seed: int) -> Failure:
    found = explore(program, "random", schedules=2_000, seed=seed).failure
    assert found is not None
    return found


KNOWN = [(lost_update, 1), (crossed, 1), (seen_between, 1), (twice, 3), (by_order, 0)]


@pytest.mark.parametrize(("program", "depth"), KNOWN)
def test_the_least_number_of_preemptions_is_reached_from_any_failing_schedule(
    program: Program, depth: int
) -> None:
    for seed in range(8):
        given = failing(program, seed)

        easier = minimize(program, given)

        assert (easier.kind, easier.fingerprint) == (given.kind, given.fingerprint)
        assert easier.preemptions == depth
        again = replay(program, easier.token)
        assert again is not None
        assert (again.digest, again.preemptions) == (easier.digest, depth)


def test_a_preemption_that_cannot_be_taken_out_is_moved() -> None:
    """No single stretch can be taken out of the schedule that sees 1 and 2, yet it is not least."""
    failures = (failing(seen_between, seed) for seed in range(100))
    given = next(failure for failure in failures if failure.preemptions == 3)

    result = minimized(seen_between, given.token)

    assert result.before.preemptions == 3
    assert result.after.preemptions == 1
    assert result.fewest


@pytest.mark.parametrize(("program", "depth"), KNOWN)
def test_that_no_schedule_has_fewer_is_a_fact(program: Program, depth: int) -> None:
    result = minimized(program, failing(program, 0).token)

    assert result.fewest
    assert result.one_minimal
    assert result.tried_without > 0
    if depth:
        fewer = explore(program, "dfs", schedules=None, preemptions=depth - 1)
        assert (fewer.verdict, fewer.exhausted) == ("pass", True)


def test_the_story_reads_in_blocks() -> None:
    """Two threads that have nothing to do with the failure run in one piece each."""

    def program() -> None:
        cell = Shared(0, "cell")

        def aside(name: str) -> None:
            own = Shared(0, name)
            for value in range(6):
                own.set(value)

        def write() -> None:
            cell.set(cell.get() + 1)

        parallel(lambda: aside("a"), write, lambda: aside("b"), write)
        assert cell.get() == 2

    for seed in range(4):
        result = minimized(program, failing(program, seed).token)

        assert result.after.preemptions == 1
        assert result.after.switches < result.before.switches
        # main, then four threads of which one is interrupted once, then main.
        assert result.after.switches <= 6


def test_steps_that_commute_are_put_together() -> None:
    """By what depends on what alone: the order of the steps on one object stays."""

    def program() -> None:
        one, other = Shared(0, "one"), Shared(0, "other")

        def write(cell: Shared[int]) -> None:
            for value in range(5):
                cell.set(value)

        parallel(lambda: write(one), lambda: write(other), lambda: write(one))
        raise AssertionError("at the end")

    steps = failing(program, 3).trace()
    order = list(regrouped(steps))[2]  # of all steps, not only those that the last one needs

    def on(cell: str, threads: list[int]) -> list[int]:
        return [threads[i] for i in range(len(threads)) if names[threads[i]] == cell]

    names = {step.thread: step.obj for step in steps}
    assert on("one", order) == on("one", [step.thread for step in steps])
    assert switches(order) < switches([step.thread for step in steps])
    # The thread that shares nothing with the others runs in one piece.
    assert switches([1 if names[thread] == "other" else 0 for thread in order]) <= 2


def switches(order: list[int]) -> int:
    return sum(one != other for one, other in itertools.pairwise(order))


def test_the_pair_that_decides_was_run_in_both_orders() -> None:
    result = minimized(lost_update, failing(lost_update, 1).token)

    flip = result.flip
    assert flip is not None
    assert flip.passes
    assert (flip.first.kind, flip.second.kind) == ("get", "set")
    assert flip.first.obj == flip.second.obj == "counter"
    assert flip.failing[: flip.at] == flip.passing[: flip.at]
    exchanged = flip.passing[flip.at], flip.passing[flip.at + 1]
    assert [(step.thread, step.kind) for step in exchanged] == [
        (flip.second.thread, "set"),
        (flip.first.thread, "get"),
    ]


def test_the_two_orders_are_shown_beside_each_other() -> None:
    flip = minimized(lost_update, failing(lost_update, 1).token).flip
    assert flip is not None

    lines = side_by_side(flip)

    assert "this order fails" in lines[0]
    assert "this order passes" in lines[0]
    marked = [line for line in lines if "*" in line]
    assert len(marked) == 2
    assert marked[0].index("get counter") < marked[0].index("set counter")
    assert marked[1].index("set counter") < marked[1].index("get counter")
    assert all(len(line) <= 100 for line in lines)


def test_the_table_of_two_orders_keeps_line_numbers_where_room_is_short() -> None:
    """Folders go first, then the end of the operation: the number is what a reader looks up."""
    flip = minimized(lost_update, failing(lost_update, 1).token).flip
    assert flip is not None

    lines = side_by_side(flip, width=64)

    assert all(len(line) <= 64 for line in lines)
    for line, step in zip(lines[1:], flip.failing[max(0, flip.at - 2) :], strict=False):
        assert step.site is not None
        assert f":{step.site.line} " in line[: 6 + (64 - 9) // 2] + " "
    assert any("…" in line for line in lines)


def test_where_every_schedule_fails_no_order_decides() -> None:
    def program() -> None:
        parallel(yield_now, yield_now)
        raise AssertionError("always")

    result = minimized(program, failing(program, 0).token)

    assert result.flip is None
    assert result.after.preemptions == 0


def test_a_spent_budget_is_said() -> None:
    failures = (failing(lost_update, seed) for seed in range(20))
    given = next(failure for failure in failures if failure.preemptions > 3)

    result = minimized(lost_update, given.token, steps_max=0, replays_least=1)

    assert not result.one_minimal
    assert not result.fewest
    assert result.failure.fingerprint == given.fingerprint


def test_the_same_failure_is_minimized_to_the_same_token() -> None:
    given = failing(lost_update, 5)

    assert minimize(lost_update, given).token == minimize(lost_update, given).token


def test_a_schedule_that_no_longer_fails_diverges() -> None:
    broken = True

    def program() -> None:
        def write() -> None:
            cell.set(cell.get() + 1)

        cell = Shared(0, "cell")
        parallel(write, write)
        assert not broken or cell.get() == 2

    given = failing(program, 0)
    broken = False

    with pytest.raises(ReplayDivergence):
        minimize(program, given)


@pytest.mark.parametrize("hangs", [False, True])
def test_what_was_given_up_proves_nothing(hangs: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the reader comes first it blocks in something that nobody controls."""
    armed, seen = False, False

    def program() -> None:
        flag, other = Shared(False, "flag"), Shared(0, "other")

        def read() -> None:
            nonlocal seen
            seen = flag.get()
            if armed and not seen:
                time.sleep(1.2)
            other.set(1)
            assert other.get() == 1

        def write() -> None:
            flag.set(True)
            other.set(2)

        parallel(read, write)

    def impatient(token: Token) -> Setup:
        return replace(setup_of(token), hang_seconds=0.6)

    monkeypatch.setattr(minimizing, "setup_of", impatient)
    reports = (explore(program, "random", 1, seed) for seed in range(50))
    failures = (report.failure for report in reports if report.failure is not None)
    token = next(failure.token for failure in failures if seen)
    armed = hangs
    result = minimized(program, token)

    assert (result.one_minimal, result.fewest) == (not hangs, not hangs)


@pytest.mark.parametrize("steps_max", [30, 100])
def test_what_came_to_the_step_bound_proves_nothing(steps_max: int) -> None:
    """With the reader first it looks for 40 steps in vain, and fails without any preemption."""

    def program() -> None:
        cell = Shared(0, "cell")

        def write() -> None:
            cell.set(1)
            cell.set(2)

        def read() -> None:
            seen, looks = cell.get(), 0
            while cell.peek() == 0 and looks < 40:
                looks += 1
                cell.get()
            assert seen == 2

        parallel(write, read)

    reports = (explore(program, "random", 1, seed, steps_max=steps_max) for seed in range(50))
    token = next(
        report.failure.token
        for report in reports
        if report.failure is not None and report.failure.preemptions
    )
    result = minimized(program, token)

    if steps_max == 100:
        assert (result.after.preemptions, result.fewest, result.unended) == (0, True, 0)
    else:
        assert (result.after.preemptions, result.fewest) == (1, False)
        assert result.unended > 0
        assert any("step bound" in line for line in summary(result))


def test_a_livelock_is_not_minimized_to_one_that_starves() -> None:
    """Each waits for the other, and both must be seen to run on."""

    def program() -> None:
        cells = [Shared(0, "x"), Shared(0, "y")]

        def spin(at: int) -> None:
            while not cells[1 - at].get():
                pass
            cells[at].set(1)

        parallel(lambda: spin(0), lambda: spin(1))

    report = explore(program, "random", 20, steps_max=60)
    assert report.failure is not None
    result = minimized(program, report.failure.token)

    assert result.failure.kind == "livelock"
    assert {step.thread for step in result.failure.trace()[-20:]} == {1, 2}
    assert (result.one_minimal, result.fewest) == (False, False)
    assert "left as it was found" in summary(result)[0]
