"""``dpor`` beside every schedule, on small programs drawn over all operations.

    python benchmarks/dpor_fuzz.py [--programs N] [--first SEED] [--search dpor|dfs] [--seconds S]

Each program is searched to its end without a bound on preemptions, with early timeouts too, and
within 0, 1 and 2 preemptions; outcomes and failures must be those of the schedules that brute force
runs. Where few schedules do, one less must not be called all of them. Prints each program on which
the two differ, and ends with 1 if there is one.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]

from brute import disagreement  # noqa: E402 - the path comes first
from generated import Drawn, deeper, draw  # noqa: E402

from harness import Exploration, explore  # noqa: E402

MOST: Final = 600
WAYS: Final[tuple[dict[str, Any], ...]] = (
    {},
    {"early_timeouts": True},
    {"preemptions": 0},
    {"preemptions": 1},
    {"preemptions": 2},
    {"preemptions": 1, "early_timeouts": True},
)


def claims_too_much(drawn: Drawn, search: str, whole: Exploration, options: dict[str, Any]) -> str:
    """Whether a search is called exhaustive one schedule before its end."""
    if not 1 < whole.schedules < 100:
        return ""
    short = explore(
        drawn.program(set()), search, whole.schedules - 1, stop_at_first=False, **options
    )
    return "exhausted before its end" if short.exhausted else ""


def main() -> int:
    """Draw, search, compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--programs", type=int, default=3_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--search", default="dpor", choices=("dpor", "dfs"))
    parser.add_argument("--seconds", type=float, default=3_600)
    asked = parser.parse_args()
    counted: Counter[str] = Counter()
    began = time.monotonic()
    for seed in range(asked.first, asked.first + asked.programs):
        if time.monotonic() - began > asked.seconds:
            break
        counted["programs"] += 1
        kind, drawn = ("draw", draw(seed)) if seed % 4 == 0 else ("deeper", deeper(seed))
        for options in WAYS:
            compared = disagreement(drawn.program, asked.search, MOST, **options)
            if compared is None:
                counted["too long"] += 1
                continue
            report, told = compared
            told = told or claims_too_much(drawn, asked.search, report, options)
            counted.update(("searches", *report.failing))
            counted["schedules"] += report.schedules
            counted["cut short"] += report.blocked
            if told:
                counted["WRONG"] += 1
                print(f"{kind}({seed}) {options}: {told}\n  {drawn}", flush=True)
    for name, count in sorted(counted.items()):
        print(f"{count:>12,}  {name}")
    print(f"{time.monotonic() - began:.0f} s")
    return 1 if counted["WRONG"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
