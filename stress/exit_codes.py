"""Exit codes of ``python -m stress``, the same for every command.

Where several hold, the first of: internal, interrupted, finding, inconclusive, pass.
"""

from __future__ import annotations

import enum


class ExitCode(enum.IntEnum):
    """What a shell or a CI job sees.

    ``replay`` uses FINDING for reproduced, PASS for no longer failing, INCONCLUSIVE for diverged;
    ``mutants`` and ``defects`` use FINDING where one was missed or a control was found.
    """

    PASS = 0
    FINDING = 1
    USAGE = 2
    INCONCLUSIVE = 3
    INTERNAL = 70
    INTERRUPTED = 130


_BY_VERDICT = {
    "pass": ExitCode.PASS,
    "fail": ExitCode.FINDING,
    "inconclusive": ExitCode.INCONCLUSIVE,
}


def of_verdict(verdict: str) -> ExitCode:
    """The exit code of an exploration's verdict."""
    return _BY_VERDICT[verdict]


def worst(verdicts: list[str]) -> str:
    """One verdict for many: a finding counts more than doubt, doubt more than a pass.

    An empty list is ``inconclusive``: nothing ran.
    """
    for verdict in ("fail", "inconclusive"):
        if verdict in verdicts:
            return verdict
    return "pass" if verdicts else "inconclusive"
