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

from harness.trace.events import Site

Place = tuple[CodeType | None, int]


def site_of(place: Place) -> Site | None:
    """Resolve a place; None where there is none.

    Args:
        place: A code object and the offset of the instruction in it.
    """
    code, lasti = place
    if code is None:
        return None
    return _resolve(code, _line(code, lasti))


def _line(code: CodeType, lasti: int) -> int:
    """The line of the instruction at ``lasti``."""
    for start, end, line in code.co_lines():
        if start <= lasti < end and line is not None:
            return line
    return code.co_firstlineno


@functools.lru_cache(maxsize=65_536)
def _resolve(code: CodeType, line: int) -> Site:
    starts = _starts(code.co_filename, code.co_firstlineno, code.co_name)
    ordinal = bisect.bisect_right(starts, line) if starts else line - code.co_firstlineno
    return Site(
        module=_module(code.co_filename),
        qualname=code.co_qualname,
        ordinal=ordinal,
        file=shown_file(code.co_filename),
        line=line,
    )


@functools.lru_cache(maxsize=4_096)
def _starts(filename: str, first: int, name: str) -> tuple[int, ...]:
    """Lines of one function on which a statement or call begins, in order; empty without source."""
    return _functions(filename).get((first, name), ())


@functools.lru_cache(maxsize=512)
def _functions(filename: str) -> dict[tuple[int, str], tuple[int, ...]]:
    """Every function of a file, by its first line and name."""
    text = "".join(linecache.getlines(filename))
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return {}
    found = {(1, "<module>"): _lines(tree)}
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            first = min([node.lineno, *(item.lineno for item in node.decorator_list)])
            found[(first, node.name)] = _lines(node)
    return found


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


@functools.lru_cache(maxsize=512)
def shown_file(filename: str) -> str:
    """A file as a reader sees it: relative to its environment, or to the working directory."""
    path = Path(filename)
    for folder in ("site-packages", "dist-packages"):
        if folder in path.parts:
            at = len(path.parts) - path.parts[::-1].index(folder)
            return Path(*path.parts[at:]).as_posix()
    if path.is_relative_to(Path.cwd()):
        return path.relative_to(Path.cwd()).as_posix()
    return Path(*path.parts[-2:]).as_posix().lstrip("/")
