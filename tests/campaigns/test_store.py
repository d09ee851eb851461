"""The store takes a part whole or not at all, once, and says in a line why it cannot."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from campaigning import altered, begin, drive, outcome_of, small_plan, timeless
from sqlalchemy import Connection, Engine, event, func, inspect, select, text

from harness.errors import TokenError, UsageError
from stress.campaigns import parts, result, schema
from stress.campaigns.parts import Outcome
from stress.campaigns.plan import Job
from stress.campaigns.store import Campaign, Store

Opens = Callable[..., Store]
Key = tuple[Campaign, int, Job]


def counts(store: Store) -> dict[str, int]:
    """Rows of each table that a part is entered into."""
    tables = (schema.parts, schema.findings, schema.coverage)
    with store._engine.connect() as connection:
        return {
            table.name: connection.scalar(select(func.count()).select_from(table)) or 0
            for table in tables
        }


def entered(store: Store, name: str = "it") -> tuple[Campaign, Key, Outcome]:
    """A campaign, and a part of it with a finding, which is not in yet."""
    campaign = begin(store, small_plan(), name)
    session = store.begin(campaign, 1, "here")
    job = next(campaign.plan().jobs())
    outcome = parts.run(job)
    assert outcome.found
    return campaign, (campaign, session, job), outcome


def test_what_was_entered_comes_back(store: Store) -> None:
    campaign, key, outcome = entered(store)

    assert store.commit(*key, outcome, 1.5)
    ((index, seed, at, again),) = store.outcomes(campaign)
    assert (index, seed) == (0, "0")
    assert at.startswith("20")
    assert again.timeless() == outcome.timeless()
    assert store.done(campaign) == {1}
    assert store.spent(campaign) == 1.5
    assert store.sessions(campaign)[0]["versions"]["code"] == parts.code_digest()


def test_a_seed_of_64_bits_comes_back(store: Store) -> None:
    most = (1 << 64) - 1
    campaign = begin(store, small_plan(seeds=f"{most}"))
    drive(store, campaign)

    assert {seed for _, seed, _, _ in store.outcomes(campaign)} == {"0", str(most)}


def test_a_part_counts_once_whoever_enters_it(store: Store, opened: Opens) -> None:
    campaign, key, outcome = entered(store)
    other = opened()
    session = other.begin(campaign, 1, "there")

    assert store.commit(*key, outcome, 1.0)
    before = counts(store)
    assert not store.commit(*key, outcome, 2.0)
    assert not other.commit(campaign, session, key[2], altered(outcome, steps=99), 1.0)
    assert counts(store) == before
    ((_, _, _, kept),) = store.outcomes(campaign)
    assert kept.steps == outcome.steps


@pytest.mark.parametrize("table", ["parts", "coverage", "findings", "sessions"])
def test_a_part_is_entered_whole_or_not_at_all(store: Store, table: str) -> None:
    """Whatever breaks after any of its statements."""
    campaign, key, outcome = entered(store)
    broken: list[str] = []

    def breaks(_c: object, _cursor: object, statement: str, *_: object) -> None:
        if table in statement.split("(", maxsplit=1)[0] and not statement.startswith("SELECT"):
            broken.append(statement)
            raise KeyboardInterrupt

    event.listen(store._engine, "after_cursor_execute", breaks)
    with pytest.raises(KeyboardInterrupt):
        store.commit(*key, outcome, 1.0)
    event.remove(store._engine, "after_cursor_execute", breaks)

    assert broken
    assert counts(store) == {"parts": 0, "findings": 0, "coverage": 0}
    assert store.done(campaign) == set()
    assert store.commit(*key, outcome, 1.0)
    assert counts(store) == {"parts": 1, "findings": len(outcome.found), "coverage": 1}


def test_readers_go_on_while_somebody_writes(store: Store, opened: Opens) -> None:
    """And see nothing of what is not committed."""
    campaign, key, outcome = entered(store)
    reader = opened(make=False, patience=0.0)
    seen: list[set[int]] = []

    def look(*_: object) -> None:
        seen.append(reader.done(campaign))

    event.listen(store._engine, "after_cursor_execute", look)
    assert store.commit(*key, outcome, 1.0)
    event.remove(store._engine, "after_cursor_execute", look)

    assert len(seen) >= 4
    assert set(map(frozenset, seen)) == {frozenset()}
    assert reader.done(campaign) == {1}


def test_names_are_unique_and_the_newest_is_the_default(store: Store) -> None:
    begin(store, small_plan(), "one")
    second = begin(store, small_plan(), "two")
    unnamed = [begin(store, small_plan(), "").name for _ in range(2)]

    assert len(set(unnamed)) == 2
    assert store.campaign("two") == second
    assert store.campaign().name == unnamed[1]
    with pytest.raises(UsageError, match="has a campaign 'one' already; resume it"):
        begin(store, small_plan(), "one")
    with pytest.raises(UsageError, match=r"no campaign 'three' in .*; known are"):
        store.campaign("three")


def test_many_may_open_a_new_store_at_the_same_moment(opened: Opens) -> None:
    failed: list[BaseException] = []

    def one() -> None:
        try:
            begin(opened(), small_plan(), "")
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=one) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert not failed
    assert len(opened().standings()) == 4


# A store of each version as the program of that version wrote it; never made anew.
WRITTEN = sorted((Path(__file__).parent / "stores").glob("version-*.sql"))


def test_stores_of_all_versions_are_kept() -> None:
    """Who changes the tables appends a migration, and a store of the version before."""
    assert len(WRITTEN) == schema.version()


@pytest.mark.parametrize("written", WRITTEN, ids=lambda path: path.stem)
def test_a_store_that_an_earlier_program_wrote_is_read_whole(written: Path) -> None:
    with contextlib.closing(sqlite3.connect("old.sqlite")) as old:
        old.executescript(written.read_text(encoding="utf-8"))
    with Store("old.sqlite", make=False) as store, store._engine.connect() as connection:
        campaign = store.campaign()
        (canary, finding) = outcome_of(store, campaign)["findings"]
        columns = {
            table.name: {one["name"] for one in inspect(connection).get_columns(table.name)}
            for table in schema.METADATA.tables.values()
        }

        # The tables that its migrations made are those that would be made today.
        assert columns == {
            table.name: {column.name for column in table.columns}
            for table in schema.METADATA.tables.values()
        }
        assert store.done(campaign) == set(range(1, 7))
        assert [(loss.part, loss.schedules) for loss in store.losses(campaign)] == [(4, 3)]
        assert [one["place"] for one in store.sessions(campaign)] == ["local", "here"]
        assert (canary["scenario"], finding["fingerprint"]) == ("canary", "a07deeb8")
        assert finding["parts"] == 2
        edges = [parts.unpack(outcome.evidence).edges for *_, outcome in store.outcomes(campaign)]
        assert len(edges) == 6


def test_a_store_of_an_earlier_version_is_brought_up_to_date(
    store: Store, opened: Opens, monkeypatch: pytest.MonkeyPatch
) -> None:
    campaign, key, outcome = entered(store)
    store.commit(*key, outcome, 1.0)

    def adds_a_column(connection: Connection) -> None:
        connection.execute(text("ALTER TABLE campaigns ADD COLUMN owner VARCHAR(9)"))

    migrations = [*schema.MIGRATIONS, adds_a_column]
    monkeypatch.setattr(schema, "MIGRATIONS", migrations)
    later = opened(make=False)

    assert later.done(campaign) == {1}
    with later._engine.connect() as connection:
        assert connection.execute(text("SELECT owner FROM campaigns")).all() == [(None,)]
        versions = connection.scalars(select(schema.schema.c.version)).all()
    assert max(versions) == schema.version() == len(migrations) + 1
    assert opened(make=False).done(campaign) == {1}  # and is not touched again

    monkeypatch.undo()
    with pytest.raises(UsageError, match=r"is a store of version \d, this program knows"):
        opened(make=False)


def test_a_migration_that_breaks_leaves_the_store_as_it_was(
    store: Store, opened: Opens, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(connection: Connection) -> None:
        connection.execute(text("ALTER TABLE campaigns ADD COLUMN owner VARCHAR(9)"))
        raise ZeroDivisionError

    monkeypatch.setattr(schema, "MIGRATIONS", [*schema.MIGRATIONS, breaks])
    with pytest.raises(ZeroDivisionError):
        opened(make=False)
    monkeypatch.undo()

    begin(opened(make=False), small_plan())
    with store._engine.connect() as connection:
        columns = connection.execute(select(schema.campaigns)).keys()
    assert "owner" not in columns


def test_what_is_damaged_is_said_and_runs_nothing(store: Store) -> None:
    campaign, key, outcome = entered(store)
    huge = msgspec.msgpack.encode([b"\0" * (40 << 20)])
    edge = parts.Edge("a", "b", "shared", "SHARED", "a.py:1", "b.py:2", "T1", 1, 1)
    moded = msgspec.structs.replace(parts.unpack(outcome.evidence), edges=[edge])
    evidence = (
        b"",
        b"no zlib",
        outcome.evidence[:-9],
        zlib.compress(b"\x99"),
        zlib.compress(huge),
        zlib.compress(msgspec.msgpack.encode(moded)),
    )
    for data in evidence:
        with pytest.raises(UsageError, match="evidence of a part"):
            parts.unpack(data)
    store.commit(*key, altered(outcome, evidence=b"no zlib"), 1.0)
    with pytest.raises(UsageError, match="evidence of a part is damaged"):
        outcome_of(store, campaign)


def test_a_token_file_of_a_stranger_is_held_against_its_name() -> None:
    found = parts.Found("f", "assertion", "m", "ll1f-" + "0" * 32, 1, 0, 1, "d", b"not that file")
    evil = altered_token(found, "ll1f-../../../escaped")

    for one in (found, evil):
        with pytest.raises(TokenError, match="is damaged"):
            parts.keep_file(one)
    assert not Path(".stress/tokens").exists()


def altered_token(found: parts.Found, token: str) -> parts.Found:
    return msgspec.structs.replace(found, token=token)


# -- SQLite alone -------------------------------------------------------------------------------


def test_what_is_no_store_is_said(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no database, but long enough to be taken for one" * 50)
    sqlite3.connect(tmp_path / "other.sqlite").execute("CREATE TABLE x (y)").connection.close()
    cases = {
        "nowhere.sqlite": "there is no store nowhere.sqlite; `campaign run` makes one",
        "text": "text is no store of campaigns: file is not a database$",
        "other.sqlite": "is no store of campaigns",
        "nosuch://host/db": "--store is a file or a database URL",
        "://": "--store is a file or a database URL",
    }
    for where, said in cases.items():
        with pytest.raises(UsageError, match=said):
            Store(where, make=False, patience=0.0)
    with pytest.raises(UsageError, match="cannot make the store"):
        Store(str(tmp_path / "text" / "below.sqlite"), make=True, patience=0.0)


def test_a_locked_store_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # SQLite itself gives up sooner.
    monkeypatch.setattr("stress.campaigns.database._BUSY_SECONDS", 0.01)
    path = tmp_path / "locked.sqlite"
    with Store(str(path), make=True, patience=10.0) as store:
        campaign, key, outcome = entered(store)
        holder = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        holder.execute("BEGIN IMMEDIATE")
        timer = threading.Timer(0.3, lambda: holder.execute("ROLLBACK"))
        timer.start()
        began = time.monotonic()

        assert store.commit(*key, outcome, 1.0)
        assert time.monotonic() - began >= 0.2
        timer.join()
        assert store.done(campaign) == {1}
        holder.close()


def test_a_store_that_stays_locked_is_given_up_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stress.campaigns.database._BUSY_SECONDS", 0.1)
    path = tmp_path / "locked.sqlite"
    with Store(str(path), make=True, patience=0.2) as store:
        campaign, key, outcome = entered(store)
        holder = sqlite3.connect(path, isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        with pytest.raises(UsageError, match=r"cannot write the store .*database is locked") as no:
            store.commit(*key, outcome, 1.0)
        assert "`campaign resume` goes on" in str(no.value)
        holder.execute("ROLLBACK")
        holder.close()
        assert store.commit(*key, outcome, 1.0)
        assert store.done(campaign) == {1}


def test_a_store_that_nobody_may_write_is_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "readonly.sqlite"
    Store(str(path), make=True).close()
    with Store(f"sqlite:///file:{path}?mode=ro&uri=true", make=True) as store:
        began = time.monotonic()
        with pytest.raises(UsageError, match="attempt to write a readonly database"):
            begin(store, small_plan())
    assert time.monotonic() - began < 10  # a minute else


def test_a_full_disk_costs_nothing_that_was_committed(tmp_path: Path) -> None:
    """``max_page_count`` has SQLite meet the end of the disk where we say."""
    path = tmp_path / "full.sqlite"
    with Store(str(path), make=True, patience=0.0) as store:
        campaign = begin(store, small_plan(seeds="0-9"))

        def small(connection: Any, *_: object) -> None:
            (used,) = connection.execute("PRAGMA page_count").fetchone()
            connection.execute(f"PRAGMA max_page_count={used + 3}")

        with_small_disk = store._engine
        event.listen(with_small_disk, "connect", small)
        with_small_disk.dispose()
        with pytest.raises(UsageError, match=r"cannot write the store .* is full"):
            drive(store, campaign)
        event.remove(with_small_disk, "connect", small)
        with_small_disk.dispose()

        done = store.done(campaign)
        assert 0 < len(done) < campaign.plan().count
        before = timeless(store.outcomes(campaign))
        drive(store, campaign)
        after = timeless(store.outcomes(campaign))
        assert len(after) == campaign.plan().count
        assert [one for one in after if one[2].number in done] == before

        undisturbed = begin(store, small_plan(seeds="0-9"), "other")
        drive(store, undisturbed)
        assert outcome_of(store, campaign) == outcome_of(store, undisturbed)


def test_the_store_is_read_as_one_of_a_stranger(store: Store) -> None:
    """SQLite runs nothing that the schema of a file asks for beyond the built-in functions."""
    if store._engine.dialect.name != "sqlite":
        return
    assert pragma(store._engine, "trusted_schema") == 0
    assert pragma(store._engine, "journal_mode") == "wal"


def test_who_only_reads_leaves_the_file_as_it_is(tmp_path: Path) -> None:
    """The write-ahead log is for who writes: to go on with a campaign brings it back."""
    path = tmp_path / "theirs.sqlite"
    with Store(str(path), make=True) as store:
        begin(store, small_plan())
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA journal_mode=DELETE")
    before = path.read_bytes()

    with Store(str(path), make=False) as store:
        campaign = store.campaign("it")
        assert store.done(campaign) == set()
        assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == before
    with Store(str(path), make=False) as store:
        store.begin(campaign, 1, "here")
        assert pragma(store._engine, "journal_mode") == "wal"


def pragma(engine: Engine, name: str) -> object:
    with engine.connect() as connection:
        return connection.exec_driver_sql(f"PRAGMA {name}").scalar()


# -- stores of strangers --------------------------------------------------------------------------

ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n"


def strange(folder: Path, script: str) -> str:
    """A store with a part in it, and what somebody did to it."""
    where = str(folder / "strange.sqlite")
    with Store(where, make=True) as store:
        _, key, outcome = entered(store)
        store.commit(*key, outcome, 1.5)
    with sqlite3.connect(where) as database:
        database.executescript(script)
    database.close()
    return where


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (f"DROP TABLE losses; CREATE VIEW losses AS {ENDLESS}", "it has the view 'losses'"),
        (
            "CREATE TRIGGER t AFTER UPDATE ON parts BEGIN DELETE FROM parts; END",
            "it has the trigger 't'",
        ),
        ("ALTER TABLE parts ADD COLUMN more AS (zeroblob(1000000000))", "parts computes 'more'"),
        ("UPDATE campaigns SET name = '../../outside'", "a campaign's name is at most"),
        ("UPDATE campaigns SET name = ''", "a campaign in it has no name"),
        ("UPDATE campaigns SET name = '..'", "a campaign's name is at most"),
        ("UPDATE campaigns SET plan = 7", "is damaged"),
        ("UPDATE parts SET schedules = 'many'", "is damaged"),
        ("UPDATE parts SET failing = 'none'", "is damaged"),
        ("UPDATE parts SET seed = '²0'", "is damaged"),
        ("UPDATE parts SET seed = '-1'", "is damaged"),
        ("UPDATE parts SET seed = '9'||hex(zeroblob(3000))", "is damaged"),
        ("UPDATE findings SET message = x'ff'", "is damaged"),
        ("UPDATE sessions SET seconds = 'long'", "is damaged"),
    ],
)
def test_a_store_of_a_stranger_is_refused_in_a_line(tmp_path: Path, script: str, said: str) -> None:
    where = strange(tmp_path, script)
    with pytest.raises(UsageError, match=said) as caught, Store(where, make=False) as store:
        result.gather(store, store.campaign())
    assert "\n" not in str(caught.value)
