"""Wrong input: one line that says what to do, exit code 2, nothing on standard output."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
from stress_cli import Cli

from harness import explore, parallel, yield_now

WRONG = [
    ("rn", "Did you mean 'run'"),
    ("run toy-clea", "did you mean toy-clean"),
    ("run nothing-like-it", "python -m stress list"),
    ("run --jobs 0", "--jobs must be at least 1"),
    ("run --jobs two", "integer"),
    ("run --schedules 0", "--schedules must be at least 1"),
    ("run --schedules -1", "--schedules must be at least 1"),
    ("run --seconds 0", "--seconds must be more than 0"),
    ("run --seconds nan", "--seconds must be more than 0"),
    ("run --seconds inf", "--seconds must be more than 0"),
    ("run --seed -1", "--seed must be from 0"),
    ("run --seed 99999999999999999999999", "--seed must be from 0"),
    ("run --seed tuesday", "auto"),
    ("run --sed 3", "--seed"),
    ("run --strategy rndom", "did you mean random"),
    ("run --revision sed", "did you mean seed"),
    ("run --mode fre", "did you mean free"),
    ("run --mode free --strategy dfs", "decides no schedule, which --strategy dfs needs"),
    ("run --predict 1 --strategy dfs", "--predict runs schedules again by their number, which"),
    ("run --predict 1 --mode free", "nobody can of --mode free; write a --lock-log and audit it"),
    ("run --predict -1", "--predict must be 0 (none) or more, got -1"),
    ("run --lock-log-stacks", "give --lock-log FILE too"),
    ("run --depth 0", "depth must be at least 1"),
    ("run --preemptions 2", "takes no bound"),
    ("run --strategy dfs --preemptions -1", "preemptions must be 0 or more"),
    ("run --steps-max 0", "steps_max must be at least 1"),
    ("run --steps-max 1000001", "steps_max is at most 1,000,000"),
    ("run toy-late --param word", "NAME=VALUE"),
    ("run toy-late --param form=3", "did you mean from"),
    ("run toy-late --param from=many", "whole number"),
    ("run toy-clean --param word=x", "takes no parameter"),
    ("run toy-clean --faults nowhere@1", "unknown fault site"),
    ("run toy-clean --strategy dfs --lock-log x", "another strategy"),
    ("run --lock-log missing/locks.jsonl", "cannot write --lock-log"),
    ("run --log-file . toy-clean", "cannot write --log-file"),
    ("replay", "TOKEN|SCENARIO"),
    ("replay ll1-abcdef", "damaged or cut short"),
    ("replay ll9-abcdef", "another version"),
    ("replay toy-abba", "--schedule"),
    ("replay toy-abba --schedule 0", "counts from 1"),
    ("replay toy-abba --schedule 2 --strategy dfs", "dfs"),
    ("show toy-abba", "not a token"),
    ("mutants --catalogue missing.toml", "cannot read the mutant catalogue missing.toml"),
    ("mutants --only M26", "M26 is a latent defect, L2: `python -m stress defects --only L2`"),
    ("mutants --only L1", "L1 is a latent defect: `python -m stress defects --only L1`"),
    ("mutants --only M01,L0", "unknown mutant 'L0'"),
    ("defects --only L99", "unknown defect 'L99'"),
    ("defects --only M01", "M01 is a mutant: `python -m stress mutants --only M01`"),
    ("audit missing.jsonl", "no lock log missing.jsonl"),
    ("audit", "LOG"),
    ("bench --seconds 0", "--seconds must be at least 1"),
    ("--jobs 0", "--jobs must be at least 1"),
    ("--json run toy-clean", "stand after it"),
]


@pytest.mark.parametrize(("command", "expected"), WRONG, ids=[command for command, _ in WRONG])
def test_wrong_usage_is_one_line_and_exit_code_2(call: Cli, command: str, expected: str) -> None:
    ran = call(*command.split())

    assert ran.code == 2, ran.err
    assert ran.error.startswith("error: ")
    assert expected in ran.error
    assert ran.out == ""


def test_a_damaged_cut_or_foreign_token_is_refused(abba_token: str, call: Cli) -> None:
    token = abba_token
    changed = "A" if token[20] != "A" else "B"
    cases = {
        token[:-1]: "damaged or cut short",
        token[: len(token) // 2]: "damaged or cut short",
        token[:20] + changed + token[21:]: "damaged or cut short",
        token + "AAAA": "damaged or cut short",
        token[2:]: "not a token",
        "ll1f-" + "0" * 32: "cannot be read",
        "0123456789abcdef" * 4: "not a token",
    }

    for damaged, expected in cases.items():
        for command in ("replay", "show"):
            ran = call(command, damaged, "--json")
            assert (ran.code, ran.out) == (2, ""), damaged
            assert expected in ran.error


@pytest.mark.parametrize("option", ["--seed 1", "--schedule 3", "--strategy pct", "--param a=b"])
def test_a_token_beside_what_it_holds_is_a_contradiction(
    abba_token: str, call: Cli, option: str
) -> None:
    ran = call("replay", abba_token, *option.split())

    assert ran.code == 2
    assert "contradicts the token" in ran.error


def test_a_token_longer_than_a_name_of_a_file_is_read_as_a_token(call: Cli) -> None:
    def program() -> None:
        parallel(*[partial(repeat_yield, 90)] * 3)
        raise AssertionError

    failure = explore(program, "random").failure
    assert failure is not None
    assert len(failure.token) > 255

    for command in ("replay", "minimize"):
        ran = call(command, failure.token)
        assert ran.code == 2
        assert "harness.replay(program, token)" in ran.error
    assert "is not a token" in call("bisect", "x" * 300, "--good", "HEAD", "--bad", "HEAD").error


def repeat_yield(times: int) -> None:
    for _ in range(times):
        yield_now()


def test_a_token_made_without_stress_says_how_to_replay_it(call: Cli) -> None:
    def program() -> None:
        parallel(yield_now, yield_now)
        raise AssertionError

    failure = explore(program).failure
    assert failure is not None
    ran = call("replay", failure.token)

    assert ran.code == 2
    assert "harness.replay(program, token)" in ran.error


def test_a_folder_that_cannot_be_written_is_named(call: Cli, tmp_path: Path) -> None:
    (tmp_path / ".stress").write_text("no folder, and so not even root may write into it")
    ran = call("--seconds", "5")

    assert ran.code == 2
    assert ran.error.startswith("error: cannot write .stress here: ")


@pytest.mark.once
def test_a_scenario_file_that_does_not_load_is_named(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("import nothing_of_that_name\n")
    ran = cli("list", scenarios=tmp_path)

    assert ran.code == 2
    assert "broken.py" in ran.error


@pytest.mark.once
def test_two_scenarios_of_one_name_are_refused(cli: Cli, tmp_path: Path) -> None:
    source = (
        "from stress.catalogue import scenario\n"
        "@scenario('twin', summary='one of two')\ndef twin(ctx): pass\n"
    )
    (tmp_path / "one.py").write_text(source)
    (tmp_path / "two.py").write_text(source)
    ran = cli("list", scenarios=tmp_path)

    assert ran.code == 2
    assert "two scenarios are named 'twin'" in ran.error


@pytest.mark.once
def test_an_error_of_our_own_is_70_and_debug_shows_where(cli: Cli, tmp_path: Path) -> None:
    # A worker that cannot even import what it is asked for is no finding and no wrong usage.
    (tmp_path / "harness_breaker.py").write_text("")
    (tmp_path / "sitecustomize.py").write_text(
        "import stress.work\n"
        "def explode(*args):\n    raise ZeroDivisionError('planted')\n"
        "stress.work.explore_block.__code__ = explode.__code__\n"
    )
    short = cli("run", "toy-clean", "--json", path=tmp_path)
    long = cli("run", "toy-clean", "--json", "--debug", path=tmp_path)

    assert short.code == long.code == 70
    assert short.err.splitlines()[-1].startswith("error: ")
    assert "planted" in short.err.splitlines()[-1]
    assert "Traceback" not in short.err
    assert "Traceback" in long.err
    assert short.out == ""
