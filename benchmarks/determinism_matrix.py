"""Tokens of every strategy, replayed by other Pythons under other hash seeds.

    python benchmarks/determinism_matrix.py [--tokens N] [--seed K] PYTHON...

This Python draws programs, strategies and seeds until it has so many tokens of different schedules;
each PYTHON (this one if none is given) replays all of them in a process of its own under two hash
seeds, and must come to the same kind, digest, steps and token. A PYTHON needs msgspec.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

_HERE: Final = Path(__file__).resolve().parent
sys.path[:0] = [str(_HERE), str(_HERE.parent), str(_HERE.parent / "tests" / "support")]

import seeded  # noqa: E402 - found by the line above
from known_programs import KNOWN  # noqa: E402

from harness import explore, replay  # noqa: E402
from harness.strategies import names  # noqa: E402

HASH_SEEDS: Final = ("0", "4711")
_BATCH: Final = 30

PROGRAMS: Final[dict[str, Callable[[], object]]] = {
    **seeded.PROGRAMS,
    **{known.name: known.program for known in KNOWN},
}
Fact = list[Any]


def draw(count: int, seed: int) -> tuple[dict[str, Fact], Counter[str]]:
    """So many tokens with what their replays must come to, and how many each strategy gave."""
    chosen = random.Random(seed)
    found: dict[str, Fact] = {}
    by: Counter[str] = Counter()
    strategies = names()
    while len(found) < count:
        # In turn, so that a strategy that finds less than others has its tokens too.
        strategy = min(strategies, key=lambda name: (by[name], name))
        name = chosen.choice(sorted(PROGRAMS))
        exploration = explore(
            PROGRAMS[name],
            strategy,
            _BATCH,
            seed=chosen.getrandbits(32),
            stop_at_first=False,
            steps_max=2_000,
        )
        if not exploration.failures:
            continue
        failure = chosen.choice(exploration.failures)
        fact = [name, failure.kind, failure.digest, failure.steps, failure.fingerprint]
        if failure.kind != "livelock" and failure.token not in found:
            found[failure.token] = fact
            by[strategy] += 1
    return found, by


def again(tokens: dict[str, Fact]) -> dict[str, Fact | None]:
    """What each token comes to here."""
    result: dict[str, Fact | None] = {}
    for token, (name, *_) in tokens.items():
        failure = replay(PROGRAMS[name], token)
        result[token] = None
        if failure is not None and failure.token == token:
            result[token] = [
                name,
                failure.kind,
                failure.digest,
                failure.steps,
                failure.fingerprint,
            ]
    return result


def elsewhere(python: str, hash_seed: str, tokens: dict[str, Fact]) -> dict[str, Fact | None]:
    """What each token comes to in another process."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    done = subprocess.run(  # noqa: S603 - a Python that the caller named, on this file
        [python, __file__, "--replay"],
        input=json.dumps(tokens),
        capture_output=True,
        text=True,
        env=environment | {"PYTHONHASHSEED": hash_seed},
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{python}: {done.stderr}")
    result: dict[str, Fact | None] = json.loads(done.stdout)
    return result


def main() -> int:
    """Draw, replay everywhere, compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pythons", nargs="*", metavar="PYTHON", default=[sys.executable])
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--replay", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.replay:
        print(json.dumps(again(json.load(sys.stdin))))
        return 0
    tokens, by = draw(options.tokens, options.seed)
    print(f"{len(tokens)} tokens: {', '.join(f'{name} {by[name]}' for name in sorted(by))}")
    wrong = 0
    for python in options.pythons:
        for hash_seed in HASH_SEEDS:
            found = elsewhere(python, hash_seed, tokens)
            different = [token for token in tokens if found[token] != tokens[token]]
            wrong += len(different)
            print(f"{python}, hash seed {hash_seed}: {len(different)} differ")
            for token in different[:5]:
                print(f"  {tokens[token]} became {found[token]}: {token}")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
