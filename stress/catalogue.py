"""The scenarios: what they are, where they are found, and how one becomes a program.

A scenario is one decorated function in a module of ``stress/scenarios`` (or of a folder named in
the environment variable ``LOCKLOOM_SCENARIOS``)::

    @scenario("commit-decommit", summary="...", tags=("commit",), threads=2, mutants=("M33",))
    def commit_against_decommit(ctx: Context) -> None:
        kernel = ctx.kernel()
        ...

The function is the program: it builds its own fresh system, spawns, joins, asserts. A ``Spec`` says
all that a program is made of; it travels to worker processes and, as ``Token.meta``, in tokens.
"""

from __future__ import annotations

import difflib
import fnmatch
import functools
import importlib
import importlib.util
import os
import pkgutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal, Self

from harness.errors import TokenError, UsageError
from harness.sync import current_schedule
from stress.given import is_folder, short
from stress.program import PROGRAM

if TYPE_CHECKING:
    from model.faults import FaultPlan
    from model.kernel import Kernel

Expected = Literal["clean", "finding", "inconclusive"]
REVISIONS: Final = ("fixed", "seed")
# In the text of a fault: one of several occurrences, to be drawn.
RANGE: Final = "-"
# Of a whole number: counts of threads and operations, which a token may carry.
PARAMETER_MAX: Final = 1_000
FOLDERS_VARIABLE: Final = "LOCKLOOM_SCENARIOS"

_REGISTRY: Final[dict[str, Scenario]] = {}
# Verdict of an exploration that did what its scenario says it should.
VERDICT_EXPECTED: Final = {"clean": "pass", "finding": "fail", "inconclusive": "inconclusive"}


@dataclass(frozen=True, slots=True)
class Spec:
    """All that a program is made of; equal specs are equal programs.

    Attributes:
        scenario: Its name.
        params: What the scenario's own parameters differ in, as text.
        revision: Of the kernel model: "fixed" or "seed".
        defects: Latent defects that stand, such as ("L1",); None leaves it to the revision.
        mutant: Id of the planted bug; empty for none.
        edit: Checksum of that bug's edit, so that a token of another edit is refused.
        faults: Injected faults, as ``FaultPlan.parse`` reads them; empty takes the scenario's,
            and "none" takes none.
        draw: Seed of drawn operation programs; 0 where the scenario draws none.
        redraw: Draw another program for every schedule; False draws one for all, as a search that
            enumerates needs it.
        checks: Whether the kernel's invariants are on; only measurements turn them off.
    """

    scenario: str
    params: tuple[tuple[str, str], ...] = ()
    revision: str = "fixed"
    defects: tuple[str, ...] | None = None
    mutant: str = ""
    edit: str = ""
    faults: str = ""
    draw: int = 0
    redraw: bool = True
    checks: bool = True

    def meta(self) -> dict[str, str | int]:
        """As a token carries it; what is at its default is left out."""
        meta: dict[str, str | int] = {"scenario": self.scenario, "revision": self.revision}
        optional: dict[str, str | int] = {
            "params": ",".join(f"{name}={value}" for name, value in self.params),
            "defects": "none" if self.defects == () else ",".join(self.defects or ()),
            "mutant": self.mutant,
            "edit": self.edit,
            "faults": self.faults,
            "draw": self.draw,
            "steady": int(not self.redraw),
        }
        return meta | {name: value for name, value in optional.items() if value}

    @classmethod
    def from_meta(cls, meta: Mapping[str, str | int]) -> Self:
        """Read what ``meta`` wrote.

        Raises:
            TokenError: The token was made by ``harness.explore`` on some other program.
        """
        if not isinstance(meta.get("scenario"), str):
            raise TokenError(
                "the token names no scenario: it was made outside of stress; "
                "replay it with harness.replay(program, token)"
            )
        defects = str(meta.get("defects", ""))
        return cls(
            scenario=str(meta["scenario"]),
            params=_parse_params(str(meta.get("params", ""))),
            revision=str(meta.get("revision", "fixed")),
            defects=_parse_defects(defects),
            mutant=str(meta.get("mutant", "")),
            edit=str(meta.get("edit", "")),
            faults=str(meta.get("faults", "")),
            draw=_whole(meta, "draw"),
            redraw=not _whole(meta, "steady"),
        )


@dataclass(frozen=True, slots=True)
class Drawing:
    """How a scenario's operation programs are drawn, and made simpler where one fails.

    Attributes:
        param: The parameter that gives a program as text; drawn where it is empty.
        drawn: From the context and a seed to the program.
        simpler: From a program to those with less in them, the boldest first.
        lines: A program for a reader.
    """

    param: str
    drawn: Callable[[Context, int], str]
    simpler: Callable[[str], Iterable[str]]
    lines: Callable[[str], list[str]]


@dataclass(frozen=True, slots=True)
class Scenario:
    """One entry of the catalogue.

    Attributes:
        name: Lower case, words joined by hyphens; names it on the command line and in tokens.
        summary: One line.
        function: Takes a ``Context``; is the program.
        tags: For choosing, such as "commit" or "evict".
        threads: How many threads it races, the caller not counted.
        exercises: What of the kernel it exercises: races (R1), functions.
        mutants: Ids of the planted bugs that it catches.
        defects: Ids of the latent defects that it catches on the seed revision.
        faults: Faults that it injects by default.
        params: Parameters with their default values.
        expected: "clean"; "finding" (the canary); "inconclusive" (the vacuous scenario).
        drawn: Its operations, or where its faults strike, are drawn from a seed that differs in
            every schedule.
        drawing: How, where they can also be given.
        early_timeouts: A timeout may fire at any step.
        steps_max: The step bound of one schedule.
    """

    name: str
    summary: str
    function: Callable[[Context], object] = field(repr=False)
    tags: tuple[str, ...] = ()
    threads: int = 2
    exercises: tuple[str, ...] = ()
    mutants: tuple[str, ...] = ()
    defects: tuple[str, ...] = ()
    faults: str = ""
    params: Mapping[str, str | int] = field(default_factory=dict)
    expected: Expected = "clean"
    drawn: bool = False
    drawing: Drawing | None = field(default=None, repr=False)
    early_timeouts: bool = False
    steps_max: int = 20_000

    @property
    def expected_verdict(self) -> str:
        """The verdict that an exploration of it must have."""
        return VERDICT_EXPECTED[self.expected]


class Context:
    """What a scenario is given: the choices that are not its own.

    Attributes:
        spec: All of them.
        revision: "fixed" or "seed".
        faults: Injected faults as text; empty for none.
        params: The scenario's parameters, overridden ones included.
    """

    __slots__ = ("_drawn", "faults", "params", "revision", "spec")

    def __init__(self, spec: Spec, entry: Scenario) -> None:
        """Resolve ``spec`` against the defaults of ``entry``."""
        self.spec = spec
        self.revision = spec.revision
        self._drawn = entry.drawn
        self.faults = spec.faults or entry.faults
        self.params: Mapping[str, str | int] = MappingProxyType(_merged(entry, spec.params))

    @property
    def seed(self) -> int:
        """Seed for operations that the scenario draws; unequal for unequal runs or schedules.

        Raises:
            UsageError: The scenario is not entered as one that draws, so its tokens hold no seed.
        """
        if not self._drawn:
            raise UsageError("only a scenario with drawn=True has a seed; enter it so")
        return self.seed_of(current_schedule())

    def seed_of(self, schedule: int) -> int:
        """``seed`` in the schedule of that number."""
        return _seed(self.spec, schedule)

    def kernel(self, **options: Any) -> Kernel:
        """Build the modelled system: its revision, defects and faults as chosen, the rest as given.

        The model is imported here and not before, so that a planted bug is in place by then.
        """
        from model.faults import FaultPlan
        from model.kernel import Kernel
        from model.observed import ObservedKernel

        defects = None if self.spec.defects is None else frozenset(self.spec.defects)
        schedule = current_schedule()
        options.setdefault("faults", _drawn(self.spec, FaultPlan.parse(self.faults), schedule))
        options.setdefault("checks", self.spec.checks)
        kind = ObservedKernel if options["checks"] else Kernel
        return kind(revision=self.revision, defects=defects, **options)


def scenario(
    name: str,
    *,
    summary: str,
    tags: Sequence[str] = (),
    threads: int = 2,
    exercises: Sequence[str] = (),
    mutants: Sequence[str] = (),
    defects: Sequence[str] = (),
    faults: str = "",
    params: Mapping[str, str | int] | None = None,
    expected: Expected = "clean",
    drawn: bool = False,
    drawing: Drawing | None = None,
    early_timeouts: bool = False,
    steps_max: int = 20_000,
) -> Callable[[Callable[[Context], object]], Callable[[Context], object]]:
    """Enter a function into the catalogue; the arguments are those of ``Scenario``.

    Raises:
        UsageError: The name is taken, or no name at all.
    """

    def enter(function: Callable[[Context], object]) -> Callable[[Context], object]:
        known = _REGISTRY.get(name)
        if known is not None and known.function.__module__ != function.__module__:
            raise UsageError(
                f"two scenarios are named {name!r}, in {known.function.__module__} and in "
                f"{function.__module__}; rename one"
            )
        if not name or not name.replace("-", "").replace("_", "").isalnum():
            raise UsageError(f"a scenario's name is letters, digits and hyphens, got {name!r}")
        _REGISTRY[name] = Scenario(
            name=name,
            summary=summary,
            function=function,
            tags=tuple(tags),
            threads=threads,
            exercises=tuple(exercises),
            mutants=tuple(mutants),
            defects=tuple(defects),
            faults=faults,
            params=dict(params or {}),
            expected=expected,
            drawn=drawn or RANGE in faults,
            drawing=drawing,
            early_timeouts=early_timeouts,
            steps_max=steps_max,
        )
        return function

    return enter


def discover() -> dict[str, Scenario]:
    """Import every module that holds scenarios, in the order of their names; by name of scenario.

    Raises:
        UsageError: A folder of ``LOCKLOOM_SCENARIOS`` is missing or a file in it cannot be loaded.
    """
    for module in _shipped():
        importlib.import_module(module)
    for folder in filter(None, os.environ.get(FOLDERS_VARIABLE, "").split(os.pathsep)):
        _load_folder(Path(folder))
    return dict(_REGISTRY)


def find(name: str) -> Scenario:
    """Look a scenario up.

    Raises:
        UsageError: There is none of that name; the message suggests one that is close.
    """
    known = discover()
    if name not in known:
        raise UsageError(_unknown("scenario", name, known))
    return known[name]


def select(patterns: Iterable[str]) -> list[Scenario]:
    """Scenarios named or matched by shell patterns, each once, in catalogue order; all for none.

    Raises:
        UsageError: A pattern matches nothing.
    """
    known = discover()
    wanted = list(patterns)
    chosen: set[str] = set()
    for pattern in wanted:
        matches = fnmatch.filter(known, pattern)
        if not matches:
            raise UsageError(_unknown("scenario", pattern, known))
        chosen.update(matches)
    return [entry for name, entry in known.items() if not wanted or name in chosen]


def check(spec: Spec) -> Scenario:
    """See that ``spec`` can become a program here, and return its scenario.

    Raises:
        UsageError: Unknown scenario, parameter, revision or fault.
    """
    entry = find(spec.scenario)
    if spec.revision not in REVISIONS:
        raise UsageError(_unknown("revision", spec.revision, REVISIONS))
    _merged(entry, spec.params)
    if spec.faults:
        from model.faults import FaultPlan

        FaultPlan.parse(spec.faults)
    return entry


def program_of(spec: Spec) -> Callable[[], object]:
    """The program of a spec. A planted bug must be installed before (``stress.mutants``).

    Raises:
        UsageError: As ``check``.
    """
    entry = check(spec)
    # Whatever a schedule would import first: on a busy machine that may take longer than a thread
    # may stand still.
    importlib.import_module("model.observed")
    # Not a closure: tracebacks then begin in the scenario itself.
    program = functools.partial(entry.function, Context(spec, entry))
    program.__qualname__ = entry.name  # type: ignore[attr-defined] # what tokens call it
    return program


def plan_of(spec: Spec, entry: Scenario, schedule: int) -> FaultPlan:
    """The faults that strike in that schedule, each at one occurrence.

    Raises:
        UsageError: They make no sense.
    """
    from model.faults import FaultPlan

    return _drawn(spec, FaultPlan.parse(spec.faults or entry.faults), schedule)


def _drawn(spec: Spec, plan: FaultPlan, schedule: int) -> FaultPlan:
    return plan.drawn(_seed(spec, schedule)) if plan.draws else plan


def _seed(spec: Spec, schedule: int) -> int:
    return spec.draw << 32 | (schedule if spec.redraw else 0)


def draws(spec: Spec, entry: Scenario) -> bool:
    """Whether ``spec`` needs a seed: for its operations, or for where its faults strike."""
    return entry.drawn or RANGE in spec.faults


def with_params(spec: Spec, texts: Sequence[str]) -> Spec:
    """``spec`` with parameters as the command line gives them, ``NAME=VALUE`` each.

    Raises:
        UsageError: One is not of that form, or the scenario has no such parameter.
    """
    params = tuple(pair for text in texts for pair in _parse_params(text))
    changed = replace(spec, params=params)
    check(changed)
    return changed


def unknown(what: str, name: str, known: Iterable[str]) -> UsageError:
    """The error for a name that nobody knows, with the closest ones or all of them."""
    return UsageError(_unknown(what, name, known))


def _unknown(what: str, name: str, known: Iterable[str]) -> str:
    names, name = list(known), short(name)
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    if close:
        return f"unknown {what} {name!r}; did you mean {' or '.join(close)}?"
    if what == "scenario":
        return f"unknown scenario {name!r}; `{PROGRAM} list` shows the {len(names)} there are"
    return f"unknown {what} {name!r}; known: {', '.join(names)}"


def _parse_params(text: str) -> tuple[tuple[str, str], ...]:
    pairs = []
    for part in filter(None, text.split(",")):
        name, equals, value = part.partition("=")
        if not name or not equals:
            raise UsageError(f"a parameter is written NAME=VALUE, got {short(part)!r}")
        pairs.append((name.strip(), value.strip()))
    return tuple(pairs)


def _whole(meta: Mapping[str, str | int], name: str) -> int:
    value = meta.get(name, 0)
    if not isinstance(value, int) or value < 0:
        raise TokenError(f"the token's {name} is {short(value)!r}, no number; copy it again, whole")
    return value


def _parse_defects(text: str) -> tuple[str, ...] | None:
    if not text:
        return None
    return () if text == "none" else tuple(text.split(","))


def _merged(entry: Scenario, params: Sequence[tuple[str, str]]) -> dict[str, str | int]:
    """The scenario's parameters with overrides, each converted to the type of its default."""
    merged = dict(entry.params)
    for name, value in params:
        if name not in merged:
            message = _unknown("parameter", name, merged) if merged else "it takes no parameter"
            raise UsageError(f"scenario {entry.name}: {message}")
        if isinstance(merged[name], int):
            try:
                merged[name] = int(value)
            except ValueError:
                raise UsageError(
                    f"scenario {entry.name}: parameter {name} is a whole number, got "
                    f"{short(value)!r}"
                ) from None
            if not 0 <= int(merged[name]) <= PARAMETER_MAX:
                raise UsageError(
                    f"scenario {entry.name}: parameter {name} is at most {PARAMETER_MAX:,}"
                )
        else:
            merged[name] = value
    return merged


def _shipped() -> list[str]:
    """Names of the modules of ``stress.scenarios``, sorted."""
    spec = importlib.util.find_spec("stress.scenarios")
    if spec is None or spec.submodule_search_locations is None:
        return []
    found = pkgutil.iter_modules(spec.submodule_search_locations)
    return sorted(f"stress.scenarios.{module.name}" for module in found)


class _FreshLoader(SourceFileLoader):
    """Compiles what the file says now; reads and writes no bytecode cache.

    Python takes cached bytecode for current where the source's size and its time in whole seconds
    agree, so that a file edited twice within a second would run as it stood before.
    """

    def get_code(self, fullname: str) -> CodeType:
        """See ``importlib.abc.InspectLoader``."""
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), path)


def _load_folder(folder: Path) -> None:
    if not is_folder(folder):
        raise UsageError(f"{FOLDERS_VARIABLE} names {short(folder)}, which is no folder")
    for path in sorted(folder.glob("*.py")):
        name = f"lockloom_scenarios_{path.stem}"
        if name in sys.modules:
            continue
        spec = importlib.util.spec_from_loader(name, _FreshLoader(name, str(path)))
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        try:
            spec.loader.exec_module(module)
        except Exception as error:
            del sys.modules[name]
            raise UsageError(f"cannot load scenarios from {path}: {error}") from error
