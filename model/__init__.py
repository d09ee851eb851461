"""A model of the way of a page through Fuchsia's contiguous VMOs, on the harness's primitives.

Contiguous VMO, decommit, loan, borrow by a pager-backed VMO, eviction, reclaim, supply, recycle:
all of ``PhysicalPageProvider`` and what it needs around it. ``Kernel`` is the way in.
"""

from model.asserts import InvariantBroken, KernelPanic
from model.faults import FaultPlan
from model.kernel import DEFECTS, REVISIONS, Kernel, PendingCommit
from model.locks import FORBIDDEN_EDGES, GOLDEN_EDGES, judge_edges
from model.page import PAGE_SIZE, PageState, VmPage
from model.status import Status
from model.vmo import VmObjectPaged

__all__ = [
    "DEFECTS",
    "FORBIDDEN_EDGES",
    "GOLDEN_EDGES",
    "PAGE_SIZE",
    "REVISIONS",
    "FaultPlan",
    "InvariantBroken",
    "Kernel",
    "KernelPanic",
    "PageState",
    "PendingCommit",
    "Status",
    "VmObjectPaged",
    "VmPage",
    "judge_edges",
]
