"""``dpor`` finds all that brute force finds, and explores no class twice."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from brute import brute, disagreement, found
from exploring import every, passes
from generated import Drawn, deeper, draw
from partial_orders import classes
from programs import SPAWNED, TOGETHER, Row
from pythons import on_each

from harness import (
    Atomic,
    Event,
    Exploration,
    LockClass,
    Mutex,
    Semaphore,
    Shared,
    SpinLock,
    WaitQueue,
    current_thread,
    explore,
    invariant,
    monotonic,
    parallel,
    sleep,
    spawn,
)
from harness.search.part import explore_part
from harness.search.setup import Setup

_SCHEDULES = 1_200


def _compare(drawn: Drawn, **options: Any) -> Exploration | None:
    """Search to the end beside brute force; None where that does not get there."""
    compared = disagreement(drawn.program, "dpor", _SCHEDULES, **options)
    if compared is None:
        return None
    report, told = compared
    assert not told, drawn
    return report


@pytest.mark.parametrize("block", on_each({0}, range(6)))
def test_the_outcomes_and_failures_are_those_of_every_interleaving(block: int) -> None:
    """Over programs drawn from every operation; most blocks hold failures of several kinds."""
    reports = [_compare(draw(1_000 * block + i)) for i in range(25)]
    compared = [report for report in reports if report is not None]

    assert len(compared) >= 15
    assert sum(report.failure is not None for report in compared) >= 2


@pytest.mark.parametrize(
    "options", [{}, {"early_timeouts": True}, {"preemptions": 1}], ids=["all", "early", "bound"]
)
def test_so_they_are_where_what_is_done_hangs_on_what_was_seen(options: dict[str, Any]) -> None:
    """`benchmarks/dpor_fuzz.py` compares thousands."""
    reports = [_compare(deeper(seed), **options) for seed in range(12)]
    compared = [report for report in reports if report is not None]

    assert len(compared) >= 10
    assert sum(report.failure is not None for report in compared) >= 3


def test_the_plain_search_counts_what_is_known() -> None:
    """It judges the others, so it is held to numbers of its own."""
    for row in (row for row in (*TOGETHER, *SPAWNED) if row.interleavings < 300):
        with brute() as plain:
            report = explore(row.program, plain, schedules=None, stop_at_first=False)
        assert (report.schedules, report.exhausted) == (row.interleavings, True), row
        assert sum(report.failing.values()) == row.failing, row


@pytest.mark.once
def test_so_they_are_where_timeouts_fire_early() -> None:
    families = ("attempt", "event", "semaphore", "condition", "queue", "time", "interrupt", "cell")
    reports = [_compare(draw(seed, families), early_timeouts=True) for seed in range(40)]

    assert sum(report is not None for report in reports) >= 30


def test_a_step_that_fails_hides_no_outcome_of_those_that_could_have_come_before_it() -> None:
    """It ends the schedule, so nothing is known of what would have followed."""
    report = _compare(draw(2_833, ("semaphore", "event", "attempt", "cell")))

    assert report is not None
    assert report.failing


_OPTIMAL = ("cell", "atomic", "mutex", "spin", "thread")


@pytest.mark.once
def test_nothing_is_explored_twice_where_threads_share_cells_and_locks() -> None:
    """The number of classes is that of the partial orders that brute force meets."""
    counted = 0
    for seed in range(24):
        drawn = draw(seed, _OPTIMAL)
        report = _compare(drawn)
        if report is None or report.failing:
            continue
        counted += 1
        assert (classes(drawn.program(set())), 0) == (report.schedules, report.blocked), seed

    assert counted >= 10


@pytest.mark.parametrize(
    "row", [row for row in (*TOGETHER, *SPAWNED) if row.interleavings < 3_000], ids=str
)
def test_known_programs_fail_as_they_do_in_every_interleaving(row: Row) -> None:
    report = explore(row.program, "dpor", schedules=None, stop_at_first=False)

    assert report.exhausted
    assert report.schedules <= row.interleavings
    assert found(every(row.program)) == found(report)


# -- what depends on what -----------------------------------------------------------------------


def _count(*bodies: Callable[[], object]) -> int:
    report = passes(lambda: parallel(*bodies), "dpor", schedules=None)
    assert report.exhausted
    return report.schedules - report.blocked


def test_reads_and_failed_exchanges_do_not_depend_on_each_other() -> None:
    assert _count(Shared(0).get, Shared(0).get) == 1
    cell, atomic = Shared(0), Atomic(5)

    assert _count(cell.get, cell.get, cell.get) == 1
    assert _count(atomic.load, lambda: atomic.compare_exchange(0, 1)) == 1
    assert _count(atomic.load, lambda: atomic.compare_exchange(5, 5)) == 2


def test_a_failed_attempt_at_a_lock_only_looks() -> None:
    def program() -> None:
        lock = Mutex()
        with lock:
            parallel(*[lambda: lock.acquire(blocking=False)] * 3)

    assert passes(program, "dpor", schedules=None).schedules == 1


def test_a_lock_that_is_never_free_in_time_still_counts() -> None:
    """The second acquire is disabled whenever it could race: only what could have been first."""

    def program() -> None:
        lock, order = Mutex("m"), Shared("", "order")

        def enter(name: str) -> None:
            with lock:
                order.set(order.peek() + name)

        parallel(lambda: enter("a"), lambda: enter("b"), lambda: enter("c"))
        assert order.peek() != "cab"

    report = explore(program, "dpor", schedules=None, stop_at_first=False)

    assert (report.schedules, report.failing) == (6, {"assertion": 1})


def test_who_waits_first_depends_on_when_the_waits_were_announced() -> None:
    """To be on an event's list belongs to the step before the wait, here a read of some cell."""
    seen: set[object] = set()

    def program() -> None:
        event = Event("e", auto_unsignal=True)
        cells = [Shared(0), Shared(0)]

        def waiter(i: int) -> bool:
            cells[i].get()
            return event.wait(1)

        seen.add(tuple(parallel(lambda: waiter(0), lambda: waiter(1), event.set)[:2]))

    passes(program, "dpor", schedules=None)

    assert {(True, False), (False, True)} == seen


def test_who_gets_a_permit_first_does_not_hang_on_who_gives_one_back() -> None:
    """``later`` cannot come right before the release, but before the other's acquire it can."""
    seen: set[object] = set()

    def program() -> None:
        permits, cell = Semaphore(1), Shared(0)

        def later() -> None:
            cell.set(1)
            cell.set(2)
            permits.acquire(timeout=2)

        def borrower() -> bool:
            taken = permits.acquire(timeout=1)
            permits.release()
            cell.get()
            return taken

        seen.add(parallel(later, borrower)[1])

    passes(program, "dpor", schedules=None)

    assert seen == {False, True}


def _early(program: Callable[[], object]) -> Exploration:
    report = explore(program, "dpor", schedules=None, stop_at_first=False, early_timeouts=True)
    assert report.exhausted
    return report


def test_an_early_timeout_depends_on_the_clock_and_on_what_was_waited_for_alone() -> None:
    def own_lock() -> None:
        with Mutex():
            pass

    def own_cell() -> None:
        cell = Shared(0)
        for value in range(5):
            cell.set(value)

    def nap() -> None:
        sleep(1)

    assert _early(lambda: parallel(own_lock, own_lock)).schedules == 1
    assert _early(lambda: parallel(nap, own_lock, own_cell)).schedules == 1
    assert _early(lambda: parallel(nap, nap)).schedules == 2


def test_who_reads_the_clock_sees_each_timeout_that_moves_it() -> None:
    seen: set[object] = set()

    def program() -> None:
        cell = Shared(0)

        def reader() -> float:
            cell.get()
            return monotonic()

        seen.add(parallel(lambda: sleep(7), reader)[1])

    assert _early(program).schedules == 2
    assert seen == {0.0, 7.0}


def test_a_limit_counts_from_the_announcement_also_where_the_wait_need_not_begin() -> None:
    """The lock is free as ``patient`` comes to it, but no more once the clock has moved on."""
    found: dict[str, set[object]] = {"dfs": set(), "dpor": set()}

    for strategy, seen in found.items():

        def program(seen: set[object] = seen) -> None:
            lock = Mutex("m")

            def patient() -> bool:
                with lock:
                    pass
                taken = lock.acquire(timeout=1)
                if taken:
                    lock.release()
                return taken

            def holder() -> None:
                sleep(2)
                lock.acquire()
                sleep(0)
                lock.release()

            seen.add(parallel(patient, holder)[0])

        report = explore(
            program, strategy, schedules=None, early_timeouts=True, stop_at_first=False
        )
        assert report.exhausted

    assert found["dpor"] == found["dfs"] == {False, True}


def test_to_announce_a_wait_is_to_be_on_the_list_before_the_signal() -> None:
    """A signal that finds a waiter is his; one that finds none stays up to be seen."""
    seen: set[object] = set()

    def program() -> None:
        event, cell = Event(auto_unsignal=True), Shared(0)

        def signal() -> bool:
            event.set()
            return event.is_set()

        def waiter() -> None:
            cell.set(1)
            event.wait()

        seen.add(parallel(signal, waiter)[0])

    report = passes(program, "dpor", schedules=None)

    assert seen == {False, True}
    assert (report.schedules, report.blocked) == (4, 0)


def test_a_deadlock_that_another_could_have_prevented_hides_nothing() -> None:
    """The owner's read makes it wait in a cycle, unless the waiter was interrupted before."""

    def program() -> None:
        queue, lock, cell = WaitQueue("q"), Mutex("m"), Shared(0)

        def owner() -> None:
            queue.assign_owner(current_thread())
            cell.get()
            with lock:
                pass
            queue.assign_owner(None)
            raise KeyError("the owner got through")

        def waiter() -> None:
            with lock:
                queue.block(interruptible=True)

        sleeping = spawn(waiter)
        parallel(owner, sleeping.interrupt)

    report = explore(program, "dpor", schedules=None, stop_at_first=False)

    assert found(every(program)) == found(report)
    assert {"deadlock", "exception"} <= set(report.failing)


@pytest.mark.parametrize("how", ["interrupt", "wake"])
def test_a_deadlock_that_another_would_have_broken_isfound(how: str) -> None:
    """The owner's wait closes a cycle through a queue, which the waker would have opened."""

    def program() -> None:
        queue, lock, cell = WaitQueue("q"), Mutex("m"), Shared(0)

        def owner() -> None:
            queue.assign_owner(current_thread())
            cell.get()
            with lock:
                pass
            queue.assign_owner(None)

        def waiter() -> None:
            with lock:
                queue.block(interruptible=True)

        sleeping = spawn(waiter)

        def waker() -> None:
            if how == "interrupt":
                sleeping.interrupt()
            else:
                queue.wake()
            cell.set(1)

        parallel(owner, waker)

    report = explore(program, "dpor", schedules=None, stop_at_first=False)

    assert found(every(program)) == found(report)
    assert "deadlock" in report.failing


def test_a_step_into_a_deadlock_may_be_the_way_past_it_once_another_has_gone_first() -> None:
    """It must not sleep: nothing that it touched tells that the waiter was woken meanwhile."""

    def program(seen: set[str]) -> None:
        queue, lock, cell = WaitQueue("q"), Mutex("m"), Shared(0)
        story: list[str] = []

        def owner() -> None:
            queue.assign_owner(current_thread())
            story.append("owned")
            cell.get()
            with lock:
                pass

        def waker() -> None:
            story.append(f"woke {queue.wake()}")

        def waiter() -> None:
            with lock:
                queue.block()
                story.append("woken")

        parallel(owner, waker, waiter)
        seen.add(" ".join(story))

    everything: set[str] = set()
    reached: set[str] = set()
    explore(partial(program, everything), "dfs", schedules=None, stop_at_first=False)
    report = explore(partial(program, reached), "dpor", schedules=None, stop_at_first=False)

    assert everything == reached
    assert (len(reached), report.blocked) == (3, 0)


@pytest.mark.parametrize("how", ["sem-acquire under a spinlock", "join under a class"])
def test_whether_a_wait_is_judged_hangs_on_what_is_waited_for(how: str) -> None:
    """Who waits with a lock held is told of as the wait begins, which it need not."""

    def program() -> None:
        permits, spin = Semaphore(1), SpinLock("s")
        classed = Mutex("m", LockClass("C"))

        def first() -> None:
            permits.acquire()

        def other() -> None:
            if how.startswith("sem"):
                with spin:
                    permits.acquire()
            else:
                with classed:
                    one.join()

        one = spawn(first)
        spawn(other).join()
        one.join()

    report = explore(program, "dpor", schedules=None, stop_at_first=False)

    assert "lock-order" in report.failing
    assert found(every(program)) == found(report)


def test_who_could_have_gone_first_before_time_went_on_does_in_another_schedule() -> None:
    seen: set[object] = set()

    def program() -> None:
        permits = Semaphore(1)

        def patient() -> bool:
            return permits.acquire(timeout=5)

        def sleeper() -> None:
            permits.acquire()
            sleep(9)
            permits.release()

        seen.add(parallel(patient, sleeper)[0])
        permits.release()

    report = explore(program, "dpor", schedules=None, stop_at_first=False)

    assert ({False}, {"lost-wakeup": 1}, 2) == (seen, report.failing, report.schedules)


@pytest.mark.parametrize(
    "judges", [None, lambda: (7,), lambda: ()], ids=["unknown", "both", "nothing"]
)
def test_an_invariant_of_every_step_sees_each_order_of_what_it_judges(
    judges: Callable[[], tuple[int, ...]] | None,
) -> None:
    """In no class of its own: the two writes do not depend on each other but for the invariant."""

    def program() -> None:
        x, y = Shared(0), Shared(0)
        invariant(lambda: x.peek() <= y.peek(), "x after y", judges=judges)
        parallel(lambda: x.set(1), lambda: y.set(1))

    def mirrored() -> None:
        x, y = Shared(0), Shared(0)
        invariant(lambda: x.peek() <= y.peek(), "x after y", judges=judges)
        parallel(lambda: y.set(1), lambda: x.set(1))

    failing = [
        sum(explore(p, "dpor", schedules=None, stop_at_first=False).failing.values())
        for p in (program, mirrored)
    ]
    # One that says that it judges nothing is believed, and so it is broken only by luck.
    assert sorted(failing) == ([0, 1] if judges is not None and not judges() else [1, 1])


def test_a_budget_that_runs_out_is_not_exhaustion() -> None:
    cell = Atomic(0)
    report = explore(lambda: parallel(*[cell.fetch_add] * 4), "dpor", schedules=23)
    whole = explore(lambda: parallel(*[cell.fetch_add] * 4), "dpor", schedules=25)

    assert (report.exhausted, report.schedules) == (False, 23)
    assert (whole.exhausted, whole.schedules) == (True, 24)
    assert whole.reason == "no failure in every schedule"


# -- within a bound -----------------------------------------------------------------------------


@pytest.mark.parametrize("bound", on_each({1}, range(3)))
def test_within_a_bound_it_finds_what_brute_force_finds_there(bound: int) -> None:
    reports = [_compare(draw(seed), preemptions=bound) for seed in range(20)]

    compared = [report for report in reports if report is not None]
    assert len(compared) >= 15
    assert sum(report.failure is not None for report in compared) >= 3


def test_a_bound_is_respected_and_said() -> None:
    def program() -> None:
        cell = Shared(0)

        def add() -> None:
            cell.set(cell.get() + 1)

        parallel(add, add)
        assert cell.peek() == 2

    none = explore(program, "dpor", schedules=None, preemptions=0)
    one = explore(program, "dpor", schedules=None, preemptions=1)

    assert (none.verdict, none.exhausted, none.preemptions) == ("pass", True, 0)
    assert none.reason == "no failure in every schedule with at most 0 preemptions"
    assert one.failure is not None
    assert one.failure.preemptions == 1


def test_within_a_bound_equal_states_are_searched_once() -> None:
    """Two threads that share nothing: brute force runs them in every order within the bound."""

    def program() -> None:
        cells = [Shared(0) for _ in range(2)]

        def write(i: int) -> None:
            for value in range(6):
                cells[i].set(value)

        parallel(lambda: write(0), lambda: write(1))

    brute = explore(program, "dfs", schedules=None, preemptions=6)
    report = explore(program, "dpor", schedules=None, preemptions=6)

    assert report.exhausted
    assert report.schedules * 5 < brute.schedules


# -- programs that are not deterministic, and what is left --------------------------------------


@pytest.mark.parametrize("bound", [None, 1])
def test_a_program_that_ends_before_its_time_is_nondeterministic(bound: int | None) -> None:
    """It goes on for one step less in every schedule."""
    runs = [6]

    def program() -> None:
        cell = Shared(0)

        def write() -> None:
            for value in range(runs[0]):
                cell.set(value)

        runs[0] -= 1
        parallel(write, write)

    report = explore(program, "dpor", schedules=4, preemptions=bound)

    assert report.failure is not None
    assert report.failure.kind == "nondeterminism"


@pytest.mark.parametrize("strategy", ["dfs", "dpor"])
def test_the_estimate_of_what_is_left_ends_at_nothing(strategy: str) -> None:
    told: list[tuple[int, float | None]] = []

    def program() -> None:
        cell = Atomic(0)
        parallel(*[cell.fetch_add] * 5)

    explore_part(
        program,
        Setup(strategy=strategy),
        1,
        None,
        progress=lambda schedules, _failures, left: told.append((schedules, left)),
    )

    lefts = [(schedules, left) for schedules, left in told if left is not None]
    assert lefts == told
    assert lefts[-1] == (120, 0.0)
    assert all(left < 2 * (120 - schedules) for schedules, left in lefts[:-1])
