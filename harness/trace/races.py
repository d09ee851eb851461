"""Data races on ``Shared`` cells: two accesses, one of them a write, that nothing orders.

Every thread has a vector clock; what one thread does *happens before* what another does where an
operation of the one is known to the other: a lock given up and then taken, an event set and then
waited for, a store that a load may have seen, a thread started or joined. An access races with an
earlier one of the same cell that does not happen before it. Whether the two came one right after
the other does not matter, so nearly every schedule shows a race that the program has.

The clocks follow the stream of steps, as any recorder sees it; the primitives know nothing of them,
and pay nothing where nobody looks for races.

The clocks themselves, and what races by them, are those of the audit: see ``clocks``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any, Final, NamedTuple

from harness.engine.core import Core
from harness.engine.finding import PACKAGE, Finding, place
from harness.engine.thread import Recorder, Thread
from harness.engine.view import View
from harness.trace.clocks import Access, Cell, Clock, Clocks, join
from harness.trace.site import site_of

_FRAMES_MAX: Final = 6
_KINDS: Final = ("get", "set")
# Of a read, and of a write.
_WORDS: Final = (("reads", "read"), ("writes", "write"))


class _Where(NamedTuple):
    """Whose access, in which step, where, and which of the locks it held for reading only."""

    thread: Thread
    step: int
    stack: Sequence[tuple[Any, int]]
    reading: Sequence[object]


class RaceRecorder:
    """Sees every step, keeps the clocks, and ends the schedule at the first race.

    See ``engine.thread.Recorder``.
    """

    def __init__(self, core: Core, *, stacks: bool) -> None:
        """Follow a schedule that is about to run.

        Args:
            core: The engine.
            stacks: Keep the whole stack of each access, not only its place.
        """
        self._core = core
        self._stacks = stacks
        self._clocks = Clocks()
        self._known = self._clocks.known
        self._rounds: dict[int, Clock] = {}
        self._interrupts: dict[int, Clock] = {}
        self._cells: dict[Any, Cell] = {}
        self._places: dict[int, Sequence[tuple[Any, int]]] = {}
        self._parents: list[Thread] = []
        # What can be told only after the step's effect.
        self._after: Callable[[], None] | None = None
        self._granted: Callable[[], None] | None = None

    # -- what the engine calls ------------------------------------------------------------------

    def publish(self, thread: Thread) -> None:
        """``thread`` has announced its next operation: note where it stands."""
        self._settle()
        clock = self._clocks.clock(thread.index)
        if thread in self._parents:
            # A `parallel` call has returned: all of its threads have ended.
            self._parents.remove(thread)
            for other in self._core.threads:
                if other.group is not None and other.group.parent is thread and other.done:
                    join(clock, self._clocks.of.get(other.index, ()))
        if thread.kind in _KINDS:
            self._places[thread.index] = _stack() if self._stacks else (place(),)

    def step(self, thread: Thread, steps: int) -> None:
        """``thread`` takes step number ``steps``."""
        self._settle()
        kind = thread.kind
        if kind in _KINDS:
            self._accessed(thread, steps)
            return
        edge = _EDGES.get(kind)
        if edge is not None:
            edge(self, thread, self._clocks.clock(thread.index))

    def outcome(self, value: object) -> None:
        """The operation of the last step returned ``value``."""
        if self._granted is not None:
            if value is True:
                self._granted()
            self._granted = None

    def note(self, text: str) -> None:
        """Remarks order nothing."""

    def claim(self, lock: object, what: str) -> None:
        """Neither does what a thread says of itself."""

    def observe(self, view: View) -> None:
        """Nobody looks at pictures while races are looked for."""

    def ended(self) -> None:
        """All that can race has."""

    def freeze(self) -> None:
        """What follows is no part of the schedule."""

    # -- clocks ---------------------------------------------------------------------------------

    def _settle(self) -> None:
        """Look at what the last step has done, now that it has."""
        after = self._after
        self._after = self._granted = None
        if after is not None:
            after()

    def _tell(self, thread: Thread, what: Clock) -> None:
        join(self._clocks.clock(thread.index), what)

    # -- what orders ----------------------------------------------------------------------------

    def _take(self, thread: Thread, clock: Clock) -> None:
        """A lock is taken, unless it is not free: then time ran out, or the attempt fails."""
        if thread.obj.owner is None:
            join(clock, self._known.get(thread.obj, ()))

    def _give(self, thread: Thread, clock: Clock) -> None:
        """A lock is given up: its next owner knows."""
        self._clocks.publish(thread.obj, thread.index)

    def _read(self, thread: Thread, clock: Clock) -> None:
        """A reader knows what writers did."""
        join(clock, self._known.get(thread.obj, ()))

    def _read_end(self, thread: Thread, clock: Clock) -> None:
        """What a reader did is known to writers only."""
        self._clocks.publish((thread.obj, "readers"), thread.index)

    def _write(self, thread: Thread, clock: Clock) -> None:
        """A writer knows what writers and readers did."""
        join(clock, self._known.get(thread.obj, ()))
        join(clock, self._known.get((thread.obj, "readers"), ()))

    def _wait(self, thread: Thread, clock: Clock) -> None:
        self._sleep(thread, clock, thread.obj.mutex)

    def _queue_block(self, thread: Thread, clock: Clock) -> None:
        if thread.releasing is not None:
            self._sleep(thread, clock, thread.releasing)
        self._interrupted(thread, clock)

    def _sleep(self, thread: Thread, clock: Clock, lock: Any) -> None:
        """A wait gives its lock up; taken a second time, its time is up and it may take it back."""
        if lock.owner is thread:
            self._clocks.publish(lock, thread.index)
        elif lock.owner is None:
            join(clock, self._known.get(lock, ()))

    def _wake(self, thread: Thread, clock: Clock) -> None:
        """Who sleeps now and is woken by this step knows of it."""
        asleep = [other for other in self._core.threads if other.obj is thread.obj]
        asleep = [other for other in asleep if other is not thread and not other.released]
        told = self._clocks.told(thread.index)

        def after() -> None:
            for other in asleep:
                if other.released:
                    self._tell(other, told)

        self._after = after

    def _event_set(self, thread: Thread, clock: Clock) -> None:
        self._wake(thread, clock)
        self._clocks.publish(thread.obj, thread.index)

    def _event_clear(self, thread: Thread, clock: Clock) -> None:
        """Who waits from here on waits for another ``set``."""
        self._known.pop(thread.obj, None)

    def _event_seen(self, thread: Thread, clock: Clock) -> None:
        event = thread.obj
        if thread.kind == "event-wait":
            self._interrupted(thread, clock)
        if event.peek():
            join(clock, self._known.get(event, ()))

            def after() -> None:
                if not event.peek():
                    # This thread has consumed the signal.
                    self._known.pop(event, None)

            self._after = after

    def _sem_acquire(self, thread: Thread, clock: Clock) -> None:
        if thread.obj.peek() > 0:
            join(clock, self._known.get(thread.obj, ()))

    def _arrive(self, thread: Thread, clock: Clock) -> None:
        """Who leaves the barrier in this round knows who arrived in it."""
        if thread.obj.broken:
            join(clock, self._known.get(thread.obj, ()))
        elif thread.obj.n_waiting == 0:
            self._known[thread.obj] = []
        self._clocks.publish(thread.obj, thread.index)
        self._rounds[thread.index] = self._known[thread.obj]

    def _leave(self, thread: Thread, clock: Clock) -> None:
        join(clock, self._rounds.get(thread.index, ()))

    def _load(self, thread: Thread, clock: Clock) -> None:
        join(clock, self._known.get(thread.obj, ()))

    def _store(self, thread: Thread, clock: Clock) -> None:
        """A later load sees this store, and none before it."""
        self._clocks.store(thread.obj, thread.index)

    def _exchange(self, thread: Thread, clock: Clock) -> None:
        self._load(thread, clock)
        self._store(thread, clock)

    def _compare_exchange(self, thread: Thread, clock: Clock) -> None:
        """A read; where it succeeds, a write too."""
        self._load(thread, clock)
        self._granted = lambda: self._store(thread, clock)

    def _start(self, thread: Thread, clock: Clock) -> None:
        """What is started in this step knows what its parent knows."""
        self._clocks.inherited = self._clocks.told(thread.index)
        if thread.kind == "parallel":
            self._parents.append(thread)

    def _join_thread(self, thread: Thread, clock: Clock) -> None:
        if thread.obj.done:
            join(clock, self._clocks.of.get(thread.obj.index, ()))

    def _interrupt(self, thread: Thread, clock: Clock) -> None:
        """The other knows of it once its wait ends for it, now or when it next begins one."""
        target: Thread = thread.obj
        before = (target.excused, target.kind)
        told = self._clocks.told(thread.index)

        def after() -> None:
            if (target.excused, target.kind) != before:
                self._tell(target, told)
            elif target.interrupted:
                join(self._interrupts.setdefault(target.index, []), told)

        self._after = after

    def _interrupted(self, thread: Thread, clock: Clock) -> None:
        if thread.interrupted:
            join(clock, self._interrupts.pop(thread.index, ()))

    # -- accesses -------------------------------------------------------------------------------

    def _accessed(self, thread: Thread, steps: int) -> None:
        clock = self._clocks.clock(thread.index)
        cell = self._cells.setdefault(thread.obj, Cell())
        writes, held = thread.kind == "set", tuple(thread.held)
        reading = [lock for lock in held if getattr(lock, "writer", thread) is not thread]
        where = _Where(thread, steps, self._places.get(thread.index, ()), reading)
        access = Access(thread.index, clock[thread.index], writes, held, where)
        rival = cell.rival(access, clock)
        if rival is not None:
            self._found(cell, rival, access)
        cell.enter(access, clock)

    def _found(self, cell: Cell, rival: Access, access: Access) -> None:
        """End the schedule.

        Raises:
            ScheduleAborted: Always; the finding is recorded.
        """
        core = self._core
        cur, thread = core.cur, access.tag.thread
        if thread is not cur and cur.enabled and not cur.done and core.costs(thread):
            # The step that is never taken was chosen all the same.
            core.preemptions += 1
            core.handovers -= 1
        frames = [entry.tag.stack[0] for entry in (rival, access) if entry.tag.stack]
        message = self._message(cell, rival, access)
        core.fail(Finding("data-race", message, thread, frames=frames))

    def _message(self, cell: Cell, rival: Access, access: Access) -> str:
        label = self._core.label
        there, here = rival.tag, access.tag
        name = label(here.thread.obj)
        doing, did = _WORDS[access.writes][0], _WORDS[rival.writes][1]
        lines = [f"{here.thread.name} {doing} {name}, and nothing orders that"]
        lines[0] += f" with the {did} by {there.thread.name} in step {there.step}"
        for entry in (rival, access):
            reading = entry.tag.reading
            held = ", ".join(
                label(lock) + (" (for reading)" if lock in reading else "") for lock in entry.held
            )
            who = entry.tag.thread.name
            lines.append(f"{who} {_WORDS[entry.writes][0]} it with {held or 'no lock'} held:")
            lines += [f"  {_shown(frame)}" for frame in entry.tag.stack]
        # One alone is the rival itself, whose locks are no rule.
        usual = cell.usual((rival, access)) if cell.accesses > 1 else []
        for lock, count in usual:
            lines.append(f"{label(lock)} was held at {count} of {cell.accesses} other accesses")
        return "\n".join(lines)


_EDGES: Final[dict[str, Callable[[RaceRecorder, Thread, Clock], None]]] = {
    "acquire": RaceRecorder._take,
    "try-acquire": RaceRecorder._take,
    "re-acquire": RaceRecorder._take,
    "release": RaceRecorder._give,
    "read-acquire": RaceRecorder._read,
    "read-release": RaceRecorder._read_end,
    "write-acquire": RaceRecorder._write,
    "write-release": RaceRecorder._give,
    "wait": RaceRecorder._wait,
    "queue-block": RaceRecorder._queue_block,
    "queue-wake": RaceRecorder._wake,
    "event-set": RaceRecorder._event_set,
    "event-clear": RaceRecorder._event_clear,
    "event-is-set": RaceRecorder._event_seen,
    "event-wait": RaceRecorder._event_seen,
    "sem-acquire": RaceRecorder._sem_acquire,
    "sem-release": RaceRecorder._give,
    "barrier-arrive": RaceRecorder._arrive,
    "barrier-leave": RaceRecorder._leave,
    "barrier-abort": RaceRecorder._give,
    "barrier-reset": RaceRecorder._give,
    "load": RaceRecorder._load,
    "store": RaceRecorder._store,
    "exchange": RaceRecorder._exchange,
    "fetch-add": RaceRecorder._exchange,
    "compare-exchange": RaceRecorder._compare_exchange,
    "spawn": RaceRecorder._start,
    "parallel": RaceRecorder._start,
    "join": RaceRecorder._join_thread,
    "interrupt": RaceRecorder._interrupt,
}


class Both:
    """Two recorders as one; the first sees everything first."""

    def __init__(self, first: Recorder, second: Recorder) -> None:
        """Args: first: The recorder of the story. second: One that may end the schedule."""
        self._first = first
        self._second = second

    def publish(self, thread: Thread) -> None:
        """See ``engine.thread.Recorder``."""
        self._first.publish(thread)
        self._second.publish(thread)

    def step(self, thread: Thread, steps: int) -> None:
        """See ``engine.thread.Recorder``."""
        self._first.step(thread, steps)
        self._second.step(thread, steps)

    def outcome(self, value: object) -> None:
        """See ``engine.thread.Recorder``."""
        self._first.outcome(value)
        self._second.outcome(value)

    def note(self, text: str) -> None:
        """See ``engine.thread.Recorder``."""
        self._first.note(text)

    def claim(self, lock: object, what: str) -> None:
        """See ``engine.thread.Recorder``."""
        self._first.claim(lock, what)

    def observe(self, view: View) -> None:
        """See ``engine.thread.Recorder``."""
        self._first.observe(view)

    def ended(self) -> None:
        """See ``engine.thread.Recorder``."""
        self._first.ended()

    def freeze(self) -> None:
        """See ``engine.thread.Recorder``."""
        self._first.freeze()


def _stack() -> Sequence[tuple[Any, int]]:
    """The program's frames of the calling thread, the innermost first."""
    frames: list[tuple[Any, int]] = []
    frame: FrameType | None = sys._getframe(2)
    while frame is not None and len(frames) < _FRAMES_MAX:
        inside = frame.f_code.co_filename.startswith(PACKAGE)
        if inside and frames:
            break
        if not inside:
            frames.append((frame.f_code, frame.f_lasti))
        frame = frame.f_back
    return tuple(frames) or ((None, 0),)


def _shown(frame: tuple[Any, int]) -> str:
    site = site_of(frame)
    return "an unknown place" if site is None else f"{site} in {site.qualname}"
