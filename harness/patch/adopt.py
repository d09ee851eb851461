"""Locks and queues that the program made before the patch, replaced wherever it keeps them."""

from __future__ import annotations

import contextlib
import sys
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from types import (
    BuiltinMethodType,
    CellType,
    FunctionType,
    MemberDescriptorType,
    MethodType,
    ModuleType,
)
from typing import Any, Final

from harness.patch.locks import (
    LOCAL,
    REAL_LOCK_TYPE,
    REAL_QUEUE,
    REAL_RLOCK,
    Lock,
    RLock,
    SimpleQueue,
)

_TWINS: Final[dict[type, Callable[[Any], Any]]] = {
    REAL_LOCK_TYPE: Lock,
    REAL_RLOCK: RLock,
    REAL_QUEUE: SimpleQueue,
}
# Of the standard library, the one module whose own lock the program waits for.
POOL: Final = "concurrent.futures.thread"
# Whose modules are no part of the program.
_OTHERS: Final = sys.stdlib_module_names | {"harness", "_pytest"}
# Programs hold large data; what lies behind so many objects is not looked at.
_OBJECTS_MAX: Final = 100_000

# A value, and what puts another in its place if that place still holds what is expected.
Slot = tuple[Any, Callable[[Any, Any], object]]


class Same:
    """An object as a key, by identity, also where it cannot be hashed."""

    __slots__ = ("it",)

    def __init__(self, it: object) -> None:
        self.it = it

    def __hash__(self) -> int:
        return object.__hash__(self.it)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and self.it is other.it


class Adoption:
    """What was found by following globals, attributes, containers and closures of the program.

    Attributes:
        uses_locals: The program has thread-local data, or a class of it.
    """

    def __init__(self, undo: list[Callable[[], object]]) -> None:
        """Args: undo: Gets a call for every replacement, which takes it back."""
        self._undo = undo
        self._twins: dict[Same, Any] = {}
        self._seen: set[Same] = set()
        self._locals: list[tuple[Any, dict[str, Any]]] = []
        self.uses_locals = any(_programs(cls.__module__) for cls in LOCAL.__subclasses__())

    def adopt(self, modules: list[ModuleType]) -> None:
        """Look through ``modules``."""
        waiting: deque[Slot] = deque()
        for module in modules:
            waiting += _entries(vars(module))
        while waiting and len(self._seen) < _OBJECTS_MAX:
            value, put = waiting.popleft()
            twin = self._twin(value)
            if twin is not None:
                put(twin, value)
                self._undo.append(partial(put, value, twin))
                continue
            if _leaf(value) or Same(value) in self._seen:
                continue
            self._seen.add(Same(value))
            if isinstance(value, LOCAL):
                self.uses_locals = True
                self._locals.append((value, dict(value.__dict__)))
                self._undo.append(partial(self._restore, value))
            waiting += _slots(value)
        # Nothing is kept alive for the sake of having been seen.
        self._seen.clear()

    def _twin(self, value: Any) -> Any:
        """What takes the place of ``value``; None where nothing does."""
        kind = type(value)
        if kind in _TWINS:
            key = Same(value)
            if key not in self._twins:
                self._twins[key] = _TWINS[kind](value)
            return self._twins[key]
        if kind is BuiltinMethodType and type(value.__self__) in _TWINS:
            # ``self.acquire = lock.acquire``, as a condition does.
            return getattr(self._twin(value.__self__), value.__name__, None)
        return None

    def mirror(self) -> None:
        """Locks stand as the real ones do; thread-local data of the caller as before the patch."""
        for twin in self._twins.values():
            if isinstance(twin, Lock):
                twin.mirror()
        for local, _ in self._locals:
            self._restore(local)

    def _restore(self, local: Any) -> None:
        for known, before in self._locals:
            if known is local:
                local.__dict__.clear()
                local.__dict__.update(before)


_LEAVES: Final = (str, bytes, int, float, complex, bool, type(None), ModuleType)


def _leaf(value: Any) -> bool:
    """Nothing of the program's lies behind it."""
    if isinstance(value, _LEAVES):
        return True
    owner = value if isinstance(value, type) else type(value)
    module = str(getattr(owner, "__module__", ""))
    if isinstance(value, type) and module != POOL:
        return not _programs(module)
    return module.startswith(("harness.", "_pytest."))


def _programs(module: str) -> bool:
    """Whether a module is neither Python's, nor ours, nor the test runner's."""
    return module.partition(".")[0] not in _OTHERS


def _slots(value: Any) -> Iterator[Slot]:
    """What ``value`` refers to, each with the way to replace it."""
    if type(value) is dict:
        yield from _entries(value)
    elif type(value) in (list, deque):
        yield from _items(value)
    elif type(value) is tuple:
        yield from ((item, _keep) for item in value)
    elif isinstance(value, (staticmethod, classmethod, MethodType)):
        yield value.__func__, _keep
    elif isinstance(value, FunctionType):
        yield from ((cell, _keep) for cell in value.__closure__ or ())
    elif isinstance(value, CellType):
        yield from _content(value)
    elif isinstance(value, type):
        yield from _members(value)
    else:
        yield from _attributes(value)


def _keep(_new: Any, _old: Any) -> None:
    """A tuple and a method cannot be changed; what they refer to can."""


def _entries(mapping: Any) -> Iterator[Slot]:
    for key, value in list(mapping.items()):

        def put(new: Any, old: Any, key: Any = key) -> None:
            if mapping.get(key) is old:
                mapping[key] = new

        yield value, put


def _items(sequence: Any) -> Iterator[Slot]:
    for at, item in enumerate(list(sequence)):

        def put(new: Any, old: Any, at: int = at) -> None:
            if at < len(sequence) and sequence[at] is old:
                sequence[at] = new

        yield item, put


def _content(cell: CellType) -> Iterator[Slot]:
    def put(new: Any, old: Any) -> None:
        if cell.cell_contents is old:
            cell.cell_contents = new

    with contextlib.suppress(ValueError):  # an empty cell
        yield cell.cell_contents, put


def _members(cls: type) -> Iterator[Slot]:
    for name, value in list(vars(cls).items()):

        def put(new: Any, old: Any, name: str = name) -> None:
            if vars(cls).get(name) is old:
                setattr(cls, name, new)

        yield value, put


def _attributes(value: Any) -> Iterator[Slot]:
    """Fields of an instance, without running code of its class."""
    try:
        fields = object.__getattribute__(value, "__dict__")
    except AttributeError:
        fields = None
    if type(fields) is dict:
        yield from _entries(fields)
    for cls in type(value).__mro__:
        for member in list(vars(cls).values()):
            if type(member) is MemberDescriptorType:
                yield from _slot(value, member)


def _slot(value: Any, member: MemberDescriptorType) -> Iterator[Slot]:
    def put(new: Any, old: Any) -> None:
        if member.__get__(value) is old:
            member.__set__(value, new)

    with contextlib.suppress(AttributeError):  # never set
        yield member.__get__(value), put
