"""Lock logs for other programs: RAPID std, Chrome's trace events, Fuchsia's FXT.

In pictures a thread is a track of its waits; holding a lock is an asynchronous slice of its own,
since locks need not be given back in the order in which they were taken.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from typing import IO, Any, Final, NamedTuple

from harness.errors import UsageError
from harness.trace.locklog import Event
from harness.trace.lockread import Damage, definition, read_log

_FXT_MAGIC: Final = 0x0016547846040010
_WORD_MAX: Final = (1 << 64) - 1
_MICROSECONDS: Final = 1_000  # ticks of FXT, nanoseconds, for one microsecond of Chrome's


class LoggedRun:
    """One run of a log, its numbers resolved on demand.

    Attributes:
        name: Of the run.
        threads: Names by number.
        objects: Names of locks and other objects, by number.
        classes: Names of the classes of locks, by the number of the lock.
        sites: Places by number, ``file:line``.
        events: In order.
    """

    def __init__(self, name: str) -> None:
        """Start with nothing defined."""
        self.name = name
        self.threads: dict[int, str] = {}
        self.objects: dict[int, str] = {}
        self.classes: dict[int, str] = {}
        self.sites: dict[int, str] = {}
        self.events: list[Event] = []
        self._class_names: dict[int, str] = {}

    def define(self, record: dict[str, Any]) -> None:
        """Give a number its meaning; damaged lines mean nothing."""
        read = definition(record, 0)
        if isinstance(read, Damage):
            return
        if read.d == "thr":
            self.threads[read.id] = read.name
        elif read.d == "cls":
            self._class_names[read.id] = read.name
        elif read.d == "lock":
            self.objects[read.id] = read.name
            self.classes[read.id] = self._class_names.get(read.cls, read.name)
        elif read.d == "site":
            self.sites[read.id] = f"{read.f}:{read.l}"


def runs(stream: IO[bytes]) -> Iterator[LoggedRun]:
    """Yield the runs of a log, one at a time."""
    run: LoggedRun | None = None
    for _, records in read_log(stream):
        for record in records:
            if isinstance(record, Event):
                if run is not None:
                    run.events.append(record)
            elif isinstance(record, dict):
                if "zlock" in record:
                    if run is not None:
                        yield run
                    run = LoggedRun(str(record.get("run", "")))
                elif run is not None:
                    run.define(record)
    if run is not None:
        yield run


class _Span(NamedTuple):
    """A thread holds a lock, or waits for something, for a while."""

    thread: int
    what: str
    begin: float
    end: float
    site: str
    holds: bool


def _spans(run: LoggedRun) -> Iterator[_Span]:
    """Yield what each thread holds and waits for; what does not end, ends with the run."""
    held: dict[tuple[int, int], list[Event]] = {}
    waits: dict[int, Event] = {}
    last: float = 0
    for event in run.events:
        last = max(last, event.ts)
        key = (event.tid, event.obj)
        if event.op in ("req", "wait"):
            waits[event.tid] = event
        elif event.op in ("acq", "fail", "wake"):
            asked = waits.pop(event.tid, None)
            if asked is not None and event.ts > asked.ts:
                yield _span(run, asked, event.ts, holds=False)
            if event.op == "acq":
                held.setdefault(key, []).append(event)
        elif event.op == "rel" and held.get(key):
            yield _span(run, held[key].pop(), event.ts, holds=True)
    for asked in waits.values():
        yield _span(run, asked, last + 1, holds=False)
    for taken in held.values():
        for event in taken:
            yield _span(run, event, last + 1, holds=True)


def _span(run: LoggedRun, event: Event, end: float, *, holds: bool) -> _Span:
    name = run.objects.get(event.obj, f"object {event.obj}")
    label = run.classes.get(event.obj, name)
    what = name if label == name else f"{label} {name}"
    return _Span(event.tid, what, event.ts, end, run.sites.get(event.site, ""), holds)


# ---- Chrome -------------------------------------------------------------------------------------


def chrome(stream: IO[bytes]) -> bytes:
    """Write a log as trace events, for the Perfetto UI; a process for each run."""
    events: list[dict[str, Any]] = []
    number = 0
    for pid, run in enumerate(runs(stream), 1):
        events.append({"ph": "M", "pid": pid, "name": "process_name", "args": {"name": run.name}})
        for tid, name in run.threads.items():
            meta = {"ph": "M", "pid": pid, "tid": tid, "name": "thread_name"}
            events.append({**meta, "args": {"name": name}})
        for span in _spans(run):
            base = {"pid": pid, "tid": span.thread, "args": {"site": span.site}}
            if span.holds:
                number += 1
                both = {**base, "cat": "hold", "id": number, "name": span.what}
                events.append({**both, "ph": "b", "ts": span.begin})
                events.append({**both, "ph": "e", "ts": span.end})
            else:
                name = f"waits for {span.what}"
                length = {"ts": span.begin, "dur": span.end - span.begin}
                events.append({**base, "ph": "X", "cat": "wait", "name": name, **length})
    events.sort(key=lambda event: event.get("ts", -1))
    return json.dumps({"traceEvents": events, "displayTimeUnit": "ns"}).encode() + b"\n"


# ---- RAPID std ----------------------------------------------------------------------------------


def std(stream: IO[bytes]) -> bytes:
    """Write the only run of a log as ``thread|op(argument)|location``, for RAPID.

    Modes, waits and attempts that failed have no place in the format.

    Raises:
        UsageError: The log has several runs.
    """
    found = list(runs(stream))
    if len(found) != 1:
        raise UsageError(f"the std format holds one run; the log has {len(found)}")
    run = found[0]
    lines = []
    held: dict[tuple[int, int], int] = {}
    for event in run.events:
        key = (event.tid, event.obj)
        if event.op == "acq":
            held[key] = held.get(key, 0) + 1
            if held[key] > 1:
                continue
        elif event.op == "rel":
            held[key] = held.get(key, 0) - 1
            if held[key]:
                continue
        elif event.op not in ("r", "w", "fork", "join"):
            continue
        names = run.threads if event.op in ("fork", "join") else run.objects
        thread = _word(run.threads.get(event.tid, ""), event.tid)
        subject = _word(names.get(event.obj, ""), event.obj)
        lines.append(f"{thread}|{event.op}({subject})|{event.site}")
    return "\n".join(lines).encode() + b"\n"


def _word(name: str, number: int) -> str:
    """Name something in one word; the number keeps what is named alike apart."""
    plain = "".join(c if c.isalnum() or c in "_.#-" else "_" for c in name)
    return f"{plain or 'x'}:{number}"


# ---- FXT ----------------------------------------------------------------------------------------


class _Fxt:
    """Builds the records; see Fuchsia's trace format."""

    def __init__(self) -> None:
        self.words: list[bytes] = [struct.pack("<QQQ", _FXT_MAGIC, 1 | 2 << 4, 10**9)]
        self._strings: dict[str, int] = {}

    def string(self, text: str) -> int:
        """Return the number of a string; after 32,767 of them, all are one."""
        known = self._strings.get(text)
        if known is None:
            if len(self._strings) >= 0x7FFE:
                return self.string("...")
            known = self._strings[text] = len(self._strings) + 1
            data = text.encode()[:4000]
            size = 1 + (len(data) + 7) // 8
            header = 2 | size << 4 | known << 16 | len(data) << 32
            self.words.append(struct.pack("<Q", header) + data.ljust((size - 1) * 8, b"\0"))
        return known

    def named(self, kind: int, koid: int, name: str, process: int = 0) -> None:
        """Name a process (1) or a thread (2, of ``process``)."""
        label = self.string(name)
        count, body = 0, struct.pack("<Q", _fitting(koid))
        if process:
            argument = 8 | 2 << 4 | self.string("process") << 16
            count, body = 1, body + struct.pack("<QQ", argument, process)
        size = 1 + len(body) // 8
        self.words.append(struct.pack("<Q", 7 | size << 4 | kind << 16 | label << 24 | count << 40))
        self.words.append(body)

    def event(
        self, kind: int, at: int, where: tuple[int, int], category: str, name: str, last: int
    ) -> None:
        """Add an event with one word at its end: the end of a slice (4), an id (5 and 7)."""
        refs = self.string(category) << 32 | self.string(name) << 48
        body = struct.pack("<QQQQ", *map(_fitting, (at, *where, last)))
        self.words.append(struct.pack("<Q", 4 | 5 << 4 | kind << 16 | refs) + body)


def fxt(stream: IO[bytes]) -> bytes:
    """Write a log in Fuchsia's trace format; a process for each run."""
    made = _Fxt()
    number = 0
    for pid, run in enumerate(runs(stream), 1):
        made.named(1, pid, run.name)
        for tid, name in run.threads.items():
            made.named(2, _koid(pid, tid), name, pid)
        points: list[tuple[int, int, tuple[int, int], str, str, int]] = []
        for span in _spans(run):
            where = (pid, _koid(pid, span.thread))
            begin, end = round(span.begin * _MICROSECONDS), round(span.end * _MICROSECONDS)
            if span.holds:
                number += 1
                points.append((begin, 5, where, "hold", span.what, number))
                points.append((end, 7, where, "hold", span.what, number))
            else:
                points.append((begin, 4, where, "wait", f"waits for {span.what}", end))
        for at, kind, where, category, name, last in sorted(points):
            made.event(kind, at, where, category, name, last)
    return b"".join(made.words)


def _fitting(number: int) -> int:
    """As a word holds it: a log may say that something began before the time, or at its end."""
    return max(0, min(number, _WORD_MAX))


def _koid(pid: int, tid: int) -> int:
    """Number a thread among all objects of all runs."""
    return pid << 32 | (tid + 1) % (1 << 32)
