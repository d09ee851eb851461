"""A strategy that knows its answer grants a lease: the running thread goes on without asking.

That must change nothing but the time: every step counts, whoever looks on sees them all, and what
makes the answer stale ends the lease.
"""

from __future__ import annotations

import contextlib
import gc
import random
import signal
import threading
from collections.abc import Callable
from functools import partial

import pytest

from harness import (
    Condition,
    Event,
    Mutex,
    Semaphore,
    Shared,
    SpinLock,
    UsageError,
    invariant,
    parallel,
    sleep,
    spawn,
    yield_now,
)
from harness.engine.core import CORE, Choose, Core
from harness.engine.thread import Thread
from harness.explore import Setup, explore_part
from harness.search.captured import free_part
from harness.search.stage import Stage, prepare
from harness.search.watch import Log
from harness.strategies.pct import sample
from harness.sync import current_schedule
from harness.trace.events import Story

Wrap = Callable[[Core, Choose], Choose]
Seen = tuple[list[int], int, int, int]


def busy() -> None:
    """Whatever starts, wakes, stops or delays a thread, between cells and locks that do not."""
    lock, other, cell, gate = Mutex("m"), SpinLock("s"), Shared(0, "c"), Semaphore(0, "gate")
    full = Condition(lock)

    def worker(rounds: int) -> None:
        for number in range(rounds):
            with lock:
                cell.set(cell.get() + 1)
                full.notify()
            if number % 2:
                yield_now()
            with other:
                cell.get()
            gate.release()
            cell.get()
            sleep(number % 3)

    def waiter() -> None:
        with lock:
            while cell.get() < 3:
                full.wait(timeout=2)
        for _ in range(4):
            gate.acquire()
            cell.get()

    threads = [spawn(worker, rounds) for rounds in (3, 4)] + [spawn(waiter)]
    for thread in threads:
        thread.join()


def run(
    wrap: Wrap, seed: int, *, strategy: str = "pct", schedules: int = 20, early: bool = False
) -> list[Seen]:
    """What schedules of ``busy`` are, where ``wrap`` is around the strategy's ``choose``."""
    setup = Setup(strategy=strategy, seed=seed, early_timeouts=early)
    seen: list[Seen] = []
    with Stage(5.0) as stage:
        decider = prepare(stage, busy, setup)
        for schedule in range(1, schedules + 1):

            def begin(core: Core, schedule: int = schedule) -> Choose:
                return wrap(core, decider.begin(core, schedule))

            core, _ = stage.run(busy, setup.rules(), setup.limits(), begin, schedule)
            assert core.finding is None
            assert core.cut is None
            seen.append((core.choices[:], core.steps, core.switches, core.preemptions))
    return seen


def asking(core: Core, inner: Choose) -> Choose:
    """Makes the strategy look at every step: no answer stands."""

    def choose() -> Thread:
        core.steady = core.lease = 0
        return inner()

    return choose


def decided(seen: list[Seen]) -> list[tuple[int, int, int]]:
    return [(steps, switches, preemptions) for _, steps, switches, preemptions in seen]


@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize(("strategy", "seed"), [("pct", 0), ("pct", 1), ("pct", 2), ("random", 0)])
def test_schedules_are_the_same_where_every_step_is_asked_for(
    strategy: str, seed: int, early: bool
) -> None:
    leased = run(lambda _, choose: choose, seed, strategy=strategy, early=early)
    asked = run(asking, seed, strategy=strategy, early=early)

    assert decided(leased) == decided(asked)
    for (mine, *_), (all_of_them, *_) in zip(leased, asked, strict=True):
        assert mine == all_of_them[: len(mine)]


@pytest.mark.parametrize("strategy", ["pct", "random"])
def test_a_thread_that_goes_on_need_not_ask(strategy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # A thread that an earlier test has abandoned leaves the engine on its guard: no leases then.
    monkeypatch.setattr(CORE, "__class__", Core)
    leases: list[tuple[int, int]] = []

    def alone() -> None:
        cell = Shared(0)
        for _ in range(100):
            cell.get()
            leases.append((CORE.steps, CORE.lease))

    limits = Setup(strategy=strategy, twice_every=0, steps_max=200)
    part = explore_part(alone, limits, 101, 102)
    assert part.steps == 200
    assert leases[-200:] == [(step, 200) for step in range(1, 101)] * 2


def test_whoever_looks_on_sees_every_step() -> None:
    logs: list[Log] = []

    def watched(core: Core, inner: Choose) -> Choose:
        logs.append(Log())
        return logs[-1].watching(core, inner)

    seen = run(watched, 1)
    assert [len(log.steps) for log in logs] == [steps for _, steps, _, _ in seen]


def test_an_invariant_is_checked_after_every_step_from_its_registration_on() -> None:
    checks: list[int] = []

    def program() -> None:
        cell = Shared(0)
        for _ in range(20):
            cell.get()
        if current_schedule():
            invariant(lambda: checks.append(CORE.steps))
        for _ in range(20):
            cell.get()

    explore_part(program, Setup(strategy="pct", twice_every=0), 101, 101)
    assert sorted(set(checks)) == list(range(20, 41))


def test_operations_inside_an_invariant_are_no_steps_under_a_lease_either() -> None:
    def program() -> None:
        cell = Shared(1)
        lock = Mutex("m", invariant=lambda: cell.get() > 0)
        for _ in range(10):
            with lock:
                pass

    part = explore_part(program, Setup(strategy="pct", twice_every=0), 101, 101)
    assert part.steps == 20


def test_whoever_is_woken_ends_a_lease() -> None:
    after: set[int] = set()

    def program() -> None:
        gate, cell = Event("gate"), Shared(0)
        woken: list[int] = []

        def sleeper() -> None:
            gate.wait()
            woken.append(CORE.steps)

        thread = spawn(sleeper)
        cell.get()
        gate.set()
        began = CORE.steps
        for _ in range(5):
            cell.get()
        thread.join()
        if current_schedule():  # no pilot
            after.add(woken[0] - began)

    part = explore_part(program, Setup(strategy="pct", depth=1, twice_every=0), 101, 140)
    assert not part.failures
    # At once where its priority is the higher one, else as soon as its waker waits for it.
    assert after == {1, 6}


@pytest.mark.parametrize(
    "strategy", ["mutate", "pct", "pos", "random", "round-robin", "surw", "urw"]
)
@pytest.mark.parametrize("together", [False, True])
def test_nothing_of_a_schedule_is_left_to_the_collector(strategy: str, together: bool) -> None:
    def program() -> None:
        lock, cell = Mutex("m"), Shared(0)

        def work() -> None:
            with lock:
                cell.set(cell.get() + 1)

        if together:
            parallel(work, work)
        else:
            for thread in [spawn(work), spawn(work)]:
                thread.join()

    setup = Setup(strategy=strategy)
    with Stage(5.0) as stage:
        decider = prepare(stage, program, setup)
        for schedule in range(1, 9):
            begin = partial(decider.begin, schedule=schedule)
            core, _ = stage.run(program, setup.rules(), setup.limits(), begin, schedule)
            assert core.finding is None
            if schedule == 1:
                gc.collect()  # what pilots left
        CORE.clear()  # as the next schedule would
        assert gc.collect() == 0


def test_an_interrupt_ends_a_lease() -> None:
    steps: list[int] = []

    def program() -> None:
        cell = Shared(0)
        for number in range(5_000):
            if number == 50 and current_schedule():
                signal.raise_signal(signal.SIGINT)
            cell.get()
            steps.append(CORE.steps)

    part = explore_part(program, Setup(strategy="pct"), 101, 101)
    assert part.cut == "interrupted"
    assert steps[-1] < 60


def test_a_thread_that_nobody_spawned_has_no_lease() -> None:
    def program() -> None:
        cell = Shared(0)

        def use() -> None:
            with contextlib.suppress(UsageError):
                cell.get()

        stranger = threading.Thread(target=use)
        for _ in range(10):
            cell.get()
        if current_schedule():
            stranger.start()
            stranger.join()
        for _ in range(10):
            cell.get()

    with pytest.raises(UsageError, match="did not start"):
        explore_part(program, Setup(strategy="pct"), 101, 101)


def test_no_lease_outlives_its_schedule_where_strangers_are_about() -> None:
    def program() -> None:
        cell = Shared(0)
        for _ in range(10):
            cell.get()
        if current_schedule():
            threading.Thread(target=int).start()

    explore_part(program, Setup(strategy="pct", twice_every=0), 101, 101)
    stories: list[Story] = []

    def freely() -> None:
        cell = Shared(0)
        for _ in range(10):
            cell.get()

    free_part(
        freely, Setup(mode="free"), 1, 1, sink=lambda _at, story, _times: stories.append(story)
    )
    assert [step.kind for step in stories[0].steps] == ["get"] * 10


def test_change_points_are_those_of_the_standard_library() -> None:
    for length in (1, 5, 21, 22, 23, 64, 200, 4_097):
        for count in range(min(length, 8)):
            mine, theirs = random.Random(length), random.Random(length)
            assert sample(mine, length, count) == theirs.sample(range(1, length + 1), count)
            assert mine.random() == theirs.random()
