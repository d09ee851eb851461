"""How many schedules each strategy needs to find each planted bug first: the median over seeds.

    python benchmarks/first_finding.py [--seeds N] [--schedules N] [--jobs J] [--only M08,M19]

Every bug is hunted on its own scenario by every strategy that draws, with seeds 0 to N-1, each hunt
to its first finding or to the end of its budget. Printed is the median of the schedules that it
took, beside the depth that the catalogue gives; ``>`` before it where half of the hunts or more
found nothing within the budget. Exits with 1 where ``portfolio`` is above the bounds below.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from stress import mutants, work
from stress.catalogue import find
from stress.mutants import Mutant
from stress.pool import Crash, Task, run_tasks
from stress.runner import Options

STRATEGIES: Final = ("portfolio", "random", "pct", "pos", "urw", "surw")
# The most that the median may be under the portfolio, for bugs of depth 0 and 1, and for others.
SHALLOW, DEEP = 200, 5_000


def plans_of(mutant: Mutant, seeds: int, schedules: int) -> list[work.Plan]:
    """All hunts for one bug, strategy by strategy, seed by seed."""
    entry = find(mutant.scenario)
    plans = []
    for strategy in STRATEGIES:
        for seed in range(seeds):
            options = Options(strategy=strategy, seed=seed)
            spec = options.bound(mutant.spec, entry)
            plans.append((spec, options.setup(spec, entry), schedules))
    return plans


def medians(cells: list[work.Cell], seeds: int, schedules: int) -> dict[str, tuple[float, bool]]:
    """By strategy: the median, and whether it is only a lower bound."""
    found = {}
    for place, strategy in enumerate(STRATEGIES):
        mine = cells[place * seeds : (place + 1) * seeds]
        counts = [cell.schedules if cell.oracle else schedules + 1 for cell in mine]
        middle = statistics.median(counts)
        found[strategy] = (min(middle, schedules), middle > schedules)
    return found


def main() -> int:
    """Hunt, and print a row for each bug as it is done."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--schedules", type=int, default=5_000)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--only", default="")
    given = parser.parse_args()
    chosen = mutants.choose(mutants.read(), [id_ for id_ in given.only.split(",") if id_])
    waiting = [mutant for mutant in chosen if not mutant.control]

    def take() -> Task | None:
        if not waiting:
            return None
        mutant = waiting.pop(0)
        plans = plans_of(mutant, given.seeds, given.schedules)
        return Task(mutant, work.explore_cells, (plans, None))

    print(f"{'bug':<6}{'depth':>6}", *(f"{name:>10}" for name in STRATEGIES))
    above = []
    for mutant, cells in run_tasks(take, given.jobs, fresh=True):
        if isinstance(cells, Crash) or len(cells) < len(STRATEGIES) * given.seeds:
            print(f"{mutant.id:<6} cut short: {cells if isinstance(cells, Crash) else 'a hang'}")
            above.append(mutant.id)
            continue
        row = medians(cells, given.seeds, given.schedules)
        texts = (f"{'>' * more}{middle:g}" for middle, more in row.values())
        print(f"{mutant.id:<6}{mutant.depth:>6}", *(f"{text:>10}" for text in texts), flush=True)
        middle, more = row["portfolio"]
        if more or middle > (SHALLOW if mutant.depth <= 1 else DEEP):
            above.append(mutant.id)
    print(f"above the bounds under portfolio: {', '.join(above) or 'none'}")
    return 1 if above else 0


if __name__ == "__main__":
    sys.exit(main())
