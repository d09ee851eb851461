"""What the program calls itself, says of itself, and offers to a shell."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from stress_cli import Cli, environment, run_stress

pytestmark = pytest.mark.once


@pytest.mark.parametrize(
    "command",
    ["", "list", "show", "run", "replay", "mutants", "defects", "audit", "report", "bench"],
)
def test_help_begins_with_examples_and_fits_a_terminal(
    call: Cli, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    ran = call(*command.split(), "--help")
    lines = [line.strip() for line in ran.out.splitlines() if line.strip()]

    assert ran.code == 0
    assert lines[0].startswith("Usage: python -m stress")
    assert lines[1].startswith("Example")
    assert lines[2].startswith("python -m stress")
    assert max(map(len, ran.out.splitlines())) <= 100


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("rep", ["replay", "report"]),
        ("run toy-c", ["toy-clean", "toy-canary"]),
        ("run --strategy po", ["portfolio", "pos"]),
    ],
)
def test_a_shell_completes_commands_scenarios_and_strategies(
    tmp_path: Path, typed: str, offered: list[str]
) -> None:
    """As bash asks the installed program; nothing is explored for it."""
    program = tmp_path / "lockloom"
    program.write_text("import sys\nfrom stress.cli import main\nsys.exit(main())\n")
    words = f"lockloom {typed}"
    asked = {
        "_LOCKLOOM_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split()) - 1),
    }

    ran = subprocess.run(
        [sys.executable, str(program)],
        capture_output=True,
        text=True,
        env=environment() | asked,
        check=False,
        timeout=60,
    )

    assert ran.stderr == ""
    assert set(offered) <= set(ran.stdout.split())
    assert all(word.startswith(typed.rsplit(maxsplit=1)[-1]) for word in ran.stdout.split())


def test_completion_is_offered_where_a_shell_can_use_it(call: Cli) -> None:
    assert "completion" not in call("--help").out


def called(name: str, *args: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run the program as one whose file has that name."""
    code = f"import sys; sys.argv[0] = '/bin/{name}'; from stress.cli import main; sys.exit(main())"
    return subprocess.run(
        [sys.executable, "-c", code, *args],
        capture_output=True,
        text=True,
        encoding="utf-8",
        env=environment() | more,
        check=False,
        timeout=100,
    )


def test_help_errors_and_commands_name_the_program_as_it_was_called() -> None:
    told = called("lockloom", "run", "--help").stdout
    wrong = called("lockloom", "verify").stderr

    assert told.startswith("Usage: lockloom run ")
    assert "  lockloom run --html report.html" in told
    assert "`lockloom list` shows them" in wrong
    for text in (told, wrong):
        assert "python -m stress" not in text
    told = called("x", "list", "--help", LOCKLOOM_COMMAND="tox -e stress --").stdout
    assert told.startswith("Usage: tox -e stress -- list ")


def test_a_terminal_that_cannot_show_an_arrow_gets_it_escaped(
    abba_token: str, tmp_path: Path
) -> None:
    told = run_stress(tmp_path, "replay", abba_token, PYTHONIOENCODING="ascii")

    assert (1, "") == (told.code, told.err)
    assert "\\u2717 deadlock" in told.out
