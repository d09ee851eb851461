"""Shorthands of the engine's tests: explore everything, or find one failure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from harness import Exploration, Failure, explore
from harness.search.part import Part, explore_part
from harness.search.recording import record_schedule
from harness.search.setup import Setup
from harness.trace.events import Story

Program = Callable[[], object]


def every(program: Program, **options: Any) -> Exploration:
    """Run every interleaving of ``program``, also beyond the first failing one."""
    report = explore(program, "dfs", schedules=None, stop_at_first=False, **options)
    assert report.exhausted
    return report


def outcomes(program: Program, **options: Any) -> set[object]:
    """What ``program`` returns, over every interleaving; none of them may fail."""
    seen: set[object] = set()

    def noting() -> None:
        seen.add(program())

    report = every(noting, **options)
    assert report.failure is None, report.failure
    return seen


def failure(program: Program, strategy: str = "dfs", **options: Any) -> Failure:
    """The first failure of ``program``; there must be one."""
    options.setdefault("schedules", None if strategy == "dfs" else 1_000)
    report = explore(program, strategy, **options)
    assert report.verdict == "fail", report.reason
    assert report.failure is not None
    return report.failure


def passes(program: Program, strategy: str = "dfs", **options: Any) -> Exploration:
    """``program`` passes, in every interleaving unless a strategy is given."""
    options.setdefault("schedules", None if strategy == "dfs" else 1_000)
    report = explore(program, strategy, **options)
    assert report.verdict == "pass", report.failure or report.reason
    return report


def clean(program: Program, strategy: str, **options: Any) -> None:
    """It ran under the patches and never failed, also where there was nothing to choose."""
    report = explore(program, strategy, patch=True, **options)
    assert report.failure is None, report.failure
    assert report.steps > 0


def stretch(program: Program, setup: Setup, first: int, last: int) -> Part:
    """Schedules ``first`` to ``last`` alone."""
    return explore_part(program, setup, first, last)


def recorded(program: Program, strategy: str = "random", schedule: int = 1, seed: int = 0) -> Story:
    """One schedule with every step, whether it fails or not."""
    return record_schedule(program, Setup(strategy=strategy, seed=seed), schedule)[1]
