"""Every command and every piece of code in README and docs is run, or says why it is not.

Above a block may stand, as a comment that readers do not see:

* ``<!-- not run: the reason -->``;
* ``<!-- file: name.py -->``: readers put the block into that file.

A page's Python blocks are one program, from the top; its commands run one after the other in one
folder, where ``TOKEN`` is that of a failing canary. A command ends with the exit code that it must
have, where that is not 0: ``# exit code 1``.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from stress_cli import environment, run_stress

pytestmark = pytest.mark.once

ROOT = Path(__file__).parents[2]
PAGES = [
    path
    for path in [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        *sorted((ROOT / "docs").rglob("*.md")),
    ]
    # Made when the documentation is built, from what the program says.
    if path.name != "commands.md"
]
BLOCK = re.compile(
    r"(?:<!-- (?P<mark>[^\n]*?) -->\n)?```(?P<language>\S*)\n(?P<text>.*?)```", re.DOTALL
)
# Languages that nobody runs.
SHOWN = frozenset({"text", "toml", "{toctree}"})
TOX = "python -m tox -e stress -- "
EXIT = re.compile(r"  # exit code (?P<codes>\d+(?: or \d+)*)$")


@dataclass(frozen=True)
class Block:
    """A fenced block."""

    language: str
    text: str
    mark: str

    @property
    def file(self) -> str:
        """Where readers put it."""
        return self.mark.removeprefix("file: ") if self.mark.startswith("file: ") else ""

    @property
    def reason(self) -> str:
        """Why it is not run."""
        return self.mark.removeprefix("not run: ") if self.mark.startswith("not run: ") else ""

    @property
    def runs(self) -> bool:
        return not (self.reason or self.file)


def blocks(page: Path) -> list[Block]:
    found = BLOCK.finditer(page.read_text(encoding="utf-8"))
    return [Block(match["language"], match["text"], match["mark"] or "") for match in found]


def commands(page: Path) -> list[str]:
    """Lines of the page's shell blocks that are run."""
    texts = [block.text for block in blocks(page) if block.language == "sh" and block.runs]
    return [line for text in texts for line in text.splitlines() if line.strip()]


def shown(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def with_files(page: Path, folder: Path) -> None:
    """Put the page's files where its reader would."""
    for block in blocks(page):
        if block.file:
            path = folder / block.file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text, encoding="utf-8")


@pytest.fixture(scope="session")
def token(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Of a failure that any command can be tried on."""
    folder = tmp_path_factory.mktemp("token")
    ran = run_stress(folder, "run", "canary", "--schedules", "50", "--json", scenarios=None)
    found: str = ran.json["scenarios"][0]["failures"][0]["token"]
    return found


@pytest.mark.parametrize("page", PAGES, ids=shown)
def test_every_block_is_run_or_says_why_not(page: Path) -> None:
    for block in blocks(page):
        assert block.language in {"python", "sh"} | SHOWN, block
        assert not block.mark or block.reason or block.file, block.mark
        if block.reason:
            assert len(block.reason) > 10
    assert page.read_text(encoding="utf-8").count("```") == 2 * len(blocks(page))


@pytest.mark.parametrize(
    "page",
    # The README's code is run in tests/examples, with what it must print.
    [p for p in PAGES[1:] if any(b.language == "python" and b.runs for b in blocks(p))],
    ids=shown,
)
def test_the_code_of_a_page_runs_as_pasted(page: Path, tmp_path: Path) -> None:
    with_files(page, tmp_path)
    code = [block.text for block in blocks(page) if block.language == "python" and block.runs]
    script = tmp_path / "pasted.py"
    script.write_text("\n\n".join(code), encoding="utf-8")

    ran = subprocess.run(
        [sys.executable, str(script)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment(scenarios=None, path=tmp_path),
        check=False,
        timeout=100,
    )

    assert ran.stderr == ""
    assert ran.returncode == 0


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)], ids=shown)
def test_the_commands_of_a_page_do_what_it_says(page: Path, tmp_path: Path, token: str) -> None:
    with_files(page, tmp_path)
    for line in commands(page):
        match = EXIT.search(line)
        codes = [0] if match is None else [int(code) for code in match["codes"].split(" or ")]
        code, said = run(EXIT.sub("", line).replace("TOKEN", token), tmp_path)
        assert code in codes, f"{line}\n{said}"


def run(line: str, folder: Path) -> tuple[int, str]:
    """Run a command line as a reader's shell would; ``python`` is this one."""
    words = shlex.split(line.replace(TOX, "python -m stress "), comments=True)
    variables: dict[str, str] = {}
    while "=" in words[0]:
        name, _, value = words.pop(0).partition("=")
        variables[name] = value
    assert words[0] == "python", f"{line}: only python is run here; say why this is not"
    ran = subprocess.run(
        [sys.executable, *words[1:]],
        capture_output=True,
        text=True,
        cwd=folder,
        env=environment(scenarios=None) | variables,
        check=False,
        timeout=200,
    )
    return ran.returncode, ran.stdout + ran.stderr
