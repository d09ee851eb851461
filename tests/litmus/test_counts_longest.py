"""``dfs`` on the largest program that is counted: a file of its own, for a worker of its own."""

from __future__ import annotations

import pytest
from exploring import every
from programs import COUNTED_LONGEST


@pytest.mark.once
@pytest.mark.timeout(600)
def test_every_interleaving_is_run_once_and_exactly_the_failing_ones_fail() -> None:
    report = every(COUNTED_LONGEST.program)

    assert report.schedules == COUNTED_LONGEST.interleavings
    assert sum(report.failing.values()) == COUNTED_LONGEST.failing
    assert len(report.failing) == 1
    assert report.exhausted
