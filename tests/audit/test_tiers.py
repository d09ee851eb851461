"""The tiers of deadlocks: what a log proves, what it leaves open, what it rules out, and why."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from stress.audit import AuditReport, audit_paths, render_text, to_json

CIRCLES = ("ORD002", "EVT001", "EVT003")
HEADER = '{"zlock":1,"run":"%s"}\n'


def write(path: Path, *runs: str) -> Path:
    """Write runs given as one operation a line: thread, operation, object.

    Objects are named by a class and a digit (``a1``); ``E``, ``C``, ``S`` begin the names of
    events, conditions, semaphores. A line ends in ``s`` for shared, in ``t`` for a limited time.
    """
    with path.open("w", encoding="utf-8") as stream:
        for number, text in enumerate(runs, 1):
            stream.write(HEADER % f"{path.stem}#{number}")
            numbers: dict[str, int] = {}
            lines: list[str] = []
            for at, line in enumerate(filter(None, map(str.strip, text.strip().splitlines())), 1):
                thread, op, name, *more = line.split()
                for known in (thread, name):
                    if known not in numbers:
                        numbers[known] = len(numbers) + 1
                        lines += defined(known, numbers[known])
                mode = "s" if "s" in more else "x"
                extra: dict[str, object] = {"t": True} if "t" in more else {}
                what = {"E": "event-wait", "S": "sem-acquire"}.get(name[0], "wait")
                extra |= {"what": what} if op in ("wait", "wake") else {}
                tail = str(extra).replace("'", '"').replace("True", "true")
                lines.append(
                    f'[{at},{at},{numbers[thread]},"{op}",{numbers[name]},"{mode}",{at},0,{tail}]'
                )
                lines.insert(0, f'{{"d":"site","id":{at},"f":"f.py","l":{at},"m":"f","fn":"f"}}')
            stream.write("\n".join(lines) + "\n")
    return path


def defined(name: str, number: int) -> list[str]:
    if name[0] == "T":
        return [f'{{"d":"thr","id":{number},"name":"{name}"}}']
    types = {"E": "Event", "C": "Condition", "S": "Semaphore", "V": "Shared"}
    if name[0] in types:
        return [f'{{"d":"lock","id":{number},"name":"{name}","type":"{types[name[0]]}"}}']
    return [
        f'{{"d":"cls","id":{number},"name":"{name[0]}","kind":"mutex"}}',
        f'{{"d":"lock","id":{number},"cls":{number},"name":"{name}"}}',
    ]


def judged(tmp_path: Path, *runs: str) -> AuditReport:
    report = audit_paths([write(tmp_path / "x.jsonl", *runs)])
    assert not report.integrity
    return report


def deadlocks(report: AuditReport) -> list[tuple[str, tuple[str, ...]]]:
    return [(f.tier, f.classes) for f in report.findings if f.rule in CIRCLES]


def left_out(report: AuditReport) -> list[tuple[str, int]]:
    return [(entry.reason, entry.count) for entry in report.ledger]


def nest(thread: str, *names: str) -> str:
    takes = [f"{thread} acq {name}" for name in names]
    return "\n".join([*takes, *(f"{thread} rel {name}" for name in reversed(names))]) + "\n"


def test_two_orders_that_no_run_has_met_are_predicted_with_a_scenario(tmp_path: Path) -> None:
    report = judged(tmp_path, nest("T1", "a1", "b1") + nest("T2", "b1", "a1"))
    assert deadlocks(report) == [("predicted", ("a", "b"))]
    finding = report.findings[0]
    assert [(m.thread, m.what, m.blocked_by) for m in finding.scenario] == [
        ("T1", "lock(a a1)", ""),
        ("T2", "lock(b b1)", ""),
        ("T1", "lock(b b1)", "T2"),
        ("T2", "lock(a a1)", "T1"),
    ]
    assert [(e.outer_site, e.inner_site) for e in finding.edges] == [
        ("f.py:1", "f.py:2"),
        ("f.py:5", "f.py:6"),
    ]
    assert "no common guard" in finding.note
    assert re.search(r"what could happen\n +T1 +T2\n +lock", render_text(report))
    assert to_json(report)["findings"][0]["scenario"][2]["blocked_by"] == "T2"


RULED_OUT = {
    "one thread": (
        nest("T1", "a1", "b1") + nest("T1", "b1", "a1"),
        "one thread makes both requests",
    ),
    "a guard": (
        nest("T1", "g1", "a1", "b1") + nest("T2", "g1", "b1", "a1"),
        "a lock that both threads hold keeps them apart (g)",
    ),
    "fork": (
        nest("T1", "a1", "b1") + "T1 fork T2\n" + nest("T2", "b1", "a1"),
        "refuted: one of the requests always precedes another (forks, joins, signals, data)",
    ),
    "join": (
        "T1 fork T2\n" + nest("T2", "a1", "b1") + "T1 join T2\n" + nest("T1", "b1", "a1"),
        "refuted: one of the requests always precedes another (forks, joins, signals, data)",
    ),
    "an event": (
        nest("T1", "a1", "b1") + "T1 sig E1\nT2 wait E1\nT2 wake E1\n" + nest("T2", "b1", "a1"),
        "refuted: one of the requests always precedes another (forks, joins, signals, data)",
    ),
    "a published object": (
        nest("T1", "a1", "b1") + "T1 w V1\nT2 r V1\n" + nest("T2", "b1", "a1"),
        "refuted: one of the requests always precedes another (forks, joins, signals, data)",
    ),
}


@pytest.mark.parametrize("name", RULED_OUT)
def test_what_cannot_happen_is_left_out_with_its_reason(tmp_path: Path, name: str) -> None:
    run, reason = RULED_OUT[name]
    report = judged(tmp_path, run)
    assert deadlocks(report) == []
    assert (reason, 1) in left_out(report)
    # What publishes an object is a plain cell here: that race is told for itself.
    told = {(f.rule, f.tier) for f in report.findings} - {("RACE001", "possible")}
    assert told <= {("ORD001", "latent")}


def test_readers_only_wait_for_writers(tmp_path: Path) -> None:
    shared = "T1 acq a1 s\nT1 acq b1 s\nT1 rel b1\nT1 rel a1\n"
    readers = shared + shared.replace("T1", "T2").replace("a1", "x").replace("b1", "a1").replace(
        "x", "b1"
    )
    assert deadlocks(judged(tmp_path, readers)) == []
    assert deadlocks(judged(tmp_path, shared + nest("T2", "b1", "a1"))) == [
        ("predicted", ("a", "b"))
    ]


def test_a_join_under_a_lock_that_no_lock_graph_sees(tmp_path: Path) -> None:
    run = (
        "T0 acq a1\nT0 fork T1\n"
        + nest("T1", "b1")
        + "T0 join T1\nT0 rel a1\n"
        + nest("T2", "b1", "a1")
    )
    report = judged(tmp_path, run)
    assert [f.rule for f in report.findings if f.rule != "CTX003"] == ["EVT003"]
    finding = next(f for f in report.findings if f.rule == "EVT003")
    assert finding.tier == "predicted"
    assert {m.what for m in finding.scenario if m.blocked_by} == {
        "the end of T1",
        "lock(b b1)",
        "lock(a a1)",
    }


def test_an_event_waited_for_under_the_lock_that_its_only_setter_needs(tmp_path: Path) -> None:
    run = nest("T2", "a1") + "T2 sig E1\nT1 acq a1\nT1 wake E1\nT1 rel a1\n"
    report = judged(tmp_path, run)
    assert deadlocks(report) == [("predicted", ("E1, signalled by T2", "a"))]
    other = run.replace("T1 acq", "T3 sig E1\nT1 acq")
    assert deadlocks(judged(tmp_path, other)) == []


def test_a_condition_variable_waited_for_under_another_lock(tmp_path: Path) -> None:
    run = (
        "T1 acq o1\nT1 acq m1\nT1 rel m1\nT1 wait C1\n"
        "T2 acq m1\nT2 sig C1\nT2 rel m1\nT1 wake C1\nT1 acq m1\nT1 rel m1\nT1 rel o1\n"
    )
    assert deadlocks(judged(tmp_path, run)) == []
    inside = run.replace("T2 acq m1", "T2 acq o2\nT2 rel o2\nT2 acq m1").replace("o2", "o1")
    inside = inside.replace("T2 acq o1\nT2 rel o1\n", "")
    assert deadlocks(judged(tmp_path, nest("T2", "o1") + inside)) == [
        ("predicted", ("C1, signalled by T2", "o"))
    ]


def test_a_limited_acquisition_waits_for_nobody(tmp_path: Path) -> None:
    limited = "T2 acq b1\nT2 req a1 t\nT2 acq a1\nT2 rel a1\nT2 rel b1\n"
    assert deadlocks(judged(tmp_path, nest("T1", "a1", "b1") + limited)) == []


def test_a_run_that_ends_stuck_is_observed_and_not_predicted_again(tmp_path: Path) -> None:
    run = "T1 acq a1\nT2 acq b1\nT1 req b1\nT2 req a1\n"
    report = judged(tmp_path, run)
    assert deadlocks(report) == [("observed", ("a", "b"))]


def test_one_prediction_for_all_runs_alike(tmp_path: Path) -> None:
    run = nest("T1", "a1", "b1") + nest("T2", "b1", "a1")
    report = judged(tmp_path, run, run, nest("T1", "a1"), run)
    finding = report.findings[0]
    assert (finding.rule, finding.count, finding.runs) == ("ORD002", 3, 3)
