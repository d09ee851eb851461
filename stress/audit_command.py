"""The body of ``audit``: which files, which policy, which form of the answer."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from loguru import logger

from harness.errors import UsageError
from harness.lockorder.findings import Finding
from harness.predict.judge import BUDGET, SIZE_MAX
from harness.trace import logexport
from harness.trace.logjudge import WINDOW
from stress import audit_export, audit_html, console, documents
from stress.audit import audit_paths, converted, read_golden, to_json
from stress.audit_cache import FOLDER
from stress.audit_policy import read_policy, suggest_order
from stress.audit_report import AuditReport, render_text
from stress.exit_codes import ExitCode, of_verdict
from stress.given import is_file, is_folder, reason, short

_FORMATS: Final[dict[str, Callable[[AuditReport], str]]] = {
    "text": render_text,
    "json": lambda report: documents.encode(to_json(report)),
    "sarif": audit_export.sarif,
    "dot": audit_export.dot,
    "html": audit_html.page,
}
# Bytes of logs from which on more processes gain more than they take to start.
_WORTH_IT: Final = 32 << 20
# These show what happened rather than what was found.
_PICTURES: Final[dict[str, Callable[[IO[bytes]], bytes]]] = {
    "chrome": logexport.chrome,
    "fxt": logexport.fxt,
    "std": logexport.std,
}
# Words in place of the first log; a file of that name is a log all the same.
_ASKED: Final[dict[str, Callable[[AuditReport], str]]] = {
    "dump": audit_export.dump,
    "loop": audit_export.loop,
    "suggest-order": suggest_order,
}


@dataclass(frozen=True)
class AuditOptions:
    """What the command line says beside the logs; see ``--help``."""

    golden: str = ""
    complete: bool = False
    fail_on: str = "latent"
    mode_blind: bool = False
    replay: bool = False
    order: Path | None = None
    allow: Path | None = None
    baseline: Path | None = None
    max_cycle: int = SIZE_MAX
    budget: int = BUDGET
    window: int = WINDOW
    format: str = "text"
    output: Path | None = None
    jobs: int | None = None
    cache: bool = True
    follow: bool = False

    def check(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            UsageError: Says what.
        """
        known = (*_FORMATS, *_PICTURES)
        if self.format not in known:
            raise UsageError(f"--format {self.format} is unknown; one of {', '.join(known)}")
        if self.max_cycle < 2:
            raise UsageError(f"--max-cycle must be at least 2, got {self.max_cycle}")
        if self.jobs is not None and self.jobs < 1:
            raise UsageError(f"--jobs must be at least 1, got {self.jobs}")
        if self.budget < 0:
            raise UsageError(f"--budget must be 0 or more, got {self.budget}")
        if self.window < 2:
            raise UsageError(f"--window must be at least 2 events, got {self.window}")


def answer(words: Sequence[Path], options: AuditOptions) -> ExitCode:
    """``audit LOG...``, and ``audit dump|loop|suggest-order LOG...``."""
    options.check()
    paths, asked = list(words), None
    if paths and str(paths[0]) in _ASKED and not paths[0].exists():
        asked = _ASKED[str(paths.pop(0))]
    if options.format in _PICTURES and asked is None:
        return _picture(paths, options)
    report = audit_paths(
        paths,
        fail_on=options.fail_on,
        mode_blind=options.mode_blind,
        golden=_golden(options.golden),
        complete=options.complete,
        replay=options.replay,
        policy=read_policy(options.order, options.allow, options.baseline),
        size_max=options.max_cycle,
        budget=options.budget,
        window=options.window,
        jobs=options.jobs or _processes(paths),
        cache=FOLDER if options.cache else None,
        follow=_tell if options.follow else None,
    )
    text = (asked or _FORMATS[options.format])(report)
    if options.output is not None:
        _write(options.output, (text if text.endswith("\n") else text + "\n").encode())
    elif asked is None and options.format == "text":
        console.show(text)
    else:
        sys.stdout.write(text if text.endswith("\n") else text + "\n")
    return ExitCode.PASS if asked is not None else of_verdict(report.verdict)


def _tell(finding: Finding) -> None:
    logger.info("{} {}: {}", finding.rule, finding.tier, finding.message)


def _processes(paths: Sequence[Path]) -> int:
    """Count the cores, where there is enough to read for more than one process."""
    size = sum(path.stat().st_size for path in paths if is_file(path))
    several = len(paths) > 1 or any(map(is_folder, paths))
    return (os.cpu_count() or 1) if several and size > _WORTH_IT else 1


def _picture(paths: Sequence[Path], options: AuditOptions) -> ExitCode:
    """Convert one log; nothing is judged."""
    if len(paths) != 1 or is_folder(paths[0]):
        raise UsageError(f"--format {options.format} takes one lock log")
    data = converted(paths[0], _PICTURES[options.format])
    if options.output is None:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    else:
        _write(options.output, data)
    return ExitCode.PASS


def _golden(name: str) -> list[tuple[str, str]] | None:
    if name == "model":
        from model.locks import GOLDEN_EDGES

        return list(GOLDEN_EDGES)
    return read_golden(Path(name)) if name else None


def _write(path: Path, data: bytes) -> None:
    try:
        path.write_bytes(data)
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot write --output {short(path)}: {reason(error)}") from error
