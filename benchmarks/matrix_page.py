"""Writes what ``python -m stress mutants --matrix --json`` printed into docs/reference/evidence.md.

    python benchmarks/matrix_page.py matrix.json [more.json ...]

Several files are put together: each has some of the bugs, all of them the same scenarios.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parent.parent)]

import evidence_page  # noqa: E402 - found by the line above

from stress import matrix, mutants  # noqa: E402
from stress.matrix import Matrix  # noqa: E402
from stress.work import Cell  # noqa: E402

PART: Final = "matrix"


def read(documents: Sequence[dict[str, Any]]) -> Matrix:
    """The matrix that was printed.

    Raises:
        SystemExit: The documents have not the same scenarios, or a bug that is not known here.
    """
    scenarios = documents[0]["scenarios"]
    known = {mutant.id: mutant for mutant in mutants.read()}
    made = Matrix(scenarios, [])
    for document in documents:
        if document["scenarios"] != scenarios:
            raise SystemExit("these files have different scenarios: measure them anew, as one")
        cut = {(entry["mutant"], entry["scenario"]): entry["why"] for entry in document["cut"]}
        for entry in document["mutants"]:
            if entry["id"] not in known:
                raise SystemExit(f"{entry['id']} is not in the catalogue: measure anew")
            made.mutants.append(known[entry["id"]])
            for name in scenarios:
                place = entry["id"], name
                caught = entry["caught_by"].get(name, {"schedules": 0, "oracle": ""})
                made.cells[place] = Cell(caught["schedules"], caught["oracle"], cut.get(place, ""))
    return made


def page(made: Matrix) -> list[str]:
    """What the page shows: the sums, and the table."""
    counts = sorted(len(made.catches(mutant.id)) for mutant in made.bugs())
    said = matrix.lines(made)
    # Without the time that it took.
    said[0] = said[0].partition(" in ")[0]
    said.append(f"the median bug is caught by {counts[len(counts) // 2]} scenarios")
    return ["```text", *said, "", *matrix.show(made), "```"]


def main() -> None:
    """Read, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("files", nargs="+", type=Path)
    given = parser.parse_args()
    made = read([json.loads(path.read_text(encoding="utf-8")) for path in given.files])
    evidence_page.write(PART, page(made))
    print("\n".join(matrix.lines(made)[1:]))


if __name__ == "__main__":
    main()
