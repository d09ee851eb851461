"""Real bugs, each as a few lines of a lock log: which rule finds it, and how surely.

Shapes of defects that were made in Zircon, zCore, Linux and other kernels. Those that are no matter
of lock order name the planted bug of this project that has the same shape, and its oracle.
"""

from __future__ import annotations

import io
import json
import random
import tomllib
from pathlib import Path
from typing import NamedTuple

import pytest
from locklogs import write

from harness.trace import logjudge, logrun
from stress.audit import audit_paths

ROOT = Path(__file__).parents[2]


class Bug(NamedTuple):
    """A bug: its log, the rule and the tier that find it."""

    title: str
    run: str
    rule: str
    tier: str
    flags: dict[str, str] = {}  # noqa: RUF012 - never changed


class Elsewhere(NamedTuple):
    """A bug that no lock log shows: the planted bug of the same shape, and what finds that."""

    title: str
    mutant: str
    oracle: str


def abba(one: str, other: str) -> str:
    return f"T1: +{one}1 +{other}1 -{other}1 -{one}1; T2: +{other}1 +{one}1 -{one}1 -{other}1"


def ring(*names: str) -> str:
    pairs = zip(names, (*names[1:], names[0]), strict=True)
    return ";".join(f"T{i}: +{a}1 +{b}1 -{b}1 -{a}1" for i, (a, b) in enumerate(pairs, 1))


BUGS: dict[int, Bug | Elsewhere] = {
    1: Bug(
        "a thread is started while its process kills",
        abba("thread", "process"),
        "ORD002",
        "predicted",
    ),
    2: Bug(
        "the last reference is dropped under the lock of the lookup",
        "T1: +hash1 [drop ]drop -hash1; T2: [dtor +hash1 -hash1 ]dtor",
        "LIFE004",
        "latent",
    ),
    3: Bug(
        "a signal inside of a scheduler transaction",
        "T1: +chain1 +chain2 -chain2 -chain1",
        "ORD004",
        "latent",
    ),
    4: Bug(
        "a hierarchy of VMOs locked against its numeric order",
        "T1: +cow1/9 +cow2/5 -cow2 -cow1",
        "ORD004",
        "latent",
        {"cow": "nestable"},
    ),
    5: Bug(
        "siblings locked left and right",
        "T1: +cow1/1 +cow2/2 -cow2 -cow1; T2: +cow2/1 +cow1/2 -cow1 -cow2",
        "ORD002",
        "predicted",
        {"cow": "nestable"},
    ),
    6: Bug(
        "a lender evicts from the borrower with its own lock held",
        "T1: +cow1 +cow2 -cow2 -cow1; T2: +cow2 +cow1 -cow1 -cow2",
        "ORD002",
        "predicted",
    ),
    7: Bug(
        "the loan lock is kept around an eviction",
        ring("paged", "loaned", "cow"),
        "ORD002",
        "predicted",
    ),
    8: Elsewhere("a page is waited for by its stack owner, once", "M10", "a.ppp.free_after_evict"),
    9: Elsewhere("a request is read after another thread may have freed it", "M06", "I11"),
    10: Bug(
        "a guard outlives its mutex",
        "T1: +source1; T2: *source1; T1: -source1",
        "LIFE003",
        "observed",
    ),
    11: Elsewhere("pages loaned when their provider goes are never fetched back", "M46", "I20"),
    12: Bug(
        "the reclaimer takes a VMO's lock with a spin lock held",
        "T1: +Kqueue1 +cow1 -cow1 -Kqueue1",
        "CTX001",
        "observed",
    ),
    13: Bug(
        "the eviction thread is joined under the lock that it needs",
        "T0: >T1; T1: +evict1 -evict1 .; T0: +evict1 <T1 -evict1",
        "EVT003",
        "predicted",
    ),
    14: Bug(
        "a child is torn down with its parent's lock taken by the destructor",
        "T1: +cow1 [drop ]drop -cow1; T1: [dtor +cow2 -cow2 ]dtor",
        "LIFE004",
        "latent",
    ),
    15: Bug(
        "a pager request is awaited under a lock that the pager needs",
        "T2: +aspace1 -aspace1 !E1; T1: +aspace1 zE1 ^E1 -aspace1",
        "EVT001",
        "predicted",
    ),
    16: Bug(
        "four locks, two at a time",
        ring("object", "aspace", "dispatcher", "port"),
        "ORD002",
        "predicted",
    ),
    17: Elsewhere("what was looked up is not looked at again under the lock", "M07", "I17"),
    18: Bug("mapping and paged object, both ways", abba("mapping", "paged"), "ORD002", "predicted"),
    19: Bug(
        "map_ext calls unmap with the lock held",
        "T1: +inner1 ?inner1",
        "ORD005",
        "observed",
    ),
    20: Bug(
        "a sleeping mutex in the page-fault path",
        "T1: +Kfault1 +mm1 -mm1 -Kfault1",
        "CTX001",
        "observed",
    ),
    21: Bug(
        "the heap's lock against the address space's", abba("heap", "mm"), "ORD002", "predicted"
    ),
    22: Bug(
        "a fault inside of a write takes the page's lock again",
        "T1: +page1 ?page1",
        "ORD005",
        "observed",
    ),
    23: Bug(
        "memory is allocated under a lock that reclaim needs",
        "T1: +object1 [alloc ]alloc -object1; T2: [reclaim +object1 -object1 ]reclaim",
        "CTX004",
        "possible",
    ),
    24: Bug(
        "a busy page is awaited with the object's lock held",
        "T2: +object1 -object1 !E1; T1: +object1 zE1 ^E1 -object1",
        "EVT001",
        "predicted",
    ),
    25: Bug(
        "an object is freed between map lock and busy mark",
        "T1: +object1 -object1; T2: *object1; T1: +object1",
        "LIFE002",
        "observed",
    ),
    26: Elsewhere("a page counts as valid before the fault is certain", "M32", "I16"),
    27: Bug("a retry returns with the vnode's lock held", "T1: +vnode1 .", "LEAK001", "observed"),
    28: Bug("a busy flag is a lock", abba("vnode", "busyflag"), "ORD002", "predicted"),
    29: Bug(
        "an inversion while the map is private",
        "T1: +vnode1 +map1 -map1 -vnode1; T1: +map1 +vnode1 -vnode1 -map1",
        "ORD001",
        "latent",
    ),
    30: Bug(
        "madvise removes with the address space locked",
        abba("mmap", "inode"),
        "ORD002",
        "predicted",
    ),
    31: Bug(
        "a reader wants to write on its error path", "T1: ~immap1 ?immap1", "ORD007", "observed"
    ),
    32: Bug(
        "all maps locked, one class without an order",
        "T1: +immap1 +immap2 -immap2 -immap1",
        "ORD004",
        "latent",
    ),
    33: Bug(
        "page lock and map lock against kswapd, which reads",
        "T1: +page1 +immap1 -immap1 -page1; T2: ~immap1 +page1 -page1 -immap1",
        "ORD002",
        "predicted",
    ),
    34: Bug(
        "a copy to user space faults under the inode's lock",
        abba("inode", "mmap"),
        "ORD002",
        "predicted",
    ),
    35: Bug(
        "a faulting file system comes back, and an early return",
        "T1: +drain1 ?drain1; T2: +gup1 .",
        "LEAK001",
        "observed",
    ),
    36: Bug(
        "a count drops to zero under the pool's lock",
        "T1: +pool1 [dtor ?pool1",
        "ORD005",
        "observed",
    ),
    37: Elsewhere("a page table is zapped while a lockless check trusts it", "M203", "I26"),
    38: Bug(
        "a notifier is registered against the fault handlers' order",
        abba("vma", "anon"),
        "ORD002",
        "predicted",
    ),
    39: Bug(
        "a fresh object is visible already",
        "T1: +fresh1 =V1 +list1 -list1 -fresh1; T2: +list1 +fresh1 -fresh1 -list1",
        "ORD002",
        "predicted",
    ),
}


@pytest.mark.parametrize("number", [n for n, bug in BUGS.items() if isinstance(bug, Bug)])
def test_each_bug_is_found_by_its_rule_at_its_tier(tmp_path: Path, number: int) -> None:
    bug = BUGS[number]
    assert isinstance(bug, Bug)
    report = audit_paths([write(tmp_path / "x.jsonl", bug.run, flags=bug.flags)])
    found = {(finding.rule, finding.tier) for finding in report.findings}
    assert (bug.rule, bug.tier) in found
    assert report.verdict == "fail"


@pytest.mark.parametrize("number", [n for n, bug in BUGS.items() if isinstance(bug, Elsewhere)])
def test_what_no_lock_log_shows_is_planted_in_the_model(number: int) -> None:
    bug = BUGS[number]
    assert isinstance(bug, Elsewhere)
    text = (ROOT / "model" / "mutants.toml").read_text(encoding="utf-8")
    oracles = {mutant["id"]: mutant["oracle"] for mutant in tomllib.loads(text)["mutant"]}
    assert bug.oracle in oracles[bug.mutant]


def test_the_catalogue_is_whole() -> None:
    assert sorted(BUGS) == list(range(1, 40))


def shown(number: int, bug: Bug | Elsewhere) -> str:
    if isinstance(bug, Bug):
        return f"| {number} | {bug.title} | `{bug.rule}` | {bug.tier} | |"
    return f"| {number} | {bug.title} | | | {bug.mutant}: `{bug.oracle}` |"


def test_the_page_shows_the_catalogue(request: pytest.FixtureRequest) -> None:
    page = ROOT / "docs" / "reference" / "lock-bugs.md"
    text = page.read_text(encoding="utf-8")
    head, rule, _ = text.partition("|--:|---|---|---|---|\n")
    table = "\n".join(shown(number, bug) for number, bug in sorted(BUGS.items()))
    if request.config.getoption("--update-golden"):
        page.write_text(f"{head}{rule}{table}\n", encoding="utf-8")
        return
    assert text == f"{head}{rule}{table}\n", "stale: pytest tests/audit --update-golden"


RULES = {
    "ORD007": "T1: ~fair1 ~fair1",
    "PIN001": "T1: +a1 pa1 -a1",
    "HELD001": "T1: #a1",
    "LIFE001": "T1: +a1; T2: *a1",
    "EVT002": "T1: zC1; T2: !C2 .",
    "CTX003": "T1: +a1 zC1; T2: !C1; T1: ^C1 -a1",
    "CTX004": "T1: [reclaim [alloc ]alloc ]reclaim",
    "ORD006": "T1: +leaf1 +a1 -a1 -leaf1",
    "CTX002": "T1: +irq1 +a1 -a1 -irq1",
    "CTX001": "T1: +Ka1 zC1; T2: !C1; T1: ^C1 -Ka1",
}
QUIET = {
    "PIN001": "T1: +a1 pa1 ua1 -a1",
    "HELD001": "T1: +a1 #a1 -a1",
    "LIFE001": "T1: +a1 -a1; T2: *a1",
    "EVT002": "T1: zC1; T2: !C1; T1: ^C1 .; T2: .",
    "CTX003": "T1: +a1 -a1 zC1; T2: !C1; T1: ^C1",
    "CTX004": "T1: [alloc ]alloc [reclaim ]reclaim",
    "ORD006": "T1: +a1 +leaf1 -leaf1 -a1",
    "CTX002": "T1: +a1 +irq1 -irq1 -a1",
    "CTX001": "T1: +a1 +Ka1 -Ka1 -a1",
    "LIFE002": "T1: +a1 -a1 *a1",
    "LIFE003": "T1: +a1 -a1 *a1",
    "LIFE004": "T1: [drop ]drop +a1 -a1; T2: [dtor +a1 -a1 ]dtor",
    "LEAK001": "T1: +a1 -a1 .",
    "ORD007": "T1: ~fair1; T2: ~fair1 -fair1; T1: -fair1 +fair1 -fair1",
}
FLAGS = {"leaf": "leaf", "irq": "irq_safe"}


@pytest.mark.parametrize("rule", RULES)
def test_each_other_rule(tmp_path: Path, rule: str) -> None:
    report = audit_paths([write(tmp_path / "x.jsonl", RULES[rule], flags=FLAGS)])
    assert rule in {finding.rule for finding in report.findings}


@pytest.mark.parametrize("rule", QUIET)
def test_no_rule_speaks_up_where_it_is_kept(tmp_path: Path, rule: str) -> None:
    report = audit_paths([write(tmp_path / "x.jsonl", QUIET[rule], flags=FLAGS)])
    assert report.findings == ()
    assert report.verdict == "pass"


def test_a_second_read_is_shown_with_both_modes_and_places(tmp_path: Path) -> None:
    report = audit_paths([write(tmp_path / "x.jsonl", RULES["ORD007"], flags=FLAGS)])
    (edge,) = next(found for found in report.findings if found.rule == "ORD007").edges

    assert (edge.outer, edge.outer_mode, edge.inner_mode) == ("fair", "shared", "shared")
    assert (edge.outer_site, edge.inner_site) == ("f.py:2", "f.py:3")


def test_a_lock_that_is_destroyed_while_it_is_wanted(tmp_path: Path) -> None:
    report = audit_paths([write(tmp_path / "x.jsonl", "T1: +a1; T2: ?a1; T1: -a1 *a1")])
    assert report.findings == ()


@pytest.mark.parametrize("seed", range(4))
def test_no_sequence_of_operations_makes_the_audit_fail(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(100):
        lines: list[object] = [{"zlock": 1, "run": "x#1"}]
        lines += [{"d": "thr", "id": at, "name": f"T{at}"} for at in (1, 2, 3)]
        lines += [{"d": "cls", "id": at, "name": f"c{at}", "kind": "spin"} for at in (1, 2)]
        types = ("Mutex", "Event", "Semaphore", "Condition", "Shared", "Atomic")
        for at, kind in enumerate(rng.choices(types, k=5), 1):
            lines.append({"d": "lock", "id": at, "cls": at % 3, "name": f"l{at}", "type": kind})
        extras = (
            {"t": True},
            {"what": "wait"},
            {"what": 3},
            {"c": "reclaim"},
            {"c": 5},
            {"o": "x"},
        )
        for at in range(1, rng.randint(5, 60)):
            op, obj = rng.choice(sorted(logrun._HANDLERS)), rng.randint(0, 6)
            event = [at, at, rng.randint(1, 3), op, obj, rng.choice("xs"), 0, 0]
            lines.append([*event, rng.choice(extras)] if rng.random() < 0.5 else event)
        data = b"\n".join(json.dumps(line).encode() for line in lines)
        judge = logjudge.LogJudge(budget=200)
        judge.read("log", io.BytesIO(data))
        assert judge.runs
