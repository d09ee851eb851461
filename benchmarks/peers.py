"""Lockloom beside the two other searchers for threaded Python, on four small programs, in one run.

    python benchmarks/peers.py [--json] [--seeds N] [--only PROGRAM,...]

Needs Python 3.12 or newer with ``frontrun`` and ``interleave-test`` (``tox -e bench`` brings both).
Every figure comes from a process of its own, since each of the peers controls a process once. The
peers run as shipped: unmodified code, a point at every bytecode. Ours runs the same program with
its primitives declared: points are operations. Like is put beside like: random walk with random
walk, PCT with PCT; each peer's fastest mode stands beside. interleave-test's program starts and
joins its threads, as ours does; frontrun is given functions that it runs together, and so is ours
beside it (``together``: one call of ``parallel``).

Three things are measured: schedules a second on the corrected program; the median over seeds of the
time of a whole call that finds the bug of the broken one (ours records the failure twice on its
way); and for ours the part of it up to the failing step, in a process whose threads are up, beside
the better peer under the same strategy.
"""

from __future__ import annotations

import argparse
import importlib
import json
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import harness
from harness.explore import Setup
from harness.search.stage import Stage, prepare

PROGRAMS: Final = ("counter", "abba", "buffer", "dining")
# Tool, its mode, whether it is the mode that a user gets without asking.
MODES: Final = (
    ("lockloom", "random", True),
    ("lockloom", "random together", False),
    ("lockloom", "pct", True),
    ("interleave", "random", True),
    ("interleave", "pct", True),
    ("interleave", "random line", False),
    ("interleave", "pct line", False),
    ("frontrun", "random", True),
)
# Schedules of the corrected program: enough for about a second each.
SCHEDULES: Final = {"lockloom": 5_000, "interleave": 200, "frontrun": 60}
FIRST_BUG_SCHEDULES: Final = 1_000
# A peer that hangs on a program is given up; the row says so.
SECONDS_MAX: Final = 180
ROUNDS: Final = 3
ITEMS: Final = 2


@dataclass(frozen=True, slots=True)
class Kit:
    """What the four programs are made of: ours, or what a peer patches."""

    lock: Callable[[str], Any]
    condition: Callable[[], Any]
    cell: Callable[[], Any]


class PlainCell:
    """A counter as anybody would write it; the peers have a point at each of its bytecodes."""

    def __init__(self) -> None:
        self.value = 0

    def get(self) -> int:
        """Read."""
        return self.value

    def set(self, value: int) -> None:
        """Write."""
        self.value = value


OURS: Final = Kit(harness.Mutex, harness.Condition, lambda: harness.Shared(0, "cell"))
# Looked up when they are made: the peers patch the names in ``threading``.
THEIRS: Final = Kit(
    lambda _name: threading.Lock(),
    lambda: threading.Condition(),  # noqa: PLW0108
    PlainCell,
)


class Program:
    """State, workers and verdict of one program, correct or broken."""

    def __init__(self, kit: Kit, name: str, *, broken: bool) -> None:
        self.broken = broken
        self.workers: list[Callable[[], None]] = []
        self.holds: Callable[[], bool] = lambda: True
        getattr(self, f"_{name}")(kit)

    def _counter(self, kit: Kit) -> None:
        cell, lock = kit.cell(), kit.lock("lock")

        def add() -> None:
            for _ in range(ROUNDS):
                if self.broken:
                    cell.set(cell.get() + 1)
                else:
                    with lock:
                        cell.set(cell.get() + 1)

        self.workers = [add, add]
        self.holds = lambda: bool(cell.get() == 2 * ROUNDS)

    def _abba(self, kit: Kit) -> None:
        a, b = kit.lock("a"), kit.lock("b")

        def nest(outer: Any, inner: Any) -> Callable[[], None]:
            def work() -> None:
                with outer, inner:
                    pass

            return work

        self.workers = [nest(a, b), nest(b, a) if self.broken else nest(a, b)]

    def _buffer(self, kit: Kit) -> None:
        """Capacity one; broken, one condition for both sides is notified only once."""
        condition = kit.condition()
        items: list[int] = []

        def wake() -> None:
            if self.broken:
                condition.notify()
            else:
                condition.notify_all()

        def produce() -> None:
            for number in range(ITEMS):
                with condition:
                    while items:
                        condition.wait()
                    items.append(number)
                    wake()

        def consume() -> None:
            for _ in range(ITEMS):
                with condition:
                    while not items:
                        condition.wait()
                    items.pop()
                    wake()

        self.workers = [produce, produce, consume, consume]
        self.holds = lambda: not items

    def _dining(self, kit: Kit) -> None:
        forks = [kit.lock(f"fork{number}") for number in range(3)]

        def eat(number: int) -> Callable[[], None]:
            pair = [number, (number + 1) % 3]
            if not self.broken:
                pair.sort()

            def work() -> None:
                with forks[pair[0]], forks[pair[1]]:
                    pass

            return work

        self.workers = [eat(number) for number in range(3)]


# -- one tool, in a process of its own ----------------------------------------------------------

Searcher = Callable[[str, bool, str, int, int], bool]


def lockloom(name: str, broken: bool, mode: str, schedules: int, seed: int) -> bool:
    """Whether our search finds a failure."""
    strategy, program = ours(name, mode, broken=broken)
    return harness.explore(program, strategy, schedules, seed).failure is not None


def ours(name: str, mode: str, *, broken: bool) -> tuple[str, Callable[[], None]]:
    """The strategy of a mode, and the program in the form of it."""
    strategy, _, form = mode.partition(" ")
    return strategy, partial(model, name, broken=broken, together=bool(form))


def to_the_failing_step(name: str, mode: str, seeds: int) -> float:
    """Median milliseconds from the first schedule to the failing step, threads up and parked."""
    spent: list[float] = []
    with Stage(5.0) as stage:
        for seed in range(seeds):
            kind, program = ours(name, mode, broken=True)
            setup = Setup(strategy=kind, seed=seed)
            rules, limits = setup.rules(), setup.limits()
            began = time.perf_counter()
            strategy = prepare(stage, program, setup)
            for schedule in range(1, FIRST_BUG_SCHEDULES + 1):
                begin = partial(strategy.begin, schedule=schedule)
                core, _ = stage.run(program, rules, limits, begin, schedule)
                if core.finding is not None:
                    spent.append((time.perf_counter() - began) * 1e3)
                    break
    return statistics.median(spent)


def model(name: str, *, broken: bool, together: bool) -> None:
    """One of the programs with its primitives declared, as ``explore`` takes it."""
    program = Program(OURS, name, broken=broken)
    if together:
        harness.parallel(*program.workers)
    else:
        for thread in [harness.spawn(work) for work in program.workers]:
            thread.join()
    assert program.holds()


def interleave(name: str, broken: bool, mode: str, schedules: int, seed: int) -> bool:
    """Whether interleave-test finds a failure."""
    tool: Any = importlib.import_module("interleave_test")
    strategy, _, granularity = mode.partition(" ")

    def model() -> None:
        program = Program(THEIRS, name, broken=broken)
        for task in [tool.spawn(work) for work in program.workers]:
            task.join()
        assert program.holds()

    result = tool.explore(
        model,
        iterations=schedules,
        seed=seed,
        strategy=strategy,
        granularity=granularity or "opcode",
        raise_on_failure=False,
    )
    return not result.ok


def frontrun(name: str, broken: bool, mode: str, schedules: int, seed: int) -> bool:
    """Whether frontrun finds a failure; its runs must be started by its own command."""
    tool: Any = importlib.import_module("frontrun")
    count = len(Program(THEIRS, name, broken=broken).workers)

    def worker(number: int) -> Callable[[Program], None]:
        def work(program: Program) -> None:
            program.workers[number]()

        return work

    result = tool.explore(
        lambda: Program(THEIRS, name, broken=broken),
        [worker(number) for number in range(count)],
        lambda program: program.holds(),
        strategy=mode,
        max_attempts=schedules,
        seed=seed,
        reproduce_on_failure=0,
    )
    if result.inconclusive_reason and not result.failures:
        raise RuntimeError(result.inconclusive_reason)
    return not result.property_holds


TOOLS: Final[dict[str, Searcher]] = {
    "lockloom": lockloom,
    "interleave": interleave,
    "frontrun": frontrun,
}


def measure(tool: str, mode: str, name: str, seeds: int) -> dict[str, Any]:
    """Rate on the corrected program, then the median time to the failure of the broken one."""
    search = TOOLS[tool]
    search(name, False, mode, 5, 0)  # imports, first pool, first specialization of the bytecode
    schedules = SCHEDULES[tool]
    began = time.perf_counter()
    if search(name, False, mode, schedules, 1):
        raise RuntimeError("the corrected program failed")
    rate = schedules / (time.perf_counter() - began)
    found: list[float] = []
    for seed in range(seeds):
        began = time.perf_counter()
        if search(name, True, mode, FIRST_BUG_SCHEDULES, seed):
            found.append((time.perf_counter() - began) * 1e3)
    median = statistics.median(found) if found else None
    answer = {"rate": rate, "found": len(found), "seeds": seeds, "first_bug_ms": median}
    if tool == "lockloom":
        answer["failing_step_ms"] = to_the_failing_step(name, mode, seeds)
    return answer


# -- all of them --------------------------------------------------------------------------------


def in_a_process(tool: str, mode: str, name: str, seeds: int) -> dict[str, Any]:
    """``measure`` in a fresh process; ``{"error": why}`` where the tool gave up."""
    # frontrun hangs for seconds in every deadlocked run: fewer seeds say the same.
    seeds = min(seeds, 5) if tool == "frontrun" else seeds
    one = [sys.executable, __file__, "--one", tool, mode, name, "--seeds", str(seeds)]
    if tool == "frontrun":
        command = shutil.which("frontrun", path=str(Path(sys.executable).parent))
        if command is None:
            return {"error": "its command is not installed"}
        one = [command, *one]
    try:
        ran = subprocess.run(  # noqa: S603 - our own command line
            one, capture_output=True, text=True, timeout=SECONDS_MAX, check=False
        )
    except subprocess.TimeoutExpired:
        return {"error": f"gave no answer within {SECONDS_MAX} s"}
    if ran.returncode != 0:
        lines = ran.stderr.strip().splitlines() or [f"exit code {ran.returncode}"]
        return {"error": lines[-1][:100]}
    answer: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return answer


def compare(programs: Sequence[str], seeds: int) -> dict[str, Any]:
    """All tools on ``programs``, and the ratios that matter."""
    rows = [
        {"program": name, "tool": tool, "mode": mode, "default": default}
        | in_a_process(tool, mode, name, seeds)
        for name in programs
        for tool, mode, default in MODES
    ]
    return {"python": sys.version.split()[0], "rows": rows, "ratios": ratios(rows, programs)}


def ratios(rows: Sequence[dict[str, Any]], programs: Sequence[str]) -> list[dict[str, Any]]:
    """Ours over each peer's default, like strategy against like; times sooner at the failure."""
    by = {(row["program"], row["tool"], row["mode"]): row for row in rows}
    made: list[dict[str, Any]] = []
    for name in programs:
        row: dict[str, Any] = {"program": name}
        peer = by[name, "frontrun", "random"]
        row["over_frontrun"] = _over(by[name, "lockloom", "random together"], peer)
        row["over_frontrun_spawned"] = _over(by[name, "lockloom", "random"], peer)
        for mode in ("random", "pct"):
            mine, peer = by[name, "lockloom", mode], by[name, "interleave", mode]
            row[f"over_interleave_{mode}"] = _over(mine, peer)
            peers = [by.get((name, tool, mode), {}) for tool in ("interleave", "frontrun")]
            best = min(
                (each["first_bug_ms"] for each in peers if each.get("first_bug_ms")), default=None
            )
            row[f"sooner_{mode}"] = best and best / mine["first_bug_ms"]
            row[f"sooner_{mode}_warm"] = best and best / mine["failing_step_ms"]
        made.append(row)
    return made


def _over(ours: dict[str, Any], theirs: dict[str, Any]) -> float | None:
    return ours["rate"] / theirs["rate"] if "rate" in theirs else None


def show(document: dict[str, Any]) -> None:
    """Two tables for a reader."""
    print(f"Python {document['python']}; * is what a user of the tool gets by default")
    print(f"{'program':9} {'tool':11} {'mode':17} {'schedules/s':>12} {'first bug':>12} found")
    for row in document["rows"]:
        star = "*" if row["default"] else " "
        head = f"{row['program']:9} {row['tool']:11} {row['mode']:15} {star} "
        if "error" in row:
            print(f"{head} {row['error']}")
            continue
        median = row["first_bug_ms"]
        first = "-" if median is None else f"{median:.2f} ms"
        warm = f"  {row['failing_step_ms']:.2f} ms warm" if "failing_step_ms" in row else ""
        print(f"{head} {row['rate']:12,.0f} {first:>12} {row['found']}/{row['seeds']}{warm}")
    heads = (
        "frontrun",
        "(spawned)",
        "interleave",
        "sooner",
        "and warm",
        "its pct",
        "sooner",
        "warm",
    )
    print(f"\n{'times':9}" + "".join(f"{head:>11}" for head in heads))
    for row in document["ratios"]:
        cells = [row[key] for key in list(row)[1:]]
        shown = "".join(f"{'-' if cell is None else f'{cell:.1f}':>11}" for cell in cells)
        print(f"{row['program']:9}{shown}")


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", action="store_true", help="one document instead of tables")
    parser.add_argument("--seeds", type=int, default=30, help="of the broken programs (30)")
    parser.add_argument("--only", default=",".join(PROGRAMS), help="programs, with commas")
    parser.add_argument(
        "--one", nargs=3, metavar=("TOOL", "MODE", "PROGRAM"), help=argparse.SUPPRESS
    )
    asked = parser.parse_args()
    if asked.one:
        print(json.dumps(measure(asked.one[0], asked.one[1], asked.one[2], asked.seeds)))
        return
    document = compare(asked.only.split(","), asked.seeds)
    if asked.json:
        print(json.dumps(document, indent=2))
    else:
        show(document)


if __name__ == "__main__":
    main()
