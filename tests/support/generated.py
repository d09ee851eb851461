"""Small programs drawn from a seed, over every operation, and what their threads see."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal

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
    monotonic,
    parallel,
    sleep,
    spawn,
    yield_now,
)

# Name, one of two objects, a value or what is done inside.
Operation = tuple[str, int, Any]
Seen = list[object]

_FAMILIES: Final = {
    "cell": ("get", "set"),
    "atomic": ("load", "store", "exchange", "compare", "compare", "add"),
    "mutex": ("lock",),
    "spin": ("spin",),
    "attempt": ("attempt", "attempt-for"),
    "readers": ("read", "read", "write"),
    "condition": ("wait", "notify", "notify"),
    "event": ("event-set", "event-set", "event-clear", "event-wait", "event-is-set"),
    "semaphore": ("permit", "permit", "permit-now", "permit-back"),
    "barrier": ("meet",),
    "queue": ("block", "block-releasing", "wake", "wake"),
    "time": ("yield", "sleep"),
    "thread": ("spawn", "spawn-join"),
    "interrupt": ("interrupt", "event-wait-interruptible", "block-interruptible"),
}
# Beside those, in programs of which more is asked: what happens hangs on what was seen, and
# anything may stand within anything.
_DEEPER: Final = {
    "branch": ("if-set", "if-zero", "if-signaled", "if-in-time"),
    "broadcast": ("wait", "wait-for", "notify", "notify-all"),
    "gate": ("meet", "meet-for-ever", "abort", "reset"),
    "upgrade": ("read", "write", "locked"),
    "owner": ("own", "disown", "block", "wake"),
}
_NESTS: Final = {"lock", "spin", "read", "write", "spawn", "spawn-join", *_DEEPER["branch"]}
# What neither blocks nor nests, so that it may stand under a lock or in a short-lived thread.
_PLAIN: Final = ("get", "set", "compare")


@dataclass(frozen=True)
class Drawn:
    """A program.

    Attributes:
        threads: What each thread does.
        auto: Whether its first event is one of ``auto_unsignal``.
        prefer: Of its readers-writer lock.
        strict: Whether a thread fails that saw two truths.
        spawns: Whether a main thread spawns and joins; else all start in one step, so that who
            interrupts another need not look whether there is one, which no step would show.
    """

    threads: tuple[tuple[Operation, ...], ...]
    auto: bool
    prefer: Literal["writer", "reader"]
    strict: bool
    spawns: bool

    def program(self, seen: set[str]) -> Callable[[], None]:
        """It as a program that adds what its threads saw, and what is left, to ``seen``."""
        return lambda: _World(self).run(seen)


def draw(seed: int, families: tuple[str, ...] = tuple(_FAMILIES)) -> Drawn:
    """A program of two or three threads with a few operations each, of one to three families."""
    rng = random.Random(seed)
    count = rng.choice((2, 2, 3))
    chosen = rng.sample(families, k=min(rng.randint(1, 3), len(families)))

    def operation() -> Operation:
        name = rng.choice(_FAMILIES[rng.choice(chosen)])
        if name in _NESTS:
            return name, rng.randrange(2), tuple(plain() for _ in range(rng.randint(0, 2)))
        return name, rng.randrange(2), rng.choice((None, 0, 1, 2))

    def plain() -> Operation:
        return rng.choice(_PLAIN), rng.randrange(2), rng.randrange(3)

    return Drawn(
        threads=tuple(
            tuple(operation() for _ in range(rng.randint(1, 5 - count))) for _ in range(count)
        ),
        auto=rng.random() < 0.5,
        prefer=rng.choice(("writer", "reader")),
        strict=rng.random() < 0.3,
        spawns=rng.random() < 0.2 and "interrupt" not in chosen,
    )


def deeper(seed: int) -> Drawn:
    """A program of up to six operations of one to three families, nested up to three deep."""
    rng = random.Random(f"deeper {seed}")
    families = _FAMILIES | _DEEPER
    chosen = rng.sample(sorted(families), k=rng.randint(1, 3))
    left = rng.randint(3, 6)

    def operations(depth: int) -> tuple[Operation, ...]:
        return tuple(filter(None, (operation(depth) for _ in range(rng.randint(1, 3)))))

    def operation(depth: int) -> Operation | None:
        nonlocal left
        if not left:
            return None
        left -= 1
        name = rng.choice(families[rng.choice(chosen)])
        if name in _NESTS:
            return name, rng.randrange(2), operations(depth + 1) if depth < 2 else ()
        return name, rng.randrange(2), rng.choice((None, 0, 1, 2))

    return Drawn(
        threads=tuple(operations(0) for _ in range(rng.choice((2, 2, 3)))),
        auto=rng.random() < 0.5,
        prefer=rng.choice(("writer", "reader")),
        strict=rng.random() < 0.2,
        spawns=rng.random() < 0.3 and "interrupt" not in chosen,
    )


class _World:
    """The objects of one run, and the operations on them."""

    def __init__(self, drawn: Drawn) -> None:
        self.drawn = drawn
        self.cells = [Shared(0, "x"), Shared(0, "y")]
        self.atomics = [Atomic(0, "a"), Atomic(0, "b")]
        self.mutexes = [Mutex("m"), Mutex("n")]
        self.spin = SpinLock("s")
        self.readers = RwLock("rw", prefer=drawn.prefer)
        self.condition = Condition(self.mutexes[0], "c")
        self.events = [Event("e", auto_unsignal=drawn.auto), Event("f")]
        self.permits = Semaphore(1, "p")
        self.barrier = Barrier(2, "gate")
        self.queue = WaitQueue("q")
        self.threads: list[Thread | None] = [None] * len(drawn.threads)
        self.children: list[Thread] = []

    def run(self, seen: set[str]) -> None:
        """Run all threads, and note what came of it."""
        results: list[Seen] = [[] for _ in self.threads]

        def thread(number: int) -> None:
            self.threads[number] = current_thread()
            self.perform(self.drawn.threads[number], results[number])

        numbers = range(len(self.threads))
        if self.drawn.spawns:
            started = [spawn(thread, number, name=f"t{number}") for number in numbers]
            for one in started:
                one.join()
        else:
            parallel(*[lambda n=n: thread(n) for n in numbers])
        for child in self.children:
            child.join()
        left = [cell.peek() for cell in self.cells] + [atomic.peek() for atomic in self.atomics]
        signals = [self.permits.peek(), *(event.peek() for event in self.events)]
        seen.add(repr((results, [child.result for child in self.children], left, signals)))

    def perform(self, operations: tuple[Operation, ...], seen: Seen) -> Seen:
        """Perform operations one after the other; what they return goes to ``seen``."""
        for name, index, value in operations:
            result = self.one(name, index, value, seen)
            if result is not None:
                seen.append(result)
            if self.drawn.strict:
                assert seen.count(True) < 2, seen
        return seen

    def one(self, name: str, index: int, value: Any, seen: Seen) -> object:
        """Perform one operation."""
        if name in _NESTS:
            return self.nesting(name, index, value, seen)
        number = value or 0
        simple: dict[str, Callable[[], object]] = {
            "get": self.cells[index].get,
            "set": lambda: self.cells[index].set(number),
            "load": self.atomics[index].load,
            "store": lambda: self.atomics[index].store(number),
            "exchange": lambda: self.atomics[index].exchange(number),
            "compare": lambda: self.atomics[index].compare_exchange(number, number + 1),
            "add": self.atomics[index].fetch_add,
            "attempt": lambda: self.attempt(index, -1),
            "attempt-for": lambda: self.attempt(index, 1),
            "wait": lambda: self.wait(value),
            "notify": self.notify,
            "notify-all": self.notify_all,
            "wait-for": lambda: self.wait_for(value),
            "event-set": self.events[index].set,
            "event-clear": self.events[index].clear,
            "event-wait": lambda: self.events[index].wait(value),
            "event-is-set": self.events[index].is_set,
            "permit": lambda: self.permits.acquire(timeout=value),
            "permit-now": lambda: self.permits.acquire(blocking=False),
            "permit-back": self.permits.release,
            "meet": lambda: self.meet(2),
            "meet-for-ever": lambda: self.meet(None),
            "abort": self.barrier.abort,
            "reset": self.barrier.reset,
            "locked": self.mutexes[index].locked,
            "own": lambda: self.queue.assign_owner(current_thread()),
            "disown": lambda: self.queue.assign_owner(None),
            "block": lambda: self.queue.block(value).name,
            "block-releasing": lambda: self.block_releasing(value),
            "wake": self.queue.wake,
            "yield": yield_now,
            "sleep": lambda: self.nap(number),
            "interrupt": lambda: self.interrupt(index),
            "event-wait-interruptible": lambda: self.events[1].wait(value, interruptible=True),
            "block-interruptible": lambda: self.queue.block(value, interruptible=True).name,
        }
        return simple[name]()

    def nesting(self, name: str, index: int, inner: tuple[Operation, ...], seen: Seen) -> object:
        """Perform an operation that others stand within."""
        if name == "lock":
            with self.mutexes[index]:
                self.perform(inner, seen)
        elif name == "spin":
            with self.spin:
                self.perform(inner, seen)
        elif name == "read":
            with self.readers.read():
                self.perform(inner, seen)
        elif name == "write":
            with self.readers.write():
                self.perform(inner, seen)
        elif name.startswith("if-"):
            if self.holds(name, index):
                self.perform(inner, seen)
        else:
            child = spawn(self.perform, inner, [], name="child")
            self.children.append(child)
            if name == "spawn-join":
                child.join()
        return None

    def holds(self, name: str, index: int) -> bool:
        """Look at what a branch hangs on."""
        if name == "if-set":
            return self.cells[index].get() != 0
        if name == "if-zero":
            return self.atomics[index].compare_exchange(0, 1)
        if name == "if-signaled":
            return self.events[index].is_set()
        return self.permits.acquire(timeout=1)

    def attempt(self, index: int, timeout: float) -> bool:
        """Try for a lock, once or for a while."""
        lock = self.mutexes[index]
        taken = lock.acquire(blocking=False) if timeout < 0 else lock.acquire(timeout=timeout)
        if taken:
            lock.release()
        return taken

    def wait(self, timeout: float | None) -> bool:
        """Wait under the condition's lock."""
        with self.condition:
            return self.condition.wait(timeout)

    def notify(self) -> None:
        """Wake one."""
        with self.condition:
            self.condition.notify()

    def notify_all(self) -> None:
        """Wake all."""
        with self.condition:
            self.condition.notify_all()

    def wait_for(self, timeout: float | None) -> bool:
        """Wait until a cell has been written to."""
        with self.condition:
            return self.condition.wait_for(lambda: self.cells[0].get() != 0, timeout)

    def nap(self, seconds: float) -> float:
        """Sleep, and look at the clock."""
        sleep(seconds)
        return monotonic()

    def meet(self, timeout: float | None) -> object:
        """Wait for another at the barrier."""
        try:
            return self.barrier.wait(timeout)
        except BrokenBarrierError:
            return "broken"

    def block_releasing(self, timeout: float | None) -> str:
        """Sleep in the queue without the lock."""
        with self.mutexes[1]:
            return self.queue.block(timeout, releasing=self.mutexes[1]).name

    def interrupt(self, index: int) -> None:
        """Interrupt a thread that runs already, but not oneself."""
        thread = self.threads[index]
        if thread is not None and thread is not current_thread():
            thread.interrupt()
