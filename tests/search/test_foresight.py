"""Deadlocks that no schedule reached: foreseen, run, and never free to pass as nothing."""

from __future__ import annotations

import itertools

import pytest

from harness import (
    Atomic,
    Event,
    Exploration,
    Mutex,
    Semaphore,
    UsageError,
    explore,
    parallel,
    replay,
    spawn,
)
from harness.search import foresight
from harness.search.part import explore_part
from harness.search.recording import record_part
from harness.search.setup import Setup
from harness.search.verdict import assemble


def crossing() -> None:
    """Two threads take two locks each in their own order; most schedules pass."""
    a, b = Mutex("a"), Mutex("b")

    def forth() -> None:
        with a, b:
            pass

    def back() -> None:
        with b, a:
            pass

    parallel(forth, back)


def joining_under_a_lock() -> None:
    lock = Mutex("lock")

    def child() -> None:
        with lock:
            pass

    thread = spawn(child, name="child")
    with lock:
        thread.join()


def waiting_under_a_lock() -> None:
    lock, ready = Mutex("lock"), Event("ready")

    def setter() -> None:
        with lock:
            pass
        ready.set()

    thread = spawn(setter, name="setter")
    with lock:
        ready.wait()
    thread.join()


def guarded() -> None:
    """As ``crossing``, under a lock that both take first."""
    gate, a, b = Mutex("gate"), Mutex("a"), Mutex("b")

    def forth() -> None:
        with gate, a, b:
            pass

    def back() -> None:
        with gate, b, a:
            pass

    parallel(forth, back)


def handed_over() -> None:
    """As ``crossing``, but the second thread begins when the first has told it to."""
    a, b, done = Mutex("a"), Mutex("b"), Semaphore(0, name="done")
    aside = Atomic(0, "aside")

    def forth() -> None:
        with a, b:
            pass
        done.release()

    def back() -> None:
        done.acquire()
        with b, a:
            pass

    parallel(forth, back, aside.load)


def decided_by_plain_data() -> None:
    """The second thread crosses only if the first is through, which no operation shows."""
    a, b, turn = Mutex("a"), Mutex("b"), Atomic(0, "turn")
    through: list[bool] = []

    def forth() -> None:
        with a, b:
            pass
        through.append(True)
        turn.load()

    def back() -> None:
        turn.load()
        first, second = (b, a) if through else (a, b)
        with first, second:
            pass

    parallel(forth, back)


def passing(program: object, schedules: int = 12) -> Exploration:
    """Look for a seed under which nothing fails by itself."""
    for seed in range(200):
        plain = explore(program, "random", schedules, seed)  # type: ignore[arg-type] # called
        if plain.verdict == "pass":
            return explore(program, "random", schedules, seed, predict=schedules)  # type: ignore[arg-type] # called
    raise AssertionError("fails too often")


@pytest.mark.parametrize(
    ("program", "rule", "kind"),
    [
        (crossing, "ORD002", "deadlock"),
        (joining_under_a_lock, "EVT003", "deadlock"),
        (waiting_under_a_lock, "EVT001", "lost-wakeup"),
    ],
)
def test_what_no_schedule_reached_is_foreseen_and_reached(program, rule: str, kind: str) -> None:
    report = passing(program, 2)

    assert report.verdict == "fail"
    assert report.failing == {}  # no schedule failed by itself
    assert report.reason == f"{kind} foreseen in schedule {report.failures[0].schedule}"
    (foreseen,) = report.foreseen
    assert (foreseen.finding.rule, foreseen.finding.tier) == (rule, "confirmed")
    assert foreseen.finding.scenario
    assert foreseen.failure is report.failure
    assert report.failure is not None
    again = replay(program, report.failure.token)
    assert again is not None
    assert (again.kind, again.digest) == (kind, report.failure.digest)


def test_nothing_is_foreseen_unless_asked_for() -> None:
    assert explore(crossing, "random", 1, 0).foreseen == ()
    assert explore(crossing, "random", 1, 0).verdict == "pass"


@pytest.mark.parametrize("program", [guarded, handed_over])
def test_what_cannot_happen_is_not_foreseen(program) -> None:
    report = explore(program, "random", 30, predict=30)
    assert report.foreseen == ()
    assert report.verdict == "pass"


def test_what_is_predicted_and_not_reached_is_no_pass() -> None:
    report = passing(decided_by_plain_data, 60)

    (foreseen,) = report.foreseen
    assert (foreseen.finding.rule, foreseen.finding.tier) == ("ORD002", "predicted")
    assert foreseen.finding.proof.endswith(foresight.MISSED)
    assert foreseen.failure is None
    assert report.verdict == "inconclusive"
    assert report.reason.startswith(f"ORD002 foreseen in schedule {foreseen.finding.schedule}: ")


def test_only_the_first_schedules_are_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    judged: list[int] = []

    def noting(program, setup, first, last, *args, **options) -> None:
        judged.extend(range(first, last + 1))
        record_part(program, setup, first, last, *args, **options)

    monkeypatch.setattr(foresight, "record_part", noting)
    explore(guarded, "random", 5, predict=3)
    assert judged == [1, 2, 3]
    explore(guarded, "random", 5, predict=30)
    assert judged == [1, 2, 3, 1, 2, 3, 4, 5]
    explore(guarded, "random", 5)
    assert len(judged) == 8


@pytest.mark.parametrize("program", [decided_by_plain_data, crossing])
def test_the_same_is_foreseen_however_the_schedules_are_divided(program) -> None:
    def told(*bounds: int) -> tuple[object, ...]:
        ends = [(first + 1, last) for first, last in itertools.pairwise((0, *bounds))]
        parts = [explore_part(program, setup, first, last) for first, last in ends]
        report = assemble(program, setup, parts[::-1])
        found = [(each.finding, each.schedules) for each in report.foreseen]
        return found, report.verdict, report.reason, [f.token for f in report.failures]

    setup = Setup("random", 2, predict=100, stop_at_first=False)
    whole = told(140)
    assert told(64, 128, 140) == whole
    # What a schedule ended in by itself is found, not foreseen.
    assert bool(whole[0]) == (program is decided_by_plain_data)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"predict": -1}, "predict must be 0"),
        ({"predict": 1, "strategy": "dfs"}, "predict runs schedules again by their number"),
        ({"predict": 1, "mode": "free"}, "it takes no predict"),
    ],
)
def test_what_cannot_be_judged_is_refused(options: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        explore(crossing, schedules=3, **options)  # type: ignore[arg-type] # by name
