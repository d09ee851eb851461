"""Declared orders, allowances, baselines: what people decided, and when it no longer holds."""

from __future__ import annotations

import datetime as dt
import json
import tomllib
from pathlib import Path

import pytest
from locklogs import write

from harness.errors import UsageError
from stress.audit import audit_paths, render_text, to_json
from stress.audit_policy import (
    Policy,
    read_allow,
    read_baseline,
    read_order,
    read_policy,
    suggest_order,
)
from stress.audit_report import AuditReport

CHAIN = "T1: +a1 +b1 +c1 -c1 -b1 -a1"
ABBA = "T1: +a1 +b1 -b1 -a1; T2: +b1 +a1 -a1 -b1"
TODAY = dt.date(2030, 1, 15)


def order(tmp_path: Path, text: str) -> Policy:
    path = tmp_path / "order.toml"
    path.write_text(text, encoding="utf-8")
    return Policy(order=read_order(path))


def judged(tmp_path: Path, run: str, policy: Policy) -> AuditReport:
    return audit_paths([write(tmp_path / "x.jsonl", run)], policy=policy)


def pair(outer: str, inner: str, why: str = "it is so") -> str:
    return f'[[order]]\nouter = "{outer}"\ninner = "{inner}"\nwhy = "{why}"\n'


def test_an_order_is_compared_both_ways(tmp_path: Path) -> None:
    report = judged(tmp_path, CHAIN, order(tmp_path, pair("a", "b") + pair("b", "d")))
    assert report.verdict == "pass"
    assert report.order is not None
    assert report.order.unexercised == (("b", "d"),)
    assert report.order.undeclared == (("a", "c"), ("b", "c"))
    text = render_text(report)
    assert "declared order: 1 of 2 pairs exercised" in text
    assert "never exercised  b -> d" in text


def test_a_pair_that_only_follows_is_broken_too(tmp_path: Path) -> None:
    policy = order(tmp_path, pair("c", "b", "callbacks come last") + pair("b", "a"))
    report = judged(tmp_path, CHAIN, policy)
    broken = [f for f in report.findings if f.rule == "ORD003"]
    assert {f.classes for f in broken} == {("a", "b"), ("a", "c"), ("b", "c")}
    assert any("callbacks come last" in finding.message for finding in broken)
    assert report.verdict == "fail"


def test_a_declared_leaf_has_nothing_under_it(tmp_path: Path) -> None:
    leaf = '[[leaf]]\nlock = "b"\nwhy = "taken in interrupts"\n'
    report = judged(tmp_path, CHAIN, order(tmp_path, pair("a", "b") + leaf))
    assert [f.classes for f in report.findings if f.rule == "ORD003"] == [("b", "c")]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (pair("a", "b") + pair("b", "a"), "goes in a circle"),
        (pair("a", "b", " "), "without a reason"),
        ('[[order]]\nouter = "a"\n', "missing required field"),
        ('[[ordre]]\nouter = "a"\n', "unknown field"),
        ("[[order", "not an order file"),
    ],
)
def test_a_wrong_order_file_says_what(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        order(tmp_path, text)


def test_a_suggested_order_holds_for_its_logs_and_leaves_the_rarest_edge_out(
    tmp_path: Path,
) -> None:
    run = ";".join([CHAIN] * 3) + "; T2: +c1 +a1 -a1 -c1"
    report = judged(tmp_path, run, Policy())
    text = suggest_order(report)
    assert "# Against it: c -> a, 1x in 1 runs" in text
    assert len(tomllib.loads(text)["order"]) == 3
    again = judged(tmp_path, run, order(tmp_path, text))
    assert [f.classes for f in again.findings if f.rule == "ORD003"] == [("c", "a")]


def allowance(tmp_path: Path, **fields: str) -> Path:
    path = tmp_path / "allow.toml"
    lines = [f"{name} = {value}" for name, value in fields.items()]
    path.write_text("\n".join(["[[allow]]", *lines]), encoding="utf-8")
    return path


WHOLE = {"reason": '"private map"', "owner": '"vm"', "expires": "2030-01-31"}


@pytest.mark.parametrize("scope", ["key", "edge"])
def test_what_is_allowed_fails_until_it_expires(tmp_path: Path, scope: str) -> None:
    plain = judged(tmp_path, ABBA, Policy())
    scopes = {"edge": {"edge": '"b -> a"'}, "key": {"key": f'"{plain.findings[0].key}"'}}
    entries = tuple(read_allow(allowance(tmp_path, **WHOLE, **scopes[scope])))
    report = judged(tmp_path, ABBA, Policy(allowances=entries, today=TODAY))
    assert len(report.findings) == len(plain.findings) - len(report.allowed)
    assert report.verdict == ("pass" if scope == "edge" else "fail")
    assert any(entry.reason == "allowed by vm until 2030-01-31" for entry in report.ledger)
    late = judged(tmp_path, ABBA, Policy(allowances=entries, today=dt.date(2030, 2, 1)))
    assert "ALLOW001" in {finding.rule for finding in late.findings}
    assert late.allowed == ()


def test_an_expired_allowance_fails_although_nothing_else_does(tmp_path: Path) -> None:
    entries = tuple(read_allow(allowance(tmp_path, **WHOLE, edge='"x -> y"')))
    assert judged(tmp_path, CHAIN, Policy(allowances=entries, today=TODAY)).verdict == "pass"
    late = judged(tmp_path, CHAIN, Policy(allowances=entries, today=dt.date(2031, 1, 1)))
    assert late.verdict == "fail"


@pytest.mark.parametrize("missing", sorted(WHOLE))
def test_an_allowance_is_whole_or_refused(tmp_path: Path, missing: str) -> None:
    fields = {name: value for name, value in WHOLE.items() if name != missing}
    with pytest.raises(UsageError, match=missing):
        read_allow(allowance(tmp_path, **fields, key='"12345678"'))
    with pytest.raises(UsageError, match="key or edge"):
        read_allow(allowance(tmp_path, **WHOLE))


def test_a_baseline_separates_new_from_known_and_gone(tmp_path: Path) -> None:
    first = judged(tmp_path, ABBA, Policy())
    path = tmp_path / "old.json"
    path.write_text(json.dumps(to_json(first)), encoding="utf-8")
    policy = Policy(baseline=read_baseline(path))
    same = judged(tmp_path, ABBA, policy)
    assert {finding.baseline for finding in same.findings} == {"known"}
    assert same.verdict == "pass"
    other = judged(tmp_path, "T1: +c1 +d1 ?c1", policy)
    assert {finding.baseline for finding in other.findings} == {"new"}
    assert other.verdict == "fail"
    assert any("not found any more" in entry.reason for entry in other.ledger)


def test_files_that_are_none_say_so(tmp_path: Path) -> None:
    other = tmp_path / "other.json"
    other.write_text("[]", encoding="utf-8")
    with pytest.raises(UsageError, match="not a baseline"):
        read_policy(None, None, other)
    with pytest.raises(UsageError, match="cannot read"):
        read_policy(tmp_path / "none.toml", None, None)
    assert read_policy(None, None, None).today >= dt.date(2020, 1, 1)
