"""Where schedules run: settled threads, a pool, a watchdog, the collector off."""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
import sys
import threading
import time
from _thread import get_ident
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import TYPE_CHECKING, Any, Final, Self

from harness.engine.core import CORE, Choose, Core
from harness.engine.pool import Pool, Watchdog, holder, settled, strangers_noticed
from harness.engine.schedule import Limits, run
from harness.engine.thread import OUTSIDE, Recorder, Thread
from harness.errors import UsageError
from harness.lockorder.rules import LockRules
from harness.patch.install import begin as begin_patched
from harness.patch.install import patched
from harness.patch.lines import Lines
from harness.search.setup import PATCH, Program, Setup
from harness.strategies import Options, Strategy, strategy_named
from harness.strategies.profile import Profile
from harness.trace.races import Both, RaceRecorder
from harness.trace.recorder import TraceRecorder

if TYPE_CHECKING:
    from harness.search.learning import Learning


class Stage:
    """Where schedules run: settled threads, a pool, a watchdog, the collector off.

    Attributes:
        refused: Why SCHED_BATCH or the pinning was refused; None if both are on.
    """

    def __init__(
        self,
        hang_seconds: float,
        worker: int | None = None,
        control: Sequence[str] = (),
        *,
        settle: bool = True,
    ) -> None:
        self._settle = settle
        self._control = control
        self._seconds = hang_seconds
        self._worker = worker
        self._exit = contextlib.ExitStack()
        self._gave_way = self._napped = time.monotonic()
        self.refused: str | None = None

    def __enter__(self) -> Self:
        if not _STAGE.acquire(blocking=False):
            inside = holder()
            if inside is not OUTSIDE and inside.ident == get_ident():
                raise UsageError("explore() was called inside a schedule; run one at a time")
            raise UsageError("another thread of this process is exploring; use another process")
        self._exit.callback(_STAGE.release)
        try:
            self._set_up()
        except BaseException:
            self._exit.close()
            raise
        return self

    def _set_up(self) -> None:
        enter = self._exit.enter_context
        CORE.stop = None
        enter(_collector_off())
        if self._settle:
            self.refused = enter(settled(self._worker))
        _say_once(self.refused)
        self.pool = Pool()
        self._exit.callback(self.pool.close)
        self._watchdog = enter(Watchdog(self.pool, self._seconds))
        enter(strangers_noticed())
        enter(_interruptible())
        if PATCH in self._control:
            enter(patched())
        modules = [name for name in self._control if name != PATCH]
        if modules:
            enter(Lines(modules, self.pool))

    def __exit__(self, *_exc: object) -> None:
        self._exit.close()
        CORE.clear()

    def run(
        self,
        program: Program,
        rules: LockRules,
        limits: Limits,
        begin: Callable[[Core], Choose],
        schedule: int,
        *,
        record: bool = False,
        film: bool = True,
        stacks: bool = False,
    ) -> tuple[Core, TraceRecorder | None]:
        """Run one schedule, recorded where that is asked for; see ``engine.schedule.run``."""
        self._give_way()
        rules.begin(schedule)
        CORE.schedule = schedule
        recorder = TraceRecorder(CORE, film=film, stacks=stacks) if record else None
        looking = _watching(recorder) if limits.races else recorder
        self._watchdog.number = schedule or -1
        begin_patched(self.pool)
        before = None
        if self.pool.trace is not None:
            before = sys.gettrace()
            sys.settrace(self.pool.trace)
        try:
            core = run(program, self.pool, rules, limits, begin, looking)
        finally:
            self._watchdog.number = 0
            if self.pool.trace is not None:
                sys.settrace(before)
        return core, recorder

    def _give_way(self) -> None:
        """Let another process have the core now and then.

        Threads that wake each other all the time can starve a third for seconds: the kernel likes
        to go on with whoever was just woken.
        """
        now = time.monotonic()
        if now - self._gave_way > _GIVE_WAY_SECONDS:
            self._gave_way = now
            _sched_yield()
        if now - self._napped > _NAP_EVERY_SECONDS:
            # Yielding is a hint; while all of our threads sleep, somebody else must run.
            self._napped = now
            select.select((), (), (), _NAP_SECONDS)


def _watching(recorder: TraceRecorder | None) -> Recorder:
    """What looks on where races are looked for, and a recorder of the story where there is one."""
    races = RaceRecorder(CORE, stacks=recorder is not None)
    return races if recorder is None else Both(recorder, races)


_GIVE_WAY_SECONDS: Final = 0.004
_NAP_EVERY_SECONDS: Final = 0.1
_NAP_SECONDS: Final = 0.0003
_sched_yield: Final[Callable[[], None]] = getattr(os, "sched_yield", lambda: None)
_said: list[str] = []


def _say_once(refused: str | None) -> None:
    """Tell a person once why hand-offs are slower here than they could be."""
    if refused is None or _said:
        return
    _said.append(refused)
    sys.stderr.write(
        f"lockloom: this system refuses SCHED_BATCH or pinning to one core ({refused}); "
        "schedules are the same, but slower\n"
    )


# Random walks that show how long schedules get; one alone may take a short way.
PILOTS: Final = 3
_STAGE: Final = threading.Lock()
# Objects that stages left behind, in use or not, before the next one begins by collecting all.
_LEFT_MAX: Final = 25_000
_left: int = 0


@contextlib.contextmanager
def _collector_off() -> Iterator[None]:
    """Nothing is collected inside a schedule, and between them only what is younger than this.

    What a stage leaves in circles is older than the next one, which freezes and so overlooks it.
    """
    global _left
    enabled = gc.isenabled()
    gc.disable()
    if _left > _LEFT_MAX:
        gc.collect()
        _left = 0
    gc.freeze()
    try:
        yield
    finally:
        _left += len(gc.get_objects())
        gc.unfreeze()
        if enabled:
            gc.enable()


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Ctrl-C ends the current schedule at its next step; a second one acts at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.getsignal(signal.SIGINT)
    if previous is None:
        yield
        return

    def stop(_number: int, _frame: FrameType | None) -> None:
        CORE.stop = "interrupted"
        CORE.limit = 0
        CORE.steady = CORE.lease = 0
        signal.signal(signal.SIGINT, previous)

    signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


class Alarm:
    """A time limit that is set from outside by SIGALRM: it acts once the schedule is unwound.

    Its handler would raise in the calling thread, which may be parked while another has the baton.
    One that finds the calling thread stuck in something uncontrolled ends the schedule there.
    """

    def __init__(self) -> None:
        self._rung: list[int] = []
        self._act: Any = signal.getsignal(signal.SIGALRM) if hasattr(signal, "SIGALRM") else None
        if threading.current_thread() is not threading.main_thread():
            self._act = None

    def __enter__(self) -> Self:
        """Take the place of the handler."""
        if callable(self._act):
            signal.signal(signal.SIGALRM, self._ring)
        return self

    def _ring(self, _number: int, _frame: FrameType | None) -> None:
        self._rung.append(CORE.steps)
        CORE.stop = "interrupted"
        CORE.limit = 0
        CORE.steady = CORE.lease = 0
        # Again: an exploration that begins only now knows nothing of it.
        signal.setitimer(signal.ITIMER_REAL, _ALARM_AGAIN_SECONDS)
        mine = holder() is not OUTSIDE and holder().ident == get_ident()
        if mine and self._rung[-2:] == [CORE.steps] * 2:
            CORE.end("interrupted")

    def __exit__(self, kind: type[BaseException] | None, *_exc: object) -> bool:
        """Give the place back; what the alarm ended is no Ctrl-C."""
        if callable(self._act):
            signal.signal(signal.SIGALRM, self._act)
        if self._rung:
            signal.setitimer(signal.ITIMER_REAL, 0)
        return bool(self._rung) and kind is KeyboardInterrupt

    def act(self) -> None:
        """Call the handler, if the alarm rang meanwhile."""
        if self._rung:
            self._act(signal.SIGALRM, None)


_ALARM_AGAIN_SECONDS: Final = 0.3


def prepare(
    stage: Stage, program: Program, setup: Setup, learning: Learning | None = None
) -> Strategy:
    """Make the strategy; run the pilot schedules where it wants them.

    Args:
        stage: Where they run.
        program: Whose they are.
        setup: What decides each schedule.
        learning: Of the same exploration; keeps what they showed, so that they run once.
    """
    kind = strategy_named(setup.strategy)
    known = None if learning is None else learning.piloted
    options = known or Options(setup.seed, setup.depth, setup.preemptions)
    if kind.needs_pilot and known is None:
        profile = options.profile if kind.needs_profile else None
        if _pilot(stage, program, setup, options, profile) and learning is not None:
            learning.piloted = options
    return kind(options)


def _pilot(
    stage: Stage, program: Program, setup: Setup, options: Options, profile: Profile | None
) -> bool:
    """Enter into ``options`` what pilot schedules show; False where one was broken off.

    Without a ``profile`` only lengths are measured.
    """
    pilot = strategy_named("random")(options)
    for number in range(PILOTS):
        before = _Before(pilot, number, profile)
        core, _ = stage.run(program, setup.rules(), setup.limits(), before.begin, 0)
        if profile is not None:
            profile.merge()
        if core.cut in ("hang", "interrupted"):
            return False
        options.length = max(options.length, core.steps - before.steps)
        options.threads = max(options.threads, len(core.threads))
    return True


class _Before:
    """Counts the steps before the first decision of a pilot schedule, where nothing is decided."""

    def __init__(self, pilot: Strategy, number: int, profile: Profile | None) -> None:
        self._pilot = pilot
        self._number = number
        self._profile = profile
        self.steps = 0

    def begin(self, core: Core) -> Choose:
        inner = self._pilot.begin(core, self._number)
        if self._profile is not None:
            inner = self._profile.watching(core, inner)

        def choose() -> Thread:
            thread = inner()
            if not core.choices:
                self.steps = core.steps
            return thread

        return choose
