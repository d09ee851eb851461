"""A schedule by the names of its operations, and its replay after the program has changed.

A token holds choices: after an edit the first choice that no longer fits ends its replay. A *named*
schedule holds what was done: which thread performed which operation on which object for the how
manieth time. Replaying it runs the program as it is now, finds for every thread which of its
operations are those of the recording and which were added, takes the steps in the recorded order
wherever there is one, and says what no longer has a counterpart.

It is a text of one operation a line, so that two of them can be compared with any diff.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

import msgspec

from harness.engine.core import Choose, Core
from harness.engine.thread import Thread
from harness.errors import TokenError, UsageError
from harness.search.recording import (
    Failure,
    Recording,
    failure_again,
    record,
    setup_of,
    witness_of,
)
from harness.search.setup import Program, runnable
from harness.search.stage import Stage
from harness.strategies.base import deciding
from harness.trace.events import Step, Story, as_json
from harness.trace.story import tell
from harness.trace.token import decode

FORMAT: Final = "lockloom-named-1"
# Each run shows the operations of every thread under the order that the last one suggested.
_ROUNDS_MAX: Final = 8
_SHOWN_MAX: Final = 12


class Operation(msgspec.Struct, array_like=True, frozen=True, order=True):
    """One operation by name.

    Attributes:
        thread: Name of the thread.
        kind: ``acquire`` for instance.
        obj: Name of the object.
        ordinal: The how manieth of this kind by this thread on this object, from 1.
    """

    thread: str
    kind: str
    obj: str
    ordinal: int

    def __str__(self) -> str:
        """As a person says it."""
        return f"{self.thread}: {self.kind} {self.obj} ({self.ordinal})"


class Named(msgspec.Struct, frozen=True):
    """A schedule as named operations.

    Attributes:
        token: Of the failure that was recorded.
        operations: In their order.
    """

    token: str
    operations: tuple[Operation, ...]

    def text(self) -> str:
        """As JSON, one operation a line."""
        head = as_json({"format": FORMAT, "token": self.token}).decode()[:-1]
        lines = [as_json(operation).decode() for operation in self.operations]
        return head + ',"operations":[\n' + ",\n".join(lines) + "\n]}\n"

    @classmethod
    def of(cls, token: str, steps: Sequence[Step]) -> Named:
        """The schedule of ``token``, whose recorded steps are ``steps``.

        Raises:
            UsageError: Not all steps are there.
        """
        if steps and steps[0].step != 1:
            raise UsageError("the schedule of a livelock is kept by its token alone")
        return cls(token, operations_of(steps))

    @classmethod
    def read(cls, text: str | bytes) -> Named:
        """Read what ``text`` wrote.

        Raises:
            TokenError: It is something else, of another version, or damaged.
        """
        try:
            found = msgspec.json.decode(text, type=_File)
        except RecursionError:
            raise TokenError("this is no named schedule: it is nested too deep") from None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise TokenError(f"this is no named schedule: {str(error)[:300]}") from None
        if found.format != FORMAT:
            raise TokenError(
                f"the named schedule is of format {found.format[:80]!r}; "
                f"this version reads {FORMAT!r}"
            )
        return cls(found.token, found.operations)


class _File(msgspec.Struct):
    format: str
    token: str
    operations: tuple[Operation, ...]


@dataclass(frozen=True)
class Aligned:
    """What came of replaying a named schedule.

    Attributes:
        failure: Of the program as it is now, with a token of its own; None where it passes.
        same: It is of the recorded kind and fingerprint.
        fitted: Operations that took place as recorded.
        gone: Those that did not, in the recorded order.
        added: Operations among them that were not recorded, in the order in which they took place.
        moved: Operations that took place, but later than one that was recorded after them.
        story: Of the program as it is now.
    """

    failure: Failure | None
    same: bool
    fitted: int
    gone: tuple[Operation, ...]
    added: tuple[Operation, ...]
    moved: tuple[Operation, ...]
    story: Story

    def text(self) -> str:
        """What fits and what does not, for a terminal."""
        lines = [
            f"{self.fitted} of {self.fitted + len(self.gone)} recorded operations took place"
            + (f", {len(self.moved)} of them later than recorded" if self.moved else "")
        ]
        for title, operations in (
            ("gone", self.gone),
            ("added", self.added),
            ("later than recorded", self.moved),
        ):
            lines += [f"  {title}: {operation}" for operation in operations[:_SHOWN_MAX]]
            if len(operations) > _SHOWN_MAX:
                lines.append(f"  {title}: {len(operations) - _SHOWN_MAX} more")
        return "\n".join(lines)


def operations_of(steps: Sequence[Step]) -> tuple[Operation, ...]:
    """The steps of a recorded schedule by name."""
    counts: dict[tuple[str, str, str], int] = {}
    found = []
    for step in steps:
        key = step.name, step.kind, step.obj
        counts[key] = counts.get(key, 0) + 1
        found.append(Operation(*key, counts[key]))
    return tuple(found)


def replay_named(program: Program, named: Named, *, stacks: bool = False) -> Aligned:
    """Run ``program`` in the order of ``named``, as far as that is possible.

    Args:
        program: As it is now.
        named: From ``Failure.named``, or read from a file.
        stacks: Record places with all their callers.

    Raises:
        UsageError: ``named`` is no ``Named``.
        TokenError: The token in ``named`` cannot be read.
        KeyboardInterrupt: Ctrl-C, or the program blocked in something that is not controlled.
    """
    runnable(program)
    if not isinstance(named, Named):
        raise UsageError(f"replay_named() takes what Failure.named() gives, got {named!r}")
    token = decode(named.token)
    setup = replace(setup_of(token), stacks=stacks)
    edges = [witness_of(edge) for edge in token.edges]
    places = _Places(named.operations)
    with Stage(setup.hang_seconds, control=setup.control) as stage:
        rounds = 0
        while True:
            rounds += 1
            begin = partial(_begin, places.place)
            recording = record(stage, program, setup, token.schedule, begin, edges)
            if recording.cut in ("interrupted", "hang"):
                raise KeyboardInterrupt
            failure = failure_again(token, recording, setup)
            same = failure is not None and (failure.kind, failure.fingerprint) == (
                token.kind,
                token.fingerprint,
            )
            if not places.learn(recording) or same or rounds == _ROUNDS_MAX:
                break
        # The engine still holds the last run: its story is told here.
        story = failure.story() if failure else tell(None, recording.recorder, setup.steps_max)
    if failure is not None:
        failure.attach(program)
    return places.aligned(failure, story, same=same)


def _begin(place: Callable[[str, int], float], core: Core) -> Choose:
    """Takes the enabled thread whose next operation has the first place."""
    own: dict[int, int] = {}

    def pick(enabled: list[Thread]) -> Thread:
        def rank(thread: Thread) -> tuple[float, bool, int]:
            at = place(thread.name, own.get(thread.index, 0))
            return at, thread is not core.cur, thread.index

        thread = min(enabled, key=rank)
        own[thread.index] = own.get(thread.index, 0) + 1
        return thread

    return deciding(core, pick, always=True)


class _Places:
    """Which operation of the program, as it is now, has which place in the recording."""

    def __init__(self, recorded: Sequence[Operation]) -> None:
        """At first every thread is taken to do what it did, operation by operation."""
        self._recorded = recorded
        self._mine: dict[str, list[int]] = {}
        for at, operation in enumerate(recorded):
            self._mine.setdefault(operation.thread, []).append(at)
        self._places: dict[str, list[float]] = {
            thread: [float(at) for at in mine] for thread, mine in self._mine.items()
        }
        self._now: tuple[Operation, ...] = ()
        self._matched: dict[int, int] = {}

    def place(self, thread: str, own: int) -> float:
        """Where the operation number ``own`` (from 0) of ``thread`` belongs."""
        places = self._places.get(thread, ())
        if own < len(places):
            return places[own]
        return float(len(self._recorded))

    def learn(self, recording: Recording) -> bool:
        """Compare what every thread did with the recording; whether some places are new."""
        self._now = operations_of(recording.steps)
        theirs: dict[str, list[int]] = {}
        for at, operation in enumerate(self._now):
            theirs.setdefault(operation.thread, []).append(at)
        self._matched = {}
        before = self._places
        self._places = {}
        for thread, now in theirs.items():
            self._places[thread] = self._align(self._mine.get(thread, []), now)
        return before != self._places

    def _align(self, mine: Sequence[int], now: Sequence[int]) -> list[float]:
        """Places of one thread's operations; one that was added follows that before it."""
        ours = [(self._recorded[at].kind, self._recorded[at].obj) for at in mine]
        theirs = [(self._now[at].kind, self._now[at].obj) for at in now]
        matcher = difflib.SequenceMatcher(None, ours, theirs, autojunk=False)
        known: dict[int, int] = {}
        for block in matcher.get_matching_blocks():
            for offset in range(block.size):
                known[block.b + offset] = mine[block.a + offset]
        places: list[float] = []
        last = -0.5
        for own, at in enumerate(now):
            if own in known:
                self._matched[known[own]] = at
                last = known[own]
                places.append(last)
            else:
                places.append(last + 0.5)
        return places

    def aligned(self, failure: Failure | None, story: Story, *, same: bool) -> Aligned:
        """The result of the last run."""
        matched = self._matched
        taken = set(matched.values())
        # What follows the last of them is what the recording did not live to see.
        within = self._now[: max(taken, default=-1) + 1]
        moved = []
        latest = -1
        for recorded in sorted(matched, key=matched.__getitem__):
            if recorded < latest:
                moved.append(self._recorded[recorded])
            latest = max(latest, recorded)
        return Aligned(
            failure,
            same,
            len(matched),
            tuple(op for at, op in enumerate(self._recorded) if at not in matched),
            tuple(op for at, op in enumerate(within) if at not in taken),
            tuple(moved),
            story,
        )
