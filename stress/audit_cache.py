"""Logs that were judged before: found again by their bytes, wherever they lie now.

An entry is named by a digest of the log's bytes, of the options that decide what is found, and of
the source of the rules, so that no entry is ever wrong, only unused; the oldest go first.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
from pathlib import Path
from typing import Final

import harness
from harness.trace import logsaved
from harness.trace.logjudge import LogJudge
from stress.artefacts import ROOT, make_ignored

FOLDER: Final = ROOT / "audit-cache"
# A smaller log is judged as soon as its entry is read.
WORTH_BYTES: Final = 1 << 16
BYTES_MAX: Final = 256 << 20
_READ_BYTES: Final = 1 << 20
# What decides what is found in a log, below the folder of the package.
_SOURCES: Final = (
    "errors.py",
    "lockorder/*.py",
    "predict/*.py",
    "trace/lo[cg]*.py",
    "trace/clocks.py",
    "trace/events.py",
)


class AuditCache:
    """The entries in one folder; a folder that cannot be used is as good as an empty one."""

    def __init__(self, folder: Path, options: object, bytes_max: int = BYTES_MAX) -> None:
        """Look in a folder.

        Args:
            folder: Made when the first entry is written.
            options: What else decides what is found; its ``repr`` tells options apart.
            bytes_max: Of all entries together.
        """
        self._folder = folder
        self._options = repr(options)
        self._bytes_max = bytes_max
        self.hits = 0

    def key(self, path: Path, name: str = "") -> str:
        """Name the entry of a log; empty where it is not worth one, or cannot be read.

        Args:
            path: The log.
            name: What else it is judged by.
        """
        digest = hashlib.sha256(f"{_rules()}|{self._options}|{name}|".encode())
        try:
            if path.stat().st_size < WORTH_BYTES or not _rules():
                return ""
            with path.open("rb") as stream:
                while piece := stream.read(_READ_BYTES):
                    digest.update(piece)
        except OSError:
            return ""
        return digest.hexdigest()

    def load(self, key: str, judge: LogJudge, name: str, after: int) -> bool:
        """Put an entry into a judge that has read nothing; see ``logsaved.load``."""
        if not key:
            return False
        path = self._folder / key
        with contextlib.suppress(OSError):
            data = path.read_bytes()
            if logsaved.load(data, judge, name, after):
                os.utime(path)
                self.hits += 1
                return True
            path.unlink()
        return False

    def save(self, key: str, judge: LogJudge, after: int) -> None:
        """Write an entry; the oldest others go where there are too many."""
        if not key:
            return
        # A log may be of a stranger, with numbers that fit into no entry.
        with contextlib.suppress(OSError, OverflowError):
            data = logsaved.save(judge, after)
            make_ignored(self._folder)
            draft = self._folder / f"{key}.{os.getpid()}"
            draft.write_bytes(data)
            draft.replace(self._folder / key)
            self._shrink()

    def _shrink(self) -> None:
        found = [(path, path.stat()) for path in self._folder.iterdir()]
        left = sum(state.st_size for _, state in found)
        for path, state in sorted(found, key=lambda item: (item[1].st_mtime_ns, item[0].name)):
            if left <= self._bytes_max:
                return
            path.unlink()
            left -= state.st_size


@functools.cache
def _rules() -> str:
    """Name the rules by their source; empty where that is not here."""
    folder = Path(harness.__file__).parent
    digest = hashlib.sha256()
    for pattern in _SOURCES:
        files = sorted(folder.glob(pattern))
        if not files:
            return ""
        for path in files:
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()
