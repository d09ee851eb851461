"""An audit for other programs: SARIF, DOT, the kernel's console; and the command that asks."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest
from locklogs import write
from pydantic import ValidationError
from pydantic_sarif.model import StaticAnalysisResultsFormatSarifVersion210JsonSchema as Sarif

from stress.audit import audit_paths
from stress.audit_export import dot, dump, loop, sarif
from stress.audit_html import page
from stress.audit_policy import Policy, read_allow
from stress.audit_report import AuditReport
from stress.cli import main

RING = "T1: +a1 +b1 -b1 -a1; T2: +b1 +c1 -c1 -b1; T3: +c1 +a1 -a1 -c1; T4: +x1 +a1 -a1 -x1"


def report(tmp_path: Path, run: str = RING, policy: Policy | None = None) -> AuditReport:
    return audit_paths([write(tmp_path / "x.jsonl", run)], policy=policy or Policy())


def valid(document: Any) -> None:
    """By models made from the official schema, which allow nothing that it does not name."""
    Sarif.model_validate(document)
    for run in document["runs"]:
        ids = [rule["id"] for rule in run["tool"]["driver"]["rules"]]
        assert len(ids) == len(set(ids))
        for result in run["results"]:
            assert ids[result["ruleIndex"]] == result["ruleId"]


EVERYTHING = (
    RING,
    "T1: =V1 -z1; T2: rV1 +a1 .",
    "T1: +a1 zC1; T2: !C1 .; T1: +x1 *x1 +x1",
    "T0: >T1; T1: +evict1 -evict1 .; T0: +evict1 <T1 -evict1",
    "T1: +hash1 [drop ]drop -hash1; T2: [dtor +hash1 -hash1 ]dtor",
    "T1: +a1 ?b1; T2: +b1 ?a1",
)


def test_whatever_is_found_is_written_as_the_schema_says(tmp_path: Path) -> None:
    paths = [write(tmp_path / f"{at}.jsonl", run) for at, run in enumerate(EVERYTHING)]
    document = json.loads(sarif(audit_paths(paths)))
    valid(document)
    results = document["runs"][0]["results"]
    found = {result["ruleId"] for result in results}
    assert found >= {"ORD001", "ORD002", "RACE001", "LEAK001", "CTX003", "LIFE002", "EVT003"}
    for result, key, value in (
        (results[0], "level", "fatal"),
        (results[0], "colour", "red"),
        (results[0]["message"], "text", 5),
        (results[0]["codeFlows"][0], "threadFlows", []),
    ):
        kept = result.get(key)
        result[key] = value
        with pytest.raises(ValidationError):
            valid(document)
        result[key] = kept
        if kept is None:
            del result[key]


def test_sarif_has_a_flow_for_each_thread_of_the_circle(tmp_path: Path) -> None:
    document = json.loads(sarif(report(tmp_path)))
    valid(document)
    results = document["runs"][0]["results"]
    assert {result["ruleId"] for result in results} == {"ORD001", "ORD002"}
    predicted = next(result for result in results if result["ruleId"] == "ORD002")
    flows = predicted["codeFlows"][0]["threadFlows"]
    assert len(flows) == 3
    orders = [[step["executionOrder"] for step in flow["locations"]] for flow in flows]
    assert orders == [[1, 4], [2, 5], [3, 6]]
    assert len(predicted["relatedLocations"]) == 2
    place = predicted["locations"][0]["physicalLocation"]
    assert place["artifactLocation"]["uri"] == "f.py"
    again = json.loads(sarif(report(tmp_path)))
    assert again == document


def test_sarif_keeps_what_is_allowed_as_suppressed(tmp_path: Path) -> None:
    allowed = tmp_path / "allow.toml"
    allowed.write_text(
        '[[allow]]\nedge = "c -> a"\nreason = "r"\nowner = "o"\nexpires = 2999-01-01\n',
        encoding="utf-8",
    )
    policy = Policy(allowances=tuple(read_allow(allowed)), today=read_allow(allowed)[0].expires)
    document = json.loads(sarif(report(tmp_path, policy=policy)))
    valid(document)
    results = document["runs"][0]["results"]
    assert results
    assert all(each["suppressions"][0]["justification"].startswith("r (") for each in results)


def test_dot_marks_the_edges_of_circles(tmp_path: Path) -> None:
    text = dot(report(tmp_path))
    assert text.startswith("digraph")
    edges = re.findall(r'"(\w)" -> "(\w)" \[(.*)\];', text)
    red = {(outer, inner) for outer, inner, how in edges if "color=red" in how}
    assert len(edges) == 4
    assert red == {("a", "b"), ("b", "c"), ("c", "a")}


def test_names_cannot_break_out_of_dot(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", "T1: +a1 +b1 -b1 -a1")
    path.write_bytes(path.read_bytes().replace(b'"name": "a"', b'"name": "a\\"];evil[\\""'))
    assert '"a\\"];evil[\\""' in dot(audit_paths([path]))


CHAIN = "T1: +a1 +b1 +longer_name1 +d1 +e1 -e1 -d1 -longer_name1 -b1 -a1; T2: +e1 +a1 -a1 -e1"


@pytest.mark.parametrize("text", [CHAIN, RING, CHAIN + "; T3: +x1 +e1 -e1 -x1; T3: +a1 +y1 +e1"])
def test_no_arrow_passes_under_a_box(tmp_path: Path, text: str) -> None:
    drawings = re.findall(r"<svg.*?</svg>", page(report(tmp_path, text)))
    assert len(drawings) >= 2
    for drawing in drawings:
        rects = re.findall(
            r'class="node" rx="4" x="([-\d]+)" y="([-\d]+)" width="(\d+)" height="(\d+)"', drawing
        )
        paths = re.findall(r'd="M([-\d]+) ([-\d]+)Q([-\d]+) ([-\d]+) ([-\d]+) ([-\d]+)"', drawing)
        left, _, width, _ = map(float, re.findall(r'viewBox="([^"]*)"', drawing)[0].split())
        for path in paths:
            x1, y1, x2, y2, x3, y3 = map(float, path)
            for at in range(101):
                t = at / 100
                x = (1 - t) ** 2 * x1 + 2 * t * (1 - t) * x2 + t * t * x3
                y = (1 - t) ** 2 * y1 + 2 * t * (1 - t) * y2 + t * t * y3
                assert left <= x <= left + width
                for x0, y0, wide, high in (map(float, rect) for rect in rects):
                    assert not (x0 < x < x0 + wide and y0 < y < y0 + high), (path, at)


def test_the_table_says_what_each_thread_wants_or_does(tmp_path: Path) -> None:
    shown = page(report(tmp_path, "T4: +s1 -s1 !E1; T3: +s1 zE1 ^E1 -s1; T9: +m1 =V1 -m1; T8: rV1"))
    cells = set(re.findall(r"<td>([^<]*)", shown))
    assert {"goes to sleep", "E1, signalled by T4", "s (exclusive)"} <= cells
    assert {"writes V1 with m1 held", "reads V1 with no lock held"} <= cells


def test_dump_shows_what_was_held_before_each_class(tmp_path: Path) -> None:
    text = dump(report(tmp_path))
    assert "  a {\n    c\n    x\n  }" in text
    assert "Connected sets:\n  set 0 {\n    a\n    b\n    c\n  }" in text


def test_loop_names_the_circle(tmp_path: Path) -> None:
    assert loop(report(tmp_path)) == "Circular lock dependency detected:\n  a\n  b\n  c\n"
    assert loop(report(tmp_path, "T1: +a1 -a1")) == "No circular lock dependency.\n"


@pytest.mark.parametrize(
    ("words", "code", "begins"),
    [
        (["x.jsonl"], 1, "lock-order audit"),
        (["x.jsonl", "--fail-on", "confirmed"], 0, "lock-order audit"),
        (["x.jsonl", "--format", "sarif"], 1, "{"),
        (["x.jsonl", "--format", "dot"], 1, "digraph"),
        (["dump", "x.jsonl"], 0, "Lock class dependencies:"),
        (["loop", "x.jsonl"], 0, "Circular lock"),
        (["suggest-order", "x.jsonl"], 0, "# From 1 runs"),
    ],
)
def test_the_command(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    code: int,
    begins: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    write(Path("x.jsonl"), RING)
    assert main(["audit", *words]) == code
    assert capsys.readouterr().out.startswith(begins)
    assert main(["audit", *words, "-o", "out.txt"]) == code
    assert Path("out.txt").read_text(encoding="utf-8").startswith(begins)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["x.jsonl", "--format", "pdf"], "text, json, sarif, dot, html"),
        (["x.jsonl", "--max-cycle", "1"], "--max-cycle must be at least 2"),
        (["x.jsonl", "--budget", "-1"], "--budget must be 0 or more"),
        (["x.jsonl", "-o", "no/where"], "cannot write --output"),
        (["dump"], "audit needs a lock log"),
        (["x.jsonl", "--order", "none.toml"], "cannot read none.toml"),
    ],
)
def test_wrong_usage_says_what(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    write(Path("x.jsonl"), RING)
    assert main(["audit", *words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    assert len(err.splitlines()) == 1


def test_the_page_runs_nothing_and_names_what_is_wrong(tmp_path: Path) -> None:
    often = RING + ";T1: +a1 +b1 -b1 -a1; T2: +b1 +c1 -c1 -b1"
    text = page(report(tmp_path, often))
    assert "<script" not in text
    assert "default-src 'none'" in text
    assert text.count("<svg") >= 4  # lanes and circle of the prediction, the circle, the graph
    assert "rarest" in text
    assert '<td class="wrong" title="c -&gt; a: 1x' in text
    assert "http" not in text.replace("http-equiv", "")


def test_names_are_text_on_the_page(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", RING)
    path.write_bytes(path.read_bytes().replace(b'"name": "a"', b'"name": "<b onload=x>&"'))
    text = page(audit_paths([path]))
    assert "<b onload" not in text
    assert "&lt;b onload=x&gt;&amp;" in text


def test_a_large_graph_is_a_matrix_alone(tmp_path: Path) -> None:
    names = [f"n{chr(97 + at)}x" for at in range(26)]
    run = ";".join(f"T1: +{a}1 +{b}1 -{b}1 -{a}1" for a, b in itertools.pairwise(names))
    text = page(report(tmp_path, run))
    assert "<svg" not in text
    assert text.count('<th class="down">') == 26
