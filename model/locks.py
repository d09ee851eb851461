"""Lock classes of the model, and the order in which the kernel nests them.

The names are those of the kernel's lockdep classes. ``GOLDEN_EDGES`` lists every nesting that the
modelled code creates: what a run observes must be a subset, and all scenarios together must show
each of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from harness.lockorder.classes import LockClass, LockFlags

VM_ASPACE: Final = LockClass("VmAspace")
VM_HIERARCHY: Final = LockClass("VmHierarchy")
PAGE_SOURCE: Final = LockClass("PageSource")
PHYSICAL_PAGE_PROVIDER: Final = LockClass("PhysicalPageProvider")
PAGER_PROXY: Final = LockClass("PagerProxy")
PMM_NODE: Final = LockClass("PmmNode")
PAGE_QUEUES: Final = LockClass("PageQueues")
DISCARDABLE_VMOS: Final = LockClass("DiscardableVmos")
LOAN_SWEEPER: Final = LockClass("LoanSweeper")
# Everything may take the thread lock last, so the kernel keeps it out of its graph.
THREAD_LOCK: Final = LockClass(
    "ThreadLock", flags=LockFlags.TRACKING_DISABLED | LockFlags.REPORTING_DISABLED
)

# (outer, inner): the code that creates the edge.
GOLDEN_EDGES: Final[dict[tuple[str, str], str]] = {
    ("VmAspace", "VmHierarchy"): "a fault looks the page up; map, unmap and decommit of a mapping",
    ("VmAspace", "PageSource"): "a fault asks for the page",
    ("VmAspace", "PhysicalPageProvider"): "a fault asks for the page of a contiguous VMO",
    ("VmAspace", "PagerProxy"): "a fault asks for the page of a pager-backed VMO",
    ("VmAspace", "PmmNode"): "decommit of a mapping loans pages",
    ("VmAspace", "PageQueues"): "decommit of a mapping takes pages from their queues",
    ("VmAspace", "DiscardableVmos"): "unmapping drops the last reference of a VMO",
    ("VmHierarchy", "PageSource"): "lookup asks the source; supply and close tell it",
    ("VmHierarchy", "PhysicalPageProvider"): "AddPageLocked asks DebugIsPageOk; creation Inits",
    ("VmHierarchy", "PagerProxy"): "as PhysicalPageProvider, for pager-backed VMOs",
    ("VmHierarchy", "PmmNode"): "pages are allocated, loaned and freed under the VMO lock",
    ("VmHierarchy", "PageQueues"): "backlinks change with the slots",
    ("VmHierarchy", "DiscardableVmos"): "recycle leaves the discardable lists",
    ("LoanSweeper", "PageQueues"): "a sweep looks who has a page",
    ("LoanSweeper", "VmHierarchy"): "a sweep replaces pages in their VMOs",
    ("LoanSweeper", "PmmNode"): "a sweep asks whether a page is loaned, and allocates",
    ("PageSource", "PhysicalPageProvider"): "send, clear, swap, detach and close",
    ("PageSource", "PagerProxy"): "send, clear, swap, detach and close",
    ("PageSource", "PmmNode"): "close deletes the lender",
    ("PhysicalPageProvider", "PmmNode"): "OnClose deletes the lender under the provider's lock",
}

# By revision: the corrections of L1 to L5 add no nesting and take none away.
GOLDEN: Final = {"seed": GOLDEN_EDGES, "fixed": GOLDEN_EDGES}

# Besides these, nothing may be held above a wait: a fatal finding where it happens (ShouldNotHold).
FORBIDDEN_EDGES: Final[frozenset[tuple[str, str]]] = frozenset(
    {
        ("VmHierarchy", "VmHierarchy"),
        ("PageQueues", "VmHierarchy"),
        ("PmmNode", "VmHierarchy"),
        ("PageSource", "VmHierarchy"),
        ("PhysicalPageProvider", "VmHierarchy"),
        ("PhysicalPageProvider", "PageSource"),
        ("DiscardableVmos", "VmHierarchy"),
        ("PmmNode", "PageQueues"),
        ("PageQueues", "PmmNode"),
    }
)


def judge_edges(edges: Iterable[tuple[str, str]]) -> list[str]:
    """Say what is wrong with the observed lock nestings; empty where nothing is (I27).

    Args:
        edges: ``(outer, inner)`` class names, as the lock rules collected them.
    """
    verdicts = []
    for outer, inner in edges:
        if (outer, inner) in FORBIDDEN_EDGES:
            verdicts.append(f"I27: {inner} is taken under {outer}, which is forbidden")
        elif (outer, inner) not in GOLDEN_EDGES:
            verdicts.append(f"I27: {inner} is taken under {outer}, which the kernel never does")
    return verdicts
