"""From a recorded schedule and its finding to the ``Story`` that reports are made of."""

from __future__ import annotations

import traceback

from harness.engine.core import PACKAGE, Finding
from harness.trace.events import Story
from harness.trace.recorder import TraceRecorder

# A livelock's story shows where it ends; nobody reads twenty thousand steps of a spin.
LIVELOCK_STEPS_MAX = 2_000


def tell(finding: Finding | None, recorder: TraceRecorder, steps_max: int) -> Story:
    """Build the story; lets go of the exception, and with it of the program's frames.

    Args:
        finding: None where the schedule passed.
        recorder: Of the schedule that has just run.
        steps_max: Its step bound.
    """
    text = ""
    if finding is not None and finding.error is not None:
        text = exception_text(finding.error)
        finding.error = None
    steps = recorder.steps
    if finding is not None and finding.kind == "livelock" and len(steps) >= steps_max:
        steps = steps[-LIVELOCK_STEPS_MAX:]
    order = None if finding is None else finding.order
    return Story(
        kind="" if finding is None else finding.kind,
        message="" if finding is None else finding.message,
        exception_text=text,
        cycle=recorder.cycle(finding),
        steps=tuple(steps),
        final=recorder.final,
        lock_findings=() if order is None else (order.message,),
        objects=dict(recorder.objects),
    )


def exception_text(error: BaseException) -> str:
    """The traceback without the harness's own frames, as Python prints it."""
    chain = traceback.TracebackException.from_exception(error)
    link: traceback.TracebackException | None = chain
    seen = 0
    while link is not None and seen < 100:
        kept = [frame for frame in link.stack if not frame.filename.startswith(PACKAGE)]
        link.stack = traceback.StackSummary.from_list(kept)
        link = link.__cause__ or link.__context__
        seen += 1
    return "".join(chain.format()).rstrip()
