"""An audit for other programs: DOT, SARIF 2.1.0, and what the kernel's console would print."""

from __future__ import annotations

import json
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

from harness.lockorder.cycles import components
from stress.audit_report import AuditEdge, AuditFinding, AuditReport

_LEVELS: Final = {
    "observed": "error",
    "confirmed": "error",
    "predicted": "error",
    "possible": "warning",
    "latent": "warning",
}
_UNKNOWN: Final = "an unknown place"
_SCHEMA: Final = (
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
)


# ---- DOT ----------------------------------------------------------------------------------------


def dot(report: AuditReport) -> str:
    """Draw the class graph for Graphviz; the edges of circles are red and dashed."""
    circles = {
        (edge.outer, edge.inner)
        for finding in report.findings
        if len(finding.edges) > 1 and not finding.edges[0].access
        for edge in finding.edges
    }
    lines = ["digraph lock_order {", "  rankdir=TB;", '  node [shape=box, fontname="monospace"];']
    for each in report.classes:
        flags = f" ({' '.join(each.flags)})" if each.flags else ""
        lines.append(f"  {_quoted(each.name)} [label={_quoted(each.name + flags)}];")
    for edge in report.edges:
        in_circle = (edge.outer, edge.inner) in circles
        marked = ", color=red, style=dashed, penwidth=2" if in_circle else ""
        label = f"{edge.count}x in {edge.runs}"
        lines.append(
            f"  {_quoted(edge.outer)} -> {_quoted(edge.inner)} [label={_quoted(label)}, "
            f"tooltip={_quoted(f'{edge.outer_site}, {edge.inner_site}')}{marked}];"
        )
    return "\n".join([*lines, "}"]) + "\n"


def _quoted(text: str) -> str:
    """Quote an identifier of DOT."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ")
    return f'"{escaped}"'


# ---- SARIF --------------------------------------------------------------------------------------


def sarif(report: AuditReport) -> str:
    """Write the findings as SARIF 2.1.0: a thread flow for each thread, the culprit first."""
    every = (*report.findings, *report.allowed)
    rules = sorted({finding.rule: finding.result for finding in every}.items())
    places = {rule: index for index, (rule, _) in enumerate(rules)}
    document = {
        "$schema": _SCHEMA,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {
                    "driver": {
                        "name": "lockloom",
                        "version": _version(),
                        "rules": [
                            {"id": rule, "shortDescription": {"text": result}}
                            for rule, result in rules
                        ],
                    }
                },
                "results": [_result(finding, places[finding.rule]) for finding in every],
            }
        ],
    }
    return json.dumps(document, indent=1) + "\n"


def _version() -> str:
    try:
        return version("lockloom")
    except PackageNotFoundError:
        return "0"


def _result(finding: AuditFinding, rule: int) -> dict[str, Any]:
    culprit = min(finding.edges, key=lambda edge: (edge.count, edge.outer), default=None)
    others = [edge for edge in finding.edges if edge is not culprit]
    result: dict[str, Any] = {
        "ruleId": finding.rule,
        "ruleIndex": rule,
        "level": _LEVELS.get(finding.tier, "note"),
        "message": {"text": f"{finding.message} ({finding.tier})"},
        "partialFingerprints": {"cycle/v1": finding.key},
        "properties": {"tier": finding.tier, "count": finding.count, "runs": finding.runs},
    }
    if culprit is not None:
        result["locations"] = [_location(culprit.inner_site, _wants(culprit))]
    related = [_location(edge.inner_site, _wants(edge)) for edge in others]
    if related:
        result["relatedLocations"] = [{"id": at, **each} for at, each in enumerate(related, 1)]
    if finding.edges:
        result["codeFlows"] = [{"threadFlows": _flows(finding.edges)}]
    if finding.baseline:
        result["baselineState"] = "unchanged" if finding.baseline == "known" else "new"
    if finding.allowed:
        result["suppressions"] = [{"kind": "external", "justification": finding.allowed}]
    return result


def _flows(edges: tuple[AuditEdge, ...]) -> list[dict[str, Any]]:
    """First every thread takes what it holds, then every thread wants what it cannot get."""
    flows = []
    for at, edge in enumerate(edges):
        steps = []
        if edge.outer:
            place = _location(edge.outer_site, f"{edge.thread} takes {edge.outer}")
            steps.append(_step(place, at + 1, edge.outer_stack))
        place = _location(edge.inner_site, _wants(edge))
        steps.append(_step(place, len(edges) + at + 1, edge.inner_stack))
        flows.append({"id": f"{edge.thread or 'a thread'} {at + 1}", "locations": steps})
    return flows


def _step(place: dict[str, Any], order: int, callers: tuple[str, ...]) -> dict[str, Any]:
    step: dict[str, Any] = {"location": place, "executionOrder": order}
    if callers:
        frames = (caller.rpartition(" in ") for caller in callers)
        around = [{"location": _location(site, function)} for site, _, function in frames]
        step["stack"] = {"frames": [{"location": place}, *around]}
    return step


def _wants(edge: AuditEdge) -> str:
    does = edge.access or (f"wants {edge.inner}" if edge.inner else "goes on")
    return f"{edge.thread or 'a thread'} {does}"


def _location(site: str, text: str) -> dict[str, Any]:
    file, _, line = site.rpartition(":")
    location: dict[str, Any] = {"message": {"text": text}}
    if site != _UNKNOWN and file:
        artefact = {"artifactLocation": {"uri": file.replace("\\", "/")}}
        region = {"region": {"startLine": max(int(line), 1)}} if line.isdecimal() else {}
        location["physicalLocation"] = artefact | region
    return location


# ---- the kernel's console -----------------------------------------------------------------------


def dump(report: AuditReport) -> str:
    """Print what ``k lockdep dump`` would: the dependency set of each class, then the sets.

    Kernel: an edge points from the later lock to those that were held when it was acquired.
    """
    before: dict[str, list[str]] = {each.name: [] for each in report.classes}
    for edge in report.edges:
        before.setdefault(edge.inner, []).append(edge.outer)
    lines = ["Lock class dependencies:"]
    for name, held in sorted(before.items()):
        lines.append(f"  {name} {{")
        lines += [f"    {each}" for each in sorted(held)]
        lines.append("  }")
    lines += ["", "Connected sets:"]
    sets = _sets(report.edges)
    for at, names in enumerate(sets):
        lines.append(f"  set {at} {{")
        lines += [f"    {name}" for name in names]
        lines.append("  }")
    return "\n".join(lines) + "\n"


def loop(report: AuditReport) -> str:
    """Print what ``k lockdep loop`` would: each set of classes that lock each other in a circle.

    Kernel: sets of more than two only, since two are found when they are acquired; here all.
    """
    lines = []
    for names in _sets(report.edges):
        lines += ["Circular lock dependency detected:", *(f"  {name}" for name in names), ""]
    return "\n".join(lines) if lines else "No circular lock dependency.\n"


def _sets(edges: Iterable[AuditEdge]) -> list[list[str]]:
    graph: dict[str, dict[str, int]] = {}
    for edge in edges:
        graph.setdefault(edge.outer, {})[edge.inner] = 1
        graph.setdefault(edge.inner, {})
    return components(graph)
