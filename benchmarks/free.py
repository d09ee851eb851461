"""Free mode on the planted bugs: how many it finds, and how many captures replay under control.

    python benchmarks/free.py [--only ID,...] [--seconds S] [--seed K] [--jobs J] [--json]

Every planted bug is hunted by freely running threads, each in a process of its own, until a failure
is captured or its time is up. A *capture* is a failing order of operations; it is kept where the
same order fails under control, too. The token of each that is kept is then replayed in one more
process. What happens here is the machine's business: two runs differ.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

_ROOT: Final = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(_ROOT))

from harness.errors import ReplayDivergence  # noqa: E402 - a checkout need not be installed
from harness.explore import Setup, explore_part  # noqa: E402
from stress import hunts, mutants, work  # noqa: E402
from stress.catalogue import Spec, check, program_of  # noqa: E402
from stress.hunts import Quarry  # noqa: E402
from stress.pool import Crash, Task, call_fresh, run_tasks  # noqa: E402
from stress.runner import Options  # noqa: E402
from stress.work import Replayed  # noqa: E402

# What the table must show.
FOUND_LEAST: Final = 10
DEEP_LEAST: Final = 5
REPLAYED_LEAST: Final = 0.9
SECONDS_MAX: Final = 300.0


@dataclass(frozen=True)
class Row:
    """One planted bug.

    Attributes:
        id: Of the mutant.
        depth: Fewest preemptions that expose it.
        schedules: Run freely.
        captures: Failing orders that were run under control.
        kept: Of these, how many failed there, too.
        token: Of the first that was kept; empty where there is none.
        lost: What was captured and passed under control.
        replayed: Whether the token fails again in another process.
        seconds: Wall time of the hunt.
    """

    id: str
    depth: int
    schedules: int
    captures: int
    kept: int
    token: str
    lost: tuple[str, ...]
    replayed: bool
    seconds: float


def hunted(quarry: Quarry, seconds: float, seed: int) -> Row:
    """Hunt one planted bug freely; runs in a process that has not imported the model."""
    began = time.monotonic()
    spec, setup = _plan(quarry, seed)
    mutants.install_for(spec, None)
    part = explore_part(program_of(spec), setup, 1, None, seconds=seconds)
    kept = part.failures
    return Row(
        quarry.id,
        quarry.depth,
        part.schedules,
        len(part.unconfirmed) + len(kept),
        len(kept),
        kept[0].token if kept else "",
        tuple(part.unconfirmed),
        replayed=False,
        seconds=round(time.monotonic() - began, 2),
    )


def _plan(quarry: Quarry, seed: int) -> tuple[Spec, Setup]:
    entry = check(quarry.spec)
    options = Options(mode="free", seed=seed)
    spec = options.bound(quarry.spec, entry)
    return spec, options.setup(spec, entry)


def rows(quarries: Sequence[Quarry], seconds: float, seed: int, jobs: int) -> Iterator[Row]:
    """One for each, in the order of ending."""
    waiting = list(quarries)

    def take() -> Task | None:
        return Task(None, hunted, (waiting.pop(0), seconds, seed)) if waiting else None

    for _, value in run_tasks(take, jobs, fresh=True):
        if isinstance(value, Crash):
            raise SystemExit(str(value))
        yield value


def replays(row: Row) -> bool:
    """Whether the token fails again, in a process of its own."""
    if not row.token:
        return False
    try:
        again: Replayed = call_fresh(work.replay_token, row.token, None)
    except ReplayDivergence:
        return False
    return again.found is not None


def main() -> int:
    """Hunt, replay, count."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="ids, joined by commas")
    parser.add_argument("--seconds", type=float, default=8.0, help="of each hunt, at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1, help="a free run uses several cores itself")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    only = [each for each in options.only.split(",") if each]
    bugs = [mutant for mutant in mutants.choose(mutants.read(None), only) if not mutant.control]
    quarries = hunts.mutant_quarries(bugs, None)
    began = time.monotonic()
    found = []
    for row in rows(quarries, options.seconds, options.seed, options.jobs):
        found.append(replace(row, replayed=replays(row)))
        print(found[-1], file=sys.stderr, flush=True)
    seconds = time.monotonic() - began
    found.sort(key=lambda row: row.id)
    caught = [row for row in found if row.replayed]
    deep = [row for row in caught if row.depth >= 1]
    captures, kept = (sum(getattr(row, name) for row in found) for name in ("captures", "kept"))
    if options.json:
        print(json.dumps([asdict(row) for row in found], indent=2))
    else:
        print(f"{'id':<6}{'depth':>6}{'schedules':>11}{'captures':>10}{'kept':>6}{'s':>7}")
        for row in found:
            print(
                f"{row.id:<6}{row.depth:>6}{row.schedules:>11}{row.captures:>10}{row.kept:>6}"
                f"{row.seconds:>7.2f}  {'replays' if row.replayed else 'not found'}"
            )
        print(
            f"{len(caught)} of {len(found)} found, {len(deep)} of them of depth 1 or more; "
            f"{kept} of {captures} captures fail under control; {seconds:.0f} s"
        )
    good = len(caught) >= FOUND_LEAST and len(deep) >= DEEP_LEAST and seconds <= SECONDS_MAX
    return 0 if good and kept >= REPLAYED_LEAST * captures else 1


if __name__ == "__main__":
    raise SystemExit(main())
