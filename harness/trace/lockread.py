"""The reader of lock logs: any bytes in, records out, damage in its place."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import IO, Any, Final, NamedTuple, TypeAlias

import msgspec

from harness.trace.locklog import Definition, Event
from harness.trace.packed import pieces

LINE_BYTES_MAX: Final = 1 << 20


class Damage(msgspec.Struct, frozen=True):
    """A line that is not what it should be.

    Attributes:
        rule: ``LOG001`` (damaged line) or ``LOG002`` (the log ends in the middle).
        line: Number of the line, from 1.
        message: What is wrong with it.
    """

    rule: str
    line: int
    message: str


Record: TypeAlias = Event | dict[str, Any] | Damage


class Batch(NamedTuple):
    """Consecutive records.

    Attributes:
        first: Line number of the first record.
        records: One for each line.
    """

    first: int
    records: list[Record]


def read_log(stream: IO[bytes]) -> Iterator[Batch]:
    """Read a log, compressed or not, piece by piece; never fails on what is in it.

    Memory is bounded by the length of a piece, whatever the length of the log. Damaged lines,
    overlong ones and a cut end come as ``Damage`` in their place.
    """
    line = 1
    rest = b""
    for piece, problem in pieces(stream):
        whole = rest + piece
        cut = whole.rfind(b"\n") + 1
        rest = whole[cut:]
        if cut:
            batch = Batch(line, _decode(whole[:cut], line))
            line += len(batch.records)
            yield batch
        if len(rest) > LINE_BYTES_MAX:
            message = f"a line of more than {LINE_BYTES_MAX} bytes; what follows it is not read"
            yield Batch(line, [Damage("LOG001", line, message)])
            return
        if problem:
            message = f"the compressed log cannot be read on: {problem}"
            yield Batch(line, [Damage("LOG002", line, message)])
            return
    if rest.strip():
        # The last line has no end: whole by chance, or cut by the end of the writer.
        record = _decode_line(rest, line)
        if isinstance(record, Damage):
            record = Damage("LOG002", line, "the log ends in the middle of a line")
        yield Batch(line, [record])


def is_log(stream: IO[bytes]) -> bool:
    """Tell by its first line whether a stream is a lock log; reads no more than its beginning."""
    batch = next(read_log(stream), None)
    first = batch.records[0] if batch is not None else None
    return isinstance(first, dict) and "zlock" in first


_decoder: msgspec.json.Decoder[Event | dict[str, Any]] = msgspec.json.Decoder(
    Event | dict[str, Any]
)


def _decode(text: bytes, first: int) -> list[Record]:
    """Decode whole lines, in one call where nothing is wrong with them."""
    with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError):
        records: list[Record] = list(_decoder.decode_lines(text))
        # It skips blank lines, which would shift the numbers of those that follow.
        if len(records) == text.count(b"\n"):
            return records
    return [_decode_line(line, first + index) for index, line in enumerate(text[:-1].split(b"\n"))]


def _decode_line(line: bytes, number: int) -> Record:
    """Decode one line."""
    try:
        return _decoder.decode(line)
    except msgspec.ValidationError as error:
        return Damage("LOG001", number, f"not a record of a lock log: {error}")
    except (msgspec.DecodeError, UnicodeDecodeError):
        return Damage("LOG001", number, "not JSON" if line.strip() else "an empty line")


def definition(record: dict[str, Any], line: int) -> Definition | Damage:
    """Read a line that is no event."""
    try:
        return msgspec.convert(record, Definition)
    except msgspec.ValidationError as error:
        return Damage("LOG001", line, f"not a record of a lock log: {error}")
