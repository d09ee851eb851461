"""Steps that commute, put together thread by thread, so that a schedule reads in blocks.

Two steps of different threads commute where neither order can be told from the other. Exchanging
neighbours that do gives another schedule of the same class; of all of them one with few preemptions
and few switches is wanted. What is known here of a step is its kind and its object, so this is a
guess where invariants look at everything: the caller runs the result.

Reference: Walker and Runciman, "Cheap remarks about concurrent programs" and dejafu's
``simplify``, for pulling and pushing; we choose among the threads that may go on by looking ahead.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from harness.trace.events import Step

READS: Final = frozenset({"get", "load", "event-is-set", "locked", "yield", "sleep"})
_LIFE: Final = frozenset({"spawn", "parallel", "join", "interrupt"})


def dependent(one: Step, other: Step) -> bool:
    """Whether the order of two recorded steps may matter."""
    if one.thread == other.thread or one.kind in _LIFE or other.kind in _LIFE:
        return True
    shared = {one.obj, one.releases} & {other.obj, other.releases} - {"", "-"}
    return bool(shared) and not (one.kind in READS and other.kind in READS)


def regrouped(steps: Sequence[Step]) -> Iterator[list[int]]:
    """Orders of the threads that keep the order of all dependent steps, the most promising first.

    Args:
        steps: A recorded schedule.
    """
    before = _before(steps)
    cause = _causes(before)
    for wanted in (cause, frozenset(range(len(steps)))):
        for ahead in (True, False):
            yield _linear(steps, before, wanted, ahead=ahead)


def _before(steps: Sequence[Step]) -> list[list[int]]:
    """For each step those that must come first: of each object and thread only the latest."""
    before: list[list[int]] = []
    last: dict[str, list[int]] = {}
    own: dict[int, int] = {}
    life: int | None = None
    for number, step in enumerate(steps):
        found: list[int] = []
        if step.thread in own:
            found.append(own[step.thread])
        if step.kind in _LIFE:
            found += own.values()
            life = number
        elif life is not None:
            found.append(life)
        for name in sorted({step.obj, step.releases} - {"", "-"}):
            earlier = last.setdefault(name, [])
            found += [other for other in earlier if dependent(steps[other], step)]
            if step.kind not in READS:
                earlier.clear()
            earlier.append(number)
        own[step.thread] = number
        before.append(sorted(set(found) - {number}))
    return before


def _causes(before: Sequence[Sequence[int]]) -> frozenset[int]:
    """The steps without which the last one could not be."""
    wanted: set[int] = set()
    open_ = [len(before) - 1] if before else []
    while open_:
        number = open_.pop()
        if number not in wanted:
            wanted.add(number)
            open_ += before[number]
    return frozenset(wanted)


def _linear(
    steps: Sequence[Step],
    before: Sequence[Sequence[int]],
    wanted: frozenset[int],
    *,
    ahead: bool,
) -> list[int]:
    """One order of the ``wanted`` steps: each thread goes on as long as it may.

    Args:
        steps: The schedule.
        before: What must come before each.
        wanted: The steps to order.
        ahead: At a switch take the thread that can go on for longest; else that of the next step.
    """
    queues: dict[int, list[int]] = {}
    for number in sorted(wanted, reverse=True):
        queues.setdefault(steps[number].thread, []).append(number)
    done: set[int] = set()

    def run_of(thread: int) -> list[int]:
        """The steps that ``thread`` can take now, one after the other."""
        taken: list[int] = []
        for number in reversed(queues[thread]):
            if not all(o in done or o in taken or o not in wanted for o in before[number]):
                break
            taken.append(number)
        return taken

    order: list[int] = []
    while len(order) < len(wanted):
        runs = [(thread, run_of(thread)) for thread, queue in sorted(queues.items()) if queue]
        able = [(thread, run) for thread, run in runs if run]
        if ahead:
            thread, run = max(able, key=lambda entry: (len(entry[1]), -entry[1][0]))
        else:
            thread, run = min(able, key=lambda entry: entry[1][0])
        for number in run:
            order.append(number)
            done.add(number)
            queues[thread].pop()
    return [steps[number].thread for number in order]
