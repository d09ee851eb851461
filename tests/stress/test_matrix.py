"""Every planted bug on every scenario."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from stress_cli import Cli, Ran, run_stress

from stress import matrix, mutants
from stress.matrix import Matrix
from stress.work import Cell

pytestmark = pytest.mark.once

BUG = mutants.choose(mutants.read(), ["M33"])[0]
NOT = Cell(100, "")


def made() -> Matrix:
    """Three scenarios, three bugs and a control."""
    ids = [replace(BUG, id=id_) for id_ in ("X1", "X2", "X3")]
    control = replace(BUG, id="C1", control=True)
    found = Matrix(["general", "special", "idle"], [*ids, control])
    cells = {
        "X1": (Cell(3, "I1"), Cell(30, "I1"), NOT),
        "X2": (NOT, Cell(2, "deadlock"), NOT),
        "X3": (Cell(60, "I2"), NOT, NOT),
        "C1": (NOT, NOT, NOT),
    }
    for id_, row in cells.items():
        for name, cell in zip(found.scenarios, row, strict=True):
            found.cells[id_, name] = cell
    return found


def test_a_scenario_is_alone_where_no_other_catches_a_bug() -> None:
    found = made()

    assert found.catches("X1") == ["general", "special"]
    assert found.alone == {"special": ["X2"], "general": ["X3"]}
    assert not found.general
    found.cells["X3", "special"] = Cell(9, "I2")
    assert found.alone == {"special": ["X2"]}
    assert found.general


def test_what_was_missed_and_what_was_no_bug_are_told() -> None:
    found = made()
    assert (found.missed, found.false) == ([], [])
    found.cells["X2", "special"] = NOT
    found.cells["C1", "idle"] = Cell(5, "I9")

    assert (found.missed, found.false) == (["X2"], ["C1"])
    assert "2 of 3 bugs caught" in matrix.lines(found)[0]
    assert matrix.lines(found)[-2:] == ["missed: X2", "controls caught: C1"]


def test_the_table_has_a_column_for_each_bug_and_a_row_for_each_scenario() -> None:
    assert matrix.show(made())[:-1] == [
        "            C",
        "         XXX1",
        "         123*",
        "general  #.!.",
        "special  +!..",
        "idle     ....",
    ]


def test_a_cell_that_did_not_run_is_no_pass() -> None:
    found = made()
    del found.cells["X1", "idle"]

    found.cells["X2", "general"] = Cell(1, "", "hang")

    assert "idle     ?..." in matrix.show(found)
    assert "general  #?!." in matrix.show(found)
    assert matrix.lines(found)[-1] == "X2 on general: hang"
    assert found.catches("X1") == ["general", "special"]


def tried(folder: Path, *, jobs: int) -> Ran:
    """A bug and a control, on the shipped scenarios alone: the toys have bugs of their own."""
    options = ("--only", "M33,M32", "--schedules", "3", f"--jobs={jobs}", "--json")
    return run_stress(folder, "mutants", "--matrix", *options, scenarios=None)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """By one process."""
    return tried(tmp_path_factory.mktemp("alone"), jobs=1)


def test_bugs_are_tried_on_every_scenario(alone: Ran) -> None:
    document = alone.json
    bug, control = sorted(document["mutants"], key=lambda entry: entry["control"])

    assert alone.code == 0, document["cut"]
    assert "commit-decommit" in bug["caught_by"]
    assert len(bug["caught_by"]) > 3
    assert bug["caught_by"]["commit-decommit"]["oracle"] == "I1"
    assert {"mixed", "commit-supply"} <= set(document["scenarios"])
    assert control["caught_by"] == {}
    assert document["missed"] == document["controls_caught"] == []
    assert document["alone"] == {}
    assert document["general"]


def test_a_bug_that_is_caught_nowhere_fails_the_command(cli: Cli) -> None:
    """Within a single schedule of each scenario nobody preempts at the right place."""
    ran = cli(
        "mutants",
        "--matrix",
        "--only",
        "M10",
        "--schedules",
        "1",
        "--jobs=1",
        LOCKLOOM_SCENARIOS="",
    )

    assert ran.code == 1
    assert "missed: M10" in ran.out


def test_the_number_of_jobs_changes_nothing(alone: Ran, tmp_path: Path) -> None:
    assert tried(tmp_path, jobs=2).json == alone.json
