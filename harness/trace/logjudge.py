"""From lock logs to lock rules: plays the events of any number of logs into one ``LockRules``.

The rules are the live ones. An acquisition is judged when the lock is wanted, so that one that
never came true counts too; a run that ends in a wait-for cycle is a deadlock by itself. A log is
not trusted blindly: what cannot have happened is reported beside the findings.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import IO, Final, TypeAlias

import msgspec

from harness.errors import UsageError
from harness.lockorder.classes import LockClass, flags_from_names
from harness.lockorder.findings import EXCLUSIVE, SHARED, Finding, Witness
from harness.lockorder.held import HeldLocks
from harness.lockorder.rules import LockRules
from harness.trace.events import Site
from harness.trace.locklog import VERSION, Definition, Event
from harness.trace.lockread import Damage, Record, definition, read_log

INTEGRITY: Final = {
    "LOG001": "a damaged line",
    "LOG002": "the log was cut short",
    "LOG003": "a number used before it was defined",
    "LOG004": "a lock released by a thread that does not hold it",
    "LOG005": "a lock acquired while another thread holds it",
    "LOG006": "an event of a thread that has ended",
    "LOG007": "time or sequence going backwards",
    "LOG008": "a lock still held when its thread ended",
    "LOG009": "no header of a version that is known",
    "LOG010": "events that the writer lost",
    "LOG011": "one lock class with two sets of flags",
    "LOG012": "an operation that is not known",
}
"""What each rule of log integrity says."""

# These say that a program or a disk came to an end, not that the log contradicts itself.
HARMLESS: Final = frozenset(("LOG002", "LOG008"))


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


class _Lock:
    """A lock of one run."""

    __slots__ = ("lock_class", "name", "number", "owner", "sharers", "since")

    def __init__(self, number: int, name: str, lock_class: LockClass | None) -> None:
        """Make a lock that nobody holds."""
        self.number = number
        self.name = name
        self.lock_class = lock_class
        self.owner: int | None = None
        self.sharers: dict[int, int] = {}
        self.since: dict[int, int] = {}  # thread -> number of the site

    def blockers(self, mode: str) -> list[int]:
        """List the threads that a request waits for."""
        owner = [] if self.owner is None else [self.owner]
        return owner if mode == "s" else owner + list(self.sharers)


class _Thread:
    """A thread of one run."""

    __slots__ = ("asked", "ended", "held", "name")

    def __init__(self, name: str) -> None:
        """Make a thread that holds nothing and wants nothing."""
        self.name = name
        self.held = HeldLocks(name)
        self.asked: Event | None = None
        self.ended = False


_Handler: TypeAlias = Callable[["_Run", Event], None]


class LogJudge:
    """Judges logs by the lock rules.

    Attributes:
        rules: Where edges and findings accumulate; the index of a run counts as its schedule.
        runs: Names of the runs; the one of index ``i`` is ``runs[i - 1]``.
        stuck: Deadlocks that runs ended in.
        breaches: Broken integrity, by log and rule.
        untrusted: Indexes of the runs that contradict themselves.
        events: Events read.
        unclassed: Acquisitions of locks without a class.
    """

    def __init__(self, *, mode_blind: bool = False) -> None:
        """Start with no log read."""
        self.rules = LockRules(mode_blind=mode_blind, fatal=False)
        self.runs: list[str] = []
        self.stuck: list[Finding] = []
        self.breaches: dict[tuple[str, str], Breach] = {}
        self.untrusted: set[int] = set()
        self.events = 0
        self.unclassed = 0
        self._classes: dict[str, LockClass] = {}
        # Runs of one program define the same things again and again.
        self._made: dict[tuple[str, tuple[str, ...]], tuple[LockClass, str]] = {}
        self.sites: dict[tuple[str, str, int, str, int], Site] = {}

    def read(self, name: str, stream: IO[bytes]) -> None:
        """Judge one log; never fails on what is in it.

        Args:
            name: Of the log, for messages.
            stream: Its bytes, compressed or not.
        """
        run: _Run | None = None
        before = len(self.runs)
        for first, records in read_log(stream):
            index = 0
            while index < len(records):
                if run is not None:
                    index = run.play(records, index, first)
                if index < len(records):
                    run = self._unusual(name, run, records[index], first + index)
                    index += 1
        self._close(run)
        if len(self.runs) == before and (name, "LOG009") not in self.breaches:
            self.breach(name, "LOG009", 1, "no header: not a lock log, or an empty one")

    def breach(self, log: str, rule: str, line: int, message: str) -> None:
        """Note broken integrity."""
        known = self.breaches.get((log, rule))
        if known is None:
            self.breaches[log, rule] = Breach(rule, log, line, message)
        else:
            known.count += 1

    def lock_class(self, name: str, flags: tuple[str, ...]) -> tuple[LockClass, str]:
        """Return the class of that name, and a complaint if it is known with other flags.

        Raises:
            UsageError: The flags are unknown or exclude each other.
        """
        found = self._made.get((name, flags))
        if found is None:
            made = LockClass(name, flags=flags_from_names(flags))
            known = self._classes.setdefault(name, made)
            complaint = ""
            if known.bits != made.bits:
                complaint = f"{known!r} is now {made!r}; the first one is kept"
            found = self._made[name, flags] = known, complaint
        return found

    def _unusual(self, log: str, run: _Run | None, record: Record, line: int) -> _Run | None:
        """Take a record that is no event of a known run; return the run that goes on."""
        if isinstance(record, Damage):
            self.breach(log, record.rule, record.line, record.message)
            if run is not None and record.rule not in HARMLESS:
                self.untrusted.add(run.index)
            return run
        if isinstance(record, Event):
            self.breach(log, "LOG009", line, "an event before any header")
            return None
        read = definition(record, line)
        if isinstance(read, Damage):
            return self._unusual(log, run, read, line)
        if not read.zlock:
            if run is None:
                self.breach(log, "LOG009", line, "a definition before any header")
            else:
                run.line = line
                run.define(read)
            return run
        self._close(run)
        if read.zlock != VERSION:
            message = f"version {read.zlock} of the format; this reads version {VERSION}"
            self.breach(log, "LOG009", line, message)
            return None
        self.runs.append(read.run)
        self.rules.begin(len(self.runs))
        return _Run(self, log, len(self.runs))

    def _close(self, run: _Run | None) -> None:
        """End a run: what it was stuck in, and its count."""
        if run is not None:
            self.events += run.events
            finding = None if run.index in self.untrusted else run.deadlock()
            if finding is not None:
                self.stuck.append(finding)


class _Run:
    """The state of one run while its events are played."""

    def __init__(self, judge: LogJudge, log: str, index: int) -> None:
        """Start with nothing defined."""
        self.judge = judge
        self.rules = judge.rules
        self.acquired = judge.rules.acquired
        self.released = judge.rules.released
        self.log = log
        self.index = index
        self.line = 0
        self.seq = -1
        self.ts: int | float = 0
        self.events = 0
        self.classes: dict[int, LockClass] = {}
        self.locks: dict[int, _Lock] = {}
        self.threads: dict[int, _Thread] = {}
        self.sites: dict[int, Site | None] = {0: None}
        self.stacks: dict[int, int] = {0: 0}

    def play(self, records: list[Record], start: int, first: int) -> int:
        """Play events up to a record that is none; return its index.

        Args:
            records: Records of a log.
            start: Index of the first one to play.
            first: Line of the record of index 0.
        """
        seq, ts = self.seq, self.ts
        index = start
        for index in range(start, len(records)):
            event = records[index]
            if type(event) is not Event:
                break
            self.line = first + index
            if event.seq <= seq or event.ts < ts:
                self.backwards(event, seq, ts)
            seq = event.seq
            ts = event.ts
            handler = _HANDLERS.get(event.op)
            if handler is None:
                self.breach("LOG012", f"unknown operation {event.op!r}")
            else:
                handler(self, event)
        else:
            index = len(records)
        self.seq, self.ts = seq, ts
        self.events += index - start
        return index

    def breach(self, rule: str, message: str) -> None:
        """Note broken integrity at the current line."""
        self.judge.breach(self.log, rule, self.line, message)
        if rule not in HARMLESS:
            self.judge.untrusted.add(self.index)

    def define(self, read: Definition) -> None:
        """Give a number its meaning."""
        if read.d == "site":
            key = (read.m, read.fn, read.o, read.f, read.l)
            self.sites[read.id] = self.judge.sites.get(key) or self.judge.sites.setdefault(
                key, Site(*key)
            )
        elif read.d == "stk":
            self.stacks[read.id] = read.s[0] if read.s else 0
        elif read.d == "thr":
            self.threads[read.id] = _Thread(read.name or f"thread {read.id}")
        elif read.d == "cls":
            try:
                self.classes[read.id], complaint = self.judge.lock_class(read.name, read.flags)
            except UsageError as error:
                self.breach("LOG001", str(error))
                return
            if complaint:
                self.breach("LOG011", complaint)
        elif read.d == "lock":
            if read.cls and read.cls not in self.classes:
                self.breach("LOG003", f"lock class {read.cls} is not defined")
            name = read.name or f"lock {read.id}"
            self.locks[read.id] = _Lock(read.id, name, self.classes.get(read.cls))
        else:
            self.breach("LOG001", f"unknown definition {read.d!r}")

    def backwards(self, event: Event, seq: int, ts: float) -> None:
        """Note an event that is older than the one before it."""
        if event.seq <= seq:
            self.breach("LOG007", f"sequence {event.seq} after {seq}")
        else:
            self.breach("LOG007", f"time {event.ts} after {ts}")

    def thread(self, event: Event) -> _Thread:
        """Return the thread of an event."""
        thread = self.threads.get(event.tid)
        if thread is None:
            self.breach("LOG003", f"thread {event.tid} is not defined")
            thread = self.threads[event.tid] = _Thread(f"thread {event.tid}")
        elif thread.ended:
            self.breach("LOG006", f"{event.op} by {thread.name}, which has ended")
        return thread

    def lock(self, event: Event) -> _Lock:
        """Return the lock of an event."""
        lock = self.locks.get(event.obj)
        if lock is None:
            self.breach("LOG003", f"lock {event.obj} is not defined")
            lock = self.locks[event.obj] = _Lock(event.obj, f"lock {event.obj}", None)
        return lock

    def site(self, event: Event) -> Site | None:
        """Return the place of an event."""
        number = event.site or self.stacks.get(event.stk, 0)
        if number not in self.sites:
            self.breach("LOG003", f"site {number} is not defined")
            self.sites[number] = None
        return self.sites[number]

    def judge_acquisition(
        self, event: Event, thread: _Thread, lock: _Lock, *, attempt: bool
    ) -> None:
        """Put an acquisition before the rules."""
        lock_class = lock.lock_class
        if lock_class is None:
            self.judge.unclassed += 1
            return
        order = event.extra.get("o") if event.extra else 0
        self.acquired(
            thread.held,
            lock_class,
            lock.number,
            order if isinstance(order, int) else 0,
            SHARED if event.mode == "s" else EXCLUSIVE,
            attempt,
            self.sites.get(event.site) or self.site(event),
        )

    def request(self, event: Event) -> None:
        """Play ``req``: judged here, since it may never come true."""
        lock = self.locks.get(event.obj) or self.lock(event)
        thread = self.threads.get(event.tid)
        if thread is None or thread.ended:
            thread = self.thread(event)
        thread.asked = event
        lock_class = lock.lock_class
        if event.extra is not None or lock_class is None:
            if not _limited(event):
                self.judge_acquisition(event, thread, lock, attempt=False)
            return
        # The usual case of judge_acquisition, without the call.
        site = self.sites.get(event.site) or self.site(event)
        mode = SHARED if event.mode == "s" else EXCLUSIVE
        self.acquired(thread.held, lock_class, lock.number, 0, mode, False, site)

    def attempt(self, event: Event) -> None:
        """Play ``try``: judged once it has succeeded."""
        self.lock(event)
        self.thread(event).asked = event

    def acquire(self, event: Event) -> None:
        """Play ``acq``."""
        lock = self.locks.get(event.obj) or self.lock(event)
        thread = self.threads.get(event.tid)
        if thread is None or thread.ended:
            thread = self.thread(event)
        asked = thread.asked
        if asked is None or asked.obj != event.obj:
            self.judge_acquisition(event, thread, lock, attempt=False)
        elif (asked.extra is not None or asked.op == "try") and _limited(asked):
            self.judge_acquisition(asked, thread, lock, attempt=True)
        thread.asked = None
        tid = event.tid
        if lock.owner is not None or lock.sharers:
            self.contended(event, thread, lock)
        if event.mode == "s":
            lock.sharers[tid] = lock.sharers.get(tid, 0) + 1
        else:
            lock.owner = tid
        lock.since[tid] = event.site

    def contended(self, event: Event, thread: _Thread, lock: _Lock) -> None:
        """Two threads cannot hold a lock in modes that exclude each other.

        One thread that takes its own lock again is for the lock rules to judge.
        """
        other = [tid for tid in lock.blockers(event.mode) if tid != event.tid]
        if other:
            holder = self.name(other[0])
            self.breach("LOG005", f"{thread.name} acquired {lock.name} while {holder} holds it")

    def fail(self, event: Event) -> None:
        """Play ``fail``: the thread gave up."""
        thread = self.thread(event)
        asked, thread.asked = thread.asked, None
        if asked is not None and not _limited(asked):
            self.rules.released(thread.held, self.lock(event).number)

    def release(self, event: Event) -> None:
        """Play ``rel``."""
        lock = self.locks.get(event.obj) or self.lock(event)
        thread = self.threads.get(event.tid)
        if thread is None or thread.ended:
            thread = self.thread(event)
        tid = event.tid
        if lock.owner == tid:
            lock.owner = None
        elif tid in lock.sharers:
            lock.sharers[tid] -= 1
            if not lock.sharers[tid]:
                del lock.sharers[tid]
        else:
            self.breach("LOG004", f"{thread.name} released {lock.name}, which it does not hold")
        if lock.lock_class is not None:
            self.released(thread.held, lock.number)

    def wait(self, event: Event) -> None:
        """Play ``wait``: what is still held here is kept while sleeping."""
        what = event.extra.get("what") if event.extra else None
        lock = self.locks.get(event.obj)
        name = what if isinstance(what, str) else lock.name if lock is not None else "an event"
        self.rules.waits(self.thread(event).held, self.site(event), name)

    def exit(self, event: Event) -> None:
        """Play ``exit``."""
        thread = self.thread(event)
        kept = [
            lock.name
            for lock in self.locks.values()
            if lock.owner == event.tid or event.tid in lock.sharers
        ]
        if kept:
            self.breach("LOG008", f"{thread.name} ended while it held {', '.join(kept)}")
        thread.ended = True

    def lost(self, event: Event) -> None:
        """Play ``lost``."""
        count = event.extra.get("n", "some") if event.extra else "some"
        self.breach("LOG010", f"{count} events lost by the writer")

    def other(self, event: Event) -> None:
        """Play what no class rule looks at."""
        self.thread(event)

    def name(self, tid: int) -> str:
        """Return the name of a thread."""
        thread = self.threads.get(tid)
        return f"thread {tid}" if thread is None else thread.name

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
        """Return the request that a thread waits at."""
        thread = self.threads.get(tid)
        asked = None if thread is None else thread.asked
        return None if asked is None or _limited(asked) else asked

    def _waits_for(self, tid: int) -> int | None:
        """Return a thread that ``tid`` waits for, and that waits itself."""
        asked = self._wants(tid)
        if asked is None:
            return None
        blockers = self.locks[asked.obj].blockers(asked.mode)
        return next((other for other in blockers if self._wants(other) is not None), None)

    def _deadlock(self, threads: list[int]) -> Finding:
        """Describe a wait-for cycle."""
        requests = [asked for tid in threads if (asked := self._wants(tid)) is not None]
        before = requests[-1:] + requests[:-1]
        witnesses = []
        for tid, asked, waiting in zip(threads, requests, before, strict=True):
            kept, wanted = self.locks[waiting.obj], self.locks[asked.obj]
            witnesses.append(
                Witness(
                    outer=_label(kept),
                    inner=_label(wanted),
                    outer_mode=EXCLUSIVE if kept.owner == tid else SHARED,
                    inner_mode=SHARED if asked.mode == "s" else EXCLUSIVE,
                    outer_site=self.sites.get(kept.since.get(tid, 0)),
                    inner_site=self.site(asked),
                    thread=self.name(tid),
                    schedule=self.index,
                    outer_address=kept.number,
                    inner_address=wanted.number,
                    guards=(kept.number,),
                )
            )
        start = min(range(len(witnesses)), key=lambda i: (witnesses[i].outer, witnesses[i].thread))
        edges = tuple(witnesses[start:] + witnesses[:start])
        names = ", ".join(witness.thread for witness in edges)
        return Finding(
            rule="ORD002",
            result="Deadlock",
            tier="observed",
            message=f"the run ends with {names} waiting for each other",
            classes=tuple(witness.outer for witness in edges),
            edges=edges,
            schedule=self.index,
            thread=edges[0].thread,
        )


def _limited(asked: Event) -> bool:
    """Tell a request that does not wait, or not for ever: nothing can be stuck in it."""
    return asked.op == "try" or bool(asked.extra and asked.extra.get("t"))


def _label(lock: _Lock) -> str:
    """Name the class of a lock; the lock itself where it has none."""
    return lock.name if lock.lock_class is None else lock.lock_class.name


_HANDLERS: Final[dict[str, _Handler]] = {
    "req": _Run.request,
    "try": _Run.attempt,
    "acq": _Run.acquire,
    "fail": _Run.fail,
    "rel": _Run.release,
    "wait": _Run.wait,
    "exit": _Run.exit,
    "lost": _Run.lost,
    **dict.fromkeys(
        ("wake", "sig", "bcast", "fork", "start", "join", "r", "w", "note"), _Run.other
    ),
    **dict.fromkeys(
        ("down", "up", "arm", "new", "del", "assert", "pin", "unpin", "ctx+", "ctx-"), _Run.other
    ),
}
