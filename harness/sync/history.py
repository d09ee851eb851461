"""What a program's threads did, operation by operation, and whether any order of it explains that.

A *reference* says in sequence what each operation does. A ``History`` notes when each was called,
when it returned and with what; at the schedule's end the reference must explain all results by some
order of the operations that respects real time: one that returned before another was called comes
first. That is linearizability, but that an operation may take several steps in the order, where it
is no atomic one, and that a reference may leave things open.

The search goes through the history once and keeps every state that the reference can be in
(Lowe, "Testing for linearizability", 2017: just-in-time linearization; after Wing and Gong, 1993).
Equal states are one, so nothing is tried twice. It departs in that steps, not operations, are
ordered, and in that the results are known beforehand, so that no step leads to another result.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, Protocol, TypeVar

from harness.engine.core import CORE
from harness.errors import UsageError
from harness.sync.base import current
from harness.sync.threads import invariant, note

R = TypeVar("R")
S = TypeVar("S", bound=Hashable)

# States kept at once; more leave the history undecided.
STATES_MAX: Final = 20_000
# What a reader of a finding can take in.
_STATES_SHOWN: Final = 4
# Stands for every history where the order of steps matters.
_NOTED: Final = -1
# Explained already in this process, each with how many operations it has: schedules differ, their
# histories seldom. An operation takes a few hundred bytes; so many are kept, the latest.
_EXPLAINED: Final[dict[tuple[Hashable, ...], int]] = {}
EXPLAINED_CALLS_MAX: Final = 10_000
# What became of a history at its schedule's end.
CHECKED: Final = "checked"
UNDECIDED: Final = "undecided"
ABANDONED: Final = "abandoned"
# Of one running operation; hashable, and the reference's own business.
Local = Any
Locals = tuple[Local, ...]


@dataclass(slots=True, eq=False)
class Call:
    """One operation of a history.

    Attributes:
        thread: Name of the thread that ran it, or ended it.
        name: Of the operation.
        args: As the reference takes them.
        called: Step at which it was called.
        returned: Step at which it returned; -1 while it runs.
        result: What it returned, as the reference judges it.
    """

    thread: str
    name: str
    args: tuple[Any, ...]
    called: int
    returned: int = -1
    result: Any = None

    def __str__(self) -> str:
        """Name, arguments and result."""
        text = f"{self.name}({', '.join(map(str, self.args))})"
        return text if self.result is None else f"{text} -> {self.result}"


class Reference(Protocol[S]):
    """What operations do, one after the other; knows no thread and no lock.

    A running operation has a *local* state, in which the reference keeps how far it has come.
    """

    @property
    def key(self) -> Hashable:
        """References with equal keys explain the same histories; None where that is not known."""

    def initial(self) -> S:
        """The state before the first operation."""

    def begin(self, call: Call) -> Local:
        """The local state of an operation that was called."""

    def steps(self, state: S, running: Sequence[Call], local: Locals) -> Iterable[tuple[S, Locals]]:
        """Every step that some running operation can take, as the state and local states after it.

        Args:
            state: What the operations share.
            running: Operations that were called and have not returned, in the order of their calls.
            local: Their local states.
        """

    def ends(self, state: S, running: Sequence[Call], local: Locals, index: int) -> Iterable[S]:
        """The states that are left when ``running[index]`` returns; none where it cannot yet."""

    def describe(self, state: S) -> str:
        """For a reader, on one line."""

    def tell(self, call: Call) -> str:
        """An operation and its result for a reader, on one line."""


class Sequential(Generic[S]):
    """The reference of an object whose operations are all atomic."""

    def __init__(
        self, initial: S, apply: Callable[[S, str, tuple[Any, ...]], Iterable[tuple[S, Any]]]
    ) -> None:
        """Describe the object.

        Args:
            initial: State before the first operation; hashable, like all states.
            apply: From a state, an operation's name and its arguments to every state and result
                that it may lead to.
        """
        self.key: Hashable = None
        self._initial = initial
        self._apply = apply

    def initial(self) -> S:
        """See ``Reference``."""
        return self._initial

    def begin(self, call: Call) -> Local:
        """Not done yet."""
        del call
        return False

    def steps(self, state: S, running: Sequence[Call], local: Locals) -> Iterator[tuple[S, Locals]]:
        """Any operation that is not done yet, where it leads to the result that it had."""
        for index, call in enumerate(running):
            if not local[index]:
                done = (*local[:index], True, *local[index + 1 :])
                for after, result in self._apply(state, call.name, call.args):
                    if result == call.result:
                        yield after, done

    def ends(self, state: S, running: Sequence[Call], local: Locals, index: int) -> Iterator[S]:
        """See ``Reference``."""
        del running
        if local[index]:
            yield state

    def describe(self, state: S) -> str:
        """See ``Reference``."""
        return repr(state)

    def tell(self, call: Call) -> str:
        """See ``Reference``."""
        return str(call)


@dataclass(frozen=True, slots=True)
class Explanation(Generic[S]):
    """What came of looking for an order.

    Attributes:
        found: There is one.
        decided: Whether the search went to its end.
        at: The first operation whose result no order explains; None where there is none.
        before: The states that what happened before it allows.
        states: States kept at once, at most.
    """

    found: bool
    decided: bool
    at: Call | None
    before: tuple[S, ...]
    states: int


class History(Generic[S]):
    """Operations as they are called and return, judged when the schedule ends.

    Noting an operation is no schedule point. A history that the reference cannot explain is an
    ``invariant`` finding, named after the reference.
    """

    def __init__(
        self, reference: Reference[S], name: str = "reference", *, states_max: int = STATES_MAX
    ) -> None:
        """Have the running schedule's end judged.

        Args:
            reference: What the operations are held against.
            name: Of the reference, in findings.
            states_max: States kept at once; a history that needs more is left undecided, which
                ``Evidence.histories`` counts.

        Raises:
            UsageError: No schedule is running.
        """
        self.reference = reference
        self.calls: list[Call] = []
        self._name = name
        self._states_max = states_max
        self._events: list[tuple[Call, bool]] = []
        self._abandoned = ""
        self._crowded = self._told = 0
        invariant(self.check, name, every="quiescent", judges=self._noted)

    def _noted(self) -> tuple[int, ...]:
        """Whether something was noted since the last call that others may come before or after."""
        told, self._told = self._told, self._crowded
        return (_NOTED,) if told < self._told else ()

    def _note(self, call: Call, *, returns: bool) -> None:
        self._events.append((call, returns))
        if sum(not thread.done for thread in CORE.threads) > 1:
            self._crowded += 1

    def run(
        self,
        name: str,
        args: tuple[Any, ...],
        operation: Callable[[], R],
        seen: Callable[[R], Any] | None = None,
    ) -> R:
        """Run an operation and note it.

        Args:
            name: As the reference knows it.
            args: Likewise.
            operation: Does it.
            seen: What the reference is told of the result; by default the result.
        """
        call = self.call(name, *args)
        result = operation()
        self.returns(call, result if seen is None else seen(result))
        return result

    def call(self, name: str, *args: Any) -> Call:
        """Note that the calling thread begins an operation; end it with ``returns``."""
        call = Call(current().name, name, args, CORE.steps)
        self.calls.append(call)
        self._note(call, returns=False)
        return call

    def returns(self, call: Call, result: Any) -> None:
        """Note that an operation has ended.

        Raises:
            UsageError: It has ended before.
        """
        if call.returned >= 0:
            raise UsageError(f"{call} returns twice; note each call with a call of its own")
        call.thread = current().name
        call.result = result
        call.returned = CORE.steps
        self._note(call, returns=True)

    def abandon(self, why: str) -> None:
        """Judge nothing in this schedule: something was done that the reference does not know."""
        self._abandoned = self._abandoned or why

    @property
    def abandoned(self) -> str:
        """Why nothing is judged; empty where everything is."""
        return self._abandoned

    def check(self) -> None:
        """Look for an order, and count what came of it.

        Raises:
            AssertionError: There is none.
        """
        if self._abandoned:
            _count(ABANDONED, self._abandoned)
            return
        key = self._key()
        if key in _EXPLAINED:
            _count(CHECKED)
            return
        explanation = self.explain()
        _count(CHECKED if explanation.decided else UNDECIDED)
        if not explanation.decided:
            note(f"{self._name}: undecided after {explanation.states} states")
        elif not explanation.found:
            raise AssertionError(self._report(explanation))
        elif key:
            _keep(key, len(self.calls))

    def _key(self) -> tuple[Hashable, ...]:
        """All that the explanation depends on; empty where that is not known."""
        if self.reference.key is None:
            return ()
        numbers = {call: number for number, call in enumerate(self.calls)}
        order = tuple(numbers[call] for call, _ in self._events)
        calls = tuple((call.thread, call.name, call.args, call.result) for call in self.calls)
        return self.reference.key, order, calls

    def explain(self) -> Explanation[S]:
        """Look for an order that explains every result."""
        reference = self.reference
        running: list[Call] = []
        states: dict[tuple[S, Locals], None] = {(reference.initial(), ()): None}
        most = 1
        for call, returns in self._events:
            if not returns:
                running.append(call)
                begun = reference.begin(call)
                states = {(state, (*local, begun)): None for state, local in states}
                continue
            reached = _reached(reference, running, states, self._states_max)
            most = max(most, len(reached))
            if len(reached) > self._states_max:
                return Explanation(False, False, call, (), most)
            index = running.index(call)
            states = {
                (after, (*local[:index], *local[index + 1 :])): None
                for state, local in reached
                for after in reference.ends(state, running, local, index)
            }
            if not states:
                before = dict.fromkeys(state for state, _ in reached)
                return Explanation(False, True, call, tuple(before), most)
            running.pop(index)
        return Explanation(True, True, None, (), most)

    def _report(self, explanation: Explanation[S]) -> str:
        """The history, and where the search for an order ends."""
        at = explanation.at
        assert at is not None
        tell = self.reference.tell
        lines = [f"no order of the operations explains what {at.thread} got: {tell(at)}"]
        lines += ["the steps of each operation, its thread, and what it returned:"]
        width = max(len(call.thread) for call in self.calls)
        for call in self.calls:
            mark = "*" if call is at else " "
            span = f"{call.called}-{call.returned if call.returned >= 0 else ''}"
            lines.append(f"{mark} {span:>11}  {call.thread:<{width}}  {tell(call)}")
        shown = [self.reference.describe(state) for state in explanation.before[:_STATES_SHOWN]]
        left = len(explanation.before) - len(shown)
        lines.append("what happened before * returned allows these states, and none allows that:")
        lines += [f"  {text}" for text in shown]
        if left:
            lines.append(f"  and {left} more")
        return "\n".join(lines)


def _keep(key: tuple[Hashable, ...], calls: int) -> None:
    """Know a history as explained, and forget the oldest beyond the limit, half of it at a time."""
    _EXPLAINED[key] = calls
    kept = sum(_EXPLAINED.values())
    if kept > EXPLAINED_CALLS_MAX:
        for old in list(_EXPLAINED):
            kept -= _EXPLAINED.pop(old)
            if kept <= EXPLAINED_CALLS_MAX // 2:
                break


def _count(outcome: str, why: str = "") -> None:
    key = outcome, why
    CORE.histories[key] = CORE.histories.get(key, 0) + 1


def _reached(
    reference: Reference[S],
    running: Sequence[Call],
    states: dict[tuple[S, Locals], None],
    states_max: int,
) -> dict[tuple[S, Locals], None]:
    """All that steps of the running operations lead to; stops beyond ``states_max``."""
    reached = dict(states)
    waiting = list(states)
    while waiting and len(reached) <= states_max:
        state, local = waiting.pop()
        for after in reference.steps(state, running, local):
            if after not in reached:
                reached[after] = None
                waiting.append(after)
    return reached
