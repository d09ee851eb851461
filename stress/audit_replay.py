"""Predicted deadlocks of our own scenarios, turned into a schedule and run."""

from __future__ import annotations

import re
from typing import Final

import msgspec

from harness.errors import HarnessError, UsageError
from harness.lockorder.findings import Finding
from harness.search.foresight import MISSED, REACHED
from harness.trace.logjudge import LogJudge
from stress import work
from stress.pool import WorkerError, call_fresh

_NUMBER: Final = re.compile(r"[0-9]{1,18}\Z")


def confirm(judge: LogJudge) -> dict[int, str]:
    """Run what is predicted, and raise what comes true to ``confirmed``.

    Returns:
        Tokens of the confirmed ones, by the index of the finding among ``judge.deadlocks.found``.
    """
    tokens: dict[int, str] = {}
    for index, counted in enumerate(judge.deadlocks.found.values()):
        finding = counted.finding
        if finding.tier != "predicted":
            continue
        token, why = _run(judge, finding)
        if token:
            tokens[index] = token
        counted.finding = msgspec.structs.replace(
            finding,
            tier="confirmed" if token else finding.tier,
            proof=f"{finding.proof}; {why}",
        )
    return tokens


def _run(judge: LogJudge, finding: Finding) -> tuple[str, str]:
    """Run one; return its token, or nothing, and what came of it."""
    header = judge.headers[finding.schedule]
    schedule = str(header.get("run", "")).rpartition("#")[2]
    known = {"scenario", "sched", "seed"} <= header.keys()
    if not known or not _NUMBER.match(schedule):
        return "", "not run: the log is of no scenario that is known here"
    if not finding.legs:
        return "", "not run: its stretch of the run begins in the middle of a step"
    try:
        token: str = call_fresh(work.confirm, header, int(schedule), finding.legs, finding.last)
    except (UsageError, HarnessError, WorkerError) as error:
        return "", f"not run: {error}"
    return token, REACHED if token else MISSED
