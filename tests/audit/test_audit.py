"""The audit: what it says of logs, and that it says it whatever the order."""

from __future__ import annotations

import io
import json
import random
import time
from pathlib import Path

import locklogs
import msgspec
import pytest

from harness.errors import UsageError
from harness.lockorder import LockFlags
from harness.lockorder.rules import BEYOND, FINDINGS_MAX, HELD_MAX
from harness.trace.events import ObjectInfo, Site, Step, ThreadState
from harness.trace.locklog import LockLog
from stress.audit import AuditReport, audit_paths, read_golden, render_text, to_json

FLAGS = {"L": int(LockFlags.LEAF)}


def nest(names: str, *, thread: int = 1, first: int = 1, timed: bool = False) -> list[Step]:
    """Steps of one thread that nests the locks of these names; ``a1`` has the class ``a``."""
    locks = names.split()
    outcome = "True" if timed else ""
    steps = [("acquire", lock, outcome) for lock in locks]
    steps += [("release", lock, "") for lock in reversed(locks)]
    return [
        Step(
            step=first + index,
            thread=thread,
            name=f"thread {thread}",
            kind=kind,
            obj=obj,
            outcome=outcome,
            site=Site("m", f"{names}", index, "m.py", 10 * thread + index),
            published=first + index,
        )
        for index, (kind, obj, outcome) in enumerate(steps)
    ]


def write(path: Path, *runs: list[Step], final: tuple[ThreadState, ...] = ()) -> Path:
    with LockLog(path) as log:
        for number, steps in enumerate(runs, 1):
            names = sorted({step.obj for step in steps} | {state.obj for state in final})
            objects = {
                name: ObjectInfo("Mutex", name[0], FLAGS.get(name[0], 0), at)
                for at, name in enumerate(names, 1)
            }
            log.run(f"{path.name.split('.')[0]}#{number}", steps, objects, final)
    return path


def results(report: AuditReport) -> list[tuple[str, str, str]]:
    return [(finding.rule, finding.result, finding.tier) for finding in report.findings]


def test_a_clean_log_passes(tmp_path: Path) -> None:
    report = audit_paths([write(tmp_path / "x.jsonl", nest("A B C"), nest("A C"))])
    assert (report.verdict, report.reason) == ("pass", "no finding")
    assert (report.logs, report.runs, report.events) == (1, 2, 17)
    assert [(e.outer, e.inner, e.count, e.runs) for e in report.edges] == [
        ("A", "B", 1, 1),
        ("A", "C", 2, 2),
        ("B", "C", 1, 1),
    ]
    assert [(c.name, c.outgoing, c.incoming) for c in report.classes] == [
        ("A", 2, 0),
        ("B", 1, 1),
        ("C", 0, 2),
    ]


def test_both_sites_of_each_edge(tmp_path: Path) -> None:
    steps = nest("A B") + nest("B A", thread=2, first=5)
    report = audit_paths([write(tmp_path / "x.jsonl", steps)])
    assert report.verdict == "fail"
    assert results(report) == [
        ("ORD002", "Deadlock", "predicted"),
        ("ORD001", "OutOfOrder", "possible"),
    ]
    first, second = report.findings[1].edges
    assert (first.outer_site, first.inner_site, first.thread) == ("m.py:10", "m.py:11", "thread 1")
    assert (second.outer_site, second.inner_site, second.run) == ("m.py:20", "m.py:21", "x#1")


def test_a_cycle_that_no_single_run_has(tmp_path: Path) -> None:
    paths = [
        write(tmp_path / "one.jsonl", nest("A B"), nest("A B")),
        write(tmp_path / "two.jsonl", nest("B C")),
        write(tmp_path / "three.jsonl.gz", nest("C A")),
    ]
    for path in paths:
        assert audit_paths([path]).verdict == "pass"
    report = audit_paths(paths)
    assert results(report) == [("ORD001", "CircularDependency", "latent")]
    assert report.findings[0].classes == ("A", "B", "C")
    assert report.findings[0].note == "latent: the edges come from different runs"
    assert [(edge.run, edge.count) for edge in report.findings[0].edges] == [
        ("one#1", 2),
        ("two#1", 1),
        ("three#1", 1),
    ]
    assert (report.findings[0].count, report.findings[0].runs) == (1, 1)


@pytest.mark.parametrize("length", [3, 4, 5, 6])
def test_rings_over_as_many_runs(tmp_path: Path, length: int) -> None:
    names = "ABCDEF"[:length]
    runs = [nest(f"{a} {b}") for a, b in zip(names, names[1:] + names[0], strict=True)]
    random.Random(length).shuffle(runs)
    report = audit_paths([write(tmp_path / "x.jsonl", *runs)])
    assert [finding.classes for finding in report.findings] == [tuple(names)]


def test_the_order_of_the_logs_does_not_matter(tmp_path: Path) -> None:
    rng = random.Random(5)
    paths = []
    for number in range(8):
        runs = []
        for _ in range(3):
            names = rng.sample(["A", "A2", "B", "C", "D", "L"], rng.randint(1, 4))
            runs.append(nest(" ".join(names), thread=rng.randint(1, 2)))
        paths.append(write(tmp_path / f"log{number}.jsonl", *runs))
    expected = audit_paths(paths)
    assert len(expected.findings) > 3
    for _ in range(10):
        rng.shuffle(paths)
        assert audit_paths(paths) == expected
    assert audit_paths([tmp_path]) == expected
    assert audit_paths([tmp_path, *paths, paths[0]]) == expected, "a log given twice counts once"
    assert json.dumps(to_json(audit_paths(paths))) == json.dumps(to_json(expected))


def test_a_run_that_ends_stuck_is_an_observed_deadlock(tmp_path: Path) -> None:
    steps = nest("A")[:1] + nest("B", thread=2, first=2)[:1]
    site = Site("m", "f", 0, "m.py", 99)
    final = (
        ThreadState("thread 1", "blocked", "acquire", "B", site, thread=1, published=3),
        ThreadState("thread 2", "blocked", "acquire", "A", site, thread=2, published=3),
    )
    report = audit_paths([write(tmp_path / "x.jsonl", steps, final=final)])
    assert results(report) == [
        ("ORD002", "Deadlock", "observed"),
        ("ORD001", "OutOfOrder", "possible"),
    ]
    deadlock = report.findings[0]
    assert [(e.outer, e.inner, e.thread, e.outer_site, e.inner_site) for e in deadlock.edges] == [
        ("A", "B", "thread 1", "m.py:10", "m.py:99"),
        ("B", "A", "thread 2", "m.py:20", "m.py:99"),
    ]
    path = tmp_path / "x.jsonl"
    path.write_bytes(path.read_bytes() + b"?\n")
    assert "Deadlock" not in {f.result for f in audit_paths([path]).findings}, "not to be trusted"
    limited = (final[0], msgspec.structs.replace(final[1], limited=True))
    report = audit_paths([write(tmp_path / "x.jsonl", steps, final=limited)])
    assert results(report) == [], "one of them gives up after a time"


def test_the_tier_that_fails(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", nest("A B"), nest("B A"))
    assert audit_paths([path]).verdict == "fail", "latent, as in the kernel, by default"
    report = audit_paths([path], fail_on="possible")
    assert (report.verdict, report.reason) == ("pass", "1 finding, none possible or surer")
    with pytest.raises(UsageError, match="unknown tier 'certain'"):
        audit_paths([path], fail_on="certain")


def test_the_golden_table(tmp_path: Path) -> None:
    table = tmp_path / "golden.txt"
    table.write_text("# the order\nA>B\n  A > C  # seldom\n\n", encoding="utf-8")
    golden = read_golden(table)
    assert golden == [("A", "B"), ("A", "C")]
    report = audit_paths([write(tmp_path / "x.jsonl", nest("A B"))], golden=golden)
    assert report.golden is not None
    assert (report.golden.missing, report.golden.extra) == ((("A", "C"),), ())
    assert report.verdict == "pass", "what is observed may be a part"
    assert report.reason == "no finding; 1 of 2 golden edges not seen"
    path = tmp_path / "x.jsonl"
    report = audit_paths([path], golden=golden, complete=True)
    assert report.verdict == "inconclusive", "unless it must be all"
    assert audit_paths([path], golden=[("A", "B")], complete=True).verdict == "pass"
    report = audit_paths([write(path, nest("A"))], golden=golden)
    assert report.verdict == "inconclusive", "nothing was compared"
    report = audit_paths([write(tmp_path / "x.jsonl", nest("A D"))], golden=golden)
    assert results(report) == [("ORD003", "UndeclaredOrder", "observed")]
    assert report.golden is not None
    assert report.golden.extra == (("A", "D"),)


@pytest.mark.parametrize("text", ["A>B\nAB\n", "A>B\n>C\n", "A>B\nA>B>C\n"])
def test_a_golden_table_with_a_wrong_line(tmp_path: Path, text: str) -> None:
    table = tmp_path / "golden.txt"
    table.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=r"golden\.txt:2: an edge is written outer>inner"):
        read_golden(table)
    with pytest.raises(UsageError, match="cannot read the golden table"):
        read_golden(tmp_path / "none.txt")


def test_what_is_no_log(tmp_path: Path) -> None:
    other = tmp_path / "other.jsonl"
    other.write_text('{"text": "hello"}\n', encoding="utf-8")
    with pytest.raises(UsageError, match=r"other\.jsonl:1: not a lock log"):
        audit_paths([other])
    with pytest.raises(UsageError, match="there is no lock log"):
        audit_paths([tmp_path / "none.jsonl"])
    with pytest.raises(UsageError, match="holds no lock log"):
        audit_paths([tmp_path])
    with pytest.raises(UsageError, match="needs a lock log"):
        audit_paths([])
    write(tmp_path / "real.jsonl", nest("A"))
    report = audit_paths([tmp_path])
    assert [(entry.subject, entry.count) for entry in report.ledger] == [("other.jsonl", 1)]


def test_nothing_in_a_log_is_no_pass(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"zlock":1,"run":"empty"}\n')
    report = audit_paths([path])
    assert (report.verdict, report.reason) == ("inconclusive", "the logs hold no events")


def test_a_damaged_log_is_no_pass_and_its_findings_are_latent(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", nest("A B") + nest("B A", thread=2, first=5))
    path.write_bytes(path.read_bytes() + b"?\n")
    report = audit_paths([path])
    assert results(report) == [("ORD001", "OutOfOrder", "latent")]
    assert "contradicts itself" in report.findings[0].note
    path = write(tmp_path / "x.jsonl", nest("A B"))
    path.write_bytes(path.read_bytes() + b"?\n")
    report = audit_paths([path])
    assert report.verdict == "inconclusive"
    assert report.reason == "the logs are damaged: LOG001 a damaged line"
    assert [(b.rule, b.line) for b in report.integrity] == [
        ("LOG001", path.read_bytes().count(b"\n"))
    ]


def test_a_cut_log_passes_and_says_so(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", nest("A B"))
    path.write_bytes(path.read_bytes()[:-3])
    report = audit_paths([path])
    assert report.verdict == "pass"
    assert [breach.rule for breach in report.integrity] == ["LOG002"]
    assert "LOG002 the log was cut short" in render_text(report)


def test_the_ledger_says_what_was_left_out(tmp_path: Path) -> None:
    tried = nest("A B", timed=True)
    report = audit_paths([write(tmp_path / "x.jsonl", nest("A B"), tried)])
    assert [(entry.reason, entry.subject, entry.count) for entry in report.ledger] == [
        ("a try-acquire makes no edge", "B", 1),
    ]


def test_a_log_that_takes_one_lock_thousands_of_times_is_judged_up_to_a_limit(
    tmp_path: Path,
) -> None:
    """Each was held against all before it, with all of them as guards: two minutes."""
    path = locklogs.write(tmp_path / "x.jsonl", "T1: " + "+a1 " * 5_000 + "zE1 ^E1 " * 300)
    began = time.process_time()
    report = audit_paths([path])

    assert time.process_time() - began < 20
    assert len(report.findings) == FINDINGS_MAX
    beyond = f"{BEYOND}more than {FINDINGS_MAX:,} findings"
    assert {(entry.reason, entry.subject): entry.count for entry in report.ledger} == {
        (f"{BEYOND}taken by a thread that holds {HELD_MAX} locks", "a"): 5_000 - HELD_MAX,
        (beyond, "ORD005"): HELD_MAX * (HELD_MAX - 1) // 2 - FINDINGS_MAX,
        (beyond, "CTX003"): 300,
    }


def test_what_was_not_judged_is_no_pass(tmp_path: Path) -> None:
    names = [f"{a}{b}" for a in "bcdefghijk" for b in "bcdefgh"]
    taken = [f"+{name}1" for name in names]
    report = audit_paths([locklogs.write(tmp_path / "x.jsonl", "T1: " + " ".join(taken))])

    assert (report.verdict, report.findings) == ("inconclusive", ())
    assert report.reason == "6 times the logs had more than is judged; see what was left out"


def test_a_circle_is_seen_below_many_other_locks(tmp_path: Path) -> None:
    """Nobody looks whether so many can circle: that they can is taken for granted."""
    many = " ".join(f"+m{number}" for number in range(20))
    path = locklogs.write(tmp_path / "x.jsonl", f"T1: {many} +a1 +b1 -b1 -a1; T2: +b1 +a1 -a1 -b1")

    assert ("ORD002", "Deadlock", "predicted") in results(audit_paths([path]))


def test_fatal_findings_of_several_runs_are_counted(tmp_path: Path) -> None:
    report = audit_paths([write(tmp_path / "x.jsonl", *[nest("L A") for _ in range(3)])])
    (finding,) = report.findings
    assert (finding.result, finding.fatal, finding.count, finding.runs) == (
        "AcquireAfterLeaf", True, 3, 3,
    )  # fmt: skip


def test_keys_do_not_depend_on_lines_or_runs(tmp_path: Path) -> None:
    one = audit_paths([write(tmp_path / "one.jsonl", nest("A B"), nest("B A"))])
    moved = [
        [msgspec.structs.replace(step, site=_lower(step.site)) for step in run]
        for run in (nest("A B"), nest("B A"), nest("A"))
    ]
    two = audit_paths([write(tmp_path / "two.jsonl", *moved)])
    assert [f.key for f in one.findings] == [f.key for f in two.findings]
    assert len(one.findings[0].key) == 8


def _lower(site: Site | None) -> Site:
    assert site is not None
    return Site(site.module, site.qualname, site.ordinal, site.file, site.line + 1000)


def test_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write(tmp_path / "x.jsonl", nest("A B")).read_bytes()

    class Stdin:
        buffer = io.BytesIO(data)

    monkeypatch.setattr("sys.stdin", Stdin)
    assert audit_paths(["-"]).events == 7


def test_the_text(tmp_path: Path, golden) -> None:
    steps = nest("A B") + nest("B A", thread=2, first=5)
    paths = [
        write(tmp_path / "one.jsonl", steps, nest("A B"), nest("L A")),
        write(tmp_path / "two.jsonl", nest("A B", timed=True), nest("A A2")),
    ]
    table = [("A", "B"), ("B", "A"), ("A", "C"), ("L", "A")]
    text = render_text(audit_paths(paths, golden=table))
    assert max(map(len, text.splitlines())) <= 100
    golden("audit.txt", text + "\n")
