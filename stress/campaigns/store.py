"""Where campaigns leave what they have done: one database, any number of campaigns and readers.

A part is committed whole, in one transaction, under the primary key (campaign, number): that is why
nothing is counted twice and nothing lost, whoever dies when, and why two processes may work on one
campaign. Only the process that runs a campaign writes; its workers never see the store.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any, Final, Self, TypeAlias, TypeVar

import msgspec
from sqlalchemy import (
    Connection,
    Table,
    func,
    insert,
    inspect,
    select,
    update,
)
from sqlalchemy.exc import DBAPIError, IntegrityError

from harness.errors import UsageError
from stress.artefacts import ROOT
from stress.campaigns import schema
from stress.campaigns.database import engine, from_json, lasting, must_be_ours, typed
from stress.campaigns.parts import Found, Outcome, versions
from stress.campaigns.plan import Job, Plan, check_name
from stress.campaigns.schema import campaigns, coverage, findings, losses, parts, sessions
from stress.pool import Crash

DEFAULT: Final = ROOT / "campaigns.sqlite"
# How long a full disk or a locked database is waited for.
PATIENCE_SECONDS: Final = 60.0
_PAUSE_SECONDS: Final = 0.2
_STACKS_CHARS_MAX: Final = 4_000

# As ``commit`` writes it: SQL has no integer that is large enough.
_Seed: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"\A[0-9]{1,20}\Z")]

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Campaign:
    """One campaign's row.

    Attributes:
        id: In this store.
        name: Unique in this store.
        text: Its plan, as ``Plan.encode`` wrote it.
        code: Checksum of the sources that it runs.
        made: When, in UTC.
        finished: When; empty where it is not.
    """

    id: int
    name: str
    text: str
    code: str
    made: str
    finished: str

    def plan(self) -> Plan:
        """What it runs.

        Raises:
            UsageError: It is damaged.
        """
        return Plan.decode(self.text)


@dataclass(frozen=True, slots=True)
class Standing:
    """How far a campaign is: for ``list``."""

    campaign: Campaign
    parts: int
    schedules: int
    fingerprints: int
    losses: int
    seconds: float
    seen: str


@dataclass(frozen=True, slots=True)
class _Session:
    """What a session was."""

    began: str
    seen: str
    seconds: float
    jobs: int
    place: str


@dataclass(frozen=True, slots=True)
class Loss:
    """An attempt at a part that came to nothing."""

    part: int
    at: str
    why: str
    schedules: int
    stacks: str


def now() -> str:
    """The time in UTC, as the store keeps it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


class Store:
    """An open store."""

    def __init__(self, where: str, *, make: bool, patience: float = PATIENCE_SECONDS) -> None:
        """Open it; a store of an earlier version is brought up to date.

        Args:
            where: A file, or any URL that SQLAlchemy takes.
            make: Make it where there is none.
            patience: Seconds to wait for a full disk or a locked database before giving up.

        Raises:
            UsageError: There is none, it cannot be reached, or it is of a later version.
        """
        self.where = where
        self._patience = patience
        self._engine = engine(where, make=make)
        try:
            self._prepare(make=make)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the database."""
        self._engine.dispose()

    # -- schema ---------------------------------------------------------------------------------

    def _prepare(self, *, make: bool) -> None:
        self._read(must_be_ours)
        found = self._read(_version_of)
        if found == schema.version():
            return
        if found is None and not make:
            raise UsageError(f"{self.shown} is no store of campaigns; `campaign run` makes one")
        if found is not None and found > schema.version():
            raise UsageError(
                f"{self.shown} is a store of version {found}, this program knows versions up to "
                f"{schema.version()}; use the newer program that wrote it"
            )
        try:
            self._write(_migrate)
        except IntegrityError:
            # Somebody else has done it at the same moment.
            if self._read(_version_of) != schema.version():
                raise

    # -- campaigns ------------------------------------------------------------------------------

    def create(self, name: str, plan: Plan, code: str) -> Campaign:
        """Enter a new campaign; one without a name is named by the time.

        Raises:
            UsageError: The name is taken, or the store cannot be written.
        """
        values = {
            "plan": plan.encode(),
            "digest": plan.digest,
            "code": code,
            "made": now(),
            "finished": "",
        }
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        names = [name] if name else [stamp, *(f"{stamp}-{number}" for number in range(2, 100))]
        for each in names:
            with contextlib.suppress(IntegrityError):
                self._write(partial(_insert, campaigns, values | {"name": each}))
                return self.campaign(each)
        raise UsageError(
            f"{self.shown} has a campaign {name!r} already; resume it, or take another --name"
        )

    def campaign(self, name: str = "") -> Campaign:
        """The campaign of that name; the newest for none.

        Raises:
            UsageError: There is none; the message names some that there are.
        """
        all_of_them = self._campaigns()
        for one in all_of_them:
            if name in ("", one.name):
                return one
        known = ", ".join(one.name for one in all_of_them[:3])
        what = f"no campaign {name!r}" if name else "no campaign"
        hint = f"known are {known}" if known else "`campaign run` makes one"
        raise UsageError(f"{what} in {self.shown}; {hint}")

    def standings(self) -> list[Standing]:
        """Every campaign, the newest first."""
        return [self._standing(one) for one in self._campaigns()]

    def _campaigns(self) -> list[Campaign]:
        """All of them, the newest first."""
        c = campaigns.c
        query = select(c.id, c.name, c.plan.label("text"), c.code, c.made, c.finished)
        query = query.order_by(c.id.desc())
        rows = self._read(lambda connection: connection.execute(query).all())
        found = [typed(row._mapping, Campaign) for row in rows]
        for one in found:
            # An export's folder is called so.
            if not check_name(one.name):
                raise UsageError("the store is damaged: a campaign in it has no name")
        return found

    def _standing(self, campaign: Campaign) -> Standing:
        # What the canary is there for is no finding.
        planted = [
            index
            for index, combination in enumerate(campaign.plan().combinations)
            if not combination.clean
        ]

        def read(connection: Connection) -> Standing:
            mine = parts.c.campaign == campaign.id
            done = select(func.count(), func.coalesce(func.sum(parts.c.schedules), 0)).where(mine)
            count, schedules = connection.execute(done).one()
            found = (
                select(func.count(findings.c.fingerprint.distinct()))
                .join(
                    parts,
                    (parts.c.campaign == findings.c.campaign) & (parts.c.number == findings.c.part),
                )
                .where(mine, parts.c.combination.not_in(planted))
            )
            lost = select(func.count()).where(losses.c.campaign == campaign.id)
            seconds, seen = connection.execute(
                select(
                    func.coalesce(func.sum(sessions.c.seconds), 0.0),
                    func.coalesce(func.max(sessions.c.seen), ""),
                ).where(sessions.c.campaign == campaign.id)
            ).one()
            return Standing(
                campaign,
                int(count),
                int(schedules),
                connection.scalar(found) or 0,
                connection.scalar(lost) or 0,
                float(seconds),
                str(seen),
            )

        return self._read(read)

    def finish(self, campaign: Campaign) -> None:
        """Note that nothing of it is left to do."""
        self._mark(campaign, now())

    def reopen(self, campaign: Campaign) -> None:
        """Note that something of it is to be done again."""
        self._mark(campaign, "")

    def _mark(self, campaign: Campaign, finished: str) -> None:
        statement = update(campaigns).where(campaigns.c.id == campaign.id)
        self._write(lambda connection: connection.execute(statement.values(finished=finished)))

    # -- sessions -------------------------------------------------------------------------------

    def begin(self, campaign: Campaign, jobs: int, place: str) -> int:
        """Enter a session, with its environment and versions; returns its number."""
        stamp = now()
        values = {
            "campaign": campaign.id,
            "began": stamp,
            "seen": stamp,
            "seconds": 0.0,
            "jobs": jobs,
            "place": place,
            "versions": msgspec.json.encode(versions()).decode(),
        }
        return self._write(partial(_insert, sessions, values))

    def spent(self, campaign: Campaign) -> float:
        """Seconds of all sessions together."""
        query = select(func.coalesce(func.sum(sessions.c.seconds), 0.0)).where(
            sessions.c.campaign == campaign.id
        )
        return float(self._read(lambda connection: connection.scalar(query)) or 0.0)

    def sessions(self, campaign: Campaign) -> list[dict[str, Any]]:
        """Each session, with its environment and versions."""
        c = sessions.c
        query = select(c.began, c.seen, c.seconds, c.jobs, c.place, c.versions)
        query = query.where(c.campaign == campaign.id).order_by(c.id)
        rows = self._read(lambda connection: connection.execute(query).all())
        return [
            {
                **asdict(typed(row._mapping, _Session)),
                "versions": from_json(row.versions, dict[str, str | int]),
            }
            for row in rows
        ]

    # -- parts ----------------------------------------------------------------------------------

    def commit(
        self, campaign: Campaign, session: int, job: Job, outcome: Outcome, seconds: float
    ) -> bool:
        """Enter a part with all that it found, whole or not at all.

        Args:
            campaign: Whose.
            session: Of the process that has it now.
            job: The part.
            outcome: What came of it.
            seconds: How long this session has run.

        Returns:
            False where the part was there already, and nothing was entered.

        Raises:
            UsageError: The store could not be written for too long.
        """
        fields = msgspec.structs.asdict(outcome)
        found = fields.pop("found")
        covered = {name: fields.pop(name) for name in ("looked", "classes", "evidence")}
        del fields["code"]
        stamp = now()
        fields |= {
            "campaign": campaign.id,
            "session": session,
            "combination": job.index,
            "seed": str(job.seed),
            "failing": msgspec.json.encode(outcome.failing).decode(),
            "done": stamp,
        }
        key = {"campaign": campaign.id, "part": job.number}

        def enter(connection: Connection) -> None:
            connection.execute(insert(parts), fields)
            connection.execute(insert(coverage), key | covered)
            if found:
                rows = [key | msgspec.structs.asdict(one) for one in found]
                connection.execute(insert(findings), rows)
            mine = update(sessions).where(sessions.c.id == session)
            connection.execute(mine.values(seen=stamp, seconds=seconds))

        try:
            self._write(enter)
        except IntegrityError:
            return False
        return True

    def lose(self, campaign: Campaign, session: int, job: Job, crash: Crash) -> None:
        """Note an attempt at a part that came to nothing."""
        values = {
            "campaign": campaign.id,
            "session": session,
            "part": job.number,
            "at": now(),
            "why": str(crash),
            "schedules": crash.note if isinstance(crash.note, int) else 0,
            "stacks": crash.stacks[:_STACKS_CHARS_MAX],
        }
        self._write(partial(_insert, losses, values))

    def done(self, campaign: Campaign) -> set[int]:
        """Numbers of the parts that are in."""
        query = select(parts.c.number).where(parts.c.campaign == campaign.id)
        return set(self._read(lambda connection: connection.scalars(query).all()))

    def losses(self, campaign: Campaign) -> list[Loss]:
        """What came to nothing, in order of time."""
        c = losses.c
        query = select(c.part, c.at, c.why, c.schedules, c.stacks)
        query = query.where(c.campaign == campaign.id).order_by(c.id)
        rows = self._read(lambda connection: connection.execute(query).all())
        return [typed(row._mapping, Loss) for row in rows]

    def outcomes(
        self, campaign: Campaign, numbers: Sequence[int] | None = None
    ) -> Iterator[tuple[int, str, str, Outcome]]:
        """Combination, seed, time and outcome of each part that is in, by number.

        Args:
            campaign: Whose.
            numbers: Only those; None for all.
        """
        query = (
            select(parts, coverage.c.looked, coverage.c.classes, coverage.c.evidence)
            .join(
                coverage,
                (coverage.c.campaign == parts.c.campaign) & (coverage.c.part == parts.c.number),
            )
            .where(parts.c.campaign == campaign.id)
            .order_by(parts.c.number)
        )
        if numbers is not None:
            query = query.where(parts.c.number.in_(numbers))
        found = self._found(campaign)
        with (
            self._reading() as connection,
            connection.execution_options(yield_per=200).execute(query) as rows,
        ):
            for row in rows:
                fields = dict(row._mapping)
                index, seed, done = typed(
                    [fields[name] for name in ("combination", "seed", "done")],
                    tuple[int, _Seed, str],
                )
                fields["failing"] = from_json(fields["failing"], dict[str, int])
                fields["found"] = found.get(fields["number"], ())
                yield index, seed, done, typed(fields | {"code": ""}, Outcome)

    def _found(self, campaign: Campaign) -> dict[int, list[Found]]:
        """The failures of each part that has any."""
        c = findings.c
        columns = [c[name] for name in Found.__struct_fields__]
        query = select(c.part, *columns).where(c.campaign == campaign.id)
        query = query.order_by(c.part, c.schedule, c.fingerprint)
        by_part: dict[int, list[Found]] = {}
        for row in self._read(lambda connection: connection.execute(query).all()):
            by_part.setdefault(row[0], []).append(typed(row._mapping, Found))
        return by_part

    def rows(self, campaign: Campaign, table: str) -> tuple[list[str], list[tuple[Any, ...]]]:
        """Columns and rows of one table, for an export; blobs are left out."""
        source = schema.METADATA.tables[table]
        columns = [
            column
            for column in source.columns
            if column.name != "campaign" and column.name not in ("evidence", "file")
        ]
        query = select(*columns).where(source.c.campaign == campaign.id)
        query = query.order_by(*source.primary_key.columns)
        rows = self._read(lambda connection: connection.execute(query).all())
        return [column.name for column in columns], [tuple(row) for row in rows]

    # -- transactions ---------------------------------------------------------------------------

    @property
    def shown(self) -> str:
        """Without a password."""
        return self._engine.url.render_as_string(hide_password=True)

    @contextlib.contextmanager
    def _reading(self) -> Iterator[Connection]:
        try:
            with self._engine.connect() as connection:
                yield connection
        except DBAPIError as error:
            raise self._refused("read", error) from None
        except (OverflowError, TypeError, ValueError) as error:
            # Raised as a column is turned into what it should hold.
            raise UsageError(f"the store {self.shown} is damaged: {error}") from None

    def _read(self, do: Callable[[Connection], _T]) -> _T:
        with self._reading() as connection:
            return do(connection)

    def _write(self, do: Callable[[Connection], _T]) -> _T:
        """Run one transaction; wait for a lock to go, or for room on the disk.

        A commit whose answer was lost may have been made: the next attempt then meets its own
        primary key, and the part counts once.

        Raises:
            IntegrityError: What is entered is there already.
            UsageError: It could not be written for too long.
        """
        until = time.monotonic() + self._patience
        while True:
            try:
                with self._engine.connect() as connection:
                    writing = connection.execution_options(writes=True)
                    with writing.begin():
                        return do(writing)
            except IntegrityError:
                raise
            except DBAPIError as error:
                if lasting(error) or time.monotonic() >= until:
                    raise self._refused("write", error) from None
            time.sleep(_PAUSE_SECONDS)

    def _refused(self, what: str, error: DBAPIError) -> UsageError:
        said = " ".join(str(error.orig).split())
        if getattr(error.orig, "sqlite_errorname", "") == "SQLITE_NOTADB":
            return UsageError(f"{self.shown} is no store of campaigns: {said}")
        return UsageError(
            f"cannot {what} the store {self.shown}: {said}; what was committed is safe, and "
            "`campaign resume` goes on from there"
        )


def _version_of(connection: Connection) -> int | None:
    """The version of a store; None where it is none."""
    if not inspect(connection).has_table("schema"):
        return None
    found = connection.scalar(select(func.max(schema.schema.c.version)))
    if found is not None and (not isinstance(found, int) or found < 1):
        raise UsageError("this is no store of campaigns: its version is no number")
    return found


def _insert(table: Table, values: dict[str, Any], connection: Connection) -> int:
    """Enter a row; returns its number."""
    made = connection.execute(insert(table).values(**values)).inserted_primary_key
    return 0 if made is None else int(made[0])


def _migrate(connection: Connection) -> None:
    """Make the tables, or bring those of an earlier version up to date, all at once."""
    found = _version_of(connection)
    if found is None:
        schema.METADATA.create_all(connection)
    else:
        for migration in schema.MIGRATIONS[found - 1 :]:
            migration(connection)
    if found != schema.version():
        connection.execute(insert(schema.schema).values(version=schema.version()))
