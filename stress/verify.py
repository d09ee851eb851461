"""``verify SCENARIO...``: every interleaving, or every one within a bound, by ``dpor``.

A scenario passes only where the search came to its end. Each is searched by one process, from its
first schedule to its last; several scenarios run beside each other.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from harness.errors import UsageError
from harness.explore import Setup, explore_part
from stress import catalogue, console, documents, exit_codes, work
from stress.catalogue import Spec
from stress.console import say
from stress.exit_codes import ExitCode
from stress.pool import Crash, Task, run_tasks
from stress.program import PROGRAM
from stress.runner import Options
from stress.work import Conclusion, Found

STRATEGY: Final = "dpor"
SECONDS_DEFAULT: Final = 900.0
# Between two lines of one scenario on how much is left.
_SAID_EVERY_SECONDS: Final = 5.0
# What a scenario gets whose turn came when the time was over: some schedules, not none.
_SECONDS_LEAST: Final = 0.05


@dataclass(frozen=True, slots=True)
class Verified:
    """What became of one scenario.

    Attributes:
        name: Of the scenario.
        verdict: pass (only where all was run), fail or inconclusive.
        reason: Why, in a sentence.
        exhausted: Every schedule, or every one within the bound, was run.
        schedules: How many were run.
        blocked: How many of them ended early because their rest was known.
        seconds: Wall time of the search.
        found: Failures, written up.
    """

    name: str
    verdict: str
    reason: str
    exhausted: bool = False
    schedules: int = 0
    blocked: int = 0
    seconds: float = 0.0
    found: tuple[Found, ...] = ()


def verify(
    names: Sequence[str],
    options: Options,
    *,
    json: bool,
    quiet: bool = False,
    revision: str = "fixed",
    faults: str = "",
    params: Sequence[str] = (),
) -> ExitCode:
    """The command.

    Raises:
        UsageError: No scenario is named, or an option cannot work.
    """
    if not names:
        raise UsageError(f"verify which scenario? `{PROGRAM} list` shows them; '*' is all")
    options.check()
    specs = [
        catalogue.with_params(Spec(entry.name, revision=revision, faults=faults), params)
        for entry in catalogue.select(names)
    ]
    say(console.seed_line(options.seed), json=json)
    results: list[Verified] = []
    try:
        _search_all(specs, options, results, quiet=quiet)
    except KeyboardInterrupt:
        done = [result.name for result in results]
        left = [spec.scenario for spec in specs if spec.scenario not in done]
        results += [Verified(name, "inconclusive", "interrupted") for name in left]
        _show(results, options, json=json)
        return ExitCode.INTERRUPTED
    results.sort(key=lambda result: [spec.scenario for spec in specs].index(result.name))
    _show(results, options, json=json)
    say(console.seed_line(options.seed, last=True), json=json)
    return exit_codes.of_verdict(exit_codes.worst([result.verdict for result in results]))


def _search_all(
    specs: Sequence[Spec], options: Options, results: list[Verified], *, quiet: bool
) -> None:
    """Search every spec; ``results`` grows in the order in which they end."""
    setups = []
    for spec in specs:
        entry = catalogue.check(spec)
        bound = options.bound(spec, entry)
        setups.append((bound, options.setup(bound, entry)))
        setups[-1][1].check()
    end = None if options.seconds is None else time.monotonic() + options.seconds
    following = iter(range(len(setups)))

    def take() -> Task | None:
        number = next(following, None)
        if number is None:
            return None
        spec, setup = setups[number]
        seconds = None
        if end is not None:
            turns = -(-(len(setups) - number) // options.jobs)
            seconds = max(_SECONDS_LEAST, (end - time.monotonic()) / turns)
        return Task(number, search, (spec, setup, options.schedules, seconds, quiet))

    for number, value in run_tasks(take, options.jobs):
        results.append(_result(specs[number].scenario, value))


def search(
    spec: Spec, setup: Setup, last: int | None, seconds: float | None, quiet: bool
) -> Conclusion:
    """Search one scenario to its end or that of its budget; in a process that is kept for it."""
    said = time.monotonic()

    def progress(schedules: int, _failures: int, left: float | None) -> None:
        nonlocal said
        now = time.monotonic()
        if quiet or not left or now - said < _SAID_EVERY_SECONDS:
            return
        said = now
        about = f", about {left:,.0f} left" if left < float("inf") else ""
        sys.stderr.write(f"{spec.scenario}: {schedules:,} schedules{about}\n")
        sys.stderr.flush()

    program = catalogue.program_of(spec)
    part = explore_part(program, setup, 1, last, seconds=seconds, worker=0, progress=progress)
    return work.conclude(spec, setup, [part])


def _result(name: str, value: Conclusion | Crash) -> Verified:
    if isinstance(value, Crash):
        return Verified(name, "inconclusive", str(value))
    exploration = value.exploration
    verdict, reason = exploration.verdict, exploration.reason
    if verdict == "pass" and not exploration.exhausted:
        verdict, reason = "inconclusive", f"the budget ended first: {reason}"
    return Verified(
        name,
        verdict,
        reason,
        exploration.exhausted,
        exploration.schedules,
        exploration.blocked,
        exploration.seconds,
        tuple(value.found),
    )


def document(results: Sequence[Verified]) -> documents.Document:
    """``verify --json``."""
    return {
        "exhausted": all(result.exhausted for result in results),
        "schedules": sum(result.schedules for result in results),
        "blocked": sum(result.blocked for result in results),
        "verdict": exit_codes.worst([result.verdict for result in results]),
        "scenarios": [
            {
                "name": result.name,
                "exhausted": result.exhausted,
                "schedules": result.schedules,
                "blocked": result.blocked,
                "verdict": result.verdict,
                "reason": result.reason,
                "seconds": round(result.seconds, 3),
                "failures": [documents.of_failure(found) for found in result.found],
            }
            for result in results
        ],
    }


def _show(results: Sequence[Verified], options: Options, *, json: bool) -> None:
    if json:
        print(documents.encode(document(results)))
        return
    for result in results:
        for found in result.found:
            console.show(f"\n{result.name}: {found.text}\n")
    table = console.table(
        "!scenario", "!verdict", ">schedules", ">blocked", ">seconds", "exhausted", "why"
    )
    for result in results:
        table.add_row(
            result.name,
            result.verdict,
            f"{result.schedules:,}",
            f"{result.blocked:,}",
            f"{result.seconds:.1f}",
            "yes" if result.exhausted else "no",
            "" if result.verdict == "pass" else result.reason,
        )
    console.output().print(table)
    bound = options.preemptions
    scope = "" if bound is None else f" with at most {bound} preemptions"
    done = sum(result.exhausted for result in results)
    verdict = exit_codes.worst([result.verdict for result in results])
    console.show(f"{verdict}: every schedule{scope} was run of {done} of {len(results)} scenarios")
