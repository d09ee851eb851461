"""Programs and seeds whose schedules are known by heart: their digests stand in a golden file.

Run as a script it prints them as JSON: each process, hash seed and Python must print the same.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from harness import (
    Atomic,
    Barrier,
    Condition,
    Event,
    LockClass,
    Mutex,
    RwLock,
    Semaphore,
    Shared,
    WaitQueue,
    explore,
    guarded_by,
    invariant,
    parallel,
    replay,
    sleep,
    spawn,
    yield_now,
)


def unnamed() -> None:
    """No name given anywhere: all come from the order of first use. Sets and dicts in plenty."""
    locks = {key: Mutex() for key in ("b", "a", "d", "c")}
    cells = {Shared(0), Shared(1), Shared(2)}
    total = Shared(0)

    def worker(key: str) -> None:
        with locks[key]:
            total.set(total.get() + len(cells))
        yield_now()
        with locks[min(locks)]:
            total.set(total.get() + 1)

    parallel(*[lambda key=key: worker(key) for key in sorted(locks)])
    assert total.peek() == 16, f"lost something: {total.peek()}"


def crossed() -> None:
    """Deadlock of three, beside a thread that has nothing to do with it."""
    locks = [Mutex(f"lock{i}") for i in range(3)]
    busy = Atomic(0, "busy")

    def take(i: int) -> None:
        with locks[i], locks[(i + 1) % 3]:
            busy.fetch_add(i)

    def hum() -> None:
        for _ in range(6):
            busy.fetch_add()

    threads = [spawn(take, i, name=f"take{i}") for i in range(3)] + [spawn(hum)]
    for thread in threads:
        thread.join()


def lost() -> None:
    """A notify that may come too early, with a barrier and a timeout about."""
    condition = Condition(Mutex("m"), "ready")
    gate = Barrier(2, name="gate")

    def waiter() -> None:
        gate.wait()
        with condition:
            condition.wait()

    def waker() -> None:
        gate.wait()
        with condition:
            condition.notify()

    def bystander() -> None:
        with condition:
            condition.wait(0.5)
        sleep(0.25)

    parallel(waiter, waker, bystander)


class Till:
    """A counter that somebody reads without its lock."""

    money = guarded_by("_lock")

    def __init__(self) -> None:
        self._lock = Mutex("till")
        self.money = 0

    def put(self, amount: int) -> None:
        with self._lock:
            self.money += amount


def unguarded() -> None:
    """A guard finding in one branch only."""
    till, closed = Till(), Event("closed")

    def cashier() -> None:
        till.put(1)
        closed.set()

    def auditor() -> None:
        if closed.is_set():
            till.put(till.money)

    parallel(cashier, auditor)


def unbalanced() -> None:
    """An invariant broken between two steps, readers and writers, a semaphore."""
    table = RwLock("table")
    left, right = Shared(3, "left"), Shared(3, "right")
    slots = Semaphore(1, "slots")

    def balanced() -> None:
        total = left.peek() + right.peek()
        assert total in (5, 6), f"left + right is {total}"

    invariant(balanced)

    def move() -> None:
        with slots if left.get() < 3 else table.read():
            left.set(left.get() - 1)
            right.set(right.get() + 1)

    parallel(move, move)


def disordered() -> None:
    """Lock classes in two orders that never meet: an order finding over several schedules."""
    outer, inner = Mutex(lock_class=LockClass("Outer")), Mutex(lock_class=LockClass("Inner"))
    turn = Atomic(0, "turn")

    def first() -> None:
        if turn.fetch_add() == 0:
            with outer, inner:
                pass

    def second() -> None:
        if turn.fetch_add() == 0:
            with inner, outer:
                pass

    parallel(first, second)


def slept_through() -> None:
    """A wait queue whose owner is asleep in it: waits, owners, priorities, early timeouts."""
    queue, lock = WaitQueue("queue"), Mutex("m")

    def sleeper() -> None:
        with lock:
            result = queue.block(1.0, releasing=lock)
        assert result.value == "woken", result

    def waker() -> None:
        with lock:
            queue.wake()

    parallel(sleeper, waker, names=["sleeper", "waker"])


# fmt: off
def spread() -> None:
    """All threads are stuck in one operation, written in ways that Pythons compile differently."""
    gate, lock = Semaphore(0, "gate"), Semaphore(1, "lock")

    def chained() -> None:
        (
            gate
            .acquire(
                timeout=None,
            )
        )

    def listed() -> None:
        [
            gate.acquire()
            for _ in range(2)
        ]

    def mapped() -> None:
        dict.fromkeys({key: gate.acquire() for key in "ab"})

    def generated() -> None:
        any(gate.acquire() for _ in range(1))

    def entered() -> None:
        with (
            lock,
            gate,
        ):
            pass

    def formatted() -> None:
        str(
            f"{gate.acquire()}"
            f"{gate.acquire()}"
        )

    def cleaned() -> None:
        try:
            yield_now()
        finally:
            gate.acquire()

    def looped() -> None:
        while not (
            gate.acquire()
        ):
            pass

    def chosen() -> None:
        (
            gate.acquire()
            if gate.peek() == 0
            else gate.release()
        )

    def matched() -> None:
        match (
            gate.acquire()
        ):
            case True:
                pass

    def asserted() -> None:
        assert (
            0
            < gate.acquire()
            < 2
        ), "message"

    def defaulted(value: object = None) -> None:
        defaulted(
            value
            or gate.acquire()
        )

    parallel(
        chained, listed, mapped, generated, entered, formatted, cleaned, looped, chosen,
        matched, asserted, defaulted,
        lambda: (
            gate.acquire()
        ),
    )
# fmt: on


PROGRAMS = {
    program.__name__: program
    for program in (
        unnamed,
        crossed,
        lost,
        unguarded,
        unbalanced,
        disordered,
        slept_through,
        spread,
    )
}
STRATEGIES = ("random", "pct", "round-robin", "dfs", "portfolio")
SEED = 20_240_229


def facts(name: str, strategy: str) -> dict[str, object]:
    """All that a reader can know of one exploration, but for time, lines and files."""
    report = explore(
        PROGRAMS[name],
        strategy,
        schedules=60,
        seed=SEED,
        stop_at_first=False,
        early_timeouts=name == "lost",
    )
    return {
        "verdict": report.verdict,
        "schedules": report.schedules,
        "steps": report.steps,
        "switches": report.switches,
        "preemptions": report.preemptions,
        "failing": report.failing,
        "failures": [
            {
                "kind": failure.kind,
                "schedule": failure.schedule,
                "steps": failure.steps,
                "preemptions": failure.preemptions,
                "fingerprint": failure.fingerprint,
                "digest": failure.digest,
                "token": failure.token,
            }
            for failure in report.failures
        ],
    }


def everything() -> dict[str, dict[str, object]]:
    """The facts of every program under every strategy, by ``program/strategy``."""
    return {
        f"{name}/{strategy}": facts(name, strategy) for name in PROGRAMS for strategy in STRATEGIES
    }


def replayed(tokens: dict[str, str]) -> dict[str, list[object]]:
    """Digest, kind, steps and token of each token run again here, by ``program/...``."""
    found = {}
    for key, token in tokens.items():
        failure = replay(PROGRAMS[key.split("/", 1)[0]], token)
        assert failure is not None, key
        found[key] = [failure.digest, failure.kind, failure.steps, failure.token]
    return found


def main(arguments: list[str]) -> None:
    """Without arguments everything; with a file of tokens their replays."""
    if arguments:
        tokens = json.loads(Path(arguments[0]).read_text(encoding="utf-8"))
        result: object = replayed(tokens)
    else:
        result = everything()
    sys.stdout.write(json.dumps(result, sort_keys=True))


if __name__ == "__main__":
    main(sys.argv[1:])
