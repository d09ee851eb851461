"""What a step touches, and which steps depend on each other.

A *footprint* says which objects a step looked at and which it changed. Two steps depend on each
other where one changed what the other touched; the order of all others does not matter. An object
is known by its number in the order of creation, which is the same in every schedule of one prefix.

Code between two operations belongs to the step before it. What it does to plain attributes is not
seen here: threads have to share through the harness's primitives, as the schedule points do. Some
operations act already when they are announced, and that belongs to the step before as well: to wait
for an event is to be on its list, and a writer that was found waiting keeps readers out.

A timeout that fires before its time moves the clock, and so does nothing else where timeouts may do
so. Who looks at the clock, or begins or ends a wait that has a limit, depends on that; who waits
with a limit can always go on, and depends on what would have let it go on otherwise.

What is not known here has no footprint: it depends on everything.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from harness.engine.core import Core
    from harness.engine.thread import Thread

# Each key with whether it was changed; None depends on everything.
Footprint = tuple[tuple[int, bool], ...] | None
Clock = tuple[int, ...]

_READS: Final = frozenset(
    {"get", "load", "event-is-set", "locked", "read-acquire", "read-release", "event-wait"}
)
_WRITES: Final = frozenset(
    {
        "barrier-abort",
        "barrier-arrive",
        "barrier-leave",
        "barrier-reset",
        "event-clear",
        "event-set",
        "exchange",
        "fetch-add",
        "notify",
        "queue-assign",
        "queue-block",
        "queue-wake",
        "re-acquire",
        "release",
        "sem-release",
        "set",
        "store",
        "write-acquire",
        "write-release",
    }
)
# They change nothing where they return False.
_ATTEMPTS: Final = frozenset({"acquire", "compare-exchange", "sem-acquire", "try-acquire"})
_NOWHERE: Final = frozenset({"sleep", "yield"})
# To give up waiting for these is seen by nobody: they are found as they are.
_LOOKED_FOR: Final = frozenset({"acquire", "join", "sem-acquire", "sleep"})
# To wait for these may close a cycle.
_CLOSING: Final = frozenset({"acquire", "join", "re-acquire", "read-acquire", "write-acquire"})
# Whose wait the lock rules judge as it begins, if it has to; an event's is seen by all anyway.
_JUDGED_WAITS: Final = frozenset({"join", "sem-acquire"})
_TAKES: Final = frozenset({"acquire", "re-acquire", "write-acquire"})

# Objects that have no number of their own; those of a thread follow.
_SPAWNED: Final = -1
_LENT: Final = -2
_CLOCK: Final = -3
_THREADS: Final = -8
_JUDGED: Final = -(1 << 20)


def _ended(thread: Thread) -> int:
    return _THREADS - 2 * thread.index


def _interrupted(thread: Thread) -> int:
    return _THREADS - 2 * thread.index - 1


class Operation:
    """A step as it begins: what is known of it only then.

    Attributes:
        thread: Who takes it.
        kind: Of the operation.
        obj: What it is on.
        holds: Locks that the thread holds alone, and those it shares.
        value: What the operation returned; None until it did.
        timed: A timeout could end the wait, or could have ended it before.
        moves_time: It fires a timeout before its time.
    """

    __slots__ = (
        "_more",
        "holds",
        "kind",
        "moves_time",
        "obj",
        "shares",
        "thread",
        "timed",
        "value",
    )

    def __init__(self, thread: Thread, *, early: bool, ended: int | None = None) -> None:
        """``thread`` has been chosen, or could be.

        Args:
            thread: Its operation is published.
            early: As in ``Limits.early_timeouts``.
            ended: What it waited for with a limit until another thread ended that, as ``waits``
                has it.
        """
        self.thread = thread
        self.kind = thread.kind
        self.obj: Any = thread.obj
        self.value: object = None
        self.moves_time = thread.early
        self.timed = ended is not None or limited(thread, early=early)
        self.holds = tuple(
            lock.address for lock in thread.held if getattr(lock, "writer", thread) is thread
        )
        self.shares = tuple(lock.address for lock in thread.held)
        self._more = _leaving(thread) if thread.early else _beside(thread)
        if self.timed:
            self._more.append((_CLOCK, thread.early))
        if ended is not None:
            self._more.append((ended, True))

    def footprint(
        self,
        announced: Iterable[Thread] = (),
        judged: Iterable[int] | None = (),
        *,
        over: bool = False,
        ended: Iterable[int] = (),
        told: bool = False,
    ) -> Footprint:
        """What the step touched, now that it is over.

        Args:
            announced: Threads whose next operation was announced in this step.
            judged: What invariants judged after it, by number; None if that is not known.
            over: The thread has ended.
            ended: What others waited for with a limit until this step, as ``waits`` has it.
            told: The time was read, or a wait with a limit began.
        """
        found = () if self.moves_time else _own(self.kind, self.obj, self.value)
        if found is None or judged is None:
            return None
        touched = dict(found)
        touched.update((_JUDGED - number, True) for number in judged)
        more = [*self._more, *((key, True) for key in ended)]
        if told or more[len(self._more) :]:
            more.append((_CLOCK, False))
        for thread in announced:
            more += _announcing(thread)
        for key, changed in more:
            touched[key] = touched.get(key, False) or changed
        if over:
            touched[_ended(self.thread)] = True
        return tuple(touched.items())


def limited(thread: Thread, *, early: bool) -> bool:
    """Whether a timeout may end ``thread``'s wait at any step.

    Args:
        thread: It may wait or not.
        early: As in ``Limits.early_timeouts``.
    """
    return thread.early or (early and thread.deadline is not None)


def waits(thread: Thread) -> int:
    """What ``thread`` waits for, as a footprint has it."""
    address: int | None = getattr(thread.obj, "address", None)
    return _ended(thread.obj) if address is None else address


def judged(core: Core) -> list[int] | None:
    """What of the last step matters to invariants, by number; None if one cannot say.

    Nor can where only the most urgent run: each step may decide who that is.
    """
    if core.ranked:
        return None
    numbers: list[int] = []
    for _, predicate in core.quiescent:
        if (judges := getattr(predicate, "judges", None)) is not None:
            numbers += judges()
    for _, predicate in core.invariants:
        if (judges := getattr(predicate, "judges", None)) is None:
            return None
        numbers += judges()
    return numbers


def taken_by(kind: str, obj: Any) -> tuple[int | None, bool]:
    """The lock that an operation needs, and whether for itself alone."""
    if kind in _TAKES:
        return obj.address, True
    return (obj.address, False) if kind == "read-acquire" else (None, False)


def _own(kind: str, obj: Any, value: object) -> Footprint:
    """What an operation touches by itself; ``value`` is what it returned, None if not known."""
    if kind in _READS:
        return ((obj.address, kind == "event-wait" and bool(obj.auto_unsignal)),)
    if kind in _WRITES:
        return ((obj.address, True),)
    if kind in _ATTEMPTS:
        return ((obj.address, value is not False),)
    if kind in _NOWHERE:
        return ()
    if kind in ("spawn", "parallel"):
        return ((_SPAWNED, True),)
    if kind == "join":
        return ((_ended(obj), False),)
    if kind == "wait":
        return ((obj.address, True), (obj.mutex.address, True))
    if kind == "interrupt":
        return ((_interrupted(obj), True),)
    return None


def _beside(thread: Thread) -> list[tuple[int, bool]]:
    """What an operation touches beside its object, as can be told before it begins."""
    kind, obj = thread.kind, thread.obj
    more: list[tuple[int, bool]] = []
    if kind in ("event-wait", "queue-block"):
        more.append((_interrupted(thread), True))
    if kind == "queue-block":
        if thread.releasing is not None:
            more.append((thread.releasing.address, True))
        if obj.owner is not None:
            more.append((_LENT, True))
    elif kind == "queue-assign":
        more.append((_LENT, True))
    elif kind == "queue-wake":
        if obj.owner is not None and obj.waiters:
            more.append((_LENT, True))
        elif len(obj.waiters) > 1:
            more.append((_LENT, False))
    elif kind == "interrupt" and obj.interruptible:
        more.append((obj.obj.address, True))
        if getattr(obj.obj, "owner", None) is not None:
            more.append((_LENT, True))
    elif kind == "read-acquire" and any(w.kind == "write-acquire" for w in obj.wanters):
        # The writer is found waiting, which keeps further readers out.
        more.append((obj.address, True))
    return more


def _leaving(thread: Thread) -> list[tuple[int, bool]]:
    """What is touched where ``thread``'s wait is over without what it was for."""
    more = [(waits(thread), thread.kind not in _LOOKED_FOR)]
    if thread.kind in ("event-wait", "queue-block"):
        more.append((_interrupted(thread), True))
    if thread.kind == "queue-block" and thread.obj.owner is not None:
        more.append((_LENT, True))
    return more


def _announcing(thread: Thread) -> tuple[tuple[int, bool], ...]:
    """What announcing ``thread``'s next operation has done already."""
    if thread.kind == "event-wait":
        return (
            (thread.obj.address, not thread.enabled),
            (_interrupted(thread), not thread.enabled),
        )
    # To wait may close a cycle, which one that wakes from a queue with an owner would break.
    awaited = thread.owned or thread.wanters or any(lock.wanters for lock in thread.held)
    closes = awaited and thread.kind in _CLOSING and any(t.owned for t in thread.engine.threads)
    lent = ((_LENT, False),) if closes else ()
    if thread.kind in _JUDGED_WAITS and (thread.spins or (thread.locks and thread.locks.entries)):
        # Whether it waits with a lock held, which is judged at once, hangs on what it waits for.
        return ((waits(thread), False), *lent)
    if thread.kind == "write-acquire" and thread.obj.prefer == "writer":
        return ((thread.obj.address, True), *lent)
    return lent


def depend(one: Footprint, other: Footprint) -> bool:
    """Whether the order of two steps may matter."""
    if one is None or other is None:
        return True
    return any(a == b and (c or d) for a, c in one for b, d in other)


def joined(one: Clock, other: Clock) -> Clock:
    """The later of two clocks, thread by thread."""
    if len(one) < len(other):
        one, other = other, one
    short = len(other)
    return tuple(map(max, one, other)) + one[short:]


def at(clock: Clock, thread: int) -> int:
    """The last step of ``thread`` that ``clock`` has seen; -1 for none."""
    return clock[thread] if thread < len(clock) else -1


def with_step(clock: Clock, thread: int, step: int) -> Clock:
    """``clock``, which has seen ``step`` of ``thread``."""
    padded = clock + (-1,) * (thread + 1 - len(clock))
    return (*padded[:thread], step, *padded[thread + 1 :])
