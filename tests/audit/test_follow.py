"""A log that is still being written: what it shows is told at once, and once."""

from __future__ import annotations

from pathlib import Path

import pytest
from locklogs import log

from harness.errors import UsageError
from harness.lockorder import Finding
from stress.audit import audit_paths, to_json

RUNS = ("T1: +a1 +b1 -b1 -a1", "T1: +b1 +a1 -a1 -b1", "T1: +a1 +b1 -b1 -a1; T2: +b1 +a1 -a1 -b1")


def test_findings_are_told_as_the_log_grows(tmp_path: Path) -> None:
    pieces = [log(run, name=f"run{at}") for at, run in enumerate(RUNS)]
    middle = len(pieces[1]) // 2
    pieces[1:2] = [pieces[1][:middle], pieces[1][middle:]]
    path = tmp_path / "x.jsonl"
    path.write_bytes(pieces.pop(0))
    told: list[tuple[str, int]] = []

    def tell(finding: Finding) -> None:
        told.append((finding.rule, len(pieces)))

    def wait() -> bool:
        if not pieces:
            return False
        with path.open("ab") as stream:
            stream.write(pieces.pop(0))
        return True

    report = audit_paths([path], follow=tell, wait=wait)
    # The order is broken in the middle run; the deadlock is known once the last run has ended.
    assert told == [("ORD001", 1), ("ORD002", 0)]
    assert to_json(report) == to_json(audit_paths([path]))


def test_one_file_is_followed(tmp_path: Path) -> None:
    for name in ("x.jsonl", "y.jsonl"):
        (tmp_path / name).write_bytes(log(RUNS[0]))
    with pytest.raises(UsageError, match="one lock log"):
        audit_paths([tmp_path], follow=lambda _: None)
