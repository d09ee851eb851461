"""A failing drawn program made smaller: without threads, operations and pages that do not matter.

Candidates come from the scenario, the boldest first. Each is explored for a while; the first that
fails in the same way is taken, and candidates of that one come next, until none of them fails any
more. This comes before fewer preemptions: those depend on the program.

Departs from delta debugging in that a smaller program has other schedules, so each candidate needs
a search of its own, and none is ever refuted for good.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Final

from harness.explore import Failure, explore_part
from harness.search.recording import setup_of
from harness.trace.token import decode
from stress.catalogue import Context, Scenario, Spec, find, program_of

# Schedules of each candidate: few at first, since most of what can go is soon seen to.
SCHEDULES: Final = (12, 60, 240)
# Steps of all together, about.
STEPS_MAX: Final = 600_000
# An invariant (I16), a kernel assert (a.pmm.end), a lock rule (ORD004) or the reference, in a
# failure's message.
_ORACLE: Final = re.compile(
    r"\b(reference(?=:)|I\d{1,2}|[aw]\.[a-z0-9_]+(?:\.[a-z0-9_]+)+|[A-Z]{3}\d{3})\b"
)


def oracle_of(failure: Failure) -> str:
    """What noticed: an invariant, an assert, a lock rule, the reference, or the failure's kind."""
    match = _ORACLE.search(failure.message)
    return match.group(1) if match else failure.kind


@dataclass(frozen=True, slots=True)
class Reduced:
    """A smaller program that fails in the same way.

    Attributes:
        spec: The program, given instead of drawn.
        failure: Of it.
        lines: The program for a reader.
        before: The program that failed first, likewise.
        tried: Programs explored.
        schedules: Schedules run for all of them.
        done: No simpler program that was tried fails; False where the budget was spent before.
    """

    spec: Spec
    failure: Failure
    lines: list[str]
    before: list[str]
    tried: int
    schedules: int
    done: bool


def reduced(spec: Spec, failure: Failure, *, steps_max: int = STEPS_MAX) -> Reduced | None:
    """Look for a smaller program; None where the scenario draws none, or none smaller fails.

    Args:
        spec: What failed; its mutant is planted already.
        failure: How.
        steps_max: Steps to run in all, about.

    Raises:
        TokenError: The failure's token cannot be read.
    """
    entry = find(spec.scenario)
    drawing = entry.drawing
    if drawing is None:
        return None
    search = _Search(spec, entry, failure, steps_max)
    text = first = drawing.drawn(search.context, search.context.seed_of(search.token.schedule))
    found: Failure | None = None
    level = 0
    while level < len(SCHEDULES) and search.steps < steps_max:
        for simpler in drawing.simpler(text):
            fails = search.tried(simpler, SCHEDULES[level])
            if fails is not None:
                text, found, level = simpler, fails, 0
                break
        else:
            level += 1
    if found is None:
        return None
    return Reduced(
        search.given(text),
        found,
        drawing.lines(text),
        drawing.lines(first),
        len(search.explored),
        search.schedules,
        level == len(SCHEDULES) and search.steps < steps_max,
    )


class _Search:
    """Candidates and what came of them."""

    def __init__(self, spec: Spec, entry: Scenario, failure: Failure, steps_max: int) -> None:
        self.spec = spec
        self.context = Context(spec, entry)
        self.token = decode(failure.token)
        self.explored: dict[str, int] = {}
        self.schedules = self.steps = 0
        self._entry = entry
        self._failure = failure
        self._steps_max = steps_max

    def given(self, text: str) -> Spec:
        """The spec that gives the program instead of drawing it."""
        assert self._entry.drawing is not None
        name = self._entry.drawing.param
        kept = [pair for pair in self.spec.params if pair[0] != name]
        return replace(self.spec, params=(*kept, (name, text)), draw=0, redraw=True)

    def tried(self, text: str, schedules: int) -> Failure | None:
        """How a candidate fails within so many schedules, if it fails in the same way."""
        spec = self.given(text)
        setup = setup_of(self.token)
        setup = replace(setup, strategy="portfolio", meta=spec.meta(), stop_at_first=True)
        while (done := self.explored.get(text, 0)) < schedules and self.steps < self._steps_max:
            part = explore_part(program_of(spec), setup, done + 1, schedules)
            self.explored[text] = done + part.schedules
            self.schedules += part.schedules
            self.steps += part.steps
            for failure in part.failures:
                if self._same(failure):
                    return failure
            if not part.schedules or part.cut:
                break
        return None

    def _same(self, failure: Failure) -> bool:
        mine = self._failure
        return failure.kind == mine.kind and oracle_of(failure) == oracle_of(mine)


def summary(found: Reduced) -> list[str]:
    """What is left of the program, for a reader."""
    end = "" if found.done else " before the budget was spent"
    return [
        f"the program, reduced by {found.schedules} schedules of {found.tried} programs{end}:",
        *(f"  {line}" for line in found.lines),
        "from:",
        *(f"  {line}" for line in found.before),
    ]
