"""Resize, slices and zeroing: what happens to ranges of a VMO that others are at work on."""

from __future__ import annotations

from stress.catalogue import Context, scenario
from stress.scenarios import boot, expect, expect_content, expect_zero, finish, race


@scenario(
    "resize-wait",
    summary="a shrink against a reader that waits for a page beyond, and the pager that has it",
    tags=("resize", "supply"),
    threads=3,
    exercises=("ResizeLocked", "OnPagesSupplied", "SupplyPages", "PagerProxy"),
    mutants=("M205",),
)
def resize_wait(ctx: Context) -> None:
    """The reader gets the page, or learns that there is no such page any more."""
    kernel = boot(ctx, 3)
    vmo = kernel.borrower(3, resizable=True)
    expect(kernel.supply(vmo, 0, 1))

    def reader() -> None:
        status, content = kernel.read(vmo, 1)
        expect(status, "OK", "OUT_OF_RANGE")
        assert status.name != "OK" or content == b"pager...........", content

    def pager() -> None:
        kernel.answer_pager(vmo)

    def resizer() -> None:
        expect(kernel.resize(vmo, 1))
        assert len(kernel.pages_of(vmo)) == 1

    race(kernel, reader, pager, resizer)
    expect_content(kernel, vmo, 0, b"pager...........")
    finish(kernel)


@scenario(
    "resize-reclaim",
    summary="a shrink of the borrower that has the lender's page, and a commit of that page",
    tags=("resize", "commit", "borrow"),
    exercises=("R3", "R6", "R12", "ResizeLocked", "WaitUntilContiguousPageNotStackOwned"),
    mutants=("M206",),
)
def resize_reclaim(ctx: Context) -> None:
    """The pages beyond leave in an interval of the resizer's; the reclaimer waits for its end."""
    kernel = boot(ctx, 4)
    lender = kernel.lender(2, absent=2)
    borrower = kernel.borrower(2, resizable=True)
    expect(kernel.supply(borrower))
    mapping = kernel.mapped(borrower)
    expect(kernel.load(mapping, 1)[0])

    def committer() -> None:
        expect(kernel.commit(lender))

    def resizer() -> None:
        expect(kernel.resize(borrower, 0))
        expect(kernel.load(mapping, 1)[0], "OUT_OF_RANGE")

    race(kernel, committer, resizer)
    expect_zero(kernel, lender, 0, 1)
    finish(kernel)


@scenario(
    "slice-decommit",
    summary="decommit and commit of a lender through slices of slices and by itself",
    tags=("slice", "commit", "decommit"),
    threads=3,
    exercises=("R8", "CreateChildSlice", "DecommitRange", "CommitRange", "RangeChangeUpdate"),
    mutants=("M207", "M208"),
)
def slice_decommit(ctx: Context) -> None:
    """What is done to a slice is done to the parent, at the slice's place in it."""
    kernel = boot(ctx, 4)
    lender = kernel.lender(4, absent=1)
    for page in range(3):
        expect(kernel.write(lender, page, b"kept"))
    outer = kernel.sliced(lender, 1, 3)
    inner = kernel.sliced(outer, 1, 2)
    mapping = kernel.mapped(inner)
    expect(kernel.load(mapping)[0])

    def decommitter() -> None:
        expect(kernel.decommit(inner, 0, 1))

    def committer() -> None:
        expect(kernel.commit(outer, 1, 2))

    def user() -> None:
        assert kernel.load(mapping)[1].rstrip(b"\0") in (b"kept", b"")

    race(kernel, decommitter, committer, user)
    expect_content(kernel, lender, 0, b"kept")
    expect_content(kernel, lender, 1, b"kept")
    assert kernel.load(mapping)[1].rstrip(b"\0") == b""
    expect(kernel.commit(inner))
    expect_zero(kernel, lender, 2, 3)
    finish(kernel)


@scenario(
    "slice-last-reference",
    summary="a lender and its two slices close, each in a thread of its own, while one commits",
    tags=("slice", "close"),
    threads=3,
    exercises=("fbl_recycle", "DoDeferredDelete", "Close", "DeleteLender", "CreateChildSlice"),
    mutants=("M62", "M209"),
)
def slice_last_reference(ctx: Context) -> None:
    """The last slice takes the parent with it, but never under the lock of both."""
    kernel = boot(ctx, 3)
    lender = kernel.lender(2, absent=1)
    first = kernel.sliced(lender, 0, 1)
    second = kernel.sliced(lender, 1, 1)

    def parent() -> None:
        kernel.destroy(lender)

    def left() -> None:
        kernel.destroy(first)

    def right() -> None:
        expect(kernel.commit(second))
        kernel.destroy(second)

    race(kernel, parent, left, right)
    assert not kernel.vmos
    finish(kernel)


@scenario(
    "zero-decommit",
    summary="zeroing of a lender's pages against decommit of some and commit of others",
    tags=("zero", "commit", "decommit"),
    threads=3,
    exercises=("ZeroRange", "ZeroPagesLocked", "DecommitRange", "CommitRange"),
    mutants=("M210",),
)
def zero_decommit(ctx: Context) -> None:
    """Zeroing writes zeroes where there are pages, and gives none of them away."""
    kernel = boot(ctx, 3)
    lender = kernel.lender(3, absent=1)
    expect(kernel.write(lender, 0, b"old"))
    expect(kernel.write(lender, 1, b"old"))
    home = kernel.pages_of(lender)[0]

    def zeroer() -> None:
        expect(kernel.zero(lender))

    def decommitter() -> None:
        expect(kernel.decommit(lender, 1, 1))

    def committer() -> None:
        expect(kernel.commit(lender, 2, 1))

    race(kernel, zeroer, decommitter, committer)
    pages = kernel.pages_of(lender)
    assert pages[0] is home
    assert pages[1] is None
    assert pages[2] is not None
    expect_zero(kernel, lender, 0, 1, 2)
    finish(kernel)
