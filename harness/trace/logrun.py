"""One run of a lock log while its events are played into the lock rules.

An acquisition is judged when the lock is wanted, so that one that never came true counts too.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final, Protocol, TypeAlias

from harness.errors import UsageError
from harness.lockorder.classes import LockClass
from harness.lockorder.findings import EXCLUSIVE, SHARED, Finding
from harness.lockorder.rules import LockRules
from harness.trace.events import Site, Stack
from harness.trace.locklog import Definition, Event
from harness.trace.lockread import Record
from harness.trace.loghot import NANOSECONDS, LogHot
from harness.trace.lograces import LogRaces, is_lock
from harness.trace.logrules import LockLives, leaked
from harness.trace.logstate import HARMLESS, Lock, Thread, is_limited
from harness.trace.logtrace import Forecast, confirmed, forecast
from harness.trace.logwatch import BEGINNING, Before, Watch

_Handler: TypeAlias = Callable[["LogRun", Event], None]


class Judge(Protocol):
    """What a run needs of the judge of all runs; see ``logjudge.LogJudge``."""

    rules: LockRules
    kinds: dict[str, str]
    sites: dict[tuple[str, str, int, str, int], Site]
    untrusted: set[int]
    unclassed: int
    window: int
    limits: tuple[int, int]

    def breach(self, log: str, rule: str, line: int, message: str) -> None:
        """Note broken integrity."""

    def lock_class(self, name: str, flags: tuple[str, ...]) -> tuple[LockClass, str]:
        """Return the class of that name, and a complaint if it is known with other flags."""


class LogRun:
    """The state of one run while its events are played."""

    def __init__(self, judge: Judge, log: str, index: int, clock: str) -> None:
        """Start with nothing defined.

        Args:
            judge: What all runs share.
            log: Name of the log, for messages.
            index: Of the run.
            clock: What its time is.
        """
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
        # By number; a stack has its own, below 0.
        self.sites: dict[int, Site | None] = {0: None}
        self.stacked = False
        # Numbers that mean another lock by now, and the number that this one has here.
        self.reborn: dict[int, int] = {}
        self.generations: dict[int, int] = {}
        self.rebirths = 0
        # What predictions still look at, what came before that, and what they have said.
        self.kept: list[Event] = []
        self.watch = Watch()
        self.before, self.marks = BEGINNING, deque[Before]()
        self.begun: set[int] = set()
        self.foretold: list[Forecast] = []
        self.races: LogRaces | None = None  # from the first object that is no lock
        unit = NANOSECONDS.get(clock)
        self.hot = None if unit is None else LogHot(self, unit)
        self.lives = LockLives(self)

    def play(self, records: list[Record], start: int, first: int) -> int:
        """Play events up to a record that is none; return its index.

        Args:
            records: Records of a log.
            start: Index of the first one to play.
            first: Line of the record of index 0.
        """
        if self.stacked or self.reborn:
            self._rename(records, start)
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
        if self.judge.window:
            self._keep(records[start:index])  # type: ignore[arg-type]
        if self.races is not None:
            self.races.play(records[start:index])  # type: ignore[arg-type]
        if self.hot is not None:
            self.hot.play(records[start:index])  # type: ignore[arg-type]
        return index

    def _keep(self, events: list[Event]) -> None:
        """Keep events for predictions; as a window is full and more come, judge it, drop half."""
        half = (self.judge.window + 1) // 2
        at = 0
        while at < len(events):
            more = events[at : at + half - self.watch.events % half]
            at += len(more)
            if len(self.kept) == 2 * half:
                self._foresee(whole=False)
                del self.kept[:half]
                self.before = self.marks.popleft()
            self.kept += more
            self.watch.add(more)
            if self.watch.events % half == 0:
                self.begun.update(event.tid for event in self.kept[-half:])
                self.marks.append(self.watch.now(self.begun, self.kept[-half:]))

    def _foretell(self, *, whole: bool) -> Forecast | None:
        """Predict what the kept events could have come to."""
        if not self.watch.may_circle():
            return None
        size_max, budget = self.judge.limits
        return forecast(
            self.kept,
            self,
            self.index,
            size_max=size_max,
            budget=budget,
            before=self.before,
            whole=whole,
            signals=self.watch.signals,
        )

    def _foresee(self, *, whole: bool) -> None:
        """Keep what is predicted."""
        told = self._foretell(whole=whole)
        if told is not None:
            self.foretold.append(told)

    def sure(self, *, all_of_it: bool) -> Iterator[Finding]:
        """Give what is predicted so far, and stays so whatever follows.

        Args:
            all_of_it: Look at the events since the last window, too.
        """
        if self.index in self.judge.untrusted:
            return
        forecasts = list(self.foretold)
        if all_of_it and self.judge.window and self.kept:
            forecasts += filter(None, [self._foretell(whole=False)])
        for each in forecasts:
            # Where it waits for a signal somebody else may give that yet.
            yield from (told.finding for told in each.findings if not told.signals)

    def close(self) -> None:
        """Judge what can be told only of a whole run."""
        if self.judge.window:
            self._foresee(whole=not self.before.events)
            self.foretold[:] = [confirmed(each, self.watch) for each in self.foretold]
        self.lives.close()
        if self.races is not None:
            self.races.close()
        if self.hot is not None:
            self.hot.close()

    def breach(self, rule: str, message: str) -> None:
        """Note broken integrity at the current line."""
        self.judge.breach(self.log, rule, self.line, message)
        if rule not in HARMLESS:
            self.judge.untrusted.add(self.index)

    def define(self, read: Definition) -> None:
        """Give a number its meaning."""
        if read.id < 0 and read.d in ("site", "stk"):
            self.breach("LOG001", f"{read.d} {read.id}: a number below 0")
        elif read.d == "site":
            key = (read.m, read.fn, read.o, read.f, read.l)
            self.sites[read.id] = self.judge.sites.get(key) or self.judge.sites.setdefault(
                key, Site(*key)
            )
        elif read.d == "stk":
            self._define_stack(read)
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
            number = self._number(read)
            made = Lock(number, name, self.classes.get(read.cls), type_)
            made.fair = read.cls in self.fair
            if self.races is None and not read.cls and not is_lock(type_):
                self.races = LogRaces(self)
            self.locks[number] = made
        else:
            self.breach("LOG001", f"unknown definition {read.d!r}")

    def _number(self, read: Definition) -> int:
        """Return a number for a lock that no other one ever had: an address lives again."""
        number = self.reborn.get(read.id, read.id)
        before = self.generations.get(read.id, read.gen)
        self.generations[read.id] = read.gen
        if number in self.lives.dead or before != read.gen:
            self.rebirths += 1
            number = self.reborn[read.id] = -self.rebirths
        return number

    def _define_stack(self, read: Definition) -> None:
        """Give the number of a stack its meaning."""
        known = [site for number in read.s if (site := self.sites.get(number)) is not None]
        if len(known) < len(read.s):
            self.breach("LOG003", f"stack {read.id} is of sites that are not defined")
        elif known:
            top, callers = known[0], tuple(known[1:])
            place = (top.module, top.qualname, top.ordinal, top.file, top.line)
            self.sites[-read.id] = Stack(*place, callers)
            self.stacked = True

    def _rename(self, records: list[Record], start: int) -> None:
        """Let events, up to a record that is none, use numbers that are never used again.

        One that has a stack names that as its place.
        """
        reborn = self.reborn
        for event in itertools.islice(records, start, None):
            if type(event) is not Event:
                break
            if -event.stk in self.sites and event.stk:
                event.site = -event.stk
            if event.obj in reborn and event.op not in _OF_THREADS:
                event.obj = reborn[event.obj]

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
        number = event.site
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
        known = self.locks.get(lock)
        if known is None and lock in self.lives.dead:
            known = self.lives.dead[lock][0]
        return f"lock {lock}" if known is None else known.name

    def type_of(self, obj: int) -> str:
        """Return the type of an object."""
        return self.locks[obj].type if obj in self.locks else ""

    def place(self, event: Event) -> Site | None:
        """Return the place of an event."""
        return self.sites.get(event.site)

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


_OF_THREADS: Final = ("fork", "join", "kill")
_HANDLERS: Final[dict[str, _Handler]] = {
    "req": LogRun.request,
    "try": LogRun.attempt,
    "acq": LogRun.acquire,
    "fail": LogRun.fail,
    "rel": LogRun.release,
    "wait": LogRun.wait,
    "exit": LogRun.exit,
    "lost": LogRun.lost,
    "wake": LogRun.wake,
    "down": LogRun.downgrade,
    **dict.fromkeys(
        ("sig", "bcast", "fork", "start", "join", "kill", "r", "w", "note"), LogRun.other
    ),
    **dict.fromkeys(("up", "arm"), LogRun.other),
    **dict.fromkeys(("new", "del", "assert", "pin", "unpin", "ctx+", "ctx-"), LogRun.life),
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
