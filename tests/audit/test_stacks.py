"""Logs with whole stacks: findings say how each thread came to both places; nothing else moves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic_sarif.model import StaticAnalysisResultsFormatSarifVersion210JsonSchema as Sarif

from harness import Event, LockClass, Mutex, Shared, explore, parallel, replay
from harness.search.captured import free_part
from harness.search.recording import record_part, record_schedule, replay_story
from harness.search.setup import Setup
from harness.trace.events import Stack
from harness.trace.locklog import LockLog
from stress.audit import audit_paths, to_json
from stress.audit_export import sarif
from stress.audit_html import page
from stress.audit_report import AuditReport, render_text
from stress.cli import main

A, B = LockClass("A"), LockClass("B")


def taking(first: Mutex, second: Mutex, cell: Shared[int]) -> None:
    with first:
        then(second, cell)


def then(lock: Mutex, cell: Shared[int]) -> None:
    with lock:
        cell.set(1)


def crossing() -> None:
    a, b, cell = Mutex("a", A), Mutex("b", B), Shared(0, "cell")

    def forth() -> None:
        taking(a, b, cell)

    def back() -> None:
        taking(b, a, cell)

    def another_way_back() -> None:
        back()

    parallel(forth, back, another_way_back, cell.get)


def setup(*, stacks: bool) -> Setup:
    return Setup("random", 3, stacks=stacks)


def logged(folder: Path, *, stacks: bool, schedules: int = 12) -> Path:
    path = folder / f"{'with' if stacks else 'without'}.jsonl"
    with LockLog(path) as log:
        record_part(
            crossing,
            setup(stacks=stacks),
            1,
            schedules,
            lambda schedule, _, story: log.story(f"crossing#{schedule}", story),
        )
    return path


def names(stack: tuple[str, ...]) -> list[str]:
    return [each.rpartition(" in ")[2].rpartition(".")[2] for each in stack]


def ways(report: AuditReport) -> set[tuple[str, str, tuple[str, ...], tuple[str, ...]]]:
    """Class held, class wanted, and who had called for both, of each deadlock."""
    return {
        (edge.outer, edge.inner, tuple(names(edge.outer_stack)), tuple(names(edge.inner_stack)))
        for finding in report.findings
        if finding.rule == "ORD002"
        for edge in finding.edges
    }


def test_findings_say_who_had_called_at_both_places(tmp_path: Path) -> None:
    report = audit_paths([logged(tmp_path, stacks=True)])

    (forth, *backs) = sorted(ways(report))
    assert forth == ("A", "B", ("forth",), ("taking", "forth"))
    callers = [("back",), ("back", "another_way_back")]
    assert backs
    assert all(way in [("B", "A", c, ("taking", *c)) for c in callers] for way in backs)
    text = render_text(report)
    shown = [line.strip() for line in text.splitlines() if line.strip().startswith("called at ")]
    assert any(line.endswith(" in taking") for line in shown)
    assert any(line.endswith("crossing.<locals>.forth") for line in shown)
    assert "called at " in page(report)
    document = json.loads(sarif(report))
    Sarif.model_validate(document)
    (first, *_) = (
        result for result in document["runs"][0]["results"] if result["ruleId"] == "ORD002"
    )
    flow = first["codeFlows"][0]["threadFlows"][0]["locations"]
    assert [len(step["stack"]["frames"]) for step in flow] in ([2, 3], [3, 4])


def test_stacks_change_nothing_else(tmp_path: Path) -> None:
    def bare(report: AuditReport) -> object:
        document = to_json(report)
        for edge in [*document["edges"], *(e for f in document["findings"] for e in f["edges"])]:
            edge.pop("outer_stack", None)
            edge.pop("inner_stack", None)
        return document

    plain = audit_paths([logged(tmp_path, stacks=False)])
    assert not any(edge.inner_stack for edge in plain.edges)
    assert {finding.rule for finding in plain.findings} >= {"ORD002", "RACE001"}
    assert bare(audit_paths([logged(tmp_path, stacks=True)])) == bare(plain)


def test_what_is_remembered_of_a_log_has_the_stacks(tmp_path: Path) -> None:
    path = logged(tmp_path, stacks=True)
    first = audit_paths([path], cache=tmp_path / "cache")
    again = audit_paths([path], cache=tmp_path / "cache")
    assert ways(first)
    assert to_json(again) == to_json(first) == to_json(audit_paths([path]))


def test_a_recording_with_stacks_is_of_the_same_schedule() -> None:
    failure = explore(crossing, "random", 200, 3).failure
    assert failure is not None
    again, story = replay_story(crossing, failure.token, stacks=True)
    plain = replay(crossing, failure.token)
    assert again is not None
    assert plain is not None
    assert again.digest == plain.digest == failure.digest
    assert again.token == plain.token
    stacks = [step.site for step in story.steps if isinstance(step.site, Stack)]
    assert len(stacks) == len([step for step in plain.story().steps if step.site is not None])
    # Nothing of who explored is in them.
    assert {site.module for stack in stacks for site in stack.callers} <= {__name__}


def test_free_runs_have_stacks_too() -> None:
    found: list[Stack] = []

    def program() -> None:
        lock, done = Mutex("lock"), Event("done")

        def inner() -> None:
            with lock:
                pass

        def outer() -> None:
            inner()
            done.set()

        parallel(outer, done.wait)

    def note(_: int, story: object, __: object) -> None:
        found.extend(s.site for s in story.steps if isinstance(s.site, Stack))  # type: ignore[attr-defined] # a story

    free_part(program, Setup(mode="free", stacks=True), 1, 1, sink=note)
    assert ["inner", "outer"] in [
        [s.qualname.rpartition(".")[2] for s in (stack.place, *stack.callers)] for stack in found
    ]


def test_a_stack_is_the_place_that_it_is_of() -> None:
    _, story = record_schedule(crossing, setup(stacks=True), 1)
    stacks = [step.site for step in story.steps if isinstance(step.site, Stack)]
    one = next(stack for stack in stacks if stack.callers)
    other = Stack(one.module, one.qualname, one.ordinal, one.file, one.line)
    assert one == other == one.place
    assert one.place == one
    assert len({one, other, one.place}) == 1
    assert other.callers != one.callers
    assert one != Stack(one.module, one.qualname, one.ordinal + 1, one.file, one.line)


def test_a_stack_of_sites_that_are_not_defined_is_a_breach(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    lines = [
        '{"zlock":1,"run":"r"}',
        '{"d":"thr","id":1,"name":"T"}',
        '{"d":"site","id":1,"f":"f.py","l":7,"fn":"f","m":"m"}',
        '{"d":"stk","id":1,"s":[1,2]}',
        '[1,1,1,"start",0,"",1,1]',
    ]
    path.write_text("\n".join(lines) + "\n")
    (breach,) = audit_paths([path]).integrity
    assert (breach.rule, breach.line) == ("LOG003", 4)
    assert breach.message == "stack 1 is of sites that are not defined"


def test_a_place_with_a_number_below_0_is_a_breach(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text(
        '{"zlock":1,"run":"r"}\n{"d":"site","id":-1,"f":"f.py","l":7,"fn":"f","m":"m"}\n'
    )
    (breach,) = audit_paths([path]).integrity
    assert (breach.rule, breach.message) == ("LOG001", "site -1: a number below 0")


@pytest.mark.parametrize(
    "command", [("run", "--schedules=1", "--jobs=1", "--quiet"), ("replay", "--schedule=1")]
)
def test_the_commands_write_stacks(
    command: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "log.jsonl"
    name, *options = command
    log = ("--lock-log", str(path), "--lock-log-stacks")
    assert main([name, "close-lender", *options, *log, "--json"]) == 0
    capsys.readouterr()
    edges = audit_paths([path]).edges
    assert edges
    assert all("stress/scenarios/lifetime.py" in edge.inner_stack[-1] for edge in edges)
    assert "commit_range_locked" in {name for edge in edges for name in names(edge.inner_stack)}


@pytest.mark.parametrize("command", [("run", "canary"), ("replay", "canary", "--schedule", "1")])
def test_stacks_without_a_log_are_refused(
    command: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, "--lock-log-stacks"]) == 2
    assert "give --lock-log FILE too" in capsys.readouterr().err
