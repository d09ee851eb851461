"""Hunts: one planted bug or latent defect each, in a process of its own, until it is found.

Every hunt is a pure function of its spec, its setups and the seed: how many processes there are
decides only how long all of them take. A hunt stops at the first schedule that fails.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from harness.errors import UsageError
from harness.explore import Setup
from stress import catalogue, mutants, work
from stress.catalogue import Scenario, Spec, check, discover
from stress.mutants import Mutant
from stress.pool import Crash, Task, run_tasks
from stress.program import PROGRAM
from stress.reduce import oracle_of
from stress.runner import Options
from stress.work import Conclusion, Found

SCHEDULES_DEFAULT: Final = 4_000
# What is wrong, and the fewest preemptions that show it; a timer that fires is none.
# docs/reference/evidence.md says what shows each; to run all schedules with fewer shows none.
_DEFECTS: Final = {
    "L1": ("a cancelled request is processed to its end, beside its successor", 2),
    "L2": ("a supply that fails midway gives the wrong list of pages back on loan", 0),
    "L3": ("a request in flight outlives its closing VMO", 1),
    "L4": ("a waiter whose time is up blocks again on an interval that has ended", 1),
    "L5": ("a lender whose creation fails leaves its pages loaned", 0),
}


@dataclass(frozen=True, slots=True)
class Quarry:
    """What is hunted.

    Attributes:
        id: Of the mutant or defect.
        title: What is wrong.
        spec: The program that shows it.
        expected: What should notice it.
        depth: Fewest preemptions that expose it; -1 where that is not known.
        control: Nothing is wrong: it must not be found.
        catalogue: The file that has the mutant; None for the model's own.
    """

    id: str
    title: str
    spec: Spec
    expected: str = ""
    depth: int = -1
    control: bool = False
    catalogue: Path | None = None


@dataclass(frozen=True, slots=True)
class Catch:
    """What came of one hunt.

    Attributes:
        quarry: What was hunted.
        schedules: Run in all, the failing one included.
        verdict: Of the last exploration.
        reason: Of the last exploration.
        found: The failure, written up; None where nothing was found.
        seconds: Wall time, the start of the process included.
    """

    quarry: Quarry
    schedules: int
    verdict: str
    reason: str
    found: Found | None
    seconds: float

    @property
    def oracle(self) -> str:
        """What noticed: an invariant, an assert or a lock rule, else the kind of failure."""
        return self.quarry.expected if self.found is None else oracle_of(self.found.failure)

    @property
    def as_expected(self) -> bool:
        """Found if it is a bug, passed if it is a control."""
        if self.quarry.control:
            return self.verdict == "pass"
        return self.found is not None


@dataclass(slots=True)
class Bag:
    """What came of several hunts, in the order of the catalogue.

    Attributes:
        catches: One for each hunt that ended.
        quarries: All that was to be hunted.
        interrupted: Whether Ctrl-C ended them early.
        seconds: Wall time.
    """

    catches: list[Catch]
    quarries: Sequence[Quarry] = ()
    interrupted: bool = False
    seconds: float = 0.0

    def bugs(self, *, control: bool = False) -> list[Catch]:
        """The hunts for bugs, or the controls."""
        return [catch for catch in self.catches if catch.quarry.control == control]

    def total(self, *, control: bool = False) -> int:
        """How many of them there were to hunt."""
        return sum(quarry.control == control for quarry in self.quarries)

    def found(self, *, control: bool = False) -> int:
        """How many of them were found."""
        return sum(catch.found is not None for catch in self.bugs(control=control))

    @property
    def as_expected(self) -> bool:
        """Every bug found, no control found, none left out."""
        hunted = len(self.catches) == len(self.quarries)
        return hunted and all(catch.as_expected for catch in self.catches)


def mutant_quarries(chosen: Sequence[Mutant], path: Path | None) -> list[Quarry]:
    """One for each mutant.

    Raises:
        UsageError: A mutant names a scenario or revision that there is not.
    """
    quarries = []
    for mutant in chosen:
        try:
            check(mutant.spec)
        except UsageError as error:
            raise UsageError(f"mutant {mutant.id}: {error}") from None
        quarries.append(
            Quarry(
                id=mutant.id,
                title=mutant.title,
                spec=mutant.spec,
                expected=mutant.oracle,
                depth=mutant.depth,
                control=mutant.control,
                catalogue=path,
            )
        )
    return quarries


def defect_quarries(only: Sequence[str] = ()) -> list[Quarry]:
    """Each latent defect of the seed alone, and as its control the same scenario without it.

    Raises:
        UsageError: No scenario shows one that ``only`` names.
    """
    shows: dict[str, Scenario] = {}
    for entry in discover().values():
        for defect in entry.defects:
            shows.setdefault(defect, entry)
    for defect in only:
        if defect not in shows:
            if any(mutant.id == defect for mutant in mutants.read()):
                raise UsageError(f"{defect} is a mutant: `{PROGRAM} mutants --only {defect}`")
            raise catalogue.unknown("defect", defect, sorted(shows))
    quarries = []
    for defect in sorted(only or shows):
        entry = shows[defect]
        spec = Spec(entry.name, revision="seed", defects=(defect,))
        title, depth = _DEFECTS.get(defect, (entry.summary, -1))
        quarries.append(Quarry(defect, title, spec, depth=depth))
        fixed = Spec(entry.name, revision="fixed")
        title = "nothing: the fixed revision"
        quarries.append(Quarry(f"{defect}-fixed", title, fixed, control=True))
    return quarries


def hunt(
    quarries: Sequence[Quarry],
    options: Options,
    report: Callable[[Catch], None] = lambda _catch: None,
) -> Bag:
    """Hunt them all.

    Args:
        quarries: What to hunt; the order does not matter to any of them.
        options: Strategy, seed, schedules of each, jobs.
        report: Told of each as it ends, in the order of ending.

    Raises:
        HarnessError: A bug cannot be planted or a scenario cannot run.
    """
    options.check()
    began = time.monotonic()
    starts: dict[int, float] = {}
    catches: dict[int, Catch] = {}
    following = iter(range(len(quarries)))

    def take() -> Task | None:
        number = next(following, None)
        if number is None:
            return None
        starts[number] = time.monotonic()
        quarry = quarries[number]
        spec, setups = _plan(quarry, options)
        return Task(number, work.explore_whole, (spec, setups, quarry.catalogue))

    bag = Bag([], quarries)
    try:
        for number, value in run_tasks(take, options.jobs, fresh=True):
            seconds = time.monotonic() - starts[number]
            catches[number] = _catch(quarries[number], value, seconds)
            report(catches[number])
    except KeyboardInterrupt:
        bag.interrupted = True
    bag.catches = [catches[number] for number in sorted(catches)]
    bag.seconds = time.monotonic() - began
    return bag


def _plan(quarry: Quarry, options: Options) -> tuple[Spec, list[tuple[Setup, int]]]:
    """The program, and what to try on it in which order."""
    entry = check(quarry.spec)
    spec = options.bound(quarry.spec, entry)
    if options.sequential and options.preemptions is None and quarry.depth >= 0:
        # A bounded search needs no more than the depth that the catalogue gives.
        options = replace(options, preemptions=quarry.depth)
    setup = options.setup(spec, entry)
    setup.check()
    return spec, [(setup, options.schedules or SCHEDULES_DEFAULT)]


def _catch(quarry: Quarry, value: tuple[Conclusion, int] | Crash, seconds: float) -> Catch:
    if isinstance(value, Crash):
        return Catch(quarry, 0, "inconclusive", str(value), None, seconds)
    conclusion, schedules = value
    exploration = conclusion.exploration
    found = min(conclusion.found, key=lambda each: _rank(each, quarry.expected), default=None)
    return Catch(quarry, schedules, exploration.verdict, exploration.reason, found, seconds)


def _rank(found: Found, expected: str) -> int:
    """How far back in ``expected``, the likeliest first, stands what noticed.

    Several may notice one schedule: a lock is kept over a wait, and that led to a deadlock.
    """
    names = expected.split(", ")
    noticed = [oracle_of(found.failure), found.failure.kind]
    return min((names.index(name) for name in noticed if name in names), default=len(names))
