"""What the audit says of a log is what the live rules said of the run."""

from __future__ import annotations

import contextlib
import io
import json
import random
from collections.abc import Callable

import msgspec
import pytest
from pythons import on_each

from harness import (
    Condition,
    Event,
    Exploration,
    LockClass,
    LockFlags,
    Mutex,
    RwLock,
    Semaphore,
    Shared,
    SpinLock,
    WaitQueue,
    acquire_all,
    assert_held,
    assert_no_locks_held,
    explore,
    parallel,
    sleep,
    spawn,
)
from harness.lockorder import Finding
from harness.search.foresight import MISSED, REACHED
from harness.search.recording import record_part
from harness.search.setup import Setup
from harness.trace.locklog import LockLog
from harness.trace.logjudge import LogJudge

A, B, C = LockClass("A"), LockClass("B"), LockClass("C")
THREAD_LOCK = LockClass("T", flags=LockFlags.TRACKING_DISABLED | LockFlags.REPORTING_DISABLED)
IRQ = LockClass("I", flags=LockFlags.IRQ_SAFE)
NESTABLE = LockClass("N", flags=LockFlags.NESTABLE)
MULTI = LockClass("M", flags=LockFlags.MULTI_ACQUIRE)

PROGRAMS: dict[str, Callable[[], object]] = {}


def program(fn: Callable[[], object]) -> Callable[[], object]:
    PROGRAMS[fn.__name__] = fn
    return fn


@program
def inversion() -> None:
    a, b = Mutex("a", A), Mutex("b", B)

    def one() -> None:
        with a, b:
            pass

    def two() -> None:
        with b, a:
            pass

    parallel(one, two)


@program
def ring_of_three() -> None:
    locks = [Mutex(name, lock_class) for name, lock_class in zip("abc", (A, B, C), strict=True)]

    def at(index: int) -> None:
        with locks[index], locks[(index + 1) % 3]:
            pass

    for thread in [spawn(at, index, name=f"t{index}") for index in range(3)]:
        thread.join()


@program
def condition_under_another_lock() -> None:
    outer, mutex = Mutex("outer", A), Mutex("mutex", B)
    condition, ready = Condition(mutex, "condition"), Shared(0, "ready")

    def consumer() -> None:
        with outer, mutex:
            while not ready.get():
                condition.wait()

    def producer() -> None:
        with mutex:
            ready.set(1)
            condition.notify()

    parallel(consumer, producer)


@program
def waits_of_every_kind() -> None:
    lock, spin = Mutex("lock", A), SpinLock("spin", THREAD_LOCK)
    event, semaphore, queue = Event("event"), Semaphore(0, "semaphore"), WaitQueue("queue")

    def waiter() -> None:
        with lock:
            event.wait()
            semaphore.acquire()
            sleep(1.0)
            spin.acquire()
            queue.block(timeout=5.0, releasing=spin)
            spin.release()

    def waker() -> None:
        event.set()
        semaphore.release()
        with spin:
            queue.wake()

    one, two = spawn(waiter), spawn(waker)
    two.join()
    with Mutex("joiner", C):
        one.join()


@program
def queues_and_interrupts() -> None:
    lock, spin, queue = Mutex("lock", A), SpinLock("spin", B), WaitQueue("queue")

    def waiter() -> None:
        for _ in range(2):
            queue.block(timeout=1.0, interruptible=True)
            with spin:
                queue.block(timeout=1.0, interruptible=True, releasing=spin)
        with lock, spin:
            pass

    def waker() -> None:
        thread.interrupt()
        with spin:
            queue.wake()
            queue.wake_all()

    thread = spawn(waiter)
    spawn(waker).join()
    thread.join()


@program
def readers_and_writers() -> None:
    a, b = RwLock("a", A), RwLock("b", B)

    def reader() -> None:
        with a.read(), b.read():
            pass

    def other() -> None:
        with b.read(), a.read():
            pass

    def writer() -> None:
        with a.write():
            pass

    parallel(reader, other, writer)


@program
def a_reader_that_waits_for_a_writer() -> None:
    a, b = RwLock("a", A), RwLock("b", B)

    def reader() -> None:
        with a.read(), b.read():
            pass

    def writer() -> None:
        with b.write(), a.write():
            pass

    parallel(reader, writer)


@program
def tries_timeouts_and_orders() -> None:
    a, b, c = Mutex("a", A), Mutex("b", B), Mutex("c", C)
    nested = [Mutex(f"n{index}", NESTABLE) for index in range(3)]
    several = [Mutex(f"m{index}", MULTI) for index in range(3)]

    def trying() -> None:
        with a:
            if b.acquire(blocking=False):
                with c:
                    pass
                b.release()

    def timing() -> None:
        with b:
            if a.acquire(timeout=1.0):
                a.release()

    def nesting() -> None:
        for index, lock in enumerate(nested):
            lock.acquire(order=index + 1)
        for lock in nested:
            lock.release()
        with acquire_all(*several):
            pass

    parallel(trying, timing, nesting)


@program
def irq_and_same_class() -> None:
    spin, first, second = SpinLock("spin", IRQ), SpinLock("first", B), SpinLock("second", B)

    def run() -> None:
        with spin, first:
            with second:
                pass
            with second:
                pass

    parallel(run)


@program
def where_no_lock_may_be_held() -> None:
    lock, other = Mutex("lock", A), RwLock("other", B)

    def careful() -> None:
        with lock:
            assert_held(lock)
        assert_no_locks_held("rest")

    def careless() -> None:
        with other.read():
            assert_held(other)
            assert_no_locks_held("sleep")

    parallel(careful, careless)


@program
def waits_for_a_limited_time() -> None:
    lock, queue = Mutex("lock", A), WaitQueue("queue")
    condition = Condition(lock)

    def sleeping() -> None:
        with lock:
            queue.block(1.0, releasing=lock)
            condition.wait(1.0)
        queue.block(1.0)

    def waking() -> None:
        with lock:
            queue.wake()
        with lock:
            condition.notify()
        queue.wake()

    parallel(sleeping, waking)


def drawn(seed: int) -> Callable[[], object]:
    """A program of three threads that nest locks of all kinds at random, without any order."""

    def run() -> None:
        mutexes = [Mutex(f"m{i}", lock_class) for i, lock_class in enumerate((A, A, B, None))]
        rw = [RwLock(f"rw{i}", lock_class) for i, lock_class in enumerate((C, IRQ))]

        def worker(index: int) -> None:
            rng = random.Random(seed * 10 + index)
            with contextlib.ExitStack() as stack:
                for _ in range(rng.randint(1, 5)):
                    lock = rng.choice(mutexes)
                    if rng.random() < 0.3:
                        shared = rng.choice(rw)
                        stack.enter_context(rng.choice((shared.read, shared.write))())
                    elif rng.random() < 0.2:
                        if lock.acquire(timeout=rng.choice((0.0, 1.0))):
                            stack.callback(lock.release)
                    else:
                        stack.enter_context(lock)
                    if rng.random() < 0.2:
                        stack.close()

        for thread in [spawn(worker, index, name=f"w{index}") for index in range(3)]:
            thread.join()

    run.__name__ = f"drawn{seed}"
    return run


# On each Python; of the drawn ones, a few.
ON_EACH = [*PROGRAMS, "drawn0", "drawn1"]

for number in range(25):
    program(drawn(number))

SCHEDULES = 40


def logged(fn: Callable[[], object], *, early: bool = False) -> bytes:
    stream = io.BytesIO()
    with LockLog(stream) as log:
        record_part(
            fn,
            Setup("random", 3, early_timeouts=early),
            1,
            SCHEDULES,
            lambda schedule, _failure, story: log.story(f"{fn.__name__}#{schedule}", story),
        )
    return stream.getvalue()


def live(fn: Callable[[], object], *, early: bool = False) -> Exploration:
    report = explore(
        fn,
        "random",
        schedules=SCHEDULES,
        seed=3,
        stop_at_first=False,
        early_timeouts=early,
        predict=SCHEDULES,
    )
    assert report.schedules == SCHEDULES
    return report


def test_who_slept_on_a_queue_until_woken_is_not_logged_as_timed_out() -> None:
    def program() -> None:
        lock, queue = Mutex("lock"), WaitQueue("queue")

        def sleeping() -> None:
            with lock:
                queue.block(releasing=lock)
            queue.block()

        def waking() -> None:
            while not queue.wake():
                pass

        parallel(sleeping, waking, waking)

    lines = [json.loads(line) for line in logged(program).splitlines()]
    ends = [line[-1] for line in lines if isinstance(line, list) and line[3] == "wake"]
    slept = [extra for extra in ends if extra["what"] == "queue-block"]

    assert len(slept) == 2 * SCHEDULES
    assert not any("t" in extra for extra in slept)


@pytest.mark.parametrize(
    ("name", "early"),
    on_each(ON_EACH, [*((name, False) for name in PROGRAMS), ("waits_for_a_limited_time", True)]),
)
def test_the_audit_agrees_with_the_live_rules(name: str, *, early: bool) -> None:
    judge = LogJudge()
    judge.read("log", io.BytesIO(logged(PROGRAMS[name], early=early)))
    report = live(PROGRAMS[name], early=early)
    rules = report.lock_order

    assert judge.breaches == {}
    assert len(judge.runs) == SCHEDULES
    seen = {pair: (edge.modes, edge.count, edge.schedules) for pair, edge in rules.edges.items()}
    read = {pair: (e.modes, e.count, e.schedules) for pair, e in judge.rules.edges.items()}
    assert {pair: sorted(each[0]) for pair, each in read.items()} == {
        pair: sorted(each[0]) for pair, each in seen.items()
    }
    assert read == seen
    assert [said(f) for f in judge.rules.findings] == [said(f) for f in rules.findings]
    counted = [c for c in judge.deadlocks.found.values() if c.finding.tier != "observed"]
    assert [(c.finding.tier, c.finding, len(c.runs)) for c in counted] == [
        (*as_predicted(each.finding), each.schedules) for each in report.foreseen
    ]


def as_predicted(finding: Finding) -> tuple[str, Finding]:
    """What was said of a deadlock before it was run: the log says no more."""
    if finding.tier not in ("confirmed", "predicted"):
        return finding.tier, finding
    proof = finding.proof.removesuffix(f"; {REACHED}").removesuffix(f"; {MISSED}")
    return "predicted", msgspec.structs.replace(finding, tier="predicted", proof=proof)


def said(finding):
    sites = [(str(w.outer_site), str(w.inner_site), w.thread, w.schedule) for w in finding.edges]
    return (finding.rule, finding.result, finding.message, finding.schedule, sites)


@pytest.mark.parametrize("name", on_each(ON_EACH, PROGRAMS))
def test_the_same_schedules_give_the_same_bytes(name: str) -> None:
    assert logged(PROGRAMS[name]) == logged(PROGRAMS[name])
