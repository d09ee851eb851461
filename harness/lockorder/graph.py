"""The class graph: edges with their first witnesses and counts, and what follows from them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple, TypeAlias

from harness.lockorder.classes import LockClass, LockFlags
from harness.lockorder.cycles import (
    Graph,
    Step,
    canonical,
    components,
    kind_of,
    kinds_of,
    shortest_cycle,
)
from harness.lockorder.findings import EXCLUSIVE, SHARED, Edge, Finding, Witness

_IRQ_SAFE: Final = int(LockFlags.IRQ_SAFE)

Place: TypeAlias = tuple[int, int]  # schedule, and rank among the discoveries of that schedule
LinkKey: TypeAlias = tuple[str, str, str, str]  # outer, inner, and their modes


class Pair:
    """What one edge counts, whatever the modes."""

    __slots__ = ("count", "kinds", "last", "schedules")

    def __init__(self) -> None:
        """Start with nothing seen."""
        self.count = 0
        self.kinds = 0  # mask of the combinations of modes that have a link
        self.schedules = 0
        self.last = -1  # the schedule that was counted last


class Link(NamedTuple):
    """The first occasion of one edge with one combination of modes."""

    witness: Witness
    place: Place
    muted: bool
    preloaded: bool

    @property
    def key(self) -> LinkKey:
        """Which edge and modes it is the first of."""
        witness = self.witness
        return (witness.outer, witness.inner, witness.outer_mode, witness.inner_mode)

    def precedes(self, other: Link) -> bool:
        """Order by discovery; a real link goes before one that was only carried along."""
        return (self.preloaded, self.place) < (other.preloaded, other.place)


class ClassGraph:
    """Edges are added and never rejected, so a cycle does not hide the next one.

    Attributes:
        links: The first occasion of each edge and combination of modes.
        pairs: The counts of each edge.
    """

    def __init__(self, classes: dict[str, LockClass], *, mode_blind: bool) -> None:
        """Start empty; ``classes`` is the caller's, and gives the flags."""
        self.links: dict[LinkKey, Link] = {}
        self.pairs: dict[tuple[str, str], Pair] = {}
        self._classes = classes
        self._mode_blind = mode_blind
        self._graph: Graph = {}

    def pair(self, outer: str, inner: str) -> Pair:
        """Return the counts of an edge, which may be new."""
        pair = self.pairs.get((outer, inner))
        if pair is None:
            pair = self.pairs[outer, inner] = Pair()
        return pair

    def add(self, link: Link) -> list[Finding]:
        """Add a link that is new, and return what it breaks: irq safety, a cycle.

        Kernel: only a new edge is checked, so that each inversion is reported once.
        """
        witness = link.witness
        outer, inner = witness.outer, witness.inner
        known = inner in self._graph.get(outer, ())
        kind = self._kind(witness.outer_mode, witness.inner_mode)
        self.links[link.key] = link
        self.pair(outer, inner).kinds |= 1 << kind_of(witness.outer_mode, witness.inner_mode)
        successors = self._graph.setdefault(outer, {})
        successors[inner] = successors.get(inner, 0) | 1 << kind
        self._graph.setdefault(inner, {})
        if link.preloaded:
            return []
        found = [] if known else self._irq(link)
        if not (known and self._mode_blind):
            path = shortest_cycle(self._graph, outer, inner, kind)
            if path is not None:
                found.append(self._cycle_finding(path, link))
        return found

    def edges(self) -> dict[tuple[str, str], Edge]:
        """Return all edges by (outer, inner), in order of names."""
        links: dict[tuple[str, str], list[Link]] = {}
        for (outer, inner, _, _), link in self.links.items():
            links.setdefault((outer, inner), []).append(link)
        found = {}
        for names, group in sorted(links.items()):
            group.sort(key=lambda link: link.place)
            counts = self.pairs[names]
            witnesses = tuple(link.witness for link in group)
            found[names] = Edge(*names, witnesses, counts.count, counts.schedules)
        return found

    def uncovered(self, findings: Iterable[Finding]) -> list[Finding]:
        """Name a cycle for every edge that lies on one and is in none of ``findings``."""
        covered = {(w.outer, w.inner) for f in findings if f.rule == "ORD001" for w in f.edges}
        more: list[Finding] = []
        for outer, inner in self._cyclic_edges():
            if (outer, inner) not in covered:
                finding = self._cycle_through(outer, inner)
                if finding is not None:
                    more.append(finding)
                    covered.update((w.outer, w.inner) for w in finding.edges)
        return more

    def reader_cycles(self) -> list[tuple[str, ...]]:
        """List the cycles that only look like deadlocks: readers would wait for readers."""
        if self._mode_blind:
            return []
        blind: Graph = {outer: dict.fromkeys(inner, 1) for outer, inner in self._graph.items()}
        found = set()
        for outer, inner in self._cyclic_edges():
            path = shortest_cycle(blind, outer, inner, 0)
            if path is not None and self._cycle_through(outer, inner) is None:
                found.add(tuple(step[0] for step in canonical(path)))
        return sorted(found)

    def _cyclic_edges(self) -> list[tuple[str, str]]:
        """List the edges inside the components, by name."""
        return [
            (outer, inner)
            for component in components(self._graph)
            for outer in component
            for inner in sorted(self._graph[outer])
            if inner in component
        ]

    def _kind(self, outer_mode: str, inner_mode: str) -> int:
        """Encode two modes; a blind graph knows one kind only."""
        return 0 if self._mode_blind else kind_of(outer_mode, inner_mode)

    def _irq(self, link: Link) -> list[Finding]:
        """Find a class that interrupts may take, held while taking one that they may not."""
        witness = link.witness
        outer = self._classes.get(witness.outer)
        inner = self._classes.get(witness.inner)
        if outer is None or inner is None or not outer.bits & _IRQ_SAFE or inner.bits & _IRQ_SAFE:
            return []
        message = f"{inner.name}, not irq-safe, acquired while the irq-safe {outer.name} is held"
        return [
            Finding(
                rule="CTX002",
                result="InvalidIrqSafety",
                tier="observed",
                message=message,
                classes=(outer.name, inner.name),
                edges=(witness,),
                schedule=witness.schedule,
                thread=witness.thread,
                muted=link.muted,
            )
        ]

    def _cycle_through(self, outer: str, inner: str) -> Finding | None:
        """Find a shortest cycle through an edge of the graph as it stands."""
        for kind in kinds_of(self._graph[outer][inner]):
            path = shortest_cycle(self._graph, outer, inner, kind)
            if path is not None:
                links = [self._first(*step) for step in path]
                return self._cycle_finding(path, max(links, key=lambda link: link.place))
        return None

    def _first(self, outer: str, inner: str, kind: int) -> Link:
        """Return the earliest link of an edge that has this kind."""
        keys = ((outer, inner, a, b) for a in (EXCLUSIVE, SHARED) for b in (EXCLUSIVE, SHARED))
        links = (self.links[key] for key in keys if key in self.links)
        fitting = (link for link in links if self._kind(*link.key[2:]) == kind)
        return min(fitting, key=lambda link: link.place)

    def _cycle_finding(self, path: list[Step], closing: Link) -> Finding:
        """Describe a cycle that ``closing`` closed."""
        path = canonical(path)
        witnesses = tuple(self._first(*step).witness for step in path)
        names = tuple(step[0] for step in path)
        last = closing.witness
        if len(path) == 2:
            result = "OutOfOrder"
            other = names[names[0] == last.outer]
            message = (
                f"{other} acquired while {last.outer} is held; "
                f"elsewhere {last.outer} is acquired while {other} is held"
            )
        else:
            result = "CircularDependency"
            message = f"locks acquired in a circle: {' -> '.join((*names, names[0]))}"
        return Finding(
            rule="ORD001",
            result=result,
            tier=_tier(witnesses),
            message=message,
            classes=names,
            edges=witnesses,
            schedule=last.schedule,
            thread=last.thread,
            muted=closing.muted,
        )


def _tier(witnesses: tuple[Witness, ...]) -> str:
    """Judge how sure a cycle of classes is; see ``Finding.tier``."""
    following = witnesses[1:] + witnesses[:1]
    one_schedule = len({w.schedule for w in witnesses}) == 1
    threads = len({w.thread for w in witnesses}) == len(witnesses)
    instances = all(
        w.inner_address == n.outer_address != 0 for w, n in zip(witnesses, following, strict=True)
    )
    guards = [guard for w in witnesses for guard in w.guards]
    unguarded = len(set(guards)) == len(guards)
    return "possible" if one_schedule and threads and instances and unguarded else "latent"
