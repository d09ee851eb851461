"""``dfs`` runs every interleaving once: exact counts, from one ``parallel`` and from ``spawn``."""

from __future__ import annotations

import pytest
from exploring import every
from programs import SPAWNED, TOGETHER, Row
from pythons import on_each

from harness import explore

# benchmarks/interleavings.py runs those beyond through too.
_LARGEST = 10_000
# Each Python runs those up to here.
_EACH = 1_000


ROWS = [row for row in (*TOGETHER, *SPAWNED) if row.interleavings <= _LARGEST]


@pytest.mark.parametrize(
    "row", on_each([row for row in ROWS if row.interleavings <= _EACH], ROWS), ids=str
)
def test_every_interleaving_is_run_once_and_exactly_the_failing_ones_fail(row: Row) -> None:
    report = every(row.program)

    assert (row.interleavings, row.failing) == (report.schedules, sum(report.failing.values()))
    assert len(report.failing) == 1
    assert report.blocked == 0


@pytest.mark.parametrize("row", [r for r in TOGETHER if r.interleavings < 1_000], ids=str)
def test_the_longest_interleaving_has_the_known_number_of_steps(row: Row) -> None:
    """A bound of that length (and a step for ``parallel``) cuts nothing; one less does."""
    free = every(row.program)
    exact = every(row.program, steps_max=row.steps_max + 1)
    short = explore(
        row.program, "dfs", schedules=None, stop_at_first=False, steps_max=row.steps_max
    )

    assert free.steps == exact.steps > short.steps
    assert not short.exhausted
