"""Pins: of borrowers' pages, which must be their own first, and of lenders' absent ones."""

from __future__ import annotations

from stress.catalogue import Context, scenario
from stress.scenarios import boot, expect, expect_content, expect_zero, finish, race

PAGER = b"pager..........."


@scenario(
    "pin-reclaim",
    summary="pin of a borrower's page against the commit of its lender, and against its eviction",
    tags=("pin", "commit", "borrow", "evict"),
    threads=3,
    exercises=("R16", "R17", "PinRangeLocked", "ReplacePageLocked", "CommitRangePinned"),
    mutants=("M39", "M102", "M106", "M112"),
)
def pin_reclaim(ctx: Context) -> None:
    """A pinned page is an ordinary one, and stays. Whoever takes it away before supplies it."""
    kernel = boot(ctx, 6)
    lender = kernel.lender(1, absent=1)
    borrower = kernel.borrower(1)
    expect(kernel.supply(borrower))

    def pinner() -> None:
        status, pinned = kernel.pin(borrower)
        expect(status)
        assert pinned is not None
        before = kernel.pages_of(borrower)
        assert not kernel.evict_page(borrower)
        assert kernel.pages_of(borrower) == before
        expect_content(kernel, borrower, 0, PAGER)
        kernel.unpin(pinned)

    def committer() -> None:
        expect(kernel.commit(lender))
        expect(kernel.supply(borrower))

    def evictor() -> None:
        kernel.evict_page(borrower)
        expect(kernel.supply(borrower))

    race(kernel, pinner, committer, evictor)
    assert kernel.pinned_pages(borrower) == 0
    expect_zero(kernel, lender, 0)
    finish(kernel)


@scenario(
    "pin-exhausted",
    summary="pin of borrowed pages with one ordinary page free, beside a commit of their lender",
    tags=("pin", "commit", "borrow"),
    exercises=("R16", "PinRangeLocked", "UnpinLocked", "AllocPage"),
    mutants=("M45", "M103"),
)
def pin_exhausted(ctx: Context) -> None:
    """There is a loaned page, but a page to pin is an ordinary one: in the end none is pinned."""
    kernel = boot(ctx, 6)
    lender = kernel.lender(3, absent=3)
    borrower = kernel.borrower(2)
    expect(kernel.supply(borrower))
    status, kept = kernel.pmm.alloc_pages(2)
    expect(status)

    def pinner() -> None:
        status, _ = kernel.pin(borrower)
        expect(status, "NO_MEMORY")

    def committer() -> None:
        expect(kernel.commit(lender, 2, 1))

    race(kernel, pinner, committer)
    assert kernel.pinned_pages(borrower) == 0
    kernel.quiesce(held=kept)
    kernel.pmm.free_list_of_pages(kept)
    expect_content(kernel, borrower, 0, PAGER)
    expect_content(kernel, borrower, 1, PAGER)
    finish(kernel)


@scenario(
    "pin-contiguous",
    summary="pin of a lender's absent pages against commit and decommit of the same pages",
    tags=("pin", "commit", "decommit"),
    threads=3,
    exercises=("R8", "R9", "CommitRangePinned", "PinRangeLocked", "DecommitRange", "UnpinLocked"),
)
def pin_contiguous(ctx: Context) -> None:
    """What is pinned cannot be decommitted, and is where it belongs."""
    kernel = boot(ctx, 3)
    lender = kernel.lender(3, absent=2)

    def pinner() -> None:
        status, pinned = kernel.pin(lender)
        expect(status)
        assert pinned is not None
        pages = kernel.pages_of(lender)
        assert None not in pages
        expect(kernel.decommit(lender, 2, 1), "BAD_STATE")
        assert kernel.pages_of(lender) == pages
        kernel.unpin(pinned)

    def committer() -> None:
        expect(kernel.commit(lender, 1, 1))

    def decommitter() -> None:
        expect(kernel.decommit(lender, 0, 2), "OK", "BAD_STATE")

    race(kernel, pinner, committer, decommitter)
    assert kernel.pinned_pages(lender) == 0
    expect_zero(kernel, lender, 0, 1, 2)
    finish(kernel)


@scenario(
    "pin-race",
    summary="pins of neighbouring pages of a lender; one gives its request up and asks again (W10)",
    tags=("pin", "cancel", "commit"),
    threads=3,
    exercises=("R9", "R10", "CommitRangePinned", "CancelRequest", "ClearAsyncRequest"),
    mutants=("M114",),
    defects=("L1",),
)
def pin_race(ctx: Context) -> None:
    """The regression for pins of later kernels: the request may be in flight that is given up."""
    kernel = boot(ctx, 6)
    lender = kernel.lender(4, absent=3)
    # Pages that have been borrowed and are free again come first on the loaned list.
    borrower = kernel.borrower(1)
    expect(kernel.supply(borrower))
    expect(kernel.replace_page(borrower, with_loaned=True))
    kernel.destroy(borrower)
    # A waiter who was answered already works through whatever else is queued.
    pending = kernel.begin_commit(lender, 3, 1)
    expect(kernel.commit(lender, 3, 1))

    def pin(first: int, count: int) -> None:
        status, pinned = kernel.pin(lender, first, count, reuse_request=True)
        expect(status)
        assert pinned is not None
        pages = kernel.pages_of(lender)[first : first + count]
        assert all(page is not None and page.pin_count == 1 for page in pages)
        kernel.unpin(pinned)

    def two() -> None:
        pin(0, 2)

    def third() -> None:
        pin(2, 1)

    def answered() -> None:
        expect(pending.wait())

    race(kernel, two, third, answered)
    assert None not in kernel.pages_of(lender)
    expect_zero(kernel, lender, 0, 1, 2, 3)
    finish(kernel)
