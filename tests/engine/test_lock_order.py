"""Findings of the lock rules: which of them end their schedule, and what their tokens replay."""

from __future__ import annotations

from exploring import every, failure

from harness import (
    Atomic,
    LockClass,
    LockFlags,
    Mutex,
    Shared,
    SpinLock,
    assert_no_locks_held,
    explore,
    parallel,
    replay,
    spawn,
)


def _opposite_orders_one_after_the_other() -> None:
    a, b = Mutex(lock_class=LockClass("A")), Mutex(lock_class=LockClass("B"))
    cell = Shared(0)

    def forwards() -> None:
        with a, b:
            cell.get()

    def backwards() -> None:
        with b, a:
            cell.get()

    spawn(forwards).join()
    spawn(backwards).join()
    parallel(cell.get, cell.get)


def test_a_lock_order_finding_does_not_end_the_schedule() -> None:
    report = every(_opposite_orders_one_after_the_other)

    assert "fail" == report.verdict
    assert report.failure is not None
    assert "lock-order" == report.failure.kind
    assert "A" in report.failure.message
    assert "B" in report.failure.message
    assert report.schedules > 1
    assert not report.failing.get("deadlock")


def test_a_lock_order_finding_replays_alone() -> None:
    """Its token carries what earlier schedules contributed."""

    def program() -> None:
        a, b = Mutex(lock_class=LockClass("A")), Mutex(lock_class=LockClass("B"))
        first = Atomic(True)

        def one() -> None:
            if first.exchange(False):
                with a, b:
                    pass

        def two() -> None:
            if first.exchange(False):
                with b, a:
                    pass

        parallel(one, two)

    report = explore(program, "random", schedules=100, stop_at_first=False)

    assert report.failure is not None
    again = replay(program, report.failure.token)
    assert again is not None
    assert ("lock-order", report.failure.digest) == (again.kind, again.digest)


def test_blocking_under_a_spinlock_ends_the_schedule() -> None:
    def program() -> None:
        spin, lock = SpinLock("spin"), Mutex("m")

        def wrong() -> None:
            with spin, lock:
                pass

        parallel(wrong)

    found = failure(program)
    assert "lock-order" == found.kind
    assert "wrong would block in acquire while it holds the spinlock spin" in found.message


def test_taking_any_lock_under_a_leaf_lock_ends_the_schedule() -> None:
    def program() -> None:
        leaf = Mutex(lock_class=LockClass("Leaf", flags=LockFlags.LEAF))
        other = Mutex(lock_class=LockClass("Other"))
        reached = []

        def wrong() -> None:
            with leaf, other:
                reached.append(1)

        parallel(wrong)

    found = failure(program)
    assert "lock-order" == found.kind
    assert "Leaf" in found.message


def test_holding_a_lock_where_none_may_be_held_ends_the_schedule() -> None:
    def program() -> None:
        lock = Mutex(lock_class=LockClass("Held"))

        def wrong() -> None:
            with lock:
                assert_no_locks_held("entering user space")

        parallel(wrong)

    found = failure(program)
    assert "lock-order" == found.kind
    assert "Held" in found.message
    assert "entering user space" in found.message
