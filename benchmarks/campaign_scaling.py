"""How campaigns scale: local processes and Dask workers, one and two, in one run.

    python benchmarks/campaign_scaling.py [--parts N] [--schedules S] [--rounds R] [--scenario X]
                                          [--strategy X]

Of each it prints schedules/s from the first part that came in to the last (starting processes is
left out), and what one part costs the process that runs the campaign, in CPU time: that does not
depend on who else uses the machine, and it is what bounds a large cluster. Nor do two figures of
local workers: the CPU time of a schedule, which would rise where two workers cost each other
something or do something twice, and how long a worker waits between two parts (the median). From
them follows what two cores give that nobody else uses. The last lines project 100 workers, and say
what they assume. Dask is left out where it is not installed, and the exit code is then 3.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Final

_ROOT: Final = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(_ROOT))
# Workers of every kind are processes of their own, and find the project by this.
os.environ["PYTHONPATH"] = os.environ.get("PYTHONPATH") or str(_ROOT)

from stress.campaigns import parts  # noqa: E402 - found by the line above
from stress.campaigns.cluster import Cluster  # noqa: E402
from stress.campaigns.drive import Driver, Local, Workers  # noqa: E402
from stress.campaigns.parts import Outcome  # noqa: E402
from stress.campaigns.plan import Job, Plan, Take, made  # noqa: E402
from stress.campaigns.store import Store  # noqa: E402
from stress.exit_codes import ExitCode  # noqa: E402
from stress.pool import Crash, Task, run_tasks  # noqa: E402

WORKERS: Final = 100
_PART_SECONDS: Final = 600.0
# When a part began and ended, and its CPU seconds.
Span = tuple[float, float, float]


@dataclass
class Figures:
    """One run of the plan.

    Attributes:
        rate: Schedules/s, all workers together.
        part: CPU seconds of the driving process for each part.
        busy: Share of the workers' time in which they explored.
        cost: CPU seconds of a worker for each schedule; 0 where it is not known.
        gap: Seconds between two parts of a worker.
    """

    rate: float
    part: float
    busy: float
    cost: float = 0.0
    gap: float = 0.0


class Timed(Local):
    """Local workers that say when they began and ended each part, and what it cost them."""

    def __init__(self, jobs: int) -> None:
        super().__init__(jobs, _PART_SECONDS)
        self._spans: dict[str, list[Span]] = {}
        self._schedules = 0

    def run(self, take: Take) -> Iterator[tuple[Job, Outcome | Crash]]:
        """See ``drive.Workers``."""

        def task() -> Task | None:
            job = take()
            return None if job is None else Task(job, timed, (job,), _PART_SECONDS, contained=True)

        for job, value in run_tasks(task, self.jobs):
            if isinstance(value, Crash):
                yield job, value
                continue
            outcome, span = value
            self._spans.setdefault(outcome.worker, []).append(span)
            self._schedules += outcome.schedules
            yield job, outcome

    def add(self, figures: Figures) -> None:
        """Enter cost and gap."""
        spans = self._spans.values()
        figures.cost = sum(cpu for one in spans for _, _, cpu in one) / self._schedules
        figures.gap = median(
            began - ended for one in spans for (_, ended, _), (began, _, _) in pairwise(sorted(one))
        )


def timed(job: Job) -> tuple[Outcome, Span]:
    """In a worker: a part, when it began and ended, and the CPU seconds between."""
    began, spent = time.monotonic(), time.process_time()
    outcome = parts.run_bounded(job, None)
    return outcome, (began, time.monotonic(), time.process_time() - spent)


class Clock:
    """Counts what came between the first and the last part."""

    def __init__(self) -> None:
        self.schedules = self.count = 0
        self.busy = 0.0
        self._first: tuple[float, float] | None = None
        self._last = (0.0, 0.0)

    def part(self, job: Job, outcome: Outcome, fresh: list[str]) -> None:
        """See ``drive.Watcher``."""
        del job, fresh
        self._last = time.monotonic(), time.process_time()
        if self._first is None:
            self._first = self._last
            return
        self.count += 1
        self.schedules += outcome.schedules
        self.busy += outcome.seconds

    def lost(self, job: Job, crash: Crash, *, given_up: bool) -> None:
        """A measurement in which something broke is none."""
        del given_up
        raise SystemExit(f"part {job.number} was lost: {crash}")

    def figures(self, jobs: int) -> Figures:
        """What it comes to."""
        assert self._first is not None
        wall, cpu = (last - first for last, first in zip(self._last, self._first, strict=True))
        return Figures(self.schedules / wall, cpu / self.count, self.busy / wall / jobs)


def measure(plan: Plan, make: Callable[[int], Workers], jobs: int) -> Figures:
    """Run the plan once."""
    clock = Clock()
    with (
        tempfile.TemporaryDirectory() as folder,
        Store(str(Path(folder) / "store.sqlite"), make=True) as store,
        contextlib.closing(make(jobs)) as workers,
    ):
        campaign = store.create("scaling", plan, parts.code_digest())
        Driver(store, campaign, plan, workers, clock).run()
    figures = clock.figures(jobs)
    if isinstance(workers, Timed):
        workers.add(figures)
    return figures


def main() -> int:
    """Measure, print, project."""
    parser = argparse.ArgumentParser(description="how campaigns scale")
    parser.add_argument("--parts", type=int, default=40)
    parser.add_argument("--schedules", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scenario", default="commit-decommit")
    parser.add_argument("--strategy", default="random")
    given = parser.parse_args()
    plan = made(
        [given.scenario],
        strategies=[given.strategy],
        seeds=f"0-{given.parts - 1}",
        schedules=given.schedules,
    )
    kinds: dict[str, Callable[[int], Workers]] = {"local": Timed}
    if importlib.util.find_spec("distributed"):
        kinds["dask"] = lambda n: Cluster("local", n, _PART_SECONDS)
    best: dict[tuple[str, int], Figures] = {}
    for _ in range(given.rounds):
        # In turn, so that a busy minute of the machine meets all of them.
        for kind, make in kinds.items():
            for jobs in (1, 2):
                one = measure(plan, make, jobs)
                known = best.get((kind, jobs))
                if known is None or one.rate > known.rate:
                    best[kind, jobs] = one
    print(
        f"{given.parts} parts of {given.schedules} schedules of {given.scenario} under "
        f"{given.strategy}, best of rounds"
    )
    for (kind, jobs), one in best.items():
        ratio = one.rate / best[kind, 1].rate
        print(
            f"{kind:6} {jobs} worker{'s' if jobs > 1 else ' '} {one.rate:8,.0f} schedules/s"
            f" ({ratio:.2f}x), workers explore {one.busy:4.0%} of the time, a part costs"
            f" {one.part * 1e3:.1f} ms"
        )
    one, two = (best["local", jobs] for jobs in (1, 2))
    alone, beside = (each.cost * given.schedules + each.gap for each in (one, two))
    print(
        f"local, on a core each that nobody else uses: {2 * alone / beside:.2f}x; a schedule costs"
        f" {one.cost * 1e3:.3f} ms of CPU, {two.cost * 1e3:.3f} ms beside another worker; between"
        f" two parts a worker waits {one.gap * 1e3:.1f} ms and {two.gap * 1e3:.1f} ms"
    )
    for kind in kinds:
        project(kind, best[kind, 1].rate, best[kind, 2].part)
    return ExitCode.PASS if len(kinds) == 2 else ExitCode.INCONCLUSIVE


def project(kind: str, rate: float, part: float) -> None:
    """What 100 workers of that kind would do, as far as the driving process lets them."""
    least = WORKERS * rate * part
    print(
        f"{kind}, {WORKERS} workers: {WORKERS * rate:,.0f} schedules/s with parts of at least "
        f"{least:,.0f} schedules; the driving process takes {1 / part:,.0f} parts/s"
    )


if __name__ == "__main__":
    sys.exit(main())
