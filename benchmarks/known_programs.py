"""Programs with known bugs that others have measured themselves on, ported for ``known.py``.

Sources: SCTBench and the variants of it that PERIOD, RFF and SURW use; our own words, by their
published semantics. Granularity: every lock, unlock, wait, notify and shared access is one step;
constants and locals are none. Spawn mode: the main thread spawns in order, then joins in order, and
is scheduled too, which is harder than threads that all start at once by one to three orders of
magnitude.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from programs import (
    Body,
    account,
    carter01,
    circular_buffer,
    deadlock01,
    phase01,
    spawned,
    stack,
    token_ring,
    wronglock,
)

from harness import Condition, Mutex, RwLock, Shared


def reorder(setters: int, checkers: int) -> list[Body]:
    """CS/reorder_K: a checker sees the first write of some setter and the second of none."""
    a, b = Shared(0, "a"), Shared(0, "b")

    def set_both() -> None:
        a.set(1)
        b.set(-1)

    def check() -> None:
        assert (a.get() == 0 and b.get() == 0) or (a.get() == 1 and b.get() == -1)

    return [*([set_both] * setters), *([check] * checkers)]


def fsbench() -> list[Body]:
    """CS/fsbench: 27 threads allocate blocks for 26 inodes; one is out of bounds."""
    inode_locks = [Mutex(f"locki{i}") for i in range(26)]
    block_locks = [Mutex(f"lockb{i}") for i in range(26)]
    busy = [Shared(False, f"busy{i}") for i in range(26)]
    inodes = [Shared(0, f"inode{i}") for i in range(32)]

    def allocate(thread: int) -> None:
        i = thread % 32
        assert 0 <= i < 26, "out of bounds"
        with inode_locks[i]:
            if inodes[i].get() == 0:
                block = 2 * i % 26
                for _ in range(13):
                    with block_locks[block]:
                        if not busy[block].get():
                            busy[block].set(True)
                            inodes[i].set(block + 1)
                            return
                    block = (block + 1) % 26

    return [lambda thread=thread: allocate(thread) for thread in range(27)]  # type: ignore[misc]


def sync01() -> list[Body]:
    """CS/sync01: the buffer is full at the start and nobody ever empties it."""
    lock = Mutex("m")
    empty, full = Condition(lock), Condition(lock)
    number = Shared(1, "num")

    def produce() -> None:
        with lock:
            while number.get() > 0:
                empty.wait()
            number.set(number.get() + 1)
            full.notify()

    def consume() -> None:
        with lock:
            while number.get() == 0:
                full.wait()
            empty.notify()

    return [produce, consume]


def race01() -> list[Body]:
    """CS/race01: two increments without a lock."""
    data = Shared(0, "data")
    done = [0]

    def increment() -> None:
        data.set(data.get() + 1)
        done[0] += 1
        assert done[0] < 2 or data.peek() == 2

    return [increment, increment]


def twostage(writers: int = 1) -> list[Body]:
    """CS/twostage: two values are set under a lock each, and read in between."""
    locks = Mutex("data1 lock"), Mutex("data2 lock")
    first, second = Shared(0, "data1"), Shared(0, "data2")

    def write() -> None:
        with locks[0]:
            first.set(1)
        with locks[1]:
            second.set(first.get() + 1)

    def check() -> None:
        with locks[0]:
            one = first.get()
        if one == 0:
            return
        with locks[1]:
            two = second.get()
        assert two == one + 1, "between the stages"

    return [*([write] * writers), check]


def aget() -> list[Body]:
    """CB/aget-bug2: the log is saved from per-thread counters and a total that move apart."""
    lock = Mutex("bwritten")
    progress = [Shared(0, f"progress{i}") for i in range(3)]
    written = Shared(0, "bwritten")

    def download(i: int) -> None:
        for _ in range(2):
            progress[i].set(progress[i].get() + 1)
            with lock:
                written.set(written.get() + 1)

    def save_log() -> None:
        copies = [each.get() for each in progress]
        assert sum(copies) == written.get()

    return [*[lambda i=i: download(i) for i in range(3)], save_log]


def bounded_buffer(*, relock: bool = True, sides: int = 2, items: int = 4) -> list[Body]:
    """Inspect/boundedBuffer: a consumer that was woken gives the lock up before it takes.

    Args:
        relock: The bug; without it this is Inspect/bbuf, which is correct.
        sides: Producers, and as many consumers.
        items: Of each.
    """
    lock = Mutex("lock")
    not_full, not_empty = Condition(lock, "not_full"), Condition(lock, "not_empty")
    count = Shared(0, "count")

    def put() -> None:
        for _ in range(items):
            lock.acquire()
            while count.get() == 3:
                not_full.wait()
            count.set(count.get() + 1)
            not_empty.notify()
            lock.release()

    def get() -> None:
        for _ in range(items):
            lock.acquire()
            while count.get() == 0:
                not_empty.wait()
            if relock:
                lock.release()
                lock.acquire()
            assert count.get() > 0, "taken from an empty buffer"
            count.set(count.get() - 1)
            not_full.notify()
            lock.release()

    return [*([put] * sides), *([get] * sides)]


def radbench6() -> list[Body]:
    """RADBench/bug6: a reader takes the lock again while a writer waits for it."""
    lock = RwLock("rw", prefer="writer")

    def read() -> None:
        with lock.read(), lock.read():
            pass

    def write() -> None:
        with lock.write():
            pass

    return [read, write]


def cve_2009_3547() -> list[Body]:
    """The pipe is gone before its readers are counted."""
    lock = Mutex("pipe lock")
    pipe: Shared[int | None] = Shared(1, "pipe")

    def open_pipe() -> None:
        with lock:
            assert pipe.get() is not None, "NULL pipe"

    def release_pipe() -> None:
        with lock:
            pipe.set(None)

    return [open_pipe, release_pipe]


def cve_2011_2183() -> list[Body]:
    """The scanner follows a cursor to a slot that was removed meanwhile."""
    lock = Mutex("mm lock")
    cursor = Shared(1, "cursor")
    alive = Shared(True, "slot")

    def scan() -> None:
        with lock:
            slot = cursor.get()
        if slot == 1:
            with lock:
                assert alive.get(), "slot is gone"

    def remove() -> None:
        with lock:
            alive.set(False)
            cursor.set(0)

    return [scan, remove]


def cve_2015_7550() -> list[Body]:
    """The key is validated before its lock is taken, and read after."""
    lock = Mutex("key lock")
    revoked = Shared(False, "flags")
    keys: Shared[int | None] = Shared(1, "keys")

    def read() -> None:
        if not revoked.get():
            with lock:
                assert keys.get() is not None, "revoked"

    def revoke() -> None:
        with lock:
            revoked.set(True)
            keys.set(None)

    return [read, revoke]


def cve_2016_7911() -> list[Body]:
    """The context is tested and used without the lock that clears it."""
    lock = Mutex("task lock")
    context: Shared[int | None] = Shared(1, "io_context")

    def read() -> None:
        if context.get() is not None:
            assert context.get() is not None, "NULL io_context"

    def leave() -> None:
        with lock:
            context.set(None)

    return [read, leave]


def dining(philosophers: int) -> list[Body]:
    """Inspect/Dining: the last philosopher is right-handed, so nobody ever starves."""
    forks = [Mutex(f"fork{i}") for i in range(philosophers)]

    def eat(i: int) -> None:
        pair = forks[i], forks[(i + 1) % philosophers]
        first, second = pair if i < philosophers - 1 else pair[::-1]
        with first, second:
            pass

    return [lambda i=i: eat(i) for i in range(philosophers)]  # type: ignore[misc]


@dataclass(frozen=True)
class Known:
    """One program with what others have published of it.

    Attributes:
        name: As in the papers.
        make: The bodies of its threads over fresh state.
        published: Mean schedules to the first bug by tool: surw, pct (depth 3), pos and random of
            the SURW artifact, 20 trials, cap 10,000, one schedule for profiling included; None
            where fewer than all trials found it or nothing stands there.
        best: The smallest of all published means, PERIOD's and RFF's excluded (they do not sample);
            None where nothing is published.
        control: There is no bug in it.
    """

    name: str
    make: Callable[[], list[Body]]
    published: dict[str, float | None]
    best: float | None = None
    control: bool = False

    @property
    def program(self) -> Callable[[], None]:
        """To be given to ``explore``."""
        return spawned(self.make)


def _known(
    name: str,
    make: Callable[[], list[Body]],
    surw: float | None = None,
    pct: float | None = None,
    pos: float | None = None,
    random: float | None = None,
) -> Known:
    published = {"surw": surw, "pct": pct, "pos": pos, "random": random}
    means = [mean for mean in published.values() if mean is not None]
    return Known(name, make, published, min(means, default=None))


KNOWN: Final = (
    _known("CS/account", account, 6, 4, 4, 18),
    _known("CS/carter01", carter01, None, 5, 2, 1),
    _known("CS/circular_buffer", lambda: circular_buffer(7), 3, 9, 2, 4),
    _known("CS/deadlock01", deadlock01, 2, 13, 4, 3),
    _known("CS/fsbench", fsbench),
    _known("CS/phase01", phase01),
    _known("CS/race01", race01),
    _known("CS/reorder_3", lambda: reorder(2, 1), 7, 185, 86),
    _known("CS/reorder_4", lambda: reorder(3, 1), 7, 554, 533),
    _known("CS/reorder_5", lambda: reorder(4, 1), 10, 647, 2169),
    _known("CS/reorder_10", lambda: reorder(9, 1), 17),
    _known("CS/reorder_20", lambda: reorder(10, 10), 6, 3005),
    _known("CS/reorder_50", lambda: reorder(40, 10), 13),
    _known("CS/reorder_100", lambda: reorder(99, 1), 194),
    _known("CS/stack", lambda: stack(10), 5, 3, 2, 176),
    _known("CS/sync01", sync01),
    _known("CS/token_ring", token_ring, 8, 8, 9, 13),
    _known("CS/twostage", twostage),
    _known("CS/twostage_20", lambda: twostage(19)),
    _known("CS/wronglock", lambda: wronglock(7)),
    _known("CS/wronglock_3", wronglock, 9, 58, 11, 36),
    _known("CB/aget-bug2", aget, 2, 2, 1, 1),
    _known("CVE-2009-3547", cve_2009_3547, 4, 4, 3, 5),
    _known("CVE-2011-2183", cve_2011_2183, 3, 5, 2, 2),
    _known("CVE-2015-7550", cve_2015_7550, 6, 9, 6, 1),
    _known("CVE-2016-7911", cve_2016_7911, 8, 20, 11, 3),
    _known("Inspect/boundedBuffer", bounded_buffer, 9, 20, 5, 7),
    _known("RADBench/bug6", radbench6),
)
CONTROLS: Final = (
    Known(
        "Inspect/bbuf", lambda: bounded_buffer(relock=False, sides=1, items=10), {}, control=True
    ),
    Known("Inspect/Dining3", lambda: dining(3), {}, control=True),
    Known("Inspect/Dining5", lambda: dining(5), {}, control=True),
)
