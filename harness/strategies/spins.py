"""Spin loops: a loop that reads the same again and again goes on when what it read has changed.

A search that enumerates would run such a loop for ever before it lets anybody else run, and then
once more for each number of rounds. So a thread that spins is left out of its choices until another
thread changes something that the loop reads. See ``lookout`` for strategies that draw.

A loop is taken for a spin where it came around a few times with nothing but looks (reads, failed
attempts, exchanges that change nothing, yields), at the same place, with the same values and the
very same objects in its local variables, and in those: attributes, and the first 64 things of a
container, two levels deep; which container it is counts for nothing. A ``for`` loop is none: it has
an end, which its variables need not show. Nor does a loop spin that counts its rounds
where that is seen; one that counts them in an iterator or a global cannot be told apart from one,
and is held as well.

A wait whose timeout fires early, again and again, is such a loop too. To go back to sleep, and to
take a lock back in between, leaves all as it was but the clock, so one round is enough to tell.
"""

from __future__ import annotations

import contextlib
import dis
import sys
from collections import deque
from collections.abc import Iterable
from itertools import islice
from types import CodeType, FrameType, FunctionType, MemberDescriptorType, ModuleType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from harness.engine.finding import PACKAGE

if TYPE_CHECKING:
    from harness.engine.core import Core
    from harness.engine.thread import Thread

# Times that a loop comes around before it is held.
ROUNDS: Final = 3
_LOOKS: Final = frozenset({"event-is-set", "get", "load", "locked", "timeout", "yield"})
_ATTEMPTS: Final = {"compare-exchange": "_value", "exchange": "_value", "try-acquire": "owner"}
# What a thread may do between two timeouts and still spin: back to sleep, its lock given up and
# taken back.
_BACK: Final = frozenset({"queue-block", "re-acquire", "wait"})
# They may change other objects than the one that they are on.
_WIDE: Final = frozenset({"interrupt", "notify", "queue-block", "queue-wake", "wait"})
# How far back a place is looked for, in looks: a round of a loop hardly has more.
_RECENT: Final = 32

# What a loop may count its rounds in: levels below a local variable, and things of one container.
_LEVELS: Final = 2
_THINGS: Final = 64
# No state of a loop, or one whose changes are steps.
_CLOSED: Final = (FunctionType, ModuleType, type, str, bytes, int, float)

_SEQUENCES: Final = (list, tuple, deque)
_CONTAINERS: Final = (*_SEQUENCES, dict)


class _Size(NamedTuple):
    """Stands for a container."""

    things: int


_VALUES: Final = frozenset({_Size, bytes, float, int, str})

# Where a thread stands: place, names and contents of the local variables of each frame, the loop's
# own frame last.
Stand = tuple[list[tuple[CodeType, int, list[str], list[object]]], FrameType]


class _Looks:
    """What a thread has looked at since it did anything else."""

    __slots__ = ("count", "objects", "stands")

    def __init__(self) -> None:
        self.count = 0
        self.objects: list[object] = []
        self.stands: list[Stand | None] = []


class Spins:
    """Who spins in the schedule that runs; asked at every step."""

    def __init__(self, core: Core) -> None:
        """Args: core: The engine; a schedule is about to begin."""
        self._core = core
        self._looks: dict[int, _Looks] = {}
        # Threads that are held, with what their loops read.
        self._held: dict[int, list[object]] = {}
        self._last: tuple[Thread, str, Any, object] | None = None
        # Threads whose timeout fired early, and that only looked and went back to sleep since.
        self._fired: set[int] = set()

    def choosing(self, enabled: list[Thread]) -> list[Thread]:
        """Of ``enabled`` those that do not spin; all of them where all do."""
        self._settle()
        cur = self._core.cur
        if not cur.done and cur.index in self._looks:
            self._stand(cur)
        if not self._held:
            return enabled
        for thread in enabled:
            if thread.index in self._fired and not thread.early and not thread.excused:
                self._held.pop(thread.index, None)  # what it waited for has come
        return [thread for thread in enabled if thread.index not in self._held] or enabled

    def chosen(self, thread: Thread) -> None:
        """``thread`` takes the step."""
        state = _ATTEMPTS.get(thread.kind)
        before = None if state is None else getattr(thread.obj, state)
        if thread.early:
            self._fired.add(thread.index)
            self._last = (thread, "timeout", thread.obj, None)
        else:
            self._last = (thread, thread.kind, thread.obj, before)

    def _settle(self) -> None:
        """The last step is over: was it a look, and what did it change?"""
        if self._last is None:
            return
        thread, kind, obj, before = self._last
        self._last = None
        state = _ATTEMPTS.get(kind)
        back = kind in _BACK and thread.index in self._fired
        if kind in _LOOKS or (state is not None and getattr(obj, state) is before) or back:
            looks = self._looks.setdefault(thread.index, _Looks())
            looks.count += 1
            looks.objects.append(None if back else obj)
            if not back:
                return
        else:
            self._looks.pop(thread.index, None)
            self._held.pop(thread.index, None)
            self._fired.discard(thread.index)
        # Two that only wake from their own timers do not wake each other.
        deaf = self._fired if back else ()
        for index, objects in list(self._held.items()):
            if index not in deaf and (kind in _WIDE or any(other is obj for other in objects)):
                del self._held[index]
                self._looks.pop(index, None)
        for index, looks in list(self._looks.items()):
            if index not in deaf and any(other is obj for other in looks.objects):
                del self._looks[index]

    def _stand(self, thread: Thread) -> None:
        """``thread``, which has looked, announced its next operation: has it been here before?"""
        looks = self._looks[thread.index]
        rounds = 1 if thread.early else ROUNDS
        if not looking(thread):
            return
        if any(other is thread.obj for other in self._held.get(thread.index, ())):
            return  # known to spin, and chosen because all others do
        if looks.count < rounds or len(looks.stands) == len(looks.objects):
            return
        stand = _standing()
        looks.stands += [None] * (len(looks.objects) - 1 - len(looks.stands))
        looks.stands.append(stand)
        if stand is None:
            return
        recent = range(max(0, len(looks.stands) - _RECENT), len(looks.stands))
        same = [i for i in recent if (other := looks.stands[i]) and _same(stand, other)]
        if len(same) > rounds:
            self._held[thread.index] = looks.objects[same[0] :]


def looking(thread: Thread) -> bool:
    """Whether the operation that ``thread`` has announced may be part of a spin."""
    return thread.early or thread.kind in _LOOKS or thread.kind in _ATTEMPTS


def _standing() -> Stand | None:
    """Where the calling thread stands, as far as its innermost loop; None if it is in none."""
    frame: FrameType | None = sys._getframe()
    while frame is not None and frame.f_code.co_filename.startswith(PACKAGE):
        frame = frame.f_back
    places = []
    while frame is not None and not frame.f_code.co_filename.startswith(PACKAGE):
        seen = dict(frame.f_locals)
        places.append((frame.f_code, frame.f_lasti, list(seen), _contents(seen.values())))
        loop = _loop(frame.f_code, frame.f_lasti)
        if loop is not None:
            return (places, frame) if loop else None
        frame = frame.f_back
    return None


def _contents(values: Iterable[object]) -> list[object]:
    """All that can be reached from ``values`` in a few levels, in an order that is ever the same.

    What is compared is kept, so that nothing new can take its address.
    """
    level = list(values)
    found: list[object] = []
    for _ in range(_LEVELS):
        found += [_sized(value) or value for value in level]
        level = [part for value in level for part in _parts(value)]
    found += [_sized(value) or value for value in level]
    # What stands in containers belongs to their level; of one in there all that is known is which.
    return found + [part for value in level if type(value) in _CONTAINERS for part in _parts(value)]


def _sized(value: object) -> _Size | None:
    """Of a container its size alone: a loop may make one anew that has the same in it."""
    return _Size(len(value)) if type(value) in _CONTAINERS else None  # type: ignore[arg-type]


def _parts(value: Any) -> list[object]:
    """Items and attributes of a plain object, none of the harness' own."""
    kind = type(value)
    if issubclass(kind, _CLOSED) or kind.__module__.startswith("harness."):
        return []
    # No code of the program may run here, as that of its own iterators or attributes would.
    for plain in _SEQUENCES:
        if issubclass(kind, plain):
            return list(islice(plain.__iter__(value), _THINGS))
    if issubclass(kind, dict):
        return list(islice(dict.values(value), _THINGS))
    parts = []
    for base in kind.__mro__:
        slots = vars(base).values() if "__slots__" in vars(base) else ()
        for slot in slots:
            if isinstance(slot, MemberDescriptorType):
                with contextlib.suppress(AttributeError):  # not set yet
                    parts.append(slot.__get__(value))
    with contextlib.suppress(AttributeError):
        parts += islice(object.__getattribute__(value, "__dict__").values(), _THINGS)
    return parts


def _same(one: Stand, other: Stand) -> bool:
    if one[1] is not other[1] or len(one[0]) != len(other[0]):
        return False
    return all(
        a[0] is b[0]
        and a[1] == b[1]
        and a[2] == b[2]
        and len(a[3]) == len(b[3])
        and all(map(_equal, a[3], b[3]))
        for a, b in zip(one[0], other[0], strict=True)
    )


def _equal(one: object, other: object) -> bool:
    """Whether two things are the same, or values that no code of the program compares."""
    return one is other or (type(one) is type(other) and type(one) in _VALUES and one == other)


_KNOWN: Final[dict[tuple[CodeType, int], bool | None]] = {}


def _loop(code: CodeType, at: int) -> bool | None:
    """Whether the innermost loop around an instruction is a ``while``; None if there is no loop."""
    key = (code, at)
    if key not in _KNOWN:
        instructions = list(dis.get_instructions(code))
        heads = {i.offset: i.opname for i in instructions}
        around = [
            (instruction.offset - instruction.argval, instruction.argval)
            for instruction in instructions
            if "JUMP" in instruction.opname
            and isinstance(instruction.argval, int)
            and instruction.argval <= at <= instruction.offset
        ]
        _KNOWN[key] = heads[min(around)[1]] != "FOR_ITER" if around else None
    return _KNOWN[key]
