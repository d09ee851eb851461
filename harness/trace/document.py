"""A recorded schedule as one JSON document: all that the pictures are drawn from.

The schema of the document is that of ``TraceDocument``; ``trace_schema`` gives it as JSON Schema.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from harness.trace import events
from harness.trace.events import Story
from harness.trace.lanes import Arrow, Span, arrows, holds, waits

FORMAT: Final = "lockloom-trace-1"


class TraceDocument(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What ``--trace FILE.json`` writes.

    Attributes:
        format: Names this version of the schema.
        facts: What is known beyond the schedule: scenario, seed, token, fingerprint, digest.
        story: The schedule.
        holds: Which thread held which lock from which step to which.
        waits: Which thread could not run, and why.
        arrows: Which step let which thread go on.
    """

    format: str
    facts: dict[str, str | int]
    story: Story
    holds: tuple[Span, ...] = ()
    waits: tuple[Span, ...] = ()
    arrows: tuple[Arrow, ...] = ()


def document(story: Story, **facts: str | int) -> TraceDocument:
    """The document of a story; the same for two recordings of one schedule."""
    return TraceDocument(
        FORMAT, facts, story, tuple(holds(story)), tuple(waits(story)), tuple(arrows(story))
    )


def as_json(story: Story, **facts: str | int) -> bytes:
    """The document as a file, with two spaces of indentation."""
    encoded = events.as_json(document(story, **facts))
    return msgspec.json.format(encoded, indent=2) + b"\n"


def as_lines(story: Story) -> bytes:
    """The steps alone, as JSON lines: for tools that read a line at a time."""
    return b"".join(events.as_json(step) + b"\n" for step in story.steps)


def trace_schema() -> dict[str, Any]:
    """The JSON Schema of the document."""
    return msgspec.json.schema(TraceDocument)
