"""What many schedules amount to: parts put together, and the verdict they earn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from harness.lockorder.deadlocks import Deadlocks, settled
from harness.lockorder.rules import Finding as OrderFinding
from harness.lockorder.rules import LockRules
from harness.search.declared import declared
from harness.search.evidence import Evidence, evidence
from harness.search.foresight import MISSED, Foreseen, foreseen
from harness.search.learning import Pupil
from harness.search.part import Part, explore_part
from harness.search.recording import Failure, order_key, record
from harness.search.setup import Program, Setup
from harness.search.stage import Stage, prepare
from harness.strategies import strategy_named


@dataclass
class Exploration:
    """What ``explore`` returns.

    Attributes:
        verdict: ``pass``, ``fail`` or ``inconclusive``; a pass has been earned.
        reason: Why, in a sentence.
        schedules: How many were run; those cut short by a reduction included.
        steps: In all of them.
        switches: Hand-offs from one OS thread to another.
        preemptions: Switches away from a thread that could have gone on.
        seconds: Wall time.
        exhausted: Every schedule (within the bound) was run.
        blocked: Schedules that a reduction cut short.
        failure: The first, or None.
        failures: The first of each fingerprint, by schedule.
        failing: How many schedules failed, by kind.
        lock_order: The merged lock-order graph and its findings.
        detail: Stacks of a thread that hung, or other matter too long for the reason.
        reached: Names given to ``sometimes``.
        evidence: What the schedules that ran say of those that did not.
        foreseen: Deadlocks that the schedules judged for them (``predict``) could have reached; one
            that was then reached is among the failures too.
    """

    verdict: str
    reason: str
    schedules: int
    steps: int
    switches: int
    preemptions: int
    seconds: float
    exhausted: bool
    blocked: int
    failure: Failure | None
    failures: list[Failure]
    failing: dict[str, int]
    lock_order: LockRules
    detail: str = ""
    reached: tuple[str, ...] = ()
    evidence: Evidence | None = None
    foreseen: tuple[Foreseen, ...] = ()


class Gathered:
    """Parts of one exploration as they come, by number: kept as two, however many they are.

    Attributes:
        parts: The sum of all but the last, and the last, which alone can have ended the search:
            what ``assemble`` takes.
        count: How many have come.
        seconds: That they took, one after the other.
        ended: Nothing that follows counts.
    """

    def __init__(self, setup: Setup) -> None:
        """Args: setup: As given to every part."""
        self._setup = setup
        self._rules = setup.rules()
        self.parts: list[Part] = []
        self.count = 0
        self.seconds = 0.0
        self.ended = False

    def take(self, part: Part) -> None:
        """Take in the next part."""
        if self.parts:
            last = self.parts[-1]
            before = Part(1, rules=self._setup.rules()) if self.count == 1 else self.parts[0]
            add(before, last)
            before.rules.merge(last.rules)
            before.failures = _first_of_each([before, last])
            self.parts = [before, part]
        else:
            self.parts = [part]
        self.count += 1
        self.seconds += part.seconds
        known = len(self._rules.findings)
        self._rules.merge(part.rules)
        # A nesting order may be broken by two parts together, and by neither alone.
        crossed = len(self._rules.findings) > known and self._setup.stop_at_first
        self.ended = crossed or ends(part, self._setup)


def ends(part: Part, setup: Setup) -> bool:
    """Whether nothing after ``part`` counts, by what it alone shows."""
    return bool(part.cut) or part.exhausted or (bool(part.failures) and setup.stop_at_first)


def assemble(program: Program, setup: Setup, parts: Sequence[Part]) -> Exploration:
    """Put the parts of one exploration together; the result does not depend on how it was divided.

    Args:
        program: For schedules whose lock-order finding needs edges of several parts.
        setup: As given to every part.
        parts: Adjoining, in any order.
    """
    ordered = sorted(parts, key=lambda part: part.first)
    rules = setup.rules()
    for part in ordered:
        rules.merge(part.rules)
    failures = _across(program, setup, ordered, rules, _first_of_each(ordered))
    failures.sort(key=lambda failure: (failure.schedule, failure.kind == "lock-order"))
    if setup.stop_at_first and failures and len(ordered) > 1 and setup.mode != "free":
        stop = failures[0].schedule
        ordered, rules = _until(program, setup, ordered, stop)
        failures = [failure for failure in failures if failure.schedule == stop]
    for failure in failures:
        failure.attach(program)
    found = Deadlocks()
    for part in ordered:
        found.merge(part.deadlocks)
    foretold = foreseen(program, setup, found)
    known = {failure.fingerprint for failure in failures}
    for each in foretold:
        if each.failure is not None and each.failure.fingerprint not in known:
            known.add(each.failure.fingerprint)
            failures.append(each.failure)
    exploration = _verdict(program, setup, ordered, rules, failures, foretold)
    _settle(setup, exploration, found, max(part.first + part.schedules - 1 for part in ordered))
    return exploration


def _settle(setup: Setup, exploration: Exploration, found: Deadlocks, last: int) -> None:
    """Give the findings of the lock rules the tiers that the audit of all schedules gives them.

    Args:
        setup: As given to every part.
        exploration: Where they are.
        found: What is known of the schedules that were judged.
        last: Number of the last schedule. What it closed no other has whole, so it alone was judged
            for that, whatever else was.
    """
    rules = exploration.lock_order
    judged = setup.predict >= last
    impossible = found.impossible() if judged else set[str]()
    for failure in exploration.failures if not judged and setup.mode != "free" else ():
        if failure.schedule == last:
            impossible |= failure.impossible
    rules.findings[:] = [
        settled(finding, impossible, "no schedule can end in it")
        if judged or finding.schedule == last
        else finding
        for finding in (*rules.findings, *rules.complete())
    ]


def _first_of_each(parts: Sequence[Part]) -> list[Failure]:
    """The first failure of each fingerprint."""
    first: dict[str, Failure] = {}
    for part in parts:
        for failure in part.failures:
            known = first.get(failure.fingerprint)
            if known is None or failure.schedule < known.schedule:
                first[failure.fingerprint] = failure
    return list(first.values())


def _across(
    program: Program,
    setup: Setup,
    parts: Sequence[Part],
    rules: LockRules,
    failures: list[Failure],
) -> list[Failure]:
    """Make the lock-order failures anew from the edges of all parts.

    A part knows its own edges only: a cycle may close earlier, or only, with those of others.
    """
    if len(parts) < 2 or setup.mode == "free":
        return failures
    found: dict[str, Failure] = {}
    for order in rules.findings:
        key = order_key(order)
        if not order.fatal and key not in found:
            found[key] = _again(program, setup, order, key)
    return [f for f in failures if f.fingerprint not in found] + list(found.values())


def _again(program: Program, setup: Setup, order: OrderFinding, key: str) -> Failure:
    with Stage(setup.hang_seconds, control=setup.control) as stage:
        strategy = prepare(stage, program, setup)
        Pupil(stage, program, setup, strategy).reach(order.schedule)
        recording = record(
            stage,
            program,
            setup,
            order.schedule,
            lambda core: strategy.begin(core, order.schedule),
            list(order.earlier()),
        )
        return recording.order_failure(order, key, setup).attach(program)


def _until(
    program: Program, setup: Setup, parts: Sequence[Part], stop: int
) -> tuple[list[Part], LockRules]:
    """The parts as they would be had the exploration stopped at schedule ``stop``."""
    kept: list[Part] = []
    for part in parts:
        if part.first > stop:
            break
        if part.first + part.schedules - 1 > stop:
            again = explore_part(program, setup, part.first, stop)
            again.seconds = part.seconds
            kept.append(again)
        else:
            kept.append(part)
    rules = setup.rules()
    for part in kept:
        rules.merge(part.rules)
    return kept, rules


def _verdict(
    program: Program,
    setup: Setup,
    parts: Sequence[Part],
    rules: LockRules,
    failures: list[Failure],
    foretold: list[Foreseen],
) -> Exploration:
    total = Part(1, rules=rules, foreseen=foretold)
    for part in parts:
        add(total, part)
    if setup.mode == "free":
        # Edges of several processes may close a cycle whose schedules nobody can run again.
        made = {failure.fingerprint for failure in failures}
        loose = [o for o in rules.findings if not o.fatal and order_key(o) not in made]
        total.unconfirmed += [f"schedule {o.schedule}, lock-order: {o.message}" for o in loose]
    # A lock-order finding is made once, by the schedule that closed it; blocks cannot count them.
    closed = {order.schedule for order in rules.findings if not order.fatal}
    if closed:
        total.failing["lock-order"] = total.failing.get("lock-order", 0) + len(closed)
    verdict, reason = certify(total, failures, setup, partial(declared, program))
    return Exploration(
        verdict=verdict,
        reason=reason,
        schedules=total.schedules,
        steps=total.steps,
        switches=total.switches,
        preemptions=total.preemptions,
        seconds=total.seconds,
        exhausted=total.exhausted and not total.cut,
        blocked=total.blocked,
        failure=failures[0] if failures else None,
        failures=failures,
        failing=dict(sorted(total.failing.items())),
        lock_order=rules,
        detail=total.detail,
        reached=tuple(sorted(total.reached)),
        evidence=evidence_of(setup, total),
        foreseen=tuple(foretold),
    )


def add(total: Part, part: Part) -> None:
    """Add a part to the sum of those before it; failures and lock rules are put together apart."""
    for name in (
        "schedules",
        "steps",
        "switches",
        "preemptions",
        "blocked",
        "bounded",
        "decisions",
    ):
        setattr(total, name, getattr(total, name) + getattr(part, name))
    total.seconds = max(total.seconds, part.seconds)
    for kind, count in part.failing.items():
        total.failing[kind] = total.failing.get(kind, 0) + count
    total.entered |= part.entered
    total.named |= part.named
    total.reached |= part.reached
    total.coverage.merge(part.coverage)
    total.histories.merge(part.histories)
    total.unconfirmed += part.unconfirmed
    total.exhausted = total.exhausted or part.exhausted
    if part.cut and part.cut != "seconds" and not total.cut:
        total.cut, total.detail = part.cut, part.detail


def evidence_of(setup: Setup, total: Part) -> Evidence:
    """What a sum of parts says of the schedules that did not run."""
    ended = total.schedules - total.blocked - total.bounded
    return evidence(
        total.coverage,
        failed=sum(total.failing.values()),
        schedules=ended,
        sampled=strategy_named(setup.strategy).samples,
        exhausted=total.exhausted and not total.cut,
        histories=total.histories,
    )


def _unfinished(total: Part, setup: Setup) -> str:
    """Why no schedule came to its end."""
    if not total.blocked:
        return f"every schedule hit the step bound of {setup.steps_max}; raise steps_max"
    bound = setup.preemptions
    why = "its rest was known, or a thread in it would spin for ever" + (
        "" if bound is None else f" with at most {bound} preemptions; raise the bound"
    )
    if not total.bounded:
        return f"every schedule was cut short: {why}"
    return (
        f"no schedule came to its end: {total.bounded} hit the step bound of {setup.steps_max}, "
        f"{total.blocked} were cut short ({why})"
    )


def certify(
    total: Part, failures: Sequence[Failure], setup: Setup, wanted: Callable[[], set[str]] = set
) -> tuple[str, str]:
    """Turn evidence into a verdict and its reason; the only place that says ``pass``.

    Args:
        total: What was run.
        failures: What was found.
        setup: As given to every part.
        wanted: Gives the names that must have been reached.
    """
    if failures:
        first = failures[0]
        led = any(each.failure is first for each in total.foreseen)
        return "fail", f"{first.kind} {'foreseen ' if led else ''}in schedule {first.schedule}"
    if total.cut == "hang":
        name = total.detail.split("\n", 1)[0]
        return "inconclusive", (
            f"thread {name} blocked in something the harness does not control and was abandoned; "
            "see the stacks"
        )
    if total.cut == "interrupted":
        return "inconclusive", f"interrupted after {total.schedules} schedules"
    if total.unconfirmed:
        return "inconclusive", (
            f"{len(total.unconfirmed)} failures of freely running threads passed under control, "
            f"the first in {total.unconfirmed[0]}"
        )
    missed = [each.finding for each in total.foreseen if each.finding.tier == "predicted"]
    if missed:
        return "inconclusive", (
            f"{missed[0].rule} foreseen in schedule {missed[0].schedule}: {missed[0].message}; "
            f"{MISSED}"
        )
    if total.schedules == 0:
        return "inconclusive", "no schedule was run; raise the budget"
    if total.bounded + total.blocked == total.schedules:
        return "inconclusive", _unfinished(total, setup)
    idle = sorted(total.named - total.entered)
    if idle:
        return "inconclusive", (
            f"thread {', '.join(idle)} never performed an operation; nothing of it was interleaved"
        )
    if total.decisions == 0:
        return (
            "inconclusive",
            "no schedule ever had two threads to choose from; nothing was interleaved",
        )
    absent = sorted(wanted() - total.reached)
    if absent:
        return "inconclusive", (
            f"no schedule of {total.schedules} reached sometimes({absent[0]!r})"
            + (f" and {len(absent) - 1} more" if len(absent) > 1 else "")
            + "; raise the budget, or see why that cannot happen"
        )
    scope = "every schedule" if total.exhausted else f"{total.schedules} schedules"
    if total.exhausted and setup.preemptions is not None:
        scope += f" with at most {setup.preemptions} preemptions"
    doubts = [total.histories.doubt()]
    if total.bounded:
        doubts.append(f"{total.bounded} of them hit the step bound of {setup.steps_max}")
    doubts.append(total.rules.doubt())
    return "pass", "; ".join([f"no failure in {scope}", *filter(None, doubts)])
