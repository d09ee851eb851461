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

import msgspec

from harness.errors import UsageError
from harness.lockorder.classes import LockClass, LockFlags, flag_names
from harness.lockorder.cycles import Graph, canonical, components, kind_of, shortest_cycle
from harness.lockorder.findings import EXCLUSIVE, SHARED, Edge, Finding, SiteRef, Witness

__all__ = ["Edge", "Finding", "Held", "HeldLocks", "LockRules", "Witness"]

_NESTABLE: Final = int(LockFlags.NESTABLE)
_MULTI_ACQUIRE: Final = int(LockFlags.MULTI_ACQUIRE)
_LEAF: Final = int(LockFlags.LEAF)
_IRQ_SAFE: Final = int(LockFlags.IRQ_SAFE)
_REPORTING_DISABLED: Final = int(LockFlags.REPORTING_DISABLED)
_RE_ACQUIRE_FATAL: Final = int(LockFlags.RE_ACQUIRE_FATAL)
_UNLISTED: Final = int(LockFlags.ACTIVE_LIST_DISABLED)
_UNTRACKED: Final = int(LockFlags.TRACKING_DISABLED)

_ALWAYS_JUDGED: Final = -1  # no schedule has this index, so such a chain never takes the hot path

_LinkKey = tuple[str, str, str, str]  # outer, inner, and their modes


class _Pair:
    """What one edge of the class graph counts, whatever the modes."""

    __slots__ = ("count", "last", "schedules")

    def __init__(self) -> None:
        """Start with nothing seen."""
        self.count = 0
        self.schedules = 0
        self.last = -1  # the schedule that was counted last


class _Link(NamedTuple):
    """The first occasion of one edge with one combination of modes."""

    witness: Witness
    place: tuple[int, int]  # (schedule, rank among the discoveries of that schedule)
    muted: bool
    preloaded: bool


class _Chain:
    """A sequence of classes held, as a node of a trie."""

    __slots__ = ("attempt", "count", "key", "lock_class", "muted", "next", "pairs", "schedule")

    def __init__(self, key: Any, lock_class: LockClass | None, muted: bool) -> None:
        """Make a node that no acquisition has reached yet."""
        self.key = key
        self.lock_class = lock_class
        self.muted = muted
        self.attempt = False
        self.next: dict[Any, _Chain] = {}
        self.pairs: tuple[_Pair, ...] | None = None  # None: never judged
        self.count = 0  # acquisitions not yet added to the pairs
        self.schedule = _ALWAYS_JUDGED  # the schedule in which the hot path is open


class Held(msgspec.Struct, gc=False):
    """A lock that a thread holds.

    Attributes:
        lock_class: Its class.
        address: Its instance number.
        order: The nesting order given at its acquisition.
        mode: ``exclusive`` or ``shared``.
        site: Where it was acquired.
        before: The chain that was held before it; internal.
    """

    lock_class: LockClass
    address: int
    order: int
    mode: str
    site: SiteRef
    before: Any


class HeldLocks:
    """The classed locks that one thread holds.

    Attributes:
        name: The thread's name, for findings.
        entries: The locks in the order of acquisition.
        chain: Where the thread stands among the known chains; internal.
    """

    __slots__ = ("chain", "entries", "name")

    def __init__(self, name: str = "") -> None:
        """Start with nothing held."""
        self.name = name
        self.entries: list[Held] = []
        self.chain: Any = None


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
        self.findings: list[Finding] = []
        self.muted: list[Finding] = []
        self._schedule = 0
        self._rank = 0
        self._dropped: dict[tuple[str, str], int] = {}
        self._forget_graph()

    def _forget_graph(self) -> None:
        """Empty everything that is derived from links and from findings."""
        self.findings = []
        self.muted = []
        self._root = _Chain(None, None, muted=False)
        self._links: dict[_LinkKey, _Link] = {}
        self._pairs: dict[tuple[str, str], _Pair] = {}
        self._graph: Graph = {}
        self._known: set[Any] = set()
        self._direct: list[tuple[tuple[int, int], Finding]] = []  # those no graph can re-derive

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
            self._direct_finding(held, kept, site, "CTX003", "HeldAcrossWait", message)

    def none_held(self, held: HeldLocks, site: SiteRef, what: str = "") -> Finding | None:
        """Return a fatal finding if the thread holds any tracked lock.

        Kernel: ``AssertNoLocksHeld``.
        """
        if not held.entries:
            return None
        message = f"{_names(held.entries)} held where no lock may be" + (
            f": {what}" if what else ""
        )
        return self._direct_finding(
            held, held.entries, site, "CTX003", "ShouldNotHold", message, fatal=True
        )

    # ---- results ----------------------------------------------------------------------------

    @property
    def edges(self) -> dict[tuple[str, str], Edge]:
        """The class graph, by (outer name, inner name), in order of names."""
        self._fold()
        witnesses: dict[tuple[str, str], list[_Link]] = {}
        for (outer, inner, _, _), link in self._links.items():
            witnesses.setdefault((outer, inner), []).append(link)
        found = {}
        for pair, links in sorted(witnesses.items()):
            links.sort(key=lambda link: link.place)
            counts = self._pairs.get(pair) or _Pair()
            found[pair] = Edge(
                *pair, tuple(link.witness for link in links), counts.count, counts.schedules
            )
        return found

    @property
    def dropped(self) -> dict[tuple[str, str], int]:
        """Count what was left out, by (reason, subject), in order of names."""
        self._fold()
        return dict(sorted(self._dropped.items()))

    def complete(self) -> list[Finding]:
        """Name a cycle for every edge that lies on one and is in no finding yet.

        Online, an edge brings to light one shortest cycle through it at that moment; later
        shortcuts can leave edges of a component without a cycle of their own. Depends on the graph
        alone. The findings are returned, not recorded.
        """
        covered = {(w.outer, w.inner) for f in self.findings for w in f.edges}
        more: list[Finding] = []
        for component in components(self._graph):
            members = set(component)
            for outer in component:
                for inner in sorted(members.intersection(self._graph[outer])):
                    if (outer, inner) not in covered:
                        finding = self._cycle_through(outer, inner)
                        if finding is not None:
                            more.append(finding)
                            covered.update((w.outer, w.inner) for w in finding.edges)
        return more

    def reader_cycles(self) -> list[tuple[str, ...]]:
        """List the cycles that only look like deadlocks: readers would wait for readers."""
        if self.mode_blind:
            return []
        blind: Graph = {outer: dict.fromkeys(inner, 1) for outer, inner in self._graph.items()}
        found = set()
        for component in components(blind):
            for outer in component:
                for inner in sorted(blind[outer]):
                    path = shortest_cycle(blind, outer, inner, 0)
                    if path is not None and self._cycle_through(outer, inner) is None:
                        found.add(tuple(step[0] for step in canonical(path)))
        return sorted(found)

    # ---- carrying over ----------------------------------------------------------------------

    def preload(self, edges: Iterable[Witness | Edge]) -> None:
        """Take over edges of earlier schedules; cycles among them alone are not reported.

        Counts stay as they are, since nothing was acquired here.
        """
        for edge in edges:
            for witness in edge.witnesses if isinstance(edge, Edge) else (edge,):
                key = (witness.outer, witness.inner, witness.outer_mode, witness.inner_mode)
                if key not in self._links:
                    place = (witness.schedule, -1)
                    self._links[key] = _Link(witness, place, muted=True, preloaded=True)
                    self._add_to_graph(witness)

    def merge(self, other: LockRules) -> None:
        """Take over what another state saw in other schedules.

        The result is what one state would hold that had seen all schedules by ascending index, so
        it does not depend on how the schedules were divided, nor on the order of merging. No
        thread may hold a lock meanwhile. ``other`` is left as it was but for its caches.

        Raises:
            UsageError: One class has different flags in the two, or their options differ.
        """
        if self.mode_blind != other.mode_blind:
            raise UsageError("cannot merge lock rules where only one of the two is mode_blind")
        for lock_class in other.classes.values():
            self._register(lock_class)
        self._fold()
        other._fold()
        links = self._links
        for key, theirs in other._links.items():
            mine = links.get(key)
            if mine is None or _precedes(theirs, mine):
                links[key] = theirs
        direct = sorted(self._direct + other._direct, key=lambda item: item[0])
        pairs = self._pairs
        for names, more in other._pairs.items():
            pair = pairs.setdefault(names, _Pair())
            pair.count += more.count
            pair.schedules += more.schedules
        for subject, count in other._dropped.items():
            self._dropped[subject] = self._dropped.get(subject, 0) + count
        self._rebuild(links, pairs, direct)

    def resolve(self, site: Callable[[SiteRef], SiteRef]) -> None:
        """Replace every site by ``site(old)``: before merging across processes, or before saving.

        No thread may hold a lock meanwhile.
        """
        self._fold()
        links = {
            key: link._replace(witness=_resolved(link.witness, site))
            for key, link in self._links.items()
        }
        direct = [
            (
                place,
                msgspec.structs.replace(
                    finding, edges=tuple(_resolved(witness, site) for witness in finding.edges)
                ),
            )
            for place, finding in self._direct
        ]
        self._rebuild(links, self._pairs, direct)

    # ---- judging ----------------------------------------------------------------------------

    def _judge(self, held: HeldLocks, wanted: Held, attempt: bool, key: Any) -> Finding | None:
        """Judge an acquisition that the hot path did not know."""
        lock_class = wanted.lock_class
        self._register(lock_class)
        parent = held.chain or self._root
        node = parent.next.get(key)
        if node is None:
            node = self._extend(parent, key, lock_class)
        node.lock_class = lock_class
        muted = node.muted
        fatal: Finding | None = None
        plain = not lock_class.bits & _UNLISTED
        for entry in held.entries:
            finding = None
            if entry.lock_class.bits & _LEAF:
                plain = False
                finding = self._after_leaf(held, entry, wanted, muted)
            if entry.lock_class.name == lock_class.name:
                plain = False
                if not attempt:
                    finding = self._same_class(held, entry, wanted, muted) or finding
            if finding is not None and finding.fatal:
                fatal = fatal or finding
        if node.pairs is None:
            node.attempt = attempt
            node.pairs = () if attempt else self._new_edges(held, wanted, muted)
        for pair in node.pairs:
            if pair.last != self._schedule:
                pair.last = self._schedule
                pair.schedules += 1
        node.count += 1
        if plain:
            node.schedule = self._schedule
        if not lock_class.bits & _UNLISTED:
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

    def _extend(self, parent: _Chain, key: Any, lock_class: LockClass) -> _Chain:
        """Add a chain that is one lock longer."""
        muted = parent.muted or bool(lock_class.bits & _REPORTING_DISABLED)
        node = parent.next[key] = _Chain(key, lock_class, muted)
        return node

    def _unlink(self, held: HeldLocks, index: int) -> None:
        """Remove a lock that was not the last one taken, and find the chain that remains."""
        entries = held.entries
        nodes = [entry.before for entry in entries[index + 1 :]] + [held.chain]
        chain = entries[index].before
        del entries[index]
        # The node behind entry k is the chain before entry k + 1.
        for entry, old in zip(entries[index:], nodes[1:], strict=True):
            entry.before = chain
            parent = chain or self._root
            chain = parent.next.get(old.key) or self._extend(parent, old.key, entry.lock_class)
        held.chain = chain

    def _after_leaf(self, held: HeldLocks, entry: Held, wanted: Held, muted: bool) -> Finding:
        """Something was taken while a leaf was held."""
        return self._pairwise(
            held,
            entry,
            wanted,
            muted,
            "ORD006",
            "AcquireAfterLeaf",
            "observed",
            f"{wanted.lock_class.name} acquired while the leaf {entry.lock_class.name} is held",
            fatal=True,
        )

    def _same_class(
        self, held: HeldLocks, entry: Held, wanted: Held, muted: bool
    ) -> Finding | None:
        """Judge a second lock of one class."""
        lock_class = wanted.lock_class
        if not self.mode_blind and wanted.mode == SHARED and entry.mode == SHARED:
            self._drop("readers do not wait for readers", lock_class.name)
            return None
        rule, tier = "ORD004", "latent"
        if wanted.address == entry.address:
            rule, result, tier = "ORD005", "Reentrance", "observed"
            message = f"a {lock_class.name} acquired again by the thread that holds it"
        elif lock_class.bits & _MULTI_ACQUIRE or wanted.order > entry.order:
            return None
        elif not lock_class.bits & _NESTABLE and wanted.order == 0:
            result = "AlreadyAcquired"
            message = f"a second {lock_class.name} acquired without a nesting order"
        else:
            result = "InvalidNesting"
            message = (
                f"a {lock_class.name} of order {wanted.order} acquired while one of order "
                f"{entry.order} is held"
            )
        fatal = bool(lock_class.bits & _RE_ACQUIRE_FATAL)
        return self._pairwise(held, entry, wanted, muted, rule, result, tier, message, fatal=fatal)

    def _new_edges(self, held: HeldLocks, wanted: Held, muted: bool) -> tuple[_Pair, ...]:
        """Add the edges from all held classes, the first time that this chain is reached."""
        pairs: dict[str, _Pair] = {}
        inner = wanted.lock_class.name
        for entry in held.entries:
            outer = entry.lock_class.name
            if outer == inner:
                continue
            pair = self._pairs.get((outer, inner))
            if pair is None:
                pair = self._pairs[outer, inner] = _Pair()
            pairs[outer] = pair
            key = (outer, inner, entry.mode, wanted.mode)
            if key not in self._links:
                place = (self._schedule, self._rank)
                self._rank += 1
                witness = self._witness(held, entry, wanted)
                self._insert(key, _Link(witness, place, muted, preloaded=False))
        return tuple(pairs.values())

    def _insert(self, key: _LinkKey, link: _Link) -> None:
        """Add a link that is new, and report what it breaks."""
        witness = link.witness
        self._links[key] = link
        if link.preloaded:
            self._add_to_graph(witness)
            return
        known = witness.inner in self._graph.get(witness.outer, ())
        self._add_to_graph(witness)
        outer, inner = witness.outer, witness.inner
        if not known:
            self._check_irq(link)
        if known and self.mode_blind:
            return
        kind = 0 if self.mode_blind else kind_of(witness.outer_mode, witness.inner_mode)
        path = shortest_cycle(self._graph, outer, inner, kind)
        if path is not None:
            self._record_derived(self._cycle_finding(path, link))

    def _add_to_graph(self, witness: Witness) -> None:
        """Note an edge's kind for the search; a blind search knows one kind only."""
        kind = 0 if self.mode_blind else kind_of(witness.outer_mode, witness.inner_mode)
        successors = self._graph.setdefault(witness.outer, {})
        successors[witness.inner] = successors.get(witness.inner, 0) | 1 << kind
        self._graph.setdefault(witness.inner, {})

    def _check_irq(self, link: _Link) -> None:
        """A class that interrupts may take must not be held while taking one they may not."""
        witness = link.witness
        outer = self.classes.get(witness.outer)
        inner = self.classes.get(witness.inner)
        if outer is None or inner is None or not outer.bits & _IRQ_SAFE or inner.bits & _IRQ_SAFE:
            return
        self._record_derived(
            Finding(
                "CTX002",
                "InvalidIrqSafety",
                "observed",
                f"{inner.name}, not irq-safe, acquired while the irq-safe {outer.name} is held",
                (outer.name, inner.name),
                (witness,),
                witness.schedule,
                witness.thread,
                muted=link.muted,
            )
        )

    def _cycle_through(self, outer: str, inner: str) -> Finding | None:
        """Find a shortest cycle through an edge of the graph as it stands."""
        mask = self._graph[outer][inner]
        for kind in range(4):
            if mask >> kind & 1:
                path = shortest_cycle(self._graph, outer, inner, kind)
                if path is not None:
                    links = [self._link(*step) for step in path]
                    return self._cycle_finding(path, max(links, key=lambda link: link.place))
        return None

    def _link(self, outer: str, inner: str, kind: int) -> _Link:
        """Return the earliest link of an edge that has this kind."""
        modes = ((a, b) for a in (EXCLUSIVE, SHARED) for b in (EXCLUSIVE, SHARED))
        links = (
            self._links[outer, inner, a, b]
            for a, b in modes
            if (outer, inner, a, b) in self._links and (self.mode_blind or kind_of(a, b) == kind)
        )
        return min(links, key=lambda link: link.place)

    def _cycle_finding(self, path: list[tuple[str, str, int]], closing: _Link) -> Finding:
        """Describe a cycle that ``closing`` closed."""
        path = canonical(path)
        witnesses = tuple(self._link(*step).witness for step in path)
        names = tuple(step[0] for step in path)
        last = closing.witness
        if len(path) == 2:
            result = "OutOfOrder"
            message = (
                f"{last.inner} acquired while {last.outer} is held; "
                f"elsewhere {last.outer} is acquired while {last.inner} is held"
            )
        else:
            result = "CircularDependency"
            message = f"locks taken in a circle: {' -> '.join((*names, names[0]))}"
        return Finding(
            "ORD001",
            result,
            _cycle_tier(witnesses),
            message,
            names,
            witnesses,
            last.schedule,
            last.thread,
            muted=closing.muted,
        )

    # ---- recording --------------------------------------------------------------------------

    def _witness(self, held: HeldLocks, entry: Held, wanted: Held) -> Witness:
        """Describe the occasion of an edge."""
        return Witness(
            entry.lock_class.name,
            wanted.lock_class.name,
            entry.mode,
            wanted.mode,
            entry.site,
            wanted.site,
            held.name,
            self._schedule,
            entry.address,
            wanted.address,
            tuple(each.address for each in held.entries),
        )

    def _pairwise(
        self,
        held: HeldLocks,
        entry: Held,
        wanted: Held,
        muted: bool,
        rule: str,
        result: str,
        tier: str,
        message: str,
        *,
        fatal: bool,
    ) -> Finding:
        """Record a finding about two locks."""
        finding = Finding(
            rule,
            result,
            tier,
            message,
            tuple(dict.fromkeys((entry.lock_class.name, wanted.lock_class.name))),
            (self._witness(held, entry, wanted),),
            self._schedule,
            held.name,
            fatal,
            muted and not fatal,
        )
        return self._record_direct(finding)

    def _direct_finding(
        self,
        held: HeldLocks,
        kept: list[Held],
        site: SiteRef,
        rule: str,
        result: str,
        message: str,
        *,
        fatal: bool = False,
    ) -> Finding | None:
        """Record a finding about locks that are held where they may not be."""
        guards = tuple(entry.address for entry in held.entries)
        witnesses = tuple(
            Witness(
                entry.lock_class.name,
                "",
                entry.mode,
                "",
                entry.site,
                site,
                held.name,
                self._schedule,
                entry.address,
                0,
                guards,
            )
            for entry in kept
        )
        classes = tuple(dict.fromkeys(entry.lock_class.name for entry in kept))
        muted = not fatal and held.chain is not None and held.chain.muted
        finding = Finding(
            rule,
            result,
            "observed",
            message,
            classes,
            witnesses,
            self._schedule,
            held.name,
            fatal,
            muted,
        )
        self._record_direct(finding)
        return finding if fatal and self.fatal else None

    def _record_direct(self, finding: Finding) -> Finding:
        """Record a finding that the graph cannot give again."""
        key = (
            finding.rule,
            finding.result,
            finding.classes,
            finding.muted,
            tuple((w.outer_mode, w.inner_mode, w.outer_site, w.inner_site) for w in finding.edges),
        )
        if key not in self._known:
            self._known.add(key)
            self._direct.append(((finding.schedule, self._rank), finding))
            self._rank += 1
            (self.muted if finding.muted else self.findings).append(finding)
        return finding

    def _record_derived(self, finding: Finding) -> None:
        """Record a finding that follows from the graph."""
        key = (finding.rule, finding.classes, finding.muted)
        if key not in self._known:
            self._known.add(key)
            (self.muted if finding.muted else self.findings).append(finding)

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
                reason = ("a try-acquire makes no edge", node.lock_class.name)
                self._dropped[reason] = self._dropped.get(reason, 0) + node.count
            node.count = 0

    def _rebuild(
        self,
        links: dict[_LinkKey, _Link],
        pairs: dict[tuple[str, str], _Pair],
        direct: list[tuple[tuple[int, int], Finding]],
    ) -> None:
        """Derive the whole state again, by playing the discoveries in their order."""
        at = self._schedule
        self._forget_graph()
        self._pairs = pairs
        events: list[tuple[tuple[int, int], _LinkKey | None, Any]] = []
        events += [(link.place, key, link) for key, link in links.items()]
        events += [(place, None, finding) for place, finding in direct]
        events.sort(key=lambda event: event[0])
        for (schedule, rank), key, item in events:
            if schedule != self._schedule:
                self.begin(schedule)
            if key is None:
                self._record_direct(item)
            else:
                place = (schedule, rank if item.preloaded else self._rank)
                self._rank += not item.preloaded
                self._insert(key, item._replace(place=place))
        self._schedule = at
        self._rank = max((place[1] + 1 for place, _, _ in events if place[0] == at), default=0)


def _precedes(one: _Link, other: _Link) -> bool:
    """Order links by discovery; a real one goes before one that was only carried along."""
    return (one.preloaded, one.place) < (other.preloaded, other.place)


def _resolved(witness: Witness, site: Callable[[SiteRef], SiteRef]) -> Witness:
    """Replace both sites of a witness."""
    return msgspec.structs.replace(
        witness, outer_site=site(witness.outer_site), inner_site=site(witness.inner_site)
    )


def _cycle_tier(witnesses: tuple[Witness, ...]) -> str:
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


def _names(entries: list[Held]) -> str:
    """Join the names of held classes."""
    return ", ".join(dict.fromkeys(entry.lock_class.name for entry in entries))


def _flags(lock_class: LockClass) -> str:
    """Show flags for a message."""
    return "|".join(flag_names(lock_class.flags)) or "none"
