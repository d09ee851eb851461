"""One marked test: its body explored, or one token of it replayed. The heavy half of the plugin."""

from __future__ import annotations

import dataclasses
import functools
import os
import shlex
import unittest
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from harness.errors import ReplayDivergence, ScheduleFailure, UsageError
from harness.explore import (
    Exploration,
    assemble,
    controlled,
    explore,
    minimize,
    record_part,
    replay_story,
)
from harness.search.captured import free_part
from harness.search.recording import Failure, setup_of
from harness.search.setup import Program, Setup
from harness.search.stage import Alarm
from harness.strategies import strategy_named
from harness.trace.events import Story
from harness.trace.locklog import LockLog
from harness.trace.token import decode

SECTION: Final = "schedule"
# Property of the test in a JUnit file.
PROPERTY: Final = "schedule_token"
_SKIPS: Final = (pytest.skip.Exception, unittest.SkipTest)


class Logging:
    """Writes the lock log of a session; a plugin of its own where ``--lock-log`` is given."""

    def __init__(self, config: pytest.Config) -> None:
        """Open the file; each process of pytest-xdist has its own beside it.

        Raises:
            UsageError: It cannot be written.
        """
        self.path = Path(config.getoption("--lock-log"))
        worker = getattr(config, "workerinput", {}).get("workerid", "")
        if worker:
            self.path = self.path.with_name(f"{worker}-{self.path.name}")
        self._divided = bool(worker) or bool(getattr(config.option, "numprocesses", None))
        self._log = LockLog(self.path)
        self._stacks = bool(config.getoption("--lock-log-stacks"))
        self._first_only = 0
        self.runs = 0

    def explored(self, item: pytest.Item, program: Program, setup: Setup, schedules: int) -> None:
        """Run the schedules of a test again, recorded in full."""
        if strategy_named(setup.strategy).sequential and schedules > 1:
            # The others are reached only through all before them.
            self._first_only += 1
            schedules = 1
        setup = dataclasses.replace(setup, stacks=self._stacks)
        record_part(
            program, setup, 1, schedules, lambda at, _, story: self._write(item, setup, at, story)
        )

    def freely(
        self, item: pytest.Item, program: Program, setup: Setup, options: dict[str, Any]
    ) -> Exploration:
        """Explore in free mode, and log each run as it runs: nobody can run it again."""
        setup = dataclasses.replace(setup, stacks=self._stacks)
        setup.check()

        def write(schedule: int, story: Story, times: list[int]) -> None:
            run = f"{item.nodeid}#{schedule}"
            self._log.free_story(run, story, times, seed=setup.seed, mode="free")
            self.runs += 1

        last, seconds = options["schedules"], options.get("seconds")
        part = free_part(program, setup, 1, last, seconds=seconds, sink=write)
        if part.cut == "interrupted":
            raise KeyboardInterrupt
        return assemble(program, setup, [part])

    def replayed(self, item: pytest.Item, token: str, story: Story) -> None:
        """Write the one schedule that a token names."""
        known = decode(token)
        self._write(item, setup_of(known), known.schedule, story)

    def _write(self, item: pytest.Item, setup: Setup, schedule: int, story: Story) -> None:
        run = f"{item.nodeid}#{schedule}"
        self._log.story(run, story, seed=setup.seed, sched=setup.strategy)
        self.runs += 1

    def pytest_unconfigure(self) -> None:
        """The session is over."""
        self._log.close()

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say what to do with it."""
        say = terminalreporter.write_line
        if self._divided:
            say(f"lock logs: one for each worker, *-{self.path.name}, in {self.path.parent}/")
            return
        runs = f"{self.runs} schedule{'' if self.runs == 1 else 's'}"
        say(f"lock log of {runs}; judge it: python -m stress audit {self.path}")
        if self._first_only:
            tests = f"{self._first_only} test{'' if self._first_only == 1 else 's'}"
            say(f"lock log: the first schedule alone of {tests} whose strategy enumerates")


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
                stacks = bool(item.config.getoption("--lock-log-stacks"))
                failure, story = replay_story(program, token, stacks=stacks)
                logging = _logging(item)
                if logging is not None:
                    logging.replayed(item, token, story)
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
    logging = _logging(item)
    if logging is not None and options.get("mode") == "free":
        report = logging.freely(item, program, _setup(options), options)
    else:
        report = explore(program, **options)
        # A detail is that of a hang, which would hang again.
        if logging is not None and not report.detail:
            logging.explored(item, program, _setup(options), report.schedules)
    if report.failure is None:
        if report.verdict != "pass":
            if report.detail:
                item.add_report_section("call", SECTION, report.detail)
            hint = _hint(report, options)
            pytest.fail(f"{report.verdict}: {report.reason}{hint}", pytrace=False)
        return None
    if report.failure.kind == "nondeterminism":
        return report.failure
    try:
        return minimize(program, report.failure)
    except ReplayDivergence:
        # It does not fail again in this process: what was recorded is all there is.
        return report.failure


def _hint(report: Exploration, options: dict[str, Any]) -> str:
    """What a newcomer most likely left out, where nothing was interleaved."""
    if "nothing" not in report.reason:
        return ""
    if not _setup(options).control:
        return "\nthreads and locks of `threading` are controlled with patch=True in the mark"
    if not options.get("lines"):
        return (
            "\nthreads that share plain attributes switch at each line of the modules that "
            "lines=[module] in the mark names"
        )
    return ""


def _setup(options: dict[str, Any]) -> Setup:
    """What decides each schedule, of the options of ``explore``."""
    known = {each.name for each in dataclasses.fields(Setup)}
    plain = {name: value for name, value in options.items() if name in known}
    control = controlled(options.get("patch", False), options.get("lines", ()))
    return Setup(**plain, control=control)


def _logging(item: pytest.Item) -> Logging | None:
    found = item.config.pluginmanager.get_plugin("lockloom-lock-log")
    return found if isinstance(found, Logging) else None


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
