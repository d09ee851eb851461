"""A plan divides a campaign into parts, the same ones for everybody who reads it."""

from __future__ import annotations

import importlib
from collections import Counter
from pathlib import Path

import pytest
from campaigning import small_plan
from hypothesis import given
from hypothesis import strategies as st
from worker_tasks import loaded_after

from harness.errors import UsageError
from stress.campaigns import parts
from stress.campaigns.plan import Combination, Plan, made, read
from stress.pool import call_fresh

GOOD = """
name = "nightly"
seeds = "0-9"
schedules = 100
strategies = ["portfolio", "pct"]
seconds = 60

[[scenario]]
name = "toy-abba"
weight = 3

[[scenario]]
name = "toy-late"
strategies = ["dfs", "random"]
preemptions = 2
schedules = 40
params = { word = "soon", from = 9 }
"""


def written(text: str) -> Path:
    path = Path("plan.toml")
    path.write_text(text, encoding="utf-8")
    return path


def test_a_file_says_all_of_it() -> None:
    name, plan = read(written(GOOD))
    found = {(c.scenario, c.strategy): c for c in plan.combinations}

    assert name == "nightly"
    assert plan.seconds == 60
    assert [*found] == [
        ("canary", "portfolio"),
        ("vacuous", "portfolio"),
        ("toy-abba", "portfolio"),
        ("toy-abba", "pct"),
        ("toy-late", "dfs"),
        ("toy-late", "random"),
    ]
    late = found["toy-late", "random"]
    assert late.params == (("from", "9"), ("word", "soon"))
    assert (late.first, late.last, late.schedules, late.preemptions) == (0, 9, 40, None)
    assert found["toy-late", "dfs"].preemptions == 2
    # A search that enumerates would run the same schedules with every seed.
    assert found["toy-late", "dfs"].parts == 1
    assert plan.count == 2 + 10 + 10 + 1 + 10


def test_a_plan_survives_the_store() -> None:
    _, plan = read(written(GOOD))
    again = Plan.decode(plan.encode())

    assert again == plan
    assert again.digest == plan.digest
    assert list(again.jobs()) == list(plan.jobs())
    assert small_plan().digest != plan.digest


def test_the_canary_and_the_vacuous_scenario_come_first_whatever_was_asked_for() -> None:
    jobs = list(small_plan().jobs())

    assert [job.combination.scenario for job in jobs[:2]] == ["canary", "vacuous"]
    assert [job.number for job in jobs] == list(range(1, 12))
    named = made(["canary"], seeds="0-4").combinations
    assert [(c.scenario, c.parts) for c in named] == [("vacuous", 1), ("canary", 5)]


combinations = st.builds(
    Combination,
    scenario=st.just("toy-clean"),
    expected=st.just("clean"),
    steps_max=st.just(100),
    first=st.integers(0, 5),
    last=st.integers(5, 25),
    schedules=st.integers(1, 50),
    weight=st.tuples(st.integers(1, 9), st.integers(1, 4)),
)


@given(st.lists(combinations, min_size=1, max_size=6), st.integers(1, 2_000))
def test_every_seed_of_every_combination_is_one_part_and_a_budget_takes_the_first(
    chosen: list[Combination], budget: int
) -> None:
    whole = list(Plan(tuple(chosen)).jobs())
    cut = list(Plan(tuple(chosen), schedules_max=budget).jobs())

    assert Counter((job.index, job.seed) for job in whole) == Counter(
        (index, seed) for index, c in enumerate(chosen) for seed in range(c.first, c.last + 1)
    )
    assert [job.number for job in whole] == list(range(1, len(whole) + 1))
    assert cut == whole[: len(cut)]
    ran = sum(job.combination.schedules for job in cut)
    assert ran >= budget or cut == whole
    assert ran - cut[-1].combination.schedules < budget


@given(st.lists(combinations, min_size=2, max_size=5), st.integers(1, 300))
def test_at_every_moment_nobody_is_more_than_a_part_behind_its_share(
    chosen: list[Combination], upto: int
) -> None:
    jobs = list(Plan(tuple(chosen)).jobs())[:upto]
    ran = Counter(job.index for job in jobs)
    for index, one in enumerate(chosen):
        if ran[index] == one.parts:
            continue  # has nothing left
        for other_index, other in enumerate(chosen):
            if ran[other_index] > 1:
                # The other one's last part began when this one was not behind it.
                ours = ran[index] * one.schedules * one.weight[1] * other.weight[0]
                theirs = (ran[other_index] - 1) * other.schedules * other.weight[1] * one.weight[0]
                stride = one.schedules * one.weight[1] * other.weight[0]
                assert theirs <= ours + stride


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("seed = 3", "unknown field `seed`"),
        ("[[scenario]]\nname = 'toy-abba'\nwieght = 2", r"unknown field `wieght`.*scenario"),
        ("schedules = 'many'", r"Expected `int.*schedules"),
        ("[[scenario]]\nweight = 2", "missing required field `name`"),
        ("[[scenario]]\nname = 'toy-abba'\nweight = 0", "weight of toy-abba is from 1 to 1000"),
        ("[[scenario]]\nname = 'toy-aba'", "did you mean toy-abba"),
        ("[[scenario]]\nname = 'toy-abba'\nparams = {x = 1}", "toy-abba"),
        ("strategies = ['ptc']", "did you mean pct"),
        ("strategies = []", "strategies is empty"),
        ("faults = ['nowhere@1']", "nowhere"),
        ("revision = 'old'", "unknown revision 'old'"),
        ("preemptions = 2", "none of portfolio takes it"),
        ("seeds = '9-3'", "seeds is a number or a range"),
        ("seeds = -1", "seeds is a number or a range"),
        ("seeds = 18446744073709551616", "up to 18446744073709551615"),
        ("seeds = '0-99999999'", "at most 1,000,000 parts"),
        ("schedules = 0", "schedules of a part is from 1"),
        ("schedules = 1000001", "from 1 to 1,000,000, got 1000001"),
        ("steps_max = 0", "steps_max must be at least 1"),
        ("seconds = 0", "seconds must be more than 0"),
        ("seconds = inf", "seconds must be more than 0, got inf"),
        ("part_seconds = -1.0", "part_seconds must be more than 0"),
        ("schedules_max = 0", "schedules_max must be more than 0"),
        ("name = 'a/b'", "a campaign's name is at most 80"),
        ("name = 'x", "is no plan"),
        ("a = " + "[" * 5_000, "is no plan"),
        (
            "[[scenario]]\nname = 'toy-abba'\n[[scenario]]\nname = 'toy-a*'",
            "toy-abba portfolio twice",
        ),
        ("# " + "x" * (1 << 20), "larger than 1,048,576 bytes"),
    ],
    ids=lambda text: str(text)[:30],
)
def test_what_a_plan_cannot_mean_is_said_in_a_line(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        read(written(text))

    assert str(caught.value).startswith("plan.toml" if "larger" not in said else "the plan")
    assert "\n" not in str(caught.value)


def test_a_plan_that_cannot_be_read_is_named() -> None:
    with pytest.raises(UsageError, match=r"cannot read the plan nowhere\.toml: No such file"):
        read(Path("nowhere.toml"))


def test_a_damaged_plan_in_a_store_is_no_traceback() -> None:
    whole = small_plan().encode()
    for text in ("", "{}", whole[:-5], whole.replace('"last":2', '"last":99999999999')):
        with pytest.raises(UsageError):
            Plan.decode(text)


def test_a_part_is_the_same_wherever_it_runs_and_whatever_ran_before() -> None:
    jobs = list(made(["toy-abba", "toy-drawn"], seeds="0-1", schedules=70).jobs())
    once = [parts.run(job).timeless() for job in jobs]
    again = [parts.run(job).timeless() for job in reversed(jobs)]

    assert once == again[::-1]
    assert len({outcome.evidence for outcome in once}) > 3


def test_a_process_that_runs_parts_loads_neither_the_store_nor_the_console() -> None:
    """Each worker would take a tenth of a second more to start, and need what they need."""
    job = next(made(["canary"], schedules=1).jobs())
    for call in (
        (parts.run_bounded, job, None),
        (importlib.import_module, "stress.campaigns.cluster"),
    ):
        assert not call_fresh(loaded_after, *call) & {"sqlalchemy", "rich", "loguru"}


def test_the_plan_that_the_documentation_shows_is_one() -> None:
    page = Path(__file__).parents[2] / "docs" / "howto" / "campaign.md"
    text = page.read_text(encoding="utf-8").split("```toml\n")[1].split("```")[0]
    name, plan = read(written(text))

    assert name == "nightly"
    assert sum(job.combination.schedules for job in plan.jobs()) >= 1_500
    assert {c.weight for c in plan.combinations} == {(1, 1), (3, 2), (1, 2)}
