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
from harness.lockorder.findings import EXCLUSIVE, SHARED, TIERS, Finding
from harness.lockorder.rules import LockRules
from harness.predict.judge import BUDGET, SIZE_MAX
from harness.trace.events import Site
from harness.trace.locklog import VERSION, Definition, Event
from harness.trace.lockread import Damage, Record, definition, read_log
from harness.trace.logrules import LockLives, leaked
from harness.trace.logstate import (
    HARMLESS,
    INTEGRITY,
    Breach,
    Lock,
    Standstill,
    Thread,
    is_limited,
)
from harness.trace.logtrace import forecast

__all__ = ["INTEGRITY", "Breach", "LogJudge"]

WINDOW: Final = 1_000_000
"""Events of one run that are kept for predictions; a prefix of a run is as good as a run."""

_Handler: TypeAlias = Callable[["_Run", Event], None]


class Counted(msgspec.Struct):
    """A deadlock, observed or predicted, over all runs.

    Attributes:
        finding: The surest one.
        count: Patterns that are alike, over all runs.
        runs: Indexes of the runs that have one.
    """

    finding: Finding
    count: int
    runs: set[int]


class LogJudge:
    """Judges logs by the lock rules.

    Attributes:
        rules: Where edges and findings accumulate; the index of a run counts as its schedule.
        runs: Names of the runs by index.
        headers: What each run says of itself, by index.
        deadlocks: Those that runs ended in, and those that are predicted.
        refuted: Why which candidate for one was dropped, and how many.
        kinds: Of each lock class, in lower case.
        breaches: Broken integrity, by log and rule.
        untrusted: Indexes of the runs that contradict themselves.
        events: Events read.
        unclassed: Acquisitions of locks without a class.
        heard: Called after each piece of a log that was judged; may be None.
    """

    def __init__(
        self,
        *,
        mode_blind: bool = False,
        predict: bool = True,
        size_max: int = SIZE_MAX,
        budget: int = BUDGET,
        window: int = WINDOW,
    ) -> None:
        """Start with no log read.

        Args:
            mode_blind: Judge readers like writers, in the rules on classes.
            predict: Look for deadlocks that a run did not reach.
            size_max: Longest circle of threads that is predicted.
            budget: States that the exhaustive search may visit for one candidate.
            window: Events of a run that are kept for that.
        """
        self.heard: Callable[[], None] | None = None
        self.window = window if predict else 0
        self._limits = (size_max, budget)
        self.rules = LockRules(mode_blind=mode_blind, fatal=False)
        self.runs: dict[int, str] = {}
        self.headers: dict[int, dict[str, str | int]] = {}
        self._index = 0
        self.deadlocks: dict[object, Counted] = {}
        self.refuted: dict[tuple[str, str], int] = {}
        self.kinds: dict[str, str] = {}
        self.breaches: dict[tuple[str, str], Breach] = {}
        self.untrusted: set[int] = set()
        self.events = 0
        self.unclassed = 0
        self._classes: dict[str, LockClass] = {}
        # Runs of one program define the same things again and again.
        self._made: dict[tuple[str, tuple[str, ...]], tuple[LockClass, str]] = {}
        self.sites: dict[tuple[str, str, int, str, int], Site] = {}

    def read(self, name: str, stream: IO[bytes], after: int | None = None) -> None:
        """Judge one log; never fails on what is in it.

        Args:
            name: Of the log, for messages.
            stream: Its bytes, compressed or not.
            after: Its runs are numbered from here on; None goes on where the last log ended.
        """
        self._index = self._index if after is None else after
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
            if self.heard is not None:
                self.heard()
        self._close(run)
        if len(self.runs) == before and (name, "LOG009") not in self.breaches:
            self.breach(name, "LOG009", 1, "no header: not a lock log, or an empty one")

    def merge(self, other: LogJudge) -> bool:
        """Take over what another judge saw in other logs, its runs numbered higher than all here.

        The result is that of reading those logs here.

        Returns:
            Whether it was done: not where a class has other flags there. Read the log here then.
        """
        for name, theirs in other._classes.items():
            if self._classes.get(name, theirs).bits != theirs.bits:
                return False
        self._classes = {**other._classes, **self._classes}
        self._made.clear()
        self.rules.merge(other.rules)
        self.runs.update(other.runs)
        self.headers.update(other.headers)
        for key, counted in other.deadlocks.items():
            known = self.deadlocks.setdefault(key, counted)
            if known is not counted:
                if TIERS.index(counted.finding.tier) > TIERS.index(known.finding.tier):
                    known.finding = counted.finding
                known.count += counted.count
                known.runs |= counted.runs
        for subject, count in other.refuted.items():
            self._drop(subject, count)
        self.kinds = {**other.kinds, **self.kinds}
        self.breaches.update(other.breaches)
        self.untrusted |= other.untrusted
        self.events += other.events
        self.unclassed += other.unclassed
        return True

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
        self._index += 1
        self.runs[self._index] = read.run
        self.headers[self._index] = {k: v for k, v in record.items() if isinstance(v, (str, int))}
        self.rules.begin(self._index)
        return _Run(self, log, self._index)

    def _close(self, run: _Run | None) -> None:
        """End a run: what it was stuck in, and its count."""
        if run is not None:
            self.events += run.events
            if run.index not in self.untrusted:
                self._end(run)
            # A run and its rules know each other, so it stays until the collector comes round.
            run.kept = []

    def _end(self, run: _Run) -> None:
        """Judge a whole run: what it was stuck in, and what it could have been stuck in."""
        run.lives.close()
        end = Standstill(run.index, run.threads, run.locks, run.sites)
        finding = end.deadlock() or end.lost_wakeup()
        if finding is not None:
            self._deadlock(finding, 1)
        if not self.window:
            return
        size_max, budget = self._limits
        said = forecast(run.kept, run, run.index, size_max=size_max, budget=budget)
        for each, count in said.findings:
            self._deadlock(each, count)
        for subject, count in said.dropped.items():
            self._drop(subject, count)
        if run.events > len(run.kept):
            self._drop(("no predictions beyond the window", f"of {self.window} events a run"), 1)

    def _drop(self, subject: tuple[str, str], count: int) -> None:
        self.refuted[subject] = self.refuted.get(subject, 0) + count

    def _deadlock(self, finding: Finding, count: int) -> None:
        """Count a deadlock; the surest of its kind, the first among equals, is kept."""
        sites = tuple(
            (w.outer_mode, w.inner_mode, w.outer_site, w.inner_site) for w in finding.edges
        )
        key = (finding.rule, finding.classes, sites)
        known = self.deadlocks.setdefault(key, Counted(finding, 0, set()))
        if TIERS.index(finding.tier) > TIERS.index(known.finding.tier):
            known.finding = finding
        known.count += count
        known.runs.add(finding.schedule)


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
        self.kinds: dict[int, str] = {}
        self.fair: set[int] = set()  # classes whose readers wait for waiting writers
        self.contexts = False  # some thread was inside one
        self.locks: dict[int, Lock] = {}
        self.threads: dict[int, Thread] = {}
        self.sites: dict[int, Site | None] = {0: None}
        self.stacks: dict[int, int] = {0: 0}
        self.kept: list[Event] = []
        self.lives = LockLives(self)

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
        room = self.judge.window - len(self.kept)
        if room > 0:
            self.kept += records[start : min(index, start + room)]  # type: ignore[arg-type]
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
            self.threads[read.id] = Thread(read.name or f"thread {read.id}")
        elif read.d == "cls":
            self.kinds[read.id] = read.kind
            if read.fair_read:
                self.fair.add(read.id)
            self.judge.kinds.setdefault(read.name, read.kind.lower())
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
            type_ = (read.type or self.kinds.get(read.cls, "")).lower()
            made = Lock(read.id, name, self.classes.get(read.cls), type_)
            made.fair = read.cls in self.fair
            self.locks[read.id] = made
        else:
            self.breach("LOG001", f"unknown definition {read.d!r}")

    def backwards(self, event: Event, seq: int, ts: float) -> None:
        """Note an event that is older than the one before it."""
        if event.seq <= seq:
            self.breach("LOG007", f"sequence {event.seq} after {seq}")
        else:
            self.breach("LOG007", f"time {event.ts} after {ts}")

    def thread(self, event: Event) -> Thread:
        """Return the thread of an event."""
        thread = self.threads.get(event.tid)
        if thread is None:
            self.breach("LOG003", f"thread {event.tid} is not defined")
            thread = self.threads[event.tid] = Thread(f"thread {event.tid}")
        elif thread.ended:
            self.breach("LOG006", f"{event.op} by {thread.name}, which has ended")
        return thread

    def lock(self, event: Event) -> Lock:
        """Return the lock of an event."""
        lock = self.locks.get(event.obj)
        if lock is None:
            if event.obj in self.lives.dead:
                return self.lives.touch_dead(event)
            self.breach("LOG003", f"lock {event.obj} is not defined")
            lock = self.locks[event.obj] = Lock(event.obj, f"lock {event.obj}", None, "")
        return lock

    def site(self, event: Event) -> Site | None:
        """Return the place of an event."""
        number = event.site or self.stacks.get(event.stk, 0)
        if number not in self.sites:
            self.breach("LOG003", f"site {number} is not defined")
            self.sites[number] = None
        return self.sites[number]

    def judge_acquisition(self, event: Event, thread: Thread, lock: Lock, *, attempt: bool) -> None:
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
        if lock.sharers and lock.fair and event.mode == "s" and event.tid in lock.sharers:
            self.lives.reads_again(event, lock, thread)
        lock_class = lock.lock_class
        if event.extra is not None or lock_class is None:
            if not is_limited(event):
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
        elif (asked.extra is not None or asked.op == "try") and is_limited(asked):
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
        if self.contexts:
            self.lives.inside(event, lock, self.place(event))

    def contended(self, event: Event, thread: Thread, lock: Lock) -> None:
        """Two threads cannot hold a lock in modes that exclude each other.

        One thread that takes its own lock again is for the lock rules to judge.
        """
        other = [tid for tid in lock.blockers(event.mode) if tid != event.tid]
        if other:
            holder = self.thread_name(other[0])
            self.breach("LOG005", f"{thread.name} acquired {lock.name} while {holder} holds it")

    def fail(self, event: Event) -> None:
        """Play ``fail``: the thread gave up."""
        thread = self.thread(event)
        asked, thread.asked = thread.asked, None
        if asked is not None and not is_limited(asked):
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
        if lock.pinned:
            self.lives.release_pinned(event, lock)
        if lock.lock_class is not None:
            self.released(thread.held, lock.number)

    def downgrade(self, event: Event) -> None:
        """Play ``down``: from exclusive to shared."""
        lock = self.lock(event)
        if lock.owner == event.tid:
            lock.owner = None
            lock.sharers[event.tid] = 1

    def life(self, event: Event) -> None:
        """Play what happens to a lock, or to the context of a thread."""
        if event.op.startswith("ctx"):
            self.contexts = True
        _LIVES[event.op](self.lives, event)

    def wait(self, event: Event) -> None:
        """Play ``wait``: what is still held here is kept while sleeping."""
        what = event.extra.get("what") if event.extra else None
        lock = self.locks.get(event.obj)
        name = what if isinstance(what, str) else lock.name if lock is not None else "an event"
        thread = self.thread(event)
        self.rules.waits(thread.held, self.site(event), name)
        if not is_limited(event) and what != "sleep":
            thread.asleep = event

    def wake(self, event: Event) -> None:
        """Play ``wake``."""
        self.thread(event).asleep = None

    def exit(self, event: Event) -> None:
        """Play ``exit``."""
        thread = self.thread(event)
        leaked(self, event, thread)
        thread.ended = True

    def lost(self, event: Event) -> None:
        """Play ``lost``."""
        count = event.extra.get("n", "some") if event.extra else "some"
        self.breach("LOG010", f"{count} events lost by the writer")

    # What the numbers mean, for those who look at the run as a whole: see logtrace.Names.

    def label(self, lock: int) -> str:
        """Name the class of a lock; the lock itself where it has none."""
        return self.locks[lock].label if lock in self.locks else f"lock {lock}"

    def instance(self, lock: int) -> str:
        """Name a lock or another object."""
        return self.locks[lock].name if lock in self.locks else f"lock {lock}"

    def type_of(self, obj: int) -> str:
        """Return the type of an object."""
        return self.locks[obj].type if obj in self.locks else ""

    def place(self, event: Event) -> Site | None:
        """Return the place of an event."""
        return self.sites.get(event.site or self.stacks.get(event.stk, 0))

    def since(self, lock: Lock, tid: int) -> Site | None:
        """Return where a thread acquired a lock that it holds."""
        return self.sites.get(lock.since.get(tid, 0))

    def other(self, event: Event) -> None:
        """Play what no class rule looks at."""
        self.thread(event)

    def thread_name(self, tid: int) -> str:
        """Return the name of a thread."""
        thread = self.threads.get(tid)
        return f"thread {tid}" if thread is None else thread.name


_HANDLERS: Final[dict[str, _Handler]] = {
    "req": _Run.request,
    "try": _Run.attempt,
    "acq": _Run.acquire,
    "fail": _Run.fail,
    "rel": _Run.release,
    "wait": _Run.wait,
    "exit": _Run.exit,
    "lost": _Run.lost,
    "wake": _Run.wake,
    "down": _Run.downgrade,
    **dict.fromkeys(
        ("sig", "bcast", "fork", "start", "join", "kill", "r", "w", "note"), _Run.other
    ),
    **dict.fromkeys(("up", "arm"), _Run.other),
    **dict.fromkeys(("new", "del", "assert", "pin", "unpin", "ctx+", "ctx-"), _Run.life),
}
_LIVES: Final[dict[str, Callable[[LockLives, Event], None]]] = {
    "new": LockLives.create,
    "del": LockLives.destroy,
    "assert": LockLives.claim,
    "pin": LockLives.pin,
    "unpin": LockLives.unpin,
    "ctx+": LockLives.enter,
    "ctx-": LockLives.leave,
}
