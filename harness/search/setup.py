"""What decides each schedule of an exploration."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from harness.engine.schedule import Limits
from harness.errors import UsageError
from harness.lockorder.rules import LockRules
from harness.search.watch import TWICE_EVERY
from harness.strategies import Options, strategy_named
from harness.trace.token import STEPS_MAX

Program = Callable[[], object]
Meta = dict[str, str | int]
# Schedules done, failures found, and about how many schedules are left where that can be told.
Progress = Callable[[int, int, float | None], None]

# In ``Setup.control``; no name of a module.
PATCH: Final = "-patch"

# Schedules in one block of a divided exploration; does not depend on the number of processes.
BLOCK: Final = 64


def whole(name: str, value: object, otherwise: str = "") -> None:
    """Refuse what is no whole number.

    Raises:
        UsageError: It names ``name``, and what would do.
    """
    if not isinstance(value, int):
        raise UsageError(f"{name} must be a whole number{otherwise}, got {value!r}")


def seconds(name: str, value: object, otherwise: str = "") -> None:
    """Refuse what is no number; likewise."""
    if not isinstance(value, (int, float)):
        raise UsageError(f"{name} must be a number of seconds{otherwise}, got {value!r}")


def runnable(program: object) -> None:
    """Refuse what cannot be called; likewise."""
    if not callable(program):
        raise UsageError(f"a program is a function without arguments, got {program!r}")


@dataclass(frozen=True)
class Setup:
    """Everything but the program that decides what schedule number *i* is.

    Attributes:
        strategy: Name of the strategy.
        seed: Not negative.
        depth: For ``pct``.
        preemptions: Bound, for strategies that take one.
        steps_max: Step bound of a schedule, at least 1.
        early_timeouts: Timeouts may fire at any step.
        hang_seconds: Wall time without a step after which a thread counts as hung.
        stop_at_first: Stop at the first failing schedule.
        meta: Carried by tokens.
        races: Look for data races.
        control: What of unmodified code is controlled: ``PATCH``, the standard library's threads,
            locks and clocks; and names of modules, each line of which is a schedule point.
        mode: ``controlled``, or ``free``: threads run as the system likes, and the order of a
            failure is brought under control. The strategy decides nothing then.
        mode_blind: Lock rules treat readers like writers, as the kernel does.
        twice_every: One in about so many passing schedules is run a second time and compared, to
            see whether the program is deterministic; 0 for none. Searches that enumerate compare
            at every decision anyway.
        predict: So many of the first schedules are recorded, and judged for deadlocks that they
            could have reached; 0 for none.
        stacks: Recordings have places with all their callers.
    """

    strategy: str = "portfolio"
    seed: int = 0
    depth: int = 3
    preemptions: int | None = None
    steps_max: int = 20_000
    early_timeouts: bool = False
    hang_seconds: float = 5.0
    stop_at_first: bool = True
    meta: Meta = field(default_factory=dict)
    mode_blind: bool = False
    races: bool = False
    twice_every: int = TWICE_EVERY
    control: tuple[str, ...] = ()
    mode: str = "controlled"
    predict: int = 0
    stacks: bool = False

    def check(self) -> None:
        """Refuse what cannot work.

        Raises:
            UsageError: It says which value, and what would do.
        """
        for name in ("seed", "depth", "steps_max", "twice_every"):
            whole(name, getattr(self, name))
        if self.preemptions is not None:
            whole("preemptions", self.preemptions, " or None")
        seconds("hang_seconds", self.hang_seconds)
        kind = strategy_named(self.strategy)
        Options(self.seed, self.depth, self.preemptions)
        if self.preemptions is not None and not kind.bounded:
            raise UsageError(
                f"preemptions bounds an exhaustive search; {self.strategy!r} takes no bound"
            )
        if self.steps_max < 1:
            raise UsageError(f"steps_max must be at least 1, got {self.steps_max}")
        if self.steps_max > STEPS_MAX:
            raise UsageError(
                f"steps_max is at most {STEPS_MAX:,}, got {self.steps_max:,}; a program that needs "
                "more steps is better divided"
            )
        if self.mode not in ("controlled", "free"):
            raise UsageError(f"mode must be 'controlled' or 'free', got {self.mode!r}")
        if self.mode == "free":
            self._check_free()
        if self.twice_every < 0:
            raise UsageError(f"twice_every must be 0 (never) or more, got {self.twice_every}")
        if self.predict < 0:
            raise UsageError(f"predict must be 0 (none) or more, got {self.predict}")
        if self.predict and kind.sequential:
            raise UsageError(
                f"predict runs schedules again by their number, which strategy {self.strategy!r} "
                "cannot; leave it out, for what enumerates reaches the deadlocks by itself"
            )
        if not self.hang_seconds > 0:
            raise UsageError(f"hang_seconds must be more than 0, got {self.hang_seconds!r}")

    def _check_free(self) -> None:
        """Refuse what needs a schedule that is decided."""
        for asked, what in (
            (self.control, "patch or lines"),
            (self.races, "races"),
            (self.predict, "predict"),
            (strategy_named(self.strategy).sequential, f"strategy {self.strategy!r}"),
        ):
            if asked:
                raise UsageError(f"mode 'free' decides no schedule: it takes no {what}")

    def limits(self) -> Limits:
        """The bounds of one schedule."""
        return Limits(self.steps_max, early_timeouts=self.early_timeouts, races=self.races)

    def rules(self) -> LockRules:
        """Fresh lock rules."""
        return LockRules(mode_blind=self.mode_blind)
