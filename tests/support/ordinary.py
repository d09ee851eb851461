"""Threaded code as people write it: names taken by from-import, locks made at import."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from threading import Condition, Lock, RLock, Thread, current_thread, get_ident
from time import monotonic, sleep

LOCK = Lock()
RLOCK = RLock()
CONDITION = Condition()
QUEUE: queue.Queue[int] = queue.Queue(1)
SIMPLE: queue.SimpleQueue[int] = queue.SimpleQueue()
TAKEN = Lock()
TAKEN.acquire()
LOCAL = threading.local()
LOCAL.mine = "outside"
TABLE = {"locks": [Lock()]}
HERE = ("LOCK", "RLOCK", "CONDITION", "QUEUE", "SIMPLE", "TAKEN", "LOCAL", "TABLE")


class Shelf:
    """Keeps locks in every place that a class has for them."""

    shared = Lock()
    __slots__ = ("own",)

    def __init__(self) -> None:
        self.own = Lock()


SHELF = Shelf()


def closing_over() -> Callable[[], Lock]:
    inner = Lock()
    return lambda: inner


CLOSURE = closing_over()


class Context(threading.local):
    """Thread-local data with an initial value."""

    def __init__(self) -> None:
        self.seen: list[str] = []


CONTEXT = Context()


def age(since: float, now: Callable[[], float] = monotonic, *, wall: object = time.time) -> float:
    return now() - since


def nap(seconds: float) -> None:
    sleep(seconds)


def both(first: Callable[[], object], second: Callable[[], object]) -> None:
    """Run two functions on threads of ``threading``, and wait for them."""
    threads = [Thread(target=first, name="first"), Thread(target=second, name="second")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def whoami() -> tuple[str, int]:
    return current_thread().name, get_ident()


class Counter:
    """Shared without a lock."""

    def __init__(self) -> None:
        self.value = 0

    def add(self) -> None:
        seen = self.value
        self.value = seen + 1

    def add_at_once(self) -> None:
        self.value += 1

    def bump(self) -> int:
        self.add()
        return self.value


def lost_update() -> None:
    count = [0]

    def add() -> None:
        with LOCK:
            seen = count[0]
        with LOCK:
            count[0] = seen + 1

    both(add, add)
    assert count[0] == 2
