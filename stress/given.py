"""Files that people give, and strangers may have written: read whole, within bounds.

What is in them costs no more than their size allows, and is wrong in one line, not in a traceback.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Final, TypeAlias

import msgspec

from harness.errors import UsageError

FILE_BYTES_MAX: Final = 1 << 20
_SHOWN_CHARS_MAX: Final = 300

# TOML and JSON have numbers of any length, which Python will not even show.
Number: TypeAlias = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


def read_bytes(
    path: Path,
    what: str,
    *,
    bytes_max: int = FILE_BYTES_MAX,
    hint: str = "",
    kind: type[UsageError] = UsageError,
) -> bytes:
    """The content of a file.

    Args:
        path: The file.
        what: It is, for messages, such as "the plan"; may be empty.
        bytes_max: It has no more.
        hint: What to do where it cannot be read.
        kind: Of the error.

    Raises:
        UsageError: It cannot be read, or is larger.
    """
    named = short(f"{what} {path}".strip())
    try:
        with path.open("rb") as file:
            data = file.read(bytes_max + 1)
    except (OSError, ValueError) as error:
        raise kind(f"cannot read {named}: {reason(error)}{hint}") from None
    if len(data) > bytes_max:
        raise kind(f"{named} is larger than {bytes_max:,} bytes; divide it")
    return data


def reason(error: OSError | ValueError) -> str:
    """Why the system, or Python before it, refuses a path."""
    return (isinstance(error, OSError) and error.strerror) or str(error)


def read_toml(
    path: Path,
    what: str,
    shape: Any,
    wrong: str,
    kind: type[UsageError] = UsageError,
    bytes_max: int = FILE_BYTES_MAX,
) -> Any:
    """The content of a TOML file as ``shape``, a type that msgspec knows.

    Args:
        path: The file.
        what: It is, for messages.
        shape: What should be in it.
        wrong: What is said, between its name and the reason, where something else is.
        kind: Of the error.
        bytes_max: It has no more.

    Raises:
        UsageError: It cannot be read, or holds something else.
    """
    data = read_bytes(path, what, bytes_max=bytes_max, kind=kind)
    try:
        return msgspec.convert(tomllib.loads(data.decode()), shape)
    except RecursionError:
        raise kind(f"{path} {wrong}: it is nested too deep") from None
    except (ValueError, msgspec.MsgspecError) as error:
        raise kind(f"{path} {wrong}: {short(error)}") from None


def is_file(path: Path) -> bool:
    """Whether there is such a file; a name too long for one, or with a NUL byte, names none."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def is_folder(path: Path) -> bool:
    """Whether there is such a folder; see ``is_file``."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def short(said: object) -> str:
    """What somebody else's error says, without most of what it quotes."""
    text = str(said)
    return text if len(text) <= _SHOWN_CHARS_MAX else text[:_SHOWN_CHARS_MAX] + "..."
