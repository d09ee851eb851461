"""Everything the harness raises, in one tree.

* HarnessError
  - UsageError         the caller misused the interface: mend the call
  - TokenError         a token is damaged, foreign or of another version
  - ReplayDivergence   a token no longer fits the program
  - ScheduleFailure    what ``check`` raises: the program under test is wrong
  - InternalError      the harness contradicted itself: report it
* ScheduleAborted      unwinds a thread of a schedule that has ended; a ``BaseException``, so that
                       ``except Exception`` in the program under test does not swallow it

Findings (deadlock, guard, invariant, ...) are data on a ``Failure``; inside a schedule they end the
thread that made them by ``ScheduleAborted``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.explore import Failure


class HarnessError(Exception):
    """Root of the errors that callers of the harness may catch."""


class UsageError(HarnessError):
    """The interface was called in a way that cannot work; the message says what to do instead."""


class TokenError(HarnessError):
    """A token cannot be read: damaged, cut short, not ours, or of an unknown version."""


class ReplayDivergence(HarnessError):
    """A token was made for another program: the schedule stops fitting.

    Attributes:
        step: The first step (from 1) known to differ.
        expected: What the token recorded there.
        found: What the program did instead.
    """

    def __init__(self, step: int, expected: str, found: str) -> None:
        """Keep the three parts as data; the message is built from them."""
        super().__init__(step, expected, found)
        self.step = step
        self.expected = expected
        self.found = found

    def __str__(self) -> str:
        """Say where the schedule stops fitting, and what to do about it."""
        return (
            f"the schedule does not fit this program from step {self.step} on: "
            f"expected {self.expected}, found {self.found}; "
            "the program has changed since the token was made, so explore it again"
        )


class ScheduleFailure(HarnessError):
    """``check`` found a failing schedule.

    Attributes:
        failure: The ``Failure``, with kind, token and trace as data.
    """

    def __init__(self, failure: Failure, command: str) -> None:
        """Keep the failure; the message ends with the command that replays it."""
        super().__init__(failure, command)
        self.failure = failure
        self.command = command

    def __str__(self) -> str:
        """Show the whole report; its last line is the replay command."""
        return self.failure.text(command=self.command)


class InternalError(HarnessError):
    """A state that the engine excludes was reached; never a verdict on the program under test."""


class ScheduleAborted(BaseException):
    """The schedule has ended; the thread that sees this is being unwound."""
