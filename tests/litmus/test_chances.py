"""The chance that one schedule fails is an exact number; the strategies must meet it."""

from __future__ import annotations

import math

import pytest
from programs import SPAWNED, TOGETHER, Row

from harness import explore

pytestmark = pytest.mark.once

ROWS = (*TOGETHER, *SPAWNED)
# A test that passes rightly fails with a probability of 6e-5 per row; the seed is literal, so it
# either always passes or never.
_SIGMAS = 4
# A chance of 0 that was in truth 0.03 would be seen in 500 schedules but for 1 run in 4,000,000.
_NEVER = 500


def _schedules(chance: float) -> int:
    """Enough to expect 36 failures or more, and no fewer than 4,000."""
    return 4_000 if chance > 0.009 else 20_000


def _failing(row: Row, strategy: str, schedules: int, depth: int = 1) -> int:
    report = explore(
        row.program, strategy, schedules=schedules, seed=2024, depth=depth, stop_at_first=False
    )
    assert report.schedules == schedules
    return sum(report.failing.values())


def _close(chance: float, failing: int, schedules: int) -> bool:
    return abs(failing - schedules * chance) <= _SIGMAS * math.sqrt(
        schedules * chance * (1 - chance)
    )


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_random_walk_fails_as_often_as_a_uniform_draw_at_every_step_must(row: Row) -> None:
    """Within 4 sigma of the binomial: for a chance p and n schedules, 4 * sqrt(n p (1 - p))."""
    schedules = _schedules(row.chance)

    assert _close(row.chance, _failing(row, "random", schedules), schedules)


@pytest.mark.parametrize("row", [row for row in ROWS if row.chance_pct1 == 0], ids=str)
def test_pct_of_depth_1_never_finds_what_needs_a_preemption(row: Row) -> None:
    assert _failing(row, "pct", _NEVER) == 0


@pytest.mark.parametrize("row", [row for row in ROWS if row.chance_pct1], ids=str)
def test_pct_of_depth_1_fails_as_often_as_priorities_fall_that_way(row: Row) -> None:
    """Within 4 sigma; the published chances have three digits, which adds up to 0.0005."""
    chance = row.chance_pct1
    assert chance is not None
    schedules = 2_000
    failing = _failing(row, "pct", schedules)

    assert _close(chance - 0.0005, failing, schedules) or _close(chance, failing, schedules)
