"""Counted references, and tombstones for what their last owner destroyed.

Nothing here relies on Python's garbage collector: the thread that drops the last reference runs the
destructor, and any touch of an object after that is a finding, which names who destroyed it and
where, and who touches it.
"""

from __future__ import annotations

from typing import Any, Final

from harness.sync import Atomic
from harness.sync.place import Place, here
from model.asserts import InvariantBroken, kassert

# Of a tombstone: what says that the object is dead, and what complains by itself.
_READABLE: Final = frozenset(
    {
        "__class__",
        "add_ref",
        "alive",
        "check_alive",
        "death",
        "die",
        "invariant",
        "name",
        "release",
        "try_upgrade",
        "try_use",
    }
)
_THIS_FILE: Final = "model/refs.py"


class Mortal:
    """An object with an explicit end of life.

    Attributes:
        invariant: Which one a touch after that breaks.
        remains: The kernel keeps the memory for whoever has a pointer: it may be read when dead.
        name: Deterministic, unique in its world.
        alive: False once destroyed; the Python object stays behind as a tombstone.
        death: Who destroyed it, when and where; None while it lives.
    """

    invariant = "I28"
    remains = False
    alive = True
    death: Place | None = None

    def __init__(self, name: str) -> None:
        """Alive from here on."""
        self.name = name

    def check_alive(self, why: str) -> None:
        """Panic if this memory was given back; callers say what they wanted to do.

        Raises:
            InvariantBroken: Use after free.
        """
        if not self.alive:
            raise InvariantBroken(
                self.invariant,
                f"{self.name} was destroyed, and {why}\n"
                f"destroyed by {self.death}\ntouched by {here(_THIS_FILE)}",
            )

    def die(self) -> None:
        """The memory is given back: whoever touches it from here on is found.

        Raises:
            InvariantBroken: It was given back before.
        """
        self.check_alive("is destroyed again")
        self.death = here(_THIS_FILE)
        self.alive = False
        if not self.remains:
            object.__setattr__(self, "__class__", _tombstone(type(self)))

    def __repr__(self) -> str:
        """The name; never an address, since traces show it."""
        return self.name


class _Dead(Mortal):
    """What any class of object becomes when it dies."""

    def __getattribute__(self, attribute: str) -> Any:
        """Anything but what tells that it is dead is a touch."""
        if attribute not in _READABLE:
            Mortal.check_alive(self, f"its {attribute} is read")
        return object.__getattribute__(self, attribute)

    def __setattr__(self, attribute: str, value: object) -> None:
        """As reading."""
        Mortal.check_alive(self, f"its {attribute} is written")
        object.__setattr__(self, attribute, value)

    def __repr__(self) -> str:
        """The name, which messages need."""
        return f"{self.name} (dead)"

    __str__ = __repr__


_TOMBSTONES: Final[dict[type[Mortal], type[_Dead]]] = {}


def _tombstone(kind: type[Mortal]) -> type[_Dead]:
    """The class of dead objects of ``kind``: they still are of that kind."""
    if kind not in _TOMBSTONES:
        _TOMBSTONES[kind] = type(f"Dead{kind.__name__}", (_Dead, kind), {})
    return _TOMBSTONES[kind]


class RefCounted(Mortal):
    """A mortal that counts its references; every change of the count is a schedule point.

    Kernel: ``fbl::RefCountedUpgradeable``.
    """

    def __init__(self, name: str) -> None:
        """Starts with the one reference of its creator."""
        super().__init__(name)
        self._refs = Atomic(1, f"{name}.refs")

    @property
    def ref_count(self) -> int:
        """Number of references now; no schedule point."""
        return self._refs.peek()

    def add_ref(self) -> None:
        """Take one more reference; the caller must have one, or otherwise know it alive."""
        self.check_alive("a reference to it is copied")
        before = self._refs.fetch_add(1)
        kassert("a.ref.add", before >= 1, self.name, "had", before, "references when one was added")

    def try_upgrade(self) -> bool:
        """Take a reference unless the count has reached zero.

        Kernel: ``fbl::MakeRefPtrUpgradeFromRaw``.
        """
        self.check_alive("a raw pointer to it is upgraded")
        upgraded = _upgraded(self._refs)
        self.check_alive("a raw pointer to it was being upgraded")
        return upgraded

    def try_use(self) -> bool:
        """As ``try_upgrade`` for whoever has a handle, dead or not.

        Kernel: ``HandleTable::GetDispatcher``: the lock of the table keeps the memory for so long.
        """
        return self.alive and _upgraded(self._refs)

    def release(self) -> None:
        """Drop one reference; the last drop destroys, in this thread."""
        self.check_alive("a reference to it is dropped")
        before = self._refs.fetch_add(-1)
        kassert("a.ref.release", before >= 1, self.name, "had", before, "references at a drop")
        if before == 1:
            self._on_zero()

    def _on_zero(self) -> None:
        """What the last drop does; by default the memory goes at once."""
        self.die()


def _upgraded(refs: Atomic[int]) -> bool:
    """Add a reference unless there is none."""
    while (count := refs.load()) != 0:
        if refs.compare_exchange(count, count + 1):
            return True
    return False
