"""Which ``sometimes("name")`` a program contains, found in its code without running it.

A name that no schedule reached is known by its absence only, so the calls are looked for: in the
program's function, in the functions within it and in its closure, and in those of the same module
that any of these name. A name that is no literal cannot be known beforehand and is left out.
"""

from __future__ import annotations

import dis
import functools
from collections.abc import Iterator
from types import CodeType, FunctionType, MethodType
from typing import Any

from harness.sync.threads import sometimes

# What may stand between the name of a function and its first argument.
_BETWEEN = frozenset({"PUSH_NULL", "CACHE", "PRECALL"})


def declared(program: Any) -> set[str]:
    """The names that ``program`` says must sometimes be reached."""
    found: set[str] = set()
    seen: set[CodeType] = set()
    waiting = list(_functions(program))
    for function in waiting:
        if function.__code__ in seen:
            continue
        seen.add(function.__code__)
        for code in _within(function.__code__):
            found.update(_named(code, function))
            for name in code.co_names:
                value = function.__globals__.get(name)
                if getattr(value, "__module__", None) == function.__module__:
                    waiting.extend(_functions(value))
        for cell in function.__closure__ or ():
            try:
                waiting.extend(_functions(cell.cell_contents))
            except ValueError:  # a name that is bound later
                continue
    return found


def _functions(value: Any) -> Iterator[FunctionType]:
    """The functions that a value stands for: itself, or those of a class or an object."""
    if isinstance(value, FunctionType):
        yield value
    elif isinstance(value, MethodType):
        yield from _functions(value.__func__)
    elif isinstance(value, functools.partial):
        yield from _functions(value.func)
    elif isinstance(value, (staticmethod, classmethod)):
        yield from _functions(value.__func__)
    elif isinstance(value, type):
        for member in vars(value).values():
            if isinstance(member, (FunctionType, staticmethod, classmethod)):
                yield from _functions(member)
    elif isinstance(vars(type(value)).get("__call__"), FunctionType):
        yield from _functions(type(value))


def _within(code: CodeType) -> Iterator[CodeType]:
    """``code`` and that of all functions in it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _within(constant)


def _named(code: CodeType, function: FunctionType) -> Iterator[str]:
    """The literals that ``code`` gives to ``sometimes``."""
    names = {
        name
        for name in (*code.co_names, *code.co_freevars)
        if name == sometimes.__name__ or function.__globals__.get(name) is sometimes
    }
    if not names:
        return
    called = False
    for instruction in dis.get_instructions(code):
        if called and instruction.opname not in _BETWEEN:
            if instruction.opname == "LOAD_CONST" and isinstance(instruction.argval, str):
                yield instruction.argval
            called = False
        if instruction.opname.startswith("LOAD_") and instruction.opname != "LOAD_CONST":
            called = instruction.argval in names
