"""``report`` and ``run --html``: a run as one HTML file."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from stress_cli import Cli, run_stress

from harness.errors import UsageError
from stress import run_page


def data_of(path: Path) -> Any:
    match = re.search(
        r'<script type="application/json" id="data">(.*?)</script>',
        path.read_text(encoding="utf-8"),
        re.DOTALL,
    )
    assert match is not None
    return json.loads(match[1])


@pytest.mark.once
def test_a_run_draws_what_it_found(call: Cli, tmp_path: Path) -> None:
    ran = call("run", "toy-abba", "toy-clean", "--schedules", "60", "--html", "a.html", "--json")
    shown = data_of(tmp_path / "a.html")
    (failure,) = ran.json["scenarios"][0]["failures"]
    (finding,) = shown["campaign"]["findings"]

    assert ran.code == 1
    assert [one["name"] for one in shown["campaign"]["scenarios"]] == ["toy-abba", "toy-clean"]
    assert shown["campaign"]["verdict"] == "fail"
    assert finding["fingerprint"] == failure["fingerprint"]
    assert shown["stories"][finding["story"]]["kind"] == "deadlock"
    assert shown["stories"][0]["pair"]["passes"]
    clean = shown["campaign"]["scenarios"][1]
    seen = ran.json["scenarios"][1]["evidence"]
    assert clean["seen"].startswith(f"{seen['classes']:,} classes")
    (curve,) = [one for one in shown["campaign"]["curves"] if one["name"] == "toy-clean"]
    assert curve["points"][-1] == [seen["looked"], seen["classes"]]


@pytest.mark.once
def test_a_finding_that_must_be_there_is_shown_as_expected(tmp_path: Path) -> None:
    names = ["canary", "vacuous", "close-lender"]
    ran = run_stress(
        tmp_path, "run", *names, "--schedules", "20", "--html", "a.html", "--json", scenarios=None
    )
    shown = data_of(tmp_path / "a.html")["campaign"]

    assert [one["expected"] for one in ran.json["scenarios"]] == [
        "clean",
        "finding",
        "inconclusive",
    ]
    assert [(one["name"], one["verdict"], one["as_it_must"]) for one in shown["scenarios"]] == [
        ("close-lender", "pass", False),
        ("canary", "fail", True),
        ("vacuous", "inconclusive", True),
    ]
    assert [finding["expected"] for finding in shown["findings"]] == [True]
    assert ["findings", "1 (1 expected)"] in shown["facts"]
    # Where it comes out otherwise, nothing is as it must be; and old documents have no expectation.
    (canary,) = [one for one in ran.json["scenarios"] if one["name"] == "canary"]
    assert not run_page._scenario({**canary, "verdict": "pass"})["as_it_must"]
    del canary["expected"]
    assert not run_page._scenario(canary)["as_it_must"]


def test_the_report_of_a_folder_is_made_from_what_the_run_left(call: Cli, tmp_path: Path) -> None:
    ran = call("run", "toy-abba", "--schedules", "60", "--json")
    folder = tmp_path / ".stress" / "runs" / "20261122T213507Z"
    folder.mkdir(parents=True)
    (folder / "results.json").write_text(ran.out, encoding="utf-8")

    made = call("report", "--json")
    assert made.code == 0
    assert made.json["verdict"] == "fail"
    assert data_of(tmp_path / made.json["report"])["stories"][0]["kind"] == "deadlock"
    before = (folder / "report.html").read_bytes()
    assert call("report", folder.name, "--html", "other.html").code == 0
    assert (tmp_path / "other.html").read_bytes() == before


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "no document of a run"),
        ("[]", "no document of a run: Expected `object`"),
        ('{"verdict": "pass", "seed": 1}', "missing required field `scenarios`"),
        (None, "no run 'it'"),
    ],
)
def test_a_run_that_cannot_be_read_is_named(tmp_path: Path, text: str | None, said: str) -> None:
    folder = tmp_path / "runs" / "it"
    folder.mkdir(parents=True)
    if text is not None:
        (folder / "results.json").write_text(text, encoding="utf-8")

    with pytest.raises(UsageError, match=said):
        run_page.read(run_page.find("it", tmp_path))


def test_without_any_run_the_report_says_how_to_make_one(call: Cli) -> None:
    ran = call("report")

    assert ran.code == 2
    assert "makes one" in ran.error


def test_a_finding_that_cannot_be_replayed_here_is_listed_all_the_same(tmp_path: Path) -> None:
    failure = {"kind": "deadlock", "message": "m", "schedule": 1, "preemptions": 0}
    failure |= {"fingerprint": "12345678", "token": "ll1-AAAA"}
    scenario = {"name": "gone", "verdict": "fail", "reason": "r", "schedules": 1, "steps": 2}
    scenario |= {"switches": 0, "seconds": 0.0, "failures": [failure]}
    path = tmp_path / "a.html"
    scenarios = [scenario, scenario | {"name": "gone too"}]
    path.write_text(run_page.page({"verdict": "fail", "seed": 1, "scenarios": scenarios}, "t"))

    (finding,) = data_of(path)["campaign"]["findings"]
    assert finding["where"] == "gone, gone too"
    assert (finding["fingerprint"], finding["story"]) == ("12345678", None)
