"""Programs drawn at random that nest locks, wait, signal, time out and touch data."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from harness import Atomic, Condition, Event, Mutex, RwLock, Semaphore, Shared, spawn

# What a drawn program may do wherever it stands.
KINDS = (
    *("set", "wait", "clear", "set-auto", "wait-auto", "permit", "add", "load", "try", "limited"),
    *("nap", "sleep", "notify", "notify", "set", "set-auto", "read", "write"),
)


class Things:
    """What the threads of a drawn program share."""

    def __init__(self) -> None:
        self.locks = [Mutex(name) for name in "abc"]
        self.rw = RwLock("rw")
        self.flag, self.auto = Event("flag"), Event("auto", auto_unsignal=True)
        self.permits, self.count = Semaphore(1, name="permits"), Atomic(0, "count")
        self.cell, self.mutex = Shared(0, "cell"), Mutex("mutex")
        self.condition = Condition(self.mutex)

    def attempt(self, lock: Mutex, timeout: float) -> None:
        """Take a lock for a limited time, or not at all."""
        if lock.acquire(timeout=timeout) if timeout else lock.acquire(False):
            lock.release()

    def asleep(self, timeout: float | None) -> None:
        with self.mutex:
            self.condition.wait(timeout)

    def notify(self) -> None:
        with self.mutex:
            self.condition.notify_all()

    def permit(self) -> None:
        with self.permits:
            self.cell.get()

    def do(self, kind: str) -> None:
        acts: dict[str, Callable[[], object]] = {
            "set": self.flag.set,
            "wait": self.flag.wait,
            "clear": self.flag.clear,
            "set-auto": self.auto.set,
            "wait-auto": lambda: self.auto.wait(0.5),
            "permit": self.permit,
            "add": lambda: self.count.fetch_add(1),
            "load": self.count.load,
            "try": lambda: self.attempt(self.locks[2], 0),
            "limited": lambda: self.attempt(self.locks[1], 0.1),
            "nap": lambda: self.asleep(1.0),
            "sleep": lambda: self.asleep(None),
            "notify": self.notify,
            "read": self.cell.get,
            "write": lambda: self.cell.set(1),
        }
        acts[kind]()

    def run(self, plan: list[Any], held: frozenset[int]) -> None:
        for each in plan:
            if isinstance(each, str):
                self.do(each)
                continue
            lock, inner = each
            if lock in held:
                self.run(inner, held)
            else:
                with self.rw.read() if lock == 3 else self.locks[lock]:
                    self.run(inner, held | {lock})


def planned(draw: random.Random, depth: int) -> list[Any]:
    """Draw what to do: operations, and what to do with a lock held."""
    return [
        (draw.randrange(4), planned(draw, depth + 1))
        if depth < 2 and draw.random() < 0.55
        else draw.choice(KINDS)
        for _ in range(draw.randint(1, 3))
    ]


def drawn(seed: int) -> Callable[[], object]:
    """A program of three threads that nest locks, wait, signal, time out and touch data."""

    def program() -> None:
        draw, things = random.Random(seed), Things()
        plans = [planned(draw, 0) for _ in range(3)]
        threads = [
            spawn(things.run, plan, frozenset(), name=f"w{at}") for at, plan in enumerate(plans)
        ]
        for thread in threads:
            thread.join()

    return program
