"""Running a program under many schedules, and one schedule again.

``explore`` keeps only the choices of each schedule. A schedule that fails is run a second time with
everything recorded; that run makes the ``Failure``, its token and its story. If it does not fail in
the same way, the program is not deterministic, which is a finding of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.errors import ScheduleFailure, UsageError
from harness.patch.install import active as patches_active
from harness.patch.lines import resolved
from harness.search.minimize import minimize
from harness.search.part import Part, explore_part
from harness.search.recording import Failure, record_part, record_schedule, replay, replay_story
from harness.search.setup import BLOCK, PATCH, Program, Setup, runnable, whole
from harness.search.setup import seconds as number_of_seconds
from harness.search.verdict import Exploration, assemble
from harness.search.watch import TWICE_EVERY
from harness.strategies import strategy_named

__all__ = [
    "BLOCK",
    "Exploration",
    "Failure",
    "Part",
    "Setup",
    "assemble",
    "check",
    "controlled",
    "explore",
    "explore_part",
    "minimize",
    "record_part",
    "record_schedule",
    "replay",
    "replay_story",
]


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
    twice_every: int = TWICE_EVERY,
    predict: int = 0,
) -> Exploration:
    """Run ``program`` under many schedules, each decided by ``(strategy, seed, number)``.

    Args:
        program: Without arguments: builds fresh state, starts threads, joins them, asserts.
        strategy: A name of ``harness.strategies.names()``, ``portfolio`` or ``dpor`` for instance.
        schedules: At most so many; None goes on until the search is exhausted or time is up.
        seed: The only source of randomness; not negative.
        depth: Ordering constraints that ``pct`` aims at, from 1.
        preemptions: Bound of ``dfs``; None for none.
        steps_max: Step bound of one schedule.
        seconds: Wall time after which no further schedule begins.
        stop_at_first: Stop at the first failing schedule.
        races: Two accesses of a ``Shared``, one of them a write, that nothing orders are a failure.
        early_timeouts: The strategy may fire a timeout at any step.
        hang_seconds: Wall time without a step after which the running thread counts as hung.
        processes: Divide the schedules among so many processes; needs an importable program.
        mode: ``controlled``; or ``free``: threads run as the system likes, with naps that the seed
            decides, and a failure's order of operations is brought under control.
        patch: Control the standard library's threads, locks, queues, clocks and thread pools too,
            for threads of the program; see ``patched``.
        lines: Modules, or names of them: each statement of theirs is a schedule point too.
        mode_blind: Let readers count like writers in lock order, as the kernel's rule does.
        twice_every: About one in so many passing schedules runs a second time, to see whether the
            program depends on its choices alone; 0 for none.
        predict: So many of the first schedules are recorded, and judged for deadlocks that they
            could have reached, as the audit judges a log; what is predicted is run. See
            ``Exploration.foreseen``.

    Returns:
        The verdict with its evidence.

    Raises:
        UsageError: An argument cannot work, or the program misused a primitive.
        KeyboardInterrupt: Ctrl-C; the schedule was ended cleanly.
    """
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
        races=races,
        twice_every=twice_every,
        predict=predict,
        mode=mode,
        control=controlled(patch, lines),
    )
    runnable(program)
    setup.check()
    _check_budget(setup, schedules, seconds, processes)
    if processes > 1 and not strategy_named(strategy).sequential:
        from harness.search.processes import explore_divided

        return explore_divided(program, setup, schedules, seconds, processes)
    part = explore_part(program, setup, 1, schedules, seconds=seconds)
    if part.cut == "interrupted":
        raise KeyboardInterrupt
    return assemble(program, setup, [part])


def controlled(patch: bool, lines: Sequence[object]) -> tuple[str, ...]:
    """What of unmodified code is controlled, for ``Setup.control``.

    A token replays without the block that the exploration stood in.
    """
    return ((PATCH,) if patch or patches_active() else ()) + resolved(lines)


def _check_budget(
    setup: Setup, schedules: int | None, seconds: float | None, processes: int
) -> None:
    if schedules is not None:
        whole("schedules", schedules, " or None")
    if seconds is not None:
        number_of_seconds("seconds", seconds, " or None")
    whole("processes", processes)
    if schedules is not None and schedules < 1:
        raise UsageError(f"schedules must be at least 1, or None for no limit, got {schedules}")
    if seconds is not None and not seconds > 0:
        raise UsageError(f"seconds must be more than 0, or None for no limit, got {seconds!r}")
    if schedules is None and seconds is None and not strategy_named(setup.strategy).sequential:
        raise UsageError(f"strategy {setup.strategy!r} never ends: give schedules or seconds")
    if processes > 1 and setup.mode == "free":
        raise UsageError("mode 'free' runs on all cores by itself; leave processes out")
    if processes < 1:
        raise UsageError(f"processes must be at least 1, got {processes}")


def check(
    program: Program, strategy: str = "portfolio", schedules: int = 1000, **options: Any
) -> Exploration:
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
