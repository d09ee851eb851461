"""One run as the predictor sees it: what constrains reordering, and nothing else."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from typing import Any, Final, NamedTuple

# Kinds of happenings.
ACQUIRE: Final = 0  # of a lock, once it is held
RELEASE: Final = 1
READ: Final = 2  # sees the last write of the same object
WRITE: Final = 3
JOIN: Final = 4  # sees the end of a thread
WAKE: Final = 5  # goes on after a sleep
FAIL: Final = 6  # wanted a lock that was held, and went on without it
STEP: Final = 7  # nothing but its place: a fork, a first event, a signal

# What a thread asks for while it holds more locks than these is left out (``Trace.cut``).
HELD_MAX: Final = 64


class Happening(NamedTuple):
    """One event of one thread.

    Attributes:
        thread: Dense index of the thread.
        position: Its place among the events of that thread, from 1.
        kind: ``ACQUIRE`` and so on.
        obj: The object, by the caller's number; of a join the thread's dense index.
        shared: Of an acquisition: whether readers may share it.
        blocking: Whether the thread could have been blocked here for ever.
        after: Indexes of the events of other threads that must have happened before.
        tag: The caller's; sites, for instance.
    """

    thread: int
    position: int
    kind: int
    obj: int
    shared: bool
    blocking: bool
    after: tuple[int, ...]
    tag: Any


class Request(NamedTuple):
    """Something that a thread may be blocked at, with what it holds there.

    Attributes:
        thread: Dense index of the thread.
        lock: The lock that is wanted, or None.
        shared: Whether it is wanted shared.
        provider: The thread that must go on first, where no lock is wanted; else -1.
        held: Each lock held, and whether shared; in the order of acquisition.
    """

    thread: int
    lock: int | None
    shared: bool
    provider: int
    held: tuple[tuple[int, bool], ...]


class Trace:
    """Built event by event, in the order of the run.

    Threads, locks and other objects are numbers of the caller's choosing; locks and other objects
    share one space of numbers.

    Attributes:
        threads: The caller's number of each thread, by dense index.
        events: What happened, in order.
        lanes: Indexes of the events of each thread.
        requests: Where threads could be blocked, with the events at which they were, in order. One
            that was never granted has the position behind the last event of its thread, and is no
            event.
        cut: Whether a request was left out because of all that its thread held.
        seen: Of each read, and of each wake-up by a flag: the event that wrote what it saw.
    """

    def __init__(self) -> None:
        """Start with no event."""
        self.threads: list[int] = []
        self.events: list[Happening] = []
        self.lanes: list[list[int]] = []
        self.requests: dict[Request, list[Happening]] = {}
        self.cut = False
        self.seen: dict[int, int] = {}
        self._dense: dict[int, int] = {}
        self._held: list[dict[int, list[bool]]] = []  # thread -> lock -> modes, outermost first
        self._keys: list[tuple[tuple[int, bool], ...] | None] = []
        self._owners: dict[int, dict[int, int]] = {}  # lock -> thread -> event that acquired it
        self._writes: dict[int, int] = {}  # object -> its last write
        self._serial: dict[int, int] = {}  # object -> last operation on it, where all are ordered
        self._signals: dict[int, list[int]] = {}  # object -> signals
        self._saw: dict[int, int] = {}  # flag -> who saw it last
        self._sets: dict[int, list[int]] = {}  # flag -> where it was set
        self._signallers: dict[int, set[int]] = {}
        self._asleep: dict[
            int, tuple[int, int, int]
        ] = {}  # thread -> object, signals before, event
        self._starts: dict[
            int, int
        ] = {}  # thread -> the fork that started it, until its first event
        self._interrupted: dict[int, list[int]] = {}  # thread -> interruptions since its last event
        self._sleepers: list[tuple[Request, Happening, int]] = []  # wake-ups, and their objects
        self._resumed = False
        self._signalled: Container[int] = ()

    def resume(
        self,
        held: Iterable[tuple[int, int, bool, Any]],
        threads: Iterable[int],
        signalled: Container[int] = (),
    ) -> None:
        """Begin in the middle of a run, with no event yet: nothing changes places with what was.

        Args:
            held: Thread, lock, whether shared, and tag of each lock that is held, by thread in the
                order of acquisition.
            threads: Those that have begun and not ended.
            signalled: Objects that were signalled before: a flag may be set ever since.
        """
        self._resumed, self._signalled = True, signalled
        last: list[int] = []
        for thread, lock, shared, tag in held:
            self._interrupted.setdefault(self._lane(thread), []).extend(last)
            self.acquire(thread, lock, tag, shared=shared, limited=True)
            last = [len(self.events) - 1]
        for thread in threads:
            self._add(self._lane(thread), STEP, 0, None, last)

    def _lane(self, thread: int) -> int:
        dense = self._dense.get(thread)
        if dense is None:
            dense = self._dense[thread] = len(self.threads)
            self.threads.append(thread)
            self.lanes.append([])
            self._held.append({})
            self._keys.append(())
        return dense

    def _add(
        self,
        thread: int,
        kind: int,
        obj: int,
        tag: Any,
        after: Sequence[int] = (),
        *,
        shared: bool = False,
        blocking: bool = False,
    ) -> Happening:
        """Append an event; what precedes it in its own thread is no constraint to keep."""
        lane = self.lanes[thread]
        if not lane and thread in self._starts:
            after = (*after, self._starts.pop(thread))
        if thread in self._interrupted:
            after = (*after, *self._interrupted.pop(thread))
        if after:
            events = self.events
            after = tuple(sorted({i for i in after if events[i].thread != thread}))
        made = Happening(thread, len(lane) + 1, kind, obj, shared, blocking, tuple(after), tag)
        lane.append(len(self.events))
        self.events.append(made)
        return made

    def _blocked(
        self, lane: int, event: Happening, lock: int | None, shared: bool, provider: int
    ) -> None:
        """Note where a thread could be blocked."""
        request = self._request(lane, lock, shared, provider)
        if request is not None:
            self.requests.setdefault(request, []).append(event)

    def _request(self, lane: int, lock: int | None, shared: bool, provider: int) -> Request | None:
        """What a thread asks for, unless it holds too much: that would cost as much each time."""
        if len(self._held[lane]) > HELD_MAX:
            self.cut = True
            return None
        return Request(lane, lock, shared, provider, self._held_key(lane))

    def _held_key(self, thread: int) -> tuple[tuple[int, bool], ...]:
        """Return what a thread holds; a lock held in both modes counts as exclusive."""
        key = self._keys[thread]
        if key is None:
            held = self._held[thread].items()
            key = self._keys[thread] = tuple((lock, all(modes)) for lock, modes in held)
        return key

    # ---- locks ------------------------------------------------------------------------------

    def acquire(
        self,
        thread: int,
        lock: int,
        tag: Any = None,
        *,
        shared: bool = False,
        limited: bool = False,
    ) -> None:
        """A thread took a lock; ``limited`` says that it would not have waited for ever.

        Taking a lock again that the thread holds, in whatever mode, is no event.
        """
        lane = self._lane(thread)
        held = self._held[lane]
        if lock in held:
            held[lock].append(shared)
            return
        made = self._add(lane, ACQUIRE, lock, tag, shared=shared, blocking=not limited)
        if not limited:
            self._blocked(lane, made, lock, shared, -1)
        held[lock] = [shared]
        self._keys[lane] = None
        self._owners.setdefault(lock, {})[lane] = len(self.events) - 1

    def wanted(self, thread: int, lock: int, tag: Any = None, *, shared: bool = False) -> None:
        """The run ended while a thread waited for a lock; the last event of its thread."""
        lane = self._lane(thread)
        if lock in self._held[lane]:
            return
        place = Happening(lane, len(self.lanes[lane]) + 1, ACQUIRE, lock, shared, True, (), tag)
        self._blocked(lane, place, lock, shared, -1)

    def release(self, thread: int, lock: int, tag: Any = None) -> None:
        """A thread gave a lock up."""
        lane = self._lane(thread)
        held = self._held[lane]
        modes = held.get(lock)
        if modes is None:
            return
        modes.pop()
        if modes:
            return
        del held[lock]
        self._keys[lane] = None
        self._add(lane, RELEASE, lock, tag)
        self._owners[lock].pop(lane, None)

    def fail(self, thread: int, lock: int, tag: Any = None) -> None:
        """A thread wanted a lock, and went on without it since others held it, or it did itself."""
        lane = self._lane(thread)
        owners = [event for owner, event in self._owners.get(lock, {}).items() if owner != lane]
        # Its own lock no thread gets, whatever others do.
        self._add(lane, STEP if lock in self._held[lane] else FAIL, lock, tag, owners)

    # ---- data -------------------------------------------------------------------------------

    def read(self, thread: int, obj: int, tag: Any = None) -> None:
        """A thread read an object."""
        lane = self._lane(thread)
        after = (self._writes[obj],) if obj in self._writes else ()
        self._add(lane, READ, obj, tag, after)
        self._sees(after)

    def _sees(self, after: Sequence[int]) -> None:
        """Note which write the last event saw."""
        if after:
            self.seen[len(self.events) - 1] = after[0]

    def write(self, thread: int, obj: int, tag: Any = None, *, update: bool = False) -> None:
        """A thread wrote an object; ``update``: all writes of it keep their order."""
        after = (self._writes[obj],) if update and obj in self._writes else ()
        self._add(self._lane(thread), WRITE, obj, tag, after)
        self._writes[obj] = len(self.events) - 1

    def ordered(self, thread: int, obj: int, tag: Any = None) -> None:
        """A thread used an object whose uses keep their order, such as a semaphore."""
        lane = self._lane(thread)
        after = (self._serial[obj],) if obj in self._serial else ()
        self._add(lane, STEP, obj, tag, after)
        self._serial[obj] = len(self.events) - 1

    # ---- threads and sleeps -----------------------------------------------------------------

    def interrupt(self, thread: int, other: int, tag: Any = None) -> None:
        """A thread interrupted another one: nothing that this one does later comes before."""
        self._add(self._lane(thread), STEP, 0, tag)
        self._interrupted.setdefault(self._lane(other), []).append(len(self.events) - 1)

    def fork(self, thread: int, child: int, tag: Any = None) -> None:
        """A thread started another one, whose first event follows."""
        self._add(self._lane(thread), STEP, 0, tag)
        self._starts[self._lane(child)] = len(self.events) - 1

    def join(self, thread: int, child: int, tag: Any = None, *, limited: bool = False) -> None:
        """A thread saw the end of another one."""
        lane, ended = self._lane(thread), self._lane(child)
        after = self.lanes[ended][-1:] or [self._starts.get(ended, 0)] * (ended in self._starts)
        made = self._add(lane, JOIN, ended, tag, after, blocking=not limited)
        if not limited:
            self._blocked(lane, made, None, False, ended)

    def sleep(self, thread: int, obj: int, tag: Any = None) -> None:
        """A thread went to sleep on an object, until somebody signals it."""
        lane = self._lane(thread)
        signals = self._signals.get(obj, [])
        # A signal that came too early stays too early: nobody knows what it would do otherwise.
        self._add(lane, STEP, obj, tag, signals[-1:])
        self._asleep[lane] = (obj, len(signals), len(self.events) - 1)

    def wake(self, thread: int, obj: int, tag: Any = None, *, limited: bool = False) -> None:
        """A thread went on: after all that was signalled meanwhile."""
        lane = self._lane(thread)
        # Who fell asleep before all this may have been signalled before it, too.
        limited = limited or (self._resumed and lane not in self._asleep)
        slept, since, _ = self._asleep.pop(lane, (obj, 0, 0))
        after = self._signals.get(obj, [])[since if slept == obj else 0 :]
        self._woken(lane, obj, tag, after, limited=limited or not after)

    def signal(self, thread: int, obj: int, tag: Any = None) -> None:
        """A thread signalled an object; who sleeps on it then may be woken by that."""
        lane = self._lane(thread)
        sleepers = [event for slept, _, event in self._asleep.values() if slept == obj]
        self._add(lane, STEP, obj, tag, sleepers)
        self._signals.setdefault(obj, []).append(len(self.events) - 1)
        self._signallers.setdefault(obj, set()).add(lane)

    def set_flag(self, thread: int, obj: int, tag: Any = None) -> None:
        """A thread set a flag that stays set, such as an event."""
        self.write(thread, obj, tag)
        self._sets.setdefault(obj, []).append(len(self.events) - 1)
        self._signallers.setdefault(obj, set()).add(self._dense[thread])

    def saw_flag(self, thread: int, obj: int, tag: Any = None, *, limited: bool = False) -> None:
        """A thread went on because a flag was set, at once or later."""
        lane = self._lane(thread)
        self._asleep.pop(lane, None)
        after = [self._writes[obj]] if obj in self._writes else []
        # Who goes on may take the flag along, so that those who saw it keep their order.
        earlier = [self._saw[obj]] if obj in self._saw else []
        limited = limited or not after or obj in self._signalled
        self._woken(lane, obj, tag, [*after, *earlier], limited=limited)
        self._saw[obj] = len(self.events) - 1
        self._sees(after)

    def _woken(self, lane: int, obj: int, tag: Any, after: Sequence[int], *, limited: bool) -> None:
        made = self._add(lane, WAKE, obj, tag, after, blocking=not limited)
        if not limited and made.after:
            request = self._request(lane, None, False, -1)
            if request is not None:
                self._sleepers.append((request, made, obj))

    def ends(self, event: Happening) -> Sequence[int]:
        """List the events after any of which a thread is no longer blocked at ``event``."""
        if event.kind == ACQUIRE:
            return ()
        return self._sets.get(event.obj, event.after) if event.kind == WAKE else event.after

    def close(self) -> None:
        """Finish: a sleeper waits for a thread where that one alone ever signals its object.

        In a stretch of a run: alone does so there; the caller must know of the rest.
        """
        for request, made, obj in self._sleepers:
            others = self._signallers.get(obj, set()) - {made.thread}
            if len(others) == 1:
                known = request._replace(provider=min(others))
                self.requests.setdefault(known, []).append(made)
        self._sleepers.clear()
