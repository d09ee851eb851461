"""Pages that are written: asked for where the pager traps writes, and written back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.sync import Mutex, sometimes
from stress.catalogue import Context, scenario
from stress.scenarios import boot, expect, expect_content, expect_zero, finish, race

if TYPE_CHECKING:
    from model.kernel import Kernel
    from model.vmo import VmObjectPaged

PAGE_SIZE = 0x1000
PAGER = b"pager..........."


def write_back(kernel: Kernel, vmo: VmObjectPaged, disk: list[bytes]) -> list[int]:
    """What a pager does with dirty pages: each is clean once the disk has it, unless written anew.

    Returns:
        Which pages it was.
    """
    dirty = kernel.dirty_ranges(vmo)
    for page in dirty:
        expect(kernel.writeback_begin(vmo, page, 1))
        status, disk[page] = kernel.read(vmo, page)
        expect(status)
        expect(kernel.writeback_end(vmo, page, 1))
    return dirty


def flush(kernel: Kernel, vmo: VmObjectPaged, first: int = 0, count: int | None = None) -> None:
    """Write back what is dirty, whatever happens to it meanwhile: the reference judges that."""
    for page in kernel.dirty_ranges(vmo, first, count):
        kernel.writeback_begin(vmo, page, 1)
        kernel.read(vmo, page)
        kernel.writeback_end(vmo, page, 1)


@scenario(
    "replace-dirty",
    summary="writes to a borrowed page whose VMO tracks dirty pages, against commit and write-back",
    tags=("replace", "write", "commit", "evict"),
    threads=3,
    exercises=("R17", "PrepareForWriteLocked", "WritebackBeginLocked", "WritebackEndLocked"),
    mutants=("M105",),
)
def replace_dirty(ctx: Context) -> None:
    """What is written stays until the pager has it: the page is an ordinary one by then."""
    kernel = boot(ctx, 6)
    lender = kernel.lender(1, absent=1)
    borrower = kernel.borrower(1, dirty_tracked=True)
    expect(kernel.supply(borrower))
    disk, pager_process = [PAGER], Mutex("pager process")

    def writer() -> None:
        expect(kernel.write(borrower, 0, b"w"))

    def committer() -> None:
        expect(kernel.commit(lender))
        with pager_process:
            expect(kernel.supply(borrower, content=disk[0]))

    def pager() -> None:
        with pager_process:
            write_back(kernel, borrower, disk)
            kernel.evict_page(borrower)
            expect(kernel.supply(borrower, content=disk[0]))

    race(kernel, writer, committer, pager)
    expect_content(kernel, borrower, 0, b"w")
    expect_zero(kernel, lender, 0)
    finish(kernel)


@scenario(
    "dirty-writeback",
    summary="a store through a mapping against the write-back, eviction and supply of its page",
    tags=("dirty", "write", "fault", "evict", "supply"),
    exercises=("WritebackBeginLocked", "WritebackEndLocked", "AspaceRemoveWriteVmoRangeLocked"),
    mutants=("M301", "M302"),
)
def dirty_writeback(ctx: Context) -> None:
    """Whatever is written once the pager has begun to read is written back another time."""
    kernel = boot(ctx, 3)
    vmo = kernel.borrower(1, dirty_tracked=True)
    expect(kernel.supply(vmo))
    mapping = kernel.mapped(vmo)
    expect(kernel.store(mapping, 0, b"first"))
    disk = [PAGER]

    def user() -> None:
        for content in (b"next", b"last"):
            expect(kernel.store(mapping, 0, content))

    def pager() -> None:
        assert write_back(kernel, vmo, disk) == [0]
        if kernel.evict_page(vmo):
            sometimes("the page is clean, and goes")
        expect(kernel.supply(vmo, content=disk[0]))

    race(kernel, user, pager)
    expect_content(kernel, vmo, 0, b"last")
    finish(kernel)


@scenario(
    "dirty-trap",
    summary="stores to a VMO whose pager traps writes, against its write-back and an evictor",
    tags=("dirty", "write", "fault", "proxy", "evict"),
    threads=3,
    exercises=(
        "RequestDirtyTransition",
        "OnPagesDirtied",
        "DirtyPages",
        "WritebackBeginLocked",
        "AspaceRemoveWriteVmoRangeLocked",
    ),
    mutants=("M304", "M305"),
)
def dirty_trap(ctx: Context) -> None:
    """Nothing is written that the pager did not agree to, and nothing that was written is lost."""
    kernel = boot(ctx, 3)
    vmo = kernel.borrower(1, trap_dirty=True)
    expect(kernel.supply(vmo))
    mapping = kernel.mapped(vmo)
    disk, pager_process = [PAGER], Mutex("pager process")
    agreed: set[int] = set()

    def flush() -> None:
        with pager_process:
            for page in write_back(kernel, vmo, disk):
                assert page in agreed, f"page {page} is dirty, and its pager was not asked"
                agreed.discard(page)
                sometimes("a page is written back")

    def user() -> None:
        for content in (b"first", b"last"):
            expect(kernel.store(mapping, 0, content))
        expect_content(kernel, vmo, 0, b"last")
        flush()
        assert disk[0].rstrip(b"\0") == b"last", disk
        expect(kernel.detach(vmo))

    def flusher() -> None:
        flush()
        kernel.evict_page(vmo)
        flush()

    def pager() -> None:
        while (packet := kernel.read_packet(vmo)) is not None:
            with pager_process:
                if packet.kind.name == "READ":
                    expect(kernel.supply(vmo, content=disk[0]))
                else:
                    agreed.add(packet.offset // PAGE_SIZE)
                    expect(kernel.dirty_pages(vmo), "OK", "NOT_FOUND")

    race(kernel, user, flusher, pager)
    finish(kernel)


@scenario(
    "dirty-resize",
    summary="writes that wait for the pager's leave against eviction and a shrink of their pages",
    tags=("dirty", "write", "resize", "proxy", "evict", "overlap"),
    threads=4,
    exercises=("RequestDirtyTransition", "OnPagesDirtied", "DirtyPages", "ResizeLocked"),
    mutants=("M303", "M306"),
)
def dirty_resize(ctx: Context) -> None:
    """Who zeroes asks for a run of pages at once; who waits for a page that goes looks again."""
    kernel = boot(ctx, 4)
    vmo = kernel.borrower(2, trap_dirty=True, resizable=True)
    expect(kernel.supply(vmo))
    busy = ["zeroer", "writer"]

    def done(name: str) -> None:
        busy.remove(name)
        if not busy:
            expect(kernel.detach(vmo))

    def zeroer() -> None:
        expect(kernel.zero(vmo, 0, 2), "OK", "OUT_OF_RANGE")
        done("zeroer")

    def writer() -> None:
        expect(kernel.write(vmo, 1, b"w"), "OK", "OUT_OF_RANGE")
        done("writer")

    def resizer() -> None:
        kernel.evict_page(vmo)
        expect(kernel.resize(vmo, 1))

    def pager() -> None:
        while kernel.serve_pager(vmo):
            pass

    race(kernel, zeroer, writer, resizer, pager)
    finish(kernel)


@scenario(
    "dirty-detach",
    summary="writes that wait for the pager's leave against detach and a pager that refuses",
    tags=("dirty", "write", "fault", "detach", "proxy"),
    threads=3,
    exercises=("RequestDirtyTransition", "OnPagesFailed", "Detach", "DetachSource", "PagerProxy"),
    mutants=("M307",),
)
def dirty_detach(ctx: Context) -> None:
    """Whoever waits is answered, and what was not agreed to is not written."""
    kernel = boot(ctx, 3)
    vmo = kernel.borrower(2, trap_dirty=True)
    expect(kernel.supply(vmo))
    mapping = kernel.mapped(vmo)
    from model.status import Status

    def user() -> None:
        expect(kernel.store(mapping, 0, b"s"), "NO_SPACE", "BAD_STATE")

    def writer() -> None:
        expect(kernel.write(vmo, 1, b"w"), "NO_SPACE", "BAD_STATE")

    def pager() -> None:
        assert kernel.serve_pager(vmo, Status.NO_SPACE)
        expect(kernel.detach(vmo))

    race(kernel, user, writer, pager)
    assert kernel.pages_of(vmo) == [None, None]
    finish(kernel)
