"""The lock graph of a recorded schedule: which class was taken while which was held."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import msgspec

from harness.trace.events import Site, Story

_TAKES = frozenset({"acquire", "try-acquire", "re-acquire", "read-acquire", "write-acquire"})


class Nesting(msgspec.Struct, frozen=True):
    """``inner`` was wanted while ``outer`` was held; the first occasion.

    Attributes:
        outer: Name of the class, or of a lock that has none.
        inner: Likewise.
        thread: Name of the thread; empty where the occasion is not known.
        step: Number of the step; 0 where it is not known.
        site: Where.
        count: How often; 0 where that is not known.
        cyclic: The other order is there, too, perhaps by way of others.
    """

    outer: str
    inner: str
    thread: str = ""
    step: int = 0
    site: Site | None = None
    count: int = 1
    cyclic: bool = False


def nestings(story: Story) -> list[Nesting]:
    """Every nesting of two classes, in order of appearance."""
    first: dict[tuple[str, str], Nesting] = {}
    counts: dict[tuple[str, str], int] = {}
    for nesting in _occasions(story):
        key = nesting.outer, nesting.inner
        first.setdefault(key, nesting)
        counts[key] = counts.get(key, 0) + 1
    wrong = cyclic(first)
    return [
        msgspec.structs.replace(nesting, count=counts[key], cyclic=key in wrong)
        for key, nesting in first.items()
    ]


def _occasions(story: Story) -> Iterator[Nesting]:
    def named(lock: str) -> str:
        info = story.objects.get(lock)
        return lock if info is None or not info.lock_class else info.lock_class

    for step in story.steps:
        if step.kind in _TAKES:
            for lock in dict.fromkeys(step.held):
                yield Nesting(named(lock), named(step.obj), step.name, step.step, step.site)
    past = story.steps[-1].step + 1 if story.steps else 0
    for state in story.final:
        if state.state == "blocked" and state.kind in _TAKES:
            for lock in dict.fromkeys(state.held):
                yield Nesting(named(lock), named(state.obj), state.name, past, state.site)


def cyclic(edges: Iterable[tuple[str, str]]) -> set[tuple[str, str]]:
    """Those edges from whose end their beginning can be reached."""
    following: dict[str, list[str]] = {}
    known = list(edges)
    for outer, inner in known:
        following.setdefault(outer, []).append(inner)
    return {(outer, inner) for outer, inner in known if outer in _reached(inner, following)}


def _reached(start: str, following: dict[str, list[str]]) -> set[str]:
    reached = {start}
    waiting = [start]
    while waiting:
        for name in following.get(waiting.pop(), ()):
            if name not in reached:
                reached.add(name)
                waiting.append(name)
    return reached


def layers(edges: Sequence[tuple[str, str]]) -> list[list[str]]:
    """Names in layers, so that edges lead from earlier layers to later ones where they can.

    An edge on a cycle counts only where it does not lead back in the order of appearance.
    """
    names = list(dict.fromkeys(name for edge in edges for name in edge))
    rank = {name: at for at, name in enumerate(names)}
    wrong = cyclic(edges)
    forward = [edge for edge in edges if edge not in wrong or rank[edge[0]] < rank[edge[1]]]
    depth = dict.fromkeys(names, 0)
    # As long as the longest path: each round moves at least one name down for good.
    for _ in names:
        for outer, inner in forward:
            depth[inner] = max(depth[inner], depth[outer] + 1)
    found: list[list[str]] = [[] for _ in range(max(depth.values(), default=-1) + 1)]
    for name in names:
        found[depth[name]].append(name)
    return found
