"""A stretch of an exploration: schedules ``first`` to ``last``, in this process."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from harness.engine.core import CORE, Choose, Core
from harness.engine.finding import Finding
from harness.errors import UsageError
from harness.lockorder.deadlocks import Deadlocks
from harness.lockorder.rules import Finding as OrderFinding
from harness.lockorder.rules import LockRules
from harness.search.evidence import Coverage, Histories
from harness.search.foresight import Foreseen, foresee
from harness.search.learning import Learning, Pupil
from harness.search.recording import Failure, finding_of, key_of, order_key, record, resolved
from harness.search.setup import Program, Progress, Setup
from harness.search.stage import Stage, prepare
from harness.search.twice import First, differing
from harness.search.watch import Log, looked_at, run_twice
from harness.strategies import Strategy
from harness.strategies.replay import Script

# Garbage is collected every so many schedules; the collector is off inside one, so that no
# finalizer runs at a place that depends on allocation counts.
_COLLECT_EVERY: Final = 64
_PROGRESS_EVERY: Final = 32
# Why a part ended that leaves nothing to run again.
_LOST: Final = ("hang", "interrupted")
_MAIN: Final = frozenset({"main"})


@dataclass
class Part:
    """What one process did of an exploration: schedules ``first`` to ``first + schedules - 1``."""

    first: int
    schedules: int = 0
    steps: int = 0
    switches: int = 0
    preemptions: int = 0
    blocked: int = 0
    bounded: int = 0
    decisions: int = 0
    seconds: float = 0.0
    exhausted: bool = False
    cut: str = ""
    detail: str = ""
    failing: dict[str, int] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    rules: LockRules = field(default_factory=LockRules)
    entered: set[str] = field(default_factory=set)
    named: set[str] = field(default_factory=set)
    # Names of a schedule's threads that have nothing to add to either.
    known: dict[str, int] = field(default_factory=dict)
    reached: set[str] = field(default_factory=set)
    coverage: Coverage = field(default_factory=Coverage)
    histories: Histories = field(default_factory=Histories)
    # Deadlocks that schedules which were judged for that reached, or could have.
    deadlocks: Deadlocks = field(default_factory=Deadlocks)
    # Of a sum of parts: what became of them.
    foreseen: list[Foreseen] = field(default_factory=list)
    # Failures in free mode whose order of operations passed under control.
    unconfirmed: list[str] = field(default_factory=list)

    @property
    def first_failing(self) -> int | None:
        """Number of the first schedule that failed here."""
        return min((failure.schedule for failure in self.failures), default=None)


def explore_part(
    program: Program,
    setup: Setup,
    first: int,
    last: int | None,
    *,
    seconds: float | None = None,
    worker: int | None = None,
    progress: Progress | None = None,
    learning: Learning | None = None,
) -> Part:
    """Run schedules ``first`` to ``last`` (from 1, inclusive; None: until exhausted).

    Without ``seconds`` the result is a pure function of the other arguments.

    Args:
        program: Callable without arguments.
        setup: What decides each schedule.
        first: Number of the first schedule.
        last: Number of the last one.
        seconds: Wall time from the first schedule on after which no further one begins.
        worker: Which core to run on; None chooses.
        progress: Called now and then; see ``Progress``.
        learning: What this process has seen of the same exploration, its pilots too, for strategies
            that want them or learn; what is missing is run first, and what is run is added.

    Raises:
        UsageError: The setup cannot work, or the program misused a primitive.
    """
    setup.check()
    if setup.mode == "free":
        from harness.search.captured import free_part

        return free_part(program, setup, first, last, seconds=seconds, progress=progress)
    part = Part(first, rules=setup.rules())
    began = time.monotonic()
    with Stage(setup.hang_seconds, worker, setup.control) as stage:
        strategy = prepare(stage, program, setup, learning)
        if CORE.cut == "hang":
            _note_hang(part, stage)
        if strategy.sequential and first != 1:
            raise UsageError(f"strategy {setup.strategy!r} cannot begin at schedule {first}")
        pupil = Pupil(stage, program, setup, strategy, learning)
        # Pilots are not what the time was given for: on a busy machine they alone may take it all.
        started = time.monotonic()
        schedule = first
        while not part.cut and (last is None or schedule <= last) and not strategy.exhausted:
            if seconds is not None and time.monotonic() - started >= seconds:
                part.cut = "seconds"
                break
            if strategy.learns:
                pupil.reach(schedule)
            if CORE.cut == "hang":
                _note_hang(part, stage)
                break
            _one(stage, program, setup, strategy, schedule, part, pupil)
            if progress is not None and part.schedules % _PROGRESS_EVERY == 0:
                progress(part.schedules, len(part.failures), strategy.left)
            if setup.stop_at_first and part.failures:
                break
            schedule += 1
        part.exhausted = strategy.exhausted and not part.bounded
        if progress is not None:
            progress(part.schedules, len(part.failures), strategy.left)
    until = min(first + part.schedules - 1, setup.predict)
    if first <= until and part.cut not in _LOST:
        part.deadlocks = foresee(
            program, setup, first, until, worker=worker, learning=pupil.learning
        )
    part.rules.resolve(resolved)
    part.seconds = time.monotonic() - began
    for failure in part.failures:
        failure.attach(program)
    return part


def _one(
    stage: Stage,
    program: Program,
    setup: Setup,
    strategy: Strategy,
    schedule: int,
    part: Part,
    pupil: Pupil,
) -> None:
    """Run schedule number ``schedule`` and enter what came of it into ``part``."""
    rules = part.rules
    known = len(rules.findings)
    twice = _twice(setup, strategy, schedule)
    looked = twice or looked_at(schedule)
    teaches = bool(strategy.learns) and pupil.teaches(schedule)
    log = Log() if looked or teaches else None

    def begin(core: Core) -> Choose:
        choose = strategy.begin(core, schedule)
        if log is None:
            return choose
        return log.locating(core, choose) if twice else log.watching(core, choose)

    core, _ = stage.run(program, rules, setup.limits(), begin, schedule)
    if core.cut != "interrupted":
        count(core, setup, part)
    finding = core.finding
    if core.cut is not None:
        if _broken_off(core, stage, part):
            return
        finding = finding_of(core, setup, fair=strategy.fair_in(schedule))
    choices = core.choices
    first = None
    if log is not None and teaches:
        pupil.note(schedule, log)
    if log is not None and looked and core.cut is None:
        part.coverage.enter(core, log)
        first = First(core, log) if twice else None
    if hasattr(strategy, "backtrack"):
        strategy.backtrack()
    if len(rules.findings) > known:
        _add_order_failures(stage, program, setup, part, rules.findings[known:], choices)
    if finding is None and first is not None:
        finding = differing(stage, program, setup, schedule, first)
        if _broken_off(CORE, stage, part):
            return
    if finding is not None:
        _add_failure(stage, program, setup, part, finding, schedule, choices)
    if part.schedules % _COLLECT_EVERY == 0:
        gc.collect()


def _twice(setup: Setup, strategy: Strategy, schedule: int) -> bool:
    """Whether a schedule is run again if it passes.

    The first is too, where pilots came before it, and where a search may end with a few schedules
    and say that they are all.
    """
    if not setup.twice_every:
        return False
    first = strategy.needs_pilot or strategy.sequential
    return (schedule == 1 and first) or run_twice(schedule, setup.twice_every)


def _broken_off(core: Core, stage: Stage, part: Part) -> bool:
    """Whether the schedule that has just run was given up, and all that follow with it."""
    if core.cut == "interrupted":
        part.cut = "interrupted"
    elif core.cut == "hang":
        _note_hang(part, stage)
    return bool(part.cut)


def count(core: Core, setup: Setup, part: Part) -> None:
    """Enter the numbers of the schedule that has just run."""
    part.schedules += 1
    part.steps += min(setup.steps_max, core.steps)
    part.switches += core.preemptions + core.handovers
    part.preemptions += core.preemptions
    part.decisions += len(core.choices)
    if core.reached:
        part.reached |= core.reached
    if core.histories:
        part.histories.add(core.histories.items())
    if core.thread_names != part.known:
        spawned = core.thread_names.keys() - _MAIN
        part.named |= spawned
        part.entered |= spawned.difference([t.name for t in core.threads if not t.kind])
        if part.named == part.entered:
            part.known = core.thread_names
    if core.cut == "bound":
        part.bounded += 1
    elif core.cut == "blocked":
        part.blocked += 1


def _note_hang(part: Part, stage: Stage) -> None:
    part.cut = "hang"
    name, part.detail = stage.pool.hung or ("a thread", "")
    part.detail = f"{name}\n{part.detail}"


def _add_failure(
    stage: Stage,
    program: Program,
    setup: Setup,
    part: Part,
    finding: Finding,
    schedule: int,
    choices: Sequence[int],
) -> None:
    """Count a failing schedule; the first of each fingerprint is recorded in full."""
    part.failing[finding.kind] = part.failing.get(finding.kind, 0) + 1
    if finding.kind == "lock-order" and finding.order is not None:
        key = order_key(finding.order)
    else:
        key = key_of(finding)
    finding.error = None
    if any(failure.fingerprint == key for failure in part.failures):
        return
    once = record(stage, program, setup, schedule, Script(choices).begin, [])
    if _broken_off(CORE, stage, part):
        return
    if finding.kind == "nondeterminism" and finding.frames:
        # It has run twice already, and what differed is known with both places.
        part.failures.append(once.made(finding, key, setup, schedule))
        return
    again = record(stage, program, setup, schedule, Script(choices).begin, [])
    if _broken_off(CORE, stage, part):
        return
    part.failures.append(once.failure(finding, key, setup, schedule, again))


def _add_order_failures(
    stage: Stage,
    program: Program,
    setup: Setup,
    part: Part,
    orders: Iterable[OrderFinding],
    choices: Sequence[int],
) -> None:
    """Turn lock-order findings into failures; those that ended the schedule come with it."""
    for order in orders:
        key = order_key(order)
        if order.fatal or any(failure.fingerprint == key for failure in part.failures):
            continue
        again = record(
            stage, program, setup, order.schedule, Script(choices).begin, list(order.earlier())
        )
        if _broken_off(CORE, stage, part):
            return
        part.failures.append(again.order_failure(order, key, setup))
