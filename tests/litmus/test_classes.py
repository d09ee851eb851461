"""``dpor`` explores one schedule of each class: exact counts that are published, none blocked."""

from __future__ import annotations

import pytest
from counted import ROWS, Counted

from harness import explore

# benchmarks/classes.py runs the others too.
_LARGEST = 1_000


@pytest.mark.parametrize("row", [row for row in ROWS if row.classes <= _LARGEST], ids=str)
def test_each_class_is_explored_once_and_nothing_else(row: Counted) -> None:
    report = explore(row.program, "dpor", schedules=None, stop_at_first=False)

    assert report.exhausted
    assert (row.classes, 0) == (report.schedules - report.blocked, report.blocked)
    assert report.verdict == "pass"
