"""Paths that cannot be: one short line and exit code 2, whatever command they are given to."""

from __future__ import annotations

from pathlib import Path

import pytest
from locklogs import write
from stress_cli import Cli

PATHS = {
    "long": "x" * 300,
    "longer than any": "/".join(["y" * 200] * 30),
    "with NUL": "a\0b",
    "below a file": "good.jsonl/inside",
    "a folder": "folder",
}
REPLAY = "replay toy-clean --schedule 1"
# The place of the path is marked by @.
COMMANDS = (
    *("audit @", "audit @ --follow", "audit good.jsonl @", "audit dump @", "audit suggest-order @"),
    *("audit @ --format chrome", "audit good.jsonl --format std -o @", "audit good.jsonl -o @"),
    *("audit good.jsonl --golden @", "audit good.jsonl --order @", "audit good.jsonl --allow @"),
    "audit good.jsonl --baseline @",
    *("run toy-clean --lock-log @", "run toy-clean --log-file @"),
    *(f"{REPLAY} --{name} @" for name in ("trace", "html", "perfetto", "lock-log", "named")),
    *("replay @", "show @", "minimize @", "bisect @", "corpus @", "report @", "report --html @"),
    *("mutants --catalogue @", "campaign list --store @"),
)


@pytest.mark.once
@pytest.mark.parametrize("command", COMMANDS)
def test_a_path_that_cannot_be_is_one_line(call: Cli, tmp_path: Path, command: str) -> None:
    (tmp_path / "folder").mkdir()
    write(tmp_path / "good.jsonl", "T1: +a1 -a1")
    for name, path in PATHS.items():
        if (command, name) == ("corpus @", "a folder"):
            continue  # races may be files of one
        ran = call(*(path if word == "@" else word for word in command.split()))
        assert ran.code == 2, (name, ran.err)
        assert ran.out == "", name
        assert len(ran.error) < 1000, name
