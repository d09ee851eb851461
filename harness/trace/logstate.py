"""The state of one run while its log is played, and what it is stuck in at its end."""

from __future__ import annotations

from typing import Final

import msgspec

from harness.lockorder.classes import LockClass
from harness.lockorder.findings import EXCLUSIVE, SHARED, Finding, Witness
from harness.lockorder.held import HeldLocks
from harness.trace.events import Site
from harness.trace.locklog import REFUSED, Event

INTEGRITY: Final = {
    "LOG001": "a damaged line",
    "LOG002": "the log was cut short",
    "LOG003": "a number used before it was defined",
    "LOG004": "a lock released by a thread that does not hold it",
    "LOG005": "a lock acquired while another thread holds it",
    "LOG006": "an event of a thread that has ended",
    "LOG007": "time or sequence going backwards",
    "LOG009": "no header of a version that is known",
    "LOG010": "events that the writer lost",
    "LOG011": "one lock class with two sets of flags",
    "LOG012": "an operation that is not known",
}
"""What each rule of log integrity says."""

# These say that a program or a disk came to an end, not that the log contradicts itself.
HARMLESS: Final = frozenset(("LOG002",))


class Breach(msgspec.Struct):
    """A broken rule of log integrity.

    Attributes:
        rule: One of ``INTEGRITY``.
        log: Name of the log.
        line: Where it was broken first, from 1.
        message: What was wrong there.
        count: How often it was broken in that log.
    """

    rule: str
    log: str
    line: int
    message: str
    count: int = 1


class Lock:
    """A lock of one run, or another object that events name."""

    __slots__ = (
        "lock_class",
        "name",
        "fair",
        "number",
        "owner",
        "pinned",
        "sharers",
        "since",
        "type",
    )

    def __init__(self, number: int, name: str, lock_class: LockClass | None, type_: str) -> None:
        """Make a lock that nobody holds; ``type_`` is in lower case, empty where not known."""
        self.number = number
        self.name = name
        self.lock_class = lock_class
        self.type = type_
        self.owner: int | None = None
        self.pinned = False  # it was at some time
        self.fair = False  # readers wait for writers that wait
        self.sharers: dict[int, int] = {}
        self.since: dict[int, int] = {}  # thread -> number of the site

    @property
    def label(self) -> str:
        """The name of its class; its own where it has none."""
        return self.name if self.lock_class is None else self.lock_class.name

    def blockers(self, mode: str) -> list[int]:
        """List the threads that a request waits for."""
        owner = [] if self.owner is None else [self.owner]
        return owner if mode == "s" else owner + list(self.sharers)


class Thread:
    """A thread of one run."""

    __slots__ = ("asked", "asleep", "ended", "held", "name")

    def __init__(self, name: str) -> None:
        """Make a thread that holds nothing and wants nothing."""
        self.name = name
        self.held = HeldLocks(name)
        self.asked: Event | None = None
        self.asleep: Event | None = None  # a wait without limit
        self.ended = False


def is_limited(asked: Event) -> bool:
    """Tell a request that does not wait, or not for ever: nothing can be stuck in it."""
    return asked.op == "try" or bool(asked.extra and asked.extra.get("t"))


def _what(asleep: Event) -> object:
    """Tell what kind of wait it is."""
    return asleep.extra.get("what") if asleep.extra else None


class Standstill:
    """Where the threads of a run stood when it ended."""

    def __init__(
        self,
        index: int,
        threads: dict[int, Thread],
        locks: dict[int, Lock],
        sites: dict[int, Site | None],
    ) -> None:
        """Args: index: Of the run. threads, locks, sites: By number."""
        self.index = index
        self.threads = threads
        self.locks = locks
        self.sites = sites

    def lost_wakeup(self) -> Finding | None:
        """Find the threads that sleep for ever: nobody is left who could wake them.

        Every other thread has ended, or waits as well; a log without exits says nothing.
        """
        stuck = {tid: t for tid, t in sorted(self.threads.items()) if not t.ended}
        # Who waits for threads to end is woken by nobody's signal.
        ends = ("join", "parallel")
        asleep = [t for t in stuck.values() if t.asleep and _what(t.asleep) not in ends]
        if not asleep or not all(
            t.asleep is not None or t.asked is not None for t in stuck.values()
        ):
            return None
        if not any(thread.ended for thread in self.threads.values()):
            return None
        witnesses = []
        for thread in asleep:
            event = thread.asleep
            assert event is not None
            lock = self.locks.get(event.obj)
            what = "an event" if lock is None else lock.name
            witnesses.append(
                Witness(
                    outer="",
                    inner=what,
                    inner_mode="",
                    inner_site=self.sites.get(event.site),
                    thread=thread.name,
                    schedule=self.index,
                )
            )
        names = ", ".join(thread.name for thread in asleep)
        return Finding(
            rule="EVT002",
            result="LostWakeup",
            tier="observed",
            message=f"the run ends with {names} asleep, and nobody left to signal",
            classes=tuple(witness.inner for witness in witnesses),
            edges=tuple(witnesses),
            schedule=self.index,
            thread=asleep[0].name,
        )

    def deadlock(self) -> Finding | None:
        """Find the cycle of threads that the run is stuck in, if there is one."""
        for start in sorted(self.threads):
            path = [start]
            while (following := self._waits_for(path[-1])) is not None:
                if following in path:
                    return self._deadlock(path[path.index(following) :])
                path.append(following)
        return None

    def _wants(self, tid: int) -> Event | None:
        """Return the request, or the wait for the end of a thread, that a thread waits at."""
        thread = self.threads.get(tid)
        if thread is None:
            return None
        asleep, asked = thread.asleep, thread.asked
        if asleep is not None and _what(asleep) == "join":
            return asleep if self._joined(asleep) is not None else None
        if asked is None or is_limited(asked) or asked.obj not in self.locks:
            return None  # a lock that was destroyed meanwhile is waited for by nobody
        return None if asked.extra and asked.extra.get(REFUSED) else asked

    def _joined(self, asleep: Event) -> int | None:
        """Return the thread whose end is waited for; there is only its name."""
        waited = self.locks.get(asleep.obj)
        named = [t for t, thread in self.threads.items() if waited and thread.name == waited.name]
        return named[0] if len(named) == 1 else None

    def _waits_for(self, tid: int) -> int | None:
        """Return a thread that ``tid`` waits for, and that waits itself."""
        asked = self._wants(tid)
        if asked is None:
            return None
        joined = None if asked.op != "wait" else self._joined(asked)
        blockers = [joined] if joined is not None else self.locks[asked.obj].blockers(asked.mode)
        return next((other for other in blockers if self._wants(other) is not None), None)

    def _deadlock(self, threads: list[int]) -> Finding:
        """Describe a wait-for cycle."""
        requests = [asked for tid in threads if (asked := self._wants(tid)) is not None]
        before = requests[-1:] + requests[:-1]
        witnesses, provided = [], []
        for tid, asked, waiting in zip(threads, requests, before, strict=True):
            # Who is joined keeps nothing that another one waits for, but its own end.
            kept = None if waiting.op == "wait" else self.locks[waiting.obj]
            held_shared = kept is not None and kept.owner != tid
            witnesses.append(
                Witness(
                    outer="" if kept is None else kept.label,
                    inner=self._wanted(asked),
                    outer_mode=SHARED if held_shared else EXCLUSIVE,
                    inner_mode=SHARED if asked.mode == "s" else EXCLUSIVE,
                    outer_site=None if kept is None else self.sites.get(kept.since.get(tid, 0)),
                    inner_site=self.sites.get(asked.site),
                    thread=self.threads[tid].name,
                    schedule=self.index,
                    outer_address=0 if kept is None else kept.number,
                    inner_address=0 if asked.op == "wait" else self.locks[asked.obj].number,
                    guards=() if kept is None else (kept.number,),
                )
            )
            provided.append(self._wanted(waiting))
        start = min(range(len(witnesses)), key=lambda i: (witnesses[i].outer, witnesses[i].thread))
        edges = tuple(witnesses[start:] + witnesses[:start])
        joins = any(asked.op == "wait" for asked in requests)
        names = ", ".join(witness.thread for witness in edges)
        return Finding(
            rule="EVT003" if joins else "ORD002",
            result="Deadlock",
            tier="observed",
            message=f"the run ends with {names} waiting for each other",
            classes=tuple(provided[start:] + provided[:start]),
            edges=edges,
            schedule=self.index,
            thread=edges[0].thread,
        )

    def _wanted(self, asked: Event) -> str:
        """Name what is waited for, as predictions do."""
        lock = self.locks[asked.obj]
        return f"the end of {lock.name}" if asked.op == "wait" else lock.label
