"""What the pages show of the program's output is what it says today."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from stress.cli import main
from stress.runner import Options
from stress.verify import STRATEGY, verify

pytestmark = pytest.mark.once

ROOT = Path(__file__).parents[2]


def loose(text: str) -> list[str]:
    """Lines without line numbers of sources, which any edit moves, nor the columns they make."""
    return [" ".join(re.sub(r"(?<=\.py):\d+", "", line).split()) for line in text.splitlines()]


def test_the_finding_of_the_readme_is_what_its_token_replays(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Where it is not: ``defects --only L3``, then ``replay TOKEN`` writes the block anew."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```text\n(close-lender-fault: .*?)```", text, re.DOTALL)
    picture, _, command = block.partition("replay it:\n")
    token = "".join(command.split("replay", 1)[1].replace("\\", "").split())
    code = main(["replay", token])

    assert code == 1
    assert loose(capsys.readouterr().out.partition("replay it:\n")[0]) == loose(picture)


def test_the_table_of_exhausted_searches_is_of_today(capsys: pytest.CaptureFixture[str]) -> None:
    """The shortest rows stand for all: ``benchmarks/exhausted.py`` makes the table."""
    page = (ROOT / "docs" / "explanation" / "search.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| ([a-z-]+) \| (\d+) \|", page, re.MULTILINE))
    names = ["fault-decommit", "close-request", "close-lender-fault"]
    code = verify(names, Options(strategy=STRATEGY, seconds=90.0, jobs=1), json=True, quiet=True)
    found = json.loads(capsys.readouterr().out)["scenarios"]

    assert code == 0
    assert {one["name"]: str(one["schedules"]) for one in found} == {n: rows[n] for n in names}
