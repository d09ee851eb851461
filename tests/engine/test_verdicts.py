"""A pass is earned: what runs but proves nothing is inconclusive, and says why."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import partial

import pytest
from exploring import passes

from harness import (
    LockClass,
    Mutex,
    Shared,
    UsageError,
    explore,
    parallel,
    replay,
    sometimes,
    spawn,
    yield_now,
)
from harness.lockorder.rules import LockRules
from harness.search.part import explore_part
from harness.search.setup import Setup
from harness.search.verdict import Exploration, Gathered, assemble


def _interleaved() -> None:
    cell = Shared(0)
    parallel(lambda: cell.set(1), lambda: cell.set(2))


def _empty() -> None:
    pass


def _one_thread() -> None:
    cell = Shared(0)
    for _ in range(5):
        cell.get()


def _thread_without_operation() -> None:
    cell = Shared(0)
    thread = spawn(lambda: None, name="idler")
    parallel(cell.get, cell.get)
    thread.join()


def _one_after_the_other() -> None:
    cell = Shared(0)
    for _ in range(3):
        spawn(cell.get).join()


def _without_end() -> None:
    cell = Shared(0)

    def turn() -> None:
        while True:
            cell.get()

    parallel(turn, turn)


def _each_spins_for_the_other() -> None:
    left, right = Shared(False), Shared(False)

    def first() -> None:
        while not left.get():
            pass
        right.set(True)

    def second() -> None:
        left.set(True)
        while not right.get():
            pass

    parallel(first, second)


@pytest.mark.parametrize(
    ("program", "options", "reason"),
    [
        (_interleaved, {"seconds": 1e-9}, "no schedule was run"),
        (_empty, {}, "nothing was interleaved"),
        (_one_thread, {}, "nothing was interleaved"),
        # A join can run once its thread has ended, so there is never a second thread that can.
        (_one_after_the_other, {"strategy": "dfs"}, "nothing was interleaved"),
        (_thread_without_operation, {}, "idler never performed an operation"),
        (_without_end, {"strategy": "pct", "steps_max": 20}, "every schedule hit the step bound"),
        (_without_end, {"strategy": "dfs", "steps_max": 20}, "every schedule hit the step bound"),
        (
            _each_spins_for_the_other,
            {"strategy": "dfs", "preemptions": 0},
            "would spin for ever with at most 0 preemptions; raise the bound",
        ),
        (
            _each_spins_for_the_other,
            {"strategy": "dfs", "preemptions": 0, "steps_max": 8},
            "no schedule came to its end: 1 hit the step bound of 8, 1 were cut short",
        ),
    ],
    ids=[
        "no time",
        "empty",
        "one thread",
        "in turn",
        "idle thread",
        "bound pct",
        "bound dfs",
        "cut short",
        "bound or cut",
    ],
)
def test_what_proves_nothing_is_inconclusive(
    program: Callable[[], None], options: dict[str, object], reason: str
) -> None:
    options = {"strategy": "random", **options}
    report = explore(program, schedules=10, **options)  # type: ignore[arg-type] # by name

    assert "inconclusive" == report.verdict
    assert reason in report.reason
    assert report.failure is None
    assert not report.failures


def test_a_pass_says_on_how_many_schedules_it_rests() -> None:
    assert "no failure in 7 schedules" == passes(_interleaved, "random", schedules=7).reason
    assert "no failure in every schedule" == passes(_interleaved).reason
    assert "at most 1 preemptions" in passes(_interleaved, preemptions=1).reason


def test_one_schedule_that_ends_is_enough_against_the_bound() -> None:
    def program() -> None:
        flag, cell = Shared(False), Shared(0)

        def wait() -> None:
            while not flag.get():
                cell.get()

        parallel(wait, lambda: flag.set(True))

    report = explore(program, "pct", schedules=40, depth=1, steps_max=30)

    assert "pass" == report.verdict
    assert report.steps > 10 * 30


def test_a_search_that_was_cut_is_not_exhausted() -> None:
    def program() -> None:
        flag, cell = Shared(False), Shared(0)

        def wait() -> None:
            while not flag.get():
                cell.get()

        parallel(wait, lambda: flag.set(True))

    report = explore(program, "dfs", schedules=None, steps_max=8)

    assert not report.exhausted
    assert "every schedule" not in report.reason or "bound" in report.reason


def test_numbers_add_up() -> None:
    report = explore(_interleaved, "dfs", schedules=None)

    assert (2, 6, True, 0) == (report.schedules, report.steps, report.exhausted, report.blocked)
    assert report.seconds > 0
    assert {} == report.failing
    assert [] == report.failures


def test_failures_are_counted_by_kind_and_kept_by_place() -> None:
    def program() -> None:
        lock, cell = Mutex("m"), Shared(0)

        def work() -> None:
            with lock:
                seen = cell.get()
            with lock:
                cell.set(seen + 1)

        parallel(work, work)
        assert cell.peek() == 2

    report = explore(program, "dfs", schedules=None, stop_at_first=False)

    assert report.failing["assertion"] > 1
    assert 1 == len(report.failures)
    assert report.failure is report.failures[0]
    assert "assertion in schedule " in report.reason
    assert 0 < report.failing["assertion"] < report.schedules


def test_names_reached_are_told() -> None:
    def program() -> None:
        cell = Shared(0)

        def reader() -> None:
            sometimes("early" if cell.get() == 0 else "late")

        parallel(reader, lambda: cell.set(1))

    assert ("early", "late") == passes(program).reached


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(UsageError, match="mode must be 'controlled' or 'free'"):
        explore(_interleaved, mode="wild")


def test_a_replay_that_passes_gives_none() -> None:
    broken = [True]

    def program() -> None:
        cell = Shared(0)
        parallel(lambda: cell.set(1), cell.get)
        assert not broken[0], "always"

    report = explore(program, "random", schedules=1)
    assert report.failure is not None
    broken[0] = False

    assert replay(program, report.failure.token) is None


# -- parts put together ---------------------------------------------------------------------------

SEED = 2
OUTER, INNER = LockClass("outer"), LockClass("inner")


def _one_order_in_each_schedule() -> None:
    """Now one nesting order, now the other, now a failure: no schedule closes the cycle alone."""
    one, other = Mutex("one", OUTER), Mutex("other", INNER)
    turn = Shared(0, "turn")

    def choose() -> None:
        seen = turn.get()
        if seen == 2:
            with one, other:
                pass
        elif seen == 3:
            with other, one:
                pass
        assert seen != 4

    def count() -> None:
        for number in range(1, 5):
            turn.set(number)

    parallel(choose, count)


@pytest.mark.parametrize("stop_at_first", [True, False])
def test_parts_that_are_gathered_as_they_come_amount_to_the_same(*, stop_at_first: bool) -> None:
    setup = Setup(strategy="random", seed=SEED, stop_at_first=stop_at_first)
    program = _one_order_in_each_schedule
    gathered, parts = Gathered(setup), []
    for first in range(1, 61, 2):
        part = explore_part(program, setup, first, first + 1)
        parts.append(part)
        gathered.take(part)
        assert len(gathered.parts) <= 2
        if gathered.ended:
            break

    assert gathered.count == len(parts) > 1
    assert gathered.ended is stop_at_first
    assert _told(assemble(program, setup, gathered.parts)) == _told(assemble(program, setup, parts))


def _told(found: Exploration) -> dict[str, object]:
    facts = dict(vars(found), seconds=0.0)
    rules, failures, first = (facts.pop(name) for name in ("lock_order", "failures", "failure"))
    assert isinstance(rules, LockRules)
    assert isinstance(failures, list)
    assert first in [*failures, None]
    return facts | {
        "edges": [(names, edge.count, edge.schedules) for names, edge in rules.edges.items()],
        "failures": [(one.schedule, one.fingerprint, one.token) for one in failures],
    }


def test_a_pass_says_what_the_lock_rules_did_not_judge() -> None:
    def program(count: int) -> None:
        locks = [Mutex(lock_class=LockClass(f"c{number}")) for number in range(count)]
        with contextlib.ExitStack() as held:
            for lock in locks:
                held.enter_context(lock)
        parallel(yield_now, yield_now)

    assert "judge" not in explore(partial(program, 64), schedules=3).reason
    assert explore(partial(program, 66), "random", schedules=3).reason == (
        "no failure in 3 schedules; 6 times the lock rules left out: taken by a thread that holds "
        "64 locks"
    )


def test_a_pass_says_how_many_schedules_came_to_the_step_bound() -> None:
    def program() -> None:
        cell = Shared(0, "cell")

        def read() -> None:
            looks = 0
            while cell.get() == 0 and looks < 40:
                looks += 1

        parallel(partial(cell.set, 1), read)

    report = explore(program, "dfs", schedules=None, steps_max=30)
    assert (report.verdict, report.schedules, report.exhausted) == ("pass", 30, False)
    assert report.reason == "no failure in 30 schedules; 2 of them hit the step bound of 30"
