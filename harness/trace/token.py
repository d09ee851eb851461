"""Tokens: a schedule as text that a shell leaves alone.

``ll1-`` and base64url of: four bytes of checksum, then a MessagePack array. Choices are sparse
deviations from the default (the current thread runs on, else the lowest index): pairs of a gap and
an alternative, a byte for most. *Checkpoints* are one byte for each of up to 32 stretches of the
schedule, over the threads, operations and objects of its steps: a replay that stops fitting says
from which step on.

What does not fit ``TOKEN_CHARS_MAX`` is written to a file of the same content, and the token names
the file by its checksum.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from pathlib import Path
from typing import Annotated, Final

import msgspec

from harness.errors import TokenError
from harness.lockorder.findings import EXCLUSIVE, SHARED
from harness.trace.events import Step
from harness.trace.recorder import checkpoint

PREFIX: Final = "ll1-"
FILE_PREFIX: Final = "ll1f-"
TOKEN_CHARS_MAX: Final = 2_048
# The highest step bound: what a schedule is made of is kept while it runs, and in its token.
STEPS_MAX: Final = 1_000_000
# Of the file of a token. Unpacked, the choices of so many steps take 100 MB, all else less.
TOKEN_BYTES_MAX: Final = 4 << 20
_LISTED_MAX: Final = 10_000
FINGERPRINT_CHARS_MAX: Final = 64
CHECKPOINTS_MAX: Final = 32
_CHECK_DIGITS: Final = 32
TOKEN_FOLDER: Final = Path(".stress") / "tokens"

_ALTERNATIVE_BITS: Final = 3
_ALTERNATIVE_ESCAPE: Final = (1 << _ALTERNATIVE_BITS) - 1


class Token(msgspec.Struct, array_like=True, frozen=True):
    """All that a replay needs.

    Attributes:
        program: Name of the program, for readers; replays do not depend on it.
        strategy: What found the schedule.
        seed: Of the exploration.
        schedule: Number of the schedule in it, from 1.
        deviations: Packed ``(gap, alternative)`` pairs.
        steps: Steps up to and with the failing one.
        stride: Steps covered by one checkpoint.
        checkpoints: One byte each.
        kind: Of the failure.
        fingerprint: Of the failure.
        steps_max: The step bound of the exploration.
        early_timeouts: Whether timeouts could fire at any step.
        meta: What the caller wants back: scenario, revision, mutant, faults, ...
        edges: Lock-order edges of earlier schedules that the finding needs.
        control: What of unmodified code was controlled: ``patch``, and the names of modules whose
            lines are schedule points. Left out of the text where it is empty.
    """

    program: str
    strategy: str
    seed: int
    schedule: int
    deviations: bytes
    steps: int
    stride: int
    checkpoints: bytes
    kind: str
    fingerprint: str
    steps_max: int
    early_timeouts: bool
    meta: dict[str, str | int]
    edges: Annotated[list[list[str | int]], msgspec.Meta(max_length=_LISTED_MAX)]
    control: Annotated[list[str], msgspec.Meta(max_length=_LISTED_MAX)] = []


def pack(taken: list[int]) -> bytes:
    """Encode decisions, of which most are 0 (the default), as gaps and alternatives."""
    out = bytearray()
    gap = 0
    for alternative in taken:
        if alternative == 0:
            gap += 1
            continue
        code = min(alternative, _ALTERNATIVE_ESCAPE) - 1
        _varint(out, gap << _ALTERNATIVE_BITS | code)
        if alternative >= _ALTERNATIVE_ESCAPE:
            _varint(out, alternative - _ALTERNATIVE_ESCAPE)
        gap = 0
    return bytes(out)


def unpack(data: bytes) -> dict[int, int]:
    """Decode to ``{decision: alternative}``.

    Raises:
        TokenError: The bytes end within a number, or there are more than a schedule can have.
    """
    deviations: dict[int, int] = {}
    position = 0
    decision = 0
    while position < len(data):
        value, position = _read(data, position)
        decision += value >> _ALTERNATIVE_BITS
        alternative = (value & _ALTERNATIVE_ESCAPE) + 1
        if alternative == _ALTERNATIVE_ESCAPE:
            more, position = _read(data, position)
            alternative += more
        if len(deviations) >= STEPS_MAX:
            raise TokenError(
                f"the token has choices of more than {STEPS_MAX:,} steps, which no schedule has; "
                "it was not made by this tool"
            )
        deviations[decision] = alternative
        decision += 1
    return deviations


def _varint(out: bytearray, value: int) -> None:
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)


def _read(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while position < len(data) and shift <= 63:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
    raise TokenError("the token's choices are damaged; copy it again, whole")


def marks(steps: list[Step]) -> tuple[int, bytes]:
    """Stride and checkpoints of a recorded schedule."""
    stride = max(1, -(-len(steps) // CHECKPOINTS_MAX))
    return stride, bytes(
        _mark(steps[start : start + stride]) for start in range(0, len(steps), stride)
    )


def _mark(steps: list[Step]) -> int:
    text = hashlib.sha256()
    for step in steps:
        text.update(checkpoint(step))
    return text.digest()[0]


def first_difference(token: Token, steps: list[Step]) -> int | None:
    """The first step of the first stretch that differs from the token; None if all fit."""
    for number, mark in enumerate(token.checkpoints):
        start = number * token.stride
        stretch = steps[start : min(start + token.stride, token.steps)]
        if not stretch or _mark(stretch) != mark:
            return start + 1
    return None


def encode(token: Token) -> str:
    """Write a token; one that is too long goes to a file below ``TOKEN_FOLDER`` that it names."""
    fields = msgspec.structs.astuple(token)
    body = msgspec.msgpack.encode(fields if token.control else fields[:-1])
    check = hashlib.sha256(body).digest()
    text = PREFIX + _base64(check[:4] + body)
    if len(text) <= TOKEN_CHARS_MAX:
        return text
    name = check.hex()[:_CHECK_DIGITS]
    TOKEN_FOLDER.mkdir(parents=True, exist_ok=True)
    path = TOKEN_FOLDER / f"{name}.ll1"
    partial = path.with_suffix(f".{os.getpid()}.part")
    partial.write_bytes(body)
    partial.replace(path)
    return FILE_PREFIX + name


def decode(text: str) -> Token:
    """Read a token.

    Raises:
        TokenError: It is not one of ours, of another version, cut short, damaged, or its file is
            missing; the message says which, and what to do.
    """
    if not isinstance(text, str):
        raise TokenError(f"a token is a text that begins with {PREFIX}, got {text!r}")
    text = text.strip()
    if text.startswith(FILE_PREFIX):
        body = _from_file(text[len(FILE_PREFIX) :])
    elif text.startswith(PREFIX):
        body = _from_text(text[len(PREFIX) :])
    elif text.startswith("ll"):
        raise TokenError(
            f"the token {_short(text)} is of another version; "
            f"this one reads tokens that begin with {PREFIX}"
        )
    else:
        raise TokenError(f"{_short(text)} is not a token: tokens begin with {PREFIX}")
    try:
        token = msgspec.msgpack.decode(body, type=Token)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise TokenError(f"the token {_short(text)} is of another version of this tool") from None
    possible = token.steps >= 0 and token.stride >= 1 and token.steps_max >= 1 and token.seed >= 0
    if not (possible and _is_name(token.fingerprint) and all(map(_is_edge, token.edges))):
        raise TokenError(f"the token {_short(text)} contradicts itself; copy it again, whole")
    if token.steps_max > STEPS_MAX or token.steps > STEPS_MAX:
        raise TokenError(
            f"the token {_short(text)} asks for up to {max(token.steps, token.steps_max):,} steps, "
            f"and a schedule has at most {STEPS_MAX:,}; search again with a lower step bound"
        )
    return token


def _is_name(fingerprint: str) -> bool:
    """Files are named by it."""
    plain = fingerprint.isascii() and fingerprint.isalnum()
    return not fingerprint or (plain and len(fingerprint) <= FINGERPRINT_CHARS_MAX)


def _is_edge(edge: list[str | int]) -> bool:
    """Two classes, two modes, a thread, and the schedule that made the edge."""
    typed = [type(column) for column in edge] == [str] * 5 + [int]
    return typed and {edge[2], edge[3]} <= {EXCLUSIVE, SHARED}


def _from_text(text: str) -> bytes:
    if len(text) > TOKEN_CHARS_MAX * 2:
        raise TokenError(f"a token has at most {TOKEN_CHARS_MAX} characters, this has {len(text)}")
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        data = b""
    body = data[4:]
    # One text for each token: base64 ignores some bits of its last character.
    whole = bool(body) and _base64(data) == text
    if not whole or hashlib.sha256(body).digest()[:4] != data[:4]:
        raise TokenError(
            f"the token {_short(PREFIX + text)} is damaged or cut short; copy it again, whole"
        )
    return body


def _from_file(name: str) -> bytes:
    path = TOKEN_FOLDER / f"{name}.ll1"
    if len(name) != _CHECK_DIGITS or not set(name) <= set("0123456789abcdef"):
        raise TokenError(f"the token {_short(FILE_PREFIX + name)} is damaged; copy it again, whole")
    try:
        if path.stat().st_size > TOKEN_BYTES_MAX:
            raise TokenError(f"the token file {path} is larger than {TOKEN_BYTES_MAX} bytes")
        body = path.read_bytes()
    except OSError as error:
        raise TokenError(
            f"the token names the file {path}, which cannot be read ({error.strerror}); "
            "run the command where the token was made, or copy that file beside it"
        ) from None
    if hashlib.sha256(body).hexdigest()[:_CHECK_DIGITS] != name:
        raise TokenError(f"the token file {path} does not match its checksum; copy it again")
    return body


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _short(text: str) -> str:
    limit = 24
    return repr(text if len(text) <= limit else text[:limit] + "...")
