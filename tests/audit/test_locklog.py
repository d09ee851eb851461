"""The format: what is written, what is read back, and what becomes of damage."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import UsageError
from harness.lockorder import LockFlags
from harness.trace import packed
from harness.trace.events import ObjectInfo, Site, Step, ThreadState
from harness.trace.locklog import Event, LockLog
from harness.trace.lockread import LINE_BYTES_MAX, Damage, is_log, read_log
from harness.trace.logjudge import INTEGRITY, LogJudge
from harness.trace.packed import zstd
from stress.audit import audit_paths
from stress.cli import main

SITE = Site("mod", "f", 2, "mod.py", 10)
OBJECTS = {
    "a": ObjectInfo("Mutex", "A", int(LockFlags.NESTABLE), 1),
    "c": ObjectInfo("Condition", mutex="a"),
    "cell": ObjectInfo("Shared"),
    "bare": ObjectInfo("Mutex"),
}


def step(number: int, thread: int, kind: str, obj: str = "", **more: object) -> Step:
    name = ("main", "worker")[thread]
    fields = {"published": number, "site": SITE, **more}
    return Step(number, thread, name, kind, obj, **fields)  # type: ignore[arg-type]


STEPS = (
    step(1, 0, "spawn"),
    step(2, 0, "acquire", "a", order=7),
    step(3, 1, "set", "cell", published=2),
    step(4, 0, "wait", "c", releases="a"),
    step(5, 1, "acquire", "a", published=4),
    step(6, 1, "notify", "c"),
    step(7, 1, "release", "a"),
    step(8, 0, "re-acquire", "a", published=7, outcome="False"),
    step(9, 1, "try-acquire", "a", outcome="False"),
    step(10, 0, "release", "a"),
    step(11, 1, "acquire", "a", outcome="True", note=("hello",)),
    step(12, 1, "release", "a"),
    step(13, 0, "join", "worker", published=11, waited=True),
)
FINAL = (
    ThreadState("main", "ended", thread=0),
    ThreadState("worker", "ended", thread=1),
)


def written(
    *runs: str, steps: tuple[Step, ...] = STEPS, final: tuple[ThreadState, ...] = FINAL
) -> bytes:
    stream = io.BytesIO()
    with LockLog(stream) as log:
        for run in runs or ("one",):
            log.run(run, steps, OBJECTS, final, seed=3)
    return stream.getvalue()


def judged(data: bytes) -> LogJudge:
    judge = LogJudge()
    judge.read("log", io.BytesIO(data))
    return judge


def rules_of(data: bytes) -> dict[str, int]:
    """The integrity rules that a log breaks, with the line of the first place."""
    return {breach.rule: breach.line for breach in judged(data).breaches.values()}


def test_what_is_written() -> None:
    lines = [json.loads(line) for line in written().splitlines()]
    assert lines[0] == {"zlock": 1, "run": "one", "clock": "step", "seed": 3}
    events = [line for line in lines if isinstance(line, list)]
    assert [event[0] for event in events] == list(range(1, len(events) + 1))
    assert [event[1:4] for event in events] == [
        [1, 0, "start"],
        [1, 0, "fork"],
        [2, 0, "req"],
        [2, 1, "start"],
        [2, 0, "acq"],
        [3, 1, "w"],
        [4, 1, "req"],
        [4, 0, "rel"],
        [4, 0, "wait"],
        [5, 1, "acq"],
        [6, 1, "sig"],
        [7, 0, "wake"],
        [7, 0, "req"],
        [7, 1, "rel"],
        [8, 0, "acq"],
        [9, 1, "try"],
        [9, 1, "fail"],
        [10, 0, "rel"],
        [11, 0, "wait"],
        [11, 1, "req"],
        [11, 1, "acq"],
        [11, 1, "note"],
        [12, 1, "rel"],
        [12, 1, "exit"],
        [13, 0, "wake"],
        [13, 0, "join"],
        [13, 0, "exit"],
    ]
    request = next(event for event in events if event[3] == "req")
    assert request[5:] == ["x", 1, 0, {"o": 7}]
    site = next(line for line in lines if isinstance(line, dict) and line.get("d") == "site")
    assert site == {
        "d": "site", "id": 1, "f": "mod.py", "l": 10, "fn": "f", "m": "mod", "o": 2,
    }  # fmt: skip
    assert {"d": "cls", "id": 1, "name": "A", "kind": "mutex", "flags": ["nestable"]} in lines


def test_definitions_precede_their_use_in_every_run() -> None:
    judge = judged(written("one", "two"))
    assert judge.breaches == {}
    assert list(judge.runs.values()) == ["one", "two"]


def test_neither_host_nor_arguments_nor_time_are_written() -> None:
    header = json.loads(written().splitlines()[0])
    assert set(header) == {"zlock", "run", "clock", "seed"}


def test_what_is_read_back() -> None:
    records = [record for batch in read_log(io.BytesIO(written())) for record in batch.records]
    assert not any(isinstance(record, Damage) for record in records)
    events = [record for record in records if isinstance(record, Event)]
    assert (events[2].op, events[2].extra) == ("req", {"o": 7})


UNPACK = {".gz": gzip.decompress, ".zst": zstd("reading").decompress}
PACK = {".gz": gzip.compress, ".zst": zstd("writing").compress}


@pytest.mark.parametrize("suffix", packed.SUFFIXES)
def test_compressed_by_name_and_the_same_each_time(tmp_path: Path, suffix: str) -> None:
    for name in ("one.jsonl", "two.jsonl"):
        with LockLog(tmp_path / (name + suffix)) as log:
            log.run("one", STEPS, OBJECTS, FINAL, seed=3)
    data = (tmp_path / f"one.jsonl{suffix}").read_bytes()
    assert data == (tmp_path / f"two.jsonl{suffix}").read_bytes()
    assert UNPACK[suffix](data) == written()
    # Several members one after the other are one log.
    assert judged(data * 2).events == 2 * judged(written()).events
    assert audit_paths([tmp_path]).runs == 2


def test_what_cannot_be_compressed_here_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with LockLog(tmp_path / "old.jsonl.zst") as log:
        log.run("one", STEPS, OBJECTS, FINAL, seed=3)
    monkeypatch.setattr(packed, "_ZSTD_MODULES", ("no.such.module",))
    monkeypatch.chdir(tmp_path)
    for words in (["run", "canary", "--lock-log", "new.jsonl.zst"], ["audit", "old.jsonl.zst"]):
        assert main(words) == 2
        (said,) = capsys.readouterr().err.splitlines()[-1:]
        assert said.endswith("python -m pip install 'lockloom[zst]'")
    assert not (tmp_path / "new.jsonl.zst").exists()


def test_an_unwritable_place_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot write the lock log"):
        LockLog(tmp_path / "no" / "such" / "folder.jsonl")


def test_what_was_wanted_at_the_end_is_logged() -> None:
    final = (
        ThreadState("main", "blocked", "acquire", "bare", SITE, thread=0, published=9),
        ThreadState("worker", "running", "acquire", "a", SITE, thread=1, published=2),
    )
    data = written(steps=STEPS[:3], final=final)
    events = [line for line in map(json.loads, data.splitlines()) if isinstance(line, list)]
    assert [event[1:4] for event in events][-2:] == [[3, 1, "w"], [9, 0, "req"]], (
        "the worker's has been done"
    )


# ---- damage ---------------------------------------------------------------------------------

HEADER = b'{"zlock":1,"run":"r"}\n'
DEFINED = HEADER + b"".join(
    line + b"\n"
    for line in (
        b'{"d":"thr","id":1,"name":"one"}',
        b'{"d":"thr","id":2,"name":"two"}',
        b'{"d":"cls","id":1,"name":"A"}',
        b'{"d":"lock","id":1,"cls":1,"name":"a"}',
        b'{"d":"lock","id":2,"cls":1,"name":"b"}',
    )
)
AT = DEFINED.count(b"\n")


def line(seq: int, tid: int, op: str, obj: int = 0, mode: str = "x", ts: int = 1) -> bytes:
    return json.dumps([seq, ts, tid, op, obj, mode, 0, 0]).encode() + b"\n"


@pytest.mark.parametrize(
    ("rule", "at", "lines"),
    [
        ("LOG001", 1, b"what is this\n"),
        ("LOG001", 1, b"\n"),
        ("LOG001", 1, b'[1,2,"three","req"]\n'),
        ("LOG001", 1, b"[1]\n"),
        ("LOG001", 1, b"\xff\xfe\n"),
        ("LOG001", 1, b'{"d":"what","id":1}\n'),
        ("LOG001", 1, b'{"d":"cls","id":1,"name":"X","flags":["nonsense"]}\n'),
        ("LOG001", 1, b'{"d":"cls","id":1,"name":"X","flags":["nestable","singleton"]}\n'),
        ("LOG001", 1, b'{"d":"lock","id":"one"}\n'),
        ("LOG002", 2, line(1, 1, "start") + b'[2,1,1,"st'),
        ("LOG003", 1, line(1, 9, "start")),
        ("LOG003", 1, line(1, 1, "req", 9)),
        ("LOG003", 1, b'{"d":"lock","id":5,"cls":9,"name":"x"}\n'),
        ("LOG003", 1, b'[1,1,1,"req",1,"x",77,0]\n'),
        ("LOG004", 1, line(1, 1, "rel", 1)),
        ("LOG005", 2, line(1, 1, "acq", 1) + line(2, 2, "acq", 1)),
        ("LOG005", 2, line(1, 1, "acq", 1, "s") + line(2, 2, "acq", 1)),
        ("LOG005", 2, line(1, 1, "acq", 1) + line(2, 2, "acq", 1, "s")),
        ("LOG006", 2, line(1, 1, "exit") + line(2, 1, "req", 1)),
        ("LOG006", 2, line(1, 1, "exit") + line(2, 1, "r", 1)),
        ("LOG007", 2, line(2, 1, "start") + line(1, 1, "note")),
        ("LOG007", 2, line(1, 1, "start", ts=5) + line(2, 1, "note", ts=4)),
        ("LOG009", 1, b'{"zlock":2,"run":"later"}\n' + line(1, 1, "start")),
        ("LOG010", 1, b'[1,1,1,"lost",0,"",0,0,{"n":5}]\n'),
        ("LOG011", 1, b'{"d":"cls","id":7,"name":"A","flags":["leaf"]}\n'),
        ("LOG012", 1, line(1, 1, "dance")),
    ],
)
def test_each_rule_of_integrity(rule: str, at: int, lines: bytes) -> None:
    broken = rules_of(DEFINED + lines)
    assert broken == {rule: AT + at}
    assert rule in INTEGRITY


def test_two_readers_may_hold_a_lock() -> None:
    lines = line(1, 1, "acq", 1, "s") + line(2, 2, "acq", 1, "s")
    lines += line(3, 1, "rel", 1, "s") + line(4, 2, "rel", 1, "s") + line(5, 1, "acq", 1)
    assert rules_of(DEFINED + lines) == {}


@pytest.mark.parametrize("data", [b"", b"\n\n", b"hello\n", b"[1,2,3]\n", line(1, 1, "req")])
def test_no_log_at_all(data: bytes) -> None:
    assert "LOG009" in rules_of(data)
    assert not is_log(io.BytesIO(data))


def test_damage_is_counted_and_the_rest_is_read() -> None:
    lines = line(1, 1, "acq", 1) + b"?\n" * 5 + line(2, 1, "req", 2)
    judge = judged(DEFINED + lines)
    (breach,) = judge.breaches.values()
    assert (breach.rule, breach.line, breach.count) == ("LOG001", AT + 2, 5)
    assert judge.untrusted == {1}
    assert [finding.result for finding in judge.rules.findings] == ["AlreadyAcquired"]


def test_a_cut_last_line_is_no_contradiction() -> None:
    data = written()
    judge = judged(data[:-4])
    assert {breach.rule for breach in judge.breaches.values()} == {"LOG002"}
    assert judge.untrusted == set()
    whole = judged(data[:-1])
    assert whole.breaches == {}, "only the end of the line is missing"


@pytest.mark.parametrize("suffix", packed.SUFFIXES)
def test_a_cut_compressed_log(suffix: str) -> None:
    whole = PACK[suffix](DEFINED + b"".join(line(n, 1, "note") for n in range(1, 20_000)))
    judge = judged(whole[: len(whole) // 2])
    assert {breach.rule for breach in judge.breaches.values()} == {"LOG002"}
    assert judge.events > 1000
    assert "LOG002" in rules_of(whole[:-20] + b"\0" * 20), "its checksum is wrong"


def test_an_endless_line_is_given_up() -> None:
    data = HEADER + b"[" * (3 * LINE_BYTES_MAX)
    assert rules_of(data) == {"LOG001": 2}


def test_lines_longer_than_a_piece_are_read() -> None:
    text = "x" * (LINE_BYTES_MAX // 2)
    note = json.dumps([1, 1, 1, "note", 0, "", 0, 0, {"text": text}]).encode() + b"\n"
    judge = judged(DEFINED + note + line(2, 1, "note"))
    assert judge.breaches == {}
    assert judge.events == 2


@settings(max_examples=100)
@given(st.data())
def test_no_damage_is_ever_an_exception(data: st.DataObject) -> None:
    log = bytearray(written("one", "two"))
    for _ in range(data.draw(st.integers(1, 8))):
        start = data.draw(st.integers(0, len(log)))
        end = data.draw(st.integers(start, min(len(log), start + 40)))
        log[start:end] = data.draw(st.binary(max_size=12))
    judge = judged(bytes(log))
    assert all(breach.rule in INTEGRITY for breach in judge.breaches.values())
    assert all(breach.line >= 1 for breach in judge.breaches.values())


@settings(max_examples=100)
@given(st.lists(st.sampled_from(written("one").splitlines(keepends=True)), max_size=60))
def test_lines_in_any_order_are_never_an_exception(lines: list[bytes]) -> None:
    for log in (HEADER + b"".join(lines), b"".join(lines)):
        assert {breach.rule for breach in judged(log).breaches.values()} <= set(INTEGRITY)
