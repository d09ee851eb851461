"""Worker processes: spawned, one core each, isolated from each other's crashes.

``concurrent.futures`` gives up all of its processes when one of them dies, and cannot stop a task
that runs; a campaign needs both, and a task that loads a mutated model needs a process of its own.
A worker never logs and never prints: what it has to say, it returns.
"""

from __future__ import annotations

import contextlib
import faulthandler
import multiprocessing
import os
import pickle
import re
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import IO, Any, Final

from harness.engine.pool import Watchdog, settled
from harness.errors import HarnessError, InternalError, UsageError

_CONTEXT: Final = multiprocessing.get_context("spawn")
# How long a worker may take to leave by itself before it is killed.
_LEAVE_SECONDS: Final = 2.0
# Of what a dying process wrote of its threads, so much is read.
_STACKS_BYTES_MAX: Final = 64_000
# A process that is being started, and imports what it needs for its first task.
_START_SECONDS: Final = 60.0
# How often a worker shows that Python runs in it; after so many that fail to come it is given up.
_BEAT_SECONDS: Final = 5.0
_BEATS_MISSED: Final = 12
# What the line of a frame has in which a thread waits for its turn (a worker may have the harness
# from another folder than its parent); and how that begins of what it waits by.
_PARKED: Final = f"{os.sep}harness{os.sep}engine{os.sep}"
_FRAME: Final = re.compile(r'^ *File "(.*)", line (\d+) in (.*)$', re.MULTILINE)
_NEWEST_FIRST: Final = "(most recent call first)"
_LIBRARY: Final = f"{Path(os.__file__).parent}{os.sep}"
_WAITING: Final = f'  File "{threading.__file__}"'
# Linux: the signal that a process gets when its parent dies.
_PR_SET_PDEATHSIG: Final = 1


def usable_cores() -> int:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@dataclass(frozen=True, slots=True)
class Task:
    """One call for a worker process.

    Attributes:
        key: Comes back with the value.
        function: Importable by name.
        args: Picklable.
        seconds: Wall time after which its process is killed; None for no limit.
        contained: What it raises costs its process, like a crash, and not the whole run.
    """

    key: Any
    function: Callable[..., Any]
    args: tuple[Any, ...]
    seconds: float | None = None
    contained: bool = False


@dataclass(frozen=True, slots=True)
class Crash:
    """Instead of a task's value: its process died (killed, out of memory, a fault in C code).

    Attributes:
        exit_code: Negative for a signal; None where the process lives and was replaced.
        why: What came before that, where it is known: a time limit, an exception.
        note: The last that the task said by ``note``.
        stacks: What its threads were doing, where the process could still say so.
    """

    exit_code: int | None
    why: str = ""
    note: Any = None
    stacks: str = ""

    @property
    def where(self) -> str:
        """Where the thread was that ran, outside of Python's own library; empty if not known."""
        culprit = self.stacks.split("\n\n", 1)[0]
        for path, line, name in _FRAME.findall(culprit) if _NEWEST_FIRST in culprit else ():
            if not path.startswith(_LIBRARY):
                return f"{Path(path).name}:{line} in {name}"
        return ""

    def __str__(self) -> str:
        """Name the signal where there was one."""
        if self.why:
            return self.why
        code = self.exit_code
        if code is not None and code < 0:
            with contextlib.suppress(ValueError):
                return f"the worker process was ended by {signal.Signals(-code).name}"
        return f"the worker process ended with exit code {code}"


class WorkerError(InternalError):
    """A task raised what it should not have.

    Attributes:
        summary: One line.
        trace: The worker's traceback, for ``--debug``.
    """

    def __init__(self, summary: str, trace: str) -> None:
        """Keep both parts; pickles."""
        super().__init__(summary, trace)
        self.summary = summary
        self.trace = trace

    def __str__(self) -> str:
        """One line."""
        return self.summary


def run_tasks(
    take: Callable[[], Task | None],
    jobs: int,
    *,
    fresh: bool = False,
    worn: Callable[[Any], bool] = lambda _: False,
) -> Iterator[tuple[Any, Any]]:
    """Run tasks on up to ``jobs`` processes; yield ``(key, value)`` in the order of completion.

    Closing the iterator, or an exception in its consumer, ends all processes at once.

    Args:
        take: Gives the next task whenever a worker is free; None where there is none for now. It
            is asked again after the next completion; the run is over when it has none and nothing
            runs.
        jobs: Processes at most, from 1.
        fresh: Give every task a process of its own.
        worn: Whether the process that gave this value is to be replaced.

    Yields:
        The key of a task, and its value or a ``Crash``.

    Raises:
        HarnessError: A task raised it.
        WorkerError: A task raised anything else.
        UsageError: A process could not be started.
    """
    workers: list[_Worker] = []
    first = _core_here()
    clean = False
    try:
        while True:
            _feed(take, workers, jobs, first)
            busy = {worker.connection: worker for worker in workers if worker.task is not None}
            if not busy:
                clean = True
                return
            ready = wait(list(busy), _patience(busy.values()))
            late = [worker for worker in busy.values() if worker.late]
            for worker in [busy[one] for one in ready] + late:  # type: ignore[index] # as given
                answer = worker.finish()
                if answer is None:
                    continue
                task, status, value = answer
                if fresh or status == "crash" or (status == "value" and worn(value)):
                    workers.remove(worker)
                    worker.close(kill=status == "crash")
                if status == "error":
                    raise value
                yield task.key, value
    finally:
        for worker in workers:
            worker.close(kill=not clean)


def call_fresh(function: Callable[..., Any], *args: object) -> Any:
    """Run one call in a process of its own and return its value.

    Raises:
        HarnessError: As the call raised it.
        WorkerError: The call raised anything else, or its process died.
    """
    tasks = [Task(None, function, args)]
    for _, value in run_tasks(lambda: tasks.pop() if tasks else None, 1, fresh=True):
        if isinstance(value, Crash):
            raise WorkerError(str(value), "")
        return value
    raise InternalError("a worker process gave no answer")


def note(value: Any) -> None:
    """Say from within a task how far it is; the last of it is known where its process dies."""
    if _parent:
        with contextlib.suppress(OSError):  # a parent that died is noticed at the end of the task
            _parent[-1].send(("note", value))


def _stuck(thread: str, stacks: str) -> None:
    """The task's own thread hangs and cannot be abandoned; its process can, by the parent."""
    _parent[-1].send(("stuck", (f"thread {thread} hung", stacks)))
    _parent[-1].poll(None)  # until it hangs up, or kills


_parent: Final[list[Connection]] = []


class Keeper:
    """One worker process that is kept from call to call, and replaced where it dies."""

    def __init__(self, number: int, *, worn: Callable[[Any], bool] = lambda _: False) -> None:
        """Args: as of ``run_tasks``; ``number`` picks the core."""
        self._number = number
        self._worn = worn
        self._worker: _Worker | None = None

    def call(self, task: Task) -> Any:
        """The task's value or a ``Crash``.

        Raises:
            HarnessError: The task raised it, and is not contained.
        """
        worker = self._worker = self._worker or _Worker(self._number)
        worker.start(task)
        while True:
            if not wait([worker.connection], worker.left) and not worker.late:
                continue
            answer = worker.finish()
            if answer is not None:
                break
        _, status, value = answer
        if status == "crash" or (status == "value" and self._worn(value)):
            self.close(kill=status == "crash")
        if status == "error":
            raise value
        return value

    def close(self, *, kill: bool = False) -> None:
        """End the process."""
        if self._worker is not None:
            self._worker.close(kill=kill)
        self._worker = None


class _Worker:
    """The parent's end of one worker process."""

    __slots__ = (
        *("_deadline", "_note", "_pulse", "_stacks", "_up"),
        *("connection", "number", "process", "task"),
    )

    def __init__(self, number: int) -> None:
        """Start the process; ``number`` picks its core."""
        self.number = number
        self.task: Task | None = None
        self._deadline: float | None = None
        self._note: Any = None
        self._up = False
        self._stacks = _scratch()
        self._pulse = _Pulse(self._stacks)
        self.connection, theirs = _CONTEXT.Pipe()
        self.process: SpawnProcess = _CONTEXT.Process(
            target=_serve,
            args=(
                theirs,
                number,
                os.getpid(),
                self._stacks and _Descriptor(self._stacks),
                _BEAT_SECONDS,
            ),
            name=f"stress-worker-{number}",
            daemon=True,
        )
        with interrupt_held_back():
            self.process.start()
        theirs.close()

    def start(self, task: Task) -> None:
        self.task = task
        self._note = None
        self._deadline = None
        self._pulse.begin()
        if task.seconds is not None:
            self._deadline = time.monotonic() + task.seconds + (0 if self._up else _START_SECONDS)
        with contextlib.suppress(OSError):  # a dead worker shows by its closed connection
            self.connection.send((task.function, task.args))

    @property
    def left(self) -> float:
        """Seconds until it is to be looked at, unless it says something before."""
        due = self._pulse.due if self._deadline is None else min(self._pulse.due, self._deadline)
        return max(0.0, due - time.monotonic())

    @property
    def late(self) -> str:
        """Why its task is to be given up; empty where it is not."""
        if self.task is None:
            return ""
        if self._deadline is not None and time.monotonic() >= self._deadline:
            return f"no answer within {self.task.seconds:g} s"
        if self._pulse.stopped() and self._up:  # looked at before too, or it would stay due
            seconds = _BEAT_SECONDS * _BEATS_MISSED
            return f"something has held the GIL of the worker process for {seconds:g} s"
        return ""

    def finish(self) -> tuple[Task, str, Any] | None:
        """The task with its status and value; None where it has only said something."""
        task = self.task
        if task is None:
            return None  # was ready, and late as well
        value: Any
        try:
            if not self.connection.poll():
                status, value = "crash", self._give_up(self.late)
            else:
                status, value = self.connection.recv()
        except (EOFError, OSError, pickle.UnpicklingError):
            self.process.join(_LEAVE_SECONDS)
            status, value = "crash", self._crash()
        if status == "up":
            self._up = True
            self._pulse.begin()
            if task.seconds is not None:
                self._deadline = time.monotonic() + task.seconds
            return None
        if status == "note":
            self._note = value
            return None
        if status == "stuck":
            status, value = "crash", self._crash(*value)
        if status == "error" and task.contained:
            status, value = "crash", self._crash(str(value), getattr(value, "trace", ""))
        self.task = None
        return task, status, value

    def _give_up(self, why: str) -> Crash:
        """End the process of a task that is late; let it write what its threads do."""
        if self._stacks is not None and self.process.pid is not None:
            os.kill(self.process.pid, signal.SIGABRT)
            self.process.join(_LEAVE_SECONDS)
        self.process.kill()
        self.process.join(_LEAVE_SECONDS)
        return self._crash(why)

    def _crash(self, why: str = "", trace: str = "") -> Crash:
        if not trace and self._stacks is not None:
            self._stacks.seek(0)
            trace = _culprit_first(self._stacks.read(_STACKS_BYTES_MAX).decode(errors="replace"))
        return Crash(None if why else self.process.exitcode, why, self._note, trace)

    def close(self, *, kill: bool) -> None:
        self.connection.close()
        if kill:
            self.process.kill()
        self.process.join(_LEAVE_SECONDS)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        if self._stacks is not None:
            self._stacks.close()


class _Pulse:
    """Whether Python runs in a process: a thread there touches a file every so often.

    The thread needs the GIL for it and nothing else, and whoever watches from outside needs no
    answer. Beats that failed to come are counted, not seconds: a machine that slept, or Ctrl-Z, is
    one at most.

    Attributes:
        due: When to look again, by ``time.monotonic``.
    """

    __slots__ = ("_beat", "_file", "_missed", "due")

    def __init__(self, file: IO[bytes] | None) -> None:
        """Args: file: Open in both processes; None where there is none, which is never late."""
        self._file = file
        self.begin()

    def begin(self) -> None:
        """Count from now on."""
        self._beat: float = 0
        self._missed = 0
        self.due = time.monotonic() + _BEAT_SECONDS

    def stopped(self) -> bool:
        """Look, where that is due; whether too many beats have failed to come."""
        now = time.monotonic()
        if now >= self.due:
            self.due = now + _BEAT_SECONDS
            beat = os.fstat(self._file.fileno()).st_mtime_ns if self._file is not None else now
            self._missed = self._missed + 1 if beat == self._beat else 0
            self._beat = beat
        return self._missed >= _BEATS_MISSED

    @staticmethod
    def run(file: IO[bytes], seconds: float) -> None:
        """Beat, in the process that is watched."""
        sleep = time.sleep  # a program may patch it

        def beat() -> None:
            while True:
                sleep(seconds)
                os.utime(file.fileno())

        threading.Thread(target=beat, name="lockloom-pulse", daemon=True).start()


def _culprit_first(stacks: str) -> str:
    """The thread that ran when the process died, before those that were parked.

    Of a process that was late that is not the current one: the signal came to its main thread,
    which waits in the engine for the thread that has the baton.
    """

    def rank(thread: str) -> int:
        frames = (line for line in thread.splitlines() if line.startswith('  File "'))
        top = next((line for line in frames if not line.startswith(_WAITING)), _PARKED)
        running = _PARKED not in top
        current = thread.startswith("Current thread")
        return 0 if running and current else 1 if running else 2 if current else 3

    return "\n\n".join(sorted(stacks.strip().split("\n\n"), key=rank))


def _patience(busy: Iterable[_Worker]) -> float:
    """Seconds until the first of them is to be looked at."""
    return min(worker.left for worker in busy)


def _core_here() -> int:
    """Which of its cores this process runs on: the system has put it where there was room.

    Were the first worker always on the first core, runs side by side would leave the others idle.
    """
    with contextlib.suppress(OSError, AttributeError, ValueError):
        import ctypes

        return sorted(os.sched_getaffinity(0)).index(ctypes.CDLL(None).sched_getcpu())
    return 0


def _feed(take: Callable[[], Task | None], workers: list[_Worker], jobs: int, first: int) -> None:
    """Give every free worker a task, and start workers as long as there are tasks for them.

    Raises:
        UsageError: The system gives no further process.
    """
    while True:
        idle = next((worker for worker in workers if worker.task is None), None)
        if idle is None and len(workers) >= jobs:
            return
        task = take()
        if task is None:
            return
        if idle is None:
            taken = {worker.number for worker in workers}
            cores = range(first, first + jobs)
            try:
                idle = _Worker(next(number for number in cores if number not in taken))
            except OSError as error:
                raise UsageError(
                    f"cannot start worker process {len(workers) + 1} of {jobs}: {error.strerror}; "
                    "take fewer --jobs"
                ) from None
            workers.append(idle)
        idle.start(task)


@contextlib.contextmanager
def interrupt_held_back(*more: signal.Signals) -> Iterator[None]:
    """Start a child that never sees Ctrl-C: the terminal sends it to the parent too, which decides.

    The blocked mask is inherited; the parent gets what came meanwhile when the block ends. ``more``
    are held back with it.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    # Started by the first child's start, it would let the signal through again for that child.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, *more})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _scratch() -> IO[bytes] | None:
    """A file for what a dying process says of its threads; nobody has to clear it away."""
    return tempfile.TemporaryFile() if os.name == "posix" else None


class _Descriptor:
    """An open file on its way to a process that is being started."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def __getstate__(self) -> Any:
        return DupFd(self._file.fileno())

    def __setstate__(self, sent: Any) -> None:
        self._file = os.fdopen(sent.detach(), "r+b")

    def take(self) -> IO[bytes]:
        return self._file


def _die_with(parent: int) -> None:
    """Leave no worker behind where the parent is killed: its task would be for nobody."""
    if sys.platform != "linux":
        return
    with contextlib.suppress(OSError, AttributeError):
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)


def _serve(
    connection: Connection,
    number: int,
    parent: int,
    stacks: _Descriptor | None,
    beat_seconds: float,
) -> None:
    """Run tasks until the parent hangs up."""
    _die_with(parent)
    if stacks is not None:
        file = stacks.take()
        faulthandler.enable(file)
        _Pulse.run(file, beat_seconds)
    with contextlib.suppress(ValueError):
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    _parent.append(connection)
    Watchdog.stuck = _stuck
    with contextlib.suppress(OSError):
        connection.send(("up", None))
    with settled(number):
        while True:
            try:
                function, args = connection.recv()
            except (EOFError, OSError):
                return
            answer = _answer(function, args)
            try:
                connection.send_bytes(answer)
            except OSError:
                return


def _answer(function: Callable[..., Any], args: tuple[Any, ...]) -> bytes:
    """Run one task; what ``_Worker.finish`` unpickles is ``(status, value)``."""
    try:
        return pickle.dumps(("value", function(*args)))
    except HarnessError as error:
        return pickle.dumps(("error", error))
    except Exception as error:
        said = f": {error}" if str(error) else ""  # MemoryError says nothing
        summary = f"{type(error).__name__} in a worker process{said}".splitlines()[0]
        return pickle.dumps(("error", WorkerError(summary, traceback.format_exc())))
