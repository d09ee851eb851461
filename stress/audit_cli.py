"""The declaration of ``audit`` on the command line, and the options that every command has."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from stress import logging_setup

Json: TypeAlias = Annotated[
    bool, typer.Option("--json", help="One JSON document on standard output, nothing else there.")
]
Debug: TypeAlias = Annotated[bool, typer.Option("--debug", help="Show tracebacks of our errors.")]
LogFile: TypeAlias = Annotated[
    Path | None, typer.Option("--log-file", help="Also log to this file, as JSON lines.")
]
LockLogFile: TypeAlias = Annotated[
    Path | None, typer.Option("--lock-log", help="Write a lock log; .gz or .zst compresses it.")
]
LockLogStacks: TypeAlias = Annotated[
    bool, typer.Option("--lock-log-stacks", help="The log has whole stacks; it is larger.")
]


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
    log_file: LogFile = None,
    debug: Debug = False,
) -> int:
    """Judge the lock order of logs."""
    del debug
    logging_setup.configure(log_file=log_file)
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
