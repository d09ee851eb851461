"""However a campaign comes to its end, its result is that of its plan."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable

import msgspec
import pytest
from campaigning import (
    Here,
    Value,
    Watcher,
    altered,
    begin,
    drive,
    outcome_of,
    small_plan,
)
from msgspec.structs import replace

from harness.errors import UsageError
from stress.campaigns import commands, parts, result
from stress.campaigns.drive import ATTEMPTS, Driver
from stress.campaigns.parts import Outcome
from stress.campaigns.plan import Job, Plan, made
from stress.campaigns.store import Store
from stress.documents import Document
from stress.exit_codes import ExitCode
from stress.pool import Crash

Upset = Callable[[Job, Outcome], Value]


@pytest.fixture
def undisturbed(store: Store) -> Document:
    campaign = begin(store, small_plan(), "undisturbed")
    drive(store, campaign, Here(1))
    return outcome_of(store, campaign)


def test_a_campaign_says_what_each_part_found(undisturbed: Document) -> None:
    rows = {row["scenario"]: row for row in undisturbed["combinations"]}

    assert undisturbed["verdict"] == "fail"
    assert undisturbed["parts"] == {"planned": 11, "done": 11, "given_up": []}
    assert {name: row["verdict"] for name, row in rows.items()} == {
        "canary": "fail",
        "vacuous": "inconclusive",
        "toy-abba": "fail",
        "toy-clean": "pass",
        "toy-drawn": rows["toy-drawn"]["verdict"],
    }
    assert rows["canary"]["judged"] == rows["vacuous"]["judged"] == "pass"
    assert rows["toy-clean"]["schedules"] == 30
    assert rows["toy-clean"]["evidence"]["looked"] == 30
    (deadlock,) = [f for f in undisturbed["findings"] if f["scenario"] == "toy-abba"]
    assert deadlock["kind"] == "deadlock"
    assert deadlock["parts"] == 2  # of three; a part is short
    assert deadlock["token"].startswith("ll1-")
    assert deadlock["fingerprint"] in rows["toy-abba"]["reason"]


@pytest.mark.parametrize("jobs", [2, 7])
@pytest.mark.parametrize("newest_first", [False, True])
def test_neither_jobs_nor_the_order_of_completion_shows(
    store: Store, undisturbed: Document, jobs: int, newest_first: bool
) -> None:
    campaign = begin(store, small_plan())
    drive(store, campaign, Here(jobs, newest_first=newest_first))

    assert outcome_of(store, campaign) == undisturbed


@pytest.mark.parametrize("seed", range(4))
def test_a_campaign_that_dies_again_and_again_ends_with_the_same_result(
    store: Store, undisturbed: Document, seed: int
) -> None:
    """Dying: the driver is left alone between two parts, with others under way."""
    campaign = begin(store, small_plan())
    draw = random.Random(seed)
    deaths = 0

    class Death(BaseException):
        pass

    def dies(_job: Job, outcome: Outcome) -> Value:
        if draw.random() < 0.4:
            raise Death
        return outcome

    while True:
        try:
            drive(store, campaign, Here(draw.randint(1, 4), newest_first=seed % 2 > 0, upset=dies))
        except Death:
            deaths += 1
        else:
            break

    assert deaths > 1
    assert outcome_of(store, campaign) == undisturbed
    assert not store.losses(campaign)


@pytest.mark.parametrize("easiest", [(0, 9, 4), (1, 3, 4), (1, 5, 3)])
def test_the_token_that_is_kept_has_the_fewest_preemptions_then_steps_then_is_the_first(
    store: Store, easiest: tuple[int, int, int]
) -> None:
    """Parts 3 to 5 of the plan are made to fail alike, one of them more simply."""
    wanted = dict.fromkeys((3, 4, 5), (1, 5))
    wanted[easiest[2]] = easiest[:2]

    def alike(job: Job, outcome: Outcome) -> Value:
        if job.number not in wanted:
            return altered(outcome, found=())
        preemptions, steps = wanted[job.number]
        token = f"token of {job.number}"
        return altered(
            outcome,
            found=(parts.Found("f" * 8, "deadlock", "m", token, 1, preemptions, steps, "d"),),
        )

    plan = made(["toy-clean"], seeds="0-8", schedules=10)
    campaign = begin(store, plan)
    drive(store, campaign, Here(newest_first=True, upset=alike))
    (finding,) = outcome_of(store, campaign)["findings"]

    assert (finding["token"], finding["part"]) == (f"token of {easiest[2]}", easiest[2])
    assert (finding["seed"], finding["parts"]) == (easiest[2] - 3, 3)


def crashing(*numbers: int, times: int = 1) -> Upset:
    left = dict.fromkeys(numbers, times)

    def upset(job: Job, outcome: Outcome) -> Value:
        if left.get(job.number, 0):
            left[job.number] -= 1
            return Crash(-9, note=7, stacks="the stacks")
        return outcome

    return upset


def test_a_part_whose_worker_died_is_tried_again(store: Store, undisturbed: Document) -> None:
    campaign = begin(store, small_plan())
    workers = Here(2, upset=crashing(3, 8))
    session = drive(store, campaign, workers)

    assert outcome_of(store, campaign) == undisturbed
    assert session.given_up == []
    assert sorted(workers.ran) == [1, 2, 3, 3, 4, 5, 6, 7, 8, 8, 9, 10, 11]
    assert [(loss.part, loss.schedules) for loss in store.losses(campaign)] == [(3, 7), (8, 7)]


def test_a_part_that_always_dies_is_given_up_and_reported(
    store: Store, undisturbed: Document
) -> None:
    campaign = begin(store, small_plan())
    lost = next(j for j in campaign.plan().jobs() if j.combination.scenario == "toy-clean")
    workers, watcher = Here(2, upset=crashing(lost.number, times=99)), Watcher()
    session = Driver(store, campaign, campaign.plan(), workers, watcher).run()
    document = outcome_of(store, campaign)

    assert workers.ran.count(lost.number) == ATTEMPTS == 2
    assert watcher.losses == [(lost.number, False), (lost.number, True)]
    assert session.given_up == [lost.number]
    assert document["parts"]["done"] == 10
    (given_up,) = document["parts"]["given_up"]
    assert given_up == {"part": lost.number, "why": "the worker process was ended by SIGKILL"}
    row = next(row for row in document["combinations"] if row["scenario"] == "toy-clean")
    assert (row["verdict"], row["reason"]) == (
        "inconclusive",
        f"2 of 3 parts are done, without a failure; 1 given up: {given_up['why']}",
    )
    (loss, _) = store.losses(campaign)
    assert (loss.schedules, loss.stacks) == (7, "the stacks")

    # Nothing is final about it: another session tries it once more, and meanwhile it is not done.
    assert store.campaign("it").finished
    unfinished: list[str] = []

    def look(_job: Job, outcome: Outcome) -> Value:
        unfinished.append(store.campaign("it").finished)
        return outcome

    again = Here(upset=look)
    drive(store, campaign, again)
    assert again.ran == [lost.number]
    assert unfinished == [""]
    assert store.campaign("it").finished
    assert outcome_of(store, campaign) == undisturbed


def test_a_report_says_of_a_few_parts_what_they_were_and_where_they_ended(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    campaign = begin(store, small_plan())
    stacks = "Thread 1:\n  File guilty.py\n\nThread 2:\n  File parked.py"

    def lost(job: Job, outcome: Outcome) -> Value:
        return outcome if job.number < 3 else Crash(-9, note=1, stacks=stacks)

    drive(store, campaign, Here(upset=lost))
    commands._show(result.gather(store, campaign), json=False)
    shown = capsys.readouterr().out

    job = next(job for job in campaign.plan().jobs() if job.number == 3)
    what = (
        f"part 3 ({job.combination.scenario} portfolio, seed {job.seed}) was given up: the worker"
    )
    assert what in shown
    assert "SIGKILL, after at least 1 schedule\n" in shown
    assert (shown.count("guilty.py"), shown.count("parked.py")) == (5, 0)
    assert "4 more were given up;" in shown
    assert "none of 3 parts is done; 3 given up" in " ".join(shown.split())


def test_a_part_whose_process_dies_as_it_is_checked_is_lost_and_does_not_differ(
    store: Store, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    drive(store, begin(store, small_plan()))
    monkeypatch.setattr(commands, "Local", lambda *_: Here(1, upset=crashing(4)))
    code = commands.check("it", store.where, "3-5", json=False)
    said = capsys.readouterr().out

    assert code is ExitCode.INCONCLUSIVE
    assert "part 4 came to nothing: the worker process was ended by SIGKILL\n" in said
    assert "3 parts run again: all others are the same\n" in said


def test_a_hang_is_tried_again_before_it_is_believed(store: Store, undisturbed: Document) -> None:
    hung: list[int] = []

    def hangs(job: Job, outcome: Outcome) -> Value:
        if job.combination.scenario == "toy-clean" and (job.seed == 0 or job.number not in hung):
            hung.append(job.number)
            return altered(outcome, cut="hang", detail="add\nstacks")
        return outcome

    campaign = begin(store, small_plan())
    session = drive(store, campaign, Here(2, upset=hangs))
    document = outcome_of(store, campaign)
    row = next(row for row in document["combinations"] if row["scenario"] == "toy-clean")

    assert session.given_up == []
    assert [loss.why for loss in store.losses(campaign)] == ["thread add hung"] * 3
    assert row["verdict"] == "inconclusive"
    assert "thread add blocked in something the harness does not control" in row["reason"]
    assert document["parts"] == undisturbed["parts"]


def test_ctrl_c_ends_a_session_and_not_the_campaign(store: Store, undisturbed: Document) -> None:
    def breaks(job: Job, outcome: Outcome) -> Value:
        if job.number == 5:
            raise KeyboardInterrupt
        return outcome

    campaign = begin(store, small_plan())
    assert drive(store, campaign, Here(1, upset=breaks)).interrupted
    assert store.done(campaign) == {1, 2, 3, 4}
    assert not store.campaign("it").finished

    assert not drive(store, campaign).interrupted
    assert store.campaign("it").finished
    assert outcome_of(store, campaign) == undisturbed


def test_two_sessions_at_once_count_each_part_once(store: Store, undisturbed: Document) -> None:
    campaign = begin(store, small_plan())
    entered: list[int] = []

    def meanwhile(job: Job, outcome: Outcome) -> Value:
        if job.number == 4 and not entered:
            entered.append(drive(store, campaign, Here(newest_first=True)).done)
        return outcome

    first = drive(store, campaign, Here(upset=meanwhile))

    assert entered[0] + first.done == 11
    assert outcome_of(store, campaign) == undisturbed


def test_other_sources_are_refused_before_and_after(store: Store) -> None:
    campaign = store.create("old", small_plan(), "0" * 16)
    with pytest.raises(UsageError, match="begun with other sources"):
        drive(store, campaign)

    current = begin(store, small_plan())
    with pytest.raises(UsageError, match=r"the worker .* has other sources than the campaign it"):
        drive(store, current, Here(upset=lambda _, outcome: altered(outcome, code="f" * 16)))
    assert store.done(current) == set()


def test_a_budget_of_schedules_ends_the_plan_and_one_of_time_the_session(store: Store) -> None:
    campaign = begin(store, small_plan(schedules_max=130))
    drive(store, campaign)
    document = outcome_of(store, campaign)
    assert document["parts"] == {"planned": 5, "done": 5, "given_up": []}
    assert sum(row["schedules"] for row in document["combinations"]) == 130

    over = begin(store, small_plan(seconds=1e-9), "over")
    session = drive(store, over)
    assert (session.over, session.done) == (True, 0)
    assert not store.campaign("over").finished
    row = outcome_of(store, over)
    assert row["verdict"] == "inconclusive"
    assert {one["reason"] for one in row["combinations"]} == {"nothing was run"}


@pytest.mark.parametrize(
    ("scenarios", "budget", "planned", "why"),
    [
        (["toy-clean"], 110, 3, "no failure in 10 schedules"),
        (["toy-clean", "toy-drawn"], 110, 3, "the budget of schedules has no part for it"),
        (["toy-clean"], 10, 1, "the budget of schedules has no part for it"),
        (["canary"], None, 2, "assertion 3079c228 with seed 0, in schedule 3"),
    ],
)
def test_a_scenario_that_gets_no_part_has_not_passed(
    store: Store, scenarios: list[str], budget: int | None, planned: int, why: str
) -> None:
    """Nor has a campaign of the canary alone: the check works, and was put to no use."""
    campaign = begin(store, made(scenarios, schedules=10, schedules_max=budget))
    drive(store, campaign)
    document = outcome_of(store, campaign)

    assert document["parts"]["planned"] == planned
    assert document["combinations"][-1]["reason"] == why
    assert document["verdict"] == ("pass" if why.startswith("no failure") else "inconclusive")


def test_the_vacuous_scenario_must_have_run(store: Store) -> None:
    campaign = begin(store, made(["toy-clean"], schedules=10))

    def lost(job: Job, outcome: Outcome) -> Value:
        return Crash(None, "lost") if job.combination.scenario == "vacuous" else outcome

    drive(store, campaign, Here(upset=lost))
    document = outcome_of(store, campaign)

    assert [row["judged"] for row in document["combinations"]] == ["pass", "inconclusive", "pass"]
    assert document["verdict"] == "inconclusive"


def test_time_of_earlier_sessions_counts(store: Store) -> None:
    campaign = begin(store, small_plan(seconds=50.0))
    job = next(campaign.plan().jobs())
    session = store.begin(campaign, 1, "here")
    store.commit(campaign, session, job, parts.run(job), 50.0)

    assert drive(store, campaign).over


def test_time_that_is_over_when_all_is_done_is_no_matter(store: Store) -> None:
    plan = made(["toy-clean"], seeds="0", schedules=10, seconds=3600)
    campaign = begin(store, plan)
    drive(store, campaign)
    spent = replace(plan, seconds=1e-9)
    session = Driver(store, campaign, spent, Here(), Watcher()).run()

    assert (session.over, session.done) == (False, 0)
    assert store.campaign("it").finished


def test_an_order_that_no_part_breaks_alone_is_found_over_all(store: Store) -> None:
    """toy-order nests its locks one way until late, and the other way from then on."""
    plan = made(["toy-order"], seeds="0", schedules=60)
    late = made(["toy-order"], seeds="1", schedules=60)
    first, second = plan.combinations[-1], late.combinations[-1]
    both = Plan((*plan.combinations[:2], first, second))
    campaign = begin(store, both)

    def other_way(job: Job, outcome: Outcome) -> Value:
        if job.seed != 1:
            return outcome
        evidence = parts.unpack(outcome.evidence)
        edges = [replace(e, outer=e.inner, inner=e.outer) for e in evidence.edges]
        assert edges
        turned = replace(evidence, edges=edges)
        return altered(outcome, evidence=zlib.compress(msgspec.msgpack.encode(turned)))

    drive(store, campaign, Here(upset=other_way))
    gathered = result.gather(store, campaign)

    assert [group.verdict for group in gathered.groups[2:]] == ["pass", "pass"]
    assert gathered.verdict == "fail"
    (cycle,) = gathered.cycles
    assert cycle.rule == "ORD001"


def test_a_page_shows_a_finding_where_it_was_made(store: Store) -> None:
    """Not beside another revision of the same scenario under the same strategy."""
    plan = made(["toy-abba"], seeds="0", schedules=60)
    failing = plan.combinations[-1]
    both = Plan((*plan.combinations, replace(failing, revision="seed")))
    campaign = begin(store, both)

    def mended(job: Job, outcome: Outcome) -> Value:
        return altered(outcome, found=()) if job.combination.revision == "seed" else outcome

    drive(store, campaign, Here(upset=mended))
    shown = commands.for_page(result.gather(store, campaign))["scenarios"]

    assert [len(one["failures"]) for one in shown] == [0, 0, 1, 0]
    assert [one["verdict"] for one in shown] == [
        "fail (as it must)",
        "inconclusive (as it must)",
        "fail",
        "pass",
    ]


def test_what_appeared_and_what_is_gone(store: Store) -> None:
    old = begin(store, small_plan(), "old")
    new = begin(store, made(["toy-abba", "toy-late"], seeds="0", schedules=160), "new")
    for campaign in (old, new):
        drive(store, campaign)
    one, other = (result.gather(store, campaign) for campaign in (old, new))
    there, back = result.diff(one, other), result.diff(other, one)

    assert [f["scenario"] for f in there["appeared"]] == ["toy-late"]
    assert {f["scenario"] for f in there["still"]} == {"canary", "toy-abba"}
    assert there["appeared"] == back["gone"]
    assert not there["same_plan"]
    assert result.diff(one, one)["appeared"] == result.diff(one, one)["verdicts"] == []
