"""Cycles of every length, in every order of discovery, against a search of all cycles."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.lockorder import Finding, HeldLocks, LockClass, LockRules

Link = tuple[str, str, str, str]  # outer, inner, their modes

CLASSES = {name: LockClass(name) for name in "ABCDEF"}
MODES = ("exclusive", "shared")
EXCLUSIVE = ("exclusive", "exclusive")


def make(rules: LockRules, link: Link, thread: str = "t") -> None:
    """Nest two locks, each of its own class."""
    held = HeldLocks(thread)
    outer, inner, outer_mode, inner_mode = link
    site = f"{outer}{inner}{outer_mode}{inner_mode}"
    rules.acquired(held, CLASSES[outer], ord(outer), 0, outer_mode, False, site)
    rules.acquired(held, CLASSES[inner], ord(inner), 0, inner_mode, False, site)
    rules.released(held, ord(inner))
    rules.released(held, ord(outer))


def deadlocks(links: list[Link], *, blind: bool) -> Iterator[tuple[Link, ...]]:
    """All cycles of links that pass no class twice and in which every request waits.

    Each comes once for each of its rotations.
    """

    def waits(request: Link, holder: Link) -> bool:
        return blind or not (request[3] == "shared" and holder[2] == "shared")

    def walk(path: tuple[Link, ...]) -> Iterator[tuple[Link, ...]]:
        for link in links:
            if link[0] != path[-1][1] or not waits(path[-1], link):
                continue
            if link == path[0]:
                yield path
            elif link[0] != path[0][0] and all(link[1] != seen[1] for seen in path):
                yield from walk((*path, link))
            elif link[1] == path[0][0] and all(link[0] != seen[0] for seen in path):
                yield from walk((*path, link))

    for first in links:
        yield from walk((first,))


def links_of(finding: Finding) -> tuple[Link, ...]:
    return tuple((w.outer, w.inner, w.outer_mode, w.inner_mode) for w in finding.edges)


def cyclic(findings: list[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.rule == "ORD001"]


@pytest.mark.parametrize("length", [2, 3, 4, 5, 6])
def test_a_ring_is_one_finding_in_every_order(length: int) -> None:
    names = "ABCDEF"[:length]
    ring = [(a, b, *EXCLUSIVE) for a, b in zip(names, names[1:] + names[:1], strict=True)]
    for order in itertools.permutations(ring):
        rules = LockRules()
        rules.begin(1)
        for link in order:
            make(rules, link)
        (finding,) = rules.findings
        assert finding.classes == tuple(names)
        assert finding.result == ("OutOfOrder" if length == 2 else "CircularDependency")
        assert links_of(finding) == tuple(ring)
        assert rules.complete() == []


@pytest.mark.parametrize("length", [2, 3, 4, 5, 6])
def test_a_chain_is_no_finding(length: int) -> None:
    rules = LockRules()
    rules.begin(1)
    names = "ABCDEF"[:length]
    for outer, inner in itertools.combinations(names, 2):
        make(rules, (outer, inner, "exclusive", "exclusive"))
    assert rules.findings == []
    assert rules.complete() == []


def drawn_links(modes: tuple[str, ...], names: str = "ABCDEF") -> st.SearchStrategy[list[Link]]:
    """Distinct links between distinct classes, in the order of their discovery."""
    every = [
        (a, b, held, wanted)
        for a, b in itertools.permutations(names, 2)
        for held in modes
        for wanted in modes
    ]
    return st.lists(st.sampled_from(every), unique=True, max_size=14)


def agree(links: list[Link], *, blind: bool = False) -> None:
    """Discover the links one by one; compare with all cycles each time."""
    rules = LockRules(mode_blind=blind)
    rules.begin(1)
    for count, link in enumerate(links, 1):
        before = len(rules.findings)
        make(rules, link)
        known = [other[:2] for other in links[: count - 1]]
        all_cycles = [c for c in deadlocks(links[:count], blind=blind) if link in c]
        new = rules.findings[before:]
        if blind and link[:2] in known:
            assert new == []
            continue
        if not all_cycles:
            assert new == [], "no cycle runs through this link"
            continue
        shortest = min(map(len, all_cycles))
        through = [f for f in cyclic(rules.findings) if link[:2] in {o[:2] for o in links_of(f)}]
        assert shortest in {len(f.classes) for f in through}
        for finding in new:
            assert len(finding.classes) == shortest
            assert finding.result == ("OutOfOrder" if shortest == 2 else "CircularDependency")
    everything = list(deadlocks(links, blind=blind))
    real = {tuple(link[:2] for link in cycle) for cycle in everything}
    for finding in [*rules.findings, *rules.complete()]:
        assert tuple(link[:2] for link in links_of(finding)) in real
        assert finding.classes[0] == min(finding.classes)
    covered = {link[:2] for f in [*rules.findings, *rules.complete()] for link in links_of(f)}
    assert covered == {link[:2] for cycle in everything for link in cycle}
    assert len({f.classes for f in rules.findings}) == len(rules.findings)


@settings(max_examples=300)
@given(drawn_links(("exclusive",)))
def test_exclusive_locks_agree_with_all_cycles(links: list[Link]) -> None:
    agree(links)


@settings(max_examples=300)
@given(drawn_links(MODES, "ABCD"))
def test_readers_and_writers_agree_with_all_cycles(links: list[Link]) -> None:
    agree(links)


@settings(max_examples=300)
@given(drawn_links(MODES, "ABCD"))
def test_the_kernels_rule_agrees_with_all_cycles(links: list[Link]) -> None:
    agree(links, blind=True)


def test_the_oracle_knows_a_cycle_when_it_sees_one() -> None:
    links = [("A", "B", "exclusive", "shared"), ("B", "A", "shared", "exclusive")]
    assert list(deadlocks(links, blind=False)) == []
    assert len(list(deadlocks(links, blind=True))) == 2
    assert len(list(deadlocks([links[0], ("B", "A", "exclusive", "exclusive")], blind=False))) == 2


def test_a_cycle_that_passes_a_class_twice_does_not_hide_a_longer_one() -> None:
    """The shortest walk back through the last edge goes through B twice; the real cycle is longer.

    A -> B shared, then B (exclusively) -> C -> B (exclusively) -> (B shared) A is no deadlock.
    """
    links = [
        ("B", "C", "exclusive", "exclusive"),
        ("C", "B", "exclusive", "exclusive"),
        ("B", "A", "shared", "exclusive"),
        ("C", "D", "exclusive", "exclusive"),
        ("D", "E", "exclusive", "exclusive"),
        ("E", "A", "exclusive", "exclusive"),
        ("A", "B", "exclusive", "shared"),
    ]
    rules = LockRules()
    rules.begin(1)
    for link in links:
        make(rules, link)
    assert [finding.classes for finding in rules.findings] == [("B", "C"), tuple("ABCDE")]
    agree(links)


def test_keeping_all_edges_finds_the_cycle_behind_a_cycle() -> None:
    rules = LockRules()
    rules.begin(1)
    for outer, inner in ("AB", "BA", "BC", "CA"):
        make(rules, (outer, inner, "exclusive", "exclusive"))
    assert [finding.classes for finding in rules.findings] == [("A", "B"), ("A", "B", "C")]
