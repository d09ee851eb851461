"""Counted references, and tombstones for what their last owner destroyed.

Nothing here relies on Python's garbage collector: the thread that drops the last reference runs the
destructor, and touching an object after that is a finding.
"""

from __future__ import annotations

from harness.sync import Atomic
from model.asserts import InvariantBroken, kassert


class Mortal:
    """An object with an explicit end of life.

    Attributes:
        name: Deterministic, unique in its world.
        alive: False once destroyed; the Python object stays behind as a tombstone.
    """

    invariant = "I28"

    def __init__(self, name: str) -> None:
        """Alive from here on."""
        self.name = name
        self.alive = True

    def check_alive(self, why: str) -> None:
        """Panic if this memory was given back; callers say what they wanted to do.

        Raises:
            InvariantBroken: Use after free.
        """
        if not self.alive:
            raise InvariantBroken(self.invariant, f"{self.name} was destroyed, and {why}")

    def die(self) -> None:
        """The memory is given back."""
        self.check_alive("is destroyed again")
        self.alive = False

    def __repr__(self) -> str:
        """The name; never an address, since traces show it."""
        return self.name


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
        while True:
            count = self._refs.load()
            if count == 0:
                return False
            if self._refs.compare_exchange(count, count + 1):
                return True

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
