"""Stores on every engine that is here, and the toy scenarios in this process."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path

import postgres as postgres_server
import pytest
from stress_cli import TOYS, Cli, Ran

from stress.campaigns import parts
from stress.campaigns.store import Store
from stress.cli import main


@pytest.fixture(autouse=True)
def toys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The catalogue has them, and what is written lands in a folder of the test's own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LOCKLOOM_SCENARIOS", str(TOYS))
    parts.code_digest.cache_clear()
    yield
    parts.code_digest.cache_clear()


# The environment that has a driver tests PostgreSQL too, and fails where there is no server.
ENGINES = ["sqlite", *(["postgresql"] if importlib.util.find_spec("psycopg") else [])]
# Likewise for Dask, and for what writes Parquet.
collect_ignore = [
    file
    for needed, file in (("distributed", "test_cluster.py"), ("pyarrow", "test_parquet.py"))
    if not importlib.util.find_spec(needed)
]


@pytest.fixture(scope="session")
def postgres() -> Iterator[postgres_server.Server]:
    try:
        with postgres_server.server() as server:
            yield server
    except postgres_server.NoServer as error:
        pytest.fail(str(error), pytrace=False)


@pytest.fixture(params=ENGINES)
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A store that is not there yet, on each engine."""
    if request.param == "sqlite":
        return str(tmp_path / "store.sqlite")
    server: postgres_server.Server = request.getfixturevalue("postgres")
    return server.database()


@pytest.fixture
def opened(where: str) -> Iterator[Callable[..., Store]]:
    """Open that store, as often as is wanted; closed with the test."""
    kept: list[Store] = []

    def opens(**options: object) -> Store:
        kept.append(Store(where, **{"make": True, "patience": 5.0} | options))  # type: ignore[arg-type]
        return kept[-1]

    yield opens
    for store in kept:
        store.close()


@pytest.fixture
def store(opened: Callable[..., Store]) -> Store:
    return opened()


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Cli:
    """A command line in this process: for those that run nothing themselves."""

    def run(*args: object) -> Ran:
        capsys.readouterr()
        code = main([str(arg) for arg in args])
        out, err = capsys.readouterr()
        return Ran(code, out, err)

    return run
