"""``urw`` and ``surw`` give each of the 252 orders of two threads of five steps the same chance."""

from __future__ import annotations

import math
from collections import Counter

import pytest

from harness import Atomic, explore, parallel, spawn

pytestmark = pytest.mark.once

STEPS = 5
ORDERS = math.comb(2 * STEPS, STEPS)
SCHEDULES = 50 * ORDERS
# Of a chi-square with 251 degrees of freedom.
CHI_99 = 306.0


def chi_square(strategy: str, *, together: bool, shared: bool) -> float:
    """How far the orders of one exploration are from equally likely."""
    counts: Counter[tuple[int, ...]] = Counter()

    def program() -> None:
        cells = [Atomic(0, "cell"), Atomic(0, "other")]
        order: list[int] = []

        def work(thread: int) -> None:
            for _ in range(STEPS):
                cells[0 if shared else thread].fetch_add(1)
                order.append(thread)

        if together:
            parallel(lambda: work(0), lambda: work(1))
        else:
            for thread in [spawn(work, number) for number in (0, 1)]:
                thread.join()
        counts[tuple(order)] += 1

    assert explore(program, strategy, SCHEDULES, seed=3).verdict == "pass"
    expected = counts.total() / ORDERS
    assert len(counts) == ORDERS
    return sum((count - expected) ** 2 / expected for count in counts.values())


@pytest.mark.parametrize(
    ("strategy", "together", "shared"),
    [("urw", True, True), ("urw", True, False), ("surw", True, True), ("surw", True, False)],
)
def test_every_order_is_as_likely_as_every_other(
    strategy: str, together: bool, shared: bool
) -> None:
    assert chi_square(strategy, together=together, shared=shared) < CHI_99


def test_the_turn_goes_to_the_child_that_it_was_meant_for() -> None:
    """Threads spawned one by one: surw is uniform over the steps on the shared object alone."""
    assert chi_square("surw", together=False, shared=True) < CHI_99


def test_a_plain_random_walk_fails_this_test() -> None:
    """So that the test is known to tell: a fair coin at each step favours orders that alternate."""
    assert chi_square("random", together=True, shared=True) > 10 * CHI_99
