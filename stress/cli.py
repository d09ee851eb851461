"""The command line: ``python -m stress``, installed as ``lockloom``.

Only the declarations and what happens to errors are here; the bodies are in ``commands`` and
``main_job``. A command is called as typer wants it and returns an exit code.
"""

from __future__ import annotations

import io
import os
import sys
import traceback
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from loguru import logger

from harness.errors import InternalError, ReplayDivergence, TokenError, UsageError
from harness.strategies import names as strategy_names
from stress import audit_cli, catalogue, commands, help_texts, hunts, logging_setup
from stress import verify as verifying
from stress.campaigns import cli as campaigns_cli
from stress.cli_options import (
    Catalogue,
    Corpus,
    Debug,
    Depth,
    Faults,
    Html,
    HuntSchedules,
    Jobs,
    Json,
    LockLogFile,
    LockLogStacks,
    LogFile,
    Names,
    Only,
    Params,
    Preemptions,
    Quiet,
    Revision,
    Seconds,
    Seed,
    Strategy,
    given,
    logged,
)
from stress.exit_codes import ExitCode
from stress.given import is_file
from stress.pictures import Pictures
from stress.pool import WorkerError, usable_cores
from stress.program import CALLED_INSTALLED, PROGRAM
from stress.runner import SCHEDULES_DEFAULT, Options
from stress.triage import cli as triage_cli

# No scenario has a longer name, and no token is shorter.
_NAME_CHARS_MAX: Final = 40
_WORD_CHARS_MAX: Final = 4_096

app = typer.Typer(
    name="stress",
    help=help_texts.MAIN,
    # A shell completes programs, not modules that Python is told to run.
    add_completion=CALLED_INSTALLED,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=False,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line and return the exit code; ``argv`` of None takes the process's own."""
    args = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in args
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal that cannot show an arrow must not end the program.
            stream.reconfigure(errors="backslashreplace")
    logging_setup.configure()
    try:
        code = app(args=args, prog_name=PROGRAM, standalone_mode=False)
        sys.stdout.flush()
        return int(code or 0)
    except BrokenPipeError:
        # Whoever read us has enough (`| head`); Python must not complain when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.INTERRUPTED
    except (KeyboardInterrupt, typer.Abort):
        logger.error("interrupted")
        return ExitCode.INTERRUPTED
    except Exception as error:
        return _failed(error, debug=debug)
    finally:
        logging_setup.close()


def _failed(error: Exception, *, debug: bool) -> ExitCode:
    """One line on standard error, and the exit code."""
    if debug:
        trace = error.trace if isinstance(error, WorkerError) else ""
        sys.stderr.write(trace or "".join(traceback.format_exception(error)))
    if isinstance(error, ReplayDivergence):
        logger.error("{}", _one_line(str(error)))
        return ExitCode.INCONCLUSIVE
    if isinstance(error, (UsageError, TokenError)):
        logger.error("{}", _one_line(str(error)))
        return ExitCode.USAGE
    # Typer raises exceptions of its own for a command line that it cannot read; they have no public
    # name in common, but all of them can be shown to a person.
    if hasattr(error, "format_message") and not isinstance(error, InternalError):
        text = str(error.format_message()).rstrip(".")
        path = getattr(getattr(error, "ctx", None), "command_path", PROGRAM)
        hint = "" if text.endswith("?") else f"; see `{path} --help`"
        logger.error("{}", _one_line(text) + hint)
        return ExitCode.USAGE
    more = "" if debug else "; --debug shows where"
    logger.error(
        "{}: {} (an error of our own{})", type(error).__name__, _one_line(str(error)), more
    )
    return ExitCode.INTERNAL


def _one_line(text: str) -> str:
    """The text on one line; of a word longer than any path or token its two ends."""
    words = text.split()
    return " ".join(w if len(w) <= _WORD_CHARS_MAX else f"{w[:200]}...{w[-50:]}" for w in words)


def parse_seed(text: str) -> int:
    """A seed as the command line gives it.

    Raises:
        UsageError: It is no number, nor ``auto``.
    """
    if text == "auto":
        return int.from_bytes(os.urandom(4), "little")
    try:
        return int(text, 0)
    except ValueError:
        raise UsageError(
            f"--seed is a number from 0, decimal or 0x..., or the word auto; got {text!r}"
        ) from None


def _options(*, seed: str, jobs: int | None, strategy: str = "portfolio", **others: Any) -> Options:
    if strategy not in strategy_names():
        catalogue.discover()  # a folder of scenarios may register some
    if strategy not in strategy_names():
        raise catalogue.unknown("strategy", strategy, strategy_names())
    cores = usable_cores() if jobs is None else jobs
    return Options(strategy=strategy, seed=parse_seed(seed), jobs=cores, **others)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(commands.version_line())
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _main_job(
    ctx: typer.Context,
    seed: Seed = "0",
    seconds: Annotated[
        float | None, typer.Option("--seconds", help="About how long the main job may take.")
    ] = None,
    jobs: Jobs = None,
    json: Json = False,
    corpus: Corpus = None,
    log_file: LogFile = None,
    quiet: Quiet = False,
    debug: Debug = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print versions.")
    ] = False,
) -> int:
    del debug, version
    if ctx.invoked_subcommand is not None:
        if any(given(ctx, name) for name in ctx.params):
            raise UsageError(
                f"options of a command stand after it: {PROGRAM} {ctx.invoked_subcommand} --option"
            )
        return ExitCode.PASS
    logging_setup.configure(quiet=quiet, log_file=log_file)
    from stress import main_job

    options = _options(seed=seed, jobs=jobs, seconds=seconds)
    return main_job.run(options, json=json, quiet=quiet, log_file=log_file, corpus=corpus)


@app.command("list", help=help_texts.LIST, short_help="List the scenarios.")
@logged
def _list(scenarios: Names = None, json: Json = False) -> int:
    return commands.list_scenarios(scenarios or [], json=json)


@app.command("show", help=help_texts.SHOW, short_help="Show what a token holds.")
@logged
def _show(token: str, json: Json = False) -> int:
    return commands.show_token(token, json=json)


@app.command("run", help=help_texts.RUN, short_help="Explore scenarios.")
@logged
def _run(
    scenarios: Names = None,
    schedules: Annotated[
        int | None,
        typer.Option(
            "--schedules",
            help=f"Of each scenario [default: {SCHEDULES_DEFAULT}; none with --seconds].",
        ),
    ] = None,
    seconds: Seconds = None,
    strategy: Strategy = "portfolio",
    seed: Seed = "0",
    jobs: Jobs = None,
    mode: Annotated[str, typer.Option("--mode", help="controlled or free.")] = "controlled",
    revision: Revision = "fixed",
    lock_log: LockLogFile = None,
    lock_log_stacks: LockLogStacks = False,
    predict: Annotated[
        int,
        typer.Option("--predict", help="Judge the first N of each for deadlocks not reached."),
    ] = 0,
    html: Html = None,
    faults: Faults = "",
    param: Params = None,
    depth: Depth = 3,
    preemptions: Preemptions = None,
    steps_max: Annotated[
        int | None,
        typer.Option("--steps-max", help="Step bound of a schedule [default: the scenario's]."),
    ] = None,
    early_timeouts: Annotated[
        bool, typer.Option("--early-timeouts", help="A timeout may fire at any step.")
    ] = False,
    keep_going: Annotated[
        bool, typer.Option("--keep-going", help="Go on after a scenario's first failure.")
    ] = False,
    corpus: Corpus = None,
    quiet: Quiet = False,
    json: Json = False,
) -> int:
    _check_mode(mode)
    if schedules is None and seconds is None:
        schedules = SCHEDULES_DEFAULT
    options = _options(
        seed=seed,
        jobs=jobs,
        strategy=strategy,
        schedules=schedules,
        seconds=seconds,
        depth=depth,
        preemptions=preemptions,
        steps_max=steps_max,
        early_timeouts=early_timeouts,
        keep_going=keep_going,
        mode=mode,
        predict=predict,
        stacks=lock_log_stacks,
    )
    return commands.run(
        scenarios or [],
        options,
        json=json,
        quiet=quiet,
        revision=revision,
        faults=faults,
        params=param or [],
        lock_log=lock_log,
        html=html,
        corpus=corpus,
    )


def _check_mode(mode: str) -> None:
    if mode not in ("controlled", "free"):
        raise catalogue.unknown("mode", mode, ["controlled", "free"])


@app.command(
    "replay", help=help_texts.REPLAY, short_help="Run one schedule again, recorded in full."
)
@logged
def _replay(
    ctx: typer.Context,
    what: Annotated[str, typer.Argument(metavar="TOKEN|SCENARIO|FILE")],
    seed: Seed = "0",
    schedule: Annotated[
        int | None, typer.Option("--schedule", help="Number of the schedule, from 1.")
    ] = None,
    strategy: Strategy = "portfolio",
    depth: Depth = 3,
    steps_max: Annotated[
        int | None, typer.Option("--steps-max", help="Step bound [default: the scenario's].")
    ] = None,
    early_timeouts: Annotated[
        bool, typer.Option("--early-timeouts", help="As the run had it.")
    ] = False,
    revision: Revision = "fixed",
    faults: Faults = "",
    param: Params = None,
    trace: Annotated[
        Path | None,
        typer.Option("--trace", help="Write the whole story (FILE.json), or its steps as lines."),
    ] = None,
    html: Html = None,
    perfetto: Annotated[
        Path | None, typer.Option("--perfetto", help="Write a trace for the Perfetto UI.")
    ] = None,
    named: Annotated[
        Path | None,
        typer.Option("--named", help="Write the failing schedule as named operations."),
    ] = None,
    lock_log: LockLogFile = None,
    lock_log_stacks: LockLogStacks = False,
    mutant_file: Catalogue = None,
    json: Json = False,
) -> int:
    pictures = Pictures(trace, html, perfetto, named, lock_log, lock_log_stacks)
    if _is_file(what):
        _refuse_with_token(ctx)
        return commands.replay_file(
            Path(what), json=json, pictures=pictures, mutant_file=mutant_file
        )
    if _is_token(what):
        _refuse_with_token(ctx)
        return commands.replay_token(what, json=json, pictures=pictures, mutant_file=mutant_file)
    entry = catalogue.find(what)
    if schedule is None:
        raise UsageError(
            f"which schedule of {entry.name}? Give --seed K --schedule I, or a token instead"
        )
    options = _options(
        seed=seed,
        jobs=1,
        strategy=strategy,
        depth=depth,
        steps_max=steps_max,
        early_timeouts=early_timeouts,
    )
    return commands.replay_schedule(
        what,
        schedule,
        options,
        json=json,
        revision=revision,
        faults=faults,
        params=param or [],
        pictures=pictures,
    )


def _is_token(text: str) -> bool:
    """Anything that is no name of a scenario and looks like a token, damaged ones included."""
    if text in catalogue.discover():
        return False
    return text.startswith("ll") or len(text) > _NAME_CHARS_MAX


def _is_file(text: str) -> bool:
    """A named schedule is given by its path; a token may be longer than any name of a file."""
    return text not in catalogue.discover() and is_file(Path(text))


def _refuse_with_token(ctx: typer.Context) -> None:
    """A token says all of this itself.

    Raises:
        UsageError: One of its parts was given beside it.
    """
    for name in (
        "seed",
        "schedule",
        "strategy",
        "depth",
        "steps_max",
        "early_timeouts",
        "revision",
        "faults",
        "param",
    ):
        if given(ctx, name):
            raise UsageError(
                f"--{name.replace('_', '-')} contradicts the token, which holds it; leave it out, "
                "or replay SCENARIO --seed K --schedule I"
            )


@app.command(
    "minimize", help=help_texts.MINIMIZE, short_help="Find an easier schedule of the same failure."
)
@logged
def _minimize(
    token: str,
    mutant_file: Catalogue = None,
    json: Json = False,
) -> int:
    from stress import shorter

    return shorter.minimize(token, json=json, mutant_file=mutant_file)


@app.command("verify", help=help_texts.VERIFY, short_help="Run every interleaving.")
@logged
def _verify(
    scenarios: Names = None,
    preemptions: Preemptions = None,
    revision: Revision = "fixed",
    schedules: Annotated[int | None, typer.Option(help="Of each scenario, at most.")] = None,
    seconds: Seconds = verifying.SECONDS_DEFAULT,
    seed: Seed = "0",
    jobs: Jobs = None,
    faults: Faults = "",
    param: Params = None,
    quiet: Quiet = False,
    json: Json = False,
) -> int:
    options = _options(
        seed=seed,
        jobs=jobs,
        strategy=verifying.STRATEGY,
        schedules=schedules,
        seconds=seconds,
        preemptions=preemptions,
    )
    return verifying.verify(
        scenarios or [],
        options,
        json=json,
        quiet=quiet,
        revision=revision,
        faults=faults,
        params=param or [],
    )


@app.command("mutants", help=help_texts.MUTANTS, short_help="Find every planted bug.")
@logged
def _mutants(
    ctx: typer.Context,
    only: Only = "",
    mutant_file: Catalogue = None,
    matrix: Annotated[
        bool, typer.Option("--matrix", help="Try every bug on every scenario, 100 schedules each.")
    ] = False,
    schedules: HuntSchedules = hunts.SCHEDULES_DEFAULT,
    strategy: Strategy = "portfolio",
    depth: Depth = 3,
    preemptions: Preemptions = None,
    seed: Seed = "0",
    jobs: Jobs = None,
    json: Json = False,
) -> int:
    options = _options(
        seed=seed,
        jobs=jobs,
        strategy=strategy,
        schedules=schedules,
        depth=depth,
        preemptions=preemptions,
    )
    if matrix and not given(ctx, "schedules"):
        options = replace(options, schedules=None)
    command = commands.mutant_matrix if matrix else commands.hunt_mutants
    return command(_ids(only), options, json=json, mutant_file=mutant_file)


@app.command(
    "defects", help=help_texts.DEFECTS, short_help="Rediscover the latent defects of the seed."
)
@logged
def _defects(
    only: Only = "",
    schedules: HuntSchedules = hunts.SCHEDULES_DEFAULT,
    strategy: Strategy = "portfolio",
    depth: Depth = 3,
    seed: Seed = "0",
    jobs: Jobs = None,
    json: Json = False,
) -> int:
    options = _options(seed=seed, jobs=jobs, strategy=strategy, schedules=schedules, depth=depth)
    return commands.hunt_defects(_ids(only), options, json=json)


def _ids(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


app.command("audit", help=help_texts.AUDIT, short_help="Judge the lock order of logs.")(
    audit_cli.audit
)

app.command("bisect", help=help_texts.BISECT, short_help="Name the commit that brought a race in.")(
    triage_cli.bisect
)

app.command("corpus", help=help_texts.CORPUS, short_help="Say which known races are fixed.")(
    triage_cli.corpus
)

app.add_typer(campaigns_cli.app, name="campaign")


@app.command("report", help=help_texts.REPORT, short_help="Make an HTML file of a run.")
@logged
def _report(
    run: Annotated[
        str, typer.Argument(metavar="[RUN]", help="A folder or name [default: the newest].")
    ] = "",
    html: Html = None,
    json: Json = False,
) -> int:
    return commands.report(run, html=html, json=json)


@app.command("bench", help=help_texts.BENCH, short_help="Measure the engine and the model.")
@logged
def _bench(
    seconds: Annotated[
        float, typer.Option("--seconds", help="About how long to measure, all together.")
    ] = 12.0,
    scenario: Annotated[
        str, typer.Option("--scenario", help="Of the model [default: the first that is clean].")
    ] = "",
    seed: Seed = "0",
    json: Json = False,
) -> int:
    from stress import bench

    return bench.run(parse_seed(seed), seconds=seconds, scenario=scenario, json=json)
