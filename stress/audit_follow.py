"""Auditing a log that is still being written: findings are told as they are made."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from typing import IO, TYPE_CHECKING

from harness.lockorder.findings import Finding
from harness.trace.logjudge import LogJudge

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_PAUSE_SECONDS = 0.2


def pause() -> bool:
    """Wait for more to be written; Ctrl-C says that there will be no more."""
    try:
        time.sleep(_PAUSE_SECONDS)
    except KeyboardInterrupt:
        return False
    return True


class Growing(io.RawIOBase):
    """A file that goes on where others would end, until ``wait`` says that it has ended."""

    def __init__(self, stream: IO[bytes], wait: Callable[[], bool] = pause) -> None:
        """Args: stream: The file. wait: Called where nothing more is there yet."""
        self._stream = stream
        self._wait = wait

    def readable(self) -> bool:
        """Tell that it can be read."""
        return True

    def read(self, size: int = -1) -> bytes:
        """Read what there is; nothing only at the end."""
        data = self._stream.read(size)
        while not data and self._wait():
            data = self._stream.read(size)
        return data

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Read into a buffer; see ``read``."""
        view = memoryview(buffer)
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)


class Teller:
    """Tells each finding of a judge once."""

    def __init__(self, judge: LogJudge, tell: Callable[[Finding], None]) -> None:
        """Start with nothing told; to be the judge's ``heard``."""
        self._judge = judge
        self._tell = tell
        self._direct = 0
        self._deadlocks: set[object] = set()

    def __call__(self) -> None:
        """Tell what is new."""
        findings = self._judge.rules.findings
        for finding in findings[self._direct :]:
            self._tell(finding)
        self._direct = len(findings)
        for key, counted in self._judge.deadlocks.found.items():
            if key not in self._deadlocks:
                self._deadlocks.add(key)
                self._tell(counted.finding)
