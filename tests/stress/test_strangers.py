"""What strangers wrote is refused in a line; each case here once ended otherwise."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.errors import TokenError, UsageError
from harness.explore import explore, replay
from harness.search.named import Named
from harness.sync import Mutex
from harness.trace import token as tokens
from harness.trace.logexport import fxt
from harness.trace.logimport import translated
from harness.trace.logjudge import LogJudge
from model.faults import FaultPlan
from stress import audit_policy, catalogue, mutants, run_page
from stress.campaigns import plan
from stress.campaigns.store import Store
from stress.catalogue import Spec
from stress.triage import corpus

ROOT = Path(__file__).parents[2]
HUGE = "0x" + "f" * 6_000  # more digits than Python will write
DEEP = "a = " + "[" * 5_000 + "]" * 5_000


def fuzz(*arguments: str, code: str = "") -> subprocess.CompletedProcess[str]:
    what = ["-c", code] if code else [str(ROOT / "benchmarks" / "fuzz.py")]
    path = os.pathsep.join([str(ROOT), str(ROOT / "benchmarks"), str(ROOT / "tests" / "support")])
    return subprocess.run(
        [sys.executable, *what, *arguments],
        capture_output=True,
        text=True,
        timeout=200,
        env={**os.environ, "PYTHONPATH": path},
        check=False,
    )


@pytest.mark.parametrize("inputs", [300, pytest.param(1_500, marks=pytest.mark.once)])
def test_no_reader_ends_in_anything_but_a_value_or_an_error_of_our_own(inputs: int) -> None:
    done = fuzz("--inputs", str(inputs), "--seed", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].endswith("0 wrong, seed 1")
    # A fuzzer whose inputs are all refused at the door has looked at nothing.
    lines = done.stdout.splitlines()[:-1]
    assert len(lines) == 20
    assert sum("read" in line.partition(";")[2] for line in lines) >= 16
    # As many of each kind, but for the few that cost most.
    counts = [int(line[17:26].replace(",", "")) for line in lines]
    assert sorted(counts)[3:] == [max(counts)] * 17
    assert sum(counts) >= inputs


HARM = """
import os, sys, tempfile, time
from pathlib import Path
import fuzz
from fuzz_readers import Reader
from harness.errors import UsageError

fuzz.SECONDS_MAX = 0.2
fuzz.BYTES_MAX = 64 << 20
kept = []

def refuse(data, folder): raise UsageError("no")
def crash(data, folder): return {}["key"]
def hang(data, folder):
    while True: pass
def escape(data, folder): (folder / "../../escaped").open("w").close()
def move(data, folder): os.rename("/nowhere/a", "/nowhere/b")
def run(data, folder): exec("1")
def call(data, folder): os.system("true")
def grow(data, folder): kept.append(b"x" * (200 << 20))
def keep(data, folder): (folder / "kept").write_bytes(data)

with tempfile.TemporaryDirectory() as name:
    folder = Path(name) / "inside" / "input"
    folder.mkdir(parents=True)
    guard = fuzz.Guard(Path(name) / "inside")
    for read in (refuse, keep, crash, hang, escape, move, run, call, grow):
        outcome = fuzz.judged(Reader("", [b""], None, read, 1), b"", folder, guard)
        print(read.__name__, "fine" if isinstance(outcome, str) else "wrong")
"""


def test_the_fuzzer_notices_what_does_harm() -> None:
    done = fuzz(code=HARM)
    told = dict(line.split() for line in done.stdout.splitlines())
    harm = dict.fromkeys(("crash", "hang", "escape", "move", "run", "call", "grow"), "wrong")
    assert told == {"refuse": "fine", "keep": "fine", **harm}, done.stderr


MADE = """
import hashlib, os, tempfile
from pathlib import Path
from fuzz import made
from fuzz_readers import readers
with tempfile.TemporaryDirectory() as folder:
    os.chdir(folder)
    for reader in readers(Path()):
        for index in range(12):
            print(reader.name, index, hashlib.sha256(made(reader, 3, index)).hexdigest())
    os.chdir("/")
"""


@pytest.mark.once
def test_an_input_of_the_fuzzer_is_a_function_of_seed_kind_and_index(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = []
    for hashing in ("1", "2"):
        monkeypatch.setenv("PYTHONHASHSEED", hashing)
        made.append(fuzz(code=MADE).stdout)
    assert made[0].count("\n") == 20 * 12
    assert made[0] == made[1]


def token(**changed: Any) -> str:
    fields: dict[str, Any] = {
        "program": "p", "strategy": "random", "seed": 1, "schedule": 1, "deviations": b"",
        "steps": 1, "stride": 1, "checkpoints": b"", "kind": "deadlock", "fingerprint": "f",
        "steps_max": 100, "early_timeouts": False, "meta": {"scenario": "mixed"}, "edges": [],
    }  # fmt: skip
    return tokens.encode(tokens.Token(**(fields | changed)))


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "given.toml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


MUTANT = {
    "id": "'X1'",
    "title": "'a title'",
    "file": "'model/pmm.py'",
    "before": "'a'",
    "after": "'b'",
    "depth": "1",
    "oracle": "'guard'",
    "scenario": "'canary'",
}


def mutant(**changed: str) -> str:
    fields = MUTANT | changed
    return "[[mutant]]\n" + "\n".join(f"{name} = {value}" for name, value in fields.items())


def planted(path: Path) -> object:
    return mutants.Installed(mutants.read(path)[0])


@pytest.mark.parametrize(
    ("read", "text", "said"),
    [
        (mutants.read, DEEP, "nested too deep"),
        (mutants.read, mutant(id=HUGE), "'id' must be of type str"),
        (mutants.read, mutant(id="9" * 5_000), "no valid TOML"),
        (mutants.read, mutant(id="[" + "'x'," * 5_000 + "]"), "mutant number 1 "),
        (mutants.read, mutant(depth=HUGE), "'depth' is from 0"),
        (mutants.read, mutant(file="'../../etc/x.py'"), "'file' is a .py file"),
        (mutants.read, mutant(file="'/etc/x.py'"), "'file' is a .py file"),
        (mutants.read, mutant(id="'" + "x" * 5_000 + "'"), "'id' has 5,000 characters"),
        (mutants.read, mutant(file="'" + "x" * 5_000 + ".py'"), "'file' has 5,003 characters"),
        (mutants.read, mutant(faults="'" + "x" * 5_000 + "'"), "'faults' has 5,000 characters"),
        (planted, mutant(file="'model/" + "²" * 190 + ".py'"), "there is no file model/²²"),
        (mutants.read, b"#" * (1 << 20) + b"#", "larger than 1,048,576 bytes"),
        (audit_policy.read_order, DEEP, "nested too deep"),
        (audit_policy.read_allow, "a = " + "9" * 5_000, "not an allow file"),
        (audit_policy.read_baseline, '{"findings": [{"key": "k", "message": {}}]}', "baseline"),
        (audit_policy.read_baseline, '{"a":' * 50_000, "not a baseline"),
        (corpus.read, "a = " + "9" * 5_000, "is no corpus"),
        (corpus.read, f"[[race]]\ntoken = '{token()}'\nsince = " + HUGE, "race 1: since is"),
        (plan.read, "seeds = " + HUGE, "seeds is a number or a range"),
        (plan.read, "schedules = " + HUGE, "is no plan"),
        (plan.read, "schedules = " + "9" * 5_000, "is no plan"),
        (plan.read, "[[scenario]]\nname = 'canary'\nweight = " + HUGE, "is no plan"),
        (plan.read, "[[scenario]]\nname = 'mixed'\nparams.threads = " + HUGE, "is no plan"),
        (plan.read, "[[scenario]]\nname = '" + "x" * 9_000 + "'", "unknown scenario"),
    ],
)  # fmt: skip
def test_a_file_of_a_stranger(
    tmp_path: Path, read: Callable[[Path], object], text: str | bytes, said: str
) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        read(written(tmp_path, text))
    assert len(str(caught.value)) < 1_000
    assert "\n" not in str(caught.value)


def test_a_product_of_lists_is_refused_before_it_is_made(tmp_path: Path) -> None:
    many = f"strategies = {['pct'] * 60_000}\nfaults = {['none'] * 60_000}\n"
    with pytest.raises(UsageError, match=r"3,600,000,000 or more; divide it"):
        plan.read(written(tmp_path, many))


@pytest.mark.parametrize("path", ["../outside.json", "/outside.json", "nul\\u0000byte.json"])
def test_a_schedule_of_a_corpus_lies_beside_it(tmp_path: Path, path: str) -> None:
    text = f'[[race]]\ntoken = "{token()}"\nschedule = "{path}"'
    with pytest.raises(UsageError, match="lies outside of the corpus's folder"):
        corpus.read(written(tmp_path, text))


@pytest.mark.parametrize("fingerprint", ["../../outside", "a/b", "a" * 65, "\0"])
def test_a_fingerprint_can_name_a_file(fingerprint: str) -> None:
    with pytest.raises(TokenError, match="contradicts itself"):
        tokens.decode(token(fingerprint=fingerprint))


@pytest.mark.parametrize(
    ("read", "said"),
    [
        (lambda name: tokens.decode("ll1f-" + name), "is damaged; copy it again, whole"),
        (lambda name: Store(name, make=False), "there is no store x"),
        (run_page.find, "no run 'x"),
        (lambda name: corpus.read(Path(name)), "cannot read the corpus x"),
    ],
)
def test_a_name_that_is_longer_than_any_file_may_have(
    read: Callable[[str], object], said: str
) -> None:
    with pytest.raises((UsageError, TokenError), match=said):
        read("x" * 300)


@pytest.mark.parametrize("name", ["steps", "steps_max"])
def test_a_token_of_a_schedule_that_is_longer_than_any(name: str) -> None:
    with pytest.raises(TokenError, match="a schedule has at most 1,000,000; search again with"):
        tokens.decode(token(**{name: tokens.STEPS_MAX + 1}))
    assert tokens.decode(token(**{name: tokens.STEPS_MAX})).kind == "deadlock"


@pytest.mark.parametrize(
    "changed",
    [
        {"deviations": b"\0" * (tokens.TOKEN_BYTES_MAX - 1_000)},
        {"edges": [[]] * (tokens.TOKEN_BYTES_MAX - 1_000)},
        {"control": [""] * (tokens.TOKEN_BYTES_MAX - 1_000)},
    ],
)
def test_a_token_takes_little_memory_however_it_is_packed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: dict[str, Any]
) -> None:
    """As its size grows; a hundredth of the true bound on steps shows that as well."""
    monkeypatch.chdir(tmp_path)
    text = token(**changed)
    monkeypatch.setattr(tokens, "STEPS_MAX", 10_000)
    tracemalloc.start()
    try:
        with pytest.raises(TokenError, match=r"of more than 10,000 steps|of another version"):
            tokens.unpack(tokens.decode(text).deviations)
        assert tracemalloc.get_traced_memory()[1] < 128 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", ["draw", "steady"])
@pytest.mark.parametrize("value", ["x", "²", "9" * 600, -1])
def test_a_token_with_a_word_for_a_number(name: str, value: str | int) -> None:
    text = token(meta={"scenario": "mixed", name: value})
    with pytest.raises(TokenError, match=f"the token's {name} is"):
        Spec.from_meta(tokens.decode(text).meta)


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ("threads=1000000", "parameter threads is at most 1,000"),
        ("threads=-1", "parameter threads is at most 1,000"),
        ("program=L1.999999999.1/evict.1", "more than 1,000"),
        ("program=L1.2.1/" + "evict.1+" * 1_001, "more than 1,000"),
        ("program=L1.2.1" + "/evict.1" * 1_001, "more than 1,000"),
    ],
)
def test_a_token_that_asks_for_a_system_beyond_all_bounds(params: str, said: str) -> None:
    spec = Spec.from_meta({"scenario": "mixed", "params": params})
    with pytest.raises(UsageError, match=said):
        catalogue.program_of(spec)()


@pytest.mark.parametrize("name", ["this", "harness.engine.core"])
def test_a_token_imports_nothing(name: str) -> None:
    assert name != "this" or name not in sys.modules
    lock = Mutex("a")

    def program() -> None:
        with lock:
            pass

    assert explore(program, schedules=2).failures == []
    with pytest.raises(TokenError, match="import it with the program"):
        replay(program, token(control=[name]))
    assert "this" not in sys.modules


@pytest.mark.parametrize("text", ["alloc@²", "alloc@" + "9" * 5_000, "alloc@1-" + "9" * 5_000])
def test_a_fault_at_a_number_that_is_none(text: str) -> None:
    with pytest.raises(UsageError, match="a fault is written site@n") as caught:
        FaultPlan.parse(text)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("text", [b'{"a":' * 50_000, b"[" * 50_000, b"\xff"])
def test_a_named_schedule_of_a_stranger(text: bytes) -> None:
    with pytest.raises(TokenError, match="this is no named schedule"):
        Named.read(text)


# -- logs -----------------------------------------------------------------------------------------

EDGE = {
    "event": "lock-edge", "scenario": "s", "thread": "t", "outer": "A", "inner": "B",
    "outer_mode": "exclusive", "inner_mode": "exclusive", "outer_site": "a.py:1",
    "inner_site": "b.py:2",
}  # fmt: skip


def console(*edges: object) -> str:
    return "\n".join(json.dumps({"extra": edge}) for edge in edges)


@pytest.mark.parametrize("name", [name for name in EDGE if name != "event"])
@pytest.mark.parametrize("value", [None, 7, [], {}])
def test_an_edge_of_a_console_log_that_is_not_whole_is_left_out(name: str, value: object) -> None:
    broken = {**EDGE, name: value}
    assert translated("x", console(EDGE, broken)) == translated("x", console(EDGE))


@pytest.mark.parametrize("at", ["²", "9" * 5_000, ""])
def test_a_line_number_that_is_none_leaves_the_place_open(at: str) -> None:
    log = translated("x", console({**EDGE, "inner_site": f"b.py:{at}"}))
    assert log is not None
    assert b"a.py" in log
    assert b"b.py" not in log


def test_a_console_log_that_is_nested_too_deep() -> None:
    deep = '{"lock-edge":' + "[" * 100_000 + "]" * 100_000 + "}"
    assert translated("x", console(EDGE) + "\n" + deep) == translated("x", console(EDGE))


@pytest.mark.parametrize(
    ("head", "piece"),
    [
        ("a-1 [000] 1.1: lock_acquire: 0x1 a\n", "a-1 ("),
        ("a-1 [000] 1.1: lock_acquire: 0x1 a\n", "-1 "),
        ("possible circular locking dependency detected\n", "-> #1 ("),
        ("possible circular locking dependency detected\n-> #1 (a){}\n", "a"),
        ("possible circular locking dependency detected\n-> #1 (a)", "\n"),
        ("possible recursive locking detected\n", "(a) {"),
        ("possible recursive locking detected\n", "(a) {} at: "),
        ("ZIRCON KERNEL OOPS\n", "Bad lock: name="),
        ("T|acq(a)|" + "9" * 5_000 + "\n", "T|acq(a)|1\n"),
        ("Circular lock dependency detected:\n", " a"),
    ],
)
@pytest.mark.timeout(20)
def test_a_report_that_makes_a_search_go_back_and_forth(head: str, piece: str) -> None:
    """Each took the square or the cube of the length of a line: minutes, for these."""
    translated("x", head + piece * (200_000 // len(piece)))


@pytest.mark.parametrize("ts", ["1e308", "1" + "0" * 400, "-1" + "0" * 30])
def test_times_beyond_all_computing_are_damage(ts: str) -> None:
    log = f"""{{"zlock":1,"run":"r","clock":"s"}}
{{"d":"thr","id":1,"name":"t"}}
{{"d":"lock","id":2,"name":"a"}}
[1,0.5,1,"acq",2]
[2,{ts},1,"rel",2]
""".encode()
    judge = LogJudge()
    judge.read("log", io.BytesIO(log))
    assert [breach.rule for breach in judge.breaches.values()][:1] == ["LOG001"]


def test_threads_and_times_that_no_word_holds_are_still_exported() -> None:
    log = b"""{"zlock":1,"run":"r","clock":"s"}
{"d":"thr","id":-7,"name":"t"}
{"d":"lock","id":2,"name":"a"}
[1,-5,-7,"acq",2]
[2,1e18,-7,"rel",2]
"""
    assert len(fxt(io.BytesIO(log))) % 8 == 0


# -- results --------------------------------------------------------------------------------------

FAILURE = {
    "kind": "deadlock", "message": "m", "token": "ll1-x", "schedule": 1, "preemptions": 1,
    "fingerprint": "f",
}  # fmt: skip
SCENARIO = {
    "name": "canary", "verdict": "fail", "reason": "", "schedules": 1, "steps": 1, "seconds": 1.0,
    "failures": [FAILURE],
    "evidence": {"looked": 1, "classes": 1, "unseen": 0.0, "new_class": 0.0, "growth": [[1, 1]]},
}  # fmt: skip
CATCH = {
    "id": "L1", "found": False, "schedules": 1, "kind": None, "oracle": "guard",
    "scenario": "canary", "token": None,
}  # fmt: skip
RESULTS: dict[str, Any] = {
    "verdict": "fail", "seed": (1 << 64) - 1, "scenarios": [SCENARIO],
    "parts": [{"name": "p", "verdict": "pass", "detail": ""}],
    "lock_order": {"edges": [["a", "b"]]}, "defects": {"mutants": [CATCH]},
}  # fmt: skip


def drawn(folder: Path, document: object) -> str:
    data = document if isinstance(document, bytes) else json.dumps(document).encode()
    (folder / "results.json").write_bytes(data)
    return run_page.page(run_page.read(folder), "title", pairs=False)


def test_results_that_are_right_are_drawn(tmp_path: Path) -> None:
    assert "canary" in drawn(tmp_path, RESULTS)


@pytest.mark.parametrize(
    "changed",
    [
        {"scenarios": [{**SCENARIO, "evidence": {"classes": 1}}]},
        {"scenarios": [{**SCENARIO, "evidence": {**SCENARIO["evidence"], "growth": 0.5}}]},  # type: ignore[dict-item]
        {"scenarios": [{**SCENARIO, "schedules": 10**400}]},
        {"scenarios": [{**SCENARIO, "seconds": -1.0}]},
        {"parts": [{"name": "p", "verdict": {}, "detail": ""}]},
        {"parts": 0},
        {"lock_order": {}},
        {"lock_order": {"edges": [[[], "b"]]}},
        {"defects": {"mutants": [{**CATCH, "token": {}}]}},
        {"defects": []},
    ],
)
def test_results_of_a_stranger(tmp_path: Path, changed: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="is no document of a run"):
        drawn(tmp_path, RESULTS | changed)


@pytest.mark.parametrize("data", [b"\xff", b'{"a":' * 100_000 + b"1" + b"}" * 100_000])
def test_results_that_are_no_text_or_nested_too_deep(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(UsageError, match="is no document of a run"):
        drawn(tmp_path, data)
