"""What a person sees: tables and reports on standard output, progress on standard error.

Colour and the progress bar only on a terminal (``NO_COLOR`` and ``TERM=dumb`` are honoured by
rich); elsewhere plain lines. Nothing is wider than 100 columns.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Sequence
from typing import Final

from loguru import logger
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TextColumn,
)
from rich.table import Table
from rich.text import Text

from harness.explore import Part
from harness.search.evidence import Evidence, Histories
from harness.search.foresight import Foreseen
from stress.catalogue import Scenario
from stress.hunts import Bag, Catch
from stress.runner import Options, Report, Result, Watcher
from stress.tally import Tally

WIDTH: Final = 100
# A piped log still shows that something happens.
_PLAIN_SECONDS: Final = 10.0
_ORDERS_SHOWN: Final = 8
STYLE: Final = {"pass": "green", "fail": "bold red", "inconclusive": "yellow"}


def output() -> Console:
    """Standard output, at most ``WIDTH`` columns wide."""
    return _console(Console(file=sys.stdout, highlight=False, soft_wrap=False))


def _console(console: Console) -> Console:
    console.width = min(console.width, WIDTH) if console.is_terminal else WIDTH
    return console


def say(text: str, *, json: bool) -> None:
    """Print a line of the report; beside a JSON document it goes to standard error."""
    if json:
        logger.info("{}", text)
    else:
        show(text)


def show(text: str) -> None:
    """A report as it is: no markup, no wrapping (tokens must stay in one piece)."""
    output().print(Text(text), soft_wrap=True)


def seed_line(seed: int, *, last: bool = False, mode: str = "controlled") -> str:
    """How a run names its seed, first and last."""
    promise = "the same seed gives the same run"
    if mode == "free":
        promise = "it decides the naps, and the machine the rest; tokens replay under control"
    return f"seed {seed}" + (f": {promise}" if last else "")


# -- progress -----------------------------------------------------------------------------------


class Plain:
    """A line as each scenario ends, and one every ten seconds in between."""

    def __init__(self) -> None:
        """Nothing is printed before ``begin``."""
        self._began = self._said = time.monotonic()
        self._tally = Tally(0, None, None)

    def begin(self, names: Sequence[str], options: Options) -> None:
        """See ``Watcher``."""
        self._began = self._said = time.monotonic()
        self._tally = Tally(len(names), options.schedules, options.seconds)

    def advance(self, name: str, parts: Sequence[Part]) -> None:
        """See ``Watcher``."""
        self._tally.add(name, parts)
        now = time.monotonic()
        if now - self._said >= _PLAIN_SECONDS:
            self._said = now
            logger.info("{}: {}", name, self._tally.line(now - self._began))

    def done(self, result: Result) -> None:
        """See ``Watcher``."""
        self._said = time.monotonic()
        self._tally.finish(result.schedules)
        logger.info("{}", result_line(result))

    def close(self) -> None:
        """Nothing is open."""


class Bar:
    """A progress bar on a terminal; finished scenarios scroll by above it."""

    def __init__(self) -> None:
        """The bar appears with ``begin``."""
        self._progress = Progress(
            BarColumn(bar_width=20),
            TextColumn("{task.description}"),
            console=_console(Console(stderr=True, highlight=False)),
            transient=True,
        )
        self._task: TaskID | None = None
        self._began = time.monotonic()
        self._tally = Tally(0, None, None)

    def begin(self, names: Sequence[str], options: Options) -> None:
        """See ``Watcher``."""
        self._began = time.monotonic()
        self._tally = Tally(len(names), options.schedules, options.seconds)
        self._progress.start()
        self._task = self._progress.add_task("starting", total=self._tally.total)

    def advance(self, name: str, parts: Sequence[Part]) -> None:
        """See ``Watcher``."""
        self._tally.add(name, parts)
        self._show()

    def done(self, result: Result) -> None:
        """See ``Watcher``."""
        self._progress.console.print(_styled_line(result))
        self._tally.finish(result.schedules)
        self._show()

    def _show(self) -> None:
        if self._task is not None:
            tally = self._tally
            self._progress.update(
                self._task,
                description=tally.line(time.monotonic() - self._began),
                completed=tally.schedules + tally.saved,
            )

    def close(self) -> None:
        """Take the bar down."""
        self._progress.stop()


class Silent:
    """Says nothing."""

    def begin(self, names: Sequence[str], options: Options) -> None:
        """See ``Watcher``."""

    def advance(self, name: str, parts: Sequence[Part]) -> None:
        """See ``Watcher``."""

    def done(self, result: Result) -> None:
        """See ``Watcher``."""

    def close(self) -> None:
        """Nothing is open."""


def watcher(*, quiet: bool) -> Plain | Bar | Silent:
    """What suits the place that standard error goes to."""
    if quiet:
        return Silent()
    console = Console(stderr=True)
    return Bar() if console.is_terminal and not console.is_dumb_terminal else Plain()


def _watcher_types(one: Plain, two: Bar, three: Silent) -> tuple[Watcher, Watcher, Watcher]:
    return one, two, three  # read by the type checker only


def result_line(result: Result) -> str:
    """One scenario on one line."""
    return f"{result.entry.name:<28} {_remark(result):<22} {result.reason}"


def _styled_line(result: Result) -> Text:
    style = STYLE["pass" if _fine(result) else result.verdict]
    return Text(result_line(result), style=style, no_wrap=True, overflow="ellipsis")


def _remark(result: Result) -> str:
    """The verdict, and whether it is the one that the scenario should have."""
    if result.entry.expected == "clean" or result.counted:
        return result.verdict
    return f"{result.verdict} ({'as it must' if result.as_expected else 'wrong'})"


def _fine(result: Result) -> bool:
    return result.judged == "pass"


# -- tables -------------------------------------------------------------------------------------


def table(*columns: str, title: str | None = None) -> Table:
    """A plain table without vertical lines.

    Args:
        columns: Headings; ``>`` before one sets its column flush right, ``!`` keeps it whole.
        title: Above it, to the left.
    """
    made = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", pad_edge=False)
    for column in columns:
        made.add_column(
            column.lstrip(">!"),
            justify="right" if column.startswith(">") else "left",
            no_wrap=column.startswith((">", "!")),
            overflow="fold",
        )
    return made


def catalogue_table(entries: Iterable[Scenario]) -> Table:
    """``list``: what each scenario does, and below it what it is for."""
    made = table("!scenario", ">threads", "what it does, and its tags; what it exercises; catches")
    for entry in entries:
        lines = [f"{entry.summary} ({' '.join(entry.tags)})" if entry.tags else entry.summary]
        lines += [" ".join(entry.exercises)] if entry.exercises else []
        caught = (*entry.mutants, *entry.defects)
        lines += [f"catches {' '.join(caught)}"] if caught else []
        made.add_row(entry.name, str(entry.threads), Text("\n".join(lines)))
    return made


def report_table(report: Report) -> Table:
    """``run``: one row for each scenario."""
    results = [r for r in report.results if r.exploration is not None or not report.interrupted]
    why = [_why(result) for result in results]
    made = table(
        "!scenario",
        # The one that may wrap: a number that is cut off would be another number.
        "verdict",
        ">schedules",
        ">steps",
        ">per core/s",
        # There is room for one of them: what a pass rests on, or why there is none.
        *(["why"] if any(why) else [">classes", ">fails at most"]),
    )
    for result, reason in zip(results, why, strict=True):
        exploration = result.exploration
        rate = f"{result.schedules / result.busy:,.0f}" if result.busy > 0 else "-"
        made.add_row(
            result.entry.name,
            Text(_remark(result), style=STYLE["pass" if _fine(result) else result.verdict]),
            f"{result.schedules:,}",
            "-" if exploration is None else f"{exploration.steps:,}",
            rate,
            *([escape(reason)] if any(why) else _evidence_cells(result)),
        )
    return made


def _evidence_cells(result: Result) -> tuple[str, str]:
    """Classes of schedules seen, of how many looked at; the bound on the chance of a failure."""
    evidence = None if result.exploration is None else result.exploration.evidence
    if evidence is None or result.verdict != "pass":
        return "-", "-"
    chance = evidence.fails_at_most
    return (
        f"{evidence.classes:,} of {evidence.looked:,}" if evidence.looked else "-",
        "-" if chance is None else f"{chance:.2%}",
    )


def evidence_text(evidence: Evidence) -> str:
    """What a pass rests on, with the first orders that were never seen."""
    lines = evidence.lines()
    for earlier, later in evidence.one_order[:_ORDERS_SHOWN]:
        lines.append(f"  always {_operation(*earlier)} before {_operation(*later)}")
    more = len(evidence.one_order) - _ORDERS_SHOWN
    if more > 0:
        lines.append(f"  and {more:,} more; --json lists all")
    return "\n".join(lines)


def foreseen_text(name: str, foreseen: Foreseen) -> str:
    """A deadlock that no schedule reached by itself: what could happen, its tier, its proof."""
    finding, count = foreseen.finding, foreseen.schedules
    moves = [
        f"  {move.thread}: {move.what}"
        + (f", waits for {move.blocked_by}" if move.blocked_by else "")
        for move in finding.scenario
    ]
    of = f"schedule {finding.schedule}" + (f" and {count - 1} more" if count > 1 else "")
    head = f"{name}: {finding.rule} {finding.tier}, foreseen in {of}: {finding.message}"
    return "\n".join([head, *moves, f"  {finding.proof}"])


def histories_text(report: Report) -> str:
    """What became of the histories of all scenarios, and where none was checked."""
    total = Histories()
    doubts = []
    for result in report.results:
        evidence = None if result.exploration is None else result.exploration.evidence
        if evidence is not None:
            total.merge(evidence.histories)
            if evidence.histories.doubt():
                doubts.append(f"  {result.entry.name}: {', '.join(evidence.histories.reasons())}")
    if doubts:
        doubts.insert(0, "inconclusive for the reference, since no history was checked:")
    return "\n".join([*filter(None, [total.told()]), *doubts])


def _operation(thread: str, kind: str, obj: str) -> str:
    return f"{thread}'s {kind} of {obj}"


def _why(result: Result) -> str:
    """The reason for a verdict that does not speak for itself."""
    expected = result.as_expected and not result.counted
    return "" if expected or result.verdict == "pass" else result.reason


def bag_table(bag: Bag) -> Table:
    """``mutants`` and ``defects``: one row for each hunt."""
    made = table("!id", "!found", ">after", ">preemptions", "!by", "what is wrong, and where")
    for catch in bag.catches:
        failure = None if catch.found is None else catch.found.best
        made.add_row(
            catch.quarry.id,
            _found_text(catch),
            f"{catch.schedules:,}",
            "-" if failure is None else str(failure.preemptions),
            "-" if failure is None else catch.oracle,
            escape(f"{catch.quarry.title} ({catch.quarry.spec.scenario})"),
        )
    return made


def _found_text(catch: Catch) -> Text:
    word = "yes" if catch.found is not None else "no"
    if catch.verdict == "inconclusive":
        word = "inconclusive"
    if catch.quarry.control:
        word += " (control)"
    return Text(word, style=STYLE["pass" if catch.as_expected else "fail"])


def _by(catch: Catch) -> str:
    assert catch.found is not None
    kind = catch.found.failure.kind
    return kind if catch.oracle == kind else f"{kind} {catch.oracle}"


def catch_line(catch: Catch) -> str:
    """One hunt on one line."""
    what = "not found" if catch.found is None else f"found by {_by(catch)}"
    if catch.verdict == "inconclusive":
        what = f"inconclusive: {catch.reason}"
    control = " (control)" if catch.quarry.control else ""
    return f"{catch.quarry.id}{control}: {what} after {catch.schedules:,} schedules"
