"""The tables of a store, and how a store of an earlier version becomes one of this.

The same on every engine: what a campaign needs of one is transactions and primary keys.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Float,
    ForeignKey,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
)

METADATA: Final = MetaData()

schema = Table("schema", METADATA, Column("version", Integer, primary_key=True))

campaigns = Table(
    "campaigns",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("name", String(80), nullable=False, unique=True),
    Column("plan", Text, nullable=False),
    Column("digest", String(16), nullable=False),  # of the plan
    Column("code", String(16), nullable=False),  # of the sources
    Column("made", String(32), nullable=False),
    Column("finished", String(32), nullable=False, default=""),
)

# One for each process that ran a campaign: its environment and versions, and how long it ran.
sessions = Table(
    "sessions",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("campaign", ForeignKey("campaigns.id"), nullable=False, index=True),
    Column("began", String(32), nullable=False),
    Column("seen", String(32), nullable=False),
    Column("seconds", Float, nullable=False, default=0.0),
    Column("jobs", Integer, nullable=False),
    Column("place", String(200), nullable=False),  # "local", or the address of a cluster
    Column("versions", Text, nullable=False),
)

# A part that is done: its statistics.
parts = Table(
    "parts",
    METADATA,
    Column("campaign", ForeignKey("campaigns.id"), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("session", ForeignKey("sessions.id"), nullable=False),
    Column("combination", Integer, nullable=False),
    Column("seed", String(20), nullable=False),  # up to 2**64 - 1, which is no SQL integer
    Column("schedules", BigInteger, nullable=False),
    Column("steps", BigInteger, nullable=False),
    Column("switches", BigInteger, nullable=False),
    Column("preemptions", BigInteger, nullable=False),
    Column("blocked", BigInteger, nullable=False),
    Column("bounded", BigInteger, nullable=False),
    Column("decisions", BigInteger, nullable=False),
    Column("seconds", Float, nullable=False),
    Column("exhausted", Boolean, nullable=False),
    Column("cut", String(20), nullable=False),
    Column("detail", Text, nullable=False),
    Column("failing", Text, nullable=False),  # JSON: schedules by kind of failure
    Column("worker", String(200), nullable=False),
    Column("done", String(32), nullable=False),
)

# The first failure of each fingerprint in each part.
findings = Table(
    "findings",
    METADATA,
    Column("campaign", Integer, primary_key=True),
    Column("part", Integer, primary_key=True, autoincrement=False),
    Column("fingerprint", String(64), primary_key=True),
    Column("kind", String(40), nullable=False),
    Column("message", Text, nullable=False),
    Column("token", Text, nullable=False),
    Column("schedule", BigInteger, nullable=False),
    Column("preemptions", BigInteger, nullable=False),
    Column("steps", BigInteger, nullable=False),
    Column("digest", String(64), nullable=False),
    Column("file", LargeBinary, nullable=False),
)

# What a pass rests on: classes of schedules, operations and their orders, nestings of locks.
coverage = Table(
    "coverage",
    METADATA,
    Column("campaign", Integer, primary_key=True),
    Column("part", Integer, primary_key=True, autoincrement=False),
    Column("looked", BigInteger, nullable=False),
    Column("classes", BigInteger, nullable=False),
    Column("evidence", LargeBinary, nullable=False),
)

# Attempts at a part that came to nothing, with what is known of them.
losses = Table(
    "losses",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("campaign", ForeignKey("campaigns.id"), nullable=False, index=True),
    Column("session", ForeignKey("sessions.id"), nullable=False),
    Column("part", Integer, nullable=False),
    Column("at", String(32), nullable=False),
    Column("why", Text, nullable=False),
    Column("schedules", BigInteger, nullable=False),  # at least so many were run
    Column("stacks", Text, nullable=False),
)

Migration = Callable[[Connection], object]
# The first makes a store of version 2 out of one of version 1, and so on.
MIGRATIONS: Final[list[Migration]] = []


def version() -> int:
    """Of the stores that are made now."""
    return len(MIGRATIONS) + 1
