"""Fewer preemptions, same failure: a failing schedule made easier to read.

A schedule is a list of decisions, most of them the default (the running thread goes on). A
deviation that can become the default without losing the failure explained nothing. Passes take out
all deviations behind a point, then runs of them by halves, then single ones, until a whole round
takes out none: then every single deviation has just been tried. Moving a deviation elsewhere is not
tried, so a schedule with fewer may exist.

Reference: Zeller and Hildebrandt, "Simplifying and Isolating Failure-Inducing Input", TSE 2002, for
the halving. We depart from it in the measure: not the number of deviations decides, but
preemptions, then switches, then steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from harness.engine.core import CORE, Choose, Core
from harness.engine.thread import Thread
from harness.errors import ReplayDivergence
from harness.lockorder.rules import Witness
from harness.search.recording import Failure, failure_again, record, setup_of, witness_of
from harness.search.setup import Program, Setup
from harness.search.stage import Stage
from harness.strategies.base import deciding
from harness.strategies.replay import default_order
from harness.trace.token import Token, decode, unpack

# Replays spent on one failure; a schedule of some hundred deviations needs a few thousand.
REPLAYS_MAX = 20_000


@dataclass(frozen=True)
class _Best:
    """The shortest schedule so far: its decisions, and what they cost."""

    taken: tuple[int, ...]
    measure: tuple[int, int, int]

    def deviations(self) -> list[int]:
        """Positions of the decisions that are not the default."""
        return [position for position, alternative in enumerate(self.taken) if alternative]


class _Following:
    """Takes given alternatives as far as they exist, and the default elsewhere."""

    def __init__(self, wanted: Sequence[int]) -> None:
        self._wanted = wanted
        self.taken: list[int] = []

    def begin(self, core: Core) -> Choose:
        """Return ``choose``; a change may shift what follows, so nothing here is a misfit."""
        wanted = self._wanted

        def pick(enabled: list[Thread]) -> Thread:
            order = default_order(core, enabled)
            position = len(self.taken)
            alternative = wanted[position] if position < len(wanted) else 0
            alternative = min(alternative, len(order) - 1)
            self.taken.append(alternative)
            return order[alternative]

        return deciding(core, pick)


def minimize(program: Program, failure: Failure) -> Failure:
    """Find a schedule with fewer preemptions that fails in the same way.

    Args:
        program: The program that failed.
        failure: From ``explore`` or ``replay`` on it.

    Returns:
        A failure of the same kind and fingerprint; ``failure``'s own schedule, recorded anew, where
        nothing can be taken out.

    Raises:
        TokenError: The failure's token cannot be read.
        ReplayDivergence: The program has changed: the schedule does not fail in that way any more.
    """
    token = decode(failure.token)
    search = _Search(program, token)
    with Stage(search.setup.hang_seconds) as stage:
        search.stage = stage
        best = search.improve()
        return search.failure(best)


class _Search:
    """The state of one minimization: program, what to keep, replays spent."""

    stage: Stage

    def __init__(self, program: Program, token: Token) -> None:
        self._program = program
        self._token = token
        self.setup: Setup = replace(setup_of(token), stop_at_first=True)
        self._edges: list[Witness] = [witness_of(edge) for edge in token.edges]
        self._replays = 0
        self._seen: dict[tuple[int, ...], _Best | None] = {}

    def improve(self) -> _Best:
        """Take deviations out until a whole round of attempts takes out none."""
        deviations = unpack(self._token.deviations)
        length = max(deviations, default=-1) + 1
        best = self._try([deviations.get(position, 0) for position in range(length)])
        if best is None:
            found = "another outcome of the same choices"
            raise ReplayDivergence(self._token.steps, self._token.kind, found)
        while True:
            better = self._round(best)
            if better is None or self._replays >= REPLAYS_MAX:
                return best if better is None else better
            best = better

    def _round(self, best: _Best) -> _Best | None:
        """The first improvement of ``best``, or None."""
        for candidate in _candidates(best):
            found = self._try(candidate)
            if found is not None and found.measure < best.measure:
                return found
            if self._replays >= REPLAYS_MAX:
                break
        return None

    def _try(self, wanted: Sequence[int]) -> _Best | None:
        """Run a candidate; None unless it fails in the same way."""
        key = tuple(wanted)
        if key not in self._seen:
            self._seen[key] = self._run(wanted)
        return self._seen[key]

    def _run(self, wanted: Sequence[int]) -> _Best | None:
        self._replays += 1
        following = _Following(wanted)
        again = record(
            self.stage,
            self._program,
            self.setup,
            self._token.schedule,
            following.begin,
            self._edges,
        )
        failure = failure_again(self._token, again, self.setup)
        if failure is None or failure.fingerprint != self._token.fingerprint:
            return None
        if failure.kind != self._token.kind:
            return None
        measure = (again.preemptions, CORE.switches, len(again.steps))
        return _Best(tuple(following.taken), measure)

    def failure(self, best: _Best) -> Failure:
        """Record the best schedule once more, as the failure to return."""
        following = _Following(best.taken)
        again = record(
            self.stage,
            self._program,
            self.setup,
            self._token.schedule,
            following.begin,
            self._edges,
        )
        failure = failure_again(self._token, again, self.setup)
        if failure is None:
            raise ReplayDivergence(best.measure[2], self._token.kind, "no failure")
        return failure.attach(self._program)


def _candidates(best: _Best) -> Iterator[list[int]]:
    """Simpler schedules, the boldest first."""
    deviations = best.deviations()
    for keep in _halving(len(deviations)):
        yield _without(best.taken, deviations[keep:])
    size = len(deviations) // 2
    while size >= 1:
        for start in range(0, len(deviations), size):
            yield _without(best.taken, deviations[start : start + size])
        size //= 2


def _halving(count: int) -> Iterator[int]:
    """0, then ever more of ``count``: how many deviations to keep at the front."""
    keep = 0
    while keep < count:
        yield keep
        keep += max(1, (count - keep) // 2)


def _without(taken: Sequence[int], positions: Sequence[int]) -> list[int]:
    """``taken`` with the default at ``positions``."""
    gone = frozenset(positions)
    return [0 if position in gone else value for position, value in enumerate(taken)]
