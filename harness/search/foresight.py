"""Deadlocks that the schedules of an exploration did not reach, but could have.

Recorded schedules are judged by the code that judges their lock log, so both say the same, with the
same tiers. What is predicted is run: a deadlock that is reached has a token like any other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import msgspec

from harness.lockorder.deadlocks import Counted, Deadlocks
from harness.lockorder.findings import Finding
from harness.search.directed import reach
from harness.search.learning import Learning
from harness.search.recording import Failure, record_part
from harness.search.setup import Program, Setup
from harness.trace.events import Story

REACHED: Final = "run, and reached"
MISSED: Final = "run, and not reached: something that was not logged stands in the way"


@dataclass
class Foreseen:
    """A deadlock that some schedules could have ended in, by other turns of their threads.

    Attributes:
        finding: Rule, tier, proof and what could happen; its ``schedule`` is the one that it was
            foreseen in. ``confirmed`` where the program was led there.
        schedules: How many of those that were judged foretell it.
        failure: The deadlock, reached; None where it was not, or was not run.
    """

    finding: Finding
    schedules: int
    failure: Failure | None = None


def foresee(
    program: Program,
    setup: Setup,
    first: int,
    last: int,
    *,
    worker: int | None = None,
    learning: Learning | None = None,
) -> Deadlocks:
    """Run schedules again, recorded in full, and judge each as the audit judges its log.

    Args:
        program: As for ``explore``.
        setup: What decided the schedules.
        first: Number of the first schedule.
        last: Number of the last one.
        worker: As for ``explore_part``.
        learning: Likewise.
    """
    # Nobody else who explores needs the audit.
    from harness.trace.logjudge import deadlocks_of

    found = Deadlocks()

    def judge(schedule: int, _: Failure | None, story: Story) -> None:
        found.merge(deadlocks_of(story, schedule, mode_blind=setup.mode_blind))

    record_part(program, setup, first, last, judge, worker=worker, learning=learning)
    return found


def foreseen(program: Program, setup: Setup, found: Deadlocks) -> list[Foreseen]:
    """Run what is predicted; what a schedule ended in by itself is a failure already."""
    counted = (each for each in found.found.values() if each.finding.tier != "observed")
    return [_run(program, setup, each) for each in counted]


def _run(program: Program, setup: Setup, counted: Counted) -> Foreseen:
    finding, count = counted.finding, len(counted.runs)
    if finding.tier != "predicted" or not finding.legs:
        return Foreseen(finding, count)
    failure = reach(program, setup, finding.schedule, finding.legs, finding.last)
    ran = msgspec.structs.replace(
        finding,
        tier="predicted" if failure is None else "confirmed",
        proof=f"{finding.proof}; {MISSED if failure is None else REACHED}",
    )
    return Foreseen(ran, count, failure)
