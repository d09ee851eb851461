"""Ordinary threaded code, explored as it is: no import of the harness in what is tested.

    python examples/unmodified.py

``Cache`` looks under its lock whether a value is there, computes it without the lock, and stores it
under the lock again. Each half is right; two threads that miss at once compute it twice. The sleep
stands for slow work: on the virtual clock it takes no time.
"""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

from harness import explore, minimize


class Cache:
    """Computes each value at most once. Or so it says."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: dict[str, int] = {}
        self.computed = 0

    def get(self, key: str) -> int:
        """The value of ``key``."""
        with self._lock:
            if key in self._values:
                return self._values[key]
        value = self._compute(key)
        with self._lock:
            self._values[key] = value
        return value

    def _compute(self, key: str) -> int:
        with self._lock:
            self.computed += 1
        time.sleep(60)
        return len(key)


class CarefulCache(Cache):
    """Remembers who computes what; everybody else waits for that."""

    def __init__(self) -> None:
        super().__init__()
        self._done: dict[str, threading.Event] = {}

    def get(self, key: str) -> int:
        """The value of ``key``."""
        with self._lock:
            mine = key not in self._done
            done = self._done.setdefault(key, threading.Event())
        if mine:
            self._values[key] = self._compute(key)
            done.set()
        done.wait()
        return self._values[key]


def two_readers(kind: type[Cache]) -> None:
    cache = kind()
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(cache.get, ["page", "page"])) == [4, 4]
    assert cache.computed == 1, f"computed {cache.computed} times"


def careless() -> None:
    two_readers(Cache)


def careful() -> None:
    two_readers(CarefulCache)


if __name__ == "__main__":
    report = explore(careless, patch=True)
    print(f"careless: {report.verdict}, {report.reason}\n")
    if report.failure is not None:
        print(minimize(careless, report.failure).text())
    report = explore(careful, patch=True, schedules=300)
    print(f"\ncareful: {report.verdict}, {report.reason}")
