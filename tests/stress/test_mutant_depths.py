"""Planted bugs: every one found by what should notice it, with as few preemptions as is said."""

from __future__ import annotations

import functools

import pytest

from harness.explore import Exploration, Setup, explore
from stress import hunts, mutants, work
from stress.catalogue import Spec, discover, program_of
from stress.hunts import Catch
from stress.mutants import Mutant
from stress.pool import call_fresh
from stress.runner import Options

pytestmark = pytest.mark.once

ALL = mutants.read()
BUGS = [mutant for mutant in ALL if not mutant.control]
CONTROLS = [mutant for mutant in ALL if mutant.control]
# Those that the first slice promises.
PROMISED = [1, 2, 3, 4, 6, 8, *range(10, 18), 19, 21, 22, 23, 27, 28, 29, 31, 33, 38]


# The depths that docs/reference/evidence.md gives.
DEFECTS = {"L1": 2, "L2": 0, "L3": 1, "L4": 1, "L5": 0}


def named(mutant: Mutant) -> str:
    return mutant.id


@functools.cache
def caught() -> dict[str, Catch]:
    """Every bug hunted once, and every control with a small budget; both processes busy."""
    bugs = hunts.hunt(hunts.mutant_quarries(BUGS, None), Options(schedules=4_000, jobs=2))
    controls = hunts.hunt(hunts.mutant_quarries(CONTROLS, None), Options(schedules=300, jobs=2))
    return {catch.quarry.id: catch for catch in bugs.catches + controls.catches}


def enumerated(mutant: Mutant, preemptions: int) -> Exploration:
    """Every interleaving with that many preemptions, in a process that has the bug planted."""
    setup = Setup("dfs", preemptions=preemptions, meta=mutant.spec.meta())
    conclusion, _ = call_fresh(work.explore_whole, mutant.spec, [(setup, 5_000)], None)
    exploration: Exploration = conclusion.exploration
    return exploration


def test_all_that_were_promised_are_there() -> None:
    assert {f"M{number:02}" for number in PROMISED} <= {mutant.id for mutant in BUGS}
    assert {"M07", "M32"} <= {mutant.id for mutant in CONTROLS}


@pytest.mark.slow
@pytest.mark.parametrize("mutant", BUGS, ids=named)
def test_a_bug_is_found_by_what_should_notice_it(mutant: Mutant) -> None:
    catch = caught()[mutant.id]

    assert catch.found is not None, catch.reason
    assert catch.oracle in mutant.oracle.split(", "), catch.found.failure.message


@pytest.mark.slow
@pytest.mark.parametrize("mutant", CONTROLS, ids=named)
def test_a_control_is_not_found(mutant: Mutant) -> None:
    catch = caught()[mutant.id]

    assert catch.verdict == "pass", catch.found and catch.found.failure.message


@pytest.mark.slow
@pytest.mark.parametrize("mutant", BUGS, ids=named)
def test_a_bug_needs_as_many_preemptions_as_the_catalogue_says(mutant: Mutant) -> None:
    """A hunt that got by with as many has shown that they are enough; else all are run."""
    catch = caught()[mutant.id]
    if catch.found is None or catch.found.best.preemptions > mutant.depth:
        found = enumerated(mutant, mutant.depth)
        assert found.verdict == "fail", found.reason

    if mutant.depth:
        fewer = enumerated(mutant, mutant.depth - 1)
        assert (fewer.verdict, fewer.exhausted) == ("pass", True), fewer.failure


@pytest.mark.slow
def test_a_minimized_token_has_as_many_preemptions_as_the_catalogue_says() -> None:
    """One more in few cases: another way to notice the same bug may need it."""
    least = {m.id: m.depth for m in BUGS}
    found = {c.quarry.id: c.found.best.preemptions for c in caught().values() if c.found}
    above = {id_: found[id_] - depth for id_, depth in least.items() if found[id_] > depth}

    assert set(above.values()) <= {1}
    assert len(above) <= len(BUGS) // 10


@functools.cache
def rediscovered() -> dict[str, Catch]:
    """The defects of the seed as ``defects`` hunts them, with fewer schedules for the controls."""
    bag = hunts.hunt(hunts.defect_quarries(), Options(schedules=400, jobs=2))
    return {catch.quarry.id: catch for catch in bag.catches}


@pytest.mark.slow
@pytest.mark.parametrize(("defect", "depth"), DEFECTS.items())
def test_a_defect_of_the_seed_is_told_with_its_fewest_preemptions(defect: str, depth: int) -> None:
    catch = rediscovered()[defect]

    assert catch.found is not None, catch.reason
    assert catch.found.best.preemptions == catch.quarry.depth == depth
    assert rediscovered()[f"{defect}-fixed"].verdict == "pass"


@pytest.mark.parametrize("defect", [name for name, depth in DEFECTS.items() if depth])
def test_no_schedule_with_fewer_preemptions_shows_a_defect(defect: str) -> None:
    """Every one was run; also those where a timer fires early, for what needs a timer."""
    entry = next(entry for entry in discover().values() if defect in entry.defects)
    program = program_of(Spec(entry.name, revision="seed", defects=(defect,)))
    fewer = explore(
        program,
        "dfs",
        schedules=5_000,
        preemptions=DEFECTS[defect] - 1,
        early_timeouts=entry.early_timeouts,
    )

    assert (fewer.verdict, fewer.exhausted) == ("pass", True), fewer.failure
