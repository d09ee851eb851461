"""How ``audit`` is declared; its body is in ``audit_command``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stress.cli_options import Json, logged


@logged
def audit(
    logs: Annotated[
        list[Path], typer.Argument(metavar="LOG...", help="Or dump, loop, suggest-order, and logs.")
    ],
    golden: Annotated[
        str, typer.Option("--golden", help="A table of edges to compare with; `model` for its own.")
    ] = "",
    complete: Annotated[
        bool, typer.Option("--complete", help="Inconclusive where a golden edge was not seen.")
    ] = False,
    fail_on: Annotated[
        str, typer.Option("--fail-on", help="The least tier of a finding that fails.")
    ] = "latent",
    mode_blind: Annotated[
        bool, typer.Option("--mode-blind", help="Judge readers like writers, as the kernel does.")
    ] = False,
    replay: Annotated[
        bool, typer.Option("--replay", help="Run what is predicted; what comes true is confirmed.")
    ] = False,
    order: Annotated[
        Path | None, typer.Option("--order", help="A declared order, TOML; see suggest-order.")
    ] = None,
    allow: Annotated[
        Path | None, typer.Option("--allow", help="What may be found for a while, TOML.")
    ] = None,
    baseline: Annotated[
        Path | None, typer.Option("--baseline", help="An earlier --json: what it has is known.")
    ] = None,
    max_cycle: Annotated[
        int, typer.Option("--max-cycle", help="Longest circle of threads that is predicted.")
    ] = 4,
    budget: Annotated[
        int, typer.Option("--budget", help="States searched for a candidate that is left open.")
    ] = 20_000,
    window: Annotated[
        int, typer.Option("--window", help="Events of a run that predictions look at together.")
    ] = 1_000_000,
    form: Annotated[
        str, typer.Option("--format", help="text, json, sarif, dot, html; chrome, fxt, std.")
    ] = "text",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write there instead of showing it.")
    ] = None,
    jobs: Annotated[
        int | None, typer.Option("--jobs", "-j", help="Processes that read logs.")
    ] = None,
    no_cache: Annotated[
        bool, typer.Option("--no-cache", help="Judge all logs anew, and remember nothing.")
    ] = False,
    follow: Annotated[
        bool, typer.Option("--follow", help="The log is being written; tell findings at once.")
    ] = False,
    json: Json = False,
) -> int:
    """Judge the lock order of logs."""
    from stress.audit_command import AuditOptions, answer

    options = AuditOptions(
        golden=golden,
        complete=complete,
        fail_on=fail_on,
        mode_blind=mode_blind,
        replay=replay,
        order=order,
        allow=allow,
        baseline=baseline,
        max_cycle=max_cycle,
        budget=budget,
        window=window,
        format="json" if json else form,
        output=output,
        jobs=jobs,
        cache=not no_cache,
        follow=follow,
    )
    return answer(logs, options)
