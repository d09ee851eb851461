"""The lock-order audit: any number of lock logs in, one merged graph and its findings out.

The rules are those that run live. All logs share one graph, keyed by the names of lock classes, so
a cycle whose edges lie in different runs is found too. The report depends on the logs alone, not
on the order in which they are given.
"""

from __future__ import annotations

import hashlib
import io
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import IO, Any, Final, TypeAlias, cast

import msgspec
from loguru import logger

from harness.errors import UsageError
from harness.lockorder.classes import flag_names
from harness.lockorder.deadlocks import settled
from harness.lockorder.findings import TIERS, Finding, Witness
from harness.predict.judge import BUDGET, SIZE_MAX
from harness.trace import packed
from harness.trace.events import Site, Stack
from harness.trace.lockread import is_log
from harness.trace.logimport import translated
from harness.trace.logjudge import WINDOW, LogJudge
from harness.trace.logrules import RECLAIM, every_finding
from harness.trace.logstate import HARMLESS, INTEGRITY
from stress.audit_cache import AuditCache
from stress.audit_follow import Growing, Teller, pause
from stress.audit_policy import NO_POLICY, Policy
from stress.audit_report import (
    AuditClass,
    AuditEdge,
    AuditFinding,
    AuditGolden,
    AuditOrder,
    AuditReport,
    LedgerEntry,
    plural,
    render_text,
)
from stress.given import is_folder, read_bytes, short
from stress.pool import Crash, Task, WorkerError, run_tasks

__all__ = ["AuditReport", "audit_paths", "read_golden", "render_text", "to_json"]

SUFFIXES: Final = tuple(
    f".{name}{suffix}" for name in ("jsonl", "zlock") for suffix in ("", *packed.SUFFIXES)
)
_STDIN: Final = "-"
# What is slow is not wrong: told, and never the reason for a failure.
_ADVICE: Final = ("HOT001",)
# Runs of one log, so that each has its numbers whoever reads it.
_RUNS_MAX: Final = 1 << 32
# Traces of others are read whole.
_FOREIGN_BYTES_MAX: Final = 1 << 28


def audit_paths(
    paths: Sequence[Path | str],
    *,
    fail_on: str = "latent",
    mode_blind: bool = False,
    golden: Iterable[tuple[str, str]] | None = None,
    complete: bool = False,
    replay: bool = False,
    policy: Policy = NO_POLICY,
    size_max: int = SIZE_MAX,
    budget: int = BUDGET,
    window: int = WINDOW,
    jobs: int = 1,
    cache: Path | None = None,
    follow: Callable[[Finding], None] | None = None,
    wait: Callable[[], bool] = pause,
) -> AuditReport:
    """Audit lock logs.

    Args:
        paths: Files (compressed or not), folders (searched for ``SUFFIXES``), or ``-`` for standard
            input. A log given twice counts once.
        fail_on: The least tier that fails. The default is ``latent``: the class rules are the rules
            of the kernel, where an inversion is a defect although no run has deadlocked yet.
        mode_blind: Judge readers like writers, as the kernel does.
        golden: Edges that there should be. One that is observed and not among them is a finding;
            how many are not observed is said with the verdict: a log may be of one scenario alone.
        complete: What is golden, or declared by an order, and was not observed makes the audit
            inconclusive.
        replay: Run what is predicted of our own scenarios; what comes true is ``confirmed``.
        policy: What people have decided: a declared order, allowances, a baseline.
        size_max: Longest circle of threads that is predicted.
        budget: States that the exhaustive search may visit for one candidate.
        window: Events of one run that predictions look at together.
        jobs: Processes that read logs; the report is the same for any number of them.
        cache: A folder where logs that were judged before are looked up by their bytes; None for
            none. The report is the same.
        follow: Told each finding as it is made, while the only log is still being written.
        wait: Called where nothing more is written yet; false ends the log.

    Raises:
        UsageError: A path does not exist, holds no log, or cannot be read; an unknown tier.
    """
    if fail_on not in TIERS:
        raise UsageError(f"unknown tier {fail_on!r}; the tiers are {', '.join(TIERS)}")
    files, skipped = _expand(paths)
    options = (mode_blind, size_max, budget, window)
    if follow is not None:
        judge = _followed(files, options, follow, wait)
    else:
        judge = _judged(files, options, jobs, cache)
    tokens: dict[int, str] = {}
    if replay:
        from stress.audit_replay import confirm

        tokens = confirm(judge)
    return _report(judge, len(files), skipped, fail_on, golden, tokens, policy, complete=complete)


def read_golden(path: Path) -> list[tuple[str, str]]:
    """Read a table of edges: ``outer>inner``, one a line; ``#`` begins a comment.

    Raises:
        UsageError: It cannot be read, or a line is no edge.
    """
    try:
        lines = read_bytes(path, "the golden table").decode().splitlines()
    except UnicodeDecodeError as error:
        raise UsageError(f"cannot read the golden table {path}: {error}") from None
    edges = []
    for number, line in enumerate(lines, 1):
        text = line.partition("#")[0].strip()
        if text:
            outer, arrow, inner = (part.strip() for part in text.partition(">"))
            if not (outer and arrow and inner) or ">" in inner:
                raise UsageError(
                    f"{path}:{number}: an edge is written outer>inner, not {short(repr(text))}"
                )
            edges.append((outer, inner))
    return edges


def to_json(report: AuditReport) -> dict[str, Any]:
    """Return the report as plain data, ready for JSON."""
    built: dict[str, Any] = msgspec.to_builtins(report)
    return built


# ---- reading --------------------------------------------------------------------------------


def _expand(paths: Sequence[Path | str]) -> tuple[list[Path], list[str]]:
    """List the logs in a fixed order, and the files of folders that are no lock logs."""
    if not paths:
        raise UsageError("audit needs a lock log; write one with `run --lock-log FILE`")
    files: dict[Path, Path] = {}
    skipped: list[str] = []
    for given in map(Path, paths):
        if str(given) == _STDIN:
            files[given] = given
        elif is_folder(given):
            inside = sorted(p for p in given.rglob("*") if p.is_file() and _is_named_so(p))
            logs = [path for path in inside if _is_log(path)]
            if not logs:
                raise UsageError(
                    f"the folder {given} holds no lock log; they end in {', '.join(SUFFIXES)}"
                )
            skipped += [path.name for path in inside if path not in logs]
            files.update((path.resolve(), path) for path in logs)
        elif not _exists(given):
            name = short(given)
            raise UsageError(f"there is no lock log {name}; write one with `run --lock-log {name}`")
        elif not _is_log(given) and _foreign(given) is None:
            raise UsageError(
                f'{given}:1: not a lock log: no {{"zlock":1,...}} header, and no trace of RAPID, '
                "ftrace, lockdep or Zircon"
            )
        else:
            files.setdefault(given.resolve(), given)
    return sorted(files.values(), key=str), skipped


def _exists(path: Path) -> bool:
    """Whether there is something of that name, be it a pipe; see ``given.is_file``."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def _is_named_so(path: Path) -> bool:
    return path.name.endswith(SUFFIXES)


def _is_log(path: Path) -> bool:
    """Tell by its first line whether a file is a lock log."""
    with _opened(path) as stream:
        return is_log(stream)


def _opened(path: Path) -> IO[bytes]:
    try:
        return path.open("rb")
    except OSError as error:
        raise UsageError(f"cannot read {short(path)}: {error.strerror}") from error


def converted(path: Path, convert: Callable[[IO[bytes]], bytes]) -> bytes:
    """Hand a log to a function, translated where it is a trace of others.

    Raises:
        UsageError: There is no such log, or the function refuses it.
    """
    files, _ = _expand([path])
    foreign = None if str(path) == _STDIN or _is_log(path) else _foreign(path)
    if foreign is not None:
        return convert(io.BytesIO(foreign))
    if str(path) == _STDIN:
        return convert(sys.stdin.buffer)
    with _opened(files[0]) as stream:
        return convert(stream)


_Options: TypeAlias = tuple[bool, int, int, int]


def _judged(files: list[Path], options: _Options, jobs: int, folder: Path | None) -> LogJudge:
    """Judge logs, each as if those before had been read here."""
    whole = _fresh(options)
    cache = None if folder is None else AuditCache(folder, options)
    keys = {} if cache is None else {at: _cache_key(cache, path) for at, path in enumerate(files)}
    done: dict[int, LogJudge] = {}
    for at, key in keys.items():
        judge = _fresh(options)
        if cache is not None and cache.load(key, judge, str(files[at]), at * _RUNS_MAX):
            done[at] = judge
    left = [at for at in range(len(files)) if at not in done]
    for at, judge in _read_apart(files, left, options, jobs, set(filter(keys.get, left))):
        if cache is not None:
            cache.save(keys[at], judge, at * _RUNS_MAX)
        done[at] = judge
    if cache is not None and cache.hits:
        logger.info("{} of {} logs judged before: {}", cache.hits, len(files), folder)
    for at, path in enumerate(files):
        if at not in done or not whole.merge(done.pop(at)):
            _read(whole, path, at)
    return whole


def _read_apart(
    files: list[Path], left: list[int], options: _Options, jobs: int, kept: set[int]
) -> Iterator[tuple[int, LogJudge]]:
    """Judge logs each by itself: all of them on several processes, else those to be kept."""
    if jobs > 1 and len(left) > 1 and Path(_STDIN) not in files:
        tasks = [Task(at, judge_file, (files[at], at, options)) for at in left]
        tasks.reverse()
        for at, value in run_tasks(partial(_next, tasks), min(jobs, len(left))):
            if isinstance(value, Crash):
                raise WorkerError(str(value), "")
            yield at, value
    else:
        yield from ((at, judge_file(files[at], at, options)) for at in sorted(kept))


def _cache_key(cache: AuditCache, path: Path) -> str:
    """A trace of others is judged by its name, too."""
    if str(path) == _STDIN:
        return ""
    return cache.key(path, "" if _is_log(path) else path.name)


def _followed(
    files: list[Path], options: _Options, tell: Callable[[Finding], None], wait: Callable[[], bool]
) -> LogJudge:
    """Judge a log that is still being written."""
    if len(files) != 1 or str(files[0]) == _STDIN:
        raise UsageError("--follow takes one lock log, a file")
    judge = _fresh(options)
    teller = judge.heard = Teller(judge, tell)

    def waits() -> bool:
        teller.pausing()
        return wait()

    with _opened(files[0]) as stream:
        judge.read(str(files[0]), cast("IO[bytes]", Growing(stream, waits)), 0)
    teller()
    return judge


def _next(tasks: list[Task]) -> Task | None:
    return tasks.pop() if tasks else None


def _fresh(options: _Options) -> LogJudge:
    mode_blind, size_max, budget, window = options
    return LogJudge(mode_blind=mode_blind, size_max=size_max, budget=budget, window=window)


def judge_file(path: Path, at: int, options: _Options) -> LogJudge:
    """Judge the log of that place among all, by itself; called in a worker process."""
    judge = _fresh(options)
    _read(judge, path, at)
    return judge


def _read(judge: LogJudge, path: Path, at: int) -> None:
    after = at * _RUNS_MAX
    if str(path) == _STDIN:
        judge.read("standard input", sys.stdin.buffer, after)
        return
    foreign = None if _is_log(path) else _foreign(path)
    if foreign is not None:
        judge.read(str(path), io.BytesIO(foreign), after)
        return
    with _opened(path) as stream:
        judge.read(str(path), stream, after)


def _foreign(path: Path) -> bytes | None:
    """Translate a file in a format of others; None where it is in none that is known."""
    with _opened(path) as stream:
        head = stream.read(_FOREIGN_BYTES_MAX)
    return translated(path.name, head.decode("utf-8", "replace"))


# ---- reporting ------------------------------------------------------------------------------


def _report(
    judge: LogJudge,
    logs: int,
    skipped: list[str],
    fail_on: str,
    golden: Iterable[tuple[str, str]] | None,
    tokens: dict[int, str],
    policy: Policy,
    *,
    complete: bool,
) -> AuditReport:
    """Put together what the logs have shown."""
    rules = judge.rules
    edges = rules.edges
    shown = _Shown(judge)
    found = every_finding(rules, judge.kinds)
    impossible = judge.deadlocks.impossible()
    why = "no run can reach it, see what is left out"
    known = [settled(finding, impossible, why) for finding in found]
    findings = [shown.finding(finding, *rules.counts(finding)) for finding in known]
    findings += [
        shown.finding(each.finding, each.count, len(each.runs), tokens.get(index, ""))
        for index, each in enumerate(judge.deadlocks.found.values())
    ]
    compared = None if golden is None else _compare(edges, golden)
    if compared is not None:
        findings += [shown.undeclared(edges[pair].witnesses[0]) for pair in compared.extra]
    shown_edges = tuple(shown.edge(edge.witnesses[0]) for edge in edges.values())
    decided = policy.apply(findings, shown_edges)
    findings = decided.findings
    findings.sort(key=lambda f: (-TIERS.index(f.tier), f.rule, f.classes, f.key, f.message))
    integrity = tuple(sorted(judge.breaches.values(), key=lambda b: (b.rule, b.log, b.line)))
    verdict, reason = _verdict(judge, findings, fail_on)
    if verdict == "pass":
        verdict, reason = _earned(reason, edges, compared, decided.order, complete=complete)
    return AuditReport(
        verdict=verdict,
        reason=reason,
        fail_on=fail_on,
        logs=logs,
        runs=len(judge.runs),
        events=judge.events,
        integrity=integrity,
        findings=tuple(findings),
        edges=shown_edges,
        classes=_classes(judge, list(edges)),
        ledger=(*_ledger(judge, skipped), *decided.ledger),
        golden=compared,
        order=decided.order,
        allowed=tuple(decided.allowed),
    )


def _verdict(judge: LogJudge, findings: list[AuditFinding], fail_on: str) -> tuple[str, str]:
    """Judge all; nothing read is no pass, and neither is a log that contradicts itself."""
    least = TIERS.index(fail_on)
    failing = [
        finding
        for finding in findings
        if TIERS.index(finding.tier) >= least
        and finding.baseline != "known"
        and finding.rule not in _ADVICE
    ]
    if failing:
        return "fail", f"{plural(len(failing), 'finding')}, {fail_on} or surer"
    if not judge.events:
        return "inconclusive", "the logs hold no events"
    broken = sorted({b.rule for b in judge.breaches.values() if b.rule not in HARMLESS})
    if broken:
        said = "; ".join(f"{rule} {INTEGRITY[rule]}" for rule in broken)
        return "inconclusive", f"the logs are damaged: {said}"
    if judge.rules.unjudged:
        said = f"{judge.rules.unjudged:,} times the logs had more than is judged"
        return "inconclusive", f"{said}; see what was left out"
    if findings:
        return "pass", f"{plural(len(findings), 'finding')}, none {fail_on} or surer"
    return "pass", "no finding"


def _earned(
    reason: str,
    edges: Iterable[tuple[str, str]],
    golden: AuditGolden | None,
    order: AuditOrder | None,
    *,
    complete: bool,
) -> tuple[str, str]:
    """Say how much of what should be seen was: a comparison with nothing is no pass."""
    verdict = "pass"
    for what, missing, expected in (
        ("golden edges", golden.missing if golden else (), golden.expected if golden else 0),
        ("declared pairs", order.unexercised if order else (), order.declared if order else 0),
    ):
        if missing:
            reason += f"; {len(missing)} of {expected} {what} not seen"
            if complete or (golden and not edges):
                verdict = "inconclusive"
    return verdict, reason


class _Shown:
    """Turns what the rules keep into what a report shows."""

    def __init__(self, judge: LogJudge) -> None:
        """Take names and counts from ``judge``."""
        self._judge = judge
        self._edges = judge.rules.edges

    def edge(self, witness: Witness) -> AuditEdge:
        """Show an occasion with the counts of its edge."""
        known = self._edges.get((witness.outer, witness.inner))
        return AuditEdge(
            outer=witness.outer,
            inner=witness.inner,
            outer_mode=witness.outer_mode,
            inner_mode=witness.inner_mode,
            outer_site=_place(witness.outer_site),
            inner_site=_place(witness.inner_site),
            thread=witness.thread,
            run=self._judge.runs[witness.schedule],
            count=0 if known is None else known.count,
            runs=0 if known is None else known.schedules,
            outer_stack=_callers(witness.outer_site),
            inner_stack=_callers(witness.inner_site),
        )

    def finding(self, finding: Finding, count: int, runs: int, token: str = "") -> AuditFinding:
        """Show a finding; what a log that contradicts itself says is ``latent`` at most."""
        doubtful = sorted({w.schedule for w in finding.edges} & self._judge.untrusted)
        tier, note = finding.tier, finding.proof or _across(finding)
        if doubtful:
            tier = min(tier, "latent", key=TIERS.index)
            note = f"the log of {self._judge.runs[doubtful[0]]} contradicts itself; {note}"
        return AuditFinding(
            key=_key(finding),
            rule=_rule(finding),
            result=finding.result,
            tier=tier,
            message=finding.message,
            classes=finding.classes,
            count=count,
            runs=runs,
            fatal=finding.fatal,
            note=note.rstrip("; "),
            scenario=finding.scenario,
            token=token,
            edges=tuple(map(self.edge, finding.edges)),
        )

    def undeclared(self, witness: Witness) -> AuditFinding:
        """Show an edge that the golden table does not have."""
        edge = self._edges[witness.outer, witness.inner]
        finding = Finding(
            rule="ORD003",
            result="UndeclaredOrder",
            tier="observed",
            message=f"{witness.inner} acquired while {witness.outer} is held: not in the table",
            classes=(witness.outer, witness.inner),
            edges=(witness,),
            schedule=witness.schedule,
            thread=witness.thread,
        )
        return self.finding(finding, edge.count, edge.schedules)


def _rule(finding: Finding) -> str:
    """Name the rule: a cycle through reclaim is one of contexts."""
    through = finding.rule == "ORD001" and RECLAIM.name in finding.classes
    return "CTX004" if through else finding.rule


def _across(finding: Finding) -> str:
    """Say why a cycle has its tier."""
    if finding.rule != "ORD001":
        return ""
    if finding.tier != "latent":
        return "possible: one run shows all edges, by different threads, on the same locks"
    if len({witness.schedule for witness in finding.edges}) > 1:
        return "latent: the edges come from different runs"
    if len({witness.thread for witness in finding.edges}) < len(finding.edges):
        return "latent: one thread made several of the edges"
    return "latent: different locks of the classes, or a common lock that guards them"


def _key(finding: Finding) -> str:
    """Name a finding by rule, classes and sites without lines."""
    sites = [
        f"{w.outer_mode}{w.inner_mode}{_named(w.outer_site)}{_named(w.inner_site)}"
        for w in finding.edges
    ]
    text = "|".join((finding.rule, finding.result, *finding.classes, *sites))
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _named(site: Site | None) -> str:
    return "-" if site is None else f"{site.module}:{site.qualname}:{site.ordinal}"


def _place(site: Site | None) -> str:
    return "an unknown place" if site is None else str(site)


def _callers(site: Site | None) -> tuple[str, ...]:
    """Who had called, up to a place; nothing where the log has no stacks."""
    callers = site.callers if isinstance(site, Stack) else ()
    return tuple(f"{each} in {each.qualname}" for each in callers)


def _compare(edges: Iterable[tuple[str, str]], golden: Iterable[tuple[str, str]]) -> AuditGolden:
    """Compare the observed edges with those that there should be."""
    observed, expected = set(edges), set(golden)
    return AuditGolden(
        expected=len(expected),
        missing=tuple(sorted(expected - observed)),
        extra=tuple(sorted(observed - expected)),
    )


def _classes(judge: LogJudge, edges: list[tuple[str, str]]) -> tuple[AuditClass, ...]:
    """List the classes that were acquired."""
    outgoing = Counter(outer for outer, _ in edges)
    incoming = Counter(inner for _, inner in edges)
    return tuple(
        AuditClass(
            name=name,
            flags=flag_names(lock_class.flags),
            outgoing=outgoing[name],
            incoming=incoming[name],
        )
        for name, lock_class in sorted(judge.rules.classes.items())
    )


def _ledger(judge: LogJudge, skipped: list[str]) -> tuple[LedgerEntry, ...]:
    """List what was left out."""
    rules = judge.rules
    dropped = [*rules.dropped.items(), *judge.deadlocks.refuted.items()]
    entries = [LedgerEntry(reason, what, n) for (reason, what), n in dropped]
    entries += [
        LedgerEntry("reporting disabled by a lock that was held", f.message, rules.counts(f)[0])
        for f in rules.muted
    ]
    entries += [
        LedgerEntry("only readers would wait for readers", " -> ".join((*cycle, cycle[0])), 1)
        for cycle in rules.reader_cycles()
    ]
    if judge.unclassed:
        entries.append(LedgerEntry("acquisitions of locks without a class", "all", judge.unclassed))
    entries += [LedgerEntry("no lock log, though named like one", name, 1) for name in skipped]
    return tuple(sorted(entries, key=lambda entry: (entry.reason, entry.subject)))
