"""What a campaign is to run: read, checked, and divided into numbered parts.

A *part* is one scenario with one set of faults under one strategy with one seed: an exploration of
its own, that needs nothing of any other. So part 17 of a plan is the same schedules wherever and
however often it is run. The order of the parts is a function of the plan as well: scenarios take
turns according to their weights, and a budget ends the campaign somewhere in that order.

A plan file is TOML::

    seeds = "0-19"
    schedules = 500                     # of each part
    strategies = ["portfolio", "pct"]

    [[scenario]]
    name = "commit*"
    weight = 3
    faults = ["none", "no_memory@2"]
"""

from __future__ import annotations

import hashlib
import heapq
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import msgspec

from harness.errors import UsageError
from harness.search.setup import Setup
from harness.strategies import names as strategy_names
from harness.strategies import strategy_named
from stress import catalogue, given
from stress.catalogue import Spec
from stress.given import Number
from stress.runner import SEED_MAX, Options

COMBINATIONS_MAX: Final = 10_000
PARTS_MAX: Final = 1_000_000
SCHEDULES_MAX: Final = 1_000_000
WEIGHT_MAX: Final = 1_000
_NAME_CHARS_MAX: Final = 80
SCHEDULES_DEFAULT: Final = 500
PART_SECONDS_DEFAULT: Final = 600.0
# Run first in every campaign: the planted bug that must be found, and what must not pass.
WATCHERS: Final = ("canary", "vacuous")
_WATCHER_SCHEDULES: Final = 50


class _Choices(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What may stand at the top of a plan, for all scenarios, and in each table for its own."""

    strategies: list[str] | None = None
    seeds: int | str | None = None
    schedules: Number | None = None
    faults: list[str] | None = None
    revision: str | None = None
    depth: Number | None = None
    preemptions: Number | None = None
    steps_max: Number | None = None
    early_timeouts: bool | None = None


class _Table(_Choices, forbid_unknown_fields=True, kw_only=True):
    """One ``[[scenario]]``."""

    name: str
    weight: Number = 1
    params: dict[str, str | Number] = {}


class _File(_Choices, forbid_unknown_fields=True, kw_only=True):
    """A plan as it is written."""

    name: str = ""
    seconds: float | None = None
    schedules_max: Number | None = None
    part_seconds: float = PART_SECONDS_DEFAULT
    scenario: list[_Table] = []


class Combination(msgspec.Struct, frozen=True, kw_only=True):
    """One scenario, with one set of faults, under one strategy; as many parts as it has seeds.

    Attributes:
        scenario: Its name.
        expected: "clean", "finding" or "inconclusive": what the catalogue says of it.
        params: Its parameters that differ from their defaults, as text.
        revision: Of the model.
        faults: Injected; empty takes the scenario's own.
        strategy: By name.
        depth: For pct.
        preemptions: Bound of a search that takes one.
        steps_max: Step bound of a schedule.
        early_timeouts: Timeouts may fire at any step.
        first: The first seed.
        last: The last seed.
        schedules: Of each part.
        weight: Its share of the schedules, beside the other combinations'.
    """

    scenario: str
    expected: str
    params: tuple[tuple[str, str], ...] = ()
    revision: str = "fixed"
    faults: str = ""
    strategy: str = "portfolio"
    depth: Number = 3
    preemptions: Number | None = None
    steps_max: Number
    early_timeouts: bool = False
    first: int = 0
    last: int = 0
    schedules: Number = SCHEDULES_DEFAULT
    weight: tuple[Number, Number] = (1, 1)

    @property
    def clean(self) -> bool:
        """Whether a failure is news: all but the canary and its like."""
        return self.expected == "clean"

    @property
    def parts(self) -> int:
        """How many it has."""
        return self.last - self.first + 1

    @property
    def what(self) -> tuple[object, ...]:
        """All that tells it from another combination."""
        return (
            self.scenario,
            self.params,
            self.revision,
            self.faults,
            self.strategy,
            self.depth,
            self.preemptions,
            self.steps_max,
            self.early_timeouts,
        )

    def label(self) -> str:
        """For people."""
        more = [*(f"{name}={value}" for name, value in self.params)]
        more += [self.faults] if self.faults else []
        more += [self.revision] if self.revision != "fixed" else []
        return " ".join([self.scenario, self.strategy, *more])

    def program(self, seed: int) -> tuple[Spec, Setup]:
        """What to explore with that seed, and how.

        Raises:
            UsageError: The scenario, a parameter, the strategy or a fault is not known here.
        """
        spec = Spec(self.scenario, params=self.params, revision=self.revision, faults=self.faults)
        entry = catalogue.check(spec)
        options = Options(
            strategy=self.strategy,
            seed=seed,
            depth=self.depth,
            preemptions=self.preemptions,
            steps_max=self.steps_max,
            early_timeouts=self.early_timeouts,
            keep_going=True,
        )
        bound = options.bound(spec, entry)
        return bound, options.setup(bound, entry)


@dataclass(frozen=True, slots=True)
class Job:
    """One part: all that a process anywhere needs to run it.

    Attributes:
        number: In the plan, from 1.
        index: Of its combination, from 0.
        combination: What to explore, and how.
        seed: The only source of randomness.
    """

    number: int
    index: int
    combination: Combination
    seed: int


# Gives the next part; None where there is none for now.
Take = Callable[[], Job | None]


class Plan(msgspec.Struct, frozen=True, dict=True):
    """A campaign as it will run: scenarios by name, every default written out.

    Attributes:
        combinations: In catalogue order, the watchers first.
        schedules_max: Budget: parts are begun as long as those before have fewer; None for none.
        seconds: Budget of wall time, of all sessions together; None for none.
        part_seconds: A part that takes longer is given up.
    """

    combinations: tuple[Combination, ...]
    schedules_max: Number | None = None
    seconds: float | None = None
    part_seconds: float = PART_SECONDS_DEFAULT

    def encode(self) -> str:
        """As text, the same for equal plans."""
        return msgspec.json.encode(self).decode()

    @classmethod
    def decode(cls, text: str) -> Plan:
        """Read what ``encode`` wrote.

        Raises:
            UsageError: It did not.
        """
        try:
            plan = msgspec.json.decode(text, type=Plan)
        except (msgspec.MsgspecError, RecursionError) as error:
            raise UsageError(f"the campaign's plan is damaged: {given.short(error)}") from None
        _check_sizes(plan)
        return plan

    @property
    def digest(self) -> str:
        """Equal for equal plans."""
        return hashlib.sha256(self.encode().encode()).hexdigest()[:16]

    @cached_property
    def count(self) -> int:
        """Parts within the budget of schedules."""
        return sum(1 for _ in self.jobs())

    def jobs(self) -> Iterator[Job]:
        """The parts within the budget of schedules, in order of their numbers."""
        begun = 0
        for number, (index, seed) in enumerate(self._order(), 1):
            combination = self.combinations[index]
            if self.schedules_max is not None and begun >= self.schedules_max:
                return
            begun += combination.schedules
            yield Job(number, index, combination, seed)

    def _order(self) -> Iterator[tuple[int, int]]:
        """Combination and seed of each part: always the one that is behind its share the most."""
        scale = math.lcm(*(c.weight[0] for c in self.combinations))
        ahead = [
            (0 if c.scenario in WATCHERS else self._stride(c, scale), index, c.first)
            for index, c in enumerate(self.combinations)
        ]
        heapq.heapify(ahead)
        while ahead:
            done, index, seed = ahead[0]
            yield index, seed
            combination = self.combinations[index]
            if seed == combination.last:
                heapq.heappop(ahead)
            else:
                stride = self._stride(combination, scale)
                heapq.heapreplace(ahead, (done + stride, index, seed + 1))

    def _stride(self, combination: Combination, scale: int) -> int:
        """How far one part brings its combination, in units of its share."""
        share, among = combination.weight
        return combination.schedules * among * (scale // share)


def read(path: Path) -> tuple[str, Plan]:
    """The name and the plan in a file.

    Raises:
        UsageError: It cannot be read, or says what makes no sense; the message says where.
    """
    written = given.read_toml(path, "the plan", _File, "is no plan")
    try:
        return check_name(written.name), _made(written)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None


def made(
    scenarios: Sequence[str],
    *,
    strategies: Sequence[str] = (),
    seeds: str = "",
    schedules: int | None = None,
    faults: Sequence[str] = (),
    revision: str = "fixed",
    seconds: float | None = None,
    schedules_max: int | None = None,
) -> Plan:
    """A plan from options; the empty ones take their defaults.

    Raises:
        UsageError: One makes no sense.
    """
    return _made(
        _File(
            strategies=list(strategies) or None,
            seeds=seeds or None,
            schedules=schedules,
            faults=list(faults) or None,
            revision=revision,
            seconds=seconds,
            schedules_max=schedules_max,
            scenario=[_Table(name=name) for name in scenarios],
        )
    )


def check_name(name: str) -> str:
    """A campaign's name; it may be empty.

    Raises:
        UsageError: It is too long, or has other characters than a file's name may have.
    """
    plain = all(c.isalnum() or c in "-_." for c in name) and not name.startswith(".")
    if len(name) > _NAME_CHARS_MAX or not plain:
        raise UsageError(
            f"a campaign's name is at most {_NAME_CHARS_MAX} letters, digits, '-', '_' and '.', "
            f"none of the last in front; got {name[: _NAME_CHARS_MAX + 1]!r}"
        )
    return name


def parse_range(text: int | str, what: str) -> tuple[int, int]:
    """``7`` or ``0-99``, first and last.

    Raises:
        UsageError: It is neither; the message says ``what`` it was for.
    """
    try:
        first, dash, last = str(text).partition("-")
        begin = int(first)
        end = int(last) if dash else begin
    except ValueError:
        begin, end = 1, 0
    if not 0 <= begin <= end <= SEED_MAX:
        shown = repr(text[:60]) if isinstance(text, str) else "another number"
        raise UsageError(
            f"{what} is a number or a range such as 0-99, up to {SEED_MAX}; got {shown}"
        )
    return begin, end


def _made(written: _File) -> Plan:
    """Every default written out, every name looked up."""
    tables = written.scenario or [_Table(name="*")]
    found: list[Combination] = []
    for table in tables:
        for entry in catalogue.select([table.name]):
            if entry.name not in WATCHERS or table.name == entry.name:
                found += _combinations(entry, table, written)
                _check_count(len(found))
    found = _watchers(found) + found
    seen: set[tuple[object, ...]] = set()
    for combination in found:
        if combination.what in seen:
            raise UsageError(
                f"the plan has {combination.label()} twice; give each scenario one table, or "
                "tables that differ in strategies or faults"
            )
        seen.add(combination.what)
    plan = Plan(
        tuple(found), written.schedules_max, written.seconds, part_seconds=written.part_seconds
    )
    _check_sizes(plan)
    for combination in plan.combinations:
        combination.program(combination.first)[1].check()
    return plan


def _combinations(entry: catalogue.Scenario, table: _Table, written: _File) -> list[Combination]:
    """What one table says of one scenario."""
    strategies = _chosen(table.strategies, written.strategies, ["portfolio"])
    faults = _chosen(table.faults, written.faults, [""])
    if not strategies or not faults:
        what = "faults" if strategies else "strategies"
        raise UsageError(f"{what} is empty for {entry.name}; leave it out, or name one")
    # Before they are made: their number is a product.
    _check_count(len(strategies) * len(faults))
    for strategy in strategies:
        if strategy not in strategy_names():
            raise catalogue.unknown("strategy", strategy, strategy_names())
    first, last = parse_range(_chosen(table.seeds, written.seeds, 0), "seeds")
    if not 1 <= table.weight <= WEIGHT_MAX:
        raise UsageError(f"weight of {entry.name} is from 1 to {WEIGHT_MAX}, got {table.weight}")
    params = tuple(sorted((name, str(value)) for name, value in table.params.items()))
    steps_max = _chosen(table.steps_max, written.steps_max, entry.steps_max)
    early = _chosen(table.early_timeouts, written.early_timeouts, False)
    bound = _chosen(table.preemptions, written.preemptions, None)
    if bound is not None and not any(strategy_named(name).bounded for name in strategies):
        raise UsageError(
            f"preemptions bounds an exhaustive search; none of {', '.join(strategies)} takes it"
        )
    return [
        Combination(
            scenario=entry.name,
            expected=entry.expected,
            params=params,
            revision=_chosen(table.revision, written.revision, "fixed"),
            faults=injected,
            strategy=strategy,
            depth=_chosen(table.depth, written.depth, 3),
            preemptions=bound if strategy_named(strategy).bounded else None,
            steps_max=steps_max,
            early_timeouts=early or entry.early_timeouts,
            first=first,
            # A search that enumerates runs the same schedules with every seed.
            last=first if strategy_named(strategy).sequential else last,
            schedules=_chosen(table.schedules, written.schedules, SCHEDULES_DEFAULT),
            weight=(table.weight, len(strategies) * len(faults)),
        )
        for strategy in strategies
        for injected in faults
    ]


def _chosen(own: Any, general: Any, default: Any) -> Any:
    """The table's own value, else that at the top of the plan, else the default."""
    return own if own is not None else general if general is not None else default


def _watchers(found: Sequence[Combination]) -> list[Combination]:
    """A campaign that misses the canary, or passes the vacuous scenario, has shown nothing."""
    named = {combination.scenario for combination in found}
    return [
        Combination(
            scenario=entry.name,
            expected=entry.expected,
            steps_max=entry.steps_max,
            schedules=_WATCHER_SCHEDULES,
        )
        for entry in map(catalogue.find, WATCHERS)
        if entry.name not in named
    ]


def _check_count(combinations: int) -> None:
    if combinations > COMBINATIONS_MAX:
        raise UsageError(
            f"a plan has at most {COMBINATIONS_MAX:,} combinations of scenario, strategy and "
            f"faults, this has {combinations:,} or more; divide it"
        )


def _check_sizes(plan: Plan) -> None:
    """Refuse what would run for ever, or fill the memory, by mistake or by malice.

    Raises:
        UsageError: It names the value and its bound.
    """
    _check_count(len(plan.combinations))
    for combination in plan.combinations:
        if not 1 <= combination.schedules <= SCHEDULES_MAX:
            raise UsageError(
                f"schedules of a part is from 1 to {SCHEDULES_MAX:,}, got {combination.schedules}"
            )
        if not 0 <= combination.first <= combination.last <= SEED_MAX:
            raise UsageError(
                f"seeds of {given.short(combination.scenario)} are no range up to {SEED_MAX}"
            )
        if not all(1 <= number <= COMBINATIONS_MAX for number in combination.weight):
            raise UsageError(f"the weight of {given.short(combination.scenario)} is out of bounds")
    parts = sum(combination.parts for combination in plan.combinations)
    if parts > PARTS_MAX:
        raise UsageError(
            f"a plan has at most {PARTS_MAX:,} parts, this has {parts:,}; take fewer seeds, or "
            "more schedules in each part"
        )
    for name, value in (
        ("schedules_max", plan.schedules_max),
        ("seconds", plan.seconds),
        ("part_seconds", plan.part_seconds),
    ):
        if value is not None and not 0 < value < float("inf"):
            raise UsageError(f"{name} must be more than 0, got {value:g}")
