"""Explores scenarios on worker processes, with results that do not depend on how many there are.

The schedules of a scenario are divided into blocks of fixed size. Blocks are handed out in order
and come back in any order; a scenario ends at its first block, by index, that found something, and
what was run beyond it is dropped. So counts, findings and tokens are the same for every number of
jobs, unless a time budget cuts the run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

from harness.errors import UsageError
from harness.explore import BLOCK, Exploration, Part, Setup
from harness.lockorder.rules import LockRules
from harness.search.verdict import Gathered, ends
from harness.strategies import strategy_named
from stress import exit_codes, work
from stress.catalogue import Scenario, Spec, check, draws
from stress.pool import Crash, Task, run_tasks
from stress.work import Block, Conclusion, Found

SCHEDULES_DEFAULT: Final = 1_000
# Seeds share a number with the strategy's name and the schedule's index.
SEED_MAX: Final = (1 << 64) - 1
# What a scenario gets whose turn came when the time was over: a schedule or two, not none.
_SECONDS_LEAST: Final = 0.05


@dataclass(frozen=True, slots=True)
class Options:
    """What a run may be told.

    Attributes:
        strategy: Name of the strategy.
        seed: The only source of randomness.
        schedules: Of each scenario, at most; None for no limit but the time.
        seconds: For all scenarios together; None for no limit but the schedules.
        jobs: Worker processes.
        depth: Ordering constraints that pct aims at.
        preemptions: Bound of an exhaustive search.
        steps_max: Step bound of a schedule; None takes each scenario's own.
        keep_going: Go on after a scenario's first failing schedule.
        early_timeouts: Timeouts may fire at any step.
        hang_seconds: Wall time without a step after which a thread counts as hung.
        logged: Schedules of each scenario that go into the lock log, from the first on.
        mode: ``controlled`` or ``free``.
        predict: Schedules of each scenario, from the first on, that are judged for deadlocks that
            they could have reached; 0 for none.
        stacks: The lock log has places with all their callers.
    """

    strategy: str = "portfolio"
    seed: int = 0
    schedules: int | None = SCHEDULES_DEFAULT
    seconds: float | None = None
    jobs: int = 1
    depth: int = 3
    preemptions: int | None = None
    steps_max: int | None = None
    keep_going: bool = False
    early_timeouts: bool = False
    hang_seconds: float = 5.0
    logged: int = 0
    mode: str = "controlled"
    predict: int = 0
    stacks: bool = False

    def setup(self, spec: Spec, entry: Scenario) -> Setup:
        """What decides each schedule of ``spec``."""
        return Setup(
            strategy=self.strategy,
            seed=self.seed,
            depth=self.depth,
            preemptions=self.preemptions,
            steps_max=entry.steps_max if self.steps_max is None else self.steps_max,
            early_timeouts=self.early_timeouts or entry.early_timeouts,
            hang_seconds=self.hang_seconds,
            stop_at_first=not self.keep_going,
            meta=spec.meta(),
            mode=self.mode,
            predict=self.predict,
            stacks=self.stacks,
        )

    @property
    def sequential(self) -> bool:
        """Whether the strategy must run its schedules one after the other."""
        return strategy_named(self.strategy).sequential

    def bound(self, spec: Spec, entry: Scenario) -> Spec:
        """``spec`` with the seed of what is drawn, where the scenario or its faults draw."""
        if not draws(spec, entry):
            return spec
        return replace(spec, draw=self.seed, redraw=not self.sequential)

    def check(self) -> None:
        """Refuse what cannot work.

        Raises:
            UsageError: It names the option and says what would do.
        """
        if self.jobs < 1:
            raise UsageError(f"--jobs must be at least 1, got {self.jobs}")
        if self.schedules is not None and self.schedules < 1:
            raise UsageError(f"--schedules must be at least 1, got {self.schedules}")
        if self.seconds is not None and not 0 < self.seconds < float("inf"):
            raise UsageError(f"--seconds must be more than 0, got {self.seconds:g}")
        if not 0 <= self.seed <= SEED_MAX:
            raise UsageError(f"--seed must be from 0 to {SEED_MAX}, got {self.seed}")
        if self.mode == "free" and self.sequential:
            what = f"--strategy {self.strategy}"
            raise UsageError(f"--mode free decides no schedule, which {what} needs; leave it out")
        if self.predict < 0:
            raise UsageError(f"--predict must be 0 (none) or more, got {self.predict}")
        for asked, option in ((self.logged, "--lock-log"), (self.predict, "--predict")):
            if asked and self.sequential:
                raise UsageError(
                    f"{option} runs schedules again by their number, which --strategy "
                    f"{self.strategy} cannot; use another strategy"
                )
        if self.predict and self.mode == "free":
            raise UsageError(
                "--predict runs schedules again, which nobody can of --mode free; write a "
                "--lock-log and audit it"
            )


@dataclass(slots=True)
class Result:
    """What became of one scenario.

    Attributes:
        entry: The scenario.
        spec: The program that ran.
        verdict: pass, fail or inconclusive.
        reason: Why, in a sentence.
        exploration: The evidence; None where not a single block came back.
        found: Its failures, written up.
        seconds: Wall time from its first block to its conclusion, other scenarios' included.
        busy: Seconds that all processes together explored it.
        counted: Whether its verdict is judged as it stands; False holds it against what the
            scenario expects (the canary, the vacuous one).
        predicted: Whether deadlocks that were not reached were looked for.
    """

    entry: Scenario
    spec: Spec
    verdict: str = "inconclusive"
    reason: str = "nothing was run"
    exploration: Exploration | None = None
    found: list[Found] = field(default_factory=list)
    seconds: float = 0.0
    busy: float = 0.0
    counted: bool = True
    predicted: bool = False

    @property
    def schedules(self) -> int:
        """How many were run."""
        return 0 if self.exploration is None else self.exploration.schedules

    @property
    def as_expected(self) -> bool:
        """Whether the scenario ran, and did what its catalogue entry says."""
        return self.exploration is not None and self.verdict == self.entry.expected_verdict

    @property
    def judged(self) -> str:
        """The verdict as it counts for the whole run."""
        if self.counted or self.entry.expected == "clean":
            return self.verdict
        return "pass" if self.as_expected else "inconclusive"


@dataclass(slots=True)
class Report:
    """What became of a run.

    Attributes:
        options: As it was told.
        results: One for each scenario, in catalogue order.
        interrupted: Whether Ctrl-C ended it.
        seconds: Wall time.
    """

    options: Options
    results: list[Result]
    interrupted: bool = False
    seconds: float = 0.0

    @property
    def verdict(self) -> str:
        """The worst that counts."""
        verdict = exit_codes.worst([result.judged for result in self.results])
        return "inconclusive" if self.interrupted and verdict == "pass" else verdict

    def lock_rules(self) -> LockRules:
        """The lock-order graph of everything that ran."""
        rules = LockRules()
        for result in self.results:
            if result.exploration is not None:
                rules.merge(result.exploration.lock_order)
        return rules


class Watcher(Protocol):
    """Is told how a run goes on; called between blocks, in the parent."""

    def begin(self, names: Sequence[str], options: Options) -> None:
        """The run is about to start."""

    def advance(self, name: str, parts: Sequence[Part]) -> None:
        """These further parts of a scenario are done."""

    def done(self, result: Result) -> None:
        """A scenario is finished."""


class _Track:
    """Where one scenario stands: which blocks are out, in, and counted."""

    def __init__(self, spec: Spec, entry: Scenario, setup: Setup) -> None:
        self.entry = entry
        self.spec = spec
        self.setup = setup
        self.result = Result(entry, spec)
        self.following = 0  # index of the next block to hand out
        self.waiting: set[int] = set()
        self.early: dict[int, Block | Crash] = {}  # in, but one before it is not
        self.kept = Gathered(setup)
        self.logs: list[bytes] = []
        self.fault = ""
        self.closed = False  # hand out no more
        self.ended = False  # a kept block was the last
        self.concluding = False
        self.finished = False
        self.began: float | None = None
        self.deadline: float | None = None

    def enter(self, index: int, value: Block | Crash) -> list[Part]:
        """Take in block ``index``; what lies beyond the first that ends the scenario is dropped.

        Returns:
            What of the scenario counts since then.
        """
        self.waiting.discard(index)
        self.early[index] = value
        if isinstance(value, Crash) or ends(value.part, self.setup):
            self.closed = True
        kept: list[Part] = []
        while not self.ended and self.kept.count in self.early:
            block = self.early.pop(self.kept.count)
            if isinstance(block, Crash):
                at = f" at {block.where}" if block.where else ""
                first = self.kept.count * BLOCK + 1
                self.fault = f"{block}{at}, in schedules {first} and following"
                self.ended = True
                break
            self.kept.take(block.part)
            kept.append(block.part)
            self.logs.append(block.log)
            self.ended = self.kept.ended
        self.closed = self.closed or self.ended
        return kept

    @property
    def ready(self) -> bool:
        """Whether all blocks that count are in."""
        return self.began is not None and (self.ended or (self.closed and not self.waiting))

    def settle(self, conclusion: Conclusion | Crash | None) -> None:
        """Turn the conclusion into the result."""
        result = self.result
        self.finished = True
        result.seconds = 0.0 if self.began is None else time.monotonic() - self.began
        result.busy = self.kept.seconds
        if isinstance(conclusion, Crash):
            result.reason = f"{conclusion}, while the results were put together"
        if isinstance(conclusion, Conclusion):
            result.exploration = conclusion.exploration
            result.verdict = conclusion.exploration.verdict
            result.reason = conclusion.exploration.reason
            result.found = conclusion.found
        if self.fault and result.verdict != "fail":
            result.verdict, result.reason = "inconclusive", self.fault


class Run:
    """One run of several scenarios; use it once."""

    def __init__(
        self,
        specs: Sequence[Spec],
        options: Options,
        watcher: Watcher,
        *,
        counted: bool,
        log: Callable[[bytes], object] | None = None,
    ) -> None:
        """Check everything before anything runs.

        Args:
            specs: What to explore, in order.
            options: How.
            watcher: Is told of every block.
            counted: Whether the canary's and the vacuous scenario's verdicts count as they stand.
            log: Takes the lock log, piece by piece; see ``Options.logged``.

        Raises:
            UsageError: An option cannot work, or a spec names what is not known.
        """
        options.check()
        self._options = options
        self._watcher = watcher
        self._tracks: list[_Track] = []
        for spec in specs:
            entry = check(spec)
            bound = options.bound(spec, entry)
            setup = options.setup(bound, entry)
            setup.check()
            track = _Track(bound, entry, setup)
            track.result.counted = counted
            track.result.predicted = options.predict > 0
            self._tracks.append(track)
        self._log = log
        self._logged = 0  # scenarios whose log has been handed on
        self._end: float | None = None

    def run(self) -> Report:
        """Explore them all.

        Raises:
            HarnessError: A scenario cannot run.
        """
        began = time.monotonic()
        options = self._options
        self._end = None if options.seconds is None else began + options.seconds
        self._watcher.begin([track.entry.name for track in self._tracks], options)
        report = Report(options, [track.result for track in self._tracks])
        try:
            for (track, index), value in run_tasks(self._take, options.jobs):
                self._enter(self._tracks[track], index, value)
            for track in self._tracks:
                self._finish(track, None)  # one whose time was over before it began
        except KeyboardInterrupt:
            report.interrupted = True
            self._break_off()
        report.seconds = time.monotonic() - began
        return report

    def _take(self) -> Task | None:
        """The next thing to do: a conclusion that is due, else a block in order of scenarios."""
        for number, track in enumerate(self._tracks):
            if track.ready and not track.concluding:
                track.concluding = True
                if not track.kept.parts:  # its very first block was lost
                    self._finish(track, None)
                    continue
                args = (track.spec, track.setup, track.kept.parts)
                return Task((number, None), work.conclude, args)
        for number, track in enumerate(self._tracks):
            task = self._block(number, track)
            if task is not None:
                return task
        return None

    def _block(self, number: int, track: _Track) -> Task | None:
        if track.closed or track.concluding:
            return None
        first, last = self._range(track.following)
        now = time.monotonic()
        if track.began is None:
            track.began = now
            track.deadline = self._share(number, now)
        left = None if track.deadline is None else track.deadline - now
        if left is not None and left <= 0:
            if track.following > 0:
                track.closed = True
                return None
            left = _SECONDS_LEAST
        track.waiting.add(track.following)
        key = (number, track.following)
        track.following += 1
        track.closed = self._options.sequential or last == self._options.schedules
        # What must fail, and is not judged by itself, is no evidence of a lock log's.
        shown = track.entry.expected == "clean" or track.result.counted
        logged = self._options.logged if shown else 0
        args = (track.spec, track.setup, first, last, left, logged)
        return Task(key, work.explore_block, args)

    def _share(self, number: int, now: float) -> float | None:
        """When the turn of a scenario is over: what is left is divided evenly."""
        if self._end is None:
            return None
        return now + max(0.0, self._end - now) / (len(self._tracks) - number)

    def _range(self, index: int) -> tuple[int, int | None]:
        """First and last schedule of a block; a search that enumerates has only one."""
        schedules = self._options.schedules
        if self._options.sequential:
            return 1, schedules
        last = (index + 1) * BLOCK
        return index * BLOCK + 1, last if schedules is None else min(last, schedules)

    def _enter(self, track: _Track, index: int | None, value: Block | Crash | Conclusion) -> None:
        if index is None:
            assert not isinstance(value, Block)
            self._finish(track, value)
            return
        assert not isinstance(value, Conclusion)
        kept = track.enter(index, value)
        if kept:
            self._watcher.advance(track.entry.name, kept)
            self._write_logs()

    def _finish(self, track: _Track, conclusion: Conclusion | Crash | None) -> None:
        if not track.finished:
            track.settle(conclusion)
            self._watcher.done(track.result)
            self._write_logs()

    def _write_logs(self) -> None:
        """Hand on the logs, in catalogue order whatever came or ended first."""
        while self._logged < len(self._tracks):
            track = self._tracks[self._logged]
            if self._log is not None:
                for data in track.logs:
                    self._log(data)
            track.logs.clear()
            if not track.finished:
                return
            self._logged += 1

    def _break_off(self) -> None:
        """Conclude in this process what has come back so far."""
        for track in self._tracks:
            if track.finished:
                continue
            track.result.reason = "interrupted before it ran"
            parts = track.kept.parts
            done = work.conclude(track.spec, track.setup, parts) if parts else None
            if done is not None and done.exploration.verdict == "pass":
                done.exploration.verdict = "inconclusive"
                done.exploration.reason = (
                    f"interrupted after {done.exploration.schedules} schedules"
                )
            if done is None:
                track.finished = True
            else:
                self._finish(track, done)
        self._write_logs()
