"""One schedule from beginning to end, on the calling thread as thread 0.

Whatever happens - the program returns, an assertion fails, a deadlock closes, the step bound is
reached - every thread of the schedule has ended when ``run`` returns, its ``finally`` blocks have
run, locks that outlive the program are free again, and the next schedule starts clean.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from harness.engine.core import CORE, Choose, Core
from harness.engine.finding import Finding, place_of
from harness.engine.pool import Pool
from harness.engine.thread import OUTSIDE, Recorder, Thread
from harness.errors import ScheduleAborted, UsageError
from harness.lockorder.rules import LockRules

# Why a schedule ended: by itself, by a finding, or cut short by one of these.
CUTS: Final = ("bound", "blocked", "hang", "interrupted", "diverged", "nondeterminism", "error")


class Limits:
    """What bounds one schedule.

    Attributes:
        steps: The step bound.
        early_timeouts: The strategy may fire a timeout at any step.
        races: Two accesses of a ``Shared`` that nothing orders end the schedule.
    """

    __slots__ = ("early_timeouts", "races", "steps")

    def __init__(self, steps: int, *, early_timeouts: bool = False, races: bool = False) -> None:
        """Plain data."""
        self.races = races
        self.steps = steps
        self.early_timeouts = early_timeouts


def run(
    program: Callable[[], object],
    pool: Pool,
    rules: LockRules,
    limits: Limits,
    begin: Callable[[Core], Choose],
    recorder: Recorder | None = None,
) -> Core:
    """Run ``program`` once under the choices that ``begin`` makes.

    Args:
        program: Builds its state, starts threads, joins them, asserts.
        pool: Where OS threads come from.
        rules: Lock-order state; accumulates over schedules.
        limits: Bounds of this schedule.
        begin: Called with the fresh engine; returns the strategy's ``choose``.
        recorder: Sees every step; must not change any.

    Returns:
        The engine, with the finding or cut of the schedule and its counters, until the next run.

    Raises:
        UsageError: A schedule is running already, or the program misused a primitive.
    """
    core = CORE
    if core.cur is not OUTSIDE:
        raise UsageError("explore() was called inside a schedule; a process runs one at a time")
    zero = _begin(core, pool, rules, limits, begin, recorder)
    zero.fn = program
    try:
        program()
        finish(core, zero)
    except ScheduleAborted:
        pass
    except BaseException as error:
        pool.raised(zero, error)
    finally:
        _unwind(core, zero)
    if core.error is not None and core.cut == "error":
        raise core.error
    return core


def _begin(
    core: Core,
    pool: Pool,
    rules: LockRules,
    limits: Limits,
    begin: Callable[[Core], Choose],
    recorder: Recorder | None,
) -> Thread:
    core.clear()
    core.rules = rules
    core.recorder = recorder
    core.workers = pool
    core.limit = limits.steps if core.stop is None else 0
    core.early = limits.early_timeouts
    zero = Thread(0, "main")
    pool.begin(zero)
    core.threads.append(zero)
    core.run.append(zero)
    core.strategy_choose = begin(core)
    core.choose = core.chooser = core.strategy_choose
    if recorder is not None:
        core.compose()
    core.cur = zero
    return zero


def finish(core: Core, zero: Thread) -> None:
    """The program has returned: what must hold at its end?

    Raises:
        ScheduleAborted: Something does not; the finding is recorded.
    """
    if core.stop is not None:
        core.over()
    if core.invariants:
        core.examine(core.invariants)
    running = [thread for thread in core.threads if not thread.done and thread is not zero]
    left = [thread for thread in running if not thread.daemon]
    if left:
        names = ", ".join(thread.name for thread in left)
        message = (
            f"the program returned while {len(left)} of its threads still run: {names}; join them"
        )
        frames = [place_of(thread) for thread in left]
        core.fail(Finding("leak", message, zero, rule="thread", frames=frames))
    if core.leaks or zero.held:
        _leaks(core, zero)
    if core.quiescent:
        core.examine(core.quiescent)
    if running:
        core.unwind()
    elif core.recorder is not None:
        core.recorder.ended()


def _leaks(core: Core, zero: Thread) -> None:
    """Threads have ended with locks; some locks may be kept.

    Raises:
        ScheduleAborted: One may not; the finding is recorded.
    """
    core.leaks += [(zero, lock) for lock in zero.held]
    core.leaks = [(thread, lock) for thread, lock in core.leaks if lock.leaks]
    if core.leaks:
        lines = [
            f"{thread.name} ended while it held {core.label(lock)}" for thread, lock in core.leaks
        ]
        core.fail(Finding("leak", "\n".join(lines), zero, rule="lock", frames=_lock_frames(core)))


def _lock_frames(core: Core) -> list[tuple[Any, int]]:
    """The functions whose threads kept a lock: the only place still known after a thread's end."""
    codes = [getattr(thread.fn, "__code__", None) for thread, _ in core.leaks]
    return [(code, 0) for code in codes if code is not None]


def _unwind(core: Core, zero: Thread) -> None:
    """Take down what is left, free locks that outlive the program, and leave the schedule."""
    zero.done = True
    if core.aborting:
        to = core.next_to_unwind()
        while to is not zero:
            core.cur = to
            to.wake()
            zero.park()
            to = core.next_to_unwind()
    for thread in core.threads:
        if thread.held:
            for lock in tuple(thread.held):
                lock.reset()
            thread.held.clear()
    core.steady = core.lease = 0
    core.cur = OUTSIDE
