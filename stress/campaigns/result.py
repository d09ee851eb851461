"""What a campaign amounts to: a function of the parts that are in, whoever ran them and when.

``result`` holds nothing else: no time, no host, no order of completion. So the result of a campaign
that was killed and resumed can be compared with that of an undisturbed one, byte by byte. What
happened on the way stands beside it, in ``run``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from harness.lockorder.findings import Finding
from harness.lockorder.rules import LockRules
from harness.search.evidence import Evidence
from harness.search.part import Part
from harness.search.recording import order_key
from harness.search.setup import Setup
from harness.search.verdict import add, certify, evidence_of
from stress import exit_codes
from stress.campaigns.parts import Edge, Found, Outcome, part_of, unpack
from stress.campaigns.plan import Combination, Plan
from stress.campaigns.store import Campaign, Loss, Store
from stress.documents import Document

_WHYS_SHOWN: Final = 3


@dataclass
class Group:
    """One combination: its parts put together.

    Attributes:
        combination: Scenario, faults, strategy.
        planned: Parts within the budget of the plan.
        done: Parts that are in.
        given_up: Why each of those that only came to nothing did, by number.
        total: Their sum.
        wanted: ``sometimes`` that must have been reached.
        seconds: Of all its parts together.
        failed: Fingerprint of the first failure, its kind, seed and schedule.
        verdict: See ``certify``.
        reason: Likewise.
        evidence: What the parts say of schedules that did not run.
    """

    combination: Combination
    planned: int = 0
    done: int = 0
    given_up: dict[int, str] = field(default_factory=dict)
    total: Part = field(default_factory=lambda: Part(1))
    wanted: set[str] = field(default_factory=set)
    seconds: float = 0.0
    failed: tuple[str, str, str, int] | None = None
    verdict: str = "inconclusive"
    reason: str = "nothing was run"
    evidence: Evidence | None = None

    @property
    def judged(self) -> str:
        """The verdict as it counts for the campaign: the canary must fail, and must have run."""
        if self.combination.clean:
            return self.verdict
        expected = {"finding": "fail"}.get(self.combination.expected, self.combination.expected)
        return "pass" if self.done and self.verdict == expected else "inconclusive"

    def settle(self) -> None:
        """Reach the verdict, once all parts are in."""
        setup = Setup(
            strategy=self.combination.strategy,
            preemptions=self.combination.preemptions,
            steps_max=self.combination.steps_max,
        )
        if self.failed is not None:
            fingerprint, kind, seed, schedule = self.failed
            self.verdict = "fail"
            self.reason = f"{kind} {fingerprint} with seed {seed}, in schedule {schedule}"
        elif not self.planned:
            self.reason = "the budget of schedules has no part for it"
        elif self.done:
            self.verdict, self.reason = certify(self.total, [], setup, lambda: self.wanted)
        if self.verdict == "pass" and self.done < self.planned:
            self.verdict = "inconclusive"
            self.reason = f"{self.done} of {self.planned} parts are done, without a failure"
        if self.given_up and self.verdict == "inconclusive":
            whys = sorted(set(self.given_up.values()))
            told = "; ".join(whys[:_WHYS_SHOWN]) + ("; ..." if len(whys) > _WHYS_SHOWN else "")
            done = self.reason if self.done else f"none of {self.planned} parts is done"
            self.reason = f"{done}; {len(self.given_up)} given up: {told}"
        if self.done:
            self.evidence = evidence_of(setup, self.total)


@dataclass
class Bug:
    """All failures of one fingerprint in one scenario.

    Attributes:
        best: The one with the fewest preemptions, then the fewest steps, then the first.
        part: Where that is.
        seed: Of that part.
        combination: Likewise.
        parts: How many parts have it.
        first: When the first of them was entered.
        last: When the last of them was entered.
    """

    best: Found
    part: int
    seed: str
    combination: Combination
    parts: int = 0
    first: str = ""
    last: str = ""


@dataclass
class Result:
    """A campaign, put together.

    Attributes:
        campaign: Its row.
        plan: What it runs.
        groups: In the plan's order.
        bugs: By scenario and fingerprint, sorted.
        given_up: Parts that only came to nothing, with the last reason.
        order: The lock-order graph of all scenarios that are meant to be clean.
        cycles: Lock-order findings that no part made by itself.
        losses: Attempts that came to nothing.
        sessions: Processes that ran it.
    """

    campaign: Campaign
    plan: Plan
    groups: list[Group]
    bugs: dict[tuple[str, str], Bug]
    given_up: dict[int, str]
    order: LockRules
    cycles: list[Finding]
    losses: list[Loss]
    sessions: list[dict[str, Any]]

    @property
    def verdict(self) -> str:
        """The worst that counts; the canary found says nothing without another scenario."""
        if self.cycles:
            return "fail"
        told = exit_codes.worst([group.judged for group in self.groups if group.combination.clean])
        return exit_codes.worst([told, *(group.judged for group in self.groups)])

    @property
    def done(self) -> int:
        """Parts that are in."""
        return sum(group.done for group in self.groups)

    @property
    def planned(self) -> int:
        """Parts that the plan has."""
        return sum(group.planned for group in self.groups)


def gather(store: Store, campaign: Campaign) -> Result:
    """Put together what the store has of a campaign.

    Raises:
        UsageError: The store cannot be read, or is damaged.
    """
    plan = campaign.plan()
    groups = [Group(combination) for combination in plan.combinations]
    for job in plan.jobs():
        groups[job.index].planned += 1
    bugs: dict[tuple[str, str], Bug] = {}
    edges: dict[tuple[str, ...], tuple[int, Edge]] = {}
    done: set[int] = set()
    for index, seed, at, outcome in store.outcomes(campaign):
        if not 0 <= index < len(groups):
            continue  # of a plan that was changed by hand
        group = groups[index]
        done.add(outcome.number)
        _enter(group, seed, outcome, edges)
        for found in outcome.found:
            _note(bugs, group.combination, found, outcome.number, seed, at)
    losses = store.losses(campaign)
    given_up = {loss.part: loss.why for loss in losses if loss.part not in done}
    for job in plan.jobs():
        if job.number in given_up:
            groups[job.index].given_up[job.number] = given_up[job.number]
    for group in groups:
        group.settle()
    order = LockRules()
    witnesses = sorted(edges.values(), key=lambda each: (each[0], each[1].schedule))
    order.preload(edge.witness() for _, edge in witnesses)
    known = {fingerprint for _, fingerprint in bugs}
    return Result(
        campaign,
        plan,
        groups,
        dict(sorted(bugs.items())),
        given_up,
        order,
        [cycle for cycle in order.complete() if order_key(cycle) not in known],
        losses,
        store.sessions(campaign),
    )


def _enter(
    group: Group, seed: str, outcome: Outcome, edges: dict[tuple[str, ...], tuple[int, Edge]]
) -> None:
    """Add a part to its combination, and its nestings to the graph."""
    evidence = unpack(outcome.evidence)
    group.done += 1
    group.seconds += outcome.seconds
    group.wanted |= set(evidence.declared)
    add(group.total, part_of(outcome, evidence))
    if outcome.found and group.failed is None:
        first = min(outcome.found, key=lambda found: (found.schedule, found.fingerprint))
        group.failed = first.fingerprint, first.kind, seed, first.schedule
    if group.combination.clean:
        for edge in evidence.edges:
            key = edge.outer, edge.inner, edge.outer_mode, edge.inner_mode
            if key not in edges or outcome.number < edges[key][0]:
                edges[key] = outcome.number, edge


def _note(
    bugs: dict[tuple[str, str], Bug],
    combination: Combination,
    found: Found,
    part: int,
    seed: str,
    at: str,
) -> None:
    """Enter one failure; the easiest to read of each fingerprint is kept."""
    key = combination.scenario, found.fingerprint
    bug = bugs.get(key)
    if bug is None:
        bug = bugs[key] = Bug(found, part, seed, combination, first=at, last=at)
    elif _ease(found, part) < _ease(bug.best, bug.part):
        bug.best, bug.part, bug.seed, bug.combination = found, part, seed, combination
    bug.parts += 1
    bug.first, bug.last = min(bug.first, at), max(bug.last, at)


def _ease(found: Found, part: int) -> tuple[int, int, int]:
    return found.preemptions, found.steps, part


# -- documents ----------------------------------------------------------------------------------


def document(result: Result) -> Document:
    """``campaign report --json``."""
    return {
        "campaign": result.campaign.name,
        "verdict": result.verdict,
        "result": canonical(result),
        "run": {
            "made": result.campaign.made,
            "finished": result.campaign.finished,
            "seconds": round(sum(session["seconds"] for session in result.sessions), 3),
            "sessions": result.sessions,
            "losses": [asdict(loss) for loss in result.losses],
            "seen": [
                {"scenario": scenario, "fingerprint": key, "first": bug.first, "last": bug.last}
                for (scenario, key), bug in result.bugs.items()
            ],
        },
    }


def canonical(result: Result) -> Document:
    """What does not depend on how the campaign was run: the same for equal plans and sources."""
    return {
        "plan": result.plan.digest,
        "code": result.campaign.code,
        "verdict": result.verdict,
        "parts": {
            "planned": result.planned,
            "done": result.done,
            "given_up": [
                {"part": part, "why": why} for part, why in sorted(result.given_up.items())
            ],
        },
        "combinations": [_combination(group) for group in result.groups],
        "findings": [_finding(key, bug) for (_, key), bug in result.bugs.items()],
        "lock_order": {
            "edges": [list(edge) for edge in result.order.edges],
            "across_parts": [
                {"fingerprint": order_key(cycle), "message": cycle.message}
                for cycle in result.cycles
            ],
        },
    }


def _combination(group: Group) -> Document:
    combination, total = group.combination, group.total
    return {
        "scenario": combination.scenario,
        "strategy": combination.strategy,
        "faults": combination.faults,
        "revision": combination.revision,
        "params": dict(combination.params),
        "parts": {"planned": group.planned, "done": group.done},
        "verdict": group.verdict,
        "judged": group.judged,
        "reason": group.reason,
        "schedules": total.schedules,
        "steps": total.steps,
        "switches": total.switches,
        "preemptions": total.preemptions,
        "failing": dict(sorted(total.failing.items())),
        "evidence": None if group.evidence is None else asdict(group.evidence),
    }


def _finding(fingerprint: str, bug: Bug) -> Document:
    best = bug.best
    return {
        "scenario": bug.combination.scenario,
        "fingerprint": fingerprint,
        "kind": best.kind,
        "message": best.message,
        "token": best.token,
        "preemptions": best.preemptions,
        "steps": best.steps,
        "digest": best.digest,
        "strategy": bug.combination.strategy,
        "part": bug.part,
        "seed": int(bug.seed),
        "schedule": best.schedule,
        "parts": bug.parts,
    }


# -- differences --------------------------------------------------------------------------------


def diff(old: Result, new: Result) -> Document:
    """What changed from one campaign to another: findings by scenario and fingerprint, verdicts."""
    return {
        "old": old.campaign.name,
        "new": new.campaign.name,
        "same_plan": old.plan.digest == new.plan.digest,
        "same_code": old.campaign.code == new.campaign.code,
        "appeared": _bugs(new, set(new.bugs) - set(old.bugs)),
        "gone": _bugs(old, set(old.bugs) - set(new.bugs)),
        "still": _bugs(new, set(new.bugs) & set(old.bugs)),
        "verdicts": _changed(old.groups, new.groups),
    }


def _bugs(result: Result, keys: Iterable[tuple[str, str]]) -> list[Document]:
    return [_finding(key[1], result.bugs[key]) for key in sorted(keys)]


def _changed(old: Sequence[Group], new: Sequence[Group]) -> list[Document]:
    """Combinations that both have, whose verdict differs."""
    before = {group.combination.what: group for group in old}
    changed = []
    for group in new:
        was = before.get(group.combination.what)
        if was is not None and was.verdict != group.verdict:
            changed.append(
                {
                    "scenario": group.combination.scenario,
                    "strategy": group.combination.strategy,
                    "faults": group.combination.faults,
                    "old": was.verdict,
                    "new": group.verdict,
                }
            )
    return changed
