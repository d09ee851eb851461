"""From ``(code, lasti)`` to a *site*: module, qualified name, and the ordinal of the place in it.

Line numbers move with every edit above them, and bytecode offsets differ between Python versions,
so neither can name a place in a fingerprint. A site counts the lines of its function on which a
statement or a call begins: the same on all supported Pythons, and under edits elsewhere.
"""

from __future__ import annotations

import ast
import bisect
import functools
import linecache
import sys
from pathlib import Path
from types import CodeType
from typing import Final

from harness.trace.events import Site

Place = tuple[CodeType | None, int]


# Before 3.12 a comprehension is a function of its own; from then on a part of the one around it.
_INLINED: Final = ("<listcomp>", "<setcomp>", "<dictcomp>")


def site_of(place: Place) -> Site | None:
    """Resolve a place; None where there is none.

    Args:
        place: A code object and the offset of the instruction in it.
    """
    code, lasti = place
    if code is None:
        return None
    # Equal code of two files is equal to Python; a site is not.
    return _resolve(code.co_filename, code, _line(code, lasti))


def _line(code: CodeType, lasti: int) -> int:
    """The line of the instruction at ``lasti``."""
    for start, end, line in code.co_lines():
        if start <= lasti < end and line is not None:
            return line
    return code.co_firstlineno


@functools.lru_cache(maxsize=65_536)
def _resolve(filename: str, code: CodeType, line: int) -> Site:
    source = _source(filename)
    starts = source.starts(code)
    begin = source.headers.get(line, line)
    ordinal = bisect.bisect_right(starts, begin) if starts else begin - code.co_firstlineno
    return Site(
        module=_module(filename),
        qualname=_qualname(code),
        ordinal=ordinal,
        file=shown_file(filename),
        line=line,
    )


def _qualname(code: CodeType) -> str:
    """The qualified name of the function, as every supported Python sees it."""
    parts = code.co_qualname.split(".")
    while len(parts) > 1 and parts[-1] in _INLINED:
        parts = parts[: -2 if parts[-2] == "<locals>" else -1]
    return ".".join(parts) if parts[-1] not in _INLINED else "<module>"


class _Source:
    """What a file's syntax tree says about its lines.

    Attributes:
        headers: Lines of a ``with`` statement that stretches over several, to its first: Pythons
            differ in which of them they blame for entering and leaving.
    """

    def __init__(self, text: str) -> None:
        """Nothing is known where ``text`` does not parse."""
        self.headers: dict[int, int] = {}
        # First line, last line, name, and the lines on which something begins; outermost first.
        self._functions: list[tuple[int, int, str, tuple[int, ...]]] = []
        try:
            tree = ast.parse(text)
        except (SyntaxError, ValueError):
            return
        self._functions.append((1, 1 << 60, "<module>", _lines(tree)))
        for node in ast.walk(tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                first = min([node.lineno, *(item.lineno for item in node.decorator_list)])
                self._functions.append((first, _last(node), node.name, _lines(node)))
            elif isinstance(node, (ast.With, ast.AsyncWith)):
                end = max(_last(item.context_expr) for item in node.items)
                self.headers.update(dict.fromkeys(range(node.lineno, end + 1), node.lineno))

    def starts(self, code: CodeType) -> tuple[int, ...]:
        """Lines of ``code``'s function on which a statement or call begins; empty if not known."""
        first = code.co_firstlineno
        inlined = code.co_name in _INLINED
        found: tuple[int, ...] = ()
        # The walk goes from the outside in, so the last that fits is the innermost.
        for begin, end, name, lines in self._functions:
            if (begin <= first <= end) if inlined else ((begin, name) == (first, code.co_name)):
                found = lines
        return found


def _last(node: ast.AST) -> int:
    return int(getattr(node, "end_lineno", 0))


@functools.lru_cache(maxsize=512)
def _source(filename: str) -> _Source:
    return _Source("".join(linecache.getlines(filename)))


def _lines(root: ast.AST) -> tuple[int, ...]:
    """Lines under ``root`` that begin a statement or an expression."""
    lines = {
        node.lineno
        for node in ast.walk(root)
        if isinstance(node, (ast.stmt, ast.expr)) and node is not root
    }
    return tuple(sorted(lines))


@functools.lru_cache(maxsize=512)
def _module(filename: str) -> str:
    """The dotted name of the module whose file this is, however it was loaded."""
    for name, module in sorted(sys.modules.items()):
        if name != "__main__" and getattr(module, "__file__", None) == filename:
            return name
    return Path(filename).stem


# Files by the names that readers see; for those that were recorded in this process.
_FULL: Final[dict[str, str]] = {}


def source_lines(shown: str) -> list[str]:
    """The lines of a file that some recorded site is in; none where it was recorded elsewhere."""
    return linecache.getlines(_FULL.get(shown, ""))


@functools.lru_cache(maxsize=512)
def shown_file(filename: str) -> str:
    """A file as a reader sees it: relative to its environment, or to the working directory."""
    shown = _shown_file(Path(filename))
    _FULL[shown] = filename
    return shown


def _shown_file(path: Path) -> str:
    for folder in ("site-packages", "dist-packages"):
        if folder in path.parts:
            at = len(path.parts) - path.parts[::-1].index(folder)
            return Path(*path.parts[at:]).as_posix()
    if path.is_relative_to(Path.cwd()):
        return path.relative_to(Path.cwd()).as_posix()
    return Path(*path.parts[-2:]).as_posix().lstrip("/")
