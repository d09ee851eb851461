"""What reads files of strangers: right inputs of each, and what is done with a mutated one."""

from __future__ import annotations

import base64
import datetime as dt
import gzip
import hashlib
import io
import json
import random
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import fuzz_mutations as mutations
import fuzz_stores
import msgspec
from fuzz_mutations import Mutate

from harness.explore import explore
from harness.search.named import FORMAT, Named
from harness.search.setup import PATCH
from harness.trace import token as tokens
from harness.trace.locklog import LockLog
from harness.trace.logexport import chrome, fxt, std
from harness.trace.packed import packing
from stress import audit_html, audit_policy, catalogue, mutants, run_page, work
from stress.audit import audit_paths, converted, read_golden, render_text, to_json
from stress.audit_export import dot, dump, loop, sarif
from stress.audit_policy import Policy
from stress.campaigns import plan
from stress.catalogue import Spec
from stress.triage import corpus

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

from locklogs import log

_WRITERS: Final = (audit_html.page, sarif, dot, dump, loop)
_TRANSLATORS: Final = (std, chrome, fxt)


class Reader(NamedTuple):
    """One kind of input.

    Attributes:
        name: For people, and part of the seed of its inputs.
        seeds: Inputs that are right.
        mutate: Makes one that may not be.
        read: Does with it what the program would; given a folder of its own to write it to.
        every: It has one input where others have so many: one costs so much more.
    """

    name: str
    seeds: Sequence[bytes]
    mutate: Mutate
    read: Callable[[bytes, Path], object]
    every: int = 1


# -- tokens ---------------------------------------------------------------------------------------


def _failure() -> tuple[str, bytes]:
    """A token of a scenario that is shipped, and the log of its schedule."""
    spec = Spec("canary")
    found = explore(catalogue.program_of(spec), schedules=500, seed=1)
    failure = found.failures[0]
    token = msgspec.structs.replace(tokens.decode(failure.token), meta=spec.meta())
    written = io.BytesIO()
    with LockLog(written) as made:
        made.story("canary#1", failure.story(), scenario="canary", seed=1, sched="random")
    return tokens.encode(token), written.getvalue()


def _text_of(body: bytes) -> bytes:
    check = hashlib.sha256(body).digest()[:4]
    text = base64.urlsafe_b64encode(check + body).decode().rstrip("=")
    return (tokens.PREFIX + text).encode()


def _read_token(data: bytes, _folder: Path) -> object:
    token = tokens.decode(data.decode("utf-8", "surrogateescape"))
    tokens.unpack(token.deviations)
    spec = Spec.from_meta(token.meta)
    entry = catalogue.check(spec)
    if entry.drawing is not None:
        entry.drawing.lines(dict(spec.params).get(entry.drawing.param, "L1.2.1/commit.L1.0.2"))
    return catalogue.plan_of(spec, entry, token.schedule)


def _read_content(data: bytes, folder: Path) -> object:
    """With a checksum that is right."""
    return _read_token(_text_of(data), folder)


def _read_token_file(data: bytes, _folder: Path) -> object:
    """The working folder is the fuzzer's own."""
    name = hashlib.sha256(data).hexdigest()[:32]
    path = tokens.TOKEN_FOLDER / f"{name}.ll1"
    path.write_bytes(data)
    try:
        return _read_token((tokens.FILE_PREFIX + name).encode(), _folder)
    finally:
        path.unlink()


def _read_named(data: bytes, _folder: Path) -> object:
    named = Named.read(data)
    return _read_token(named.token.encode("utf-8", "surrogatepass"), _folder), named.text()


def _run_token(data: bytes, _folder: Path) -> object:
    """Replays it, as ``replay`` and ``report`` do."""
    text = _text_of(data).decode()
    spec = Spec.from_meta(tokens.decode(text).meta)
    if spec.mutant:
        return None  # in a process of its own
    return work.picture_of(spec, text, pair=False)


# -- logs -----------------------------------------------------------------------------------------


def _audit(data: bytes, folder: Path, suffix: str) -> object:
    path = folder / f"input{suffix}"
    path.write_bytes(data)
    try:
        report = audit_paths([path])
        render_text(report)
        writer = _WRITERS[len(data) % len(_WRITERS)]
        translate = _TRANSLATORS[len(data) % len(_TRANSLATORS)]
        return to_json(report), writer(report), converted(path, translate)
    finally:
        path.unlink()


def _read_log(data: bytes, folder: Path) -> object:
    return _audit(data, folder, ".jsonl")


def _read_packed(data: bytes, folder: Path) -> object:
    return _audit(data, folder, ".jsonl.gz")


def _read_foreign(data: bytes, folder: Path) -> object:
    return _audit(data, folder, ".txt")


def _packed(rng: random.Random, seeds: Sequence[bytes]) -> bytes:
    """Compressed, then mutated; or a mutated one compressed; or a bomb."""
    kind = rng.randrange(6)
    if kind == 0:
        line = rng.choice((b"\n", b"{}\n", b"[]\n", b"x", b'[1,1,1,"w",1]\n'))
        return gzip.compress(line * rng.choice((10, 100_000)), 1, mtime=0)
    data = mutations.of_json_lines(rng, seeds) if kind < 3 else rng.choice(seeds)
    written = io.BytesIO()
    with packing(written, rng.choice((".gz", ".zst"))) as stream:
        stream.write(data)
    whole = written.getvalue()
    return whole if kind < 3 else mutations.of_bytes(rng, [whole])


_FTRACE: Final = b"""\
# tracer: nop
  kworker/0:1-12      [000] d..1.  1000.000001: lock_acquire: 0xffff01 &mm->mmap_lock
  kworker/0:1-12      [000] d..1.  1000.000002: lock_acquire: 0xffff02 read &inode->i_rwsem
  kworker/0:1-12      [000] d..1.  1000.000003: lock_release: 0xffff02 &inode->i_rwsem
  kworker/0:1-12      [000] d..1.  1000.000004: lock_release: 0xffff01 &mm->mmap_lock
         cat-34       [001] d..1.  1000.000005: lock_acquire: 0xffff02 try &inode->i_rwsem
         cat-34       [001] d..1.  1000.000006: lock_contended: 0xffff02 &inode->i_rwsem
         cat-34       [001] d..1.  1000.000007: lock_acquired: 0xffff02 &inode->i_rwsem
         cat-34       [001] d..1.  1000.000008: lock_acquire: 0xffff01 &mm->mmap_lock
"""
_LOCKDEP: Final = b"""\
WARNING: possible circular locking dependency detected
repro/123 is trying to acquire lock:
ffff888012345678 (&a){+.+.}-{3:3}, at: second_fn+0x1c/0x40
-> #1 (&b){+.+.}-{3:3}:
       lock_acquire+0x100/0x200
       first_fn+0x22/0x80
-> #0 (&a){+.+.}-{3:3}:
       __mutex_lock+0x50/0x90
       second_fn+0x1c/0x40
WARNING: possible recursive locking detected
ffff8880 (&pool->lock){+.+.}-{2:2}, at: release_page+0x1c/0x40
ffff8881 (&pool->lock){+.+.}-{2:2}, at: reclaim_page+0x10/0x40
"""
_ZIRCON: Final = b"""\
[00010.000] ZIRCON KERNEL OOPS
Reason: Out Of Order
Bad lock: name=lockdep::LockClass<Two, Mutex, 8, (lockdep::LockFlags)0> order=3
Conflict: name=lockdep::LockClass<One, Mutex, 7, (lockdep::LockFlags)0> order=5
Circular lock dependency detected:
  VmObject
  VmAspace

"""
_CONSOLE: Final = b"""\
{"extra": {"event": "lock-edge", "scenario": "s", "thread": "t", "schedule": 1, "count":\
 3, "outer": "A", "inner": "B", "outer_mode": "shared", "inner_mode": "exclusive",\
 "outer_site": "a.py:1", "inner_site": "b.py:2"}}
{"extra": {"event": "lock-edge", "scenario": "s", "thread": "u", "schedule": 1, "count":\
 3, "outer": "B", "inner": "A", "outer_mode": "shared", "inner_mode": "exclusive",\
 "outer_site": "a.py:1", "inner_site": "b.py:2"}}
"""
_RUNS: Final = (
    "T1: +a1 +b1 -b1 -a1 >T3; T3: !E1 .; T2: +b1 +a1 -a1 -b1 zE1 ^E1; T1: <T3 =V1; T2: rV1",
    "T1: ~a1 +K1 zS1 ^S1 -K1 -a1 *a1 #b1; T2: +b1/1 +b2/2 ?a1; T3: [irq +K1 -K1 ]irq %b3 pb3 ub3 .",
)


def _foreign(rng: random.Random, seeds: Sequence[bytes]) -> bytes:
    """Of one format at a time, or a mixture."""
    kind = [rng.choice(seeds)]
    if kind[0] is seeds[0] and rng.random() < 0.7:
        return mutations.of_json_lines(rng, kind)
    return mutations.of_lines(rng, kind if rng.random() < 0.8 else seeds)


# -- plans, catalogues, policies ------------------------------------------------------------------


def _write(data: bytes, folder: Path) -> Path:
    path = folder / "input.toml"
    path.write_bytes(data)
    return path


def _read_plan(data: bytes, folder: Path) -> object:
    name, made = plan.read(_write(data, folder))
    assert made.digest == plan.Plan.decode(made.encode()).digest
    return name, next(made.jobs(), None)


def _read_encoded_plan(data: bytes, _folder: Path) -> object:
    made = plan.Plan.decode(data.decode("utf-8", "replace"))
    return made.encode(), next(made.jobs(), None)


def _read_mutants(data: bytes, folder: Path) -> object:
    found = mutants.read(_write(data, folder))
    for mutant in found:
        assert mutant.spec.meta()
    return mutants.Installed(found[0]).path


def _read_corpus(data: bytes, folder: Path) -> object:
    return corpus.read(_write(data, folder))


def _policies() -> Callable[[str], Callable[[bytes, Path], object]]:
    """Readers of what people decide, each applied to the same report."""
    path = Path("abba.jsonl")
    path.write_bytes(log(_RUNS[0]))
    report = audit_paths([path])

    def reader(what: str) -> Callable[[bytes, Path], object]:
        def read(data: bytes, folder: Path) -> object:
            given = _write(data, folder)
            today = dt.date(2026, 1, 1)
            match what:
                case "order":
                    policy = Policy(order=audit_policy.read_order(given), today=today)
                case "allow":
                    policy = Policy(allowances=tuple(audit_policy.read_allow(given)), today=today)
                case "baseline":
                    policy = Policy(baseline=audit_policy.read_baseline(given), today=today)
                case _:
                    return read_golden(given)
            policy.apply(list(report.findings), report.edges)
            return render_text(audit_paths([path], policy=policy))

        return read

    return reader


_PLAN: Final = b"""\
name = "nightly"
seconds = 60
schedules_max = 1000
part_seconds = 5
seeds = "0-19"
schedules = 500
strategies = ["portfolio", "pct"]
revision = "fixed"
depth = 3

[[scenario]]
name = "commit*"
weight = 3
faults = ["none", "no_memory@2"]

[[scenario]]
name = "mixed"
seeds = 7
steps_max = 1000
early_timeouts = true
params = { threads = 2, program = "L1.2.1/commit.L1.0.2" }
"""
_MUTANTS: Final = b"""\
[[mutant]]
id = "X1"
title = "a title"
file = "model/pmm.py"
before = "class Pmm"
after = "class  Pmm"
depth = 1
oracle = "guard"
scenario = "commit-decommit"
faults = "alloc@1"
revision = "fixed"
control = true
"""
_ORDER: Final = b"""\
[[order]]
outer = "a"
inner = "b"
why = "the outer one lives longer"
[[leaf]]
lock = "c"
why = "a leaf"
"""
_ALLOW: Final = b"""\
[[allow]]
edge = "a -> b"
reason = "known"
owner = "somebody"
expires = 2027-01-01
[[allow]]
key = "0a1b2c3d"
reason = "known"
owner = "somebody"
expires = 2025-01-01
"""
_GOLDEN: Final = b"a>b # comment\nb > c\n\n# nothing\n"
_BASELINE: Final = b'{"findings": [{"key": "0a1b2c3d", "message": "a before b"}]}'


# -- results --------------------------------------------------------------------------------------

_FAILURE: Final = {
    "kind": "deadlock",
    "message": "two threads\nwait",
    "token": "ll1-none",
    "schedule": 1,
    "preemptions": 1,
    "fingerprint": "0a1b",
}


def _scenario(failures: list[Any]) -> dict[str, Any]:
    return {
        "name": "canary",
        "verdict": "fail",
        "reason": "a finding",
        "schedules": 10,
        "steps": 100,
        "seconds": 0.5,
        "failures": failures,
        "evidence": {
            "looked": 10,
            "classes": 3,
            "unseen": 1.5,
            "new_class": 0.1,
            "growth": [[1, 1], [2, 2], [10, 3]],
        },
    }


def _corpus(token: str, folder: Path) -> bytes:
    """One race by its token, and by a schedule that lies beside it."""
    named = {"format": FORMAT, "token": token, "operations": [["t", "acquire", "a", 1]]}
    (folder / "race.json").write_bytes(mutations.as_json(named))
    return f"""\
[[race]]
token = "{token}"
title = "a race"
since = 2026-01-01
message = "it failed"
schedule = "race.json"
""".encode()


def _results(token: str) -> bytes:
    document = {
        "verdict": "fail",
        "seed": 1,
        "scenarios": [_scenario([_FAILURE]), _scenario([])],
        "parts": [{"name": "scenarios", "verdict": "fail", "detail": "3 findings"}],
        "lock_order": {"edges": [["a", "b"], ["b", "a"]]},
        "defects": {
            "mutants": [
                {
                    "id": "L1",
                    "found": True,
                    "schedules": 3,
                    "kind": "guard",
                    "oracle": "guard",
                    "scenario": "canary",
                    "token": token,
                }
            ]
        },
    }
    return json.dumps(document).encode()


def _read_results(data: bytes, folder: Path) -> object:
    path = folder / "results.json"
    path.write_bytes(data)
    document = run_page.read(run_page.find(str(folder)))
    return run_page.page(document, f"campaign {folder.name}", pairs=False)


def readers(folder: Path) -> list[Reader]:
    """All kinds; the working folder is written to, and ``folder``, where inputs will lie."""
    token, logged = _failure()
    body = base64.urlsafe_b64decode(token.removeprefix(tokens.PREFIX) + "===")[4:]
    mixed = Spec("mixed", params=(("program", "L1.2.1+B1.2.0/commit.L1.0.2/evict.1"),), draw=7)
    value: list[Any] = msgspec.msgpack.decode(body)
    replayed = (body, msgspec.msgpack.encode([*value, [PATCH]]))
    value[12] = mixed.meta() | {"faults": "alloc@1-3,no_memory@2", "defects": "L1,L2"}
    value[13] = [["a", "b", "exclusive", "shared", "t", 1]]
    bodies = (body, msgspec.msgpack.encode([*value, [PATCH]]))
    texts = [_text_of(each) for each in bodies]
    named = {"format": FORMAT, "token": token, "operations": [["t", "acquire", "a", 1]] * 3}
    logs = [logged, *map(log, _RUNS)]
    made = plan.made(["commit*"], seeds="0-3", faults=["none"]).encode().encode()
    foreign = [_CONSOLE, std(io.BytesIO(logs[1])), _FTRACE, _LOCKDEP, _ZIRCON]
    policy = _policies()
    m = mutations
    tokens.TOKEN_FOLDER.mkdir(parents=True, exist_ok=True)
    cached, read_cached = fuzz_stores.cache_reader(Path("abba.jsonl"), folder)
    catalogues = [_MUTANTS, _MUTANTS + _MUTANTS.replace(b"X1", b"X2")]
    return [
        Reader("token text", texts, m.of_bytes, _read_token),
        Reader("token content", bodies, m.of_msgpack, _read_content),
        Reader("token file", bodies, m.of_msgpack, _read_token_file),
        Reader("token replayed", replayed, m.of_msgpack, _run_token, 50),
        Reader("named schedule", [m.as_json(named)], m.of_json, _read_named),
        Reader("lock log", logs, m.of_json_lines, _read_log),
        Reader("growing log", logs, m.of_json_lines, fuzz_stores.read_growing),
        Reader("packed lock log", logs, _packed, _read_packed, 4),
        Reader("foreign log", foreign, _foreign, _read_foreign),
        Reader("audit cache", cached, m.of_msgpack, read_cached),
        Reader("plan", [_PLAN], m.of_toml, _read_plan),
        Reader("encoded plan", [made], m.of_json, _read_encoded_plan),
        Reader(
            "campaign store",
            [fuzz_stores.store(folder)],
            fuzz_stores.of_store,
            fuzz_stores.read_store,
            20,
        ),
        Reader("mutant catalogue", catalogues, m.of_toml, _read_mutants),
        Reader("corpus", [_corpus(token, folder)], m.of_toml, _read_corpus),
        Reader("order", [_ORDER], m.of_toml, policy("order")),
        Reader("allow", [_ALLOW], m.of_toml, policy("allow")),
        Reader("baseline", [_BASELINE], m.of_json, policy("baseline")),
        Reader("golden table", [_GOLDEN], m.of_lines, policy("golden")),
        Reader("results", [_results(token)], m.of_json, _read_results),
    ]
