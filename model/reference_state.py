"""What the reference sees of the system: cells with content, and the life of each VMO."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

OPEN: Final = 0
CLOSED: Final = 1
# Somebody was told so.
GONE: Final = 2
# Its pages have left.
RECYCLED: Final = 3
# Somebody may make it.
UNBORN: Final = 4

# What a pager knows of a page: all, not what was written to it, or that it is being written back.
CLEAN: Final = 0
DIRTY: Final = 1
AWAITING_CLEAN: Final = 2


class Filled(NamedTuple):
    """A cell that is there.

    Attributes:
        content: Of the page.
        under: A bit for every lender's page that may lie under it.
        dirty: CLEAN, DIRTY or AWAITING_CLEAN, in a VMO that tracks that.
    """

    content: bytes
    under: int = 0
    dirty: int = CLEAN


# None where it is absent.
Cell = Filled | None


@dataclass(frozen=True, slots=True)
class Shape:
    """What does not change.

    Attributes:
        names: Of the VMOs, those that are made meanwhile included; all else is in their order.
        lender: Which of them are contiguous.
        sizes: Pages of each.
        bits: The bit of each one's first page, among the pages of all lenders.
        pages: Physical pages, those that somebody keeps for himself left out.
        machine: Physical pages in all.
        faults: Memory runs out by injected faults.
        zero: Content of a fresh page.
        struck: Threads are killed, suspended and timed out by injected faults.
        parents: Of each slice the VMO that it is a window into, -1 for others; empty where there
            are none. A slice has no cells: operations on it are noted as its root's.
        tracked: Bit of every VMO whose written pages are dirty.
        trapped: Bit of every one whose pager is asked before a write: it never borrows.
    """

    names: tuple[str, ...]
    lender: tuple[bool, ...]
    sizes: tuple[int, ...]
    bits: tuple[int, ...]
    pages: int
    faults: bool
    zero: bytes
    struck: bool = False
    parents: tuple[int, ...] = ()
    machine: int = 0
    tracked: int = 0
    trapped: int = 0

    def span(self, vmo: int, first: int, count: int) -> int:
        """The bits of some pages of a lender; none of a borrower's."""
        return ((1 << count) - 1) << (self.bits[vmo] + first) if self.lender[vmo] else 0

    def lent(self) -> int:
        """Pages of all lenders."""
        return sum(size for size, lends in zip(self.sizes, self.lender, strict=True) if lends)

    def tracks(self, vmo: int) -> bool:
        """Whether written pages of a VMO are dirty."""
        return bool(self.tracked >> vmo & 1)

    def traps(self, vmo: int) -> bool:
        """Whether a VMO's pager has to agree to writes."""
        return bool(self.trapped >> vmo & 1)


Pinned = tuple[int, int, int, int]


class State(NamedTuple):
    """What can be seen of the system.

    Attributes:
        cells: Of every VMO.
        stages: Of every VMO: from OPEN to UNBORN.
        detached: Bit of every VMO whose pager is gone.
        wished: Bits of lenders' pages that were asked for and given up on.
        suspended: Bit of every thread that somebody has interrupted.
        mapped: Mappings that there are: number, and the VMO that each keeps; sorted.
        pins: Pinned ranges: VMO, first page, pages, and the VMO that each keeps (a slice, maybe);
            sorted.
        sober: Bit of every VMO that borrows no more: it was pinned, or somebody cannot wait for it.
        failed: VMOs whose pager may have failed a request, each with the status; sorted.
        needed: Bit of every VMO of which some pages may be always needed.
    """

    cells: tuple[tuple[Cell, ...], ...]
    stages: tuple[int, ...]
    detached: int = 0
    wished: int = 0
    suspended: int = 0
    mapped: tuple[tuple[int, int], ...] = ()
    pins: tuple[Pinned, ...] = ()
    sober: int = 0
    needed: int = 0
    failed: tuple[tuple[int, str], ...] = ()

    def put(self, vmo: int, first: int, cells: Sequence[Cell]) -> State:
        """With other cells from ``first`` on."""
        row = self.cells[vmo]
        row = (*row[:first], *cells, *row[first + len(cells) :])
        return self._replace(cells=(*self.cells[:vmo], row, *self.cells[vmo + 1 :]))

    def sized(self, vmo: int, row: tuple[Cell, ...]) -> State:
        """With another row of cells, of whatever length."""
        return self._replace(cells=(*self.cells[:vmo], row, *self.cells[vmo + 1 :]))

    def kept(self, vmo: int, pages: Iterable[int]) -> State:
        """With no other pages of a VMO than these, and those that are pinned or dirty."""
        stays = set(pages)
        row = tuple(
            cell if page in stays or self.stuck(vmo, page) else None
            for page, cell in enumerate(self.cells[vmo])
        )
        return self.sized(vmo, row)

    def staged(self, vmo: int, stage: int) -> State:
        """With a VMO at another stage of its life."""
        return self._replace(stages=(*self.stages[:vmo], stage, *self.stages[vmo + 1 :]))

    def cleared(self, bits: int) -> State:
        """With these lenders' pages under no cell and wished for no more."""
        cells = tuple(
            tuple(
                Filled(cell.content, cell.under & ~bits, cell.dirty)
                if cell is not None and cell.under & bits
                else cell
                for cell in row
            )
            for row in self.cells
        )
        return self._replace(cells=cells, wished=self.wished & ~bits)

    def fails(self, vmo: int, status: str) -> State:
        """With a pager that may have failed what was asked for."""
        return self._replace(failed=tuple(sorted({*self.failed, (vmo, status)})))

    def stuck(self, vmo: int, page: int) -> bool:
        """Whether a page is pinned or dirty, so that it stays where it is."""
        cell = self.cells[vmo][page]
        return self.pinned(vmo, page, 1) or (cell is not None and cell.dirty != CLEAN)

    def pinned(self, vmo: int, first: int, count: int) -> bool:
        """Whether some of these pages are pinned."""
        return any(
            of == vmo and at < first + count and first < at + pages
            for of, at, pages, _ in self.pins
        )

    def referred(self, vmo: int) -> bool:
        """Whether a mapping or a pin keeps a VMO, so that its handle works even where closed."""
        return any(of == vmo for _, of in self.mapped) or any(pin[3] == vmo for pin in self.pins)

    def maps(self, mapping: int) -> bool:
        """Whether there is that mapping."""
        return any(number == mapping for number, _ in self.mapped)


def usable(state: State, vmo: int) -> bool:
    """Whether a handle may still work."""
    return state.stages[vmo] <= CLOSED
