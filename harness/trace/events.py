"""What a recorded schedule consists of, as plain data.

The recorder fills these while a schedule is replayed; the text story, the pictures and the lock log
are made from them alone. Nothing here differs between two recordings of the same schedule.
"""

from __future__ import annotations

from typing import Any

import msgspec

from harness.engine.view import Placed


def writable(text: str) -> str:
    """``text`` as UTF-8 can carry it: lone surrogates, as in names of files, come escaped."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def as_json(value: object) -> bytes:
    """``value`` as JSON; see ``writable``."""
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:
        return msgspec.json.encode(_all_writable(msgspec.to_builtins(value)))


def _all_writable(value: Any) -> Any:
    if isinstance(value, str):
        return writable(value)
    if isinstance(value, dict):
        return {_all_writable(key): _all_writable(each) for key, each in value.items()}
    return [_all_writable(each) for each in value] if isinstance(value, (list, tuple)) else value


class Site(msgspec.Struct, frozen=True):
    """A place in the source.

    Attributes:
        module: Dotted name of the module.
        qualname: Qualified name of the function.
        ordinal: Which operation of that function it is, from 0; independent of line numbers.
        file: Relative to the working directory where it lies inside it, else the end of its path.
        line: Line number, from 1; the same on the same minor version of Python.
    """

    module: str
    qualname: str
    ordinal: int
    file: str
    line: int

    def __str__(self) -> str:
        """Show what an editor can jump to."""
        return f"{self.file}:{self.line}"


class Stack(Site, frozen=True):
    """A place, and how the program came there; equal to the place alone, whoever called.

    Attributes:
        callers: Where the functions were called in which it lies, the innermost first.
    """

    callers: tuple[Site, ...] = ()

    @property
    def place(self) -> Site:
        """The place alone."""
        return Site(self.module, self.qualname, self.ordinal, self.file, self.line)

    def __eq__(self, other: object) -> bool:
        """Compare places."""
        theirs = other.place if isinstance(other, Stack) else other
        return self.place == theirs

    def __hash__(self) -> int:
        """As that of the place."""
        return hash(self.place)


def place_alone(site: Site | None) -> Site | None:
    """Leave out how the program came to a place."""
    return site.place if isinstance(site, Stack) else site


class ObjectInfo(msgspec.Struct, frozen=True):
    """What is known of a primitive beyond its name.

    Attributes:
        type: Name of its type, ``Mutex`` for instance.
        lock_class: Name of its lock class; empty where it has none.
        flags: ``LockFlags`` of its class, as a number.
        address: Its number in the order of creation, from 1; 0 where it has none.
        mutex: Of a condition: the name of its mutex.
    """

    type: str
    lock_class: str = ""
    flags: int = 0
    address: int = 0
    mutex: str = ""


class Claim(msgspec.Struct, frozen=True):
    """What a thread says of itself between two steps; whether it is so is for others to judge.

    Attributes:
        thread: Index of the thread.
        lock: The lock that it says it holds; empty where it says that it holds none.
        site: Where.
        what: What is about to happen, or which assertion says so.
        shared: Readers may hold that lock, too.
    """

    thread: int
    lock: str = ""
    site: Site | None = None
    what: str = ""
    shared: bool = False


class Step(msgspec.Struct, frozen=True):
    """One step: one operation of one thread.

    Attributes:
        step: Number of the step, from 1.
        thread: Index of the thread; the caller is 0.
        name: Name of the thread.
        kind: Kind of the operation, ``acquire`` for instance.
        obj: Name of the object; of a spawn, a join or an interrupt the other thread's name.
        outcome: What the operation returned, as text; empty where nothing is worth saying.
        site: Where the operation stands.
        held: Locks held when the operation took effect, before that effect, in the order of
            acquisition.
        enabled: Indexes of the threads whose next operation could run at this step, ascending.
        published: Number of the first step at which this operation was pending; ``step`` where it
            was announced after the step before.
        waited: The thread was blocked at it.
        preemption: The switch to this step was a preemption.
        clock: Virtual time in seconds.
        note: Remarks made by the code that belongs to this step.
        order: Nesting order given with an acquisition.
        releases: Of a wait: the lock that it gives up while it sleeps.
        woke: Indexes of the sleepers that it woke and that want their lock back first.
        limited: The thread had been blocked, for a limited time.
        claims: What the code that belongs to this step says of the locks that its thread holds.
    """

    step: int
    thread: int
    name: str
    kind: str
    obj: str
    outcome: str = ""
    site: Site | None = None
    held: tuple[str, ...] = ()
    enabled: tuple[int, ...] = ()
    published: int = 0
    waited: bool = False
    preemption: bool = False
    clock: float = 0.0
    note: tuple[str, ...] = ()
    order: int = 0
    releases: str = ""
    woke: tuple[int, ...] = ()
    limited: bool = False
    claims: tuple[Claim, ...] = ()


class Wait(msgspec.Struct, frozen=True):
    """One edge of a wait-for cycle.

    Attributes:
        thread: Who waits.
        wants: For what: the name of the object.
        kind: By which operation.
        holder: Name of the thread that is waited for.
        site: Where the thread waits.
        held_since: Where the holder took what is wanted.
    """

    thread: str
    wants: str
    kind: str
    holder: str
    site: Site | None = None
    held_since: Site | None = None


class ThreadState(msgspec.Struct, frozen=True):
    """Where a thread stood when the schedule ended.

    Attributes:
        name: Name of the thread.
        state: ``running``, ``blocked`` or ``ended``.
        kind: Operation that it was about to do; empty where it has ended.
        obj: Object of that operation.
        site: Where it stood.
        held: Locks that it held.
        thread: Its index.
        published: Number of the first step at which that operation was pending.
        limited: It waits at that operation for a limited time.
        order: Nesting order given with it, where it is an acquisition.
        refused: A lock rule ended the schedule at that operation, before it was pending.
    """

    name: str
    state: str
    kind: str = ""
    obj: str = ""
    site: Site | None = None
    held: tuple[str, ...] = ()
    thread: int = 0
    published: int = 0
    limited: bool = False
    order: int = 0
    refused: bool = False


class Frame(msgspec.Struct, frozen=True):
    """What a step changed in the picture that the program's views give.

    Attributes:
        step: Number of the step; 0 for what was there before the first.
        changed: Where each thing is from here on, by name, that was elsewhere or looked otherwise.
        gone: Things that are shown no more.
    """

    step: int
    changed: dict[str, Placed] = {}
    gone: tuple[str, ...] = ()


class Story(msgspec.Struct, frozen=True):
    """A failing schedule in full.

    Attributes:
        kind: Kind of the failure; empty where the schedule did not fail.
        message: Its message.
        exception_text: Traceback of the exception, where there was one.
        cycle: The wait-for cycle of a deadlock.
        steps: All steps.
        final: Where each thread stood at the end, by index.
        lock_findings: Broken lock rules as text, one each.
        objects: What is known of each object that the steps name.
        film: What the program's views showed, by step; empty where it has none.
    """

    kind: str = ""
    message: str = ""
    exception_text: str = ""
    cycle: tuple[Wait, ...] = ()
    steps: tuple[Step, ...] = ()
    final: tuple[ThreadState, ...] = ()
    lock_findings: tuple[str, ...] = ()
    objects: dict[str, ObjectInfo] = {}
    film: tuple[Frame, ...] = ()
