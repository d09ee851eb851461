"""A token reproduces the same failure and the same trace: elsewhere, later, on another Python.

The golden file is the same for every process, hash seed, number of jobs and supported Python.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import seeded
from pythons import on_each

import harness
from harness import Exploration, UsageError, explore, replay

GOLDEN = Path(__file__).parents[1] / "golden" / "digests.json"
VERSIONS = ("3.11", "3.12", "3.13", "3.14")
HERE = f"{sys.version_info.major}.{sys.version_info.minor}"


def _golden() -> Any:
    return json.loads(GOLDEN.read_text(encoding="utf-8"))


def _tokens() -> dict[str, str]:
    return {
        f"{key}/{number}": failure["token"]
        for key, entry in _golden().items()
        for number, failure in enumerate(entry["failures"])
    }


def test_explorations_are_those_of_the_golden_file(golden: Callable[[str, str], None]) -> None:
    golden("digests.json", json.dumps(seeded.everything(), indent=1, sort_keys=True) + "\n")


def test_the_golden_file_holds_failures_of_every_kind_that_matters() -> None:
    kinds = {failure["kind"] for entry in _golden().values() for failure in entry["failures"]}

    assert {"assertion", "deadlock", "guard", "invariant", "lock-order", "lost-wakeup"} == kinds
    assert len(_tokens()) > 25


def test_every_token_replays_to_its_digest_and_to_itself() -> None:
    for key, token in _tokens().items():
        program, strategy, number = key.split("/")
        wanted = _golden()[f"{program}/{strategy}"]["failures"][int(number)]
        again = replay(seeded.PROGRAMS[program], token)
        assert again is not None
        assert wanted["token"] == again.token
        for name in ("kind", "digest", "steps", "preemptions", "fingerprint", "schedule"):
            assert wanted[name] == getattr(again, name), (key, name)
        assert len(again.trace()) == again.steps


# -- other processes ----------------------------------------------------------------------------


def _run(python: str, path: list[str], hash_seed: str, *arguments: str) -> Any:
    """What ``seeded.py`` prints there."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON", "COVERAGE", "VIRTUAL_ENV", "__PYVENV"))
    }
    environment |= {"PYTHONPATH": os.pathsep.join(path), "PYTHONHASHSEED": hash_seed}
    done = subprocess.run(
        [python, str(Path(seeded.__file__)), *arguments],
        capture_output=True,
        text=True,
        env=environment,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def tokens_file(tmp_path: Path) -> str:
    path = tmp_path / "tokens.json"
    path.write_text(json.dumps(_tokens()), encoding="utf-8")
    return str(path)


def _wanted_replays() -> dict[str, list[object]]:
    return {
        f"{key}/{number}": [failure["digest"], failure["kind"], failure["steps"], failure["token"]]
        for key, entry in _golden().items()
        for number, failure in enumerate(entry["failures"])
    }


@pytest.mark.parametrize("hash_seed", on_each({"1", "random"}, ["0", "1", "random"]))
def test_a_fresh_process_finds_and_replays_the_same(hash_seed: str, tokens_file: str) -> None:
    path = [entry for entry in sys.path if entry]

    assert _golden() == _run(sys.executable, path, hash_seed)
    assert _wanted_replays() == _run(sys.executable, path, hash_seed, tokens_file)


@functools.cache
def _other_pythons() -> dict[str, str]:
    """Other supported Pythons on the PATH that have what the harness needs."""
    found = {}
    for version in VERSIONS:
        python = shutil.which(f"python{version}")
        if version == HERE or python is None:
            continue
        done = subprocess.run(
            [python, "-c", "import msgspec"],
            capture_output=True,
            check=False,
            env={k: v for k, v in os.environ.items() if not k.startswith("PYTHON")},
        )
        if done.returncode == 0:
            found[version] = python
    return found


@pytest.fixture
def harness_alone(tmp_path: Path) -> list[str]:
    """A path with this harness and nothing else of this Python's packages."""
    assert harness.__file__ is not None
    (tmp_path / "alone").mkdir()
    (tmp_path / "alone" / "harness").symlink_to(Path(harness.__file__).parent)
    return [str(tmp_path / "alone")]


@pytest.mark.parametrize("version", [version for version in VERSIONS if version != HERE])
def test_another_python_finds_and_replays_the_same(
    version: str, harness_alone: list[str], tokens_file: str
) -> None:
    """Under tox each Python runs the other tests of this file, against the same golden file."""
    python = _other_pythons().get(version)
    if python is None:
        pytest.skip(f"no python{version} with msgspec on the PATH")

    assert _golden() == _run(python, harness_alone, "random")
    assert _wanted_replays() == _run(python, harness_alone, "random", tokens_file)


# -- several processes --------------------------------------------------------------------------


def _comparable(report: Exploration) -> dict[str, object]:
    return {
        "verdict": report.verdict,
        "reason": report.reason,
        "schedules": report.schedules,
        "steps": report.steps,
        "switches": report.switches,
        "preemptions": report.preemptions,
        "exhausted": report.exhausted,
        "blocked": report.blocked,
        "failing": report.failing,
        "failures": [
            (f.kind, f.message, f.schedule, f.token, f.digest, f.fingerprint, f.steps)
            for f in report.failures
        ],
        "order": sorted(report.lock_order.edges),
        "findings": [finding.message for finding in report.lock_order.findings],
    }


@pytest.mark.parametrize("stop_at_first", on_each({False}, [True, False]))
@pytest.mark.parametrize(
    ("name", "strategy"),
    [("crossed", "random"), ("disordered", "random"), ("unbalanced", "pct"), ("lost", "portfolio")],
)
def test_two_processes_find_what_one_finds(name: str, strategy: str, stop_at_first: bool) -> None:
    """300 schedules are five blocks of work for two processes."""

    def found(processes: int) -> dict[str, object]:
        return _comparable(
            explore(
                seeded.PROGRAMS[name],
                strategy,
                schedules=300,
                seed=seeded.SEED,
                stop_at_first=stop_at_first,
                processes=processes,
            )
        )

    one = found(1)
    assert one["failures"]
    assert one == found(2)


def test_a_failure_from_another_process_tells_its_story_here() -> None:
    report = explore(
        seeded.crossed, "random", schedules=100, seed=seeded.SEED, stop_at_first=False, processes=2
    )

    assert report.failure is not None
    assert len(report.failure.trace()) == report.failure.steps
    assert report.failure.token[:30] in report.failure.text()


def test_a_program_that_cannot_be_imported_is_refused_for_several_processes() -> None:
    def local() -> None:
        seeded.crossed()

    with pytest.raises(UsageError, match="move it to the top level of a module"):
        explore(local, "random", schedules=10, processes=2)
