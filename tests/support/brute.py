"""Every schedule of a small program, enumerated as plainly as can be: what other searches miss.

No loop is held and no state is known again here, unlike in ``dfs`` and ``dpor``: who can run is
tried, one after the other, at every step. ``disagreement`` sets a search beside that.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from harness import Exploration, explore
from harness.engine.core import Choose, Core
from harness.engine.thread import Thread
from harness.strategies import Strategy, base, register
from harness.strategies.base import Options, deciding

Seeing = Callable[[set[str]], Callable[[], object]]
Found = set[tuple[str, str]]


class Brute(Strategy):
    """An odometer over the decisions; within the bound on preemptions, where there is one."""

    name = "brute"
    samples = False
    fair = False
    sequential = True
    bounded = True

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        # For each decision of the schedule which alternative it takes, and of how many.
        self._digits: list[list[int]] = []
        self._done = False

    @property
    def exhausted(self) -> bool:
        return self._done

    def begin(self, core: Core, schedule: int) -> Choose:
        bound, digits, depth = self.options.preemptions, self._digits, 0

        def pick(enabled: list[Thread]) -> Thread:
            nonlocal depth
            cur = core.cur
            able = [
                thread
                for thread in enabled
                if bound is None
                or core.preemptions < bound
                or thread is cur
                or not cur.enabled
                or not core.costs(thread)
            ]
            if depth == len(digits):
                digits.append([0, len(able)])
            taken, known = digits[depth]
            depth += 1
            assert known == len(able), "the program is not deterministic"
            return able[taken]

        return deciding(core, pick)

    def backtrack(self) -> None:
        digits = self._digits
        while digits and digits[-1][0] + 1 == digits[-1][1]:
            digits.pop()
        if digits:
            digits[-1][0] += 1
        self._done = not digits


@contextlib.contextmanager
def brute() -> Iterator[str]:
    """The strategy, registered for as long as the block runs."""
    known = dict(base._REGISTRY)
    register(Brute)
    try:
        yield Brute.name
    finally:
        base._REGISTRY.clear()
        base._REGISTRY.update(known)


def found(report: Exploration) -> Found:
    """What failed, and where."""
    return {(failure.kind, failure.fingerprint) for failure in report.failures}


def disagreement(
    program: Seeing, strategy: str, most: int, **options: Any
) -> tuple[Exploration, str] | None:
    """Run a search to its end beside every schedule; what it misses or makes up, in words.

    Args:
        program: Makes a program that adds its outcome to a set.
        strategy: Of the search.
        most: So many schedules, for every interleaving; the search gets twice as many.
        options: For both.

    Returns:
        The search, and how it differs ("" where it does not); None where there are more schedules.
    """
    everything: set[str] = set()
    reached: set[str] = set()
    with brute() as plain:
        whole = explore(program(everything), plain, most, stop_at_first=False, **options)
    if not whole.exhausted:
        return None
    report = explore(program(reached), strategy, 2 * most, stop_at_first=False, **options)
    told = []
    if not report.exhausted:
        told.append(f"not exhausted by {report.schedules} schedules of {whole.schedules}")
    for what, ours, theirs in (
        ("outcome", reached, everything),
        ("failure", found(report), found(whole)),
    ):
        told += [f"missed {what} {each}" for each in sorted(map(str, theirs - ours))]
        told += [f"made up {what} {each}" for each in sorted(map(str, ours - theirs))]
    return report, "; ".join(told)
