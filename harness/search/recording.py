"""A failing schedule, recorded: the ``Failure``, its token, and running it again."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from msgspec import structs

from harness.engine.core import CORE, Choose, Core
from harness.engine.finding import Finding
from harness.engine.thread import Thread
from harness.errors import InternalError, ReplayDivergence, TokenError, UsageError
from harness.lockorder.deadlocks import settled
from harness.lockorder.rules import Finding as OrderFinding
from harness.lockorder.rules import Witness
from harness.search.learning import Learning, Pupil
from harness.search.setup import PATCH, Program, Setup, runnable
from harness.search.stage import Stage, prepare
from harness.strategies import Strategy, strategy_named
from harness.strategies.replay import Deviations
from harness.trace.events import Site, Step, Story
from harness.trace.recorder import TraceRecorder, digest, fingerprint
from harness.trace.site import site_of
from harness.trace.story import order_text, tell
from harness.trace.table import render
from harness.trace.token import Token, decode, encode, first_difference, marks, pack, unpack

if TYPE_CHECKING:
    from harness.search.named import Named


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
        # Circles of lock classes that its schedule shows, and cannot end in.
        self.impossible: frozenset[str] = facts.get("impossible", frozenset())
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

    def html(self, *, title: str = "", command: str = "") -> str:
        """The report as one HTML file; runs the program again to find the steps that decide.

        Args:
            title: What failed; the program's name for none.
            command: Replays it; ``command()`` for none.

        Raises:
            UsageError: The program is not known here; use ``replay(program, token)``.
        """
        from harness.search.picture import html_of

        program = self._program
        if program is None:
            raise UsageError("this failure does not know its program; use replay(program, token)")
        name = title or getattr(program, "__qualname__", "program")
        return html_of(program, self, title=name, command=command)

    def named(self) -> Named:
        """The schedule as named operations, which outlives changes of the program.

        Raises:
            UsageError: The program is not known here, or the schedule is a livelock's.
        """
        from harness.search.named import Named

        return Named.of(self.token, self.story().steps)

    def command(self) -> str:
        """A command that replays it: runnable where the program can be imported."""
        program = self._program
        name = getattr(program, "__qualname__", "")
        # What has no name of its own, a partial for instance, would name the module of its class.
        module = getattr(program, "__module__", "__main__") if name else "__main__"
        name = name or "program"
        if module == "__main__" or "<" in name or "." in name:
            return f"harness.replay({name.rsplit('.', 1)[-1]}, {self.token!r})"
        return (
            f'python -c "from harness import replay; from {module} import {name}; '
            f"print(replay({name}, '{self.token}').text())\""
        )

    def __getstate__(self) -> dict[str, Any]:
        """Travels between processes without program and story."""
        return {**self.__dict__, "_story": None, "_program": None}


def resolved(site: Any) -> Site | None:
    """A place as the lock rules keep it, as a site; a site stays what it is."""
    return site if isinstance(site, Site) or site is None else site_of(site)


def finding_of(core: Core, setup: Setup, *, fair: bool) -> Finding | None:
    """The finding of the schedule that has just run; a step bound under a fair strategy is one."""
    if core.cut == "bound" and fair:
        names = ", ".join(t.name for t in core.threads if t.enabled) or "nobody"
        return Finding(
            "livelock",
            f"no end after {setup.steps_max} steps under a fair strategy; can still run: {names}",
            core.threads[0],
        )
    return core.finding


def key_of(finding: Finding) -> str:
    """The fingerprint, from what is known without a recording."""
    return fingerprint(finding.kind, finding.rule, [site_of(place) for place in finding.frames])


def order_key(order: OrderFinding) -> str:
    """The fingerprint of a lock-order finding; who met which edge first is left out."""
    return fingerprint("lock-order", f"{order.rule}:{order.result}:{'>'.join(order.classes)}", [])


class Recording:
    """A schedule that was run with everything recorded."""

    def __init__(
        self, core: Core, recorder: TraceRecorder, taken: list[int], edges: list[Witness]
    ) -> None:
        self.recorder = recorder
        self.taken = taken
        self.edges = edges
        self.finding = core.finding
        self.cut = core.cut
        self.rules = core.rules
        self.steps = recorder.steps
        self.preemptions = core.preemptions
        self.name = getattr(core.threads[0].fn, "__qualname__", "program")

    def failure(
        self, wanted: Finding, key: str, setup: Setup, schedule: int, again: Recording
    ) -> Failure:
        """The failure ``wanted``, or what this run and ``again`` say about the determinism."""
        finding = wanted
        differing = self._differing(again)
        if differing is not None:
            finding = Finding("nondeterminism", differing, wanted.thread)
        elif wanted.kind != "livelock":
            found = self.finding
            if found is None:
                finding = _not_again(wanted, "it passed")
            elif found.kind == "nondeterminism":
                finding = found
            elif found.kind != wanted.kind or (found.order is None and key_of(found) != key):
                finding = _not_again(wanted, f"it failed with {found.kind}: {found.message}")
            else:
                finding = found
        if finding.kind == "nondeterminism":
            key = key_of(finding)
        return self.made(finding, key, setup, schedule)

    def _differing(self, again: Recording) -> str | None:
        """The first step in which two runs of the same choices differ, in words."""
        for number in range(1, max(len(self.steps), len(again.steps)) + 1):
            one, other = _describe(self.steps, number), _describe(again.steps, number)
            if one != other:
                return (
                    f"on running the same choices again, step {number} differs: {one}, then {other}"
                )
        return None

    def made(self, finding: Finding, key: str, setup: Setup, schedule: int) -> Failure:
        """Build the failure, its token and its story."""
        sites = [site_of(place) for place in finding.frames]
        story = tell(finding, self.recorder, setup.steps_max)
        return self._build(finding.kind, finding.message, key, setup, schedule, sites, story)

    def order_failure(self, order: OrderFinding, key: str, setup: Setup) -> Failure:
        """The failure of a lock-order finding that let the schedule go on.

        A cycle of classes is held against the schedule that closed it: no earlier one has it whole.
        """
        thread = CORE.threads[0] if CORE.threads else Thread(0, "main")
        finding = Finding("lock-order", order.message, thread, rule=order.rule, order=order)
        story = tell(finding, self.recorder, setup.steps_max)
        impossible: frozenset[str] = frozenset()
        if order.tier == "possible":
            # Nobody else who explores needs the audit.
            from harness.trace.logjudge import deadlocks_of

            judged = deadlocks_of(story, order.schedule, mode_blind=setup.mode_blind)
            impossible = frozenset(judged.impossible())
            order = settled(order, impossible, "its schedule cannot end in it")
            story = structs.replace(story, lock_findings=(order_text(order),))
        return self._build(
            "lock-order", order.message, key, setup, order.schedule, [], story, impossible
        )

    def _build(
        self,
        kind: str,
        message: str,
        key: str,
        setup: Setup,
        schedule: int,
        sites: list[Site | None],
        story: Story,
        impossible: frozenset[str] = frozenset(),
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
            control=list(setup.control),
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
            impossible=impossible,
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


def witness_of(edge: Sequence[str | int]) -> Witness:
    """The edge that a token carries; its sites stayed behind."""
    outer, inner, outer_mode, inner_mode, thread, schedule = edge
    return Witness(
        str(outer),
        str(inner),
        str(outer_mode),
        str(inner_mode),
        None,
        None,
        str(thread),
        int(schedule),
    )


def _not_again(wanted: Finding, instead: str) -> Finding:
    return Finding(
        "nondeterminism",
        f"a schedule that failed ({wanted.kind}: {wanted.message.splitlines()[0]}) was run again "
        f"with the same choices, and {instead}; "
        "the program depends on something else than its choices",
        wanted.thread,
    )


def record(
    stage: Stage,
    program: Program,
    setup: Setup,
    schedule: int,
    begin: Callable[[Core], Choose],
    edges: list[Witness],
    *,
    film: bool = True,
) -> Recording:
    """Run one schedule with everything recorded, and note how it deviates from the default.

    ``film=False`` leaves out what the program's views show.
    """
    rules = setup.rules()
    rules.preload(edges)
    taken: list[int] = []

    def noting(core: Core) -> Choose:
        inner = begin(core)

        def choose() -> Thread:
            cur = core.cur
            thread = inner()
            if len(core.run) > 1:
                order = sorted(core.run, key=lambda other: (other is not cur, other.index))
                taken.append(order.index(thread))
            return thread

        return choose

    core, recorder = stage.run(
        program,
        rules,
        setup.limits(),
        noting,
        schedule,
        record=True,
        film=film,
        stacks=setup.stacks,
    )
    assert recorder is not None
    return Recording(core, recorder, taken, edges)


def replay(program: Program, token: str) -> Failure | None:
    """Run the schedule of ``token`` again, recorded in full.

    Returns:
        The failure, or None where the schedule still fits and no longer fails.

    Raises:
        TokenError: The token cannot be read.
        ReplayDivergence: The schedule does not fit ``program`` (any more).
    """
    return replay_story(program, token)[0]


def replay_story(
    program: Program, token: str, *, stacks: bool = False
) -> tuple[Failure | None, Story]:
    """``replay``, with the story also of a schedule that no longer fails.

    Args:
        program: As for ``explore``.
        token: Of the schedule.
        stacks: Record places with all their callers.

    Returns:
        The failure or None, and the story.

    Raises:
        TokenError: The token cannot be read.
        ReplayDivergence: The schedule does not fit ``program`` (any more).
    """
    runnable(program)
    wanted = decode(token)
    setup = replace(setup_of(wanted), stacks=stacks)
    deviations = Deviations(unpack(wanted.deviations))
    edges = [witness_of(edge) for edge in wanted.edges]
    with Stage(setup.hang_seconds, control=setup.control) as stage:
        again = record(stage, program, setup, wanted.schedule, deviations.begin, edges)
        if again.cut in ("interrupted", "hang"):
            raise KeyboardInterrupt if again.cut == "interrupted" else _hung(stage)
        _must_fit(wanted, again, deviations)
        failure = failure_again(wanted, again, setup)
        if failure is None:
            return None, tell(None, again.recorder, setup.steps_max)
    return failure.attach(program), failure.story()


def setup_of(token: Token) -> Setup:
    """What decides a schedule, as far as a replay needs it.

    Raises:
        TokenError: It wants modules that the program does not use: a token imports nothing.
    """
    for name in token.control:
        if name != PATCH and (name not in sys.modules or name.partition(".")[0] == "harness"):
            raise TokenError(
                f"the token needs schedule points in the module {name[:80]!r}, which is not "
                "imported; import it with the program before replaying"
            )
    return Setup(
        strategy=token.strategy,
        seed=token.seed,
        steps_max=token.steps_max,
        early_timeouts=token.early_timeouts,
        # A schedule that failed otherwise had no race before that.
        races=token.kind == "data-race",
        control=tuple(token.control),
        meta=token.meta,
    )


def _hung(stage: Stage) -> InternalError:
    name, stacks = stage.pool.hung or ("a thread", "")
    return InternalError(
        f"thread {name} blocked in something the harness does not control\n{stacks}"
    )


def _must_fit(wanted: Token, again: Recording, deviations: Deviations) -> None:
    """Raise ``ReplayDivergence`` unless the recorded steps are those of the token."""
    if deviations.misfit is not None:
        step, alternative, enabled = deviations.misfit
        raise ReplayDivergence(
            step, f"at least {alternative + 1} threads that can run", f"{enabled}"
        )
    different = first_difference(wanted, again.steps)
    if different is not None:
        # A token has room for so many marks; a long one has one for several steps.
        last = min(different + wanted.stride, wanted.steps + 1) - 1
        found = _describe(again.steps, different)
        if last == different:
            raise ReplayDivergence(different, "another operation", found)
        what = f"the operations of steps {different} to {last}, not all of which are the same"
        raise ReplayDivergence(different, what, f"in step {different} {found}")
    if deviations.unused:
        raise ReplayDivergence(len(again.steps) + 1, "more choices", "the end of the program")


def _describe(steps: Sequence[Step], number: int) -> str:
    if number > len(steps):
        return f"the end of the schedule after {len(steps)} steps"
    step = steps[number - 1]
    where = "" if step.site is None else f" at {step.site}"
    return f"{step.name} ({step.kind} {step.obj}{where}; enabled {list(step.enabled)})"


def failure_again(wanted: Token, again: Recording, setup: Setup) -> Failure | None:
    """The failure of a schedule that was run again; the lock-order one, if that is wanted."""
    if wanted.kind == "lock-order":
        for order in again.rules.findings:
            if not order.fatal and order_key(order) == wanted.fingerprint:
                return again.order_failure(order, wanted.fingerprint, setup)
    finding = finding_of(CORE, setup, fair=True)
    if finding is None:
        return None
    key = order_key(finding.order) if finding.order is not None else key_of(finding)
    return again.made(finding, key, setup, wanted.schedule)


Sink = Callable[[int, "Failure | None", Story], None]


def record_schedule(program: Program, setup: Setup, schedule: int) -> tuple[Failure | None, Story]:
    """Run schedule number ``schedule`` of an exploration, recorded in full.

    Returns:
        Its failure or None, and its story.

    Raises:
        UsageError: The setup cannot work, or the strategy reaches it only through all before.
    """
    found: list[tuple[Failure | None, Story]] = []
    record_part(
        program, setup, schedule, schedule, lambda _, *result: found.append(result), film=True
    )
    return found[0]


def record_part(
    program: Program,
    setup: Setup,
    first: int,
    last: int,
    sink: Sink,
    *,
    worker: int | None = None,
    film: bool = False,
    learning: Learning | None = None,
) -> None:
    """Run schedules ``first`` to ``last``, each recorded in full, whether they fail or not.

    Args:
        program: As for ``explore``.
        setup: As for ``explore_part``.
        first: Number of the first schedule.
        last: Number of the last one.
        sink: Called after each with its number, its failure or None, and its story. Each is judged
            by itself: lock-order findings that need edges of several schedules are the audit's.
        worker: Which core to run on; None chooses.
        learning: As for ``explore_part``.
        film: Record what the program's views show, too.

    Raises:
        UsageError: The setup cannot work, or the strategy cannot begin at ``first``.
        KeyboardInterrupt: Ctrl-C.
    """
    setup.check()
    if strategy_named(setup.strategy).sequential and (first, last) != (1, 1):
        raise UsageError(
            f"strategy {setup.strategy!r} reaches schedule {last} only through all before it; "
            "replay the token of a failure instead"
        )
    with Stage(setup.hang_seconds, worker, setup.control) as stage:
        strategy = prepare(stage, program, setup, learning)
        pupil = Pupil(stage, program, setup, strategy, learning)
        for schedule in range(first, last + 1):
            pupil.reach(schedule)
            recording = record(
                stage,
                program,
                setup,
                schedule,
                partial(_begin, strategy, schedule),
                [],
                film=film,
            )
            if recording.cut in ("interrupted", "hang"):
                raise KeyboardInterrupt if recording.cut == "interrupted" else _hung(stage)
            fair = strategy.fair_in(schedule)
            failure, story = told(recording, setup, schedule, fair=fair)
            sink(schedule, None if failure is None else failure.attach(program), story)


def _begin(strategy: Strategy, schedule: int, core: Core) -> Choose:
    return strategy.begin(core, schedule)


def told(
    recording: Recording, setup: Setup, schedule: int, *, fair: bool
) -> tuple[Failure | None, Story]:
    """Failure and story of one recorded schedule."""
    finding = finding_of(CORE, setup, fair=fair)
    if finding is not None:
        key = order_key(finding.order) if finding.order is not None else key_of(finding)
        failure = recording.made(finding, key, setup, schedule)
        return failure, failure.story()
    for order in recording.rules.findings:
        failure = recording.order_failure(order, order_key(order), setup)
        return failure, failure.story()
    return None, tell(None, recording.recorder, setup.steps_max)
