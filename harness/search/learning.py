"""Learning from schedules that were looked at; see ``strategies.lore`` for when.

One process keeps what it has seen of an exploration from one block of schedules to the next. What
another process ran is run here again, which is less work than waiting for it: one schedule in
sixteen.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from harness.engine.core import CORE, Choose, Core
from harness.search.evidence import Coverage, Orders, class_of
from harness.search.setup import Program, Setup
from harness.search.stage import Stage
from harness.search.watch import Log
from harness.strategies import Options, Strategy
from harness.strategies.lore import NOTHING, UNIT, Lore, epoch_of, learned_from, teaches

# Choices of longer schedules are not kept, nor those of more schedules than this.
_CHOICES_MAX: Final = 4_000
_ORDERLY_MAX: Final = 48
_OTHERS_MAX: Final = 16
_KEPT_MAX: Final = 4
# Blocks come nearly in order: of so many epochs, the latest, what was known is kept.
_LORES_MAX: Final = 4


@dataclass(frozen=True)
class _Look:
    """What one schedule showed; there are up to 512 of them at a time, so they are kept small."""

    member: str
    number: int  # of its class
    fresh: dict[int, int]  # by operation, those before it of which that was not known
    choices: Sequence[int]
    length: int


class Learning:
    """What one process has seen of one exploration; blocks may come in any order.

    Attributes:
        done: Epochs of which everything has been noted and put together.
        piloted: What the pilot schedules showed; None as long as they have not run.
    """

    def __init__(self) -> None:
        """Nothing has been seen."""
        self._orderly: list[Sequence[int]] = []
        self._others: list[Sequence[int]] = []
        self._looks: dict[int, _Look] = {}
        # What is known at the beginning of the latest epochs, up to ``done``.
        self._lores: list[Lore] = [NOTHING]
        self.done = 0
        self.piloted: Options | None = None
        self._classes: set[int] = set()
        self._known: list[int] = []
        # Numbers the operations; its orders are those of the last schedule.
        self._coverage = Coverage()

    def note(self, schedule: int, member: str, core: Core, log: Log) -> None:
        """Keep what the schedule that has just run showed, until its epoch is put together."""
        if epoch_of(schedule) < self.done:
            return
        coverage = self._coverage
        coverage.before = [0] * len(coverage.operations)
        Orders(coverage, core).follow(log)
        # What is known by now will not be new when its epoch is put together either.
        known = self._known
        fresh = {
            number: unknown
            for number, bits in enumerate(coverage.before)
            if (unknown := bits & ~known[number] if number < len(known) else bits)
        }
        steps = len(log.steps)
        start = next((at for at, step in enumerate(log.steps) if step[3] > 1), steps)
        choices = array("I", core.choices if len(core.choices) <= _CHOICES_MAX else ())
        self._looks[schedule] = _Look(member, class_of(core, log), fresh, choices, steps - start)

    def knows(self, schedule: int) -> bool:
        """Whether that schedule has been noted."""
        return schedule in self._looks

    def lore(self, epoch: int, every: int) -> Lore:
        """What is known at the beginning of ``epoch``; all before it must have been noted.

        Args:
            epoch: From 0, one that is kept.
            every: As of ``Strategy.learns``; always the same.
        """
        while self.done < epoch:
            self._lores = [*self._lores[1 - _LORES_MAX :], self._next(self.done, every)]
            self.done += 1
        return self._lores[epoch - self.done - 1]

    def keeps(self, epoch: int) -> bool:
        """Whether what was known at the beginning of ``epoch`` is kept, or still to come."""
        return epoch > self.done - len(self._lores)

    def _next(self, epoch: int, every: int) -> Lore:
        """What is known after ``epoch``, from what was known before."""
        known = self._lores[-1]
        looked = {member: count // 2 for member, count in known.looked.items()}
        fresh = {member: count // 2 for member, count in known.fresh.items()}
        length = known.length
        for schedule in learned_from(epoch, every):
            look = self._looks.pop(schedule)
            member = look.member
            ordered, new = self._orders(look.fresh), look.number not in self._classes
            looked[member] = looked.get(member, 0) + UNIT
            fresh[member] = fresh.get(member, 0) + (UNIT if ordered else UNIT // 4 * new)
            if (ordered or new) and look.choices:
                (self._orderly if ordered else self._others).append(look.choices)
            self._classes.add(look.number)
            length = max(length, look.length)
        # Orders are few; of classes there may be as many as there are schedules.
        del self._orderly[:-_ORDERLY_MAX], self._others[:-_OTHERS_MAX]
        return Lore(looked, fresh, (*self._others, *self._orderly), length)

    def _orders(self, fresh: dict[int, int]) -> bool:
        """Whether two operations came in an order that was never seen; now it was."""
        known = self._known
        known.extend([0] * (len(self._coverage.operations) - len(known)))
        new = False
        for number, bits in fresh.items():
            if bits & ~known[number]:
                known[number] |= bits
                new = True
        return new


class Memory:
    """What a worker process keeps of the explorations that it works on, the latest few."""

    def __init__(self) -> None:
        """Empty."""
        self._kept: list[tuple[object, Learning]] = []

    def of(self, exploration: object) -> Learning:
        """What is kept of ``exploration``: equal for all blocks of one, and for no other."""
        for key, learning in self._kept:
            if key == exploration:
                return learning
        learning = Learning()
        self._kept = [*self._kept[1 - _KEPT_MAX :], (exploration, learning)]
        return learning


class Pupil:
    """A strategy with what it has to learn before a schedule; does nothing for one that does not.

    Attributes:
        learning: What is known.
    """

    def __init__(
        self,
        stage: Stage,
        program: Program,
        setup: Setup,
        strategy: Strategy,
        learning: Learning | None = None,
    ) -> None:
        """Args: learning: What this process has seen of the same exploration before."""
        self.learning = Learning() if learning is None else learning
        self._stage = stage
        self._program = program
        self._setup = setup
        self._strategy = strategy
        self._epoch = 0

    def reach(self, schedule: int) -> None:
        """Make the strategy ready for ``schedule``; run what is missing of the epochs before."""
        every = self._strategy.learns
        if not every or epoch_of(schedule) == self._epoch:
            return
        wanted = epoch_of(schedule)
        if not self.learning.keeps(wanted):
            self.learning = Learning()
        for epoch in range(self.learning.done, wanted):
            missing = [n for n in learned_from(epoch, every) if not self.learning.knows(n)]
            if missing:
                self._strategy.learn(self.learning.lore(epoch, every))
            for number in missing:
                if not self._run(number):
                    return
        self._epoch = wanted
        self._strategy.learn(self.learning.lore(wanted, every))

    def _run(self, schedule: int) -> bool:
        """Run one schedule for what it shows; False where all is to end."""
        log = Log()

        def begin(core: Core) -> Choose:
            return log.watching(core, self._strategy.begin(core, schedule))

        rules, limits = self._setup.rules(), self._setup.limits()
        core, _ = self._stage.run(self._program, rules, limits, begin, schedule)
        if core.cut in ("interrupted", "hang"):
            return False
        self.note(schedule, log)
        return True

    def teaches(self, schedule: int) -> bool:
        """Whether ``note`` wants a log of ``schedule``."""
        return teaches(schedule, self._strategy.learns)

    def note(self, schedule: int, log: Log) -> None:
        """Keep what the schedule that has just run showed."""
        if not self.learning.knows(schedule):
            self.learning.note(schedule, self._strategy.member(schedule), CORE, log)
