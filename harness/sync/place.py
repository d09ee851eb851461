"""Where a program stands: for messages that must name a thread, a step and a place."""

from __future__ import annotations

import sys
from types import CodeType, FrameType
from typing import Final, NamedTuple

from harness.engine.core import CORE
from harness.engine.finding import PACKAGE
from harness.engine.thread import OUTSIDE

# How far a place looks outwards: who called it, and who called that.
_FRAMES: Final = 3


class Place(NamedTuple):
    """A place of the program, as text only when somebody reads it.

    Attributes:
        thread: Name of the thread; empty outside of a schedule.
        step: The step that it was in.
        frames: Functions of the program and instructions in them, the innermost first.
    """

    thread: str
    step: int
    frames: tuple[tuple[CodeType, int], ...]

    def __str__(self) -> str:
        """Thread, step, and the way there."""
        way = " < ".join(_said(code, lasti) for code, lasti in self.frames)
        return f"{self.thread or 'nobody'} at step {self.step} in {way or 'the harness'}"


def here(besides: str = "") -> Place:
    """Where the calling thread stands; no schedule point.

    Args:
        besides: End of the name of a file whose functions are passed over.
    """
    frames: list[tuple[CodeType, int]] = []
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and len(frames) < _FRAMES:
        file = frame.f_code.co_filename
        inside = file.startswith(PACKAGE)
        if inside and frames and "/engine/" in file.replace("\\", "/"):
            break  # outwards of the program there is only who runs it
        if not inside and not (besides and file.endswith(besides)):
            frames.append((frame.f_code, frame.f_lasti))
        frame = frame.f_back
    cur = CORE.cur
    if cur is OUTSIDE:
        return Place("", 0, tuple(frames))
    return Place(cur.name, CORE.steps, tuple(frames))


def _said(code: CodeType, lasti: int) -> str:
    lines = (line for start, end, line in code.co_lines() if start <= lasti < end and line)
    file = "/".join(code.co_filename.replace("\\", "/").split("/")[-2:])
    return f"{code.co_qualname} ({file}:{next(lines, code.co_firstlineno)})"
