"""Committers among themselves, against decommit, and against a failing supply."""

from __future__ import annotations

from stress.catalogue import Context, scenario
from stress.scenarios import boot, expect, expect_zero, finish, race


@scenario(
    "commit-decommit",
    summary="commit of a lender's pages against decommit of the same pages",
    tags=("commit", "decommit"),
    exercises=("R1", "R8", "CommitRange", "DecommitRange", "CancelLoan", "BeginLoan", "EndLoan"),
    mutants=("M14", "M31", "M33"),
)
def commit_decommit(ctx: Context) -> None:
    """Page 0 is present and written to, page 1 is loaned; whoever comes first, page 0 is lost.

    The committer may find a page gone again that it was just told of, and ask a second time: legal.
    """
    kernel = boot(ctx, 3)
    lender = kernel.lender(2, absent=1)
    expect(kernel.write(lender, 0, b"old"))

    def committer() -> None:
        expect(kernel.commit(lender))

    def decommitter() -> None:
        expect(kernel.decommit(lender))

    race(kernel, committer, decommitter)
    kernel.quiesce()
    expect(kernel.commit(lender))
    expect_zero(kernel, lender, 0, 1)
    finish(kernel)


@scenario(
    "commit-overlap",
    summary="two commits of overlapping ranges",
    tags=("commit", "overlap"),
    exercises=("R9", "GetPage", "PopulateRequest", "ResolveRequests", "WaitOnEvent"),
    mutants=("M27", "M38", "M48", "M54", "M57", "M56"),
)
def commit_overlap(ctx: Context) -> None:
    """One waits along with the other's request, or processes it; both find all pages present."""
    kernel = boot(ctx, 2)
    lender = kernel.lender(2, absent=2)

    def left() -> None:
        expect(kernel.commit(lender, 0, 2))
        assert None not in kernel.pages_of(lender)

    def right() -> None:
        expect(kernel.commit(lender, 1, 1))
        assert kernel.pages_of(lender)[1] is not None

    race(kernel, left, right)
    expect_zero(kernel, lender, 0, 1)
    finish(kernel)


@scenario(
    "supply-fails",
    summary="a commit whose supply runs out of memory midway, beside a borrower",
    tags=("commit", "borrow", "fault"),
    exercises=("R15", "OnPagesFailed", "VmPageSpliceList", "BeginLoan"),
    defects=("L2",),
    faults="no_memory@2",
)
def supply_fails(ctx: Context) -> None:
    """What was not supplied is on loan again before anybody is told; the borrower may have it."""
    kernel = boot(ctx, 4)
    lender = kernel.lender(3, absent=3)
    borrower = kernel.borrower(1)

    def committer() -> None:
        expect(kernel.commit(lender), "OK", "NO_MEMORY")

    def supplier() -> None:
        expect(kernel.supply(borrower), "OK", "NO_MEMORY")

    race(kernel, committer, supplier)
    kernel.quiesce()
    expect(kernel.commit(lender))
    expect_zero(kernel, lender, 0, 1, 2)
    finish(kernel)


@scenario(
    "supply-fails-overlap",
    summary="a commit whose supply runs out of memory midway, beside a commit of its last page",
    tags=("commit", "overlap", "fault"),
    exercises=("R9", "R15", "OnPagesFailed", "CompleteRequest"),
    faults="no_memory@2",
)
def supply_fails_overlap(ctx: Context) -> None:
    """A failed supply fails every request that it meets: also one that only waited along."""
    kernel = boot(ctx, 2)
    lender = kernel.lender(2, absent=2)

    def whole() -> None:
        expect(kernel.commit(lender), "OK", "NO_MEMORY")

    def last() -> None:
        expect(kernel.commit(lender, 1, 1), "OK", "NO_MEMORY")

    race(kernel, whole, last)
    kernel.quiesce()
    expect(kernel.commit(lender))
    expect_zero(kernel, lender, 0, 1)
    finish(kernel)
