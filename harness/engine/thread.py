"""What the engine schedules: threads, groups of them, and what they wait for."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final, NoReturn, Protocol

from harness.errors import UsageError
from harness.lockorder.rules import HeldLocks

if TYPE_CHECKING:
    from harness.engine.view import View


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

    def claim(self, lock: object, what: str) -> None:
        """The calling thread says that it holds ``lock``; None: no lock, before ``what``."""

    def observe(self, view: View) -> None:
        """Look at ``view`` after every step from now on."""

    def ended(self) -> None:
        """The program has returned, and nothing is wrong with it."""

    def freeze(self) -> None:
        """The schedule ends here; threads still stand where they are."""


def refuse_nan(timeout: float) -> None:
    """No clock ever reaches such a deadline; refused before anything changes, as by a real lock.

    Raises:
        ValueError: ``timeout`` is not a number.
    """
    if math.isnan(timeout):
        raise ValueError("Invalid value NaN (not a number)")


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
        "daemon",
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

    # The one engine; set when it is made.
    engine: ClassVar[Any]
    kind: str
    obj: Any
    wake: Callable[[], object]
    park: Callable[[], object]

    def __init__(
        self,
        index: int,
        name: str,
        priority: int = 0,
        fn: Callable[..., object] | None = None,
        args: tuple[Any, ...] = (),
    ) -> None:
        """Only the engine makes threads; programs use ``spawn`` and ``parallel``."""
        self.index = index
        self.name = name
        self.priority = priority
        self.kind = ""
        self.obj = None
        self.fn = fn
        self.args = args
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
        self.rank: Any = None
        # Number of the step in which this thread last yielded or slept.
        self.rested = -1
        self.deadline: float | None = None
        # May still run when the program returns; it is unwound then, and that is no leak.
        self.daemon = False
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
        core = self.engine
        me = core.cur
        if self is me:
            raise RuntimeError("cannot join current thread")
        if timeout is not None:
            refuse_nan(timeout)
        me.kind = "join"
        me.obj = self
        if self.done:
            if timeout is not None:
                self._wait_turn(me, timeout)
            elif core.steps < core.lease:
                core.steps += 1
            else:
                chosen = core.choose()
                if chosen is not me:
                    core.preempt(me, chosen)
            return
        if me.spins or me.locks is not None:
            core.waiting(me, "join")
        self.wanters.append(me)
        try:
            core.block(me, timeout)
        finally:
            self.wanters.remove(me)

    def _wait_turn(self, me: Thread, timeout: float) -> None:
        """Before a limited join of a thread that has ended: the limit ends with it."""
        core = self.engine
        core.arm(me, timeout)
        try:
            chosen = core.choose()
            if chosen is not me:
                core.preempt(me, chosen)
        finally:
            core.disarm(me)

    def interrupt(self) -> None:
        """End this thread's interruptible wait early, now or when it next begins one; one step."""
        core = self.engine
        me = core.cur
        me.kind = "interrupt"
        me.obj = self
        chosen = core.choose()
        if chosen is not me:
            core.preempt(me, chosen)
            core.spared()
        if self.done:
            return
        self.interrupted = True
        if self.interruptible and not self.released:
            self.obj.expire(self)

    def expire(self, waiter: Thread) -> None:
        """A timed join has run out."""
        waiter.excused = True
        self.engine.enable(waiter)

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

    def forget(self) -> None:
        """Let go of the threads, which know the group: only the collector could free them."""
        self.parent = OUTSIDE
        self.members = []

    def blockers(self, waiter: Thread) -> list[Thread]:
        """The caller waits for every member that has not ended."""
        return [member for member in self.members if not member.done]


class _Outside:
    """Stands for the current thread where no schedule runs: any use of it says so.

    A schedule point outside a schedule therefore costs the hot path no test of its own.
    """

    def __getattr__(self, name: str) -> NoReturn:
        """Reading any thread attribute means that a primitive was used."""
        raise UsageError(OUTSIDE_MESSAGE)

    def __setattr__(self, name: str, value: object) -> None:
        """Publishing an operation means that a primitive was used."""
        raise UsageError(OUTSIDE_MESSAGE)


OUTSIDE_MESSAGE: Final = (
    "a harness primitive was used outside of a schedule; "
    "use it inside the program given to explore(), replay() or check()"
)
OUTSIDE: Final[Any] = _Outside()


def called(fn: Any) -> str:
    """How a function is called in traces and findings."""
    try:
        return str(fn.__name__)
    except AttributeError:
        return type(fn).__name__


def unique(name: str, taken: dict[str, int]) -> str:
    """The name of a new thread: two threads of one schedule never share one."""
    if name == "<lambda>":
        name = "lambda"
    number = taken[name] = taken.get(name, 0) + 1
    if number == 1:
        return name
    numbered = f"{name}#{number}"
    if numbered in taken:
        return unique(numbered, taken)
    taken[numbered] = 1
    return numbered


def new_label(obj: Any, names: Iterable[Any]) -> str:
    """A name for a resource that is unlike those of ``names``, which have one."""
    if isinstance(obj, Thread):
        return obj.name
    if isinstance(obj, Group):
        return "+".join(member.name for member in obj.members)
    if obj is None:
        return "-"
    base = str(obj.name or type(obj).__name__)
    taken = 1 + sum(1 for other in names if base_of(other) == base)
    return base if taken == 1 and obj.name else f"{base}#{taken}"


def base_of(obj: Any) -> str:
    """The name of a resource before it is numbered."""
    return str(obj.name or type(obj).__name__) if obj is not None else "-"
