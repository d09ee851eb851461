"""Traces of others in, traces for others out."""

from __future__ import annotations

import io
import json
import struct
from collections import Counter
from pathlib import Path
from typing import Final

import msgspec
import pytest
from locklogs import log, write

from harness.errors import UsageError
from harness.trace.logexport import chrome, fxt, std
from harness.trace.logimport import translated
from stress.audit import audit_paths
from stress.audit_report import AuditReport
from stress.cli import main

ABBA = "T1: +a1 +b1 -b1 -a1; T2: +b1 +a1 -a1 -b1"


def judged(tmp_path: Path, text: str) -> AuditReport:
    path = tmp_path / "trace.txt"
    path.write_text(text, encoding="utf-8")
    report = audit_paths([path])
    assert report.integrity == ()
    return report


def found(report: AuditReport) -> list[tuple[str, str]]:
    return [(finding.rule, finding.tier) for finding in report.findings]


# The five lecture traces of Sulzmann: who reads what a tool says of them knows what it can do.
LECTURES = {
    "standard": ("T1: +x1 +y1 -y1 -x1; T2: +y1 +x1 -x1 -y1", True),
    "the same thread": ("T1: +x1 +y1 -y1 -x1; T1: +y1 +x1 -x1 -y1", False),
    "a guard": ("T1: +z1 +x1 +y1 -y1 -x1 -z1; T2: +z1 +y1 +x1 -x1 -y1 -z1", False),
    "a write that is read": ("T1: +x1 +y1 -y1 -x1 =V1; T2: rV1 +y1 +x1 -x1 -y1", False),
    "fork and join hide a third lock": (
        "T1: +x1 >T3; T3: +y1 -y1 .; T1: <T3 -x1; T2: +y1 +x1 -x1 -y1",
        True,
    ),
}


@pytest.mark.parametrize("name", LECTURES)
@pytest.mark.parametrize("as_std", [False, True])
def test_lecture_traces_as_they_are_and_by_way_of_std(
    tmp_path: Path, name: str, as_std: bool
) -> None:
    run, dead = LECTURES[name]
    data = log(run)
    if as_std:
        report = judged(tmp_path, std(io.BytesIO(data)).decode())
    else:
        report = audit_paths([write(tmp_path / "x.jsonl", run)])
    predicted = [rule for rule, tier in found(report) if tier == "predicted"]
    assert bool(predicted) == dead


# The four read-write cases that lockdep's own tests know: E and S hold exclusive and shared, R is a
# read that waits for no waiting writer, N any other request.
READ_WRITE = {
    "ER ER ER": ("+a1 ~b1", "+b1 ~c1", "+c1 ~a1", True),
    "EN SR ER": ("+a1 +b1", "~b1 ~c1", "+c1 ~a1", True),
    "EN SR SN": ("+a1 +b1", "~b1 ~c1", "~c1 +a1", False),
    "ER SR EN": ("+a1 ~b1", "~b1 ~c1", "+c1 +a1", False),
}


@pytest.mark.parametrize("name", READ_WRITE)
def test_the_read_write_cases(tmp_path: Path, name: str) -> None:
    *nests, dead = READ_WRITE[name]
    lines = []
    for at, nest in enumerate(map(str, nests), 1):
        one, other = (token[1:] for token in nest.split())
        lines.append(f"T{at}: {nest} -{other} -{one}")
    report = audit_paths([write(tmp_path / "x.jsonl", ";".join(lines))])
    assert ([tier for rule, tier in found(report) if rule == "ORD002"] == ["predicted"]) == dead
    assert bool([rule for rule, _ in found(report) if rule == "ORD001"]) == dead


# What is safe although the order of its locks looks bad; a tool that predicts here cries wolf.
SAFE = {
    "a gate": "T1: +g1 +a1 +b1 -b1 -a1 -g1; T2: +g1 +b1 +a1 -a1 -b1 -g1",
    "a producer and a consumer": "T1: +q1 =V1 -q1; T2: +q1 rV1 -q1 +o1 -o1; T1: +o1 -o1",
    "no lock in between": "T1: +a1 -a1 +b1 -b1; T2: +b1 -b1 +a1 -a1",
    "an atomic hands over": "T1: +a1 +b1 -b1 -a1 =A1; T2: rA1 +b1 +a1 -a1 -b1",
    "a hierarchy of four": (
        "T1: +a1 +b1 +c1 +d1 -d1 -c1 -b1 -a1; T2: +b1 +d1 -d1 -b1; T3: +a1 +d1 -d1 -a1"
    ),
    "locks of one thread": "T1: +a1 +b1 -b1 -a1; T1: +b1 +a1 -a1 -b1; T2: +c1 +d1 -d1 -c1",
    "phases with a barrier": "T1: +a1 +b1 -b1 -a1 !S1; T2: !S1 ^S1 +b1 +a1 -a1 -b1",
    "readers only": "T1: ~a1 ~b1 -b1 -a1; T2: ~b1 ~a1 -a1 -b1",
    "attempts": "T1: +a1 +b1 -b1 -a1; T2: +b1 %a1 -a1 -b1",
    "a lock that is made after the other thread": "T1: +a1 +b1 -b1 -a1 >T2; T2: +b1 +a1 -a1 -b1",
    "a condition in between": (
        "T1: +a1 +b1 -b1 -a1; T2: +m1 -m1 zC1; T1: +m1 !C1 -m1; T2: ^C1 +m1 -m1 +b1 +a1 -a1 -b1"
    ),
    "the other thread is dead": "T0: >T1; T1: +a1 +b1 -b1 -a1 .; T0: <T1 +b1 +a1 -a1 -b1",
}
UNSAFE = {
    "philosophers": ";".join(
        f"T{i}: +f{i} +f{(i + 1) % 4} -f{(i + 1) % 4} -f{i}" for i in range(4)
    ),
    "a writer and a reader": "T1: +a1 ~b1 -b1 -a1; T2: +b1 ~a1 -a1 -b1",
    "released out of order": "T1: +a1 +b1 +c1 -b1 -a1 -c1; T2: +c1 +a1 -a1 -c1",
    "a guard on one side": "T1: +g1 +a1 +b1 -b1 -a1 -g1; T2: +b1 +a1 -a1 -b1",
    "a condition under another lock": (
        "T2: +a1 -a1 +m1 -m1; T1: +a1 +m1 -m1 zC1; T2: +m1 !C1 -m1; T1: ^C1 +m1 -m1 -a1"
    ),
}


@pytest.mark.parametrize("name", SAFE)
def test_what_is_safe_is_not_predicted(tmp_path: Path, name: str) -> None:
    report = audit_paths([write(tmp_path / "x.jsonl", SAFE[name])])
    assert [tier for _, tier in found(report) if tier not in ("latent", "possible")] == []
    assert [rule for rule, _ in found(report) if rule != "ORD001"] == []


@pytest.mark.parametrize("name", UNSAFE)
def test_what_is_not_safe_is_predicted(tmp_path: Path, name: str) -> None:
    report = audit_paths([write(tmp_path / "x.jsonl", UNSAFE[name])])
    assert "predicted" in {tier for _, tier in found(report)}


REUSED: Final[tuple[tuple[dict[str, int], dict[str, int], list[tuple[str, int]]], ...]] = (
    ({"gen": 1}, {"gen": 2}, []),  # the same number twice, said by the generation
    ({}, {}, [("del", 1)]),  # said by the end of the first one
    ({"gen": 7}, {"gen": 7}, []),  # the same lock, defined once more
)


@pytest.mark.parametrize(("one", "other", "between"), REUSED)
def test_a_lock_at_the_address_of_another_is_another_lock(
    tmp_path: Path, one: dict[str, int], other: dict[str, int], between: list[tuple[str, int]]
) -> None:
    def lock(number: int, **more: int) -> dict[str, object]:
        return {"d": "lock", "id": number, "cls": number, "name": f"l{number}", **more}

    nest = ("acq", 1), ("acq", 2), ("rel", 2), ("rel", 1)
    turned = ("acq", 2), ("acq", 1), ("rel", 1), ("rel", 2)
    lines: list[object] = [{"zlock": 1, "run": "x"}]
    lines += [{"d": "thr", "id": at, "name": f"T{at}"} for at in (1, 2)]
    lines += [{"d": "cls", "id": at, "name": f"c{at}", "kind": "mutex"} for at in (1, 2)]
    lines += [lock(1, **one), lock(2)]
    lines += [[at, at, 1, op, obj, "x"] for at, (op, obj) in enumerate((*nest, *between), 1)]
    lines += [lock(1, **other)]
    lines += [[10 + at, 10 + at, 2, op, obj, "x"] for at, (op, obj) in enumerate(turned)]
    path = tmp_path / "x.jsonl"
    path.write_bytes(b"\n".join(map(msgspec.json.encode, lines)) + b"\n")
    report = audit_paths([path])
    assert report.integrity == ()
    same = one == other and not between
    assert [tier for rule, tier in found(report) if rule == "ORD002"] == ["predicted"] * same
    # The order of the classes is another matter.
    assert [rule for rule, _ in found(report) if rule == "ORD001"] == ["ORD001"]


FTRACE = """\
# tracer: nop
    kworker/0:1-12      [000] d..1.  1000.000001: lock_acquire: 0xffff01 &mm->mmap_lock
    kworker/0:1-12      [000] d..1.  1000.000002: lock_acquire: 0xffff02 &inode->i_rwsem
    kworker/0:1-12      [000] d..1.  1000.000003: lock_release: 0xffff02 &inode->i_rwsem
    kworker/0:1-12      [000] d..1.  1000.000004: lock_release: 0xffff01 &mm->mmap_lock
           cat-34       [001] d..1.  1000.000005: lock_acquire: 0xffff02 &inode->i_rwsem
           cat-34       [001] d..1.  1000.000006: lock_contended: 0xffff02 &inode->i_rwsem
           cat-34       [001] d..1.  1000.000007: lock_acquired: 0xffff02 &inode->i_rwsem
           cat-34       [001] d..1.  1000.000008: lock_acquire: 0xffff01 &mm->mmap_lock
           cat-34       [001] d..1.  1000.000009: lock_release: 0xffff01 &mm->mmap_lock
           cat-34       [001] d..1.  1000.000010: lock_release: 0xffff02 &inode->i_rwsem
"""


def test_ftrace(tmp_path: Path) -> None:
    report = judged(tmp_path, FTRACE)
    assert ("ORD002", "predicted") in found(report)
    assert {e.thread for e in report.findings[0].edges} == {"kworker/0:1-12", "cat-34"}
    tried = FTRACE.replace(
        "acquire: 0xffff01 &mm->mmap_lock\n           cat-34       [001] d..1.  1000.000009",
        "acquire: 0xffff01 try &mm->mmap_lock\n           cat-34       [001] d..1.  1000.000009",
    )
    assert tried != FTRACE
    assert found(judged(tmp_path, tried)) == []


SPLAT = """\
======================================================
WARNING: possible circular locking dependency detected
5.10.0 #1 Not tainted
------------------------------------------------------
repro/123 is trying to acquire lock:
ffff888012345678 (&a){+.+.}-{3:3}, at: second_fn+0x1c/0x40

but task is already holding lock:
ffff888012345679 (&b){+.+.}-{3:3}, at: second_fn+0x10/0x40

which lock already depends on the new lock.

the existing dependency chain (in reverse order) is:

-> #1 (&b){+.+.}-{3:3}:
       lock_acquire+0x100/0x200
       __mutex_lock+0x50/0x90
       first_fn+0x22/0x80
       do_syscall_64+0x33/0x40

-> #0 (&a){+.+.}-{3:3}:
       check_prev_add+0x10/0x20
       __lock_acquire+0x11/0x30
       lock_acquire+0x100/0x200
       __mutex_lock+0x50/0x90
       second_fn+0x1c/0x40
"""
RECURSIVE = """\
WARNING: possible recursive locking detected
z3fold/9 is trying to acquire lock:
ffff8880 (&pool->lock){+.+.}-{2:2}, at: release_page+0x1c/0x40
but task is already holding lock:
ffff8881 (&pool->lock){+.+.}-{2:2}, at: reclaim_page+0x10/0x40
"""


def test_lockdep_splats(tmp_path: Path) -> None:
    report = judged(tmp_path, SPLAT + RECURSIVE)
    edges = {(e.outer, e.inner): e.inner_site for e in report.edges}
    assert edges == {("&a", "&b"): "first_fn:1", ("&b", "&a"): "second_fn:1"}
    rules = {rule for rule, _ in found(report)}
    assert {"ORD001", "ORD004"} <= rules


OOPS = """\
[00010.000] ZIRCON KERNEL OOPS
Lock validation failed for thread 0xffff pid 1 tid 2 (bin:main):
Reason: {reason}
Bad lock: name=lockdep::LockClass<Two, Mutex, 8, (lockdep::LockFlags)0> order={order}
Conflict: name=lockdep::LockClass<One, Mutex, 7, (lockdep::LockFlags)0> order=5
"""
LOOP = "Circular lock dependency detected:\n  VmObject\n  VmAspace\n  PortDispatcher\n\n"


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        (OOPS.format(reason="Out Of Order", order=0), "ORD001"),
        (OOPS.format(reason="Acquire After Leaf", order=0), "ORD006"),
        (OOPS.format(reason="Invalid Irq Safety", order=0), "CTX002"),
        (OOPS.format(reason="Already Acquired", order=0).replace("Two, Mutex, 8", "One, Mutex, 7"),
         "ORD004"),
        (OOPS.format(reason="Invalid Nesting", order=3).replace("Two, Mutex, 8", "One, Mutex, 7"),
         "ORD004"),
        (OOPS.format(reason="Reentrance", order=0).replace("Two, Mutex, 8", "One, Mutex, 7"),
         "ORD005"),
        (LOOP, "ORD001"),
    ],
)  # fmt: skip
def test_reports_of_zircon(tmp_path: Path, text: str, rule: str) -> None:
    assert rule in {name for name, _ in found(judged(tmp_path, text))}


def test_the_console_log_of_a_run_is_a_log_too(tmp_path: Path) -> None:
    edges = [("A", "B", "x.py:1", "x.py:2"), ("B", "A", "y.py:3", "y.py:4")]
    lines = []
    for outer, inner, held, wanted in edges:
        extra = {
            "event": "lock-edge", "scenario": "s", "thread": "t", "schedule": 1, "count": 3,
            "outer": outer, "inner": inner, "outer_mode": "exclusive", "inner_mode": "exclusive",
            "outer_site": held, "inner_site": wanted,
        }  # fmt: skip
        lines.append(json.dumps({"text": "A > B", "record": {"extra": extra}}))
    lines.insert(1, '{"text": "cut "lock-edge"')
    report = judged(tmp_path, "\n".join(lines))
    assert [(e.outer, e.inner, e.outer_site, e.inner_site) for e in report.edges] == edges
    assert {rule for rule, _ in found(report)} >= {"ORD001"}


@pytest.mark.parametrize("text", ["", "hello\n", "{}\n", "a|b|c\n", "\x00\xff"])
def test_what_is_no_trace_is_refused(tmp_path: Path, text: str) -> None:
    assert translated("x", text) is None
    path = tmp_path / "x.txt"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match="not a lock log"):
        audit_paths([path])


STUCK = "T1: +a1; T2: +b1; T1: +c1 -a1 ?b1; T2: ?c1"


def test_chrome_has_no_overlap_on_any_track() -> None:
    document = json.loads(chrome(io.BytesIO(log(ABBA, STUCK))))
    events = document["traceEvents"]
    names = [e["args"]["name"] for e in events if e["name"] == "process_name"]
    assert names == ["x#1", "x#2"]
    begins = Counter(e["id"] for e in events if e["ph"] == "b")
    assert begins == Counter(e["id"] for e in events if e["ph"] == "e")
    assert max(begins.values()) == 1
    waits = [e for e in events if e["ph"] == "X"]
    assert {e["name"] for e in waits} >= {"waits for b b1", "waits for c c1"}
    by_track: dict[tuple[int, int], float] = {}
    for event in waits:
        track = (event["pid"], event["tid"])
        assert event["ts"] >= by_track.get(track, 0)
        by_track[track] = event["ts"] + event["dur"]


def test_fxt_is_a_sequence_of_whole_records() -> None:
    data = fxt(io.BytesIO(log(ABBA, STUCK)))
    assert data[:8] == struct.pack("<Q", 0x0016547846040010)
    at, kinds, strings, asynchronous = 8, Counter[int](), {}, Counter[int]()
    while at < len(data):
        (header,) = struct.unpack_from("<Q", data, at)
        kind, size = header & 15, header >> 4 & 0xFFF
        assert size >= 1
        kinds[kind] += 1
        if kind == 2:
            strings[header >> 16 & 0x7FFF] = data[at + 8 :][: header >> 32 & 0x7FFF].decode()
        if kind == 4:
            assert strings[header >> 32 & 0xFFFF] in ("hold", "wait")
            assert header >> 48 in strings
            asynchronous[header >> 16 & 15] += 1
        at += size * 8
    assert at == len(data)
    assert kinds[1] == 1
    assert kinds[7] == 2 + 4  # two runs, two threads each
    assert asynchronous[5] == asynchronous[7] == 4 + 3
    assert asynchronous[4] == 4 + 5
    assert "waits for b b1" in strings.values()


def test_std_holds_one_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError, match="has 2"):
        std(io.BytesIO(log(ABBA, ABBA)))
    path = write(tmp_path / "x.jsonl", ABBA)
    out = tmp_path / "x.std"
    assert main(["audit", str(path), "--format", "std", "-o", str(out)]) == 0
    assert out.read_text(encoding="utf-8").splitlines()[0] == "T1:1|acq(a1:2)|2"
    assert main(["audit", str(tmp_path), "--format", "fxt"]) == 2
    assert "takes one lock log" in capsys.readouterr().err
