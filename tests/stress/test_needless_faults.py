"""Injected faults in tokens: drawn, carried, and left out where a finding does not need them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.explore import Failure, Setup, explore_part
from harness.trace.token import decode
from model.kernel import Kernel
from model.status import Status
from stress import needless, work
from stress.catalogue import Context, Spec, find, plan_of, program_of
from stress.runner import Options
from stress.scenarios.mixed import drawn

# The seed's second defect needs memory to run out at the second page, and nothing else.
NEEDED = "page_list_node@2"
SPEC = Spec("supply-fails", revision="seed", defects=("L2",), faults=f"alloc@7,{NEEDED},kill@4")


def first_failure(spec: Spec, schedules: int = 300) -> tuple[Setup, Failure]:
    setup = Setup(seed=1, meta=spec.meta())
    part = explore_part(program_of(spec), setup, 1, schedules)
    return setup, part.failures[0].attach(program_of(spec))


def test_what_a_finding_does_not_need_is_left_out() -> None:
    setup, failure = first_failure(SPEC)
    needed = needless.drop(SPEC, setup, failure)

    assert needed.spec.faults == NEEDED
    assert sorted(needed.dropped) == ["alloc@7", "kill@4"]
    assert needed.failure.fingerprint == failure.fingerprint
    assert decode(needed.failure.token).meta["faults"] == NEEDED


@pytest.mark.once
def test_what_ran_free_is_searched_under_control() -> None:
    """So that the answer is a function of the seed, and does not wait for naps."""
    setup, failure = first_failure(SPEC)
    free, controlled = (
        needless.drop(SPEC, replace(setup, mode=mode), failure) for mode in ("free", "controlled")
    )

    assert free.failure.token == controlled.failure.token


@pytest.mark.once
def test_a_fault_that_decides_stays() -> None:
    spec = replace(SPEC, faults=NEEDED)
    setup, failure = first_failure(spec)

    assert needless.drop(spec, setup, failure) == needless.Needed(spec, failure)


def test_a_finding_that_needs_no_fault_says_so_in_its_token() -> None:
    """An empty plan would be the scenario's own; "none" is none."""
    spec = Spec("pin-race", revision="seed", defects=("L1",), faults="borrow@5")
    setup, failure = first_failure(spec)
    needed = needless.drop(spec, setup, failure)

    assert needed.spec.faults == "none"
    again = work.replay_token(needed.failure.token, None).found
    assert again is not None
    assert again.failure.digest == needed.failure.digest


@pytest.mark.once
def test_minimize_leaves_needless_faults_out_and_names_them() -> None:
    _, failure = first_failure(SPEC)
    shrunk = work.minimize_token(failure.token, None)

    assert sorted(shrunk.dropped) == ["alloc@7", "kill@4"]
    assert decode(shrunk.found.failure.token).meta["faults"] == NEEDED


def test_where_a_fault_strikes_is_drawn_from_seed_and_schedule() -> None:
    spec = Options(seed=9).bound(replace(SPEC, faults="page_list_node@1-9"), find("supply-fails"))
    entry = find(spec.scenario)
    struck = [str(plan_of(spec, entry, schedule)) for schedule in range(1, 40)]

    assert spec.draw == 9
    assert struck == [str(plan_of(spec, entry, schedule)) for schedule in range(1, 40)]
    assert set(struck) == {f"page_list_node@{count}" for count in range(1, 10)}
    assert struck != [str(plan_of(replace(spec, draw=8), entry, n)) for n in range(1, 40)]


def test_a_finding_under_a_drawn_fault_replays_and_gets_the_one_that_struck() -> None:
    spec = replace(SPEC, faults="page_list_node@1-3", draw=5)
    setup, failure = first_failure(spec)
    again = work.replay_token(failure.token, None).found
    needed = needless.drop(spec, setup, failure)

    assert again is not None
    assert again.failure.digest == failure.digest
    struck = str(plan_of(spec, find(spec.scenario), failure.schedule))
    assert struck in ("page_list_node@1", "page_list_node@2")
    assert needed.spec.faults == struck


@pytest.mark.once
def test_a_drawn_program_stays_the_same_without_the_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without what struck, the schedule of the same number passes, and others have to be tried."""
    monkeypatch.setattr(Kernel, "decommit", lambda *_args, **_options: Status.OK)
    spec = Spec("mixed", draw=3, redraw=True, faults="kill@1,alloc@4")
    setup, failure = first_failure(spec)
    needed = needless.drop(spec, setup, failure)

    assert sorted(needed.dropped) == ["alloc@4", "kill@1"]
    context = Context(spec, find("mixed"))
    assert dict(needed.spec.params)["program"] == drawn(context, context.seed_of(failure.schedule))
    assert needed.failure.token == needless.drop(spec, setup, failure).failure.token
    again = work.replay_token(needed.failure.token, None).found
    assert again is not None
    assert again.failure.fingerprint == needed.failure.fingerprint == failure.fingerprint
