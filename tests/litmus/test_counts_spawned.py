"""``dfs`` runs every interleaving once: exact counts where the main thread is scheduled too."""

from __future__ import annotations

import pytest
from exploring import every
from programs import COUNTED_LONGEST, SPAWNED, Row

_ONCE_FROM = 20_000


def _rows() -> list[object]:
    return [
        pytest.param(
            row,
            id=str(row),
            marks=[pytest.mark.once, pytest.mark.timeout(600)]
            if row.interleavings > _ONCE_FROM
            else [],
        )
        for row in SPAWNED
        if row.interleavings < COUNTED_LONGEST.interleavings
    ]


@pytest.mark.parametrize("row", _rows())
def test_every_interleaving_is_run_once_and_exactly_the_failing_ones_fail(row: Row) -> None:
    report = every(row.program)

    assert (row.interleavings, row.failing) == (report.schedules, sum(report.failing.values()))
    assert len(report.failing) == 1
    assert report.blocked == 0
