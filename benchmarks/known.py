"""Schedules to the first bug of each known program, for each strategy, beside published figures.

    python benchmarks/known.py [--strategies A,B] [--only NAME,...] [--trials N] [--cap N]
        [--seconds S] [--json]

Trial *i* explores with seed *i*. Pilot schedules count as one, as in the published figures; there
are three. No trial of a cell begins after ``--seconds``; a share in round brackets says how many
there were then. Each cell is told on stderr as soon as it is known.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

_HERE: Final = Path(__file__).resolve().parent
sys.path[:0] = [str(_HERE), str(_HERE.parent), str(_HERE.parent / "tests" / "support")]

from known_programs import CONTROLS, KNOWN, Known  # noqa: E402 - found by the line above

from harness import explore  # noqa: E402 - a checkout need not be installed
from harness.strategies import strategy_named  # noqa: E402

STRATEGIES: Final = ("portfolio", "surw", "pos", "pct", "urw", "random")
TRIALS: Final = 20
CAP: Final = 10_000
# Worse than the published figure by more than this factor asks for an explanation.
WORSE: Final = 1.5


@dataclass(frozen=True)
class Cell:
    """One program under one strategy.

    Attributes:
        found: Schedules to the first bug, of the trials that found it.
        trials: How many there were.
    """

    found: tuple[int, ...]
    trials: int

    @property
    def mean(self) -> float | None:
        """Of the trials that found it."""
        return statistics.fmean(self.found) if self.found else None

    @property
    def whole(self) -> bool:
        """Whether every trial found it."""
        return len(self.found) == self.trials

    def __str__(self) -> str:
        if self.mean is None:
            return f"- (0/{self.trials})"
        complete = self.whole and self.trials >= TRIALS
        share = "" if complete else f" ({len(self.found)}/{self.trials})"
        return f"{self.mean:.0f}{share}" if self.mean >= 10 else f"{self.mean:.1f}{share}"


def measure(known: Known, strategy: str, trials: int, cap: int, seconds: float = math.inf) -> Cell:
    """Explore ``known`` with as many seeds, or with fewer where that takes more than so long."""
    pilots = int(strategy_named(strategy).needs_pilot)
    found = []
    began = time.monotonic()
    done = 0
    while done < trials and (done == 0 or time.monotonic() - began < seconds):
        failure = explore(known.program, strategy, cap, seed=done).failure
        if failure is not None:
            found.append(failure.schedule + pilots)
        done += 1
    return Cell(tuple(found), done)


def geometric(values: Sequence[float]) -> float:
    """The geometric mean."""
    return math.exp(statistics.fmean(map(math.log, values)))


def _published(known: Known, strategy: str) -> float | None:
    return known.best if strategy == "portfolio" else known.published.get(strategy)


def show(table: dict[str, dict[str, Cell]], chosen: Sequence[Known]) -> None:
    """A row for each program: ours, and the published figure in brackets."""
    strategies = list(table)
    print(f"{'program':<24}" + "".join(f"{name:>22}" for name in strategies))
    for known in chosen:
        row = f"{known.name:<24}"
        for name in strategies:
            cell = table[name][known.name]
            theirs = _published(known, name)
            row += f"{cell!s:>14} [{'-' if theirs is None else f'{theirs:g}':>5}]"
        print(row)
    print("[published mean; of the portfolio: the best of the four tools]")
    for name in strategies:
        cells = [(known, table[name][known.name]) for known in chosen if not known.control]
        both = [
            (cell.mean, theirs)
            for known, cell in cells
            if cell.mean is not None and (theirs := _published(known, name)) is not None
        ]
        every = [cell.mean for _, cell in cells if cell.mean is not None]
        print(
            f"{name}: {sum(bool(cell.found) for _, cell in cells)} of {len(cells)} found, "
            f"{sum(cell.whole for _, cell in cells)} in every trial"
            + (f", geometric mean {geometric(every):.1f}" if every else "")
            + (
                f"; of the {len(both)} published {geometric([ours for ours, _ in both]):.1f}, "
                f"theirs {geometric([theirs for _, theirs in both]):.1f}"
                if both
                else ""
            )
        )
        worse = [
            known.name
            for known, cell in cells
            if (theirs := _published(known, name)) is not None
            and (cell.mean is None or cell.mean > WORSE * theirs)
        ]
        if worse:
            print(f"  worse than published by more than {WORSE}x: {', '.join(worse)}")


def document(table: dict[str, dict[str, Cell]]) -> dict[str, Any]:
    """Plain data."""
    return {
        strategy: {
            name: {"found": list(cell.found), "trials": cell.trials} for name, cell in row.items()
        }
        for strategy, row in table.items()
    }


def main() -> int:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--strategies", default=",".join(STRATEGIES))
    parser.add_argument("--only", default="", help="names of programs, joined by commas")
    parser.add_argument("--trials", type=int, default=TRIALS)
    parser.add_argument("--cap", type=int, default=CAP)
    parser.add_argument("--seconds", type=float, default=math.inf, help="for each cell, about")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    programs = (*KNOWN, *CONTROLS)
    wanted = [name for name in options.only.split(",") if name]
    unknown = sorted(set(wanted) - {known.name for known in programs})
    if unknown:
        parser.error(f"unknown program {', '.join(unknown)}")
    chosen = [known for known in programs if not wanted or known.name in wanted]
    table: dict[str, dict[str, Cell]] = {}
    for strategy in options.strategies.split(","):
        table[strategy] = {}
        for known in chosen:
            cap = options.cap // 10 if known.control else options.cap
            table[strategy][known.name] = measure(
                known, strategy, options.trials, cap, options.seconds
            )
            print(strategy, known.name, table[strategy][known.name], file=sys.stderr, flush=True)
    if options.json:
        print(json.dumps(document(table), indent=2))
    else:
        show(table, chosen)
    controls = [cell for row in table.values() for known in CONTROLS for cell in _of(row, known)]
    return 1 if any(cell.found for cell in controls) else 0


def _of(row: dict[str, Cell], known: Known) -> list[Cell]:
    return [row[known.name]] if known.name in row else []


if __name__ == "__main__":
    raise SystemExit(main())
