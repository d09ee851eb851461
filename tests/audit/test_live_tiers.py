"""A run and the audit of its own log: the same rules, classes and tiers, of every finding."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from harness import (
    Event,
    Exploration,
    LockClass,
    LockFlags,
    Mutex,
    RwLock,
    SpinLock,
    assert_held,
    assert_no_locks_held,
    explore,
    parallel,
    sleep,
    spawn,
)
from harness.search.recording import record_part
from harness.search.setup import Setup
from harness.trace.locklog import LockLog
from stress.audit import AuditReport, audit_paths

A, B, C, D = map(LockClass, "ABCD")
LEAF = LockClass("L", flags=LockFlags.LEAF)
FATAL = LockClass("F", flags=LockFlags.RE_ACQUIRE_FATAL)
IRQ = LockClass("I", flags=LockFlags.IRQ_SAFE)
Body = Callable[[], object]

PROGRAMS: dict[str, Body] = {}

# What an exploration calls a failure where the audit has a rule.
KINDS = {
    "ORD002": "deadlock",
    "EVT003": "deadlock",
    "EVT002": "lost-wakeup",
    "LEAK001": "leak",
    "HELD001": "guard",
}
Found = list[tuple[str, tuple[str, ...], str]]


def program(fn: Body) -> Body:
    PROGRAMS[fn.__name__] = fn
    return fn


def nest(*locks: Mutex | SpinLock) -> Body:
    def run() -> None:
        for lock in locks:
            lock.acquire()
        for lock in reversed(locks):
            lock.release()

    return run


@program
def inversion() -> None:
    a, b = Mutex("a", A), Mutex("b", B)
    parallel(nest(a, b), nest(b, a))


@program
def one_after_the_other() -> None:
    a, b = Mutex("a", A), Mutex("b", B)
    spawn(nest(a, b)).join()
    spawn(nest(b, a)).join()


@program
def in_an_order_that_an_event_gives() -> None:
    a, b, event = Mutex("a", A), Mutex("b", B), Event("event")

    def second() -> None:
        event.wait()
        nest(b, a)()

    def first() -> None:
        nest(a, b)()
        event.set()

    parallel(first, second)


@program
def at_times_one_after_the_other() -> None:
    a, b, done = Mutex("a", A), Mutex("b", B), Event("done")

    def first() -> None:
        nest(a, b)()
        done.set()

    def second() -> None:
        done.wait(timeout=1.0)
        nest(b, a)()

    parallel(first, second)


@program
def guarded() -> None:
    a, b, guard = Mutex("a", A), Mutex("b", B), Mutex("guard", C)
    parallel(nest(guard, a, b), nest(guard, b, a))


@program
def one_thread() -> None:
    a, b = Mutex("a", A), Mutex("b", B)
    parallel(lambda: (nest(a, b)(), nest(b, a)()), lambda: None)


@program
def two_circles_that_one_edge_closes() -> None:
    a, b, c, d = (Mutex(each.name, each) for each in (A, B, C, D))
    for locks in ((a, b), (a, c), (b, d), (c, d), (d, a)):
        spawn(nest(*locks)).join()


@program
def a_join_under_the_lock() -> None:
    lock = Mutex("lock", A)
    child = spawn(nest(lock), name="child")
    with lock:
        child.join()


@program
def an_event_under_the_lock() -> None:
    lock, event = Mutex("lock", A), Event("event")

    def waits() -> None:
        with lock:
            event.wait()

    def sets() -> None:
        nest(lock)()
        event.set()

    parallel(waits, sets)


@program
def a_mutex_under_a_spin_lock() -> None:
    spin, mutex = SpinLock("spin", A), Mutex("mutex", B)
    parallel(nest(spin, mutex), nest(spin))


@program
def a_reader_under_a_spin_lock() -> None:
    spin, lock = SpinLock("spin", A), RwLock("lock", B)

    def run() -> None:
        with spin, lock.read():
            pass

    parallel(run, run)


@program
def a_wait_under_a_spin_lock() -> None:
    spin, event = SpinLock("spin", A), Event("event")

    def run() -> None:
        with spin:
            event.wait()

    parallel(run, event.set)


@program
def a_sleep_under_a_spin_lock() -> None:
    spin = SpinLock("spin", A)

    def run() -> None:
        with spin:
            sleep(1.0)

    parallel(run, run)


@program
def after_a_leaf() -> None:
    leaf, lock = Mutex("leaf", LEAF), Mutex("lock", B)
    parallel(nest(leaf, lock), nest(lock))


@program
def taken_again() -> None:
    lock = Mutex("lock", FATAL)
    parallel(nest(lock, lock), nest(lock))


@program
def safe_and_unsafe() -> None:
    safe, unsafe = SpinLock("safe", IRQ), SpinLock("unsafe", B)
    parallel(nest(safe, unsafe), nest(unsafe))


@program
def no_lock_may_be_held() -> None:
    lock = Mutex("lock", A)

    def run() -> None:
        with lock:
            assert_no_locks_held("here")

    parallel(run, nest(lock))


@program
def not_held() -> None:
    lock = Mutex("lock", A)
    parallel(lambda: assert_held(lock), nest(lock))


@program
def left_behind() -> None:
    lock = Mutex("lock", A)
    parallel(lock.acquire, lambda: None)


@program
def never_woken() -> None:
    event = Event("event")
    parallel(event.wait, lambda: None)


def audited(fn: Body, schedules: int, folder: Path) -> AuditReport:
    path = folder / "log.jsonl"
    with path.open("wb") as stream, LockLog(stream) as log:
        record_part(
            fn,
            Setup("random", 3),
            1,
            schedules,
            lambda schedule, _, story: log.story(f"{fn.__name__}#{schedule}", story),
        )
    return audit_paths([path])


def of_live(report: Exploration, *, foreseen: bool) -> tuple[Found, set[str]]:
    """The findings, and the kinds of what schedules ended in by themselves."""
    found = [(f.rule, f.classes, f.tier) for f in report.lock_order.findings]
    led = {each.failure.fingerprint for each in report.foreseen if each.failure is not None}
    for each in report.foreseen if foreseen else ():
        tier = each.finding.tier
        # The audit runs nothing here.
        tier = "predicted" if tier == "confirmed" else tier
        found.append((each.finding.rule, each.finding.classes, tier))
    ended = {f.kind for f in report.failures if f.fingerprint not in led} - {"lock-order"}
    return sorted(found), ended


def of_audit(report: AuditReport, *, foreseen: bool) -> tuple[Found, set[str]]:
    found, kinds = [], set()
    for each in report.findings:
        if each.tier == "observed" and each.rule in KINDS:
            kinds.add(KINDS[each.rule])
        elif foreseen or each.result != "Deadlock":
            found.append((each.rule, each.classes, each.tier))
    return sorted(found), kinds


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_audit_of_all_schedules_says_what_the_run_said(name: str, tmp_path: Path) -> None:
    fn = PROGRAMS[name]
    live = explore(fn, "random", schedules=12, seed=3, stop_at_first=False, predict=12)
    assert of_live(live, foreseen=True) == of_audit(audited(fn, 12, tmp_path), foreseen=True)


@pytest.mark.parametrize("name", PROGRAMS)
def test_what_ended_at_its_first_finding_gives_it_the_tier_of_the_audit(
    name: str, tmp_path: Path
) -> None:
    fn = PROGRAMS[name]
    live = explore(fn, "random", schedules=12, seed=3)
    report = audited(fn, live.schedules, tmp_path)
    found, ended = of_live(live, foreseen=False)
    assert (found, ended) == of_audit(report, foreseen=False)
    assert found or ended
    # So do the failure's own words, here and where its token is replayed.
    if name == "one_after_the_other":
        assert live.failure is not None
        said = "rule ORD001 (OutOfOrder), latent: its schedule cannot end in it"
        assert said in live.failure.text()


def test_an_exploration_that_went_on_claims_no_more_than_was_judged() -> None:
    report = explore(one_after_the_other, "random", schedules=9, seed=3, stop_at_first=False)
    assert [finding.tier for finding in report.lock_order.findings] == ["possible"]
