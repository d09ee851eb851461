"""The shipped scenarios: each does what its entry in the catalogue says."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest
from stress_cli import PACKAGES

from harness.errors import UsageError
from harness.explore import Setup, explore, explore_part
from harness.lockorder.rules import LockRules
from harness.sync import current_schedule
from model.kernel import Kernel
from model.locks import GOLDEN, judge_edges
from stress import mutants, work
from stress.catalogue import Scenario, Spec, discover, program_of
from stress.scenarios import mixed

pytestmark = [pytest.mark.once, pytest.mark.slow]

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


# The main job's tests run as many of portfolio.
@pytest.mark.parametrize("strategy", STRATEGIES[1:])
@pytest.mark.parametrize("name", CLEAN)
def test_the_fixed_revision_passes(name: str, strategy: str) -> None:
    report = explore(program_of(spec_of(SHIPPED[name])), strategy, schedules=60, seed=11)

    if strategy == "round-robin" and "reached sometimes(" in report.reason:
        # Its schedules differ in the length of turns alone; in none of these the wait is under way.
        assert report.verdict == "inconclusive"
        return
    assert report.verdict == "pass", report.failure or report.reason


@pytest.mark.parametrize("name", [n for n in CLEAN if not SHIPPED[n].drawn])
def test_every_interleaving_with_one_preemption_passes(name: str) -> None:
    """All of them where two threads take part, the first 200 where more do."""
    entry = SHIPPED[name]
    schedules = 400 if entry.threads == 2 else 200
    report = explore(program_of(spec_of(entry)), "dfs", schedules=schedules, preemptions=1)

    assert report.verdict == "pass", report.failure or report.reason
    assert report.exhausted or entry.threads > 2


@pytest.mark.parametrize("name", CLEAN)
def test_as_many_threads_as_declared_take_part(name: str) -> None:
    entry = SHIPPED[name]
    program = program_of(spec_of(entry))
    part = explore_part(program, Setup("random"), 1, 40)
    names = [part.named]
    if entry.drawn:
        # Each schedule has a program, and so pagers, of its own.
        names = [explore_part(program, Setup("random"), n, n).named for n in range(1, 41)]

    assert part.entered == part.named
    assert max(map(len, names)) == entry.threads


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
    draw = mixed.draw_program

    def noting(*args: int) -> mixed.Program:
        program = draw(*args)
        assert seen.setdefault(current_schedule(), program) == program
        return program

    with monkeypatch.context() as patch:
        patch.setattr(mixed, "draw_program", noting)
        explore_part(program_of(Spec("mixed", draw=seed)), Setup(strategy, seed), first, 12)
    seen.pop(0, None)  # the pilot
    return seen


def test_drawn_programs_depend_on_seed_and_schedule_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = drawn(monkeypatch, "random", 1, 5)

    assert sorted(whole) == list(range(1, 13))
    assert len({str(program) for program in whole.values()}) == 12
    assert drawn(monkeypatch, "pct", 1, 5) == whole
    assert drawn(monkeypatch, "portfolio", 8, 5) == {i: whole[i] for i in range(8, 13)}
    assert drawn(monkeypatch, "random", 1, 6) != whole


def test_drawn_programs_are_the_same_in_every_process() -> None:
    code = (
        "from stress.scenarios.mixed import draw_program, write; "
        "print(*[write(draw_program(seed, 3, 4)) for seed in (0, 1, 5 << 32 | 7)])"
    )
    here = " ".join(mixed.write(mixed.draw_program(seed, 3, 4)) for seed in (0, 1, 5 << 32 | 7))

    assert fresh(code, PYTHONHASHSEED="1") == here
    assert fresh(code, PYTHONHASHSEED="2") == here


DRAWN = [mixed.draw_program(seed, 3, 2) for seed in range(200)]


def test_everything_is_drawn_now_and_then() -> None:
    names = {operation.name for program in DRAWN for each in program.threads for operation in each}
    kinds = {"".join(vmo.name[0] for vmo in program.system) for program in DRAWN}

    assert names == set(mixed.OPERATIONS)
    paged = {kind.lstrip("LS") for kind in kinds}
    assert paged == {*"BDT", *(a + b for a in "BDT" for b in "BDT")}
    assert {kind.rstrip("BDT") for kind in kinds} == {"L", "LL", "LS", "LLS"}


def test_a_program_is_read_as_it_was_written() -> None:
    for program in DRAWN:
        text = mixed.write(program)

        assert mixed.read(text) == program
        assert len(mixed.lines(text)) == len(program.system) + 3
        assert not set(text) & set(",= ")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("L1.2.1", "has no operation"),
        ("L1.2.1/", "has no operation"),
        ("X1.2.1/evict.1", "'X1.2.1' is no VMO"),
        ("L1.2.3/evict.1", "L1 has 3 of 2 pages"),
        ("L1.2.1/fly.L1", "there is no operation 'fly'"),
        ("L1.2.1/commit.L2.0.1", "is about no VMO of the program"),
        ("B1.2.1/write-back.B1.0.1", "is about no VMO of the program"),
        ("D1.2.1/agree.D1.0", "is about no VMO of the program"),
        ("L1.2.1/evict-page.L1.0", "is about no VMO of the program"),
        ("L1.2.1/commit.L1.0", "needs 2 numbers: page, count"),
        ("L1.2.1/commit.L1.1.2", "goes beyond the 2 pages of L1"),
        ("B1.2.1/evict-page.B1.2", "goes beyond the 2 pages of B1"),
        ("L1.2.1/commit.L1.0.0", "too small"),
        ("L1.2.1/commit.L1.a.1", "write it like"),
    ],
)
def test_a_program_that_makes_no_sense_is_refused(text: str, complaint: str) -> None:
    with pytest.raises(UsageError) as raised:
        mixed.read(text)

    assert complaint in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_given_program_runs_instead_of_drawn_ones() -> None:
    spec = Spec("mixed", params=(("program", "L1.2.2/commit.L1.0.2/decommit.L1.0.1+evict.1"),))
    part = explore_part(program_of(spec), Setup("random"), 1, 40)

    assert part.failures == []
    assert part.named == {"main", "worker1", "worker2"} or len(part.named) == 2


def weight(program: mixed.Program) -> tuple[int, ...]:
    """What must go down from a program to a simpler one."""
    operations = [operation for thread in program.threads for operation in thread]
    counts = sum(sum(operation.numbers[1:]) for operation in operations)
    dirty = sum(vmo.name[0] in "DT" for vmo in program.system)
    return len(program.threads), len(operations), len(program.system), counts, dirty


def test_a_simpler_program_is_a_program_with_less_in_it() -> None:
    for program in DRAWN[:40]:
        for text in mixed.simpler(mixed.write(program)):
            less = weight(mixed.read(text))

            assert less != weight(program)
            assert all(one <= other for one, other in zip(less, weight(program), strict=True))


def test_a_failing_program_is_reduced_before_its_schedule(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of three threads with two operations each, the one that lies is enough."""
    monkeypatch.setattr(Kernel, "evict_page", lambda *_args: True)
    spec = Spec("mixed", draw=4)
    setup = Setup("random", 4, meta=spec.meta())
    failure = explore_part(program_of(spec), setup, 1, 500).failures[0]
    drawn_again = work.replay_token(failure.token, None).found
    shrunk = work.minimize_token(failure.token, None)

    assert drawn_again is not None
    assert drawn_again.failure.digest == failure.digest
    assert shrunk.smaller is not None
    program = mixed.read(dict(shrunk.smaller.spec.params)["program"])
    assert [[each.name for each in thread] for thread in program.threads] == [["evict-page"]]
    assert len(program.system) == 1
    assert shrunk.result.after.preemptions == 0
    again = work.replay_token(shrunk.found.failure.token, None).found
    assert again is not None
    assert again.failure.digest == shrunk.found.failure.digest
    assert shrunk.smaller.lines == ["B1: 2 pages, 0 there", "worker1: evict-page B1 page 0"]


# -- lock order -----------------------------------------------------------------------------------


@pytest.mark.parametrize("revision", GOLDEN)
def test_all_scenarios_together_show_the_golden_lock_order(revision: str) -> None:
    """Nothing more and nothing less; the seed's defects change nothing about it."""
    rules = LockRules()
    for name in CLEAN:
        program = program_of(spec_of(SHIPPED[name], revision=revision))
        rules.merge(explore(program, schedules=10, stop_at_first=False).lock_order)

    assert judge_edges(sorted(rules.edges)) == []
    assert set(rules.edges) == set(GOLDEN[revision])
    assert rules.findings == []
