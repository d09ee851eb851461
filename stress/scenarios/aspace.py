"""User code that touches mapped memory, while the memory goes."""

from __future__ import annotations

from stress.catalogue import Context, scenario
from stress.scenarios import boot, expect, expect_content, expect_zero, finish, race


@scenario(
    "fault-decommit",
    summary="loads and stores of a mapped lender against decommit through the mapping",
    tags=("fault", "decommit"),
    exercises=("R8", "VmAspace::PageFault", "VmMapping::DecommitRange", "RangeChangeUpdate"),
    mutants=("M201", "M202"),
)
def fault_decommit(ctx: Context) -> None:
    """A store is lost with its page, or comes after; what a system call writes is seen at once."""
    kernel = boot(ctx, 3)
    lender = kernel.lender(2, absent=1)
    mapping = kernel.mapped(lender)
    expect(kernel.store(mapping, 0, b"old"))
    expect(kernel.load(mapping, 1)[0])

    def user() -> None:
        expect(kernel.store(mapping, 0, b"user"))
        # The zero page is mapped here until there is a page.
        expect(kernel.write(lender, 1, b"call"))
        assert kernel.load(mapping, 1)[1].rstrip(b"\0") == b"call"

    def decommitter() -> None:
        expect(kernel.decommit_mapped(mapping, 0, 1))

    race(kernel, user, decommitter)
    expect_content(kernel, lender, 0, b"user", b"")
    expect(kernel.store(mapping, 0, b"again"))
    expect_content(kernel, lender, 0, b"again")
    finish(kernel)


@scenario(
    "fault-reclaim",
    summary="stores through a borrower's mapping against the lender that takes the page back",
    tags=("fault", "commit", "borrow"),
    exercises=("R3", "R6", "VmAspace::PageFault", "RemovePageForEviction", "RangeChangeUpdate"),
    mutants=("M203",),
)
def fault_reclaim(ctx: Context) -> None:
    """User code writes to the borrowed page at any moment; never once the page is on its way."""
    kernel = boot(ctx, 3)
    lender = kernel.lender(1, absent=1)
    borrower = kernel.borrower(1)
    expect(kernel.supply(borrower))
    mapping = kernel.mapped(borrower)
    expect(kernel.load(mapping)[0])

    def user() -> None:
        expect(kernel.store(mapping, 0, b"user"))

    def committer() -> None:
        expect(kernel.commit(lender))
        expect(kernel.supply(borrower))

    race(kernel, user, committer)
    expect_zero(kernel, lender, 0)
    finish(kernel)


@scenario(
    "fault-detach",
    summary="a page fault that waits for its pager against detach and against a supply",
    tags=("fault", "detach"),
    threads=3,
    exercises=("VmAspace::PageFault", "Detach", "DetachSource", "PagerProxy"),
    mutants=("M204",),
)
def fault_detach(ctx: Context) -> None:
    """Detach unmaps what it drops: afterwards every touch faults, and fails."""
    kernel = boot(ctx, 3)
    vmo = kernel.borrower(2)
    expect(kernel.supply(vmo, 0, 1, b"there"))
    mapping = kernel.mapped(vmo)
    expect(kernel.load(mapping)[0])

    def user() -> None:
        expect(kernel.load(mapping, 1)[0], "OK", "BAD_STATE")

    def pager() -> None:
        expect(kernel.supply(vmo, 1, 1))

    def detacher() -> None:
        expect(kernel.detach(vmo))
        expect(kernel.load(mapping)[0], "BAD_STATE")

    race(kernel, user, pager, detacher)
    assert kernel.pages_of(vmo)[0] is None
    finish(kernel)


@scenario(
    "fault-unmap",
    summary="page faults in two address spaces that map a lender, one of which goes",
    tags=("fault", "overlap"),
    threads=3,
    exercises=("R9", "VmAspace::PageFault", "VmAspace::FreeRegion", "CompleteRequest"),
)
def fault_unmap(ctx: Context) -> None:
    """Who faults on what is unmapped meanwhile learns so; the other gets the page."""
    kernel = boot(ctx, 1)
    lender = kernel.lender(1, absent=1)
    going, staying = kernel.mapped(lender), kernel.mapped(lender, close=True)

    def left() -> None:
        expect(kernel.fault(going), "OK", "NOT_FOUND")

    def right() -> None:
        expect(kernel.store(staying, 0, b"right"))

    def unmapper() -> None:
        expect(kernel.unmap(going))

    race(kernel, left, right, unmapper)
    assert kernel.load(staying)[1].rstrip(b"\0") == b"right"
    finish(kernel)
