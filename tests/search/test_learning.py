"""Strategies that learn from earlier schedules: better for it, and still a function of numbers."""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial

import pytest
from exploring import stretch

from harness import Shared, explore, parallel, spawn
from harness.engine.core import Choose, Core
from harness.search.learning import Learning, Memory
from harness.search.part import explore_part
from harness.search.setup import BLOCK, Setup
from harness.search.stage import PILOTS, Stage
from harness.strategies import Options, Strategy, names, strategy_named
from harness.strategies.lore import (
    EPOCH,
    NOTHING,
    UNIT,
    Lore,
    epoch_of,
    first_of,
    learned_from,
    spread,
    teaches,
)
from harness.strategies.portfolio import Portfolio
from harness.sync import current_schedule

LEARNING = [name for name in names() if strategy_named(name).learns]
learning = pytest.mark.parametrize("strategy", LEARNING)


def _noting(runs: dict[int, tuple[int, ...]]) -> Callable[[], None]:
    """Three threads whose order is noted by number of the schedule."""

    def program() -> None:
        order: list[int] = []
        cells = [Shared(0, "a"), Shared(0, "b")]

        def work(number: int) -> None:
            for cell in cells:
                cell.set(number)
                order.append(number)

        threads = [spawn(work, number) for number in range(3)]
        for thread in threads:
            thread.join()
        runs[current_schedule()] = tuple(order)

    return program


def stages(count: int) -> Callable[[], None]:
    """A lock of so many pins: each read must fall between two writes, or the rest is not tried.

    Every pin that gives is an order of operations that was not seen before.
    """

    def program() -> None:
        pins = [Shared(0, f"pin{i}") for i in range(count)]

        def turn() -> None:
            for pin in pins:
                pin.set(1)
                pin.set(2)

        def pick() -> None:
            for pin in pins:
                if pin.get() != 1:
                    return
            raise AssertionError("open")

        parallel(turn, pick)

    return program


# -- epochs -------------------------------------------------------------------------------------


def test_epochs_begin_with_blocks_and_get_longer() -> None:
    firsts = [first_of(epoch) for epoch in range(40)]

    assert firsts[:10] == [1, 65, 129, 193, 257, 385, 513, 641, 769, 1025]
    assert all(first % BLOCK == 1 for first in firsts)
    for epoch, first in enumerate(firsts):
        assert epoch_of(first) == epoch
        assert epoch == 0 or epoch_of(first - 1) == epoch - 1


def test_one_schedule_in_so_many_is_looked_at_in_every_epoch() -> None:
    assert list(learned_from(0, 8)) == list(range(1, EPOCH + 1))
    assert not teaches(1, 0)
    for epoch in range(1, 12):
        looked = len(list(learned_from(epoch, 8)))
        share = looked / (first_of(epoch + 1) - first_of(epoch))
        assert 1 / 16 < share < 1 / 5


def test_no_more_is_kept_of_a_long_epoch_than_of_a_short_one() -> None:
    """An epoch is as long as about a fourth of all before it; memory must not be."""
    every = 16
    looked = [len(list(learned_from(epoch, every))) for epoch in (28, 31, 35, 39, 43)]

    assert first_of(44) > 500_000
    assert max(looked) < 1.2 * 512
    assert min(looked) > 0.8 * 512


def test_no_member_is_left_out_of_what_is_looked_at() -> None:
    """The same spread decides whose turn it is and who is looked at: from other bits of it."""
    looked = Counter(spread(n) * 8 >> 24 for n in range(65, 20_000) if teaches(n, 8))

    assert set(looked) == set(range(8))
    assert max(looked.values()) < 1.2 * min(looked.values())


# -- a schedule is a function of (seed, number) all the same --------------------------------------


@learning
def test_a_schedule_alone_is_what_it_is_in_the_whole(strategy: str) -> None:
    setup = Setup(strategy=strategy, seed=11)
    whole: dict[int, tuple[int, ...]] = {}
    stretch(_noting(whole), setup, 1, 400)

    for first in (64, 65, 200, 257, 390):
        alone: dict[int, tuple[int, ...]] = {}
        stretch(_noting(alone), setup, first, first + 6)
        assert [alone[n] for n in range(first, first + 7)] == [
            whole[n] for n in range(first, first + 7)
        ]


@learning
def test_blocks_may_come_in_any_order_and_share_what_was_learned(strategy: str) -> None:
    setup = Setup(strategy=strategy, seed=11)
    whole: dict[int, tuple[int, ...]] = {}
    stretch(_noting(whole), setup, 1, 320)

    known = Learning()
    apart: dict[int, tuple[int, ...]] = {}
    runs = 0
    for first in (129, 257, 1, 65, 193):
        mine: dict[int, tuple[int, ...]] = {}
        part = explore_part(_noting(mine), setup, first, first + BLOCK - 1, learning=known)
        runs += part.schedules
        apart |= {n: mine[n] for n in range(first, first + BLOCK)}

    assert apart == {n: whole[n] for n in range(1, 321)}
    assert runs == 320


def test_what_was_learned_in_a_process_is_kept_for_a_few_explorations() -> None:
    memory = Memory()
    first = memory.of("one")

    assert memory.of("one") is first
    for other in ("two", "three", "four"):
        memory.of(other)
    assert memory.of("one") is first
    for other in ("five", "six"):
        memory.of(other)
    assert memory.of("one") is not first


@learning
def test_learning_runs_no_schedule_twice_in_one_process(strategy: str) -> None:
    count = [0]

    def program() -> None:
        count[0] += 1
        cell = Shared(0)
        parallel(lambda: cell.set(1), cell.get)

    explore(program, strategy, 600, twice_every=0)

    assert count[0] - 600 <= 3  # the pilots


@pytest.mark.parametrize("strategy", [n for n in names() if strategy_named(n).needs_pilot])
def test_pilots_run_once_in_a_process_and_decide_the_same(strategy: str) -> None:
    def ran(runs: dict[int, tuple[int, ...]], kept: Learning | None) -> int:
        pilots = [0]
        program = _noting(runs)

        def counting() -> None:
            pilots[0] += current_schedule() == 0
            program()

        for first in (1, 17):
            explore_part(counting, Setup(strategy=strategy), first, first + 15, learning=kept)
        return pilots[0]

    anew: dict[int, tuple[int, ...]] = {}
    shared: dict[int, tuple[int, ...]] = {}

    assert ran(anew, None) == 2 * PILOTS
    assert ran(shared, Learning()) == PILOTS
    assert shared == anew


@pytest.mark.parametrize("strategy", [n for n in names() if strategy_named(n).needs_pilot])
def test_pilots_are_profiled_only_for_who_reads_it(strategy: str) -> None:
    def piloted(name: str) -> Options:
        known = Learning()
        explore_part(_noting({}), Setup(strategy=name), 1, 1, learning=known)
        assert known.piloted is not None
        return known.piloted

    options, widest = piloted(strategy), piloted("urw")

    assert (options.length, options.threads) == (widest.length, widest.threads)
    assert options.length > 0
    kind = strategy_named(strategy)
    assert bool(options.profile.steps) == bool(options.profile.accesses) == kind.needs_profile
    del options.profile
    known = Learning()
    known.piloted = options
    runs: dict[int, tuple[int, ...]] = {}
    with pytest.raises(AttributeError) if kind.needs_profile else nullcontext():
        explore_part(_noting(runs), Setup(strategy=strategy), 1, 40, learning=known)
    assert len(runs) == (0 if kind.needs_profile else 40)


def wide(count: int) -> Callable[[], None]:
    """Two threads that both write so many cells, in opposite orders."""

    def program() -> None:
        cells = [Shared(0, f"cell{i}") for i in range(count)]

        def write(order: list[Shared[int]]) -> None:
            for cell in order:
                cell.set(1)

        parallel(lambda: write(cells), lambda: write(cells[::-1]))

    return program


def test_little_is_kept_of_a_schedule_that_was_looked_at() -> None:
    """Its choices, and the orders that nobody has seen: not those that everybody sees."""
    known = Learning()
    part = explore_part(wide(60), Setup(strategy="mutate"), 1, 512, learning=known)
    looks = known._looks

    assert len(looks) > 20
    assert set(looks) <= set(range(385, 513))
    assert len(pickle.dumps(looks)) / len(looks) < 5 * part.decisions / part.schedules + 400


def test_of_epochs_that_are_over_a_few_are_kept() -> None:
    """Who goes back further learns anew, and runs the same schedules."""
    setup = Setup(strategy="portfolio", seed=11)
    whole: dict[int, tuple[int, ...]] = {}
    stretch(_noting(whole), setup, 1, 1_088)
    known = Learning()
    again: dict[int, tuple[int, ...]] = {}
    for first in (1_025, 65, 641):
        explore_part(_noting(again), setup, first, first + BLOCK - 1, learning=known)
        assert [again[n] for n in range(first, first + BLOCK)] == [
            whole[n] for n in range(first, first + BLOCK)
        ]

    assert known.done == epoch_of(1_025)
    assert len(known._lores) == 4


# -- mutation -----------------------------------------------------------------------------------


@pytest.mark.once
def test_mutation_opens_a_lock_that_a_random_walk_does_not() -> None:
    """Six pins: random finds none in 32,000 schedules, mutate all of these within 3,000."""
    assert explore(stages(6), "random", 3_000).verdict == "pass"
    for seed in range(3):
        assert explore(stages(6), "mutate", 3_000, seed=seed).verdict == "fail"


def test_mutations_resemble_what_was_kept() -> None:
    """Of one kept schedule, most first choices stay; a random walk would share half of them."""
    strategy = strategy_named("mutate")(Options(seed=1))
    kept = (1, 2) * 6
    strategy.learn(Lore(corpus=(kept,)))
    setup = Setup(strategy="mutate")
    orders: list[tuple[int, ...]] = []

    def program() -> None:
        order: list[int] = []
        cell = Shared(0)

        def work(number: int) -> None:
            for _ in range(6):
                cell.set(number)
                order.append(number)

        parallel(lambda: work(1), lambda: work(2))
        orders.append(tuple(order))

    with Stage(5.0) as stage:
        for number in range(1, 101):
            begin = partial(_begin, strategy, number)
            stage.run(program, setup.rules(), setup.limits(), begin, number)
    alike = sum(one == other for order in orders for one, other in zip(order, kept, strict=True))
    assert 0.65 < alike / (100 * len(kept)) < 0.95
    assert len(set(orders)) > 40


def _begin(strategy: Strategy, number: int, core: Core) -> Choose:
    return strategy.begin(core, number)


# -- the portfolio's shares ---------------------------------------------------------------------


def _shares(lore: Lore) -> Counter[str]:
    portfolio = Portfolio(Options(seed=3))
    portfolio.learn(lore)
    return Counter(portfolio.member(number) for number in range(1_000, 9_000))


def test_the_first_epoch_has_everybody_and_surw_half() -> None:
    turns = Counter(Portfolio(Options()).member(number) for number in range(1, EPOCH + 1))

    assert set(turns) == {"surw", "pos", "random", "pct-1", "pct-2", "pct-3"}
    assert turns["surw"] == EPOCH // 2


def test_the_share_goes_to_who_finds_what_is_new() -> None:
    looked = dict.fromkeys(
        ("surw", "pos", "random", "mutate", "pct-1", "pct-2", "pct-3"), 20 * UNIT
    )
    even = _shares(Lore(looked=looked, fresh=dict(looked)))
    shifted = _shares(Lore(looked=looked, fresh={"pos": 20 * UNIT}))

    assert shifted["pos"] > 2 * even["pos"]
    assert shifted["surw"] < even["surw"]
    assert set(shifted) == set(looked)
    assert min(shifted.values()) > 8_000 // 100


def test_pct_learns_its_length_from_longer_schedules() -> None:
    options = Options(seed=3)
    options.length = 20
    portfolio = Portfolio(options)
    lengths = []
    for length in (50, 10):
        portfolio.learn(Lore(length=length))
        lengths.append(portfolio._members["pct-2"].options.length)

    assert lengths == [50, 20]


def test_in_a_real_exploration_the_shares_do_shift() -> None:
    """Of a program where nothing new is left, every member keeps its weight; of stages, mutate's
    share grows with what it finds."""
    known = Learning()
    explore_part(stages(8), Setup(strategy="portfolio"), 1, 1_300, learning=known)
    lore = known.lore(known.done, Portfolio.learns)

    assert lore is not NOTHING
    rates = {member: lore.fresh[member] / lore.looked[member] for member in lore.looked}
    assert rates["mutate"] > rates["pct-1"]
    assert _shares(lore)["mutate"] > _shares(lore)["pct-1"]
