"""OS threads for the threads of the program: batons, reuse, scheduling class, and the watchdog.

A baton is two callables. On Linux it is one ``os.eventfd`` per thread: as fast as a lock, and the
only one that stays fast on a free-threaded build. Elsewhere it is a ``_thread.lock`` that is held
while its thread is parked. Both count one wake-up that came before the park.

``settle`` puts the process on one core and its threads into SCHED_BATCH for the length of an
exploration: with wake-up preemption off a hand-off is one context switch instead of three.
"""

from __future__ import annotations

import _thread
import contextlib
import contextvars
import ctypes
import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, ClassVar, Final, NoReturn, Self

from harness.engine.core import CORE, Choose, Core
from harness.engine.finding import HIDE, PACKAGE, Finding
from harness.engine.thread import OUTSIDE, Thread
from harness.errors import InternalError, ScheduleAborted, UsageError

_HAS_EVENTFD: Final = hasattr(os, "eventfd")
# The real ones, whatever stands there while a program is patched.
_allocate_lock: Final = _thread.allocate_lock
_get_ident: Final = _thread.get_ident
_start_new_thread: Final = _thread.start_new_thread


class Baton:
    """One thread's right to run: ``wake`` gives it, ``park`` waits for it."""

    __slots__ = ("_fd", "_lock", "park", "wake")

    park: Callable[[], object]
    wake: Callable[[], object]

    def __init__(self, *, eventfd: bool = _HAS_EVENTFD) -> None:
        """Args: eventfd: False takes the portable lock even where there is an eventfd."""
        self._fd = -1
        if eventfd:
            self._fd = os.eventfd(0, os.EFD_CLOEXEC)
            self.wake = partial(os.eventfd_write, self._fd, 1)
            # Not ``eventfd_read``, which a signal ends.
            self.park = partial(os.read, self._fd, 8)
        else:
            self._lock = _allocate_lock()
            self._lock.acquire()
            self.wake = self._lock.release
            self.park = self._lock.acquire

    def close(self) -> None:
        """Give the descriptor back; nobody may be parked on it."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class Worker:
    """An OS thread that runs one thread of a schedule after another."""

    __slots__ = ("baton", "gone", "ident", "thread")

    def __init__(self, pool: Pool) -> None:
        """Start the OS thread; it parks at once.

        Raises:
            UsageError: The system gives none, which is nobody's race.
        """
        self.thread: Thread | None = None
        self.gone = _allocate_lock()
        self.gone.acquire()
        self.ident = 0
        try:
            self.baton = Baton()
            self.ident = _start_new_thread(self._main, (pool,))
        except (OSError, RuntimeError, MemoryError) as error:
            raise UsageError(
                f"the system gives the program no further thread ({error}); give it more memory, "
                "processes or open files (ulimit), or spawn fewer threads"
            ) from None

    def _main(self, pool: Pool) -> None:
        self.ident = _get_ident()
        try:
            while True:
                self.baton.park()
                thread = self.thread
                if thread is None:
                    return
                if not pool.perform(self, thread):
                    return
        finally:
            _ABANDONED.pop(self.ident, None)
            self.gone.release()


class Pool:
    """The workers of one exploration, reused from schedule to schedule.

    Attributes:
        hung: The thread that the watchdog gave up, with all stacks as text; None usually.
        reuse: False gives each thread an OS thread of its own, without thread-local data.
        trace: A trace function for each thread, or None.
        free: Its threads run side by side, without a baton.
    """

    free: ClassVar[bool] = False

    def __init__(self) -> None:
        """No worker yet; they are made when first needed."""
        self.reuse = True
        self.trace: Any = None
        self._idle: list[Worker] = []
        self._busy: list[Worker] = []
        # Their thread has ended, and they end with it.
        self._leaving: list[Worker] = []
        self.baton = Baton()
        self.hung: tuple[str, str] | None = None

    def begin(self, zero: Thread) -> None:
        """Give the calling thread its baton as thread 0."""
        self._see_off()
        zero.wake = self.baton.wake
        zero.park = self.baton.park
        zero.ident = _get_ident()
        zero.started = True

    def assign(self, thread: Thread) -> None:
        """Give ``thread`` an OS thread; it runs when first woken."""
        worker = self._idle.pop() if self._idle else Worker(self)
        self._busy.append(worker)
        worker.thread = thread
        thread.wake = worker.baton.wake
        thread.park = worker.baton.park
        # Set by the OS thread itself before it first parks, but maybe not yet.
        thread.ident = worker.ident

    def reclaim(self, thread: Thread) -> None:
        """Take back the OS thread of a thread that never ran."""
        for worker in self._busy:
            if worker.thread is thread:
                worker.thread = None
                self._busy.remove(worker)
                self._idle.append(worker)
                return

    def perform(self, worker: Worker, thread: Thread) -> bool:
        """Run ``thread`` to its end on ``worker``'s OS thread, which holds the baton.

        Returns:
            False if this OS thread was abandoned and must touch nothing any more.
        """
        core = CORE
        thread.ident = worker.ident
        to: Thread | None = None
        try:
            assert thread.fn is not None
            if self.trace is not None:
                sys.settrace(self.trace)
            thread.result = contextvars.Context().run(thread.fn, *thread.args)
        except ScheduleAborted:
            pass
        except BaseException as error:
            if self.hung is None or not _abandoned(self, worker):
                self.raised(thread, error)
        if self.hung is not None and _abandoned(self, worker):
            return False
        if not core.aborting:
            try:
                to = core.depart(thread)
            except ScheduleAborted:
                to = None
        thread.done = True
        worker.thread = None
        if self.trace is not None:
            sys.settrace(None)
        self._busy.remove(worker)
        reuse = self.reuse
        if reuse:
            self._idle.append(worker)
        else:
            self._leaving.append(worker)
        if to is None:
            to = core.next_to_unwind()
        core.cur = to
        core.handovers += 1
        to.wake()
        return reuse

    def _see_off(self) -> None:
        """Wait for the OS threads that are about to end; each has passed its baton on."""
        for worker in self._leaving:
            worker.gone.acquire()
            worker.baton.close()
        self._leaving.clear()

    def raised(self, thread: Thread, error: BaseException) -> None:
        """An exception left ``thread``: a finding, or a misuse that the caller is told of."""
        if isinstance(error, (UsageError, InternalError)):
            with contextlib.suppress(ScheduleAborted):
                CORE.end("error", error)
            return
        kind = "assertion" if isinstance(error, AssertionError) else "exception"
        name = type(error).__name__
        text = str(error)
        message = f"{name}: {text}" if text else name
        frame = _raised_at(error)
        rule = getattr(error, "rule", name)
        CORE.record(Finding(kind, message, thread, rule=rule, frames=[frame], error=error))

    def abandon(self, thread: Thread, stacks: str) -> None:
        """Give up the OS thread that runs ``thread`` (called by the watchdog, without the baton).

        The thread gets ``ScheduleAborted`` at its next bytecode; until then the engine looks at
        who is calling (``GuardedCore``), so that a thread that comes back late changes nothing.
        """
        for worker in list(self._busy):
            if worker.thread is thread:
                self._busy.remove(worker)
        self.hung = (thread.name, stacks)
        thread.done = True
        CORE.__class__ = GuardedCore
        banish(thread)
        # Whoever looks on is told of the end here, and asks who runs: this OS thread, as it were.
        thread.ident = _get_ident()
        CORE.cut = "hang"
        CORE.unwind()
        to = CORE.next_to_unwind()
        CORE.cur = to
        to.wake()

    def close(self) -> None:
        """End all workers and wait for them; abandoned ones are left behind."""
        for worker in self._idle:
            worker.baton.wake()
        self._leaving += self._idle
        self._idle.clear()
        self._see_off()
        self.baton.close()

    @property
    def size(self) -> int:
        """How many OS threads the pool owns."""
        return len(self._idle) + len(self._busy)


def banish(thread: Thread) -> None:
    """The OS thread that runs ``thread`` is given up: unwound wherever it comes back."""
    _ABANDONED[thread.ident] = 0
    ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(thread.ident), ctypes.py_object(ScheduleAborted)
    )


def _raised_at(error: BaseException) -> tuple[Any, int]:
    """The innermost program frame that ``error`` passed; not in a helper that only raises."""
    found: tuple[Any, int] = (None, 0)
    tb = error.__traceback__
    while tb is not None:
        code = tb.tb_frame.f_code
        if not code.co_filename.startswith(PACKAGE) and HIDE not in code.co_varnames:
            found = (code, tb.tb_lasti)
        tb = tb.tb_next
    return found


def _abandoned(pool: Pool, worker: Worker) -> bool:
    return worker not in pool._busy


class GuardedCore(Core):
    """The engine once there are threads about that it does not control: it looks who is calling.

    An abandoned OS thread may come back at any time, in the middle of an operation, and one that
    the program started by itself may use a primitive: both would act as the thread that holds the
    baton. Costs every operation some calls, from the first such thread on.
    """

    __slots__ = ()

    @property
    def cur(self) -> Thread:
        """The thread that holds the baton, which must be the caller."""
        _turn_away()
        thread = holder()
        if thread is not OUTSIDE and thread.ident != _get_ident():
            self.foreign()
        return thread

    @cur.setter
    def cur(self, thread: Thread) -> None:
        _turn_away()
        _CUR.__set__(self, thread)

    def foreign(self) -> NoReturn:
        """A thread that the engine did not start used a primitive, in the baton holder's name.

        Raises:
            UsageError: Here, and to the caller of ``explore``: the schedule ends at its next step.
        """
        error = UsageError(
            "a thread that spawn() or parallel() did not start used a harness primitive; "
            "start every thread of the program with spawn()"
        )
        self.error = error
        self.stop = "error"
        self.limit = 0
        self.steady = self.lease = 0
        raise error

    @property
    def choose(self) -> Choose:
        """See ``Core``; abandoned threads choose nothing."""
        _turn_away()
        return _CHOOSE.__get__(self)  # type: ignore[no-any-return] # a slot descriptor is untyped

    @choose.setter
    def choose(self, choose: Choose) -> None:
        _CHOOSE.__set__(self, choose)

    @property
    def lease(self) -> int:
        """Nobody goes on without being looked at."""
        return 0

    @lease.setter
    def lease(self, until: int) -> None:
        _LEASE.__set__(self, until)


_CUR: Final[Any] = Core.__dict__["cur"]
_CHOOSE: Final[Any] = Core.__dict__["choose"]
_LEASE: Final[Any] = Core.__dict__["lease"]


def holder() -> Thread:
    """The thread that holds the baton, whoever asks."""
    return _CUR.__get__(CORE)  # type: ignore[no-any-return] # a slot descriptor is untyped


@contextlib.contextmanager
def strangers_noticed() -> Iterator[None]:
    """Guard the engine from the moment on at which the program starts a thread by itself.

    Such a thread is the program's business as long as it uses no primitive of ours.
    """
    names = [n for n in ("_start_new_thread", "_start_joinable_thread") if hasattr(threading, n)]
    originals = {name: getattr(threading, name) for name in names}

    def noticing(start: Callable[..., Any]) -> Callable[..., Any]:
        def started(*args: Any, **kwargs: Any) -> Any:
            if holder() is not OUTSIDE and holder().ident == _get_ident():
                CORE.__class__ = GuardedCore
            return start(*args, **kwargs)

        return started

    for name, start in originals.items():
        setattr(threading, name, noticing(start))
    try:
        yield
    finally:
        for name, start in originals.items():
            setattr(threading, name, start)


# OS threads that were given up and have not ended, and how often each has come back.
_ABANDONED: Final[dict[int, int]] = {}
_RETURNS_MAX: Final = 100


def _turn_away() -> None:
    """Unwind an abandoned thread that came back; one that swallows that sleeps for ever."""
    caller = _get_ident()
    if caller not in _ABANDONED:
        return
    _ABANDONED[caller] += 1
    if _ABANDONED[caller] > _RETURNS_MAX:
        lock = _allocate_lock()
        lock.acquire()
        lock.acquire()
    raise ScheduleAborted


@contextlib.contextmanager
def settled(core_number: int | None = None) -> Iterator[str | None]:
    """Run the block on one core under SCHED_BATCH, where the system allows it; undone afterwards.

    Args:
        core_number: Counted among the cores this process may use, modulo their number; None
            takes the pytest-xdist worker's number or else the process id.

    Yields:
        None, or why the system refused (the engine runs on without).
    """
    affinity: set[int] | None = None
    policy: tuple[int, Any] | None = None
    refused: str | None = None
    try:
        affinity = os.sched_getaffinity(0)
        policy = (os.sched_getscheduler(0), os.sched_getparam(0))
        cores = sorted(affinity)
        number = _default_core() if core_number is None else core_number
        os.sched_setaffinity(0, {cores[number % len(cores)]})
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    except (AttributeError, OSError) as error:
        refused = str(error)
    try:
        yield refused
    finally:
        if policy is not None:
            with contextlib.suppress(OSError):
                os.sched_setscheduler(0, policy[0], policy[1])
        if affinity is not None:
            with contextlib.suppress(OSError):
                os.sched_setaffinity(0, affinity)


def _default_core() -> int:
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    return int(worker[2:]) if worker[2:].isdecimal() else os.getpid()


class Watchdog:
    """Looks from outside whether the baton moves; reports a thread that blocks in something else.

    It takes part in nothing: it reads two numbers every so often, so it costs the schedule nothing.
    Wall time decides only *that* something hangs, which is never a verdict on the program.

    Attributes:
        number: Of the schedule that runs; 0 where none does.
        stuck: Called with name and stacks where the caller's own thread, which cannot be abandoned,
            has taken no step for twice as long; None reports it again.
    """

    stuck: ClassVar[Callable[[str, str], object] | None] = None

    def __init__(self, pool: Pool, seconds: float) -> None:
        """Args: seconds: Wall time without a step after which the running thread counts as hung."""
        if not seconds > 0:
            raise UsageError(f"hang_seconds must be more than 0, got {seconds!r}")
        self._pool = pool
        self._seconds = seconds
        self._stop = threading.Event()
        self.number = 0
        self._thread = threading.Thread(target=self._watch, name="lockloom-watchdog", daemon=True)

    def __enter__(self) -> Self:
        """Start looking."""
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        """Stop looking."""
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        period = self._seconds / 4
        last: tuple[int, int, int] | None = None
        still = 0
        while not self._stop.wait(period):
            now = (self.number, CORE.steps, CORE.unwind_operations)
            if now[0] == 0 or now != last or sys.gettrace() is not None:
                last, still = now, 0
                continue
            still += 1
            if still % 4 == 0 and not self._report(again=still > 4):
                last, still = None, 0

    def _report(self, *, again: bool) -> bool:
        """Abandon the thread that hangs, or tell of it; whether it hangs on."""
        thread = holder()
        if thread is OUTSIDE:
            return False
        stacks = self._stacks()
        if thread.index == 0 and not self._pool.free:
            if again and Watchdog.stuck is not None:
                Watchdog.stuck(thread.name, stacks)
            sys.stderr.write(
                f"lockloom: thread {thread.name!r} (the caller's own) has taken no step for "
                f"{self._seconds:g} s; it blocks in something the harness does not control\n"
                f"{stacks}\n"
            )
            sys.stderr.flush()
            return True
        self._pool.abandon(thread, stacks)
        return False

    def _stacks(self) -> str:
        """Every thread of the schedule with its stack, the running one first."""
        frames = sys._current_frames()
        lines: list[str] = []
        running = holder()
        ordered = [running, *(t for t in CORE.threads if t is not running and not t.done)]
        for thread in ordered:
            state = "runs" if thread is running else f"waits ({thread.kind})"
            lines.append(f"thread {thread.index} {thread.name!r} {state}:")
            stack = traceback.extract_stack(frames.get(thread.ident))
            outer = [entry for entry in stack if not entry.filename.startswith(PACKAGE)]
            lines += [line.rstrip() for line in traceback.format_list(outer)]
        return "\n".join(lines)
