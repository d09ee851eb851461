"""Revisions of a git repository, each checked out where nobody works.

Git is asked without a shell and without hooks; what is not part of the program's own answer becomes
a ``UsageError``. The user's working tree, index and branches are never written to.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from harness.errors import UsageError
from stress.catalogue import FOLDERS_VARIABLE
from stress.pool import interrupt_held_back
from stress.triage.standing import Place

# A hook of git sets them for its children; they would name another repository than the folder does.
_MISLEADING: Final = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX")


@dataclass(frozen=True, slots=True)
class Repository:
    """A git repository.

    Attributes:
        top: Of the user's working tree.
    """

    top: Path

    @classmethod
    def around(cls, folder: Path) -> Self:
        """The one that ``folder`` is in.

        Raises:
            UsageError: There is none, or no git.
        """
        return cls(Path(_git(folder, "rev-parse", "--show-toplevel")).resolve())

    def commit(self, revision: str, option: str) -> str:
        """The full name of a commit.

        Raises:
            UsageError: There is none; the message names ``option``.
        """
        wanted = f"{revision}^{{commit}}"
        try:
            return self._git("rev-parse", "--verify", "--quiet", "--end-of-options", wanted)
        except UsageError:
            raise UsageError(f"{option} {revision!r} is no commit of {self.top}") from None

    def is_ancestor(self, old: str, new: str) -> bool:
        """Whether ``new`` is made from ``old``."""
        return self._git("merge-base", old, new, missing="") == old

    def suspects(self, good: Sequence[str], bad: str) -> list[str]:
        """Commits that may be the first bad one, the one that halves them best first.

        ``bad`` itself is among them; it is alone where it is known to be the first.
        """
        excluded = [f"^{commit}" for commit in good]
        lines = self._git("rev-list", "--bisect-all", bad, *excluded).splitlines()
        return [line.split()[0] for line in lines]

    def subject(self, commit: str) -> str:
        """The first line of its message."""
        return self._git("show", "--no-patch", "--format=%s", commit)

    @contextmanager
    def checked_out(self, commit: str, folder: Path) -> Iterator[Path]:
        """A working tree of its own with ``commit``, taken away at the end.

        Ctrl-C or a kill waits until git is done: it would leave half of a working tree.
        """
        tree = folder / commit
        made = False
        try:
            with interrupt_held_back(signal.SIGTERM):
                self._git("worktree", "add", "--quiet", "--detach", str(tree), commit)
                made = True
            yield tree
        finally:
            if made:
                with interrupt_held_back(signal.SIGTERM):
                    self._git("worktree", "remove", "--force", "--force", str(tree))

    def place(self, tree: Path) -> Place:
        """Where the user stands, in ``tree`` instead of the user's working tree.

        All paths into the working tree that the commands may read from lead into ``tree``.

        Raises:
            UsageError: The folder does not exist there.
        """

        def moved(path: str | Path) -> Path:
            whole = Path(path).resolve()
            inside = whole.is_relative_to(self.top)
            return tree / whole.relative_to(self.top) if inside else whole

        def all_moved(paths: Sequence[str]) -> str:
            return os.pathsep.join(str(moved(path)) for path in paths if path)

        folder = moved(Path.cwd())
        if not folder.is_dir():
            raise UsageError(f"there is no folder {folder.relative_to(tree)} yet")
        environment = _environment()
        scenarios = environment.get(FOLDERS_VARIABLE, "").split(os.pathsep)
        inside = [path for path in sys.path if path and moved(path) != Path(path).resolve()]
        given = environment.get("PYTHONPATH", "").split(os.pathsep)
        environment[FOLDERS_VARIABLE] = all_moved(scenarios)
        environment["PYTHONPATH"] = all_moved([*given, *inside])
        return Place(folder, environment)

    def _git(self, *args: str, missing: str | None = None) -> str:
        return _git(self.top, *args, missing=missing)


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in _MISLEADING}


def _git(folder: Path, *args: str, missing: str | None = None) -> str:
    """What git answers; ``missing`` where its exit code is 1, which means no such thing."""
    program = shutil.which("git")
    if program is None:
        raise UsageError("git is not on the path; install it")
    command = [program, "-c", f"core.hooksPath={os.devnull}", *args]
    ended = subprocess.run(
        command,
        cwd=folder,
        env=_environment() | {"LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    if ended.returncode == 1 and missing is not None:
        return missing
    if ended.returncode:
        said = " ".join(ended.stderr.decode(errors="replace").split())
        raise UsageError(f"git {args[0]}: {said or f'exit code {ended.returncode}'}")
    return ended.stdout.decode(errors="replace").strip()
