"""What a judge has seen of one log, as bytes and back: an unchanged log need not be judged again.

What comes back is what judging would give, in any place among other logs: runs are renumbered, and
the log goes by its present name.
"""

from __future__ import annotations

import hashlib
from typing import Any, Final, TypeAlias

import msgspec

from harness.errors import UsageError
from harness.lockorder.classes import LockClass, LockFlags
from harness.lockorder.deadlocks import Counted, named
from harness.lockorder.findings import EXCLUSIVE, SHARED, TIERS, Finding, Witness
from harness.lockorder.graph import Link, Pair
from harness.lockorder.rules import Direct, State
from harness.trace.events import Site, Stack
from harness.trace.logjudge import LogJudge
from harness.trace.logstate import Breach

_Place: TypeAlias = tuple[int, int]


class _Saved(msgspec.Struct, array_like=True):
    """A judge of one log, its runs numbered from 1."""

    classes: list[tuple[str, int]]
    known: list[tuple[str, int]]  # by the log's definitions, whether acquired or not
    links: list[tuple[Witness, _Place, bool, bool]]
    pairs: list[tuple[str, str, int, int]]
    direct: list[tuple[_Place, Finding, int, int]]
    dropped: list[tuple[str, str, int]]
    deadlocks: list[tuple[Finding, int, list[int]]]
    refuted: list[tuple[str, str, int]]
    kinds: dict[str, str]
    breaches: list[Breach]
    runs: dict[int, str]
    headers: dict[int, dict[str, str | int]]
    untrusted: list[int]
    events: int
    unclassed: int


_CHECK_BYTES: Final = 16
_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(_Saved)


def save(judge: LogJudge, after: int) -> bytes:
    """Write down what a judge has seen.

    Args:
        judge: Has read one log.
        after: Its runs were numbered from here on.
    """
    seen = judge.rules.state()
    back = _Moved(-after)
    pairs = [(*names, pair.count, pair.schedules) for names, pair in seen.pairs.items()]
    saved = _Saved(
        classes=[(name, each.bits) for name, each in seen.classes.items()],
        known=[(name, each.bits) for name, each in judge.classes.items()],
        links=[
            (back.witness(link.witness), back.place(link.place), link.muted, link.preloaded)
            for link in seen.links
        ],
        pairs=pairs,
        direct=[
            (back.place(each.place), back.finding(each.finding), *_counted(each.counts))
            for each in seen.direct
        ],
        dropped=[(*subject, count) for subject, count in seen.dropped.items()],
        deadlocks=[
            (back.finding(each.finding), each.count, [run - after for run in sorted(each.runs)])
            for each in judge.deadlocks.found.values()
        ],
        refuted=[(*subject, count) for subject, count in judge.deadlocks.refuted.items()],
        kinds=judge.kinds,
        breaches=list(judge.breaches.values()),
        runs={run - after: name for run, name in judge.runs.items()},
        headers={run - after: header for run, header in judge.headers.items()},
        untrusted=[run - after for run in sorted(judge.untrusted)],
        events=judge.events,
        unclassed=judge.unclassed,
    )
    body = _ENCODER.encode(saved)
    return _check_of(body) + body


def load(data: bytes, judge: LogJudge, name: str, after: int) -> bool:
    """Put what was written down into a judge that has read nothing.

    Args:
        data: What ``save`` gave.
        judge: Made with the same options.
        name: What the log is called now.
        after: Number its runs from here on.

    Returns:
        Whether it was done; not where the data are damaged.
    """
    try:
        body = data[_CHECK_BYTES:]
        if data[:_CHECK_BYTES] != _check_of(body):
            return False
        saved = _DECODER.decode(body)
        _must_fit(saved)
        _enter(saved, judge, name, after)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError, UsageError):
        return False
    return True


def _check_of(body: bytes) -> bytes:
    return hashlib.sha256(body).digest()[:_CHECK_BYTES]


def _must_fit(saved: _Saved) -> None:
    """Refuse what no judge has seen.

    Raises:
        ValueError: An edge is of a run that there is not, a mode, a tier or a deadlock is none.
    """
    found = [finding for _, finding, *_ in saved.direct]
    found += [finding for finding, *_ in saved.deadlocks]
    edges = [link[0] for link in saved.links] + [edge for one in found for edge in one.edges]
    if not {edge.schedule for edge in edges} <= saved.runs.keys():
        raise ValueError("an edge of no run")
    modes = {mode for edge, *_ in saved.links for mode in (edge.outer_mode, edge.inner_mode)}
    if not modes <= {EXCLUSIVE, SHARED}:
        raise ValueError("an edge of no mode")
    if not {finding.tier for finding in found} <= set(TIERS):
        raise ValueError("a finding of no tier")
    if not all(finding.edges and runs for finding, _, runs in saved.deadlocks):
        raise ValueError("a deadlock of nothing")


def _enter(saved: _Saved, judge: LogJudge, name: str, after: int) -> None:
    there = _Moved(after)
    judge.classes.update(_classes(saved.known))
    links = [
        Link(there.witness(witness), there.place(place), muted, preloaded)
        for witness, place, muted, preloaded in saved.links
    ]
    direct = [
        Direct(there.place(place), there.finding(finding), _pair(count, schedules))
        for place, finding, count, schedules in saved.direct
    ]
    pairs = {(outer, inner): _pair(count, runs) for outer, inner, count, runs in saved.pairs}
    dropped = {(reason, what): count for reason, what, count in saved.dropped}
    judge.rules.restore(State(_classes(saved.classes), links, pairs, direct, dropped))
    for finding, count, runs in saved.deadlocks:
        moved = there.finding(finding)
        judge.deadlocks.found[named(moved)] = Counted(moved, count, {run + after for run in runs})
    judge.deadlocks.refuted.update({(reason, what): count for reason, what, count in saved.refuted})
    judge.kinds.update(saved.kinds)
    for breach in saved.breaches:
        judge.breaches[name, breach.rule] = msgspec.structs.replace(breach, log=name)
    judge.runs.update({run + after: text for run, text in saved.runs.items()})
    judge.headers.update({run + after: header for run, header in saved.headers.items()})
    judge.untrusted.update(run + after for run in saved.untrusted)
    judge.events, judge.unclassed = saved.events, saved.unclassed


class _Moved:
    """Renumbers runs; sites come back as sites."""

    def __init__(self, by: int) -> None:
        self._by = by
        self._sites: dict[Site, Site] = {}

    def place(self, place: _Place) -> _Place:
        return (place[0] + self._by, place[1])

    def witness(self, witness: Witness) -> Witness:
        return msgspec.structs.replace(
            witness,
            schedule=witness.schedule + self._by,
            outer_site=self._site(witness.outer_site),
            inner_site=self._site(witness.inner_site),
        )

    def finding(self, finding: Finding) -> Finding:
        return msgspec.structs.replace(
            finding,
            schedule=finding.schedule + self._by,
            edges=tuple(map(self.witness, finding.edges)),
        )

    def _site(self, site: Any) -> Site | None:
        if site is None or isinstance(site, Site):
            return site
        if isinstance(site, dict) and "callers" in site:
            return msgspec.convert(site, Stack)
        made = msgspec.convert(site, Site)
        return self._sites.setdefault(made, made)


def _classes(saved: list[tuple[str, int]]) -> dict[str, LockClass]:
    return {name: LockClass(name, flags=LockFlags(bits)) for name, bits in saved}


def _pair(count: int, schedules: int) -> Pair:
    pair = Pair()
    pair.count, pair.schedules = count, schedules
    return pair


def _counted(pair: Pair) -> tuple[int, int]:
    return pair.count, pair.schedules


__all__ = ["load", "save"]
