"""Invariants: checked as often as they say, seen by nobody, and told as they broke."""

from __future__ import annotations

from collections.abc import Callable

from exploring import every, failure, passes

from harness import (
    Mutex,
    Shared,
    invariant,
    parallel,
)


def _transfer(register: Callable[[Callable[[], object], Mutex], None]) -> Callable[[], None]:
    """Moves 1 from one cell to another, in two steps, under a lock."""

    def program() -> None:
        lock = Mutex("m")
        left, right = Shared(5, "left"), Shared(5, "right")

        def sum_is_kept() -> None:
            total = left.peek() + right.peek()
            assert total == 10, f"left + right is {total}"

        register(sum_is_kept, lock)

        def move() -> None:
            with lock:
                left.set(left.get() - 1)
                right.set(right.get() + 1)

        parallel(move, move)

    return program


def test_an_invariant_of_every_step_is_broken_between_two_steps() -> None:
    found = failure(_transfer(lambda predicate, _: invariant(predicate)))

    assert "invariant" == found.kind
    assert "sum_is_kept: left + right is 9" == found.message.splitlines()[0]
    # parallel, acquire, get, set: broken by the fourth step.
    assert 4 == found.steps
    assert ("set", "left") == (found.trace()[-1].kind, found.trace()[-1].obj)


def test_an_invariant_of_a_lock_is_checked_at_its_release_only() -> None:
    passes(_transfer(lambda predicate, lock: invariant(predicate, every=lock)))


def test_an_invariant_at_rest_is_checked_at_the_end_only() -> None:
    passes(_transfer(lambda predicate, _: invariant(predicate, every="quiescent")))


def test_a_broken_lock_invariant_is_found_at_the_release() -> None:
    def program() -> None:
        cell = Shared(0, "cell")
        lock = Mutex("m", invariant=lambda: cell.peek() != 3)

        def count() -> None:
            for _ in range(2):
                with lock:
                    cell.set(cell.get() + 1)

        parallel(count, count)

    found = failure(program)
    assert "invariant" == found.kind
    assert "release" == found.trace()[-1].kind
    assert 3 == sum(step.kind == "set" for step in found.trace())


def test_a_broken_invariant_at_rest_is_found_at_the_end() -> None:
    def program() -> None:
        cell = Shared(0, "cell")
        invariant(lambda: cell.peek() == 2, "all counted", every="quiescent")

        def count() -> None:
            cell.set(cell.get() + 1)

        parallel(count, count)

    found = failure(program)
    assert "invariant" == found.kind
    assert "all counted" in found.message


def test_an_invariant_sees_no_switch_and_makes_no_step() -> None:
    def program() -> None:
        cell, lock = Shared(0, "cell"), Mutex("m")

        def reads() -> bool:
            return cell.get() == cell.get() and lock.acquire(blocking=False) in (True, False)

        def quiet() -> bool:
            return cell.get() <= 2

        invariant(quiet)
        parallel(lambda: cell.set(1), lambda: cell.set(2))

    report = every(program)
    assert not report.failing
    assert 3 * report.schedules == report.steps


def test_an_error_in_an_invariant_is_reported_as_an_exception() -> None:
    def program() -> None:
        cell = Shared(0, "cell")
        invariant(lambda: 1 // (1 - cell.peek()))
        parallel(lambda: cell.set(1), lambda: cell.get())

    found = failure(program)
    assert "exception" == found.kind
    assert "ZeroDivisionError" in found.message
