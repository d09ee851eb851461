"""``run --mode free``: the same scenarios on freely running threads."""

from __future__ import annotations

from stress_cli import Cli


def test_a_race_seen_in_free_mode_is_a_token_that_replay_reproduces(call: Cli) -> None:
    ran = call("run", "toy-abba", "--mode", "free", "--json")
    failure = ran.json["scenarios"][0]["failures"][0]
    replayed = call("replay", failure["token"], "--json")

    assert (1, "deadlock") == (ran.code, failure["kind"])
    assert (1, True) == (replayed.code, replayed.json["reproduced"])


def test_a_correct_scenario_passes_and_the_last_line_promises_no_more_than_holds(call: Cli) -> None:
    ran = call("run", "toy-clean", "--mode", "free", "--schedules", "30")

    assert 0 == ran.code, ran.out
    assert "it decides the naps, and the machine the rest" in ran.out.splitlines()[-1]


def test_a_cycle_that_needs_schedules_of_two_processes_is_no_pass(call: Cli) -> None:
    """Its edges are known, but the orders of operations that made them are not kept."""
    ran = call("run", "toy-order", "--mode", "free", "--schedules", "200", "--jobs", "2", "--json")

    assert ran.json["scenarios"][0]["verdict"] in ("fail", "inconclusive")
