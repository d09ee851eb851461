"""The main job on the shipped catalogue: small, but whole."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from stress_cli import Ran, environment, run_stress
from till import CANARY

pytestmark = pytest.mark.once


class Job(NamedTuple):
    """The main job's run, where it ran, and the results that it left there."""

    ran: Ran
    folder: Path
    results: dict[str, Any]


def shortened(folder: Path, schedules: int, *options: str, scenarios: Path | None = None) -> Ran:
    """The main job, ended by its schedules and not by its time, however busy the machine is.

    Hunts are of 500: each defect shows within 400. ``tox -e stress`` runs them in full.
    """
    code = (
        f"import sys; from stress import cli, main_job; main_job.SCHEDULES = {schedules}; "
        "main_job.HUNT_SCHEDULES = 500; sys.exit(cli.main(['--seconds', '200', *sys.argv[1:]]))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, *options],
        capture_output=True,
        text=True,
        encoding="utf-8",
        cwd=folder,
        env=environment(scenarios=scenarios, NO_COLOR="1"),
        timeout=250,
        check=False,
    )
    return Ran(ended.returncode, ended.stdout, ended.stderr)


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    """Once for all tests here, since it takes long."""
    folder = tmp_path_factory.mktemp("job")
    ran = shortened(folder, 60, "--quiet", "--seed", "3")
    left = folder / ".stress" / "latest" / "results.json"
    return Job(ran, folder, json.loads(left.read_text()) if left.exists() else {})


@pytest.mark.slow
def test_all_of_it_comes_out_as_it_must(job: Job) -> None:
    ran, _, results = job
    assert ran.code == 0, ran.out

    verdicts = {part["name"]: part["verdict"] for part in results["parts"]}
    scenarios = {scenario["name"]: scenario["verdict"] for scenario in results["scenarios"]}
    assert results["verdict"] == "pass"
    assert set(verdicts.values()) == {"pass"}
    assert len(scenarios) >= 12
    assert scenarios.pop("canary") == "fail"
    assert scenarios.pop("vacuous") == "inconclusive"
    assert set(scenarios.values()) == {"pass"}
    assert {bug["id"] for bug in results["defects"]["mutants"] if bug["found"]} == {
        "L1",
        "L2",
        "L3",
        "L4",
        "L5",
    }
    assert results["lock_order"]["wrong"] == results["lock_order"]["unseen"] == []


@pytest.mark.slow
def test_it_leaves_its_logs_in_a_folder_that_git_ignores(job: Job) -> None:
    _, folder, results = job
    left = folder / results["folder"]

    assert {path.name for path in left.iterdir()} == {
        "locks.jsonl.gz",
        "log.jsonl",
        "report.html",
        "report.txt",
        "results.json",
    }
    assert (folder / ".stress" / ".gitignore").read_text() == "*\n"
    assert (folder / ".stress" / "latest").resolve() == left.resolve()
    assert b'"zlock"' in gzip.decompress((left / "locks.jsonl.gz").read_bytes())
    assert "canary: assertion" in (left / "report.txt").read_text()
    assert "canary: assertion" in (left / "report.html").read_text(encoding="utf-8")
    events = [
        json.loads(line)["record"]["extra"].get("event")
        for line in (left / "log.jsonl").read_text().splitlines()
    ]
    assert {"scenario", "finding", "lock-edge", "hunt"} <= set(events)


@pytest.mark.slow
def test_its_commands_audit_and_replay_what_it_found(job: Job) -> None:
    _, folder, results = job
    codes = []
    for command in results["commands"]:
        _python, _m, _stress, *rest = command.split()
        codes.append((rest[0], run_stress(folder, *rest, "--json", scenarios=None).code))

    assert codes == [("report", 0), ("audit", 0), *[("replay", 1)] * 5]


@pytest.mark.slow
def test_a_person_reads_the_result_at_the_end(job: Job) -> None:
    lines = job.ran.out.splitlines()
    text = [line for line in lines if "python -m stress" not in line]

    assert lines[0] == "seed 3"
    assert lines[-1].startswith("seed 3")
    assert any(line.strip().startswith("scenarios, fixed revision") for line in lines)
    assert any(line.startswith("  python -m stress audit") for line in lines)
    assert max(map(len, text)) <= 100
    assert "\x1b" not in job.ran.out


@pytest.mark.slow
def test_a_planted_finding_and_a_known_race_fail_it(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text(
        "from harness import parallel, yield_now\n"
        "from stress.catalogue import scenario\n"
        "@scenario('bad', summary='always fails')\n"
        "def bad(ctx):\n    parallel(yield_now, yield_now)\n    assert not 'planted'\n"
    )
    (tmp_path / "races.toml").write_text(f'[[race]]\ntoken = "{CANARY}"\n')
    ran = shortened(tmp_path, 5, "--json", "--corpus", "races.toml", scenarios=tmp_path)
    known, clean, *_ = ran.json["parts"]

    assert ran.code == 1
    assert (ran.json["verdict"], clean["verdict"]) == ("fail", "fail")
    assert (known["verdict"], known["detail"]) == ("fail", "1 still fails")
    assert [race["state"] for race in ran.json["corpus"]["races"]] == ["still fails"]
    left = tmp_path / ran.json["folder"] / "results.json"
    assert json.loads(left.read_text()) == ran.json
