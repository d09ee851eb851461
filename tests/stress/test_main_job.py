"""The main job on the shipped catalogue: small, but whole."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from stress_cli import Cli, Ran, run_stress

pytestmark = pytest.mark.once


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> tuple[Ran, Path]:
    """What the main job printed, and where it ran; once for all tests here."""
    folder = tmp_path_factory.mktemp("job")
    return run_stress(folder, "--seconds", "15", "--json", "--seed", "3", scenarios=None), folder


@pytest.mark.slow
def test_all_of_it_comes_out_as_it_must(job: tuple[Ran, Path]) -> None:
    ran, _ = job
    verdicts = {part["name"]: part["verdict"] for part in ran.json["parts"]}
    scenarios = {scenario["name"]: scenario["verdict"] for scenario in ran.json["scenarios"]}

    assert ran.code == 0, ran.out
    assert ran.json["verdict"] == "pass"
    assert set(verdicts.values()) == {"pass"}
    assert len(scenarios) >= 12
    assert scenarios.pop("canary") == "fail"
    assert scenarios.pop("vacuous") == "inconclusive"
    assert set(scenarios.values()) == {"pass"}
    assert {bug["id"] for bug in ran.json["defects"]["mutants"] if bug["found"]} == {
        "L1",
        "L2",
        "L3",
        "L4",
        "L5",
    }
    assert ran.json["lock_order"]["wrong"] == ran.json["lock_order"]["unseen"] == []


@pytest.mark.slow
def test_it_leaves_its_logs_in_a_folder_that_git_ignores(job: tuple[Ran, Path]) -> None:
    ran, folder = job
    left = folder / ran.json["folder"]

    assert {path.name for path in left.iterdir()} == {
        "locks.jsonl.gz",
        "log.jsonl",
        "report.html",
        "report.txt",
        "results.json",
    }
    assert (folder / ".stress" / ".gitignore").read_text() == "*\n"
    assert (folder / ".stress" / "latest").resolve() == left.resolve()
    assert json.loads((left / "results.json").read_text()) == ran.json
    assert b'"zlock"' in gzip.decompress((left / "locks.jsonl.gz").read_bytes())
    assert "canary: assertion" in (left / "report.txt").read_text()
    assert "canary: assertion" in (left / "report.html").read_text(encoding="utf-8")
    events = [
        json.loads(line)["record"]["extra"].get("event")
        for line in (left / "log.jsonl").read_text().splitlines()
    ]
    assert {"scenario", "finding", "lock-edge", "hunt"} <= set(events)


@pytest.mark.slow
def test_its_commands_audit_and_replay_what_it_found(job: tuple[Ran, Path]) -> None:
    ran, folder = job
    codes = []
    for command in ran.json["commands"]:
        _python, _m, _stress, *rest = command.split()
        codes.append((rest[0], run_stress(folder, *rest, "--json", scenarios=None).code))

    assert codes == [("report", 0), ("audit", 0), *[("replay", 1)] * 5]


@pytest.mark.slow
def test_a_person_reads_the_result_at_the_end(cli: Cli) -> None:
    ran = cli("--seconds", "4", "--quiet", scenarios=None, NO_COLOR="1")
    lines = ran.out.splitlines()
    text = [line for line in lines if "python -m stress" not in line]

    assert lines[0] == "seed 0"
    assert lines[-1].startswith("seed 0")
    assert any(line.strip().startswith("scenarios, fixed revision") for line in lines)
    assert any(line.startswith("  python -m stress audit") for line in lines)
    assert max(map(len, text)) <= 100
    assert "\x1b" not in ran.out


@pytest.mark.slow
def test_a_planted_finding_fails_it(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text(
        "from harness import parallel, yield_now\n"
        "from stress.catalogue import scenario\n"
        "@scenario('bad', summary='always fails')\n"
        "def bad(ctx):\n    parallel(yield_now, yield_now)\n    assert not 'planted'\n"
    )
    ran = cli("--seconds", "4", "--json", scenarios=tmp_path)
    clean = next(part for part in ran.json["parts"] if part["name"].startswith("scenarios"))

    assert ran.code == 1
    assert (ran.json["verdict"], clean["verdict"]) == ("fail", "fail")
