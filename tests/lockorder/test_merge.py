"""However schedules are divided and merged, the result is that of one state that saw them all."""

from __future__ import annotations

import itertools
import pickle
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import UsageError
from harness.lockorder import HeldLocks, LockClass, LockFlags, LockRules

CLASSES = [
    LockClass("A"),
    LockClass("B"),
    LockClass("C"),
    LockClass("D", flags=LockFlags.NESTABLE),
    LockClass("I", flags=LockFlags.IRQ_SAFE),
    LockClass("L", flags=LockFlags.LEAF),
    LockClass("Q", flags=LockFlags.REPORTING_DISABLED),
    LockClass("T", flags=LockFlags.TRACKING_DISABLED),
    LockClass("U", flags=LockFlags.ACTIVE_LIST_DISABLED),
]


def run(rules: LockRules, schedule: int, seed: int) -> None:
    """Play a schedule that (seed, schedule) alone decides."""
    rng = random.Random(seed * 1000 + schedule)
    rules.begin(schedule)
    threads = [HeldLocks(f"t{index}") for index in range(2)]
    for _ in range(rng.randint(0, 12)):
        held = rng.choice(threads)
        choice = rng.random()
        if choice < 0.6:
            lock_class = rng.choice(CLASSES)
            address = rng.randint(1, 2) + 10 * CLASSES.index(lock_class)
            mode = rng.choice(("exclusive", "exclusive", "shared"))
            attempt = rng.random() < 0.1
            site = (lock_class.name, rng.randint(1, 2))
            rules.acquired(held, lock_class, address, rng.randint(0, 2), mode, attempt, site)
        elif choice < 0.9 and held.entries:
            rules.released(held, rng.choice(held.entries).address)
        elif choice < 0.95:
            rules.waits(held, ("wait", 1), "event")
        else:
            rules.none_held(held, ("assert", 1), "here")


def state(rules: LockRules) -> object:
    return (
        rules.findings,
        rules.muted,
        rules.edges,
        rules.dropped,
        [rules.counts(finding) for finding in rules.findings],
        rules.complete(),
        rules.reader_cycles(),
    )


@settings(max_examples=300)
@given(
    st.integers(0, 10_000),
    st.integers(1, 12),
    st.randoms(use_true_random=False),
    st.booleans(),
    st.booleans(),
)
def test_any_division_any_order(
    seed: int, schedules: int, rng: random.Random, blind: bool, shipped: bool
) -> None:
    whole = LockRules(mode_blind=blind)
    for schedule in range(1, schedules + 1):
        run(whole, schedule, seed)

    cuts = sorted(rng.sample(range(1, schedules + 1), rng.randint(0, min(4, schedules))))
    bounds = [1, *(cut + 1 for cut in cuts), schedules + 1]
    parts = []
    for first, end in itertools.pairwise(bounds):
        part = LockRules(mode_blind=blind)
        for schedule in range(first, end):
            run(part, schedule, seed)
        parts.append(pickle.loads(pickle.dumps(part)) if shipped else part)
    while len(parts) > 1:
        one = parts.pop(rng.randrange(len(parts)))
        parts[rng.randrange(len(parts))].merge(one)
    assert state(parts[0]) == state(whole)


def test_merging_leaves_the_other_as_it_is() -> None:
    one, other = LockRules(), LockRules()
    run(one, 1, 1)
    for schedule in range(2, 8):
        run(other, schedule, 1)
    before = state(other)
    one.merge(other)
    assert state(other) == before


def test_merged_rules_go_on() -> None:
    whole, first, second = LockRules(), LockRules(), LockRules()
    for schedule in range(1, 9):
        run(whole, schedule, 3)
        run(first if schedule < 4 else second, schedule, 3)
        if schedule == 6:
            first.merge(second)
            second = first
    assert state(first) == state(whole)


def test_resolving_changes_sites_alone() -> None:
    plain, resolved = LockRules(), LockRules()
    for schedule in range(1, 9):
        run(plain, schedule, 5)
        run(resolved, schedule, 5)
    resolved.resolve(lambda site: (site,))
    resolved.resolve(lambda site: site[0])
    assert state(plain) == state(resolved)


def test_a_class_with_other_flags_cannot_be_merged() -> None:
    one, other = LockRules(), LockRules()
    one.acquired(HeldLocks(), LockClass("A"), 1, 0, "exclusive", False, None)
    leaf = LockClass("A", flags=LockFlags.LEAF)
    other.acquired(HeldLocks(), leaf, 1, 0, "exclusive", False, None)
    with pytest.raises(UsageError, match="two sets of flags"):
        one.merge(other)
