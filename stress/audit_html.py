"""The audit as one HTML file: no script, no server, no other file; it prints as it looks.

Meaning is never in colour alone: what is wrong is dashed and named, too.
"""

from __future__ import annotations

import html
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import TypeAlias

from harness.lockorder.findings import Move
from harness.trace.graph import layers
from harness.trace.logstate import INTEGRITY
from harness.trace.page import still
from stress.audit_report import AuditEdge, AuditFinding, AuditReport, plural
from stress.program import PROGRAM

# Of more classes than this, a drawing is a hairball; the matrix alone is shown.
_DRAWN_MAX = 24
_ROW, _TOP, _CHAR = 34, 40, 7.2
_HALF_HEIGHT = 13
# How much farther a line bends with each attempt to pass by a box, and how closely it is looked at.
_AWAY, _SAMPLES = 22, 48
Point: TypeAlias = tuple[float, float]
_STYLE = """
svg { max-width: 100%; height: auto; }
svg text { fill: var(--text); font: 12px ui-monospace, "DejaVu Sans Mono", monospace; }
svg .quiet { fill: var(--quiet); } svg .wrong { fill: var(--bad); }
.lane { stroke: var(--line); } .hold { fill: var(--s0); stroke: var(--t1); }
.node { fill: var(--panel); stroke: var(--text); }
.edge { stroke: var(--quiet); fill: none; }
.edge.wrong { stroke: var(--bad); stroke-dasharray: 6 3; stroke-width: 2; fill: none; }
.tier { border: 1px solid currentColor; border-radius: 4px; padding: 0 6px; font-weight: 600; }
table { border-collapse: collapse; width: auto; }
td, th { border: 1px solid var(--line); padding: 2px 8px;
  text-align: left; vertical-align: top; font-size: 12.5px; white-space: pre-line; }
td.wrong { outline: 2px dashed var(--bad); outline-offset: -2px; }
th.down { writing-mode: vertical-rl; } section { margin: 14px 0; } .wide { overflow-x: auto; }
"""
_MARKER = (
    '<defs><marker id="{name}" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="8" '
    'markerHeight="8" orient="auto-start-reverse">'
    '<path d="M0 0L10 5L0 10z" fill="var(--{colour})"/></marker></defs>'
)


def page(report: AuditReport) -> str:
    """Write the whole file."""
    wrong = _violating(report)
    names = {each.name for each in report.classes}
    parts = [
        f"<h1>Lock-order audit: {_text(report.verdict)}</h1>",
        f'<p class="facts">{_text(report.reason)}</p>',
        f'<p class="facts">{_text(_counted(report))}</p>',
        *_integrity(report),
        *(part for finding in report.findings for part in _finding(finding, names)),
        "<h2>Class graph</h2>",
        *_graph(report, wrong),
        *_left_out(report),
    ]
    return still("Lock-order audit", "\n".join(parts), _STYLE)


def _text(value: object) -> str:
    return html.escape(str(value))


def _counted(report: AuditReport) -> str:
    return ", ".join(
        (
            plural(report.logs, "log"),
            plural(report.runs, "run"),
            plural(report.events, "event"),
            f"{len(report.classes)} lock classes",
            plural(len(report.edges), "edge"),
        )
    )


def _violating(report: AuditReport) -> set[tuple[str, str]]:
    """Of every circle, the edge that was made most rarely: most likely the one that is wrong."""
    found = set()
    for finding in report.findings:
        circle = [edge for edge in finding.edges if edge.outer and edge.inner]
        if len(circle) > 1 and finding.rule in ("ORD001", "ORD002", "CTX004"):
            rarest = min(circle, key=lambda edge: (edge.count, edge.outer, edge.inner))
            found.add((rarest.outer, rarest.inner))
    return found


def _integrity(report: AuditReport) -> Iterator[str]:
    if report.integrity:
        yield "<h2>The logs themselves</h2><ul>"
        for breach in report.integrity:
            said = f"{breach.rule} {INTEGRITY[breach.rule]}: {breach.log}:{breach.line}: "
            yield f"<li>{_text(said + breach.message)} ({breach.count}x)</li>"
        yield "</ul>"


# ---- findings -----------------------------------------------------------------------------------


def _finding(finding: AuditFinding, names: Collection[str]) -> Iterator[str]:
    surely = "bad" if finding.tier in ("observed", "confirmed", "predicted") else "quiet"
    yield f'<section class="panel" id="f{_text(finding.key)}-{_text(finding.rule)}">'
    yield (
        f'<h2><span class="tier {surely}">{_text(finding.tier)}</span> '
        f"{_text(finding.rule)} {_text(finding.result)}</h2>"
    )
    yield f"<p>{_text(finding.message)}</p>"
    yield (
        f'<p class="facts">key {_text(finding.key)}, {finding.count:,}x in '
        f"{_text(plural(finding.runs, 'run'))} {_text(finding.baseline)}</p>"
    )
    if finding.scenario:
        yield f'<h3>What could happen</h3><div class="wide">{_lanes(finding.scenario)}</div>'
    if len(finding.edges) > 1 and not finding.edges[0].access:
        yield f'<h3>The circle</h3><div class="wide">{_ring(finding.edges)}</div>'
    yield from _edge_table(finding.edges, names)
    if finding.note:
        yield f'<p class="quiet">{_text(finding.note)}</p>'
    if finding.token:
        yield f"<pre>{_text(f'{PROGRAM} replay {finding.token}')}</pre>"
    yield "</section>"


def _edge_table(edges: Sequence[AuditEdge], names: Collection[str]) -> Iterator[str]:
    if not edges:
        return
    yield '<div class="wide"><table><tr><th>thread<th>holds<th>since<th>wants, or does<th>at'
    yield "<th>made</tr>"
    for edge in edges:
        outer = f"{edge.outer} ({edge.outer_mode})" if edge.outer else ""
        inner = _wanted(edge, names)
        made = f"{edge.count:,}x in {plural(edge.runs, 'run')}" if edge.count else ""
        since = _stack(edge.outer_site, edge.outer_stack) if outer else ""
        at = _stack(edge.inner_site, edge.inner_stack)
        cells = (f"{edge.thread} in {edge.run}", outer, since, inner, at, made)
        row = "".join(f"<td>{_text(cell)}" for cell in cells)
        yield f"<tr>{row}</tr>"
    yield "</table></div>"


def _wanted(edge: AuditEdge, names: Collection[str]) -> str:
    """Say what a thread wants; an event has no mode, and who goes to sleep wants no lock."""
    if edge.access:
        return edge.access
    if not edge.inner:
        return "goes to sleep"
    return f"{edge.inner} ({edge.inner_mode})" if edge.inner in names else edge.inner


def _stack(site: str, callers: Sequence[str]) -> str:
    return "\n".join((site, *(f"  called at {each}" for each in callers)))


def _lanes(moves: tuple[Move, ...]) -> str:
    """Draw a lane for each thread: bars for what it holds, an arrow to whom it waits for."""
    threads = list(dict.fromkeys(move.thread for move in moves))
    said = [f"{move.what} - waits  " if move.blocked_by else move.what for move in moves]
    width = max(int(max(map(len, (*said, *threads))) * _CHAR) + 36, 140)
    height = _TOP + _ROW * len(moves) + 20
    middle = {name: 20 + width * at for at, name in enumerate(threads)}
    drawn = [_MARKER.format(name="wait", colour="bad")]
    for name, x in middle.items():
        drawn.append(f'<text x="{x}" y="18">{_text(name)}</text>')
        drawn.append(f'<line class="lane" x1="{x}" y1="26" x2="{x}" y2="{height}"/>')
    for row, (move, text) in enumerate(zip(moves, said, strict=True)):
        x, y = middle[move.thread], _TOP + _ROW * row
        if move.blocked_by:
            drawn.append(f'<text class="wrong" x="{x + 12}" y="{y + 12}">✗ {_text(text)}</text>')
            target = middle.get(move.blocked_by)
            if target is not None:
                drawn.append(
                    f'<path class="edge wrong" marker-end="url(#wait)" '
                    f'd="M{x + 4} {y + 18}L{target + (8 if target < x else -2)} {y + 18}"/>'
                )
        else:
            bar = height - y - 8
            drawn.append(f'<rect class="hold" x="{x - 4}" y="{y}" width="8" height="{bar}"/>')
            drawn.append(f'<text x="{x + 12}" y="{y + 12}">{_text(text)}</text>')
    size = width * len(threads) + 40
    return _svg(size, height, drawn, "what each thread takes, and whom it then waits for")


def _ring(edges: Sequence[AuditEdge]) -> str:
    """Draw a circle of classes, its rarest edge dashed."""
    names = [edge.outer or edge.thread for edge in edges]
    rarest = min(edge.count for edge in edges)
    marked = any(edge.count != rarest for edge in edges)
    radius = 60 + 14 * len(edges)
    across = max(len(name) for name in names) * _CHAR
    middle_x, middle_y = radius + across / 2 + 60, radius + 30
    drawn = [
        _MARKER.format(name="to", colour="quiet"),
        _MARKER.format(name="against", colour="bad"),
    ]
    points = []
    for at in range(len(names)):
        angle = 2 * math.pi * at / len(names) - math.pi / 2
        points.append((middle_x + radius * math.cos(angle), middle_y + radius * math.sin(angle)))
    for at, edge in enumerate(edges):
        (x1, y1), (x2, y2) = points[at], points[(at + 1) % len(points)]
        wrong = marked and edge.count == rarest
        bend_x, bend_y = (x1 + x2) / 2 + (y2 - y1) / 5, (y1 + y2) / 2 - (x2 - x1) / 5
        kind, head = ("edge wrong", "against") if wrong else ("edge", "to")
        (a, b) = _outside(names[at], (x1, y1), (bend_x, bend_y))
        (c, d) = _outside(names[(at + 1) % len(points)], (x2, y2), (bend_x, bend_y))
        drawn.append(
            f'<path class="{kind}" marker-end="url(#{head})" '
            f'd="M{a:.0f} {b:.0f}Q{bend_x:.0f} {bend_y:.0f} {c:.0f} {d:.0f}"/>'
        )
        label = f"{edge.count:,}x{' rarest' if wrong else ''}" if edge.count else ""
        drawn.append(
            f'<text class="{"wrong" if wrong else "quiet"}" x="{bend_x:.0f}" y="{bend_y:.0f}" '
            f'text-anchor="{_beside(bend_x - middle_x)}">{_text(label)}</text>'
        )
    drawn += [_box(x, y, name) for (x, y), name in zip(points, names, strict=True)]
    return _svg(2 * middle_x, 2 * middle_y, drawn, "the circle of lock classes")


def _beside(side: float) -> str:
    """Anchor a text on that side of a drawing so that it grows away from the middle."""
    return "middle" if abs(side) < _CHAR else "start" if side > 0 else "end"


def _outside(name: str, point: Point, towards: Point) -> Point:
    """Leave the box of a name, from its middle towards another point."""
    (x, y), (u, v) = point, towards
    across, down = abs(u - x) / (_half(name) + 3), abs(v - y) / (_HALF_HEIGHT + 3)
    share = 1 / max(across, down, 1)
    return x + (u - x) * share, y + (v - y) * share


def _half(name: str) -> float:
    """Half of the width of the box of a name."""
    return len(name) * _CHAR / 2 + 9


# ---- the class graph ----------------------------------------------------------------------------


def _graph(report: AuditReport, wrong: set[tuple[str, str]]) -> Iterator[str]:
    names = sorted({name for edge in report.edges for name in (edge.outer, edge.inner)})
    if not names:
        yield '<p class="quiet">No lock was taken while another one was held.</p>'
        return
    if len(names) <= _DRAWN_MAX:
        yield f'<div class="wide">{_layered(report.edges, wrong)}</div>'
    yield from _matrix(report.edges, names, wrong)


def _layered(edges: Sequence[AuditEdge], wrong: set[tuple[str, str]]) -> str:
    """Draw classes by rank, outer ones above; an edge that goes against the rank goes up."""
    # The most frequent edges decide the rank.
    ordered = sorted(edges, key=lambda edge: (-edge.count, edge.outer, edge.inner))
    rows = layers(
        [(e.outer, e.inner) for e in ordered if (e.outer, e.inner) not in wrong]
        or [(e.outer, e.inner) for e in ordered]
    )
    placed = {name for row in rows for name in row}
    rest = sorted({n for e in edges for n in (e.outer, e.inner)} - placed)
    rows = [*rows, rest] if rest else rows
    broad = max(len(name) for row in rows for name in row) * _CHAR + 46
    width = broad * max(map(len, rows)) + 80
    at: dict[str, tuple[float, float]] = {}
    for rank, row in enumerate(rows):
        for column, name in enumerate(row):
            at[name] = (width * (column + 1) / (len(row) + 1), 34 + 88 * rank)
    drawn = [_MARKER.format(name="down", colour="quiet"), _MARKER.format(name="up", colour="bad")]
    bends = []
    for edge in edges:
        (x1, y1), (x2, y2) = at[edge.outer], at[edge.inner]
        against = (edge.outer, edge.inner) in wrong
        kind, head = ("edge wrong", "up") if against else ("edge", "down")
        bend = _bend(edge, at, 40 if against else 0)
        bends.append(bend[0])
        (a, b), (c, d) = _outside(edge.outer, (x1, y1), bend), _outside(edge.inner, (x2, y2), bend)
        drawn.append(
            f'<path class="{kind}" marker-end="url(#{head})" '
            f'd="M{a:.0f} {b:.0f}Q{bend[0]:.0f} {bend[1]:.0f} {c:.0f} {d:.0f}">'
            f"<title>{_text(_told(edge))}</title></path>"
        )
    drawn += [_box(x, y, name) for name, (x, y) in at.items()]
    # A bend may lead beyond the boxes; one as far to the left makes room on both sides.
    room = max((abs(bend - width / 2) for bend in bends), default=0)
    beyond = max(0, room + 10 - width / 2)
    said = "lock classes by rank, outer ones above"
    return _svg(width + 2 * beyond, 34 + 88 * len(rows), drawn, said, left=-beyond)


def _bend(edge: AuditEdge, at: Mapping[str, Point], start: float) -> Point:
    """Find where an edge bends so that it passes under no box, as near to straight as that goes."""
    (x1, y1), (x2, y2) = at[edge.outer], at[edge.inner]
    others = [(p, _half(name)) for name, p in at.items() if name not in (edge.outer, edge.inner)]
    x, y = (x1 + x2) / 2, (y1 + y2) / 2
    # Those of one rank bend into the gap below it.
    across, down = (0, 1) if y1 == y2 else (1, 0)
    signs = (1, -1) if down else (-1, 1)
    sides = [start, *(start + sign * _AWAY * step for step in range(1, 24) for sign in signs)]
    best, fewest = start, len(others) + 1
    for side in sides:
        bend = (x + across * side, y + down * side)
        covered = _covered((x1, y1), bend, (x2, y2), others)
        if covered < fewest:
            best, fewest = side, covered
        if not covered:
            break
    return x + across * best, y + down * best


def _covered(start: Point, bend: Point, end: Point, boxes: Sequence[tuple[Point, float]]) -> int:
    """Count the boxes that a bent line passes under."""
    points = []
    for step in range(1, _SAMPLES):
        t = step / _SAMPLES
        a, b, c = (1 - t) ** 2, 2 * t * (1 - t), t * t
        points.append(
            (a * start[0] + b * bend[0] + c * end[0], a * start[1] + b * bend[1] + c * end[1])
        )
    return sum(
        any(abs(u - x) < half + 4 and abs(v - y) < _HALF_HEIGHT + 4 for u, v in points)
        for (x, y), half in boxes
    )


def _told(edge: AuditEdge) -> str:
    made = f"{edge.count:,}x in {plural(edge.runs, 'run')}"
    return f"{edge.outer} -> {edge.inner}: {made}; {edge.outer_site}, {edge.inner_site}"


def _matrix(
    edges: Iterable[AuditEdge], names: list[str], wrong: set[tuple[str, str]]
) -> Iterator[str]:
    """A row holds, a column wants: readable where a drawing is not."""
    counts = {(edge.outer, edge.inner): edge for edge in edges}
    yield "<h3>Who is wanted while whom is held</h3>"
    yield '<div class="wide"><table><tr><th>held \\ wanted'
    yield "".join(f'<th class="down">{_text(name)}' for name in names) + "</tr>"
    for outer in names:
        cells = []
        for inner in names:
            edge = counts.get((outer, inner))
            mark = ' class="wrong"' if (outer, inner) in wrong else ""
            shown = "" if edge is None else f"{edge.count:,}{' !' if mark else ''}"
            title = "" if edge is None else f' title="{_text(_told(edge))}"'
            cells.append(f"<td{mark}{title}>{shown}")
        yield f"<tr><th>{_text(outer)}{''.join(cells)}</tr>"
    yield "</table></div>"


def _box(x: float, y: float, name: str) -> str:
    half, high = _half(name), _HALF_HEIGHT
    return (
        f'<rect class="node" rx="4" x="{x - half:.0f}" y="{y - high:.0f}" width="{2 * half:.0f}" '
        f'height="{2 * high}"/>'
        f'<text x="{x:.0f}" y="{y + 4:.0f}" text-anchor="middle">{_text(name)}</text>'
    )


def _svg(width: float, height: float, drawn: Iterable[str], said: str, *, left: float = 0) -> str:
    view = f"{left:.0f} 0 {width:.0f} {height:.0f}"
    return (
        f'<svg width="{width:.0f}" height="{height:.0f}" viewBox="{view}" '
        f'role="img" aria-label="{_text(said)}">{"".join(drawn)}</svg>'
    )


def _left_out(report: AuditReport) -> Iterator[str]:
    if report.order is not None:
        yield "<h2>Declared order</h2><ul>"
        for what, pairs in (
            ("never exercised", report.order.unexercised),
            ("undeclared", report.order.undeclared),
        ):
            yield from (f"<li>{what}: {_text(f'{a} -> {b}')}</li>" for a, b in pairs)
        yield "</ul>"
    if report.ledger:
        yield "<h2>Left out, and why</h2><ul>"
        for entry in report.ledger:
            yield f"<li>{entry.count:,}x {_text(entry.reason)}: {_text(entry.subject)}</li>"
        yield "</ul>"
