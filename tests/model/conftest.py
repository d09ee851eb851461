"""Helpers for tests of the model: run a program once, or in many interleavings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from harness import Exploration, Failure, explore

Program = Callable[[], object]


class Runner:
    """Runs programs under exploration and judges the outcome."""

    def once(self, program: Program) -> Any:
        """Run ``program`` in one schedule; return what it returned; fail with its finding."""
        results: list[object] = []

        def run() -> None:
            results.append(program())

        report = explore(run, strategy="round-robin", schedules=1)
        if report.failure is not None:
            pytest.fail(f"{report.failure.kind}: {report.failure.message}")
        return results[0]

    def clean(self, program: Program, schedules: int = 300, **options: Any) -> Exploration:
        """Explore ``program`` and expect no finding."""
        report = explore(program, schedules=schedules, **{"strategy": "random", **options})
        if report.failure is not None:
            pytest.fail(f"{report.failure.kind}: {report.failure.message}")
        assert report.verdict == "pass", report.reason
        return report

    def finding(self, program: Program, schedules: int = 1, **options: Any) -> Failure:
        """Explore ``program`` and expect a finding; return the first."""
        report = explore(program, schedules=schedules, **{"strategy": "random", **options})
        assert report.failure is not None, f"no finding in {report.schedules} schedules"
        return report.failure


@pytest.fixture
def run() -> Runner:
    """The runner."""
    return Runner()
