"""The bench measures what it says: the program's size, and the very hand-offs of its schedules."""

from __future__ import annotations

from itertools import pairwise

import pytest
from stress_cli import Cli

from harness.explore import Setup, explore_part
from stress.bench import bare, four_by_fifty, handoffs, kinds, show

pytestmark = pytest.mark.once


@pytest.mark.parametrize("strategy", ["random", "pct"])
def test_the_floor_repeats_the_hand_offs_of_the_same_schedules(strategy: str) -> None:
    setup = Setup(strategy=strategy, seed=5)
    order = handoffs(four_by_fifty, setup, 20)
    part = explore_part(four_by_fifty, setup, 1, 20)

    assert part.steps == 20 * 200
    # Each schedule begins and ends with thread 0; what is between are the engine's switches.
    assert len(order) - 1 == pytest.approx(part.switches, abs=20)
    assert all(one != two for one, two in pairwise(order))
    assert set(order) == {0, 1, 2, 3, 4}
    assert (order[0], order[-1]) == (0, 0)


def test_under_random_three_of_four_points_switch() -> None:
    part = explore_part(four_by_fifty, Setup(strategy="random"), 1, 50)

    assert part.switches / part.schedules == pytest.approx(151, abs=4)


def test_bare_threads_run_an_order_to_its_end() -> None:
    for kind in kinds():
        assert 0 < bare([0, 1, 2, 1, 0, 2, 0], kind, 0.0) < 1


@pytest.mark.slow
def test_json_names_figures_floor_and_ratio_and_so_does_the_table(
    call: Cli, capsys: pytest.CaptureFixture[str]
) -> None:
    ran = call("bench", "--seconds", "1", "--json")

    assert ran.code == 0
    assert set(ran.json["engine"]) == {"random", "pct"}
    for figure in ran.json["engine"].values():
        assert figure["ratio"] > 1
        assert figure["floor_schedules_per_second"] > figure["schedules_per_second"] > 0
        assert figure["steps_per_second"] > 0
    assert ran.json["model"]["schedules_per_second"] > 0
    assert all(cost > 0 for cost in ran.json["handoff_us"].values())

    show(ran.json, None)
    told = capsys.readouterr().out
    assert "4 x 50" in told
    assert f"{ran.json['engine']['pct']['ratio']:.2f}" in told
    assert f"{ran.json['model']['scenario']} under random" in told
