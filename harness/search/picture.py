"""A failure as the HTML page shows it: its own schedule, and the pair of steps that decides."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from harness.errors import ReplayDivergence
from harness.search.flip import Flip
from harness.search.minimize import explain
from harness.search.recording import Failure
from harness.search.setup import Program
from harness.trace.page import Data, render, story_data

# Steps replayed to find the pair; enough for most programs, and over in seconds.
STEPS_MAX: Final = 100_000
# A schedule that does not end, or does not repeat, has no pair.
_NO_PAIR: Final = ("hang", "livelock", "nondeterminism")


def html_of(program: Program, failure: Failure, *, title: str, command: str = "") -> str:
    """The HTML file of one failure; see ``Failure.html``."""
    data = picture(program, failure, title=title, command=command)
    return render(title, [data], text=failure.text(command=command or None))


def picture(
    program: Program,
    failure: Failure,
    *,
    title: str,
    command: str = "",
    facts: Mapping[str, object] | None = None,
    pair: bool = True,
) -> Data:
    """What a page shows of ``failure``.

    Args:
        program: The program that failed.
        failure: Knows its story.
        title: What failed.
        command: Replays it; empty takes the failure's own.
        facts: Names and values that go before its own.
        pair: Look for the pair of steps that decides, which runs the program many times.
    """
    story = failure.story()
    told = dict(facts or {})
    for name in ("schedule", "steps", "preemptions", "fingerprint", "digest"):
        told[name] = getattr(failure, name)
    runs = [("this schedule", story)]
    flip = _flip(program, failure) if pair else None
    if flip is not None:
        near, other = flip.stories
        if [step.thread for step in near.steps] != [step.thread for step in story.steps]:
            runs.append(("nearest that fails", near))
        runs.append(("nearest that passes" if flip.passes else "fails otherwise", other))
    return story_data(
        title,
        runs,
        facts=told,
        text=failure.text(command=command or None),
        command=command or failure.command(),
        pair=None if flip is None else (flip.at, flip.passes),
    )


def _flip(program: Program, failure: Failure) -> Flip | None:
    """The pair of steps whose order decides, where a short search finds it."""
    if failure.kind in _NO_PAIR:
        return None
    try:
        return explain(program, failure.token, steps_max=STEPS_MAX)
    except ReplayDivergence:
        return None
