"""What ``--json`` prints: plain data, one document for each command.

The keys are a contract with programs that read them; what people read is made in ``console``.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import msgspec

from harness.search.evidence import Evidence
from harness.search.foresight import Foreseen
from harness.search.named import Aligned
from harness.trace.events import as_json
from stress.catalogue import Scenario
from stress.hunts import Bag, Catch
from stress.runner import Report, Result
from stress.work import Found, Replayed

Document = dict[str, Any]


def encode(document: Document) -> str:
    """As text, two spaces of indentation."""
    return msgspec.json.format(as_json(document), indent=2).decode()


def of_catalogue(entries: list[Scenario]) -> Document:
    """``list --json``."""
    return {
        "scenarios": [
            {
                "name": entry.name,
                "summary": entry.summary,
                "tags": list(entry.tags),
                "threads": entry.threads,
                "exercises": list(entry.exercises),
                "mutants": list(entry.mutants),
                "defects": list(entry.defects),
                "params": dict(entry.params),
                "faults": entry.faults,
                "expected": entry.expected,
            }
            for entry in entries
        ]
    }


def of_report(report: Report) -> Document:
    """``run --json``."""
    return {
        "verdict": report.verdict,
        "seed": report.options.seed,
        "scenarios": [of_result(result) for result in report.results],
    }


def of_result(result: Result) -> Document:
    """One scenario of a run."""
    exploration = result.exploration
    foreseen = () if exploration is None else exploration.foreseen
    return {
        "name": result.entry.name,
        "verdict": result.verdict,
        "expected": result.entry.expected,
        "reason": result.reason,
        "schedules": result.schedules,
        "steps": 0 if exploration is None else exploration.steps,
        "switches": 0 if exploration is None else exploration.switches,
        "seconds": round(result.seconds, 3),
        "failures": [of_failure(found) for found in result.found],
        "evidence": None if exploration is None else _evidence(exploration.evidence),
        **({"foreseen": list(map(_foreseen, foreseen))} if result.predicted else {}),
    }


def _foreseen(foreseen: Foreseen) -> Document:
    """A deadlock that schedules could have reached; the keys are those of ``audit --json``."""
    finding = foreseen.finding
    return {
        "rule": finding.rule,
        "tier": finding.tier,
        "message": finding.message,
        "classes": list(finding.classes),
        "schedule": finding.schedule,
        "runs": foreseen.schedules,
        "note": finding.proof,
        "token": "" if foreseen.failure is None else foreseen.failure.token,
    }


def _evidence(evidence: Evidence | None) -> Document | None:
    """What a pass rests on; the same keys as ``Evidence`` has attributes."""
    return None if evidence is None else asdict(evidence)


def of_failure(found: Found) -> Document:
    """One failure of an exploration."""
    failure = found.failure
    return {
        "kind": failure.kind,
        "message": failure.message,
        "token": failure.token,
        "schedule": failure.schedule,
        "preemptions": failure.preemptions,
        "fingerprint": failure.fingerprint,
    }


def of_bag(bag: Bag) -> Document:
    """``mutants --json`` and ``defects --json``; controls are counted, not listed."""
    return {
        "found": bag.found(),
        "total": bag.total(),
        "controls": {"found": bag.found(control=True), "total": bag.total(control=True)},
        "mutants": [_catch(catch) for catch in bag.bugs()],
    }


def _catch(catch: Catch) -> Document:
    failure = None if catch.found is None else catch.found.best
    return {
        "id": catch.quarry.id,
        "found": failure is not None,
        "schedules": catch.schedules,
        "kind": None if failure is None else failure.kind,
        "oracle": catch.oracle,
        "scenario": catch.quarry.spec.scenario,
        "token": None if failure is None else failure.token,
    }


def of_replay(replayed: Replayed) -> Document:
    """``replay --json`` of a schedule that still fits."""
    failure = None if replayed.found is None else replayed.found.failure
    return {
        "reproduced": failure is not None,
        "kind": None if failure is None else failure.kind,
        "message": "the schedule no longer fails" if failure is None else failure.message,
        "digest": None if failure is None else failure.digest,
        "steps": len(replayed.story.steps) if failure is None else failure.steps,
        "preemptions": None if failure is None else failure.preemptions,
        **({} if replayed.aligned is None else {"aligned": _aligned(replayed.aligned)}),
    }


def _aligned(aligned: Aligned) -> Document:
    """How a named schedule fits the program."""
    return {
        "same": aligned.same,
        "fitted": aligned.fitted,
        "gone": aligned.gone,
        "added": aligned.added,
        "moved": aligned.moved,
    }


def of_divergence(message: str) -> Document:
    """``replay --json`` of a schedule that no longer fits."""
    return {
        "reproduced": False,
        "kind": None,
        "message": message,
        "digest": None,
        "steps": None,
        "preemptions": None,
    }
