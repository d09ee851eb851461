"""The kernel's own stress workloads in small: one VMO, a tree of VMOs, many short-lived ones.

Operations are drawn afresh for every schedule. An outcome is right where its status is one that the
operation may have; what it did is judged by the invariants and the reference.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from harness.sync import note
from stress.catalogue import Context, scenario
from stress.scenarios import GONE, boot, expect, finish, race
from stress.scenarios.dirty import flush

if TYPE_CHECKING:
    from model.kernel import Kernel
    from model.vm_aspace import VmAspace, VmMapping
    from model.vmo import VmObjectPaged

# What an access or a change of a range may answer: done, gone, cut off, detached, short of memory.
TOUCH: Final = ("OK", GONE, "OUT_OF_RANGE", "BAD_STATE", "NO_MEMORY", "NOT_FOUND")
CHANGE: Final = ("OK", GONE, "OUT_OF_RANGE", "NOT_SUPPORTED", "UNAVAILABLE")
# What is done to a mapped page.
READ: Final = "read"
WRITE_LAST: Final = "write, read, unmap"
HOW: Final = (READ, READ, "write, read", WRITE_LAST)


class _Tree:
    """A root VMO, slices of it, and mappings of both; several threads share all of it."""

    def __init__(self, kernel: Kernel, root: VmObjectPaged, pages: int) -> None:
        self.kernel = kernel
        self.pages = pages
        self.vmos = [root]
        self.sizes: dict[str, int] = {}  # of slices
        self.aspace: VmAspace = kernel.aspace()
        self.mappings: dict[tuple[VmObjectPaged, int], VmMapping] = {}  # the last of each page
        self.mapped: list[VmMapping] = []
        self.workers = 0

    def run(self, name: str, draw: random.Random) -> None:
        """Run the operation ``name`` on some VMO and range; now and then beyond its end."""
        kernel = self.kernel
        vmo = self.vmos[draw.randrange(len(self.vmos))]
        pages = self.sizes.get(vmo.name, self.pages) if draw.randrange(4) else self.pages
        page = draw.randrange(pages)
        count = 1 + draw.randrange(pages)
        note(f"{name} {vmo} {page} {count}")
        match name:
            case "read":
                expect(kernel.read(vmo, page)[0], *TOUCH)
            case "write":
                expect(kernel.write(vmo, page, b"w"), *TOUCH)
            case "map":
                if self.mappings and draw.randrange(4):
                    # What somebody has mapped, and may have touched.
                    vmo, page = draw.choice(list(self.mappings))
                self.touch_mapped(vmo, page, draw.choice(HOW))
            case "commit":
                expect(kernel.commit(vmo, page, count), *TOUCH)
            case "decommit":
                expect(kernel.decommit(vmo, page, count), *CHANGE)
            case "zero":
                expect(kernel.zero(vmo, page, count), *TOUCH)
            case "resize":
                expect(kernel.resize(vmo, page), *CHANGE)
            case "evict":
                kernel.evict(1)
            case "flush":
                flush(kernel, vmo)
            case "detach":
                expect(kernel.detach(vmo), "OK", GONE)
            case _:
                self.slice(vmo, page)

    def touch_mapped(self, vmo: VmObjectPaged, page: int, how: str) -> None:
        """Map a page, unless it is; read it, or write it before; a write may be the last."""
        kernel = self.kernel
        mapping = self.mappings.get((vmo, page))
        if mapping is None:
            status, mapping = kernel.map(self.aspace, vmo, page, 1)
            expect(status, "OK", GONE, "OUT_OF_RANGE")
            self.mapped += [] if mapping is None else [mapping]
        if mapping is not None:
            self.mappings[vmo, page] = mapping
            if how != READ:
                expect(kernel.store(mapping, 0, b"m"), *TOUCH)
            expect(kernel.load(mapping)[0], *TOUCH)
            if how == WRITE_LAST:
                self.mappings.pop((vmo, page), None)
                expect(kernel.unmap(mapping), "OK", "NOT_FOUND")

    def unmap_all(self) -> None:
        """Unmap what is mapped; nobody touches it any more."""
        for mapping in self.mapped:
            expect(self.kernel.unmap(mapping), "OK", "NOT_FOUND")

    def slice(self, vmo: VmObjectPaged, page: int) -> None:
        """A slice of one page, which the others then use too."""
        status, child = self.kernel.slice(vmo, page, 1)
        expect(status, "OK", GONE, "INVALID_ARGS", "NOT_SUPPORTED")
        if child is not None:
            self.add(child, 1)

    def add(self, child: VmObjectPaged, pages: int) -> VmObjectPaged:
        """One more that all may use."""
        self.sizes[child.name] = pages
        self.vmos.append(child)
        return child

    def worker(
        self, names: tuple[str, ...], seed: int, count: int, last: Callable[[], object]
    ) -> Callable[[], None]:
        """A thread that runs ``count`` drawn operations; whoever ends last runs ``last``."""
        self.workers += 1

        def work() -> None:
            draw = random.Random(seed)
            for _ in range(count):
                self.run(draw.choice(names), draw)
            self.workers -= 1
            if not self.workers:
                last()

        return work


@scenario(
    "workload-single-vmo",
    summary="one pager-backed VMO: commits, mappings, reads and writes, and a pager out of order",
    tags=("workload", "drawn", "supply", "fault", "detach", "close"),
    threads=5,
    exercises=("W14", "PagerProxy", "VmAspace::PageFault", "CommitRange", "Detach", "Close"),
    drawn=True,
)
def single_vmo(ctx: Context) -> None:
    """Two workers and a pager, who also supplies what nobody asked for; then detach or close.

    In every second program the kernel's own threads age the pages meanwhile.
    """
    draw = random.Random(ctx.seed)
    kernel = boot(ctx, 5)
    from model.page_queues import GENERATIONS

    vmo = kernel.borrower(3)
    tree = _Tree(kernel, vmo, 3)
    names = ("read", "write", "map", "map", "commit", "evict")
    detach, ahead = draw.randrange(2), draw.randrange(3)
    ages = draw.randrange(2)
    if ages:
        # All generations are in use: for a new one, one thread has to wait for the other.
        for _ in range(GENERATIONS - 1):
            kernel.age()

    def last() -> None:
        if detach:
            expect(kernel.detach(vmo))
        tree.unmap_all()
        kernel.destroy(vmo)

    def pager() -> None:
        if ages:
            kernel.start_queue_threads(active_ratio_multiplier=1)
        expect(kernel.supply(vmo, ahead, 1), "OK", "NO_MEMORY", GONE)
        while kernel.serve_pager(vmo):
            pass
        if ages:
            kernel.stop_queue_threads()

    workers = [tree.worker(names, draw.getrandbits(32), 2, last) for _ in range(2)]
    race(kernel, *workers, pager, names=["worker1", "worker2", "pager"])
    finish(kernel)


@scenario(
    "workload-multi-vmo",
    summary="a tree of VMOs that threads read, write, slice, map, commit, decommit, zero, resize",
    tags=("workload", "drawn", "slice", "fault", "commit", "decommit", "zero", "resize"),
    threads=3,
    exercises=("W16", "CreateChildSlice", "DecommitRange", "ZeroRange", "ResizeLocked"),
    drawn=True,
)
def multi_vmo(ctx: Context) -> None:
    """The root is a lender, whose pages a borrower has for a start, or a resizable borrower.

    Every second lender begins with a slice, and a slice of that.
    """
    draw = random.Random(ctx.seed)
    kernel = boot(ctx, 8)
    lender, closes = draw.randrange(2), draw.randrange(2)
    names: tuple[str, ...]
    if lender:
        root = kernel.lender(4, absent=2)
        names = ("read", "write", "map", "commit", "decommit", "decommit", "zero", "slice")
        expect(kernel.supply(kernel.borrower(1)))
        for page in range(2):
            expect(kernel.write(root, page, b"first"))
    else:
        kernel.lender(2, absent=2)
        root = kernel.borrower(3, resizable=True)
        expect(kernel.supply(root, 1, 2))
        names = ("read", "write", "map", "commit", "zero", "resize", "evict")
    tree = _Tree(kernel, root, 3 + lender)
    if lender and draw.randrange(2):
        outer = tree.add(kernel.sliced(root, 1, 3), 3)
        tree.add(kernel.sliced(outer, 1, 2), 2)
        tree.touch_mapped(outer, 0, READ)
    tree.touch_mapped(root, 2, READ)

    def last() -> None:
        if not lender:
            expect(kernel.detach(root))

    def third() -> None:
        if lender:
            tree.run("commit", random.Random(ctx.seed))
            if closes:
                kernel.destroy(root)
        else:
            while kernel.serve_pager(root):
                pass

    workers = [tree.worker(names, draw.getrandbits(32), 3, last) for _ in range(2)]
    race(kernel, *workers, third, names=["worker1", "worker2", "third"])
    finish(kernel)


@scenario(
    "workload-instances",
    summary="short-lived lenders and borrowers, begun and ended by three threads in turn",
    tags=("workload", "drawn", "create", "close", "borrow", "commit"),
    threads=3,
    exercises=("W17", "CreateContiguous", "SupplyPages", "DeleteLender", "fbl_recycle"),
    drawn=True,
)
def instances(ctx: Context) -> None:
    """Memory is short: a lender may find no room, a borrower lives on what others have loaned."""
    draw = random.Random(ctx.seed)
    kernel = boot(ctx, 5)

    def lend(pages: int) -> None:
        status, vmo = kernel.create_contiguous(pages)
        expect(status, "OK", "NO_MEMORY")
        if vmo is not None:
            expect(kernel.decommit(vmo))
            expect(kernel.commit(vmo, 0, 1))
            kernel.destroy(vmo)

    def borrow(pages: int) -> None:
        vmo = kernel.borrower(pages)
        expect(kernel.supply(vmo), "OK", "NO_MEMORY")
        kernel.evict_page(vmo)
        kernel.destroy(vmo)

    def worker() -> Callable[[], None]:
        plan = [(draw.randrange(2), 1 + draw.randrange(2)) for _ in range(2)]

        def work() -> None:
            for lends, pages in plan:
                (lend if lends else borrow)(pages)

        return work

    race(kernel, worker(), worker(), worker(), names=["slot1", "slot2", "slot3"])
    finish(kernel)


@scenario(
    "workload-writeback",
    summary="one VMO whose written pages are dirty: written, mapped, zeroed, resized, written back",
    tags=("workload", "drawn", "dirty", "write", "fault", "zero", "resize", "detach", "evict"),
    threads=3,
    exercises=("WritebackBeginLocked", "WritebackEndLocked", "DirtyPages", "PagerProxy", "Detach"),
    drawn=True,
)
def writeback(ctx: Context) -> None:
    """In every second program the pager is asked before a write; in the others the VMO borrows."""
    draw = random.Random(ctx.seed)
    kernel = boot(ctx, 6)
    kernel.lender(1, absent=1)
    traps = bool(draw.randrange(2))
    vmo = kernel.borrower(2, resizable=True, dirty_tracked=True, trap_dirty=traps)
    expect(kernel.supply(vmo))
    # Somebody has written before: the pager, who comes to write back, finds something.
    if traps:
        expect(kernel.dirty_pages(vmo, 0, 1))
    expect(kernel.write(vmo, 0, b"first"))
    # One more than there are: offsets reach beyond the end, and what was cut off comes back.
    tree = _Tree(kernel, vmo, 3)
    names = ("write", "write", "map", "zero", "read", "flush", "flush", "evict", "resize", "detach")

    def last() -> None:
        flush(kernel, vmo)
        expect(kernel.detach(vmo))

    def pager() -> None:
        # Without reading: what a resize has cut off and brought back would have to come from here.
        for page in kernel.dirty_ranges(vmo):
            kernel.writeback_begin(vmo, page, 1)
            kernel.writeback_end(vmo, page, 1)
        while kernel.serve_pager(vmo):
            pass

    workers = [tree.worker(names, draw.getrandbits(32), 3, last) for _ in range(2)]
    race(kernel, *workers, pager, names=["worker1", "worker2", "pager"])
    finish(kernel)
