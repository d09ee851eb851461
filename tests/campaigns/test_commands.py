"""Campaigns as a user runs them: processes that are killed, and what is left of them."""

from __future__ import annotations

import csv
import os
import random
import sys
from pathlib import Path
from typing import Any

import pytest
from campaigning import begin, small_plan
from kill_campaigns import Rig
from stress_cli import TOYS, Cli, Ran, environment, run_stress

from stress.campaigns import commands
from stress.campaigns.store import Store

PLAN = """
seeds = "0-5"
schedules = 60

[[scenario]]
name = "toy-abba"

[[scenario]]
name = "toy-drawn"
weight = 2
"""
# Each ends its process in its own way, in one seed of three.
DEADLY = """
import ctypes, os, signal
from harness import parallel, yield_now
from stress.catalogue import scenario

def deadly(name, end):
    @scenario(name, summary="ends its process", drawn=True)
    def program(ctx):
        parallel(yield_now, yield_now)
        if ctx.seed >> 32 == 1 and ctx.seed & 0xFFFF == 40:
            end()

deadly("dies-exit", lambda: os._exit(9))
deadly("dies-killed", lambda: os.kill(os.getpid(), signal.SIGKILL))
deadly("dies-segfault", lambda: ctypes.string_at(0))
deadly("dies-memory", lambda: bytearray(1 << 40))
"""


def campaign(folder: Path, *args: object, scenarios: Path | None = TOYS) -> Ran:
    return run_stress(folder, "campaign", *args, scenarios=scenarios)


def result_of(ran: Ran) -> Any:
    return ran.json["result"]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ran]:
    """A campaign that ran through, and the folder that it ran in."""
    folder = tmp_path_factory.mktemp("undisturbed")
    (folder / "plan.toml").write_text(PLAN)
    ran = campaign(folder, "run", "plan.toml", "--name", "first", "--jobs", 2, "--json")
    return folder, ran


@pytest.mark.once
def test_a_campaign_is_run_from_a_file_and_reported(undisturbed: tuple[Path, Ran]) -> None:
    folder, ran = undisturbed

    assert ran.code == 1
    assert "to go on with it: python -m stress campaign resume first" in ran.err
    assert result_of(ran)["parts"] == {"planned": 14, "done": 14, "given_up": []}
    assert ran.json["run"]["sessions"][0]["versions"]["cores"] == os.cpu_count()
    (finding,) = [f for f in result_of(ran)["findings"] if f["scenario"] == "toy-abba"]
    assert run_stress(folder, "replay", finding["token"]).code == 1
    replayed = run_stress(
        folder,
        *("replay", "toy-abba", "--seed", finding["seed"], "--schedule", finding["schedule"]),
        "--json",
    )
    assert replayed.json["digest"] == finding["digest"]


@pytest.mark.once
def test_what_is_kept_can_be_reported_listed_compared_and_taken_away(
    undisturbed: tuple[Path, Ran], call: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, ran = undisturbed
    monkeypatch.chdir(folder)
    again = call("campaign", "report", "--json", "--html", "page.html")
    text = call("campaign", "report", "first")
    (row,) = call("campaign", "list", "--json").json["campaigns"]
    exported = call("campaign", "export", "-o", "tables")
    with (folder / "tables" / "parts.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))

    assert (again.code, text.code, exported.code) == (1, 1, 0)
    assert again.json == ran.json
    assert "fail: campaign first, " in text.out
    assert "in 14 of 14 parts" in text.out
    page = (folder / "page.html").read_text(encoding="utf-8")
    assert "a07deeb8" in page
    # The canary is no finding, nor is the campaign's name a seed.
    assert '"fingerprint":"3079c228"' not in page
    assert "fail (as it must)" in page
    assert '["seed","0-5"]' in page
    assert (row["name"], row["parts"]) == ("first", {"planned": 14, "done": 14})
    assert row["fingerprints"] == len(ran.json["result"]["findings"]) - 1
    assert call("campaign", "diff", "first", "first").code == 0
    assert [row["number"] for row in rows] == [str(number) for number in range(1, 15)]


@pytest.mark.once
def test_parts_run_again_are_the_same_and_a_changed_result_is_noticed(
    undisturbed: tuple[Path, Ran], tmp_path: Path
) -> None:
    import shutil
    import sqlite3

    shutil.copytree(undisturbed[0] / ".stress", tmp_path / ".stress")
    database = sqlite3.connect(tmp_path / ".stress" / "campaigns.sqlite")
    with database:
        database.execute("UPDATE parts SET steps = steps + 1 WHERE number = 5")
    database.close()
    checked = campaign(tmp_path, "check", "--parts", "1,5-6", "--json")

    assert (checked.code, checked.json) == (1, {"checked": [1, 5, 6], "differ": [5], "lost": []})


# -- killed -------------------------------------------------------------------------------------


@pytest.mark.once
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds workers through /proc")
def test_a_campaign_that_is_killed_goes_on_and_ends_as_an_undisturbed_one(
    undisturbed: tuple[Path, Ran], tmp_path: Path
) -> None:
    """At three instants of its own; benchmarks/kill_campaigns.py does this by the dozen."""
    draw = random.Random(7)
    rig = Rig(tmp_path, plan=PLAN, name="first", variables=environment())
    struck = [rig.disturb("worker", 2, draw), rig.disturb("all", 4, draw)]
    after = rig.entered()
    struck.append(rig.disturb("parent", 7, draw))

    assert struck == [True] * 3
    assert after is not None
    assert 0 < after < 14
    assert rig.end() == result_of(undisturbed[1])
    assert rig.sessions == 2


@pytest.mark.once
def test_whatever_ends_a_worker_costs_its_own_part_alone(tmp_path: Path) -> None:
    (tmp_path / "deadly.py").write_text(DEADLY)
    (tmp_path / "plan.toml").write_text(
        "seeds = '0-2'\nschedules = 50\n[[scenario]]\nname = 'dies-*'"
    )
    ran = campaign(
        tmp_path, "run", "plan.toml", "--jobs", 2, "--memory", 4000, "--json", scenarios=tmp_path
    )
    rows = {row["scenario"]: row for row in result_of(ran)["combinations"]}
    lost = {loss["part"]: loss for loss in ran.json["run"]["losses"]}

    assert ran.code == 1
    assert result_of(ran)["parts"]["done"] == 14 - 3
    assert [row["parts"] for name, row in rows.items() if name not in ("canary", "vacuous")] == [
        {"planned": 3, "done": 3 if name == "dies-memory" else 2}
        for name in rows
        if name not in ("canary", "vacuous")
    ]
    whys = sorted(each["why"] for each in result_of(ran)["parts"]["given_up"])
    assert whys == [
        "the worker process ended with exit code 9",
        "the worker process was ended by SIGKILL",
        "the worker process was ended by SIGSEGV",
    ]
    assert len(ran.json["run"]["losses"]) == 2 * 3
    by_why = {loss["why"]: loss for loss in lost.values()}
    assert all(loss["schedules"] == 32 for loss in lost.values())
    assert "in string_at" in by_why["the worker process was ended by SIGSEGV"]["stacks"]
    # Memory that cannot be had is an exception of the program, and a finding like any other.
    (memory,) = [f for f in result_of(ran)["findings"] if f["scenario"] == "dies-memory"]
    assert (memory["kind"], memory["seed"], memory["schedule"]) == ("exception", 1, 40)


def test_a_verdict_that_changed_is_one_plain_line(capsys: pytest.CaptureFixture[str]) -> None:
    change = {"scenario": "a", "strategy": "pct", "faults": "", "old": "fail", "new": "pass"}
    same = {"same_plan": True, "appeared": [], "gone": [], "still": []}
    commands._show_diff(same | {"verdicts": [change]})

    assert "\na pct: fail, now pass\n" in "\n" + capsys.readouterr().out


# -- wrong usage --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ((), "error: Missing command; see `python -m stress campaign --help`"),
        (("run", "plan.toml", "--seeds", "3"), "--seeds contradicts the plan"),
        (("run", "plan.toml", "toy-abba"), "a plan says which scenarios run"),
        (("run", "nothere.toml"), "cannot read the plan nothere.toml"),
        (("run", "toy-abba", "--name", "a b"), "a campaign's name is at most"),
        (("run", "toy-abba", "--jobs", "0"), "--jobs must be at least 1"),
        (("run", "toy-abba", "--jobs", "2", "--cluster", "tcp://x:1"), "--jobs counts processes"),
        (("run", "toy-abba", "--memory", "0"), "--memory must be at least 1 MB"),
        (("resume",), "there is no store .stress/campaigns.sqlite"),
        (("report", "--store", "nosuch://x"), "--store is a file or a database URL"),
        (("list",), "`campaign run` makes one"),
    ],
)
def test_wrong_usage_is_one_line(call: Cli, args: tuple[str, ...], said: str) -> None:
    Path("plan.toml").write_text(PLAN)
    ran = call("campaign", *args)

    assert ran.code == 2
    assert said in ran.error


def test_without_dask_it_says_what_to_install(call: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    ran = call("campaign", "run", "toy-abba", "--cluster", "local")

    assert ran.code == 2
    assert "pip install 'lockloom[cluster]'" in ran.error


def test_without_pyarrow_nothing_is_left_behind(call: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    with Store("s.sqlite", make=True) as store:
        begin(store, small_plan())
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    ran = call("campaign", "export", "--store", "s.sqlite", "--format", "parquet", "-o", "tables")

    assert ran.code == 2
    assert "pip install 'lockloom[parquet]'" in ran.error
    assert not Path("tables").exists()


def test_without_a_driver_it_says_what_to_install(
    call: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    ran = call("campaign", "list", "--store", "postgresql+psycopg://localhost/x")

    assert ran.code == 2
    assert "pip install 'lockloom[campaign]' psycopg" in ran.error


def test_without_the_extra_it_says_what_to_install(
    call: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith("stress.campaigns.")]:
        if name != "stress.campaigns.cli":
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr("stress.campaigns.commands")
    monkeypatch.setitem(sys.modules, "sqlalchemy", None)
    ran = call("campaign", "list")

    assert ran.code == 2
    assert "pip install 'lockloom[campaign]'" in ran.error
