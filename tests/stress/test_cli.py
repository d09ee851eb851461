"""What the commands print and return."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest
from stress_cli import Cli, environment, run_stress

TOYS = ["toy-abba", "toy-clean", "toy-late", "toy-order", "toy-drawn", "toy-canary", "toy-vacuous"]
TOYS += ["toy-unjudged"]
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


def found_by(cli: Cli, *scenario: str) -> str:
    """The token of a scenario's first failure."""
    token: str = cli("run", *scenario, "--json").json["scenarios"][0]["failures"][0]["token"]
    return token


def lines_of(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


# -- help, list, show ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    ["", "list", "show", "run", "replay", "mutants", "defects", "audit", "report", "bench"],
)
def test_help_begins_with_examples_and_fits_a_terminal(cli: Cli, command: str) -> None:
    ran = cli(*command.split(), "--help", COLUMNS="80", NO_COLOR="1")
    lines = [line.strip() for line in ran.out.splitlines() if line.strip()]

    assert ran.code == 0
    assert lines[0].startswith("Usage: python -m stress")
    assert lines[1].startswith("Example")
    assert lines[2].startswith("python -m stress")
    assert max(map(len, ran.out.splitlines())) <= 100


def test_list_shows_every_scenario_in_the_order_of_the_catalogue(cli: Cli) -> None:
    entries = [e for e in cli("list", "--json").json["scenarios"] if e["name"] in TOYS]

    assert [entry["name"] for entry in entries] == TOYS
    assert entries[2]["params"] == {"from": 150, "word": "late"}
    assert entries[5]["expected"] == "finding"
    assert "toy-clean" in cli("list", "toy-cl*").out
    assert "toy-late" not in cli("list", "toy-cl*").out


def test_show_says_what_a_token_holds_and_runs_nothing(cli: Cli) -> None:
    token = found_by(cli, "toy-late", "--seed", "5", "--param", "word=hand")
    shown = cli("show", token, "--json").json

    assert shown["scenario"] == "toy-late"
    assert shown["params"] == {"word": "hand"}
    assert shown["revision"] == "fixed"
    assert shown["seed"] == 5
    assert shown["kind"] == "assertion"
    assert shown["known_here"] is True
    assert set(shown["versions"]) == {"token", "lockloom", "python"}
    assert "toy-late" in cli("show", token).out


def test_version_names_what_a_bug_report_needs(cli: Cli) -> None:
    ran = cli("--version")

    assert ran.code == 0
    assert ran.out.startswith("lockloom ")
    assert "Python 3." in ran.out


# -- run -----------------------------------------------------------------------------------------


def test_run_json_has_the_keys_of_the_contract_and_nothing_beside_it(cli: Cli) -> None:
    ran = cli("run", "toy-clean", "toy-abba", "--json")

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
    cli: Cli, scenario: str, code: int, verdict: str
) -> None:
    ran = cli("run", scenario, "--schedules", "50", "--json")

    assert (ran.code, ran.json["verdict"]) == (code, verdict)


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


def test_the_seed_is_printed_first_and_last(cli: Cli) -> None:
    ran = cli("run", "toy-clean", "--seed", "0x2a", "--schedules", "10")
    lines = ran.out.splitlines()

    assert lines[0] == "seed 42"
    assert lines[-1].startswith("seed 42")
    beside_json = cli("run", "toy-clean", "--seed", "42", "--schedules", "10", "--json").err
    assert beside_json.splitlines()[0] == "seed 42"
    assert beside_json.splitlines()[-1].startswith("seed 42")


def test_seed_auto_draws_one_and_says_which(cli: Cli) -> None:
    drawn = {cli("run", "toy-clean", "--seed", "auto", "--schedules", "1", "--json").json["seed"]}
    drawn.add(cli("run", "toy-clean", "--seed", "auto", "--schedules", "1", "--json").json["seed"])

    assert len(drawn) == 2


def test_a_report_is_no_wider_than_100_columns_and_ends_with_the_command(cli: Cli) -> None:
    ran = cli("run", "toy-abba", NO_COLOR="1")
    token = found_by(cli, "toy-abba")

    assert max(map(len, ran.out.splitlines())) <= 100
    assert "\x1b" not in ran.out + ran.err
    assert "left" in ran.out
    assert token in ran.out.replace("\\\n", "")


def test_keep_going_finds_what_comes_after_the_first_failure(cli: Cli) -> None:
    ran = cli("run", "toy-abba", "--schedules", "200", "--keep-going", "--json")
    first = cli("run", "toy-abba", "--schedules", "200", "--json")

    assert ran.json["scenarios"][0]["schedules"] == 200
    assert first.json["scenarios"][0]["schedules"] < 200
    assert ran.json["scenarios"][0]["failures"][0] == first.json["scenarios"][0]["failures"][0]


def test_seconds_bound_a_run_that_has_no_other_bound(cli: Cli) -> None:
    ran = cli("run", "toy-clean", "--seconds", "0.5", "--json")

    assert ran.code == 0
    assert ran.json["scenarios"][0]["schedules"] > 0
    assert ran.json["scenarios"][0]["seconds"] < 30  # it ended; the machine may be busy


def test_findings_and_edges_are_logged_with_bound_fields(cli: Cli, tmp_path: Path) -> None:
    ran = cli("run", "toy-order", "toy-abba", "--json", "--log-file", "log.jsonl")
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


@pytest.mark.parametrize("name", ["locks.jsonl", "locks.jsonl.gz"])
def test_a_lock_log_holds_every_schedule_and_audits(cli: Cli, tmp_path: Path, name: str) -> None:
    ran = cli("run", "toy-clean", "toy-order", "--schedules", "300", "--lock-log", name, "--json")
    path = tmp_path / name
    data = gzip.decompress(path.read_bytes()) if name.endswith("gz") else path.read_bytes()
    runs = [json.loads(line)["run"] for line in data.splitlines() if b'"zlock"' in line]
    clean, order = (scenario["schedules"] for scenario in ran.json["scenarios"])

    assert runs[:3] == ["toy-clean#1", "toy-clean#2", "toy-clean#3"]
    assert clean == 300
    assert len(runs) >= clean + order  # the block in which the finding closed is logged whole
    audited = cli("audit", name, "--json")
    assert audited.code == 1
    assert {tuple(f["classes"]) for f in audited.json["findings"]} == {("First", "Second")}
    text = cli("audit", name)
    assert text.code == 1
    assert "First" in text.out


# -- replay --------------------------------------------------------------------------------------


@pytest.mark.parametrize("scenario", ["toy-abba", "toy-late", "toy-order", "toy-drawn"])
def test_a_token_replays_to_the_same_failure(cli: Cli, scenario: str) -> None:
    token = found_by(cli, scenario, "--seed", "3")
    first = cli("replay", token, "--json", PYTHONHASHSEED="1")
    second = cli("replay", token, "--json", PYTHONHASHSEED="2")

    assert first.code == 1
    assert first.json["reproduced"] is True
    assert set(first.json) == {"reproduced", "kind", "message", "digest", "steps", "preemptions"}
    assert first.json == second.json


def test_a_schedule_is_named_by_seed_and_number(cli: Cli) -> None:
    found = cli("run", "toy-late", "--seed", "3", "--json").json["scenarios"][0]["failures"][0]
    by_token = cli("replay", found["token"], "--json").json
    by_number = cli(
        "replay", "toy-late", "--seed", "3", "--schedule", str(found["schedule"]), "--json"
    )
    before = cli("replay", "toy-late", "--seed", "3", "--schedule", "1", "--json")

    assert by_number.code == 1
    assert by_number.json == by_token
    assert before.code == 0
    assert before.json["reproduced"] is False


def test_minimize_prints_an_easier_token_and_the_pair_that_decides(cli: Cli) -> None:
    found = cli("run", "toy-abba", "--seed", "3", "--strategy", "random", "--json")
    given = found.json["scenarios"][0]["failures"][0]
    ran = cli("minimize", given["token"], "--json")
    text = cli("minimize", given["token"])

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
    again = cli("replay", document["token"], "--json").json
    assert (again["reproduced"], again["preemptions"]) == (True, 1)


def test_minimize_of_a_damaged_token_is_wrong_usage(cli: Cli) -> None:
    assert cli("minimize", "ll1-AAAA").code == 2


def test_a_trace_has_one_line_for_each_step(cli: Cli, tmp_path: Path) -> None:
    token = found_by(cli, "toy-abba")
    ran = cli("replay", token, "--trace", "steps.jsonl", "--json")
    steps = [json.loads(line) for line in lines_of(tmp_path / "steps.jsonl")]

    assert [step["step"] for step in steps] == list(range(1, ran.json["steps"] + 1))
    assert steps[0]["kind"] == "parallel"


def test_the_whole_story_is_one_document(cli: Cli, tmp_path: Path) -> None:
    token = found_by(cli, "toy-abba")
    ran = cli("replay", token, "--trace", "story.json", "--json")
    story = json.loads((tmp_path / "story.json").read_text(encoding="utf-8"))

    assert story["format"] == "lockloom-trace-1"
    assert story["facts"]["token"] == token
    assert story["facts"]["digest"] == ran.json["digest"]
    assert story["story"]["kind"] == "deadlock"
    assert len(story["story"]["steps"]) == ran.json["steps"]
    assert sum(span["open"] for span in story["holds"]) == 2


def test_replay_draws_a_page_and_lanes_which_are_the_same_each_time(
    cli: Cli, tmp_path: Path
) -> None:
    token = found_by(cli, "toy-abba")
    files = [("--html", "a.html", "b.html"), ("--perfetto", "a.json", "b.json")]
    for seed, at in (("1", 1), ("2", 2)):
        options = [part for row in files for part in (row[0], row[at])]
        assert cli("replay", token, *options, PYTHONHASHSEED=seed).code == 1

    for _, one, other in files:
        assert (tmp_path / one).read_bytes() == (tmp_path / other).read_bytes()
    page = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert "this schedule" in page
    assert "nearest that passes" in page
    lanes = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    assert any(event["ph"] == "s" for event in lanes["traceEvents"])


def test_a_schedule_that_passes_is_drawn_too(cli: Cli, tmp_path: Path) -> None:
    ran = cli("replay", "toy-clean", "--schedule", "1", "--html", "a.html", "--perfetto", "a.json")

    assert ran.code == 0
    assert '"kind":""' in (tmp_path / "a.html").read_text(encoding="utf-8")


def test_pictures_that_cannot_be_written_are_refused_before_anything_runs(cli: Cli) -> None:
    for option in ("--html", "--trace", "--perfetto"):
        ran = cli("replay", "toy-clean", "--schedule", "1", option, "no/such/folder")
        assert ran.code == 2
        assert option in ran.error
    ran = cli("replay", "toy-clean", "--schedule", "1", "--html", "x", "--trace", "x")
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


# -- completion ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("rep", ["replay", "report"]),
        ("run toy-c", ["toy-clean", "toy-canary"]),
        ("run --strategy po", ["portfolio", "pos"]),
    ],
)
def test_a_shell_completes_commands_scenarios_and_strategies(
    tmp_path: Path, typed: str, offered: list[str]
) -> None:
    """As bash asks the installed program; nothing is explored for it."""
    program = tmp_path / "lockloom"
    program.write_text("import sys\nfrom stress.cli import main\nsys.exit(main())\n")
    words = f"lockloom {typed}"
    asked = {
        "_LOCKLOOM_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split()) - 1),
    }

    ran = subprocess.run(
        [sys.executable, str(program)],
        capture_output=True,
        text=True,
        env=environment() | asked,
        check=False,
        timeout=60,
    )

    assert ran.stderr == ""
    assert set(offered) <= set(ran.stdout.split())
    assert all(word.startswith(typed.rsplit(maxsplit=1)[-1]) for word in ran.stdout.split())


def test_completion_is_offered_where_a_shell_can_use_it(cli: Cli) -> None:
    assert "completion" not in cli("--help").out


# -- a schedule by the names of its operations ---------------------------------------------------


def test_a_named_schedule_is_written_and_replayed_from_its_file(cli: Cli, tmp_path: Path) -> None:
    token = found_by(cli, "toy-abba")
    path = tmp_path / "abba.json"
    first = cli("replay", token, "--named", str(path), "--json")
    again = cli("replay", str(path), "--json")

    assert (first.code, again.code) == (1, 1)
    assert again.json["aligned"] == {
        "same": True,
        "fitted": again.json["steps"],
        "gone": [],
        "added": [],
        "moved": [],
    }
    assert again.json["digest"] == first.json["digest"]
    assert "recorded operations took place" in cli("replay", str(path)).out


def test_a_named_schedule_of_edited_operations_says_what_no_longer_fits(
    cli: Cli, tmp_path: Path
) -> None:
    """As if the recording were of a program with one operation more and another name for a lock."""
    path = tmp_path / "abba.json"
    cli("replay", found_by(cli, "toy-abba"), "--named", str(path))
    lines = lines_of(path)
    gone = '["one","store","flag",1],'
    path.write_text("\n".join([lines[0], gone, *lines[1:]]).replace('"right"', '"starboard"'))
    ran = cli("replay", str(path), "--json")

    assert ran.code == 1
    assert ["one", "store", "flag", 1] in ran.json["aligned"]["gone"]
    assert {op[2] for op in ran.json["aligned"]["gone"]} == {"flag", "starboard"}
    assert "gone: one: store flag (1)" in cli("replay", str(path)).out


def test_a_file_that_is_no_named_schedule_is_wrong_usage(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("nothing of the kind")
    ran = cli("replay", str(path))

    assert ran.code == 2
    assert "no named schedule" in ran.err
    assert len(ran.err.splitlines()) == 1
    assert cli("replay", str(path), "--seed", "3").code == 2


def test_evidence_of_a_pass_stands_in_the_table_and_below_it(cli: Cli) -> None:
    ran = cli("run", "toy-clean", "--schedules", "200", "--json")
    evidence = ran.json["scenarios"][0]["evidence"]

    assert evidence["looked"] >= 32
    assert evidence["classes"] > 1
    assert 0.0148 < evidence["fails_at_most"] < 0.0150
    assert evidence["pairs"] > 0
    out = cli("run", "toy-clean", "--schedules", "200").out
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


def called(name: str, *args: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run the program as one whose file has that name."""
    code = f"import sys; sys.argv[0] = '/bin/{name}'; from stress.cli import main; sys.exit(main())"
    return subprocess.run(
        [sys.executable, "-c", code, *args],
        capture_output=True,
        text=True,
        encoding="utf-8",
        env=environment() | more,
        check=False,
        timeout=100,
    )


def test_help_errors_and_commands_name_the_program_as_it_was_called() -> None:
    told = called("lockloom", "run", "--help").stdout
    wrong = called("lockloom", "verify").stderr

    assert told.startswith("Usage: lockloom run ")
    assert "  lockloom run --html report.html" in told
    assert "`lockloom list` shows them" in wrong
    for text in (told, wrong):
        assert "python -m stress" not in text
    told = called("x", "list", "--help", LOCKLOOM_COMMAND="tox -e stress --").stdout
    assert told.startswith("Usage: tox -e stress -- list ")


def test_a_terminal_that_cannot_show_an_arrow_gets_it_escaped(cli: Cli, tmp_path: Path) -> None:
    token = found_by(cli, "toy-abba")
    told = run_stress(tmp_path, "replay", token, PYTHONIOENCODING="ascii")

    assert (1, "") == (told.code, told.err)
    assert "\\u2717 deadlock" in told.out
