"""Tables keep their numbers whole: one that is cut off is another number."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from harness import Mutex, explore, parallel
from stress import catalogue, console
from stress.catalogue import Spec
from stress.runner import Options, Report, Result

NAMES = ["workload-multi-vmo", "close-lender-borrowed", "canary", "vacuous"]


def crossing() -> None:
    lock = Mutex("lock")

    def body() -> None:
        with lock:
            pass

    parallel(body, body)


@pytest.mark.parametrize("counted", [True, False])
def test_a_run_of_everything_fits_with_every_number_whole(counted: bool) -> None:
    explored = replace(
        explore(crossing, "random", schedules=40), schedules=1_234_567, steps=987_654_321
    )
    results = [
        Result(
            catalogue.find(name),
            Spec(name),
            catalogue.find(name).expected_verdict,
            "a reason that goes on for quite some time, as reasons do",
            explored,
            busy=1_000.0,
            counted=counted,
        )
        for name in NAMES
    ]
    drawn = io.StringIO()
    Console(file=drawn, width=console.WIDTH).print(console.report_table(Report(Options(), results)))
    lines = drawn.getvalue().splitlines()

    for name in NAMES:
        row = next(line for line in lines if line.startswith(f" {name} "))
        assert "1,234,567" in row
        assert "987,654,321" in row
        assert "1,235" in row
    assert max(map(len, lines)) <= console.WIDTH
