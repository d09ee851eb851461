"""Data races in lock logs: what live runs say of the same schedules, and what brute force says."""

from __future__ import annotations

import io
import json
import random
from pathlib import Path

import pytest
from locklogs import log, write
from race_programs import ORDERED, RACY, Program

from harness.lockorder import Finding
from harness.search.recording import Failure, record_part
from harness.search.setup import Setup
from harness.trace.events import Story
from harness.trace.locklog import LockLog
from harness.trace.logjudge import LogJudge
from stress.audit import audit_paths, render_text, to_json
from stress.audit_export import sarif

SCHEDULES = 12
PROGRAMS = {program.__name__: program for program in RACY} | ORDERED


def judged(data: bytes) -> LogJudge:
    judge = LogJudge()
    judge.read("log", io.BytesIO(data))
    assert judge.breaches == {}
    return judge


def races(judge: LogJudge, rule: str = "RACE001") -> list[Finding]:
    return [finding for finding in judge.rules.findings if finding.rule == rule]


def runs_with_a_race(program: Program) -> list[int]:
    """As the log says: of schedules that run to their end."""
    found = []

    def sink(schedule: int, _failure: Failure | None, story: Story) -> None:
        stream = io.BytesIO()
        with LockLog(stream) as writer:
            writer.story(f"x#{schedule}", story)
        if races(judged(stream.getvalue())):
            found.append(schedule)

    record_part(program, Setup("random", 3), 1, SCHEDULES, sink)
    return found


def schedules_that_race(program: Program) -> list[int]:
    """As the live rules say: the first race ends the schedule."""
    found = []

    def sink(schedule: int, failure: Failure | None, _story: Story) -> None:
        if failure is not None and failure.kind == "data-race":
            found.append(schedule)

    record_part(program, Setup("random", 3, races=True), 1, SCHEDULES, sink)
    return found


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_log_has_the_races_of_the_live_run(name: str) -> None:
    live = schedules_that_race(PROGRAMS[name])
    assert runs_with_a_race(PROGRAMS[name]) == live
    assert bool(live) == (name not in ORDERED)


# ---- against brute force ------------------------------------------------------------------------


def drawn(rng: random.Random) -> str:
    """A run of up to four threads: locks, cells, atomics, forks and joins at random."""
    lines, alive, fresh = [], [1], [2, 3, 4]
    held: dict[int, list[str]] = {1: []}
    for _ in range(rng.randint(8, 40)):
        me = rng.choice(alive)
        what = rng.random()
        free = sorted({"a1", "b1"} - {lock for locks in held.values() for lock in locks})
        if what < 0.2 and free:
            held[me].append(rng.choice(free))
            lines.append(f"T{me}: +{held[me][-1]}")
        elif what < 0.4 and held[me]:
            lines.append(f"T{me}: -{held[me].pop()}")
        elif what < 0.5 and fresh:
            alive.append(fresh.pop(0))
            held[alive[-1]] = []
            lines.append(f"T{me}: >T{alive[-1]}")
        elif what < 0.55 and me != 1 and not held[me]:
            alive.remove(me)
            lines += [f"T{me}: .", f"T1: <T{me}"]
        else:
            lines.append(f"T{me}: {rng.choice('=r')}{rng.choice(('V1', 'V2', 'A1'))}")
    return ";".join(lines)


def racing(run: str) -> set[str]:
    """The cells of which some two accesses are not ordered, by the closure of all orders."""
    events = [tuple(line.split(": ")) for line in run.split(";")]
    before: list[set[int]] = []
    last: dict[str, int] = {}  # thread -> its last event
    known: dict[str, set[int]] = {}  # lock or atomic -> what is to be learnt there
    born: dict[str, set[int]] = {}
    for at, (thread, token) in enumerate(events):
        sign, obj = token[0], token[1:]
        past = set(born.pop(thread, ()))
        if thread in last:
            past |= before[last[thread]] | {last[thread]}
        if sign == "+" or (sign == "r" and obj.startswith("A")):
            past |= known.get(obj, set())
        if sign == "<" and obj in last:
            past |= before[last[obj]] | {last[obj]}
        before.append(past)
        if sign == "-" or (sign == "=" and obj.startswith("A")):
            known[obj] = past | {at} | (known.get(obj, set()) if sign == "-" else set())
        if sign == ">":
            born[obj] = past | {at}
        last[thread] = at
    return {
        token[1:]
        for at, (thread, token) in enumerate(events)
        for earlier, (other, theirs) in enumerate(events[:at])
        if token[1:2] == "V" and theirs[1:] == token[1:] and other != thread
        if "=" in (token[0], theirs[0]) and earlier not in before[at]
    }


@pytest.mark.parametrize("seed", range(4))
def test_the_cells_that_race_are_those_of_the_closure(seed: int) -> None:
    rng = random.Random(seed)
    seen = set()
    for _ in range(150):
        run = drawn(rng)
        found = {finding.classes[0] for finding in races(judged(log(run)))}
        assert found == racing(run), run
        seen.add(len(found))
    assert seen == {0, 1, 2}


# ---- exceptions to a lock -----------------------------------------------------------------------

OFTEN = ";".join(f"T{1 + at % 2}: +m1 =V1 -m1" for at in range(12))


@pytest.mark.parametrize(
    ("run", "rules"),
    [
        # A critical section of its thread comes before: locks ordered it, by chance.
        (f"T0: >T1 >T2; {OFTEN}; T1: rV1", ["RACE001"]),
        (f"T0: >T1 >T2; {OFTEN}; T1: +m1 -m1 rV1", ["RACE002"]),
        # Every other order, or another lock, and nobody is sure what the rule is.
        ("T0: >T1 >T2; T1: +m1 =V1 -m1; T2: +m1 -m1 rV1", []),
        # The end of a thread orders, and so does what was read.
        (f"T0: >T1 >T2; {OFTEN}; T1: .; T2: .; T0: <T1 <T2 rV1", []),
        (f"T0: >T1 >T2; {OFTEN}; T2: +m1 =V2 -m1; T1: +m1 rV2 -m1 rV1", []),
    ],
)
def test_an_exception_to_the_lock_of_a_cell(run: str, rules: list[str]) -> None:
    found = [f.rule for f in judged(log(run)).rules.findings]
    assert found == rules


def test_both_accesses_and_the_lock_that_is_usual_are_shown(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", f"T0: >T1 >T2; {OFTEN}; T1: +m1 -m1 rV1")
    report = audit_paths([path])
    (finding,) = report.findings
    assert (report.verdict, finding.rule, finding.tier) == ("fail", "RACE002", "latent")
    assert "m1 is held at 12 of 13 accesses of V1, and not at both" in finding.message
    text = render_text(report)
    assert "T2 writes V1 with m1 held, in x#1" in text
    assert "T1 reads V1 with no lock held, in x#1" in text
    flow = json.loads(sarif(report))["runs"][0]["results"][0]["codeFlows"][0]["threadFlows"]
    assert [each["locations"][-1]["location"]["message"]["text"] for each in flow] == [
        "T2 writes V1 with m1 held",
        "T1 reads V1 with no lock held",
    ]


def test_one_race_in_several_runs_is_one_finding_whoever_came_first(tmp_path: Path) -> None:
    site = '"l": 1, '
    paths = []
    for at, run in enumerate(("T1: =V1; T2: rV1", "T2: rV1; T1: =V1")):
        path = write(tmp_path / f"{at}.jsonl", run)
        text = path.read_text(encoding="utf-8")
        # The write is in line 1, the read in line 2, in both.
        if at:
            text = text.replace(site, '"l": 9, ').replace('"l": 2, ', site)
            text = text.replace('"l": 9, ', '"l": 2, ')
        paths.append(path)
        path.write_text(text, encoding="utf-8")
    first = audit_paths(paths)
    assert [(f.rule, f.count, f.runs) for f in first.findings] == [("RACE001", 2, 2)]
    assert to_json(audit_paths(paths[::-1], jobs=2)) == to_json(first)


# ---- held long ----------------------------------------------------------------------------------


def timed(clock: str, unit: float) -> bytes:
    """Twenty short holds and a long one, for which somebody waits."""
    lines: list[object] = [{"zlock": 1, "run": "x#1", "clock": clock}]
    lines += [{"d": "thr", "id": at, "name": f"T{at}"} for at in (1, 2)]
    lines += [{"d": "cls", "id": 1, "name": "m"}, {"d": "lock", "id": 1, "cls": 1, "name": "m1"}]
    events: list[tuple[float, int, str]] = []
    for at in range(20):
        events += [(10 * at, 1, "req"), (10 * at, 1, "acq"), (10 * at + 1, 1, "rel")]
    events += [(300, 1, "req"), (300, 1, "acq"), (310, 2, "req"), (900, 1, "rel"), (900, 2, "acq")]
    for seq, (when, tid, op) in enumerate(events, 1):
        lines.append([seq, when * unit, tid, op, 1, "x", 0, 0])
    return b"\n".join(json.dumps(line).encode() for line in lines) + b"\n"


@pytest.mark.parametrize(("clock", "unit"), [("us", 1), ("mono_ns", 1000), ("s", 1e-6)])
def test_a_hold_that_made_others_wait_is_told_and_fails_nothing(
    tmp_path: Path, clock: str, unit: float
) -> None:
    (tmp_path / "x.jsonl").write_bytes(timed(clock, unit))
    report = audit_paths([tmp_path])
    (finding,) = report.findings
    assert (finding.rule, report.verdict) == ("HOT001", "pass")
    assert finding.message.startswith("T1 held m for 600 us while T2 waited; half of its 21 holds")


def test_steps_say_nothing_about_speed(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_bytes(timed("step", 1))
    assert audit_paths([tmp_path]).findings == ()
