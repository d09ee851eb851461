"""What stands in for the strategy, or around it, when a primitive asks who goes on.

``CORE.choose`` is swapped, never tested: these are what it may be, apart from the strategy itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.engine.thread import Group, Recorder, Thread

if TYPE_CHECKING:
    from harness.engine.core import Choose, Core


class Start:
    """Brings new threads to their first operation; what ``CORE.choose`` is meanwhile.

    Starting is no step: code before a thread's first operation belongs to the step that starts it
    (design, section 3), so nothing is chosen until every new thread has published an operation.
    A thread can start others only by publishing an operation first, so starts never nest, and one
    object does for all of a schedule.

    Attributes:
        parent: Who starts them.
        group: Whom ``parent`` then waits for; None where it goes on.
        pending: New threads that have not been started, the next one last.
    """

    __slots__ = ("core", "group", "parent", "pending")

    parent: Thread

    def __init__(self, core: Core) -> None:
        """Nobody is being started."""
        self.core = core
        self.group: Group | None = None
        self.pending: list[Thread] = []

    def choose(self) -> Thread:
        """Hand the baton to the next new thread; after the last, to whoever goes on."""
        core = self.core
        cur = core.cur
        # Handing the baton around among new threads chooses nothing, so it preempts nobody.
        core.handed = core.steps
        if core.recorder is not None and cur is not self.parent and not cur.done:
            core.recorder.publish(cur)
        if self.pending:
            thread = self.pending.pop()
            thread.started = True
            return thread
        core.choose = core.chooser
        if self.group is None:
            return self.parent
        if self.group.left == 0:
            return core.resume(self.parent)
        if not core.run:
            core.idle()
        core.handed = core.steps + 1
        return core.choose()


def recording(core: Core, inner: Choose, recorder: Recorder) -> Choose:
    """Wrap ``inner`` so that ``recorder`` sees publications and steps."""

    def choose() -> Thread:
        cur = core.cur
        if not cur.done:
            recorder.publish(cur)
        thread = inner()
        recorder.step(thread, core.steps)
        return thread

    return choose


def checking(core: Core, inner: Choose) -> Choose:
    """Wrap ``inner`` so that the step that has just ended is checked first."""

    def choose() -> Thread:
        core.examine(core.invariants)
        return inner()

    return choose


def urgent_first(core: Core, inner: Choose) -> Choose:
    """Wrap ``inner`` so that it sees none but the most urgent of the enabled threads.

    Most urgent is who holds a spinlock, as interrupts are off there; then who has the highest
    priority. The others are disabled for as long as ``inner`` looks. Where the running thread is
    among them, its loss of the baton is the scheduler's doing and no preemption: it has rested.
    """
    run = core.run

    def urgency(thread: Thread) -> tuple[bool, int]:
        return thread.spins > 0, thread.effective_priority

    def choose() -> Thread:
        best = max(urgency(thread) for thread in run)
        hidden = [thread for thread in run if urgency(thread) != best]
        if not hidden:
            return inner()
        everyone = run[:]
        for thread in hidden:
            thread.enabled = False
        run[:] = [thread for thread in everyone if thread.enabled]
        core.steady = core.lease = 0
        if core.cur in hidden:
            core.rest(core.cur)
        try:
            return inner()
        finally:
            for thread in hidden:
                thread.enabled = True
            run[:] = everyone
            core.steady = core.lease = 0

    return choose
