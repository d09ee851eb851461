"""The lender's commit against everything that its pages go through at a borrower."""

from __future__ import annotations

from stress.catalogue import Context, scenario
from stress.scenarios import boot, expect, expect_content, expect_zero, finish, race


@scenario(
    "commit-supply",
    summary="the lender's commit against a borrower's supply, which borrows its page",
    tags=("commit", "borrow"),
    exercises=("R1", "R2", "R12", "SupplyPages", "GetCowWithReplaceablePage"),
    mutants=("M08", "M11", "M15", "M17", "M19"),
)
def commit_supply(ctx: Context) -> None:
    """The page may be FREE, on the supplier's stack, or in the borrower when the lender comes."""
    kernel = boot(ctx, 2)
    lender = kernel.lender(1, absent=1)
    borrower = kernel.borrower(1)

    def committer() -> None:
        expect(kernel.commit(lender))

    def supplier() -> None:
        expect(kernel.supply(borrower, content=b"pager"))

    race(kernel, committer, supplier)
    expect_zero(kernel, lender, 0)
    if kernel.pages_of(borrower)[0] is not None:
        expect_content(kernel, borrower, 0, b"pager...........")
    finish(kernel)


@scenario(
    "commit-reborrow",
    summary="the lender's commit evicts its page while another borrower looks for one",
    tags=("commit", "borrow"),
    exercises=("R1", "CancelLoan", "SupplyPages", "RemovePageForEviction"),
    mutants=("M12", "M13"),
)
def commit_reborrow(ctx: Context) -> None:
    """A page that is being taken back must not be borrowed again on its way."""
    kernel = boot(ctx, 2)
    lender = kernel.lender(1, absent=1)
    first, second = kernel.borrower(1), kernel.borrower(1)
    expect(kernel.supply(first))

    def committer() -> None:
        expect(kernel.commit(lender))

    def supplier() -> None:
        expect(kernel.supply(second))

    race(kernel, committer, supplier)
    expect_zero(kernel, lender, 0)
    finish(kernel)


@scenario(
    "commit-evict-page",
    summary="the lender's commit against eviction of the very page",
    tags=("commit", "evict"),
    exercises=("R3", "R6", "R12", "RemovePageForEviction", "WaitUntilContiguousPageNotStackOwned"),
    mutants=("M10", "M16", "M28", "M29"),
)
def commit_evict_page(ctx: Context) -> None:
    """Whoever removes the page frees it; the other waits for that."""
    kernel = boot(ctx, 2)
    lender = kernel.lender(1, absent=1)
    borrower = kernel.borrower(1)
    expect(kernel.supply(borrower))

    def committer() -> None:
        expect(kernel.commit(lender))

    def evictor() -> None:
        kernel.evict_page(borrower)

    race(kernel, committer, evictor)
    assert kernel.pages_of(borrower) == [None]
    expect_zero(kernel, lender, 0)
    finish(kernel)


@scenario(
    "commit-evictor",
    summary="two commits of a lender's pages against the evictor, which holds both for a while",
    tags=("commit", "evict"),
    threads=3,
    exercises=("R3", "R6", "R12", "R13", "EvictPageQueues", "PeekPagerBacked"),
    mutants=("M22",),
)
def commit_evictor(ctx: Context) -> None:
    """One interval owns all that the evictor took, while it takes more VMO locks; two may wait."""
    kernel = boot(ctx, 3)
    lender = kernel.lender(2, absent=2)
    borrowers = [kernel.borrower(1), kernel.borrower(1)]
    for borrower in borrowers:
        expect(kernel.supply(borrower))

    def left() -> None:
        expect(kernel.commit(lender, 0, 1))

    def right() -> None:
        expect(kernel.commit(lender, 1, 1))

    def evictor() -> None:
        kernel.evict(2)

    race(kernel, left, right, evictor)
    assert [kernel.pages_of(borrower) for borrower in borrowers] == [[None], [None]]
    expect_zero(kernel, lender, 0, 1)
    finish(kernel)


@scenario(
    "commit-last-reference",
    summary="the lender's commit against the last reference of the borrower that has its page",
    tags=("commit", "close"),
    exercises=("R3", "R4", "R5", "fbl_recycle", "VmCowPagesContainer"),
    mutants=("M44",),
)
def commit_last_reference(ctx: Context) -> None:
    """The borrower may be dying with its backlink still in place: only its container is left."""
    kernel = boot(ctx, 2)
    lender = kernel.lender(1, absent=1)
    borrower = kernel.borrower(1)
    expect(kernel.supply(borrower))

    def committer() -> None:
        expect(kernel.commit(lender))

    def closer() -> None:
        kernel.destroy(borrower)

    race(kernel, committer, closer)
    expect_zero(kernel, lender, 0)
    finish(kernel)


@scenario(
    "commit-interval",
    summary="the lender's commit against a thread that holds its pages in one long interval",
    tags=("commit", "borrow", "evict"),
    exercises=("R2", "R3", "R12", "R13", "StackOwnedLoanedPagesInterval", "AllocPage"),
    mutants=("M21",),
)
def commit_interval(ctx: Context) -> None:
    """The owner supplies and evicts one page within, and has another straight from the PMM."""
    kernel = boot(ctx, 3)
    from model.pmm import AllocFlag

    lender = kernel.lender(2, absent=2)
    borrower = kernel.borrower(1)

    def committer() -> None:
        expect(kernel.commit(lender))

    def owner() -> None:
        with kernel.interval():
            expect(kernel.supply(borrower))
            flags = AllocFlag.CAN_BORROW | AllocFlag.MUST_BORROW
            status, page = kernel.pmm.alloc_page(flags)
            expect(status, "OK", "NO_MEMORY")
            kernel.evict_page(borrower)
            if page is not None:
                kernel.pmm.free_page(page)

    race(kernel, committer, owner)
    expect_zero(kernel, lender, 0, 1)
    finish(kernel)
