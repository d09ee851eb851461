"""What people have decided about the order of locks: declared orders, allowances, baselines.

An order file is TOML: ``[[order]]`` with ``outer``, ``inner`` and ``why``, ``[[leaf]]`` with
``lock`` and ``why``; the order is the transitive closure. An allow file has ``[[allow]]`` with
``key`` (of a finding) or ``edge`` (``outer -> inner``), ``reason``, ``owner`` and ``expires``.
"""

from __future__ import annotations

import datetime as dt
import graphlib
import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from harness.errors import UsageError
from stress import given
from stress.audit_report import AuditEdge, AuditFinding, AuditOrder, AuditReport, LedgerEntry

Pair = tuple[str, str]

# A whole report of an audit.
_BASELINE_BYTES_MAX: Final = 1 << 26


class Order(NamedTuple):
    """A declared partial order.

    Attributes:
        pairs: Each (outer, inner) with its reason.
        leaves: Classes under which nothing may be taken, with the reason.
        name: Of the file.
    """

    pairs: Mapping[Pair, str]
    leaves: Mapping[str, str]
    name: str

    def reachable(self) -> set[Pair]:
        """Return the transitive closure."""
        after: dict[str, list[str]] = {}
        for outer, inner in self.pairs:
            after.setdefault(outer, []).append(inner)
        found: set[Pair] = set()
        for start in after:
            stack = [start]
            while stack:
                for inner in after.get(stack.pop(), ()):
                    if (start, inner) not in found:
                        found.add((start, inner))
                        stack.append(inner)
        return found


class Allowance(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One entry of an allow file; every field but one of ``key`` and ``edge`` is needed."""

    reason: str
    owner: str
    expires: dt.date
    key: str = ""
    edge: str = ""

    def covers(self, finding: AuditFinding) -> bool:
        """Tell whether it is about a finding."""
        if self.key:
            return finding.key == self.key
        edges = {_arrow(edge.outer, edge.inner) for edge in finding.edges}
        return _arrow(*map(str.strip, self.edge.split("->"))) in edges


class _OrderEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    outer: str
    inner: str
    why: str


class _LeafEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    lock: str
    why: str


class _OrderFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    order: list[_OrderEntry] = []
    leaf: list[_LeafEntry] = []


class _BaselineEntry(msgspec.Struct, frozen=True):
    key: str
    message: str


class _Baseline(msgspec.Struct, frozen=True):
    findings: list[_BaselineEntry]


class _AllowFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    allow: list[Allowance] = []


# ---- reading ------------------------------------------------------------------------------------


def read_order(path: Path) -> Order:
    """Read an order file.

    Raises:
        UsageError: It cannot be read, an entry is not whole, or the order has a circle.
    """
    read = _read(path, _OrderFile, "an order file")
    for entry in (*read.order, *read.leaf):
        if not entry.why.strip():
            raise UsageError(f"{path}: an entry without a reason; say why: {given.short(entry)}")
    order = Order(
        {(e.outer, e.inner): e.why for e in read.order},
        {e.lock: e.why for e in read.leaf},
        str(path),
    )
    circle = _circle(order.pairs)
    if circle:
        raise UsageError(f"{path}: the order goes in a circle: {given.short(' -> '.join(circle))}")
    return order


def read_allow(path: Path) -> list[Allowance]:
    """Read an allow file.

    Raises:
        UsageError: It cannot be read, or an entry is not whole.
    """
    entries: list[Allowance] = _read(path, _AllowFile, "an allow file").allow
    for entry in entries:
        if (
            bool(entry.key) == bool(entry.edge)
            or not entry.reason.strip()
            or not entry.owner.strip()
        ):
            raise UsageError(
                f"{path}: an allowance needs reason, owner, expires, and key or edge: "
                f"{given.short(entry)}"
            )
        if entry.edge and entry.edge.count("->") != 1:
            raise UsageError(
                f"{path}: an edge is written outer -> inner, not {given.short(repr(entry.edge))}"
            )
    return entries


def read_baseline(path: Path) -> dict[str, str]:
    """Read the findings of an earlier ``audit --json``: keys, and what each said.

    Raises:
        UsageError: It cannot be read, or is no such document.
    """
    data = given.read_bytes(path, "the baseline", bytes_max=_BASELINE_BYTES_MAX)
    try:
        document = msgspec.json.decode(data, type=_Baseline)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise UsageError(
            f"{path}: not a baseline; write one with `audit LOG --json > {path}`"
        ) from None
    return {finding.key: finding.message for finding in document.findings}


def _read(path: Path, what: type[Any], name: str) -> Any:
    return given.read_toml(path, "", what, f"is not {name}")


class Decided(NamedTuple):
    """What a policy makes of an audit.

    Attributes:
        findings: Those that are left.
        allowed: Those that are not.
        order: How the declared order compares, or None.
        ledger: What was decided, entry by entry.
    """

    findings: list[AuditFinding]
    allowed: list[AuditFinding]
    order: AuditOrder | None
    ledger: list[LedgerEntry]


class Policy(NamedTuple):
    """What applies to an audit.

    Attributes:
        order: A declared order, or None.
        allowances: What may be found, for the time being.
        baseline: Findings of an earlier audit, or None.
        today: The date by which allowances expire.
    """

    order: Order | None = None
    allowances: tuple[Allowance, ...] = ()
    baseline: Mapping[str, str] | None = None
    today: dt.date = dt.date.max

    def apply(self, findings: list[AuditFinding], edges: tuple[AuditEdge, ...]) -> Decided:
        """Judge findings and edges by all that was decided."""
        compared: AuditOrder | None = None
        if self.order is not None:
            broken, compared = compare_order(edges, self.order)
            findings = [*findings, *broken]
        left, allowed, ledger = allow(findings, self.allowances, self.today)
        if self.baseline is not None:
            left, gone = against_baseline(left, self.baseline)
            ledger += gone
        return Decided(left, allowed, compared, ledger)


NO_POLICY: Final = Policy()


def read_policy(order: Path | None, allowed: Path | None, baseline: Path | None) -> Policy:
    """Read the files that were given; allowances expire by the day of today.

    Raises:
        UsageError: As the readers of each say.
    """
    return Policy(
        None if order is None else read_order(order),
        () if allowed is None else tuple(read_allow(allowed)),
        None if baseline is None else read_baseline(baseline),
        dt.datetime.now(tz=dt.UTC).date(),
    )


# ---- applying -----------------------------------------------------------------------------------


def compare_order(
    edges: Iterable[AuditEdge], order: Order
) -> tuple[list[AuditFinding], AuditOrder]:
    """Compare the observed edges with a declared order, both ways.

    Returns:
        What is broken, as findings; and what was declared, exercised and left undeclared.
    """
    reachable = order.reachable()
    observed = {(edge.outer, edge.inner): edge for edge in edges}
    broken, undeclared = [], []
    for (outer, inner), edge in sorted(observed.items()):
        if (inner, outer) in reachable:
            why = order.pairs.get((inner, outer), "follows from others")
            message = f"{inner} acquired while {outer} is held: declared the other way ({why})"
            broken.append(_broken(edge, message))
        elif outer in order.leaves:
            message = (
                f"{inner} acquired while the declared leaf {outer} is held ({order.leaves[outer]})"
            )
            broken.append(_broken(edge, message))
        elif (outer, inner) not in reachable:
            undeclared.append((outer, inner))
    never = tuple(sorted(set(order.pairs) - set(observed)))
    return broken, AuditOrder(len(order.pairs), never, tuple(undeclared))


def _broken(edge: AuditEdge, message: str) -> AuditFinding:
    return AuditFinding(
        key=finding_key("ORD003", (edge.outer, edge.inner)),
        rule="ORD003",
        result="DeclaredOrderBroken",
        tier="observed",
        message=message,
        classes=(edge.outer, edge.inner),
        count=edge.count,
        runs=edge.runs,
        fatal=False,
        note="",
        edges=(edge,),
    )


def allow(
    findings: list[AuditFinding], allowances: Iterable[Allowance], today: dt.date
) -> tuple[list[AuditFinding], list[AuditFinding], list[LedgerEntry]]:
    """Take out what is allowed; an allowance that has expired is a finding of its own.

    Returns:
        The findings that are left, those that are allowed, and entries for the ledger.
    """
    kept, allowed, ledger = list(findings), [], []
    for entry in allowances:
        scope = f"key {entry.key}" if entry.key else entry.edge
        covered = [finding for finding in kept if entry.covers(finding)]
        until = f"allowed by {entry.owner} until {entry.expires}"
        if entry.expires < today:
            kept.append(_expired(entry, scope))
            continue
        kept = [finding for finding in kept if finding not in covered]
        why = f"{entry.reason} ({until})"
        allowed += [msgspec.structs.replace(finding, allowed=why) for finding in covered]
        reason = until if covered else f"{until}, and not found"
        ledger.append(LedgerEntry(reason, f"{scope}: {entry.reason}", len(covered)))
    return kept, allowed, ledger


def _expired(entry: Allowance, scope: str) -> AuditFinding:
    return AuditFinding(
        key=finding_key("ALLOW001", (scope,)),
        rule="ALLOW001",
        result="AllowanceExpired",
        tier="observed",
        message=f"{scope}, allowed by {entry.owner}, expired on {entry.expires}: {entry.reason}",
        classes=(),
        count=1,
        runs=0,
        fatal=False,
        note="",
        edges=(),
    )


def against_baseline(
    findings: list[AuditFinding], known: Mapping[str, str]
) -> tuple[list[AuditFinding], list[LedgerEntry]]:
    """Mark what the baseline has; what it has and is gone goes to the ledger."""
    marked = [
        msgspec.structs.replace(f, baseline="known" if f.key in known else "new") for f in findings
    ]
    present = {finding.key for finding in findings}
    gone = [
        LedgerEntry("in the baseline, and not found any more", f"key {key}: {message}", 1)
        for key, message in known.items()
        if key not in present
    ]
    return marked, gone


def finding_key(rule: str, names: Iterable[str]) -> str:
    """Name a finding that has no sites; the same in every audit."""
    return hashlib.sha256("|".join((rule, *names)).encode()).hexdigest()[:8]


# ---- suggesting ---------------------------------------------------------------------------------


def suggest_order(report: AuditReport) -> str:
    """Write an order file for what was observed; the rarest edges of circles stay out of it."""
    edges = sorted(report.edges, key=lambda edge: (-edge.count, -edge.runs, edge.outer, edge.inner))
    kept: dict[Pair, AuditEdge] = {}
    against = []
    for edge in edges:
        if _circle([*kept, (edge.outer, edge.inner)]):
            against.append(edge)
        else:
            kept[edge.outer, edge.inner] = edge
    lines = [f"# From {report.runs} runs: {len(kept)} edges. Say why each order holds."]
    lines += [
        f"# Against it: {edge.outer} -> {edge.inner}, {edge.count}x in {edge.runs} runs, "
        f"at {edge.inner_site}"
        for edge in against
    ]
    for outer, inner in sorted(kept):
        edge = kept[outer, inner]
        why = f"observed {edge.count}x in {edge.runs} runs, first at {edge.inner_site}"
        lines += [
            "",
            "[[order]]",
            f"outer = {json.dumps(outer)}",
            f"inner = {json.dumps(inner)}",
            f"why = {json.dumps(why)}",
        ]
    return "\n".join(lines) + "\n"


def _circle(pairs: Iterable[Pair]) -> list[str]:
    """Find a circle of an order; empty where it has none."""
    sorter: graphlib.TopologicalSorter[str] = graphlib.TopologicalSorter()
    for outer, inner in pairs:
        sorter.add(inner, outer)
    try:
        sorter.prepare()
    except graphlib.CycleError as error:
        return [str(name) for name in error.args[1]]
    return []


def _arrow(outer: str, inner: str) -> str:
    return f"{outer} -> {inner}"
