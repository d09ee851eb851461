"""How many schedules each strategy needs to find each planted bug first: the median over seeds.

    python benchmarks/first_finding.py [--seeds N] [--schedules N] [--jobs J] [--only M08,M19]
        [--strategies portfolio,pct] [--write]

Every bug is hunted on its own scenario by every strategy that draws, with seeds 0 to N-1, each hunt
to its first finding or to the end of its budget. Printed is the median of the schedules that it
took, beside the depth that the catalogue gives; ``>`` before it where half of the hunts or more
found nothing within the budget. ``--write`` enters what was measured into the page of evidence
(docs/reference) and leaves what stands there of other bugs and strategies. Exits with 1 where
``portfolio`` is above the bounds below.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parent.parent)]

import evidence_page  # noqa: E402 - found by the line above

from stress import mutants, work  # noqa: E402
from stress.catalogue import find  # noqa: E402
from stress.mutants import Mutant  # noqa: E402
from stress.pool import Crash, Task, run_tasks  # noqa: E402
from stress.runner import Options  # noqa: E402

STRATEGIES: Final = ("portfolio", "random", "pct", "pos", "urw", "surw")
# The most that the median may be under the portfolio, for bugs of depth 0 and 1, and for others.
SHALLOW, DEEP = 200, 5_000
PART: Final = "first finding"


def bound_of(mutant: Mutant) -> int:
    """The most that the median may be under the portfolio."""
    return SHALLOW if mutant.depth <= 1 else DEEP


def plans_of(
    mutant: Mutant, strategies: Sequence[str], seeds: int, schedules: int
) -> list[work.Plan]:
    """All hunts for one bug, strategy by strategy, seed by seed."""
    entry = find(mutant.scenario)
    plans = []
    for strategy in strategies:
        for seed in range(seeds):
            options = Options(strategy=strategy, seed=seed)
            spec = options.bound(mutant.spec, entry)
            plans.append((spec, options.setup(spec, entry), schedules))
    return plans


def medians(cells: Sequence[work.Cell], seeds: int, schedules: int) -> list[tuple[float, bool]]:
    """For each strategy: the median, and whether it is only a lower bound."""
    found = []
    for first in range(0, len(cells), seeds):
        mine = cells[first : first + seeds]
        counts = [cell.schedules if cell.oracle else schedules + 1 for cell in mine]
        middle = statistics.median(counts)
        found.append((min(middle, schedules), middle > schedules))
    return found


def table(measured: dict[str, dict[str, str]], before: Sequence[str]) -> list[str]:
    """The page's table: ``measured`` by bug and strategy, and what stood there of all else.

    Args:
        measured: What is new.
        before: The table's lines as they stand; none where there is no table yet.
    """
    known: dict[str, dict[str, str]] = {}
    if before:
        names = evidence_page.cells(before[0])
        for line in before[2:]:
            row = dict(zip(names, evidence_page.cells(line), strict=True))
            known[row["bug"]] = row
    head = ["bug", "depth", *STRATEGIES]
    lines = ["| " + " | ".join(head) + " |", "|---|" + "--:|" * (len(head) - 1)]
    for mutant in mutants.read():
        if not mutant.control:
            row = known.get(mutant.id, {}) | measured.get(mutant.id, {})
            texts = [row.get(strategy, "") for strategy in STRATEGIES]
            lines.append("| " + " | ".join([mutant.id, str(mutant.depth), *texts]) + " |")
    return lines


def main() -> int:
    """Hunt, and print a row for each bug as it is done."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--schedules", type=int, default=5_000)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--only", default="")
    parser.add_argument("--strategies", default=",".join(STRATEGIES))
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    strategies = [name for name in STRATEGIES if name in given.strategies.split(",")]
    if not strategies:
        parser.error(f"--strategies names none of {', '.join(STRATEGIES)}")
    chosen = mutants.choose(mutants.read(), [id_ for id_ in given.only.split(",") if id_])
    waiting = [mutant for mutant in chosen if not mutant.control]

    def take() -> Task | None:
        if not waiting:
            return None
        mutant = waiting.pop(0)
        plans = plans_of(mutant, strategies, given.seeds, given.schedules)
        return Task(mutant, work.explore_cells, (plans, None))

    print(f"{'bug':<6}{'depth':>6}", *(f"{name:>10}" for name in strategies))
    above = []
    measured: dict[str, dict[str, str]] = {}
    for mutant, cells in run_tasks(take, given.jobs, fresh=True):
        if isinstance(cells, Crash) or len(cells) < len(strategies) * given.seeds:
            print(f"{mutant.id:<6} cut short: {cells if isinstance(cells, Crash) else 'a hang'}")
            above.append(mutant.id)
            continue
        middles = dict(zip(strategies, medians(cells, given.seeds, given.schedules), strict=True))
        row = {name: f"{'>' * more}{middle:g}" for name, (middle, more) in middles.items()}
        print(f"{mutant.id:<6}{mutant.depth:>6}", *(f"{t:>10}" for t in row.values()), flush=True)
        measured[mutant.id] = row
        middle, more = middles.get("portfolio", (0, False))
        if more or middle > bound_of(mutant):
            above.append(mutant.id)
    if given.write:
        evidence_page.write(PART, table(measured, evidence_page.read(PART)))
    print(f"above the bounds under portfolio: {', '.join(above) or 'none'}")
    return 1 if above else 0


if __name__ == "__main__":
    sys.exit(main())
