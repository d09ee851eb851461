"""Deadlocks over many runs: those that are alike are one, and the surest stands for all."""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Final

import msgspec

from harness.lockorder.findings import TIERS, Finding

REFUTED: Final = "refuted"
"""How the reason begins of what was dropped because a whole run cannot end in it."""


class Counted(msgspec.Struct):
    """A deadlock, observed or predicted, over all runs.

    Attributes:
        finding: The surest one.
        count: Patterns that are alike, over all runs.
        runs: Indexes of the runs that have one.
    """

    finding: Finding
    count: int
    runs: set[int]


def named(finding: Finding) -> object:
    """Tell what makes two deadlocks the same, in whatever runs."""
    sites = tuple((w.outer_mode, w.inner_mode, w.outer_site, w.inner_site) for w in finding.edges)
    return (finding.rule, finding.classes, sites)


def circle_of(names: Sequence[str]) -> str:
    """Write a circle down, from its least name on."""
    start = min(range(len(names)), key=names.__getitem__)
    return " -> ".join((*names[start:], *names[:start], names[start]))


def settled(finding: Finding, impossible: Container[str], why: str) -> Finding:
    """Lower a cycle that is ``possible`` by its classes, and impossible by the runs it is in.

    Args:
        finding: Of the class rules.
        impossible: See ``Deadlocks.impossible``, of the same runs.
        why: What is said of it where it is lowered.
    """
    if finding.rule != "ORD001" or finding.tier != "possible":
        return finding
    if circle_of(finding.classes) not in impossible:
        return finding
    return msgspec.structs.replace(finding, tier="latent", proof=f"latent: {why}")


class Deadlocks:
    """Deadlocks of any number of runs, and what was dropped on the way to them.

    Attributes:
        found: Those that runs ended in, and those that are predicted.
        refuted: Why which candidate for one was dropped, and how many.
    """

    def __init__(self) -> None:
        """None is known."""
        self.found: dict[object, Counted] = {}
        self.refuted: dict[tuple[str, str], int] = {}

    def add(self, finding: Finding, count: int) -> None:
        """Count a deadlock; the surest of its kind, the first among equals, is kept."""
        self._enter(named(finding), Counted(finding, count, {finding.schedule}))

    def drop(self, subject: tuple[str, str], count: int) -> None:
        """Count candidates that are none."""
        self.refuted[subject] = self.refuted.get(subject, 0) + count

    def impossible(self) -> set[str]:
        """Circles of classes of which every run that shows one says that it cannot end in it."""
        refuted = {circle for reason, circle in self.refuted if reason.startswith(REFUTED)}
        return refuted - {
            circle_of([witness.inner for witness in counted.finding.edges])
            for counted in self.found.values()
        }

    def merge(self, other: Deadlocks) -> None:
        """Take over those of other runs, all numbered higher than those here."""
        for key, counted in other.found.items():
            self._enter(key, counted)
        for subject, count in other.refuted.items():
            self.drop(subject, count)

    def _enter(self, key: object, counted: Counted) -> None:
        known = self.found.get(key)
        if known is None:
            self.found[key] = msgspec.structs.replace(counted, runs=set(counted.runs))
            return
        if TIERS.index(counted.finding.tier) > TIERS.index(known.finding.tier):
            known.finding = counted.finding
        known.count += counted.count
        known.runs |= counted.runs
