"""A queue whose operations must look as if each happened at one instant.

    python examples/linearizable.py

No assertion says what the queue has to answer. The history of all calls is held against a reference
in one line: some order of the operations, one that respects who returned before whom was called,
must explain every answer. Here a ``pop`` says "empty" although an item was there all the time.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from harness import History, Mutex, Sequential, Shared, explore, parallel


def queue(state: tuple[str, ...], name: str, args: tuple[Any, ...]) -> Iterator[tuple[Any, Any]]:
    """What a queue does, one operation after the other."""
    if name == "push":
        yield (*state, args[0]), None
    else:
        yield state[1:], state[0] if state else "empty"


class TwoStacks:
    """A queue of two stacks; items move from the inbox to the outbox when that is empty."""

    def __init__(self, *, one_lock: bool) -> None:
        self._lock = Mutex("inbox")
        self._outbox_lock = self._lock if one_lock else Mutex("outbox")
        self._inbox = Shared[tuple[str, ...]]((), "inbox")
        self._outbox = Shared[tuple[str, ...]]((), "outbox")

    def push(self, item: str) -> None:
        """Append."""
        with self._lock:
            self._inbox.set((*self._inbox.get(), item))

    def pop(self) -> str:
        """Take the oldest."""
        with self._outbox_lock:
            items = self._outbox.get()
            if items:
                self._outbox.set(items[1:])
                return items[0]
            if self._outbox_lock is self._lock:
                return self._refill()
        # Between the two locks the items are in nobody's hands.
        with self._lock:
            return self._refill()

    def _refill(self) -> str:
        items = self._inbox.get()
        self._inbox.set(())
        self._outbox.set(items[1:])
        return items[0] if items else "empty"


def users(*, one_lock: bool) -> Callable[[], None]:
    """Make a program: two items are there, and two threads take one each."""

    def program() -> None:
        history = History(Sequential((), queue))
        pushed = TwoStacks(one_lock=one_lock)

        def pop() -> None:
            history.run("pop", (), pushed.pop)

        for item in ("first", "second"):
            history.run("push", (item,), partial(pushed.push, item))
        parallel(pop, pop)

    return program


if __name__ == "__main__":
    for one_lock in (False, True):
        report = explore(users(one_lock=one_lock), "dpor", schedules=None)
        locks = "one lock" if one_lock else "two locks"
        print(f"{locks}: {report.verdict}, {report.reason}")
        if report.failure is not None:
            print(f"\n{report.failure.text()}\n")
