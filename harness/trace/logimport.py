"""Lock events of others as lock logs: RAPID std, Linux ftrace, reports of lockdep and of Zircon.

Reports name edges rather than events; each becomes a thread that makes that edge.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, Final, NamedTuple

from harness.trace.locklog import VERSION

_STD: Final = re.compile(r"^([^|\s]+)\|(\w+)\(([^()|]*)\)\|(\d+)$")
_FTRACE: Final = re.compile(
    r"^\s*(?P<comm>.+)-(?P<pid>\d+)\s+(?:\([^)]*\)\s+)?\[\d+\]\s+(?:\S+\s+)?(?P<ts>\d+\.\d+): "
    r"(?P<event>lock_\w+): (?P<rest>.*)$"
)
_LOCKDEP: Final = re.compile(r"possible (circular|recursive) locking( dependency)? detected")
_CHAIN: Final = re.compile(r"-> #\d+ \((.{1,200}?)\)[ \t]*\{")
_LOCK_NAME: Final = re.compile(r"\((.{1,200}?)\)[ \t]*\{[^{}\n]*\}")
_LOCK_PLACE: Final = re.compile(r"\bat: (\S+?)(?:\+0x|\s|$)")
_FRAME: Final = re.compile(r"(?<![\w.])([A-Za-z_][\w.]*)\+0x[0-9a-f]+/0x[0-9a-f]+")
_INNER_FRAMES: Final = re.compile(
    r"^(_*lock_acquire|_*(mutex|rt_mutex|down|ww_mutex|raw|rwsem|lock_sock|rwbase)\w*|_raw_\w+|"
    r"check_prev\w*|validate_chain|dump_stack\w*|print_\w+|__lock_\w+)$"
)
_OOPS: Final = "ZIRCON KERNEL OOPS"
_OOPS_LOCK: Final = re.compile(r"(Bad lock|Conflict): name=(.{1,400}?) order=(\d+)")
# A line of these formats has no more; a search takes the square of a line, at worst.
_LINE_CHARS_MAX: Final = 1_000
_JSON_CHARS_MAX: Final = 1 << 20
_LINE: Final = re.compile(r"[^\r\n]+")
_HEAD_LINES: Final = 200
_DIGITS_MAX: Final = 18
_EDGE_FIELDS: Final = (
    *("scenario", "thread", "outer", "outer_site", "outer_mode"),
    *("inner", "inner_site", "inner_mode"),
)
_OOPS_LOOP: Final = "Circular lock dependency detected"
_OOPS_FLAGS: Final = {
    "Acquire After Leaf": "leaf",
    "Invalid Irq Safety": "irq_safe",
    "Invalid Nesting": "nestable",
}


class _Log:
    """Builds the lines of one run."""

    def __init__(self, name: str) -> None:
        self.lines: list[dict[str, Any] | list[Any]] = [
            {"zlock": VERSION, "run": name, "clock": "import"}
        ]
        self._name = name
        self._numbers: dict[tuple[str, str], int] = {}
        self._seq = 0

    def clock(self, unit: str) -> None:
        """Say that times are times."""
        self.lines[0] = {"zlock": VERSION, "run": self._name, "clock": unit}

    def _number(self, what: str, name: str, **more: Any) -> int:
        known = self._numbers.get((what, name))
        if known is None:
            known = self._numbers[what, name] = len(self._numbers) + 1
            self.lines.append({"d": what, "id": known, "name": name, **more})
        return known

    def thread(self, name: str) -> int:
        return self._number("thr", name)

    def lock(self, name: str, lock_class: str = "", flags: Iterable[str] = ()) -> int:
        cls = self._number("cls", lock_class or name, flags=list(flags))
        return self._number("lock", name, cls=cls)

    def cell(self, name: str) -> int:
        return self._number("lock", name, type="Shared")

    def site(self, file: str, line: int) -> int:
        return self._number("site", f"{file}:{line}", f=file, l=line, m=file, fn=file, o=line)

    def event(
        self, thread: str, op: str, obj: int, site: int = 0, mode: str = "x", **extra: Any
    ) -> None:
        self._seq += 1
        ts = extra.pop("ts", self._seq)
        event = [self._seq, ts, self.thread(thread), op, obj, mode, site, 0]
        self.lines.append([*event, extra] if extra else event)

    def nest(self, thread: str, pairs: Iterable[tuple[int, int, int]]) -> None:
        """A thread takes locks, each (lock, site, order), one inside the other."""
        taken: list[int] = []
        for lock, site, order in pairs:
            extra: dict[str, Any] = {"o": order} if order else {}
            self.event(thread, "req", lock, site, **extra)
            if lock not in taken:
                self.event(thread, "acq", lock, site)
                taken.append(lock)
        for lock in reversed(taken):
            self.event(thread, "rel", lock)

    def text(self) -> bytes:
        return b"\n".join(json.dumps(line).encode() for line in self.lines) + b"\n"


def translated(name: str, text: str) -> bytes | None:
    """Return text in a format that is known as a lock log; None where it is in none.

    Args:
        name: Of the file; becomes the name of the run.
        text: All of it.
    """
    for fits, read in _READERS:
        if fits(text):
            log = _Log(name)
            read(text, log)
            return log.text()
    return None


def _lines(text: str, chars_max: int = _LINE_CHARS_MAX) -> Iterator[str]:
    """The lines that can be of a known format, one after the other."""
    for found in _LINE.finditer(text):
        if found.end() - found.start() <= chars_max:
            yield found[0]


def _first_line(text: str) -> str:
    return next((line for line in _lines(text, _JSON_CHARS_MAX) if line.strip()), "")


def _number(digits: str) -> int:
    """What they say; 0 for what is none, or longer than any that counts something."""
    plain = digits.isascii() and digits.isdigit() and len(digits) <= _DIGITS_MAX
    return int(digits) if plain else 0


# ---- RAPID std ----------------------------------------------------------------------------------


def _is_std(text: str) -> bool:
    return _STD.match(_first_line(text)[:_LINE_CHARS_MAX].strip()) is not None


def _std(text: str, log: _Log) -> None:
    ops = {"acq": "acq", "rel": "rel", "r": "r", "w": "w", "fork": "fork", "join": "join"}
    for line in _lines(text):
        found = _STD.match(line.strip())
        if found is None or found[2] not in ops:
            continue
        thread, op, obj, at = found[1], ops[found[2]], found[3], _number(found[4])
        if op in ("fork", "join"):
            number = log.thread(obj)
        else:
            number = log.cell(obj) if op in "rw" else log.lock(obj)
        log.event(thread, op, number, log.site("trace", at))


# ---- Linux ftrace -------------------------------------------------------------------------------


class _Traced(NamedTuple):
    thread: str
    event: str
    address: str
    name: str
    flags: str
    ts: float


def _is_ftrace(text: str) -> bool:
    return any(map(_FTRACE.match, islice(_lines(text), _HEAD_LINES)))


def _ftrace_lines(text: str) -> Iterator[_Traced]:
    for line in _lines(text):
        found = _FTRACE.match(line)
        if found is None:
            continue
        address, _, rest = found["rest"].partition(" ")
        flags = ""
        while rest.startswith(("try ", "read ")):
            flag, _, rest = rest.partition(" ")
            flags += flag + " "
        thread = f"{found['comm'].strip()}-{found['pid']}"
        yield _Traced(thread, found["event"], address, rest.strip(), flags, float(found["ts"]))


def _ftrace(text: str, log: _Log) -> None:
    log.clock("s")
    lines = list(_ftrace_lines(text))
    contended = set()
    asked: dict[str, int] = {}
    for at, line in enumerate(lines):
        if line.event == "lock_acquire":
            asked[line.thread] = at
        elif line.event == "lock_contended" and line.thread in asked:
            contended.add(asked[line.thread])
    modes: dict[tuple[str, str], str] = {}
    waiting: set[tuple[str, str]] = set()
    for at, line in enumerate(lines):
        lock = log.lock(f"{line.name} {line.address}", line.name)
        key = (line.thread, line.address)
        if line.event == "lock_acquire":
            mode = modes[key] = "s" if "read" in line.flags else "x"
            op = "try" if "try" in line.flags else "req"
            log.event(line.thread, op, lock, mode=mode, ts=line.ts)
            if at in contended:
                waiting.add(key)
            else:
                log.event(line.thread, "acq", lock, mode=mode, ts=line.ts)
        elif line.event == "lock_acquired" and key in modes:
            if key in waiting:
                waiting.discard(key)
                log.event(line.thread, "acq", lock, mode=modes[key], ts=line.ts)
        elif line.event == "lock_release" and key in modes:
            log.event(line.thread, "rel", lock, mode=modes.pop(key), ts=line.ts)


# ---- our own console log ------------------------------------------------------------------------


def _is_console_log(text: str) -> bool:
    return '"lock-edge"' in text and _first_line(text).startswith("{")


def _console_log(text: str, log: _Log) -> None:
    """Read a log of ``--log-file``: the edges that runs have found, with both places."""
    for number, line in enumerate(_lines(text, _JSON_CHARS_MAX), 1):
        if '"lock-edge"' not in line:
            continue
        try:
            edge = _edge_in(json.loads(line))
        except (ValueError, RecursionError):
            continue
        if edge is None:
            continue
        thread = f"{edge['scenario']} {edge['thread']} {number}"
        locks = []
        for which in ("outer", "inner"):
            file, _, at = edge[f"{which}_site"].rpartition(":")
            site = log.site(file, _number(at)) if _number(at) else 0
            mode = "s" if edge[f"{which}_mode"] == "shared" else "x"
            locks.append((log.lock(edge[which]), site, mode))
        for lock, site, mode in locks:
            log.event(thread, "req", lock, site, mode)
            log.event(thread, "acq", lock, site, mode)
        for lock, _, mode in reversed(locks):
            log.event(thread, "rel", lock, 0, mode)


def _edge_in(value: Any) -> dict[str, str] | None:
    """Find the bound fields of an edge, wherever the sink has put them."""
    if isinstance(value, dict):
        fields = {name: value.get(name) for name in _EDGE_FIELDS}
        edge = {name: field for name, field in fields.items() if isinstance(field, str)}
        if value.get("event") == "lock-edge" and len(edge) == len(fields):
            return edge
        for inside in value.values():
            found = _edge_in(inside)
            if found is not None:
                return found
    return None


# ---- reports ------------------------------------------------------------------------------------


def _is_lockdep(text: str) -> bool:
    return _LOCKDEP.search(text) is not None


def _lockdep(text: str, log: _Log) -> None:
    """Read lockdep's splats: ``-> #i (lock)`` was taken while ``-> #i+1`` was held, in a circle."""
    text = "\n".join(_lines(text))
    begins = [found.start() for found in _LOCKDEP.finditer(text)]
    for number, begin in enumerate(begins, 1):
        end = begins[number] if number < len(begins) else len(text)
        splat = text[begin:end]
        if "recursive" in splat[: splat.find("\n")]:
            locks = list(islice(_lock_lines(splat), 2))
            if len(locks) == 2:
                (name, wanted), (_, held) = locks
                places = ((2, held), (1, wanted))
                pair = [(log.lock(f"{name} #{i}", name), log.site(at, 1), 0) for i, at in places]
                log.nest(f"CPU {number}.0", pair)
            continue
        chain = list(_CHAIN.finditer(splat))
        for at, found in enumerate(chain):
            outer = chain[at - 1][1]
            stop = chain[at + 1].start() if at + 1 < len(chain) else len(splat)
            site = log.site(_outside(splat[found.end() : stop]), 1)
            thread = f"CPU {number}.{at}"
            locks_ = [(log.lock(outer), 0, 0), (log.lock(found[1]), site, 0)]
            log.nest(thread, locks_)


def _lock_lines(splat: str) -> Iterator[tuple[str, str]]:
    """Locks by name, each with the place where it was taken."""
    for line in splat.split("\n"):
        place = _LOCK_PLACE.search(line)
        name = None if place is None else _LOCK_NAME.search(line)
        if place is not None and name is not None:
            yield name[1], place[1]


def _outside(stack: str) -> str:
    """Return the innermost frame that is no part of the locks themselves."""
    frames: list[str] = _FRAME.findall(stack)
    return next((frame for frame in frames if not _INNER_FRAMES.match(frame)), "unknown")


def _is_oops(text: str) -> bool:
    return _OOPS in text or _OOPS_LOOP in text


def _oops(text: str, log: _Log) -> None:
    """Read reports of Zircon's lockdep: pairs with their reason, and circles by their members."""
    # The empty line that ends a circle counts.
    text = "\n".join(line for line in text.split("\n") if len(line) <= _LINE_CHARS_MAX)
    for number, report in enumerate(re.split(f"(?={_OOPS})", text), 1):
        reason = re.search(r"Reason: (.+)", report)
        locks = {found[1]: (found[2], _number(found[3])) for found in _OOPS_LOCK.finditer(report)}
        said = "" if reason is None else reason[1].strip()
        if len(locks) == 2:
            held, wanted = locks["Conflict"], locks["Bad lock"]
            flag = _OOPS_FLAGS.get(said)
            flags = () if flag is None else (flag,)
            same = held[0] == wanted[0] and said != "Reentrance"
            outer = log.lock(held[0] + (" held" if same else ""), held[0], flags)
            inner = log.lock(wanted[0], wanted[0], flags if held[0] == wanted[0] else ())
            log.nest(f"report {number}", [(outer, 0, held[1]), (inner, 0, wanted[1])])
            if said == "Out Of Order":
                log.nest(f"before report {number}", [(inner, 0, 0), (outer, 0, 0)])
        for at, circle in enumerate(report.split(_OOPS_LOOP)[1:]):
            names = []
            for line in circle.splitlines()[1:]:
                if not line.strip():
                    break
                names.append(line.strip())
            for index, name in enumerate(names):
                thread = f"circle {number}.{at}.{index}"
                pair = [(log.lock(name), 0, 0), (log.lock(names[(index + 1) % len(names)]), 0, 0)]
                log.nest(thread, pair)


_READERS: Final[tuple[tuple[Callable[[str], bool], Callable[[str, _Log], None]], ...]] = (
    (_is_console_log, _console_log),
    (_is_std, _std),
    (_is_ftrace, _ftrace),
    (_is_lockdep, _lockdep),
    (_is_oops, _oops),
)
