"""Lock classes, and the rules of lock order that are judged on them."""

from __future__ import annotations

from harness.lockorder.classes import LockClass, LockFlags
from harness.lockorder.findings import TIERS, Edge, Finding, Witness
from harness.lockorder.rules import Held, HeldLocks, LockRules

__all__ = [
    "TIERS",
    "Edge",
    "Finding",
    "Held",
    "HeldLocks",
    "LockClass",
    "LockFlags",
    "LockRules",
    "Witness",
]
