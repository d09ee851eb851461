"""The commands whose work depends on the Python: processes, replays in fresh ones, files."""

from __future__ import annotations

import functools
import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from stress_cli import Cli

FAILURE_KEYS = {"kind", "message", "token", "schedule", "preemptions", "fingerprint"}
RESULT_KEYS = {
    "name",
    "verdict",
    "reason",
    "schedules",
    "steps",
    "switches",
    "seconds",
    "failures",
    "evidence",
    "expected",
}


def test_version_names_what_a_bug_report_needs(call: Cli) -> None:
    ran = call("--version")

    assert ran.code == 0
    assert ran.out.startswith("lockloom ")
    assert "Python 3." in ran.out


def test_run_json_has_the_keys_of_the_contract_and_nothing_beside_it(call: Cli) -> None:
    ran = call("run", "toy-clean", "toy-abba", "--json")

    assert ran.code == 1
    assert set(ran.json) == {"verdict", "seed", "scenarios"}
    assert ran.json["verdict"] == "fail"
    abba, clean = ran.json["scenarios"]  # in catalogue order, whatever was asked for first
    assert set(abba) == set(clean) == RESULT_KEYS
    assert (clean["verdict"], clean["schedules"], clean["failures"]) == ("pass", 1000, [])
    assert set(abba["failures"][0]) == FAILURE_KEYS
    assert abba["failures"][0]["kind"] == "deadlock"
    assert abba["failures"][0]["preemptions"] >= 1


@pytest.mark.parametrize(
    ("scenario", "code", "verdict"),
    [
        ("toy-clean", 0, "pass"),
        ("toy-canary", 1, "fail"),
        ("toy-vacuous", 3, "inconclusive"),
    ],
)
def test_a_named_scenario_decides_the_exit_code(
    call: Cli, scenario: str, code: int, verdict: str
) -> None:
    ran = call("run", scenario, "--schedules", "50", "--json")

    assert (ran.code, ran.json["verdict"]) == (code, verdict)


@pytest.mark.parametrize(
    "name", ["locks.jsonl.gz", pytest.param("locks.jsonl", marks=pytest.mark.once)]
)
def test_a_lock_log_holds_every_schedule_and_audits(call: Cli, tmp_path: Path, name: str) -> None:
    ran = call("run", "toy-clean", "toy-order", "--schedules", "300", "--lock-log", name, "--json")
    path = tmp_path / name
    data = gzip.decompress(path.read_bytes()) if name.endswith("gz") else path.read_bytes()
    runs = [json.loads(line)["run"] for line in data.splitlines() if b'"zlock"' in line]
    clean, order = (scenario["schedules"] for scenario in ran.json["scenarios"])

    assert runs[:3] == ["toy-clean#1", "toy-clean#2", "toy-clean#3"]
    assert clean == 300
    assert len(runs) >= clean + order  # the block in which the finding closed is logged whole
    audited = call("audit", name, "--json")
    assert audited.code == 1
    assert {tuple(f["classes"]) for f in audited.json["findings"]} == {("First", "Second")}
    text = call("audit", name)
    assert text.code == 1
    assert "First" in text.out


@pytest.mark.parametrize(
    "scenario",
    [
        "toy-order",
        "toy-drawn",
        pytest.param("toy-abba", marks=pytest.mark.once),
        pytest.param("toy-late", marks=pytest.mark.once),
    ],
)
def test_a_token_replays_to_the_same_failure(
    call: Cli, cli: Cli, failures: dict[str, Any], scenario: str
) -> None:
    token = failures[scenario]["token"]
    first = call("replay", token, "--json")
    second = cli("replay", token, "--json", PYTHONHASHSEED="2")

    assert first.code == 1
    assert first.json["reproduced"] is True
    assert set(first.json) == {"reproduced", "kind", "message", "digest", "steps", "preemptions"}
    assert first.json == second.json


def test_replay_draws_a_page_and_lanes_which_are_the_same_each_time(
    call: Cli, cli: Cli, abba_token: str, tmp_path: Path
) -> None:
    files = [("--html", "a.html", "b.html"), ("--perfetto", "a.json", "b.json")]
    for replay, at in ((call, 1), (functools.partial(cli, PYTHONHASHSEED="2"), 2)):
        options = [part for row in files for part in (row[0], row[at])]
        assert replay("replay", abba_token, *options).code == 1

    for _, one, other in files:
        assert (tmp_path / one).read_bytes() == (tmp_path / other).read_bytes()
    page = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert "this schedule" in page
    assert "nearest that passes" in page
    lanes = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    assert any(event["ph"] == "s" for event in lanes["traceEvents"])


def test_minimize_prints_an_easier_token_and_the_pair_that_decides(call: Cli) -> None:
    found = call("run", "toy-abba", "--seed", "3", "--strategy", "random", "--json")
    given = found.json["scenarios"][0]["failures"][0]
    ran = call("minimize", given["token"], "--json")
    text = call("minimize", given["token"])

    assert (ran.code, text.code) == (0, 0)
    document = ran.json
    assert document["fingerprint"] == given["fingerprint"]
    assert document["preemptions"] == document["after"]["preemptions"] == 1
    assert document["before"]["preemptions"] == given["preemptions"]
    assert document["fewest"] is True
    assert document["one_minimal"] is True
    assert {document["flipped"][which]["operation"] for which in ("first", "second")} == {"acquire"}
    assert "this order passes" in text.out
    assert text.out.rstrip().endswith(document["token"])
    again = call("replay", document["token"], "--json").json
    assert (again["reproduced"], again["preemptions"]) == (True, 1)
