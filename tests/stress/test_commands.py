"""What the commands print and return, whatever the Python: most of them called in this process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from stress_cli import Cli

pytestmark = pytest.mark.once

TOYS = ["toy-abba", "toy-clean", "toy-late", "toy-order", "toy-drawn", "toy-canary", "toy-vacuous"]
TOYS += ["toy-unjudged"]


def lines_of(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def test_list_shows_every_scenario_in_the_order_of_the_catalogue(call: Cli) -> None:
    entries = [e for e in call("list", "--json").json["scenarios"] if e["name"] in TOYS]

    assert [entry["name"] for entry in entries] == TOYS
    assert entries[2]["params"] == {"from": 150, "word": "late"}
    assert entries[5]["expected"] == "finding"
    assert "toy-clean" in call("list", "toy-cl*").out
    assert "toy-late" not in call("list", "toy-cl*").out


def test_show_says_what_a_token_holds_and_runs_nothing(call: Cli) -> None:
    ran = call("run", "toy-late", "--seed", "5", "--param", "word=hand", "--json")
    token = ran.json["scenarios"][0]["failures"][0]["token"]
    shown = call("show", token, "--json").json

    assert shown["scenario"] == "toy-late"
    assert shown["params"] == {"word": "hand"}
    assert shown["revision"] == "fixed"
    assert shown["seed"] == 5
    assert shown["kind"] == "assertion"
    assert shown["known_here"] is True
    assert set(shown["versions"]) == {"token", "lockloom", "python"}
    assert "toy-late" in call("show", token).out


def test_in_a_run_of_everything_the_canary_must_be_found(cli: Cli, tmp_path: Path) -> None:
    """Its failure is no finding of the run; a canary that survives makes the run inconclusive."""
    folder = tmp_path / "scenarios"
    folder.mkdir()
    source = """
from harness import Mutex, parallel, yield_now
from stress.catalogue import scenario

@scenario("good", summary="two threads")
def good(ctx):
    parallel(yield_now, yield_now)

@scenario("my-canary", summary="must fail", expected="finding", params={"dead": DEAD})
def canary(ctx):
    parallel(yield_now, yield_now)
    assert ctx.params["dead"], "as planted"
"""
    (folder / "mine.py").write_text(source.replace("DEAD", "0"))
    alive = cli("run", "--schedules", "20", "--json", scenarios=folder)
    (folder / "mine.py").write_text(source.replace("DEAD", "1"))
    dead = cli("run", "--schedules", "20", "--json", scenarios=folder)

    canary = next(s for s in alive.json["scenarios"] if s["name"] == "my-canary")
    assert canary["verdict"] == "fail"
    assert (dead.json["verdict"], dead.code) == ("inconclusive", 3)
    # The shipped scenarios run too; they pass.
    assert (alive.json["verdict"], alive.code) == ("pass", 0)


def test_the_seed_is_printed_first_and_last(call: Cli) -> None:
    ran = call("run", "toy-clean", "--seed", "0x2a", "--schedules", "10")
    lines = ran.out.splitlines()

    assert lines[0] == "seed 42"
    assert lines[-1].startswith("seed 42")
    beside_json = call("run", "toy-clean", "--seed", "42", "--schedules", "10", "--json").err
    assert beside_json.splitlines()[0] == "seed 42"
    assert beside_json.splitlines()[-1].startswith("seed 42")


def test_seed_auto_draws_one_and_says_which(call: Cli) -> None:
    command = "run", "toy-clean", "--seed", "auto", "--schedules", "1", "--json"
    drawn = {call(*command).json["seed"] for _ in range(2)}

    assert len(drawn) == 2


def test_a_report_is_no_wider_than_100_columns_and_ends_with_the_command(
    call: Cli, abba_token: str
) -> None:
    ran = call("run", "toy-abba", "--seed", "3")

    assert max(map(len, ran.out.splitlines())) <= 100
    assert "\x1b" not in ran.out + ran.err
    assert "left" in ran.out
    assert abba_token in ran.out.replace("\\\n", "")


def test_keep_going_finds_what_comes_after_the_first_failure(call: Cli) -> None:
    ran = call("run", "toy-abba", "--schedules", "200", "--keep-going", "--json")
    first = call("run", "toy-abba", "--schedules", "200", "--json")

    assert ran.json["scenarios"][0]["schedules"] == 200
    assert first.json["scenarios"][0]["schedules"] < 200
    assert ran.json["scenarios"][0]["failures"][0] == first.json["scenarios"][0]["failures"][0]


def test_seconds_bound_a_run_that_has_no_other_bound(call: Cli) -> None:
    ran = call("run", "toy-clean", "--seconds", "0.5", "--json")

    assert ran.code == 0
    assert ran.json["scenarios"][0]["schedules"] > 0
    assert ran.json["scenarios"][0]["seconds"] < 30  # it ended; the machine may be busy


def test_findings_and_edges_are_logged_with_bound_fields(call: Cli, tmp_path: Path) -> None:
    ran = call("run", "toy-order", "toy-abba", "--json", "--log-file", "log.jsonl")
    records = [json.loads(line)["record"] for line in lines_of(tmp_path / "log.jsonl")]
    findings = [r["extra"] for r in records if r["extra"].get("event") == "finding"]
    edges = [r["extra"] for r in records if r["extra"].get("event") == "lock-edge"]

    tokens = [s["failures"][0]["token"] for s in ran.json["scenarios"]]
    assert [finding["token"] for finding in findings] == tokens
    assert {(e["outer"], e["inner"]) for e in edges} == {("First", "Second"), ("Second", "First")}
    assert all("plain.py" in edge["inner_site"] for edge in edges)
    # What is for programs is not repeated to people.
    assert "event" not in ran.err
    assert "Second > First" not in ran.err


def test_a_schedule_is_named_by_seed_and_number(call: Cli, failures: dict[str, Any]) -> None:
    found = failures["toy-late"]
    by_token = call("replay", found["token"], "--json").json
    by_number = call(
        "replay", "toy-late", "--seed", "3", "--schedule", str(found["schedule"]), "--json"
    )
    before = call("replay", "toy-late", "--seed", "3", "--schedule", "1", "--json")

    assert by_number.code == 1
    assert by_number.json == by_token
    assert before.code == 0
    assert before.json["reproduced"] is False


def test_minimize_of_a_damaged_token_is_wrong_usage(call: Cli) -> None:
    assert call("minimize", "ll1-AAAA").code == 2


def test_a_trace_has_one_line_for_each_step(call: Cli, abba_token: str, tmp_path: Path) -> None:
    ran = call("replay", abba_token, "--trace", "steps.jsonl", "--json")
    steps = [json.loads(line) for line in lines_of(tmp_path / "steps.jsonl")]

    assert [step["step"] for step in steps] == list(range(1, ran.json["steps"] + 1))
    assert steps[0]["kind"] == "parallel"


def test_the_whole_story_is_one_document(call: Cli, abba_token: str, tmp_path: Path) -> None:
    ran = call("replay", abba_token, "--trace", "story.json", "--json")
    story = json.loads((tmp_path / "story.json").read_text(encoding="utf-8"))

    assert story["format"] == "lockloom-trace-1"
    assert story["facts"]["token"] == abba_token
    assert story["facts"]["digest"] == ran.json["digest"]
    assert story["story"]["kind"] == "deadlock"
    assert len(story["story"]["steps"]) == ran.json["steps"]
    assert sum(span["open"] for span in story["holds"]) == 2


def test_a_schedule_that_passes_is_drawn_too(call: Cli, tmp_path: Path) -> None:
    ran = call("replay", "toy-clean", "--schedule", "1", "--html", "a.html", "--perfetto", "a.json")

    assert ran.code == 0
    assert '"kind":""' in (tmp_path / "a.html").read_text(encoding="utf-8")


def test_pictures_that_cannot_be_written_are_refused_before_anything_runs(call: Cli) -> None:
    for option in ("--html", "--trace", "--perfetto"):
        ran = call("replay", "toy-clean", "--schedule", "1", option, "no/such/folder")
        assert ran.code == 2
        assert option in ran.error
    ran = call("replay", "toy-clean", "--schedule", "1", "--html", "x", "--trace", "x")
    assert (ran.code, "same file" in ran.error) == (2, True)


def test_a_token_of_a_changed_program_says_so(cli: Cli, tmp_path: Path) -> None:
    folder = tmp_path / "scenarios"
    folder.mkdir()
    source = """
from harness import Mutex, parallel, yield_now
from stress.catalogue import scenario

@scenario("changes", summary="two locks")
def changes(ctx):
    a, b = Mutex("a"), Mutex("b")
    def one():
        yield_now()
        with a, b: pass
    def two():
        yield_now()
        with SECOND: pass
    parallel(one, two)
"""
    (folder / "mine.py").write_text(source.replace("SECOND", "b, a"))
    ran = cli("run", "changes", "--json", scenarios=folder)
    token = ran.json["scenarios"][0]["failures"][0]["token"]
    assert cli("replay", token, scenarios=folder).code == 1

    # Of another length: within one second, Python tells files apart by nothing else.
    (folder / "mine.py").write_text(source.replace("SECOND", "(a), b"))
    changed = cli("replay", token, "--json", scenarios=folder)
    assert changed.code == 3
    assert changed.json["reproduced"] is False
    assert "explore it again" in changed.error

    (folder / "mine.py").write_text(source.replace("SECOND", "b, a").replace("changes", "other"))
    gone = cli("replay", token, "--json", scenarios=folder)
    assert gone.code == 2
    assert "unknown scenario 'changes'" in gone.error


def test_a_named_schedule_is_written_and_replayed_from_its_file(
    call: Cli, abba_token: str, tmp_path: Path
) -> None:
    path = tmp_path / "abba.json"
    first = call("replay", abba_token, "--named", str(path), "--json")
    again = call("replay", str(path), "--json")

    assert (first.code, again.code) == (1, 1)
    assert again.json["aligned"] == {
        "same": True,
        "fitted": again.json["steps"],
        "gone": [],
        "added": [],
        "moved": [],
    }
    assert again.json["digest"] == first.json["digest"]
    assert "recorded operations took place" in call("replay", str(path)).out


def test_a_named_schedule_of_edited_operations_says_what_no_longer_fits(
    call: Cli, abba_token: str, tmp_path: Path
) -> None:
    """As if the recording were of a program with one operation more and another name for a lock."""
    path = tmp_path / "abba.json"
    call("replay", abba_token, "--named", str(path))
    lines = lines_of(path)
    gone = '["one","store","flag",1],'
    path.write_text("\n".join([lines[0], gone, *lines[1:]]).replace('"right"', '"starboard"'))
    ran = call("replay", str(path), "--json")

    assert ran.code == 1
    assert ["one", "store", "flag", 1] in ran.json["aligned"]["gone"]
    assert {op[2] for op in ran.json["aligned"]["gone"]} == {"flag", "starboard"}
    assert "gone: one: store flag (1)" in call("replay", str(path)).out


def test_a_file_that_is_no_named_schedule_is_wrong_usage(call: Cli, tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("nothing of the kind")
    ran = call("replay", str(path))

    assert ran.code == 2
    assert "no named schedule" in ran.err
    assert len(ran.err.splitlines()) == 1
    assert call("replay", str(path), "--seed", "3").code == 2


def test_evidence_of_a_pass_stands_in_the_table_and_below_it(call: Cli) -> None:
    ran = call("run", "toy-clean", "--schedules", "200", "--json")
    evidence = ran.json["scenarios"][0]["evidence"]

    assert evidence["looked"] >= 32
    assert evidence["classes"] > 1
    assert 0.0148 < evidence["fails_at_most"] < 0.0150
    assert evidence["pairs"] > 0
    out = call("run", "toy-clean", "--schedules", "200").out
    assert "1.49%" in out
    assert "95% sure: one more schedule fails with a chance of at most 1.49%" in out
    assert f"{evidence['classes']:,} of {evidence['looked']:,}" in out


def test_a_run_counts_the_histories_that_were_judged(cli: Cli) -> None:
    names = "toy-unjudged", "cancel-swap", "canary", "commit-overlap"
    ran = cli("run", *names, "--schedules", "4", "--strategy", "random", "--json")
    counted = {one["name"]: one["evidence"]["histories"] for one in ran.json["scenarios"]}
    unknown = "the reference does not know attributed"
    assert counted["toy-unjudged"] == {"checked": 0, "undecided": 0, "abandoned": {unknown: 4}}
    assert counted["cancel-swap"] == {"checked": 4, "undecided": 0, "abandoned": {}}
    reasons = {one["name"]: one["reason"] for one in ran.json["scenarios"]}
    assert reasons["toy-unjudged"].endswith(
        f"inconclusive for the reference: 0 of 4 histories checked, 4 abandoned ({unknown})"
    )
    assert "reference" not in reasons["cancel-swap"]

    out = cli("run", *names, "--schedules", "4", "--strategy", "random").out
    assert "8 of 12 histories checked, 4 abandoned" in out
    assert f"  toy-unjudged: 4 abandoned ({unknown})" in out
