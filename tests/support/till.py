"""One small scenario in several versions: what an edit does to a known race."""

from __future__ import annotations

from pathlib import Path

import pytest
from stress_cli import PACKAGES, Cli, Ran, run_stress

from stress.cli import main

HEAD = """
from harness import Mutex, Shared, parallel
from stress.catalogue import scenario

@scenario("till", summary="two sales from one till", tags=("till",))
def till(ctx):
    lock, cell = Mutex("till"), Shared(0, "cash")
"""
CAREFUL = """
    def sell():
        with lock:
            cell.set(cell.get() + 1)
"""
RACY = """
    def sell():
        with lock:
            cash = cell.get()
        with lock:
            cell.set(cash + 1)
"""
LOGGED = """
    log = Mutex("log")
    def sell():
        with lock:
            cash = cell.get()
        with log:
            pass
        with lock:
            cell.set(cash + 1)
"""
TAIL = """
    parallel(sell, sell, names=["one", "two"])
    assert cell.peek() {condition}, "a sale is missing"
"""
# Of the canary; whether it still replays matters to nobody who takes it from here.
CANARY = (
    "ll1-Ijz6Tp6mY2FuYXJ5qXBvcnRmb2xpbwADxAIAAAMBxAOf48ipYXNzZXJ0aW9uqDMwNzljMjI4zU4gwoKoc2NlbmFya"
    "W-mY2FuYXJ5qHJldmlzaW9upWZpeGVkkA"
)


def write(folder: Path, body: str, *, missing: str = "a sale") -> None:
    """The scenario with that way to sell; ``nothing`` missing makes its end right whatever it is.

    An empty body is a file without the scenario.
    """
    folder.mkdir(exist_ok=True)
    tail = TAIL.format(condition="== 2" if missing == "a sale" else "<= 2")
    (folder / "till.py").write_text(body and HEAD + body + tail)


def found(folder: Path, body: str) -> str:
    """Write the scenario, and return a token of its failure."""
    write(folder, body)
    ran = run_stress(folder, "run", "till", "--schedules", "50", "--json", scenarios=folder)
    token: str = ran.json["scenarios"][0]["failures"][0]["token"]
    return token


def surround(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Work in ``folder``, on the scenarios below it."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("LOCKLOOM_SCENARIOS", str(folder / "scenarios"))
    monkeypatch.setenv("PYTHONPATH", PACKAGES)


def caller(capsys: pytest.CaptureFixture[str]) -> Cli:
    """Calls a command in this process."""

    def run(*args: object) -> Ran:
        capsys.readouterr()
        code = main([str(arg) for arg in args])
        out, err = capsys.readouterr()
        return Ran(code, out, err)

    return run
