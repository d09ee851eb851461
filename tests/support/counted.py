"""Programs whose number of inequivalent schedules is published, and the number.

Reference: exact counts under sequential consistency, from the expected results of GenMC's and
Concuerror's test suites. All threads of a program start in one step.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from harness import Atomic, Mutex, Shared, parallel

Program = Callable[[], object]
Body = Callable[[], object]


@dataclass(frozen=True)
class Counted:
    """A program and how many classes its schedules fall into."""

    name: str
    classes: int
    program: Program

    def __str__(self) -> str:
        return self.name


def accesses(*threads: str) -> Program:
    """Each thread reads and writes cells as written: ``"Wx Ry"``."""

    def program() -> None:
        cells = {
            name: Shared(0, name) for name in sorted({o[1] for t in threads for o in t.split()})
        }

        def thread(operations: str) -> None:
            for operation in operations.split():
                cell = cells[operation[1]]
                if operation[0] == "W":
                    cell.set(1)
                else:
                    cell.get()

        parallel(*[lambda t=t: thread(t) for t in threads])

    return program


def adds(threads: int, counters: int = 1) -> Program:
    """Each thread adds to every counter in turn, atomically."""

    def program() -> None:
        cells = [Atomic(0) for _ in range(counters)]

        def thread() -> None:
            for cell in cells:
                cell.fetch_add()

        parallel(*[thread] * threads)

    return program


def locked(threads: int, locks: int) -> Program:
    """Each thread takes all locks in order and counts."""

    def program() -> None:
        taken, cell = [Mutex() for _ in range(locks)], Shared(0)

        def thread() -> None:
            for lock in taken:
                lock.acquire()
            cell.set(cell.get() + 1)
            for lock in reversed(taken):
                lock.release()

        parallel(*[thread] * threads)

    return program


def readers(count: int) -> Program:
    """One writes a cell; the others read a cell of their own, then that one."""

    def program() -> None:
        cell, own = Shared(0), [Shared(0) for _ in range(count)]

        def reader(i: int) -> None:
            own[i].get()
            cell.get()

        parallel(lambda: cell.set(1), *[lambda i=i: reader(i) for i in range(count)])

    return program


def last_zero(count: int) -> Program:
    """Each writer sets its cell to one more than the one before; a reader looks back for a zero."""

    def program() -> None:
        cells = [Shared(0) for _ in range(count + 1)]

        def writer(i: int) -> None:
            cells[i].set(cells[i - 1].get() + 1)

        def reader() -> None:
            i = count
            while cells[i].get() and i:
                i -= 1

        parallel(reader, *[lambda i=i: writer(i) for i in range(1, count + 1)])

    return program


def indexer(threads: int) -> Program:
    """Each thread enters four values into a hash table of 128 slots, with linear probing."""

    def program() -> None:
        table = [Atomic(0) for _ in range(128)]

        def thread(number: int) -> None:
            for i in range(1, 5):
                value = i * 11 + number
                slot = value * 7 % 128
                while not table[slot].compare_exchange(0, value):
                    slot = (slot + 1) % 128

        parallel(*[lambda i=i: thread(i) for i in range(threads)])

    return program


def _squares(name: str, make: Callable[[int], Program]) -> list[Counted]:
    return [Counted(f"{name}({n})", math.factorial(n) ** 2, make(n)) for n in (2, 3, 4)]


def _factorials(name: str, make: Callable[[int], Program], last: int = 7) -> list[Counted]:
    return [Counted(f"{name}({n})", math.factorial(n), make(n)) for n in range(2, last + 1)]


ROWS = [
    Counted("SB", 3, accesses("Wx Ry", "Wy Rx")),
    Counted("MP", 3, accesses("Wx Wy", "Ry Rx")),
    Counted("LB", 3, accesses("Rx Wy", "Ry Wx")),
    Counted("2+2W", 3, accesses("Wx Wy", "Wy Wx")),
    Counted("S", 3, accesses("Wx Wy", "Ry Wx")),
    Counted("CoRW", 3, accesses("Rx Wx", "Wx")),
    Counted("CoWR", 3, accesses("Wx Rx", "Wx")),
    Counted("IRIW", 15, accesses("Wx", "Wy", "Rx Ry", "Ry Rx")),
    Counted("W | R R", 3, accesses("Wx", "Rx Rx")),
    Counted("W | W | R R", 12, accesses("Wx", "Wx", "Rx Rx")),
    *_factorials("ainc", adds),
    *_factorials("lockinc", lambda n: locked(n, 1)),
    *_factorials("lock2inc", lambda n: locked(n, 2)),
    *_squares("inc", lambda n: accesses(*["Rx Wx"] * n)),
    *_squares("rw", lambda n: accesses(*["Wx Rx"] * n)),
    *_squares("binc", lambda n: adds(n, 2)),
    *[Counted(f"writers({n})", math.factorial(n + 1), accesses(*["Wx"] * n, "Rx")) for n in (3, 5)],
    *[Counted(f"readers({n})", 2**n, readers(n)) for n in (2, 6, 8, 13)],
    Counted("last-zero(5)", 64, last_zero(5)),
    Counted("last-zero(10)", 3_328, last_zero(10)),
    Counted("indexer(12)", 8, indexer(12)),
    Counted("indexer(15)", 4_096, indexer(15)),
]
