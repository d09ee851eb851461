"""The kernel's own stress workloads in small: one VMO, a tree of VMOs, many short-lived ones.

Operations are drawn afresh for every schedule. An outcome is right where its status is one that the
operation may have; what it did is judged by the invariants.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from harness.sync import note
from stress.catalogue import Context, scenario
from stress.scenarios import GONE, boot, expect, finish, race

if TYPE_CHECKING:
    from model.kernel import Kernel
    from model.vm_aspace import VmAspace
    from model.vmo import VmObjectPaged

# What an access or a change of a range may answer: done, gone, cut off, detached, short of memory.
TOUCH: Final = ("OK", GONE, "OUT_OF_RANGE", "BAD_STATE", "NO_MEMORY", "NOT_FOUND")
CHANGE: Final = ("OK", GONE, "OUT_OF_RANGE", "NOT_SUPPORTED", "UNAVAILABLE")


class _Tree:
    """A root VMO, slices of it, and a mapping now and then; several threads share it."""

    def __init__(self, kernel: Kernel, root: VmObjectPaged, pages: int) -> None:
        self.kernel = kernel
        self.pages = pages
        self.vmos = [root]
        self.aspace: VmAspace = kernel.aspace()
        self.workers = 0

    def run(self, name: str, draw: random.Random) -> None:
        """Run the operation ``name`` on some VMO and range; offsets reach beyond ends."""
        kernel = self.kernel
        vmo = self.vmos[draw.randrange(len(self.vmos))]
        page = draw.randrange(self.pages)
        count = 1 + draw.randrange(self.pages)
        note(f"{name} {vmo} {page} {count}")
        match name:
            case "read":
                expect(kernel.read(vmo, page)[0], *TOUCH)
            case "write":
                expect(kernel.write(vmo, page, b"w"), *TOUCH)
            case "map":
                self.touch_mapped(vmo, page)
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
            case _:
                self.slice(vmo, page)

    def touch_mapped(self, vmo: VmObjectPaged, page: int) -> None:
        """Map a page, write and read it, unmap."""
        kernel = self.kernel
        status, mapping = kernel.map(self.aspace, vmo, page, 1)
        expect(status, "OK", GONE, "OUT_OF_RANGE")
        if mapping is not None:
            if expect(kernel.store(mapping, 0, b"m"), *TOUCH).name == "OK":
                expect(kernel.load(mapping)[0], *TOUCH)
            expect(kernel.unmap(mapping))

    def slice(self, vmo: VmObjectPaged, page: int) -> None:
        """A slice of one page, which the others then use too."""
        status, child = self.kernel.slice(vmo, page, 1)
        expect(status, "OK", GONE, "INVALID_ARGS", "NOT_SUPPORTED")
        if child is not None:
            self.vmos.append(child)

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
    """The root is a lender, whose pages a borrower has for a start, or resizable, with a pager."""
    draw = random.Random(ctx.seed)
    kernel = boot(ctx, 8)
    lender = draw.randrange(2)
    names: tuple[str, ...]
    if lender:
        root = kernel.lender(3, absent=2)
        names = ("read", "write", "map", "commit", "decommit", "decommit", "zero", "slice")
        expect(kernel.supply(kernel.borrower(1)))
    else:
        root = kernel.borrower(3, resizable=True)
        names = ("read", "write", "map", "commit", "zero", "resize", "evict")
    tree = _Tree(kernel, root, 3)

    def last() -> None:
        if not lender:
            expect(kernel.detach(root))

    def third() -> None:
        if lender:
            tree.run("commit", random.Random(ctx.seed))
            kernel.destroy(root)
        else:
            while kernel.serve_pager(root):
                pass

    workers = [tree.worker(names, draw.getrandbits(32), 2, last) for _ in range(2)]
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
