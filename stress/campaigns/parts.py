"""Running one part of a campaign, and what comes of it as plain data.

An ``Outcome`` is the same wherever its part is run, but for its times. It crosses to the parent
process or the cluster's client, and goes into the store; what it holds of a stranger's store is
decoded into bounded, typed, plain data.
"""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import socket
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

import stress
from harness.errors import TokenError, UsageError
from harness.explore import Part, explore_part
from harness.lockorder.findings import Mode, Witness
from harness.search.declared import declared
from harness.search.evidence import Coverage, Histories
from harness.search.recording import Failure
from harness.trace.token import FILE_PREFIX, TOKEN_BYTES_MAX, TOKEN_FOLDER
from stress import catalogue, pool
from stress.campaigns.plan import Job

_MESSAGE_CHARS_MAX: Final = 4_000
_EVIDENCE_BYTES_MAX: Final = 32 << 20
# Sources that decide which schedules a part runs, and what it says of them.
_DECIDING: Final = (
    "harness",
    "model",
    "stress/catalogue.py",
    "stress/scenarios",
    "stress/campaigns/parts.py",
    "stress/campaigns/plan.py",
)
_COUNTS: Final = (
    "schedules",
    "steps",
    "switches",
    "preemptions",
    "blocked",
    "bounded",
    "decisions",
)


class Found(msgspec.Struct, frozen=True):
    """A failure of a part, the first of its fingerprint there.

    Attributes:
        file: The content of the token's file, where it names one; empty for most.
    """

    fingerprint: str
    kind: str
    message: str
    token: str
    schedule: int
    preemptions: int
    steps: int
    digest: str
    file: bytes = b""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What one part amounts to.

    Attributes:
        number: Of the part.
        code: Checksum of the sources that ran it.
        worker: Host and process.
        seconds: Wall time.
        cut: Why it ended early; empty where it did not.
        detail: More about that.
        failing: Failing schedules, by kind.
        evidence: What ``unpack`` reads.
    """

    number: int
    code: str
    worker: str
    schedules: int
    steps: int
    switches: int
    preemptions: int
    blocked: int
    bounded: int
    decisions: int
    seconds: float
    exhausted: bool
    cut: str
    detail: str
    failing: dict[str, int]
    found: tuple[Found, ...]
    looked: int
    classes: int
    evidence: bytes

    def timeless(self) -> Outcome:
        """All of it that is the same wherever and whenever the part is run."""
        return msgspec.structs.replace(self, worker="", seconds=0.0, code="", detail="")


class Edge(msgspec.Struct, frozen=True, array_like=True):
    """A nesting of lock classes that a part showed, with its first occasion there."""

    outer: str
    inner: str
    outer_mode: Mode
    inner_mode: Mode
    outer_site: str
    inner_site: str
    thread: str
    schedule: int
    count: int

    def witness(self) -> Witness:
        """As the lock rules take it; of which part, is not their business."""
        return Witness(
            self.outer,
            self.inner,
            self.outer_mode,
            self.inner_mode,
            self.outer_site,
            self.inner_site,
            self.thread,
            self.schedule,
        )


class Evidence(msgspec.Struct, frozen=True, array_like=True):
    """What of a part only its conclusion reads.

    Attributes:
        entered: Threads that performed an operation.
        named: Threads that were there.
        reached: ``sometimes`` that were reached.
        declared: Those that the program contains.
        looked: Schedules that were looked at.
        classes: Of schedules: number, how often, in which of those looked at it came first.
        operations: Thread, kind, object.
        before: For each of them, the numbers of those that came before it, though need not have;
            as bits, the lowest first.
        edges: Of the lock-order graph.
        histories: What became of those that a reference was to explain.
    """

    entered: list[str]
    named: list[str]
    reached: list[str]
    declared: list[str]
    looked: int
    classes: list[tuple[int, int, int]]
    operations: list[tuple[str, str, str]]
    before: list[bytes]
    edges: list[Edge]
    histories: Histories

    def coverage(self) -> Coverage:
        """As an exploration puts it together."""
        return Coverage(
            looked=self.looked,
            classes={number: count for number, count, _ in self.classes},
            first={number: first for number, _, first in self.classes},
            operations={operation: at for at, operation in enumerate(self.operations)},
            before=[int.from_bytes(bits, "little") for bits in self.before],
        )


def run(job: Job) -> Outcome:
    """Run a part, in this process.

    Raises:
        UsageError: The scenario, the strategy or a fault is not known here.
    """
    spec, setup = job.combination.program(job.seed)
    program = catalogue.program_of(spec)

    def progress(schedules: int, _failures: int, _left: float | None) -> None:
        pool.note(schedules)

    part = explore_part(program, setup, 1, job.combination.schedules, worker=0, progress=progress)
    failing = dict(part.failing)
    # Of a nesting order that several schedules broke together, the one that closed it counts.
    closed = {order.schedule for order in part.rules.findings if not order.fatal}
    if closed:
        failing["lock-order"] = failing.get("lock-order", 0) + len(closed)
    return Outcome(
        number=job.number,
        code=code_digest(),
        worker=f"{socket.gethostname()}:{os.getpid()}",
        seconds=part.seconds,
        exhausted=part.exhausted,
        cut=part.cut,
        detail=part.detail[:_MESSAGE_CHARS_MAX],
        failing=dict(sorted(failing.items())),
        found=tuple(_found(failure) for failure in part.failures),
        looked=part.coverage.looked,
        classes=len(part.coverage.classes),
        evidence=_pack(part, sorted(declared(program))),
        **{name: getattr(part, name) for name in _COUNTS},
    )


def run_bounded(job: Job, memory: int | None) -> Outcome:
    """Run a part in a process that may take so much memory and no more."""
    if memory is not None:
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (memory << 20, hard))
    return run(job)


def worn(outcome: Outcome) -> bool:
    """A thread that hung is still there, and takes part in whatever its process does next."""
    return outcome.cut == "hang"


def part_of(outcome: Outcome, evidence: Evidence) -> Part:
    """The numbers of a part, for the verdict; without failures and lock rules."""
    return Part(
        1,
        seconds=outcome.seconds,
        exhausted=outcome.exhausted,
        cut=outcome.cut,
        detail=outcome.detail,
        failing=dict(outcome.failing),
        entered=set(evidence.entered),
        named=set(evidence.named),
        reached=set(evidence.reached),
        coverage=evidence.coverage(),
        histories=evidence.histories,
        **{name: getattr(outcome, name) for name in _COUNTS},
    )


def _found(failure: Failure) -> Found:
    token = failure.token
    file = b""
    if token.startswith(FILE_PREFIX):
        # Whoever reads the store may be on another machine.
        file = (TOKEN_FOLDER / f"{token[len(FILE_PREFIX) :]}.ll1").read_bytes()
    return Found(
        failure.fingerprint,
        failure.kind,
        failure.message[:_MESSAGE_CHARS_MAX],
        token,
        failure.schedule,
        failure.preemptions,
        failure.steps,
        failure.digest,
        file,
    )


def keep_file(found: Found) -> None:
    """Put the file that a token names where ``replay`` looks for it.

    Raises:
        TokenError: The content is not the token's.
    """
    if not found.file:
        return
    name = found.token.removeprefix(FILE_PREFIX)
    whole = hashlib.sha256(found.file).hexdigest()[:32] == name
    if not whole or len(found.file) > TOKEN_BYTES_MAX:
        raise TokenError(f"the store's file of the token {found.token[:24]!r} is damaged")
    path = TOKEN_FOLDER / f"{name}.ll1"
    if not path.exists():
        TOKEN_FOLDER.mkdir(parents=True, exist_ok=True)
        path.write_bytes(found.file)


def _pack(part: Part, names: list[str]) -> bytes:
    coverage = part.coverage
    evidence = Evidence(
        entered=sorted(part.entered),
        named=sorted(part.named),
        reached=sorted(part.reached),
        declared=names,
        looked=coverage.looked,
        classes=[(n, count, coverage.first[n]) for n, count in coverage.classes.items()],
        operations=list(coverage.operations),
        before=[bits.to_bytes(bits.bit_length() + 7 >> 3, "little") for bits in coverage.before],
        edges=list(_edges(part)),
        histories=part.histories,
    )
    return zlib.compress(msgspec.msgpack.encode(evidence))


def _edges(part: Part) -> Iterator[Edge]:
    for edge in part.rules.edges.values():
        for witness in edge.witnesses:
            yield Edge(
                witness.outer,
                witness.inner,
                witness.outer_mode,
                witness.inner_mode,
                str(witness.outer_site),
                str(witness.inner_site),
                witness.thread,
                witness.schedule,
                edge.count,
            )


def unpack(data: bytes) -> Evidence:
    """Read an outcome's evidence.

    Raises:
        UsageError: It is damaged, or larger than any part's.
    """
    reader = zlib.decompressobj()
    try:
        plain = reader.decompress(data, _EVIDENCE_BYTES_MAX)
        if not reader.eof:
            raise UsageError("the store's evidence of a part is cut short, or too large")
        evidence = msgspec.msgpack.decode(plain, type=Evidence)
    except (zlib.error, msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise UsageError(f"the store's evidence of a part is damaged: {error}") from None
    if len(evidence.before) != len(evidence.operations):
        raise UsageError("the store's evidence of a part contradicts itself")
    return evidence


@functools.cache
def code_digest() -> str:
    """A checksum of the sources that decide a part's result, own scenarios included."""
    total = hashlib.sha256()
    root = Path(stress.__file__).parent.parent
    own = os.environ.get(catalogue.FOLDERS_VARIABLE, "").split(os.pathsep)
    for folder in [*(root / name for name in _DECIDING), *(Path(path) for path in own if path)]:
        for path in sorted(folder.rglob("*.py")) if folder.is_dir() else [folder]:
            total.update(path.relative_to(folder).as_posix().encode())
            total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()[:16]


def versions() -> dict[str, Any]:
    """What a result may depend on beyond the plan, and what a reader wants to know of a session."""
    from stress.commands import version

    return {
        "code": code_digest(),
        "lockloom": version(),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "host": socket.gethostname(),
        "cores": os.cpu_count() or 1,
    }
