"""``minimize TOKEN``: the same failure by an easier schedule, and the two steps that decide."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.search.flip import Flip, operation, side_by_side
from harness.search.minimize import ENDLESS, Minimized
from harness.trace.events import Step
from harness.trace.token import decode
from stress import console, documents, reduce, work
from stress.catalogue import Spec
from stress.exit_codes import ExitCode
from stress.pool import call_fresh
from stress.reduce import Reduced


def minimize(text: str, *, json: bool, mutant_file: Path | None) -> ExitCode:
    """The command.

    Raises:
        ReplayDivergence: The token's schedule does not fail any more.
    """
    spec = Spec.from_meta(decode(text).meta)
    # A mutant is planted as the model is imported, so it needs a process that has not yet.
    if spec.mutant:
        shrunk = call_fresh(work.minimize_token, text, mutant_file)
    else:
        shrunk = work.minimize_token(text, None)
    if json:
        print(documents.encode(document(shrunk.result, shrunk.smaller, shrunk.dropped)))
        return ExitCode.PASS
    console.show(f"{spec.scenario}: {shrunk.found.text}\n")
    if shrunk.dropped:
        console.show(f"it does not need the faults {', '.join(shrunk.dropped)}")
    if shrunk.smaller is not None:
        console.show("\n".join([*reduce.summary(shrunk.smaller), ""]))
    console.show("\n".join(summary(shrunk.result)))
    return ExitCode.PASS


def summary(result: Minimized) -> list[str]:
    """What became better, what proves that it is the least, and the pair."""
    before, after = result.before, result.after
    if result.failure.kind == ENDLESS:
        untouched = "a livelock has to be fair, and an easier schedule would let threads starve"
        return [f"left as it was found: {untouched}", "", result.failure.token]
    lines = [
        (
            f"minimized by {result.replays} schedules: "
            f"preemptions {before.preemptions} -> {after.preemptions}, "
            f"switches {before.switches} -> {after.switches}, "
            f"steps {before.steps} -> {after.steps}"
        )
    ]
    if result.fewest:
        lines.append("every schedule with fewer preemptions was run: none fails in this way")
    if result.one_minimal:
        lines.append(
            f"nothing more can be taken out: {result.tried_without} simpler schedules were run"
        )
    elif not result.unended:
        lines.append("the budget was spent before everything was tried; minimize the new token")
    if result.unended:
        lines.append(
            f"{result.unended} of the schedules hung or came to the step bound: "
            "whether they would have failed is not known"
        )
    if result.flip is None:
        return [*lines, "", "no schedule that was run passes: no order of two steps decides"]
    lines += ["", "the order of the two steps marked * decides:", *side_by_side(result.flip)]
    return [*lines, "", result.failure.token]


def document(
    result: Minimized, smaller: Reduced | None = None, dropped: Sequence[str] = ()
) -> documents.Document:
    """``minimize --json``; "program" is what is left of one that was drawn."""
    failure = result.failure
    return {
        "token": failure.token,
        "kind": failure.kind,
        "message": failure.message,
        "fingerprint": failure.fingerprint,
        "preemptions": result.after.preemptions,
        "switches": result.after.switches,
        "steps": result.after.steps,
        "before": _cost(result.before),
        "after": _cost(result.after),
        "faults_dropped": list(dropped),
        "replays": result.replays,
        "one_minimal": result.one_minimal,
        "tried_without": result.tried_without,
        "fewest": result.fewest,
        "program": None if smaller is None else _program(smaller),
        "flipped": None if result.flip is None else _flip(result.flip),
    }


def _program(smaller: Reduced) -> documents.Document:
    return {
        "params": dict(smaller.spec.params),
        "lines": smaller.lines,
        "before": smaller.before,
        "programs": smaller.tried,
        "schedules": smaller.schedules,
        "one_minimal": smaller.done,
    }


def _cost(cost: object) -> documents.Document:
    return {name: getattr(cost, name) for name in ("preemptions", "switches", "steps")}


def _flip(flip: Flip) -> documents.Document:
    return {
        "at": flip.at + 1,
        "first": _step(flip.first),
        "second": _step(flip.second),
        "passes": flip.passes,
        "failing": [f"{step.name} {operation(step)}" for step in flip.failing[flip.at :]],
        "passing": [f"{step.name} {operation(step)}" for step in flip.passing[flip.at :]],
    }


def _step(step: Step) -> documents.Document:
    return {
        "thread": step.name,
        "operation": step.kind,
        "object": step.obj,
        "where": "" if step.site is None else str(step.site),
    }
