"""An exploration in free mode: what fails is captured, and brought under control."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from typing import Final

from harness.engine.core import CORE, Core
from harness.engine.finding import Finding
from harness.engine.pool import Watchdog
from harness.lockorder.rules import Finding as OrderFinding
from harness.search.attempts import following_order
from harness.search.free import Free, FreePool, FreeRecorder, freely, run_freely
from harness.search.part import Part, count
from harness.search.recording import key_of, order_key, record, resolved, told
from harness.search.setup import Program, Progress, Setup
from harness.search.stage import Stage
from harness.trace.events import Story
from harness.trace.story import tell

_COLLECT_EVERY: Final = 64
_PROGRESS_EVERY: Final = 8

Sink = Callable[[int, Story, list[int]], None]


def free_part(
    program: Program,
    setup: Setup,
    first: int,
    last: int | None,
    *,
    seconds: float | None = None,
    progress: Progress | None = None,
    sink: Sink | None = None,
) -> Part:
    """Run schedules ``first`` to ``last`` freely; arguments as for ``explore_part``.

    ``sink`` is called after each with its number, its story and the time of each step. Recording
    makes threads wait for each other a little more.

    A failure counts once its order of operations fails under control too; see ``Part.unconfirmed``.
    """
    part = Part(first, rules=setup.rules())
    began = time.monotonic()
    with Stage(setup.hang_seconds, settle=False) as stage:
        run = _FreeRun(stage, program, setup, part, sink)
        with Watchdog(run.pool, setup.hang_seconds) as watchdog:
            schedule = first
            while not part.cut and (last is None or schedule <= last):
                if seconds is not None and time.monotonic() - began >= seconds:
                    part.cut = "seconds"
                    break
                watchdog.number = schedule
                free = Free(setup.seed, schedule)
                core = run.once(schedule, free)
                watchdog.number = 0
                run.enter(core, schedule, free)
                if progress is not None and part.schedules % _PROGRESS_EVERY == 0:
                    progress(part.schedules, len(part.failures), None)
                if setup.stop_at_first and part.failures:
                    break
                schedule += 1
        run.pool.close()
        if progress is not None:
            progress(part.schedules, len(part.failures), None)
    part.rules.resolve(resolved)
    part.seconds = time.monotonic() - began
    for failure in part.failures:
        failure.attach(program)
    return part


class _FreeRun:
    """One exploration's free schedules, and what is kept of them."""

    def __init__(
        self, stage: Stage, program: Program, setup: Setup, part: Part, sink: Sink | None
    ) -> None:
        self._sink = sink
        self.pool = FreePool()
        self._stage = stage
        self._program = program
        self._setup = setup
        self._part = part
        self._known = 0

    def once(self, schedule: int, free: Free) -> Core:
        """Run one schedule."""
        rules = self._part.rules
        self._known = len(rules.findings)
        rules.begin(schedule)
        recorder = None if self._sink is None else FreeRecorder(CORE, stacks=self._setup.stacks)
        limits = self._setup.limits()
        with freely():
            core = run_freely(self._program, self.pool, rules, limits, free, schedule, recorder)
        if self._sink is not None and recorder is not None and core.cut != "hang":
            finding = core.finding
            error = None if finding is None else finding.error
            self._sink(schedule, tell(finding, recorder, self._setup.steps_max), recorder.times)
            if finding is not None:
                finding.error = error  # whoever captures the failure lets go of it
        return core

    def enter(self, core: Core, schedule: int, free: Free) -> None:
        """Count it, and bring what failed under control."""
        part = self._part
        if core.cut == "interrupted":
            part.cut = "interrupted"
            return
        count(core, self._setup, part)
        part.decisions += len(set(free.order)) > 1
        if core.cut == "hang":
            name, stacks = self.pool.hung or ("a thread", "")
            part.cut, part.detail = "hang", f"{name}\n{stacks}"
            return
        finding, fresh = core.finding, part.rules.findings[self._known :]
        for order in fresh:
            if not order.fatal:
                self._capture_order(order, schedule, free)
        if finding is not None:
            self._capture(finding, schedule, free)
        if part.schedules % _COLLECT_EVERY == 0:
            gc.collect()

    def _capture(self, finding: Finding, schedule: int, free: Free) -> None:
        """Run the order of a failure under control: it has a token if it fails there too."""
        part = self._part
        order = finding.order
        key = key_of(finding) if order is None else order_key(order)
        finding.error = None
        if not any(failure.fingerprint == key for failure in part.failures):
            begin = following_order(free.order)
            again = record(self._stage, self._program, self._setup, schedule, begin, [])
            failure, _ = told(again, self._setup, schedule, fair=False)
            if failure is None:
                where = f"{finding.kind}: {finding.message.splitlines()[0]}"
                part.unconfirmed.append(f"schedule {schedule}, {where}")
                return
            if all(failure.fingerprint != known.fingerprint for known in part.failures):
                part.failures.append(failure)
        part.failing[finding.kind] = part.failing.get(finding.kind, 0) + 1

    def _capture_order(self, order: OrderFinding, schedule: int, free: Free) -> None:
        """The same for a lock-order finding that let its schedule go on."""
        part = self._part
        key = order_key(order)
        if any(failure.fingerprint == key for failure in part.failures):
            return
        begin = following_order(free.order)
        edges = list(order.earlier())
        again = record(self._stage, self._program, self._setup, schedule, begin, edges)
        if any(order_key(other) == key for other in again.rules.findings):
            part.failures.append(again.order_failure(order, key, self._setup))
        else:
            part.unconfirmed.append(f"schedule {schedule}, lock-order: {order.message}")
