"""The main job: what ``tox -e stress`` does without arguments.

It explores every scenario on the fixed revision, rediscovers the latent defects on the seed's,
judges the lock order of all that ran against the model's golden table, and leaves its logs in
``.stress/``. It passes only if every part came out as it must.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from loguru import logger
from rich.text import Text

from stress import (
    catalogue,
    commands,
    console,
    documents,
    exit_codes,
    hunts,
    lock_order,
    run_page,
    work,
)
from stress.artefacts import RunFolder, write_text
from stress.catalogue import Spec
from stress.exit_codes import ExitCode, of_verdict
from stress.hunts import Bag
from stress.lock_order import Judgement
from stress.program import PROGRAM
from stress.runner import Options, Report, Run
from stress.triage.corpus import Standings

# About a minute on two cores, start to end, is what people wait for without leaving.
SECONDS_DEFAULT: Final = 45.0
# What exploring gets of the time; the hunts end when they find, which is soon or never.
_EXPLORING: Final = 0.8
# Of each scenario, at most; reached in the time above, so that the job is the same every time.
SCHEDULES: Final = 3_000
# Of each hunt; the defects show within 400, their controls run to the end of it.
HUNT_SCHEDULES: Final = 2_000
# Of each scenario, in the lock log.
LOGGED: Final = 20


@dataclass(frozen=True, slots=True)
class Part:
    """One line of the summary.

    Attributes:
        name: What was done.
        verdict: pass, fail or inconclusive.
        detail: The numbers.
    """

    name: str
    verdict: str
    detail: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """Everything that the main job did."""

    report: Report
    bag: Bag
    order: Judgement | None
    parts: list[Part]
    folder: Path
    commands: list[str]
    known: Standings | None

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C ended it."""
        return self.report.interrupted or self.bag.interrupted

    @property
    def verdict(self) -> str:
        """The worst of the parts."""
        return exit_codes.worst([part.verdict for part in self.parts])


def run(
    options: Options,
    *,
    json: bool,
    quiet: bool,
    log_file: Path | None,
    corpus: Path | None = None,
) -> ExitCode:
    """Do it all.

    Args:
        options: Seed, jobs and time; the rest is fixed.
        corpus: Known races that are replayed first, beside the time.
        json: One document instead of the summary.
        quiet: No progress.
        log_file: Where the records go; None puts them into the run's folder.

    Raises:
        HarnessError: A scenario cannot run, or the folder cannot be written.
    """
    options.check()
    specs = [Spec(entry.name) for entry in catalogue.select([])]
    if not specs:
        raise catalogue.unknown("scenario", "*", [])
    folder = RunFolder()
    from stress import logging_setup

    logging_setup.configure(quiet=quiet, log_file=log_file or folder / "log.jsonl")
    console.say(console.seed_line(options.seed), json=json)
    seconds = SECONDS_DEFAULT if options.seconds is None else options.seconds
    known = None if corpus is None else commands.known_races(corpus, options, json=json)
    report = _explore(specs, options, seconds * _EXPLORING, folder, quiet=quiet)
    bag = Bag([]) if report.interrupted else _rediscover(options)
    order = None if report.interrupted else lock_order.judge(report)
    outcome = Outcome(
        report,
        bag,
        order,
        _judge(report, bag, order, folder.path, known),
        folder.path,
        _follow(folder, bag),
        known,
    )
    lock_order.log_report(report)
    commands.log_bag(bag, options.seed)
    _leave(outcome, folder)
    if json:
        print(documents.encode(_document(outcome)))
    else:
        _show(outcome)
    console.say(console.seed_line(options.seed, last=True), json=json)
    return ExitCode.INTERRUPTED if outcome.interrupted else of_verdict(outcome.verdict)


def _explore(
    specs: Sequence[Spec], options: Options, seconds: float, folder: RunFolder, *, quiet: bool
) -> Report:
    told = replace(options, schedules=SCHEDULES, seconds=seconds, logged=LOGGED)
    logger.info("exploring {} scenarios on the fixed revision", len(specs))
    watcher = console.watcher(quiet=quiet)
    with commands.open_log(folder / "locks.jsonl.gz", "the lock log") as log:
        try:
            return Run(specs, told, watcher, counted=False, log=log.write).run()
        finally:
            watcher.close()


def _rediscover(options: Options) -> Bag:
    logger.info("rediscovering the latent defects of the seed revision")
    told = replace(options, schedules=HUNT_SCHEDULES, seconds=None)
    return hunts.hunt(
        hunts.defect_quarries(), told, lambda catch: logger.info("{}", console.catch_line(catch))
    )


# -- judging ------------------------------------------------------------------------------------


def _judge(
    report: Report, bag: Bag, order: Judgement | None, folder: Path, known: Standings | None
) -> list[Part]:
    parts = [] if known is None else [Part(**known.part())]
    parts += [_clean(report), *_self_checks(report)]
    if order is not None:
        parts += [_defects(bag), _order(order), _audit(folder / "locks.jsonl.gz")]
    return parts


def _clean(report: Report) -> Part:
    results = [result for result in report.results if result.entry.expected == "clean"]
    passed = sum(result.verdict == "pass" for result in results)
    schedules = sum(result.schedules for result in results)
    verdict = exit_codes.worst([result.verdict for result in results])
    if report.interrupted and verdict == "pass":
        verdict = "inconclusive"
    detail = f"{passed} of {len(results)} pass, {schedules:,} schedules"
    return Part("scenarios, fixed revision", verdict, detail)


def _self_checks(report: Report) -> list[Part]:
    """The canary was found, the vacuous scenario was not taken for a pass."""
    parts = []
    for wanted, name, what in (
        ("finding", "canary", "found, as it must be"),
        ("inconclusive", "vacuous scenario", "recognized, as it must be"),
    ):
        results = [result for result in report.results if result.entry.expected == wanted]
        right = sum(result.as_expected for result in results)
        verdict = "pass" if results and right == len(results) else "inconclusive"
        detail = f"{right} of {len(results)} {what}" if results else "there is none"
        parts.append(Part(name, verdict, detail))
    return parts


def _defects(bag: Bag) -> Part:
    from model.kernel import DEFECTS

    found = {catch.quarry.id for catch in bag.bugs() if catch.found is not None}
    missed = sorted(DEFECTS - found)
    detail = f"found {', '.join(sorted(found)) or 'none'}"
    if missed:
        detail += f"; missed {', '.join(missed)}"
    if bag.found(control=True):
        detail += "; also found in the fixed revision"
    verdict = (
        "inconclusive" if bag.interrupted else "pass" if bag.as_expected and not missed else "fail"
    )
    return Part("defects, seed revision", verdict, detail)


def _order(order: Judgement) -> Part:
    detail = (
        f"{len(order.edges)} nestings of lock classes, {len(order.wrong)} outside the golden table"
    )
    if order.findings:
        detail += f", {len(order.findings)} findings"
    if order.unseen:
        names = ", ".join(f"{outer} > {inner}" for outer, inner in order.unseen)
        detail += f"; golden, but not seen: {names}"
    return Part("lock order", order.verdict, detail)


def _audit(log: Path) -> Part:
    from model.locks import GOLDEN_EDGES
    from stress.audit import audit_paths

    report = audit_paths([log], golden=GOLDEN_EDGES, complete=True)
    detail = f"{report.events:,} events of {report.runs:,} schedules: {report.reason}"
    return Part("lock log", report.verdict, detail)


def _follow(folder: RunFolder, bag: Bag) -> list[str]:
    """Command lines to go on with."""
    lines = [f"{PROGRAM} report {folder.path.name}"]
    lines += [f"{PROGRAM} audit --golden model {folder / 'locks.jsonl.gz'}"]
    lines += [
        work.replay_command(catch.found.best.token)
        for catch in bag.catches
        if catch.found is not None
    ]
    return lines


# -- reporting ----------------------------------------------------------------------------------


def _document(outcome: Outcome) -> documents.Document:
    order = outcome.order
    return {
        **documents.of_report(outcome.report),
        "verdict": outcome.verdict,
        "parts": [
            {"name": part.name, "verdict": part.verdict, "detail": part.detail}
            for part in outcome.parts
        ],
        "defects": documents.of_bag(outcome.bag),
        "lock_order": None
        if order is None
        else {
            "verdict": order.verdict,
            "edges": [list(edge) for edge in order.edges],
            "wrong": order.wrong,
            "unseen": [list(edge) for edge in order.unseen],
            "findings": order.findings,
        },
        **({} if outcome.known is None else {"corpus": outcome.known.document()}),
        "folder": str(outcome.folder),
        "commands": outcome.commands,
    }


def _leave(outcome: Outcome, folder: RunFolder) -> None:
    """Write what a person or a program may want later."""
    document = _document(outcome)
    write_text(folder / "results.json", documents.encode(document) + "\n")
    texts = [
        f"{result.entry.name}: {found.text}"
        for result in outcome.report.results
        for found in result.found
    ]
    texts += [
        f"{catch.quarry.id}, {catch.quarry.spec.scenario}: {catch.found.text}"
        for catch in outcome.bag.catches
        if catch.found is not None
    ]
    text = "\n\n".join(texts) + "\n"
    write_text(folder / "report.txt", text)
    page = run_page.page(document, f"run {folder.path.name}", text=text, pairs=False)
    write_text(folder / "report.html", page)


def _show(outcome: Outcome) -> None:
    for result in outcome.report.results:
        if result.judged != "pass":
            for found in result.found:
                console.show(f"\n{result.entry.name}: {found.text}\n")
    output = console.output()
    output.print(console.report_table(outcome.report))
    if outcome.bag.catches:
        output.print(console.bag_table(outcome.bag))
    if outcome.order is not None:
        for sentence in (*outcome.order.wrong, *outcome.order.findings):
            console.show(f"lock order: {sentence}")
    made = console.table("", "verdict", "")
    for part in outcome.parts:
        made.add_row(part.name, Text(part.verdict, style=console.STYLE[part.verdict]), part.detail)
    output.print(made)
    seconds = outcome.report.seconds + outcome.bag.seconds
    cut = ", interrupted" if outcome.interrupted else ""
    console.show(f"{outcome.verdict}, after {seconds:.0f} s{cut}; all of it is in {outcome.folder}")
    for command in outcome.commands:
        console.show(f"  {command}")
