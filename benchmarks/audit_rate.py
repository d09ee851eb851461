"""How fast the audit reads, what it keeps in memory, and what a second process gains.

    python benchmarks/audit_rate.py [EVENTS]

Prints the rates of the class core on decoded tuples, of the reader alone, and of the whole way
from bytes to verdict in the class tier and in all tiers, per second of processor time; the most
memory for a log twice as long; and the wall time of one process over that of two. The logs are
synthetic: 16 threads, 20 classes, 3,200 locks, nesting of up to five locks in the order of their
classes, now and then a release that is not the last.
"""

from __future__ import annotations

import itertools
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import msgspec

from harness.lockorder import HeldLocks, LockClass, LockRules
from harness.trace.lockread import read_log
from harness.trace.logjudge import LogJudge
from stress.audit import audit_paths

THREADS, CLASSES, PER_CLASS, DEPTH = 16, 20, 160, 5
EVENTS = 5_000_000
_CORE_ACQUISITIONS = 600_000
_EDGES = CLASSES * (CLASSES - 1) // 2

Acquisition = tuple[int, int, int]  # thread, lock, site; site 0 is a release


def draw() -> Iterator[Acquisition]:
    """Draw acquisitions and releases that never wait: each thread has locks of its own."""
    rng = random.Random(1)
    mine = PER_CLASS // THREADS
    while True:
        thread = rng.randrange(THREADS)
        classes = sorted(rng.sample(range(CLASSES), rng.randint(1, DEPTH)))
        locks = [c * PER_CLASS + thread * mine + rng.randrange(mine) + 1 for c in classes]
        for lock in locks:
            yield thread, lock, rng.randint(1, 200)
        if rng.random() < 0.95:
            locks.reverse()
        for lock in locks:
            yield thread, lock, 0


def write(path: Path, events: int) -> None:
    """Write a log of one run, of at least so many events."""
    with path.open("wb") as stream:
        stream.write(_defined(f"{path.stem}#1"))
        seq = 0
        for time_, (thread, lock, site) in enumerate(draw()):
            for op in ("req", "acq") if site else ("rel",):
                seq += 1
                stream.write(
                    b'[%d,%d,%d,"%s",%d,"x",%d,0]\n' % (seq, time_, thread, op.encode(), lock, site)
                )
            if seq >= events and not site:
                break


def _defined(run: str) -> bytes:
    encode = msgspec.json.encode
    lines = [encode({"zlock": 1, "run": run, "clock": "step"})]
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
    return b"\n".join(lines) + b"\n"


def core() -> None:
    """Run the class core alone."""
    rules = LockRules()
    rules.begin(1)
    classes = [LockClass(f"Class{c}") for c in range(CLASSES)]
    threads = [HeldLocks(f"worker {t}") for t in range(THREADS)]
    acquired, released = rules.acquired, rules.released
    for thread, lock, site in _ACQUISITIONS:
        if site:
            lock_class = classes[(lock - 1) // PER_CLASS]
            acquired(threads[thread], lock_class, lock, 0, "exclusive", False, site)
        else:
            released(threads[thread], lock)
    assert len(rules.edges) == _EDGES
    assert not rules.findings


def read(path: Path) -> None:
    """Decode the log and nothing else."""
    with path.open("rb") as stream:
        for _ in read_log(stream):
            pass


def judge(path: Path, *, predict: bool) -> None:
    """Go the whole way; ``predict``: with the search for deadlocks that no run has reached."""
    whole = LogJudge(predict=predict)
    with path.open("rb") as stream:
        whole.read("synthetic", stream)
    assert not whole.breaches
    assert len(whole.rules.edges) == _EDGES


def rate(label: str, events: int, work: Callable[[], None], times: int = 2) -> None:
    """Print the best of several."""
    best = min(_timed(work, time.process_time) for _ in range(times))
    print(f"{label:<38}{events / best / 1e6:8.2f} M events/s", flush=True)


def _timed(work: Callable[[], object], clock: Callable[[], float]) -> float:
    start = clock()
    work()
    return clock() - start


def memory(path: Path, events: int, *, predict: bool) -> None:
    """Print the peak of a process that judges one log; Linux alone keeps it apart."""
    if not Path("/proc/self/status").exists():
        return
    asked = [sys.executable, __file__, "--peak", str(path), "all" if predict else "class"]
    done = subprocess.run(  # noqa: S603 - this very file
        asked, check=True, capture_output=True, text=True
    )
    tiers = "all tiers" if predict else "class tier"
    megabytes = int(done.stdout) / 1e6
    print(
        f"{f'peak, one run of {events / 1e6:.0f} M events, {tiers}':<38}{megabytes:8.0f} MB",
        flush=True,
    )


def peak(path: Path, tiers: str) -> None:
    """Judge a log, and print the most memory that this process had, in bytes."""
    judge(path, predict=tiers == "all")
    # What getrusage says begins with the process that started this one.
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
    print(int(line.split()[1]) * 1024)


def processes(folder: Path, events: int) -> None:
    """Print how much sooner two processes are done with four logs."""
    paths = [folder / f"log{at}.jsonl" for at in range(4)]
    for path in paths:
        write(path, events // len(paths))
    ratios = []
    for _ in range(2):
        one, two = (
            _timed(partial(audit_paths, paths, jobs=jobs), time.perf_counter) for jobs in (1, 2)
        )
        ratios.append(one / two)
    print(f"{'--jobs 2 over --jobs 1, wall time':<38}{max(ratios):8.2f} x", flush=True)


_ACQUISITIONS: list[Acquisition] = []


def main() -> None:
    """Measure and print."""
    if sys.argv[1:2] == ["--peak"]:
        peak(Path(sys.argv[2]), sys.argv[3])
        return
    events = int(sys.argv[1]) if len(sys.argv) > 1 else EVENTS
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "synthetic.jsonl"
        # One run: predictions look at one stretch of it after the other.
        write(path, events)
        size = path.stat().st_size
        print(f"{events:,} events, {size / events:.0f} bytes each, in one run", flush=True)
        _ACQUISITIONS.extend(itertools.islice(draw(), _CORE_ACQUISITIONS))
        rate("class core, decoded tuples", len(_ACQUISITIONS), core)
        rate("reader alone", events, lambda: read(path))
        rate("bytes to verdict, class tier", events, lambda: judge(path, predict=False))
        rate("bytes to verdict, all tiers", events, lambda: judge(path, predict=True))
        write(path, 2 * events)
        memory(path, 2 * events, predict=False)
        memory(path, 2 * events, predict=True)
        path.unlink()
        processes(Path(name), events)


if __name__ == "__main__":
    main()
