"""The heart: controlled threads, schedule points, and the hand-off of the baton.

Exactly one thread of a schedule holds the *baton* at any time, and only its holder runs program or
engine code. That sentence is the memory-safety argument of everything below: no field of the engine
needs a lock, because every reader and writer of it holds the baton. After ``t.wake()`` the old
holder touches nothing but its own ``park``.

The life of one step (see docs/architecture.md for the picture):

1. The running thread reaches a primitive, which *publishes* the pending operation by setting
   ``me.kind`` and ``me.obj``, and says whether it can run (``me`` stays in ``CORE.run``) or not
   (``CORE.block``).
2. It calls ``CORE.choose()``: the strategy's closure, called inline. One call counts the step and
   returns the thread that takes it. Under a *lease* it does not even ask (``Core.lease``).
3. If that is another thread, the baton goes to it directly (``preempt`` or ``switch``); the loser
   parks on its own baton. There is no controller thread.
4. The chosen thread performs its published operation and runs on to its next one.

``choose`` is swapped, never tested: while a new thread runs up to its first operation it is
``Start.choose`` (starting is no step), while a schedule is being unwound ``_choose_unwinding``, and
inside an invariant ``_choose_frozen``. So the usual step pays for none of these.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, Final, NoReturn

from harness.engine.choosers import Start, checking, recording
from harness.engine.finding import (
    Finding,
    cycle_from,
    deadlock,
    for_ever,
    lost_wakeup,
    place,
    place_of,
)
from harness.engine.thread import (
    OUTSIDE,
    Group,
    Recorder,
    Thread,
    called,
    new_label,
    unique,
)
from harness.errors import ScheduleAborted
from harness.lockorder.rules import LockRules

# An unwinding thread may still use primitives in its ``finally`` blocks; a loop there that swallows
# the abort is cut off after this many operations.
UNWIND_OPERATIONS_MAX: Final = 1_000

# First number of the objects that a schedule makes.
PROGRAM_ADDRESSES: Final = 1 << 20

Choose = Callable[[], Thread]


class Core:
    """State of the schedule that runs now; there is one, ``CORE``.

    Attributes:
        schedule: Number of the schedule in its exploration, from 1; 0 for a pilot.
        cur: The thread that holds the baton.
        choose: Called by every primitive once its operation is published: returns the next thread.
        run: Threads whose next operation can run now, in no meaningful but a reproducible order.
        steady: Up to this step the strategy's answer stands: the running thread goes on. Set by a
            strategy that knows; 0 whenever ``run`` changes, a thread yields or sleeps, the limit is
            lowered, or ``choose`` is swapped.
        lease: The same, where nobody looks on: up to this step the running thread need not ask.
        steps: Steps taken so far in this schedule.
        limit: The step bound; set to 0 from outside to stop the schedule at its next step.
        clock: Virtual time, seconds; ``told`` where the program read it since that was cleared.
    """

    __slots__ = (
        "aborting",
        "addresses",
        "choices",
        "choose",
        "chooser",
        "clock",
        "cur",
        "cut",
        "early",
        "error",
        "finding",
        "frozen",
        "groups",
        "handed",
        "handovers",
        "histories",
        "invariants",
        "leaks",
        "lease",
        "limit",
        "names",
        "preemptions",
        "quiescent",
        "ranked",
        "reached",
        "recorder",
        "rules",
        "run",
        "starting",
        "stop",
        "steady",
        "steps",
        "strategy_choose",
        "schedule",
        "thread_names",
        "threads",
        "timers",
        "told",
        "unwind_operations",
        "workers",
    )

    controlled: ClassVar[bool] = True  # a strategy decides who runs
    cur: Thread
    choose: Choose
    chooser: Choose
    rules: LockRules
    strategy_choose: Choose
    workers: Any

    def __init__(self) -> None:
        """Nothing runs yet."""
        self.cur = OUTSIDE
        self.workers = None
        self.limit = 0
        self.stop: str | None = None
        self.schedule = 0
        self.frozen: Choose = self._choose_frozen
        self.groups: list[Group] = []
        self.clear()
        self.addresses = itertools.count(1)

    def clear(self) -> None:
        """Forget the last schedule. The lists keep their identity: strategies hold on to them."""
        for group in self.groups:
            group.forget()
        self.groups = []
        self.recorder: Recorder | None = None
        self.starting = Start(self)
        self.run: list[Thread] = []
        self.threads: list[Thread] = []
        self.timers: list[Thread] = []
        self.choices: list[int] = []
        self.names: dict[Any, str] = {}
        self.thread_names = {"main": 1}
        self.invariants: list[tuple[str, Callable[[], object]]] = []
        self.quiescent: list[tuple[str, Callable[[], object]]] = []
        self.reached: set[str] = set()
        self.histories: dict[tuple[str, str], int] = {}  # outcome and why: how many had it
        self.leaks: list[tuple[Thread, Any]] = []
        self.steps = self.handovers = self.preemptions = self.unwind_operations = 0
        # The step that any thread may take for free: who took the last could not go on, or rested.
        self.handed = 0
        # Order of creation stands for the address; what was made before keeps the numbers below.
        self.addresses = itertools.count(PROGRAM_ADDRESSES)
        self.clock = 0.0
        self.told = self.aborting = False
        self.early = self.ranked = False  # ranked: only the most urgent threads are chosen
        self.steady = self.lease = 0
        self.cut: str | None = None  # why the schedule ended without a finding, if it was cut
        self.error: BaseException | None = None
        self.finding: Finding | None = None

    # -- handing the baton on -------------------------------------------------------------------

    def switch(self, me: Thread, to: Thread) -> None:
        """Give the baton to ``to`` and park until somebody gives it back.

        Raises:
            ScheduleAborted: The schedule ended meanwhile; ``me`` is being unwound.
        """
        self.cur = to
        self.handovers += 1
        to.wake()
        me.park()
        if self.aborting:
            raise ScheduleAborted

    def preempt(self, me: Thread, to: Thread) -> None:
        """Switch away from ``me`` although its published operation could run."""
        # ``switch``, written out: this is where the time of a random walk goes. What else makes
        # this no preemption (see ``costs``) ``to`` knows: it calls ``spared`` as it goes on.
        if self.steps != self.handed:
            self.preemptions += 1
        else:
            self.handovers += 1
        self.cur = to
        to.wake()
        me.park()
        if self.aborting:
            raise ScheduleAborted

    def spared(self) -> None:
        """The calling thread has just got the baton, and whoever it came from was not preempted."""
        if self.steps != self.handed and not self.aborting:
            self.preemptions -= 1
            self.handovers += 1

    @property
    def switches(self) -> int:
        """How often the baton was handed on; ``handovers`` are those that were no preemption."""
        return self.preemptions + self.handovers

    def costs(self, to: Thread) -> bool:
        """Whether going from the running thread, enabled, to ``to`` is a preemption.

        Not after its own yield or sleep, nor where it came to the baton as another could not go on.
        """
        return self.steps != self.handed and not to.early and to.kind != "interrupt"

    def block(self, me: Thread, timeout: float | None = None) -> None:
        """``me`` cannot perform its published operation: park until it is chosen.

        Args:
            me: The calling thread.
            timeout: Seconds of virtual time after which it may be chosen anyway; the caller sees
                that by its operation still being impossible.

        Raises:
            ScheduleAborted: The schedule ended meanwhile, or this wait closed a cycle.
        """
        if self.aborting:
            raise ScheduleAborted
        self.run.remove(me)
        self.steady = self.lease = 0
        self.handed = self.steps + 1
        me.enabled = False
        me.excused = False
        if timeout is None:
            self.look_for_cycle(me)
        else:
            self.arm(me, timeout)
            if self.early or timeout <= 0:
                self.run.append(me)
                me.enabled = me.early = True
        if not self.run:
            self.idle()
        try:
            chosen = self.choose()
            if chosen is not me:
                self.switch(me, chosen)
        finally:
            if timeout is not None:
                self.disarm(me)

    def arm(self, me: Thread, timeout: float) -> None:
        """``me`` begins a wait that may run out ``timeout`` seconds from now."""
        me.deadline = self.clock + max(timeout, 0.0)
        self.timers.append(me)

    def disarm(self, me: Thread) -> None:
        """The timed wait of ``me`` is over; a timeout fired early moves the clock on."""
        deadline = me.deadline
        if deadline is None:
            return
        self.timers.remove(me)
        me.deadline = None
        if me.early:
            self.spared()
            me.early = False
            me.excused = True
            self.rest(me)  # the timer only made it runnable: to switch back is free
            self._advance(deadline)

    def rest(self, me: Thread) -> None:
        """``me`` has yielded, slept, or was pushed aside: to switch away from it is free."""
        me.rested = self.steps
        self.handed = self.steps + 1
        self.steady = self.lease = 0

    def cancel(self, thread: Thread) -> None:
        """The wait of ``thread``, which is parked, cannot run out any more: it was woken."""
        if thread.deadline is not None:
            thread.deadline = None
            self.timers.remove(thread)
        if thread.early:
            thread.early = thread.enabled = False
            self.run.remove(thread)
            self.steady = self.lease = 0

    def enable(self, thread: Thread) -> None:
        """``thread``'s published operation can run now."""
        thread.early = False
        if not thread.enabled:
            thread.enabled = True
            self.run.append(thread)
            self.steady = self.lease = 0

    def disable(self, thread: Thread) -> None:
        """``thread``'s published operation cannot run any more; it stays parked.

        Unless its time may run out now, or has: then it may still be chosen, to fail.
        """
        if thread.excused or thread.early:
            return
        if thread.deadline is not None and (self.early or thread.deadline <= self.clock):
            thread.early = True
        elif thread.enabled:
            thread.enabled = False
            self.run.remove(thread)
            self.steady = self.lease = 0

    def enable_all(self, threads: Iterable[Thread]) -> None:
        """``enable`` for all of ``threads``, in their order."""
        self.steady = self.lease = 0
        for thread in threads:
            thread.early = False
            if not thread.enabled:
                thread.enabled = True
                self.run.append(thread)

    def disable_all(self, threads: Sequence[Thread]) -> None:
        """``disable`` for all of ``threads``; linear in the number of enabled threads."""
        if len(threads) == 1:
            self.disable(threads[0])
            return
        gone = False
        for thread in threads:
            if thread.deadline is None and not thread.excused:
                thread.enabled = False
                gone = True
            else:
                self.disable(thread)
        if gone:
            self.run[:] = [thread for thread in self.run if thread.enabled]
            self.steady = self.lease = 0

    def idle(self) -> None:
        """Nothing can run: let virtual time pass to the next deadline, or name what is stuck."""
        while not self.run:
            if not self.timers:
                self.stuck()
            self._advance(min(thread.deadline or 0.0 for thread in self.timers))

    def _advance(self, clock: float) -> None:
        """Move virtual time to ``clock``; the waits whose deadline has come run out."""
        self.clock = max(self.clock, clock)
        for thread in tuple(self.timers):
            if thread.deadline is not None and thread.deadline <= self.clock:
                self.cancel(thread)
                thread.obj.expire(thread)

    # -- choosing in special situations ---------------------------------------------------------

    def over(self) -> None:
        """The step bound was reached, or somebody outside asked the schedule to stop.

        Raises:
            ScheduleAborted: Always.
        """
        if self.aborting:
            raise ScheduleAborted
        self.end(self.stop or "bound", self.error)

    def _choose_unwinding(self) -> Thread:
        """Operations of a thread that is being unwound go through without switching."""
        self.unwind_operations += 1
        if self.unwind_operations > UNWIND_OPERATIONS_MAX:
            raise ScheduleAborted
        return self.cur

    def _choose_frozen(self) -> Thread:
        """Inside an invariant no operation is a schedule point."""
        return self.cur

    def compose(self) -> None:
        """Build ``chooser`` from the strategy, the recorder and the invariants of this schedule."""
        chooser = self.strategy_choose
        if self.recorder is not None:
            chooser = recording(self, chooser, self.recorder)
        if self.invariants:
            chooser = checking(self, chooser)
        if self.choose is self.chooser:
            self.choose = chooser
        self.chooser = chooser
        self.steady = self.lease = 0

    def examine(self, predicates: Iterable[tuple[str, Callable[[], object]]]) -> None:
        """Evaluate invariants; no schedule point inside.

        Raises:
            ScheduleAborted: One is broken; the finding is recorded.
        """
        choose = self.choose
        self.choose = self.frozen
        self.steady = self.lease = 0
        try:
            for name, predicate in predicates:
                try:
                    result = predicate()
                except AssertionError as error:
                    # One predicate may check several named invariants.
                    self.broken(getattr(error, "rule", name), str(error))
                if result is not None and not result:
                    self.broken(name, "")
        finally:
            if not self.aborting:
                self.choose = choose

    @property
    def examining(self) -> bool:
        """Whether an invariant is being evaluated right now."""
        return self.choose is self.frozen

    # -- threads --------------------------------------------------------------------------------

    def create(
        self, fn: Callable[..., object], args: tuple[Any, ...], name: str | None, priority: int
    ) -> Thread:
        """Make a thread that is enabled but has not run yet."""
        name = unique(name or called(fn), self.thread_names)
        thread = Thread(len(self.threads), name, priority, fn, args)
        self.threads.append(thread)
        self.run.append(thread)
        self.steady = self.lease = 0
        self.workers.assign(thread)
        return thread

    def start(self, parent: Thread, members: list[Thread], group: Group | None) -> None:
        """Run each new thread up to its first operation, then go on; part of the current step.

        Without a ``group`` (spawn) the baton comes back to ``parent``; with one (parallel) the
        parent waits for all members, and the last to arrive chooses the next step.
        """
        start = self.starting
        start.parent = parent
        start.group = group
        start.pending = members[:0:-1]
        if group is not None:
            self.run.remove(parent)
            self.steady = self.lease = 0
            parent.enabled = False
        self.choose = start.choose
        members[0].started = True
        self.switch(parent, members[0])

    def depart(self, me: Thread) -> Thread:
        """``me`` has ended; return the thread that goes on.

        Raises:
            ScheduleAborted: Its end leaves others stuck for ever; the finding is recorded.
        """
        me.done = True
        me.enabled = False
        self.run.remove(me)
        self.steady = self.lease = 0
        self.handed = self.steps + 1
        for waiter in me.wanters:
            self.enable(waiter)
        for lock in me.held:
            self.leaks.append((me, lock))
            for waiter in lock.wanters:
                if for_ever(waiter):
                    self.look_for_cycle(waiter)
        for queue in me.owned:
            for waiter in queue.waiters:
                if for_ever(waiter):
                    self.look_for_cycle(waiter)
        group = me.group
        if group is not None:
            group.left -= 1
        if self.choose is not self.chooser:
            # Still starting: whoever starts the threads goes on.
            return self.choose()
        if group is not None and group.left == 0:
            return self.resume(group.parent)
        if not self.run:
            self.idle()
        return self.choose()

    def resume(self, parent: Thread) -> Thread:
        """All threads of a ``parallel`` call have ended: its caller goes on, in the same step."""
        parent.enabled = True
        self.run.append(parent)
        self.steady = self.lease = 0
        self.handed = self.steps + 1
        return parent

    # -- ending a schedule ----------------------------------------------------------------------

    def end(self, cut: str, error: BaseException | None = None) -> NoReturn:
        """End the schedule without a finding, for the reason ``cut``; unwind the caller."""
        if not self.aborting:
            self.cut = cut
            self.error = error
            self.unwind()
        raise ScheduleAborted

    def fail(self, finding: Finding) -> NoReturn:
        """Record ``finding`` and end the schedule; unwind the caller."""
        self.record(finding)
        raise ScheduleAborted

    def record(self, finding: Finding) -> None:
        """Keep the first finding of a schedule; all that follow are its consequences."""
        if not self.aborting:
            self.finding = finding
            self.unwind()

    def unwind(self) -> None:
        """From here on threads are taken down, and no operation switches any more."""
        if self.recorder is not None:
            self.recorder.freeze()
        self.aborting = True
        self.choose = self._choose_unwinding
        self.steady = self.lease = 0

    def next_to_unwind(self) -> Thread:
        """The thread that is taken down next: the youngest index first, thread 0 last."""
        for thread in self.threads[1:]:
            if not thread.done:
                if thread.started:
                    return thread
                thread.done = True
                self.workers.reclaim(thread)
        return self.threads[0]

    # -- findings -------------------------------------------------------------------------------

    def look_for_cycle(self, me: Thread) -> None:
        """Report a deadlock if ``me`` now waits, however indirectly, for itself or for the dead.

        Raises:
            ScheduleAborted: There is one; the finding is recorded.
        """
        cycle = cycle_from(me)
        if cycle is not None:
            self.deadlocked(cycle)

    def deadlocked(self, cycle: list[tuple[Thread, Thread]]) -> NoReturn:
        """Report ``cycle``."""
        self.fail(deadlock(cycle, self.cur, self.label))

    def stuck(self) -> NoReturn:
        """Nothing can run, nor time pass: a deadlock if there is a cycle, else a lost wakeup."""
        live = [thread for thread in self.threads if not thread.done]
        for thread in live:
            cycle = cycle_from(thread)
            if cycle is not None:
                self.deadlocked(cycle)
        self.fail(lost_wakeup(live, self.cur, self.label))

    def broken(self, name: str, detail: str) -> NoReturn:
        """Report a broken invariant."""
        message = f"{name}: {detail}" if detail and not detail.startswith(name) else detail or name
        frame = place_of(self.cur)
        self.fail(Finding("invariant", message, self.cur, rule=name, frames=[frame]))

    def violated(self, kind: str, rule: str, message: str, order: Any = None) -> NoReturn:
        """Report a broken rule (guard, lock-order) at the place where the caller stands."""
        frame = place_of(self.cur)
        self.fail(Finding(kind, message, self.cur, rule=rule, frames=[frame], order=order))

    def nondeterministic(self, message: str) -> NoReturn:
        """The same choices led somewhere else: the program is not a function of its choices."""
        self.fail(Finding("nondeterminism", message, self.cur))

    def waiting(self, me: Thread, what: str, giving_up: Any = None) -> None:
        """``me`` is about to wait: tell the lock rules which locks it keeps meanwhile."""
        if me.spins:
            self.under_spin(me, what, giving_up)
        if me.locks is not None and me.locks.entries:
            address = None if giving_up is None else giving_up.address
            self.rules.waits(me.locks, place(), what, address)

    def under_spin(self, me: Thread, what: str, giving_up: Any = None) -> None:
        """A thread that spins others may not block: the kernel would hang a CPU.

        Raises:
            ScheduleAborted: ``me`` holds a spinlock other than ``giving_up``: a finding.
        """
        held = [lock for lock in me.held if lock.spins and lock is not giving_up]
        if held and not self.aborting:
            if me.locks is not None:
                self.rules.spins(me.locks, held[-1].address, me.obj, place())
            spin = self.label(held[-1])
            message = f"{me.name} would block in {what} while it holds the spinlock {spin}"
            self.violated("lock-order", "CTX001", message)

    # -- names ----------------------------------------------------------------------------------

    def label(self, obj: Any) -> str:
        """The name of a resource: its own, or its kind and the order of first use."""
        known = self.names.get(obj)
        if known is None:
            known = self.names[obj] = new_label(obj, self.names)
        return known


CORE: Final = Core()
Thread.engine = CORE
