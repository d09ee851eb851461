"""Free mode: threads run as the operating system likes, and a failure is brought under control.

Operations are still one at a time, under one real lock, so that the engine's bookkeeping, the lock
rules and the invariants at locks hold; between two operations threads run truly side by side, with
a small switch interval and seeded naps before operations. The order in which operations took effect
is written down. A failing order is run again under control: what fails there too has a token like
any other failure; what does not is told as unconfirmed.

What a schedule does here depends on the machine: a seed decides the naps and nothing else.
"""

from __future__ import annotations

import _thread
import contextlib
import contextvars
import os
import sys
import time
from collections.abc import Callable, Iterator
from random import Random
from types import FunctionType
from typing import Any, Final

from harness.engine.core import CORE, Core
from harness.engine.finding import Finding
from harness.engine.pool import GuardedCore, Pool, Watchdog, Worker, banish
from harness.engine.schedule import Limits, finish
from harness.engine.thread import OUTSIDE, Group, Thread
from harness.errors import ScheduleAborted
from harness.lockorder.rules import LockRules
from harness.search.setup import Program
from harness.sync import Atomic, Barrier, Condition, Event, RwLock, Semaphore, Shared, WaitQueue
from harness.sync.mutex import Lock, Mutex, SpinLock
from harness.sync.rwlock import _Side
from harness.trace.recorder import TraceRecorder

_get_ident: Final = _thread.get_ident
# Held while an operation takes effect, given up while it waits.
_LOCK: Final[Any] = _thread.RLock()
# Somebody else than the caller, whoever that is; see ``_Freely.preempt``.
_OTHER: Final = Thread(-1, "another thread")
_CLASSES: Final[tuple[type, ...]] = (
    *(Lock, Mutex, SpinLock, RwLock, _Side, Condition, Event, Semaphore, Barrier),
    *(Shared, Atomic, WaitQueue, Thread),
)
_SWITCH_SECONDS: Final = 0.000_01
# Longest nap before an operation, drawn for each schedule.
_NAPS: Final = (0.0, 0.000_02, 0.000_1, 0.000_5)
_NEVER: Final = _thread.allocate_lock()
_NEVER.acquire()


class Free:
    """One schedule that runs freely.

    Attributes:
        order: The thread (its index) of every operation, in the order in which they took effect.
    """

    def __init__(self, seed: int, schedule: int) -> None:
        """Nothing runs yet."""
        self.order: list[int] = []
        self.threads: dict[int, Thread] = {}
        # Who waits for a new thread (its index) to come to its first operation.
        self.starters: dict[int, Thread] = {}
        self._seed = f"{seed}:{schedule}"
        self._nap = Random(self._seed).choice(_NAPS)
        self._draws: dict[int, Random] = {}

    def arrived(self, me: Thread) -> None:
        """``me`` has come to an operation, or to its end; the lock is held."""
        starter = self.starters.pop(me.index, None)
        if starter is not None:
            _wake(starter)

    def linger(self, me: Thread) -> None:
        """Before an operation of ``me``: go on at once, give way, or take a nap."""
        draw = self._draws.get(me.index)
        if draw is None:
            draw = self._draws[me.index] = Random(f"{self._seed}:{me.index}")
        chance = draw.random()
        if chance < 0.3 and self._nap:
            _NEVER.acquire(True, draw.random() * self._nap)
        elif chance < 0.6:
            _give_way()


_give_way: Final[Callable[[], None]] = getattr(os, "sched_yield", lambda: None)
_free = Free(0, 0)


class FreeRecorder(TraceRecorder):
    """Records the operations of a free schedule in the order in which they took effect.

    Attributes:
        times: When each did, in nanoseconds from the first on.
    """

    def __init__(self, core: Core, *, stacks: bool = False) -> None:
        """Nothing has happened yet."""
        super().__init__(core, film=False, stacks=stacks)
        self.times: list[int] = []
        self._began = time.monotonic_ns()

    def step(self, thread: Thread, steps: int) -> None:
        """See ``TraceRecorder``; nobody is chosen here, and what says so is no step."""
        if thread is _OTHER:
            return
        super().step(thread, steps)
        self.times.append(time.monotonic_ns() - self._began)

    def note(self, text: str) -> None:
        """See ``TraceRecorder``; no operation, so the lock is not held yet."""
        with _LOCK:
            super().note(text)

    def claim(self, lock: object, what: str) -> None:
        """Likewise."""
        with _LOCK:
            super().claim(lock, what)


class _Freely(Core):
    """The engine without a baton: whoever operates holds the lock, and nobody is chosen."""

    __slots__ = ()
    controlled = False

    @property
    def cur(self) -> Thread:
        """The calling thread."""
        return _free.threads.get(_get_ident(), OUTSIDE)  # type: ignore[no-any-return] # Any

    @cur.setter
    def cur(self, thread: Thread) -> None:
        """Nobody is handed anything."""

    def preempt(self, me: Thread, to: Thread) -> None:
        """Let others go first if they like; then it is the turn of ``me``: one step."""
        recorder = self.recorder
        if recorder is not None or me.index in _free.starters:
            with _LOCK:
                if recorder is not None:
                    recorder.publish(me)
                _free.arrived(me)
        held = _LOCK._is_owned()
        state = _LOCK._release_save() if held else None
        _free.linger(me)
        if held:
            _LOCK._acquire_restore(state)
        with _LOCK:
            self._await(me)
            self.steps += 1
            _free.order.append(me.index)
            if self.steps > self.limit:
                self.over()
            if recorder is not None:
                recorder.step(me, self.steps)

    switch = preempt

    def spared(self) -> None:
        """Nobody is preempted by a choice."""

    def _await(self, me: Thread) -> None:
        """Until the operation of ``me`` can take effect; the lock is held.

        Raises:
            ScheduleAborted: The schedule has ended.
        """
        while not me.enabled and not self.aborting:
            state = _LOCK._release_save()
            me.park()
            _LOCK._acquire_restore(state)
        if self.aborting:
            raise ScheduleAborted

    def block(self, me: Thread, timeout: float | None = None) -> None:
        """See ``Core``."""
        with _LOCK:
            _free.arrived(me)
            super().block(me, timeout)

    def enable(self, thread: Thread) -> None:
        """See ``Core``; who sleeps is woken."""
        asleep = not thread.enabled
        super().enable(thread)
        if asleep:
            _wake(thread)

    def enable_all(self, threads: Any) -> None:
        """See ``Core``."""
        for thread in threads:
            self.enable(thread)

    def create(self, fn: Any, args: Any, name: str | None, priority: int) -> Thread:
        """See ``Core``."""
        with _LOCK:
            return super().create(fn, args, name, priority)

    def start(self, parent: Thread, members: list[Thread], group: Group | None) -> None:
        """Each new thread runs to its first operation, as it does under control; then all go on."""
        with _LOCK:
            if group is not None:
                self.run.remove(parent)
                parent.enabled = False
            for member in members:
                _free.starters[member.index] = parent
                member.started = True
                _wake(member)
                while member.index in _free.starters and not self.aborting:
                    state = _LOCK._release_save()
                    parent.park()
                    _LOCK._acquire_restore(state)
            if group is not None:
                self._await(parent)

    def depart(self, me: Thread) -> Thread:
        """See ``Core``."""
        with _LOCK:
            return super().depart(me)

    def resume(self, parent: Thread) -> Thread:
        """See ``Core``."""
        super().resume(parent)
        _wake(parent)
        return parent

    def record(self, finding: Finding) -> None:
        """See ``Core``."""
        with _LOCK:
            super().record(finding)

    def unwind(self) -> None:
        """Everybody notices at the next operation; who sleeps is woken for it."""
        super().unwind()
        for thread in self.threads:
            if thread.started and not thread.done:
                _wake(thread)


def _wake(thread: Thread) -> None:
    """Several wakes before a park are one; a lock as baton refuses the second."""
    with contextlib.suppress(RuntimeError):
        thread.wake()


class FreePool(Pool):
    """Runs threads without a baton."""

    free = True

    def perform(self, worker: Worker, thread: Thread) -> bool:
        """See ``Pool``."""
        thread.ident = worker.ident
        _free.threads[worker.ident] = thread
        try:
            assert thread.fn is not None
            thread.result = contextvars.Context().run(thread.fn, *thread.args)
        except ScheduleAborted:
            pass
        except BaseException as error:
            with _LOCK:
                self.raised(thread, error)
        with _LOCK:
            if worker not in self._busy:
                return False  # given up by the watchdog
            if not CORE.aborting:
                with contextlib.suppress(ScheduleAborted):
                    CORE.depart(thread)
            thread.done = True
            _free.arrived(thread)
            worker.thread = None
            # Nobody wakes it from here on; what is left of earlier calls must not reach the next.
            _wake(thread)
            thread.park()
            self._busy.remove(worker)
            self._idle.append(worker)
            _wake(CORE.threads[0])
        return True

    def abandon(self, thread: Thread, stacks: str) -> None:
        """Nobody has taken a step for long: end the schedule, and leave behind who does not."""
        with _LOCK:
            self.hung = ("that runs freely", stacks)
            CORE.cut = "hang"
            CORE.unwind()
        _NEVER.acquire(True, 0.5)
        if not thread.done:
            sys.stderr.write(
                f"lockloom: thread {thread.name!r} (the caller's own) takes no step; it blocks in "
                f"something the harness does not control\n{stacks}\n"
            )
            sys.stderr.flush()
            if Watchdog.stuck is not None:
                Watchdog.stuck(thread.name, stacks)

    def await_all(self, zero: Thread) -> None:
        """Until every thread has ended, or those that hang have been given up."""
        patience = time.monotonic() + 1.0
        while True:
            with _LOCK:
                left = [thread for thread in CORE.threads[1:] if not thread.done]
                if self.hung is not None and time.monotonic() > patience:
                    self._leave(left)
                    left = []
            if not left:
                return
            if self.hung is None:
                zero.park()
                patience = time.monotonic() + 1.0
            else:
                _NEVER.acquire(True, 0.01)

    def _leave(self, left: list[Thread]) -> None:
        for thread in left:
            thread.done = True
            for worker in list(self._busy):
                if worker.thread is thread:
                    self._busy.remove(worker)
                    banish(thread)


@contextlib.contextmanager
def freely() -> Iterator[None]:
    """Operations of all primitives are one at a time inside the block, by a real lock."""
    replaced: list[tuple[type, str, Any]] = []
    interval = sys.getswitchinterval()
    try:
        for kind in _CLASSES:
            for name, method in list(vars(kind).items()):
                if isinstance(method, FunctionType) and _operates(name):
                    replaced.append((kind, name, method))
                    setattr(kind, name, _locked(method))
        sys.setswitchinterval(_SWITCH_SECONDS)
        yield
    finally:
        sys.setswitchinterval(interval)
        for kind, name, method in replaced:
            setattr(kind, name, method)


def _operates(name: str) -> bool:
    return not name.startswith("_") or name in ("__enter__", "__exit__")


def _locked(method: Callable[..., Any]) -> Callable[..., Any]:
    def locked(*args: Any, **kwargs: Any) -> Any:
        if type(CORE) is not _Freely:
            return method(*args, **kwargs)
        with _LOCK:
            return method(*args, **kwargs)

    return locked


def run_freely(
    program: Program,
    pool: FreePool,
    rules: LockRules,
    limits: Limits,
    free: Free,
    schedule: int,
    recorder: FreeRecorder | None = None,
) -> Core:
    """Run ``program`` once, its threads side by side.

    Args:
        program: As for ``explore``.
        pool: Where threads come from.
        rules: Lock-order state; accumulates over schedules.
        limits: The step bound; timeouts never fire early, races on cells are not looked for.
        free: Gets the order of operations.
        schedule: Its number.
        recorder: Sees every operation; threads wait for it, so that it changes what happens.

    Raises:
        UsageError: The program misused a primitive.
    """
    global _free
    core = CORE
    core.clear()
    core.schedule = schedule
    core.recorder = recorder
    core.rules = rules
    core.workers = pool
    core.limit = limits.steps if core.stop is None else 0
    zero = Thread(0, "main")
    pool.begin(zero)
    core.threads.append(zero)
    core.run.append(zero)
    core.choose = core.chooser = core.strategy_choose = lambda: _OTHER
    _free = free
    free.threads[_get_ident()] = zero
    core.cur = zero
    core.__class__ = _Freely
    zero.fn = program
    try:
        program()
        with _LOCK:
            finish(core, zero)
    except ScheduleAborted:
        pass
    except BaseException as error:
        with _LOCK:
            pool.raised(zero, error)
    finally:
        zero.done = True
        pool.await_all(zero)
        core.__class__ = Core if pool.hung is None else GuardedCore
        for thread in core.threads:
            for lock in tuple(thread.held):
                lock.reset()
            thread.held.clear()
        core.cur = OUTSIDE
        free.threads.clear()
    if core.error is not None and core.cut == "error":
        raise core.error
    return core


__all__ = ["Free", "FreePool", "FreeRecorder", "freely", "run_freely"]
