"""What is patched raises what the real ones raise, and is afterwards what it was."""

from __future__ import annotations

import _queue
import _thread
import math
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import ordinary
import pytest
from exploring import failure, passes

from harness import (
    explore,
    patched,
)
from harness.patch import install

Program = Callable[[], object]


# -- the errors of the real ones ------------------------------------------------------------------


def _start_twice() -> None:
    thread = threading.Thread()
    thread.start()
    thread.start()


def _overfill() -> None:
    full: queue.Queue[int] = queue.Queue(1)
    full.put(1)
    full.put(2, timeout=0.01)


def misuses() -> dict[str, Callable[[], object]]:
    return {
        "release": lambda: threading.Lock().release(),
        "rlock release": lambda: threading.RLock().release(),
        "limit without blocking": lambda: threading.Lock().acquire(False, 1),
        "negative limit": lambda: threading.Lock().acquire(timeout=-2),
        "rlock negative limit": lambda: threading.RLock().acquire(timeout=-2),
        "huge limit": lambda: threading.Lock().acquire(timeout=1e12),
        "text as limit": lambda: threading.Lock().acquire(timeout="1"),  # type: ignore[arg-type]
        "wait": lambda: threading.Condition().wait(),
        "notify": lambda: threading.Condition(threading.Lock()).notify(),
        "semaphore": lambda: threading.Semaphore(-1),
        "semaphore limit": lambda: threading.Semaphore().acquire(False, 1),
        "semaphore none": lambda: threading.Semaphore().release(0),
        "bounded": lambda: threading.BoundedSemaphore().release(),
        "barrier": lambda: threading.Barrier(2).wait(0),
        "join before start": lambda: threading.Thread().join(),
        "join itself": lambda: threading.current_thread().join(),
        "start twice": _start_twice,
        "daemon": lambda: setattr(threading.current_thread(), "daemon", True),
        "raw": lambda: _thread.start_new_thread(1, ()),  # type: ignore[call-overload]
        "raw arguments": lambda: _thread.start_new_thread(print, []),  # type: ignore[call-overload]
        "sleep": lambda: time.sleep(-1),
        "lock nan": lambda: threading.Lock().acquire(timeout=math.nan),
        "sleep nan": lambda: time.sleep(math.nan),
        "simple queue nan": lambda: queue.SimpleQueue().get(timeout=math.nan),
        "sleep text": lambda: time.sleep("1"),  # type: ignore[arg-type]
        "empty": lambda: queue.Queue().get(timeout=0.01),
        "empty simple": lambda: queue.SimpleQueue().get(timeout=0.01),
        "full": _overfill,
        "queue limit": lambda: queue.SimpleQueue().get(timeout=-1),
        "done": lambda: queue.Queue().task_done(),
    }


def raised(misuse: Callable[[], object]) -> tuple[type, str]:
    try:
        misuse()
    except Exception as error:
        return type(error), str(error)
    return type(None), ""


def _wait_for_nan() -> None:
    condition = threading.Condition()
    with condition:
        try:
            condition.wait(math.nan)
        finally:
            assert condition._is_owned()  # type: ignore[attr-defined] # what ``with`` relies on


@pytest.mark.parametrize("wait", [lambda: threading.Event().wait(math.nan), _wait_for_nan])
def test_a_timeout_that_is_no_number_is_none_at_all_until_python_refuses_it(
    wait: Callable[[], object],
) -> None:
    got: list[object] = []
    explore(lambda: got.append(raised(wait)), "random", schedules=1, patch=True)
    assert [raised(wait)] == got


@pytest.mark.parametrize("name", misuses())
def test_misuse_raises_what_the_real_one_raises(name: str) -> None:
    misuse = misuses()[name]
    wanted = raised(misuse)
    got: list[object] = []

    def program() -> None:
        got.append(raised(misuse))

    explore(program, "random", schedules=1, patch=True)

    assert wanted[0] is not type(None)
    assert got[-1] == wanted


# -- exactly as before ----------------------------------------------------------------------------


def state() -> dict[str, dict[str, object]]:
    """Every name of what is patched, and what the program keeps."""
    owners: list[Any] = [
        threading,
        _thread,
        time,
        queue,
        _queue,
        ordinary,
        ordinary.Shelf,
        ThreadPoolExecutor,
        threading.Thread,
        threading.Condition,
        threading.Event,
        threading.Semaphore,
        threading.BoundedSemaphore,
        threading.Barrier,
    ]
    found = {str(owner): dict(vars(owner)) for owner in owners}
    found["age"] = {"defaults": ordinary.age.__defaults__, **(ordinary.age.__kwdefaults__ or {})}
    found["queue"] = dict(vars(ordinary.QUEUE))
    found["condition"] = dict(vars(ordinary.CONDITION))
    found["closure"] = {"inner": ordinary.CLOSURE(), "own": ordinary.SHELF.own}
    found["table"] = {"first": ordinary.TABLE["locks"][0]}
    return found


def changed(before: dict[str, dict[str, object]]) -> list[str]:
    after = state()
    return [
        f"{owner}.{name}"
        for owner, names in before.items()
        for name in {**names, **after[owner]}
        if names.get(name) is not after[owner].get(name)
    ]


def _nothing() -> None:
    """Inconclusive."""


def _fails() -> None:
    ordinary.lost_update()


def _misuses() -> None:
    ordinary.both(ordinary.LOCK.locked, ordinary.LOCK.locked)
    explore(_fails)


@pytest.mark.parametrize("program", [_nothing, _fails, _misuses])
def test_everything_is_what_it_was_also_after_failures(program: Program) -> None:
    before = state()
    with pytest.raises(ZeroDivisionError), patched(), patched():
        assert "_thread.allocate_lock" not in changed(before)
        assert len(changed(before)) > 60
        try:
            explore(program, schedules=50)
        except Exception:
            assert program is _misuses
        raise ZeroDivisionError

    assert [] == changed(before)
    assert not install.active()


def test_threads_outside_of_the_schedule_keep_the_real_thing() -> None:
    """A thread that exchanges messages with the caller, while schedules run in between."""
    asked: queue.Queue[int | None] = queue.Queue()
    answered: queue.Queue[tuple[int, bool]] = queue.Queue()

    def serve() -> None:
        while (number := asked.get()) is not None:
            began = time.monotonic()
            threading.Event().wait(0.01)
            answered.put((number, time.monotonic() - began >= 0.009))

    server = threading.Thread(target=serve)
    server.start()
    with patched():
        for number in range(3):
            asked.put(number)
            passes(lambda: ordinary.both(ordinary.LOCK.locked, ordinary.LOCK.locked), schedules=20)
            assert answered.get(timeout=30) == (number, True)
        asked.put(None)
        server.join(30)

    assert not server.is_alive()


def test_locks_made_in_a_schedule_work_outside_of_it() -> None:
    kept: list[Any] = []

    def program() -> None:
        kept[:] = [threading.Lock(), threading.RLock(), queue.SimpleQueue(), queue.Queue()]
        ordinary.both(kept[0].locked, kept[0].locked)

    passes(program, "random", schedules=3, patch=True)

    lock, rlock, simple, plain = kept
    with lock:
        assert not lock.acquire(False)
    with rlock, rlock:
        pass
    simple.put(1)
    plain.put(2)
    assert (1, 2) == (simple.get(timeout=1), plain.get(timeout=1))
    assert isinstance(lock, type(_thread.allocate_lock())) is False
    assert not lock.locked()


def test_a_block_within_the_program_works_too() -> None:
    def program() -> None:
        with patched():
            ordinary.lost_update()

    found = failure(program, "random")

    assert "assertion" == found.kind
    assert [] == changed(state())
