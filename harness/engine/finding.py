"""What went wrong, and where: findings, wait-for cycles, the place where a thread stands."""

from __future__ import annotations

import os
import sys
from _thread import get_ident
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from harness.engine.thread import Thread

if TYPE_CHECKING:
    from types import FrameType


class Finding:
    """What went wrong in a schedule, as the engine saw it while the threads still stood there.

    Attributes:
        kind: One of the kinds of ``Failure``.
        message: One or more lines for a reader; never part of a fingerprint.
        rule: Exception type, invariant name or rule, as it enters the fingerprint.
        frames: ``(code, lasti)`` of the places involved.
        cycle: ``(thread, holder)`` pairs of a wait-for cycle, closing on the first.
        error: The exception, where there is one.
        thread: The thread that was running.
        order: The lock-order finding, where the kind is ``lock-order``.
    """

    __slots__ = ("cycle", "error", "frames", "kind", "message", "order", "rule", "thread")

    def __init__(
        self,
        kind: str,
        message: str,
        thread: Thread,
        *,
        rule: str = "",
        frames: Sequence[tuple[Any, int]] = (),
        cycle: Sequence[tuple[Thread, Thread]] = (),
        error: BaseException | None = None,
        order: Any = None,
    ) -> None:
        """Plain data; built once, at the moment of the finding."""
        self.kind = kind
        self.message = message
        self.thread = thread
        self.rule = rule
        self.frames = tuple(frames)
        self.cycle = tuple(cycle)
        self.error = error
        self.order = order


# -- the wait-for graph -------------------------------------------------------------------------


def cycle_from(start: Thread) -> list[tuple[Thread, Thread]] | None:
    """A wait-for path from ``start`` back to itself, or to a thread that has ended.

    Only threads that can be freed by nobody else are followed: no timeout, not interruptible.
    """
    if start.obj is None:
        return None
    for holder in start.obj.blockers(start):
        if holder is start or holder.done or for_ever(holder):
            return _path_from(start)
    return None


def _path_from(start: Thread) -> list[tuple[Thread, Thread]] | None:
    """The search behind ``cycle_from``, for the rare wait whose holder is stuck or gone itself."""
    path: list[tuple[Thread, Thread]] = []
    seen = [start]

    def visit(waiter: Thread) -> bool:
        if waiter.obj is None:
            return False
        for holder in waiter.obj.blockers(waiter):
            path.append((waiter, holder))
            if holder is start or holder.done:
                return True
            if for_ever(holder) and holder not in seen:
                seen.append(holder)
                if visit(holder):
                    return True
            path.pop()
        return False

    return path if visit(start) else None


def for_ever(thread: Thread) -> bool:
    """Whether only another thread's progress can free ``thread``."""
    return not thread.enabled and thread.deadline is None and not thread.interruptible


def how_it_blocks(waiter: Thread, holder: Thread) -> str:
    """How ``holder`` stands in the way, in words."""
    if holder.done:
        return f"kept by {holder.name}, which has ended"
    if waiter.kind in ("join", "parallel"):
        return (
            f"which waits for {holder.name}" if waiter.obj is not holder else "which has not ended"
        )
    if holder.obj is waiter.obj and waiter.obj not in holder.held:
        return f"behind {holder.name}, which waits for it too"
    return f"held by {holder.name}"


def deadlock(
    cycle: Sequence[tuple[Thread, Thread]], cur: Thread, label: Callable[[object], str]
) -> Finding:
    """A wait-for cycle, told in a line for each of its edges.

    Args:
        cycle: ``(waiter, holder)`` pairs; the last holder is the first waiter, or has ended.
        cur: The thread that runs.
        label: Names a resource.
    """
    lines = [f"{len(cycle)} thread{'s wait' if len(cycle) > 1 else ' waits'} in a cycle"]
    if cycle[-1][1].done:
        lines = [f"{cycle[0][0].name} waits for a thread that has ended"]
    lines += [
        f"{waiter.name} waits for {label(waiter.obj)} ({waiter.kind}), "
        f"{how_it_blocks(waiter, holder)}"
        for waiter, holder in cycle
    ]
    frames = [place_of(waiter) for waiter, _ in cycle]
    return Finding("deadlock", "\n".join(lines), cur, frames=frames, cycle=cycle)


def lost_wakeup(live: Sequence[Thread], cur: Thread, label: Callable[[object], str]) -> Finding:
    """``live`` threads wait for what nobody will do; arguments as in ``deadlock``."""
    lines = ["nothing can run, and no thread waits for a lock in a cycle"]
    lines += [f"{thread.name} waits for {label(thread.obj)} ({thread.kind})" for thread in live]
    frames = [place_of(thread) for thread in live]
    return Finding("lost-wakeup", "\n".join(lines), cur, frames=frames)


# -- where a thread stands ----------------------------------------------------------------------

PACKAGE: Final = __file__.rsplit("engine", 1)[0]
# The program is called from here.
_OUTERMOST: Final = f"{PACKAGE}engine{os.sep}schedule.py"
# And in free mode.
_AROUND: Final = (_OUTERMOST, f"{PACKAGE}search{os.sep}")
# A function with a local variable of this name only raises: the failure is its caller's.
HIDE: Final = "__tracebackhide__"


def _outside_harness(frame: FrameType | None) -> FrameType | None:
    """The first frame of the program under test, going outwards.

    None once the program has returned: who explores it differs from who replays it.
    """
    while frame is not None and frame.f_code.co_filename.startswith(PACKAGE):
        frame = None if frame.f_code.co_filename == _OUTERMOST else frame.f_back
    return frame


def stack_of(thread: Thread) -> list[tuple[Any, int]]:
    """Each ``(code, lasti)`` of the program in which ``thread`` stands, the innermost first.

    It is parked, or the caller itself. Frames of the harness are left out, and what lies outside
    of the program.
    """
    if thread.ident == get_ident():
        frame: FrameType | None = sys._getframe(1)
    elif not thread.started and thread.index:
        return []
    else:
        frame = sys._current_frames().get(thread.ident)
    found = []
    frame = _outside_harness(frame)
    while frame is not None and not frame.f_code.co_filename.startswith(_AROUND):
        if not frame.f_code.co_filename.startswith(PACKAGE):
            found.append((frame.f_code, frame.f_lasti))
        frame = frame.f_back
    return found


def place() -> tuple[Any, int]:
    """``(code, lasti)`` of the innermost program frame of the calling thread."""
    frame = _outside_harness(sys._getframe(1))
    return (None, 0) if frame is None else (frame.f_code, frame.f_lasti)


def place_of(thread: Thread) -> tuple[Any, int]:
    """``(code, lasti)`` where ``thread`` stands; it is parked, or the caller itself."""
    if thread.ident == get_ident():
        return place()
    if not thread.started and thread.index:
        return (None, 0)
    frame = _outside_harness(sys._current_frames().get(thread.ident))
    return (None, 0) if frame is None else (frame.f_code, frame.f_lasti)
