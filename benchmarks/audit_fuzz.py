"""Predictions beside an exhaustive oracle, on random runs: none may be false, none may be missed.

    python benchmarks/audit_fuzz.py [PATTERNS] [SEED]

Every abstract pattern of every run is judged twice: by the predictor, and by enumerating all
correct reorderings. Ends with an error at the first pattern where the two differ.
"""

from __future__ import annotations

import random
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

from orders import Oracle, draw, reachable, trace_of

from harness.predict import predict
from harness.predict.judge import SYNC_PRESERVING

PATTERNS, SEED = 100_000, 0


def compare(rng: random.Random, counted: Counter[str]) -> None:
    """Draw one run and judge each of its patterns twice."""
    readers = rng.random() < 0.5
    run = draw(rng, readers=readers)
    trace = trace_of(run)
    outcome = predict(trace, budget=1 << 40)
    counted["runs"] += 1
    if not outcome.predictions:
        return
    oracle = Oracle(run)
    every = oracle.reaches(preserving=False)
    preserving = oracle.reaches(preserving=True)
    for each in outcome.predictions:
        counted["patterns"] += 1
        counted[f"of {len(each.pattern)} threads"] += 1
        counted["with readers"] += readers
        counted["with a join"] += any(request.lock is None for request in each.pattern)
        real = reachable(oracle, trace, each.pattern, every)
        plain = real and reachable(oracle, trace, each.pattern, preserving)
        counted["sync-preserving"] += plain
        counted["only by reordering"] += real and not plain
        counted[each.tier] += 1
        if plain != (each.reason == SYNC_PRESERVING):
            raise SystemExit(f"sync-preserving: {plain}, judged {each.reason}: {run}")
        if each.tier != "possible" and real != (each.tier == "predicted"):
            raise SystemExit(f"real: {real}, judged {each.tier}, {each.reason}: {run}")


def main() -> None:
    """Compare until there were enough patterns, and print what was seen."""
    wanted = int(sys.argv[1]) if len(sys.argv) > 1 else PATTERNS
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else SEED
    counted: Counter[str] = Counter()
    rng = random.Random(seed)
    start = time.monotonic()
    while counted["patterns"] < wanted:
        compare(rng, counted)
    for name, count in counted.most_common():
        print(f"{count:>12,}  {name}")
    print(f"no difference, {time.monotonic() - start:.0f} s, seed {seed}")


if __name__ == "__main__":
    main()
