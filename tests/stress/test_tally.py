"""What a run says of itself while it goes on."""

from __future__ import annotations

from harness import Mutex, parallel
from harness.explore import Part, Setup, explore_part
from stress.tally import Tally


def deadlock() -> None:
    a, b = Mutex("a"), Mutex("b")

    def one() -> None:
        with a, b:
            pass

    def two() -> None:
        with b, a:
            pass

    parallel(one, two)


def part(first: int, last: int) -> Part:
    return explore_part(
        deadlock, Setup(strategy="random", seed=1, stop_at_first=False), first, last
    )


def test_the_line_counts_schedules_classes_and_findings_once_each() -> None:
    tally = Tally(2, 100, None)
    tally.add("one", [part(1, 20)])
    before = tally.line(2.0)
    tally.add("one", [part(21, 40)])

    assert before.startswith("20 schedules, 10/s, ")
    assert ", 1 finding, about 18 s left" in before
    assert tally.line(2.0).startswith("40 schedules, 20/s, ")
    assert ", 1 finding, about 8 s left" in tally.line(2.0)
    # One thread before the other, the other before the one, and the deadlock.
    assert ", 3 classes in 32 looked at, " in tally.line(2.0)


def test_what_a_finished_scenario_saved_is_not_waited_for() -> None:
    tally = Tally(2, 100, None)
    tally.add("one", [part(1, 50)])
    assert tally.left(10.0) == 30.0
    tally.finish(50)
    assert tally.left(10.0) == 20.0


def test_the_nearer_bound_says_how_much_time_is_left() -> None:
    tally = Tally(1, 100, 8.0)
    assert tally.left(3.0) == 5.0
    tally.add("one", [part(1, 50)])
    assert tally.left(3.0) == 3.0
    assert Tally(1, None, None).left(1.0) is None
