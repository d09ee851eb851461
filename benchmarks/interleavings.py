"""How many interleavings ``dfs`` runs of programs that brute force has counted, and how many fail.

    python benchmarks/interleavings.py [--most N]

Prints a row for each program of at most N interleavings: known and run, failing and failed, and
seconds. Ends with 1 where a number differs. tests/litmus runs those of at most 10,000. Those of
half a million take a minute each; the largest is not for one evening.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]

from programs import SPAWNED, TOGETHER  # noqa: E402 - the path comes first

from harness import explore  # noqa: E402

MOST = 500_000


def main() -> int:
    """Run every row that is not too long."""
    parser = argparse.ArgumentParser(description="Exact counts of interleavings under dfs.")
    parser.add_argument("--most", type=int, default=MOST, metavar="N", help=f"default: {MOST:,}")
    most = parser.parse_args().most
    wrong = 0
    print(f"{'program':22}{'known':>12}{'run':>12}{'failing':>9}{'failed':>9}{'seconds':>9}")
    for row in (*TOGETHER, *SPAWNED):
        if row.interleavings > most:
            continue
        began = time.perf_counter()
        report = explore(row.program, "dfs", schedules=None, stop_at_first=False)
        seconds = time.perf_counter() - began
        failed = sum(report.failing.values())
        right = (report.schedules, report.blocked, report.exhausted) == (row.interleavings, 0, True)
        right &= failed == row.failing and len(report.failing) == 1
        wrong += not right
        print(
            f"{row!s:22}{row.interleavings:12,}{report.schedules:12,}{row.failing:9,}{failed:9,}"
            f"{seconds:9.2f}" + ("" if right else "  WRONG"),
            flush=True,
        )
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
