"""How the commands below ``campaign`` are declared; their bodies are in ``commands``."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Annotated, Final, TypeAlias

import typer

from harness.errors import UsageError
from stress import help_texts
from stress.cli_options import Html, Jobs, Json, Quiet, given, logged

app = typer.Typer(
    name="campaign",
    help=help_texts.CAMPAIGN,
    short_help="Explore in numbered parts, kept in a store.",
    rich_markup_mode=None,
    no_args_is_help=False,
)

Where: TypeAlias = Annotated[
    str, typer.Option("--store", help="A file, or a database URL [default: below .stress/].")
]
Name: TypeAlias = Annotated[
    str, typer.Argument(metavar="[NAME]", help="Of a campaign [default: the newest].")
]
Cluster: TypeAlias = Annotated[
    str, typer.Option("--cluster", help="Address of a Dask scheduler, or `local` to start one.")
]
Memory: TypeAlias = Annotated[
    int | None, typer.Option("--memory", help="MB that a worker process may take, at most.")
]
_EXTRA: Final = "campaigns keep what they find in a database: pip install 'lockloom[campaign]'"


def _commands() -> ModuleType:
    """The bodies, which need SQLAlchemy."""
    try:
        from stress.campaigns import commands
    except ImportError as error:
        if error.name != "sqlalchemy":
            raise
        raise UsageError(_EXTRA) from None
    return commands


@app.command("run", help=help_texts.CAMPAIGN_RUN, short_help="Begin a campaign.")
@logged
def _run(
    ctx: typer.Context,
    what: Annotated[
        list[str] | None,
        typer.Argument(metavar="[PLAN.toml | SCENARIO...]", help="A plan, or names and patterns."),
    ] = None,
    strategies: Annotated[str, typer.Option("--strategies", help="Joined by commas.")] = "",
    seeds: Annotated[str, typer.Option("--seeds", help="A number or a range, 0-99.")] = "",
    schedules: Annotated[
        int | None, typer.Option("--schedules", help="Of each part: a scenario with one seed.")
    ] = None,
    faults: Annotated[
        list[str] | None, typer.Option("--faults", help="Injected; give it several times.")
    ] = None,
    revision: Annotated[str, typer.Option("--revision", help="fixed or seed.")] = "fixed",
    seconds: Annotated[
        float | None, typer.Option("--seconds", help="Time for all sessions together.")
    ] = None,
    schedules_max: Annotated[
        int | None, typer.Option("--schedules-max", help="Of all parts together.")
    ] = None,
    name: Annotated[str, typer.Option("--name", help="Of the campaign [default: the time].")] = "",
    store: Where = "",
    jobs: Jobs = None,
    cluster: Cluster = "",
    memory: Memory = None,
    quiet: Quiet = False,
    json: Json = False,
) -> int:
    named = what or []
    options = {
        "strategies": [one.strip() for one in strategies.split(",") if one.strip()],
        "seeds": seeds,
        "schedules": schedules,
        "faults": faults or [],
        "revision": revision,
        "seconds": seconds,
        "schedules_max": schedules_max,
    }
    if any(one.endswith(".toml") for one in named):
        if len(named) > 1:
            raise UsageError("a plan says which scenarios run; give the plan alone")
        for option in options:
            if given(ctx, option):
                raise UsageError(
                    f"--{option.replace('_', '-')} contradicts the plan, which says it; write it "
                    f"into {named[0]}, or give names of scenarios instead of a plan"
                )
        options = {}
    code: int = _commands().run(
        named, options, name, store, jobs, cluster, memory=memory, quiet=quiet, json=json
    )
    return code


@app.command("resume", help=help_texts.CAMPAIGN_RESUME, short_help="Go on with a campaign.")
@logged
def _resume(
    name: Name = "",
    seconds: Annotated[
        float | None, typer.Option("--seconds", help="Time for this session [default: the plan's].")
    ] = None,
    store: Where = "",
    jobs: Jobs = None,
    cluster: Cluster = "",
    memory: Memory = None,
    quiet: Quiet = False,
    json: Json = False,
) -> int:
    code: int = _commands().resume(
        name, store, jobs, cluster, seconds=seconds, memory=memory, quiet=quiet, json=json
    )
    return code


@app.command("report", help=help_texts.CAMPAIGN_REPORT, short_help="Show what a campaign found.")
@logged
def _report(
    name: Name = "",
    store: Where = "",
    html: Html = None,
    json: Json = False,
) -> int:
    code: int = _commands().report(name, store, html=html, json=json)
    return code


@app.command("list", help=help_texts.CAMPAIGN_LIST, short_help="List the campaigns of a store.")
@logged
def _list(store: Where = "", json: Json = False) -> int:
    code: int = _commands().list_campaigns(store, json=json)
    return code


@app.command("diff", help=help_texts.CAMPAIGN_DIFF, short_help="Compare two campaigns.")
@logged
def _diff(
    old: str,
    new: str,
    store: Where = "",
    json: Json = False,
) -> int:
    code: int = _commands().diff(old, new, store, json=json)
    return code


@app.command("check", help=help_texts.CAMPAIGN_CHECK, short_help="Run parts again and compare.")
@logged
def _check(
    name: Name = "",
    parts: Annotated[
        str, typer.Option("--parts", help="Numbers or ranges, 3,7-9 [default: the first three].")
    ] = "",
    store: Where = "",
    json: Json = False,
) -> int:
    code: int = _commands().check(name, store, parts, json=json)
    return code


@app.command("export", help=help_texts.CAMPAIGN_EXPORT, short_help="Write tables as files.")
@logged
def _export(
    name: Name = "",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A folder [default: the campaign's name].")
    ] = None,
    form: Annotated[str, typer.Option("--format", help="csv or parquet.")] = "csv",
    store: Where = "",
    json: Json = False,
) -> int:
    code: int = _commands().export(name, store, output, form, json=json)
    return code
