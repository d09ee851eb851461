"""Deterministic testing of threaded code: every interleaving decided, every race replayed.

Write a *program*: a function that builds fresh state, starts threads with ``spawn`` or
``parallel``, joins them and asserts. Its threads use the primitives of this package, whose
operations are the schedule points. ``explore`` runs it under many schedules; a failing one comes
with a token that ``replay`` turns into exactly the same run again.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.public import *  # noqa: F403 - one list of names, in one place
else:

    def __getattr__(name: str) -> object:
        """Load everything at the first use: the pytest plugin is imported by every pytest run."""
        if name.startswith("__") and name != "__all__":
            raise AttributeError(name)
        # Not "from harness import": that asks this function first.
        public = importlib.import_module("harness.public")
        globals().update({each: getattr(public, each) for each in public.__all__})
        globals()["__all__"] = public.__all__
        if name not in globals():
            raise AttributeError(f"module 'harness' has no attribute {name!r}")
        return globals()[name]


class _Package(ModuleType):
    """Keeps ``harness.explore`` the function, whoever imports the module of that name first."""

    def __setattr__(self, name: str, value: object) -> None:
        if name == "explore" and isinstance(value, ModuleType):
            value = value.explore
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
