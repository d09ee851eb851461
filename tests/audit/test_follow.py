"""A log that is still being written: what it shows is told at once, and once."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from locklogs import log

from harness.errors import UsageError
from harness.lockorder import Finding
from harness.trace.logjudge import LogJudge
from stress.audit import audit_paths, to_json
from stress.audit_follow import Teller

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


PAD = "; ".join("T3: +z1 -z1" for _ in range(20))
NEST = "T1: +a1 +b1 -b1 -a1; T2: +b1 +a1 -a1 -b1"
WAIT = "T2: +c1 -c1 !E1; T1: +c1 zE1 ^E1 -c1"


TEXT = f"{NEST}; {PAD}; {WAIT}; {PAD}"
TOLD = [
    ("ORD001", "possible", True),
    ("ORD002", "predicted", True),
    # Somebody else may signal up to the end.
    ("EVT001", "predicted", False),
]


def test_what_a_pause_leaves_time_for_is_told_before_the_run_ends(tmp_path: Path) -> None:
    lines = log(TEXT).splitlines(keepends=True)
    path = tmp_path / "x.jsonl"
    path.write_bytes(b"".join(lines[:-40]))
    rest = lines[-40:]
    told: list[tuple[str, str, bool]] = []

    def wait() -> bool:
        if not rest:
            return False
        with path.open("ab") as stream:
            stream.write(b"".join(rest))
        rest.clear()
        return True

    def tell(finding: Finding) -> None:
        told.append((finding.rule, finding.tier, bool(rest)))

    report = audit_paths([path], follow=tell, wait=wait)
    assert [each for each in told if each[0] != "CTX003"] == TOLD
    assert to_json(report) == to_json(audit_paths([path]))


class Slowly(io.BytesIO):
    """Gives little at a time."""

    def read(self, size: int | None = -1) -> bytes:
        return super().read(min(size or 0, 200) if size != -1 else 200)


def test_what_a_window_shows_is_told_at_its_end() -> None:
    data = log(TEXT)
    stream, judge = Slowly(data), LogJudge(window=20)
    told: list[tuple[str, str, bool]] = []

    def tell(finding: Finding) -> None:
        told.append((finding.rule, finding.tier, stream.tell() < len(data) - 1000))

    judge.heard = Teller(judge, tell)
    judge.read("log", stream)
    judge.heard()
    assert [each for each in told if each[0] != "CTX003"] == TOLD
