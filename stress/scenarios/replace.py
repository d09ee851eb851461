"""Pages that change under their VMO: replaced, hinted at, swept, aged."""

from __future__ import annotations

from harness.sync import sometimes
from stress.catalogue import Context, scenario
from stress.scenarios import boot, expect, expect_content, expect_zero, finish, race

PAGER = b"pager..........."


@scenario(
    "replace-reclaim",
    summary="a borrower's page is replaced by a loaned one and back while its lender commits",
    tags=("replace", "commit", "borrow"),
    exercises=("R7", "R17", "ReplacePageLocked", "SwapPageLocked", "GetCowWithReplaceablePage"),
    mutants=("M40", "M101"),
)
def replace_reclaim(ctx: Context) -> None:
    """The page that leaves is on the stack of whoever replaces it, until it is FREE."""
    kernel = boot(ctx, 4)
    lender = kernel.lender(1, absent=1)
    borrower = kernel.borrower(1)
    expect(kernel.supply(borrower))

    def replacer() -> None:
        for with_loaned in (False, True):
            status = kernel.replace_page(borrower, with_loaned=with_loaned)
            expect(status, "OK", "NOT_FOUND", "NO_MEMORY")

    def committer() -> None:
        expect(kernel.commit(lender))

    race(kernel, replacer, committer)
    if kernel.pages_of(borrower)[0] is not None:
        sometimes("the borrower keeps its page")
        expect_content(kernel, borrower, 0, PAGER)
    expect_zero(kernel, lender, 0)
    finish(kernel)


@scenario(
    "replace-need",
    summary="always-need and don't-need hints for borrowed pages against commit and evictor (W7)",
    tags=("replace", "hint", "commit", "evict"),
    threads=3,
    exercises=("R17", "ProtectRangeFromReclamationLocked", "PromoteRangeForReclamationLocked"),
    mutants=("M104",),
)
def replace_need(ctx: Context) -> None:
    """A page that is always needed is no loaned one, and no evictor takes it."""
    kernel = boot(ctx, 7)
    lender = kernel.lender(2, absent=2)
    needed, other = kernel.borrower(1), kernel.borrower(1)
    expect(kernel.supply(needed))
    expect(kernel.supply(other))

    def hinter() -> None:
        expect(kernel.always_need(needed))
        expect(kernel.dont_need(other))
        page = kernel.pages_of(needed)[0]
        assert page is not None
        assert not kernel.evict_page(needed)
        assert kernel.pages_of(needed) == [page]

    def committer() -> None:
        expect(kernel.commit(lender, 0, 1))
        expect(kernel.supply(needed))

    def evictor() -> None:
        kernel.evict_page(other)
        expect(kernel.commit(lender, 1, 1))
        expect(kernel.supply(needed))

    race(kernel, hinter, committer, evictor)
    expect_content(kernel, needed, 0, PAGER)
    expect_zero(kernel, lender, 0, 1)
    finish(kernel)


@scenario(
    "sweep-reclaim",
    summary="the loan sweeper, borrowing on and off, against commit and close of a borrower (W13)",
    tags=("sweep", "replace", "commit", "close"),
    threads=3,
    exercises=("R4", "R7", "R17", "ForceSynchronousSweep", "ReplacePage", "fbl_recycle"),
    mutants=("M107",),
)
def sweep_reclaim(ctx: Context) -> None:
    """Into loaned pages, then out of them: the sweeper never waits, and each step may be late."""
    kernel = boot(ctx, 6)
    lender = kernel.lender(2, absent=2)
    kernel.ppb(in_supplypages=False)
    stays, closes = kernel.borrower(1), kernel.borrower(1)
    expect(kernel.supply(stays))
    expect(kernel.supply(closes))

    def sweeper() -> None:
        kernel.ppb(on_mru=True)
        kernel.sweep()
        kernel.ppb(on_mru=False)
        kernel.sweep()

    def committer() -> None:
        expect(kernel.commit(lender))

    def closer() -> None:
        kernel.destroy(closes)

    race(kernel, sweeper, committer, closer)
    page = kernel.pages_of(stays)[0]
    if page is not None:
        assert not page.loaned
        expect_content(kernel, stays, 0, PAGER)
    expect_zero(kernel, lender, 0, 1)
    finish(kernel)


@scenario(
    "aging-borrow",
    summary="aging, which borrows for pages in use, against commit, evict and close",
    tags=("aging", "replace", "evict", "commit", "close"),
    threads=3,
    exercises=("R4", "R17", "ProcessQueueHelper", "RotatePagerBackedQueues", "MarkAccessed"),
    mutants=("M109", "M110", "M111"),
)
def aging_borrow(ctx: Context) -> None:
    """A page in use moves into a loaned one, unless it has left its VMO, or that is closing."""
    kernel = boot(ctx, 8)
    lender = kernel.lender(2, absent=2)
    kernel.ppb(in_supplypages=False, on_mru=True)
    stays, closes = kernel.borrower(1), kernel.borrower(1)
    for vmo in (closes, stays):
        expect(kernel.supply(vmo))
    kernel.age()
    for vmo in (closes, stays):
        expect(kernel.read(vmo)[0])

    def ager() -> None:
        kernel.process_queues()

    def committer() -> None:
        kernel.evict_page(stays)
        # Not the page again that has just become free.
        status, kept = kernel.pmm.alloc_page()
        expect(status)
        assert kept is not None
        expect(kernel.supply(stays))
        kernel.pmm.free_page(kept)
        expect(kernel.commit(lender, 0, 1))
        expect(kernel.supply(stays))

    def closer() -> None:
        kernel.destroy(closes)

    race(kernel, ager, committer, closer)
    expect_zero(kernel, lender, 0)
    finish(kernel)


@scenario(
    "evict-evict",
    summary="two evictors, one of which closes a VMO, against the commit of their pages' lender",
    tags=("evict", "commit", "close"),
    threads=3,
    exercises=("R3", "R6", "R13", "R17", "EvictPageQueues", "PeekPagerBacked"),
    mutants=("M30", "M59"),
)
def evict_evict(ctx: Context) -> None:
    """Each holds pages of several VMOs at a time: neither may wait for the other."""
    kernel = boot(ctx, 4)
    lender = kernel.lender(2, absent=2)
    borrowers = [kernel.borrower(1), kernel.borrower(1)]
    for borrower in borrowers:
        expect(kernel.supply(borrower))

    def first() -> None:
        kernel.evict()

    def second() -> None:
        kernel.evict()
        kernel.destroy(borrowers[1])

    def committer() -> None:
        expect(kernel.commit(lender))

    race(kernel, first, second, committer)
    assert kernel.pages_of(borrowers[0]) == [None]
    expect_zero(kernel, lender, 0, 1)
    finish(kernel)
