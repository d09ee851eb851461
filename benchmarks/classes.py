"""How many schedules ``dpor`` takes for programs whose number of classes is published.

    python benchmarks/classes.py

Prints a row for each: expected, explored, blocked, seconds. Ends with 1 where a number differs.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]

from counted import ROWS  # noqa: E402 - the path comes first

from harness import explore  # noqa: E402


def main() -> int:
    """Run every row."""
    wrong = 0
    print(f"{'program':16}{'classes':>9}{'explored':>10}{'blocked':>9}{'seconds':>9}")
    for row in ROWS:
        began = time.perf_counter()
        report = explore(row.program, "dpor", schedules=None, stop_at_first=False)
        seconds = time.perf_counter() - began
        explored = report.schedules - report.blocked
        right = (explored, report.blocked, report.exhausted) == (row.classes, 0, True)
        wrong += not right
        print(
            f"{row.name:16}{row.classes:9,}{explored:10,}{report.blocked:9,}{seconds:9.2f}"
            + ("" if right else "  WRONG")
        )
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
