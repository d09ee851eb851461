"""Schedule points before the lines of modules that nobody rewrote.

A point stands before each *statement*, not before each line event: Pythons differ in which lines of
a statement they report and how often, and choices, operations and digests must not. So events are
folded: what counts is that the innermost statement around the line is another one than before, in
the same call. A loop on one line is one statement. Frames without statements (comprehensions,
generator expressions, lambdas) belong to the statement that holds them.
"""

from __future__ import annotations

import ast
import functools
import gc
import importlib
import linecache
import sys
from collections.abc import Callable, Iterable, Sequence
from types import CodeType, FrameType, FunctionType, ModuleType
from typing import Any, Final, Self

from harness.engine.core import CORE
from harness.engine.pool import Pool
from harness.errors import UsageError
from harness.patch.adopt import Same
from harness.patch.inside import inside
from harness.sync.base import Primitive, point

# Every line may touch what any other touches, so all are operations on one object.
_CODE: Final = Primitive("code")
_LOCAL: Final = "_lockloom_lines"


class Statements:
    """Which statement each line of a file belongs to."""

    def __init__(self, text: str) -> None:
        """Args: text: The source."""
        self._first: dict[int, int] = {}
        nodes = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.stmt)]
        for node in sorted(nodes, key=_first_line):
            first = _first_line(node)
            # Later ones begin further down, and overwrite what is theirs.
            self._first.update(dict.fromkeys(range(first, (node.end_lineno or first) + 1), first))

    def first(self, line: int) -> int:
        """The first line of the innermost statement around ``line``."""
        return self._first.get(line, line)


def _first_line(node: ast.stmt) -> int:
    decorators: list[ast.expr] = getattr(node, "decorator_list", [])
    return min([node.lineno, *(each.lineno for each in decorators)])


@functools.lru_cache(maxsize=256)
def _statements(filename: str) -> Statements:
    return Statements("".join(linecache.getlines(filename)))


def resolved(names: Sequence[object]) -> tuple[str, ...]:
    """Names of modules, given by name or as they are.

    Raises:
        UsageError: One cannot be imported, or has no Python source.
    """
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise UsageError(f"lines takes a list of modules or their names, got {names!r}")
    return tuple(_module(name).__name__ for name in names)


def _module(wanted: object) -> ModuleType:
    module = wanted if isinstance(wanted, ModuleType) else sys.modules.get(str(wanted))
    if module is None:
        try:
            module = importlib.import_module(str(wanted))
        except (ImportError, ValueError) as error:
            raise UsageError(f"lines: cannot import the module {wanted!r}: {error}") from None
    file = getattr(module, "__file__", None)
    if file is None or not linecache.getlines(file):
        raise UsageError(f"lines: the module {module.__name__} has no Python source here")
    return module


class Lines:
    """While this block runs, each statement of some modules is a schedule point."""

    def __init__(self, names: Sequence[str], pool: Pool) -> None:
        """Args: names: As ``resolved`` gives them. pool: Whose threads are watched."""
        self._files = frozenset(str(_module(name).__file__) for name in names)
        self._pool = pool
        self._watch = _monitored if sys.version_info >= (3, 12) else _traced
        self._undo: Callable[[], None]

    def __enter__(self) -> Self:
        """Begin to watch."""
        self._undo = self._watch(self._files, self._pool)
        return self

    def __exit__(self, *_exc: object) -> None:
        """Leave the code as it was."""
        self._undo()


def _has_statements(code: CodeType) -> bool:
    return not code.co_name.startswith("<")


def _begun(frame: FrameType) -> None:
    """A call begins, or a generator goes on: its first line is a new one."""
    me = inside()
    if me is None:
        return
    seen: dict[int, int] | None = me.local.get(_LOCAL)
    if seen is not None:
        depth = _depth(frame)
        for other in [each for each in seen if each >= depth]:
            del seen[other]


def _line(frame: FrameType, line: int) -> None:
    """``frame`` is about to run a line: a schedule point, if that begins another statement."""
    me = inside()
    if me is None or me.done or CORE.aborting or CORE.examining:
        return
    first = _statements(frame.f_code.co_filename).first(line)
    depth = _depth(frame)
    seen: dict[int, int] = me.local.setdefault(_LOCAL, {})
    if seen.get(depth) == first:
        return
    for other in [each for each in seen if each > depth]:
        del seen[other]
    seen[depth] = first
    point("line", _CODE)


def _depth(frame: FrameType | None) -> int:
    depth = 0
    while frame is not None:
        depth += 1
        frame = frame.f_back
    return depth


def _codes(files: frozenset[str]) -> list[CodeType]:
    """The code of every function of ``files``, those within functions included."""
    frozen = gc.get_freeze_count() > 0
    if frozen:
        gc.unfreeze()  # what is frozen is not listed
    waiting = [
        function.__code__
        for function in gc.get_objects()
        if type(function) is FunctionType and function.__code__.co_filename in files
    ]
    if frozen:
        gc.freeze()
    # By identity: equal functions of two modules are equal to Python.
    found: dict[Same, CodeType] = {}
    for code in waiting:
        if Same(code) not in found:
            found[Same(code)] = code
            waiting += [inner for inner in code.co_consts if isinstance(inner, CodeType)]
    return [code for code in found.values() if _has_statements(code)]


def _monitored(files: frozenset[str], _pool: Pool) -> Callable[[], None]:
    """Watch by ``sys.monitoring``: costs the code of other modules nothing. Returns the undoing."""
    monitoring: Any = vars(sys)["monitoring"]
    free = [tool for tool in range(5, -1, -1) if monitoring.get_tool(tool) is None]
    if not free:
        raise UsageError("lines: all tool numbers of sys.monitoring are taken in this process")
    tool = free[0]
    codes = _codes(files)
    wanted = monitoring.events.LINE | monitoring.events.PY_START | monitoring.events.PY_RESUME
    callbacks = {
        monitoring.events.LINE: lambda _code, line: _line(sys._getframe(1), line),
        monitoring.events.PY_START: lambda _code, _offset: _begun(sys._getframe(1)),
        monitoring.events.PY_RESUME: lambda _code, _offset: _begun(sys._getframe(1)),
    }
    monitoring.use_tool_id(tool, "lockloom")
    for event, callback in callbacks.items():
        monitoring.register_callback(tool, event, callback)
    for code in codes:
        monitoring.set_local_events(tool, code, wanted)

    def undo() -> None:
        for code in codes:
            monitoring.set_local_events(tool, code, 0)
        for event in callbacks:
            monitoring.register_callback(tool, event, None)
        monitoring.free_tool_id(tool)

    return undo


def _traced(files: frozenset[str], pool: Pool) -> Callable[[], None]:
    """Watch by a trace function, which sees every call of every module. Returns the undoing."""

    def on_line(frame: FrameType, event: str, _arg: object) -> Any:
        if event == "line":
            _line(frame, frame.f_lineno)
        return on_line

    def on_call(frame: FrameType, _event: str, _arg: object) -> Any:
        code = frame.f_code
        if code.co_filename not in files or not _has_statements(code):
            return None
        _begun(frame)
        return on_line

    pool.trace = on_call

    def undo() -> None:
        pool.trace = None

    return undo
