"""From a recorded schedule and its finding to the ``Story`` that reports are made of."""

from __future__ import annotations

import linecache
import traceback

from harness.engine.finding import HIDE, PACKAGE, Finding
from harness.lockorder.findings import Finding as OrderFinding
from harness.lockorder.findings import Witness
from harness.trace.events import Site, Story
from harness.trace.recorder import TraceRecorder
from harness.trace.site import shown_file, site_of

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
        lock_findings=() if order is None else (order_text(order),),
        objects=dict(recorder.objects),
        film=recorder.film(steps[0].step if steps else 1),
    )


def order_text(order: OrderFinding) -> str:
    """A broken lock rule with the occasions that prove it, both places of each.

    Args:
        order: Its places may be resolved already.
    """
    sure = order.proof or order.tier
    lines = [order.message, f"rule {order.rule} ({order.result}), {sure}"]
    for edge in order.edges:
        inner = f"{edge.inner} wanted" if edge.inner else "went to sleep"
        lines.append(f"{edge.thread or 'a thread'}, schedule {edge.schedule}:")
        lines.append(f"  {edge.outer} taken at {_where(edge, edge.outer_site)}")
        lines.append(f"  {inner} at {_where(edge, edge.inner_site)}")
    return "\n".join(lines)


def _where(edge: Witness, place: object) -> str:
    site = place if isinstance(place, Site) else None
    if isinstance(place, tuple):
        site = site_of(place)
    if site is None:
        return f"an unknown place in schedule {edge.schedule}"
    return f"{site} in {site.qualname}"


def exception_text(error: BaseException) -> str:
    """The traceback as Python prints it, without frames that say nothing of the program.

    Left out are the harness's own, and those of functions that declare ``__tracebackhide__``
    (helpers that only raise). Files are named as in sites, and the marks below source lines, which
    differ between Pythons, are gone: the text is the same wherever the schedule is replayed.
    """
    chain = traceback.TracebackException.from_exception(error)
    link: traceback.TracebackException | None = chain
    raised: BaseException | None = error
    seen = 0
    while link is not None and raised is not None and seen < 100:
        link.stack = traceback.StackSummary.from_list(_frames(raised))
        link, raised = (
            (link.__cause__, raised.__cause__)
            if link.__cause__ is not None
            else (link.__context__, raised.__context__)
        )
        seen += 1
    return "".join(chain.format()).rstrip()


def _frames(error: BaseException) -> list[traceback.FrameSummary]:
    frames = []
    for frame, line in traceback.walk_tb(error.__traceback__):
        code = frame.f_code
        if not code.co_filename.startswith(PACKAGE) and HIDE not in code.co_varnames:
            text = linecache.getline(code.co_filename, line).strip()
            frames.append(
                traceback.FrameSummary(shown_file(code.co_filename), line, code.co_name, line=text)
            )
    return frames
