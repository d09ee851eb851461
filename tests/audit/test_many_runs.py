"""Many logs: whoever reads them, in whatever order, the report is the same to the byte."""

from __future__ import annotations

import io
import json
import random
from pathlib import Path

import pytest
from locklogs import log, write

from harness.trace import logjudge, logrun
from stress.audit import audit_paths, to_json

RUNS = (
    "T1: +a1 +b1 -b1 -a1; T2: +b1 +a1 -a1 -b1",
    "T1: +b1 +c1 -c1 -b1",
    "T1: +c1 +d1 ?c1",
    "T1: +d1 +a1 -a1 -d1; T2: [drop ]drop .",
    "T1: +a1 %b1 -b1 -a1; T2: -c1",
    "T1: +a1 >T2; T2: +e1 -e1 .; T1: <T2 -a1; T3: +e1 +a1 -a1 -e1",
)


def logs(tmp_path: Path, seed: int) -> list[Path]:
    rng = random.Random(seed)
    return [
        write(tmp_path / f"log{at}.jsonl", *rng.choices(RUNS, k=rng.randint(1, 4)))
        for at in range(6)
    ]


def document(paths: list[Path], jobs: int = 1) -> str:
    return json.dumps(to_json(audit_paths(paths, jobs=jobs)))


@pytest.mark.parametrize("seed", [0, *(pytest.param(n, marks=pytest.mark.once) for n in (1, 2))])
def test_any_order_and_any_number_of_processes(tmp_path: Path, seed: int) -> None:
    paths = logs(tmp_path, seed)
    first = document(paths)
    shuffled = random.Random(seed).sample(paths, len(paths))
    assert document(shuffled) == first
    assert document(shuffled, jobs=2) == first
    assert document([tmp_path], jobs=3) == first


def test_one_class_with_two_sets_of_flags_in_two_logs(tmp_path: Path) -> None:
    paths = [
        write(tmp_path / "one.jsonl", RUNS[0]),
        write(tmp_path / "two.jsonl", RUNS[1], flags={"b": "leaf"}),
        write(tmp_path / "three.jsonl", RUNS[3]),
    ]
    report = audit_paths(paths, jobs=2)
    assert [breach.rule for breach in report.integrity if breach.rule == "LOG011"]
    assert document(paths, jobs=2) == document(paths)


def test_a_circle_that_closes_across_two_logs_says_so(tmp_path: Path) -> None:
    paths = [
        write(tmp_path / "one.jsonl", "T1: +a1 +b1 -b1 -a1"),
        write(tmp_path / "two.jsonl", "T1: +b1 +a1 -a1 -b1"),
    ]
    (finding,) = audit_paths(paths, jobs=2).findings
    assert (finding.rule, finding.tier) == ("ORD001", "latent")
    assert finding.note == "latent: the edges come from different runs"
    assert [edge.run for edge in finding.edges] == ["one#1", "two#1"]


def test_a_run_that_was_judged_keeps_none_of_its_events(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = []

    class Watched(logrun.LogRun):
        def __init__(self, judge: logrun.Judge, name: str, index: int, clock: str) -> None:
            super().__init__(judge, name, index, clock)
            kept.append(self)

    monkeypatch.setattr(logjudge, "LogRun", Watched)
    judge = logjudge.LogJudge()
    judge.read("log", io.BytesIO(log(*RUNS)))
    assert len(kept) == len(RUNS)
    assert all(run.events and not run.kept for run in kept)
