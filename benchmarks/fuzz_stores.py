"""Stores of campaigns, caches of audits and logs that still grow, as strangers could give them."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import random
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import fuzz_mutations as mutations

from stress import audit_cache
from stress.audit import audit_paths, render_text
from stress.campaigns import commands, parts, plan
from stress.campaigns.plan import Job
from stress.campaigns.schema import METADATA
from stress.campaigns.store import Store
from stress.pool import Crash

_ENDLESS: Final = "n({0}) AS (SELECT {1} UNION ALL SELECT {1} FROM n) SELECT * FROM n"
_SAME: Final = """
UPDATE campaigns SET made = '2026-01-01T00:00:00.000+00:00';
UPDATE sessions SET began = '2026-01-01T00:00:00.000+00:00', versions = '{"cores":2}';
UPDATE sessions SET seen = began;
UPDATE parts SET done = '2026-01-01T00:00:00.000+00:00', worker = 'here:1', seconds = 0.5;
UPDATE losses SET at = '2026-01-01T00:00:00.000+00:00';
"""
# What no store of ours has.
_SCHEMAS: Final = (
    "DROP TABLE {table}",
    "ALTER TABLE {table} RENAME TO other",
    "ALTER TABLE {table} RENAME COLUMN {column} TO other",
    "CREATE VIEW other AS SELECT * FROM {table}",
    "CREATE TRIGGER other AFTER UPDATE ON {table} BEGIN DELETE FROM parts; END",
    "ALTER TABLE {table} ADD COLUMN other AS (zeroblob(1000000000))",
    "DROP TABLE {table}; CREATE VIEW {table} AS WITH RECURSIVE {endless}",
    "DROP TABLE {table}; CREATE TABLE {table} (other)",
    "DROP TABLE {table}; CREATE TABLE {table} ({columns})",
    "INSERT INTO schema VALUES (7)",
    "DELETE FROM {table}",
)


def store(folder: Path) -> bytes:
    """A small campaign with findings, a loss and two sessions."""
    path = folder / "right.sqlite"
    made = plan.made(
        ["commit-decommit"], strategies=["random"], seeds="0-1", schedules=4, faults=["none"]
    )
    with Store(str(path), make=True) as new:
        campaign = new.create("right", made, "0" * 16)
        for session in (new.begin(campaign, 1, "local"), new.begin(campaign, 2, "tcp://a:1")):
            for job in made.jobs():
                new.commit(campaign, session, job, _outcome(job), 1.5)
            new.lose(campaign, session, Job(1, 0, made.combinations[0], 1), Crash(-9, "", 3, "at"))
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as database:
        # An input is a function of its number: not of the time, nor of who made it.
        database.executescript(_SAME)
        database.execute("PRAGMA journal_mode=DELETE")
        database.execute("VACUUM")
    data = path.read_bytes()
    path.unlink()
    return data


@functools.cache
def _outcome(job: Job) -> parts.Outcome:
    return parts.run(job)


def of_store(rng: random.Random, seeds: Sequence[bytes]) -> bytes:
    """Values in a few places, the schema, or the bytes of the file."""
    kind = rng.randrange(8)
    if kind == 0:
        return mutations.of_bytes(rng, seeds)
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as database:
        database.deserialize(rng.choice(seeds))
        for _ in range(rng.choice((1, 1, 2, 4))):
            with contextlib.suppress(sqlite3.Error, OverflowError, ValueError, RecursionError):
                (_schema if kind == 1 else _value)(rng, database)
        return database.serialize()


def _schema(rng: random.Random, database: sqlite3.Connection) -> None:
    table = rng.choice(sorted(METADATA.tables))
    columns = [column.name for column in METADATA.tables[table].columns]
    text = rng.choice(_SCHEMAS)
    database.executescript(
        text.format(
            table=table,
            column=rng.choice(columns),
            columns=", ".join(columns),
            endless=_ENDLESS.format(", ".join(columns), ", ".join("1" for _ in columns)),
        )
    )


def _value(rng: random.Random, database: sqlite3.Connection) -> None:
    table = rng.choice(sorted(METADATA.tables))
    column = rng.choice([column.name for column in METADATA.tables[table].columns])
    rows = database.execute(f"SELECT rowid, {column} FROM {table}").fetchall()  # noqa: S608 - ours
    if not rows:
        return
    row, known = rng.choice(rows)
    value: Any = mutations.alike(rng, known) if rng.random() < 0.6 else mutations.hostile(rng)
    if isinstance(known, str) and known.startswith(("{", "[")) and rng.random() < 0.6:
        value = mutations.of_json(rng, [known.encode()]).decode("utf-8", "replace")
    if isinstance(value, list | dict):
        value = repr(value)
    database.execute(
        f"UPDATE {table} SET {column} = ? WHERE rowid = ?",  # noqa: S608 - ours
        (value, row),
    )


def read_store(data: bytes, folder: Path) -> object:
    """What ``campaign list``, ``report`` and ``export`` do; they write below the working folder."""
    path = folder / "store.sqlite"
    for left in folder.glob("store.sqlite*"):
        left.unlink()
    path.write_bytes(data)
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        commands.list_campaigns(str(path), json=True)
        commands.report("", str(path), html=folder / "page.html", json=True)
        commands.export("", str(path), None, "csv", json=True)
        commands.diff("right", "right", str(path), json=True)
    return said.getvalue()


# -- audits ---------------------------------------------------------------------------------------


def cache_reader(log: Path, folder: Path) -> tuple[list[bytes], Callable[[bytes, Path], object]]:
    """A cache's entry for a log, and what is done with another in its place."""
    audit_cache.WORTH_BYTES = 0  # type: ignore[misc] # else only long logs have an entry
    cache = folder / "cache"
    audit_paths([log], cache=cache)
    (entry,) = (path for path in cache.iterdir() if not path.name.startswith("."))

    def read(data: bytes, _folder: Path) -> object:
        # With a checksum that is right: all others are refused by it.
        entry.write_bytes(hashlib.sha256(data).digest()[:16] + data)
        return render_text(audit_paths([log], cache=cache))

    return [entry.read_bytes()[16:]], read


def read_growing(data: bytes, folder: Path) -> object:
    """What ``audit --follow`` does with a log that comes in pieces."""
    path = folder / "growing.jsonl"
    # The first line is there when it begins, or it is no log.
    first = data.find(b"\n") + 1 or len(data)
    path.write_bytes(data[:first])
    left = [
        data[first:][at : at + 1 + len(data) // 3] for at in range(0, len(data), 1 + len(data) // 3)
    ]

    def more() -> bool:
        if not left:
            return False
        with path.open("ab") as stream:
            stream.write(left.pop(0))
        return True

    told: list[object] = []
    report = audit_paths([path], follow=told.append, wait=more)
    return render_text(report), told
