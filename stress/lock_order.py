"""The observed lock-order graph against the golden table of the kernel model."""

from __future__ import annotations

from dataclasses import dataclass, field

from loguru import logger

from harness.lockorder.rules import LockRules
from stress.runner import Report


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a run's nestings say.

    Attributes:
        edges: Observed, ``(outer, inner)``, sorted.
        wrong: Sentences about nestings that the kernel does not have; empty where all is well.
        unseen: Golden nestings that nothing showed.
        findings: Findings of the lock rules over all scenarios together.
    """

    edges: list[tuple[str, str]]
    wrong: list[str]
    unseen: list[tuple[str, str]]
    findings: list[str] = field(default_factory=list)

    @property
    def verdict(self) -> str:
        """``fail`` for a wrong nesting; ``inconclusive`` where a golden one was not seen."""
        if self.wrong or self.findings:
            return "fail"
        return "inconclusive" if self.unseen else "pass"


def judge(report: Report) -> Judgement:
    """Judge all scenarios of ``report`` that are meant to be clean, together."""
    from model.locks import GOLDEN_EDGES, judge_edges

    rules = LockRules()
    for result in report.results:
        if result.exploration is not None and result.entry.expected == "clean":
            rules.merge(result.exploration.lock_order)
    edges = sorted(rules.edges)
    return Judgement(
        edges=edges,
        wrong=judge_edges(edges),
        unseen=[edge for edge in GOLDEN_EDGES if edge not in rules.edges],
        findings=[finding.message for finding in rules.findings],
    )


def log_report(report: Report) -> None:
    """Write a run's findings and lock-order edges to the log, with bound fields."""
    for result in report.results:
        bound = logger.bind(scenario=result.entry.name, seed=report.options.seed)
        bound.bind(
            event="scenario",
            verdict=result.verdict,
            reason=result.reason,
            schedules=result.schedules,
        ).info("{}: {}", result.entry.name, result.verdict)
        for found in result.found:
            failure = found.failure
            bound.bind(
                event="finding",
                kind=failure.kind,
                token=failure.token,
                schedule=failure.schedule,
                preemptions=failure.preemptions,
                fingerprint=failure.fingerprint,
                digest=failure.digest,
            ).error("{}: {}", failure.kind, failure.message)
        if result.exploration is not None:
            _log_edges(result.entry.name, result.exploration.lock_order)


def _log_edges(scenario: str, rules: LockRules) -> None:
    for (outer, inner), edge in sorted(rules.edges.items()):
        witness = edge.witnesses[0]
        logger.bind(
            event="lock-edge",
            scenario=scenario,
            outer=outer,
            inner=inner,
            outer_mode=witness.outer_mode,
            inner_mode=witness.inner_mode,
            outer_site=str(witness.outer_site),
            inner_site=str(witness.inner_site),
            thread=witness.thread,
            schedule=witness.schedule,
            count=edge.count,
        ).debug("{} > {}", outer, inner)
