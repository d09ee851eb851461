"""Programs with a cell that races, and programs in which some primitive orders all accesses."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

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
    WaitQueue,
    parallel,
    sleep,
    spawn,
    yield_now,
)

Program = Callable[[], object]


def both(write: Callable[[], None], read: Callable[[], None]) -> None:
    parallel(write, read, names=["writer", "reader"])


# -- nothing orders ------------------------------------------------------------------------------


def bare() -> None:
    cell = Shared(0, "cell")

    def read() -> None:
        cell.get()

    both(lambda: cell.set(1), read)


def two_writers() -> None:
    cell = Shared(0, "cell")
    both(lambda: cell.set(1), lambda: cell.set(2))


def wrong_lock() -> None:
    cell, one, other = Shared(0, "cell"), Mutex("one"), Mutex("other")

    def write() -> None:
        with one:
            cell.set(1)

    def read() -> None:
        with other:
            cell.get()

    both(write, read)


def written_under_read() -> None:
    """Readers exclude no readers: a write under a read lock races with the reads of others."""
    cell, lock = Shared(0, "cell"), RwLock("lock")

    def write() -> None:
        with lock.read():
            cell.set(1)

    def read() -> None:
        with lock.read():
            cell.get()

    both(write, read)


def set_too_early() -> None:
    cell, ready = Shared(0, "cell"), Event("ready")

    def write() -> None:
        ready.set()
        cell.set(1)

    def read() -> None:
        ready.wait()
        cell.get()

    both(write, read)


def not_waited_for() -> None:
    """A wait that ran out has seen nothing."""
    cell, ready = Shared(0, "cell"), Event("ready")

    def write() -> None:
        cell.set(1)
        sleep(2)
        ready.set()

    def read() -> None:
        ready.wait(timeout=1)
        cell.get()

    both(write, read)


def signal_of_another() -> None:
    """The signal that is seen is not the one that was cleared; time alone orders the rest."""
    cell, ready = Shared(0, "cell"), Event("ready")

    def write() -> None:
        cell.set(1)
        ready.set()

    def other() -> None:
        sleep(1)
        ready.clear()
        ready.set()

    def read() -> None:
        sleep(2)
        ready.wait()
        cell.get()

    parallel(write, other, read)


def released_before() -> None:
    cell, permits = Shared(0, "cell"), Semaphore(0, "permits")

    def write() -> None:
        permits.release()
        cell.set(1)

    def read() -> None:
        permits.acquire()
        cell.get()

    both(write, read)


def after_the_barrier() -> None:
    cell, barrier = Shared(0, "cell"), Barrier(2, "barrier")

    def write() -> None:
        barrier.wait()
        cell.set(1)

    def read() -> None:
        barrier.wait()
        cell.get()

    both(write, read)


def an_earlier_round() -> None:
    """Leaving a round of a barrier tells nothing of those who are in the next one already."""
    cell, barrier = Shared(0, "cell"), Barrier(2, "barrier")

    def write() -> None:
        barrier.wait()
        cell.set(1)
        barrier.wait()

    def read() -> None:
        barrier.wait()
        cell.get()
        barrier.wait()

    both(write, read)


def loaded_too_early() -> None:
    cell, flag = Shared(0, "cell"), Atomic(0, "flag")

    def write() -> None:
        flag.store(1)
        cell.set(1)

    def read() -> None:
        if flag.load():
            cell.get()

    both(write, read)


def overwritten_store() -> None:
    """Who reads the second store knows nothing of the first."""
    cell, flag = Shared(0, "cell"), Atomic(0, "flag")

    def write() -> None:
        cell.set(1)
        flag.store(1)

    def read() -> None:
        if flag.load() == 2:
            cell.get()

    parallel(write, lambda: flag.store(2), read)


def failed_exchange() -> None:
    """A compare-exchange that fails writes nothing, so it tells nobody anything."""
    cell, flag = Shared(0, "cell"), Atomic(0, "flag")

    def write() -> None:
        cell.set(1)
        assert not flag.compare_exchange(7, 8)

    def read() -> None:
        flag.load()
        cell.get()

    both(write, read)


def not_joined() -> None:
    cell = Shared(0, "cell")
    thread = spawn(lambda: cell.set(1))
    cell.get()
    thread.join()


def failed_try() -> None:
    """An attempt that fails has synchronized with nobody."""
    cell, lock = Shared(0, "cell"), Mutex("lock")

    def write() -> None:
        with lock:
            cell.set(1)

    def read() -> None:
        if not lock.acquire(blocking=False):
            cell.get()
        else:
            lock.release()

    both(write, read)


def woken_by_another() -> None:
    cell, queue = Shared(0, "cell"), WaitQueue("queue")

    def read() -> None:
        queue.block(timeout=5)
        cell.get()

    def write() -> None:
        queue.wake()
        cell.set(1)

    both(write, read)


def interrupted_too_early() -> None:
    cell, ready = Shared(0, "cell"), Event("ready")

    def read() -> None:
        ready.wait(interruptible=True)
        cell.get()

    reader = spawn(read)
    reader.interrupt()
    cell.set(1)
    reader.join()


RACY = [
    bare,
    two_writers,
    wrong_lock,
    written_under_read,
    set_too_early,
    not_waited_for,
    signal_of_another,
    released_before,
    after_the_barrier,
    an_earlier_round,
    loaded_too_early,
    overwritten_store,
    failed_exchange,
    not_joined,
    failed_try,
    woken_by_another,
    interrupted_too_early,
]


# -- something does ------------------------------------------------------------------------------


def readers_only() -> None:
    cell = Shared(0, "cell")
    parallel(cell.get, cell.get, cell.get)


def locked(lock: Mutex | SpinLock) -> None:
    cell = Shared(0, "cell")

    def add() -> None:
        with lock:
            cell.set(cell.get() + 1)

    parallel(add, add)
    assert cell.get() == 2


def tried() -> None:
    cell, lock = Shared(0, "cell"), Mutex("lock")

    def add() -> None:
        if lock.acquire(blocking=False) or lock.acquire(timeout=3):
            cell.set(cell.get() + 1)
            lock.release()

    parallel(add, add)


def read_and_written() -> None:
    cell, lock = Shared(0, "cell"), RwLock("lock")

    def write() -> None:
        with lock.write():
            cell.set(cell.get() + 1)

    def read() -> None:
        with lock.read():
            cell.get()

    parallel(write, read, write)


def waited() -> None:
    cell, ready = Shared(0, "cell"), Condition(Mutex("mutex"), "ready")

    def write() -> None:
        with ready:
            cell.set(1)
            ready.notify()

    def read() -> None:
        with ready:
            while not cell.get():
                ready.wait()

    both(write, read)


def waited_with_a_limit() -> None:
    cell, ready = Shared(0, "cell"), Condition(Mutex("mutex"), "ready")

    def write() -> None:
        with ready:
            cell.set(1)

    def read() -> None:
        with ready:
            ready.wait(timeout=1)
            cell.get()

    both(write, read)


def set_in_time(*, auto: bool, asked: bool = False) -> None:
    cell, ready = Shared(0, "cell"), Event("ready", auto_unsignal=auto)

    def write() -> None:
        cell.set(1)
        ready.set()
        yield_now()

    def read() -> None:
        yield_now()
        if asked and not ready.is_set():
            return
        if not asked:
            ready.wait()
        cell.set(2)

    both(write, read)


def woken_for_good() -> None:
    """Who slept when it was set is woken by that, whatever is cleared before it runs."""
    cell, ready = Shared(0, "cell"), Event("ready")

    def write() -> None:
        cell.set(1)
        ready.set()
        ready.clear()

    def read() -> None:
        if ready.wait(timeout=9):
            cell.get()

    both(write, read)


def permitted() -> None:
    cell, permits = Shared(0, "cell"), Semaphore(0, "permits")

    def write() -> None:
        cell.set(1)
        permits.release()
        yield_now()

    def read() -> None:
        permits.acquire()
        cell.set(2)

    both(write, read)


def in_rounds() -> None:
    cell, barrier = Shared(0, "cell"), Barrier(2, "barrier")

    def write() -> None:
        cell.set(1)
        barrier.wait()
        barrier.wait()
        cell.set(2)

    def read() -> None:
        barrier.wait()
        cell.get()
        barrier.wait()

    both(write, read)


def broken(how: str) -> None:
    """Who is thrown out of a barrier knows what was done before that."""
    cell, barrier = Shared(0, "cell"), Barrier(3, "barrier")

    def write() -> None:
        sleep(1)  # the reader waits by then
        cell.set(1)
        if how == "abort":
            barrier.abort()
        else:
            barrier.reset()
        yield_now()

    def read() -> None:
        yield_now()
        with contextlib.suppress(BrokenBarrierError):
            barrier.wait()
        cell.get()

    both(write, read)


def published(how: str) -> None:
    cell, flag = Shared(0, "cell"), Atomic(0, "flag")

    def write() -> None:
        cell.set(1)
        if how == "store":
            flag.store(1)
        elif how == "exchange":
            flag.exchange(1)
        elif how == "fetch-add":
            flag.fetch_add(1)
        else:
            assert flag.compare_exchange(0, 1)

    def read() -> None:
        if flag.load():
            cell.set(2)

    both(write, read)


def counted_down() -> None:
    """Each read-modify-write passes on what the one before it knew."""
    cells, left = [Shared(0, "a"), Shared(0, "b")], Atomic(2, "left")

    def work(cell: Shared[int]) -> None:
        cell.set(1)
        if left.fetch_add(-1) == 1:
            assert [other.get() for other in cells] == [1, 1]

    parallel(lambda: work(cells[0]), lambda: work(cells[1]))


def started_and_joined() -> None:
    cell = Shared(0, "cell")
    cell.set(1)

    def child() -> None:
        cell.set(cell.get() + 1)
        inner = spawn(lambda: cell.set(3))
        inner.join()
        cell.get()

    thread = spawn(child)
    thread.join()
    cell.set(4)
    parallel(cell.get, cell.get)
    cell.set(5)


def woken() -> None:
    cell, queue, lock = Shared(0, "cell"), WaitQueue("queue"), Mutex("lock")
    done = Atomic(0, "done")

    def read() -> None:
        lock.acquire()
        if not done.load():
            queue.block(releasing=lock)
        lock.release()
        cell.get()

    def write() -> None:
        cell.set(1)
        with lock:
            done.store(1)
            queue.wake()

    both(write, read)


def written_before_sleep() -> None:
    """Going to sleep gives the lock up, as a release does."""
    cell, queue, lock = Shared(0, "cell"), WaitQueue("queue"), Mutex("lock")

    def sleeper() -> None:
        lock.acquire()
        cell.set(1)
        queue.block(timeout=9, releasing=lock)
        lock.release()

    def read() -> None:
        with lock:
            cell.get()

    both(sleeper, read)


def woken_without_a_lock() -> None:
    cell, queue = Shared(0, "cell"), WaitQueue("queue")

    def read() -> None:
        if queue.block(timeout=9).value == "woken":
            cell.get()

    def write() -> None:
        cell.set(1)
        queue.wake()

    both(write, read)


def interrupted() -> None:
    cell, ready = Shared(0, "cell"), Event("ready")

    def read() -> None:
        ready.wait(interruptible=True)
        cell.get()

    reader = spawn(read)
    cell.set(1)
    reader.interrupt()
    yield_now()
    reader.join()


ORDERED: dict[str, Program] = {
    "readers": readers_only,
    "mutex": lambda: locked(Mutex("lock")),
    "spinlock": lambda: locked(SpinLock("lock")),
    "try": tried,
    "rwlock": read_and_written,
    "condition": waited,
    "condition, limited": waited_with_a_limit,
    "event": lambda: set_in_time(auto=False),
    "event, auto": lambda: set_in_time(auto=True),
    "event, asked": lambda: set_in_time(auto=False, asked=True),
    "event, cleared": woken_for_good,
    "semaphore": permitted,
    "barrier": in_rounds,
    "barrier, aborted": lambda: broken("abort"),
    "barrier, reset": lambda: broken("reset"),
    "store": lambda: published("store"),
    "exchange": lambda: published("exchange"),
    "fetch-add": lambda: published("fetch-add"),
    "compare-exchange": lambda: published("compare-exchange"),
    "countdown": counted_down,
    "spawn, join, parallel": started_and_joined,
    "wait queue": woken,
    "wait queue, asleep": written_before_sleep,
    "wait queue, bare": woken_without_a_lock,
    "interrupt": interrupted,
}
