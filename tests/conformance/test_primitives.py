"""What every primitive must do; the tables are in ``tests/support/operations.py``."""

from __future__ import annotations

import inspect
import math
import threading
import time
import types
from collections.abc import Callable
from typing import Any

import pytest
from exploring import every, outcomes, recorded
from operations import BLOCKINGS, OPERATIONS, READINGS, TIMED, Blocking, Operation, Reading

import harness
from harness import (
    Barrier,
    Condition,
    Event,
    Mutex,
    RwLock,
    Semaphore,
    Shared,
    SpinLock,
    Thread,
    UsageError,
    WaitQueue,
    current_thread,
    explore,
    monotonic,
    parallel,
    sleep,
    spawn,
)
from harness.sync.base import Primitive
from harness.trace.events import Step

# Methods that are no operations: the engine's own, those that read without a schedule point, and
# those whose result is used in a ``with``.
ENGINE_ONLY = {
    "blockers",
    "check",
    "expire",
    "give_up",
    "judge",
    "reset",
    "take",
    "take_back",
    "want_back",
}
READS_FREELY = {"is_alive", "peek"}
BY_WITH = {"read", "write"}


def _kinds(kind: type) -> set[str]:
    return {
        name
        for name, value in inspect.getmembers(kind, inspect.isroutine)
        if not name.startswith("_")
    }


def test_every_method_of_every_primitive_is_in_the_suite() -> None:
    classes = [
        value
        for value in vars(harness).values()
        if inspect.isclass(value) and issubclass(value, (Primitive, Thread))
    ]
    covered = {str(entry).split(" ")[0] for entry in (*OPERATIONS, *READINGS, *BLOCKINGS)} | set(
        TIMED
    )
    public = {
        f"{kind.__name__}.{name}"
        for kind in classes
        for name in _kinds(kind) - READS_FREELY - BY_WITH - ENGINE_ONLY
    }
    # The barrier's own reset is an operation; that of the others is the engine's.
    public |= {"Barrier.reset"}

    assert len(classes) >= 11
    assert set() == public - covered


# -- a schedule point precedes the effect -------------------------------------------------------


def _watched(operation: Operation) -> Callable[[], object]:
    """Returns the acting thread's stage and the state, at any moment another thread looks."""

    def program() -> object:
        obj = operation.make()
        stage = ["before"]
        clock, pause = Shared(0, "clock"), Shared(0, "pause")

        def actor() -> None:
            operation.prepare(obj)
            stage[0] = "pending"
            operation.act(obj)
            stage[0] = "done"
            pause.get()
            operation.finish(obj)
            stage[0] = "over"

        def observer() -> tuple[str, object]:
            clock.get()
            return stage[0], operation.state(obj)

        seen = parallel(actor, observer)[1]
        operation.close(obj)
        return seen

    return program


@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
def test_others_run_between_the_announcement_and_the_effect(operation: Operation) -> None:
    seen = outcomes(_watched(operation))
    pending = {state for stage, state in seen if stage == "pending"}  # type: ignore[misc, has-type] # pairs
    done = {state for stage, state in seen if stage == "done"}  # type: ignore[misc, has-type] # pairs

    assert operation.before in pending
    assert pending <= {operation.before, *operation.during}
    assert done <= {operation.after}
    # Somebody looked after it too: time stands still while others can, so never after a timeout.
    assert done or operation.during


@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
def test_an_operation_is_the_steps_it_says(operation: Operation) -> None:
    steps = recorded(_watched(operation), "dfs").steps
    kinds = [step.kind for step in steps if step.name == "actor"]
    length = len(operation.kinds)

    assert any(
        list(operation.kinds) == kinds[start : start + length] for start in range(len(kinds))
    ), kinds


@pytest.mark.parametrize("reading", READINGS, ids=str)
def test_a_read_sees_what_was_written_while_it_was_pending(reading: Reading) -> None:
    values: set[object] = set()

    def program() -> None:
        obj = reading.make()
        announced: list[bool] = []

        def reader() -> object:
            announced.append(True)
            return reading.read(obj)

        def writer() -> None:
            assert announced, "the reader announces its read before the first step of the writer"
            reading.write(obj)

        values.add(parallel(reader, writer)[0])

    report = every(program)

    assert {reading.old, reading.new} == values
    # The writer of a lock keeps it: that leak is the only thing that may be found here.
    assert {"leak"} >= set(report.failing)


# -- blocked threads ----------------------------------------------------------------------------


def _blocked(blocking: Blocking) -> Callable[[], None]:
    def program() -> None:
        obj = blocking.make()
        cell = Shared(0, "cell")

        def other() -> None:
            blocking.hold(obj)
            waiter = spawn(blocking.wait, obj, name="waiter")
            cell.get()
            cell.get()
            cell.get()
            blocking.free(obj)
            waiter.join()

        parallel(other)

    return program


def _asleep(blocking: Blocking, steps: tuple[Step, ...]) -> tuple[int, int]:
    """First and last step during which the waiter sleeps: from announcing to being freed."""
    mine = [step.step for step in steps if step.name == "waiter"]
    # The last operation of its wait is the one that slept; a release may follow.
    woken = next(step for step in steps if step.name == "waiter" and step.waited)
    before = [number for number in mine if number < woken.step]
    begun = before[-1] if before else next(s.step for s in steps if s.kind == "spawn")
    freed = next(
        step.step
        for step in steps
        if step.name == "other" and begun < step.step and step.kind == blocking.frees
    )
    return begun + 1, freed


@pytest.mark.parametrize("blocking", BLOCKINGS, ids=str)
def test_a_blocked_thread_is_not_enabled_and_never_woken_to_try_again(blocking: Blocking) -> None:
    slept = 0
    for schedule in range(1, 13):
        steps = recorded(_blocked(blocking), "random", schedule).steps
        waiter = [step for step in steps if step.name == "waiter"]
        assert len(waiter) == blocking.steps
        if not any(step.waited for step in waiter):
            continue
        first, last = _asleep(blocking, steps)
        for step in steps[first - 1 : last]:
            assert waiter[0].thread not in step.enabled, step
            slept += 1
    assert slept > 5


@pytest.mark.parametrize("blocking", BLOCKINGS, ids=str)
def test_a_blocked_thread_goes_on_once_it_can(blocking: Blocking) -> None:
    """Every interleaving in which nobody misses the other ends well."""
    report = every(_blocked(blocking))

    latched = ("Mutex", "SpinLock", "RwLock", "Event", "Semaphore", "Barrier")
    if blocking.name.startswith(latched):
        assert not report.failing, report.failure
    assert set(report.failing) <= {"lost-wakeup"}
    assert report.failing.get("lost-wakeup", 0) < report.schedules


# -- time ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TIMED)
def test_timeouts_fire_in_the_order_of_their_deadlines_and_nothing_deadlocks(name: str) -> None:
    wait = TIMED[name]

    def program() -> object:
        fired: list[float] = []

        def waiter(seconds: float) -> None:
            assert not wait(seconds)
            assert seconds == monotonic()
            fired.append(seconds)

        parallel(lambda: waiter(3), lambda: waiter(1), lambda: waiter(2))
        return tuple(fired)

    seen = set()

    def noting() -> None:
        seen.add(program())

    for strategy in ("random", "pct", "round-robin", "portfolio"):
        report = explore(noting, strategy, schedules=50)
        assert report.failure is None, report.failure
    assert {(1, 2, 3)} == seen


@pytest.mark.parametrize("name", TIMED)
def test_a_timeout_of_zero_does_not_wait(name: str) -> None:
    def program() -> object:
        result = TIMED[name](0)
        return bool(result), monotonic()

    # A sleep of 0 and a timeout of 0 both end at once; nothing else is there to end them.
    assert {(False, 0.0)} == outcomes(program)


def test_a_timeout_of_zero_is_over_whatever_others_do_to_the_object() -> None:
    def program() -> None:
        event = Event()
        assert not parallel(lambda: event.wait(0), event.clear, event.clear)[0]

    assert every(program).failure is None


@pytest.mark.parametrize("name", TIMED)
def test_a_timeout_that_is_no_number_is_refused_and_changes_nothing(name: str) -> None:
    """No clock reaches it: the wait would never end, and nothing would say so."""

    def program() -> None:
        for _ in range(2):
            with pytest.raises(ValueError, match="NaN"):
                TIMED[name](math.nan)
            assert not TIMED[name](1)

    report = explore(program, "random", schedules=2)
    assert report.failure is None, report.failure


@pytest.mark.parametrize("name", TIMED)
def test_with_early_timeouts_every_wait_still_ends_once(name: str) -> None:
    def program() -> None:
        cell = Shared(0)

        def waiter() -> None:
            assert not TIMED[name](5)
            assert monotonic() == 5

        parallel(waiter, lambda: (cell.get(), cell.get()))

    report = every(program, early_timeouts=True)

    assert report.failure is None
    assert report.schedules > 1


# -- unwinding ----------------------------------------------------------------------------------


@pytest.mark.parametrize("blocking", BLOCKINGS, ids=str)
def test_unwinding_a_wait_runs_finally_and_leaves_everything_clean(blocking: Blocking) -> None:
    """The object outlives the schedules: each finds it as if it were new."""
    obj = blocking.make()
    other = Mutex("other")
    begun: list[int] = []
    ended: list[int] = []

    def program() -> None:
        assert blocking.clean(obj), "left over from the schedule before"
        assert other.owner is None
        cell = Shared(0)

        def waiter() -> None:
            begun.append(1)
            try:
                blocking.wait(obj)
            finally:
                # Primitives work while a thread is taken down; nothing is scheduled any more.
                with other:
                    cell.set(cell.get() + 1)
                ended.append(1)

        def holder() -> None:
            blocking.hold(obj)
            spawn(waiter)
            cell.get()
            raise LookupError("enough")

        parallel(holder)

    threads = threading.active_count()
    report = explore(program, "random", schedules=40, stop_at_first=False)

    assert report.failing == {"exception": 40}
    assert len(begun) == len(ended) > 40
    assert threads == threading.active_count()
    assert blocking.clean(obj)


# -- outside of a schedule ----------------------------------------------------------------------


@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
def test_an_operation_outside_of_a_schedule_is_refused(operation: Operation) -> None:
    with pytest.raises(UsageError, match="outside of a schedule"):
        operation.act(operation.make())


@pytest.mark.parametrize("reading", READINGS, ids=str)
def test_a_reading_outside_of_a_schedule_is_refused(reading: Reading) -> None:
    with pytest.raises(UsageError, match="outside of a schedule"):
        reading.read(reading.make())


@pytest.mark.parametrize("blocking", BLOCKINGS, ids=str)
def test_a_wait_outside_of_a_schedule_is_refused(blocking: Blocking) -> None:
    with pytest.raises(UsageError, match="outside of a schedule"):
        blocking.wait(blocking.make())


# -- like threading -----------------------------------------------------------------------------

REAL = types.SimpleNamespace(
    Lock=threading.Lock,
    Condition=threading.Condition,
    Event=threading.Event,
    Semaphore=threading.Semaphore,
    Barrier=threading.Barrier,
    current_thread=threading.current_thread,
    sleep=time.sleep,
)
OURS = types.SimpleNamespace(
    Lock=Mutex,
    Condition=Condition,
    Event=Event,
    Semaphore=Semaphore,
    Barrier=Barrier,
    current_thread=current_thread,
    sleep=sleep,
)


def _locked(m: Any) -> Any:
    lock = m.Lock()
    lock.acquire()
    return lock


def _closing(lock: Any, result: object) -> object:
    lock.release()
    return result


def _waiting(m: Any, wait: Callable[[Any], object]) -> object:
    condition = m.Condition()
    with condition:
        return wait(condition)


def _set(m: Any) -> Any:
    event = m.Event()
    event.set()
    return event


def _aborted(m: Any) -> Any:
    barrier = m.Barrier(2)
    barrier.abort()
    return barrier


CALLS: dict[str, Callable[[Any], object]] = {
    "release of a free lock": lambda m: m.Lock().release(),
    "attempt with a timeout": lambda m: m.Lock().acquire(False, 1),
    "negative timeout": lambda m: m.Lock().acquire(True, -2),
    "acquire": lambda m: (lock := m.Lock()) and _closing(lock, lock.acquire()),
    "attempt on a held lock": lambda m: (
        (lock := _locked(m)) and _closing(lock, lock.acquire(False))
    ),
    "timed acquire of a held lock": lambda m: (
        (lock := _locked(m)) and _closing(lock, lock.acquire(timeout=0.001))
    ),
    "locked": lambda m: (lock := _locked(m)) and _closing(lock, lock.locked()),
    "wait without the lock": lambda m: m.Condition().wait(),
    "notify without the lock": lambda m: m.Condition().notify(),
    "notify_all without the lock": lambda m: m.Condition().notify_all(),
    "condition's acquire": lambda m: (c := m.Condition()) and _closing(c, c.acquire()),
    "wait that runs out": lambda m: _waiting(m, lambda c: c.wait(0.001)),
    "wait_for that holds": lambda m: _waiting(m, lambda c: c.wait_for(lambda: "yes")),
    "wait_for that runs out": lambda m: _waiting(m, lambda c: c.wait_for(lambda: 0, 0.001)),
    "notify of nobody": lambda m: _waiting(m, lambda c: c.notify()),
    "event wait that runs out": lambda m: m.Event().wait(0.001),
    "event wait that is set": lambda m: _set(m).wait(),
    "is_set": lambda m: (m.Event().is_set(), _set(m).is_set()),
    "set": lambda m: m.Event().set(),
    "clear": lambda m: _set(m).clear(),
    "semaphore below 0": lambda m: m.Semaphore(-1),
    "semaphore attempt with a timeout": lambda m: m.Semaphore().acquire(False, 1),
    "semaphore acquire": lambda m: m.Semaphore().acquire(),
    "semaphore attempt": lambda m: m.Semaphore(0).acquire(False),
    "semaphore that runs out": lambda m: m.Semaphore(0).acquire(timeout=0.001),
    "semaphore release of none": lambda m: m.Semaphore().release(0),
    "semaphore release": lambda m: m.Semaphore(0).release(3),
    "semaphore in a with": lambda m: m.Semaphore().__enter__(),
    "barrier of one": lambda m: m.Barrier(1).wait(),
    "barrier that runs out": lambda m: m.Barrier(2).wait(0.001),
    "aborted barrier": lambda m: _aborted(m).wait(),
    "broken": lambda m: (_aborted(m).broken, m.Barrier(2).broken),
    "reset": lambda m: (barrier := _aborted(m)) and (barrier.reset(), barrier.broken),
    "parties": lambda m: (m.Barrier(3).parties, m.Barrier(3).n_waiting),
    "barrier with an action": lambda m: (
        (log := ["x"]) and (m.Barrier(1, action=lambda: log.append("act")).wait(), log)
    ),
    "join oneself": lambda m: m.current_thread().join(),
    "negative sleep": lambda m: m.sleep(-1),
}
# Where the message names the lock and its owner, which threading cannot, or differs from one Python
# to the next.
OTHER_MESSAGE = {"release of a free lock", "negative timeout"}


def _outcome(call: Callable[[Any], object], module: Any) -> tuple[object, ...]:
    try:
        return ("returned", call(module))
    except Exception as error:
        return ("raised", type(error), str(error))


@pytest.mark.parametrize("name", CALLS)
def test_it_returns_and_raises_what_threading_does(name: str) -> None:
    real = _outcome(CALLS[name], REAL)
    ours: list[tuple[object, ...]] = []

    report = explore(lambda: ours.append(_outcome(CALLS[name], OURS)), "round-robin", schedules=1)

    assert report.failure is None
    if name in OTHER_MESSAGE:
        assert [real[:2]] == [outcome[:2] for outcome in ours]
    else:
        assert [real] == ours


# -- each on its own ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Mutex, SpinLock])
def test_only_the_owner_releases(kind: type[Mutex | SpinLock]) -> None:
    def program() -> None:
        lock = kind("m")
        refused: list[str] = []

        def stranger() -> None:
            try:
                lock.release()
            except RuntimeError as error:
                refused.append(str(error))

        with lock:
            spawn(stranger).join()
        assert refused == ["release of m by stranger, but it is held by main"]

    assert not every(program).failing


@pytest.mark.parametrize("writes", [True, False])
def test_a_lock_that_was_not_entered_is_not_left(writes: bool) -> None:
    def program() -> None:
        with pytest.raises(RuntimeError, match="main leaves rw without having entered it"):
            RwLock("rw").release(writes=writes)

    assert not every(program).failing


def test_a_queue_refuses_to_give_up_a_lock_that_is_not_held() -> None:
    with pytest.raises(UsageError, match="main does not hold that lock"):
        explore(lambda: WaitQueue("q").block(releasing=Mutex("m")), schedules=1)


def test_an_unnamed_object_is_numbered_in_the_order_of_first_use() -> None:
    def program() -> None:
        first, second = Mutex(), Mutex()
        with second, first:
            pass

    labels = [step.obj for step in recorded(program).steps]
    assert labels == ["Mutex#1", "Mutex#2", "Mutex#2", "Mutex#1"]
