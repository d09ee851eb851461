"""Schedules drawn by Hypothesis: programs and schedules shrink together, the same every time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable

from harness import LockClass, Mutex, ScheduleFailure, Shared, UsageError, parallel, replay, spawn
from harness.drawn import Schedule, schedules

# The same examples in every run, and nothing is kept.
FIXED = settings(
    derandomize=True,
    deadline=None,
    database=None,
    max_examples=300,
    phases=(Phase.generate, Phase.shrink),
)
Lane = Sequence[tuple[str, int]]


class Account:
    """Adding is atomic; doubling reads, lets go of the lock, and writes."""

    def __init__(self) -> None:
        self._mutex = Mutex("account")
        self.balance = Shared(0, "balance")

    def add(self, amount: int) -> None:
        with self._mutex:
            self.balance.set(self.balance.get() + amount)

    def double(self, _amount: int) -> None:
        with self._mutex:
            before = self.balance.get()
        with self._mutex:
            self.balance.set(2 * before)


def outcomes(one: Lane, two: Lane, balance: int = 0) -> set[int]:
    """What the balance may be in the end, if operations were atomic."""
    found = set()
    for first, rest, other in ((one[:1], one[1:], two), (two[:1], two[1:], one)):
        for name, amount in first:
            after = balance + amount if name == "add" else 2 * balance
            found |= outcomes(rest, other, after)
    return found or {balance}


def bank(one: Lane, two: Lane) -> Callable[[], None]:
    def program() -> None:
        account = Account()

        def work(lane: Lane) -> None:
            for name, amount in lane:
                getattr(account, name)(amount)

        parallel(lambda: work(one), lambda: work(two))
        assert account.balance.get() in outcomes(one, two)

    return program


def shrunk() -> tuple[Lane, Lane, Schedule, str]:
    """What Hypothesis leaves of the failing example that it finds first, and its token."""
    last: list[tuple[Lane, Lane, Schedule]] = []
    operation = st.tuples(st.sampled_from(["add", "double"]), st.integers(1, 9))
    lane = st.lists(operation, max_size=4)

    @FIXED
    @given(lane, lane, schedules())
    def race(one: Lane, two: Lane, schedule: Schedule) -> None:
        last[:] = [(one, two, schedule)]
        schedule.run(bank(one, two))

    with pytest.raises(ScheduleFailure) as caught:
        race()
    return *last[0], caught.value.failure.token


@pytest.mark.once
def test_a_planted_race_shrinks_to_its_least_program_and_schedule_every_time() -> None:
    one, two, schedule, token = shrunk()
    again = replay(bank(one, two), token)

    # Doubling nothing is the one operation that can lose another, by one preemption after its read.
    assert [[("add", 1)], [("double", 1)]] == sorted(map(list, (one, two)))
    assert 1 == len(schedule.deviations)
    assert again is not None
    assert ("assertion", 1) == (again.kind, again.preemptions)
    assert (one, two, schedule, token) == shrunk()


def test_a_deviation_takes_another_thread_and_everything_else_goes_by_default() -> None:
    taken: list[str] = []

    def program() -> None:
        taken.clear()
        cell = Shared(0)

        def work(name: str) -> None:
            for _ in range(2):
                cell.get()
                taken.append(name)

        parallel(*(lambda name=name: work(name) for name in "abc"))

    for schedule, order in (
        (Schedule(), "ccaabb"),
        (Schedule((1, 1)), "caabbc"),
        (Schedule((1, 2)), "cbbaac"),
        (Schedule((0, 99)), "bbaacc"),
        (Schedule((1, 1), (0, 1)), "cabbac"),
        (Schedule((3, 1)), "ccabba"),
        (Schedule((4, 1)), "ccaabb"),
    ):
        schedule.run(program, nearby=0)
        assert order == "".join(taken), schedule


def fails(program: Callable[[], None], *deviations: tuple[int, int], patch: bool = False) -> str:
    with pytest.raises(ScheduleFailure) as caught:
        Schedule(*deviations).run(program, patch=patch)
    assert replay(program, caught.value.failure.token) is not None
    return type(caught.value).__name__


def test_each_kind_of_failure_has_a_type_of_its_own_and_comes_from_the_programs_error() -> None:
    def crossed(*classes: LockClass) -> Callable[[], None]:
        def program() -> None:
            one, two = (Mutex(name, kind) for name, kind in zip("ab", classes, strict=False))

            def cross(first: Mutex, second: Mutex) -> None:
                with first, second:
                    pass

            parallel(lambda: cross(one, two), lambda: cross(two, one))

        return program

    def plain() -> None:
        one, two = threading.Lock(), threading.Lock()

        def cross(first: threading.Lock, second: threading.Lock) -> None:
            with first, second:
                pass

        threads = [threading.Thread(target=cross, args=pair) for pair in ((one, two), (two, one))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def broken() -> None:
        spawn(dict[str, int]().__getitem__, "nothing").join()

    classes = LockClass("A"), LockClass("B")
    # None of the deviations is needed for the order of classes, which every schedule breaks.
    assert "LockOrderFailure" == fails(crossed(*classes))
    assert "DeadlockFailure" == fails(plain, (3, 1), patch=True)
    with pytest.raises(ScheduleFailure) as caught:
        Schedule().run(broken)
    assert isinstance(caught.value.__cause__, KeyError)
    assert "ExceptionFailure" == type(caught.value).__name__


def test_a_schedule_that_comes_to_no_end_is_rejected_and_is_no_pass() -> None:
    def program() -> None:
        flag = Shared(value=False)

        def spin() -> None:
            while not flag.get():
                pass

        parallel(lambda: flag.set(True), spin)

    @settings(FIXED, max_examples=20)
    @given(st.just(Schedule()))
    def spins(schedule: Schedule) -> None:
        schedule.run(program, steps_max=200)

    with pytest.raises(Unsatisfiable):
        spins()


def test_the_last_deviation_is_tried_earlier_too_and_counts_from_the_end_where_it_lies_behind() -> (
    None
):
    tried: list[str] = []

    def program() -> None:
        cell, taken = Shared(0), list[str]()

        def work(name: str) -> None:
            for _ in range(3):
                cell.get()
                taken.append(name)

        parallel(*(lambda name=name: work(name) for name in "ab"))
        tried.append("".join(taken))

    for schedule, nearby, orders in (
        (Schedule((2, 1)), 0, ["bbaaab"]),
        (Schedule((2, 1)), 1, ["bbaaab", "baaabb"]),
        (Schedule((2, 1)), 9, ["bbaaab", "baaabb", "aaabbb"]),
        (Schedule((0, 1), (50, 1)), 1, ["aaabbb", "aabbba", "abbbaa"]),
        (Schedule(), 9, ["bbbaaa"]),
    ):
        tried.clear()
        schedule.run(program, nearby=nearby)
        assert orders == tried


def test_what_cannot_work_is_refused() -> None:
    with pytest.raises(UsageError, match=r"which other thread, from 1\), got \(1, 0\)"):
        Schedule((1, 0))
    with pytest.raises(UsageError, match="deviations and distance must be at least 1"):
        schedules(deviations=0)
    assert "Schedule((3, 1), (0, 2))" == repr(Schedule((3, 1), (0, 2)))
    assert Schedule((3, 1)) == eval(repr(Schedule((3, 1))))
