"""Lock logs written by hand, one line for a stretch of one thread.

``T1: +a1 ~b1 -b1 -a1`` takes and releases; a name is a class and a number. ``+x`` takes, ``~x``
takes shared, ``%x`` takes for a limited time, ``?x`` wants and never gets, ``-x`` releases, ``*x``
destroys, ``#x`` asserts; ``!E`` signals, ``zE`` sleeps, ``^E`` goes on; ``>T`` starts a thread,
``<T`` joins it, ``.`` ends this one; ``=V`` writes, ``rV`` reads; ``[irq`` enters a context and
``]irq`` leaves it. ``+x/5`` gives an order. Names that begin with E, C, S, V are events,
conditions, semaphores, data, with A atomics; with K: spin locks, with fair: locks
that are fair to writers; classes in ``flags`` have these flags.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

OPS: Final = {
    "+": "acq", "~": "acq", "%": "acq", "?": "req", "-": "rel", "*": "del", "#": "assert",
    "!": "sig", "z": "wait", "^": "wake", ">": "fork", "<": "join", ".": "exit", "=": "w", "r": "r",
    "[": "ctx+", "]": "ctx-", "p": "pin", "u": "unpin",
}  # fmt: skip
TYPES: Final = {"A": "Atomic", "E": "Event", "C": "Condition", "S": "Semaphore", "V": "Shared"}
WAITS: Final = {"E": "event-wait", "S": "sem-acquire"}


class Run:
    """The lines of one run."""

    def __init__(self, name: str, flags: Mapping[str, str], meta: Mapping[str, Any]) -> None:
        self.lines: list[Any] = [{"zlock": 1, "run": name, **meta}]
        self._flags = flags
        self._numbers: dict[str, int] = {}
        self._seq = 0

    def number(self, name: str) -> int:
        known = self._numbers.get(name)
        if known is not None:
            return known
        number = self._numbers[name] = len(self._numbers) + 1
        if name.startswith("T"):
            self.lines.append({"d": "thr", "id": number, "name": name})
        elif name[0] in TYPES:
            self.lines.append({"d": "lock", "id": number, "name": name, "type": TYPES[name[0]]})
        else:
            cls = re.sub(r"\d+$", "", name)
            kind = "spin" if cls.startswith("K") else "mutex"
            flags = self._flags.get(cls, "").split()
            fair = cls.startswith("fair")
            made = {"d": "cls", "id": number, "name": cls, "kind": kind, "flags": flags}
            self.lines.append(made | ({"fair_read": True} if fair else {}))
            self.lines.append({"d": "lock", "id": number, "cls": number, "name": name})
        return number

    def add(self, thread: str, op: str, name: str, mode: str, extra: dict[str, Any]) -> None:
        tid = self.number(thread)
        obj = self.number(name) if name else 0
        self._seq += 1
        at = self._seq
        self.lines.append({"d": "site", "id": at, "f": "f.py", "l": at, "m": "f", "fn": "f"})
        event = [at, at, tid, op, obj, mode, at, 0]
        self.lines.append([*event, extra] if extra else event)

    def token(self, thread: str, token: str) -> None:
        sign, rest = token[0], token[1:]
        op = OPS[sign]
        name, _, order = rest.partition("/")
        extra: dict[str, Any] = {"o": int(order)} if order else {}
        if sign in "[]":
            self.add(thread, op, "", "", {"c": name})
            return
        if sign in "z^":
            extra["what"] = WAITS.get(name[0], "wait")
        mode = "s" if sign == "~" or name.startswith("~") else "x"
        name = name.lstrip("~")
        if sign in "+~%" or sign == "?":
            self.add(thread, "req", name, mode, extra | ({"t": True} if sign == "%" else {}))
        if sign != "?":
            self.add(thread, op, name, mode, extra if op != "acq" else {})


def log(*runs: str, name: str = "x", flags: Mapping[str, str] | None = None, **meta: Any) -> bytes:
    """Write runs, each the lines of its threads in the order of time."""
    lines = []
    for number, text in enumerate(runs, 1):
        run = Run(f"{name}#{number}", flags or {}, meta)
        for line in filter(None, map(str.strip, re.split("[\n;]", text))):
            thread, _, tokens = line.partition(":")
            for token in tokens.split():
                run.token(thread, token)
        lines += run.lines
    return b"\n".join(json.dumps(line).encode() for line in lines) + b"\n"


def write(path: Path, *runs: str, flags: Mapping[str, str] | None = None, **meta: Any) -> Path:
    """Write runs into a file; they are named after it."""
    path.write_bytes(log(*runs, name=path.name.partition(".")[0], flags=flags, **meta))
    return path
