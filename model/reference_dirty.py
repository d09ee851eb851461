"""What a pager does about pages that are written, in steps, for the reference."""

from __future__ import annotations

from typing import TYPE_CHECKING

from model.reference_commit import Moves, Operation
from model.reference_state import AWAITING_CLEAN, CLEAN, DIRTY, Shape, State, usable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from harness.sync.history import Call, Local
    from model.reference import KernelReference


def turned(state: State, vmo: int, first: int, count: int, to: Mapping[int, int]) -> State:
    """With what is dirty, or is not, of some pages turned into something else."""
    row = state.cells[vmo][first : first + count]
    return state.put(
        vmo,
        first,
        [cell and cell._replace(dirty=to.get(cell.dirty, cell.dirty)) for cell in row],
    )


class Agree(Operation):
    """``(vmo, first, count)``: atomic; the pager lets pages be written, all of them or none."""

    def steps(self, ref: KernelReference, state: State, call: Call, local: Local) -> Moves:
        """All there, they are dirty; NOT_FOUND where one is absent."""
        vmo, first, count = call.args
        if local or not usable(state, vmo):
            return
        absent = None in state.cells[vmo][first : first + count]
        traps = ref.shape.traps(vmo)
        if call.result == ("NOT_SUPPORTED" if not traps else "NOT_FOUND" if absent else "OK"):
            dirty = traps and not absent
            yield self.agreed(state, vmo, first, count) if dirty else state, True

    def agreed(self, state: State, vmo: int, first: int, count: int) -> State:
        """With all pages dirty."""
        return turned(state, vmo, first, count, {CLEAN: DIRTY, AWAITING_CLEAN: DIRTY})


class Agreed(Agree):
    """``(vmo, first, count)``: a pager answers who waits to write; nobody is told what came of it.

    What a resize has cut off it does not mind.
    """

    def steps(self, ref: KernelReference, state: State, call: Call, local: Local) -> Moves:
        """All that is left of the range is dirty, unless a page of it is absent."""
        vmo, first, count = call.args
        if not local:
            absent = None in state.cells[vmo][first : first + count]
            yield state if absent else self.agreed(state, vmo, first, count), True


class DirtyRanges(Operation):
    """``(vmo, first, count)``: which pages there are to write back; none of a closed handle."""

    def looks(self, shape: Shape, call: Call) -> bool:
        """Only that."""
        del shape, call
        return True

    def steps(self, ref: KernelReference, state: State, call: Call, local: Local) -> Moves:
        """See them all at one time."""
        vmo, first, count = call.args
        if local or not usable(state, vmo):
            return
        row = state.cells[vmo][first : first + count]
        dirty = tuple(
            page for page, cell in enumerate(row, first) if cell is not None and cell.dirty != CLEAN
        )
        if call.result == dirty:
            yield state, True

    def ends(self, ref: KernelReference, state: State, call: Call, local: Local) -> State | None:
        """Seen, or gone."""
        return state if local else None if call.result else ref.gone(state, call.args[0])


class WritebackBegin(Operation):
    """``(vmo, first, count)``: atomic; whatever is written from here on is dirty anew."""

    before, after = DIRTY, AWAITING_CLEAN

    def steps(self, ref: KernelReference, state: State, call: Call, local: Local) -> Moves:
        """Once."""
        vmo, first, count = call.args
        if not local and call.result == "OK" and usable(state, vmo):
            yield turned(state, vmo, first, count, {self.before: self.after}), True


class WritebackEnd(WritebackBegin):
    """``(vmo, first, count)``: atomic; what was not written since the begin is clean."""

    before, after = AWAITING_CLEAN, CLEAN
