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

# Content, and a bit for every lender's page that may lie under it; None where it is absent.
Cell = tuple[bytes, int] | None


@dataclass(frozen=True, slots=True)
class Shape:
    """What does not change.

    Attributes:
        names: Of the VMOs; everything else is in their order.
        lender: Which of them are contiguous.
        sizes: Pages of each.
        bits: The bit of each one's first page, among the pages of all lenders.
        pages: Physical pages, those that somebody keeps for himself left out.
        faults: Memory runs out by injected faults.
        zero: Content of a fresh page.
        struck: Threads are killed, suspended and timed out by injected faults.
        parents: Of each slice the VMO that it is a window into, -1 for others; empty where there
            are none. A slice has no cells: operations on it are noted as its root's.
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

    def span(self, vmo: int, first: int, count: int) -> int:
        """The bits of some pages of a lender; none of a borrower's."""
        return ((1 << count) - 1) << (self.bits[vmo] + first) if self.lender[vmo] else 0


Pinned = tuple[int, int, int, int]


class State(NamedTuple):
    """What can be seen of the system.

    Attributes:
        cells: Of every VMO.
        stages: Of every VMO: from OPEN to RECYCLED.
        detached: Bit of every VMO whose pager is gone.
        wished: Bits of lenders' pages that were asked for and given up on.
        suspended: Bit of every thread that somebody has interrupted.
        mapped: Mappings that there are: number, and the VMO that each keeps; sorted.
        pins: Pinned ranges: VMO, first page, pages, and the VMO that each keeps (a slice, maybe);
            sorted.
        pinned_once: Bit of every VMO that was ever pinned: it borrows no more.
        starved: Bit of every VMO whose pager may have failed a request for want of memory.
        needed: Bit of every VMO of which some pages may be always needed.
    """

    cells: tuple[tuple[Cell, ...], ...]
    stages: tuple[int, ...]
    detached: int = 0
    wished: int = 0
    suspended: int = 0
    mapped: tuple[tuple[int, int], ...] = ()
    pins: tuple[Pinned, ...] = ()
    pinned_once: int = 0
    needed: int = 0
    starved: int = 0

    def put(self, vmo: int, first: int, cells: Sequence[Cell]) -> State:
        """With other cells from ``first`` on."""
        row = self.cells[vmo]
        row = (*row[:first], *cells, *row[first + len(cells) :])
        return self._replace(cells=(*self.cells[:vmo], row, *self.cells[vmo + 1 :]))

    def sized(self, vmo: int, row: tuple[Cell, ...]) -> State:
        """With another row of cells, of whatever length."""
        return self._replace(cells=(*self.cells[:vmo], row, *self.cells[vmo + 1 :]))

    def kept(self, vmo: int, pages: Iterable[int]) -> State:
        """With no other pages of a VMO than these and the pinned ones."""
        stays = set(pages)
        row = tuple(
            cell if page in stays or self.pinned(vmo, page, 1) else None
            for page, cell in enumerate(self.cells[vmo])
        )
        return self.sized(vmo, row)

    def staged(self, vmo: int, stage: int) -> State:
        """With a VMO at another stage of its life."""
        return self._replace(stages=(*self.stages[:vmo], stage, *self.stages[vmo + 1 :]))

    def cleared(self, bits: int) -> State:
        """With these lenders' pages under no cell and wished for no more."""
        cells = tuple(
            tuple(None if cell is None else (cell[0], cell[1] & ~bits) for cell in row)
            for row in self.cells
        )
        return self._replace(cells=cells, wished=self.wished & ~bits)

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
