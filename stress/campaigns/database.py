"""The database behind a store: reached, settled, and trusted with nothing.

A store may be a stranger's file. What SQLite would run as it is read (views, triggers, computed
columns, virtual tables) is refused; what a column holds is taken for what it should be, or refused:
SQLite keeps whatever somebody puts there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, OperationalError

from harness.errors import UsageError
from stress.artefacts import make_ignored
from stress.campaigns import schema
from stress.given import is_file, short

_BUSY_SECONDS: Final = 2.0
_LASTING: Final = ("SQLITE_READONLY", "SQLITE_CORRUPT", "SQLITE_NOTADB")

_T = TypeVar("_T")


def engine(where: str, *, make: bool) -> Engine:
    """The database, without touching it yet."""
    url = URL.create("sqlite", database=where)
    try:
        if "://" in where:
            url = make_url(where)
        engine = create_engine(url)
    except (ArgumentError, NoSuchModuleError) as error:
        raise UsageError(f"--store is a file or a database URL: {error}") from None
    except ImportError as error:
        raise UsageError(
            f"--store {url.get_backend_name()} needs its driver beside the extra: "
            f"pip install 'lockloom[campaign]' {error.name}"
        ) from None
    if engine.dialect.name == "sqlite":
        _settle_sqlite(engine)
        path = Path(url.database or "")
        if not make and not is_file(path):
            raise UsageError(f"there is no store {path}; `campaign run` makes one")
        if make:
            try:
                make_ignored(path.parent)
            except OSError as error:
                raise UsageError(f"cannot make the store {path}: {error.strerror}") from None
    return engine


def _settle_sqlite(engine: Engine) -> None:
    """Write-ahead log: readers see the last commit and hold up nobody."""

    @event.listens_for(engine, "connect")
    def _connected(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # transactions begin where we say
        for pragma in (
            f"busy_timeout={int(_BUSY_SECONDS * 1000)}",
            "trusted_schema=OFF",  # a store may come from a stranger
            "foreign_keys=ON",
            # A commit survives the death of any process; after a power cut the last may be missing,
            # whole, and their parts are run again.
            "synchronous=NORMAL",
        ):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begins(connection: Connection) -> None:
        writes = connection.get_execution_options().get("writes", False)
        if writes:
            # Not as it is opened: the file stays as it is for who only reads. Refused where it is
            # locked, as the transaction will be.
            with contextlib.suppress(OperationalError):
                connection.exec_driver_sql("PRAGMA journal_mode=WAL").close()
        # One that reads first and writes later could find that somebody else wrote in between.
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def must_be_ours(connection: Connection) -> None:
    """Refuse what would run as it is read; a recursive view has no end, for instance.

    Raises:
        UsageError: It names what is there.
    """
    if connection.dialect.name != "sqlite":
        return
    rows = connection.exec_driver_sql("SELECT type, name, sql FROM sqlite_master").all()
    for kind, name, sql in rows:
        if kind not in ("table", "index") or str(sql).upper().startswith("CREATE VIRTUAL"):
            raise UsageError(
                f"this is no store of campaigns: it has the {kind} {short(repr(name))}"
            )
    for table in schema.METADATA.tables:
        for column in connection.exec_driver_sql(f"PRAGMA table_xinfo({table})").all():
            if column.hidden:
                raise UsageError(
                    f"this is no store of campaigns: {table} computes {short(repr(column.name))}"
                )


def lasting(error: DBAPIError) -> bool:
    """Whether it stays as it is, however long one waits."""
    return getattr(error.orig, "sqlite_errorname", "") in _LASTING


def from_json(text: str, kind: type[_T]) -> _T:
    """A column that holds JSON.

    Raises:
        UsageError: It is damaged.
    """
    try:
        return msgspec.json.decode(text, type=kind)
    except (msgspec.MsgspecError, UnicodeError, TypeError, RecursionError) as error:
        raise UsageError(f"the store is damaged: {error}") from None


def typed(row: Any, kind: type[_T]) -> _T:
    """A row as what it should be.

    Raises:
        UsageError: It is damaged.
    """
    try:
        if isinstance(row, Mapping):
            row = {str(name): value for name, value in row.items()}  # SQLAlchemy's names are more
        return msgspec.convert(row, kind)
    except (msgspec.MsgspecError, TypeError) as error:
        raise UsageError(f"the store is damaged: {error}") from None
