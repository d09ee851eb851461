"""What a pass says of schedules that were not run: classes, bounds, orders never seen."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import pytest
from programs import SPAWNED, TOGETHER, Row

from harness import Atomic, Condition, Mutex, Semaphore, Shared, explore, parallel, spawn
from harness.engine.core import Core
from harness.search import watch
from harness.search.evidence import Coverage, Evidence, evidence, fails_at_most
from harness.search.part import explore_part
from harness.search.setup import Setup
from harness.search.verdict import assemble

Program = Callable[[], None]


def _evidence(program: Program, strategy: str = "dfs", schedules: int | None = None) -> Evidence:
    found = explore(program, strategy, schedules, seed=1).evidence
    assert found is not None
    return found


@pytest.fixture
def all_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "LOOKED_EVERY", 1)


# -- classes ------------------------------------------------------------------------------------


def _increments(threads: int) -> Program:
    """n! orders of as many atomic increments."""

    def program() -> None:
        cell = Atomic(0, "cell")
        parallel(*[lambda: cell.fetch_add(1)] * threads)

    return program


def _readers(count: int) -> Program:
    """One writer, and readers that commute among themselves: 2**n (reference: Concuerror)."""

    def program() -> None:
        cell = Shared(0, "x")
        own = [Shared(0, f"y{i}") for i in range(count)]

        def read(i: int) -> None:
            own[i].get()
            cell.get()

        parallel(lambda: cell.set(1), *[lambda i=i: read(i) for i in range(count)])

    return program


def _buffering() -> None:
    """Store buffering has 3 classes under sequential consistency."""
    x, y = Shared(0, "x"), Shared(0, "y")

    def cross(mine: Shared[int], other: Shared[int]) -> None:
        mine.set(1)
        other.get()

    parallel(lambda: cross(x, y), lambda: cross(y, x))


def _reads_of_reads() -> None:
    """Four threads of independent writes and readers (IRIW): 15 classes."""
    x, y = Shared(0, "x"), Shared(0, "y")
    parallel(
        lambda: x.set(1),
        lambda: y.set(1),
        lambda: (x.get(), y.get()),
        lambda: (y.get(), x.get()),
    )


def _locked(threads: int) -> Program:
    def program() -> None:
        lock, cell = Mutex("m"), Shared(0, "c")

        def work() -> None:
            with lock:
                cell.set(cell.get() + 1)

        parallel(*[work] * threads)

    return program


@pytest.mark.usefixtures("all_looked_at")
@pytest.mark.parametrize(
    ("program", "classes"),
    [
        (_increments(3), 6),
        (_increments(4), 24),
        (_readers(2), 4),
        (_buffering, 3),
        (_reads_of_reads, 15),
        (_locked(2), 2),
        (_locked(3), 6),
    ],
    ids=["ainc3", "ainc4", "readers2", "SB", "IRIW", "lock2", "lock3"],
)
def test_classes_are_the_traces_that_others_count(program: Program, classes: int) -> None:
    """Reference: exploration 6B. Every interleaving is run and looked at."""
    found = _evidence(program)

    assert found.classes == classes
    assert found.looked >= classes
    assert (found.unseen, found.new_class, found.fails_at_most) == (0.0, 0.0, 0.0)


@pytest.mark.usefixtures("all_looked_at")
@pytest.mark.parametrize(
    "row", [row for row in TOGETHER if row.interleavings < 100 and row.failing], ids=str
)
def test_classes_of_all_interleavings_are_as_many_as_dpor_runs(row: Row) -> None:
    """Two ways to the same number: by looking at every interleaving, and by not running most."""
    whole = explore(row.program, "dfs", None, stop_at_first=False)
    reduced = explore(row.program, "dpor", None, stop_at_first=False)

    assert whole.schedules == row.interleavings
    assert whole.evidence is not None
    assert whole.evidence.classes == reduced.schedules - reduced.blocked


@pytest.mark.once
def test_the_first_schedules_are_looked_at_and_a_few_of_the_others() -> None:
    found = _evidence(_buffering, "random", 6_400)

    assert watch.LOOKED_FIRST + 60 <= found.looked <= watch.LOOKED_FIRST + 160
    assert [n for n in range(1, 33) if not watch.looked_at(n)] == []


def test_no_stretch_and_no_member_of_a_rotation_is_left_out() -> None:
    later = [n for n in range(33, 20_000) if watch.looked_at(n)]

    assert max(b - a for a, b in pairwise(later)) < 64 * 12
    for members in (2, 3, 4, 5, 7):
        assert {n % members for n in later} == set(range(members))


def test_of_a_long_exploration_ever_fewer_schedules_are_looked_at() -> None:
    doubled = [sum(map(watch.looked_at, range(end // 2, end))) for end in (1 << 17, 1 << 19)]

    assert doubled[1] < 1.3 * doubled[0]
    assert doubled[1] > 500


# -- estimates ----------------------------------------------------------------------------------


def test_the_bound_is_the_rule_of_three_made_exact() -> None:
    for schedules in (1, 10, 1_000, 10**6):
        chance = fails_at_most(0, schedules)
        assert (1 - chance) ** schedules == pytest.approx(0.05)
    assert fails_at_most(0, 1_000) == pytest.approx(3 / 1_000, rel=0.01)
    assert fails_at_most(0, 1) == pytest.approx(0.95)


def test_the_bound_after_failures_is_that_of_clopper_and_pearson() -> None:
    assert fails_at_most(1, 20) == pytest.approx(0.2161, abs=1e-4)
    assert fails_at_most(10, 100) == pytest.approx(0.1637, abs=1e-4)
    assert fails_at_most(7, 7) == 1.0


@pytest.mark.once
def test_the_bound_holds_for_a_chance_that_is_known() -> None:
    """A lost update fails in half of all schedules: 95% of explorations must bound that."""

    def loses() -> None:
        cell = Shared(0, "c")
        parallel(*[lambda: cell.set(cell.get() + 1)] * 2)
        assert cell.peek() == 2

    held = 0
    for seed in range(100):
        report = explore(loses, "random", 20, seed=seed, stop_at_first=False)
        assert report.evidence is not None
        assert report.evidence.fails_at_most is not None
        held += report.evidence.fails_at_most >= 1 / 2
    assert held >= 88  # fewer has a chance of 0.4% at exactly 95%


def test_unseen_classes_are_estimated_from_those_seen_once_and_twice() -> None:
    coverage = Coverage(looked=11, classes={1: 1, 2: 1, 3: 1, 4: 2, 5: 6})
    found = evidence(coverage, failed=0, schedules=11, sampled=True, exhausted=False)

    assert found.unseen == 3 * 2 / (2 * (1 + 1))
    assert found.new_class == pytest.approx(3 / 11)
    assert any("by estimate 2 or more unseen" in line for line in found.lines())


@pytest.mark.usefixtures("all_looked_at")
def test_the_estimate_of_unseen_classes_is_of_the_right_size() -> None:
    """720 classes, nearly equally likely; after 200 schedules about 175 of them have been seen."""
    found = _evidence(_increments(6), "random", 200)

    assert 400 <= found.classes + found.unseen <= 1_100
    assert found.classes < 200


def test_what_is_no_random_draw_gives_no_bound() -> None:
    assert _evidence(_buffering, "round-robin", 20).fails_at_most is None
    assert _evidence(_buffering, "dfs", 2).fails_at_most is None


# -- orders never seen --------------------------------------------------------------------------


def test_a_pair_that_came_in_one_order_only_is_named() -> None:
    def program() -> None:
        cell = Shared(0, "cell")
        parallel(lambda: cell.set(1), cell.get, names=["writer", "reader"])

    one = _evidence(program, "dfs", 1)
    assert one.pairs == 1
    assert one.one_order == ((("reader", "get", "cell"), ("writer", "set", "cell")),)
    both = _evidence(program)
    assert (both.pairs, both.one_order) == (1, ())


def test_what_spawning_and_joining_force_is_no_order_to_miss() -> None:
    def program() -> None:
        cell, lock = Shared(0, "cell"), Mutex("m")

        def work() -> None:
            with lock:
                cell.set(cell.get() + 1)

        cell.set(0)
        work()
        threads = [spawn(work, name="one"), spawn(work, name="two")]
        for thread in threads:
            thread.join()
        cell.get()
        parallel(work, work, names=["three", "four"])
        work()

    found = _evidence(program)
    assert found.one_order == ()
    # Of one and two, and of three and four: acquire with acquire, set with set, set with get twice.
    assert found.pairs == 8


def test_a_parent_that_goes_on_beside_its_child_can_come_in_either_order() -> None:
    def program() -> None:
        cell = Shared(0, "cell")
        cell.set(1)
        child = spawn(cell.get, name="child")
        cell.set(2)
        child.join()

    found = _evidence(program)
    assert (found.pairs, found.one_order) == (1, ())


def test_waiting_for_a_release_is_no_order_to_miss() -> None:
    def program() -> None:
        lock, gate = Mutex("m"), Semaphore(0, "gate")
        ready = Condition(lock, "ready")
        done = [False]

        def consume() -> None:
            with ready:
                while not done[0]:
                    ready.wait()
            gate.acquire()

        def produce() -> None:
            with ready:
                done[0] = True
                ready.notify()
            gate.release()

        parallel(consume, produce, names=["consumer", "producer"])

    found = _evidence(program)
    told = {(one[0], one[1], other[1]) for one, other in found.one_order}
    # A notification before the wait would be lost, and the loop does not wait then.
    assert told <= {("consumer", "wait", "notify"), ("producer", "acquire", "re-acquire")}, told


def _alike() -> None:
    """Which of two parents starts the first of the children, and makes the first lock, is open."""
    cell = Shared(0, "cell")

    def child() -> None:
        Mutex().acquire()

    def parent() -> None:
        cell.get()
        lock = Mutex()
        spawn(child).join()
        with lock:
            cell.set(1)

    parallel(parent, parent)


@pytest.mark.parametrize("program", [_alike, *(row.program for row in SPAWNED[:3])])
def test_a_schedule_that_tells_a_known_tale_adds_no_order(
    program: Program, all_looked_at: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    enter = Coverage.enter

    def forgetful(coverage: Coverage, core: Core, log: watch.Log) -> None:
        coverage.followed.clear()
        enter(coverage, core, log)

    setup = Setup(strategy="random", seed=4, stop_at_first=False)
    quick = explore_part(program, setup, 1, 150).coverage
    monkeypatch.setattr(Coverage, "enter", forgetful)
    thorough = explore_part(program, setup, 1, 150).coverage

    assert len(quick.followed) < quick.looked == 150
    assert quick == thorough
    assert quick.pairs()[0] > 0


def test_evidence_does_not_depend_on_how_the_schedules_were_divided() -> None:
    setup = Setup(strategy="random", seed=3)

    def told(*parts: tuple[int, int]) -> object:
        made = [explore_part(_reads_of_reads, setup, first, last) for first, last in parts]
        return assemble(_reads_of_reads, setup, made).evidence

    assert told((1, 192)) == told((1, 64), (65, 128), (129, 192))


@pytest.mark.usefixtures("all_looked_at")
def test_growth_counts_the_classes_of_the_first_so_many_schedules() -> None:
    """Every order of four increments is a class of its own; with readers, half are repeats."""
    every = _evidence(_increments(4), "dfs").growth
    some = _evidence(_readers(2), "dfs")

    assert every == tuple((n, n) for n in (3, 5, 8, 10, 12, 15, 17, 20, 22, 24))
    assert some.growth[-1] == (some.looked, some.classes)
    assert all(a <= b for (_, a), (_, b) in pairwise(some.growth))
    assert some.growth[-1][1] < some.growth[-1][0]


def test_an_exploration_that_ran_nothing_says_nothing() -> None:
    found = evidence(Coverage(), failed=0, schedules=0, sampled=True, exhausted=False)

    assert found.lines() == []
    assert found.fails_at_most is None
    assert not math.isnan(found.new_class)


def test_names_without_end_are_followed_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.search.evidence.OPERATIONS_MAX", 10)
    count = [0]

    def program() -> None:
        count[0] += 1
        cell = Shared(0, f"cell{count[0] // 2}")
        parallel(lambda: cell.set(1), cell.get, names=["writer", "reader"])

    found = explore(program, "random", 30, twice_every=0).evidence
    assert found is not None
    assert 0 < found.pairs <= 5
    assert found.looked == 30
