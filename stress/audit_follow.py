"""Auditing a log that is still being written: findings are told as they are made."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from typing import IO, TYPE_CHECKING

from harness.lockorder.deadlocks import named
from harness.lockorder.findings import TIERS, Finding
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
    """Tells each finding of a judge once, and a deadlock again where it has become surer."""

    def __init__(self, judge: LogJudge, tell: Callable[[Finding], None]) -> None:
        """Start with nothing told; to be the judge's ``heard``."""
        self._judge = judge
        self._tell = tell
        self._direct = 0
        self._deadlocks: dict[object, int] = {}
        self._looked = (0, 0)

    def __call__(self) -> None:
        """Tell what is new."""
        self._tell_new(all_of_it=False)

    def pausing(self) -> None:
        """Tell what is new, nothing more being there to read: there is time to look closer."""
        run = self._judge.playing
        looked = (0, 0) if run is None else (run.index, run.events)
        if looked != self._looked:
            self._looked = looked
            self._tell_new(all_of_it=True)

    def _tell_new(self, *, all_of_it: bool) -> None:
        judge = self._judge
        findings = judge.rules.findings
        for finding in findings[self._direct :]:
            self._tell(finding)
        self._direct = len(findings)
        found = [counted.finding for counted in judge.deadlocks.found.values()]
        if judge.playing is not None:
            found += judge.playing.sure(all_of_it=all_of_it)
        for finding in found:
            key, sure = named(finding), TIERS.index(finding.tier)
            if sure > self._deadlocks.get(key, -1):
                self._deadlocks[key] = sure
                self._tell(finding)
