"""A bounded buffer with one condition for two kinds of waiter.

    python examples/bounded_buffer.py

``notify`` wakes whoever waits longest. With producers and consumers on one condition, that may be
one who can do nothing with it, and the one who could sleeps on. It takes three threads and a buffer
of one place; a test that merely runs the code finds it on a bad day. Two conditions cure it.
"""

from collections.abc import Callable

from harness import Condition, Mutex, explore, guarded_by, parallel


class Buffer:
    """At most ``places`` items; ``put`` waits for room and ``get`` for an item."""

    items: list[int] = guarded_by("_mutex")

    def __init__(self, places: int, *, shared: bool) -> None:
        self._places = places
        self._mutex = Mutex("buffer")
        self._room = Condition(self._mutex, "room")
        self._item = self._room if shared else Condition(self._mutex, "item")
        self.items = []

    def put(self, item: int) -> None:
        """Append, when there is room."""
        with self._mutex:
            while len(self.items) == self._places:
                self._room.wait()
            self.items.append(item)
            self._item.notify()

    def get(self) -> int:
        """Take the oldest, when there is one."""
        with self._mutex:
            while not self.items:
                self._item.wait()
            item = self.items.pop(0)
            self._room.notify()
            return item


def exchange(*, shared: bool) -> Callable[[], None]:
    """Make a program: two producers of two items each, and one consumer of all four."""

    def program() -> None:
        buffer = Buffer(1, shared=shared)

        def produce() -> None:
            for item in range(2):
                buffer.put(item)

        def consume() -> None:
            assert sorted(buffer.get() for _ in range(4)) == [0, 0, 1, 1]

        parallel(produce, produce, consume, names=("left", "right", "consumer"))

    return program


if __name__ == "__main__":
    for shared in (True, False):
        report = explore(exchange(shared=shared), schedules=5_000)
        conditions = "one condition" if shared else "two conditions"
        print(f"{conditions}: {report.verdict}, {report.reason}")
        if report.failure is not None:
            print(f"\n{report.failure.text()}\n")
