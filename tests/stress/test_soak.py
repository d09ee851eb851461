"""Exploring goes on for hours: what is kept, and how fast it goes, is at the end what it was."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from soak import Sample, judged, machine_speed

SOAK = Path(__file__).parents[2] / "benchmarks" / "soak.py"
BEGIN = Sample(0.0, 0.0, 0, memory=50 << 20, threads=4, files=20, objects=30_000)
LEAKS = {
    "memory": [replace(BEGIN, memory=BEGIN.memory + at * (200 << 10)) for at in range(100)],
    "threads": [replace(BEGIN, threads=4 + at // 30) for at in range(100)],
    "files": [replace(BEGIN, files=20 + at // 10) for at in range(100)],
    "objects": [replace(BEGIN, objects=30_000 + 50 * at) for at in range(100)],
    "speed": [replace(BEGIN, cpu=0.01 * at**1.3) for at in range(100)],
}


def series(samples: list[Sample]) -> list[Sample]:
    """One look a second, 100 schedules each, in half of a core's time if nothing else is said."""
    return [
        replace(one, wall=float(at), schedules=100 * at, cpu=one.cpu or at / 2)
        for at, one in enumerate(samples)
    ]


@pytest.mark.parametrize("leaking", sorted(LEAKS))
def test_what_grows_is_not_called_flat(leaking: str) -> None:
    found = judged(series(LEAKS[leaking]))

    assert [name for name, one in found.items() if not one["flat"]] == [leaking]


def test_what_stays_is_flat() -> None:
    found = judged(series([BEGIN] * 100))

    assert all(one["flat"] for one in found.values())
    assert found["speed"] == {"first": 200.0, "last": 200.0, "flat": True}


def test_a_subject_that_stood_still_is_not_flat() -> None:
    samples = [replace(one, schedules=500) for one in series([BEGIN] * 100)]

    assert not judged(samples)["speed"]["flat"]


def test_speed_may_fall_as_that_of_fresh_processes_did_and_no_further() -> None:
    slowing = [replace(BEGIN, cpu=at / 2 if at < 50 else 25 + (at - 50) / 1.4) for at in range(100)]

    assert not judged(series(slowing))["speed"]["flat"]
    assert judged(series(slowing), machine=0.7)["speed"]["flat"]
    assert not judged(series([BEGIN] * 100), machine=1.2)["speed"]["flat"]


def test_the_speed_of_the_machine_is_told_by_medians_of_both_ends() -> None:
    ends = [(0.0, 400.0), (1.0, 100.0), (2.0, 400.0), (98.0, 200.0), (99.0, 900.0), (100.0, 200.0)]

    assert machine_speed([*ends[:3], (50.0, 1.0), *ends[3:]]) == 0.5
    assert machine_speed(ends[:1]) == machine_speed([]) == 1.0


@pytest.mark.once
def test_ten_seconds_of_all_kinds_of_programs_leave_nothing_behind() -> None:
    """Speed, and threads to the last one, are judged over an hour: seconds are as they come."""
    done = subprocess.run(
        [sys.executable, SOAK, "--seconds", "10", "--of", "process", "--json"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    told = json.loads(done.stdout)
    subject = told["subjects"]["process"]
    del subject["samples"]

    assert done.stderr == ""
    assert told["machine"] == 1.0, "ten seconds are too short for more than one fresh process"
    looked_at = subject["quantities"]
    assert looked_at["memory"]["flat"], subject
    # Caches fill in the first minutes; what each schedule left behind would be more.
    grown = looked_at["objects"]["last"] - looked_at["objects"]["first"]
    assert grown <= subject["schedules"], subject
    for name in ("threads", "files"):
        assert looked_at[name]["last"] <= looked_at[name]["first"] + 20, subject
    assert subject["schedules"] > 300
