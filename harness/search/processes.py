"""One exploration on several processes: blocks of schedules, put together by number.

A block does not depend on how many processes there are, and ``assemble`` looks at schedules by
their number only, so the result is that of one process.
"""

from __future__ import annotations

import importlib
import itertools
import multiprocessing
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing.sharedctypes import Synchronized
from typing import Any, Final

from harness.errors import UsageError
from harness.search.learning import Memory
from harness.search.part import Part, explore_part
from harness.search.setup import BLOCK, Setup
from harness.search.verdict import Exploration, Gathered, assemble

_worker = 0
_memory: Final = Memory()


def explore_divided(
    program: Callable[[], object],
    setup: Setup,
    schedules: int | None,
    seconds: float | None,
    processes: int,
) -> Exploration:
    """Explore on ``processes`` processes; see ``explore``.

    Raises:
        UsageError: ``program`` cannot be imported by its name in another process.
    """
    module, name = importable(program)
    context = multiprocessing.get_context("spawn")
    numbers = context.Value("i", 0)
    gathered = Gathered(setup)
    with ProcessPoolExecutor(
        processes, mp_context=context, initializer=_number_worker, initargs=(numbers,)
    ) as executor:
        waiting: deque[Future[Part]] = deque()
        try:
            for first, last in _blocks(schedules, seconds):
                waiting.append(executor.submit(_run_block, module, name, setup, first, last))
                if len(waiting) > 2 * processes and _take(waiting, gathered):
                    break
            while waiting and not _take(waiting, gathered):
                pass
        finally:
            for future in waiting:
                future.cancel()
    return assemble(program, setup, gathered.parts)


def _take(waiting: deque[Future[Part]], gathered: Gathered) -> bool:
    """Take the next block's result, in order; whether the exploration ends with it."""
    gathered.take(waiting.popleft().result())
    return gathered.ended


def _blocks(schedules: int | None, seconds: float | None) -> Iterator[tuple[int, int]]:
    began = time.monotonic()
    for first in itertools.count(1, BLOCK):
        if schedules is not None and first > schedules:
            return
        if seconds is not None and time.monotonic() - began >= seconds:
            return
        last = first + BLOCK - 1
        yield first, last if schedules is None else min(last, schedules)


def importable(program: Any) -> tuple[str, str]:
    """Module and qualified name of ``program``.

    Raises:
        UsageError: Importing that name gives something else.
    """
    module = getattr(program, "__module__", None)
    name = getattr(program, "__qualname__", None)
    if module in (None, "__main__") or name is None or "<" in name:
        raise UsageError(
            "processes > 1 needs a program that another process can import by its name, "
            f"got {program!r}; move it to the top level of a module"
        )
    if _load(module, name) is not program:
        raise UsageError(
            f"{module}.{name} is not the program that was given; processes > 1 needs it to be"
        )
    return module, name


def _load(module: str, name: str) -> Any:
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    return found


def _number_worker(numbers: Synchronized[int]) -> None:
    """Each process explores on a core of its own."""
    global _worker
    with numbers.get_lock():
        _worker = numbers.value
        numbers.value += 1


def _run_block(module: str, name: str, setup: Setup, first: int, last: int) -> Part:
    learning = _memory.of((module, name, setup))
    return explore_part(_load(module, name), setup, first, last, worker=_worker, learning=learning)
