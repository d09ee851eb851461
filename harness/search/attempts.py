"""Running a failing program under schedules that are nearly known, and judging each at once.

What minimizing needs of a schedule is little: the order of its threads, what it costs, and whether
it still fails in the same way. So an attempt is run without a recorder, and remembered.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from harness.engine.core import CORE, Choose, Core
from harness.engine.thread import Thread
from harness.lockorder.rules import Witness
from harness.search.recording import (
    Recording,
    finding_of,
    key_of,
    order_key,
    record,
    setup_of,
    witness_of,
)
from harness.search.setup import Program, Setup
from harness.search.stage import Stage
from harness.strategies.replay import Deviations
from harness.trace.events import Story
from harness.trace.story import tell
from harness.trace.token import Token, unpack

Begin = Callable[[Core], Choose]
# What one minimization may replay: so many schedules at least, and more while they are short.
REPLAYS_LEAST: Final = 200
STEPS_MAX: Final = 600_000


class SpentError(Exception):
    """The budget is spent; what is best so far stays."""


@dataclass(frozen=True)
class Block:
    """A stretch of one thread: run it until it has taken ``until`` steps of its own."""

    thread: int
    until: int


@dataclass(frozen=True)
class Attempt:
    """One schedule that was run.

    Attributes:
        order: The thread of every step.
        preempted: Positions in ``order`` that a preemption led to.
        preemptions: How many there were.
        fails: In the way that is looked for.
        passes: Does not fail in any way.
        ended: Was not broken off, so that it is known whether it fails.
    """

    order: tuple[int, ...]
    preempted: tuple[int, ...]
    preemptions: int
    fails: bool
    passes: bool
    ended: bool

    @property
    def switches(self) -> int:
        """How often the thread changes from one step to the next."""
        return sum(one != other for one, other in itertools.pairwise(self.order))

    @property
    def measure(self) -> tuple[int, int, int]:
        """What counts, in this order: preemptions, switches, steps."""
        return self.preemptions, self.switches, len(self.order)

    def blocks(self) -> list[Block]:
        """The schedule as stretches."""
        own: dict[int, int] = {}
        found: list[Block] = []
        for thread, run in itertools.groupby(self.order):
            own[thread] = own.get(thread, 0) + len(list(run))
            found.append(Block(thread, own[thread]))
        return found


def following_blocks(blocks: Sequence[Block]) -> Begin:
    """Run stretch after stretch; one whose thread cannot run is passed over, then the default."""

    def begin(core: Core) -> Choose:
        own: dict[int, int] = {}
        position = 0

        def pick() -> Thread:
            nonlocal position
            while position < len(blocks):
                block = blocks[position]
                if own.get(block.thread, 0) < block.until:
                    for thread in core.run:
                        if thread.index == block.thread:
                            return thread
                position += 1
            return default(core)

        return _deciding(core, pick, own)

    return begin


def following_order(order: Sequence[int]) -> Begin:
    """Take steps in the order of ``order``, by thread; one that cannot run is passed over for now.

    Where ``order`` has no more to say, the default.
    """
    places: dict[int, list[int]] = {}
    for place, index in enumerate(order):
        places.setdefault(index, []).append(place)

    def begin(core: Core) -> Choose:
        own: dict[int, int] = {}

        def rank(thread: Thread) -> tuple[int, bool, int]:
            there = places.get(thread.index, [])
            done = own.get(thread.index, 0)
            place = there[done] if done < len(there) else len(order)
            return place, thread is not core.cur, thread.index

        return _deciding(core, lambda: min(core.run, key=rank), own)

    return begin


def default(core: Core) -> Thread:
    """The running thread goes on; where it cannot, that of the lowest index."""
    cur = core.cur
    return min(core.run, key=lambda thread: (thread is not cur, thread.index))


def _deciding(core: Core, pick: Callable[[], Thread], own: dict[int, int]) -> Choose:
    """A ``choose`` around ``pick`` that counts the steps of each thread in ``own``."""
    run = core.run

    def choose() -> Thread:
        core.steps += 1
        if core.steps > core.limit:
            core.over()
        if len(run) == 1:
            thread = run[0]
        else:
            thread = pick()
            core.choices.append(thread.index)
        own[thread.index] = own.get(thread.index, 0) + 1
        return thread

    return choose


class Attempts:
    """Runs candidates and remembers what came of them.

    Attributes:
        replays: Schedules run so far.
        steps: Steps in all of them.
        passing: The orders that passed.
        unended: How many of them hung, or came to the step bound: nobody knows what they led to.
    """

    def __init__(
        self, stage: Stage, program: Program, token: Token, steps_max: int, replays_least: int
    ) -> None:
        """Look for failures of ``token``'s kind and fingerprint.

        Args:
            stage: Where to run.
            program: The program that failed.
            token: Of the failure.
            steps_max: The budget: steps of all attempts together, about.
            replays_least: So many attempts, however long.
        """
        self._stage = stage
        self._steps_max = steps_max
        self._replays_least = replays_least
        self._program = program
        self._token = token
        self.setup: Setup = replace(setup_of(token), stop_at_first=True)
        self._edges: list[Witness] = [witness_of(edge) for edge in token.edges]
        self._blocks: dict[tuple[Block, ...], Attempt] = {}
        self.replays = 0
        self.steps = 0
        self.passing: dict[tuple[int, ...], None] = {}
        self.unended = 0
        self._hung = False

    def original(self) -> Attempt:
        """The token's own schedule."""
        return self.run(Deviations(unpack(self._token.deviations)).begin)

    def blocks(self, blocks: Sequence[Block]) -> Attempt:
        """Run stretches, or say what came of them before."""
        key = tuple(blocks)
        known = self._blocks.get(key)
        if known is None:
            known = self._blocks[key] = self.run(following_blocks(key))
        return known

    def order(self, order: Sequence[int]) -> Attempt:
        """Run the steps of ``order`` as far as that is possible."""
        return self.run(following_order(order))

    def refill(self) -> None:
        """A fresh budget, for what comes after the search."""
        self.steps = self.replays = 0

    def run(self, begin: Begin) -> Attempt:
        """Run one schedule.

        Raises:
            SpentError: The budget is spent; one hung, and the next may wait as long for nothing.
            KeyboardInterrupt: Ctrl-C.
        """
        spent = self.steps > self._steps_max and self.replays > self._replays_least
        if spent or self._hung:
            raise SpentError
        order: list[int] = []
        preempted: list[int] = []

        def noting(core: Core) -> Choose:
            inner = begin(core)

            def choose() -> Thread:
                cur = core.cur
                thread = inner()
                if thread is not cur and cur.enabled and not cur.done and core.costs(thread):
                    preempted.append(len(order))
                order.append(thread.index)
                return thread

            return choose

        rules = self.setup.rules()
        rules.preload(self._edges)
        core, _ = self._stage.run(
            self._program, rules, self.setup.limits(), noting, self._token.schedule
        )
        if core.cut == "interrupted":
            raise KeyboardInterrupt
        self._hung = core.cut == "hang"
        self.replays += 1
        self.steps += len(order)
        fails = self._fails(core)
        passes = not fails and core.finding is None and core.cut is None
        ended = fails or core.cut is None
        self.unended += not ended
        attempt = Attempt(tuple(order), tuple(preempted), core.preemptions, fails, passes, ended)
        if passes:
            self.passing[attempt.order] = None
        return attempt

    def _fails(self, core: Core) -> bool:
        """Whether the schedule that has just run failed in the way that is looked for."""
        token = self._token
        if token.kind == "lock-order":
            for order in core.rules.findings:
                if not order.fatal and order_key(order) == token.fingerprint:
                    return True
        finding = finding_of(CORE, self.setup, fair=True)
        if finding is None or finding.kind != token.kind:
            return False
        key = order_key(finding.order) if finding.order is not None else key_of(finding)
        finding.error = None
        return key == token.fingerprint

    def story(self, attempt: Attempt) -> Story:
        """Run ``attempt`` once more, and tell what happened."""
        recording = self.recorded(attempt)
        finding = finding_of(CORE, self.setup, fair=True)
        return tell(finding, recording.recorder, self.setup.steps_max)

    def recorded(self, attempt: Attempt) -> Recording:
        """Run ``attempt`` once more, with everything recorded."""
        return record(
            self._stage,
            self._program,
            self.setup,
            self._token.schedule,
            following_order(attempt.order),
            self._edges,
        )
