"""Rules on single locks of a run: their lives, pins, assertions, contexts, upgrades.

Each is judged at the event that breaks it. What a rule knows of the run it asks of ``Run``.
"""

from __future__ import annotations

from typing import Final, Protocol

from harness.lockorder.classes import LockClass, LockFlags
from harness.lockorder.findings import EXCLUSIVE, SHARED, Finding, Witness, under_spin
from harness.lockorder.rules import LockRules
from harness.trace.events import Site
from harness.trace.locklog import Event
from harness.trace.logstate import Lock, Thread

RECLAIM: Final = LockClass("(reclaim)", flags=LockFlags.MULTI_ACQUIRE)
"""Stands for the work that frees memory: wanted by who allocates, held by who reclaims."""

_RECLAIM_ADDRESS: Final = 1 << 60
_SPINS: Final = ("spin", "spinlock", "raw_spin")
_SLEEPS: Final = ("mutex", "rw", "rwlock", "sem", "semaphore", "event", "cond", "condition")


class Run(Protocol):
    """What the rules need of a run."""

    index: int
    rules: LockRules
    locks: dict[int, Lock]
    threads: dict[int, Thread]

    def place(self, event: Event) -> Site | None:
        """Return the place of an event."""

    def lock(self, event: Event) -> Lock:
        """Return the lock of an event."""

    def thread(self, event: Event) -> Thread:
        """Return the thread of an event."""

    def thread_name(self, tid: int) -> str:
        """Name a thread."""

    def since(self, lock: Lock, tid: int) -> Site | None:
        """Return where a thread acquired a lock that it holds."""


class LockLives:
    """The state of these rules in one run."""

    def __init__(self, run: Run) -> None:
        """Start with every lock alive and nothing pinned."""
        self._run = run
        self.dead: dict[int, tuple[Lock, Site | None]] = {}
        self._pins: dict[tuple[int, int], tuple[int, Site | None]] = {}
        self._contexts: dict[int, list[str]] = {}
        # Class -> the occasion: taken by a destructor; held where it could begin.
        self._taken: dict[str, Witness] = {}
        self._under: dict[str, Witness] = {}

    # ---- lives ------------------------------------------------------------------------------

    def create(self, event: Event) -> None:
        """Play ``new``: the same number may live again."""
        self.dead.pop(event.obj, None)

    def destroy(self, event: Event) -> None:
        """Play ``del``."""
        run, site = self._run, self._run.place(event)
        thread = run.thread(event)
        if event.obj in self.dead:
            self._report("LIFE002", "DestroyedTwice", thread, self.dead[event.obj][0], site)
            return
        lock = run.lock(event)
        holders = [run.thread_name(tid) for tid in lock.blockers("x")]
        if holders:
            message = f"{lock.name} destroyed while {', '.join(holders)} holds it"
            self._report("LIFE001", "DestroyedWhileHeld", thread, lock, site, message)
        self.dead[event.obj] = lock, site
        run.locks.pop(event.obj, None)

    def touch_dead(self, event: Event) -> Lock:
        """An event names a lock that is destroyed."""
        lock, gone = self.dead[event.obj]
        thread = self._run.thread(event)
        rule, result, did = (
            ("LIFE003", "ReleasedAfterDestruction", "released")
            if event.op == "rel"
            else ("LIFE002", "UsedAfterDestruction", "used")
        )
        message = f"{lock.name} {did} after it was destroyed at {gone or 'an unknown place'}"
        self._report(rule, result, thread, lock, self._run.place(event), message)
        return lock

    # ---- pins and assertions ----------------------------------------------------------------

    def pin(self, event: Event) -> None:
        """Play ``pin``: until ``unpin``, the thread may not let go of the lock."""
        self._run.lock(event).pinned = True
        count, site = self._pins.get((event.tid, event.obj), (0, self._run.place(event)))
        self._pins[event.tid, event.obj] = count + 1, site

    def unpin(self, event: Event) -> None:
        """Play ``unpin``."""
        key = (event.tid, event.obj)
        count, site = self._pins.get(key, (0, None))
        if count > 1:
            self._pins[key] = count - 1, site
        else:
            self._pins.pop(key, None)

    def release_pinned(self, event: Event, lock: Lock) -> None:
        """Judge the release of a lock that was pinned at some time."""
        _, site = self._pins.get((event.tid, event.obj), (0, None))
        if (event.tid, event.obj) in self._pins:
            message = f"{lock.name} released although pinned at {site or 'an unknown place'}"
            thread = self._run.thread(event)
            self._report("PIN001", "PinnedRelease", thread, lock, self._run.place(event), message)

    def claim(self, event: Event) -> None:
        """Play ``assert``: the thread holds that lock; of number 0, it holds none."""
        run = self._run
        thread = run.thread(event)
        if not event.obj:
            run.rules.none_held(thread.held, run.place(event), _text(event, "text"))
            return
        lock = run.lock(event)
        shared = event.mode == "s" and event.tid in lock.sharers
        if lock.owner != event.tid and not shared:
            message = f"{thread.name} asserts that it holds {lock.name}, and does not"
            self._report("HELD001", "NotHeld", thread, lock, run.place(event), message)

    # ---- modes ------------------------------------------------------------------------------

    def reads_again(self, event: Event, lock: Lock, thread: Thread) -> None:
        """Judge a second shared request of one thread for a lock that is fair to writers."""
        message = f"{lock.name} read again by its reader: a writer that waits in between blocks it"
        witness = Witness(
            outer=lock.label,
            inner=lock.label,
            outer_mode=SHARED,
            inner_mode=SHARED,
            outer_site=self._run.since(lock, event.tid),
            inner_site=self._run.place(event),
            thread=thread.name,
            schedule=self._run.index,
            outer_address=lock.number,
            inner_address=lock.number,
        )
        finding = _finding("ORD007", "ReadRecursion", "latent", message, witness)
        self._run.rules.record(finding)

    # ---- contexts ---------------------------------------------------------------------------

    def enter(self, event: Event) -> None:
        """Play ``ctx+``: ``alloc`` may wait for reclaim, ``reclaim`` is it.

        ``drop`` drops a reference that may be the last one, ``dtor`` destroys.
        """
        run = self._run
        thread, site, name = run.thread(event), run.place(event), _context(event)
        inside = self._contexts.setdefault(event.tid, [])
        if name in ("alloc", "reclaim"):
            if "reclaim" in inside:
                message = f"{thread.name} allocates while it reclaims memory"
                witness = Witness(
                    RECLAIM.name,
                    RECLAIM.name,
                    inner_site=site,
                    thread=thread.name,
                    schedule=run.index,
                )
                finding = _finding("CTX004", "ReclaimReentry", "observed", message, witness)
                run.rules.record(finding)
            run.rules.acquired(thread.held, RECLAIM, _RECLAIM_ADDRESS, 0, EXCLUSIVE, False, site)
            if name == "alloc":
                run.rules.released(thread.held, _RECLAIM_ADDRESS)
        elif name in ("drop", "dtor"):
            for entry in thread.held.entries:
                held = entry.lock_class.name
                witness = Witness(
                    held,
                    "",
                    outer_mode=entry.mode,
                    outer_site=entry.site,
                    inner_site=site,
                    inner_mode="",
                    thread=thread.name,
                    schedule=run.index,
                )
                self._under.setdefault(held, witness)
        inside.append(name)

    def leave(self, event: Event) -> None:
        """Play ``ctx-``."""
        name = _context(event)
        inside = self._contexts.get(event.tid, [])
        if name in inside:
            inside.remove(name)
            if name == "reclaim":
                self._run.rules.released(self._run.thread(event).held, _RECLAIM_ADDRESS)

    def inside(self, event: Event, lock: Lock, site: Site | None) -> None:
        """Note a lock that a destructor takes."""
        if "dtor" in self._contexts.get(event.tid, ()):
            name = self._run.thread_name(event.tid)
            witness = Witness(
                lock.label, lock.label, inner_site=site, thread=name, schedule=self._run.index
            )
            self._taken.setdefault(lock.label, witness)

    def close(self) -> None:
        """Compare what destructors take with what is held where they run."""
        for label in sorted(set(self._taken) & set(self._under)):
            taken, under = self._taken[label], self._under[label]
            message = f"a last reference is dropped while {label} is held; a destructor takes it"
            witness = Witness(
                label,
                label,
                outer_site=under.outer_site,
                inner_site=taken.inner_site,
                outer_mode=under.outer_mode,
                thread=under.thread,
                schedule=self._run.index,
            )
            finding = _finding("LIFE004", "DestroyedUnderItsLock", "latent", message, witness)
            self._run.rules.record(finding)

    def _report(
        self,
        rule: str,
        result: str,
        thread: Thread,
        lock: Lock,
        site: Site | None,
        message: str = "",
    ) -> None:
        witness = Witness(
            outer=lock.label,
            inner="",
            inner_mode="",
            inner_site=site,
            thread=thread.name,
            schedule=self._run.index,
            outer_address=lock.number,
        )
        text = message or f"{lock.name}: {result}"
        self._run.rules.record(_finding(rule, result, "observed", text, witness))


def every_finding(rules: LockRules, kinds: dict[str, str]) -> list[Finding]:
    """List what the rules have found and what follows from their graph, in that order.

    To sleep with a spin lock held is that, and no longer one lock among those held in a sleep.

    Args:
        rules: With the edges of all runs.
        kinds: Of each lock class, in lower case.
    """
    found, more = [], rules.complete()
    for edge in rules.edges.values():
        if kinds.get(edge.outer) in _SPINS and kinds.get(edge.inner) in _SLEEPS:
            more.append(under_spin(edge.witnesses[0]))
    for finding in rules.findings:
        spins = [w for w in finding.edges if kinds.get(w.outer) in _SPINS]
        if finding.result == "HeldAcrossWait" and spins:
            more.append(under_spin(spins[0]))
        else:
            found.append(finding)
    return [*found, *more]


def leaked(run: Run, event: Event, thread: Thread) -> None:
    """Report the locks that a thread holds when it ends."""
    for lock in run.locks.values():
        if lock.owner == event.tid or event.tid in lock.sharers:
            witness = Witness(
                outer=lock.label,
                inner="",
                outer_mode=EXCLUSIVE if lock.owner == event.tid else SHARED,
                inner_mode="",
                outer_site=run.since(lock, event.tid),
                thread=thread.name,
                schedule=run.index,
                outer_address=lock.number,
            )
            message = f"{thread.name} ended while it held {lock.name}"
            run.rules.record(_finding("LEAK001", "HeldAtExit", "observed", message, witness))


def _finding(rule: str, result: str, tier: str, message: str, witness: Witness) -> Finding:
    return Finding(
        rule=rule,
        result=result,
        tier=tier,
        message=message,
        classes=tuple(dict.fromkeys(filter(None, (witness.outer, witness.inner)))),
        edges=(witness,),
        schedule=witness.schedule,
        thread=witness.thread,
    )


def _context(event: Event) -> str:
    return _text(event, "c")


def _text(event: Event, key: str) -> str:
    text = event.extra.get(key, "") if event.extra else ""
    return text if isinstance(text, str) else ""
