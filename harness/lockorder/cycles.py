"""Cycles of the class graph, pure functions.

A graph maps each class to its successors, and each successor to a mask of the *kinds* of that edge.
Reference: the strong cycles of Linux lockdep 5.10. An edge's kind tells whether the outer lock was
held shared, and whether the inner one was wanted shared. A thread that wants a lock shared does not
wait for one that holds it shared, so a walk that arrives by the one and leaves by the other is no
chain of waits; a cycle is a deadlock if no lock on it joins such a pair.
"""

from __future__ import annotations

from collections import deque
from typing import Final, TypeAlias

Graph: TypeAlias = dict[str, dict[str, int]]
Step: TypeAlias = tuple[str, str, int]  # outer, inner, kind
_State: TypeAlias = tuple[str, bool]  # a class, and whether the walk wants it shared

HOLDS_SHARED: Final = 2
WANTS_SHARED: Final = 1
_KINDS: Final = (0, 2, 1, 3)  # exclusive requests first: they conflict with every holder

# The search for a simple cycle is exponential in the worst case; lock graphs are far from that.
_BUDGET: Final = 20_000


def kind_of(outer_mode: str, inner_mode: str) -> int:
    """Encode the two modes of an edge."""
    holds = HOLDS_SHARED if outer_mode == "shared" else 0
    return holds | (WANTS_SHARED if inner_mode == "shared" else 0)


def kinds_of(mask: int) -> list[int]:
    """List the kinds of a mask, those that conflict with most first."""
    return [kind for kind in _KINDS if mask >> kind & 1]


def shortest_cycle(graph: Graph, outer: str, inner: str, kind: int) -> list[Step] | None:
    """Find a shortest deadlock cycle whose first edge is ``outer -> inner`` of that kind.

    Among equally short ones the choice depends on names only, not on how the graph grew.
    """
    path = _walk(graph, outer, inner, kind)
    if path is not None and len({step[0] for step in path}) < len(path):
        # The walk passes one lock twice, which no single deadlock does; search without that.
        path = _simple(graph, outer, inner, kind)
    return path


def canonical(path: list[Step]) -> list[Step]:
    """Rotate a cycle so that its least name comes first; it then identifies the cycle."""
    start = min(range(len(path)), key=lambda index: path[index][0])
    return path[start:] + path[:start]


def components(graph: Graph) -> list[list[str]]:
    """Find the strongly connected components of two or more classes, sorted (Tarjan, iterative)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    on_stack: set[str] = set()
    found: list[list[str]] = []
    for root in sorted(graph):
        if root in index:
            continue
        work = [(root, iter(sorted(graph[root])))]
        index[root] = low[root] = len(index)
        stack.append(root)
        on_stack.add(root)
        while work:
            node, successors = work[-1]
            for successor in successors:
                if successor not in index:
                    index[successor] = low[successor] = len(index)
                    stack.append(successor)
                    on_stack.add(successor)
                    work.append((successor, iter(sorted(graph.get(successor, ())))))
                    break
                if successor in on_stack:
                    low[node] = min(low[node], index[successor])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == index[node]:
                    cut = stack.index(node)
                    if len(stack) - cut > 1:
                        found.append(sorted(stack[cut:]))
                    on_stack.difference_update(stack[cut:])
                    del stack[cut:]
    return sorted(found)


def _steps_from(graph: Graph, node: str, wanted_shared: bool) -> list[tuple[str, int]]:
    """List (successor, best kind) in order of name, where the arriving request really waits."""
    steps = []
    for successor, mask in sorted(graph.get(node, {}).items()):
        for kind in kinds_of(mask):
            if not (wanted_shared and kind & HOLDS_SHARED):
                # The first kind that fits dominates: exclusive requests can go on in every way.
                steps.append((successor, kind))
                break
    return steps


def _closes(last_kind: int, first_kind: int) -> bool:
    """Tell whether the last request of a walk waits for the holder that begins it."""
    return not (last_kind & WANTS_SHARED and first_kind & HOLDS_SHARED)


def _walk(graph: Graph, outer: str, inner: str, kind: int) -> list[Step] | None:
    """Breadth first over (class, wanted shared)."""
    start: _State = (inner, bool(kind & WANTS_SHARED))
    came: dict[_State, tuple[_State, Step] | None] = {start: None}
    queue = deque([start])
    while queue:
        state = queue.popleft()
        for successor, step_kind in _steps_from(graph, *state):
            step = (state[0], successor, step_kind)
            if successor == outer:
                if _closes(step_kind, kind):
                    return [(outer, inner, kind), *_trace(came, state), step]
                continue
            reached = (successor, bool(step_kind & WANTS_SHARED))
            if reached not in came and (successor, False) not in came:
                came[reached] = (state, step)
                queue.append(reached)
    return None


def _trace(came: dict[_State, tuple[_State, Step] | None], state: _State) -> list[Step]:
    """Read the steps back to the start of the search."""
    steps: list[Step] = []
    while (link := came[state]) is not None:
        state, step = link
        steps.append(step)
    return steps[::-1]


def _simple(graph: Graph, outer: str, inner: str, kind: int) -> list[Step] | None:
    """Search for a cycle that passes no class twice, shortest first, within a budget."""
    budget = _BUDGET
    queue: deque[tuple[bool, list[Step]]] = deque(
        [(bool(kind & WANTS_SHARED), [(outer, inner, kind)])]
    )
    while queue and budget:
        wanted_shared, path = queue.popleft()
        passed = {step[0] for step in path}
        for successor, step_kind in _steps_from(graph, path[-1][1], wanted_shared):
            budget -= 1
            step = (path[-1][1], successor, step_kind)
            if successor == outer and _closes(step_kind, kind):
                return [*path, step]
            if successor not in passed:
                queue.append((bool(step_kind & WANTS_SHARED), [*path, step]))
        budget = max(budget, 0)
    return None
