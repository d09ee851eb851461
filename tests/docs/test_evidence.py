"""The page of evidence: every bug has its row, and the figures are within their bounds."""

from __future__ import annotations

import re
from pathlib import Path

import evidence_page
import first_finding
import matrix_page
import pytest

from stress import matrix, mutants
from stress.matrix import Matrix
from stress.work import Cell

BUGS = [mutant for mutant in mutants.read() if not mutant.control]


def rows() -> dict[str, dict[str, str]]:
    """The table's rows by bug."""
    head, _, *lines = evidence_page.read(first_finding.PART)
    names = evidence_page.cells(head)
    cells = [dict(zip(names, evidence_page.cells(line), strict=True)) for line in lines]
    return {row["bug"]: row for row in cells}


def test_every_bug_has_its_row_with_its_depth() -> None:
    """Where one is new: ``python benchmarks/first_finding.py --only ID --write``."""
    depths = {id_: int(row["depth"]) for id_, row in rows().items()}

    assert depths == {mutant.id: mutant.depth for mutant in BUGS}


@pytest.mark.parametrize("mutant", BUGS, ids=lambda mutant: mutant.id)
def test_the_default_finds_every_bug_within_its_bound(mutant: mutants.Mutant) -> None:
    """A lower bound, and a cell that nobody measured, are no numbers."""
    assert float(rows()[mutant.id]["portfolio"]) <= first_finding.bound_of(mutant)


def test_few_scenarios_are_alone_in_catching_a_bug() -> None:
    said = "\n".join(evidence_page.read("matrix"))
    caught = re.search(r"^(\d+) of (\d+) bugs caught", said, re.MULTILINE)
    found = re.search(r"^(\d+) of (\d+) scenarios are alone", said, re.MULTILINE)

    assert caught is not None
    assert found is not None
    some, bugs = map(int, caught.groups())
    alone, scenarios = map(int, found.groups())
    assert bugs == len(BUGS)
    # A bug that more schedules would show may be one that a further scenario is alone in catching.
    assert (alone + bugs - some) * 3 <= scenarios
    assert "controls caught:" not in said


def test_a_printed_matrix_is_read_back() -> None:
    chosen = mutants.choose(mutants.read(), ["M33", "M10", "C01"])
    printed = Matrix(["one", "two"], chosen)
    for mutant in chosen:
        printed.cells |= {(mutant.id, name): Cell(30, "") for name in printed.scenarios}
    printed.cells["M33", "one"] = Cell(3, "I1")
    printed.cells["M33", "two"] = printed.cells["M10", "one"] = Cell(12, "I17")
    printed.cells["C01", "two"] = Cell(9, "", "hang")
    halves = [Matrix(["one", "two"], chosen[:1]), Matrix(["one", "two"], chosen[1:])]
    for half in halves:
        half.cells = printed.cells
    again = matrix_page.read([matrix.document(half) for half in halves])

    assert matrix.show(again) == matrix.show(printed)
    assert matrix.lines(again)[1:] == matrix.lines(printed)[1:]
    with pytest.raises(SystemExit, match="different scenarios"):
        matrix_page.read([matrix.document(printed), matrix.document(Matrix(["one"], []))])


def test_a_median_is_a_lower_bound_where_half_of_the_hunts_found_nothing() -> None:
    found, missed = Cell(7, "I1"), Cell(50, "")
    cells = [found, found, missed, found, missed, missed]

    assert first_finding.medians(cells, 3, 50) == [(7, False), (50, True)]


def test_what_was_not_measured_again_stays(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- written: first finding -->\n<!-- end -->\nb\n", encoding="utf-8")
    monkeypatch.setattr(evidence_page, "PAGE", page)
    one, two = BUGS[0].id, BUGS[1].id

    for measured in ({one: {"pct": "3", "pos": ">9"}, two: {"pct": "4"}}, {one: {"pos": "5"}}):
        before = evidence_page.read("first finding")
        evidence_page.write("first finding", first_finding.table(measured, before))

    assert rows()[one]["pct"] == "3"
    assert rows()[one]["pos"] == "5"
    assert rows()[two]["pct"] == "4"
    assert page.read_text(encoding="utf-8").startswith("a\n<!-- written")
    assert page.read_text(encoding="utf-8").endswith("<!-- end -->\nb\n")
