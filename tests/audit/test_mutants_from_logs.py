"""Planted nestings of the model, found from lock logs alone, with both places of each edge."""

from __future__ import annotations

import io

import pytest
from worker_tasks import log_of_mutant

from harness.trace.logjudge import LogJudge
from stress.pool import call_fresh

pytestmark = pytest.mark.once


@pytest.mark.parametrize(
    ("mutant", "deadlocks", "rule", "classes"),
    [
        ("M27", True, "ORD005", ("PhysicalPageProvider",)),
        ("M28", False, "ORD001", ("PageSource", "VmHierarchy")),
        ("M29", True, "ORD005", ("PageQueues",)),
        ("M30", False, "CTX003", ("VmHierarchy",)),
    ],
)
def test_a_planted_nesting_is_found_with_both_places(
    mutant: str, deadlocks: bool, rule: str, classes: tuple[str, ...]
) -> None:
    data = call_fresh(log_of_mutant, mutant, 4, deadlocks)
    judge = LogJudge()
    judge.read("log", io.BytesIO(data))
    assert judge.breaches == {}
    assert deadlocks or not judge.deadlocks.found
    (found,) = (f for f in judge.rules.findings if (f.rule, f.classes) == (rule, classes))
    for edge in found.edges:
        assert edge.outer_site is not None
        assert edge.inner_site is not None
