"""What the model's checks cost: the heaviest scenarios with and without them, check by check.

    python benchmarks/checks.py [--scenarios A,B] [--schedules N] [--rounds N] [--seed K]

Without names the three scenarios are taken that have most steps per schedule. The same schedules
of ``random`` run with all checks and with none, in turns, so that whatever else the machine does
disturbs both; the ratio is the median of the pairs. Then every check is timed from its call to its
return, less what the timing itself takes, and printed as a share of the checked run. Checks call
each other (``check_page`` calls the invariants of a page): each is charged with its own time alone.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from harness.engine.pool import settled
from harness.explore import Setup, explore_part
from stress.catalogue import Scenario, Spec, discover, find, program_of

HEAVIEST: Final = 3
# Schedules that tell how many steps a scenario has.
PROBE: Final = 8
# What of the checks has a name of its own; the rest is what the observed kernel notes.
MODULES: Final = ("model.invariants", "model.vmo_invariants")


@dataclass(slots=True)
class Meter:
    """Time by check, its callees' not counted.

    Attributes:
        spent: Nanoseconds by name.
        calls: By name.
    """

    spent: dict[str, int] = field(default_factory=dict)
    calls: dict[str, int] = field(default_factory=dict)
    _within: list[int] = field(default_factory=lambda: [0])

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """``function``, charged to ``name``; only the thread that has the baton gets here."""
        self.spent[name] = self.calls[name] = 0
        clock, within, spent, calls = time.perf_counter_ns, self._within, self.spent, self.calls

        @functools.wraps(function)
        def charged(*args: Any, **options: Any) -> Any:
            within.append(0)
            began = clock()
            try:
                return function(*args, **options)
            finally:
                whole = clock() - began
                spent[name] += whole - within.pop()
                calls[name] += 1
                within[-1] += whole

        return charged


def _specs(entry: Scenario, seed: int) -> tuple[Spec, Setup]:
    spec = Spec(entry.name, draw=seed if entry.drawn else 0)
    return spec, Setup(
        strategy="random",
        seed=seed,
        steps_max=entry.steps_max,
        early_timeouts=entry.early_timeouts,
    )


def run(entry: Scenario, seed: int, schedules: int, *, checks: bool) -> tuple[float, int]:
    """Seconds and steps of so many schedules."""
    spec, setup = _specs(entry, seed)
    part = explore_part(program_of(replace(spec, checks=checks)), setup, 1, schedules, worker=0)
    if part.failures or part.schedules < schedules:
        raise SystemExit(f"scenario {entry.name} fails or is cut short; measure one that does not")
    return part.seconds, part.steps


def heaviest(seed: int) -> list[Scenario]:
    """The scenarios with most steps per schedule."""
    clean = [entry for entry in discover().values() if entry.expected == "clean"]
    steps = {entry.name: run(entry, seed, PROBE, checks=True)[1] for entry in clean}
    return sorted(clean, key=lambda entry: -steps[entry.name])[:HEAVIEST]


def compare(entry: Scenario, seed: int, schedules: int, rounds: int) -> None:
    """Print the steps/s with checks and without."""
    pairs, steps = [], 0
    for _ in range(rounds):
        on, steps = run(entry, seed, schedules, checks=True)
        off, unchecked = run(entry, seed, schedules, checks=False)
        pairs.append((on, off, unchecked))
    on, off = min(pair[0] for pair in pairs), min(pair[1] for pair in pairs)
    ratio = statistics.median(pair[0] / pair[1] for pair in pairs)
    print(
        f"{entry.name:<24}{steps / schedules:>8.0f}{steps / on:>14,.0f}{pairs[0][2] / off:>14,.0f}"
        f"{ratio:>8.2f}",
        flush=True,
    )


def metered() -> Meter:
    """Put a meter around every check of the model, for the rest of this process."""
    meter = Meter()
    for module_name in MODULES:
        module = sys.modules[module_name]
        for name, value in list(vars(module).items()):
            if callable(value) and getattr(value, "__module__", "") in MODULES:
                if isinstance(value, type):
                    _meter_methods(meter, value)
                else:
                    setattr(module, name, meter.timed(name, value))
    observed = sys.modules["model.observed"].ObservedKernel
    for name in ("look", "watch"):
        setattr(observed, name, meter.timed(f"history: {name}", getattr(observed, name)))
    return meter


def _meter_methods(meter: Meter, owner: type) -> None:
    """Those that check; the others make checks, or tell whether there is anything to do."""
    for name, value in list(vars(owner).items()):
        if name.startswith(("at_", "after_", "check_", "alarm")):
            setattr(owner, name, meter.timed(name, value))


def _timing_nanoseconds() -> float:
    """What a meter charges an empty check with."""
    meter = Meter()
    empty = meter.timed("empty", lambda: None)
    for _ in range(20_000):
        empty()
    return meter.spent["empty"] / meter.calls["empty"]


def by_check(entries: list[Scenario], seed: int, schedules: int) -> None:
    """Print what each check takes of the checked runs."""
    for entry in entries:
        run(entry, seed, PROBE, checks=True)
    meter, own = metered(), _timing_nanoseconds()
    seconds = sum(run(entry, seed, schedules, checks=True)[0] for entry in entries)
    net = {name: max(0.0, meter.spent[name] - own * meter.calls[name]) for name in meter.spent}
    # The run itself is longer by what the meters take, on both sides of the clock.
    whole = seconds * 1e9 - 2 * own * sum(meter.calls.values())
    print(f"\n{'check':<32}{'calls/schedule':>15}{'ns/call':>10}{'share':>8}")
    for name in sorted(net, key=lambda name: -net[name]):
        calls = meter.calls[name]
        if calls:
            print(
                f"{name:<32}{calls / schedules / len(entries):>15.1f}{net[name] / calls:>10.0f}"
                f"{net[name] / whole:>8.1%}"
            )
    print(f"{'all of them':<57}{sum(net.values()) / whole:>8.1%}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--scenarios", default="", help="names, joined by commas")
    parser.add_argument("--schedules", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with settled(0):
        names = [name for name in given.scenarios.split(",") if name]
        entries = [find(name) for name in names] or heaviest(given.seed)
        print(f"{'scenario':<24}{'steps':>8}{'steps/s':>14}{'unchecked':>14}{'ratio':>8}")
        for entry in entries:
            compare(entry, given.seed, given.schedules, given.rounds)
        by_check(entries, given.seed, given.schedules)


if __name__ == "__main__":
    main()
