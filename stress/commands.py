"""The bodies of the commands: plain functions from options to an exit code.

``cli`` declares how they are called. What a command reports goes to standard output, as text or,
with ``--json``, as one document; everything else goes to standard error.
"""

from __future__ import annotations

import importlib.metadata
import platform
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

from loguru import logger

from harness.errors import ReplayDivergence, UsageError
from harness.search.named import Named
from harness.trace.packed import check, packing
from harness.trace.token import PREFIX, Token, decode
from stress import (
    catalogue,
    console,
    documents,
    exit_codes,
    given,
    hunts,
    lock_order,
    mutants,
    work,
)
from stress.artefacts import writable
from stress.catalogue import Spec
from stress.exit_codes import ExitCode, of_verdict
from stress.hunts import Bag
from stress.pictures import Pictures, check_stacks
from stress.pool import call_fresh
from stress.program import PROGRAM
from stress.runner import SCHEDULES_DEFAULT, Options, Report, Run
from stress.work import Replayed

if TYPE_CHECKING:
    from stress.triage.corpus import Standings

_NAMED_BYTES_MAX: Final = 1 << 26


# -- list, show ---------------------------------------------------------------------------------


def list_scenarios(patterns: Sequence[str], *, json: bool) -> ExitCode:
    """``list``."""
    entries = catalogue.select(patterns)
    if json:
        print(documents.encode(documents.of_catalogue(entries)))
    else:
        console.output().print(console.catalogue_table(entries))
    return ExitCode.PASS


def show_token(text: str, *, json: bool) -> ExitCode:
    """``show TOKEN``."""
    token = decode(text)
    document = _token_document(token, Spec.from_meta(token.meta))
    if json:
        print(documents.encode(document))
        return ExitCode.PASS
    made = console.table("of the token", "")
    for name, value in document.items():
        if value not in ("", None, {}):
            made.add_row(name.replace("_", " "), str(value))
    console.output().print(made)
    return ExitCode.PASS


def _token_document(token: Token, spec: Spec) -> documents.Document:
    known = True
    try:
        catalogue.check(spec)
    except UsageError:
        known = False
    return {
        "scenario": spec.scenario,
        "known_here": known,
        "params": dict(spec.params),
        "revision": spec.revision,
        "defects": None if spec.defects is None else list(spec.defects),
        "mutant": spec.mutant,
        "faults": spec.faults,
        "strategy": token.strategy,
        "seed": token.seed,
        "schedule": token.schedule,
        "kind": token.kind,
        "fingerprint": token.fingerprint,
        "steps": token.steps,
        "steps_max": token.steps_max,
        "earlier_lock_edges": len(token.edges),
        "versions": {"token": PREFIX.rstrip("-"), "lockloom": version(), "python": _python()},
    }


def version() -> str:
    """Of the installed distribution; "unknown" in a bare checkout."""
    try:
        return importlib.metadata.version("lockloom")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def _python() -> str:
    return platform.python_version()


def version_line() -> str:
    """What a bug report needs."""
    gil = getattr(sys, "_is_gil_enabled", lambda: True)()
    return (
        f"lockloom {version()}, Python {_python()} ({'with' if gil else 'without'} GIL), "
        f"{platform.system()} {platform.machine()}"
    )


# -- run ----------------------------------------------------------------------------------------


def run(
    names: Sequence[str],
    options: Options,
    *,
    json: bool,
    quiet: bool = False,
    revision: str = "fixed",
    faults: str = "",
    params: Sequence[str] = (),
    lock_log: Path | None = None,
    html: Path | None = None,
    corpus: Path | None = None,
) -> ExitCode:
    """``run``: explore scenarios and report what was found, after the known races."""
    specs = [
        Spec(entry.name, revision=revision, faults=faults) for entry in catalogue.select(names)
    ]
    if params:
        specs = [catalogue.with_params(spec, params) for spec in specs]
    check_stacks(lock_log, stacks=options.stacks)
    if lock_log is not None:
        options = replace(options, logged=sys.maxsize)
    if html is not None:
        writable(html, "--html")
    watcher = console.watcher(quiet=quiet)
    with ExitStack() as stack:
        stack.callback(watcher.close)
        log = None
        if lock_log is not None:
            log = stack.enter_context(open_log(lock_log, "--lock-log")).write
        running = Run(specs, options, watcher, counted=bool(names), log=log)
        console.say(console.seed_line(options.seed), json=json)
        known = None if corpus is None else known_races(corpus, options, json=json)
        report = running.run()
    lock_order.log_report(report)
    document = documents.of_report(report)
    if known is not None:
        document |= {
            "verdict": exit_codes.worst([report.verdict, known.verdict]),
            "corpus": known.document(),
        }
    if html is not None:
        html.write_text(_campaign_page(report, document, known), encoding="utf-8")
    if json:
        print(documents.encode(document))
    else:
        show_report(report)
        if known is not None:
            console.show(f"{document['verdict']}, with the known races: {known.counted()}")
        if lock_log is not None:
            console.show(f"audit the lock log: {PROGRAM} audit {lock_log}")
    console.say(console.seed_line(options.seed, last=True, mode=options.mode), json=json)
    return ExitCode.INTERRUPTED if report.interrupted else of_verdict(document["verdict"])


def known_races(path: Path, options: Options, *, json: bool) -> Standings:
    """``--corpus``: what became of the races of a corpus, before anything else runs.

    Where a schedule no longer fits, as many are searched as a scenario of the run has.

    Raises:
        UsageError: The corpus cannot be read.
    """
    from stress.triage import corpus

    search = options.schedules or SCHEDULES_DEFAULT
    return corpus.judge(path, search=search, jobs=options.jobs, json=json)


@contextmanager
def open_log(path: Path, option: str) -> Iterator[IO[bytes]]:
    """Open a lock log for writing, compressed where its name ends in ``.gz`` or ``.zst``.

    Raises:
        UsageError: It cannot be written, or not compressed so.
    """
    check(path.suffix)
    writable(path, option)
    with path.open("wb") as raw, packing(raw, path.suffix) as log:
        yield log


def _campaign_page(report: Report, document: documents.Document, known: Standings | None) -> str:
    from stress import run_page

    names = [result.entry.name for result in report.results]
    found = [found for result in report.results for found in result.found]
    parts = [] if known is None else [known.part()]
    return run_page.page(
        {**document, "parts": parts, "lock_order": {"edges": sorted(report.lock_rules().edges)}},
        names[0] if len(names) == 1 else f"{len(names)} scenarios",
        text="\n\n".join(each.text for each in found),
        easier={each.failure.token: each.best.token for each in found},
    )


def report(run: str, *, html: Path | None, json: bool) -> ExitCode:
    """``report [RUN]``."""
    from stress import run_page

    folder = run_page.find(run)
    path = folder / "report.html" if html is None else html
    writable(path, "--html")
    document = run_page.read(folder)
    page = run_page.page(document, f"run {folder.name}")
    path.write_text(page, encoding="utf-8")
    if json:
        print(documents.encode({"report": str(path), "verdict": document["verdict"]}))
    else:
        console.show(f"{document['verdict']}: {path}")
    return ExitCode.PASS


# Of more scenarios than this, what their passes rest on stands in the table alone.
_TOLD_IN_FULL: Final = 3


def show_report(report: Report) -> None:
    """The findings one by one, then the table, then the verdict."""
    for result in report.results:
        if result.judged == "pass":
            continue  # the canary's failure is no news
        for found in result.found:
            console.show(f"\n{result.entry.name}: {found.text}\n")
        for foreseen in () if result.exploration is None else result.exploration.foreseen:
            console.show(console.foreseen_text(result.entry.name, foreseen))
    console.output().print(console.report_table(report))
    passed = [result for result in report.results if result.verdict == "pass"]
    for result in passed if len(report.results) <= _TOLD_IN_FULL else ():
        if result.exploration is not None and result.exploration.evidence is not None:
            text = console.evidence_text(result.exploration.evidence)
            console.show(f"{result.entry.name}: {text}")
    if len(report.results) > _TOLD_IN_FULL and (told := console.histories_text(report)):
        console.show(told)
    ran = sum(result.schedules for result in report.results)
    cut = ", interrupted" if report.interrupted else ""
    begun = sum(result.exploration is not None for result in report.results)
    console.show(
        f"{report.verdict}: {ran:,} schedules of {begun} of {len(report.results)} scenarios "
        f"in {report.seconds:.1f} s{cut}"
    )


# -- replay -------------------------------------------------------------------------------------


def replay_token(
    text: str, *, json: bool, pictures: Pictures, mutant_file: Path | None = None
) -> ExitCode:
    """``replay TOKEN``."""
    spec = Spec.from_meta(decode(text).meta)
    pictures.check()
    page = pictures.html is not None
    try:
        # A mutant is planted as the model is imported, so it needs a process that has not yet.
        if spec.mutant:
            replayed = call_fresh(work.replay_token, text, mutant_file, page, pictures.stacks)
        else:
            replayed = work.replay_token(text, None, page, pictures.stacks)
    except ReplayDivergence as error:
        return _diverged(error, json=json)
    return _show_replay(replayed, spec, json=json, pictures=pictures)


def replay_file(
    path: Path, *, json: bool, pictures: Pictures, mutant_file: Path | None
) -> ExitCode:
    """``replay FILE``: a named schedule, on the program as it is now."""
    named = Named.read(given.read_bytes(path, "the named schedule", bytes_max=_NAMED_BYTES_MAX))
    spec = Spec.from_meta(decode(named.token).meta)
    pictures.check()
    args = named, mutant_file, pictures.html is not None, pictures.stacks
    replayed = (
        call_fresh(work.replay_operations, *args) if spec.mutant else work.replay_operations(*args)
    )
    if replayed.aligned is not None and not json:
        console.show(replayed.aligned.text())
    if replayed.found is None and replayed.aligned is not None and not replayed.aligned.fitted:
        nothing = "no operation of the recording takes place in this program"
        return _diverged(ReplayDivergence(1, "the recorded operations", nothing), json=json)
    return _show_replay(replayed, spec, json=json, pictures=pictures)


def replay_schedule(
    name: str,
    schedule: int,
    options: Options,
    *,
    json: bool,
    revision: str = "fixed",
    faults: str = "",
    params: Sequence[str] = (),
    pictures: Pictures,
) -> ExitCode:
    """``replay SCENARIO --seed K --schedule I``."""
    entry = catalogue.find(name)
    options.check()
    if schedule < 1:
        raise UsageError(f"--schedule counts from 1, got {schedule}")
    spec = catalogue.with_params(Spec(name, revision=revision, faults=faults), params)
    spec = options.bound(spec, entry)
    pictures.check()
    page = pictures.html is not None
    options = replace(options, stacks=pictures.stacks)
    replayed = work.replay_schedule(spec, options.setup(spec, entry), schedule, None, page)
    return _show_replay(replayed, spec, json=json, pictures=pictures)


def _show_replay(replayed: Replayed, spec: Spec, *, json: bool, pictures: Pictures) -> ExitCode:
    pictures.write(replayed, spec)
    if json:
        print(documents.encode(documents.of_replay(replayed)))
    elif replayed.found is not None:
        console.show(f"{spec.scenario}: {replayed.found.text}")
    else:
        steps = len(replayed.story.steps)
        fits = "fits" if replayed.aligned is None else "was followed"
        console.show(f"{spec.scenario}: the schedule {fits} and does not fail, {steps} steps")
    return ExitCode.PASS if replayed.found is None else ExitCode.FINDING


def _diverged(error: ReplayDivergence, *, json: bool) -> ExitCode:
    if json:
        print(documents.encode(documents.of_divergence(str(error))))
    logger.error("{}", error)
    return ExitCode.INCONCLUSIVE


# -- mutants, defects ---------------------------------------------------------------------------


def hunt_mutants(
    only: Sequence[str], options: Options, *, json: bool, mutant_file: Path | None
) -> ExitCode:
    """``mutants``: find every planted bug, and no control."""
    chosen = mutants.choose(mutants.read(mutant_file), only)
    return _hunt(hunts.mutant_quarries(chosen, mutant_file), options, json=json)


def mutant_matrix(
    only: Sequence[str], options: Options, *, json: bool, mutant_file: Path | None
) -> ExitCode:
    """``mutants --matrix``: every planted bug on every scenario."""
    from stress import matrix

    chosen = mutants.choose(mutants.read(mutant_file), only)
    hunts.mutant_quarries(chosen, mutant_file)  # refuses what names no scenario
    console.say(console.seed_line(options.seed), json=json)
    made = matrix.matrix(chosen, options, mutant_file, lambda line: logger.info("{}", line))
    if json:
        print(documents.encode(matrix.document(made)))
    else:
        console.show("\n".join([*matrix.show(made), "", *matrix.lines(made)]))
    console.say(console.seed_line(options.seed, last=True), json=json)
    if made.interrupted:
        return ExitCode.INTERRUPTED
    if made.missed or made.false:
        return ExitCode.FINDING
    return ExitCode.INCONCLUSIVE if made.cut else ExitCode.PASS


def hunt_defects(only: Sequence[str], options: Options, *, json: bool) -> ExitCode:
    """``defects``: rediscover the latent defects of the seed."""
    quarries = hunts.defect_quarries(only)
    if not quarries:
        raise UsageError(f"no scenario of the catalogue shows a defect; see `{PROGRAM} list`")
    return _hunt(quarries, options, json=json)


def _hunt(quarries: Sequence[hunts.Quarry], options: Options, *, json: bool) -> ExitCode:
    options.check()
    console.say(console.seed_line(options.seed), json=json)
    bag = hunts.hunt(quarries, options, lambda catch: logger.info("{}", console.catch_line(catch)))
    if json:
        print(documents.encode(documents.of_bag(bag)))
    else:
        show_bag(bag)
    log_bag(bag, options.seed)
    console.say(console.seed_line(options.seed, last=True), json=json)
    if bag.interrupted:
        return ExitCode.INTERRUPTED
    return ExitCode.PASS if bag.as_expected else ExitCode.FINDING


def show_bag(bag: Bag) -> None:
    """The table, and how each catch is replayed."""
    console.output().print(console.bag_table(bag))
    for catch in bag.catches:
        if catch.found is not None:
            command = work.replay_command(catch.found.best.token, catch.quarry.catalogue)
            console.show(f"{catch.quarry.id}: {command}")
    left = len(bag.quarries) - len(bag.catches)
    console.show(
        f"{bag.found()} of {bag.total()} found, {bag.found(control=True)} of "
        f"{bag.total(control=True)} controls found, in {bag.seconds:.1f} s"
        + (f"; interrupted, {left} not hunted" if bag.interrupted else "")
    )


def log_bag(bag: Bag, seed: int) -> None:
    """Write the catches to the log, with bound fields."""
    for catch in bag.catches:
        fields: dict[str, Any] = {
            "event": "hunt",
            "id": catch.quarry.id,
            "scenario": catch.quarry.spec.scenario,
            "seed": seed,
            "verdict": catch.verdict,
            "schedules": catch.schedules,
        }
        if catch.found is not None:
            failure = catch.found.best
            fields |= {
                "kind": failure.kind,
                "token": failure.token,
                "fingerprint": failure.fingerprint,
            }
        logger.bind(**fields).info("{}", console.catch_line(catch))
