"""The film of a recorded schedule: where everything is after each step, as what changed in it."""

from __future__ import annotations

from collections.abc import Sequence

from harness.engine.core import Core
from harness.engine.view import Placed, View, seen
from harness.trace.events import Frame


class Film:
    """Looks at the program's views after every step, and keeps what differs from the last look."""

    def __init__(self, core: Core) -> None:
        """Args: core: The engine whose schedule is about to run."""
        self._core = core
        self._views: list[View] = []
        self._last: dict[str, Placed] = {}
        self._frames: list[Frame] = []

    def add(self, view: View) -> None:
        """Look at ``view``, too, from now on."""
        self._views.append(view)

    def look(self, step: int) -> None:
        """Step number ``step`` is over: what is different now?"""
        if not self._views:
            return
        now = seen(self._core, self._views)
        last = self._last
        changed = {name: placed for name, placed in now.items() if last.get(name) != placed}
        gone = tuple(name for name in last if name not in now)
        if changed or gone:
            self._frames.append(Frame(step, changed, gone))
        self._last = now

    def frames(self, first: int) -> tuple[Frame, ...]:
        """All frames for a reader who begins with step ``first``: earlier ones become one."""
        return merged(self._frames, first - 1)


def merged(frames: Sequence[Frame], start: int) -> tuple[Frame, ...]:
    """``frames`` with all up to ``start`` put together into one."""
    early = [frame for frame in frames if frame.step <= start]
    if len(early) < 2:
        return tuple(frames)
    shown: dict[str, Placed] = {}
    for frame in early:
        shown.update(frame.changed)
        for name in frame.gone:
            del shown[name]
    return (Frame(early[-1].step, shown), *frames[len(early) :])
