"""What worker processes do: every function here is called by name in a process that may be new.

Nothing here logs or prints. Arguments and values are plain data; a program is rebuilt from its
``Spec``, because a scenario's function and a mutated model cannot travel.
"""

from __future__ import annotations

import io
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from harness.errors import InternalError, ReplayDivergence
from harness.explore import (
    Exploration,
    Failure,
    Part,
    Setup,
    assemble,
    explore_part,
    record_part,
    record_schedule,
    replay,
    replay_story,
)
from harness.search.captured import free_part
from harness.search.directed import Leg, reach
from harness.search.learning import Memory
from harness.search.minimize import Minimized, minimized
from harness.search.named import Aligned, Named, replay_named
from harness.search.picture import picture
from harness.search.setup import Program
from harness.trace.events import Story
from harness.trace.locklog import LockLog
from harness.trace.page import Data, render, story_data
from harness.trace.table import command_lines
from harness.trace.token import decode
from stress import mutants, needless
from stress.catalogue import Spec, program_of
from stress.catalogue import find as catalogued
from stress.program import PROGRAM
from stress.reduce import Reduced, oracle_of, reduced, summary

# Steps replayed to make what a run or a hunt found easier to read; `minimize` takes its time.
_EASIER_STEPS_MAX: Final = 100_000
_SMALLER_STEPS_MAX: Final = 300_000
_MEMORY: Final = Memory()
# A schedule that does not end, or does not repeat, gets no easier.
_AS_FOUND: Final = ("hang", "livelock", "nondeterminism")


@dataclass(frozen=True, slots=True)
class Found:
    """A failure as it leaves the process that recorded it.

    Attributes:
        failure: Kind, message, token and the numbers of the schedule that found it.
        text: The report for a terminal, the replay command last. Where there is an easier schedule
            it is that one's, followed by the command that replays the one that was found.
        easier: The same failure by fewer preemptions, switches or steps; None where it was not
            looked for.
    """

    failure: Failure
    text: str
    easier: Failure | None = None

    @property
    def best(self) -> Failure:
        """The schedule to show and to replay."""
        return self.failure if self.easier is None else self.easier


@dataclass(frozen=True, slots=True)
class Block:
    """Some adjoining schedules of an exploration.

    Attributes:
        part: The evidence.
        log: Their lock log; empty where none was asked for.
    """

    part: Part
    log: bytes


@dataclass(frozen=True, slots=True)
class Conclusion:
    """The outcome of exploring one program."""

    exploration: Exploration
    found: list[Found] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Replayed:
    """One schedule, run again.

    Attributes:
        found: The failure; None where the schedule passes.
        story: All of it.
        page: The report as an HTML file; empty where it was not asked for.
        aligned: How a named schedule fits; None for a token or a number.
    """

    found: Found | None
    story: Story
    page: str = ""
    aligned: Aligned | None = None


def explore_block(
    spec: Spec, setup: Setup, first: int, last: int | None, seconds: float | None, logged: int
) -> Block:
    """Run schedules ``first`` to ``last`` of a spec without a mutant.

    Args:
        spec: What to run.
        setup: What decides each schedule.
        first: Number of the first schedule.
        last: Number of the last one; None goes on until the search is exhausted.
        seconds: Wall time after which no further schedule begins.
        logged: Schedules up to this number are run again for the lock log.
    """
    program = program_of(spec)
    log = io.BytesIO()
    if setup.mode == "free" and logged:
        return Block(_free_and_logged(spec, setup, first, last, seconds, log), log.getvalue())
    learning = _MEMORY.of((spec, setup))
    part = explore_part(program, setup, first, last, seconds=seconds, worker=0, learning=learning)
    log_last = min(first + part.schedules - 1, logged)
    if log_last >= first:
        _write_log(spec, setup, program, range(first, log_last + 1), log)
    return Block(part, log.getvalue())


def _free_and_logged(
    spec: Spec,
    setup: Setup,
    first: int,
    last: int | None,
    seconds: float | None,
    log: io.BytesIO,
) -> Part:
    """Run schedules freely and log them as they run: nobody can run them again."""
    with LockLog(log) as writer:

        def write(schedule: int, story: Story, times: list[int]) -> None:
            run = f"{spec.scenario}#{schedule}"
            writer.free_story(run, story, times, seed=setup.seed, mode="free", **spec.meta())

        return free_part(program_of(spec), setup, first, last, seconds=seconds, sink=write)


def _write_log(
    spec: Spec, setup: Setup, program: Program, schedules: range, log: io.BytesIO
) -> None:
    """Run schedules again, recorded in full, and write what their locks did."""
    with LockLog(log) as writer:

        def write(schedule: int, _failure: Failure | None, story: Story) -> None:
            writer.story(
                f"{spec.scenario}#{schedule}",
                story,
                seed=setup.seed,
                sched=setup.strategy,
                depth=setup.depth,
                steps_max=setup.steps_max,
                **({} if setup.preemptions is None else {"preemptions": setup.preemptions}),
                **({"early_timeouts": 1} if setup.early_timeouts else {}),
                **spec.meta(),
            )

        record_part(
            program,
            setup,
            schedules[0],
            schedules[-1],
            write,
            worker=0,
            learning=_MEMORY.of((spec, setup)),
        )


def conclude(
    spec: Spec, setup: Setup, parts: list[Part], catalogue: Path | None = None
) -> Conclusion:
    """Put the blocks of an exploration together and write up what it found."""
    program = program_of(spec)
    exploration = assemble(program, setup, parts)
    found = [
        _easier(spec, setup, failure.attach(program), catalogue) for failure in exploration.failures
    ]
    return Conclusion(exploration, found)


def explore_whole(
    spec: Spec, setups: list[tuple[Setup, int]], catalogue: Path | None
) -> tuple[Conclusion, int]:
    """Explore a spec with its mutant planted, setup after setup until one of them finds something.

    Args:
        spec: What to run; a mutant is planted first.
        setups: Each with its number of schedules, in order.
        catalogue: The file that has the mutant; None for the model's own.

    Returns:
        The conclusion of the last exploration, and the schedules run in all of them.
    """
    installed = mutants.install_for(spec, catalogue)
    program = program_of(spec)
    schedules = 0
    conclusion: Conclusion | None = None
    for setup, last in setups:
        part = explore_part(program, setup, 1, last, worker=0)
        conclusion = conclude(spec, setup, [part], catalogue)
        schedules += part.schedules
        if conclusion.found:
            break
    if installed is not None:
        installed.confirm()
    if conclusion is None:
        raise InternalError("an exploration was asked for without any strategy")
    return conclusion, schedules


# What to explore, how, and how many schedules at most.
Plan = tuple[Spec, Setup, int]


@dataclass(frozen=True, slots=True)
class Cell:
    """One short exploration.

    Attributes:
        schedules: Run, the failing one included.
        oracle: What noticed; empty where nothing was found.
        cut: Why it ended early, if it did: then it says nothing.
    """

    schedules: int
    oracle: str
    cut: str = ""


def explore_cells(plans: Sequence[Plan], catalogue: Path | None) -> list[Cell]:
    """Explore specs of one mutant, each to its first finding or so many schedules.

    Args:
        plans: Spec, setup and schedules of each.
        catalogue: The file that has the mutant; None for the model's own.

    Returns:
        One cell for each, in order; fewer where one hung, which ends this process's work.
    """
    mutants.install_for(plans[0][0], catalogue)
    cells = []
    for spec, setup, schedules in plans:
        part = explore_part(program_of(spec), setup, 1, schedules, worker=0)
        found = part.failures[0] if part.failures else None
        hung = part.cut == "hang"
        oracle = "" if found is None or hung else oracle_of(found)
        cells.append(Cell(part.schedules, oracle, "hang" if hung else ""))
        if hung:
            break
    return cells


def replay_token(
    text: str, catalogue: Path | None, page: bool = False, stacks: bool = False
) -> Replayed:
    """Run the schedule of a token again.

    Args:
        text: The token.
        catalogue: The file that has the mutant; None for the model's own.
        page: Make the report as an HTML file, too.
        stacks: Record places with all their callers.

    Raises:
        TokenError: It cannot be read, or is of another version of the scenario or mutant.
        UsageError: What it names is not known here.
        ReplayDivergence: The program has changed since.
    """
    spec = Spec.from_meta(decode(text).meta)
    mutants.install_for(spec, catalogue)
    program = program_of(spec)
    result = replay_story(program, text, stacks=stacks)
    return _replayed(spec, program, result, catalogue, page=page)


def replay_operations(
    named: Named, catalogue: Path | None, page: bool = False, stacks: bool = False
) -> Replayed:
    """Run the program of a named schedule, as it is now, in its order as far as that is possible.

    Raises:
        TokenError: Its token cannot be read.
        UsageError: What it names is not known here.
    """
    spec = Spec.from_meta(decode(named.token).meta)
    mutants.install_for(spec, catalogue)
    program = program_of(spec)
    aligned = replay_named(program, named, stacks=stacks)
    result = aligned.failure, aligned.story
    replayed = _replayed(spec, program, result, catalogue, page=page)
    return replace(replayed, aligned=aligned)


@dataclass(frozen=True, slots=True)
class Shrunk:
    """A token made easier to read.

    Attributes:
        found: The schedule that is left, written up.
        result: How it compares with the one that was given, and what proves it; with that of the
            smaller program, where there is one.
        smaller: What is left of a drawn program, where something could go.
        dropped: Injected faults that the failure does not need.
    """

    found: Found
    result: Minimized
    smaller: Reduced | None = None
    dropped: tuple[str, ...] = ()


def minimize_token(text: str, catalogue: Path | None) -> Shrunk:
    """Find an easier schedule that fails like that of a token.

    Raises:
        TokenError: It cannot be read, or is of another version of the scenario or mutant.
        UsageError: What it names is not known here.
        ReplayDivergence: The program has changed since.
    """
    spec = Spec.from_meta(decode(text).meta)
    mutants.install_for(spec, catalogue)
    smaller = None
    dropped: tuple[str, ...] = ()
    failure, _ = replay_story(program_of(spec), text)
    if failure is not None:
        needed = needless.drop(spec, Setup(meta=spec.meta()), failure)
        spec, text, dropped = needed.spec, needed.failure.token, needed.dropped
        if catalogued(spec.scenario).drawing is not None:
            smaller = reduced(spec, needed.failure)
    if smaller is not None:
        spec, text = smaller.spec, smaller.failure.token
    result = minimized(program_of(spec), text)
    return Shrunk(_found(result.failure, catalogue), result, smaller, dropped)


def confirm(
    header: Mapping[str, str | int],
    schedule: int,
    legs: Sequence[Leg],
    last: Sequence[int],
    catalogue: Path | None = None,
) -> str:
    """Run a logged schedule again, along another route, towards a deadlock that was predicted.

    Args:
        header: Of the logged run: its scenario, and what decided its schedule.
        schedule: Its number.
        legs: The route; see ``directed.reach``.
        last: The threads that are to block each other.
        catalogue: The file that has the mutant; None for the model's own.

    Returns:
        A token of the deadlock; empty where the program does not get there.
    """
    spec = Spec.from_meta(header)
    mutants.install_for(spec, catalogue)
    bound = header.get("preemptions")
    setup = Setup(
        strategy=str(header["sched"]),
        seed=int(header["seed"]),
        depth=int(header.get("depth", 3)),
        steps_max=int(header.get("steps_max", 20_000)),
        preemptions=None if bound is None else int(bound),
        early_timeouts=bool(header.get("early_timeouts")),
        meta=spec.meta(),
    )
    failure = reach(program_of(spec), setup, schedule, legs, last)
    return "" if failure is None else failure.token


def replay_schedule(
    spec: Spec, setup: Setup, schedule: int, catalogue: Path | None, page: bool = False
) -> Replayed:
    """Run schedule number ``schedule`` of an exploration again."""
    mutants.install_for(spec, catalogue)
    program = program_of(spec)
    result = record_schedule(program, setup, schedule)
    return _replayed(spec, program, result, catalogue, page=page)


def _replayed(
    spec: Spec,
    program: Program,
    result: tuple[Failure | None, Story],
    catalogue: Path | None,
    *,
    page: bool,
) -> Replayed:
    failure, story = result
    found = None if failure is None else _found(failure, catalogue)
    drawn = _page(spec, program, failure, story, catalogue) if page else ""
    return Replayed(found, story, drawn)


def picture_of(spec: Spec, token: str, *, pair: bool) -> Data | None:
    """What a page shows of a token without a mutant; None where it no longer fails."""
    program = program_of(spec)
    failure = replay(program, token)
    return None if failure is None else _picture(spec, program, failure, None, pair=pair)


def _picture(
    spec: Spec, program: Program, failure: Failure, catalogue: Path | None, *, pair: bool = True
) -> Data:
    facts = {name: value for name, value in spec.meta().items() if name != "scenario"}
    token = decode(failure.token)
    return picture(
        program,
        failure,
        title=spec.scenario,
        command=replay_command(failure.token, catalogue),
        facts=facts | {"strategy": token.strategy, "seed": token.seed},
        pair=pair,
    )


def _page(
    spec: Spec, program: Program, failure: Failure | None, story: Story, catalogue: Path | None
) -> str:
    """The report of one schedule as an HTML file."""
    if failure is None:
        facts = spec.meta()
        data = story_data(spec.scenario, [("this schedule", story)], facts=facts)
        return render(spec.scenario, [data])
    data = _picture(spec, program, failure, catalogue)
    return render(spec.scenario, [data], text=data["text"])


def replay_command(token: str, catalogue: Path | None = None) -> str:
    """The command line that replays a token."""
    option = "" if catalogue is None else f" --catalogue {shlex.quote(str(catalogue))}"
    return f"{PROGRAM} replay {token}{option}"


def _easier(spec: Spec, setup: Setup, failure: Failure, catalogue: Path | None) -> Found:
    """A failure with no needless fault, the smallest program, and the easiest schedule.

    As far as a short search finds them.
    """
    if failure.kind in _AS_FOUND:
        return _found(failure, catalogue)
    needed = needless.drop(spec, setup, failure)
    smaller = reduced(needed.spec, needed.failure, steps_max=_SMALLER_STEPS_MAX)
    start, program = needed.failure, program_of(needed.spec)
    if smaller is not None:
        start, program = smaller.failure, program_of(smaller.spec)
    try:
        result = minimized(program, start.token, explain=False, steps_max=_EASIER_STEPS_MAX)
    except ReplayDivergence:
        return _found(failure, catalogue)
    easier = result.failure
    if easier.token == failure.token:
        return _found(failure, catalogue)
    count = failure.preemptions
    lines = [
        _found(easier, catalogue).text,
        *([f"it does not need the faults {', '.join(needed.dropped)}"] if needed.dropped else []),
        "",
        *([] if smaller is None else [*summary(smaller), ""]),
        f"as it was found, with {count} preemption{'' if count == 1 else 's'}:",
        *command_lines(replay_command(failure.token, catalogue)),
    ]
    return Found(failure, "\n".join(lines), easier)


def _found(failure: Failure, catalogue: Path | None) -> Found:
    return Found(failure, failure.text(command=replay_command(failure.token, catalogue)))
