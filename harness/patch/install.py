"""Putting the patches in place, and taking all of them out again."""

from __future__ import annotations

import _queue
import _thread
import concurrent.futures._base
import contextlib
import itertools
import logging
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures.thread import ThreadPoolExecutor
from functools import partial
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any, Final

from harness.engine.core import CORE
from harness.engine.pool import Pool
from harness.errors import ScheduleAborted
from harness.patch import classes, locks, threads
from harness.patch.adopt import POOL, Adoption
from harness.patch.clock import CLOCKS
from harness.patch.inside import PerSchedule, forget_shadows, in_order, inside
from harness.patch.locks import Lock, RLock, SimpleQueue

# Modules whose names stay what they are: ours, and what runs tests.
TOOLS: Final = frozenset(
    {"harness", "importlib", "pytest", "_pytest", "pluggy", "xdist", "execnet", "pytest_timeout"}
)


def _names() -> dict[Any, Any]:
    """What each name of the standard library becomes, by the value that it has."""
    return {
        **CLOCKS,
        _thread.allocate_lock: Lock,
        _thread.RLock: RLock,
        threading.Lock: Lock,
        threading.RLock: RLock,
        _queue.SimpleQueue: SimpleQueue,
        _thread.get_ident: threads.get_ident,
        threading.get_native_id: threads.get_native_id,
        threading.current_thread: threads.current_thread,
        threading.local: locks.Local,
        threading.enumerate: threads.enumerate_,
        threading.active_count: threads.active_count,
        _thread.start_new_thread: threads.start_new_thread,
        vars(_thread)["_count"]: threads.count,
    }


class Patches:
    """Everything that was replaced, and what stood there.

    Attributes:
        adoption: Locks of the program that were made before.
    """

    def __init__(self) -> None:
        """Put all in place; undone by ``undo``, also where this fails halfway."""
        self._undo: list[Callable[[], object]] = []
        self.adoption = Adoption(self._undo)
        try:
            self._replace_methods()
            self._replace_names()
            self._quieten()
            self.adoption.adopt(list(_modules(program=True)))
        except BaseException:
            self.undo()
            raise

    def undo(self) -> None:
        """Everything back, the latest first."""
        forget_shadows()
        while self._undo:
            self._undo.pop()()

    def _set(self, owner: Any, name: str, value: Any) -> None:
        before = vars(owner).get(name, _ABSENT)
        setattr(owner, name, value)
        if before is _ABSENT:
            self._undo.append(partial(delattr, owner, name))
        else:
            self._undo.append(partial(setattr, owner, name, before))

    def _replace_methods(self) -> None:
        for cls, make in classes.METHODS:
            for name, method in make(dict(vars(cls))).items():
                self._set(cls, name, method)
        self._set(threading, "_counter", threads.number)
        # Several futures are locked in the order of their identities.
        self._set(concurrent.futures._base, "id", in_order)
        executor: Any = ThreadPoolExecutor
        self._set(executor, "_counter", staticmethod(_numbered(executor._counter)))

    def _replace_names(self) -> None:
        """In the modules that define them, and wherever a from-import has taken them."""
        names = _names()
        for module in _modules(program=False):
            for name, value in list(vars(module).items()):
                if type(value) in _KINDS and value in names:
                    self._set(module, name, names[value])
            for function in _functions(module):
                self._replace_defaults(function, names)

    def _replace_defaults(self, function: Any, names: dict[Any, Any]) -> None:
        """``def __init__(self, timer=time.monotonic)`` has taken a name too."""
        defaults = function.__defaults__
        if defaults and any(type(value) in _KINDS and value in names for value in defaults):
            new = tuple(names[v] if type(v) in _KINDS and v in names else v for v in defaults)
            function.__defaults__ = new
            self._undo.append(partial(setattr, function, "__defaults__", defaults))
        for name, value in list((function.__kwdefaults__ or {}).items()):
            if type(value) in _KINDS and value in names:
                function.__kwdefaults__[name] = names[value]
                self._undo.append(partial(function.__kwdefaults__.__setitem__, name, value))

    def _quieten(self) -> None:
        """A pool's worker logs whatever ends it; being unwound is no news."""
        logger = logging.getLogger("concurrent.futures")
        logger.addFilter(_is_news)
        self._undo.append(partial(logger.removeFilter, _is_news))


_ABSENT: Final = object()
# Types whose instances can be looked up without running code of the program.
_KINDS: Final = (BuiltinFunctionType, FunctionType, type)


def _is_news(record: logging.LogRecord) -> bool:
    kind = record.exc_info[0] if record.exc_info else None
    return kind is not ScheduleAborted


def _numbered(real: Callable[[], int]) -> Callable[[], int]:
    """The number in a pool's name, counted from 0 in each schedule."""
    numbers = PerSchedule(lambda: itertools.count(0))
    return lambda: real() if inside() is None else next(numbers.get())


def _modules(*, program: bool) -> Iterator[ModuleType]:
    """Loaded modules but for ours and the test runner's; of the program: none of Python's own.

    Module-level locks of the standard library stay real: nothing under them is a schedule point.
    The executor's is an exception.
    """
    for name, module in sorted(sys.modules.items()):
        top = name.partition(".")[0]
        if top in TOOLS or not isinstance(module, ModuleType):
            continue
        if program and top in sys.stdlib_module_names and name != POOL:
            continue
        yield module


def _functions(module: ModuleType) -> Iterator[FunctionType]:
    """Functions that a module defines, those of its classes included."""
    for value in list(vars(module).values()):
        if isinstance(value, type) and value.__module__ == module.__name__:
            for inner in list(vars(value).values()):
                plain = inner.__func__ if isinstance(inner, (staticmethod, classmethod)) else inner
                if isinstance(plain, FunctionType):
                    yield plain
        elif isinstance(value, FunctionType) and value.__module__ == module.__name__:
            yield value


_depth = 0
_patches: Patches | None = None


def active() -> bool:
    """Whether the patches are in place."""
    return _patches is not None


@contextlib.contextmanager
def patched() -> Iterator[None]:
    """Control ``threading``, ``_thread``, ``queue``, ``time`` and thread pools inside the block.

    For threads of a schedule, that is; every other thread of the process keeps the real thing. Put
    it around ``explore`` (or give that ``patch=True``); it works within a program too, at the cost
    of looking through all modules in every schedule. Blocks may be nested.
    """
    global _depth, _patches
    _depth += 1
    try:
        if _patches is None:
            _patches = Patches()
            if inside() is not None:
                begin(CORE.workers)
        yield
    finally:
        _depth -= 1
        if _depth == 0 and _patches is not None:
            patches, _patches = _patches, None
            patches.undo()


def begin(pool: Pool) -> None:
    """A schedule begins: what was made before it looks as it does outside."""
    if _patches is not None:
        _patches.adoption.mirror()
        if _patches.adoption.uses_locals:
            pool.reuse = False
