"""The bodies of the commands below ``campaign``."""

from __future__ import annotations

import contextlib
import csv
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
from loguru import logger
from rich.markup import escape
from rich.text import Text

from harness.errors import UsageError
from stress import console, documents, run_page
from stress.artefacts import write_text
from stress.audit_report import plural
from stress.campaigns import parts, plan, result
from stress.campaigns.drive import Driver, Local, Session, Workers
from stress.campaigns.parts import Outcome
from stress.campaigns.plan import Job, Plan
from stress.campaigns.result import Group, Result
from stress.campaigns.store import DEFAULT, Campaign, Store
from stress.console import say
from stress.exit_codes import ExitCode, of_verdict
from stress.pool import Crash, usable_cores
from stress.program import PROGRAM
from stress.work import replay_command

_PROGRESS_SECONDS: Final = 5.0
_CHECKED: Final = 3
_LOSSES_SHOWN: Final = 5
_TABLES: Final = ("parts", "findings", "coverage", "losses", "sessions")
FORMATS: Final = ("csv", "parquet")


# -- run, resume --------------------------------------------------------------------------------


def run(
    given: Sequence[str],
    options: Mapping[str, Any],
    name: str,
    where: str,
    jobs: int | None,
    cluster: str,
    *,
    memory: int | None,
    quiet: bool,
    json: bool,
) -> ExitCode:
    """``campaign run``; ``options`` are empty where ``given`` is a plan's file."""
    if options:
        named, made = "", plan.made(given, **options)
    else:
        named, made = plan.read(Path(given[0]))
    name = plan.check_name(name) or named
    with (
        Store(where or str(DEFAULT), make=True) as store,
        contextlib.closing(_workers(jobs, cluster, made, memory)) as workers,
    ):
        campaign = store.create(name, made, parts.code_digest())
        return _go(store, campaign, made, workers, quiet=quiet, json=json)


def resume(
    name: str,
    where: str,
    jobs: int | None,
    cluster: str,
    *,
    seconds: float | None,
    memory: int | None,
    quiet: bool,
    json: bool,
) -> ExitCode:
    """``campaign resume``."""
    with Store(where or str(DEFAULT), make=False) as store:
        campaign = store.campaign(name)
        made = campaign.plan()
        if seconds is not None:
            if not 0 < seconds < float("inf"):
                raise UsageError(f"--seconds must be more than 0, got {seconds:g}")
            made = msgspec.structs.replace(made, seconds=store.spent(campaign) + seconds)
        with contextlib.closing(_workers(jobs, cluster, made, memory)) as workers:
            return _go(store, campaign, made, workers, quiet=quiet, json=json)


def _workers(jobs: int | None, cluster: str, made: Plan, memory: int | None) -> Workers:
    """Whoever is to run the parts.

    Raises:
        UsageError: An option makes no sense.
    """
    count = usable_cores() if jobs is None else jobs
    if count < 1:
        raise UsageError(f"--jobs must be at least 1, got {count}")
    if memory is not None and memory < 1:
        raise UsageError(f"--memory must be at least 1 MB, got {memory}")
    if not cluster:
        return Local(count, made.part_seconds, memory)
    from stress.campaigns.cluster import LOCAL, Cluster

    if jobs is not None and cluster != LOCAL:
        raise UsageError("--jobs counts processes of this machine; a cluster's workers count there")
    return Cluster(cluster, count, made.part_seconds, memory)


def _go(
    store: Store, campaign: Campaign, made: Plan, workers: Workers, *, quiet: bool, json: bool
) -> ExitCode:
    """Run what is left, and report."""
    again = f"{PROGRAM} campaign resume {campaign.name}"
    again += "" if store.where == str(DEFAULT) else f" --store {store.shown}"
    say(f"campaign {campaign.name}, {made.count:,} parts; to go on with it: {again}", json=json)
    progress = _Progress(campaign.name, made.count, len(store.done(campaign)), quiet=quiet)
    session = Driver(store, campaign, made, workers, progress).run()
    gathered = result.gather(store, store.campaign(campaign.name))
    _show(gathered, json=json)
    _say_end(session, again, json=json)
    return ExitCode.INTERRUPTED if session.interrupted else of_verdict(gathered.verdict)


def _say_end(session: Session, again: str, *, json: bool) -> None:
    """What is left to do, and how."""
    if session.interrupted:
        say(f"interrupted; go on with: {again}", json=json)
    elif session.over:
        say(f"the plan's time is over; {again} --seconds S gives it more", json=json)
    elif session.given_up:
        count = plural(len(session.given_up), "part")
        say(f"{count} came to nothing; {again} tries that once more", json=json)


class _Progress:
    """A line now and then, and one for each new finding and each loss."""

    def __init__(self, name: str, count: int, done: int, *, quiet: bool) -> None:
        self._name = name
        self._count = count
        self._before = self._done = done
        self._quiet = quiet
        self._schedules = 0
        self._began = self._said = time.monotonic()

    def part(self, job: Job, outcome: Outcome, fresh: list[str]) -> None:
        """See ``drive.Watcher``."""
        self._done += 1
        self._schedules += outcome.schedules
        for found in outcome.found:
            if found.fingerprint in fresh:
                first = found.message.splitlines()[0] if found.message else ""
                logger.bind(
                    event="finding",
                    campaign=self._name,
                    part=job.number,
                    scenario=job.combination.scenario,
                    kind=found.kind,
                    fingerprint=found.fingerprint,
                    token=found.token,
                ).error("{}: {}", found.kind, first)
                if job.combination.clean and not self._quiet:
                    where = f"part {job.number}, {job.combination.label()}, seed {job.seed}"
                    logger.info("{} {} in {}: {}", found.kind, found.fingerprint, where, first)
        now = time.monotonic()
        if now - self._said >= _PROGRESS_SECONDS and not self._quiet:
            self._said = now
            logger.info("{}", self._line(now))

    def _line(self, now: float) -> str:
        took = now - self._began
        fresh = self._done - self._before
        left = took / fresh * (self._count - self._done) if fresh else 0.0
        return (
            f"{self._done:,} of {self._count:,} parts, {self._schedules / took:,.0f} schedules/s, "
            f"about {left:,.0f} s left"
        )

    def lost(self, job: Job, crash: Crash, *, given_up: bool) -> None:
        """See ``drive.Watcher``."""
        then = "given up" if given_up else "it is tried again"
        known = f" after schedule {crash.note}" if crash.note else ""
        logger.warning(
            "part {} ({}, seed {}): {}{}; {}",
            job.number,
            job.combination.label(),
            job.seed,
            crash,
            known,
            then,
        )


# -- report -------------------------------------------------------------------------------------


def report(name: str, where: str, *, html: Path | None, json: bool) -> ExitCode:
    """``campaign report``."""
    with Store(where or str(DEFAULT), make=False) as store:
        gathered = result.gather(store, store.campaign(name))
    if html is not None:
        for bug in gathered.bugs.values():
            parts.keep_file(bug.best)
        title = f"campaign {gathered.campaign.name}"
        write_text(html, run_page.page(for_page(gathered), title))
    _show(gathered, json=json)
    return of_verdict(gathered.verdict)


def _show(gathered: Result, *, json: bool) -> None:
    for bug in gathered.bugs.values():
        parts.keep_file(bug.best)
    if json:
        print(documents.encode(result.document(gathered)))
        return
    for bug in gathered.bugs.values():
        if not bug.combination.clean:
            continue  # the canary's failure is no news
        best = bug.best
        console.show(
            f"\n{bug.combination.scenario}: {best.kind} {best.fingerprint}, in "
            f"{plural(bug.parts, 'part')}; {plural(best.preemptions, 'preemption')}, "
            f"{plural(best.steps, 'step')}\n  {best.message}\n"
            f"  {replay_command(best.token)}"
        )
    for cycle in gathered.cycles:
        console.show(f"\nlock order, over all parts: {cycle.message}")
    console.output().print(_table(gathered))
    _show_losses(gathered)
    total = sum(group.total.schedules for group in gathered.groups)
    console.show(
        f"{gathered.verdict}: campaign {gathered.campaign.name}, {total:,} schedules in "
        f"{gathered.done:,} of {gathered.planned:,} parts"
    )


def _table(gathered: Result) -> Any:
    made = console.table(
        "!scenario", "strategy", "verdict", ">parts", ">schedules", ">per core/s", "why"
    )
    for group in gathered.groups:
        fine = group.judged == "pass"
        rate = f"{group.total.schedules / group.seconds:,.0f}" if group.seconds > 0 else "-"
        more = group.combination.label().split(" ", 2)[2:]
        made.add_row(
            group.combination.scenario,
            escape(" ".join([group.combination.strategy, *more])),
            Text(_remark(group), style=console.STYLE["pass" if fine else group.verdict]),
            f"{group.done:,}/{group.planned:,}",
            f"{group.total.schedules:,}",
            rate,
            "" if fine else escape(group.reason),
        )
    return made


def _remark(group: Group) -> str:
    if group.combination.clean:
        return group.verdict
    return f"{group.verdict} ({'as it must' if group.judged == 'pass' else 'wrong'})"


def _show_losses(gathered: Result) -> None:
    """What came to nothing; of the first few, with the stacks of the threads that ran."""
    if gathered.losses:
        count = len(gathered.losses)
        console.show(
            f"{plural(count, 'attempt')} at {'a part' if count == 1 else 'parts'} came to nothing"
        )
    last = {loss.part: loss for loss in gathered.losses if loss.part in gathered.given_up}
    shown = dict(sorted(last.items())[:_LOSSES_SHOWN])
    jobs = {job.number: job for job in gathered.plan.jobs() if job.number in shown}
    for number, loss in shown.items():
        known = f", after at least {plural(loss.schedules, 'schedule')}" if loss.schedules else ""
        job = jobs.get(number)
        which = f" ({job.combination.label()}, seed {job.seed})" if job else ""
        console.show(f"part {number}{which} was given up: {loss.why}{known}")
        if loss.stacks:
            culprit = loss.stacks.split("\n\n")[0].splitlines()
            console.show("\n".join(f"  {line}" for line in culprit[:12]))
    if len(last) > len(shown):
        console.show(
            f"{len(last) - len(shown)} more were given up; `campaign export` writes all losses"
        )


def for_page(gathered: Result) -> documents.Document:
    """As ``run --json`` has it, which is what a page is made of."""
    document = result.canonical(gathered)
    found = list(zip(document["findings"], gathered.bugs.values(), strict=True))
    scenarios = []
    for row, group in zip(document["combinations"], gathered.groups, strict=True):
        # The canary's failure is no finding of the campaign.
        mine = [
            one
            for one, bug in found
            if bug.combination is group.combination and group.combination.clean
        ]
        scenarios.append(
            {
                **row,
                "name": group.combination.label(),
                "verdict": _remark(group),
                "seconds": group.seconds,
                "failures": mine,
            }
        )
    seeds = [seed for c in gathered.plan.combinations if c.clean for seed in (c.first, c.last)]
    return {
        "verdict": gathered.verdict,
        "seed": f"{min(seeds)}-{max(seeds)}" if seeds else "",
        "scenarios": scenarios,
        "lock_order": document["lock_order"],
    }


# -- list, diff, check, export ------------------------------------------------------------------


def list_campaigns(where: str, *, json: bool) -> ExitCode:
    """``campaign list``."""
    with Store(where or str(DEFAULT), make=False) as store:
        standings = store.standings()
    if json:
        rows = [
            {
                "name": one.campaign.name,
                "made": one.campaign.made,
                "finished": one.campaign.finished,
                "seen": one.seen,
                "parts": {"planned": one.campaign.plan().count, "done": one.parts},
                "schedules": one.schedules,
                "fingerprints": one.fingerprints,
                "losses": one.losses,
                "seconds": round(one.seconds, 3),
            }
            for one in standings
        ]
        print(documents.encode({"campaigns": rows}))
        return ExitCode.PASS
    made = console.table("!campaign", "made", ">parts", ">schedules", ">findings", "")
    for one in standings:
        made.add_row(
            one.campaign.name,
            one.campaign.made[:16],
            f"{one.parts:,}/{one.campaign.plan().count:,}",
            f"{one.schedules:,}",
            f"{one.fingerprints:,}",
            "" if one.campaign.finished else f"not finished, last seen {one.seen[:16]}",
        )
    console.output().print(made)
    return ExitCode.PASS


def diff(old: str, new: str, where: str, *, json: bool) -> ExitCode:
    """``campaign diff``."""
    with Store(where or str(DEFAULT), make=False) as store:
        one, other = (result.gather(store, store.campaign(name)) for name in (old, new))
    document = result.diff(one, other)
    if json:
        print(documents.encode(document))
    else:
        _show_diff(document)
    return ExitCode.FINDING if document["appeared"] else ExitCode.PASS


def _show_diff(document: documents.Document) -> None:
    if not document["same_plan"]:
        console.show("their plans differ: what is gone may only not have been looked for")
    for what in ("appeared", "gone", "still"):
        for finding in document[what]:
            first = (finding["message"].splitlines() or [""])[0]
            console.show(f"{what}: {finding['scenario']}, {finding['fingerprint']}: {first}")
            if what == "appeared":
                console.show(f"  {replay_command(finding['token'])}")
    for change in document["verdicts"]:
        of = [change[key] for key in ("scenario", "strategy", "faults") if change[key]]
        console.show(f"{' '.join(of)}: {change['old']}, now {change['new']}")
    console.show(
        f"{len(document['appeared'])} appeared, {len(document['gone'])} are gone, "
        f"{len(document['still'])} are still there"
    )


def check(name: str, where: str, numbers: str, *, json: bool) -> ExitCode:
    """``campaign check``: the same parts again, in processes of their own."""
    with Store(where or str(DEFAULT), make=False) as store:
        campaign = store.campaign(name)
        done = sorted(store.done(campaign))
        wanted = _numbers(numbers, done) if numbers else done[:_CHECKED]
        stored = {o.number: o.timeless() for *_, o in store.outcomes(campaign, wanted)}
    jobs = [job for job in campaign.plan().jobs() if job.number in stored]
    waiting = iter(jobs)
    differ: list[int] = []
    lost: dict[int, str] = {}
    workers = Local(1, campaign.plan().part_seconds)
    for job, value in workers.run(lambda: next(waiting, None)):
        if isinstance(value, Crash):
            lost[job.number] = str(value)
        elif value.timeless() != stored[job.number]:
            differ.append(job.number)
    document = {
        "checked": [job.number for job in jobs],
        "differ": differ,
        "lost": [{"part": number, "why": why} for number, why in lost.items()],
    }
    if json:
        print(documents.encode(document))
    else:
        for number, why in lost.items():
            console.show(f"part {number} came to nothing: {why}")
        same = "all others are the same" if lost else "all are the same"
        said = f"parts {', '.join(map(str, differ))} differ" if differ else same
        console.show(f"{plural(len(jobs), 'part')} run again: {said}")
    if differ:
        return ExitCode.FINDING
    return ExitCode.PASS if jobs and not lost else ExitCode.INCONCLUSIVE


def _numbers(text: str, done: Iterable[int]) -> list[int]:
    """``3,7-9``, as far as those are done.

    Raises:
        UsageError: It is not of that form, or names a part that is not in the store.
    """
    known = set(done)
    wanted: list[int] = []
    for piece in text.split(","):
        first, last = plan.parse_range(piece.strip(), "--parts")
        if last - first > plan.PARTS_MAX:
            raise UsageError(f"--parts names more than {plan.PARTS_MAX:,} parts")
        wanted += range(first, last + 1)
    missing = [number for number in wanted if number not in known]
    if missing:
        raise UsageError(f"part {missing[0]} is not in the store")
    return wanted


def export(name: str, where: str, output: Path | None, form: str, *, json: bool) -> ExitCode:
    """``campaign export``."""
    if form not in FORMATS:
        raise UsageError(f"--format is {' or '.join(FORMATS)}, got {form!r}")
    write = _write_csv if form == "csv" else _parquet()
    with Store(where or str(DEFAULT), make=False) as store:
        campaign = store.campaign(name)
        tables = {table: store.rows(campaign, table) for table in _TABLES}
    folder = Path(campaign.name) if output is None else output
    written = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for table, (columns, rows) in tables.items():
            path = folder / f"{table}.{form}"
            write(path, columns, rows)
            written.append(str(path))
    except OSError as error:
        raise UsageError(f"cannot write {error.filename or folder}: {error.strerror}") from None
    if json:
        print(documents.encode({"campaign": campaign.name, "files": written}))
    else:
        for path_text in written:
            console.show(path_text)
    return ExitCode.PASS


def _write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)


def _parquet() -> Callable[[Path, Sequence[str], Sequence[Sequence[Any]]], None]:
    """What writes a table, once it is known to be here."""
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError:
        raise UsageError(
            "--format parquet needs pyarrow: pip install 'lockloom[parquet]'"
        ) from None

    def write(path: Path, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        made = pa.table({name: [row[at] for row in rows] for at, name in enumerate(columns)})
        parquet.write_table(made, path)

    return write
