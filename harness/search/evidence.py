"""What a pass rests on: classes of schedules seen, what that says of the rest, orders never seen.

Two schedules are of one *class* if they differ only in the order of operations that commute
(Mazurkiewicz): the same operations of every thread, in the same order on every object, reads among
themselves aside. The class of a schedule is told by 64 bits over those orders.

The estimates take the schedules that were looked at as independent draws of one distribution, which
they are under every strategy that samples; of a mixture they speak of that mixture.
"""

from __future__ import annotations

import bisect
import hashlib
import math
from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from harness.engine.core import Core
from harness.engine.thread import Thread
from harness.search.watch import Log
from harness.strategies.profile import READS
from harness.sync.history import ABANDONED

# One operation as a person knows it: thread, kind, object.
Operation = tuple[str, str, str]
# The first so many operations are followed: programs may make new names in every schedule.
OPERATIONS_MAX: Final = 1_000
_CONFIDENCE: Final = 0.95
_MASK: Final = (1 << 64) - 1
_READ: Final = 1 << 31
# Their order against others follows from that of the operations before them.
_FOLLOWING: Final = frozenset(
    {
        "barrier-leave",
        "event-wait",
        "join",
        "parallel",
        "read-release",
        "release",
        "sem-release",
        "sleep",
        "spawn",
        "write-release",
        "yield",
    }
)
_BIRTHS: Final = ("spawn", "parallel")
_BIRTH_OR_END: Final = frozenset({"join", "parallel", "spawn"})


@dataclass
class Coverage:
    """What was seen of the schedules that were looked at; parts of one exploration add up.

    Attributes:
        looked: How many.
        classes: How often each class came.
        first: In which of those schedules, from 1, each class came first.
        operations: What threads did on objects, numbered as they were first seen.
        before: For each of them, as bits: those that came before it on the same object, but need
            not have.
        followed: Tales of the schedules that this was taken from; see ``_told``.
    """

    looked: int = 0
    classes: dict[int, int] = field(default_factory=dict)
    first: dict[int, int] = field(default_factory=dict)
    operations: dict[Operation, int] = field(default_factory=dict)
    before: list[int] = field(default_factory=list)
    followed: set[int] = field(default_factory=set, compare=False)

    def enter(self, core: Core, log: Log) -> None:
        """Take in the schedule that has just run."""
        self.looked += 1
        number, tale = _told(core, log)
        self.classes[number] = self.classes.get(number, 0) + 1
        self.first.setdefault(number, self.looked)
        if tale not in self.followed:
            self.followed.add(tale)
            Orders(self, core).follow(log)

    def number(self, operation: Operation) -> int | None:
        """The number of ``operation``, a new one where it was never seen; None beyond the limit."""
        number = self.operations.get(operation)
        if number is None and len(self.before) < OPERATIONS_MAX:
            number = self.operations[operation] = len(self.before)
            self.before.append(0)
        return number

    def merge(self, other: Coverage) -> None:
        """Add what another part saw, whose schedules follow upon ours."""
        for number, at in other.first.items():
            self.first.setdefault(number, self.looked + at)
        self.looked += other.looked
        for number, count in other.classes.items():
            self.classes[number] = self.classes.get(number, 0) + count
        ours = [self.number(operation) for operation in other.operations]
        for later, bits in zip(ours, other.before, strict=True):
            for there, earlier in enumerate(ours):
                if later is not None and earlier is not None and bits >> there & 1:
                    self.before[later] |= 1 << earlier

    def pairs(self) -> tuple[int, list[tuple[Operation, Operation]]]:
        """How many pairs of operations can come in either order, and those that came in only one.

        The earlier one first; sorted.
        """
        count = 0
        one_order: list[tuple[Operation, Operation]] = []
        for later, number in self.operations.items():
            for earlier, other in self.operations.items():
                if not self.before[number] >> other & 1 or not _conflict(earlier, later):
                    continue
                count += 1
                if not self.before[other] >> number & 1:
                    one_order.append((earlier, later))
        # A pair that came in both orders was counted twice.
        return (count + len(one_order)) // 2, sorted(one_order)


def _conflict(one: Operation, other: Operation) -> bool:
    return one[0] != other[0] and not (one[1] in READS and other[1] in READS)


def class_of(core: Core, log: Log) -> int:
    """The class of the schedule that has just run; threads are known by order of creation."""
    return _told(core, log)[0]


def _told(core: Core, log: Log) -> tuple[int, int]:
    """The class of a schedule, and its tale: equal only where ``Orders`` would see nothing new.

    The tale knows also which parents made the threads and in which order objects were made: where
    threads are alike, schedules of one class may differ in what belongs to whom.
    """
    births: list[int] = []
    taken = [0] * len(core.threads)
    chains: dict[Any, tuple[list[int], list[int]]] = {}
    for thread, kind, obj, _ in log.steps:
        index = thread.index
        taken[index] = count = taken[index] + 1
        if kind in _BIRTHS:
            births.append(index)
        if obj is None:
            continue
        try:
            events, reads = chains[obj]
        except KeyError:
            events, reads = chains[obj] = [], []
        if kind in READS:
            reads.append(index << 32 | _READ | count)
            continue
        if reads:
            events += sorted(reads)
            reads.clear()
        events.append(index << 32 | count)
        if kind == "interrupt":
            events.append(taken[obj.index])
    number = _digest(taken)
    tale = number + _digest(births)
    for obj, (events, reads) in chains.items():
        digest = _digest(events + sorted(reads))
        number += digest
        tale += digest * (2 * getattr(obj, "address", 0) + 1)
    return number & _MASK, tale & _MASK


def _digest(numbers: list[int]) -> int:
    return int.from_bytes(hashlib.blake2b(array("q", numbers), digest_size=8).digest(), "little")


class Orders:
    """Follows one schedule and enters into a ``Coverage`` what came before what on each object.

    What spawning and joining force is left out: what a thread did before it started another comes
    before all of the other's operations in every schedule.
    """

    def __init__(self, coverage: Coverage, core: Core) -> None:
        self._coverage = coverage
        self._threads = core.threads
        count = len(core.threads)
        self._done = [0] * count  # operations of each thread, as bits
        self._forced = [0] * count  # operations that had to come before all that a thread does now
        self._heirs: list[list[int]] = [[] for _ in range(count)]
        self._together: dict[int, list[Thread]] = {}
        self._made = 1

    def follow(self, log: Log) -> None:
        """Go through the steps."""
        numbers: dict[tuple[int, str, Any], int | None] = {}
        seen: dict[Any, int] = {}
        before, together = self._coverage.before, self._together
        forced, done, heirs = self._forced, self._done, self._heirs
        for thread, kind, obj, _ in log.steps:
            index = thread.index
            if together and index in together:
                for member in together.pop(index):
                    self._join(index, member.index)
            if kind in _FOLLOWING:
                if kind in _BIRTH_OR_END:
                    self._birth_or_end(thread, kind, obj)
                continue
            if obj is None:
                continue
            key = index, kind, obj
            try:
                number = numbers[key]
            except KeyError:
                number = self._coverage.number((thread.name, kind, _named(obj)))
                numbers[key] = number
            if number is None:
                continue
            others = seen.get(obj, 0)
            before[number] |= others & ~forced[index]
            bit = 1 << number
            seen[obj] = others | bit
            done[index] |= bit
            for heir in heirs[index]:
                forced[heir] &= ~bit

    def _birth_or_end(self, thread: Thread, kind: str, obj: Any) -> None:
        index = thread.index
        if kind == "join" and obj.done:
            self._join(index, obj.index)
        elif kind == "spawn":
            self._born(index, 1)
        elif kind == "parallel" and self._made < len(self._threads):
            group = self._threads[self._made].group
            if group is not None and group.parent is thread:
                self._together[index] = group.members
                self._born(index, len(group.members))

    def _born(self, parent: int, count: int) -> None:
        for child in range(self._made, min(self._made + count, len(self._threads))):
            self._forced[child] = self._forced[parent] | self._done[parent]
            for heirs in self._heirs:
                if parent in heirs:
                    heirs.append(child)
            self._heirs[parent].append(child)
        self._made += count

    def _join(self, index: int, other: int) -> None:
        self._forced[index] |= self._done[other] | self._forced[other]


def _named(obj: Any) -> str:
    """The name of an object; unnamed ones are told apart by their order of creation."""
    if obj.name:
        return str(obj.name)
    number = getattr(obj, "address", 0) & (1 << 20) - 1
    return f"{type(obj).__name__}#{number}"


@dataclass
class Histories:
    """What became of the histories of an exploration (``harness.History``), by their number.

    Attributes:
        checked: Held against their reference to the end.
        undecided: Left where the search for an order had too many states.
        abandoned: Not judged, by the reason why.
    """

    checked: int = 0
    undecided: int = 0
    abandoned: dict[str, int] = field(default_factory=dict)

    def add(self, counted: Iterable[tuple[tuple[str, str], int]]) -> None:
        """Count the histories of one schedule, by outcome and reason."""
        for (outcome, why), number in counted:
            if outcome == ABANDONED:
                self.abandoned[why] = self.abandoned.get(why, 0) + number
            else:
                setattr(self, outcome, getattr(self, outcome) + number)

    def merge(self, other: Histories) -> None:
        """Add what another part counted."""
        self.checked += other.checked
        self.undecided += other.undecided
        for why, number in other.abandoned.items():
            self.abandoned[why] = self.abandoned.get(why, 0) + number
        self.abandoned = dict(sorted(self.abandoned.items()))

    @property
    def total(self) -> int:
        """All of them."""
        return self.checked + self.undecided + sum(self.abandoned.values())

    def told(self) -> str:
        """For a person; empty where there is no history."""
        if not self.total:
            return ""
        words = [f"{self.checked:,} of {self.total:,} histories checked"]
        return ", ".join(words + self.reasons())

    def reasons(self) -> list[str]:
        """Why the others were not checked, for a person."""
        words = [f"{self.undecided:,} undecided"] if self.undecided else []
        return words + [f"{number:,} abandoned ({why})" for why, number in self.abandoned.items()]

    def doubt(self) -> str:
        """Why a pass says nothing about the reference; empty where it does, or there is none."""
        if not self.total or self.checked:
            return ""
        return f"inconclusive for the reference: {self.told()}"


@dataclass(frozen=True)
class Evidence:
    """What an exploration says of the schedules that it did not run.

    Attributes:
        looked: Schedules whose steps were looked at, for what follows but ``fails_at_most``.
        classes: Classes among them.
        unseen: Estimate (Chao1, a lower bound) of the classes that are still to be seen.
        new_class: Estimate (Good-Turing) of the chance that one more schedule is of a new class.
        fails_at_most: With 95% confidence, the chance that one more schedule fails; None where
            schedules are no random draws.
        pairs: Pairs of operations that can come in either order, as far as was seen.
        one_order: Those of them that were seen in one order only, the earlier one first.
        growth: How many classes the first schedules had, for some numbers of schedules that were
            looked at: ``(schedules, classes)``.
        histories: What became of histories that a reference was to explain.
    """

    looked: int
    classes: int
    unseen: float
    new_class: float
    fails_at_most: float | None
    pairs: int
    one_order: tuple[tuple[Operation, Operation], ...]
    growth: tuple[tuple[int, int], ...] = ()
    histories: Histories = field(default_factory=Histories)

    def lines(self) -> list[str]:
        """For a person, the orders never seen not included."""
        found = []
        if self.fails_at_most:
            chance = f"{self.fails_at_most:.2%}"
            found.append(f"95% sure: one more schedule fails with a chance of at most {chance}")
        if self.looked:
            found.append(
                f"{self.classes:,} classes in {self.looked:,} schedules looked at; by estimate "
                f"{self.unseen:,.0f} or more unseen; {self.new_class:.0%} of further ones would be "
                "new"
            )
            found.append(
                f"{len(self.one_order):,} of {self.pairs:,} pairs of operations were seen in one "
                "order only"
            )
        if self.histories.total:
            found.append(self.histories.told())
        return found


def _growth(coverage: Coverage) -> tuple[tuple[int, int], ...]:
    """At every tenth of what was looked at, or at each schedule where there are fewer."""
    firsts = sorted(coverage.first.values())
    looked = coverage.looked
    numbers = sorted({-(-looked * tenth // 10) for tenth in range(1, 11)})
    return tuple((number, bisect.bisect_right(firsts, number)) for number in numbers if number)


def evidence(
    coverage: Coverage,
    *,
    failed: int,
    schedules: int,
    sampled: bool,
    exhausted: bool,
    histories: Histories | None = None,
) -> Evidence:
    """Turn what was seen into estimates.

    Args:
        coverage: Of all parts.
        failed: Schedules that failed.
        schedules: Schedules that ran to their end.
        sampled: They are random draws.
        exhausted: They are all there are.
        histories: What became of histories; None where there was none.
    """
    once = sum(count == 1 for count in coverage.classes.values())
    twice = sum(count == 2 for count in coverage.classes.values())
    pairs, one_order = coverage.pairs()
    looked = coverage.looked
    chance: float | None = None
    if exhausted:
        chance = failed / schedules if schedules else None
    elif sampled and schedules:
        chance = fails_at_most(failed, schedules)
    return Evidence(
        looked=looked,
        classes=len(coverage.classes),
        unseen=0.0 if exhausted else once * (once - 1) / (2 * (twice + 1)),
        new_class=0.0 if exhausted or not looked else once / looked,
        fails_at_most=chance,
        pairs=pairs,
        one_order=tuple(one_order),
        growth=_growth(coverage),
        histories=Histories() if histories is None else histories,
    )


def fails_at_most(failed: int, schedules: int, confidence: float = _CONFIDENCE) -> float:
    """The upper bound on the chance of failure, exact (Clopper and Pearson).

    Where nothing failed it is ``1 - (1 - confidence) ** (1 / schedules)``, about 3 in so many.
    """
    if failed >= schedules:
        return 1.0
    if not failed:
        return -math.expm1(math.log1p(-confidence) / schedules)
    low, high = failed / schedules, 1.0
    while high - low > 1e-9:
        middle = (low + high) / 2
        low, high = (
            (middle, high)
            if _at_most(failed, schedules, middle) > 1 - confidence
            else (low, middle)
        )
    return high


def _at_most(failed: int, schedules: int, chance: float) -> float:
    """The chance of at most ``failed`` failures in so many schedules."""
    return math.fsum(
        math.exp(
            math.lgamma(schedules + 1)
            - math.lgamma(k + 1)
            - math.lgamma(schedules - k + 1)
            + k * math.log(chance)
            + (schedules - k) * math.log1p(-chance)
        )
        for k in range(failed + 1)
    )
