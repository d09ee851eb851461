"""The examples do what their texts say; each is also run as a reader would run it."""

from __future__ import annotations

import functools
import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from pythons import on_each

from harness import Failure, explore, replay

EXAMPLES = Path(__file__).parents[2] / "examples"


def load(name: str) -> ModuleType:
    """Import an example by its path; examples are in no package."""
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def the(failure: Failure | None, kind: str) -> Failure:
    """The failure, of the kind that it must have."""
    assert failure is not None
    assert failure.kind == kind
    return failure


def test_abba_deadlocks_in_two_of_six_schedules_and_breaks_the_order_in_all() -> None:
    report = explore(load("abba").program, "dfs", schedules=None, stop_at_first=False)

    assert report.exhausted
    assert report.schedules == 6
    assert report.failing["deadlock"] == 2
    assert {failure.kind for failure in report.failures} == {"deadlock", "lock-order"}


def test_the_careless_mailbox_loses_its_wakeup_and_the_token_brings_it_back() -> None:
    program = load("lost_wakeup").mailbox(careful=False)
    failure = the(explore(program, "dfs", schedules=None).failure, "lost-wakeup")
    again = the(replay(program, failure.token), "lost-wakeup")

    assert again.digest == failure.digest


def test_the_careful_mailbox_passes_every_schedule() -> None:
    report = explore(load("lost_wakeup").mailbox(careful=True), "dfs", schedules=None)

    assert report.verdict == "pass"
    assert report.exhausted


def test_one_condition_for_two_kinds_of_waiter_loses_a_wakeup_and_two_do_not() -> None:
    exchange = load("bounded_buffer").exchange

    the(explore(exchange(shared=True), schedules=2_000).failure, "lost-wakeup")
    assert explore(exchange(shared=False), schedules=2_000).verdict == "pass"


def test_a_cache_computes_twice_and_the_careful_one_never_does() -> None:
    example = load("unmodified")

    the(explore(example.careless, patch=True).failure, "assertion")
    assert explore(example.careful, patch=True, schedules=100).verdict == "pass"


def test_a_queue_of_two_locks_is_not_linearizable_and_one_lock_is_in_every_schedule() -> None:
    users = load("linearizable").users
    failure = the(explore(users(one_lock=False), "dpor", schedules=None).failure, "invariant")
    report = explore(users(one_lock=True), "dpor", schedules=None)

    assert "no order of the operations explains" in failure.message
    assert (report.verdict, report.exhausted) == ("pass", True)


def test_what_free_mode_runs_into_at_the_gate_is_a_lost_wakeup_by_one_preemption() -> None:
    said = run("free_mode")

    assert said.startswith("free: fail\n\nlost-wakeup\n")
    assert ", 1 preemption," in said


@functools.cache
def run(name: str) -> str:
    """What an example prints."""
    ran = subprocess.run(
        [sys.executable, str(EXAMPLES / f"{name}.py")],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert ran.stderr == ""
    assert ran.returncode == 0
    return ran.stdout


NAMES = sorted(path.stem for path in EXAMPLES.glob("*.py"))


@pytest.mark.parametrize("name", on_each(set(NAMES) - {"drawn_kernel"}, NAMES))
def test_an_example_runs_as_a_program_and_prints_a_report_with_its_replay(name: str) -> None:
    said = run(name)

    assert "replay it:" in said
    assert max(map(len, said.splitlines())) <= 100


@pytest.mark.once
def test_the_drawn_example_is_left_with_one_fault_one_unmap_and_one_preemption() -> None:
    lines = run("drawn_kernel").splitlines()
    left = [line.split("'")[1] for line in lines if line.startswith("state.plan")]

    assert lines[0] == "fixed: no failing example"
    assert sorted(left) == ["fault", "unmap"]
    assert any(", 1 preemption," in line for line in lines)
    [race] = [line for line in lines if line.startswith("state.race(")]
    assert race.count("(") == 3  # the call, the schedule, and its one deviation
