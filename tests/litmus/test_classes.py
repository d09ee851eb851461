"""``dpor`` explores one schedule of each class: exact counts that are published, none blocked."""

from __future__ import annotations

import pytest
from counted import ROWS, Counted
from pythons import on_each

from harness import explore

# benchmarks/classes.py runs the others too.
_LARGEST = 1_000
# Each Python runs those up to here.
_EACH = 150


ROWS_HERE = [row for row in ROWS if row.classes <= _LARGEST]


@pytest.mark.parametrize(
    "row", on_each([row for row in ROWS_HERE if row.classes <= _EACH], ROWS_HERE), ids=str
)
def test_each_class_is_explored_once_and_nothing_else(row: Counted) -> None:
    report = explore(row.program, "dpor", schedules=None, stop_at_first=False)

    assert report.exhausted
    assert (row.classes, 0) == (report.schedules - report.blocked, report.blocked)
    assert report.verdict == "pass"
