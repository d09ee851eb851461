"""Histories: an order is found where there is one, and only there."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from harness import (
    Atomic,
    Exploration,
    History,
    Mutex,
    Sequential,
    Shared,
    UsageError,
    explore,
    parallel,
    replay,
)
from harness.explore import Setup, assemble, explore_part
from harness.search.evidence import Histories
from harness.sync import history as explained
from harness.sync.history import Call
from harness.sync.threads import current_schedule, yield_now


def register(state: int, name: str, args: tuple[Any, ...]) -> Iterator[tuple[int, Any]]:
    """A cell that is read and written."""
    if name == "write":
        yield args[0], None
    else:
        yield state, state


def counter(state: int, name: str, args: tuple[Any, ...]) -> Iterator[tuple[int, Any]]:
    """A count that each operation returns and adds one to."""
    del name, args
    yield state + 1, state


def counting(increment: Callable[[], int]) -> None:
    """Three threads that count, noted."""
    history = History(Sequential(0, counter))

    def one() -> None:
        history.run("add", (), increment)

    parallel(one, one, one)


def racy() -> None:
    cell = Shared(0, "count")

    def increment() -> int:
        value = cell.get()
        cell.set(value + 1)
        return value

    counting(increment)


def locked() -> None:
    cell, lock = Shared(0, "count"), Mutex("lock")

    def increment() -> int:
        with lock:
            value = cell.get()
            cell.set(value + 1)
            return value

    counting(increment)


def atomic() -> None:
    cell = Atomic(0, "count")
    counting(lambda: cell.fetch_add(1))


@pytest.mark.parametrize("program", [locked, atomic])
def test_an_atomic_object_passes_in_every_interleaving(program: Callable[[], None]) -> None:
    report = explore(program, "dfs", schedules=None)

    assert (report.verdict, report.exhausted) == ("pass", True), report.failure


def test_a_lost_update_is_a_finding_that_shows_the_history_and_replays() -> None:
    failure = explore(racy).failure

    assert failure is not None
    assert failure.kind == "invariant"
    assert failure.message.startswith("reference: no order of the operations explains what")
    assert (
        max(failure.message.count(f"add() -> {value}\n") for value in (0, 1)) == 3
    )  # the first line names one
    again = replay(racy, failure.token)
    assert again is not None
    assert again.digest == failure.digest


# -- by hand --------------------------------------------------------------------------------------

# Events of a history: the number of an operation, at its call and again at its return.
Operations = list[tuple[str, tuple[Any, ...], Any]]


def judged(operations: Operations, order: list[int], **options: Any) -> tuple[bool, bool]:
    """Whether a history of a register that holds 0 is explained, and decided."""
    found: list[tuple[bool, bool]] = []

    def program() -> None:
        history = History(Sequential(0, register), **options)
        calls: dict[int, Call] = {}
        for number in order:
            name, args, result = operations[number]
            if number in calls:
                history.returns(calls[number], result)
            else:
                calls[number] = history.call(name, *args)
        explanation = history.explain()
        found.append((explanation.found, explanation.decided))
        history.abandon("judged above")

    assert explore(program, "round-robin", schedules=1).failure is None
    return found[0]


WRITE, READ_0, READ_1 = ("write", (1,), None), ("read", (), 0), ("read", (), 1)


@pytest.mark.parametrize(
    ("operations", "order", "explained"),
    [
        ([WRITE, READ_0], [0, 1, 1, 0], True),
        ([WRITE, READ_1], [0, 1, 1, 0], True),
        ([WRITE, READ_1], [0, 0, 1, 1], True),
        # It returned before the read was called.
        ([WRITE, READ_0], [0, 0, 1, 1], False),
        # The write comes before one read and after the next.
        ([WRITE, READ_1, READ_0], [0, 1, 1, 2, 2, 0], False),
        ([WRITE, READ_0, READ_1], [0, 1, 1, 2, 2, 0], True),
    ],
)
def test_an_order_respects_real_time(operations: Operations, order: list[int], explained: bool):
    assert judged(operations, order) == (explained, True)


def brute(operations: Operations, order: list[int]) -> bool:
    """Whether some permutation that respects real time gives every result."""
    first = {n: order.index(n) for n in range(len(operations))}
    last = {n: len(order) - 1 - order[::-1].index(n) for n in range(len(operations))}
    for permutation in itertools.permutations(range(len(operations))):
        pairs = itertools.combinations(permutation, 2)
        if any(last[later] < first[earlier] for earlier, later in pairs):
            continue
        state = 0
        for number in permutation:
            name, args, result = operations[number]
            if name == "write":
                state = args[0]
            elif result != state:
                break
        else:
            return True
    return False


def test_the_search_agrees_with_all_permutations() -> None:
    draw = random.Random(7)
    found = {True: 0, False: 0}
    for _ in range(300):
        operations: Operations = [
            draw.choice([("write", (v,), None), ("read", (), v)])
            for v in (draw.randrange(3) for _ in range(5))
        ]
        # At most three run at once, as of three threads.
        order: list[int] = []
        running: list[int] = []
        left = list(range(5))
        while left or running:
            if left and len(running) < 3 and (not running or draw.random() < 0.5):
                running.append(left.pop(0))
                order.append(running[-1])
            else:
                order.append(running.pop(draw.randrange(len(running))))
        expected = brute(operations, order)
        found[expected] += 1
        assert judged(operations, order) == (expected, True), (operations, order)

    assert min(found.values()) > 50


def test_a_history_that_needs_too_many_states_is_told_apart_from_a_wrong_one() -> None:
    writes: Operations = [("write", (v,), None) for v in range(6)]
    order = [*range(6), *range(6)]

    assert judged(writes, order) == (True, True)
    assert judged(writes, order, states_max=20) == (False, False)


def undecided() -> None:
    history = History(Sequential(0, register), states_max=2)
    calls = [history.call("write", value) for value in range(4)]
    for call in calls:
        history.returns(call, None)


def abandoned() -> None:
    history = History(Sequential(0, register))
    history.abandon("a thing that the reference does not know")
    history.run("read", (), lambda: 5)


def wrong() -> None:
    history = History(Sequential(0, register))
    history.run("read", (), lambda: 5)


def test_what_was_not_judged_is_no_finding_and_says_so() -> None:
    def once(program: Callable[[], None]) -> Exploration:
        return explore(program, "round-robin", schedules=1)

    assert once(wrong).failing == {"invariant": 1}
    assert once(abandoned).failure is None
    for program, outcome in ((abandoned, "1 abandoned (a thing that"), (undecided, "1 undecided")):
        report = once(program)
        assert report.failure is None
        assert report.evidence is not None
        assert report.evidence.histories.checked == 0
        assert f"0 of 1 histories checked, {outcome}" in report.evidence.histories.told()


def mixed_up() -> None:
    """Now this, now that."""
    parallel(lambda: yield_now(), lambda: yield_now())
    (undecided, abandoned, counted)[current_schedule() % 3]()


def counted() -> None:
    History(Sequential(0, register)).run("read", (), lambda: 0)


def idle() -> None:
    """Nothing of its history is judged, whatever runs."""
    parallel(lambda: yield_now(), lambda: yield_now())
    abandoned()


def test_a_pass_counts_what_was_judged_the_same_for_any_division() -> None:
    report = explore(mixed_up, "random", schedules=9)

    assert (report.verdict, report.reason) == ("pass", "no failure in 9 schedules")
    assert report.evidence is not None
    expected = Histories(3, 3, {"a thing that the reference does not know": 3})
    assert report.evidence.histories == expected
    setup = Setup(strategy="random")
    parts = [explore_part(mixed_up, setup, first, first + 2) for first in (7, 1, 4)]
    divided = assemble(mixed_up, setup, parts).evidence
    assert divided is not None
    assert divided.histories == expected


def test_a_pass_without_a_checked_history_says_that_it_proves_nothing_of_the_reference() -> None:
    report = explore(idle, "random", schedules=4)

    assert report.verdict == "pass"
    assert report.reason == (
        "no failure in 4 schedules; inconclusive for the reference: 0 of 4 histories checked, "
        "4 abandoned (a thing that the reference does not know)"
    )


def test_noting_is_no_schedule_point() -> None:
    def bare() -> None:
        cell = Atomic(0, "count")
        parallel(*[lambda: cell.fetch_add(1)] * 3)

    noted = explore(atomic, "dfs", schedules=None)

    assert noted.schedules == explore(bare, "dfs", schedules=None).schedules == 6


def test_a_call_returns_once() -> None:
    def program() -> None:
        history = History(Sequential(0, register))
        call = history.call("read")
        history.returns(call, 0)
        with pytest.raises(UsageError, match="returns twice"):
            history.returns(call, 0)

    assert explore(program, "round-robin", schedules=1).failure is None


def test_of_what_was_explained_so_much_is_kept_and_all_is_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Programs that are drawn have a new history each time, for hours."""
    monkeypatch.setattr(explained, "EXPLAINED_CALLS_MAX", 100)
    kept: list[int] = []

    def program() -> None:
        reference = Sequential(0, register)
        reference.key = "register"
        number, noted = current_schedule(), History(reference)
        kept.append(sum(explained._EXPLAINED.values()))
        for value in range(4):
            noted.run("write", (number * 4 + value,), lambda: None)

    found = explore(program, "random", 200, twice_every=0)

    assert found.evidence is not None
    assert (found.evidence.histories.checked, found.evidence.histories.total) == (200, 200)
    assert 40 < max(kept) <= 100
