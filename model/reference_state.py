"""What the reference sees of the system: cells with content, and the life of each VMO."""

from __future__ import annotations

from collections.abc import Sequence
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
    """

    names: tuple[str, ...]
    lender: tuple[bool, ...]
    sizes: tuple[int, ...]
    bits: tuple[int, ...]
    pages: int
    faults: bool
    zero: bytes
    struck: bool = False

    def span(self, vmo: int, first: int, count: int) -> int:
        """The bits of some pages of a lender; none of a borrower's."""
        return ((1 << count) - 1) << (self.bits[vmo] + first) if self.lender[vmo] else 0


class State(NamedTuple):
    """What can be seen of the system.

    Attributes:
        cells: Of every VMO.
        stages: Of every VMO: from OPEN to RECYCLED.
        detached: Bit of every VMO whose pager is gone.
        wished: Bits of lenders' pages that were asked for and given up on.
        suspended: Bit of every thread that somebody has interrupted.
    """

    cells: tuple[tuple[Cell, ...], ...]
    stages: tuple[int, ...]
    detached: int = 0
    wished: int = 0
    suspended: int = 0

    def put(self, vmo: int, first: int, cells: Sequence[Cell]) -> State:
        """With other cells from ``first`` on."""
        row = self.cells[vmo]
        row = (*row[:first], *cells, *row[first + len(cells) :])
        return self._replace(cells=(*self.cells[:vmo], row, *self.cells[vmo + 1 :]))

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


def gone(state: State, vmo: int) -> State | None:
    """Where somebody is told that a VMO is gone."""
    if state.stages[vmo] == OPEN:
        return None
    return state.staged(vmo, max(GONE, state.stages[vmo]))


def usable(state: State, vmo: int) -> bool:
    """Whether a handle may still work."""
    return state.stages[vmo] <= CLOSED
