"""What a stranger may do to a file: mutations of bytes, of lines, and of the values inside.

Every function takes the random numbers it may draw, so that a seed gives the same inputs anywhere.
"""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

import msgspec

Mutate: TypeAlias = Callable[[random.Random, Sequence[bytes]], bytes]

# Ends of ranges, names that leave a folder, halves of characters, what ends a script or a string.
PATHS: Final = ("../../escaped", "/nowhere/escaped", "..", "a/../../b", "C:\\escaped", "nul\0byte")
TEXTS: Final = (
    *PATHS,
    "",
    " ",
    "\ud800",
    "\udfff x",
    "²",
    "٣",
    "'\"</script><script>alert(1)</script>",
    "\u2028\u202e\x1b[2J",
    "%s%n{0}{__class__}",
    "* [a](javascript:alert(1)) | `",
    "A" * 5_000,
    "(" * 400,
    "none",
    "-",
    "9" * 5_000,
)
NUMBERS: Final = (0, -1, 1, 2**31, 2**53 + 1, 2**63 - 1, -(2**63), 2**64 - 1, 10**30, 10**400)
FLOATS: Final = (0.5, -0.0, 1e308, -1e308, 1e-320)
# What JSON, TOML and the formats of others are made of.
WORDS: Final = (
    b"\0", b"\xff\xfe", b"\xed\xa0\x80", b"\\ud800", b"\\u0000", b"\n", b"\r", b"[", b"]", b"{",
    b"}", b"[" * 3_000, b'{"a":' * 3_000, b'"', b"'''", b",", b"=", b"#", b"null", b"true",
    b"1e999", b"NaN", b"-Infinity", b"9" * 5_000, b"0x" + b"f" * 6_000, b"-1", b"\xc2\xb2",
    b"../../escaped",
    b"|acq(l)|", b"|join(t)|", b"-> #1 (", b") {", b"at: f+0x1/0x2", b"lock_acquire: ", b"read ",
    b"Bad lock: name=a order=1", b"-1 (" * 300, b"->", b" ", b"\t", b"a" * 3_000,
)  # fmt: skip
# Values of a line of TOML.
VALUES: Final = (
    "0", "-1", "1e308", "inf", "nan", "true", '""', "[]", "{}", '["*"]', '"*"', '"../../escaped"',
    "1979-05-27", "1979-05-27T07:32:00Z", "9223372036854775808", "0x" + "f" * 6_000, "9" * 5_000,
    "[" * 2_000 + "]" * 2_000, "{a=" * 1_000 + "1" + "}" * 1_000,
    '"\\ud800"', '"0-18446744073709551615"',
    '"9-1"', '"a -> b -> c"', '"->"', "[" + '"none",' * 2_000 + "]",
    "[" + '"portfolio","pct",' * 2_000 + "]",
    '"no_memory@2"', '"alloc@1-' + "9" * 30 + '"', "'" + "x" * 5_000 + "'", '"²"', '"\\u0000"',
)  # fmt: skip
# Deeper ones are among the words.
_DEPTH: Final = 100
_NODES_MAX: Final = 5_000


def of_bytes(rng: random.Random, seeds: Sequence[bytes]) -> bytes:
    """One of the seeds with one to a few changes that know nothing of what it means."""
    data = bytearray(rng.choice(seeds))
    for _ in range(rng.choice((1, 1, 2, 4, 8))):
        at, end = _range(rng, len(data))
        match rng.randrange(8):
            case 0 if data:
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            case 1 if data:
                data[rng.randrange(len(data))] = rng.randrange(256)
            case 2:
                del data[at:]
            case 3:
                del data[at:end]
            case 4:
                data[at:at] = data[at:end] * rng.choice((1, 2, 20))
            case 5:
                other = rng.choice(seeds)
                start, stop = _range(rng, len(other))
                data[at:end] = other[start:stop]
            case 6:
                data[at:end] = rng.choice(WORDS)
            case _:
                data[at:at] = rng.choice(WORDS)
    return bytes(data)


def _range(rng: random.Random, size: int) -> tuple[int, int]:
    at = rng.randint(0, size)
    return at, min(size, at + rng.choice((1, 2, 8, 64, size)))


def of_lines(rng: random.Random, seeds: Sequence[bytes]) -> bytes:
    """Lines of a seed left out, doubled, swapped, taken from another, or mutated by themselves."""
    lines = rng.choice(seeds).split(b"\n")
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.randrange(len(lines))
        match rng.randrange(6):
            case 0 if len(lines) > 1:
                del lines[at]
            case 1:
                lines[at:at] = lines[at : at + rng.choice((1, 3))] * rng.choice((1, 2, 50))
            case 2:
                other = rng.randrange(len(lines))
                lines[at], lines[other] = lines[other], lines[at]
            case 3:
                lines.insert(at, rng.choice(rng.choice(seeds).split(b"\n")))
            case _:
                lines[at] = of_bytes(rng, [lines[at]])
    return b"\n".join(lines)


def of_toml(rng: random.Random, seeds: Sequence[bytes]) -> bytes:
    """Values of a few keys replaced, tables renamed, or whole lines and bytes changed."""
    if rng.random() < 0.3:
        return rng.choice((of_lines, of_bytes))(rng, seeds)
    lines = rng.choice(seeds).split(b"\n")
    for _ in range(rng.choice((1, 1, 2, 3))):
        at = rng.randrange(len(lines))
        key, equals, _ = lines[at].partition(b"=")
        if equals:
            lines[at] = key + b"= " + rng.choice(VALUES).encode("utf-8", "surrogatepass")
    return b"\n".join(lines)


def of_value(rng: random.Random, value: Any) -> Any:
    """A copy of plain data with one to a few of its nodes changed."""
    root = [copy.deepcopy(value)]
    for _ in range(rng.choice((1, 1, 2, 4))):
        places = _places(root)
        holder, key = rng.choice(places)
        match rng.randrange(9):
            case 0 if isinstance(holder, dict):
                del holder[key]
            case 1 if isinstance(holder, dict):
                holder[rng.choice(TEXTS)] = holder.pop(key)
            case 2 if isinstance(holder, list) and holder is not root:
                holder[key:key] = [holder[key]] * rng.choice((1, 2, 20))
            case 3:
                other, there = rng.choice(places)
                if there in other if isinstance(other, dict) else there < len(other):
                    holder[key] = copy.deepcopy(other[there])
            case 4:
                holder[key] = hostile(rng)
            case _:
                holder[key] = alike(rng, holder[key])
        if not root:
            root = [None]
    return root[0]


def _places(root: list[Any]) -> list[tuple[Any, Any]]:
    """Every container with each of its keys, without recursion."""
    found: list[tuple[Any, Any]] = []
    stack: list[Any] = [root]
    while stack and len(found) < _NODES_MAX:
        holder = stack.pop()
        for key in list(holder if isinstance(holder, dict) else range(len(holder))):
            found.append((holder, key))
            if isinstance(holder[key], (dict, list)):
                stack.append(holder[key])
    return found


def hostile(rng: random.Random) -> Any:
    """A value that nobody expects where it comes to stand."""
    match rng.randrange(7):
        case 0:
            return rng.choice((None, True, False))
        case 1:
            return rng.choice(NUMBERS)
        case 2:
            return rng.choice(FLOATS)
        case 3:
            nested: Any = rng.choice((0, [], {}))
            for _ in range(_DEPTH):
                nested = [nested] if rng.random() < 0.5 else {"a": nested}
            return nested
        case 4:
            return rng.choice(([], {}, [[]], [{}], {"": None}))
        case _:
            return rng.choice(TEXTS)


def alike(rng: random.Random, value: Any) -> Any:
    """Another value of the same type, so that what looks deeper sees it."""
    match value:
        case bool():
            return not value
        case int():
            return rng.choice((value + rng.choice((-1, 1, 1000)), *NUMBERS))
        case float():
            return rng.choice((-value, value * 1e9, *FLOATS))
        case str():
            at = rng.randint(0, len(value))
            return rng.choice((value[:at] + rng.choice(TEXTS) + value[at:], rng.choice(TEXTS)))
        case bytes():
            return of_bytes(rng, [value])
        case list() if value:
            return value * rng.choice((0, 2, 20)) if rng.random() < 0.5 else value[::-1]
    return hostile(rng)


def as_json(value: Any) -> bytes:
    """As a stranger's writer would have it: lone halves escaped, long numbers whole."""
    return json.dumps(value, default=repr).encode()


def of_json(rng: random.Random, seeds: Sequence[bytes]) -> bytes:
    """The value of a seed changed, or its bytes."""
    if rng.random() < 0.25:
        return of_bytes(rng, seeds)
    return as_json(of_value(rng, json.loads(rng.choice(seeds))))


def of_json_lines(rng: random.Random, seeds: Sequence[bytes]) -> bytes:
    """Values of a few lines changed, or lines and bytes."""
    if rng.random() < 0.4:
        return rng.choice((of_lines, of_bytes))(rng, seeds)
    lines = rng.choice(seeds).split(b"\n")
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.randrange(len(lines))
        try:
            lines[at] = as_json(of_value(rng, json.loads(lines[at])))
        except ValueError:
            continue
    return b"\n".join(lines)


def of_msgpack(rng: random.Random, seeds: Sequence[bytes]) -> bytes:
    """The value of a seed changed, or its bytes, or an array that claims to be longer than all."""
    match rng.randrange(8):
        case 0 | 1:
            return of_bytes(rng, seeds)
        case 2:
            at = rng.randrange(len(seeds[0]))
            return seeds[0][:at] + rng.choice(
                (b"\xdd\xff\xff\xff\xff", b"\xc6\x7f\xff\xff\xff", b"\x91" * 3_000)
            )
        case _:
            value = of_value(rng, msgspec.msgpack.decode(rng.choice(seeds)))
            try:
                return msgspec.msgpack.encode(value)
            except (OverflowError, UnicodeEncodeError, RecursionError):
                return of_bytes(rng, seeds)
