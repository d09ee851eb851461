"""Runs longer than predictions look at together: stretch by stretch, and still nothing false."""

from __future__ import annotations

import io
import random
import re
from pathlib import Path
from typing import Any

import pytest
from drawn_programs import drawn
from locklogs import log, write
from orders import Op, draw
from pythons import on_each
from stress_cli import Cli, run_stress

from harness import Event, Mutex, parallel, replay
from harness.lockorder.findings import EVERYBODY
from harness.predict import Trace
from harness.predict.closure import Order
from harness.search.directed import reach
from harness.search.recording import record_schedule
from harness.search.setup import Setup
from harness.trace import logrun
from harness.trace.locklog import Event as Logged
from harness.trace.locklog import LockLog
from harness.trace.logjudge import WINDOW, LogJudge
from harness.trace.logtrace import SIGNALLED_ELSEWHERE, Forecast, forecast
from stress.audit import AuditReport, audit_paths
from stress.audit_replay import confirm
from stress.cli import main

NEST = "T1: +a1 +b1 -b1 -a1; T2: +b1 +a1 -a1 -b1"
# Sixty events that touch nothing of that.
PAD = "; ".join("T3: +z1 -z1" for _ in range(20))


def judged(data: bytes, window: int = WINDOW) -> LogJudge:
    judge = LogJudge(window=window)
    judge.read("log", io.BytesIO(data))
    assert judge.breaches == {}
    return judge


def predicted(judge: LogJudge) -> set[object]:
    return patterns(judge, "predicted")


def patterns(judge: LogJudge, *tiers: str) -> set[object]:
    """Deadlocks by who wants which lock with which others held; on what occasion is left open."""
    found = [each.finding for each in judge.deadlocks.found.values()]
    return {
        (finding.rule, *sorted((w.thread, w.inner, w.guards) for w in finding.edges))
        for finding in found
        if not tiers or finding.tier in tiers
    }


def log_of(seed: int) -> bytes:
    _, story = record_schedule(drawn(seed), Setup("random", 7), 1)
    stream = io.BytesIO()
    with LockLog(stream) as made:
        made.story("run#1", story)
    return stream.getvalue()


def text_of(run: list[Op]) -> bytes:
    signs = {"acq": "+", "shr": "~", "rel": "-", "r": "r", "w": "=", "fork": ">", "join": "<"}
    names = {"r": "V", "w": "V", "fork": "T", "join": "T"}
    lines = []
    for thread, kind, obj in run:
        name = f"{names[kind]}{obj}" if kind in names else f"{'abcd'[obj]}1"
        lines.append(f"T{thread}: {signs[kind]}{name}")
    return log(";".join(lines))


def report(tmp_path: Path, text: str, window: int) -> AuditReport:
    return audit_paths([write(tmp_path / "x.jsonl", text)], window=window)


def tiers(found: AuditReport) -> list[tuple[str, str, int]]:
    return [(f.rule, f.tier, f.count) for f in found.findings if f.rule[:3] in ("EVT", "ORD")]


@pytest.mark.parametrize("seeds", on_each({range(60)}, [range(60), range(260)]))
def test_stretches_of_drawn_programs_predict_nothing_that_the_run_does_not(seeds: range) -> None:
    counted = dict.fromkeys((14, 24, 40), 0)
    for seed in seeds:
        data = log_of(seed)
        # What a run ended in stands for what it could have ended in.
        every = patterns(judged(data), "predicted", "observed")
        for window in counted:
            found = predicted(judged(data, window))
            assert found <= every, (seed, window)
            counted[window] += len(found)
    assert all(counted.values())


@pytest.mark.once
def test_stretches_of_random_runs_predict_nothing_that_the_run_does_not() -> None:
    rng = random.Random(5)
    found, missed = dict.fromkeys((16, 28, 40), 0), 0
    for _ in range(180):
        data = text_of(draw(rng, readers=rng.random() < 0.5))
        whole = predicted(judged(data))
        for window in found:
            cut = predicted(judged(data, window))
            assert cut <= whole, (window, data.decode())
            found[window] += len(cut)
            missed += len(whole - cut)
    assert all(found.values())
    assert missed


@pytest.mark.parametrize("before", ["", PAD, f"T1: +g1; {PAD}; T1: -g1", f"{PAD}; {PAD}"])
@pytest.mark.parametrize("after", ["", PAD])
def test_a_circle_is_found_wherever_it_lies(tmp_path: Path, before: str, after: str) -> None:
    text = "; ".join(filter(None, (before, NEST, after)))
    found = report(tmp_path, text, 20)
    assert ("ORD002", "predicted", 1) in tiers(found)
    told = [entry for entry in found.ledger if entry.reason.startswith("longer than the window")]
    assert [entry.subject.startswith("20 events: ") for entry in told] == [True] * bool(
        before or after
    )


@pytest.mark.parametrize("window", [2, 7, 20])
def test_no_more_than_a_window_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, window: int
) -> None:
    looked: list[tuple[int, bool]] = []

    def noting(events: list[Logged], *args: Any, **options: Any) -> Forecast:
        looked.append((len(events), options["whole"]))
        return forecast(events, *args, **options)

    monkeypatch.setattr(logrun, "forecast", noting)
    report(tmp_path, f"{NEST}; {PAD}; {NEST}", window)
    half = (window + 1) // 2
    *full, last = looked
    assert len(full) >= 60 // half  # each half over the one before
    assert set(full) == {(2 * half, False)}
    assert 0 < last[0] <= 2 * half


HELD = {
    # What was taken before the stretch begins is still held in it.
    "both halves": (f"T1: +a1; {PAD}; T1: +b1 -b1 -a1; T2: +b1 +a1 -a1 -b1", True),
    "a guard": (
        f"T1: +g1; {PAD}; T1: +a1 +b1 -b1 -a1 -g1; T2: +g1 +b1 +a1 -a1 -b1 -g1",
        False,
    ),
    # The second thread begins with the first one's lock released.
    "fork": (f"T1: +a1; {PAD}; T1: +b1 -b1 -a1 >T2; T2: +b1 +a1 -a1 -b1", False),
    # The child has ended long before it is joined.
    "join": (f"T0: >T1; T1: +b1 -b1 .; {PAD}; T0: +b1 <T1 -b1", False),
    "join in it": (f"{PAD}; T0: >T1; T1: +b1 -b1 .; T0: +b1 <T1 -b1", True),
    # Readers that hold together.
    "readers": (f"T1: ~a1; T2: ~a1; {PAD}; T1: ~b1 -b1 -a1; T2: -a1 ~b1 ~a1 -a1 -b1", False),
    # Who waits with the lock that the only one to signal needs.
    "a signal": (f"{PAD}; T2: +a1 -a1 !E1; T1: +a1 zE1 ^E1 -a1", True),
    "a signal to a sleeper": (
        f"{PAD}; T1: +a1 -a1 +a1 zE1; T2: !E1; T1: ^E1 -a1; T2: +a1 -a1",
        False,
    ),
    "a condition": (f"{PAD}; T2: +a1 -a1; T1: +a1 zC1; T2: !C1; T1: ^C1 -a1", True),
    # Whether it was signalled in its sleep before, the stretch does not show.
    "asleep for long": (f"T1: +a1 zC1; {PAD}; T2: !C1; T1: ^C1 -a1", False),
    # Somebody else may signal first, or later.
    "signalled again": (f"{PAD}; T2: +a1 -a1 !E1; T1: +a1 zE1 ^E1 -a1; {PAD}; T4: !E1", False),
    # Somebody may have set the event before.
    "an event": (f"T2: !E1; {PAD}; T2: +a1 -a1 !E1; T1: +a1 zE1 ^E1 -a1", False),
}


@pytest.mark.parametrize("name", HELD)
def test_what_was_before_a_stretch_stays_before_it(tmp_path: Path, name: str) -> None:
    text, dead = HELD[name]
    found = [rule for rule, tier, _ in tiers(report(tmp_path, text, 20)) if tier == "predicted"]
    assert bool(found) == dead


def test_who_else_signals_later_is_told(tmp_path: Path) -> None:
    found = report(tmp_path, HELD["signalled again"][0], 20)
    dropped = {(entry.reason, entry.subject) for entry in found.ledger}
    assert (SIGNALLED_ELSEWHERE, "E1, signalled by T2 -> a -> E1, signalled by T2") in dropped
    assert ("EVT001", "predicted", 1) in tiers(report(tmp_path, HELD["a signal"][0], 20))


def test_nothing_in_a_stretch_goes_before_what_is_held_at_its_beginning() -> None:
    trace = Trace()
    trace.resume([(1, 10, False, "a"), (1, 11, True, "b"), (2, 12, False, "c")], [1, 2, 3])
    trace.acquire(3, 13)
    trace.fork(3, 4)
    trace.release(1, 11)
    trace.acquire(4, 14)
    trace.close()
    order = Order(trace)
    taken = [at for at, event in enumerate(trace.events) if event.tag in ("a", "b", "c")]
    assert taken == [0, 1, 2]
    for event in trace.events[3:]:
        inside = [0] * order.width
        order.join(inside, event)
        # Two acquisitions of the first thread, one of the second.
        assert inside[trace.threads.index(1)] >= 2
        assert inside[trace.threads.index(2)] >= 1
    held = {trace.threads[r.thread]: r.held for r in trace.requests}
    assert held == {3: (), 4: ()}  # what was held already is asked for by nobody


def test_a_run_of_one_window_is_judged_as_ever(tmp_path: Path) -> None:
    text = f"{NEST}; {PAD}"
    assert report(tmp_path, text, 72) == report(tmp_path, text, WINDOW)
    assert report(tmp_path, text, 70) != report(tmp_path, text, WINDOW)


def test_what_begins_within_a_step_is_not_run(tmp_path: Path) -> None:
    path = write(
        tmp_path / "x.jsonl", f"{PAD}; {PAD}; {NEST}", scenario="toy", sched="random", seed=0
    )
    # All of it is one step, in the middle of which the stretch begins.
    steps = re.sub(rb"(?m)^\[(\d+), \d+", rb"[\1, 1", path.read_bytes())
    judge = judged(steps, 20)
    assert confirm(judge) == {}
    (finding,) = (each.finding for each in judge.deadlocks.found.values())
    assert finding.tier == "predicted"
    assert "witness of 2 events, as the run goes on behind its first" in finding.proof
    assert finding.proof.endswith(
        "; not run: its stretch of the run begins in the middle of a step"
    )


def late() -> None:
    """Much that touches nothing, and then a deadlock that hardly any schedule ends in."""
    pad, lock, left, right = (Mutex(name) for name in ("pad", "lock", "left", "right"))
    event = Event("event")

    def idle(times: int) -> None:
        for _ in range(times):
            with pad:
                pass

    def sets() -> None:
        with lock:
            pass
        idle(9)
        event.set()

    def nest(one: Mutex, other: Mutex) -> None:
        with one, other:
            pass

    def waits() -> None:
        idle(5)
        with lock:
            event.wait()

    def later() -> None:
        idle(5)
        nest(left, right)

    idle(60)
    parallel(sets, waits)
    parallel(later, lambda: nest(right, left))


def test_predictions_of_every_stretch_come_true() -> None:
    setup = Setup("random", 7)
    confirmed: dict[str, int] = {}
    for schedule in range(1, 9):
        failure, story = record_schedule(late, setup, schedule)
        if failure is not None:
            continue
        stream = io.BytesIO()
        with LockLog(stream) as made:
            made.story(f"run#{schedule}", story)
        for each in judged(stream.getvalue(), 100).deadlocks.found.values():
            finding = each.finding
            assert finding.tier == "predicted"
            assert finding.legs[0][0] == EVERYBODY
            reached = reach(late, setup, schedule, finding.legs, finding.last)
            assert reached is not None
            again = replay(late, reached.token)
            assert again is not None
            assert again.digest == reached.digest
            confirmed[finding.rule] = confirmed.get(finding.rule, 0) + 1
    assert confirmed.keys() == {"EVT001", "ORD002"}


@pytest.mark.once
def test_the_command_line_confirms_what_lies_late_in_a_run(tmp_path: Path) -> None:
    (tmp_path / "scenarios").mkdir()
    (tmp_path / "scenarios" / "late.py").write_text(LATE)
    cli: Cli = lambda *args: run_stress(tmp_path, *args, scenarios=tmp_path / "scenarios")
    run = ("run", "late", "--schedules", "1", "--strategy", "random", "--lock-log", "x.gz")
    assert cli(*run).code == 0
    audit = ("audit", "x.gz", "--replay", "--window", "60", "--json")
    (found,) = cli(*audit).json["findings"]
    assert (found["rule"], found["tier"]) == ("ORD002", "confirmed")
    assert "as the run goes on behind its first" in found["note"]
    assert found["token"]


LATE = """
from harness import Mutex, parallel
from stress.catalogue import Context, scenario

@scenario("late", summary="two locks in two orders, late", tags=("toy",), threads=2)
def late(ctx: Context) -> None:
    pad, left, right = Mutex("pad"), Mutex("left"), Mutex("right")

    def nest(one: Mutex, other: Mutex) -> None:
        for _ in range(20):
            with pad:
                pass
        with one, other:
            pass

    parallel(lambda: nest(left, right), lambda: nest(right, left))
"""


def test_a_window_must_hold_two_events(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(write(tmp_path / "x.jsonl", NEST))
    assert main(["audit", path, "--window", "1"]) == 2
    assert "--window must be at least 2 events, got 1" in capsys.readouterr().err
    assert main(["audit", path, "--window", "4", "--no-cache"]) == 1
    assert "longer than the window of predictions: 4 events" in capsys.readouterr().out
