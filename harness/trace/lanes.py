"""What lies between the steps of a recorded schedule; the pictures are drawn from this.

Who held what from when to when, who waited, and whose step let whom go on. All of it is deduced
from the steps alone, so it holds for any primitive.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from harness.trace.events import Step, Story

# Steps that begin threads; the new ones have their first step some time later.
_BEGINS: Final = ("spawn", "parallel")
_ENDS: Final = ("join", "parallel")
_TAKES: Final = ("acquire", "re-acquire", "try-acquire", "read-acquire", "write-acquire")
_RELEASES: Final = ("release", "read-release", "write-release")


class Span(msgspec.Struct, frozen=True):
    """A lock that a thread held, or an operation that it could not take yet.

    Attributes:
        kind: ``hold`` or ``wait``.
        thread: Whose.
        obj: Name of the lock, or of what was waited for.
        begin: Number of the step that took the lock; or of the first at which the thread could not
            run.
        end: Number of the step that gave it up, or at which the thread went on.
        open: It lasts beyond the end of the schedule; ``end`` is one more than its last step.
        operation: Of a wait: the kind of operation that had to wait.
    """

    kind: str
    thread: int
    obj: str
    begin: int
    end: int
    open: bool = False
    operation: str = ""


class Arrow(msgspec.Struct, frozen=True):
    """A step of one thread that let another go on.

    Attributes:
        kind: ``hand-off`` (of a lock), ``wake``, ``start`` (of a thread) or ``end`` (of one that
            was waited for).
        obj: Name of the object; of a start or an end that of the thread.
        source: Thread that let the other go on.
        begin: Number of its step.
        target: Thread that went on.
        end: Number of the step with which it did.
    """

    kind: str
    obj: str
    source: int
    begin: int
    target: int
    end: int


def holds(story: Story) -> list[Span]:
    """Every lock that was held, by thread and then by step.

    A step says what its thread held before it, so what is new at the next one was taken by it.
    """
    found: list[Span] = []
    final = {state.thread: state.held for state in story.final}
    if story.exception_text and story.steps:
        # An exception has left its ``with`` blocks when the thread's state is noted; what a reader
        # wants to know is what was held where it struck.
        last = story.steps[-1]
        final[last.thread] = final.get(last.thread) or _held_after(last)
    past = _past(story)
    for thread, steps in sorted(_by_thread(story.steps).items()):
        taken: dict[tuple[str, int], int] = {}
        before = steps[0].step
        for at, held in [*((step.step, step.held) for step in steps), (past, final.get(thread))]:
            # A lock of readers may be held more than once.
            now = _numbered(held or ())
            over = [key for key in taken if key not in now]
            found += [Span("hold", thread, key[0], taken.pop(key), before) for key in over]
            for key in now:
                taken.setdefault(key, before)
            before = at
        found += [Span("hold", thread, obj, at, past, open=True) for (obj, _), at in taken.items()]
    return sorted(found, key=lambda span: (span.thread, span.begin))


def _held_after(step: Step) -> tuple[str, ...]:
    """What the thread of ``step`` held once it had taken effect."""
    held = list(step.held)
    if step.kind in _TAKES and (step.kind == "re-acquire" or step.outcome != "False"):
        held.append(step.obj)
    for given_up in (step.obj if step.kind in _RELEASES else "", step.releases):
        if given_up in held:
            held.remove(given_up)
    return tuple(held)


def waits(story: Story) -> list[Span]:
    """Every wait: from the first step at which the thread could not run until it went on.

    Not told: that a parent waits for its children.
    """
    found = []
    before: dict[int, Step] = {}
    for step in story.steps:
        since = _blocked_since(story.steps, step.thread, step.published, step.step)
        if since and step.kind not in _ENDS:
            # Who takes a lock back slept on something else before.
            on = before[step.thread] if step.kind == "re-acquire" else step
            found.append(Span("wait", step.thread, on.obj, since, step.step, operation=on.kind))
        before[step.thread] = step
    past = _past(story)
    for state in story.final:
        if state.state != "blocked" or state.kind in _ENDS:
            continue
        # Who was blocked by the last step is listed as enabled at none after it.
        since = _blocked_since(story.steps, state.thread, state.published, past) or past
        found.append(
            Span("wait", state.thread, state.obj, since, past, open=True, operation=state.kind)
        )
    return found


def arrows(story: Story) -> list[Arrow]:
    """Every step that let another thread go on, in the order of going on."""
    return sorted(
        [*_starts(story), *_wakes(story), *_notified(story)],
        key=lambda arrow: (arrow.end, arrow.begin, arrow.kind),
    )


def _starts(story: Story) -> Iterator[Arrow]:
    """From the step that began a thread to its first."""
    begun: dict[int, Step] = {}
    for step in story.steps:
        # Threads are numbered in the order in which they begin, and announce their first operation
        # within the step that begins them.
        first = begun.setdefault(step.thread, step)
        if first is step and step.thread:
            source = _at(story.steps, step.published - 1)
            if source is not None and source.kind in _BEGINS:
                yield Arrow("start", step.name, source.thread, source.step, step.thread, step.step)


def _wakes(story: Story) -> Iterator[Arrow]:
    """From the step whose effect enabled a thread that could not run to the one it then took."""
    steps = story.steps
    for step in steps:
        if step.published >= step.step:
            continue
        since = _enabled_since(steps, step)
        source = None if since is None else _at(steps, since - 1)
        # Where the clock moved, time was up: nobody woke it.
        if source is None or since is None or source.thread == step.thread:
            continue
        if steps[since - steps[0].step].clock > source.clock:
            continue
        ends = step.kind in _ENDS
        kind = "end" if ends else "hand-off" if source.kind.endswith("release") else "wake"
        obj = source.name if ends else step.obj
        yield Arrow(kind, obj, source.thread, source.step, step.thread, step.step)


def _notified(story: Story) -> Iterator[Arrow]:
    """From the step that woke a sleeper to the one with which it took its lock back."""
    woken: dict[int, Step] = {}
    for step in story.steps:
        source = woken.pop(step.thread, None)
        if source is not None:
            yield Arrow("wake", source.obj, source.thread, source.step, step.thread, step.step)
        for index in step.woke:
            woken[index] = step


def _enabled_since(steps: Sequence[Step], step: Step) -> int | None:
    """The step from which on ``step``'s thread could run, where it could not before."""
    offset = steps[0].step
    for number in range(step.step - 1, max(step.published, offset) - 1, -1):
        if step.thread not in steps[number - offset].enabled:
            return number + 1
    return None


def _blocked_since(steps: Sequence[Step], thread: int, published: int, end: int) -> int:
    """The first step from ``published`` on at which ``thread`` could not run; 0 for none."""
    if not steps:
        return 0
    offset = steps[0].step
    for step in steps[max(0, published - offset) : max(0, end - offset)]:
        if thread not in step.enabled:
            return step.step
    return 0


def _by_thread(steps: Sequence[Step]) -> dict[int, list[Step]]:
    found: dict[int, list[Step]] = {}
    for step in steps:
        found.setdefault(step.thread, []).append(step)
    return found


def _numbered(held: Sequence[str]) -> dict[tuple[str, int], None]:
    """Each lock with how often it came before: keys that are unique, in order."""
    seen: Counter[str] = Counter()
    found: dict[tuple[str, int], None] = {}
    for name in held:
        found[name, seen[name]] = None
        seen[name] += 1
    return found


def _past(story: Story) -> int:
    """One more than the last step."""
    return story.steps[-1].step + 1 if story.steps else 1


def _at(steps: Sequence[Step], number: int) -> Step | None:
    """The step of that number."""
    at = number - steps[0].step if steps else -1
    return steps[at] if 0 <= at < len(steps) else None
