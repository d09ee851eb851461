"""How far failures get minimized: preemptions left beside the known depth, and the time it takes.

    python benchmarks/minimized.py [--only ID,...] [--seed K] [--strategy X] [--json]

Every planted bug and every latent defect is hunted as ``mutants`` and ``defects`` do it, each in a
process of its own, and its first failing schedule is minimized as ``minimize TOKEN`` does it. The
depth of a mutant stands in the catalogue; that of a defect is not known beforehand, so only a proof
counts: every schedule with fewer preemptions was run, and none fails in this way.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

_ROOT: Final = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(_ROOT))

from stress import hunts, mutants, work  # noqa: E402 - a checkout need not be installed
from stress.hunts import Catch, Quarry  # noqa: E402
from stress.pool import call_fresh  # noqa: E402
from stress.runner import Options  # noqa: E402
from stress.work import Shrunk  # noqa: E402

# What the table must show.
AT_DEPTH_LEAST: Final = 0.9
SECONDS_MEDIAN_MAX: Final = 5.0


@dataclass(frozen=True)
class Row:
    """One failure.

    Attributes:
        id: Of the mutant or defect.
        depth: Fewest preemptions that expose it, as far as that is known; else those left, where
            that they are the fewest is proven; -1 where neither is.
        found: Preemptions of the schedule that was found.
        left: Preemptions of the minimized one.
        fewest: That no schedule with fewer fails in this way is proven.
        one_minimal: No stretch of the schedule can be taken out.
        replays: Schedules run for it.
        seconds: Wall time, the start of a process aside.
    """

    id: str
    depth: int
    found: int
    left: int
    fewest: bool
    one_minimal: bool
    replays: int
    seconds: float


def _timed(token: str) -> tuple[Shrunk, float]:
    began = time.monotonic()
    return work.minimize_token(token, None), time.monotonic() - began


def measure(catch: Catch) -> Row:
    """Minimize what was caught."""
    assert catch.found is not None, catch.quarry.id
    failure = catch.found.failure
    shrunk, seconds = call_fresh(_timed, failure.token)
    result = shrunk.result
    left = result.after.preemptions
    depth = catch.quarry.depth
    if depth < 0 and result.fewest:
        depth = left
    return Row(
        catch.quarry.id,
        depth,
        failure.preemptions,
        left,
        result.fewest,
        result.one_minimal,
        result.replays,
        round(seconds, 2),
    )


def quarries(only: Sequence[str]) -> list[Quarry]:
    """All mutants and defects but the controls."""
    everything = [
        *hunts.mutant_quarries(mutants.choose(mutants.read(None), ()), None),
        *hunts.defect_quarries(),
    ]
    return [
        quarry for quarry in everything if not quarry.control and (not only or quarry.id in only)
    ]


def main() -> int:
    """Hunt, minimize, compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="ids, joined by commas")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--strategy", default="portfolio")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    chosen = quarries([each for each in options.only.split(",") if each])
    hunting = Options(
        strategy=options.strategy, seed=options.seed, schedules=hunts.SCHEDULES_DEFAULT, jobs=1
    )
    bag = hunts.hunt(chosen, hunting)
    rows = []
    for catch in bag.catches:
        if catch.found is not None:
            rows.append(measure(catch))
            print(rows[-1], file=sys.stderr, flush=True)
    missed = [catch.quarry.id for catch in bag.catches if catch.found is None]
    known = [row for row in rows if row.depth >= 0]
    at_depth = sum(row.left == row.depth for row in known)
    above = [row.id for row in known if row.left > row.depth + 1]
    below = [row.id for row in known if row.left < row.depth]
    median = statistics.median(row.seconds for row in rows)
    if options.json:
        print(json.dumps([asdict(row) for row in rows], indent=2))
    else:
        print(f"{'id':<8}{'depth':>6}{'found':>7}{'left':>6}{'proven':>8}{'replays':>9}{'s':>7}")
        for row in rows:
            print(
                f"{row.id:<8}{row.depth if row.depth >= 0 else '?':>6}{row.found:>7}{row.left:>6}"
                f"{'yes' if row.fewest else 'no':>8}{row.replays:>9}{row.seconds:>7.2f}"
            )
        print(
            f"{at_depth} of {len(known)} at the known depth, {len(rows) - len(known)} of unknown "
            f"depth; median {median:.2f} s, slowest {max(row.seconds for row in rows):.2f} s"
        )
        for title, ids in (
            ("not found", missed),
            ("above depth + 1", above),
            ("below the depth that the catalogue gives", below),
        ):
            if ids:
                print(f"{title}: {', '.join(ids)}")
    good = at_depth >= AT_DEPTH_LEAST * len(known) and not above and median < SECONDS_MEDIAN_MAX
    return 0 if good and not missed else 1


if __name__ == "__main__":
    raise SystemExit(main())
