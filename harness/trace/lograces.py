"""Data races in the log of a run, by the clocks that judge live runs.

``RACE001``: two accesses of a cell, one of them a write, that nothing orders; see ``clocks``. No
schedule is made that brings them side by side, so it is ``possible``.

``RACE002``: an exception to the lock that nearly all accesses of a cell are under, kept apart from
another one by nothing but the order of critical sections. Forks, joins, signals, and who read what
from whom would allow the other order; what the program hands over outside of what was logged may
still forbid it, so this is ``latent``. References: Savage et al., "Eraser", TOCS 1997; O'Callahan
and Choi, "Hybrid Dynamic Data Race Detection", PPoPP 2003. We depart from the first in that a lock
becomes the rule by being held nearly always, from the second in that a reader comes after the write
that it saw, so that what was published before is no race.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol

from harness.lockorder.findings import Finding, Witness
from harness.lockorder.rules import LockRules
from harness.trace.clocks import Access, Cell, Clock, Clocks, join
from harness.trace.events import Site
from harness.trace.locklog import Event
from harness.trace.logstate import Lock

_DOES: Final = ("read", "write")
_SAID: Final = ("reads", "writes")
CELL: Final = "shared"
"""Type of an object whose accesses are judged; those of others only order."""
_LOCKS: Final = ("", "mutex", "spinlock", "rwlock", "lock", "rlock")
# A lock is the rule of a cell where it is held at so many of ten accesses.
_NEARLY_ALWAYS: Final = 9


def is_lock(kind: str) -> bool:
    """Tell the type of an object with which no race begins: logs of locks alone cost nothing."""
    return kind in _LOCKS


class Run(Protocol):
    """What the rules need of a run."""

    index: int
    rules: LockRules
    locks: dict[int, Lock]

    def place(self, event: Event) -> Site | None:
        """Return the place of an event."""

    def since(self, lock: Lock, tid: int) -> Site | None:
        """Return where a thread acquired a lock that it holds."""

    def instance(self, lock: int) -> str:
        """Name a lock or another object."""

    def thread_name(self, tid: int) -> str:
        """Name a thread."""


class _Hold(NamedTuple):
    """A lock that a thread holds."""

    lock: int
    shared: bool
    site: Site | None


class _Where(NamedTuple):
    """An access, as a report shows it."""

    event: Event
    since: Site | None


class LogRaces:
    """Follows the events of one run, from its first object that is no lock on.

    What happened before that orders no two accesses, and nobody waits for a signal.
    """

    def __init__(self, run: Run) -> None:
        """Begin where the locks of ``run`` stand now."""
        self._run = run
        self._clocks = Clocks()  # all that orders
        self._causes = Clocks()  # without the order of critical sections
        self._both = (self._clocks, self._causes)
        self._cells: dict[int, Cell] = {}
        # Cell -> its past accesses, and which pairs of them only locks kept apart.
        self._pasts: dict[int, dict[Any, Access]] = {}
        self._apart: dict[tuple[int, Site | None, Site | None], tuple[Access, Access]] = {}
        self._dense: dict[int, int] = {}
        self._tids: list[int] = []
        self._held: dict[int, list[_Hold]] = {}
        self._asleep: dict[int, int] = {}  # thread -> what it sleeps on
        self._woken: dict[tuple[int, int], list[Clock]] = {}  # (which clocks, thread)
        self._rounds: dict[int, int] = {}  # barrier -> rounds that were left
        self._round: dict[int, tuple[int, int]] = {}  # thread -> the round that it has arrived in
        for number, lock in run.locks.items():
            for tid in (*([] if lock.owner is None else [lock.owner]), *lock.sharers):
                self._held.setdefault(tid, []).append(
                    _Hold(number, lock.owner != tid, run.since(lock, tid))
                )

    def play(self, events: Iterable[Event]) -> None:
        """Follow events that the run has just played."""
        dense, plays = self._dense, _PLAYS
        for event in events:
            play = plays.get(event.op)
            if play is not None:
                me = dense.get(event.tid)
                play(self, self._meet(event.tid) if me is None else me, event)

    def _meet(self, tid: int) -> int:
        me = self._dense.get(tid)
        if me is None:
            me = self._dense[tid] = len(self._tids)
            self._tids.append(tid)
        return me

    def _type(self, obj: int) -> str:
        lock = self._run.locks.get(obj)
        return "" if lock is None else lock.type

    # ---- what orders ------------------------------------------------------------------------

    def _acquire(self, me: int, event: Event) -> None:
        shared = event.mode == "s"
        self._clocks.learn(event.obj, me)
        if not shared:
            self._clocks.learn((event.obj, "readers"), me)
        hold = _Hold(event.obj, shared, self._run.place(event))
        self._held.setdefault(event.tid, []).append(hold)

    def _release(self, me: int, event: Event) -> None:
        held = self._held.get(event.tid, [])
        at = next((at for at in reversed(range(len(held))) if held[at].lock == event.obj), None)
        shared = at is not None and held.pop(at).shared
        self._clocks.publish((event.obj, "readers") if shared else event.obj, me)

    def _downgrade(self, me: int, event: Event) -> None:
        self._clocks.publish(event.obj, me)
        held = self._held.get(event.tid, [])
        held[:] = [h._replace(shared=True) if h.lock == event.obj else h for h in held]

    def _fork(self, me: int, event: Event) -> None:
        child = self._meet(event.obj)
        for clocks in self._both:
            clocks.born[child] = clocks.told(me)

    def _join(self, me: int, event: Event) -> None:
        child = self._meet(event.obj)
        for clocks in self._both:
            join(clocks.clock(me), clocks.clock(child))

    def _sleep(self, _: int, event: Event) -> None:
        self._asleep[event.tid] = event.obj

    def _wake(self, me: int, event: Event) -> None:
        """Who goes on knows who woke it, and what a flag or a counter says."""
        self._asleep.pop(event.tid, None)
        kind = self._type(event.obj)
        for which, clocks in enumerate(self._both):
            for told in self._woken.pop((which, me), ()):
                join(clocks.clock(me), told)
            if kind == "barrier":
                clocks.learn(self._round.get(me), me)
                clocks.known.pop((event.obj, self._left(me, event.obj) - 2), None)
            elif kind in ("event", "semaphore"):
                clocks.learn(event.obj, me)

    def _signal(self, me: int, event: Event) -> None:
        """Whoever sleeps there may be woken by it, and others may see it later.

        A condition orders by its mutex alone, as in a live run; that order is none of the causes.
        """
        kind = self._type(event.obj)
        sleepers = [tid for tid, obj in self._asleep.items() if obj == event.obj]
        if kind == "barrier":
            self._round[me] = self._current(event.obj)
        for which, clocks in enumerate(self._both):
            if kind == "barrier":
                clocks.publish(self._round[me], me)
                continue
            if kind in ("event", "semaphore"):
                clocks.publish(event.obj, me)
            if sleepers and not (kind == "condition" and clocks is self._clocks):
                told = clocks.told(me)
                for tid in sleepers:
                    self._woken.setdefault((which, self._meet(tid)), []).append(told)

    def _current(self, barrier: int) -> tuple[int, int]:
        """Who arrives now is known to those who leave in the same round."""
        return (barrier, self._rounds.get(barrier, 0))

    def _left(self, me: int, barrier: int) -> int:
        """A thread leaves: the next one to arrive begins another round. Returns its number."""
        _, mine = self._round.get(me, (barrier, 0))
        self._rounds[barrier] = max(self._rounds.get(barrier, 0), mine + 1)
        return self._rounds[barrier]

    def _kill(self, me: int, event: Event) -> None:
        target = self._meet(event.obj)
        for which, clocks in enumerate(self._both):
            self._woken.setdefault((which, target), []).append(clocks.told(me))

    def _new(self, _: int, event: Event) -> None:
        """Another object may have had the number before."""
        for clocks in self._both:
            clocks.known.pop(event.obj, None)
            clocks.known.pop((event.obj, "readers"), None)
        self._cells.pop(event.obj, None)
        self._pasts.pop(event.obj, None)

    # ---- accesses ---------------------------------------------------------------------------

    def _read(self, me: int, event: Event) -> None:
        if self._type(event.obj) == CELL:
            self._accessed(me, event, writes=False)
            # Any other order would have shown this reader another value.
            self._causes.learn(event.obj, me)
        else:
            for clocks in self._both:
                clocks.learn(event.obj, me)

    def _write(self, me: int, event: Event) -> None:
        kind = self._type(event.obj)
        if kind == CELL:
            self._accessed(me, event, writes=True)
            self._causes.store(event.obj, me)
        elif kind == "event":
            # Cleared: who waits from here on waits for another signal.
            for clocks in self._both:
                clocks.known.pop(event.obj, None)
        elif kind == "barrier":
            # Reset, or broken: who waits there leaves and knows of it.
            for clocks in self._both:
                clocks.publish(self._current(event.obj), me)
        else:
            for clocks in self._both:
                clocks.store(event.obj, me)

    def _accessed(self, me: int, event: Event, *, writes: bool) -> None:
        holds = self._held.get(event.tid, ())
        held = tuple((hold.lock, hold.shared) for hold in holds)
        where = _Where(event, holds[-1].site if holds else None)
        clock, cause = self._clocks.clock(me), self._causes.clock(me)
        cell = self._cells.get(event.obj)
        if cell is None:
            cell = self._cells[event.obj] = Cell()
        access = Access(me, clock[me], writes, held, where)
        rival = cell.rival(access, clock)
        if rival is not None:
            self._races(cell, rival, access)
        cell.enter(access, clock)
        past = self._pasts.setdefault(event.obj, {})
        caused = access._replace(time=cause[me], tag=access)
        for other in _kept_apart(past, caused, cause):
            # What nothing orders at all has been told.
            if other.tag.before(clock):
                place = self._run.place
                key = (event.obj, place(other.tag.tag.event), place(event))
                self._apart.setdefault(key, (other.tag, access))
        _remember(past, caused, cause)

    def close(self) -> None:
        """The run has ended: which lock is the rule of which cell can be told only now."""
        run = self._run
        for (obj, _, _), (one, two) in self._apart.items():
            cell = self._cells.get(obj)
            if cell is None:
                continue  # another one has its number now
            for (lock, _), count in cell.usual((one, two)):
                if 10 * count >= _NEARLY_ALWAYS * cell.accesses:
                    who = [run.thread_name(self._tids[access.thread]) for access in (one, two)]
                    message = (
                        f"{run.instance(lock)} is held at {count} of {cell.accesses} accesses of "
                        f"{run.instance(obj)}, and not at both of these: {who[0]} "
                        f"{_SAID[one.writes]} it, later {who[1]} {_SAID[two.writes]} it, and only "
                        "the order of critical sections kept them apart"
                    )
                    self._record("RACE002", "UnprotectedAccess", "latent", message, one, two)

    def _races(self, cell: Cell, one: Access, two: Access) -> None:
        """Report a race; the second access is the last one."""
        run = self._run
        name = run.instance(two.tag.event.obj)
        who = [run.thread_name(self._tids[access.thread]) for access in (one, two)]
        message = (
            f"{who[1]} {_SAID[two.writes]} {name}, and nothing orders that with the "
            f"{_DOES[one.writes]} by {who[0]}"
        )
        for (lock, _), count in cell.usual((one, two)):
            message += f"; {run.instance(lock)} was held at {count} of {cell.accesses} others"
        self._record("RACE001", "DataRace", "possible", message, one, two)

    def _record(
        self, rule: str, result: str, tier: str, message: str, one: Access, two: Access
    ) -> None:
        name = self._run.instance(two.tag.event.obj)
        edges = [self._witness(name, access) for access in (one, two)]
        # Who came first differs from run to run; the finding is the same.
        edges.sort(key=lambda edge: (repr(edge.inner_site), edge.inner_mode))
        found = Finding(
            rule=rule,
            result=result,
            tier=tier,
            message=message,
            classes=(name,),
            edges=tuple(edges),
            schedule=self._run.index,
            thread=self._run.thread_name(self._tids[two.thread]),
        )
        self._run.rules.record(found)

    def _witness(self, name: str, access: Access) -> Witness:
        """Describe an access: under which locks, the last of them since when."""
        run, where = self._run, access.tag
        return Witness(
            outer=", ".join(run.instance(lock) for lock, _ in access.held),
            inner=name,
            inner_mode=_DOES[access.writes],
            outer_site=where.since,
            inner_site=run.place(where.event),
            thread=run.thread_name(self._tids[access.thread]),
            schedule=run.index,
            inner_address=where.event.obj,
            guards=tuple(lock for lock, _ in access.held),
        )


def _kept_apart(past: Mapping[Any, Access], access: Access, cause: Clock) -> list[Access]:
    """List what nothing but locks ordered before ``access``, and no common lock protects."""
    return [
        other
        for other in past.values()
        if (other.writes or access.writes)
        and not other.before(cause)
        and not _protected(other.held, access.held)
    ]


def _protected(one: Sequence[tuple[int, bool]], other: Sequence[tuple[int, bool]]) -> bool:
    """Whether some lock keeps the two apart: not where both only share it."""
    return any(a == b and not (shared and too) for a, shared in one for b, too in other)


def _remember(past: dict[Any, Access], access: Access, cause: Clock) -> None:
    """Keep the last access of each thread under each set of locks.

    A write stands for all before it that were under no lock fewer: what races with one of those
    races with the write.
    """
    if access.writes:
        mine = set(access.held)
        for key, other in list(past.items()):
            if other.before(cause) and mine.issubset(other.held):
                del past[key]
    past[access.thread, access.writes, access.held] = access


_Play = Callable[[LogRaces, int, Event], None]
_PLAYS: Final[dict[str, _Play]] = {
    "acq": LogRaces._acquire,
    "rel": LogRaces._release,
    "down": LogRaces._downgrade,
    "r": LogRaces._read,
    "w": LogRaces._write,
    "wait": LogRaces._sleep,
    "wake": LogRaces._wake,
    "sig": LogRaces._signal,
    "bcast": LogRaces._signal,
    "fork": LogRaces._fork,
    "join": LogRaces._join,
    "kill": LogRaces._kill,
    "new": LogRaces._new,
}
