"""The lock rules: one state that judges every acquisition, live in a schedule or from a log.

Kernel: Zircon's lockdep, rule by rule (leaf, same class, irq safety, out of order), with cycles of
any length found when their last edge is made. What goes beyond the kernel: readers do not wait for
readers (``mode_blind=True`` restores the kernel's view), a try-acquire makes no edge, locks held
while going to sleep are a finding, and every edge keeps both of its sites.

An acquisition is looked up by the sequence of classes that the thread already holds (a *chain*). A
chain that is known needs no judging: its edges exist and its rules held. That is the hot path.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple

from harness.errors import UsageError
from harness.lockorder.classes import LockClass, LockFlags, flag_names
from harness.lockorder.cycles import kind_of
from harness.lockorder.findings import (
    EXCLUSIVE,
    SHARED,
    Edge,
    Finding,
    SiteRef,
    Witness,
    identity,
    resolved,
    under_spin,
    with_sites,
)
from harness.lockorder.graph import ClassGraph, Link, Pair, Place
from harness.lockorder.held import Chain, Held, HeldLocks
from harness.lockorder.nesting import after_leaf, may_nest, second_of_class

__all__ = ["Edge", "Finding", "Held", "HeldLocks", "LockRules", "Witness"]

# What one log, or one run, may cost; what lies beyond is counted as dropped. A thread's first locks
# are judged, and those that it takes while it holds so many are not.
HELD_MAX: Final = 64
EDGES_MAX: Final = 200_000
FINDINGS_MAX: Final = 1_000
BEYOND: Final = "beyond a limit: "
"""How the reason of what is dropped for that begins."""
_LEAF: Final = int(LockFlags.LEAF)
_REPORTING_DISABLED: Final = int(LockFlags.REPORTING_DISABLED)
_UNLISTED: Final = int(LockFlags.ACTIVE_LIST_DISABLED)
_UNTRACKED: Final = int(LockFlags.TRACKING_DISABLED)


class Direct(NamedTuple):
    """A finding that the graph cannot give again: its discovery, and how often it was made."""

    place: Place
    finding: Finding
    counts: Pair


class State(NamedTuple):
    """All that lock rules have seen, in parts that can be written down; keys are names."""

    classes: dict[str, LockClass]
    links: list[Link]
    pairs: dict[tuple[str, str], Pair]
    direct: list[Direct]
    dropped: dict[tuple[str, str], int]


class LockRules:
    """Judges acquisitions, and keeps the class graph and the findings over all schedules.

    Findings never raise. Those that are fatal in the kernel are returned by the call that made
    them, each time; all are recorded once for the same rule, classes and sites.

    Attributes:
        findings: What was found, in the order of discovery.
        muted: What was found while a lock that disables reporting was held.
        classes: The classes seen, by name.
        mode_blind: Readers count like writers, as in the kernel.
        fatal: Whether fatal findings are returned.
    """

    def __init__(self, *, mode_blind: bool = False, fatal: bool = True) -> None:
        """Start with an empty graph."""
        self.mode_blind = mode_blind
        self.fatal = fatal
        self.classes: dict[str, LockClass] = {}
        self._schedule = 0
        self._rank = 0
        self._dropped: dict[tuple[str, str], int] = {}
        self._forget_graph()

    def _forget_graph(self) -> None:
        """Empty everything that can be derived from links and direct findings."""
        self.findings: list[Finding] = []
        self.muted: list[Finding] = []
        self._root = Chain(None, None, muted=False)
        self._graph = ClassGraph(self.classes, mode_blind=self.mode_blind)
        self._known: set[Any] = set()  # findings that the graph gave
        self._direct: dict[Any, Direct] = {}

    # ---- events -----------------------------------------------------------------------------

    def begin(self, schedule: int) -> None:
        """Say which schedule the following events belong to; its index counts from 1."""
        self._schedule = schedule
        self._rank = 0

    def acquired(
        self,
        held: HeldLocks,
        lock_class: LockClass,
        address: int,
        order: int,
        mode: str,
        attempt: bool,
        site: SiteRef,
    ) -> Finding | None:
        """Judge an acquisition and count the lock as held.

        Call it when the acquisition is about to happen and can no longer be taken back; for a
        try-acquire (``attempt``) once it has succeeded. A violation does not prevent it.

        Args:
            held: What the thread holds.
            lock_class: Class of the lock.
            address: Its instance number, from 1.
            order: Its nesting order, 0 where none was given.
            mode: ``exclusive`` or ``shared``.
            attempt: It could not have blocked, so nothing can wait by it: no edge, and no
                same-class rule, but it counts as held.
            site: Where it happens.

        Returns:
            A fatal finding, or None.

        Raises:
            UsageError: The class was seen with other flags.

        Kernel: lockdep's acquire. A held leaf; then per held lock of the same class: re-entrance,
        already acquired, invalid nesting; of another class: an edge, and on a new edge irq safety
        and the cycle it closes.
        """
        before = held.chain
        key = (
            lock_class.name
            if mode == EXCLUSIVE and not attempt
            else (lock_class.name, mode, attempt)
        )
        node = (before or self._root).next.get(key)
        if node is not None and node.schedule == self._schedule and node.lock_class is lock_class:
            node.count += 1
            held.entries.append(Held(lock_class, address, order, mode, site, before))
            held.chain = node
            return None
        if lock_class.bits & _UNTRACKED:
            self._drop("tracking disabled", lock_class.name)
            return None
        if len(held.entries) >= HELD_MAX:
            self._drop(f"{BEYOND}taken by a thread that holds {HELD_MAX} locks", lock_class.name)
            return None
        wanted = Held(lock_class, address, order, mode, site, before)
        return self._judge(held, wanted, attempt, key)

    def released(self, held: HeldLocks, address: int) -> None:
        """Count a lock as no longer held; one that is not tracked is ignored."""
        entries = held.entries
        if entries and entries[-1].address == address:
            held.chain = entries.pop().before
            return
        for index in range(len(entries) - 2, -1, -1):
            if entries[index].address == address:
                self._unlink(held, index)
                return

    def waits(
        self, held: HeldLocks, site: SiteRef, what: str, giving_up: int | None = None
    ) -> None:
        """Record a finding if the thread goes to sleep on ``what`` and keeps a lock meanwhile.

        Args:
            held: What the thread holds.
            site: Where it goes to sleep.
            what: What it waits for, for the message.
            giving_up: Instance number of the lock that the wait itself gives up.
        """
        kept = [entry for entry in held.entries if entry.address != giving_up]
        if kept:
            message = f"{_names(kept)} held while waiting for {what}"
            self._held_where_none_may_be(held, kept, site, "HeldAcrossWait", message)

    def none_held(self, held: HeldLocks, site: SiteRef, what: str = "") -> Finding | None:
        """Return a fatal finding if the thread holds any tracked lock.

        Kernel: ``AssertNoLocksHeld``.
        """
        kept = held.entries
        if not kept:
            return None
        message = f"{_names(kept)} held where no lock may be" + (f": {what}" if what else "")
        finding = self._held_where_none_may_be(held, kept, site, "ShouldNotHold", message)
        return finding if self.fatal else None

    def spins(self, held: HeldLocks, address: int, wanted: object, site: SiteRef) -> None:
        """Record that a thread would wait for ``wanted`` while it holds a spin lock.

        Of the locks that it may wait for, those that have a class are judged.
        """
        spin = next((entry for entry in held.entries if entry.address == address), None)
        lock_class: LockClass | str | None = getattr(wanted, "lock_class", "")
        if spin is not None and lock_class is not None:
            inner = lock_class.name if isinstance(lock_class, LockClass) else ""
            witness = self._asleep(held, spin, inner, site)
            self._record_direct(under_spin(witness, fatal=True))

    def record(self, finding: Finding) -> None:
        """Record what a rule outside of this state has found; alike ones are counted."""
        self._record_direct(finding)

    # ---- results ----------------------------------------------------------------------------

    @property
    def edges(self) -> dict[tuple[str, str], Edge]:
        """The class graph, by (outer name, inner name), in order of names."""
        self._fold()
        return self._graph.edges()

    @property
    def dropped(self) -> dict[tuple[str, str], int]:
        """What was left out, counted by (reason, subject), in order of names."""
        self._fold()
        return dict(sorted(self._dropped.items()))

    @property
    def unjudged(self) -> int:
        """How often something was dropped because of a limit."""
        dropped = self._dropped.items()
        return sum(count for (reason, _), count in dropped if reason.startswith(BEYOND))

    def doubt(self) -> str:
        """What was not judged because of a limit, in words; empty where there is none."""
        why = {reason.removeprefix(BEYOND): 0 for reason, _ in self.dropped if BEYOND in reason}
        return f"{self.unjudged} times the lock rules left out: {'; '.join(why)}" if why else ""

    def counts(self, finding: Finding) -> tuple[int, int]:
        """Count how often a finding was made, and in how many schedules.

        A finding that follows from edges was made as often as its rarest edge.
        """
        direct = self._direct.get(identity(finding))
        if direct is not None:
            return direct.counts.count, direct.counts.schedules
        self._fold()
        pairs = [self._graph.pair(w.outer, w.inner) for w in finding.edges]
        return min(pair.count for pair in pairs), min(pair.schedules for pair in pairs)

    def complete(self) -> list[Finding]:
        """Name a cycle for every edge that lies on one and is in no finding yet.

        Online, an edge brings to light one shortest cycle through it at that moment; later
        shortcuts can leave edges of a component without a cycle of their own. The findings are
        returned, not recorded.
        """
        return self._graph.uncovered(self.findings)

    def reader_cycles(self) -> list[tuple[str, ...]]:
        """List the cycles that only look like deadlocks: readers would wait for readers."""
        return self._graph.reader_cycles()

    # ---- carrying over ----------------------------------------------------------------------

    def preload(self, edges: Iterable[Witness | Edge]) -> None:
        """Take over edges of earlier schedules; cycles among them alone are not reported.

        Counts stay as they are, since nothing was acquired here.
        """
        for edge in edges:
            for witness in edge.witnesses if isinstance(edge, Edge) else (edge,):
                link = Link(witness, (witness.schedule, -1), muted=True, preloaded=True)
                if link.key not in self._graph.links:
                    self._graph.add(link)

    def merge(self, other: LockRules) -> None:
        """Take over what another state saw in other schedules.

        The result is what one state would hold that had seen all schedules by ascending index, so
        it does not depend on how the schedules were divided, nor on the order of merging. No
        thread may hold a lock meanwhile. ``other`` keeps what it has.

        Raises:
            UsageError: One class has different flags in the two, or their options differ.
        """
        if self.mode_blind != other.mode_blind:
            raise UsageError("cannot merge lock rules where only one of the two is mode_blind")
        for lock_class in other.classes.values():
            self._register(lock_class)
        self._fold()
        other._fold()
        links = dict(self._graph.links)
        for key, theirs in other._graph.links.items():
            mine = links.get(key)
            if mine is None or theirs.precedes(mine):
                links[key] = theirs
        pairs = self._graph.pairs
        for names, more in other._graph.pairs.items():
            pair = pairs.setdefault(names, Pair())
            pair.count += more.count
            pair.schedules += more.schedules
        for subject, count in other._dropped.items():
            self._dropped[subject] = self._dropped.get(subject, 0) + count
        self._rebuild(links.values(), pairs, [*self._direct.values(), *other._direct.values()])

    def resolve(self, site: Callable[[SiteRef], SiteRef]) -> None:
        """Replace every site by ``site(old)``: before merging across processes, or before saving.

        No thread may hold a lock meanwhile.
        """
        self._fold()
        links = [
            link._replace(witness=resolved(link.witness, site))
            for link in self._graph.links.values()
        ]
        direct = [
            known._replace(finding=with_sites(known.finding, site))
            for known in self._direct.values()
        ]
        self._rebuild(links, self._graph.pairs, direct)

    def state(self) -> State:
        """Return all that was seen; no thread may hold a lock meanwhile."""
        self._fold()
        links, direct = list(self._graph.links.values()), list(self._direct.values())
        return State(self.classes, links, self._graph.pairs, direct, self._dropped)

    def restore(self, state: State) -> None:
        """Take over a state; nothing may have been seen here."""
        self.classes.update(state.classes)
        self._dropped.update(state.dropped)
        self._rebuild(state.links, state.pairs, state.direct)

    # ---- judging ----------------------------------------------------------------------------

    def _judge(self, held: HeldLocks, wanted: Held, attempt: bool, key: Any) -> Finding | None:
        """Judge an acquisition that the hot path did not know."""
        lock_class = wanted.lock_class
        self._register(lock_class)
        parent = held.chain or self._root
        node = parent.next.get(key) or self._extend(parent, key, lock_class)
        node.lock_class = lock_class
        listed = hot = not lock_class.bits & _UNLISTED
        fatal: Finding | None = None
        for entry in held.entries:
            other = entry.lock_class
            if other.bits & _LEAF or other.name == lock_class.name:
                hot = False
                finding = self._pairwise(held, entry, wanted, attempt, muted=node.muted)
                fatal = fatal or finding
        if node.pairs is None:
            node.attempt = attempt and bool(held.entries)
            node.pairs = () if attempt else self._new_edges(held, wanted, muted=node.muted)
        for pair in node.pairs:
            if pair.last != self._schedule:
                pair.last = self._schedule
                pair.schedules += 1
        node.count += 1
        if hot:
            node.schedule = self._schedule
        if listed:
            held.entries.append(wanted)
            held.chain = node
        return fatal if self.fatal else None

    def _register(self, lock_class: LockClass) -> None:
        """Know a class by name; its flags are part of what it is."""
        known = self.classes.setdefault(lock_class.name, lock_class)
        if known.bits != lock_class.bits:
            raise UsageError(
                f"lock class {lock_class.name} has two sets of flags: "
                f"{_flags(known)} and {_flags(lock_class)}; give it one"
            )

    def _extend(self, parent: Chain, key: Any, lock_class: LockClass) -> Chain:
        """Add a chain that is one lock longer."""
        muted = parent.muted or bool(lock_class.bits & _REPORTING_DISABLED)
        node = parent.next[key] = Chain(key, lock_class, muted=muted)
        return node

    def _unlink(self, held: HeldLocks, index: int) -> None:
        """Remove a lock that was not the last one taken, and find the chain that remains."""
        entries = held.entries
        chain = entries[index].before
        # The node behind an entry is the chain before the next one.
        nodes = [entry.before for entry in entries[index + 2 :]]
        nodes.append(held.chain)
        del entries[index]
        for entry, old in zip(entries[index:], nodes, strict=True):
            entry.before = chain
            parent = chain or self._root
            chain = parent.next.get(old.key) or self._extend(parent, old.key, entry.lock_class)
        held.chain = chain

    def _pairwise(
        self, held: HeldLocks, entry: Held, wanted: Held, attempt: bool, *, muted: bool
    ) -> Finding | None:
        """Judge a lock against one that is held; return a fatal finding, if there is one."""
        findings = []
        if entry.lock_class.bits & _LEAF:
            findings.append(after_leaf(self._witness(held, entry, wanted)))
        name = wanted.lock_class.name
        if entry.lock_class.name == name and not attempt:
            if not self.mode_blind and wanted.mode == SHARED and entry.mode == SHARED:
                self._drop("readers do not wait for readers", name)
            elif not may_nest(entry, wanted):
                witness = self._witness(held, entry, wanted)
                findings.append(second_of_class(entry, wanted, witness, self.mode_blind, muted))
        for finding in findings:
            self._record_direct(finding)
        return next((finding for finding in findings if finding.fatal), None)

    def _new_edges(self, held: HeldLocks, wanted: Held, *, muted: bool) -> tuple[Pair, ...]:
        """Add the edges from all held classes, the first time that this chain is reached."""
        graph = self._graph
        pairs: dict[str, Pair] = {}
        guards: tuple[int, ...] = ()
        inner = wanted.lock_class.name
        for entry in held.entries:
            outer = entry.lock_class.name
            if outer == inner:
                continue
            kind = kind_of(entry.mode, wanted.mode)
            known = graph.pairs.get((outer, inner))
            if len(graph.links) >= EDGES_MAX and not (known and known.kinds >> kind & 1):
                self._drop(f"{BEYOND}more than {EDGES_MAX:,} edges", inner)
                continue
            pair = pairs[outer] = known or graph.pair(outer, inner)
            if not pair.kinds >> kind & 1:
                place = (self._schedule, self._rank)
                guards = guards or _guards(held)
                witness = self._witness(held, entry, wanted, guards)
                self._discover(Link(witness, place, muted=muted, preloaded=False))
        return tuple(pairs.values())

    def _witness(
        self, held: HeldLocks, entry: Held, wanted: Held, guards: tuple[int, ...] = ()
    ) -> Witness:
        """Describe the occasion of an edge; ``guards`` where they are known already."""
        return Witness(
            outer=entry.lock_class.name,
            inner=wanted.lock_class.name,
            outer_mode=entry.mode,
            inner_mode=wanted.mode,
            outer_site=entry.site,
            inner_site=wanted.site,
            thread=held.name,
            schedule=self._schedule,
            outer_address=entry.address,
            inner_address=wanted.address,
            guards=guards or _guards(held),
        )

    def _asleep(
        self,
        held: HeldLocks,
        entry: Held,
        inner: str,
        site: SiteRef,
        guards: tuple[int, ...] = (),
    ) -> Witness:
        """Describe the occasion of a lock that is held where the thread may sleep."""
        return Witness(
            outer=entry.lock_class.name,
            inner=inner,
            outer_mode=entry.mode,
            inner_mode="",
            outer_site=entry.site,
            inner_site=site,
            thread=held.name,
            schedule=self._schedule,
            outer_address=entry.address,
            guards=guards or _guards(held),
        )

    def _held_where_none_may_be(
        self, held: HeldLocks, kept: list[Held], site: SiteRef, result: str, message: str
    ) -> Finding:
        """Record a finding about locks that are held while sleeping, or where none may be."""
        fatal = result == "ShouldNotHold"
        guards = _guards(held)
        witnesses = tuple(self._asleep(held, entry, "", site, guards) for entry in kept)
        finding = Finding(
            rule="CTX003",
            result=result,
            tier="observed",
            message=message,
            classes=tuple(dict.fromkeys(entry.lock_class.name for entry in kept)),
            edges=witnesses,
            schedule=self._schedule,
            thread=held.name,
            fatal=fatal,
            muted=not fatal and held.chain is not None and held.chain.muted,
        )
        self._record_direct(finding)
        return finding

    # ---- recording --------------------------------------------------------------------------

    def _discover(self, link: Link) -> None:
        """Add a new link to the graph and record what it breaks, once."""
        self._rank += not link.preloaded
        for finding in self._graph.add(link):
            key = (finding.rule, finding.classes, finding.muted)
            if key not in self._known:
                self._known.add(key)
                (self.muted if finding.muted else self.findings).append(finding)

    def _record_direct(self, finding: Finding, counts: Pair | None = None) -> None:
        """Record a finding that the graph cannot give again, once per rule, classes and sites."""
        key = identity(finding)
        known = self._direct.get(key)
        if known is None:
            if len(self._direct) >= FINDINGS_MAX:
                self._drop(f"{BEYOND}more than {FINDINGS_MAX:,} findings", finding.rule)
                return
            place = (finding.schedule, self._rank)
            known = self._direct[key] = Direct(place, finding, Pair())
            self._rank += 1
            (self.muted if finding.muted else self.findings).append(finding)
        if counts is None:
            known.counts.count += 1
            if known.counts.last != finding.schedule:
                known.counts.last = finding.schedule
                known.counts.schedules += 1
        else:
            known.counts.count += counts.count
            known.counts.schedules += counts.schedules

    def _drop(self, reason: str, subject: str) -> None:
        """Count something that was left out."""
        self._dropped[reason, subject] = self._dropped.get((reason, subject), 0) + 1

    def _fold(self) -> None:
        """Add up what the hot path counted."""
        nodes = [self._root]
        while nodes:
            node = nodes.pop()
            nodes.extend(node.next.values())
            if not node.count:
                continue
            for pair in node.pairs or ():
                pair.count += node.count
            if node.attempt and node.lock_class is not None:
                subject = ("a try-acquire makes no edge", node.lock_class.name)
                self._dropped[subject] = self._dropped.get(subject, 0) + node.count
            node.count = 0

    def _rebuild(
        self, links: Iterable[Link], pairs: dict[tuple[str, str], Pair], direct: list[Direct]
    ) -> None:
        """Derive the whole state again, by playing the discoveries in their order."""
        now = self._schedule
        self._forget_graph()
        self._graph.pairs = pairs
        events: list[Link | Direct] = [*links, *direct]
        for event in sorted(events, key=lambda event: event.place):
            if event.place[0] != self._schedule or event.place[1] < 0:
                self.begin(event.place[0])
            if isinstance(event, Direct):
                self._record_direct(event.finding, event.counts)
            else:
                place = event.place if event.preloaded else (event.place[0], self._rank)
                self._discover(event._replace(place=place))
        found: list[Link | Direct] = [*self._direct.values(), *self._graph.links.values()]
        self._schedule = now
        self._rank = 1 + max((each.place[1] for each in found if each.place[0] == now), default=-1)


def _guards(held: HeldLocks) -> tuple[int, ...]:
    """Instance numbers of all that a thread holds."""
    return tuple(entry.address for entry in held.entries)


def _names(entries: list[Held]) -> str:
    """Join the names of held classes."""
    return ", ".join(dict.fromkeys(entry.lock_class.name for entry in entries))


def _flags(lock_class: LockClass) -> str:
    """Show flags for a message."""
    return "|".join(flag_names(lock_class.flags)) or "none"
