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
   returns the thread that takes it.
3. If that is another thread, the baton goes to it directly (``preempt`` or ``switch``); the loser
   parks on its own baton. There is no controller thread.
4. The chosen thread performs its published operation and runs on to its next one.

``choose`` is swapped, never tested: while a new thread runs up to its first operation it is
``_Start.choose`` (hands the baton back to the starter: starting is no step), while a schedule is
being unwound it is ``_choose_unwinding`` (operations go through without switching), and inside an
invariant it is ``_choose_frozen``. So the usual step pays for none of these.
"""

from __future__ import annotations

import itertools
import sys
from _thread import get_ident
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, NoReturn, Protocol

from harness.errors import InternalError, ScheduleAborted, UsageError
from harness.lockorder.rules import HeldLocks, LockRules

if TYPE_CHECKING:
    from types import FrameType

# An unwinding thread may still use primitives in its ``finally`` blocks; a loop there that swallows
# the abort is cut off after this many operations.
UNWIND_OPERATIONS_MAX: Final = 1_000

# First number of the objects that a schedule makes.
PROGRAM_ADDRESSES: Final = 1 << 20

Choose = Callable[[], "Thread"]


class Resource(Protocol):
    """What an operation is on: a primitive, a thread, a group of threads."""

    name: str | None

    def blockers(self, waiter: Thread) -> Iterable[Thread]:
        """Threads that must act before ``waiter`` can go on; empty where nobody owns it."""


class Recorder(Protocol):
    """What sees every step of a schedule that is recorded in full."""

    def publish(self, thread: Thread) -> None:
        """``thread`` has announced its next operation."""

    def step(self, thread: Thread, steps: int) -> None:
        """``thread`` has been chosen for step number ``steps``."""

    def outcome(self, value: object) -> None:
        """The operation of the last step returned ``value``."""

    def note(self, text: str) -> None:
        """Attach a remark to the last step."""

    def freeze(self) -> None:
        """The schedule ends here; threads still stand where they are."""


class Thread:
    """A thread of the program under test; what ``spawn`` returns and ``current_thread`` gives.

    Attributes:
        index: Order of creation in its schedule; the caller is 0.
        name: Unique in its schedule.
        priority: Base priority; larger is more urgent. Only wait queues with owners look at it.
        result: What the function returned; None until then.
        local: A dict for the program's own per-thread data.
        held: Locks this thread holds, in the order of acquisition.
    """

    __slots__ = (
        "args",
        "deadline",
        "done",
        "early",
        "enabled",
        "fn",
        "group",
        "held",
        "ident",
        "index",
        "interrupted",
        "interruptible",
        "kind",
        "local",
        "locks",
        "name",
        "obj",
        "owned",
        "park",
        "priority",
        "rank",
        "released",
        "releasing",
        "rested",
        "result",
        "spins",
        "started",
        "excused",
        "wake",
        "wanters",
    )

    kind: str
    obj: Any
    wake: Callable[[], object]
    park: Callable[[], object]

    def __init__(self, index: int, name: str, priority: int = 0) -> None:
        """Only the engine makes threads; programs use ``spawn`` and ``parallel``."""
        self.index = index
        self.name = name
        self.priority = priority
        self.kind = ""
        self.obj = None
        self.fn: Callable[..., object] | None = None
        self.args: tuple[Any, ...] = ()
        self.result: Any = None
        self.local: dict[str, Any] = {}
        self.held: list[Any] = []
        self.locks: HeldLocks | None = None
        # Wait queues that this thread owns: their waiters lend it their priority.
        self.owned: list[Any] = []
        self.wanters: list[Thread] = []
        self.group: Group | None = None
        self.ident = 0
        self.spins = 0
        # PCT's priority of this thread; None until it has been drawn.
        self.rank: int | None = None
        # Number of the step in which this thread last yielded or slept.
        self.rested = -1
        self.deadline: float | None = None
        self.enabled = True
        self.started = False
        self.done = False
        # May be chosen although its operation cannot run: choosing it fires its timeout.
        self.early = False
        # May be chosen to return empty-handed: its wait has timed out or was interrupted.
        self.excused = False
        # Was woken for good: a notify, a set or a wake was meant for this thread.
        self.released = False
        # The lock that the wait it is about to begin gives up, where that is not the condition's.
        self.releasing: Any = None
        self.interruptible = False
        self.interrupted = False

    def __repr__(self) -> str:
        """Name and index; never an address, since traces may show it."""
        return f"<Thread {self.index} {self.name!r}>"

    def is_alive(self) -> bool:
        """Whether the thread has not ended; no schedule point."""
        return not self.done

    def join(self, timeout: float | None = None) -> None:
        """Wait until the thread has ended; one step.

        Args:
            timeout: Seconds of virtual time; None waits for ever. As in ``threading``, look at
                ``is_alive`` to learn whether it ran out.

        Raises:
            RuntimeError: A thread joined itself.
        """
        core = CORE
        me = core.cur
        if self is me:
            raise RuntimeError("cannot join current thread")
        me.kind = "join"
        me.obj = self
        if not self.done:
            core.waiting(me, "join")
        if self.done:
            chosen = core.choose()
            if chosen is not me:
                core.preempt(me, chosen)
            return
        self.wanters.append(me)
        try:
            core.block(me, timeout)
        finally:
            self.wanters.remove(me)

    def interrupt(self) -> None:
        """End this thread's interruptible wait early, now or when it next begins one; one step."""
        core = CORE
        me = core.cur
        me.kind = "interrupt"
        me.obj = self
        chosen = core.choose()
        if chosen is not me:
            core.preempt(me, chosen)
        if self.done:
            return
        self.interrupted = True
        if self.interruptible and not self.released:
            self.obj.expire(self)

    def expire(self, waiter: Thread) -> None:
        """A timed join has run out."""
        waiter.excused = True
        CORE.enable(waiter)

    @property
    def effective_priority(self) -> int:
        """Base priority, or that of the most urgent thread that waits for this one if higher.

        Inheritance is transitive through wait queues with owners (``WaitQueue.assign_owner``).
        """
        best = self.priority
        seen = [self]
        for thread in seen:
            best = max(best, thread.priority)
            for queue in thread.owned:
                seen.extend(waiter for waiter in queue.waiters if waiter not in seen)
        return best

    def blockers(self, waiter: Thread) -> Sequence[Thread]:
        """A joiner waits for the thread itself."""
        return () if self.done else (self,)


class Group:
    """The threads of one ``parallel`` call; the caller waits for all of them."""

    __slots__ = ("left", "members", "name", "parent")

    def __init__(self, parent: Thread, members: list[Thread]) -> None:
        """``left`` counts down as members end; the last one hands the baton to ``parent``."""
        self.name: str | None = None
        self.parent = parent
        self.members = members
        self.left = len(members)

    def blockers(self, waiter: Thread) -> list[Thread]:
        """The caller waits for every member that has not ended."""
        return [member for member in self.members if not member.done]


class _Outside:
    """Stands for the current thread where no schedule runs: any use of it says so.

    A schedule point outside a schedule therefore costs the hot path no test of its own.
    """

    def __getattr__(self, name: str) -> NoReturn:
        """Reading any thread attribute means that a primitive was used."""
        raise UsageError(_OUTSIDE)

    def __setattr__(self, name: str, value: object) -> None:
        """Publishing an operation means that a primitive was used."""
        raise UsageError(_OUTSIDE)


_OUTSIDE = (
    "a harness primitive was used outside of a schedule; "
    "use it inside the program given to explore(), replay() or check()"
)
OUTSIDE: Final[Any] = _Outside()


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


class Core:
    """State of the schedule that runs now; there is one, ``CORE``.

    Attributes:
        schedule: Number of the schedule in its exploration, from 1; 0 for a pilot.
        cur: The thread that holds the baton.
        choose: Called by every primitive once its operation is published: returns the next thread.
        run: Threads whose next operation can run now, in no meaningful but a reproducible order.
        fresh: Set whenever a thread entered ``run``; a strategy may clear it.
        steps: Steps taken so far in this schedule.
        limit: The step bound; set to 0 from outside to stop the schedule at its next step.
        clock: Virtual time, seconds.
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
        "fresh",
        "invariants",
        "leaks",
        "limit",
        "names",
        "preemptions",
        "quiescent",
        "reached",
        "recorder",
        "rules",
        "run",
        "stop",
        "steps",
        "strategy_choose",
        "schedule",
        "switches",
        "thread_names",
        "threads",
        "timers",
        "unwind_operations",
        "workers",
    )

    cur: Thread
    choose: Choose
    chooser: Choose
    strategy_choose: Choose
    workers: Any

    def __init__(self) -> None:
        """Nothing runs yet."""
        self.cur = OUTSIDE
        self.workers = None
        self.limit = 0
        self.stop: str | None = None
        self.schedule = 0
        self.reached: set[str] = set()
        self.clear()
        self.addresses = itertools.count(1)

    def clear(self) -> None:
        """Forget the last schedule. The lists keep their identity: strategies hold on to them."""
        self.recorder: Recorder | None = None
        self.rules = LockRules()
        self.run: list[Thread] = []
        self.threads: list[Thread] = []
        self.timers: list[Thread] = []
        self.choices: list[int] = []
        self.names: dict[Any, str] = {}
        self.thread_names = {"main": 1}
        self.invariants: list[tuple[str, Callable[[], object]]] = []
        self.quiescent: list[tuple[str, Callable[[], object]]] = []
        self.leaks: list[tuple[Thread, Any]] = []
        self.steps = self.switches = self.preemptions = 0
        self.unwind_operations = 0
        # Order of creation stands for the address. What the program makes is numbered from the same
        # start in every schedule; what was made before keeps the numbers below.
        self.addresses = itertools.count(PROGRAM_ADDRESSES)
        self.clock = 0.0
        self.early = False
        self.fresh = True
        self.aborting = False
        # Why the schedule ended early without a finding: bound, blocked, hang, interrupted, ...
        self.cut: str | None = None
        self.error: BaseException | None = None
        self.finding: Finding | None = None

    # -- handing the baton on -------------------------------------------------------------------

    def switch(self, me: Thread, to: Thread) -> None:
        """Give the baton to ``to`` and park until somebody gives it back.

        Raises:
            ScheduleAborted: The schedule ended meanwhile; ``me`` is being unwound.
        """
        if get_ident() != me.ident:
            self.foreign()
        self.cur = to
        self.switches += 1
        to.wake()
        me.park()
        if self.aborting:
            raise ScheduleAborted

    def preempt(self, me: Thread, to: Thread) -> None:
        """Switch away from ``me`` although its published operation could run."""
        if self.costs(me, to):
            self.preemptions += 1
        self.switch(me, to)

    def costs(self, me: Thread, to: Thread) -> bool:
        """Whether going from ``me`` (enabled) to ``to`` counts as a preemption.

        Not after ``me``'s own yield or sleep; and firing a timeout, a kill or a suspend is a choice
        of the environment, not a preemption (design, section 3).
        """
        return me.rested != self.steps - 1 and not to.early and to.kind != "interrupt"

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
            me.early = False
            me.excused = True
            self._advance(deadline)

    def cancel(self, thread: Thread) -> None:
        """The wait of ``thread``, which is parked, cannot run out any more: it was woken."""
        if thread.deadline is not None:
            thread.deadline = None
            self.timers.remove(thread)
        if thread.early:
            thread.early = thread.enabled = False
            self.run.remove(thread)

    def enable(self, thread: Thread) -> None:
        """``thread``'s published operation can run now."""
        thread.early = False
        if not thread.enabled:
            thread.enabled = True
            self.run.append(thread)
            self.fresh = True

    def disable(self, thread: Thread) -> None:
        """``thread``'s published operation cannot run any more; it is parked and stays so."""
        if thread.excused:
            return
        if self.early and thread.deadline is not None:
            thread.early = True
        elif thread.enabled:
            thread.enabled = False
            self.run.remove(thread)

    def enable_all(self, threads: Iterable[Thread]) -> None:
        """``enable`` for all of ``threads``, in their order."""
        for thread in threads:
            thread.early = False
            if not thread.enabled:
                thread.enabled = True
                self.run.append(thread)
                self.fresh = True

    def disable_all(self, threads: Iterable[Thread]) -> None:
        """``disable`` for all of ``threads``; linear in the number of enabled threads."""
        gone = False
        for thread in threads:
            if thread.deadline is None and not thread.excused:
                thread.enabled = False
                gone = True
            else:
                self.disable(thread)
        if gone:
            self.run[:] = [thread for thread in self.run if thread.enabled]

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
        self.end(self.stop or "bound")

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
            chooser = _recording(self, chooser, self.recorder)
        if self.invariants:
            chooser = _checking(self, chooser)
        if self.choose is self.chooser:
            self.choose = chooser
        self.chooser = chooser

    def examine(self, predicates: Iterable[tuple[str, Callable[[], object]]]) -> None:
        """Evaluate invariants; no schedule point inside.

        Raises:
            ScheduleAborted: One is broken; the finding is recorded.
        """
        choose = self.choose
        self.choose = self._choose_frozen
        try:
            for name, predicate in predicates:
                detail = ""
                try:
                    result = predicate()
                except AssertionError as error:
                    result = False
                    detail = str(error)
                    # One predicate may check several named invariants.
                    name = getattr(error, "rule", name)
                if result is not None and not result:
                    self.broken(name, detail)
        finally:
            if not self.aborting:
                self.choose = choose

    @property
    def examining(self) -> bool:
        """Whether an invariant is being evaluated right now."""
        return self.choose == self._choose_frozen

    # -- threads --------------------------------------------------------------------------------

    def create(
        self, fn: Callable[..., object], args: tuple[Any, ...], name: str | None, priority: int
    ) -> Thread:
        """Make a thread that is enabled but has not run yet."""
        thread = Thread(len(self.threads), self._unique(name or called(fn)), priority)
        thread.fn = fn
        thread.args = args
        self.threads.append(thread)
        self.run.append(thread)
        self.fresh = True
        self.workers.assign(thread)
        return thread

    def _unique(self, name: str) -> str:
        """Two threads of one schedule never share a name."""
        if name == "<lambda>":
            name = "lambda"
        taken = self.thread_names
        number = taken.get(name, 0) + 1
        taken[name] = number
        return name if number == 1 else self._unique(f"{name}#{number}")

    def start(self, parent: Thread, members: list[Thread], group: Group | None) -> None:
        """Run each new thread up to its first operation, then go on; part of the current step.

        Without a ``group`` (spawn) the baton comes back to ``parent``; with one (parallel) the
        parent waits for all members, and the last to arrive chooses the next step.
        """
        start = _Start(self, parent, members, group)
        if group is not None:
            self.run.remove(parent)
            parent.enabled = False
        self.choose = start.choose
        first = start.choose()
        if first is not parent:
            self.switch(parent, first)

    def depart(self, me: Thread) -> Thread:
        """``me`` has ended; return the thread that goes on.

        Raises:
            ScheduleAborted: Its end leaves others stuck for ever; the finding is recorded.
        """
        me.done = True
        me.enabled = False
        self.run.remove(me)
        for waiter in me.wanters:
            self.enable(waiter)
        for lock in me.held:
            self.leaks.append((me, lock))
            for waiter in lock.wanters:
                if _for_ever(waiter):
                    self.look_for_cycle(waiter)
        for queue in me.owned:
            for waiter in queue.waiters:
                if _for_ever(waiter):
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
        """All threads of a ``parallel`` call have ended: its caller goes on within the same step."""
        parent.enabled = True
        self.run.append(parent)
        self.fresh = True
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
        cycle = self._cycle(me)
        if cycle is not None:
            self.deadlocked(cycle)

    def _cycle(self, start: Thread) -> list[tuple[Thread, Thread]] | None:
        """A wait-for path from ``start`` back to itself, or to a thread that has ended.

        Only threads that can be freed by nobody else are followed: no timeout, not interruptible.
        """
        path: list[tuple[Thread, Thread]] = []
        seen = [start]

        def visit(waiter: Thread) -> bool:
            if waiter.obj is None:
                return False
            for holder in waiter.obj.blockers(waiter):
                path.append((waiter, holder))
                if holder is start or holder.done:
                    return True
                if _for_ever(holder) and holder not in seen:
                    seen.append(holder)
                    if visit(holder):
                        return True
                path.pop()
            return False

        return path if visit(start) else None

    def deadlocked(self, cycle: list[tuple[Thread, Thread]]) -> NoReturn:
        """Report ``cycle``."""
        lines = [f"{len(cycle)} thread{'s wait' if len(cycle) > 1 else ' waits'} in a cycle"]
        if cycle[-1][1].done:
            lines = [f"{cycle[0][0].name} waits for a thread that has ended"]
        lines += [
            f"{waiter.name} waits for {self.label(waiter.obj)} ({waiter.kind}), "
            f"{'kept by ' + holder.name + ', which has ended' if holder.done else _holds(waiter, holder)}"
            for waiter, holder in cycle
        ]
        frames = [place_of(waiter) for waiter, _ in cycle]
        self.fail(Finding("deadlock", "\n".join(lines), self.cur, frames=frames, cycle=cycle))

    def stuck(self) -> NoReturn:
        """Nothing is enabled and no time can pass: a deadlock if there is a cycle, else a lost wakeup."""
        live = [thread for thread in self.threads if not thread.done]
        for thread in live:
            cycle = self._cycle(thread)
            if cycle is not None:
                self.deadlocked(cycle)
        lines = ["nothing can run, and no thread waits for a lock in a cycle"]
        lines += [f"{t.name} waits for {self.label(t.obj)} ({t.kind})" for t in live]
        frames = [place_of(thread) for thread in live]
        self.fail(Finding("lost-wakeup", "\n".join(lines), self.cur, frames=frames))

    def broken(self, name: str, detail: str) -> NoReturn:
        """Report a broken invariant."""
        message = f"{name}: {detail}" if detail and not detail.startswith(name) else detail or name
        frame = place_of(self.cur)
        self.fail(Finding("invariant", message, self.cur, rule=name, frames=[frame]))

    def violated(self, kind: str, rule: str, message: str, order: Any = None) -> NoReturn:
        """Report a broken rule (guard, lock-order) at the place where the caller stands."""
        frame = place_of(self.cur)
        finding = Finding(kind, message, self.cur, rule=rule, frames=[frame], order=order)
        self.fail(finding)

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
            ScheduleAborted: ``me`` holds a spinlock other than ``giving_up``; recorded as a finding.
        """
        held = [lock for lock in me.held if lock.spins and lock is not giving_up]
        if held and not self.aborting:
            self.violated(
                "lock-order",
                "CTX001",
                f"{me.name} would block in {what} while it holds the spinlock {self.label(held[-1])}",
            )

    def foreign(self) -> NoReturn:
        """A thread that the engine did not start used a primitive."""
        raise UsageError(
            "a thread that spawn() or parallel() did not start used a harness primitive; "
            "start every thread of the program with spawn()"
        )

    # -- names ----------------------------------------------------------------------------------

    def label(self, obj: Any) -> str:
        """The name of a resource: its own, or its kind and the order of first use in the schedule."""
        known = self.names.get(obj)
        if known is not None:
            return known
        if isinstance(obj, Thread):
            label = obj.name
        elif isinstance(obj, Group):
            label = "+".join(member.name for member in obj.members)
        elif obj is None:
            label = "-"
        else:
            base = obj.name or type(obj).__name__
            taken = 1 + sum(1 for other in self.names if _base(other) == base)
            label = base if taken == 1 and obj.name else f"{base}#{taken}"
        self.names[obj] = label
        return label


def called(fn: Any) -> str:
    """How a function is called in traces and findings."""
    return str(getattr(fn, "__name__", type(fn).__name__))


def _base(obj: Any) -> str:
    return str(obj.name or type(obj).__name__) if obj is not None else "-"


def _holds(waiter: Thread, holder: Thread) -> str:
    """How ``holder`` stands in the way, in words."""
    if waiter.kind in ("join", "parallel"):
        return (
            f"which waits for {holder.name}" if waiter.obj is not holder else "which has not ended"
        )
    return f"held by {holder.name}"


def _for_ever(thread: Thread) -> bool:
    """Whether only another thread's progress can free ``thread``."""
    return not thread.enabled and thread.deadline is None and not thread.interruptible


class _Start:
    """Brings new threads to their first operation; what ``CORE.choose`` is meanwhile.

    Starting is no step: code before a thread's first operation belongs to the step that starts it
    (design, section 3), so nothing is chosen until every new thread has published an operation.
    """

    def __init__(
        self, core: Core, parent: Thread, members: list[Thread], group: Group | None
    ) -> None:
        self.core = core
        self.parent = parent
        self.group = group
        self.pending = list(members)
        # A thread may itself start others before its first operation is reached only by publishing
        # an operation first, so starts never nest.
        self.outer = core.chooser

    def choose(self) -> Thread:
        core = self.core
        cur = core.cur
        if core.recorder is not None and cur is not self.parent and not cur.done:
            core.recorder.publish(cur)
        if self.pending:
            thread = self.pending.pop(0)
            thread.started = True
            return thread
        core.choose = core.chooser
        if self.group is None:
            return self.parent
        if self.group.left == 0:
            return core.resume(self.parent)
        if not core.run:
            core.idle()
        return core.choose()


def _recording(core: Core, inner: Choose, recorder: Recorder) -> Choose:
    """Wrap ``inner`` so that ``recorder`` sees publications and steps."""

    def choose() -> Thread:
        cur = core.cur
        if not cur.done:
            recorder.publish(cur)
        thread = inner()
        recorder.step(thread, core.steps)
        return thread

    return choose


def _checking(core: Core, inner: Choose) -> Choose:
    """Wrap ``inner`` so that the step that has just ended is checked first."""

    def choose() -> Thread:
        core.examine(core.invariants)
        return inner()

    return choose


# -- where a thread stands ----------------------------------------------------------------------

PACKAGE: Final = __file__.rsplit("engine", 1)[0]


def _outside_harness(frame: FrameType | None) -> FrameType | None:
    """The first frame of the program under test, going outwards."""
    while frame is not None and frame.f_code.co_filename.startswith(PACKAGE):
        frame = frame.f_back
    return frame


def place() -> tuple[Any, int]:
    """``(code, lasti)`` of the innermost program frame of the calling thread."""
    frame = _outside_harness(sys._getframe(1))
    return (None, 0) if frame is None else (frame.f_code, frame.f_lasti)


def place_of(thread: Thread) -> tuple[Any, int]:
    """``(code, lasti)`` where ``thread`` stands; it is parked, or the caller itself."""
    if thread is CORE.cur or thread.ident == get_ident():
        return place()
    if not thread.started and thread.index:
        return (None, 0)
    frame = _outside_harness(sys._current_frames().get(thread.ident))
    return (None, 0) if frame is None else (frame.f_code, frame.f_lasti)


CORE: Final = Core()


def current() -> Thread:
    """The thread that runs now.

    Raises:
        UsageError: No schedule is running.
    """
    me = CORE.cur
    if me is OUTSIDE:
        raise UsageError(_OUTSIDE)
    return me


def unreachable(why: str) -> InternalError:
    """An error of the engine itself."""
    return InternalError(f"engine error: {why}; please report it with the token or the program")
