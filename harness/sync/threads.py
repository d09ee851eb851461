"""Threads, time, and what a program may tell the harness about itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from harness.engine.choosers import urgent_first
from harness.engine.core import CORE
from harness.engine.thread import OUTSIDE, Group, Thread, called, refuse_nan
from harness.engine.view import View
from harness.errors import UsageError
from harness.sync.base import Primitive, current, now, point
from harness.sync.mutex import Lock


def spawn(
    fn: Callable[..., object], *args: Any, name: str | None = None, priority: int = 0
) -> Thread:
    """Start a thread that runs ``fn(*args)``; one step.

    The new thread's code before its first operation runs within that step.

    Args:
        fn: What it runs; an exception that leaves it fails the schedule.
        args: Given to ``fn``.
        name: Shown in traces; defaults to the function's name. Made unique in the schedule.
        priority: Base priority; larger is more urgent.

    Raises:
        UsageError: ``fn`` is no function, or ``name`` no text.
    """
    if not callable(fn):
        raise UsageError(f"spawn() takes a function and its arguments, got {fn!r}")
    if not isinstance(priority, int):
        raise UsageError(
            f"priority must be a whole number, larger is more urgent, got {priority!r}"
        )
    if name is not None:
        _check_names([name])
    core = CORE
    me = core.cur
    me.kind = "spawn"
    me.obj = None
    if core.steps < core.lease:
        core.steps += 1
    else:
        chosen = core.choose()
        if chosen is not me:
            core.preempt(me, chosen)
    thread = core.create(fn, args, name, priority)
    core.start(me, [thread], None)
    return thread


def parallel(*fns: Callable[[], Any], names: Sequence[str] | None = None) -> list[Any]:
    """Start a thread for each function, all in one step; wait for all; return their results.

    Args:
        fns: Functions without arguments.
        names: One for each, shown in traces.

    Raises:
        UsageError: No function, or the number of names differs.
    """
    if not fns:
        raise UsageError("parallel() needs at least one function")
    for fn in fns:
        if not callable(fn):
            raise UsageError(f"parallel() takes functions without arguments, got {fn!r}")
    if names is not None:
        if len(names) != len(fns):
            raise UsageError(f"parallel() was given {len(fns)} functions and {len(names)} names")
        _check_names(names)
    me = point("parallel", None)
    core = CORE
    members = [
        core.create(fn, (), None if names is None else names[i], me.priority)
        for i, fn in enumerate(fns)
    ]
    group = Group(me, members)
    core.groups.append(group)
    for member in members:
        member.group = group
    me.obj = group
    if me.spins or me.locks is not None:
        core.waiting(me, "parallel")
    core.start(me, members, group)
    return [member.result for member in members]


def _check_names(names: Iterable[object]) -> None:
    for name in names:
        if name is not None and not isinstance(name, str):
            raise UsageError(f"the name of a thread must be a text, got {name!r}")


def current_thread() -> Thread:
    """The calling thread.

    Raises:
        UsageError: No schedule is running.
    """
    return current()


def in_schedule() -> bool:
    """Whether a schedule is running."""
    return CORE.cur is not OUTSIDE


def current_schedule() -> int:
    """Number of the schedule in its exploration, from 1; 0 in a pilot. The same on replay.

    For programs that draw their operations: a function of this number is as reproducible as the
    schedule itself.
    """
    current()
    return CORE.schedule


def yield_now() -> None:
    """Let others run; one step. A switch right after it is no preemption."""
    me = point("yield", None)
    CORE.rest(me)


class _Clock(Primitive):
    """What a sleeping thread waits for."""

    __slots__ = ()


_CLOCK: Final = _Clock("clock")


def sleep(seconds: float) -> None:
    """Sleep on the virtual clock; one step, taken when the time has come.

    Raises:
        ValueError: ``seconds`` is negative.
    """
    if seconds < 0:
        raise ValueError("sleep length must be non-negative")
    refuse_nan(seconds)
    core = CORE
    me = core.cur
    me.kind = "sleep"
    me.obj = _CLOCK
    core.waiting(me, "sleep")
    if seconds:
        core.block(me, seconds)
    else:
        chosen = core.choose()
        if chosen is not me:
            core.preempt(me, chosen)
    core.rest(me)


def monotonic() -> float:
    """Virtual time in seconds since the schedule began; no schedule point."""
    current()
    return now()


class _Judging:
    """A predicate that can say what it judged."""

    __slots__ = ("__name__", "_predicate", "judges")

    def __init__(
        self, predicate: Callable[[], object], judges: Callable[[], Iterable[int]]
    ) -> None:
        self.__name__ = called(predicate)
        self._predicate = predicate
        self.judges = judges

    def __call__(self) -> object:
        return self._predicate()


def invariant(
    predicate: Callable[[], object],
    name: str | None = None,
    *,
    every: str | Lock = "step",
    judges: Callable[[], Iterable[int]] | None = None,
) -> None:
    """Have ``predicate`` checked from now on, until the schedule ends.

    Args:
        predicate: Returns False (or raises AssertionError, with the values) where it is broken. May
            read anything; operations inside are no schedule points and must not block.
        name: Enters the finding; defaults to the function's name.
        every: "step" checks after every step; "quiescent" when the program has returned and all its
            threads have ended; a lock checks at each release of it, before others can have it.
        judges: Called after every step: returns numbers of the program's own for what of the step
            matters to the predicate. ``dpor`` then tries both orders of two steps that had a number
            in common; of any two, where a predicate that is checked after every step has none.

    Raises:
        UsageError: No schedule is running, or ``every`` is something else.
    """
    current()
    if not callable(predicate):
        raise UsageError(f"invariant() takes a function without arguments, got {predicate!r}")
    if judges is not None:
        predicate = _Judging(predicate, judges)
    entry = (name or called(predicate), predicate)
    if isinstance(every, Lock):
        every.check(entry)
    elif every == "step":
        CORE.invariants.append(entry)
        if len(CORE.invariants) == 1:
            CORE.compose()
    elif every == "quiescent":
        CORE.quiescent.append(entry)
    else:
        raise UsageError(f"every must be 'step', 'quiescent' or a lock, got {every!r}")


def priority_scheduling() -> bool:
    """Let only the most urgent of the threads that can run be chosen, until the schedule ends.

    What counts is ``Thread.effective_priority``: a thread that is not urgent is starved by those
    that are, unless it inherits the priority of somebody who waits for it. Who holds a spinlock
    goes first, as no scheduler can take the processor from it. To be pushed aside by a more urgent
    thread is no preemption. No schedule point; the next choice is made by it.

    Returns:
        Whether it is so: not where threads run freely, since nobody chooses there.

    Raises:
        UsageError: No schedule is running.
    """
    current()
    if not CORE.controlled:
        return False
    CORE.ranked = True
    CORE.strategy_choose = urgent_first(CORE, CORE.strategy_choose)
    CORE.compose()
    return True


def sometimes(name: str) -> None:
    """Say that this place was reached; no schedule point. See ``Exploration.reached``.

    An exploration in which no schedule reached it is inconclusive, where ``name`` is a literal in
    the program's own functions or in those of its module that it uses.
    """
    current()
    if not isinstance(name, str):
        raise UsageError(f"sometimes() takes the name of a place, a text, got {name!r}")
    CORE.reached.add(name)


def note(text: str) -> None:
    """Attach a remark to the current step of the recorded trace; no schedule point."""
    current()
    if not isinstance(text, str):
        raise UsageError(f"note() takes a text, got {text!r}")
    if CORE.recorder is not None:
        CORE.recorder.note(text)


def observe(view: View) -> None:
    """Show ``view`` beside every step of the recorded schedule; no schedule point.

    While schedules are only explored nobody looks, and this call does nothing.

    Args:
        view: Returns things by name, each a ``Placed``. It may read any attribute, and cells by
            ``peek``; it must change nothing, and operations inside are refused.

    Raises:
        UsageError: No schedule is running.
    """
    current()
    if not callable(view):
        raise UsageError(f"observe() takes a function without arguments, got {view!r}")
    if CORE.recorder is not None:
        CORE.recorder.observe(view)
