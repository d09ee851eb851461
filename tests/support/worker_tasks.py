"""What the tests of worker processes have them do: importable there, as a test module is not."""

from __future__ import annotations

import os


def double(number: int) -> int:
    return 2 * number


def die(code: int) -> None:
    os._exit(code)


def process_of(_number: int) -> int:
    return os.getpid()


def break_down() -> None:
    raise ZeroDivisionError("planted")
