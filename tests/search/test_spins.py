"""Loops that only wait do not drown a search; all other loops are run as they stand."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
from pythons import on_each

from harness import (
    Atomic,
    Event,
    Mutex,
    Shared,
    WaitQueue,
    explore,
    parallel,
    replay,
    sleep,
    spawn,
    yield_now,
)
from harness.engine.thread import Thread
from harness.strategies import names, strategy_named
from harness.strategies.lookout import STEPS
from harness.strategies.spins import ROUNDS, Spins
from harness.sync import WaitResult, priority_scheduling

DRAWING = [name for name in names() if not strategy_named(name).sequential]
searches = pytest.mark.parametrize("strategy", ["dfs", "dpor"])


def _flag(wait: Callable[[Shared[bool]], object]) -> Callable[[], None]:
    def program() -> None:
        flag, data = Shared(False, "flag"), Shared(0, "data")

        def send() -> None:
            data.set(7)
            flag.set(True)

        def receive() -> int:
            wait(flag)
            return data.get()

        assert parallel(send, receive)[1] == 7

    return program


def _plainly(flag: Shared[bool]) -> None:
    while not flag.get():
        pass


def _politely(flag: Shared[bool]) -> None:
    while not flag.get():
        yield_now()


def _through_a_function(flag: Shared[bool]) -> None:
    def ready() -> bool:
        return flag.get()

    while True:
        if ready():
            break


class _Room:
    """Something with a list, that is made anew and has the same in it."""

    def __init__(self, beyond: _Room | None = None) -> None:
        self.things = [object()]
        self.beyond = beyond


def _beside_a_list_made_anew(flag: Shared[bool]) -> None:
    room = _Room()
    while not flag.get():
        room.things = list(room.things)


def _beside_one_that_is_farther_away(flag: Shared[bool]) -> None:
    room = _Room(_Room())
    while not flag.get():
        assert room.beyond is not None
        room.beyond.things = list(room.beyond.things)


@searches
@pytest.mark.parametrize(
    "wait",
    [
        _plainly,
        _politely,
        _through_a_function,
        _beside_a_list_made_anew,
        _beside_one_that_is_farther_away,
    ],
)
def test_a_loop_that_waits_for_a_flag_is_searched_to_the_end(
    strategy: str, wait: Callable[[Shared[bool]], object]
) -> None:
    report = explore(_flag(wait), strategy, schedules=3_000)

    assert (report.verdict, report.exhausted) == ("pass", True)
    assert report.schedules < 200
    assert report.steps < report.schedules * 40


@searches
def test_a_lock_made_of_compare_exchange_is_searched_to_the_end(strategy: str) -> None:
    def program() -> None:
        lock, cell = Atomic(0, "lock"), Shared(0, "cell")

        def add() -> None:
            while not lock.compare_exchange(0, 1):
                pass
            cell.set(cell.get() + 1)
            lock.store(0)

        parallel(add, add)
        assert cell.peek() == 2

    report = explore(program, strategy, schedules=3_000)

    assert (report.verdict, report.exhausted) == ("pass", True)


@searches
def test_a_bug_behind_a_spin_is_found(strategy: str) -> None:
    def program() -> None:
        flag, data = Shared(False, "flag"), Shared(0, "data")

        def send() -> None:
            flag.set(True)
            data.set(7)

        def receive() -> None:
            _plainly(flag)
            assert data.get() == 7

        parallel(send, receive)

    report = explore(program, strategy, schedules=3_000)

    assert report.failure is not None
    assert report.failure.kind == "assertion"


@searches
def test_where_everybody_spins_the_schedule_runs_into_its_bound(strategy: str) -> None:
    def program() -> None:
        left, right = Shared(False), Shared(False)

        def wait(mine: Shared[bool], other: Shared[bool]) -> None:
            _plainly(other)
            mine.set(True)

        parallel(lambda: wait(left, right), lambda: wait(right, left))

    report = explore(program, strategy, schedules=20, steps_max=100)

    assert (report.verdict, report.exhausted) == ("inconclusive", False)


def _patiently(event: Event, _queue: WaitQueue, _lock: Mutex) -> None:
    while not event.wait(1):
        pass


def _asleep(event: Event, queue: WaitQueue, lock: Mutex) -> None:
    with lock:
        while not event.is_set():
            queue.block(1, releasing=lock)


def _napping(event: Event, _queue: WaitQueue, _lock: Mutex) -> None:
    while not event.is_set():
        sleep(1)


@searches
@pytest.mark.parametrize("wait", [_patiently, _asleep, _napping])
@pytest.mark.parametrize("waiters", [1, 2])
def test_a_wait_that_times_out_again_and_again_does_not_drown_a_search(
    strategy: str, wait: Callable[[Event, WaitQueue, Mutex], None], waiters: int
) -> None:
    """Two of them do not wake each other for ever; their search is long, and so not run out."""

    def program() -> None:
        event, queue, lock = Event("e"), WaitQueue("q"), Mutex("m")

        def waker() -> None:
            with lock:
                event.set()
                queue.wake_all()

        parallel(waker, *[lambda: wait(event, queue, lock)] * waiters)

    schedules = 2_000 if waiters == 1 else 100
    report = explore(program, strategy, schedules=schedules, early_timeouts=True)

    assert report.verdict == "pass"
    assert report.exhausted or waiters == 2
    assert report.steps < report.schedules * 100


@searches
def test_a_bug_behind_an_early_timeout_is_found(strategy: str) -> None:
    """The waiter must be out of the queue for its time, and not yet back, as it is woken."""

    def program() -> None:
        queue, lock, state = WaitQueue("q"), Mutex("m"), Shared("asleep", "state")

        def waker() -> None:
            with lock:
                state.set("gone")
                queue.wake_all()

        def waiter() -> None:
            with lock:
                while queue.block(1, releasing=lock) is WaitResult.TIMED_OUT:
                    assert state.get() == "asleep", "woken, and nobody told"

        parallel(waiter, waker)

    report = explore(program, strategy, schedules=2_000, early_timeouts=True)

    assert report.failure is not None
    assert report.failure.kind == "assertion"
    assert report.steps < report.schedules * 100


@searches
def test_a_lock_made_of_exchange_is_searched_to_the_end(strategy: str) -> None:
    """To set what is set already changes nothing, whatever else a write may be."""

    def program() -> None:
        lock, cell = Atomic(False, "lock"), Shared(0, "cell")

        def add() -> None:
            while lock.exchange(True):
                pass
            cell.set(cell.get() + 1)
            lock.store(False)

        parallel(add, add)
        assert cell.peek() == 2

    report = explore(program, strategy, schedules=3_000, steps_max=200)

    assert (report.verdict, report.exhausted) == ("pass", True)


# -- loops that have an end of their own --------------------------------------------------------

# Far beyond what a spin is held after.
END = ROUNDS + 9


def _for_loop(cell: Shared[int]) -> None:
    for _ in [None] * (END):
        cell.get()


def _counting(cell: Shared[int]) -> None:
    rounds = 0
    while rounds < END:
        cell.get()
        rounds += 1


def _comprehension(cell: Shared[int]) -> None:
    assert [cell.get() for _ in [None] * (END)]


class _Tries:
    """Counts in a slot."""

    __slots__ = ("count", "unset")

    def __init__(self) -> None:
        self.count = 0


class _Patience:
    """Counts in an attribute, or in what an attribute holds."""

    def __init__(self) -> None:
        self.count = 0
        self.tries = _Tries()


def _in_an_attribute(cell: Shared[int]) -> None:
    patience = _Patience()
    while patience.count < END:
        cell.get()
        patience.count += 1


def _below_an_attribute(cell: Shared[int]) -> None:
    patience = _Patience()
    while patience.tries.count < END:
        cell.get()
        patience.tries.count += 1


def _in_a_list(cell: Shared[int]) -> None:
    rounds = [0]
    while rounds[0] < END:
        cell.get()
        rounds[0] += 1


def _in_a_dict(cell: Shared[int]) -> None:
    rounds: dict[str, list[None]] = {"rounds": []}
    while len(rounds["rounds"]) < END:
        cell.get()
        rounds["rounds"].append(None)


@searches
@pytest.mark.parametrize(
    "reads",
    [
        _for_loop,
        _counting,
        _comprehension,
        _in_an_attribute,
        _below_an_attribute,
        _in_a_list,
        _in_a_dict,
    ],
)
def test_other_loops_meet_a_write_at_each_of_their_rounds(
    strategy: str, reads: Callable[[Shared[int]], None]
) -> None:
    def program() -> None:
        cell = Shared(0)
        parallel(lambda: reads(cell), lambda: cell.set(1))

    report = explore(program, strategy, schedules=None)

    assert (report.schedules, report.blocked) == (END + 1, 0)


# -- strategies that draw look for spins once a schedule gets long ------------------------------

drawing = pytest.mark.parametrize("strategy", DRAWING)


def _spinners(work: int, spinners: int) -> Callable[[], None]:
    """One sets a flag after ``work`` steps and what it guards after that: too late."""

    def program() -> None:
        flag, data, cell = Shared(False, "flag"), Shared(0, "data"), Shared(0, "cell")

        def send() -> None:
            for i in range(work):
                cell.set(i)
            flag.set(True)
            data.set(7)

        def receive() -> None:
            _plainly(flag)
            assert data.get() == 7, "too early"

        parallel(send, *[receive] * spinners)

    return program


@drawing
def test_a_spin_gives_way_to_the_thread_it_waits_for(strategy: str) -> None:
    """``pct`` alone would let it spin up to the step bound, all others let it have its share."""
    report = explore(_flag(_plainly), strategy, schedules=40)

    assert report.verdict == "pass"
    assert report.steps < 40 * (STEPS + 50)


@drawing
def test_many_that_spin_leave_the_schedule_to_the_one_that_works(strategy: str) -> None:
    work = 400
    report = explore(_spinners(work, 9), strategy, schedules=8, stop_at_first=False)

    assert report.steps < 8 * (STEPS + 2 * work + 400)
    assert set(report.failing) <= {"assertion"}


@drawing
def test_a_bug_behind_a_long_spin_is_found_and_replays(strategy: str) -> None:
    program = _spinners(STEPS, 2)

    found = explore(program, strategy, schedules=60).failure

    assert found is not None
    assert found.kind == "assertion"
    again = replay(program, found.token)
    assert again is not None
    assert (again.digest, again.steps, again.preemptions) == (
        found.digest,
        found.steps,
        found.preemptions,
    )


@drawing
def test_threads_that_spin_for_each_other_are_a_livelock_still(strategy: str) -> None:
    def program() -> None:
        left, right = Shared(False), Shared(False)
        parallel(lambda: _plainly(left), lambda: _plainly(right))

    report = explore(program, strategy, schedules=16, steps_max=2 * STEPS)

    if strategy == "pct":  # not fair, so no proof
        assert (report.verdict, report.failure) == ("inconclusive", None)
        return
    assert report.failure is not None
    assert report.failure.kind == "livelock"
    assert replay(program, report.failure.token) is not None


@pytest.mark.parametrize("strategy", on_each({"urw"}, DRAWING))
def test_a_loop_that_only_seems_to_spin_is_slowed_not_stopped(strategy: str) -> None:
    """One counts its rounds out of sight; the other has no end before it, and is no spin."""

    def program() -> None:
        cell, over, rounds = Shared(0), Shared(False), [0]

        def count() -> None:
            while rounds[0] < STEPS * 3 // 4:
                cell.get()
                rounds[0] += 1
            over.set(True)

        def wait() -> None:
            turns = 0
            while not over.get():
                turns += 1

        parallel(count, wait)

    report = explore(program, strategy, schedules=2, steps_max=8_000)

    assert report.failure is None
    assert strategy == "pct" or report.verdict == "pass"


def test_an_urgent_spin_starves_what_it_waits_for() -> None:
    def program() -> None:
        flag = Shared(False)
        priority_scheduling()
        urgent = spawn(_plainly, flag, priority=1)
        flag.set(True)
        urgent.join()

    report = explore(program, "random", schedules=4, steps_max=3 * STEPS)

    assert report.failure is not None
    assert report.failure.kind == "livelock"


@drawing
def test_polling_under_a_lock_ends_by_its_sleep(strategy: str) -> None:
    """Virtual time stands still while anybody can run, so a sleep gives way to all others."""

    def program() -> None:
        lock, flag = Mutex("m"), Shared(False, "flag")

        def poll() -> None:
            while True:
                with lock:
                    if flag.get():
                        return
                sleep(1)

        def send() -> None:
            with lock:
                flag.set(True)

        parallel(poll, poll, send)

    for early in (False, True):
        report = explore(program, strategy, schedules=40, early_timeouts=early)

        assert report.verdict == "pass"
        assert report.steps < 40 * STEPS


@pytest.mark.parametrize("strategy", ["pct", "random"])
def test_a_schedule_without_a_spin_is_hardly_watched(
    strategy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Never before the first look; then a while after each of some looks, ever further apart."""
    watched = [0]
    choosing = Spins.choosing

    def counted(spins: Spins, enabled: list[Thread]) -> list[Thread]:
        watched[0] += 1
        return choosing(spins, enabled)

    monkeypatch.setattr(Spins, "choosing", counted)

    def program(rounds: int) -> None:
        cell = Shared(0)
        parallel(*[lambda: [cell.get() for _ in range(rounds)]] * 2)

    explore(partial(program, STEPS // 2 - 1), strategy, schedules=1)
    assert watched == [0]
    explore(partial(program, 10 * STEPS), strategy, schedules=1)
    assert 0 < watched[0] < (4 if strategy == "pct" else 16) * 4 * (STEPS + 1)
