"""One marked test: its body explored, or one token of it replayed. The heavy half of the plugin."""

from __future__ import annotations

import functools
import os
import shlex
import unittest
from collections.abc import Callable
from typing import Any, Final

import pytest

from harness.errors import ReplayDivergence, ScheduleFailure, UsageError
from harness.explore import explore, minimize, replay
from harness.search.recording import Failure
from harness.search.stage import Alarm

SECTION: Final = "schedule"
# Property of the test in a JUnit file.
PROPERTY: Final = "schedule_token"
_SKIPS: Final = (pytest.skip.Exception, unittest.SkipTest)


class FailingSchedule(ScheduleFailure):
    """What a marked test raises; the story is a section of the report, not in the message."""

    told_by_section = True

    def __str__(self) -> str:
        """What failed, the token, and the command that replays it."""
        failure = self.failure
        return (
            f"{failure.kind} in schedule {failure.schedule}: {failure.message}\n"
            f"token: {failure.token}\nreplay it: {self.command}"
        )


class _Skipped(UsageError):
    """The body skips: carries that through the exploration, which a misuse ends at once."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(str(error))
        self.error = error


def explored(item: pytest.Item, body: Callable[[], object], options: dict[str, Any]) -> None:
    """Explore ``body``, or replay the token that was given.

    Args:
        item: The test; gets the token as a property, and the interleaving as a report section.
        body: Its function, with the fixtures that it asked for.
        options: Of ``explore``.

    Raises:
        FailingSchedule: A schedule fails; by the fewest preemptions that were found.
        pytest.fail.Exception: Inconclusive, wrong usage, or a token that does not fit.
        pytest.skip.Exception: The body skips.
    """
    __tracebackhide__ = True
    token = item.config.getoption("--schedule-token")
    program = _skippable(body)
    failure: Failure | None = None
    alarm = Alarm()
    try:
        with alarm:
            if token is None:
                failure = _searched(item, program, options)
            else:
                failure = replay(program, token)
    except _Skipped as skipped:
        raise skipped.error from None
    except (UsageError, ReplayDivergence) as error:
        pytest.fail(str(error), pytrace=False)
    alarm.act()
    if failure is not None:
        command = f"python -m pytest {shlex.quote(_node(item))} --schedule-token {failure.token}"
        item.user_properties.append((PROPERTY, failure.token))
        item.add_report_section("call", SECTION, failure.text(command=command))
        raise FailingSchedule(failure, command)


def _node(item: pytest.Item) -> str:
    """What selects the test, from where pytest was started."""
    _, colons, name = item.nodeid.partition("::")
    return os.path.relpath(item.path, item.config.invocation_params.dir) + colons + name


def _searched(
    item: pytest.Item, program: Callable[[], object], options: dict[str, Any]
) -> Failure | None:
    """The failure that an exploration finds, minimized; None where it passes.

    Raises:
        pytest.fail.Exception: It is inconclusive.
    """
    __tracebackhide__ = True
    report = explore(program, **options)
    if report.failure is None:
        if report.verdict != "pass":
            if report.detail:
                item.add_report_section("call", SECTION, report.detail)
            pytest.fail(f"{report.verdict}: {report.reason}", pytrace=False)
        return None
    if report.failure.kind == "nondeterminism":
        return report.failure
    try:
        return minimize(program, report.failure)
    except ReplayDivergence:
        # It does not fail again in this process: what was recorded is all there is.
        return report.failure


def _skippable(body: Callable[[], object]) -> Callable[[], object]:
    """``body``, where a skip ends the exploration and is no failure."""

    @functools.wraps(body)
    def program() -> object:
        __tracebackhide__ = True
        try:
            return body()
        except _SKIPS as error:
            raise _Skipped(error) from None

    return program
