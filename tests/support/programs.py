"""Small programs whose interleavings have been counted exactly, ported from the SCTBench family.

Granularity: every lock, unlock, shared read and shared write is one step; locals and constants are
none. ``x++`` is a read and a write; ``and``/``or`` read no further than they must; a variable that
an expression names twice is read twice. A failing assertion ends the program where it stands; locks
are released by hand, so that no count owes anything to how an exception leaves a ``with``.

Each function returns the bodies of one program's threads, over fresh state; ``Row.program`` starts
them in one of two ways:

* ``together``: one ``parallel`` call starts all, and the main thread does nothing in between;
* ``spawned``: the main thread spawns in order, then joins in order, and is scheduled too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from harness import Mutex, Shared, parallel, spawn

Body = Callable[[], None]
Program = Callable[[], None]


def account() -> list[Body]:
    """CS/account: the checker's arithmetic is wrong, so it fails whenever it runs last."""
    lock = Mutex("m")
    balance = Shared(1, "balance")
    deposited = Shared(False, "deposited")
    withdrawn = Shared(False, "withdrawn")

    def check() -> None:
        lock.acquire()
        if deposited.get() and withdrawn.get():
            assert balance.get() == (1 - 2) - 4
        lock.release()

    def deposit() -> None:
        lock.acquire()
        balance.set(balance.get() + 2)
        deposited.set(True)
        lock.release()

    def withdraw() -> None:
        lock.acquire()
        balance.set(balance.get() - 4)
        withdrawn.set(True)
        lock.release()

    return [check, deposit, withdraw]


def deadlock01() -> list[Body]:
    """CS/deadlock01: two locks taken in opposite orders."""
    a = Mutex("a")
    b = Mutex("b")
    counter = Shared(1, "counter")

    def forwards() -> None:
        with a, b:
            counter.set(counter.get() + 1)

    def backwards() -> None:
        with b, a:
            counter.set(counter.get() - 1)

    return [forwards, backwards]


def carter01() -> list[Body]:
    """CS/carter01 without its two empty threads: the room is locked under the door's lock."""
    door = Mutex("m")
    room = Mutex("l")

    def visitor(inside: Shared[int]) -> Body:
        def visit() -> None:
            door.acquire()
            inside.set(inside.get() + 1)
            if inside.get() == 1:
                room.acquire()
            door.release()
            door.acquire()
            inside.set(inside.get() - 1)
            if inside.get() == 0:
                room.release()
            door.release()

        return visit

    return [visitor(Shared(0, "A")), visitor(Shared(0, "B"))]


def phase01() -> list[Body]:
    """CS/phase01: the lock of the first phase is never given back."""
    x = Mutex("x")
    y = Mutex("y")

    def phases() -> None:
        x.acquire()
        x.release()
        x.acquire()
        y.acquire()
        y.release()
        y.acquire()
        y.release()

    return [phases, phases]


def token_ring() -> list[Body]:
    """CS/token_ring: the assertion holds in one order only of those in which it is evaluated."""
    lock = Mutex("m")
    x1 = Shared(1, "x1")
    x2 = Shared(2, "x2")
    x3 = Shared(1, "x3")
    flags = [Shared(False, f"f{i}") for i in (1, 2, 3)]

    def first() -> None:
        lock.acquire()
        x1.set((x3.get() + 1) % 4)
        flags[0].set(True)
        lock.release()

    def second() -> None:
        lock.acquire()
        x2.set(x1.get())
        flags[1].set(True)
        lock.release()

    def third() -> None:
        lock.acquire()
        x3.set(x2.get())
        flags[2].set(True)
        lock.release()

    def check() -> None:
        lock.acquire()
        if all(flag.get() for flag in flags):
            assert x1.get() == x2.get() == x3.get()
        lock.release()

    return [first, second, third, check]


def stack(size: int = 3) -> list[Body]:
    """CS/stack: the flag that says "there is something" is never taken back."""
    lock = Mutex("m")
    top = Shared(0, "top")
    flag = Shared(False, "flag")

    def push() -> None:
        for _ in range(size):
            lock.acquire()
            top.set(top.get() + 1)
            flag.set(True)
            lock.release()

    def pop() -> None:
        for _ in range(size):
            lock.acquire()
            if flag.get():
                height = top.get()
                assert height > 0, "underflow"
                top.set(height - 1)
            lock.release()

    return [push, pop]


def circular_buffer(n: int = 3) -> list[Body]:
    """CS/circular_buffer: the index advances even where the flag forbids the access."""
    lock = Mutex("m")
    cells = [Shared(0, f"cell{i}") for i in range(10)]
    first = Shared(0, "first")
    following = Shared(0, "next")
    may_send = Shared(True, "send")
    may_receive = Shared(False, "receive")

    def produce() -> None:
        for i in range(n):
            lock.acquire()
            if may_send.get():
                position = following.get()
                cells[position].set(i)
                following.set(position + 1)
                may_send.set(False)
                may_receive.set(True)
            lock.release()

    def consume() -> None:
        for i in range(n):
            lock.acquire()
            if may_receive.get():
                position = first.get()
                following.get()
                first.set(position + 1)
                assert cells[position].get() == i
                may_receive.set(False)
                may_send.set(True)
            lock.release()

    return [produce, consume]


def reorder(setters: int) -> list[Body]:
    """CS/reorder_K: some setter has done its first write while none has done its second."""
    a = Shared(0, "a")
    b = Shared(0, "b")

    def set_both() -> None:
        a.set(1)
        b.set(-1)

    def check() -> None:
        assert (a.get() == 0 and b.get() == 0) or (a.get() == 1 and b.get() == -1)

    return [*([set_both] * setters), check]


def wronglock(others: int = 3) -> list[Body]:
    """CS/wronglock_K: one thread guards the variable with another lock than the rest."""
    d = Mutex("D")
    t = Mutex("T")
    v = Shared(0, "v")

    def checked() -> None:
        d.acquire()
        before = v.get()
        v.set(v.get() + 1)
        assert v.get() == before + 1
        d.release()

    def unchecked() -> None:
        t.acquire()
        v.set(v.get() + 1)
        t.release()

    return [checked, *([unchecked] * others)]


# -- starting them ------------------------------------------------------------------------------


def together(make: Callable[[], list[Body]]) -> Program:
    """A program that starts all bodies in one step and waits for all."""

    def program() -> None:
        parallel(*make())

    program.__qualname__ = program.__name__ = f"{make.__name__}_together"
    return program


def spawned(make: Callable[[], list[Body]]) -> Program:
    """A program whose main thread spawns each body in order, then joins each in order."""

    def program() -> None:
        threads = [spawn(body) for body in make()]
        for thread in threads:
            thread.join()

    program.__qualname__ = program.__name__ = f"{make.__name__}_spawned"
    return program


@dataclass(frozen=True)
class Row:
    """One program, started one way, with what is known about it exactly.

    Attributes:
        name: Of the program.
        start: How its threads start.
        make: Its bodies over fresh state.
        interleavings: How many there are.
        failing: How many of them fail.
        chance: That one schedule of ``random`` fails.
        chance_pct1: That one schedule of ``pct`` with depth 1 fails; None where unknown.
        steps_max: Steps of the longest interleaving; 0 where unknown.
    """

    name: str
    start: Literal["together", "spawned"]
    make: Callable[[], list[Body]]
    interleavings: int
    failing: int
    chance: float
    chance_pct1: float | None = None
    steps_max: int = 0

    def __str__(self) -> str:
        return f"{self.name}-{self.start}"

    @property
    def program(self) -> Program:
        """To be given to ``explore``."""
        return together(self.make) if self.start == "together" else spawned(self.make)


def _reorder(setters: int) -> Callable[[], list[Body]]:
    def make() -> list[Body]:
        return reorder(setters)

    make.__name__ = f"reorder_{setters + 1}"
    return make


TOGETHER = (
    Row("account", "together", account, 6, 2, 0.33333, 0.333, 14),
    Row("deadlock01", "together", deadlock01, 6, 2, 0.50000, 0, 12),
    Row("carter01", "together", carter01, 4, 2, 0.50000, 0, 24),
    Row("phase01", "together", phase01, 6, 6, 1, 1, 9),
    Row("token_ring", "together", token_ring, 24, 4, 0.16667, 0.167, 23),
    Row("stack", "together", stack, 18, 4, 0.25000, 0, 30),
    Row("circular_buffer", "together", circular_buffer, 17, 9, 0.50000, 0, 51),
    Row("reorder_3", "together", _reorder(2), 162, 8, 0.04938, 0, 8),
    Row("reorder_4", "together", _reorder(3), 6_573, 57, 0.03809, 0, 10),
    Row("reorder_5", "together", _reorder(4), 400_960, 424, 0.03021, 0, 12),
    Row("wronglock_3", "together", wronglock, 71_844, 24_342, 0.37158, 0, 18),
)

SPAWNED = (
    Row("account", "spawned", account, 1_503, 7, 0.13628, 0.250),
    Row("deadlock01", "spawned", deadlock01, 90, 3, 0.37500, 0),
    Row("carter01", "spawned", carter01, 178, 8, 0.49609, 0),
    Row("token_ring", "spawned", token_ring, 451_396, 43_362, 0.09519, 0.083),
    Row("reorder_3", "spawned", _reorder(2), 2_770, 23, 0.02503, 0),
    Row("reorder_4", "spawned", _reorder(3), 436_341, 246, 0.00740, 0),
    Row("reorder_5", "spawned", _reorder(4), 107_069_961, 2_864, 0.00182, 0),
    Row("wronglock_3", "spawned", wronglock, 30_377_786, 692_325, 0.31170, 0),
)
