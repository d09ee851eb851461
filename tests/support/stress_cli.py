"""Runs ``python -m stress`` in a process of its own, on the toy scenarios."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import stress

TOYS = Path(__file__).parents[1] / "stress" / "toys"
# Where the packages are: the checkout or the installed wheel.
PACKAGES = str(Path(stress.__file__).parent.parent)


@dataclass(frozen=True)
class Ran:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def error(self) -> str:
        """The one line on standard error."""
        lines = self.err.splitlines()
        assert len(lines) == 1, self.err
        return lines[0]


Cli = Callable[..., Ran]


def environment(
    *, scenarios: Path | None = TOYS, path: Path | None = None, **more: str
) -> dict[str, str]:
    """Of a command; no ``scenarios`` leaves the shipped ones alone."""
    places = [PACKAGES] if path is None else [PACKAGES, str(path)]
    kept = {key: value for key, value in os.environ.items() if not key.startswith("COV_")}
    return kept | {
        "LOCKLOOM_SCENARIOS": "" if scenarios is None else str(scenarios),
        "PYTHONPATH": os.pathsep.join(places),
        "PYTHONIOENCODING": "utf-8",
        **more,
    }


def run_stress(
    cwd: Path, *args: object, scenarios: Path | None = TOYS, path: Path | None = None, **more: str
) -> Ran:
    """Run a command line in ``cwd`` and wait for its end."""
    ended = subprocess.run(
        [sys.executable, "-m", "stress", *map(str, args)],
        capture_output=True,
        text=True,
        encoding="utf-8",
        cwd=cwd,
        env=environment(scenarios=scenarios, path=path, **more),
        timeout=250,
        check=False,
    )
    return Ran(ended.returncode, ended.stdout, ended.stderr)
