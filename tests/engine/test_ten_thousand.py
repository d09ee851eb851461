"""Ten thousand failing schedules of each kind in one process leave nothing behind."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from pythons import on_each

from harness import (
    Condition,
    Event,
    LockClass,
    LockFlags,
    Mutex,
    Semaphore,
    Shared,
    SpinLock,
    current_schedule,
    explore,
    guarded_by,
    invariant,
    parallel,
    spawn,
)
from harness.search import stage

SCHEDULES = 10_000
WARM_UP = 500
# What the allocator may keep; 10,000 leaked schedules of even 200 bytes would be more.
RSS_KIB_MAX = 1_024

# Outlive all schedules, so that each finds what the one before has left.
LOCK = Mutex("outer")
CONDITION = Condition(LOCK, "condition")
EVENT = Event("event", auto_unsignal=True)
GATE = Semaphore(0, "gate")


def _hold_and_wait() -> None:
    """Stands in the way of a clean end: holds a lock, sleeps in a condition inside another."""
    with Mutex("inner"), CONDITION:
        CONDITION.wait()


def assertion() -> None:
    cell = Shared(0)
    spawn(_hold_and_wait)
    cell.get()
    assert cell.get() == 1, "never"


def exception() -> None:
    cell = Shared(0)

    def breaks() -> None:
        cell.get()
        raise LookupError(f"in schedule {current_schedule()}")

    parallel(_hold_and_wait, breaks)


def deadlock() -> None:
    inner = Mutex("inner")

    def nest() -> None:
        with LOCK, inner:
            spawn(nested).join()

    def nested() -> None:
        with inner:
            pass

    parallel(nest)


def lost_wakeup() -> None:
    parallel(_hold_and_wait, EVENT.wait, GATE.acquire)


def livelock() -> None:
    cell = Shared(0)

    def turn() -> None:
        with LOCK:
            while True:
                cell.get()

    parallel(turn, cell.get)


def lock_order() -> None:
    leaf = Mutex(lock_class=LockClass("Leaf", flags=LockFlags.LEAF))
    other = Mutex(lock_class=LockClass("Other"))

    def wrong() -> None:
        with leaf, other:
            pass

    parallel(_hold_and_wait, wrong)


def spinning() -> None:
    def wrong() -> None:
        with SpinLock("spin"), LOCK:
            pass

    parallel(wrong, Shared(0).get)


class Guarded:
    field = guarded_by("_lock")

    def __init__(self) -> None:
        self._lock = LOCK
        self.field = 0


def guard() -> None:
    thing = Guarded()

    def wrong() -> None:
        with Mutex("another"):
            thing.field += 1

    parallel(_hold_and_wait, wrong)


def broken_invariant() -> None:
    cell = Shared(0)
    invariant(lambda: cell.peek() < 2, "below two")

    def count() -> None:
        with LOCK:
            cell.set(cell.get() + 1)

    parallel(count, count)


def leaked_thread() -> None:
    spawn(_hold_and_wait)
    spawn(EVENT.wait)


def leaked_lock() -> None:
    parallel(LOCK.acquire)


class Alternating:
    """Ends with two threads or three, by turns: never the same after the same choices."""

    def __init__(self) -> None:
        self.runs = 0

    def __call__(self) -> None:
        self.runs += 1
        cell = Shared(0)

        def work() -> None:
            for _ in range(9):
                cell.get()

        parallel(work, work)
        parallel(*[cell.get] * (2 + self.runs % 2))


CASES: dict[str, tuple[str, Callable[[], None], str]] = {
    "assertion": ("assertion", assertion, "random"),
    "exception": ("exception", exception, "random"),
    "deadlock": ("deadlock", deadlock, "random"),
    "lost-wakeup": ("lost-wakeup", lost_wakeup, "random"),
    "livelock": ("livelock", livelock, "round-robin"),
    "lock-order": ("lock-order", lock_order, "random"),
    "spinlock": ("lock-order", spinning, "random"),
    "guard": ("guard", guard, "random"),
    "invariant": ("invariant", broken_invariant, "random"),
    "leaked thread": ("leak", leaked_thread, "random"),
    "leaked lock": ("leak", leaked_lock, "random"),
    "nondeterminism": ("nondeterminism", Alternating(), "dfs"),
}
# Between them they end in every way that a schedule can; the others differ in who finds it.
ON_EACH_PYTHON = {"assertion", "deadlock", "lost-wakeup", "leaked thread", "leaked lock"}


def _rss_kib() -> int:
    """Resident memory now; 0 where the system does not say."""
    statm = Path("/proc/self/statm")
    if not statm.exists():
        return 0
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024


def _descriptors() -> int:
    folder = Path("/proc/self/fd")
    return len(list(folder.iterdir())) if folder.exists() else 0


def _run(program: Callable[[], None], strategy: str, kind: str, wanted: int) -> int:
    """Run until ``wanted`` schedules have failed; returns how many did."""
    # The alternating program fails in those that come back to a decision of the one before.
    schedules = wanted if kind != "nondeterminism" else 2 * wanted
    report = explore(program, strategy, schedules=schedules, steps_max=40, stop_at_first=False)
    assert {kind} == set(report.failing)
    assert len(report.failures) < 40
    return report.failing[kind]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", on_each(ON_EACH_PYTHON, CASES))
def test_ten_thousand_failures_leave_no_thread_no_lock_and_no_memory(
    name: str, record_property: Callable[[str, object], None]
) -> None:
    kind, program, strategy = CASES[name]
    _run(program, strategy, kind, WARM_UP)
    gc.collect()
    threads, descriptors, memory = len(sys._current_frames()), _descriptors(), _rss_kib()

    failing = _run(program, strategy, kind, SCHEDULES)
    gc.collect()

    grown = _rss_kib() - memory
    record_property("rss_growth_kib", grown)
    print(f"\n{kind}: {failing} failing schedules, memory grew by {grown} KiB")
    assert failing >= SCHEDULES
    assert threads == len(sys._current_frames())
    assert descriptors == _descriptors()
    assert LOCK.owner is None
    assert not LOCK.wanters
    assert not LOCK.checks
    assert not CONDITION.waiters
    assert not EVENT.wanters
    assert not GATE.wanters
    assert grown <= RSS_KIB_MAX


@pytest.mark.parametrize("name", on_each(ON_EACH_PYTHON, CASES))
def test_garbage_does_not_pile_up_within_an_exploration(name: str) -> None:
    """Whatever the schedules leave to the collector is collected now and then, all of it."""
    _, program, strategy = CASES[name]
    counts = []
    for schedules in (640, 2_560):
        gc.collect()
        before = len(gc.get_objects())
        explore(program, strategy, schedules=schedules, steps_max=40, stop_at_first=False)
        counts.append(len(gc.get_objects()) - before)

    # Four times the schedules leave no more behind than one time.
    assert counts[1] <= counts[0] + 200, counts


def test_garbage_does_not_pile_up_from_exploration_to_exploration(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What a stage leaves in circles is frozen, and so overlooked, in all the stages after it."""
    monkeypatch.setattr(stage, "_LEFT_MAX", 1_000)
    _, program, strategy = CASES["assertion"]
    counts = []
    for _ in range(3):
        for _ in range(16):
            explore(program, strategy, schedules=2, steps_max=40, stop_at_first=False)
        counts.append(len(gc.get_objects()))

    assert counts[2] <= counts[1] + 2_000, counts
