"""Detach and close against requests and loans."""

from __future__ import annotations

from stress.catalogue import Context, scenario
from stress.scenarios import GONE, boot, expect, expect_content, expect_zero, finish, race


@scenario(
    "supply-pieces",
    summary="a fault of three pages that two pager threads supply piece by piece",
    tags=("supply",),
    threads=3,
    exercises=("OnPagesSupplied", "ResolveRequests", "CompleteRequest", "PagerProxy"),
    mutants=("M35",),
)
def supply_pieces(ctx: Context) -> None:
    """Nobody takes a page away: whoever is told that his pages are there finds them all."""
    kernel = boot(ctx, 3)
    vmo = kernel.borrower(3)
    pending = kernel.begin_commit(vmo)

    def faulter() -> None:
        expect(pending.wait())
        pages = kernel.pages_of(vmo)
        assert None not in pages, f"woken with {pages}"

    def first() -> None:
        expect(kernel.supply(vmo, 0, 1))
        expect(kernel.supply(vmo, 2, 1))

    def second() -> None:
        expect(kernel.supply(vmo, 1, 1))

    race(kernel, faulter, first, second)
    finish(kernel)


@scenario(
    "detach-request",
    summary="detach of a pager-backed VMO against a reader that waits for its pager",
    tags=("detach",),
    threads=3,
    exercises=("Detach", "OnPagesSupplied", "DetachSource", "PagerProxy"),
    mutants=("M37",),
)
def detach_request(ctx: Context) -> None:
    """The reader gets the page, or learns that nobody will ever supply it."""
    kernel = boot(ctx, 2)
    vmo = kernel.borrower(1)

    def reader() -> None:
        status, content = kernel.read(vmo)
        expect(status, "OK", "BAD_STATE")
        assert status.name != "OK" or content == b"pager...........", content

    def pager() -> None:
        kernel.answer_pager(vmo)

    def detacher() -> None:
        expect(kernel.detach(vmo))

    race(kernel, reader, pager, detacher)
    finish(kernel)


@scenario(
    "commit-detach",
    summary="the lender's commit against detach of the borrower that has its page",
    tags=("commit", "detach"),
    exercises=("R3", "R12", "DetachSource", "WaitUntilContiguousPageNotStackOwned"),
)
def commit_detach(ctx: Context) -> None:
    """Detach drops the clean pages, loaned ones among them, inside an interval of its own."""
    kernel = boot(ctx, 2)
    lender = kernel.lender(1, absent=1)
    borrower = kernel.borrower(1)
    expect(kernel.supply(borrower))

    def committer() -> None:
        expect(kernel.commit(lender))

    def detacher() -> None:
        expect(kernel.detach(borrower))

    race(kernel, committer, detacher)
    assert kernel.pages_of(borrower) == [None]
    expect_zero(kernel, lender, 0)
    finish(kernel)


@scenario(
    "close-request",
    summary="the last reference of a pager-backed VMO against a fault that waits for its pager",
    tags=("close",),
    exercises=("Close", "Detach", "fbl_recycle", "PagerProxy"),
    mutants=("M60",),
)
def close_request(ctx: Context) -> None:
    """A faulting thread keeps the page source alive, not the VMO: close must answer it."""
    kernel = boot(ctx, 1)
    vmo = kernel.borrower(1)

    def faulter() -> None:
        pending = kernel.begin_commit(vmo)
        if expect(pending.status, "SHOULD_WAIT", GONE).name == "SHOULD_WAIT":
            expect(pending.wait())

    def closer() -> None:
        kernel.destroy(vmo)

    race(kernel, faulter, closer)
    finish(kernel)


@scenario(
    "close-lender",
    summary="the last reference of a lender against a queued request and against a commit",
    tags=("close", "cancel"),
    threads=3,
    exercises=("Close", "OnClose", "OnDetach", "DeleteLender", "ClearAsyncRequest", "fbl_recycle"),
    mutants=("M23",),
)
def close_lender(ctx: Context) -> None:
    """Whoever drops the last reference closes; a request that nobody processes may be queued."""
    kernel = boot(ctx, 3)
    lender = kernel.lender(3, absent=2)

    def quitter() -> None:
        pending = kernel.begin_commit(lender, 1, 1)
        expect(pending.status, "SHOULD_WAIT", "OK", GONE)
        pending.cancel()

    def committer() -> None:
        expect(kernel.commit(lender, 2, 1), "OK", GONE)

    def closer() -> None:
        kernel.destroy(lender)

    race(kernel, quitter, committer, closer)
    assert not kernel.vmos
    finish(kernel)


@scenario(
    "close-lender-borrowed",
    summary="the last reference of a lender while its page is being borrowed and evicted",
    tags=("close", "borrow", "evict"),
    threads=3,
    exercises=("R11", "R16", "DeleteLender", "SupplyPages", "EvictPageQueues"),
    mutants=("M46",),
)
def close_lender_borrowed(ctx: Context) -> None:
    """Pages that are borrowed become the borrower's own, wherever they are at that moment."""
    kernel = boot(ctx, 3)
    lender = kernel.lender(2, absent=1)
    borrower = kernel.borrower(1)

    def closer() -> None:
        kernel.destroy(lender)

    def supplier() -> None:
        expect(kernel.supply(borrower, content=b"pager"))

    def evictor() -> None:
        kernel.evict_page(borrower)

    race(kernel, closer, supplier, evictor)
    if kernel.pages_of(borrower)[0] is not None:
        expect_content(kernel, borrower, 0, b"pager...........")
    finish(kernel)


@scenario(
    "close-lender-fault",
    summary="unmapping, the last reference of a lender, against a fault that takes its page back",
    tags=("close", "fault"),
    exercises=("VmAspace::PageFault", "WaitOnEvent", "OnClose", "DeleteLender", "fbl_recycle"),
    defects=("L3",),
)
def close_lender_fault(ctx: Context) -> None:
    """A faulting thread waits with nothing but the page source; the VMO may go meanwhile (L3)."""
    kernel = boot(ctx, 2)
    lender = kernel.lender(2, absent=1)
    # Nothing else refers to the VMO any more: unmapping it destroys it.
    mapping = kernel.mapped(lender, close=True)

    def faulter() -> None:
        expect(kernel.fault(mapping, 1), "OK", "NOT_FOUND")

    def unmapper() -> None:
        expect(kernel.unmap(mapping))

    race(kernel, faulter, unmapper)
    finish(kernel)


@scenario(
    "create-lender",
    summary="a lender whose creation runs out of memory, while others borrow",
    tags=("create",),
    exercises=("CreateContiguous", "AddNewPagesLocked", "FreePages", "OnClose"),
    defects=("L5",),
    faults="page_list_node@2",
)
def create_lender(ctx: Context) -> None:
    """What creation had taken is ordinary memory again: no lender is left that could end a loan."""
    kernel = boot(ctx, 5)
    kernel.lender(1, absent=1)
    borrower = kernel.borrower(1)

    def creator() -> None:
        status, lender = kernel.create_contiguous(3)
        assert (expect(status, "OK", "NO_MEMORY").name == "OK") == (lender is not None)

    def supplier() -> None:
        expect(kernel.supply(borrower), "OK", "NO_MEMORY")

    race(kernel, creator, supplier)
    finish(kernel)


@scenario(
    "evict-last-reference",
    summary="the evictor against the last reference of the VMO whose pages it takes",
    tags=("evict", "close", "borrow"),
    exercises=("EvictPageQueues", "PeekPagerBacked", "fbl_recycle", "VmCowPagesContainer"),
    mutants=("M61",),
)
def evict_last_reference(ctx: Context) -> None:
    """The evictor's own reference may be the last: then it recycles, within its interval."""
    kernel = boot(ctx, 4)
    kernel.lender(1, absent=1)
    borrower = kernel.borrower(2)
    expect(kernel.supply(borrower))

    def evictor() -> None:
        kernel.evict(2)

    def closer() -> None:
        kernel.destroy(borrower)

    race(kernel, evictor, closer)
    finish(kernel)


@scenario(
    "loan-delete",
    summary="a lender of the PMM alone that goes, some of its loans cancelled, while others borrow",
    tags=("close", "borrow"),
    threads=3,
    exercises=("R11", "BeginLoan", "CancelLoan", "DeleteLender", "AllocPage", "FreePage"),
    mutants=("M24",),
)
def loan_delete(ctx: Context) -> None:
    """Without a VMO nobody takes the cancelled page back: it is in limbo as its lender goes."""
    from model.page import PAGE_SIZE
    from model.pmm import AllocFlag

    kernel = boot(ctx, 3)
    pmm = kernel.pmm
    status, pages = pmm.alloc_contiguous(3)
    expect(status)
    base = pages[0].paddr
    pmm.begin_loan(list(pages))

    def borrower() -> None:
        with kernel.interval():
            flags = AllocFlag.CAN_BORROW | AllocFlag.MUST_BORROW
            status, page = pmm.alloc_page(flags)
            expect(status, "OK", "NO_MEMORY")
            if page is not None:
                pmm.free_page(page)

    def lender() -> None:
        pmm.cancel_loan(base + PAGE_SIZE, 1)
        pmm.delete_lender(base, 3)

    race(kernel, borrower, borrower, lender)
    assert pmm.count_free_pages() == 3
    assert pmm.count_loaned_pages() == 0
    finish(kernel)
