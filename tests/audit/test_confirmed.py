"""What is predicted from a passing run comes true when the program is led there."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from drawn_programs import Things, drawn
from pythons import on_each
from stress_cli import Cli, run_stress

from harness import (
    Event,
    Mutex,
    replay,
    spawn,
)
from harness.lockorder import Finding
from harness.search.directed import reach
from harness.search.recording import record_schedule
from harness.search.setup import Setup
from harness.trace.locklog import LockLog
from harness.trace.logjudge import LogJudge
from stress.audit import audit_paths

SETUP = Setup(strategy="random", seed=7)


def predicted(program: Callable[[], object], schedule: int) -> list[Finding]:
    """Of a schedule that passes; nothing of one that does not."""
    failure, story = record_schedule(program, SETUP, schedule)
    if failure is not None:
        return []
    stream = io.BytesIO()
    with LockLog(stream) as log:
        log.story("run#1", story)
    judge = LogJudge()
    judge.read("log", io.BytesIO(stream.getvalue()))
    assert judge.breaches == {}
    findings = [counted.finding for counted in judge.deadlocks.found.values()]
    return [finding for finding in findings if finding.tier == "predicted"]


@pytest.mark.parametrize(
    ("seeds", "least"), on_each({range(120)}, [(range(120), 3), (range(120, 1_200), 8)])
)
def test_every_prediction_of_drawn_programs_comes_true(seeds: range, least: int) -> None:
    confirmed = 0
    for seed in seeds:
        program = drawn(seed)
        for finding in predicted(program, 1):
            failure = reach(program, SETUP, 1, finding.legs, finding.last)
            assert failure is not None, (seed, finding.message)
            assert failure.kind in ("deadlock", "lost-wakeup")
            again = replay(program, failure.token)
            assert again is not None
            assert again.digest == failure.digest
            confirmed += 1
    assert confirmed >= least


def test_a_sleeper_with_a_limit_is_logged_as_woken_after_it_was_woken() -> None:
    def program() -> None:
        things = Things()
        sleeper = spawn(things.asleep, 1.0)
        things.notify()
        sleeper.join()

    orders = set()
    for schedule in range(1, 9):
        _, story = record_schedule(program, SETUP, schedule)
        stream = io.BytesIO()
        with LockLog(stream) as log:
            log.story("run#1", story)
        events = [json.loads(line) for line in stream.getvalue().splitlines() if line[:1] == b"["]
        ops = [(event[3], (event[8:] or [{}])[0].get("what")) for event in events]
        if any(step.woke for step in story.steps):
            signals = [at for at, (op, _) in enumerate(ops) if op == "sig"]
            wakes = [at for at, (op, what) in enumerate(ops) if (op, what) == ("wake", "wait")]
            orders.add(signals[0] < wakes[0])
    assert orders == {True}


def test_a_wait_for_an_event_under_a_lock_comes_true() -> None:
    def program() -> None:
        lock, ready = Mutex("lock"), Event("ready")

        def setter() -> None:
            with lock:
                pass
            ready.set()

        thread = spawn(setter)
        with lock:
            ready.wait()
        thread.join()

    found = [(at, finding) for at in range(1, 9) for finding in predicted(program, at)]
    assert {finding.rule for _, finding in found} == {"EVT001"}
    for at, finding in found:
        failure = reach(program, SETUP, at, finding.legs, finding.last)
        # An event has no owner: the engine sees that nobody can go on, and no cycle.
        assert failure is not None
        assert failure.kind == "lost-wakeup"


@pytest.mark.once
def test_the_command_line_confirms_with_a_token(tmp_path: Path) -> None:
    cli: Cli = lambda *args: run_stress(tmp_path, *args)
    ran = cli("run", "toy-abba", "--schedules", "1", "--strategy", "random", "--lock-log", "x.gz")
    assert ran.code == 0
    (plain,) = audit_paths([tmp_path / "x.gz"]).findings
    assert (plain.rule, plain.tier, plain.token) == ("ORD002", "predicted", "")
    (found,) = cli("audit", "x.gz", "--replay", "--json").json["findings"]
    assert (found["rule"], found["tier"]) == ("ORD002", "confirmed")
    # A run that judges itself says the same, by the same token.
    run = ("run", "toy-abba", "--schedules", "1", "--strategy", "random", "--predict", "1")
    judged = cli(*run, "--json")
    assert judged.code == 1
    (scenario,) = judged.json["scenarios"]
    (foreseen,) = scenario["foreseen"]
    assert {name: foreseen[name] for name in ("rule", "tier", "classes", "note", "token")} == {
        name: found[name] for name in ("rule", "tier", "classes", "note", "token")
    }
    assert [failure["token"] for failure in scenario["failures"]] == [found["token"]]
    assert "ORD002 confirmed, foreseen in schedule 1: " in cli(*run).out
    again = cli("replay", found["token"], "--json", "--lock-log", "again.jsonl")
    assert again.json["kind"] == "deadlock"
    stuck = audit_paths([tmp_path / "again.jsonl"]).findings
    assert ("ORD002", "observed") in {(finding.rule, finding.tier) for finding in stuck}
