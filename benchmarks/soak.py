"""Hours of exploring: memory, threads, open files and speed must be at the end what they were.

    python benchmarks/soak.py [--seconds S] [--of process,run,campaign] [--json]
                              [--slower SHARE]

Three subjects explore side by side, each a process of its own, watched from outside by /proc:

    process    one process that runs a mixture for ever: scenarios of the model as a worker process
               does it, lock log and conclusion included; small programs that pass, fail, hang on
               each other, run on the patched standard library or freely; replay and minimize
    run        `python -m stress run`, one scenario that draws a new program in every schedule
    campaign   `python -m stress campaign run`, several scenarios in turns, into a store

Samples are taken at regular times, those of a command from all processes of it together. Each
quantity is compared by its median in the first and in the last tenth of the time:

    memory     resident, may grow by 5% and 8 MB
    threads    may grow by one: a sample may fall in between two schedules
    files      open descriptors, may grow by two
    objects    of Python, that its garbage collector follows, in ``process`` alone: 5% and 1,000
    speed      schedules per second of CPU time, may fall by ``--slower`` [0.1] more than that of
               fresh processes: every minute a new one runs a few turns of the same mixture. Who
               else uses the machine slows both down; what age does, only the old one. The wall's
               is printed beside, and judged by nobody

The exit code is 1 where one of them is not flat or a subject ended early. Needs Linux.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import itertools
import json
import os
import re
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

_ROOT: Final = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(_ROOT), str(_ROOT / "benchmarks"), str(_ROOT / "tests" / "support")]

# Samples are so far apart, or less where the whole time is short.
_EVERY_SECONDS: Final = 10.0
_SAMPLES_LEAST: Final = 100
_WARM_SECONDS: Final = 60.0
_END_SECONDS: Final = 180.0
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_TICKS: Final = os.sysconf("SC_CLK_TCK")
_TENTHS: Final = 10
SLOWER: Final = 0.1
# A fresh process starts so often, and runs so many turns, the first of which is not counted.
_FRESH_SECONDS: Final = 60.0
_FRESH_TURNS: Final = 4


@dataclass(frozen=True)
class Sample:
    """One look at a subject.

    Attributes:
        wall: Seconds since it began to explore.
        cpu: Seconds of CPU time that it has taken.
        schedules: That it has run.
        memory: Resident bytes.
        threads: Of the system.
        files: Open descriptors.
        objects: That Python's collector follows; 0 where nobody can see them.
    """

    wall: float
    cpu: float
    schedules: int
    memory: int
    threads: int
    files: int
    objects: int = 0


# -- judging --------------------------------------------------------------------------------------

# How much more the last tenth may have: a share of the first one's, and so much besides.
_MORE: Final = {
    "memory": (0.05, 8 << 20),
    "threads": (0.0, 1),
    "files": (0.0, 2),
    "objects": (0.05, 1_000),
}


def judged(
    samples: Sequence[Sample], slower: float = SLOWER, machine: float = 1.0
) -> dict[str, dict[str, Any]]:
    """Each quantity at the beginning and at the end, and whether it is flat.

    Args:
        samples: By time.
        slower: By which share the speed may fall, beside that of the machine.
        machine: Speed of fresh processes at the end, as a share of theirs at the beginning.
    """
    begin, end = samples[0].wall, samples[-1].wall
    tenth = (end - begin) / _TENTHS
    first = [one for one in samples if one.wall <= begin + tenth]
    last = [one for one in samples if one.wall >= end - tenth]
    found: dict[str, dict[str, Any]] = {}
    for name, (share, more) in _MORE.items():
        was, now = (statistics.median(getattr(one, name) for one in part) for part in (first, last))
        found[name] = {"first": was, "last": now, "flat": now <= was * (1 + share) + more}
    for name, clock in (("speed", "cpu"), ("wall speed", "wall")):
        was, now = (_rate(part, tenth, clock) for part in (samples, samples[::-1]))
        flat = clock == "wall" or 0 < was * machine * (1 - slower) <= now
        found[name] = {"first": was, "last": now, "flat": flat}
    return found


def _rate(samples: Sequence[Sample], tenth: float, clock: str) -> float:
    """Schedules a second, from the first of the samples on; 0 where none was run."""
    edge = samples[0]
    for one in samples:
        # Subjects say now and then how many they have run: more than one such time is needed.
        if abs(one.wall - edge.wall) >= tenth and one.schedules != edge.schedules:
            taken = getattr(one, clock) - getattr(edge, clock)
            return (one.schedules - edge.schedules) / taken if taken else 0.0
    return 0.0


def machine_speed(fresh: Sequence[tuple[float, float]]) -> float:
    """What became of the speed of fresh processes, from the first to the last tenth of the time.

    Args:
        fresh: When each ended, and its schedules per second of CPU time; by time.

    Returns:
        The last as a share of the first; 1 where no more than one was measured.
    """
    if len(fresh) < 2:
        return 1.0
    tenth = (fresh[-1][0] - fresh[0][0]) / _TENTHS
    was = statistics.median(rate for when, rate in fresh if when <= fresh[0][0] + tenth)
    now = statistics.median(rate for when, rate in fresh if when >= fresh[-1][0] - tenth)
    return now / was


# -- looking --------------------------------------------------------------------------------------


def tree(pid: int) -> list[int]:
    """A process and all below it."""
    found = [pid]
    for one in found:
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{one}/task").iterdir():
                found += map(int, (task / "children").read_text().split())
    return found


class Told(NamedTuple):
    """What a subject says of itself: see ``Sample``; its own CPU time is that of its count."""

    schedules: int = 0
    objects: int = 0
    cpu: float | None = None


def looked(pid: int, began: float, told: Told) -> Sample:
    """What a process and those below it have at this moment."""
    cpu = 0.0
    memory = threads = files = 0
    for one in tree(pid):
        folder = Path(f"/proc/{one}")
        try:
            # The name, which comes second, may have spaces in it.
            stat = (folder / "stat").read_text().rpartition(")")[2].split()
            memory += int((folder / "statm").read_text().split()[1]) * _PAGE
            files += sum(1 for _ in (folder / "fd").iterdir())
        except OSError:
            continue  # has just ended
        cpu += sum(map(int, stat[11:15])) / _TICKS
        threads += int(stat[17])
    wall = time.monotonic() - began
    cpu = cpu if told.cpu is None else told.cpu
    return Sample(wall, cpu, told.schedules, memory, threads, files, told.objects)


class Subject:
    """One process with those below it, in a folder of its own."""

    def __init__(self, name: str, folder: Path, seconds: float) -> None:
        """Start it."""
        folder.mkdir()
        self.name = name
        self.samples: list[Sample] = []
        self._folder = folder
        self._began = 0.0
        self._count, arguments = _SUBJECTS[name](folder, seconds)
        self._process = subprocess.Popen(  # noqa: S603 - ours
            [sys.executable, *arguments],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(_ROOT)},
            stdout=(folder / "out").open("wb"),
            stderr=subprocess.STDOUT,
        )

    def look(self) -> bool:
        """Take a sample, if it explores already; False where it has ended."""
        if self._process.poll() is not None:
            return False
        told = self._count()
        if told.schedules:
            self._began = self._began or time.monotonic()
            self.samples.append(looked(self._process.pid, self._began, told))
        return True

    def end(self) -> str:
        """Let it come to its end; why that is not as it should be, or nothing."""
        if self.name == "process":
            self._process.send_signal(signal.SIGTERM)
        try:
            code = self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            return f"did not end within {_END_SECONDS:g} s"
        # A finding is no fault here: some are planted.
        if code in (0, 1, 3, -signal.SIGTERM):
            return ""
        said = (self._folder / "out").read_text(errors="replace")[-2000:]
        return f"ended with {code}: {said}"


class Fresh:
    """New processes of the mixture, one after the other: what the machine gives at this time."""

    def __init__(self, folder: Path) -> None:
        """Nothing runs yet; each will tell in this folder, which must exist."""
        self.rates: list[tuple[float, float]] = []
        self._told = folder / "fresh.json"
        self._process: subprocess.Popen[bytes] | None = None
        self._due = time.monotonic()

    def look(self) -> None:
        """Note what has ended, and start what is due."""
        if self._process is not None and self._process.poll() is not None:
            if self._process.returncode == 0:
                rate = json.loads(self._told.read_text())
                self.rates.append((time.monotonic(), rate))
            self._process = None
        if self._process is None and time.monotonic() >= self._due:
            self._due = time.monotonic() + _FRESH_SECONDS
            self._process = subprocess.Popen(  # noqa: S603 - ours
                [sys.executable, str(Path(__file__).resolve()), "--fresh", str(self._told)],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": str(_ROOT)},
            )

    def end(self) -> None:
        """Leave nothing behind that runs."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()


Count = Callable[[], Told]
_LINE: Final = re.compile(r": ([\d,]+) schedules, ")


def _process(folder: Path, _seconds: float) -> tuple[Count, list[str]]:
    told = folder / "told.json"

    def count() -> Told:
        return Told(*json.loads(told.read_text())) if told.exists() else Told()

    return count, [str(Path(__file__).resolve()), "--mixture", str(told)]


def _run(folder: Path, seconds: float) -> tuple[Count, list[str]]:
    log = folder / "log.jsonl"

    def count() -> Told:
        found = _LINE.findall(log.read_text()) if log.exists() else []
        return Told(int(found[-1].replace(",", ""))) if found else Told()

    words = ["run", "mixed", "--seconds", f"{seconds:g}", "--keep-going", "--log-file", str(log)]
    return count, ["-m", "stress", *words, "--jobs", "1", "--json"]


_PLAN: Final = """
seeds = "0-99999"
schedules = 64
strategies = ["portfolio", "pct"]

[[scenario]]
name = "commit-decommit"

[[scenario]]
name = "workload-multi-vmo"

[[scenario]]
name = "evict-evict"
"""


def _campaign(folder: Path, seconds: float) -> tuple[Count, list[str]]:
    store = folder / "store.sqlite"
    (folder / "plan.toml").write_text(f"seconds = {seconds:g}\n{_PLAN}", encoding="utf-8")

    def count() -> Told:
        try:
            with contextlib.closing(sqlite3.connect(f"file:{store}?mode=ro", uri=True)) as database:
                row = database.execute("SELECT coalesce(sum(schedules), 0) FROM parts").fetchone()
                return Told(int(row[0]))
        except sqlite3.OperationalError:
            return Told()

    words = ["campaign", "run", "plan.toml", "--name", "soak", "--store", str(store)]
    return count, ["-m", "stress", *words, "--jobs", "1", "--json"]


_SUBJECTS: Final = {"process": _process, "run": _run, "campaign": _campaign}


# -- the mixture ----------------------------------------------------------------------------------


def turns() -> Iterator[int]:
    """Explore for ever; the number of schedules of each turn, all turns of the same kind."""
    from known_programs import CONTROLS, KNOWN

    from harness import Mutex, parallel, spawn
    from harness.explore import explore, minimize, replay
    from stress import work
    from stress.catalogue import Spec, find
    from stress.runner import Options

    def opposed() -> None:
        one, other = Mutex("one"), Mutex("other")

        def take(first: Mutex, second: Mutex) -> None:
            with first, second:
                pass

        parallel(lambda: take(one, other), lambda: take(other, one))

    def queued() -> None:
        import queue
        import threading

        waiting: queue.Queue[int] = queue.Queue(2)
        threads = [threading.Thread(target=waiting.put, args=(n,)) for n in range(3)]
        for thread in threads:
            thread.start()
        assert sorted(waiting.get(timeout=5) for _ in threads) == [0, 1, 2]
        for thread in threads:
            thread.join()

    def raising() -> None:
        def fail() -> None:
            raise ValueError(Mutex("m"))

        spawn(fail).join()

    seed = 0
    while True:
        done = 0
        for name, strategy in _SCENARIOS:
            entry = find(name)
            options = Options(strategy=strategy, seed=seed, keep_going=True)
            spec = options.bound(Spec(name), entry)
            setup = options.setup(spec, entry)
            block = work.explore_block(spec, setup, 1, 2 * _FEW, None, 2)
            done += work.conclude(spec, setup, [block.part]).exploration.schedules
        for program in [one.program for one in (*KNOWN, *CONTROLS)]:
            done += explore(program, schedules=_FEW, seed=seed, stop_at_first=False).schedules
        found = explore(opposed, schedules=64, seed=seed)
        done += found.schedules
        if found.failure is not None:
            assert replay(opposed, found.failure.token) is not None
            minimize(opposed, found.failure)
        for program in (queued, raising):
            patch = program is queued
            done += explore(
                program, schedules=_FEW, seed=seed, patch=patch, stop_at_first=False
            ).schedules
        done += explore(opposed, schedules=_FEW, seed=seed, mode="free").schedules
        seed += 1
        yield done


# Schedules of each member of a turn.
_FEW: Final = 8
_SCENARIOS: Final = (
    ("commit-decommit", "portfolio"),
    ("mixed", "pct"),
    ("proxy-close", "pos"),
    ("workload-instances", "surw"),
    ("canary", "random"),
)


def mixture(told: Path) -> None:
    """Be the subject ``process``, until killed."""
    schedules = 0
    for number in turns():
        schedules += number
        gc.collect()
        text = json.dumps(Told(schedules, len(gc.get_objects()), time.process_time()))
        told.with_suffix(".new").write_text(text)
        told.with_suffix(".new").replace(told)


def fresh(told: Path) -> None:
    """Be one of ``Fresh``: tell schedules per second of CPU time, collections included."""
    counted = 0
    began = 0.0
    for at, number in enumerate(itertools.islice(turns(), _FRESH_TURNS)):
        gc.collect()
        if at:
            counted += number
        else:
            began = time.process_time()
    told.write_text(json.dumps(counted / (time.process_time() - began)))


# -- the command line -----------------------------------------------------------------------------


def soaked(
    names: Sequence[str], seconds: float, folder: Path
) -> tuple[dict[str, tuple[Subject, str]], list[tuple[float, float]]]:
    """Run the subjects for so long; each with why it failed, or nothing; and ``Fresh.rates``."""
    fresh = Fresh(folder)
    subjects = [Subject(name, folder / name, seconds + _WARM_SECONDS) for name in names]
    every = min(_EVERY_SECONDS, seconds / _SAMPLES_LEAST)
    ended: set[str] = set()
    until = time.monotonic() + seconds
    warm = time.monotonic() + _WARM_SECONDS
    while time.monotonic() < until and len(ended) < len(subjects):
        fresh.look()
        ended |= {one.name for one in subjects if one.name not in ended and not one.look()}
        if not all(one.samples for one in subjects) and time.monotonic() < warm:
            until = time.monotonic() + seconds  # what starts and imports is not what is measured
        time.sleep(every)
    fresh.end()
    return {
        one.name: (one, one.end() or ("ended early" if one.name in ended else ""))
        for one in subjects
    }, fresh.rates


def main() -> int:
    """Soak and judge."""
    parser = argparse.ArgumentParser(description="memory, threads and speed over hours")
    parser.add_argument("--seconds", type=float, default=3600.0)
    parser.add_argument("--of", default=",".join(_SUBJECTS), help="subjects, joined by commas")
    parser.add_argument("--slower", type=float, default=SLOWER, help="share that speed may lose")
    parser.add_argument("--json", action="store_true", help="with all samples")
    parser.add_argument("--mixture", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--fresh", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.mixture is not None:
        mixture(given.mixture)
    if given.fresh is not None:
        fresh(given.fresh)
        return 0
    names = given.of.split(",")
    if unknown := sorted(set(names) - set(_SUBJECTS)):
        parser.error(f"no subject {unknown[0]!r}; there are {', '.join(_SUBJECTS)}")
    document: dict[str, Any] = {"seconds": given.seconds, "flat": True, "subjects": {}}
    with tempfile.TemporaryDirectory() as name:
        subjects, rates = soaked(names, given.seconds, Path(name))
        machine = document["machine"] = machine_speed(rates)
        for subject, wrong in subjects.values():
            samples = subject.samples
            enough = len(samples) > _TENTHS
            quantities = judged(samples, given.slower, machine) if enough else {}
            why = wrong or ("" if quantities else "was hardly seen")
            flat = not why and all(one["flat"] for one in quantities.values())
            document["flat"] = document["flat"] and flat
            document["subjects"][subject.name] = {
                "flat": flat,
                "why": why,
                "schedules": samples[-1].schedules if samples else 0,
                "quantities": quantities,
                "samples": [asdict(one) for one in samples],
            }
    if given.json:
        print(json.dumps(document))
    else:
        show(document)
    return 0 if document["flat"] else 1


def show(document: dict[str, Any]) -> None:
    """For people."""
    print(f"fresh processes at the end: {document['machine']:.2f} of their speed at the beginning")
    for name, told in document["subjects"].items():
        print(f"{name}: {told['schedules']:,} schedules in {document['seconds']:g} s")
        if told["why"]:
            print(f"  {told['why']}")
        for quantity, one in told["quantities"].items():
            scale, unit = (1 << 20, " MB") if quantity == "memory" else (1, "")
            was, now = (f"{one[key] / scale:,.1f}{unit}" for key in ("first", "last"))
            print(f"  {quantity:<11}{was:>14} ->{now:>14}  {'' if one['flat'] else 'NOT FLAT'}")
    print("flat" if document["flat"] else "not flat")


if __name__ == "__main__":
    sys.exit(main())
