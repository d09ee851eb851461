"""What pilot schedules tell of a program: who takes how many steps, and who shares what.

Threads are known by their names and objects by their order of creation, which are the same in every
schedule of most programs; what a profile does not know counts as little as anything it knows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from harness.engine.core import Choose, Core
    from harness.engine.thread import Thread

# Operations whose order against each other nobody can tell.
READS: Final = frozenset({"get", "load", "event-is-set", "locked"})


def races(kind: str, obj: object, other: Thread) -> bool:
    """Whether the order of an operation and of ``other``'s pending one may matter."""
    return obj is not None and other.obj is obj and not (kind in READS and other.kind in READS)


class Profile:
    """Counts of a program's pilot schedules, each the largest of all of them.

    Attributes:
        steps: Steps by name of thread.
        parents: Who spawned whom, by name.
        accesses: For each object, by its order of creation: steps on it by name of thread.
        written: Objects on which some step was no read.
    """

    def __init__(self) -> None:
        """Nothing is known yet."""
        self.steps: dict[str, int] = {}
        self.parents: dict[str, str] = {}
        self.accesses: dict[int, dict[str, int]] = {}
        self.written: set[int] = set()

    def shared(self) -> list[tuple[int, int]]:
        """Objects that several threads use and one at least changes, with all steps on them.

        A thread that only sets the program up or looks at its end counts like any other.
        """
        return [
            (address, sum(by.values()))
            for address, by in sorted(self.accesses.items())
            if len(by) > 1 and address in self.written
        ]

    def own(self, name: str, address: int | None) -> int:
        """Steps of one thread, on one object where ``address`` is not None."""
        if address is None:
            return self.steps.get(name, 0)
        return self.accesses[address].get(name, 0)

    def watching(self, core: Core, inner: Choose) -> Choose:
        """Wrap ``inner`` so that the schedule it decides is counted; ``merge`` takes the counts."""
        self._now: dict[str, int] = {}
        self._on: dict[int, dict[str, int]] = {}
        known = len(core.threads)
        last = core.threads[0]

        def choose() -> Thread:
            nonlocal known, last
            for thread in core.threads[known:]:
                self.parents.setdefault(thread.name, last.name)
            known = len(core.threads)
            last = thread = inner()
            self._count(thread)
            return thread

        return choose

    def _count(self, thread: Thread) -> None:
        # When a join can run is decided by others: it has no place of its own in an interleaving.
        if thread.kind != "join":
            self._now[thread.name] = self._now.get(thread.name, 0) + 1
        address: Any = getattr(thread.obj, "address", None)
        if address is not None:
            on = self._on.setdefault(address, {})
            on[thread.name] = on.get(thread.name, 0) + 1
            if thread.kind not in READS:
                self.written.add(address)

    def merge(self) -> None:
        """The schedule that was watched has ended: keep what is larger than before."""
        _larger(self.steps, self._now)
        for address, counts in self._on.items():
            _larger(self.accesses.setdefault(address, {}), counts)


def _larger(kept: dict[str, int], counts: dict[str, int]) -> None:
    for name, count in counts.items():
        kept[name] = max(kept.get(name, 0), count)


class Weights:
    """Steps that each thread of one schedule still has to take, as the profile has them.

    Before a child is spawned, its steps (and those of its own children) are its parent's.
    """

    def __init__(self, core: Core, profile: Profile, address: int | None = None) -> None:
        """Args: address: Count only the steps on this object."""
        self._core = core
        self._profile = profile
        self._address = address
        self._children: dict[str, list[str]] = {}
        for child, parent in profile.parents.items():
            self._children.setdefault(parent, []).append(child)
        self._left: list[int] = []
        self._least = min(profile.steps.values(), default=1)

    def _whole(self, name: str) -> int:
        """All that ``name`` stands for until it spawns: its own steps and its children's."""
        children = self._children.get(name, ())
        own = self._profile.own(name, self._address)
        return own + sum(self._whole(child) for child in children)

    def meet(self) -> list[tuple[Thread, Thread, int, int]]:
        """Threads may have been spawned: take what they stand for from their parents.

        Returns:
            For each new thread but the first: its parent, itself, what the parent stood for and
            what of that is the child's.
        """
        threads = self._core.threads
        if len(threads) == len(self._left):
            return []
        met: list[tuple[Thread, Thread, int, int]] = []
        for thread in threads[len(self._left) :]:
            whole = self._whole(thread.name)
            if not whole and thread.name not in self._profile.steps:
                whole = self._least
            self._left.append(whole)
            parent = self._profile.parents.get(thread.name)
            for other in threads[: thread.index]:
                if other.name == parent:
                    met.append((other, thread, self._left[other.index], whole))
                    self._left[other.index] -= whole
        return met

    def of(self, thread: Thread) -> int:
        """Steps left to ``thread``, at least 1: who can run has something to do."""
        return max(self._left[thread.index], 1)

    def spend(self, thread: Thread) -> None:
        """``thread`` takes a step; see ``Profile`` for what counts."""
        if thread.kind != "join":
            self._left[thread.index] -= 1

    def draw(self, threads: list[Thread], number: int) -> Thread:
        """One of ``threads``, as likely as its weight; ``number`` is uniform below 2**32."""
        weights = [self.of(thread) for thread in threads]
        at = number * sum(weights) >> 32
        for thread, weight in zip(threads, weights, strict=True):
            at -= weight
            if at < 0:
                return thread
        return threads[-1]
