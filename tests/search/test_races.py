"""Data races: every primitive orders what it should, and nothing else does."""

from __future__ import annotations

import pytest
from race_programs import ORDERED, RACY, Program, bare, wrong_lock

from harness import (
    Mutex,
    RwLock,
    Shared,
    explore,
    minimize,
    parallel,
    replay,
    yield_now,
)


@pytest.mark.parametrize("program", RACY, ids=lambda program: program.__name__)
def test_a_race_is_found(program: Program) -> None:
    found = explore(program, "dfs", schedules=None, races=True).failure

    assert found is not None
    assert found.kind == "data-race"


# Early, a sleep orders nothing.
EITHER_WAY = [
    *((name, False) for name in ORDERED),
    *((name, True) for name in ORDERED if not name.startswith("barrier, ")),
]


@pytest.mark.parametrize(("name", "early"), EITHER_WAY)
def test_what_is_ordered_is_no_race_in_any_schedule(name: str, early: bool) -> None:
    report = explore(ORDERED[name], "dfs", schedules=None, races=True, early_timeouts=early)

    assert (report.verdict, report.exhausted) == ("pass", True), report.failure


def test_nobody_looks_for_races_unless_told_to() -> None:
    assert explore(bare, "dfs", schedules=None).verdict == "pass"


def test_a_race_needs_no_unlucky_schedule() -> None:
    """That the accesses are far apart in time does not order them."""

    def program() -> None:
        cell = Shared(0, "cell")

        def late() -> None:
            for _ in range(20):
                yield_now()
            cell.set(2)

        parallel(lambda: cell.set(1), late)

    report = explore(program, "round-robin", schedules=1, races=True)

    assert report.failing == {"data-race": 1}


def test_a_race_replays_and_minimizes_from_its_token() -> None:
    given = explore(wrong_lock, "random", schedules=50, seed=4, races=True).failure
    assert given is not None

    again = replay(wrong_lock, given.token)
    easier = minimize(wrong_lock, given)

    assert again is not None
    assert (again.kind, again.message, again.digest) == ("data-race", given.message, given.digest)
    assert (easier.kind, easier.fingerprint, easier.preemptions) == (
        "data-race",
        given.fingerprint,
        0,
    )


def test_the_report_names_both_accesses_their_stacks_and_locks() -> None:
    def program() -> None:
        cell, lock, aside = Shared(0, "cell"), Mutex("lock"), Mutex("aside")

        def careful() -> None:
            with lock:
                cell.set(cell.get() + 1)

        def careless() -> None:
            with aside:
                store()

        def store() -> None:
            cell.set(7)

        parallel(careless, careful)

    found = explore(program, "dfs", schedules=1, races=True).failure

    assert found is not None
    lines = found.message.splitlines()
    ordered = "and nothing orders that with the write by careful in step 4"
    assert lines[0] == f"careless writes cell, {ordered}"
    assert "careful writes it with lock held:" in lines
    assert "careless writes it with aside held:" in lines
    places = [line.split(" in ")[1].rpartition(".")[2] for line in lines if line.startswith("  ")]
    assert places == ["careful", "store", "careless"]
    assert lines[-1] == "lock was held at 2 of 2 other accesses"
    assert "✗ data-race" in found.text()


def test_the_lock_of_the_racing_access_alone_is_no_rule() -> None:
    def program() -> None:
        cell, aside = Shared(0, "cell"), Mutex("aside")

        def careless() -> None:
            with aside:
                cell.set(7)

        parallel(careless, cell.get)

    found = explore(program, "dfs", schedules=None, races=True, stop_at_first=False)

    assert found.failing == {"data-race": found.schedules}
    for failure in found.failures:
        assert "with aside held:" in failure.message
        assert "other accesses" not in failure.message


def test_a_lock_that_is_held_for_reading_says_so() -> None:
    """Else two who write under the same lock are told of, and nobody sees why that is a race."""

    def program() -> None:
        cell, lock, rw = Shared(0, "cell"), Mutex("lock"), RwLock("rw")

        def read_side() -> None:
            with lock, rw.read():
                cell.set(1)

        def write_side() -> None:
            with rw.write():
                cell.get()
            with rw.read():
                cell.set(2)

        parallel(read_side, write_side, names=["read", "write"])

    found = explore(program, "dfs", schedules=None, races=True, stop_at_first=False)

    messages = [failure.message.splitlines() for failure in found.failures]
    assert any("write writes it with rw (for reading) held:" in lines for lines in messages)
    assert any("read writes it with lock, rw (for reading) held:" in lines for lines in messages)
    assert not any("rw held" in line for lines in messages for line in lines)


def test_the_fingerprint_is_of_both_places_in_either_order() -> None:
    found = explore(bare, "dfs", schedules=None, races=True, stop_at_first=False)

    assert found.failing == {"data-race": found.schedules}
    assert len(found.failures) == 1


def test_different_places_are_different_races() -> None:
    def program() -> None:
        cell = Shared(0, "cell")

        def write() -> None:
            cell.set(1)
            cell.set(2)

        parallel(write, cell.get)

    found = explore(program, "dfs", schedules=None, races=True, stop_at_first=False)

    assert len(found.failures) == 2
