"""How many events a second the audit's class tier takes, on one core.

    python benchmarks/audit_rate.py [EVENTS]

Prints the rates of the class core on decoded tuples, of the reader alone, and of the whole way from
bytes to verdict in the class tier and in all tiers, per second of processor time. The log is
synthetic: 16 threads, 20 classes, 3,200 locks, nesting of up to five locks in the order of their
classes, and now and then a release that is not the last.
"""

from __future__ import annotations

import io
import random
import sys
import time
from collections.abc import Callable

import msgspec

from harness.lockorder import HeldLocks, LockClass, LockRules
from harness.trace.lockread import read_log
from harness.trace.logjudge import LogJudge

THREADS, CLASSES, PER_CLASS, DEPTH = 16, 20, 160, 5
EVENTS = 1_000_000

Acquisition = tuple[int, int, int]  # thread, lock, site; site 0 is a release


def draw(events: int) -> list[Acquisition]:
    """Draw acquisitions and releases that never wait: each thread has locks of its own."""
    rng = random.Random(1)
    mine = PER_CLASS // THREADS
    found: list[Acquisition] = []
    while len(found) < events:
        thread = rng.randrange(THREADS)
        classes = sorted(rng.sample(range(CLASSES), rng.randint(1, DEPTH)))
        locks = [c * PER_CLASS + thread * mine + rng.randrange(mine) + 1 for c in classes]
        found += [(thread, lock, rng.randint(1, 200)) for lock in locks]
        if rng.random() < 0.95:
            locks.reverse()
        found += [(thread, lock, 0) for lock in locks]
    return found


def log(acquisitions: list[Acquisition]) -> bytes:
    """Write them as one run."""
    encode = msgspec.json.encode
    lines = [encode({"zlock": 1, "run": "synthetic", "clock": "step"})]
    lines += [encode({"d": "thr", "id": t, "name": f"worker {t}"}) for t in range(THREADS)]
    lines += [encode({"d": "cls", "id": c + 1, "name": f"Class{c}"}) for c in range(CLASSES)]
    lines += [
        encode({"d": "lock", "id": c * PER_CLASS + i + 1, "cls": c + 1, "name": f"lock {c}.{i}"})
        for c in range(CLASSES)
        for i in range(PER_CLASS)
    ]
    lines += [
        encode({"d": "site", "id": s, "f": "some/file.py", "l": s, "fn": "f", "m": "some.file"})
        for s in range(1, 201)
    ]
    seq = 0
    for time_, (thread, lock, site) in enumerate(acquisitions):
        for op in ("req", "acq") if site else ("rel",):
            seq += 1
            lines.append(encode([seq, time_, thread, op, lock, "x", site, 0]))
    return b"\n".join(lines) + b"\n"


def core(acquisitions: list[Acquisition]) -> None:
    """Run the class core alone."""
    rules = LockRules()
    rules.begin(1)
    classes = [LockClass(f"Class{c}") for c in range(CLASSES)]
    threads = [HeldLocks(f"worker {t}") for t in range(THREADS)]
    acquired, released = rules.acquired, rules.released
    for thread, lock, site in acquisitions:
        if site:
            lock_class = classes[(lock - 1) // PER_CLASS]
            acquired(threads[thread], lock_class, lock, 0, "exclusive", False, site)
        else:
            released(threads[thread], lock)
    assert len(rules.edges) == CLASSES * (CLASSES - 1) // 2
    assert not rules.findings


def read(data: bytes) -> None:
    """Decode the log and nothing else."""
    for _ in read_log(io.BytesIO(data)):
        pass


def judge(data: bytes, *, predict: bool) -> None:
    """Go the whole way; ``predict``: with the search for deadlocks that no run has reached."""
    whole = LogJudge(predict=predict)
    whole.read("synthetic", io.BytesIO(data))
    assert not whole.breaches
    assert len(whole.rules.edges) == CLASSES * (CLASSES - 1) // 2


def rate(label: str, events: int, work: Callable[[], None]) -> None:
    """Print the best of three."""
    best = min(_timed(work) for _ in range(3))
    print(f"{label:<34}{events / best / 1e6:8.2f} M events/s")


def _timed(work: Callable[[], None]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def main() -> None:
    """Measure and print."""
    events = int(sys.argv[1]) if len(sys.argv) > 1 else EVENTS
    acquisitions = draw(events // 3 * 2)
    data = log(acquisitions)
    logged = data.count(b"\n[")
    print(f"{logged} events, {len(data) / logged:.0f} bytes each")
    rate("class core, decoded tuples", len(acquisitions), lambda: core(acquisitions))
    rate("reader alone", logged, lambda: read(data))
    rate("bytes to verdict, class tier", logged, lambda: judge(data, predict=False))
    rate("bytes to verdict, all tiers", logged, lambda: judge(data, predict=True))


if __name__ == "__main__":
    main()
