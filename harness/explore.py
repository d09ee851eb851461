"""Running a program under many schedules, and one schedule again.

``explore`` keeps only the choices of each schedule. A schedule that fails is run a second time with
everything recorded; that run makes the ``Failure``, its token and its story. If it does not fail in
the same way, the program is not deterministic, which is a finding of its own.
"""

from __future__ import annotations

import contextlib
import gc
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, Final

from harness.engine.core import CORE, OUTSIDE, Choose, Core, Finding, Thread
from harness.engine.pool import Pool, Watchdog, settled
from harness.engine.schedule import Limits, run
from harness.errors import InternalError, ReplayDivergence, ScheduleFailure, UsageError
from harness.lockorder.rules import Finding as OrderFinding
from harness.lockorder.rules import LockRules, Witness
from harness.strategies import Options, Strategy, strategy_named
from harness.strategies.replay import Deviations, Script
from harness.trace.events import Site, Step, Story
from harness.trace.recorder import TraceRecorder, digest, fingerprint
from harness.trace.site import site_of
from harness.trace.story import tell
from harness.trace.table import render
from harness.trace.token import Token, decode, encode, first_difference, marks, pack, unpack

Program = Callable[[], object]
Meta = dict[str, str | int]
Progress = Callable[[int, int], None]

# Young garbage is collected every so many schedules; the collector is off inside one, so that no
# finalizer runs at a place that depends on allocation counts.
_COLLECT_EVERY: Final = 64
_PROGRESS_EVERY: Final = 32
# Schedules in one block of a divided exploration; does not depend on the number of processes.
BLOCK: Final = 64


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
        mode_blind: Lock rules treat readers like writers, as the kernel does.
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

    def check(self) -> None:
        """Refuse what cannot work.

        Raises:
            UsageError: It says which value, and what would do.
        """
        kind = strategy_named(self.strategy)
        Options(self.seed, self.depth, self.preemptions)
        if self.preemptions is not None and not kind.bounded:
            raise UsageError(
                f"preemptions bounds an exhaustive search; strategy {self.strategy!r} takes no bound"
            )
        if self.steps_max < 1:
            raise UsageError(f"steps_max must be at least 1, got {self.steps_max}")
        if not self.hang_seconds > 0:
            raise UsageError(f"hang_seconds must be more than 0, got {self.hang_seconds!r}")

    def limits(self) -> Limits:
        """The bounds of one schedule."""
        return Limits(self.steps_max, early_timeouts=self.early_timeouts)

    def rules(self) -> LockRules:
        """Fresh lock rules."""
        return LockRules(mode_blind=self.mode_blind)


class Failure:
    """One failing schedule.

    Attributes:
        kind: assertion, exception, deadlock, lost-wakeup, livelock, data-race, lock-order, guard,
            invariant, leak, nondeterminism or hang.
        message: What happened, for a reader.
        token: Replays the schedule, anywhere.
        schedule: Its number in the exploration, from 1.
        preemptions: Switches away from a thread that could have gone on.
        steps: Steps up to the failure.
        fingerprint: Equal for failures of one kind at the same sites.
        digest: Equal for equal schedules: of every step's thread, operation, object and outcome.
    """

    def __init__(
        self, kind: str, message: str, token: str, schedule: int, story: Story | None, **facts: Any
    ) -> None:
        """Made by the explorer; ``facts`` are the other attributes."""
        self.kind = kind
        self.message = message
        self.token = token
        self.schedule = schedule
        self.preemptions: int = facts["preemptions"]
        self.steps: int = facts["steps"]
        self.fingerprint: str = facts["fingerprint"]
        self.digest: str = facts["digest"]
        self._story = story
        self._program: Program | None = None

    def __repr__(self) -> str:
        """Kind, message and token, on one line."""
        return f"<Failure {self.kind}: {self.message.splitlines()[0]} ({self.token})>"

    def attach(self, program: Program) -> Failure:
        """Remember the program, so that the schedule can be run again."""
        self._program = program
        return self

    def trace(self) -> list[Step]:
        """Replay the schedule and return every step of it.

        Raises:
            UsageError: The program is not known here; use ``replay(program, token)``.
            ReplayDivergence: The program has changed since.
        """
        return list(self._replayed().story().steps)

    def story(self) -> Story:
        """The recorded schedule; replayed if this failure came from another process."""
        return self._replayed().story() if self._story is None else self._story

    def _replayed(self) -> Failure:
        if self._program is None:
            raise UsageError("this failure does not know its program; use replay(program, token)")
        again = replay(self._program, self.token)
        if again is None:
            raise ReplayDivergence(self.steps, self.kind, "no failure")
        return again

    def text(self, *, command: str | None = None) -> str:
        """The report for a terminal: at most 100 columns, the replay command last."""
        facts = {
            "schedule": self.schedule,
            "preemptions": self.preemptions,
            "steps": self.steps,
            "fingerprint": self.fingerprint,
            "digest": self.digest,
        }
        return render(self.story(), replay_command=command or self.command(), facts=facts)

    def command(self) -> str:
        """A command that replays it: runnable where the program can be imported."""
        program = self._program
        module = getattr(program, "__module__", "__main__")
        name = getattr(program, "__qualname__", "program")
        if module == "__main__" or "<" in name or "." in name:
            return f"harness.replay({name.rsplit('.', 1)[-1]}, {self.token!r})"
        return (
            f'python -c "from harness import replay; from {module} import {name}; '
            f"print(replay({name}, '{self.token}').text())\""
        )

    def __getstate__(self) -> dict[str, Any]:
        """Travels between processes without program and story."""
        return {**self.__dict__, "_story": None, "_program": None}


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
    # Choices of schedules in which a lock-order finding closed, for strategies that enumerate.
    choices: dict[int, list[int]] = field(default_factory=dict)
    rules: LockRules = field(default_factory=LockRules)
    entered: set[str] = field(default_factory=set)
    named: set[str] = field(default_factory=set)
    reached: set[str] = field(default_factory=set)

    @property
    def first_failing(self) -> int | None:
        """Number of the first schedule that failed here."""
        return min((failure.schedule for failure in self.failures), default=None)


@dataclass
class Exploration:
    """What ``explore`` returns.

    Attributes:
        verdict: ``pass``, ``fail`` or ``inconclusive``; a pass has been earned.
        reason: Why, in a sentence.
        schedules: How many were run; those cut short by a reduction included.
        steps: In all of them.
        switches: Hand-offs from one OS thread to another.
        preemptions: Switches away from a thread that could have gone on.
        seconds: Wall time.
        exhausted: Every schedule (within the bound) was run.
        blocked: Schedules that a reduction cut short.
        failure: The first, or None.
        failures: The first of each fingerprint, by schedule.
        failing: How many schedules failed, by kind.
        lock_order: The merged lock-order graph and its findings.
        detail: Stacks of a thread that hung, or other matter too long for the reason.
        reached: Names given to ``sometimes``.
    """

    verdict: str
    reason: str
    schedules: int
    steps: int
    switches: int
    preemptions: int
    seconds: float
    exhausted: bool
    blocked: int
    failure: Failure | None
    failures: list[Failure]
    failing: dict[str, int]
    lock_order: LockRules
    detail: str = ""
    reached: tuple[str, ...] = ()


# -- running ------------------------------------------------------------------------------------


class _Stage:
    """Where schedules run: settled threads, a pool, a watchdog, the collector off.

    Attributes:
        refused: Why SCHED_BATCH or the pinning was refused; None if both are on.
    """

    def __init__(self, hang_seconds: float, worker: int | None = None) -> None:
        self._seconds = hang_seconds
        self._worker = worker
        self._exit = contextlib.ExitStack()
        self.refused: str | None = None

    def __enter__(self) -> _Stage:
        if CORE.cur is not OUTSIDE:
            raise UsageError("explore() was called inside a schedule; a process runs one at a time")
        if not _STAGE.acquire(blocking=False):
            raise UsageError("another thread of this process is exploring; use another process")
        self._exit.callback(_STAGE.release)
        CORE.stop = None
        self._exit.enter_context(_collector_off())
        self.refused = self._exit.enter_context(settled(self._worker))
        self.pool = Pool()
        self._exit.callback(self.pool.close)
        self._watchdog = self._exit.enter_context(Watchdog(self.pool, self._seconds))
        self._exit.enter_context(_interruptible())
        return self

    def __exit__(self, *_exc: object) -> None:
        self._exit.close()
        CORE.clear()

    def run(
        self,
        program: Program,
        rules: LockRules,
        limits: Limits,
        begin: Callable[[Core], Choose],
        schedule: int,
        *,
        record: bool = False,
    ) -> tuple[Core, TraceRecorder | None]:
        """Run one schedule; see ``engine.schedule.run``."""
        rules.begin(schedule)
        CORE.schedule = schedule
        recorder = TraceRecorder(CORE) if record else None
        self._watchdog.schedule(schedule or -1)
        try:
            core = run(program, self.pool, rules, limits, begin, recorder)
        finally:
            self._watchdog.schedule(0)
        return core, recorder


_STAGE: Final = threading.Lock()


@contextlib.contextmanager
def _collector_off() -> Iterator[None]:
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Ctrl-C ends the current schedule at its next step; a second one acts at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.getsignal(signal.SIGINT)
    if previous is None:
        yield
        return

    def stop(_number: int, _frame: FrameType | None) -> None:
        CORE.stop = "interrupted"
        CORE.limit = 0
        signal.signal(signal.SIGINT, previous)

    signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


def _prepare(stage: _Stage, program: Program, setup: Setup) -> Strategy:
    """Make the strategy; run the pilot schedule where it wants one."""
    kind = strategy_named(setup.strategy)
    options = Options(setup.seed, setup.depth, setup.preemptions)
    if kind.needs_pilot:
        pilot = strategy_named("random")(options)
        core, _ = stage.run(
            program, setup.rules(), setup.limits(), lambda core: pilot.begin(core, 0), 0
        )
        options.length = len(core.choices)
        options.threads = len(core.threads)
    return kind(options)


def explore_part(
    program: Program,
    setup: Setup,
    first: int,
    last: int | None,
    *,
    seconds: float | None = None,
    worker: int | None = None,
    progress: Progress | None = None,
) -> Part:
    """Run schedules ``first`` to ``last`` (from 1, inclusive; None: until exhausted).

    Without ``seconds`` the result is a pure function of the other arguments.

    Args:
        program: Callable without arguments.
        setup: What decides each schedule.
        first: Number of the first schedule.
        last: Number of the last one.
        seconds: Wall time after which no further schedule begins.
        worker: Which core to run on; None chooses.
        progress: Called now and then with the schedules done and the failures found so far.

    Raises:
        UsageError: The setup cannot work, or the program misused a primitive.
    """
    setup.check()
    part = Part(first, rules=setup.rules())
    began = time.monotonic()
    with _Stage(setup.hang_seconds, worker) as stage:
        strategy = _prepare(stage, program, setup)
        if CORE.cut == "hang":
            _note_hang(part, stage)
        if strategy.sequential and first != 1:
            raise UsageError(f"strategy {setup.strategy!r} cannot begin at schedule {first}")
        schedule = first
        while not part.cut and (last is None or schedule <= last) and not strategy.exhausted:
            if seconds is not None and time.monotonic() - began >= seconds:
                part.cut = "seconds"
                break
            _one(stage, program, setup, strategy, schedule, part)
            if progress is not None and part.schedules % _PROGRESS_EVERY == 0:
                progress(part.schedules, len(part.failures))
            if setup.stop_at_first and part.failures:
                break
            schedule += 1
        part.exhausted = strategy.exhausted
        if progress is not None:
            progress(part.schedules, len(part.failures))
    part.rules.resolve(_resolved)
    part.seconds = time.monotonic() - began
    for failure in part.failures:
        failure.attach(program)
    return part


def _resolved(site: Any) -> Site | None:
    """A place as the lock rules keep it, as a site; a site stays what it is."""
    return site if isinstance(site, Site) or site is None else site_of(site)


def _one(
    stage: _Stage, program: Program, setup: Setup, strategy: Strategy, schedule: int, part: Part
) -> None:
    """Run schedule number ``schedule`` and enter what came of it into ``part``."""
    rules = part.rules
    known = len(rules.findings)
    core, _ = stage.run(
        program, rules, setup.limits(), lambda core: strategy.begin(core, schedule), schedule
    )
    if core.cut == "interrupted":
        part.cut = "interrupted"
        return
    part.schedules += 1
    part.steps += min(core.steps, setup.steps_max)
    part.switches += core.switches
    part.preemptions += core.preemptions
    part.decisions += len(core.choices)
    part.reached |= core.reached
    for thread in core.threads[1:]:
        part.named.add(thread.name)
        if thread.kind:
            part.entered.add(thread.name)
    if core.cut == "hang":
        _note_hang(part, stage)
        return
    finding = _finding_of(core, setup, fair=strategy.fair_in(schedule))
    if core.cut == "bound":
        part.bounded += 1
    elif core.cut == "blocked":
        part.blocked += 1
    choices = list(core.choices)
    if hasattr(strategy, "backtrack"):
        strategy.backtrack()
    if len(rules.findings) > known:
        part.choices[schedule] = choices
        _add_order_failures(stage, program, setup, part, rules.findings[known:], choices)
    if finding is not None:
        _add_failure(stage, program, setup, part, finding, schedule, choices)
    if part.schedules % _COLLECT_EVERY == 0:
        gc.collect(1)


def _note_hang(part: Part, stage: _Stage) -> None:
    part.cut = "hang"
    name, part.detail = stage.pool.hung or ("a thread", "")
    part.detail = f"{name}\n{part.detail}"


def _finding_of(core: Core, setup: Setup, *, fair: bool) -> Finding | None:
    """The finding of the schedule that has just run; a step bound under a fair strategy is one."""
    if core.cut == "bound" and fair:
        names = ", ".join(t.name for t in core.threads if t.enabled) or "nobody"
        return Finding(
            "livelock",
            f"no end after {setup.steps_max} steps under a fair strategy; still able to run: {names}",
            core.threads[0],
        )
    return core.finding


def _key(finding: Finding) -> str:
    """The fingerprint, from what is known without a recording."""
    return fingerprint(finding.kind, finding.rule, [site_of(place) for place in finding.frames])


def _add_failure(
    stage: _Stage,
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
        key = _order_key(finding.order)
    else:
        key = _key(finding)
    finding.error = None
    if any(failure.fingerprint == key for failure in part.failures):
        return
    again = _record(stage, program, setup, schedule, Script(choices).begin, [])
    part.failures.append(again.failure(finding, key, setup, schedule))


def _order_key(order: OrderFinding) -> str:
    return fingerprint("lock-order", f"{order.rule}:{order.result}:{'>'.join(order.classes)}", [])


def _add_order_failures(
    stage: _Stage,
    program: Program,
    setup: Setup,
    part: Part,
    orders: Iterable[OrderFinding],
    choices: Sequence[int],
) -> None:
    """Turn lock-order findings into failures; those that ended the schedule come with it."""
    for order in orders:
        key = _order_key(order)
        if order.fatal or any(failure.fingerprint == key for failure in part.failures):
            continue
        again = _record(
            stage, program, setup, order.schedule, Script(choices).begin, list(order.earlier())
        )
        part.failures.append(again.order_failure(order, key, setup))


class _Recording:
    """A schedule that was run with everything recorded."""

    def __init__(self, core: Core, recorder: TraceRecorder, taken: list[int], edges: list[Witness]):
        self.recorder = recorder
        self.taken = taken
        self.edges = edges
        self.finding = core.finding
        self.cut = core.cut
        self.rules = core.rules
        self.steps = recorder.steps
        self.preemptions = core.preemptions
        self.name = getattr(core.threads[0].fn, "__qualname__", "program")

    def failure(self, wanted: Finding, key: str, setup: Setup, schedule: int) -> Failure:
        """The failure ``wanted``, or what this run says about the program's determinism."""
        finding = wanted
        if wanted.kind != "livelock":
            found = self.finding
            if found is None:
                finding = _not_again(wanted, "it passed")
            elif found.kind == "nondeterminism":
                finding = found
            elif found.kind != wanted.kind or (found.order is None and _key(found) != key):
                finding = _not_again(wanted, f"it failed with {found.kind}: {found.message}")
            else:
                finding = found
        if finding.kind == "nondeterminism":
            key = _key(finding)
        return self.made(finding, key, setup, schedule)

    def made(self, finding: Finding, key: str, setup: Setup, schedule: int) -> Failure:
        """Build the failure, its token and its story."""
        sites = [site_of(place) for place in finding.frames]
        story = tell(finding, self.recorder, setup.steps_max)
        return self._build(finding.kind, finding.message, key, setup, schedule, sites, story)

    def order_failure(self, order: OrderFinding, key: str, setup: Setup) -> Failure:
        """The failure of a lock-order finding that let the schedule go on."""
        thread = CORE.threads[0] if CORE.threads else Thread(0, "main")
        finding = Finding("lock-order", order.message, thread, rule=order.rule, order=order)
        story = tell(finding, self.recorder, setup.steps_max)
        return self._build("lock-order", order.message, key, setup, order.schedule, [], story)

    def _build(
        self,
        kind: str,
        message: str,
        key: str,
        setup: Setup,
        schedule: int,
        sites: list[Site | None],
        story: Story,
    ) -> Failure:
        stride, checkpoints = marks(self.steps)
        token = Token(
            program=self.name,
            strategy=setup.strategy,
            seed=setup.seed,
            schedule=schedule,
            deviations=pack(self.taken),
            steps=len(self.steps),
            stride=stride,
            checkpoints=checkpoints,
            kind=kind,
            fingerprint=key,
            steps_max=setup.steps_max,
            early_timeouts=setup.early_timeouts,
            meta=setup.meta,
            edges=[_edge_of(witness) for witness in self.edges],
        )
        return Failure(
            kind,
            message,
            encode(token),
            schedule,
            story,
            preemptions=self.preemptions,
            steps=len(self.steps),
            fingerprint=key,
            digest=digest(self.steps, kind, sites),
        )


def _edge_of(witness: Witness) -> list[str | int]:
    """A lock-order edge of an earlier schedule, as a token carries it."""
    return [
        witness.outer,
        witness.inner,
        witness.outer_mode,
        witness.inner_mode,
        witness.thread,
        witness.schedule,
    ]


def _witness_of(edge: Sequence[str | int]) -> Witness:
    outer, inner, outer_mode, inner_mode, thread, schedule = edge
    return Witness(
        str(outer), str(inner), str(outer_mode), str(inner_mode), None, None, str(thread), int(schedule)
    )


def _not_again(wanted: Finding, instead: str) -> Finding:
    return Finding(
        "nondeterminism",
        f"a schedule that failed ({wanted.kind}: {wanted.message.splitlines()[0]}) was run again with "
        f"the same choices, and {instead}; the program depends on something else than its choices",
        wanted.thread,
    )


def _record(
    stage: _Stage,
    program: Program,
    setup: Setup,
    schedule: int,
    begin: Callable[[Core], Choose],
    edges: list[Witness],
) -> _Recording:
    """Run one schedule with everything recorded, and note how it deviates from the default."""
    rules = setup.rules()
    rules.preload(edges)
    taken: list[int] = []

    def noting(core: Core) -> Choose:
        inner = begin(core)

        def choose() -> Thread:
            cur = core.cur
            before = len(core.choices)
            thread = inner()
            if len(core.choices) > before:
                order = sorted(core.run, key=lambda other: (other is not cur, other.index))
                taken.append(order.index(thread))
            return thread

        return choose

    core, recorder = stage.run(program, rules, setup.limits(), noting, schedule, record=True)
    assert recorder is not None
    return _Recording(core, recorder, taken, edges)


# -- putting parts together ---------------------------------------------------------------------


def assemble(
    program: Program, setup: Setup, parts: Sequence[Part], *, last: int | None = None
) -> Exploration:
    """Put the parts of one exploration together; the result does not depend on how it was divided.

    Args:
        program: For schedules whose lock-order finding needs edges of several parts.
        setup: As given to every part.
        parts: Adjoining, in any order.
        last: Number of the last schedule that was asked for.
    """
    ordered = sorted(parts, key=lambda part: part.first)
    rules = setup.rules()
    for part in ordered:
        rules.merge(part.rules)
    failures = _across(program, setup, ordered, rules, _first_of_each(ordered))
    failures.sort(key=lambda failure: (failure.schedule, failure.kind == "lock-order"))
    if setup.stop_at_first and failures and len(ordered) > 1:
        stop = failures[0].schedule
        ordered, rules = _until(program, setup, ordered, stop)
        failures = [failure for failure in failures if failure.schedule == stop]
    return _verdict(setup, ordered, rules, failures)


def _first_of_each(parts: Sequence[Part]) -> list[Failure]:
    """The first failure of each fingerprint."""
    first: dict[str, Failure] = {}
    for part in parts:
        for failure in part.failures:
            known = first.get(failure.fingerprint)
            if known is None or failure.schedule < known.schedule:
                first[failure.fingerprint] = failure
    return list(first.values())


def _across(
    program: Program,
    setup: Setup,
    parts: Sequence[Part],
    rules: LockRules,
    failures: list[Failure],
) -> list[Failure]:
    """Make the lock-order failures anew from the edges of all parts.

    A part knows its own edges only: a cycle may close earlier, or only, with those of others.
    """
    if len(parts) < 2:  # noqa: PLR2004 - one part has found all there is
        return failures
    found: dict[str, Failure] = {}
    for order in rules.findings:
        key = _order_key(order)
        if not order.fatal and key not in found:
            found[key] = _again(program, setup, order, key)
    return [f for f in failures if f.fingerprint not in found] + list(found.values())


def _again(program: Program, setup: Setup, order: OrderFinding, key: str) -> Failure:
    with _Stage(setup.hang_seconds) as stage:
        strategy = _prepare(stage, program, setup)
        recording = _record(
            stage,
            program,
            setup,
            order.schedule,
            lambda core: strategy.begin(core, order.schedule),
            list(order.earlier()),
        )
        return recording.order_failure(order, key, setup).attach(program)


def _until(
    program: Program, setup: Setup, parts: Sequence[Part], stop: int
) -> tuple[list[Part], LockRules]:
    """The parts as they would be had the exploration stopped at schedule ``stop``."""
    kept: list[Part] = []
    for part in parts:
        if part.first > stop:
            break
        if part.first + part.schedules - 1 > stop:
            again = explore_part(program, setup, part.first, stop)
            again.seconds = part.seconds
            kept.append(again)
        else:
            kept.append(part)
    rules = setup.rules()
    for part in kept:
        rules.merge(part.rules)
    return kept, rules


def _verdict(
    setup: Setup, parts: Sequence[Part], rules: LockRules, failures: list[Failure]
) -> Exploration:
    total = Part(1)
    for part in parts:
        for name in ("schedules", "steps", "switches", "preemptions", "blocked", "bounded", "decisions"):
            setattr(total, name, getattr(total, name) + getattr(part, name))
        total.seconds = max(total.seconds, part.seconds)
        for kind, count in part.failing.items():
            total.failing[kind] = total.failing.get(kind, 0) + count
        total.entered |= part.entered
        total.named |= part.named
        total.reached |= part.reached
        total.exhausted = total.exhausted or part.exhausted
        if part.cut and part.cut != "seconds" and not total.cut:
            total.cut, total.detail = part.cut, part.detail
    # A lock-order finding is made once, by the schedule that closed it; blocks cannot count them.
    closed = {order.schedule for order in rules.findings if not order.fatal}
    if closed:
        total.failing["lock-order"] = total.failing.get("lock-order", 0) + len(closed)
    verdict, reason = certify(total, failures, setup)
    return Exploration(
        verdict=verdict,
        reason=reason,
        schedules=total.schedules,
        steps=total.steps,
        switches=total.switches,
        preemptions=total.preemptions,
        seconds=total.seconds,
        exhausted=total.exhausted and not total.cut,
        blocked=total.blocked,
        failure=failures[0] if failures else None,
        failures=failures,
        failing=dict(sorted(total.failing.items())),
        lock_order=rules,
        detail=total.detail,
        reached=tuple(sorted(total.reached)),
    )


def certify(total: Part, failures: Sequence[Failure], setup: Setup) -> tuple[str, str]:
    """Turn evidence into a verdict and its reason; the only place that says ``pass``."""
    if failures:
        first = failures[0]
        return "fail", f"{first.kind} in schedule {first.schedule}"
    if total.cut == "hang":
        name = total.detail.split("\n", 1)[0]
        return "inconclusive", (
            f"thread {name} blocked in something the harness does not control and was abandoned; "
            "see the stacks"
        )
    if total.cut == "interrupted":
        return "inconclusive", f"interrupted after {total.schedules} schedules"
    if total.schedules == 0:
        return "inconclusive", "no schedule was run; raise the budget"
    if total.bounded + total.blocked == total.schedules:
        return "inconclusive", f"every schedule hit the step bound of {setup.steps_max}; raise steps_max"
    idle = sorted(total.named - total.entered)
    if idle:
        return "inconclusive", (
            f"thread {', '.join(idle)} never performed an operation; nothing of it was interleaved"
        )
    if total.decisions == 0:
        return "inconclusive", "no schedule ever had two threads to choose from; nothing was interleaved"
    scope = "every schedule" if total.exhausted else f"{total.schedules} schedules"
    if total.exhausted and setup.preemptions is not None:
        scope += f" with at most {setup.preemptions} preemptions"
    return "pass", f"no failure in {scope}"


# -- the public calls ---------------------------------------------------------------------------


def explore(
    program: Program,
    strategy: str = "portfolio",
    schedules: int | None = 1000,
    seed: int = 0,
    *,
    depth: int = 3,
    preemptions: int | None = None,
    steps_max: int = 20_000,
    seconds: float | None = None,
    stop_at_first: bool = True,
    races: bool = False,
    early_timeouts: bool = False,
    hang_seconds: float = 5.0,
    processes: int = 1,
    mode: str = "controlled",
    patch: bool = False,
    lines: Sequence[object] = (),
    mode_blind: bool = False,
) -> Exploration:
    """Run ``program`` under many schedules, each decided by ``(strategy, seed, number)``.

    Args:
        program: Callable without arguments: builds fresh state, starts threads, joins them, asserts.
        strategy: ``random``, ``pct``, ``round-robin``, ``dfs`` or ``portfolio``.
        schedules: At most so many; None goes on until the search is exhausted or time is up.
        seed: The only source of randomness; not negative.
        depth: Ordering constraints that ``pct`` aims at, from 1.
        preemptions: Bound of ``dfs``; None for none.
        steps_max: Step bound of one schedule.
        seconds: Wall time after which no further schedule begins.
        stop_at_first: Stop at the first failing schedule.
        races: Not available yet.
        early_timeouts: The strategy may fire a timeout at any step.
        hang_seconds: Wall time without a step after which the running thread counts as hung.
        processes: Divide the schedules among so many processes; needs an importable program.
        mode: ``controlled``; ``free`` is not available yet.
        patch: Not available yet.
        lines: Not available yet.
        mode_blind: Let readers count like writers in lock order, as the kernel's rule does.

    Returns:
        The verdict with its evidence.

    Raises:
        UsageError: An argument cannot work, or the program misused a primitive.
        KeyboardInterrupt: Ctrl-C; the schedule was ended cleanly.
    """
    _refuse_missing(races=races, mode=mode, patch=patch, lines=lines)
    setup = Setup(
        strategy=strategy,
        seed=seed,
        depth=depth,
        preemptions=preemptions,
        steps_max=steps_max,
        early_timeouts=early_timeouts,
        hang_seconds=hang_seconds,
        stop_at_first=stop_at_first,
        mode_blind=mode_blind,
    )
    setup.check()
    _check_budget(setup, schedules, seconds, processes)
    if processes > 1 and not strategy_named(strategy).sequential:
        from harness.processes import explore_divided  # noqa: PLC0415 - multiprocessing is slow to import

        return explore_divided(program, setup, schedules, seconds, processes)
    part = explore_part(program, setup, 1, schedules, seconds=seconds)
    if part.cut == "interrupted":
        raise KeyboardInterrupt
    return assemble(program, setup, [part], last=schedules)


def _refuse_missing(*, races: bool, mode: str, patch: bool, lines: Sequence[object]) -> None:
    if mode not in ("controlled", "free"):
        raise UsageError(f"mode must be 'controlled' or 'free', got {mode!r}")
    for asked, name in ((races, "races=True"), (mode == "free", "mode='free'"), (patch, "patch=True"), (lines, "lines=")):
        if asked:
            raise UsageError(f"{name} is not available in this version")


def _check_budget(
    setup: Setup, schedules: int | None, seconds: float | None, processes: int
) -> None:
    if schedules is not None and schedules < 1:
        raise UsageError(f"schedules must be at least 1, or None for no limit, got {schedules}")
    if seconds is not None and not seconds > 0:
        raise UsageError(f"seconds must be more than 0, or None for no limit, got {seconds!r}")
    if schedules is None and seconds is None and not strategy_named(setup.strategy).sequential:
        raise UsageError(f"strategy {setup.strategy!r} never ends: give schedules or seconds")
    if processes < 1:
        raise UsageError(f"processes must be at least 1, got {processes}")


def replay(program: Program, token: str) -> Failure | None:
    """Run the schedule of ``token`` again, recorded in full.

    Returns:
        The failure, or None where the schedule still fits and no longer fails.

    Raises:
        TokenError: The token cannot be read.
        ReplayDivergence: The schedule does not fit ``program`` (any more).
    """
    wanted = decode(token)
    setup = Setup(
        strategy=wanted.strategy,
        seed=wanted.seed,
        steps_max=wanted.steps_max,
        early_timeouts=wanted.early_timeouts,
        meta=wanted.meta,
    )
    deviations = Deviations(unpack(wanted.deviations))
    edges = [_witness_of(edge) for edge in wanted.edges]
    with _Stage(setup.hang_seconds) as stage:
        again = _record(stage, program, setup, wanted.schedule, deviations.begin, edges)
        if again.cut in ("interrupted", "hang"):
            raise KeyboardInterrupt if again.cut == "interrupted" else _hung(stage)
        _must_fit(wanted, again, deviations)
        failure = _failure_again(wanted, again, setup)
    return None if failure is None else failure.attach(program)


def _hung(stage: _Stage) -> InternalError:
    name, stacks = stage.pool.hung or ("a thread", "")
    return InternalError(f"thread {name} blocked in something the harness does not control\n{stacks}")


def _must_fit(wanted: Token, again: _Recording, deviations: Deviations) -> None:
    """Raise ``ReplayDivergence`` unless the recorded steps are those of the token."""
    if deviations.misfit is not None:
        step, alternative, enabled = deviations.misfit
        raise ReplayDivergence(
            step, f"at least {alternative + 1} threads that can run", f"{enabled}"
        )
    different = first_difference(wanted, again.steps)
    if different is not None:
        found = _describe(again.steps, different)
        raise ReplayDivergence(different, "the recorded operations", found)
    if deviations.unused:
        raise ReplayDivergence(len(again.steps) + 1, "more choices", "the end of the program")


def _describe(steps: Sequence[Step], number: int) -> str:
    if number > len(steps):
        return f"the end of the schedule after {len(steps)} steps"
    step = steps[number - 1]
    return f"{step.name}: {step.kind} {step.obj}"


def _failure_again(wanted: Token, again: _Recording, setup: Setup) -> Failure | None:
    if wanted.kind == "lock-order":
        for order in again.rules.findings:
            if not order.fatal and _order_key(order) == wanted.fingerprint:
                again.rules.resolve(_resolved)
                order = next(o for o in again.rules.findings if _order_key(o) == wanted.fingerprint)
                return again.order_failure(order, wanted.fingerprint, setup)
    finding = again.finding
    if again.cut == "bound":
        finding = Finding(
            "livelock", f"no end after {setup.steps_max} steps under a fair strategy", CORE.threads[0]
        )
    if finding is None:
        return None
    key = _order_key(finding.order) if finding.order is not None else _key(finding)
    return again.made(finding, key, setup, wanted.schedule)


def record_schedule(program: Program, setup: Setup, schedule: int) -> tuple[Failure | None, Story]:
    """Run schedule number ``schedule`` of an exploration, recorded in full.

    Returns:
        Its failure or None, and its story.

    Raises:
        UsageError: The setup cannot work, or the strategy only reaches a schedule through all before.
    """
    setup.check()
    if strategy_named(setup.strategy).sequential and schedule != 1:
        raise UsageError(
            f"strategy {setup.strategy!r} cannot begin at schedule {schedule}; replay its token"
        )
    with _Stage(setup.hang_seconds) as stage:
        strategy = _prepare(stage, program, setup)
        recording = _record(
            stage, program, setup, schedule, lambda core: strategy.begin(core, schedule), []
        )
        finding = recording.finding
        if recording.cut == "bound" and strategy.fair_in(schedule):
            finding = _finding_of(CORE, setup, fair=True)
        failure = None
        if finding is not None:
            key = _order_key(finding.order) if finding.order is not None else _key(finding)
            failure = recording.made(finding, key, setup, schedule).attach(program)
        else:
            recording.rules.resolve(_resolved)
            for order in recording.rules.findings:
                failure = recording.order_failure(order, _order_key(order), setup).attach(program)
                break
        return failure, tell(finding, recording.recorder, setup.steps_max)


def check(program: Program, strategy: str = "portfolio", schedules: int = 1000, **options: Any) -> Exploration:
    """Explore, and raise what was found.

    Args:
        program: As for ``explore``.
        strategy: As for ``explore``.
        schedules: As for ``explore``.
        options: The other options of ``explore``.

    Returns:
        The exploration, where nothing failed; look at its verdict, which may be ``inconclusive``.

    Raises:
        ScheduleFailure: A schedule fails; the message ends with the command that replays it.
    """
    report = explore(program, strategy, schedules, **options)
    if report.failure is not None:
        raise ScheduleFailure(report.failure, report.failure.command())
    return report
