"""Events, and the kill and suspend that end a wait early."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from harness.sync import SpinLock, Thread, WaitQueue, WaitResult, current_thread
from model.status import Status

if TYPE_CHECKING:
    from model.world import World

# Key of the pending kill or suspend in ``Thread.local``.
_SIGNAL: Final = "pending_signal"


def kill(thread: Thread) -> None:
    """Kill ``thread``: its interruptible waits return INTR_KILLED from here on.

    Kernel: ``Thread::Kill``. Omits: the exit itself; operations return the status.
    """
    thread.interrupt()
    # Still within the step of the interrupt: no thread sees one without the other.
    thread.local[_SIGNAL] = Status.INTR_KILLED


def suspend(thread: Thread) -> None:
    """Suspend ``thread``: its next (or present) interruptible wait returns INTR_RETRY.

    A killed thread stays killed.

    Kernel: ``Thread::Suspend``. Omits: standing still until resumed: other threads' steps do that.
    """
    thread.interrupt()
    if thread.local.get(_SIGNAL) is None:
        thread.local[_SIGNAL] = Status.INTR_RETRY


def resume_after_suspend(thread: Thread) -> bool:
    """On the way back to user mode: forget a suspend; True unless the thread was killed."""
    if thread.local.get(_SIGNAL) is Status.INTR_RETRY:
        thread.local[_SIGNAL] = None
    return thread.local.get(_SIGNAL) is None


def pending_signal(thread: Thread) -> Status | None:
    """The status that an interruptible wait of ``thread`` must return, if any."""
    found: Status | None = thread.local.get(_SIGNAL)
    return found


class AutounsignalEvent:
    """An event that wakes one waiter per signal and carries a status.

    Kernel: ``AutounsignalEvent``.
    """

    def __init__(self, world: World, name: str) -> None:
        """Not signalled. No schedule points."""
        self.name = name
        self._faults = world.faults
        self._thread_lock: SpinLock = world.thread_lock
        self._queue = WaitQueue(name)
        self._signalled = False
        self._result = Status.OK

    def signal(self, result: Status = Status.OK) -> None:
        """Wake the waiter with ``result``, or leave it for the next one.

        Locks: takes the thread lock.
        Kernel: ``Event::Signal``.
        """
        with self._thread_lock:
            self._signalled = True
            self._result = result
            if self._queue.waiters:
                self._queue.wake(1)

    def unsignal(self) -> None:
        """Forget a signal that nobody waited for.

        Locks: takes the thread lock.
        Kernel: ``Event::Unsignal``.
        """
        with self._thread_lock:
            self._signalled = False

    def is_signalled(self) -> bool:
        """Whether a signal waits for its waiter; no schedule point, for messages."""
        return self._signalled

    def wait(self, place: str = "", *, interruptible: bool = True) -> Status:
        """Wait for a signal; a kill or suspend of the calling thread ends the wait early.

        Args:
            place: What waits, for injected faults (``model.faults.SITES``), which strike a thread
                that is about to sleep.
            interruptible: False for threads of the kernel itself: nothing else ends their wait.

        Returns:
            The status of the signal, or INTR_KILLED, or INTR_RETRY, or TIMED_OUT (injected).

        Locks: none may be held; takes the thread lock.
        Kernel: ``Event::Wait(Deadline::infinite())``, ``Event::WaitDeadline``.
        """
        me = current_thread()
        with self._thread_lock:
            while not self._signalled:
                if not interruptible:
                    self._queue.block(releasing=self._thread_lock)
                    continue
                signal = self._struck(me, place) or pending_signal(me)
                if signal is not None:
                    return signal
                result = self._queue.block(interruptible=True, releasing=self._thread_lock)
                signal = pending_signal(me)
                if result is WaitResult.INTERRUPTED and signal is not None:
                    return signal
            self._signalled = False
            return self._result

    def _struck(self, me: Thread, place: str) -> Status | None:
        """What an injected fault does to a thread that is about to sleep."""
        for site, signal in (("kill", Status.INTR_KILLED), ("suspend", Status.INTR_RETRY)):
            if self._faults.hit(site, place) and me.local.get(_SIGNAL) is not Status.INTR_KILLED:
                me.local[_SIGNAL] = signal
        # Only a pager is given a time: taking pages back takes as long as it takes.
        timed_out = place == "pager" and self._faults.hit("timer", place)
        return Status.TIMED_OUT if timed_out else None
