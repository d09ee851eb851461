"""Which cases run on each Python, and which on one for all: the mark ``once``, case by case."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import pytest


def on_each(kept: Collection[object], cases: Iterable[Any]) -> list[Any]:
    """All ``cases`` for ``parametrize``; those that are not ``kept`` are marked ``once``.

    A case of several values is known by its first.
    """
    made = []
    left = set(kept)
    for case in cases:
        values = case if isinstance(case, tuple) else (case,)
        left.discard(values[0])
        marks = () if values[0] in kept else (pytest.mark.once,)
        made.append(pytest.param(*values, marks=marks))
    assert not left, f"no such case: {left}"
    return made
