"""Every planted bug tried on every scenario: which scenarios catch what, and which alone do.

A scenario that is alone in catching a bug may be made for that bug. A good catalogue has few such.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from stress import work
from stress.catalogue import Scenario, discover
from stress.documents import Document
from stress.mutants import Mutant
from stress.pool import Crash, Task, run_tasks
from stress.runner import Options
from stress.work import Cell, Plan

# Schedules of each mutant on each scenario.
SCHEDULES: Final = 100
# Scenarios that may be alone in catching some mutant, of all: one in so many.
ALONE_SHARE: Final = 3

# What the table marks as soon found.
QUICK: Final = 10


@dataclass(slots=True)
class Matrix:
    """What came of it.

    Attributes:
        scenarios: Names, in catalogue order.
        mutants: In catalogue order.
        cells: By mutant and scenario; one that never ran is missing.
        interrupted: Whether Ctrl-C ended it early.
        seconds: Wall time.
    """

    scenarios: list[str]
    mutants: list[Mutant]
    cells: dict[tuple[str, str], Cell] = field(default_factory=dict)
    interrupted: bool = False
    seconds: float = 0.0

    def catches(self, mutant: str) -> list[str]:
        """The scenarios that catch it."""
        return [name for name in self.scenarios if self._caught(mutant, name)]

    def _caught(self, mutant: str, scenario: str) -> bool:
        cell = self.cells.get((mutant, scenario))
        return cell is not None and bool(cell.oracle)

    def bugs(self, *, control: bool = False) -> list[Mutant]:
        """The mutants that are bugs, or the controls."""
        return [mutant for mutant in self.mutants if mutant.control == control]

    @property
    def alone(self) -> dict[str, list[str]]:
        """By scenario the bugs that no other one catches; scenarios without are left out."""
        found: dict[str, list[str]] = {}
        for mutant in self.bugs():
            catches = self.catches(mutant.id)
            if len(catches) == 1:
                found.setdefault(catches[0], []).append(mutant.id)
        return found

    @property
    def missed(self) -> list[str]:
        """Bugs that no scenario catches."""
        return [mutant.id for mutant in self.bugs() if not self.catches(mutant.id)]

    @property
    def false(self) -> list[str]:
        """Controls that some scenario catches."""
        return [mutant.id for mutant in self.bugs(control=True) if self.catches(mutant.id)]

    @property
    def cut(self) -> dict[tuple[str, str], str]:
        """Cells that say nothing, and why."""
        return {place: cell.cut for place, cell in self.cells.items() if cell.cut}

    @property
    def general(self) -> bool:
        """Whether few enough scenarios are alone in catching something."""
        return len(self.alone) * ALONE_SHARE <= len(self.scenarios)


def matrix(
    chosen: Sequence[Mutant],
    options: Options,
    catalogue: Path | None,
    report: Callable[[str], None] = lambda _line: None,
) -> Matrix:
    """Try them all; a process for each mutant.

    Args:
        chosen: The mutants.
        options: Strategy, seed, schedules of each cell, jobs.
        catalogue: The file that has them; None for the model's own.
        report: Told of each mutant as it is done.

    Raises:
        HarnessError: A bug cannot be planted or a scenario cannot run.
    """
    options.check()
    began = time.monotonic()
    entries = [entry for entry in discover().values() if entry.expected == "clean"]
    made = Matrix([entry.name for entry in entries], list(chosen))
    waiting = [(mutant, [_plan(mutant, entry, options) for entry in entries]) for mutant in chosen]

    def take() -> Task | None:
        if not waiting:
            return None
        mutant, plans = waiting.pop(0)
        return Task((mutant, plans), work.explore_cells, (plans, catalogue))

    try:
        for (mutant, plans), value in run_tasks(take, options.jobs, fresh=True):
            cells = [Cell(0, "", str(value))] if isinstance(value, Crash) else value
            for (spec, _, _), cell in zip(plans, cells, strict=False):
                made.cells[mutant.id, spec.scenario] = cell
            if len(cells) < len(plans):
                # Something hung or died: the rest needs a process of its own.
                waiting.insert(0, (mutant, plans[len(cells) :]))
            else:
                report(_line(mutant, made))
    except KeyboardInterrupt:
        made.interrupted = True
    made.seconds = time.monotonic() - began
    return made


def _plan(mutant: Mutant, entry: Scenario, options: Options) -> Plan:
    """A mutant on a scenario; its own faults where it is its own scenario."""
    spec = mutant.spec
    if entry.name != mutant.scenario:
        spec = replace(spec, scenario=entry.name, faults="")
    spec = options.bound(spec, entry)
    return spec, options.setup(spec, entry), options.schedules or SCHEDULES


def _line(mutant: Mutant, made: Matrix) -> str:
    catches = made.catches(mutant.id)
    control = " (control)" if mutant.control else ""
    return f"{mutant.id}{control}: caught by {len(catches)} of {len(made.scenarios)} scenarios"


def lines(made: Matrix) -> list[str]:
    """What it says, below the table."""
    alone, count = made.alone, len(made.scenarios)
    bugs, controls = made.bugs(), made.bugs(control=True)
    caught = len(bugs) - len(made.missed)
    cut = "; interrupted" if made.interrupted else ""
    aim = "good" if made.general else "too many"
    said = [f"{caught} of {len(bugs)} bugs caught in {made.seconds:.0f} s{cut}"]
    said += [f"{len(made.false)} of {len(controls)} controls caught"] if controls else []
    said += [f"{len(alone)} of {count} scenarios are alone in catching a bug"]
    said[-1] += f" ({aim}: at most {count // ALONE_SHARE} should be)"
    said += [f"  {scenario}: {' '.join(ids)}" for scenario, ids in alone.items()]
    said += [f"missed: {' '.join(made.missed)}"] if made.missed else []
    said += [f"controls caught: {' '.join(made.false)}"] if made.false else []
    said += [f"{mutant} on {name}: {why}" for (mutant, name), why in made.cut.items()]
    return said


def show(made: Matrix) -> list[str]:
    """A row for each scenario, a column for each mutant, whose id stands above it, downwards."""
    ids = [mutant.id + ("*" if mutant.control else "") for mutant in made.mutants]
    left = max(map(len, made.scenarios))
    tall = max(map(len, ids))
    rows = [" " * left + "  " + "".join(id_.rjust(tall)[at] for id_ in ids) for at in range(tall)]
    alone = {id_ for found in made.alone.values() for id_ in found}
    for name in made.scenarios:
        marks = [_mark(made.cells.get((m.id, name)), m.id in alone) for m in made.mutants]
        rows.append(f"{name:<{left}}  {''.join(marks)}")
    return [
        *rows,
        f"# caught, in at most {QUICK} schedules; + caught; ! caught here alone; * control",
    ]


def _mark(cell: Cell | None, alone: bool) -> str:
    if cell is None or cell.cut:
        return "?"
    if not cell.oracle:
        return "."
    if alone:
        return "!"
    return "#" if cell.schedules <= QUICK else "+"


def document(made: Matrix) -> Document:
    """``mutants --matrix --json``."""
    return {
        "scenarios": made.scenarios,
        "mutants": [
            {
                "id": mutant.id,
                "control": mutant.control,
                "depth": mutant.depth,
                "caught_by": {
                    name: {
                        "schedules": made.cells[mutant.id, name].schedules,
                        "oracle": made.cells[mutant.id, name].oracle,
                    }
                    for name in made.catches(mutant.id)
                },
            }
            for mutant in made.mutants
        ],
        "missed": made.missed,
        "controls_caught": made.false,
        "cut": [
            {"mutant": mutant, "scenario": name, "why": why}
            for (mutant, name), why in made.cut.items()
        ],
        "alone": made.alone,
        "general": made.general,
    }
