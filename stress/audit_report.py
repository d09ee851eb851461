"""What an audit found, as data and as text."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import Final

import msgspec

from harness.lockorder.findings import Move
from harness.trace.logstate import INTEGRITY, Breach
from stress.program import PROGRAM

_WIDTH: Final = 100


class AuditEdge(msgspec.Struct, frozen=True, omit_defaults=True):
    """An edge of the class graph, or one occasion of a finding.

    Attributes:
        outer: Class of the lock that was held.
        inner: Class of the lock that was wanted; empty where the thread went to sleep instead. Of
            a data race the cell, and ``outer`` the locks that were held then.
        outer_mode: ``exclusive`` or ``shared``, on the occasion shown.
        inner_mode: Likewise; of a data race ``read`` or ``write``.
        outer_site: Where the held lock had been acquired; the first occasion is shown.
        inner_site: Where the other one was wanted.
        thread: Which thread did so.
        run: In which run.
        count: How often the edge was made.
        runs: In how many runs.
        outer_stack: Who had called, up to ``outer_site``, the innermost first: ``file:line in
            function`` each. Empty where the log has no stacks.
        inner_stack: Likewise, up to ``inner_site``.
    """

    outer: str
    inner: str
    outer_mode: str
    inner_mode: str
    outer_site: str
    inner_site: str
    thread: str
    run: str
    count: int
    runs: int
    outer_stack: tuple[str, ...] = ()
    inner_stack: tuple[str, ...] = ()

    @property
    def access(self) -> str:
        """What a thread did to a cell, in words; empty where it wanted a lock."""
        does = {"read": "reads", "write": "writes"}.get(self.inner_mode, "")
        return f"{does} {self.inner} with {self.outer or 'no lock'} held" if does else ""


class AuditFinding(msgspec.Struct, frozen=True):
    """A broken lock rule.

    Attributes:
        key: Eight hex digits over rule, classes and sites; the same in every audit of that finding.
        count: How often it was made; of a cycle: how often its rarest edge was.
        runs: In how many runs; of a cycle: in how many its rarest edge was made.
        note: What lowers or explains the tier; may be empty.
        edges: Its occasions, each with both sites.
        scenario: Of a deadlock that was predicted: what could happen, move by move.
        token: Of a confirmed one: replays it.
        allowed: Why it is allowed, by whom, until when; empty where it is not.
        baseline: ``new`` or ``known``, where there is a baseline.
    """

    key: str
    rule: str
    result: str
    tier: str
    message: str
    classes: tuple[str, ...]
    count: int
    runs: int
    fatal: bool
    note: str
    edges: tuple[AuditEdge, ...]
    scenario: tuple[Move, ...] = ()
    token: str = ""
    baseline: str = ""
    allowed: str = ""


class AuditClass(msgspec.Struct, frozen=True):
    """A lock class, and how many edges begin and end at it."""

    name: str
    flags: tuple[str, ...]
    outgoing: int
    incoming: int


class LedgerEntry(msgspec.Struct, frozen=True):
    """What was left out, and why."""

    reason: str
    subject: str
    count: int


class AuditGolden(msgspec.Struct, frozen=True):
    """The comparison with a golden table of edges, each ``(outer, inner)``."""

    expected: int
    missing: tuple[tuple[str, str], ...]
    extra: tuple[tuple[str, str], ...]


class AuditOrder(msgspec.Struct, frozen=True):
    """The comparison with a declared order.

    Attributes:
        declared: Pairs that it declares.
        unexercised: Those that no run has made.
        undeclared: Observed edges that it neither declares nor implies.
    """

    declared: int
    unexercised: tuple[tuple[str, str], ...]
    undeclared: tuple[tuple[str, str], ...]


class AuditReport(msgspec.Struct, frozen=True):
    """What an audit found.

    Attributes:
        verdict: ``fail`` for a finding at or above ``fail_on``; else ``inconclusive`` where nothing
            was read, or a log contradicts itself; else ``pass``.
        reason: Why, in a few words.
        fail_on: The least tier that fails.
        logs: Files read.
        runs: Runs in them.
        events: Events in them.
        integrity: What is wrong with the logs themselves.
        findings: Broken lock rules, the surest first.
        edges: The class graph, by name.
        classes: Its nodes, by name.
        ledger: What was left out.
        golden: The comparison, where one was asked for.
        order: The comparison with a declared order, where there is one.
        allowed: Findings that an allow file lets pass.
    """

    verdict: str
    reason: str
    fail_on: str
    logs: int
    runs: int
    events: int
    integrity: tuple[Breach, ...]
    findings: tuple[AuditFinding, ...]
    edges: tuple[AuditEdge, ...]
    classes: tuple[AuditClass, ...]
    ledger: tuple[LedgerEntry, ...]
    golden: AuditGolden | None = None
    order: AuditOrder | None = None
    allowed: tuple[AuditFinding, ...] = ()


def render_text(report: AuditReport) -> str:
    """Show a report to a person: the logs first, then findings, graph, and what was left out."""
    parts = [
        _head(report),
        *(_integrity(report.integrity) if report.integrity else ()),
        *(line for finding in report.findings for line in _finding(finding)),
        *_graph(report),
        *(_golden(report.golden) if report.golden is not None else ()),
        *(_order(report.order) if report.order is not None else ()),
        *_ledger(report.ledger),
        "",
        f"verdict: {report.verdict} ({report.reason})",
    ]
    return "\n".join(parts)


def plural(count: int, what: str) -> str:
    """Count in words: ``1 run``, ``2 runs``."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _head(report: AuditReport) -> str:
    counted = (
        plural(report.logs, "log"),
        plural(report.runs, "run"),
        plural(report.events, "event"),
        f"{len(report.classes)} lock classes",
        plural(len(report.edges), "edge"),
    )
    return f"lock-order audit: {', '.join(counted)}"


def _integrity(breaches: tuple[Breach, ...]) -> Iterator[str]:
    yield ""
    yield "the logs themselves"
    for breach in breaches:
        times = f"  ({breach.count} times)" if breach.count > 1 else ""
        yield f"  {breach.rule} {INTEGRITY[breach.rule]}{times}"
        yield f"      {breach.log}:{breach.line}: {breach.message}"


def _finding(finding: AuditFinding) -> Iterator[str]:
    yield ""
    fatal = "  fatal" if finding.fatal else ""
    yield (
        f"{finding.rule} {finding.tier}  {finding.result}  key {finding.key}  "
        f"{finding.count:,}x in {plural(finding.runs, 'run')}{fatal}{_against(finding)}"
    )
    yield from _wrapped(finding.message, "  ")
    yield from _scenario(finding.scenario)
    yield from _occasions(finding)
    if finding.note:
        yield from _wrapped(finding.note, "  ")
    if finding.token:
        yield f"  {PROGRAM} replay {finding.token}"


def _occasions(finding: AuditFinding) -> Iterator[str]:
    """Show who did what, and where."""
    rarest = min((edge.count for edge in finding.edges), default=0)
    told = len(finding.edges) > 1 and any(edge.count != rarest for edge in finding.edges)
    for number, edge in enumerate(finding.edges, 1):
        who = edge.thread or "a thread"
        if edge.access:
            yield from _wrapped(f"access {number}  {who} {edge.access}, in {edge.run}", "  ")
            yield f"          at {edge.inner_site}"
            yield from _callers(edge.inner_stack)
            continue
        names = [_mode(edge.outer, edge.outer_mode)] if edge.outer else []
        label, then = "held", "at"
        if edge.inner:
            label, then = f"edge {number}", "wants at"
            names.append(_mode(edge.inner, edge.inner_mode))
        elif finding.rule.startswith("CTX"):
            then = "sleeps at"
            names.append("(sleeps)")
        mark = "  <- rarest edge" if told and edge.count == rarest else ""
        counts = f"  {edge.count:,}x in {plural(edge.runs, 'run')}" if edge.count else ""
        yield f"  {label}  {' -> '.join(names)}{counts}{mark}"
        yield f"          {who} in {edge.run}"
        if edge.outer:
            yield f"          holds since {edge.outer_site}"
            yield from _callers(edge.outer_stack)
        yield f"          {then} {edge.inner_site}"
        yield from _callers(edge.inner_stack)


def _callers(stack: tuple[str, ...]) -> Iterator[str]:
    """Show how a thread came to a place."""
    yield from (f"              called at {each}" for each in stack)


def _scenario(moves: tuple[Move, ...]) -> Iterator[str]:
    """Show what could happen in a lane for each thread, time running downwards."""
    if not moves:
        return
    threads = list(dict.fromkeys(move.thread for move in moves))
    said = [
        f"{move.what} - waits for {move.blocked_by}" if move.blocked_by else move.what
        for move in moves
    ]
    widest = max(len(text) for text in (*said, *threads)) + 2
    lane = min(widest, max(24, (_WIDTH - 6) // len(threads)))
    yield "  what could happen"
    yield "      " + "".join(f"{name:<{lane}}" for name in threads).rstrip()
    for move, text in zip(moves, said, strict=True):
        yield "      " + " " * (lane * threads.index(move.thread)) + text


def _against(finding: AuditFinding) -> str:
    return f"  {finding.baseline}" if finding.baseline else ""


def _mode(name: str, mode: str) -> str:
    return f"{name} (shared)" if mode == "shared" else name


def _graph(report: AuditReport) -> Iterator[str]:
    yield ""
    if not report.edges:
        yield "class graph: no lock was taken while another one was held"
        return
    yield "class graph (outer -> inner, count, runs; on the first occasion: held since, wanted at)"
    width = max(len(f"{edge.outer} -> {edge.inner}") for edge in report.edges)
    for edge in report.edges:
        names = f"{edge.outer} -> {edge.inner}"
        yield f"  {names:<{min(width, 70)}}  {edge.count:>12,}  {edge.runs:>8,}"
        yield from _wrapped(f"{edge.outer_site}, {edge.inner_site}", "      ")


def _golden(golden: AuditGolden) -> Iterator[str]:
    yield ""
    seen = golden.expected - len(golden.missing)
    yield f"golden table: {seen} of {golden.expected} edges seen"
    for outer, inner in golden.missing:
        yield f"  not seen    {outer} -> {inner}"
    for outer, inner in golden.extra:
        yield f"  not in it   {outer} -> {inner}"


def _order(order: AuditOrder) -> Iterator[str]:
    yield ""
    seen = order.declared - len(order.unexercised)
    yield f"declared order: {seen} of {order.declared} pairs exercised"
    for outer, inner in order.unexercised:
        yield f"  never exercised  {outer} -> {inner}"
    for outer, inner in order.undeclared:
        yield f"  undeclared       {outer} -> {inner}"


def _ledger(ledger: tuple[LedgerEntry, ...]) -> Iterator[str]:
    if not ledger:
        return
    yield ""
    yield "left out"
    for entry in ledger:
        yield from _wrapped(f"{entry.count:,}x {entry.reason}: {entry.subject}", "  ")


def _wrapped(text: str, indent: str) -> Iterator[str]:
    return iter(
        textwrap.wrap(
            text,
            _WIDTH,
            initial_indent=indent,
            subsequent_indent=indent + "    ",
            break_long_words=False,
            break_on_hyphens=False,
        )
    )
