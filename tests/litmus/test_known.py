"""Known programs in small: what ``benchmarks/known.py`` measures in full."""

from __future__ import annotations

import pytest
from known import geometric, measure
from known_programs import CONTROLS, KNOWN, Known

from harness import explore

BY_NAME = {known.name: known for known in KNOWN}
# Random walks need thousands of schedules for these, if they find them at all.
HARD = ["CS/reorder_3", "CS/reorder_5", "CS/reorder_10", "CS/reorder_20", "CS/wronglock_3"]


# A hundred threads and as many schedules as it takes: for the benchmark.
LONG = "CS/reorder_100"


@pytest.mark.parametrize(
    "known", [known for known in KNOWN if known.name != LONG], ids=lambda known: known.name
)
def test_the_default_finds_every_known_bug(known: Known) -> None:
    """Measured means are from 2 to 520 schedules (20 trials); this is one seed of each."""
    assert explore(known.program, schedules=3_000, seed=4).verdict == "fail"


@pytest.mark.parametrize("known", CONTROLS, ids=lambda known: known.name)
def test_what_has_no_bug_passes(known: Known) -> None:
    for strategy in ("portfolio", "surw", "pct"):
        assert explore(known.program, strategy, 100, seed=4).verdict == "pass"


@pytest.mark.parametrize("name", HARD)
def test_surw_is_as_quick_as_it_is_published_to_be(name: str) -> None:
    """The mean of five trials within three times the published one."""
    known = BY_NAME[name]
    published = known.published["surw"]
    cell = measure(known, "surw", 5, 1_000)

    assert published is not None
    assert cell.whole
    assert cell.mean is not None
    assert cell.mean < 3 * published


def test_the_geometric_mean_is_one() -> None:
    assert geometric([1, 10, 100]) == pytest.approx(10)


def test_a_cell_that_took_too_long_says_how_many_trials_it_had() -> None:
    known = BY_NAME["CS/phase01"]
    assert str(measure(known, "pct", 20, 10, seconds=0)) == "2.0 (1/1)"
    assert str(measure(known, "pct", 20, 10)) == "2.0"
