"""Lock classes: the nodes of the lock-order graph.

Locks are judged by class, not by instance: all ``Mutex`` objects that guard the same kind of data
share one class, and one order holds for all of them.
"""

from __future__ import annotations

import enum
from typing import Final

from harness.errors import UsageError


class LockFlags(enum.IntFlag):
    """What a lock class promises, and which rules apply to it.

    Kernel: the flags of Zircon's lockdep, with the same values.

    Attributes:
        NONE: All rules apply.
        IRQ_SAFE: May be taken in interrupt context; while one is held, only classes that are
            ``IRQ_SAFE`` too may be taken.
        NESTABLE: Several locks of the class may be held, taken by increasing ``order``.
        MULTI_ACQUIRE: Several locks of the class may be held, in any order.
        LEAF: Nothing may be taken while one is held; breaking this is fatal.
        REPORTING_DISABLED: While one is held, findings are kept aside instead of reported.
        SINGLETON: The class has one instance.
        RE_ACQUIRE_FATAL: Breaking a rule within the class is fatal.
        ACTIVE_LIST_DISABLED: Checked when taken, then not counted among the held locks.
        TRACKING_DISABLED: Invisible to all lock rules.
    """

    NONE = 0
    IRQ_SAFE = 1
    NESTABLE = 2
    MULTI_ACQUIRE = 4
    LEAF = 8
    REPORTING_DISABLED = 16
    SINGLETON = 32
    RE_ACQUIRE_FATAL = 64
    ACTIVE_LIST_DISABLED = 128
    TRACKING_DISABLED = 256


# Pairs that contradict each other. Kernel: static assertions of lockdep's class definitions.
_EXCLUSIVE: Final = (
    (LockFlags.MULTI_ACQUIRE, LockFlags.NESTABLE),
    (LockFlags.MULTI_ACQUIRE, LockFlags.RE_ACQUIRE_FATAL),
    (LockFlags.SINGLETON, LockFlags.MULTI_ACQUIRE),
    (LockFlags.SINGLETON, LockFlags.NESTABLE),
)
_ALL_BITS: Final = (1 << len(LockFlags.__members__) - 1) - 1


def flag_names(flags: LockFlags) -> tuple[str, ...]:
    """Name the flags in ascending order of value, in lower case, as lock logs spell them."""
    bits = int(flags)
    return tuple(
        name.lower()
        for name, flag in LockFlags.__members__.items()
        if flag.value and bits & flag.value
    )


def flags_from_names(names: tuple[str, ...]) -> LockFlags:
    """Invert ``flag_names``.

    Raises:
        UsageError: A name is not a flag.
    """
    flags = LockFlags.NONE
    for name in names:
        flag = LockFlags.__members__.get(name.upper())
        if flag is None:
            known = ", ".join(member.lower() for member in LockFlags.__members__)
            raise UsageError(f"unknown lock flag {name!r}; the flags are {known}")
        flags |= flag
    return flags


def classed(lock_class: object) -> None:
    """Refuse what a lock cannot have for its class.

    Raises:
        UsageError: ``lock_class`` is neither a ``LockClass`` nor None.
    """
    if lock_class is not None and not isinstance(lock_class, LockClass):
        raise UsageError(f"lock_class must be a LockClass, or None for none, got {lock_class!r}")


class LockClass:
    """A class of locks; its identity is its name.

    Two objects of the same name are the same class, and must have the same flags.

    Attributes:
        name: Shown in findings; also the key that merges the graphs of several runs.
        flags: Which rules apply.
        bits: ``flags`` as a plain integer, since arithmetic on an enum is slow.

    Raises:
        UsageError: The name is empty, or the flags contradict each other.
    """

    __slots__ = ("bits", "flags", "name")

    def __init__(self, name: str, *, flags: LockFlags = LockFlags.NONE) -> None:
        """Check the static rules, so that a wrong declaration fails where it stands."""
        if not name or not isinstance(name, str):
            raise UsageError(f"a lock class needs a name, a non-empty string, not {name!r}")
        if not isinstance(flags, int):
            raise UsageError(f"lock class {name}: flags are LockFlags, joined by |, got {flags!r}")
        bits = int(flags)
        if bits & ~_ALL_BITS:
            raise UsageError(f"lock class {name}: {bits} has bits that are no LockFlags")
        for one, other in _EXCLUSIVE:
            if bits & one and bits & other:
                raise UsageError(
                    f"lock class {name}: {one.name} and {other.name} exclude each other; drop one"
                )
        self.name = name
        self.flags = LockFlags(bits)
        self.bits = bits

    def __eq__(self, other: object) -> bool:
        """Compare by name."""
        return self.name == other.name if isinstance(other, LockClass) else NotImplemented

    def __hash__(self) -> int:
        """Hash by name."""
        return hash(self.name)

    def __repr__(self) -> str:
        """Show how to make it."""
        shown = "|".join(name.upper() for name in flag_names(self.flags))
        return f"LockClass({self.name!r}, flags={shown})" if shown else f"LockClass({self.name!r})"
