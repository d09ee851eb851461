"""The folder ``.stress/``: what a run leaves behind.

::

    .stress/.gitignore              ignores the whole folder
    .stress/latest                  link to the newest run
    .stress/runs/20261122T213507Z/  results.json, log.jsonl, locks.jsonl.gz, report.txt,
                                    report.html
"""

from __future__ import annotations

import contextlib
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from harness.errors import UsageError

ROOT: Final = Path(".stress")


def writable(path: Path, option: str) -> None:
    """See that a file can be written, before hours are spent on what goes into it.

    Raises:
        UsageError: It cannot; the message names ``option``.
    """
    try:
        with path.open("ab"):
            pass
    except OSError as error:
        raise UsageError(
            f"cannot write {option} {path}: {error.strerror}; "
            "name a file in a folder that you may write to"
        ) from None


def write_text(path: Path, text: str) -> None:
    """Write a whole file at once: a reader sees the old one or the new one.

    Raises:
        UsageError: It cannot be written.
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from None


def make_ignored(folder: Path, root: Path = ROOT) -> None:
    """Make a folder, and have git ignore all of ``root`` where it is that or below it.

    Raises:
        OSError: It cannot be made.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if folder.is_relative_to(root):
        (root / ".gitignore").write_text("*\n", encoding="utf-8")


class RunFolder:
    """One run's folder below ``.stress/runs``.

    Attributes:
        path: Relative to the working directory.
    """

    def __init__(self, root: Path = ROOT) -> None:
        """Make it, named by the time in UTC; a second one in the same second gets a number.

        Raises:
            UsageError: The working directory cannot be written to.
        """
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        try:
            make_ignored(root / "runs", root)
            self.path = _fresh(root / "runs", stamp)
            _link(root / "latest", Path("runs") / self.path.name)
        except OSError as error:
            raise UsageError(
                f"cannot write {root} here: {error.strerror}; "
                "run it in a folder that you may write to"
            ) from None

    def __truediv__(self, name: str) -> Path:
        """A file of the run."""
        return self.path / name


def _fresh(folder: Path, stamp: str) -> Path:
    number = 1
    while True:
        path = folder / (stamp if number == 1 else f"{stamp}-{number}")
        try:
            path.mkdir()
        except FileExistsError:
            number += 1
        else:
            return path


def _link(link: Path, target: Path) -> None:
    """Point ``link`` at ``target``, without a moment in which there is no link."""
    partial = link.with_name(f"{link.name}.{os.getpid()}")
    # A file system without links does without "latest".
    with contextlib.suppress(OSError, NotImplementedError):
        partial.symlink_to(target, target_is_directory=True)
        partial.replace(link)
