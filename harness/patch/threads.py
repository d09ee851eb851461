"""``threading.Thread`` and what ``threading`` and ``_thread`` say about threads."""

from __future__ import annotations

import _thread
import contextlib
import contextvars
import itertools
import sys
import threading
from collections.abc import Callable
from typing import Any, Final

from harness.engine.core import CORE
from harness.engine.thread import Thread
from harness.patch.inside import PerSchedule, inside
from harness.sync.base import outcome, point

# Where a ``threading.Thread`` keeps the engine's thread, and the other way round.
KEY: Final = "_lockloom_thread"

_real_get_ident: Final = _thread.get_ident
_real_native_id: Final = threading.get_native_id
_real_current: Final = threading.current_thread
_real_enumerate: Final = threading.enumerate
_real_count: Final = threading.active_count
_real_new: Final = _thread.start_new_thread
_real_number: Final[Callable[[], int]] = vars(threading)["_counter"]
_real_running: Final[Callable[[], int]] = vars(_thread)["_count"]
_make_handle: Final = getattr(_thread, "_make_thread_handle", None)
# What a thread keeps it under, which 3.14 renamed.
_HANDLE: Final = next(
    (name for name in ("_os_thread_handle", "_handle") if hasattr(threading.main_thread(), name)),
    "_handle",
)
_numbers: Final = PerSchedule(lambda: itertools.count(1))


def number() -> int:
    """The number in the name of a thread without one; counted from 1 in each schedule."""
    return _real_number() if inside() is None else next(_numbers.get())


def get_ident() -> int:
    """The same for a thread in every run: its index. The caller's own thread keeps its ident."""
    me = inside()
    return _real_get_ident() if me is None or not me.index else me.index


def get_native_id() -> int:
    """See ``get_ident``."""
    me = inside()
    return _real_native_id() if me is None or not me.index else me.index


def current_thread() -> threading.Thread:
    """The ``threading.Thread`` of the calling thread; one is made for threads of ``spawn``."""
    me = inside()
    return _real_current() if me is None else _seen_as(me)


def _seen_as(thread: Thread) -> threading.Thread:
    known: threading.Thread | None = thread.local.get(KEY)
    if known is None:
        known = _real_current() if not thread.index else _dummy(thread)
        thread.local[KEY] = known
    return known


def _dummy(thread: Thread) -> threading.Thread:
    """What ``threading`` calls a dummy: stands for a thread that it did not start."""
    made: Any = threading.Thread(name=thread.name, daemon=True)
    _begun(made, thread)
    return made  # type: ignore[no-any-return] # typed Any for its private attributes


def _begun(made: Any, thread: Thread) -> None:
    """``made`` looks like a thread that was started, also to what is not patched."""
    made._started._flag = True
    made._ident = made._native_id = thread.index
    made.__dict__[KEY] = thread
    if _make_handle is not None:
        setattr(made, _HANDLE, _make_handle(thread.index))


def _ended(made: Any) -> None:
    """``made`` looks like a thread that has ended: the interpreter joins all at its exit."""
    if _make_handle is not None:
        getattr(made, _HANDLE)._set_done()
    else:
        made._is_stopped = True


def enumerate_() -> list[threading.Thread]:
    """Those that run, the caller's own first, in the order in which they were started."""
    if inside() is None:
        return _real_enumerate()
    return [_seen_as(thread) for thread in CORE.threads if thread.started and not thread.done]


def active_count() -> int:
    """How many ``enumerate`` would name."""
    return _real_count() if inside() is None else len(enumerate_())


def count() -> int:
    """How many threads run beside the caller's own."""
    if inside() is None:
        return _real_running()
    return sum(thread.started and not thread.done for thread in CORE.threads[1:])


def start_new_thread(function: Any, args: Any, kwargs: Any = None, /) -> int:
    """As the real one; one step. An exception that leaves ``function`` is a failure.

    Raises:
        TypeError: As the real one.
    """
    if inside() is None:
        return _real_new(function, args, {} if kwargs is None else kwargs)
    if not callable(function):
        raise TypeError("first arg must be callable")
    if not isinstance(args, tuple):
        raise TypeError("2nd arg must be a tuple")
    if kwargs is not None and not isinstance(kwargs, dict):
        raise TypeError("optional 3rd arg must be a dictionary")

    def run() -> None:
        with contextlib.suppress(SystemExit):
            function(*args, **(kwargs or {}))

    thread = _spawn(run, getattr(function, "__name__", "thread"), daemon=True)
    return thread.index


def _spawn(fn: Callable[[], object], name: str, *, daemon: bool, made: Any = None) -> Thread:
    me = point("spawn", None)
    thread = CORE.create(fn, (), name, me.priority)
    thread.daemon = daemon
    if made is not None:
        thread.local[KEY] = made
        _begun(made, thread)
    CORE.start(me, [thread], None)
    return thread


def of_thread(real: dict[str, Any]) -> dict[str, Any]:
    """Methods of ``threading.Thread``, in place; see ``harness.patch.classes``."""
    hook = threading.excepthook

    def run(self: Any) -> None:
        try:
            context: contextvars.Context | None = getattr(self, "_context", None)
            if context is None:
                self.run()
            else:
                context.run(self.run)
        except SystemExit:
            pass
        except Exception as error:
            if threading.excepthook is hook:
                raise
            # The program deals with it by a hook of its own.
            args = (type(error), error, error.__traceback__, self)
            threading.excepthook(threading.ExceptHookArgs(args))
        finally:
            _ended(self)

    def start(self: Any) -> None:
        if inside() is None:
            real["start"](self)
            return
        if not self._initialized:
            raise RuntimeError("thread.__init__() not called")
        if self._started._flag:
            raise RuntimeError("threads can only be started once")
        if getattr(self, "_context", self) is None:  # from 3.14 on
            inherits = getattr(sys.flags, "thread_inherit_context", 0)
            self._context = contextvars.copy_context() if inherits else contextvars.Context()
        _spawn(lambda: run(self), self.name, daemon=self.daemon, made=self)

    def join(self: Any, timeout: float | None = None) -> None:
        thread: Thread | None = self.__dict__.get(KEY)
        if inside() is None or not self._initialized:
            real["join"](self, timeout)
        elif thread is not None:
            thread.join(None if timeout is None else max(timeout, 0.0))
        elif not self._started._flag:
            raise RuntimeError("cannot join thread before it is started")
        else:
            real["join"](self, timeout)

    def is_alive(self: Any) -> bool:
        thread: Thread | None = self.__dict__.get(KEY)
        if thread is None or inside() is None:
            return bool(real["is_alive"](self))
        point("is-alive", thread)
        outcome(not thread.done)
        return not thread.done

    return {"start": start, "join": join, "is_alive": is_alive}
