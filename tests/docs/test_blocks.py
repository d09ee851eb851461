"""Every command and every piece of code in README and docs is run, or says why it is not.

Above a block may stand, as a comment that readers do not see:

* ``<!-- not run: the reason -->``;
* ``<!-- file: name.py -->``: readers put the block into that file.

A page's Python blocks are one program, from the top, with its files in place as the page leaves
them. Its files and commands come one after the other in one folder, as a reader comes to them;
``TOKEN`` is what the last failing test printed, else that of a failing canary. A command ends with
the exit code that it must have, where that is not 0: ``# exit code 1``.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from stress_cli import environment, run_stress

pytestmark = [pytest.mark.once, pytest.mark.slow]

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
SHOWN = frozenset({"text", "toml", "yaml", "{toctree}", "{eval-rst}"})
TOX = "python -m tox -e stress -- "
TUTORIAL = ROOT / "docs" / "tutorial.md"
TOKEN = re.compile(r"^(?:E +)?token: (ll1-\S+)$", re.MULTILINE)
# Loads the plugin where it is not installed; twice is an error.
PLUGIN = (
    []
    if any(point.name == "lockloom" for point in entry_points(group="pytest11"))
    else ["-p", "harness.pytest_plugin"]
)
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


def has_commands(page: Path) -> bool:
    return any(block.language == "sh" and block.runs for block in blocks(page))


def shown(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def put(block: Block, folder: Path) -> None:
    """Put a file where the page's reader would."""
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
    for block in blocks(page):
        if block.file:
            put(block, tmp_path)
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


@pytest.mark.parametrize(
    "page", [page for page in PAGES if has_commands(page) and page != TUTORIAL], ids=shown
)
def test_the_commands_of_a_page_do_what_it_says(page: Path, tmp_path: Path, token: str) -> None:
    follow(page, tmp_path, token)


def test_a_new_user_has_found_replayed_and_mended_a_race_of_his_own_within_minutes(
    tmp_path: Path,
) -> None:
    began = time.monotonic()
    found, again, mended = follow(TUTORIAL, tmp_path, "none yet")
    seconds = time.monotonic() - began

    [story] = [block.text for block in blocks(TUTORIAL) if block.language == "text"]
    assert story in found
    assert story in again
    assert TOKEN.findall(found) == TOKEN.findall(again) != []
    assert "1 passed" in mended
    # Of a reader's five minutes the machine may take two, however busy it is.
    assert seconds < 120


def follow(page: Path, folder: Path, token: str) -> list[str]:
    """Do what a page says, from the top; what each command printed."""
    outputs = []
    for block in blocks(page):
        if block.file:
            put(block, folder)
        if block.language != "sh" or not block.runs:
            continue
        for line in filter(str.strip, block.text.splitlines()):
            match = EXIT.search(line)
            codes = [0] if match is None else [int(code) for code in match["codes"].split(" or ")]
            code, said = run(EXIT.sub("", line).replace("TOKEN", token), folder)
            assert code in codes, f"{line}\n{said}"
            token = next(iter(TOKEN.findall(said)), token)
            outputs.append(said)
    return outputs


def run(line: str, folder: Path) -> tuple[int, str]:
    """Run a command line as a reader's shell would; ``python`` is this one."""
    words = shlex.split(line.replace(TOX, "python -m stress "), comments=True)
    variables: dict[str, str] = {}
    while "=" in words[0]:
        name, _, value = words.pop(0).partition("=")
        variables[name] = value
    assert words[0] == "python", f"{line}: only python is run here; say why this is not"
    if words[1:3] == ["-m", "pytest"]:
        words[3:3] = ["-p", "no:cacheprovider", *PLUGIN]
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
