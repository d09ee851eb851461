"""Worker processes: spawned, one core each, isolated from each other's crashes.

``concurrent.futures`` gives up all of its processes when one of them dies, and cannot stop a task
that runs; a campaign needs both, and a task that loads a mutated model needs a process of its own.
A worker never logs and never prints: what it has to say, it returns.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import pickle
import signal
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any, Final

from harness.engine.pool import settled
from harness.errors import HarnessError, InternalError

_CONTEXT: Final = multiprocessing.get_context("spawn")
# How long a worker may take to leave by itself before it is killed.
_LEAVE_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True)
class Task:
    """One call for a worker process.

    Attributes:
        key: Comes back with the value.
        function: Importable by name.
        args: Picklable.
    """

    key: Any
    function: Callable[..., Any]
    args: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Crash:
    """Instead of a task's value: its process died (killed, out of memory, a fault in C code)."""

    exit_code: int | None

    def __str__(self) -> str:
        """Name the signal where there was one."""
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
    take: Callable[[], Task | None], jobs: int, *, fresh: bool = False
) -> Iterator[tuple[Any, Any]]:
    """Run tasks on up to ``jobs`` processes; yield ``(key, value)`` in the order of completion.

    Closing the iterator, or an exception in its consumer, ends all processes at once.

    Args:
        take: Gives the next task whenever a worker is free; None where there is none for now. It
            is asked again after the next completion; the run is over when it has none and nothing
            runs.
        jobs: Processes at most, from 1.
        fresh: Give every task a process of its own.

    Yields:
        The key of a task, and its value or a ``Crash``.

    Raises:
        HarnessError: A task raised it.
        WorkerError: A task raised anything else.
    """
    workers: list[_Worker] = []
    clean = False
    try:
        while True:
            _feed(take, workers, jobs)
            busy = {worker.connection: worker for worker in workers if worker.task is not None}
            if not busy:
                clean = True
                return
            for connection in wait(list(busy)):
                worker = busy[connection]  # type: ignore[index] # only connections were given
                task, status, value = worker.finish()
                if fresh or status == "crash":
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


class _Worker:
    """The parent's end of one worker process."""

    __slots__ = ("connection", "number", "process", "task")

    def __init__(self, number: int) -> None:
        """Start the process; ``number`` picks its core."""
        self.number = number
        self.task: Task | None = None
        self.connection, theirs = _CONTEXT.Pipe()
        self.process: SpawnProcess = _CONTEXT.Process(
            target=_serve, args=(theirs, number), name=f"stress-worker-{number}", daemon=True
        )
        with _interrupt_held_back():
            self.process.start()
        theirs.close()

    def start(self, task: Task) -> None:
        self.task = task
        with contextlib.suppress(OSError):  # a dead worker shows by its closed connection
            self.connection.send((task.function, task.args))

    def finish(self) -> tuple[Task, str, Any]:
        task = self.task
        assert task is not None
        self.task = None
        try:
            status, value = self.connection.recv()
        except (EOFError, OSError):
            self.process.join(_LEAVE_SECONDS)
            status, value = "crash", Crash(self.process.exitcode)
        return task, status, value

    def close(self, *, kill: bool) -> None:
        self.connection.close()
        if kill:
            self.process.kill()
        self.process.join(_LEAVE_SECONDS)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


def _feed(take: Callable[[], Task | None], workers: list[_Worker], jobs: int) -> None:
    """Give every free worker a task, and start workers as long as there are tasks for them."""
    while True:
        idle = next((worker for worker in workers if worker.task is None), None)
        if idle is None and len(workers) >= jobs:
            return
        task = take()
        if task is None:
            return
        if idle is None:
            taken = {worker.number for worker in workers}
            idle = _Worker(next(number for number in range(jobs) if number not in taken))
            workers.append(idle)
        idle.start(task)


@contextlib.contextmanager
def _interrupt_held_back() -> Iterator[None]:
    """Start a child that never sees Ctrl-C: the terminal sends it to the parent too, which decides.

    The blocked mask is inherited; the parent gets what came meanwhile when the block ends.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve(connection: Connection, number: int) -> None:
    """Run tasks until the parent hangs up."""
    with contextlib.suppress(ValueError):
        signal.signal(signal.SIGINT, signal.SIG_IGN)
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
        summary = f"{type(error).__name__} in a worker process: {error}".splitlines()[0]
        return pickle.dumps(("error", WorkerError(summary, traceback.format_exc())))
