"""``bench``: the engine beside the bare hand-offs of the very same schedules, in one run.

The floor is what no engine over OS threads can beat: bare threads that do nothing but hand a baton
on in the recorded order. Engine and floor take turns, each with all of the schedules, so that what
disturbs the machine disturbs both; each figure is the best of its turns, which is what the code
costs.

Reference: switching 3.1.
"""

from __future__ import annotations

import _thread
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Final, TypeAlias

from harness import Mutex, Shared, Thread, spawn
from harness.engine.core import Core
from harness.engine.pool import Baton, settled
from harness.errors import UsageError
from harness.explore import Setup, explore_part
from harness.search.stage import Stage, prepare
from harness.strategies import Strategy
from stress import catalogue, console, documents
from stress.catalogue import Scenario, Spec, program_of
from stress.exit_codes import ExitCode

Choose: TypeAlias = Callable[[], Thread]

# Schedules of an exploration, whose hand-offs are recorded for the floor and repeated by it: under
# random as many as ``explore`` runs by default, since the first ones are looked at more closely.
_SCHEDULES: Final = {"random": 1_000, "pct": 2_000}
_SLICES: Final = 7
# Threads of the engine's program, and how often each goes through its loop of four operations.
THREADS: Final = 4
ROUNDS: Final = 12
# Of the model's scenario, in one slice.
_MODEL_SCHEDULES: Final = 64
# Of one slice of the two-thread hand-off.
_HANDOFFS: Final = 20_000


def four_by_fifty() -> None:
    """4 threads x 12 x (acquire, read, write, release), each spawned and joined: 200 points.

    Each thread has a lock and a cell of its own, so that all of them can always run: under
    ``random`` three of four points switch.
    """
    cells = [Shared(0, f"cell{number}") for number in range(THREADS)]

    def work(lock: Mutex, cell: Shared[int]) -> None:
        for _ in range(ROUNDS):
            lock.acquire()
            cell.set(cell.get() + 1)
            lock.release()

    threads: list[Thread] = [
        spawn(work, Mutex(f"lock{number}"), cell) for number, cell in enumerate(cells)
    ]
    for thread in threads:
        thread.join()
    assert all(cell.peek() == ROUNDS for cell in cells)


@dataclass(frozen=True, slots=True)
class Figure:
    """One measurement beside its floor.

    Attributes:
        schedules_per_second: Of the engine.
        steps_per_second: Of the engine.
        switches_per_schedule: Hand-offs between OS threads.
        floor_schedules_per_second: The bare hand-offs of the same schedules.
        ratio: Time of the engine over time of the floor; 1.0 cannot be beaten.
    """

    schedules_per_second: float
    steps_per_second: float
    switches_per_schedule: float
    floor_schedules_per_second: float
    ratio: float

    def document(self) -> documents.Document:
        """Rounded, for JSON."""
        return {
            "schedules_per_second": round(self.schedules_per_second, 1),
            "steps_per_second": round(self.steps_per_second),
            "switches_per_schedule": round(self.switches_per_schedule, 1),
            "floor_schedules_per_second": round(self.floor_schedules_per_second, 1),
            "ratio": round(self.ratio, 3),
        }


def run(seed: int, *, seconds: float, scenario: str, json: bool) -> ExitCode:
    """Measure and print.

    Args:
        seed: Of all schedules.
        seconds: About how long, all together.
        scenario: Name of the model scenario; empty takes the first that is clean.
        json: One document instead of a table.

    Raises:
        UsageError: The time is too short or the scenario unknown.
    """
    if not 1 <= seconds < float("inf"):
        raise UsageError(f"--seconds must be at least 1, got {seconds:g}")
    entry = _scenario(scenario)
    with settled(0) as refused:
        slice_seconds = seconds / (_SLICES * (6 if entry is not None else 4))
        handoff = handoff_microseconds()
        engine = {name: measure(name, seed, slice_seconds) for name in _SCHEDULES}
        model = None if entry is None else measure_model(entry, seed, slice_seconds)
    document = {
        "seed": seed,
        "python": sys.version.split()[0],
        "settled": refused is None,
        "handoff_us": {name: round(value, 3) for name, value in handoff.items()},
        "engine": {name: figure.document() for name, figure in engine.items()},
        "model": model,
    }
    if json:
        print(documents.encode(document))
    else:
        show(document, refused)
    return ExitCode.PASS


def _scenario(name: str) -> Scenario | None:
    """The model scenario to measure; None in a catalogue that has none."""
    if name:
        return catalogue.find(name)
    clean = [entry for entry in catalogue.discover().values() if entry.expected == "clean"]
    return clean[0] if clean else None


# -- the engine and its floor -------------------------------------------------------------------


def measure(strategy: str, seed: int, slice_seconds: float) -> Figure:
    """Time the 4 x 50 program under a strategy, and the bare hand-offs of its schedules."""
    setup = Setup(strategy=strategy, seed=seed)
    last = _SCHEDULES[strategy]
    order = handoffs(four_by_fifty, setup, last)
    engine: list[float] = []
    floor: list[float] = []
    steps = switches = 0
    began = time.perf_counter()
    while not engine or time.perf_counter() - began < 2 * _SLICES * slice_seconds:
        part = explore_part(four_by_fifty, setup, 1, last, worker=0)
        engine.append(part.seconds / part.schedules)
        steps, switches = part.steps, part.switches
        # The faster kind of baton is the floor, whatever the engine uses.
        floor.append(min(bare(order, kind, 0.0) for kind in kinds()) / last)
    cost, least = min(engine), min(floor)
    return Figure(
        schedules_per_second=1 / cost,
        steps_per_second=steps / last / cost,
        switches_per_schedule=switches / last,
        floor_schedules_per_second=1 / least,
        ratio=cost / least,
    )


def handoffs(program: Callable[[], object], setup: Setup, last: int) -> list[int]:
    """Who holds the baton, hand-off by hand-off, through schedules 1 to ``last``.

    A schedule begins and ends with thread 0. Starting a thread (to it and back) is part of it.
    """
    order = [0]

    def noting(begin: Callable[[Core], Choose], core: Core) -> Choose:
        inner = begin(core)

        def choose() -> Thread:
            thread = inner()
            if thread.index != order[-1]:
                order.append(thread.index)
            if thread.kind == "spawn":
                # The new thread runs up to its first operation and hands the baton back.
                order.extend((len(core.threads), thread.index))
            return thread

        return choose

    with Stage(setup.hang_seconds, 0) as stage:
        strategy = prepare(stage, program, setup)
        for schedule in range(1, last + 1):
            begin = partial(noting, partial(_begin, strategy, schedule))
            stage.run(program, setup.rules(), setup.limits(), begin, schedule)
            if order[-1] != 0:
                order.append(0)
    return order


def _begin(strategy: Strategy, schedule: int, core: Core) -> Choose:
    return strategy.begin(core, schedule)


def kinds() -> list[str]:
    """The kinds of baton that the system has."""
    return ["lock", "eventfd"] if hasattr(os, "eventfd") else ["lock"]


def bare(order: Sequence[int], kind: str, seconds: float) -> float:
    """Seconds that bare threads take for the hand-offs of ``order``, best of a slice.

    Thread 0 is the caller. Each of the others runs through its own list of whom to wake next.
    """
    count = max(order) + 1
    batons = [Baton(eventfd=kind == "eventfd") for _ in range(count)]
    turns: list[list[Callable[[], object]]] = [[] for _ in range(count)]
    for current, following in pairwise(order):
        turns[current].append(batons[following].wake)
    best = float("inf")
    began = time.perf_counter()
    while best == float("inf") or time.perf_counter() - began < seconds:
        best = min(best, _pass_on(turns, batons))
    for baton in batons:
        baton.close()
    return best


def _pass_on(turns: list[list[Callable[[], object]]], batons: list[Baton]) -> float:
    """One pass; every thread is at its baton when the clock starts."""
    gone = [_thread.allocate_lock() for _ in turns[1:]]

    def follow(number: int) -> None:
        park = batons[number].park
        for wake in turns[number]:
            park()
            wake()
        gone[number - 1].release()

    for number, lock in enumerate(gone, 1):
        lock.acquire()
        _thread.start_new_thread(follow, (number,))
    time.sleep(0.001)  # let them all reach their batons
    park = batons[0].park
    began = time.perf_counter()
    for wake in turns[0]:
        wake()
        park()
    spent = time.perf_counter() - began
    for lock in gone:
        lock.acquire()
    return spent


def handoff_microseconds() -> dict[str, float]:
    """What one hand-off between two bare threads costs, for each kind of baton."""
    order = [0, 1] * (_HANDOFFS // 2) + [0]
    return {kind: bare(order, kind, 0.2) / _HANDOFFS * 1e6 for kind in kinds()}


# -- the model ----------------------------------------------------------------------------------


def measure_model(entry: Scenario, seed: int, slice_seconds: float) -> documents.Document:
    """Time one scenario with its checks on and off, under ``random``; slices take turns."""
    spec = Spec(entry.name, draw=seed if entry.drawn else 0)
    setup = Setup(strategy="random", seed=seed, steps_max=entry.steps_max)
    programs = [program_of(spec), program_of(replace(spec, checks=False))]
    costs: tuple[list[float], list[float]] = ([], [])
    steps = 0
    began = time.perf_counter()
    while not costs[0] or time.perf_counter() - began < 2 * _SLICES * slice_seconds:
        for program, cost in zip(programs, costs, strict=True):
            part = explore_part(program, setup, 1, _MODEL_SCHEDULES, worker=0)
            if part.failures:
                raise UsageError(f"scenario {entry.name} fails; measure one that does not")
            cost.append(part.seconds / part.schedules)
            steps = part.steps // part.schedules
    on, off = (min(cost) for cost in costs)
    return {
        "scenario": entry.name,
        "steps_per_schedule": steps,
        "schedules_per_second": round(1 / on, 1),
        "schedules_per_second_unchecked": round(1 / off, 1),
        "ratio": round(on / off, 3),
    }


def show(document: documents.Document, refused: str | None) -> None:
    """Print what ``--json`` would; ``refused`` says why the process is not settled."""
    console.show(console.seed_line(document["seed"]))
    if refused is not None:
        console.show(f"the process could not be pinned to one core ({refused}): figures are worse")
    made = console.table(
        "",
        ">schedules/s",
        ">steps/s",
        ">floor schedules/s",
        ">times the floor",
        title="engine, 4 x 50",
    )
    for name, figure in document["engine"].items():
        made.add_row(
            name,
            f"{figure['schedules_per_second']:,.0f}",
            f"{figure['steps_per_second']:,}",
            f"{figure['floor_schedules_per_second']:,.0f}",
            f"{figure['ratio']:.2f}",
        )
    console.output().print(made)
    costs = ", ".join(f"{name} {cost:.2f} us" for name, cost in document["handoff_us"].items())
    console.show(f"one bare hand-off between two threads: {costs}")
    model = document["model"]
    if model is not None:
        console.show(
            f"{model['scenario']} under random, {model['steps_per_schedule']} steps: "
            f"{model['schedules_per_second']:,.0f} schedules/s with all checks, "
            f"{model['schedules_per_second_unchecked']:,.0f} without "
            f"({model['ratio']:.2f} times the cost)"
        )
    console.show(console.seed_line(document["seed"], last=True))
