"""Traces as the Perfetto UI opens them: the Chrome trace event format, in JSON.

``ChromeTrace`` knows the format and nothing of schedules; ``of_story`` draws a recorded schedule
with it. Time is the step: one microsecond each, so that the UI's clock reads in steps.

Reference: the Trace Event Format document of the Chromium project. Of its events these are used:
``X`` (a slice), ``i`` (an instant), ``s`` and ``f`` (both ends of a flow), ``C`` (a counter), ``M``
(names and order of the lanes).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from harness.trace.events import Story, as_json
from harness.trace.lanes import Span, arrows, holds, waits

_PID: Final = 1
# Each thread has so many lanes: its operations, then the locks that it holds at the same time.
_LANES: Final = 100


class ChromeTrace:
    """Events of one trace, in the order in which they are added."""

    def __init__(self, process: str) -> None:
        """Args: process: What the UI calls the group of all lanes."""
        self._events: list[dict[str, Any]] = []
        self._flows = 0
        self._name(0, "process_name", process)

    def lane(self, lane: int, name: str) -> None:
        """Name a lane; the UI shows them by number."""
        self._name(lane, "thread_name", name)
        self._events.append(
            {"ph": "M", "pid": _PID, "tid": lane, "name": "thread_sort_index"}
            | {"args": {"sort_index": lane}}
        )

    def slice(self, lane: int, name: str, begin: int, end: int, kind: str, **args: object) -> None:
        """Something that lasts; slices of one lane must lie apart or within each other.

        Args:
            lane: Where.
            name: What the slice says.
            begin: In microseconds.
            end: In microseconds, more than ``begin``.
            kind: Its category: the UI can search by it.
            args: Shown where the slice is selected.
        """
        self._events.append(
            {"ph": "X", "pid": _PID, "tid": lane, "ts": begin, "dur": end - begin}
            | {"name": name, "cat": kind, "args": args}
        )

    def instant(self, lane: int, name: str, at: int, kind: str, **args: object) -> None:
        """Something that happens at one moment, drawn over all lanes."""
        self._events.append(
            {"ph": "i", "pid": _PID, "tid": lane, "ts": at, "s": "p"}
            | {"name": name, "cat": kind, "args": args}
        )

    def flow(self, name: str, kind: str, source: tuple[int, int], target: tuple[int, int]) -> None:
        """An arrow between two slices, each named by its lane and a moment within it."""
        self._flows += 1
        for mark, (lane, at) in (("s", source), ("f", target)):
            event: dict[str, Any] = {"ph": mark, "pid": _PID, "tid": lane, "ts": at}
            event |= {"id": self._flows, "name": name, "cat": kind}
            # The slice that encloses the arrow's end, not the one after it.
            self._events.append(event | ({"bp": "e"} if mark == "f" else {}))

    def counter(self, name: str, at: int, values: Mapping[str, int]) -> None:
        """Numbers that hold from ``at`` on."""
        self._events.append(
            {"ph": "C", "pid": _PID, "tid": 0, "ts": at, "name": name, "args": dict(values)}
        )

    def encode(self, **facts: object) -> bytes:
        """The file; ``facts`` are shown on the UI's page about the trace."""
        document = {"traceEvents": self._events, "displayTimeUnit": "ns", "otherData": facts}
        return as_json(document) + b"\n"

    def _name(self, lane: int, what: str, name: str) -> None:
        self._events.append(
            {"ph": "M", "pid": _PID, "tid": lane, "name": what, "args": {"name": name}}
        )


def of_story(story: Story, **facts: object) -> bytes:
    """A recorded schedule: a lane of operations for each thread, below it the locks that it holds.

    A step lasts from its number to the next one; a wait lies in the lane of operations, up to the
    step that ends it; hand-offs, wakes, starts and ends of threads are flows.

    Args:
        story: As recorded.
        facts: What else the file says of it.
    """
    trace = ChromeTrace(str(facts.get("scenario") or facts.get("program") or "lockloom"))
    names = {step.thread: step.name for step in story.steps}
    names |= {state.thread: state.name for state in story.final}
    for thread, name in sorted(names.items()):
        trace.lane(_lane(thread), f"{thread} {name}")
    for step in story.steps:
        trace.slice(
            _lane(step.thread),
            step.kind if step.obj in ("", "-") else f"{step.kind} {step.obj}",
            step.step,
            step.step + 1,
            "step",
            step=step.step,
            outcome=step.outcome,
            where=None if step.site is None else str(step.site),
            held=step.held,
            preemption=step.preemption,
            notes=step.note,
        )
    for span in waits(story):
        if span.begin < span.end:
            text = f"waits: {span.operation} {span.obj}"
            trace.slice(_lane(span.thread), text, span.begin, span.end, "wait", open=span.open)
    _holds(trace, holds(story), names)
    for arrow in arrows(story):
        ends = ((arrow.source, arrow.begin), (arrow.target, arrow.end))
        source, target = ((_lane(thread), step) for thread, step in ends)
        trace.flow(f"{arrow.kind} {arrow.obj}".rstrip(), arrow.kind, source, target)
    if story.kind and story.steps:
        last = story.steps[-1]
        trace.instant(
            _lane(last.thread), story.kind, last.step + 1, "failure", message=story.message
        )
    return trace.encode(**facts)


def _holds(trace: ChromeTrace, spans: Sequence[Span], names: Mapping[int, str]) -> None:
    """Locks held at the same time need lanes of their own: they need not nest."""
    ends: dict[int, list[int]] = {}
    for span in sorted(spans, key=lambda span: (span.thread, span.begin, span.end, span.obj)):
        if span.begin == span.end:
            continue
        lanes = ends.setdefault(span.thread, [])
        free = next((i for i, end in enumerate(lanes) if end <= span.begin), len(lanes))
        lane = _lane(span.thread) + 1 + free
        if free == len(lanes):
            lanes.append(0)
            trace.lane(lane, f"{span.thread} {names.get(span.thread, '')} holds")
        lanes[free] = span.end
        trace.slice(lane, span.obj, span.begin, span.end, "hold", open=span.open)


def _lane(thread: int) -> int:
    return _LANES * (thread + 1)
