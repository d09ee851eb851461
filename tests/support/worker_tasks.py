"""What the tests of worker processes have them do: importable there, as a test module is not."""

from __future__ import annotations

import ctypes
import io
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from stress import pool


def double(number: int) -> int:
    return 2 * number


def die(code: int) -> None:
    os._exit(code)


def process_of(_number: int) -> int:
    return os.getpid()


def cores_of(_number: int) -> set[int]:
    return os.sched_getaffinity(0)


def loaded_after(function: Callable[..., object], *args: object) -> set[str]:
    """Names of the packages that a fresh process has loaded once it has called the function."""
    function(*args)
    return {name.partition(".")[0] for name in sys.modules}


def spin(said: int, path: str = "") -> None:
    """Say so, to the parent and by a file, and never end."""
    pool.note(said)
    if path:
        Path(path).write_text("spins", encoding="utf-8")
    while True:
        pass


def announce_and_spin(path: str) -> None:
    Path(path).write_text(str(os.getpid()), encoding="utf-8")
    while True:
        pass


def hang(mode: str) -> None:
    """The thread that explores blocks in something that the harness does not control."""
    # Not above: tasks with little time are here too.
    from harness import explore, parallel, yield_now

    def program() -> None:
        parallel(yield_now, yield_now)
        time.sleep(600)

    explore(program, schedules=1, hang_seconds=0.2, mode=mode)


def segfault() -> None:
    ctypes.string_at(0)


def hold_the_gil() -> None:
    """In a thread of a schedule, for longer than any test: no other thread can run meanwhile."""
    from harness import explore, parallel, yield_now

    def hold() -> None:
        ctypes.PyDLL(None).sleep(600)

    explore(lambda: parallel(hold, yield_now), hang_seconds=0.2)


def rest(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def run_out_of_memory() -> None:
    raise MemoryError


def break_down() -> None:
    raise ZeroDivisionError("planted")


def log_of_mutant(mutant: str, schedules: int, deadlocks: bool) -> bytes:
    """Run the scenario of a planted bug, and return the lock log, deadlocks included or not."""
    from harness.search.recording import Failure, record_part
    from harness.search.setup import Setup
    from harness.trace.events import Story
    from harness.trace.locklog import LockLog
    from stress import mutants
    from stress.catalogue import program_of

    (planted,) = mutants.choose(mutants.read(), [mutant])
    mutants.install_for(planted.spec)
    stream = io.BytesIO()
    with LockLog(stream) as log:

        def write(schedule: int, failure: Failure | None, story: Story) -> None:
            if deadlocks or failure is None or failure.kind != "deadlock":
                log.story(f"{planted.scenario}#{schedule}", story)

        record_part(program_of(planted.spec), Setup(), 1, schedules, write)
    return stream.getvalue()
