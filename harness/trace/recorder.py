"""The recorder: sees every step of one schedule, and changes none."""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Sequence
from typing import Any

import msgspec

from harness.engine.core import Core
from harness.engine.finding import Finding, place_of, stack_of
from harness.engine.thread import Group, Thread
from harness.engine.view import View
from harness.lockorder.classes import LockClass, LockFlags
from harness.trace.events import Claim, Frame, ObjectInfo, Site, Stack, Step, ThreadState, Wait
from harness.trace.film import Film
from harness.trace.site import site_of

_TAKING = ("acquire", "re-acquire", "try-acquire", "read-acquire", "write-acquire")
# Every text has bytes, also one that UTF-8 cannot carry.
_UTF8 = ("utf-8", "backslashreplace")
_PLAIN = (bool, int, float, str, bytes, type(None))


def plain(value: object) -> str:
    """An outcome as text that does not depend on addresses or hashing."""
    if isinstance(value, enum.Enum):
        return f"{type(value).__name__}.{value.name}"
    if isinstance(value, _PLAIN):
        return repr(value)
    if isinstance(value, Thread):
        return value.name
    if isinstance(value, (tuple, list)):
        return f"({', '.join(plain(item) for item in value)})"
    return type(value).__name__


class _Publication:
    """What a thread has announced: where it stands, since when, and whether it had to wait."""

    __slots__ = ("published", "site", "waited")

    def __init__(self, site: Site | None, published: int, *, waited: bool) -> None:
        self.site = site
        self.published = published
        self.waited = waited


class TraceRecorder:
    """Records every step of a schedule; see ``engine.core.Recorder``.

    Attributes:
        steps: One ``Step`` for each.
        objects: What each named object is.
        final: Where each thread stood when the schedule ended.
    """

    def __init__(self, core: Core, *, film: bool = True, stacks: bool = False) -> None:
        """Begin with nothing seen.

        Args:
            core: The engine whose schedule is about to run.
            film: Whether to look at the program's views.
            stacks: Whether places are recorded with all their callers.
        """
        self._stacks = stacks
        self._core = core
        self._published: dict[int, _Publication] = {}
        self.steps: list[Step] = []
        self.objects: dict[str, ObjectInfo] = {}
        self.final: tuple[ThreadState, ...] = ()
        self._asleep: set[int] = set()
        self._limits: dict[int, bool] = {}  # blocked thread -> whether for a limited time
        self._film = Film(core) if film else None
        # Where a thread last took a lock, by (thread index, lock).
        self._since: dict[tuple[int, str], Site | None] = {}

    def publish(self, thread: Thread) -> None:
        """``thread`` has announced its next operation, or is blocked at it."""
        if not thread.enabled:
            self._limits[thread.index] = thread.deadline is not None
        self._published[thread.index] = _Publication(
            self._site_of(thread), self._core.steps + 1, waited=not thread.enabled
        )

    def _site_of(self, thread: Thread) -> Site | None:
        """Where a thread stands."""
        if not self._stacks:
            return site_of(place_of(thread))
        sites = [site for each in stack_of(thread) if (site := site_of(each)) is not None]
        if not sites:
            return None
        top = sites[0]
        return Stack(top.module, top.qualname, top.ordinal, top.file, top.line, tuple(sites[1:]))

    def step(self, thread: Thread, steps: int) -> None:
        """``thread`` takes step number ``steps``."""
        if self._film is not None:
            self._film.look(steps - 1)
        self._note_woken()
        core = self._core
        publication = self._published.get(thread.index)
        site = None if publication is None else publication.site
        label = self._label(thread)
        cur = core.cur
        preemption = thread is not cur and cur.enabled and not cur.done and core.costs(thread)
        if thread.kind in _TAKING:
            self._since[(thread.index, label)] = site
        self.steps.append(
            Step(
                step=steps,
                thread=thread.index,
                name=thread.name,
                kind=thread.kind,
                obj=label,
                outcome="",
                site=site,
                held=tuple(core.label(lock) for lock in thread.held),
                enabled=tuple(sorted(other.index for other in core.run)),
                published=steps if publication is None else publication.published,
                waited=publication is not None and publication.waited,
                preemption=preemption,
                clock=core.clock,
                order=_order(thread),
                releases=self._releases(thread),
                limited=self._limits.pop(thread.index, False),
            )
        )

    def _note_woken(self) -> None:
        """Whom the last step woke, of those that cannot run before they have their lock back."""
        woken = []
        for thread in self._core.threads:
            asleep = thread.kind in ("wait", "queue-block") and not thread.enabled
            if thread.kind == "re-acquire" and thread.index in self._asleep and thread.released:
                woken.append(thread.index)
            if asleep:
                self._asleep.add(thread.index)
            else:
                self._asleep.discard(thread.index)
        if woken:
            self.steps[-1] = msgspec.structs.replace(self.steps[-1], woke=tuple(woken))

    def _releases(self, thread: Thread) -> str:
        """The lock that a wait gives up."""
        if thread.kind == "wait":
            return self._core.label(thread.obj.mutex)
        if thread.kind == "queue-block" and thread.releasing is not None:
            return self._core.label(thread.releasing)
        return ""

    def _label(self, thread: Thread) -> str:
        """The name of the object of ``thread``'s operation."""
        return self._meet(thread.obj)

    def _meet(self, obj: Any) -> str:
        """The name of an object; remembers what it is."""
        label = self._core.label(obj)
        if label not in self.objects and obj is not None and not isinstance(obj, Group):
            lock_class: Any = getattr(obj, "lock_class", None)
            self.objects[label] = ObjectInfo(
                type=type(obj).__name__,
                lock_class="" if lock_class is None else lock_class.name,
                flags=0 if lock_class is None else int(lock_class.flags),
                address=len(self.objects) + 1,
                mutex=self._core.label(obj.mutex) if hasattr(obj, "mutex") else "",
            )
        return label

    def outcome(self, value: object) -> None:
        """The operation of the last step returned ``value``."""
        if self.steps:
            self.steps[-1] = msgspec.structs.replace(self.steps[-1], outcome=plain(value))

    def note(self, text: str) -> None:
        """Attach a remark to the last step."""
        if self.steps:
            last = self.steps[-1]
            self.steps[-1] = msgspec.structs.replace(last, note=(*last.note, text))

    def claim(self, lock: object, what: str) -> None:
        """The calling thread says that it holds ``lock``, or no lock at all."""
        if self.steps:
            last = self.steps[-1]
            made = Claim(
                self._core.cur.index,
                "" if lock is None else self._meet(lock),
                self._site_of(self._core.cur),
                what,
                shared=hasattr(lock, "readers"),
            )
            self.steps[-1] = msgspec.structs.replace(last, claims=(*last.claims, made))

    def freeze(self) -> None:
        """The schedule ends here: note where every thread stands, before any is taken down."""
        self.final = tuple(map(self._state, self._core.threads))
        self.ended()

    def ended(self) -> None:
        """The last step is over."""
        if self._film is not None:
            self._film.look(len(self.steps))

    def observe(self, view: View) -> None:
        """Look at ``view`` after every step from now on."""
        if self._film is not None:
            self._film.add(view)

    def film(self, first: int) -> tuple[Frame, ...]:
        """What the views showed, for a reader who begins with step ``first``."""
        return () if self._film is None else self._film.frames(first)

    def _state(self, thread: Thread) -> ThreadState:
        label = self._core.label
        held = tuple(label(lock) for lock in thread.held)
        if thread.done:
            return ThreadState(thread.name, "ended", held=held, thread=thread.index)
        running = thread is self._core.cur and thread.enabled
        publication = self._published.get(thread.index)
        broke = self._core.finding
        # An assertion that no lock is held is no operation; all else that is fatal is.
        refused = (
            broke is not None
            and (broke.kind, broke.thread) == ("lock-order", thread)
            and broke.rule != "CTX003"
        )
        return ThreadState(
            thread.name,
            "running" if running or thread.enabled else "blocked",
            thread.kind,
            self._label(thread),
            self._site_of(thread),
            held,
            thread.index,
            0 if publication is None else publication.published,
            limited=not refused and _limited(thread),
            order=_order(thread),
            refused=refused,
        )

    def cycle(self, finding: Finding | None) -> tuple[Wait, ...]:
        """The wait-for cycle of ``finding``; must be called before the next schedule."""
        if finding is None:
            return ()
        standing = {state.thread: state for state in self.final}
        waits = []
        for waiter, holder in finding.cycle:
            state = standing[waiter.index]
            since = self._since.get((holder.index, state.obj))
            waits.append(Wait(waiter.name, state.obj, state.kind, holder.name, state.site, since))
        return tuple(waits)


def _limited(thread: Thread) -> bool:
    """Whether ``thread`` does not wait for ever at its operation, also where its time has run out.

    The lock rules judge an acquisition when it is announced, but a limited one once it succeeds.
    """
    if thread.deadline is not None:
        return True
    lock_class: LockClass | None = getattr(thread.obj, "lock_class", None)
    if thread.kind != "acquire" or lock_class is None:
        return False
    if lock_class.flags & LockFlags.TRACKING_DISABLED:
        return False
    entries = thread.locks.entries if thread.locks is not None else []
    return not entries or bool(entries[-1].address != thread.obj.address)


def _order(thread: Thread) -> int:
    """The nesting order of an acquisition: as judged by the lock rules, or the lock's own."""
    if thread.kind not in _TAKING:
        return 0
    lock: Any = thread.obj
    entries = thread.locks.entries if thread.locks is not None else []
    if entries and entries[-1].address == lock.address:
        return entries[-1].order
    return int(getattr(lock, "order", 0))


def digest(steps: Sequence[Step], kind: str, sites: Sequence[Site | None]) -> str:
    """16 hex digits over thread, operation, object, outcome of every step, and kind and sites."""
    text = hashlib.sha256()
    for step in steps:
        text.update(
            f"{step.thread}|{step.name}|{step.kind}|{step.obj}|{step.outcome}\n".encode(*_UTF8)
        )
    text.update(f"{kind}|{'|'.join(map(named, sites))}".encode(*_UTF8))
    return text.hexdigest()[:16]


def named(site: Site | None) -> str:
    """A site without its line."""
    return "-" if site is None else f"{site.module}:{site.qualname}:{site.ordinal}"


def fingerprint(kind: str, rule: str, sites: Sequence[Site | None]) -> str:
    """8 hex digits over kind, exception type or rule, and the sites involved, in any order."""
    text = f"{kind}|{rule}|{'|'.join(sorted(map(named, sites)))}"
    return hashlib.sha256(text.encode(*_UTF8)).hexdigest()[:8]


def checkpoint(step: Step) -> bytes:
    """What a token remembers of one step, before it is folded to a byte."""
    return f"{step.thread}|{step.kind}|{step.obj}".encode(*_UTF8)
