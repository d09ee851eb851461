"""Every operation of every primitive, as data: the conformance suite runs through these tables.

A new primitive or method enters the suite by a line here; a test fails for one that has none.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from harness import (
    Atomic,
    Barrier,
    BrokenBarrierError,
    Condition,
    Event,
    Mutex,
    RwLock,
    Semaphore,
    Shared,
    SpinLock,
    Thread,
    WaitQueue,
    current_thread,
    parallel,
    sleep,
    spawn,
)

Act = Callable[[Any], object]


def nothing(_object: Any) -> None:
    """Where there is nothing to do."""


@dataclass(frozen=True)
class Operation:
    """One operation that changes something.

    Attributes:
        name: ``Class.method``, or the function's name; a remark may follow after a blank.
        make: The object, ready for the operation; called by the main thread of the program.
        act: The operation.
        state: What it changes, read without a schedule point.
        before: State until it takes effect.
        after: State once it is over.
        kinds: Its steps, where nobody disturbs it.
        during: States while it is pending or waits; ``before`` is always one.
        prepare: What the acting thread does first.
        finish: What it does afterwards, so that nothing leaks.
        close: What the main thread does at the end.
    """

    name: str
    make: Callable[[], Any]
    act: Act
    state: Act
    before: object
    after: object
    kinds: tuple[str, ...]
    during: tuple[object, ...] = ()
    prepare: Act = nothing
    finish: Act = nothing
    close: Act = nothing

    def __str__(self) -> str:
        return self.name


class _Asleep:
    """Something with a thread asleep in it."""

    def __init__(self, place: Any, doze: Callable[[], object]) -> None:
        self.place = place
        self.thread = spawn(doze, name="sleeper")

    def wake(self) -> None:
        self.thread.join()


def _condition_with_sleeper() -> _Asleep:
    condition = Condition(Mutex("m"), "c")
    arrived = Semaphore(0)

    def doze() -> None:
        with condition:
            arrived.release()
            condition.wait()

    asleep = _Asleep(condition, doze)
    arrived.acquire()
    return asleep


def _queue_with_sleeper() -> _Asleep:
    queue, lock, arrived = WaitQueue("q"), Mutex("m"), Semaphore(0)

    def doze() -> None:
        with lock:
            arrived.release()
            queue.block(releasing=lock)

    asleep = _Asleep(queue, doze)
    arrived.acquire()
    with lock:
        return asleep


def _set_event(*, auto: bool) -> Event:
    event = Event("e", auto_unsignal=auto)
    event.set()
    return event


def _aborted_barrier() -> Barrier:
    barrier = Barrier(2, name="b")
    barrier.abort()
    return barrier


def _quietly(barrier: Barrier) -> None:
    with contextlib.suppress(BrokenBarrierError):
        barrier.wait(1)


def _free(lock: Any) -> bool:
    return lock.owner is None


def _lock_operations(kind: type[Mutex | SpinLock]) -> list[Operation]:
    name = kind.__name__

    def take(lock: Any) -> None:
        lock.acquire()

    def drop(lock: Any) -> None:
        lock.release()

    def make() -> Any:
        return kind("m")

    def attempt(lock: Any) -> None:
        lock.acquire(blocking=False)

    def in_time(lock: Any) -> None:
        lock.acquire(timeout=1)

    acquire = ("acquire",)
    return [
        Operation(f"{name}.acquire", make, take, _free, True, False, acquire, finish=drop),
        Operation(
            f"{name}.acquire attempt",
            make,
            attempt,
            _free,
            True,
            False,
            ("try-acquire",),
            finish=drop,
        ),
        Operation(f"{name}.acquire timed", make, in_time, _free, True, False, acquire, finish=drop),
        Operation(f"{name}.release", make, drop, _free, False, True, ("release",), prepare=take),
    ]


def _rw_operations() -> list[Operation]:
    def entered(lock: RwLock) -> tuple[bool, int]:
        return lock.writer is not None, len(lock.readers)

    operations = []
    for writes, inside in ((True, (True, 0)), (False, (False, 1))):
        kind = "write" if writes else "read"

        def enter(lock: RwLock, writes: bool = writes) -> None:
            lock.acquire(writes=writes)

        def leave(lock: RwLock, writes: bool = writes) -> None:
            lock.release(writes=writes)

        operations += [
            Operation(
                f"RwLock.acquire {kind}",
                lambda: RwLock("rw"),
                enter,
                entered,
                (False, 0),
                inside,
                (f"{kind}-acquire",),
                finish=leave,
            ),
            Operation(
                f"RwLock.release {kind}",
                lambda: RwLock("rw"),
                leave,
                entered,
                inside,
                (False, 0),
                (f"{kind}-release",),
                prepare=enter,
            ),
        ]
    return operations


def _condition_operations() -> list[Operation]:
    def make() -> Condition:
        return Condition(Mutex("m"), "c")

    def free(condition: Condition) -> bool:
        return condition.mutex.owner is None

    def acquire(condition: Condition) -> None:
        condition.acquire()

    def release(condition: Condition) -> None:
        condition.release()

    def sleepers(asleep: _Asleep) -> int:
        return len(asleep.place.waiters)

    wait = ("wait", "re-acquire")
    held: dict[str, Any] = {"prepare": acquire, "finish": release}
    found: dict[str, Any] = {
        "prepare": lambda asleep: asleep.place.acquire(),
        "finish": lambda asleep: asleep.place.release(),
        "close": _Asleep.wake,
    }
    return [
        Operation(
            "Condition.acquire", make, acquire, free, True, False, ("acquire",), finish=release
        ),
        Operation(
            "Condition.release", make, release, free, False, True, ("release",), prepare=acquire
        ),
        Operation(
            "Condition.wait", make, lambda c: c.wait(1), free, False, False, wait, (True,), **held
        ),
        Operation(
            "Condition.wait_for",
            make,
            lambda c: c.wait_for(lambda: False, 1),
            free,
            False,
            False,
            wait,
            (True,),
            **held,
        ),
        Operation(
            "Condition.notify",
            _condition_with_sleeper,
            lambda asleep: asleep.place.notify(),
            sleepers,
            1,
            0,
            ("notify",),
            **found,
        ),
        Operation(
            "Condition.notify_all",
            _condition_with_sleeper,
            lambda asleep: asleep.place.notify_all(),
            sleepers,
            1,
            0,
            ("notify",),
            **found,
        ),
    ]


def _queue_operations() -> list[Operation]:
    def sleepers(asleep: _Asleep) -> int:
        return len(asleep.place.waiters)

    def releasing(pair: tuple[WaitQueue, Mutex]) -> None:
        pair[0].block(1, releasing=pair[1])

    return [
        Operation(
            "WaitQueue.block",
            lambda: WaitQueue("q"),
            lambda queue: queue.block(1),
            lambda queue: len(queue.waiters),
            0,
            0,
            ("queue-block", "queue-block"),
            (1,),
        ),
        Operation(
            "WaitQueue.block releasing",
            lambda: (WaitQueue("q"), Mutex("m")),
            releasing,
            lambda pair: (len(pair[0].waiters), _free(pair[1])),
            (0, False),
            (0, False),
            ("queue-block", "re-acquire"),
            ((1, True), (0, True)),
            prepare=lambda pair: pair[1].acquire(),
            finish=lambda pair: pair[1].release(),
        ),
        Operation(
            "WaitQueue.wake",
            _queue_with_sleeper,
            lambda asleep: asleep.place.wake(),
            sleepers,
            1,
            0,
            ("queue-wake",),
            close=_Asleep.wake,
        ),
        Operation(
            "WaitQueue.wake_all",
            _queue_with_sleeper,
            lambda asleep: asleep.place.wake_all(),
            sleepers,
            1,
            0,
            ("queue-wake",),
            close=_Asleep.wake,
        ),
        Operation(
            "WaitQueue.assign_owner",
            lambda: WaitQueue("q"),
            lambda queue: queue.assign_owner(current_thread()),
            lambda queue: queue.owner is None,
            True,
            False,
            ("queue-assign",),
            finish=lambda queue: queue.assign_owner(None),
        ),
    ]


class _Started:
    """What ``spawn`` and ``parallel`` start."""

    def __init__(self) -> None:
        self.begun = 0
        self.thread: Thread | None = None

    def begin(self) -> None:
        self.begun += 1

    def spawn(self) -> None:
        self.thread = spawn(self.begin, name="child")

    def parallel(self) -> None:
        parallel(self.begin, names=["child"])

    def join(self) -> None:
        assert self.thread is not None
        self.thread.join()


def _cell_operations() -> list[Operation]:
    def value(cell: Any) -> object:
        return cell.peek()

    def atomic() -> Atomic[int]:
        return Atomic(1, "a")

    return [
        Operation("Shared.set", lambda: Shared(1, "s"), lambda s: s.set(2), value, 1, 2, ("set",)),
        Operation("Atomic.store", atomic, lambda a: a.store(2), value, 1, 2, ("store",)),
        Operation("Atomic.exchange", atomic, lambda a: a.exchange(2), value, 1, 2, ("exchange",)),
        Operation(
            "Atomic.compare_exchange",
            atomic,
            lambda a: a.compare_exchange(1, 2),
            value,
            1,
            2,
            ("compare-exchange",),
        ),
        Operation("Atomic.fetch_add", atomic, lambda a: a.fetch_add(), value, 1, 2, ("fetch-add",)),
    ]


def _signal_operations() -> list[Operation]:
    def peek(thing: Any) -> object:
        return thing.peek()

    return [
        Operation(
            "Event.set", lambda: Event("e"), lambda e: e.set(), peek, False, True, ("event-set",)
        ),
        Operation(
            "Event.clear",
            lambda: _set_event(auto=False),
            lambda e: e.clear(),
            peek,
            True,
            False,
            ("event-clear",),
        ),
        Operation(
            "Event.wait auto",
            lambda: _set_event(auto=True),
            lambda e: e.wait(),
            peek,
            True,
            False,
            ("event-wait",),
        ),
        Operation(
            "Semaphore.acquire",
            lambda: Semaphore(1, "s"),
            lambda s: s.acquire(),
            peek,
            1,
            0,
            ("sem-acquire",),
        ),
        Operation(
            "Semaphore.release",
            lambda: Semaphore(1, "s"),
            lambda s: s.release(2),
            peek,
            1,
            3,
            ("sem-release",),
        ),
        Operation(
            "Barrier.wait",
            lambda: Barrier(2, name="b"),
            _quietly,
            lambda b: (b.n_waiting, b.broken),
            (0, False),
            (0, True),
            ("barrier-arrive", "barrier-leave"),
            ((1, False),),
        ),
        Operation(
            "Barrier.abort",
            lambda: Barrier(2, name="b"),
            lambda b: b.abort(),
            lambda b: b.broken,
            False,
            True,
            ("barrier-abort",),
        ),
        Operation(
            "Barrier.reset",
            _aborted_barrier,
            lambda b: b.reset(),
            lambda b: b.broken,
            True,
            False,
            ("barrier-reset",),
        ),
    ]


def _thread_operations() -> list[Operation]:
    return [
        Operation(
            "spawn",
            _Started,
            _Started.spawn,
            lambda s: s.begun,
            0,
            1,
            ("spawn",),
            finish=_Started.join,
        ),
        Operation("parallel", _Started, _Started.parallel, lambda s: s.begun, 0, 1, ("parallel",)),
        Operation(
            "Thread.interrupt",
            current_thread,
            lambda thread: thread.interrupt(),
            lambda thread: thread.interrupted,
            False,
            True,
            ("interrupt",),
        ),
    ]


OPERATIONS = [
    *_lock_operations(Mutex),
    *_lock_operations(SpinLock),
    *_rw_operations(),
    *_condition_operations(),
    *_queue_operations(),
    *_cell_operations(),
    *_signal_operations(),
    *_thread_operations(),
]


@dataclass(frozen=True)
class Reading:
    """One operation that changes nothing: it sees what others did while it was pending."""

    name: str
    make: Callable[[], Any]
    read: Act
    write: Act
    old: object
    new: object
    kind: str

    def __str__(self) -> str:
        return self.name


READINGS = [
    Reading(
        "Mutex.locked", Mutex, lambda m: m.locked(), lambda m: m.acquire(), False, True, "locked"
    ),
    Reading(
        "Mutex.acquire attempt that fails",
        Mutex,
        lambda m: m.acquire(blocking=False) and m.release() is None,
        lambda m: m.acquire(),
        True,
        False,
        "try-acquire",
    ),
    Reading(
        "SpinLock.locked",
        SpinLock,
        lambda m: m.locked(),
        lambda m: m.acquire(),
        False,
        True,
        "locked",
    ),
    Reading(
        "Event.is_set", Event, lambda e: e.is_set(), lambda e: e.set(), False, True, "event-is-set"
    ),
    Reading("Shared.get", lambda: Shared(0), lambda s: s.get(), lambda s: s.set(1), 0, 1, "get"),
    Reading(
        "Atomic.load", lambda: Atomic(0), lambda s: s.load(), lambda s: s.store(1), 0, 1, "load"
    ),
    Reading(
        "Atomic.compare_exchange that fails",
        lambda: Atomic(0),
        lambda a: a.compare_exchange(1, 1),
        lambda a: a.store(1),
        False,
        True,
        "compare-exchange",
    ),
    Reading(
        "Semaphore.acquire attempt",
        lambda: Semaphore(0),
        lambda s: s.acquire(blocking=False),
        lambda s: s.release(),
        False,
        True,
        "sem-acquire",
    ),
]


@dataclass(frozen=True)
class Blocking:
    """One operation that waits until another thread acts.

    Attributes:
        name: As for ``Operation``.
        make: The object; may be made outside of a schedule.
        hold: What the other thread does before the waiter starts.
        wait: What the waiter does; its last operation blocks.
        free: What the other thread does to let it go on; its last operation does.
        frees: Kind of the operation that lets it go on.
        steps: How many steps the waiter takes in all, never more.
        clean: Whether the object is as new; read without a schedule point.
    """

    name: str
    make: Callable[[], Any]
    hold: Act
    wait: Act
    free: Act
    frees: str
    steps: int
    clean: Callable[[Any], bool]

    def __str__(self) -> str:
        return self.name


def _condition_wait(condition: Condition) -> None:
    with condition:
        condition.wait()


def _condition_notify(condition: Condition) -> None:
    with condition:
        condition.notify()


def _block_releasing(pair: tuple[WaitQueue, Mutex]) -> None:
    with pair[1]:
        pair[0].block(releasing=pair[1])


def _wake_under_lock(pair: tuple[WaitQueue, Mutex]) -> None:
    with pair[1]:
        pair[0].wake_all()


BLOCKINGS = [
    Blocking(
        "Mutex.acquire",
        lambda: Mutex("m"),
        lambda m: m.acquire(),
        lambda m: (m.acquire(), m.release()),
        lambda m: m.release(),
        "release",
        2,
        _free,
    ),
    Blocking(
        "SpinLock.acquire",
        lambda: SpinLock("m"),
        lambda m: m.acquire(),
        lambda m: (m.acquire(), m.release()),
        lambda m: m.release(),
        "release",
        2,
        _free,
    ),
    Blocking(
        "RwLock.acquire write",
        lambda: RwLock("rw"),
        lambda m: m.acquire(writes=False),
        lambda m: (m.acquire(writes=True), m.release(writes=True)),
        lambda m: m.release(writes=False),
        "read-release",
        2,
        lambda m: m.writer is None and not m.readers and not m.queued,
    ),
    Blocking(
        "RwLock.acquire read",
        lambda: RwLock("rw"),
        lambda m: m.acquire(writes=True),
        lambda m: (m.acquire(writes=False), m.release(writes=False)),
        lambda m: m.release(writes=True),
        "write-release",
        2,
        lambda m: m.writer is None and not m.readers and not m.queued,
    ),
    Blocking(
        "Condition.wait",
        lambda: Condition(Mutex("m"), "c"),
        nothing,
        _condition_wait,
        _condition_notify,
        "release",
        4,
        lambda c: c.mutex.owner is None and not c.waiters,
    ),
    Blocking(
        "Event.wait",
        lambda: Event("e", auto_unsignal=True),
        nothing,
        lambda e: e.wait(),
        lambda e: e.set(),
        "event-set",
        1,
        lambda e: not e.wanters and not e.peek(),
    ),
    Blocking(
        "Event.wait interruptible",
        lambda: Event("e", auto_unsignal=True),
        nothing,
        lambda e: e.wait(interruptible=True),
        lambda e: e.set(),
        "event-set",
        1,
        lambda e: not e.wanters and not e.peek(),
    ),
    Blocking(
        "Semaphore.acquire",
        lambda: Semaphore(0, "s"),
        nothing,
        lambda s: s.acquire(),
        lambda s: s.release(),
        "sem-release",
        1,
        lambda s: s.peek() == 0 and not s.wanters,
    ),
    Blocking(
        "Barrier.wait",
        lambda: Barrier(2, name="b"),
        nothing,
        lambda b: b.wait(),
        lambda b: b.wait(),
        "barrier-arrive",
        2,
        lambda b: b.n_waiting == 0 and not b.broken,
    ),
    Blocking(
        "WaitQueue.block",
        lambda: WaitQueue("q"),
        nothing,
        lambda q: q.block(),
        lambda q: q.wake_all(),
        "queue-wake",
        2,
        lambda q: not q.waiters,
    ),
    Blocking(
        "WaitQueue.block releasing",
        lambda: (WaitQueue("q"), Mutex("m")),
        nothing,
        _block_releasing,
        _wake_under_lock,
        "release",
        4,
        lambda pair: not pair[0].waiters and _free(pair[1]),
    ),
]


# What waits for some seconds of virtual time and then gives up.
TIMED: dict[str, Callable[[float], object]] = {
    "Mutex.acquire": lambda s: _on_held(Mutex("m"), s),
    "SpinLock.acquire": lambda s: _on_held(SpinLock("m"), s),
    "Condition.wait": lambda s: _under(Condition(Mutex("m")), s),
    "Condition.wait_for": lambda s: _under_for(Condition(Mutex("m")), s),
    "Event.wait": lambda s: Event("e").wait(s),
    "Event.wait auto": lambda s: Event("e", auto_unsignal=True).wait(s),
    "Semaphore.acquire": lambda s: Semaphore(0).acquire(timeout=s),
    "Barrier.wait": lambda s: _broken_after(s),
    "WaitQueue.block": lambda s: WaitQueue("q").block(s).value == "woken",
    "Thread.join": lambda s: _joined(s),
    "sleep": lambda s: sleep(s),
}


def _on_held(lock: Any, seconds: float) -> bool:
    """A timed attempt on a lock whose owner, the caller, gives it up afterwards."""
    with lock:
        taken: bool = lock.acquire(timeout=seconds)
    return taken


def _under(condition: Condition, seconds: float) -> bool:
    with condition:
        return condition.wait(seconds)


def _under_for(condition: Condition, seconds: float) -> bool:
    with condition:
        return condition.wait_for(lambda: False, seconds)


def _broken_after(seconds: float) -> bool:
    try:
        Barrier(2).wait(seconds)
    except BrokenBarrierError:
        return False
    return True


def _joined(seconds: float) -> bool:
    done = Event("done")
    thread = spawn(done.wait)
    try:
        thread.join(seconds)
        return not thread.is_alive()
    finally:
        done.set()
        thread.join()
