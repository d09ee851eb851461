"""Lock logs: the ``zlock/1`` JSON lines, and their writer.

A log is a sequence of runs. Each begins with a header line, ``{"zlock":1,"run":...}``, and numbers
its own classes, locks, threads, sites and stacks; a definition, ``{"d":"lock","id":...}``, precedes
the first use of its number; a lock that is defined again after its end, or with another ``gen``, is
another lock. Everything else is an event, an array:

    [seq, ts, tid, op, obj, mode, site, stk, {extra}]

==========  ====================================================================================
``req``     a thread wants a lock and waits for it; for a limited time only, if ``extra.t``
``try``     likewise, without waiting; ``acq`` or ``fail`` follows
``acq``     it has the lock; ``fail``: it gave up
``rel``     it gave the lock up
``wait``    it goes to sleep on ``obj``, in the operation ``extra.what``; ``wake``: it goes on,
            because its time ran out if ``extra.t``; alone, ``wake`` says that it need not sleep
``sig``     it woke somebody who sleeps on ``obj``; ``bcast``: everybody
``fork``    it started the thread ``obj``; ``join``: it saw the end of that thread
``start``   the thread's first event; ``exit``: it has ended; ``kill``: it interrupted ``obj``
``r w``     it read, or wrote, a shared cell
``new``     a lock begins to live; ``del``: it is destroyed; ``down``: from exclusive to shared
``assert``  the thread says that it holds ``obj``; where that is 0, that it holds nothing, for it
            is about to do ``extra.text``
``pin``     ``obj`` may not be released until ``unpin``
``ctx+``    the thread enters the context ``extra.c``, until ``ctx-``: ``alloc`` (may wait for
            reclaim), ``reclaim``, ``dtor`` (of an object), ``drop`` (of a reference, perhaps the
            last)
``note``    a remark, ``extra.text``; ``lost``: ``extra.n`` events were not written
==========  ====================================================================================

``site`` is where the thread stands, and ``stk``, where stacks were asked for, how it came there: a
``stk`` definition lists sites, the innermost first.

``mode`` is ``x`` (exclusive), ``s`` (shared) or empty; ``extra.o`` is a nesting order. In a
controlled run ``ts`` is the step, so that the same schedule gives the same bytes; in a free run it
is nanoseconds, and the header's ``clock`` says so.

Reference: lock-audit 7.1.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Annotated, Any, Final, NamedTuple, Self, TypeAlias

import msgspec

from harness.errors import UsageError
from harness.lockorder.classes import LockFlags, flag_names
from harness.trace.events import ObjectInfo, Site, Stack, Step, Story, ThreadState, as_json
from harness.trace.packed import check, packing

VERSION: Final = 1

# Kinds of steps, and how each is logged.
_TAKES: Final = {
    "acquire": ("req", "x"),
    "re-acquire": ("req", "x"),
    "write-acquire": ("req", "x"),
    "read-acquire": ("req", "s"),
    "try-acquire": ("try", "x"),
}
_GIVES: Final = {"release": "x", "write-release": "x", "read-release": "s"}
REFUSED: Final = "refused"
"""Says of a request that a lock rule ended the run at it: nobody waits there."""
_SLEEPS: Final = {
    "event-wait": "event-wait",
    "sem-acquire": "sem-acquire",
    "barrier-leave": "barrier",
    "join": "join",
    "sleep": "sleep",
}
_SLEEPS_AFTER: Final = frozenset(("wait", "queue-block", "parallel"))
_PLAIN: Final = {
    "notify": "sig",
    "event-set": "sig",
    "sem-release": "sig",
    "queue-wake": "sig",
    "barrier-arrive": "sig",
    "get": "r",
    "load": "r",
    "event-is-set": "r",
    "set": "w",
    "store": "w",
    "event-clear": "w",
    "queue-assign": "w",
    "barrier-reset": "w",
    "barrier-abort": "w",
}
_WOKEN: Final = ("", "True", "WaitResult.WOKEN")
# These read and write in one: an order that no reordering changes.
_UPDATES: Final = frozenset(("fetch-add", "exchange", "compare-exchange"))


# What is computed with; beyond it, differences and units overflow.
_Ticks: TypeAlias = Annotated[int, msgspec.Meta(ge=-(10**18), le=10**18)]
_Time: TypeAlias = Annotated[float, msgspec.Meta(ge=-1e18, le=1e18)]


class Event(msgspec.Struct, array_like=True, gc=False):
    """One event line; see the module's table."""

    seq: int
    ts: _Ticks | _Time
    tid: int
    op: str
    obj: int = 0
    mode: str = ""
    site: int = 0
    stk: int = 0
    extra: dict[str, Any] | None = None


class Definition(msgspec.Struct):
    """Any other line; which fields matter depends on ``d``.

    ``d`` is ``cls``, ``lock``, ``thr``, ``site`` or ``stk``; a header has ``zlock`` instead.
    """

    zlock: int = 0
    run: str = ""
    d: str = ""
    id: int = 0
    name: str = ""
    cls: int = 0
    kind: str = ""
    flags: tuple[str, ...] = ()
    type: str = ""
    order: int = 0
    gen: int = 0
    parent: int = -1
    m: str = ""
    fn: str = ""
    o: int = 0
    f: str = ""
    l: int = 0  # noqa: E741 - the format's name
    s: tuple[int, ...] = ()
    fair_read: bool = False


class LockLog:
    """Writes runs into one file, compressed where its name ends in ``.gz`` or ``.zst``.

    A controlled run is logged without host, arguments and wall time: the same schedule gives the
    same bytes.
    """

    def __init__(self, target: Path | str | IO[bytes]) -> None:
        """Open ``target`` for writing; a stream is used as it is and left open by ``close``.

        Raises:
            UsageError: The file cannot be written, or not compressed so.
        """
        self._stack = contextlib.ExitStack()
        self._stream: IO[bytes]
        if isinstance(target, (str, Path)):
            path = Path(target)
            check(path.suffix)
            try:
                raw: IO[bytes] = self._stack.enter_context(path.open("wb"))
            except OSError as error:
                raise UsageError(f"cannot write the lock log {path}: {error.strerror}") from error
            self._stream = packing(raw, path.suffix)
            if self._stream is not raw:
                self._stack.enter_context(self._stream)
        else:
            self._stream = target

    def story(self, run: str, story: Story, **meta: str | int) -> None:
        """Write one recorded schedule; see ``run``."""
        self._write(run, story.steps, story.objects, _final(story), (), meta)

    def free_story(self, run: str, story: Story, times: Sequence[int], **meta: str | int) -> None:
        """Write one that ran freely, with the nanosecond at which each step took effect."""
        self._write(run, story.steps, story.objects, _final(story), times, meta)

    def run(
        self,
        run: str,
        steps: Iterable[Step],
        objects: Mapping[str, ObjectInfo],
        final: Sequence[ThreadState] = (),
        **meta: str | int,
    ) -> None:
        """Write one run.

        Args:
            run: Its name, ``scenario#schedule``.
            steps: The steps of the schedule, in order.
            objects: What is known of each object that the steps name.
            final: Where each thread stood at the end: what was still wanted, and who had ended.
            meta: More for the header: ``seed``, ``sched``, ``revision``, ``commit``, ...
        """
        self._write(run, steps, objects, final, (), meta)

    def _write(
        self,
        run: str,
        steps: Iterable[Step],
        objects: Mapping[str, ObjectInfo],
        final: Sequence[ThreadState],
        times: Sequence[int],
        meta: Mapping[str, str | int],
    ) -> None:
        plan = _Plan()
        for step in steps:
            plan.step(step)
        for state in final:
            plan.end(state)
        writer = _RunWriter(objects, plan.names, times)
        clock = "mono_ns" if times else "step"
        writer.line({"zlock": VERSION, "run": run, "clock": clock, **meta})
        for draft in plan.events():
            writer.event(draft)
        self._stream.write(b"\n".join(writer.lines) + b"\n")

    def close(self) -> None:
        """Finish the file."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _final(story: Story) -> list[ThreadState]:
    held = {name for state in story.final for name in state.held}
    return [_as_it_stands(state, held) for state in story.final]


def _as_it_stands(state: ThreadState, held: set[str]) -> ThreadState:
    """Say of a thread that could run although its lock is taken that its time has run out."""
    could = state.state == "running" and not state.refused
    if could and state.kind == "acquire" and state.obj in held:
        return msgspec.structs.replace(state, limited=True)
    return state


class _Draft(NamedTuple):
    """An event before its objects are numbered.

    ``when`` is (step, announced or done, thread, rank): what a thread announced precedes the
    step of the same number, since it was pending when that step was chosen.
    """

    when: tuple[int, int, int, int]
    op: str
    thread: int
    obj: str | int  # the name of an object, or the index of a thread
    mode: str
    site: Site | None
    extra: dict[str, Any]


class _Plan:
    """Turns the steps of one run into events.

    Attributes:
        drafts: The events, in no order yet.
        names: Of the threads, by index.
    """

    def __init__(self) -> None:
        """Start with no thread seen."""
        self.drafts: list[_Draft] = []
        self.names: dict[int, str] = {}
        self._asleep: dict[int, tuple[str, str]] = {}  # thread -> what it sleeps on, and how
        self._notified: dict[int, int] = {}  # sleeper -> step that woke it
        self._children: dict[int, list[int]] = {}  # thread -> those it started last
        self._starts: dict[int, int] = {}  # step that can start threads -> thread that took it
        self._last: dict[int, int] = {}  # thread -> its last step
        self._others: list[tuple[str, _Draft]] = []  # what threads did to those of these names

    def events(self) -> list[_Draft]:
        """Return the events in the order of time."""
        numbers = {name: index for index, name in self.names.items()}
        others = [
            draft._replace(obj=numbers[name]) for name, draft in self._others if name in numbers
        ]
        done = [draft for draft in (*self.drafts, *others) if not self._timed_out(draft)]
        return sorted(done, key=lambda draft: draft.when)

    def _timed_out(self, draft: _Draft) -> bool:
        """A join whose thread went on has seen no end."""
        return (
            draft.op == "join"
            and isinstance(draft.obj, int)
            and self._last.get(draft.obj, 0) > draft.when[0]
        )

    def step(self, step: Step) -> None:
        """Log one step."""
        published = step.published or step.step
        self._last[step.thread] = step.step
        self._meet(step.thread, step.name, published)
        kind = step.kind
        self._notified.update(dict.fromkeys(step.woke, step.step))
        if step.thread in self._asleep:
            # One who sleeps for a limited time has announced long before what follows.
            published = max(published, self._notified.pop(step.thread, -1) + 1)
            if self._ends_sleep(step, published):
                return
        if kind in _TAKES:
            op, mode = _TAKES[kind]
            extra: dict[str, Any] = {"o": step.order} if step.order else {}
            # An acquire without a limit has no outcome; that of a re-acquire is the wait's.
            limited = kind != "re-acquire" and step.outcome in ("True", "False")
            if op == "req" and limited:
                extra["t"] = True
            self._add(published if op == "req" else step.step, 0, step, op, step.obj, mode, extra)
            taken = "fail" if limited and step.outcome == "False" else "acq"
            self._add(step.step, 1, step, taken, step.obj, mode)
        elif kind in _GIVES:
            self._add(step.step, 1, step, "rel", step.obj, _GIVES[kind])
        elif kind in _PLAIN:
            self._add(step.step, 1, step, _PLAIN[kind], step.obj)
        elif kind in _UPDATES:
            self._add(step.step, 1, step, "r", step.obj)
            if (kind, step.outcome) != ("compare-exchange", "False"):
                self._add(step.step, 1, step, "w", step.obj)
        elif kind in _SLEEPS:
            extra = {"what": _SLEEPS[kind]}
            if step.waited or kind == "sleep":
                self._add(published, 0, step, "wait", step.obj, extra=extra)
            elif kind == "join":
                extra = {}
            if extra:
                # Let through at once, or turned away: whether it would have waited for ever, nobody
                # has seen.
                if step.outcome == "False" or step.limited or not step.waited:
                    extra = {**extra, "t": True}
                self._add(step.step, 1, step, "wake", step.obj, extra=extra)
        elif kind in _SLEEPS_AFTER:
            self._sleep(step)
        if kind == "join":
            self._other(step, "join")
        elif kind in ("spawn", "parallel"):
            self._starts[step.step] = step.thread
            self._children.pop(step.thread, None)
        elif kind == "interrupt":
            self._other(step, "kill")
        for claim in step.claims:
            when = (step.step, 1, claim.thread, len(self.drafts))
            mode = "" if not claim.lock else "s" if claim.shared else "x"
            extra = {} if claim.lock else {"text": claim.what}
            said = _Draft(when, "assert", claim.thread, claim.lock, mode, claim.site, extra)
            self.drafts.append(said)
        for text in step.note:
            self._add(step.step, 1, step, "note", "", extra={"text": text})

    def end(self, state: ThreadState) -> None:
        """Log where a thread stood at the end of the run: what it still wanted, or its exit."""
        last = self._last.get(state.thread, 0)
        if state.state == "ended":
            self._meet(state.thread, state.name, state.published or last)
            self._add(last, 3, state, "exit", "")
            return
        published = state.published
        if published <= last:
            if state.state != "blocked" and not state.refused:
                return  # it has done what it announced last
            published = 1 + max(self._last.values(), default=0)  # it closed a cycle unannounced
        self._meet(state.thread, state.name, published)
        if state.thread in self._asleep:
            if state.kind not in _TAKES:
                return
            self._woken(published, state)
        if state.kind in _TAKES:
            op, mode = _TAKES[state.kind]
            extra: dict[str, Any] = {"o": state.order} if state.order else {}
            if state.limited:
                extra["t"] = True
            if state.refused:
                extra[REFUSED] = True
            self._add(published, 0, state, op, state.obj, mode, extra)
        elif state.kind in _SLEEPS and (state.state == "blocked" or state.refused):
            extra = {"what": _SLEEPS[state.kind]}
            if state.limited:
                extra["t"] = True
            self._add(published, 0, state, "wait", state.obj, extra=extra)

    def _add(
        self,
        step: int,
        done: int,
        by: Step | ThreadState,
        op: str,
        obj: str | int,
        mode: str = "",
        extra: dict[str, Any] | None = None,
    ) -> None:
        """Draft an event."""
        when = (step, done, by.thread, len(self.drafts))
        self.drafts.append(_Draft(when, op, by.thread, obj, mode, by.site, extra or {}))

    def _meet(self, thread: int, name: str, published: int) -> None:
        """Log the start of a thread at its first event, and the fork that led to it.

        A new thread announces its first operation within the step that starts it, so that step's
        number is the one before.
        """
        if thread in self.names:
            return
        self.names[thread] = name
        when = (published, 0, thread, len(self.drafts))
        parent = self._starts.get(published - 1)
        if parent is not None:
            rank = (published - 1, 2, parent, len(self.drafts))
            self.drafts.append(_Draft(rank, "fork", parent, thread, "", None, {}))
            self._children.setdefault(parent, []).append(thread)
        self.drafts.append(_Draft(when, "start", thread, "", "", None, {}))

    def _sleep(self, step: Step) -> None:
        """Log a step after which the thread sleeps; a lock it gives up for that goes first.

        A wait that has its result at once was interrupted before it began.
        """
        if step.outcome and step.kind == "queue-block":
            return
        if step.releases:
            self._add(step.step, 1, step, "rel", step.releases, "x")
        self._add(step.step, 1, step, "wait", step.obj, extra={"what": step.kind})
        self._asleep[step.thread] = step.obj, step.kind

    def _ends_sleep(self, step: Step, published: int) -> bool:
        """Log the wake of who sleeps; whether ``step`` was no more than that.

        It was, of a wait that takes no lock back, and of a timeout fired early, after which the
        lock is taken back in a step of its own.
        """
        only = step.kind == "queue-block" or (step.kind in _SLEEPS_AFTER and bool(step.releases))
        self._woken(step.step if only else published, step)
        return only

    def _woken(self, published: int, by: Step | ThreadState) -> None:
        """Log that a thread sleeps no longer; after ``parallel`` it has seen the ends of all."""
        obj, what = self._asleep.pop(by.thread)
        extra: dict[str, Any] = {"what": what}
        if isinstance(by, Step):
            timed_out = by.kind in ("re-acquire", "queue-block") and by.outcome not in _WOKEN
            if by.limited or timed_out or by.releases:
                extra["t"] = True
        self._add(published, 0, by, "wake", obj, extra=extra)
        if what == "parallel":
            for child in self._children.pop(by.thread, ()):
                self._add(published, 0, by, "join", child)

    def _other(self, step: Step, op: str) -> None:
        """Log what a thread did to the thread that the step names, once its number is known."""
        when = (step.step, 1, step.thread, len(self.drafts))
        self._others.append((step.obj, _Draft(when, op, step.thread, 0, "", step.site, {})))


class _RunWriter:
    """Numbers what the events name, and defines each number before its first use."""

    def __init__(
        self, objects: Mapping[str, ObjectInfo], threads: Mapping[int, str], times: Sequence[int]
    ) -> None:
        """Start with nothing defined."""
        self._times = times
        self.lines: list[bytes] = []
        self._objects = objects
        self._threads = threads
        self._events = 0
        self._classes: dict[str, int] = {}
        self._locks: dict[str, int] = {}
        self._sites: dict[Site, int] = {}
        self._stacks: dict[tuple[int, ...], int] = {}
        self._defined: set[int] = set()

    def line(self, value: dict[str, Any] | list[Any]) -> None:
        """Add one line."""
        self.lines.append(as_json(value))

    def event(self, draft: _Draft) -> None:
        """Add an event, and what it is the first to use."""
        self._thread(draft.thread)
        obj = draft.obj
        if isinstance(obj, int):
            self._thread(obj)
            number = obj
        else:
            number = self._lock(obj) if obj else 0
        site = self._site(draft.site)
        self._events += 1
        step, times = draft.when[0], self._times
        fields: list[Any] = [
            self._events,
            times[min(max(step, 1), len(times)) - 1] if times else step,
            draft.thread,
            draft.op,
            number,
            draft.mode,
            site,
            self._stack(draft.site) if isinstance(draft.site, Stack) else 0,
        ]
        self.line([*fields, draft.extra] if draft.extra else fields)

    def _thread(self, index: int) -> None:
        if index not in self._defined:
            self._defined.add(index)
            self.line({"d": "thr", "id": index, "name": self._threads.get(index, "")})

    def _lock(self, name: str) -> int:
        if name not in self._locks:
            info = self._objects.get(name, ObjectInfo(""))
            number = self._locks[name] = len(self._locks) + 1
            fields = {"d": "lock", "id": number, "cls": self._class(info), "name": name}
            self.line({**fields, "type": info.type, "order": info.address})
        return self._locks[name]

    def _class(self, info: ObjectInfo) -> int:
        name = info.lock_class
        if name and name not in self._classes:
            number = self._classes[name] = len(self._classes) + 1
            flags = list(flag_names(LockFlags(info.flags)))
            kind = info.type.lower()
            self.line({"d": "cls", "id": number, "name": name, "kind": kind, "flags": flags})
        return self._classes.get(name, 0)

    def _site(self, site: Site | None) -> int:
        if site is None:
            return 0
        if site not in self._sites:
            number = self._sites[site] = len(self._sites) + 1
            fields = {"d": "site", "id": number, "f": site.file, "l": site.line}
            self.line({**fields, "fn": site.qualname, "m": site.module, "o": site.ordinal})
        return self._sites[site]

    def _stack(self, stack: Stack) -> int:
        sites = (self._site(stack), *map(self._site, stack.callers))
        if sites not in self._stacks:
            number = self._stacks[sites] = len(self._stacks) + 1
            self.line({"d": "stk", "id": number, "s": sites})
        return self._stacks[sites]
