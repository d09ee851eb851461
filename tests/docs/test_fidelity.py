"""The seed-to-model table points somewhere, and leaves nothing of the seed out."""

from __future__ import annotations

import ast
import functools
import importlib
import operator
import tomllib
from pathlib import Path

import pytest
from fidelity import PAGE, Member, members, modules, page

from stress.catalogue import discover

ROOT = Path(__file__).resolve().parents[2]
TABLE = tomllib.loads((ROOT / "docs" / "fidelity.toml").read_text(encoding="utf-8"))
ROWS = [(kind, row) for kind in ("function", "assert", "race", "kernel") for row in TABLE[kind]]

# Every function of the seed, in its order.
FUNCTIONS = [
    "PhysicalPageProvider",
    "~PhysicalPageProvider",
    "properties",
    "Init",
    "GetPageSync",
    "SendAsyncRequest",
    "QueueRequestLocked",
    "ClearAsyncRequest",
    "SwapAsyncRequest",
    "FreePages",
    "DebugIsPageOk",
    "OnDetach",
    "OnClose",
    "DequeueRequest",
    "WaitOnEvent",
    "Dump",
    "SupportsPageRequestType",
]

# Asserts per function of the seed.
ASSERTS = {
    "Init": 1,
    "GetPageSync": 1,
    "SendAsyncRequest": 1,
    "QueueRequestLocked": 1,
    "ClearAsyncRequest": 1,
    "SwapAsyncRequest": 1,
    "DebugIsPageOk": 1,
    "DequeueRequest": 2,
    "WaitOnEvent": 3,
}


def label(row):
    known = row.get("id") or row.get("kernel")
    return known or f"{row['seed']} {row.get('condition', '')}".strip()


@functools.cache
def functions_of(path: Path) -> frozenset[str]:
    """Names of the test functions in a file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return frozenset(node.name for node in tree.body if isinstance(node, ast.FunctionDef))


@pytest.mark.parametrize(("kind", "row"), ROWS, ids=[label(row) for _, row in ROWS])
def test_a_row_points_somewhere(kind, row):
    assert ("model" in row and "test" in row) or row.get("why"), "neither model and test nor why"
    if "model" in row:
        module, _, qualname = row["model"].partition(":")
        assert operator.attrgetter(qualname)(importlib.import_module(module)) is not None
    if "test" in row:
        path, _, function = row["test"].partition("::")
        assert function in functions_of(ROOT / path), f"no {function} in {path}"
    if kind == "assert":
        module = row["model"].partition(":")[0]
        source = Path(importlib.import_module(module).__file__ or "").read_text(encoding="utf-8")
        assert f'"{row["name"]}"' in source, f"{row['name']} is not asserted in {module}"


def test_every_function_of_the_seed_has_its_row():
    seeds = [row["seed"].removeprefix("PhysicalPageProvider::") for row in TABLE["function"]]
    assert seeds == FUNCTIONS


def test_every_assert_of_the_seed_has_its_row():
    counts: dict[str, int] = {}
    for row in TABLE["assert"]:
        function = row["seed"].removeprefix("PhysicalPageProvider::")
        counts[function] = counts.get(function, 0) + 1
    assert counts == ASSERTS


def test_every_race_has_its_row():
    assert [row["id"] for row in TABLE["race"]] == [f"R{n}" for n in range(1, 18)]


def test_every_method_of_the_provider_names_what_it_mirrors():
    """One ``Kernel:`` line per method, but for those that exist for the invariants only."""
    source = (ROOT / "model" / "physical_page_provider.py").read_text(encoding="utf-8")
    mirrored = [name for name in FUNCTIONS if f"Kernel: ``PhysicalPageProvider::{name}``" in source]
    assert mirrored == [name for name in FUNCTIONS if name != "~PhysicalPageProvider"]


# -- the page -------------------------------------------------------------------------------------

MEMBERS = members()
APART = {row["name"] for row in TABLE["module"]}
OWN = {row["model"] for row in TABLE["own"]}


def unexplained(found: list[Member], apart: set[str], own: set[str]) -> list[str]:
    """Public members of the model of which nothing says what they mirror."""
    return [
        member.symbol
        for member in found
        if member.module not in apart
        and not (member.kernel or member.see)
        and member.symbol not in own
    ]


def test_nothing_public_in_the_model_is_without_a_row():
    missing = unexplained(MEMBERS, APART, OWN)

    assert not missing, (
        f"{', '.join(missing)}: say what it mirrors in the docstring (`Kernel: ...`), "
        "or why there is no such thing, in an [[own]] row of docs/fidelity.toml"
    )


def test_a_member_that_says_nothing_is_noticed():
    silent = Member("pmm", "PmmNode.invent", kernel="", omits="", see="")

    assert unexplained([silent], APART, OWN) == ["model.pmm:PmmNode.invent"]
    assert not unexplained([silent], {"pmm"}, OWN)


def test_rows_of_the_models_own_point_at_what_has_no_counterpart():
    spoken = {member.symbol for member in MEMBERS if member.kernel or member.see}
    public = {member.symbol for member in MEMBERS}

    assert not OWN - public, "an [[own]] row points nowhere"
    assert not OWN & spoken, "an [[own]] row, and a docstring that says what it mirrors"
    assert set(modules()) >= APART
    assert all(row["why"] for kind in ("module", "own", "omission") for row in TABLE[kind])


def test_a_docstring_that_speaks_for_another_is_there():
    spoken = [member for member in MEMBERS if member.kernel or member.symbol in OWN]
    names = {member.name.rpartition(".")[2] for member in spoken}
    for member in MEMBERS:
        if member.see and not member.kernel and member.module not in APART:
            assert member.see.rpartition(".")[2] in names, f"{member.symbol} refers to {member.see}"


def test_every_workload_of_the_kernel_has_its_row():
    assert [row["id"] for row in TABLE["workload"]] == [f"W{n}" for n in range(1, 18)]
    for row in TABLE["workload"]:
        assert row.get("test") or row.get("scenario") or row.get("why"), row["id"]
        if "test" in row:
            path, _, function = row["test"].partition("::")
            assert function in functions_of(ROOT / path), f"no {function} in {path}"
        if "scenario" in row:
            assert row["scenario"] in discover(), f"no scenario {row['scenario']}"


@pytest.mark.once
def test_the_page_is_current(request):
    text = page()
    if request.config.getoption("--update-golden"):
        PAGE.write_text(text, encoding="utf-8")

    assert PAGE.read_text(encoding="utf-8") == text, (
        "docs/fidelity.md is stale: pytest tests/docs --update-golden"
    )
