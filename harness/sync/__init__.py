"""The primitives that a program under test is written with. Every operation is a schedule point."""

from harness.engine.thread import Thread
from harness.engine.view import Placed
from harness.sync.cells import Atomic, Shared
from harness.sync.condition import Barrier, BrokenBarrierError, Condition, Event, Semaphore
from harness.sync.guards import assert_held, assert_no_locks_held, excludes, guarded_by, requires
from harness.sync.history import History, Reference, Sequential
from harness.sync.mutex import Lock, Mutex, SpinLock, acquire_all
from harness.sync.rwlock import RwLock
from harness.sync.threads import (
    current_schedule,
    current_thread,
    in_schedule,
    invariant,
    monotonic,
    note,
    observe,
    parallel,
    priority_scheduling,
    sleep,
    sometimes,
    spawn,
    yield_now,
)
from harness.sync.waitqueue import WaitQueue, WaitResult

__all__ = [
    "Atomic",
    "Barrier",
    "BrokenBarrierError",
    "Condition",
    "Event",
    "History",
    "Lock",
    "Mutex",
    "Placed",
    "Reference",
    "RwLock",
    "Semaphore",
    "Sequential",
    "Shared",
    "SpinLock",
    "Thread",
    "WaitQueue",
    "WaitResult",
    "acquire_all",
    "assert_held",
    "assert_no_locks_held",
    "current_schedule",
    "current_thread",
    "excludes",
    "guarded_by",
    "in_schedule",
    "invariant",
    "monotonic",
    "note",
    "observe",
    "parallel",
    "priority_scheduling",
    "requires",
    "sleep",
    "sometimes",
    "spawn",
    "yield_now",
]
