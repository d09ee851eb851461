"""Nondeterminism of the program: a schedule runs twice, and its steps are compared.

A program that depends on anything but its choices (wall time, ``id()``, the order of a set, state
left behind by the schedule before) cannot be replayed. Failing schedules are recorded twice anyway;
of those that pass, a few are run again here, so that a program is known to keep its promise before
a failure makes it matter.
"""

from __future__ import annotations

import linecache
from collections.abc import Sequence

from harness.engine.core import Choose, Core
from harness.engine.finding import Finding, place_of
from harness.engine.thread import Thread
from harness.search.setup import Program, Setup
from harness.search.stage import Stage
from harness.search.watch import Log, Place
from harness.trace.site import site_of

# Thread, operation, object and enabled threads of one step.
_Step = tuple[int, str, str, tuple[int, ...]]


class First:
    """What a schedule that passed did, kept for when it runs again."""

    def __init__(self, core: Core, log: Log) -> None:
        """Read ``log``, whose schedule is the last that ran; it must know its places."""
        self.steps: list[_Step] = [
            (thread.index, kind, core.label(obj), tuple([other.index for other in enabled]))
            for (thread, kind, obj, _), enabled in zip(log.steps, log.enabled, strict=True)
        ]
        self.names = [thread.name for thread in core.threads]
        self.places = log.places


class _Again:
    """Takes the steps of a schedule once more, and ends it at the first that differs.

    Attributes:
        difference: Number of that step, from 1; 0 where there is none.
        now: What was about to be done there instead, and where.
    """

    def __init__(self, first: First) -> None:
        """Args: first: The steps to take."""
        self._first = first.steps
        self.difference = 0
        self.now: tuple[_Step, Place] | None = None

    def begin(self, core: Core) -> Choose:
        """Return ``choose``."""
        run = core.run
        first = self._first

        def choose() -> Thread:
            core.steps = steps = core.steps + 1
            if steps > core.limit:
                core.over()
            wanted = first[steps - 1] if steps <= len(first) else None
            thread = run[0]
            enabled: tuple[int, ...] = ()
            if len(run) > 1:
                enabled = tuple([other.index for other in run])
                if wanted is not None and wanted[0] in enabled:
                    thread = core.threads[wanted[0]]
                core.choices.append(thread.index)
            now = thread.index, thread.kind, core.label(thread.obj), enabled
            if now != wanted:
                self.difference = steps
                self.now = now, place_of(thread)
                core.end("diverged")
            return thread

        return choose


def differing(
    stage: Stage, program: Program, setup: Setup, schedule: int, first: First
) -> Finding | None:
    """Run a schedule that passed once more.

    Args:
        stage: Where to run.
        program: What to run.
        setup: As for the first time.
        schedule: Its number.
        first: What it did.

    Returns:
        What differs, as a finding; None where nothing does.
    """
    again = _Again(first)
    core, _ = stage.run(program, setup.rules(), setup.limits(), again.begin, schedule)
    if core.cut in ("interrupted", "hang"):
        return None
    step = again.difference
    found = core.finding
    if not step and found is not None:
        return Finding(
            "nondeterminism",
            f"a schedule passed, and failed with {found.kind} when the same choices were run "
            f"again: {found.message}",
            found.thread,
            frames=found.frames,
        )
    if not step and core.steps == len(first.steps):
        return None
    step = step or core.steps + 1
    names = [*first.names, *(thread.name for thread in core.threads[len(first.names) :])]
    told = [f"step {step} differs, on running the same choices of a passing schedule again"]
    frames = []
    for word, seen in (("first", _step_of(first, step)), ("then ", again.now)):
        if seen is None:
            told.append(f"{word}: the program had ended")
        else:
            told.append(f"{word}: {_described(*seen, names)}")
            frames.append(seen[1])
    return Finding("nondeterminism", "\n".join(told), core.threads[0], frames=frames)


def _step_of(first: First, number: int) -> tuple[_Step, Place] | None:
    if number > len(first.steps):
        return None
    return first.steps[number - 1], first.places[number - 1]


def _described(step: _Step, at: Place, names: Sequence[str]) -> str:
    thread, kind, obj, enabled = step
    site = site_of(at)
    where = ""
    if site is not None:
        text = linecache.getline(at[0].co_filename, site.line).strip()
        where = f" at {site}" + (f" `{text}`" if text else "")
    able = ", ".join(names[index] for index in enabled or (thread,))
    return f"{names[thread]} {kind} {obj}{where}; can run: {able}"
