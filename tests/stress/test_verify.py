"""``verify``, and ``dpor`` on the model: what sampling meets is among what it explored."""

from __future__ import annotations

import pytest
from partial_orders import explored, sampled
from stress_cli import Cli

from stress.catalogue import Spec, program_of

pytestmark = pytest.mark.once


@pytest.mark.parametrize("scenario", ["commit-supply", "close-request", "create-lender"])
def test_every_class_that_sampling_meets_is_explored(scenario: str) -> None:
    """So what threads of the model share without a primitive is ordered by one, or is told."""
    program = program_of(Spec(scenario))
    all_classes = explored(program)

    met = sampled(program, "random", 150) | sampled(program, "pct", 50)

    assert 3 < len(met) <= len(all_classes)
    assert met <= all_classes


def test_a_scenario_passes_where_the_search_came_to_its_end(call: Cli) -> None:
    ran = call("verify", "close-request", "fault-decommit", "--json", "--jobs", 2)

    assert ran.code == 0
    assert ran.json["exhausted"] is True
    assert ran.json["verdict"] == "pass"
    rows = ran.json["scenarios"]
    assert [row["name"] for row in rows] == ["fault-decommit", "close-request"]
    assert ran.json["schedules"] == sum(row["schedules"] for row in rows) > 10
    assert ran.json["blocked"] == 0


def test_timeouts_that_fire_early_are_searched_to_the_end(call: Cli) -> None:
    ran = call("verify", "evict-timer", "--json")

    assert (ran.code, ran.json["exhausted"]) == (0, True)
    assert ran.json["schedules"] > 50


def test_a_budget_that_ends_first_leaves_it_open(call: Cli) -> None:
    ran = call("verify", "commit-supply", "--schedules", 5, "--json")

    assert (ran.code, ran.json["exhausted"], ran.json["verdict"]) == (3, False, "inconclusive")
    assert ran.json["schedules"] == 5
    assert "the budget ended first" in ran.json["scenarios"][0]["reason"]


@pytest.mark.parametrize(
    ("scenario", "options"),
    [
        ("close-lender-fault", ()),
        ("close-lender-fault", ("--preemptions", 1)),
        ("evict-timer", ()),
    ],
)
def test_a_defect_of_the_seed_is_found(
    call: Cli, scenario: str, options: tuple[object, ...]
) -> None:
    ran = call("verify", scenario, "--revision", "seed", *options, "--json")

    assert (ran.code, ran.json["verdict"]) == (1, "fail")
    (failure,) = ran.json["scenarios"][0]["failures"]
    again = call("replay", failure["token"], "--json")
    assert (again.code, again.json["reproduced"]) == (1, True)


def test_a_bound_and_its_scope_are_shown(call: Cli) -> None:
    ran = call("verify", "close-request", "--preemptions", 1)

    assert ran.code == 0
    assert "every schedule with at most 1 preemptions was run of 1 of 1 scenarios" in ran.out


def test_a_scenario_must_be_named(call: Cli) -> None:
    ran = call("verify")

    assert ran.code == 2
    assert "verify which scenario?" in ran.error
