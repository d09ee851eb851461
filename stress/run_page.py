"""A run as one HTML file: from the document that ``run`` and the main job print.

The document is all that is needed, so a report can be made long after the run; the findings' own
pages are made by replaying their tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, TypeAlias

import msgspec
from loguru import logger

from harness.errors import HarnessError, UsageError
from harness.trace.graph import Nesting, cyclic
from harness.trace.page import Data, graph_data, render
from harness.trace.token import decode
from stress import given, work
from stress.artefacts import ROOT
from stress.catalogue import VERDICT_EXPECTED, Expected, Spec
from stress.documents import Document
from stress.given import Count
from stress.program import PROGRAM

# Findings with a picture of their own; each costs a replay, and about 50 KB.
STORIES_MAX: Final = 20


# Of a document; the main job's has some 100 KB.
_DOCUMENT_BYTES_MAX: Final = 1 << 26
_Amount: TypeAlias = Annotated[float, msgspec.Meta(ge=0, le=1e300)]


class _Failure(msgspec.Struct):
    kind: str
    message: str
    token: str
    schedule: Count
    preemptions: Count
    fingerprint: str


class _Evidence(msgspec.Struct):
    looked: Count
    classes: Count
    unseen: _Amount
    new_class: _Amount
    growth: list[tuple[Count, Count]] = []


class _Scenario(msgspec.Struct):
    name: str
    verdict: str
    reason: str
    schedules: Count
    steps: Count
    seconds: _Amount
    failures: list[_Failure]
    evidence: _Evidence | None = None
    expected: Expected = "clean"


class _Part(msgspec.Struct):
    name: str
    verdict: str
    detail: str


class _Catch(msgspec.Struct):
    id: str
    found: bool
    schedules: Count
    kind: str | None
    oracle: str
    scenario: str
    token: str | None


class _Bag(msgspec.Struct):
    mutants: list[_Catch]


class _Order(msgspec.Struct):
    edges: list[tuple[str, str]]


class _Run(msgspec.Struct):
    """What a document must have to be drawn."""

    verdict: str
    seed: int
    scenarios: list[_Scenario]
    parts: list[_Part] = []
    defects: _Bag | None = None
    lock_order: _Order | None = None


def find(run: str, root: Path = ROOT) -> Path:
    """The folder of a run: by its path, its name below ``.stress/runs``, or the latest for none.

    Raises:
        UsageError: There is no such run.
    """
    runs = root / "runs"
    known = sorted(path.name for path in runs.iterdir()) if runs.is_dir() else []
    if not run:
        if not known:
            raise UsageError(f"no run below {root}; `{PROGRAM}` makes one")
        latest = root / "latest"
        return runs / (latest.resolve().name if latest.is_dir() else known[-1])
    for path in (Path(run), runs / run):
        if given.is_file(path / "results.json"):
            return path
    shown = f"known are {', '.join(known[-3:])}" if known else "there is none yet"
    raise UsageError(
        f"no run {given.short(run)!r} with a results.json; name a folder or a run: {shown}"
    )


def read(folder: Path) -> Document:
    """The document of a run.

    Raises:
        UsageError: It is missing or is none.
    """
    path = folder / "results.json"
    hint = "; was the run interrupted?"
    data = given.read_bytes(path, "", bytes_max=_DOCUMENT_BYTES_MAX, hint=hint)
    try:
        msgspec.json.decode(data, type=_Run)
        document: Document = msgspec.json.decode(data)
    except RecursionError:
        raise UsageError(f"{path} is no document of a run: it is nested too deep") from None
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is no document of a run: {given.short(error)}") from None
    return document


def page(
    document: Mapping[str, Any],
    title: str,
    *,
    text: str = "",
    easier: Mapping[str, str] | None = None,
    pairs: bool = True,
) -> str:
    """The file.

    Args:
        document: As ``run --json`` or the main job's ``results.json`` has it.
        title: Of the page.
        text: The report as plain text.
        easier: Tokens to show in place of those that the document has.
        pairs: Look for the pair of steps that decides, of each finding.
    """
    findings = _grouped(_findings(document))
    stories: list[Data] = []
    for finding in findings:
        finding["story"] = None
        token = finding.pop("token")
        token = (easier or {}).get(token, token)
        story = _story(token, pairs=pairs) if len(stories) < STORIES_MAX else None
        finding["least"] = ""
        if story is not None:
            finding["story"] = len(stories)
            finding["least"] = dict(story["facts"]).get("preemptions", "")
            stories.append(story)
    scenarios = [_scenario(one) for one in document["scenarios"]]
    schedules = sum(one["schedules"] for one in scenarios)
    return render(
        title,
        stories,
        text=text,
        campaign={
            "title": title,
            "verdict": document["verdict"],
            "facts": [
                ["seed", str(document["seed"])],
                ["schedules", f"{schedules:,}"],
                ["scenarios", str(len(scenarios))],
                ["findings", _counted(findings)],
            ],
            "parts": document.get("parts", []),
            "findings": findings,
            "scenarios": scenarios,
            "curves": [_curve(one) for one in document["scenarios"] if _growth(one)],
            "graph": _graph(document.get("lock_order")),
        },
    )


def _counted(findings: Sequence[Data]) -> str:
    expected = sum(finding["expected"] for finding in findings)
    return f"{len(findings)} ({expected} expected)" if expected else str(len(findings))


def _grouped(findings: Iterable[Data]) -> list[Data]:
    """One of each fingerprint, with every place that has it."""
    first: dict[str, Data] = {}
    for finding in findings:
        known = first.setdefault(finding["fingerprint"], finding)
        if known is not finding:
            known["where"] += f", {finding['where']}"
            known["expected"] &= finding["expected"]
    return list(first.values())


def _findings(document: Mapping[str, Any]) -> Iterator[Data]:
    """Those of the scenarios, then those of the hunts."""
    for scenario in document["scenarios"]:
        for failure in scenario["failures"]:
            yield {
                "fingerprint": failure["fingerprint"],
                "kind": failure["kind"],
                "where": scenario["name"],
                "schedule": failure["schedule"],
                "preemptions": failure["preemptions"],
                "message": _first_line(failure["message"]),
                "token": failure["token"],
                "expected": scenario.get("expected", "clean") == "finding",
            }
    for catch in (document.get("defects") or {}).get("mutants", ()):
        if catch["token"] is not None:
            token = decode(catch["token"])
            yield {
                "fingerprint": token.fingerprint,
                "kind": catch["kind"],
                "where": f"{catch['id']} in {catch['scenario']}",
                "schedule": catch["schedules"],
                "preemptions": "",
                "message": f"found by {catch['oracle']}",
                "token": catch["token"],
                "expected": True,
            }


def _first_line(text: str) -> str:
    return text.splitlines()[0][:200] if text else ""


def _story(token: str, *, pairs: bool) -> Data | None:
    """What the page shows of one finding; None where it cannot be replayed here any more."""
    try:
        spec = Spec.from_meta(decode(token).meta)
        if spec.mutant:
            return None  # needs a process of its own
        return work.picture_of(spec, token, pair=pairs)
    except HarnessError as error:
        logger.warning("a finding has no picture: {}", error)
        return None


def _scenario(one: Mapping[str, Any]) -> Data:
    seconds = one["seconds"]
    expected = one.get("expected", "clean")
    return {
        "name": one["name"],
        "verdict": one["verdict"],
        "as_it_must": expected != "clean" and one["verdict"] == VERDICT_EXPECTED[expected],
        "reason": one["reason"],
        "schedules": one["schedules"],
        "steps": one["steps"],
        "rate": one["schedules"] / seconds if seconds else 0.0,
        "seen": _seen(one),
    }


def _seen(one: Mapping[str, Any]) -> str:
    """How much of the scenario's behaviour was seen; empty where nothing was looked at."""
    evidence = one.get("evidence")
    if not evidence or not evidence["looked"]:
        return ""
    unseen = f", {evidence['unseen']:,.0f} or more unseen" if evidence["unseen"] >= 1 else ""
    seen = f"{evidence['classes']:,} class{'' if evidence['classes'] == 1 else 'es'}"
    return f"{seen}{unseen}; next new: {evidence['new_class']:.0%}"


def _growth(one: Mapping[str, Any]) -> list[list[int]]:
    found: list[list[int]] = (one.get("evidence") or {}).get("growth", [])
    return found if len(found) > 1 else []


def _curve(one: Mapping[str, Any]) -> Data:
    """Classes over schedules: one that flattens has little left to find."""
    return {"name": one["name"], "points": [list(point) for point in _growth(one)]}


def _graph(order: Mapping[str, Any] | None) -> Data:
    edges = [] if order is None else [(outer, inner) for outer, inner in order["edges"]]
    wrong = cyclic(edges)
    return graph_data(Nesting(*edge, count=0, cyclic=edge in wrong) for edge in edges)
