"""How the commands of triage are declared; the bodies stand beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.errors import UsageError
from harness.search.named import Named
from harness.trace.token import decode
from stress.cli_options import Json, SearchJobs, logged
from stress.given import is_file
from stress.runner import SCHEDULES_DEFAULT
from stress.triage.standing import Race


@logged
def bisect(
    race: Annotated[str, typer.Argument(metavar="TOKEN|FILE")],
    good: Annotated[str, typer.Option("--good", help="A revision without the race.")],
    bad: Annotated[str, typer.Option("--bad", help="A later one that has it.")] = "HEAD",
    schedules: Annotated[
        int, typer.Option("--schedules", help="To search where the schedule does not fit.")
    ] = SCHEDULES_DEFAULT,
    jobs: SearchJobs = 1,
    json: Json = False,
) -> int:
    """Name the commit that brought a race in."""
    from stress.triage import bisect as bisecting

    return bisecting.bisect(_race(race), good, bad, schedules=schedules, jobs=jobs, json=json)


def _race(text: str) -> Race:
    """From a token, or the file of a named schedule."""
    path = Path(text)
    if text.startswith("ll") or not is_file(path):
        decode(text)
        return Race(text)
    try:
        named = Named.read(path.read_bytes())
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
    decode(named.token)
    return Race(named.token, named)


@logged
def corpus(
    file: Annotated[Path, typer.Argument(metavar="FILE")],
    add: Annotated[
        str, typer.Option("--add", metavar="TOKEN", help="Enter a race that fails now.")
    ] = "",
    title: Annotated[str, typer.Option("--title", help="Of the race that is added.")] = "",
    since: Annotated[
        str, typer.Option("--since", help="Of the race that is added [default: today].")
    ] = "",
    search: Annotated[
        int,
        typer.Option("--search", help="Schedules to search where one no longer fits."),
    ] = 0,
    jobs: SearchJobs = 1,
    json: Json = False,
) -> int:
    """Say which known races are fixed."""
    from stress.triage import corpus as known

    if add:
        return known.add(file, add, title=title, since=since, json=json)
    if title or since:
        raise UsageError("--title and --since are of a race that is added: give --add TOKEN too")
    return known.replay(file, search=search, jobs=jobs, json=json)
