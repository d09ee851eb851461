"""The shipped scenarios: each does what its entry in the catalogue says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest
from stress_cli import PACKAGES

from harness.explore import Setup, explore, explore_part
from harness.lockorder.rules import LockRules
from harness.sync import current_schedule
from model.locks import GOLDEN_EDGES, judge_edges
from stress import mutants, work
from stress.catalogue import Scenario, Spec, discover, program_of
from stress.scenarios import mixed

SHIPPED = {
    name: entry
    for name, entry in discover().items()
    if entry.function.__module__.startswith("stress.scenarios.")
}
CLEAN = [name for name, entry in SHIPPED.items() if entry.expected == "clean"]
STRATEGIES = ("portfolio", "random", "pct", "round-robin")


def spec_of(entry: Scenario, **options: Any) -> Spec:
    return Spec(entry.name, draw=3 if entry.drawn else 0, **options)


# -- verdicts -------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("name", CLEAN)
def test_the_fixed_revision_passes(name: str, strategy: str) -> None:
    report = explore(program_of(spec_of(SHIPPED[name])), strategy, schedules=60, seed=11)

    assert report.verdict == "pass", report.failure or report.reason


@pytest.mark.parametrize("name", [n for n in CLEAN if not SHIPPED[n].drawn])
def test_every_interleaving_with_one_preemption_passes(name: str) -> None:
    program = program_of(spec_of(SHIPPED[name]))
    report = explore(program, "dfs", schedules=400, preemptions=1)

    assert report.verdict == "pass", report.failure or report.reason
    assert report.exhausted or SHIPPED[name].threads > 2


@pytest.mark.parametrize("name", CLEAN)
def test_as_many_threads_as_declared_take_part(name: str) -> None:
    entry = SHIPPED[name]
    part = explore_part(program_of(spec_of(entry)), Setup("random"), 1, 40)

    assert part.entered == part.named
    assert len(part.named) == entry.threads


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_canary_is_found_within_a_few_schedules(strategy: str) -> None:
    for seed in range(10):
        report = explore(program_of(Spec("canary")), strategy, schedules=20, seed=seed)

        assert report.verdict == SHIPPED["canary"].expected_verdict == "fail"


def test_the_canary_is_found_by_pct_of_any_depth_and_by_enumeration() -> None:
    for depth in (1, 2, 5):
        assert explore(program_of(Spec("canary")), "pct", 20, depth=depth).verdict == "fail"
    report = explore(program_of(Spec("canary")), "dfs", None, stop_at_first=False)

    assert report.exhausted
    assert (report.schedules, report.failing) == (3, {"assertion": 2})


@pytest.mark.parametrize("strategy", [*STRATEGIES, "dfs"])
def test_the_vacuous_scenario_is_never_a_pass(strategy: str) -> None:
    report = explore(program_of(Spec("vacuous")), strategy, schedules=200)

    assert report.verdict == SHIPPED["vacuous"].expected_verdict == "inconclusive"
    assert "never performed an operation" in report.reason


@pytest.mark.parametrize("defect", ["L1", "L2"])
def test_the_seed_revision_fails_where_the_catalogue_says_so(defect: str) -> None:
    names = [name for name, entry in SHIPPED.items() if defect in entry.defects]
    assert names
    for name in names:
        program = program_of(Spec(name, revision="seed", defects=(defect,)))
        assert explore(program, schedules=3_000).verdict == "fail", name


# -- what the catalogue says about itself ---------------------------------------------------------


def test_each_scenario_lists_the_mutants_that_name_it() -> None:
    listed = {name: list(entry.mutants) for name, entry in SHIPPED.items() if entry.mutants}
    named: dict[str, list[str]] = {}
    for mutant in mutants.read():
        if not mutant.control:
            named.setdefault(mutant.scenario, []).append(mutant.id)

    assert listed == named


@pytest.mark.parametrize("name", SHIPPED)
def test_an_entry_is_one_line_and_says_what_it_exercises(name: str) -> None:
    entry = SHIPPED[name]

    assert entry.summary
    assert len(entry.summary) <= 100
    assert "\n" not in entry.summary
    assert entry.tags
    assert entry.exercises or "self-test" in entry.tags


def test_the_model_is_not_imported_before_a_scenario_runs() -> None:
    """A planted bug must be in place first."""
    code = (
        "import sys; from stress.catalogue import discover; discover(); "
        "print('model' in sys.modules)"
    )
    assert fresh(code) == "False"


# -- drawn programs -------------------------------------------------------------------------------


def fresh(code: str, **more: str) -> str:
    """Standard output of a Python process of its own."""
    variables = os.environ | {"PYTHONPATH": PACKAGES} | more
    command = [sys.executable, "-c", code]
    return subprocess.check_output(command, env=variables, text=True, timeout=60).strip()


def drawn(monkeypatch: pytest.MonkeyPatch, strategy: str, first: int, seed: int) -> dict[int, Any]:
    """The programs of schedules ``first`` to 12, by the number of the schedule."""
    seen: dict[int, Any] = {}
    draw = mixed.draw_programs

    def noting(*args: int) -> list[mixed.Program]:
        programs = draw(*args)
        assert seen.setdefault(current_schedule(), programs) == programs
        return programs

    with monkeypatch.context() as patch:
        patch.setattr(mixed, "draw_programs", noting)
        explore_part(program_of(Spec("mixed", draw=seed)), Setup(strategy, seed), first, 12)
    seen.pop(0, None)  # the pilot
    return seen


def test_drawn_programs_depend_on_seed_and_schedule_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = drawn(monkeypatch, "random", 1, 5)

    assert sorted(whole) == list(range(1, 13))
    assert len({str(programs) for programs in whole.values()}) == 12
    assert drawn(monkeypatch, "pct", 1, 5) == whole
    assert drawn(monkeypatch, "portfolio", 8, 5) == {i: whole[i] for i in range(8, 13)}
    assert drawn(monkeypatch, "random", 1, 6) != whole


def test_drawn_programs_are_the_same_in_every_process() -> None:
    code = (
        "import json; from stress.scenarios.mixed import draw_programs; "
        "print(json.dumps([draw_programs(seed, 3, 4) for seed in (0, 1, 5 << 32 | 7)]))"
    )
    here = json.loads(json.dumps([mixed.draw_programs(s, 3, 4) for s in (0, 1, 5 << 32 | 7)]))

    assert json.loads(fresh(code, PYTHONHASHSEED="1")) == here
    assert json.loads(fresh(code, PYTHONHASHSEED="2")) == here


def test_every_operation_is_drawn_now_and_then() -> None:
    drawn_names = {
        name
        for seed in range(60)
        for program in mixed.draw_programs(seed, 3, 2)
        for name, *_ in program
    }

    assert drawn_names == set(mixed.OPERATIONS)


def test_a_drawn_failure_replays_with_the_same_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """The token carries what the program was drawn from."""
    run = mixed._System.run

    def refusing(system: mixed._System, operation: mixed.Operation) -> None:
        assert operation != ("close", 1, 1), "drawn"
        run(system, operation)

    monkeypatch.setattr(mixed._System, "run", refusing)
    spec = Spec("mixed", draw=4)
    part = explore_part(program_of(spec), Setup("random", 4, meta=spec.meta()), 1, 500)
    failure = part.failures[0]
    again = work.replay_token(failure.token, None).found

    assert failure.schedule > 1
    assert again is not None
    assert again.failure.digest == failure.digest


# -- lock order -----------------------------------------------------------------------------------


def test_all_scenarios_together_show_the_golden_lock_order() -> None:
    rules = LockRules()
    for name in CLEAN:
        rules.merge(explore(program_of(spec_of(SHIPPED[name])), schedules=30).lock_order)

    assert judge_edges(sorted(rules.edges)) == []
    assert set(rules.edges) == set(GOLDEN_EDGES)
    assert rules.findings == []
