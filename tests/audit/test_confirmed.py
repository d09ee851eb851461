"""What is predicted from a passing run comes true when the program is led there."""

from __future__ import annotations

import io
import random
from collections.abc import Callable
from pathlib import Path

from stress_cli import Cli, run_stress

from harness import Event, Mutex, RwLock, Shared, replay, spawn
from harness.lockorder import Finding
from harness.search.directed import reach
from harness.search.recording import record_schedule
from harness.search.setup import Setup
from harness.trace.locklog import LockLog
from harness.trace.logjudge import LogJudge
from stress.audit import audit_paths

SETUP = Setup(strategy="random", seed=7)


def drawn(seed: int) -> Callable[[], object]:
    """A program of a few threads that nest locks, readers and data accesses, and join."""

    def program() -> None:
        draw = random.Random(seed)
        locks = [Mutex("a"), Mutex("b"), Mutex("c")]
        shared = RwLock("rw")
        cell = Shared(0, "cell")

        def nest(plan: list[int]) -> None:
            if not plan:
                cell.get() if draw_reads else cell.set(1)
                return
            first, *rest = plan
            if first == 3:
                with shared.read() if draw_reads else shared.write():
                    nest(rest)
            else:
                with locks[first]:
                    nest(rest)

        draw_reads = draw.random() < 0.5
        plans = [[draw.sample(range(4), 2) for _ in range(2)] for _ in range(3)]

        def work(mine: list[list[int]]) -> None:
            for plan in mine:
                nest(plan)

        for thread in [spawn(work, plan, name=f"w{at}") for at, plan in enumerate(plans)]:
            thread.join()

    return program


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
    findings = [counted.finding for counted in judge.deadlocks.values()]
    return [finding for finding in findings if finding.tier == "predicted"]


def test_every_prediction_of_drawn_programs_comes_true() -> None:
    confirmed = 0
    for seed in range(30):
        program = drawn(seed)
        for finding in predicted(program, 1):
            failure = reach(program, SETUP, 1, finding.legs, finding.last)
            assert failure is not None, (seed, finding.message)
            assert failure.kind == "deadlock"
            again = replay(program, failure.token)
            assert again is not None
            assert again.digest == failure.digest
            confirmed += 1
    assert confirmed >= 10


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


def test_the_command_line_confirms_with_a_token(tmp_path: Path) -> None:
    cli: Cli = lambda *args: run_stress(tmp_path, *args)
    ran = cli("run", "toy-abba", "--schedules", "1", "--strategy", "random", "--lock-log", "x.gz")
    assert ran.code == 0
    (plain,) = audit_paths([tmp_path / "x.gz"]).findings
    assert (plain.rule, plain.tier, plain.token) == ("ORD002", "predicted", "")
    (found,) = cli("audit", "x.gz", "--replay", "--json").json["findings"]
    assert (found["rule"], found["tier"]) == ("ORD002", "confirmed")
    again = cli("replay", found["token"], "--json", "--lock-log", "again.jsonl")
    assert again.json["kind"] == "deadlock"
    stuck = audit_paths([tmp_path / "again.jsonl"]).findings
    assert ("ORD002", "observed") in {(finding.rule, finding.tier) for finding in stuck}
