"""Injected faults: memory that runs out anywhere, and threads struck as they fall asleep."""

from __future__ import annotations

from stress.catalogue import Context, scenario
from stress.scenarios import boot, expect, expect_zero, finish, race


@scenario(
    "inject-memory",
    summary="commit, supply and creation of VMOs, any of which runs out of memory somewhere",
    tags=("inject", "commit", "borrow", "create"),
    threads=3,
    exercises=("R15", "AllocPage", "AllocContiguous", "AddPageLocked", "SupplyPages"),
    faults="page_list_node@1-6,alloc@1-3,alloc_contiguous@1-2,borrow@1-2",
    mutants=("M217", "M218"),
)
def inject_memory(ctx: Context) -> None:
    """Whoever fails leaves nothing behind, and the same call succeeds once there is memory."""
    kernel = boot(ctx, 9)
    lender = kernel.lender(3, absent=3)
    borrower = kernel.borrower(2)
    created = []

    def committer() -> None:
        expect(kernel.commit(lender), "OK", "NO_MEMORY")

    def supplier() -> None:
        expect(kernel.supply(borrower), "OK", "NO_MEMORY")

    def creator() -> None:
        status, vmo = kernel.create_contiguous(2)
        assert (expect(status, "OK", "NO_MEMORY").name == "OK") == (vmo is not None)
        created.append(vmo)

    race(kernel, committer, supplier, creator)
    kernel.quiesce()
    expect(kernel.commit(lender))
    expect(kernel.supply(borrower))
    expect_zero(kernel, lender, 0, 1, 2)
    if created[0] is None:
        expect(kernel.create_contiguous(2)[0])
    finish(kernel)


@scenario(
    "inject-commit-waits",
    summary="two commits of overlapping pages whose threads are killed or suspended as they sleep",
    tags=("inject", "commit", "overlap", "interrupt"),
    exercises=("R9", "R10", "R14", "Event::Wait", "CancelRequest", "SwapAsyncRequest"),
    faults="suspend.reclaim@1-2,kill.reclaim@1-3",
)
def inject_commit_waits(ctx: Context) -> None:
    """Who sleeps has left his request with the other, who goes on with the pages all the same."""
    kernel = boot(ctx, 3)
    lender = kernel.lender(3, absent=3)

    def left() -> None:
        expect(kernel.commit(lender, 0, 2), "OK", "INTR_KILLED")

    def right() -> None:
        expect(kernel.commit(lender, 1, 2), "OK", "INTR_KILLED")

    race(kernel, left, right)
    kernel.quiesce()
    expect(kernel.commit(lender))
    expect_zero(kernel, lender, 0, 1, 2)
    finish(kernel)


@scenario(
    "inject-pager-waits",
    summary="a read and a page fault that wait for their pager, and are struck as they sleep",
    tags=("inject", "fault", "proxy", "interrupt"),
    threads=3,
    exercises=("R14", "PagerProxy", "Event::Wait", "CancelRequest", "VmAspace::PageFault"),
    faults="suspend.pager@1-2,timer.pager@1-3,kill.pager@1-3",
    mutants=("M219",),
)
def inject_pager_waits(ctx: Context) -> None:
    """A pager's time may be over, or the thread's: the request is taken back from the pager."""
    kernel = boot(ctx, 4)
    vmo = kernel.borrower(2)
    mapping = kernel.mapped(vmo)
    struck = ("OK", "TIMED_OUT", "INTR_KILLED", "INTR_RETRY")

    def reader() -> None:
        expect(kernel.read(vmo, 0)[0], *struck)
        expect(kernel.read(vmo, 1)[0], *struck)
        expect(kernel.detach(vmo))

    def user() -> None:
        expect(kernel.load(mapping, 1)[0], *struck, "BAD_STATE")

    def pager() -> None:
        while kernel.serve_pager(vmo):
            pass

    race(kernel, reader, user, pager)
    finish(kernel)
