"""The command line, and Ctrl-C, as fixtures."""

from __future__ import annotations

import functools
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import till
from stress_cli import TOYS, Cli, Ran, run_stress

from stress.cli import main


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    """Call with the command's arguments; runs in an empty folder, in a process of its own."""
    return functools.partial(run_stress, tmp_path)


@pytest.fixture
def call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Cli:
    """Like ``cli``, in this process and twice as fast; always on the toy scenarios."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LOCKLOOM_SCENARIOS", str(TOYS))

    def run(*args: object) -> Ran:
        capsys.readouterr()
        code = main([str(arg) for arg in args])
        out, err = capsys.readouterr()
        return Ran(code, out, err)

    return run


@pytest.fixture(scope="session")
def failures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The first failure of each toy that has one under seed 3, as ``run --json`` tells it."""
    names = "toy-abba", "toy-late", "toy-order", "toy-drawn"
    options = ("--seed", 3, "--jobs", 1, "--json")
    ran = run_stress(tmp_path_factory.mktemp("failures"), "run", *names, *options)
    return {scenario["name"]: scenario["failures"][0] for scenario in ran.json["scenarios"]}


@pytest.fixture
def abba_token(failures: dict[str, Any]) -> str:
    token: str = failures["toy-abba"]["token"]
    return token


@pytest.fixture(scope="session")
def racy_token(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Of a till that loses a sale."""
    return till.found(tmp_path_factory.mktemp("racy"), till.RACY)


@pytest.fixture(scope="session")
def logged_token(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Of one that keeps a log, too."""
    return till.found(tmp_path_factory.mktemp("logged"), till.LOGGED)


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """SIGINT works in children also where a background shell made all of us ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
