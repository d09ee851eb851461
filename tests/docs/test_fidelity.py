"""The seed-to-model table points somewhere, and leaves nothing of the seed out."""

from __future__ import annotations

import ast
import functools
import importlib
import operator
import tomllib
from pathlib import Path

import pytest

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
