"""Options that several commands share: each is declared here, once.

``logged`` gives a command the two that every command has and that its body need not know.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import typer

from harness.strategies import names as strategy_names
from stress import catalogue, logging_setup

# -- answers -------------------------------------------------------------------------------------

Json: TypeAlias = Annotated[
    bool, typer.Option("--json", help="One JSON document on standard output, nothing else there.")
]
Quiet: TypeAlias = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]
Html: TypeAlias = Annotated[
    Path | None, typer.Option("--html", help="Write the report as one HTML file.")
]
LockLogFile: TypeAlias = Annotated[
    Path | None, typer.Option("--lock-log", help="Write a lock log; .gz or .zst compresses it.")
]
LockLogStacks: TypeAlias = Annotated[
    bool, typer.Option("--lock-log-stacks", help="The log has whole stacks; it is larger.")
]
LogFile: TypeAlias = Annotated[
    Path | None, typer.Option("--log-file", help="Also log to this file, as JSON lines.")
]
Corpus: TypeAlias = Annotated[
    Path | None,
    typer.Option("--corpus", help="Known races, a file or a folder: replayed first."),
]
Debug: TypeAlias = Annotated[bool, typer.Option("--debug", help="Show tracebacks of our errors.")]

# -- what runs -----------------------------------------------------------------------------------

Names: TypeAlias = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[SCENARIO]...",
        help="Names, or patterns such as 'commit*'.",
        autocompletion=lambda incomplete: [
            name for name in catalogue.discover() if name.startswith(incomplete)
        ],
    ),
]
Revision: TypeAlias = Annotated[
    str, typer.Option("--revision", help="Of the kernel: fixed, or seed with its latent defects.")
]
Faults: TypeAlias = Annotated[
    str, typer.Option("--faults", help="Injected faults: no_memory@2, alloc@1-3, none, ...")
]
Params: TypeAlias = Annotated[
    list[str] | None, typer.Option("--param", help="A scenario's own parameter, NAME=VALUE.")
]
Only: TypeAlias = Annotated[str, typer.Option("--only", help="Ids, joined by commas.")]
Catalogue: TypeAlias = Annotated[
    Path | None, typer.Option("--catalogue", help="A file with mutants [default: the model's own].")
]

# -- in which schedules --------------------------------------------------------------------------

Seed: TypeAlias = Annotated[
    str, typer.Option("--seed", help="Decimal or 0x...; `auto` draws one. It decides everything.")
]
Strategy: TypeAlias = Annotated[
    str,
    typer.Option(
        "--strategy",
        help=f"One of {', '.join(strategy_names())}.",
        autocompletion=lambda incomplete: [
            name for name in strategy_names() if name.startswith(incomplete)
        ],
    ),
]
Depth: TypeAlias = Annotated[int, typer.Option("--depth", help="Ordering constraints pct aims at.")]
Preemptions: TypeAlias = Annotated[
    int | None, typer.Option("--preemptions", help="Bound of an exhaustive search.")
]

# -- how many, and on what -----------------------------------------------------------------------

Seconds: TypeAlias = Annotated[
    float | None, typer.Option("--seconds", help="Time for all scenarios together.")
]
HuntSchedules: TypeAlias = Annotated[
    int, typer.Option("--schedules", help="Of each hunt, at most.")
]
Jobs: TypeAlias = Annotated[
    int | None, typer.Option("--jobs", "-j", help="Worker processes [default: one per core].")
]
SearchJobs: TypeAlias = Annotated[
    int, typer.Option("--jobs", "-j", help="Worker processes of such a search.")
]


def given(ctx: typer.Context, name: str) -> bool:
    """Whether a person wrote that option, its default included."""
    return getattr(ctx.get_parameter_source(name), "name", "") == "COMMANDLINE"


def _of_every_command(log_file: LogFile = None, debug: Debug = False) -> None:
    """For its signature alone."""


def logged(command: Callable[..., int]) -> Callable[..., int]:
    """Give ``command`` the options ``--log-file`` and ``--debug``, and log as they say.

    Where it has ``--quiet``, that decides too. ``--debug`` is for ``cli.main``, which looks for it
    before any command is read.
    """

    @functools.wraps(command)
    def run(*, log_file: Path | None, debug: bool, **options: Any) -> int:
        del debug
        logging_setup.configure(quiet=options.get("quiet", False), log_file=log_file)
        return command(**options)

    parameters = [
        parameter
        for function in (command, _of_every_command)
        for parameter in inspect.signature(function, eval_str=True).parameters.values()
    ]
    # What typer reads; of the command itself it would see no more than those that it declares.
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return run
