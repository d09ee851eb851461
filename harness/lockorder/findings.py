"""What the lock rules report: witnesses, edges and findings, as plain data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Final, TypeAlias

import msgspec

# Opaque to the rules. Live it is a (code object, offset) pair; in logs and traces a Site.
SiteRef: TypeAlias = Any

EXCLUSIVE: Final = "exclusive"
SHARED: Final = "shared"
# Of an edge that is read back; the class graph knows no others.
Mode: TypeAlias = Annotated[str, msgspec.Meta(pattern=rf"\A({EXCLUSIVE}|{SHARED})\Z")]

TIERS: Final = ("refuted", "latent", "possible", "predicted", "confirmed", "observed")
"""How sure a finding is, from the least to the most."""


EVERYBODY: Final = -1
"""In a leg of a route: all threads go as they went in the run, up to that step."""


class Witness(msgspec.Struct, frozen=True):
    """One occasion on which ``inner`` was wanted while ``outer`` was held.

    Attributes:
        outer: Class of the lock that was held.
        inner: Class of the lock that was wanted; empty where the thread went to sleep instead.
        outer_mode: ``exclusive`` or ``shared``.
        inner_mode: Likewise; empty where nothing was wanted. Of a data race ``read`` or ``write``:
            ``inner`` is the cell then, and ``outer`` the names of all locks held.
        outer_site: Where the held lock had been acquired.
        inner_site: Where the other one was wanted.
        thread: Name of the thread.
        schedule: Index of the schedule (of the run, in an audit), from 1.
        outer_address: Instance number of the held lock.
        inner_address: Instance number of the wanted lock, 0 where nothing was wanted.
        guards: Instance numbers of all locks held at that moment, ``outer`` included.
    """

    outer: str
    inner: str
    outer_mode: str = EXCLUSIVE
    inner_mode: str = EXCLUSIVE
    outer_site: SiteRef = None
    inner_site: SiteRef = None
    thread: str = ""
    schedule: int = 0
    outer_address: int = 0
    inner_address: int = 0
    guards: tuple[int, ...] = ()


class Edge(msgspec.Struct, frozen=True):
    """An edge of the class graph: ``inner`` was wanted while ``outer`` was held.

    Attributes:
        outer: Class of the lock taken first.
        inner: Class of the lock taken second.
        witnesses: The first occasion of each combination of modes, earliest first; never empty.
        count: Acquisitions that made this edge.
        schedules: Schedules in which it was made.
    """

    outer: str
    inner: str
    witnesses: tuple[Witness, ...]
    count: int
    schedules: int

    @property
    def schedule(self) -> int:
        """Index of the first schedule that made the edge."""
        return self.witnesses[0].schedule

    @property
    def outer_site(self) -> SiteRef:
        """Where the outer lock was acquired, on the first occasion."""
        return self.witnesses[0].outer_site

    @property
    def inner_site(self) -> SiteRef:
        """Where the inner lock was wanted, on the first occasion."""
        return self.witnesses[0].inner_site

    @property
    def thread(self) -> str:
        """Which thread made it, on the first occasion."""
        return self.witnesses[0].thread

    @property
    def modes(self) -> tuple[tuple[str, str], ...]:
        """Each combination of (outer mode, inner mode) that was seen."""
        return tuple((w.outer_mode, w.inner_mode) for w in self.witnesses)


class Move(msgspec.Struct, frozen=True):
    """One line of what could happen.

    Attributes:
        thread: Name of the thread.
        what: What it takes, or wants.
        blocked_by: Name of the thread that it then waits for; empty where it goes on.
    """

    thread: str
    what: str
    blocked_by: str = ""


class Finding(msgspec.Struct, frozen=True):
    """A broken lock rule.

    Attributes:
        rule: Identifier of the rule, ``ORD001`` for instance.
        result: The kernel's name for it, ``OutOfOrder`` for instance; ``HeldAcrossWait`` is ours.
        tier: How sure it is, one of ``TIERS``. A rule that a run broke by itself (leaf, irq
            safety, re-entrance, locks held where none may be) is ``observed``. An order that two
            threads would have to break together is ``possible`` where one schedule shows all its
            edges by different threads, on the same instances, with no guarding lock in common;
            else it is ``latent``: one thread alone, other instances, a common guard, or edges that
            no single schedule has. The class rules know nothing of forks and joins, so they
            claim no more than that.
        message: One line for people; enters no fingerprint.
        classes: Classes involved. Of a cycle: in its order, from the least name on.
        edges: The occasions that prove it. Of a cycle: one for each of its edges.
        schedule: Index of the schedule that broke the rule, from 1.
        thread: Name of the thread that broke it.
        fatal: Whether the kernel would stop here.
        muted: Whether a lock that disables reporting was held: kept aside, not reported.
        proof: Why it has its tier, where that was judged for this finding.
        scenario: Of a deadlock: what could happen, move by move.
        legs: The route to it: which thread goes on up to which step of its run, leg by leg.
        last: Numbers of the threads that block each other at the end of that.
    """

    rule: str
    result: str
    tier: str
    message: str
    classes: tuple[str, ...]
    edges: tuple[Witness, ...]
    schedule: int
    thread: str = ""
    fatal: bool = False
    muted: bool = False
    proof: str = ""
    scenario: tuple[Move, ...] = ()
    legs: tuple[tuple[int, int], ...] = ()
    last: tuple[int, ...] = ()

    def earlier(self) -> tuple[Witness, ...]:
        """Return the edges that earlier schedules made: what a token must carry along."""
        return tuple(w for w in self.edges if w.inner and w.schedule < self.schedule)


def resolved(witness: Witness, site: Callable[[SiteRef], SiteRef]) -> Witness:
    """Replace both sites of a witness."""
    return msgspec.structs.replace(
        witness, outer_site=site(witness.outer_site), inner_site=site(witness.inner_site)
    )


def with_sites(finding: Finding, site: Callable[[SiteRef], SiteRef]) -> Finding:
    """Replace the sites of a finding."""
    edges = tuple(resolved(witness, site) for witness in finding.edges)
    return msgspec.structs.replace(finding, edges=edges)


def under_spin(witness: Witness, *, fatal: bool = False) -> Finding:
    """A thread may sleep, for a lock or for anything else, while it holds a spin lock."""
    message = f"a thread sleeps while it holds the spin lock {witness.outer}"
    if witness.inner:
        message = (
            f"{witness.inner} may sleep, and is wanted while the spin lock {witness.outer} is held"
        )
    return Finding(
        rule="CTX001",
        result="InvalidWait",
        tier="observed",
        message=message,
        classes=tuple(dict.fromkeys(filter(None, (witness.outer, witness.inner)))),
        edges=(witness,),
        schedule=witness.schedule,
        thread=witness.thread,
        fatal=fatal,
    )


def identity(finding: Finding) -> tuple[Any, ...]:
    """What makes two direct findings the same."""
    sites = ((w.outer_mode, w.inner_mode, w.outer_site, w.inner_site) for w in finding.edges)
    return (finding.rule, finding.result, finding.classes, finding.muted, *sites)
