"""A failing schedule made easier to read: the same failure, by the least unusual way to it.

What counts is, in this order: preemptions, switches, steps. The search goes from cheap to thorough:

1. *Regrouping*: steps that commute are put together thread by thread, by what is known of which
   operations depend on each other. It is a guess, like everything here: a replay decides.
2. *Taking out*: the schedule without its tail; without a stretch of one thread, which then runs
   with the stretch before or behind it. This moves a preemption as well as removing it.
3. *Iterative context bounding*: all schedules with 0 preemptions, then with 1, ..., as long as that
   is fewer than what is known; those that switch where the failing schedule did come first. Where
   the budget lasts, this proves that no schedule with fewer preemptions fails in this way.
4. Every single stretch is taken out once more; only what loses the failure stays.

A livelock stays as it was found: it is one where its schedule is fair, and an easier one would let
a thread go on alone while the others starve.

Reference: Musuvathi and Qadeer, "Iterative Context Bounding for Systematic Testing of Multithreaded
Programs", PLDI 2007, for the third; Walker and Runciman's dejafu for the first. We depart from both
in that the failing schedule steers the search.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from harness.errors import ReplayDivergence, UsageError
from harness.search.attempts import REPLAYS_LEAST, STEPS_MAX, Attempt, Attempts, Block, SpentError
from harness.search.bounded import Bounded
from harness.search.flip import Flip, flipped
from harness.search.recording import Failure, failure_again, setup_of
from harness.search.regroup import regrouped
from harness.search.setup import Program, runnable
from harness.search.stage import Stage
from harness.trace.token import Token, decode

# A schedule of this kind has to be fair, which no search here is: it stays as it was found.
ENDLESS: Final = "livelock"
# How many schedules are run to find one that passes, where all that were run fail.
_NEIGHBOURS_MAX: Final = 200


@dataclass(frozen=True)
class Cost:
    """What a schedule costs its reader."""

    preemptions: int
    switches: int
    steps: int


@dataclass(frozen=True)
class Minimized:
    """What came of minimizing a failure.

    Attributes:
        failure: The schedule that is left, as a failure of the same kind and fingerprint.
        before: Cost of the schedule that was given.
        after: Cost of the one that is left.
        replays: Schedules run for it.
        tried_without: Stretches of the result that were taken out one by one, each in vain.
        one_minimal: All of them were, to an end; False where the budget was spent before.
        fewest: No schedule with fewer preemptions fails in this way: all of them were run to an
            end.
        unended: Schedules that hung or came to the step bound, which prove nothing.
        flip: The one pair of steps whose order decides; None where no schedule that was run passes.
    """

    failure: Failure
    before: Cost
    after: Cost
    replays: int
    tried_without: int
    one_minimal: bool
    fewest: bool
    unended: int
    flip: Flip | None


def minimize(program: Program, failure: Failure) -> Failure:
    """Find a schedule with fewer preemptions that fails in the same way.

    Args:
        program: The program that failed.
        failure: From ``explore`` or ``replay`` on it.

    Returns:
        A failure of the same kind and fingerprint; ``failure``'s own schedule, recorded anew, where
        nothing better was found.

    Raises:
        UsageError: ``failure`` is none.
        TokenError: The failure's token cannot be read.
        ReplayDivergence: The program has changed: the schedule does not fail in that way any more.
    """
    runnable(program)
    if not isinstance(failure, Failure):
        raise UsageError(f"minimize() takes a Failure, from explore() or replay(), got {failure!r}")
    return minimized(program, failure.token).failure


def minimized(
    program: Program,
    text: str,
    *,
    explain: bool = True,
    steps_max: int = STEPS_MAX,
    replays_least: int = REPLAYS_LEAST,
) -> Minimized:
    """``minimize`` with its evidence.

    Args:
        program: The program that failed.
        text: The token.
        explain: Look for the pair of steps whose order decides.
        steps_max: Steps to replay in all, about.
        replays_least: So many replays, however long.

    Raises:
        TokenError: The token cannot be read.
        ReplayDivergence: The schedule does not fail in that way any more.
        KeyboardInterrupt: Ctrl-C.
    """
    token = decode(text)
    setup = setup_of(token)
    with Stage(setup.hang_seconds, control=setup.control) as stage:
        attempts = Attempts(stage, program, token, steps_max, replays_least)
        search = _Search(attempts, token)
        return search.result(program, explain=explain)


def explain(
    program: Program, text: str, *, steps_max: int = STEPS_MAX, replays_least: int = REPLAYS_LEAST
) -> Flip | None:
    """Find the pair of steps whose order decides, in the very schedule of a token.

    Args:
        program: The program that failed.
        text: The token.
        steps_max: Steps to replay in all, about.
        replays_least: So many replays, however long.

    Returns:
        The pair; None where nothing that was run passes, or the budget was spent.

    Raises:
        TokenError: The token cannot be read.
        ReplayDivergence: The schedule does not fail in that way any more.
        KeyboardInterrupt: Ctrl-C.
    """
    token = decode(text)
    setup = setup_of(token)
    with Stage(setup.hang_seconds, control=setup.control) as stage:
        attempts = Attempts(stage, program, token, steps_max, replays_least)
        return _Search(attempts, token).explained()


class _Search:
    """One minimization: the best schedule so far, and the attempts that led to it."""

    def __init__(self, attempts: Attempts, token: Token) -> None:
        self._token = token
        self._attempts = attempts
        self._fewest = False
        self._one_minimal = False
        self._tried_without = 0
        self.before = self._attempts.original()
        if not self.before.fails:
            found = "another outcome of the same choices"
            raise ReplayDivergence(token.steps, token.kind, found)
        self.best = self.before

    def result(self, program: Program, *, explain: bool) -> Minimized:
        """Search, then record what is left."""
        ends = self._token.kind != ENDLESS
        with contextlib.suppress(SpentError):
            if ends:
                self._improve()
        replays, unended = self._attempts.replays, self._attempts.unended
        flip = self.explained() if explain and ends else None
        recording = self._attempts.recorded(self.best)
        failure = failure_again(self._token, recording, self._attempts.setup)
        if failure is None:
            found = "a thread that hung" if recording.cut == "hang" else "no failure"
            raise ReplayDivergence(len(self.best.order), self._token.kind, found)
        return Minimized(
            failure.attach(program),
            _cost(self.before),
            _cost(self.best),
            replays,
            self._tried_without,
            self._one_minimal,
            self._fewest,
            unended,
            flip,
        )

    def explained(self) -> Flip | None:
        """The pair whose order decides, with a budget of its own."""
        attempts = self._attempts
        attempts.refill()
        try:
            if not attempts.passing:
                bound = max(1, self.best.preemptions)
                Bounded(attempts, self.best, bound).passing(_NEIGHBOURS_MAX)
            return flipped(attempts, self.best)
        except SpentError:
            return None

    def _improve(self) -> None:
        """All of the phases; what is best so far stays in ``best``.

        Raises:
            SpentError: The budget is spent.
        """
        self._take_out()
        self._regroup()
        self._bound()
        self._regroup()
        self._one_minimal = self._take_out()

    def _better(self, attempt: Attempt) -> bool:
        if attempt.fails and attempt.measure < self.best.measure:
            self.best = attempt
            return True
        return False

    def _regroup(self) -> None:
        """Put commuting steps together as long as that helps."""
        while True:
            steps = self._attempts.recorded(self.best).steps
            orders = regrouped(steps)
            if not any(self._better(self._attempts.order(order)) for order in orders):
                return

    def _take_out(self) -> bool:
        """Take stretches out until a whole round is in vain; whether all of that came to an end."""
        improved, ended = True, False
        while improved:
            improved, ended = False, True
            self._tried_without = 0
            for candidate in _without(self.best):
                self._tried_without += 1
                attempt = self._attempts.blocks(candidate)
                ended = ended and attempt.ended
                if self._better(attempt):
                    improved = True
                    break
        return ended

    def _bound(self) -> None:
        """Schedules with fewer preemptions than the best one has, from none upwards."""
        unended = self._attempts.unended
        for bound in range(self.best.preemptions):
            found = Bounded(self._attempts, self.best, bound).failing()
            if found is not None:
                self.best = found
                break
        self._fewest = self._attempts.unended == unended


def _cost(attempt: Attempt) -> Cost:
    return Cost(attempt.preemptions, attempt.switches, len(attempt.order))


def _without(attempt: Attempt) -> Iterator[list[Block]]:
    """Simpler schedules, the boldest first: no tail, then each stretch merged with another."""
    blocks = attempt.blocks()
    keep = 0
    while keep < len(blocks):
        yield blocks[:keep]
        keep += max(1, (len(blocks) - keep) // 2)
    size = max(1, len(blocks) // 2)
    while size > 1:
        for start in range(0, len(blocks), size):
            yield blocks[:start] + blocks[start + size :]
        size //= 2
    for at, block in enumerate(blocks):
        # Later: with the thread's next stretch, or wherever the default has it run.
        yield blocks[:at] + blocks[at + 1 :]
        # Earlier: with the thread's stretch before.
        for back in range(at - 1, -1, -1):
            if blocks[back].thread == block.thread:
                yield [*blocks[:back], block, *blocks[back + 1 : at], *blocks[at + 1 :]]
                break
