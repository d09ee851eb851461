"""Logs that were judged before: the report is the same to the byte, wherever they lie now."""

from __future__ import annotations

import hashlib
import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from locklogs import write

from harness.trace import logsaved
from harness.trace.logjudge import LogJudge
from stress import audit, audit_cache
from stress.audit import audit_paths, to_json
from stress.cli import main

RUNS = (
    "T1: +a1 +b1 -b1 -a1; T2: +b1 +a1 -a1 -b1",
    "T1: +c1 +d1 ?c1; T2: +d2",
    "T1: +a1 %b1 -b1 -a1; T2: -c1",
    "T1: +a1 >T2; T2: +e1 -e1 .; T1: <T2 -a1; T3: +e1 +a1 -a1 -e1",
    "T1: =V1 +leaf1 +a1 -a1 -leaf1; T2: rV1 ~rw1 ~rw2 -rw2 -rw1; T3: [dtor +a1 -a1 ]dtor",
    "T1: +a1 zC1; T2: !C1 .; T1: +x1 *x1 +x1",
    "T1: +irq1 +a1 -a1 -irq1; T1: +a1/2 +a2/1",
)
FLAGS = {"leaf": "leaf", "irq": "irq_safe"}


def logs(folder: Path, seed: int) -> list[Path]:
    rng = random.Random(seed)
    folder.mkdir()
    return [
        write(folder / f"log{at}.jsonl", *rng.choices(RUNS, k=rng.randint(1, 4)), flags=FLAGS)
        for at in range(5)
    ]


def document(paths: list[Path], cache: Path | None, jobs: int = 1) -> str:
    return json.dumps(to_json(audit_paths(paths, cache=cache, jobs=jobs)))


@pytest.fixture(autouse=True)
def _every_log_is_worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_cache, "WORTH_BYTES", 0)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The logs that are judged, by name."""
    seen: list[str] = []
    read = audit._read

    def noting(judge: LogJudge, path: Path, at: int) -> None:
        seen.append(path.name)
        read(judge, path, at)

    monkeypatch.setattr(audit, "_read", noting)
    return seen


@pytest.mark.parametrize("seed", range(4))
def test_what_was_judged_before_is_not_read_and_says_the_same(
    tmp_path: Path, reads: list[str], seed: int
) -> None:
    paths, cache = logs(tmp_path / "logs", seed), tmp_path / "cache"
    fresh = document(paths, None)
    reads.clear()
    assert document(paths, cache) == fresh
    assert sorted(set(reads)) == [path.name for path in paths]
    reads.clear()
    assert document(paths, cache) == fresh
    assert reads == []
    # Elsewhere, in another order, with another log in between.
    paths[1].rename(tmp_path / "logs" / "z.jsonl")
    other = write(tmp_path / "logs" / "log2b.jsonl", RUNS[0], flags=FLAGS)
    paths = [tmp_path / "logs" / "z.jsonl", other, paths[4], paths[0], paths[3], paths[2]]
    fresh = document(paths, None)
    reads.clear()
    assert document(paths, cache) == fresh
    assert set(reads) <= {"log2b.jsonl"}


def test_other_processes_write_the_same_entries(tmp_path: Path, reads: list[str]) -> None:
    paths, cache = logs(tmp_path / "logs", 5), tmp_path / "cache"
    fresh = document(paths, cache, jobs=2)
    assert reads == []
    assert document(paths, cache) == fresh == document(paths, None)


def test_a_changed_log_other_options_and_other_rules_are_judged_anew(
    tmp_path: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    path = write(tmp_path / "x.jsonl", RUNS[0], flags=FLAGS)
    document([path], cache)
    path.write_bytes(path.read_bytes() + b"?\n")
    reads.clear()
    assert document([path], cache) == document([path], None)
    assert reads[0] == "x.jsonl"
    for options in ({"mode_blind": True}, {"size_max": 2}, {"budget": 1}):
        reads.clear()
        audit_paths([path], cache=cache, **options)
        assert reads, options
    monkeypatch.setattr(audit_cache, "_rules", lambda: "changed")
    reads.clear()
    document([path], cache)
    assert reads


@pytest.mark.parametrize("damage", [b"", b"?", b"\x90"])
def test_a_damaged_entry_is_written_anew(tmp_path: Path, reads: list[str], damage: bytes) -> None:
    cache = tmp_path / "cache"
    paths = logs(tmp_path / "logs", 1)[:1]
    fresh = document(paths, cache)
    (entry,) = cache.iterdir()
    good = entry.read_bytes()
    entry.write_bytes(damage)
    reads.clear()
    assert document(paths, cache) == fresh
    assert reads
    assert entry.read_bytes() == good


def test_the_oldest_entries_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "cache"
    paths = logs(tmp_path / "logs", 2)
    written: list[Path] = []
    for at, path in enumerate(paths[:3], 1):
        document([path], cache)
        (entry,) = set(cache.iterdir()) - set(written)
        os.utime(entry, (at, at))
        written.append(entry)
    size = sum(entry.stat().st_size for entry in written)
    monkeypatch.setattr(audit_cache.AuditCache.__init__, "__defaults__", (size,))
    document([paths[3]], cache)
    left = list(cache.iterdir())
    assert written[0] not in left
    assert len(set(left) - set(written)) == 1
    assert sum(entry.stat().st_size for entry in left) <= size


def test_a_folder_that_cannot_be_used_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file", encoding="utf-8")
    paths = logs(tmp_path / "logs", 3)
    assert document(paths, tmp_path / "cache") == document(paths, None)


def test_the_command_remembers_unless_told_not_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    logs(tmp_path / "logs", 4)
    main(["audit", "logs", "--json", "--no-cache"])
    fresh = capsys.readouterr()
    assert not audit_cache.FOLDER.exists()
    main(["audit", "logs", "--json"])
    main(["audit", "logs", "--json"])
    again = capsys.readouterr()
    assert again.out == fresh.out * 2
    assert "logs judged before" not in fresh.err
    assert f"5 of 5 logs judged before: {audit_cache.FOLDER}" in again.err
    assert (tmp_path / ".stress" / ".gitignore").read_text(encoding="utf-8") == "*\n"


def test_numbers_that_fit_into_no_entry_are_judged_and_not_remembered(tmp_path: Path) -> None:
    lines = ['{"zlock":1,"run":"r"}', '{"d":"thr","id":1,"name":"T"}']
    lines += ['{"d":"cls","id":1,"name":"a"}', '{"d":"cls","id":2,"name":"b"}']
    lines += [f'{{"d":"lock","id":{10**30},"cls":1,"name":"l"}}']
    lines += ['{"d":"lock","id":2,"cls":2,"name":"m"}']
    lines += [f'[1,1,1,"acq",{10**30},"x"]', '[2,2,1,"acq",2,"x"]']
    lines += [f'[{at},{at},1,"note",0]' for at in range(3, 6000)]
    path = tmp_path / "x.jsonl"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert path.stat().st_size > audit_cache.WORTH_BYTES
    for _ in range(2):
        report = audit_paths([path], cache=tmp_path / "cache")
        assert [(edge.outer, edge.inner) for edge in report.edges] == [("a", "b")]
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    "change",
    [
        lambda saved: saved[2][0][0].update(schedule=99),  # an edge of a run that there is not
        lambda saved: saved[2][0][0].update(outer_site={"module": 1}),
        lambda saved: saved[2][0][0].update(outer_site=7),
        lambda saved: saved[2][0][0].update(inner_mode="SHARED"),
        lambda saved: saved[0].append(["\0", -1]),
        lambda saved: saved.__setitem__(10, 7),
    ],
    ids=["run", "site", "no site", "mode", "class", "runs"],
)
def test_an_entry_that_no_judge_wrote_is_as_good_as_none(
    tmp_path: Path, change: Callable[[list[Any]], None]
) -> None:
    path = write(tmp_path / "log.jsonl", RUNS[0], flags=FLAGS)
    judge = LogJudge()
    with path.open("rb") as stream:
        judge.read("log", stream, 0)
    data = logsaved.save(judge, 0)
    assert logsaved.load(data, LogJudge(), "log", 0)

    assert not logsaved.load(data[:-1], LogJudge(), "log", 0)
    assert not logsaved.load(bytes([data[0] ^ 1]) + data[1:], LogJudge(), "log", 0)
    body = msgspec.msgpack.decode(data[16:])
    change(body)
    again = msgspec.msgpack.encode(body)
    assert not logsaved.load(hashlib.sha256(again).digest()[:16] + again, LogJudge(), "log", 0)
