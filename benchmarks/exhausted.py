"""How far ``verify`` gets: every scenario of two threads, without a bound and within one.

    python benchmarks/exhausted.py [--only NAME,...] [--seconds S] [--preemptions K] [--jobs J]

Prints the table of docs/explanation/search.md: the schedules of each search that came to its end,
and after how many each defect of the seed revision is found. Exit code 1 where less comes out than
is promised: five scenarios without a bound, all within it, each defect in some scenario.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

_ROOT: Final = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(_ROOT))

from stress import catalogue  # noqa: E402 - a checkout need not be installed
from stress.runner import Options  # noqa: E402
from stress.verify import STRATEGY, verify  # noqa: E402

UNBOUNDED_LEAST: Final = 5
# Of each scenario: without a bound, and within one.
SECONDS: Final = 25.0


def searched(
    names: Sequence[str], seconds: float, jobs: int, preemptions: int | None, revision: str
) -> dict[str, dict[str, Any]]:
    """What ``verify --json`` says of each scenario, the time divided among them."""
    options = Options(
        strategy=STRATEGY,
        schedules=None,
        seconds=seconds * len(names) / jobs,
        jobs=jobs,
        preemptions=preemptions,
    )
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        verify(names, options, json=True, quiet=True, revision=revision)
    return {row["name"]: row for row in json.loads(out.getvalue())["scenarios"]}


def cell(row: dict[str, Any]) -> str:
    """Schedules, and of them those cut short; or how far it came."""
    text = f"{row['schedules']:,}"
    if row["blocked"]:
        text += f" ({row['blocked']:,} cut short)"
    if row["verdict"] == "fail":
        return f"{row['failures'][0]['kind']} in {text}"
    return text if row["exhausted"] else f"not after {text}"


def main() -> int:
    """Search, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="names of scenarios, joined by commas")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of each search")
    parser.add_argument("--preemptions", type=int, default=2)
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    only = [each for each in options.only.split(",") if each]
    chosen = [
        entry
        for entry in catalogue.select(only or ["*"])
        if "self-test" not in entry.tags and (entry.threads == 2 or entry.defects)
    ]
    two = [entry for entry in chosen if entry.threads == 2]
    names = [entry.name for entry in two]
    began = time.monotonic()
    free = searched(names, options.seconds, options.jobs, None, "fixed")
    bound = searched(names, options.seconds, options.jobs, options.preemptions, "fixed")
    hunted = [entry.name for entry in chosen if entry.defects]
    seed = searched(hunted, options.seconds, options.jobs, None, "seed") if hunted else {}
    seconds = time.monotonic() - began
    print(f"| scenario | every schedule | with at most {options.preemptions} preemptions | seed |")
    print("|---|---|---|---|")
    for entry in chosen:
        cells = [cell(row[entry.name]) if entry in two else "" for row in (free, bound)]
        if entry.name in seed:
            cells.append(f"{', '.join(entry.defects)}: {cell(seed[entry.name])}")
        print(f"| {entry.name} | {' | '.join([*cells, ''][:3])} |")
    exhausted = sum(row["exhausted"] and row["verdict"] == "pass" for row in free.values())
    within = sum(row["exhausted"] and row["verdict"] == "pass" for row in bound.values())
    found = {d for entry in chosen for d in entry.defects if seed[entry.name]["verdict"] == "fail"}
    missed = sorted({defect for entry in chosen for defect in entry.defects} - found)
    print(
        f"\n{exhausted} of {len(two)} without a bound, {within} of {len(two)} within it; "
        f"defects missed: {', '.join(missed) or 'none'}; "
        f"{seconds / 60:.1f} minutes on {options.jobs} processes"
    )
    promised = only or (exhausted >= UNBOUNDED_LEAST and within == len(two))
    return 0 if promised and not missed else 1


if __name__ == "__main__":
    raise SystemExit(main())
