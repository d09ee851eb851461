"""How VMOs come and go, in steps, for the reference."""

from __future__ import annotations

from typing import TYPE_CHECKING

from model.reference_commit import Moves, Operation
from model.reference_state import CLOSED, OPEN, UNBORN, Filled, Shape, State, usable

if TYPE_CHECKING:
    from harness.sync.history import Call, Local
    from model.reference import KernelReference


class Create(Operation):
    """``(vmo,)``: a new VMO; a lender has all its pages from the start, a borrower has none."""

    def holds(self, shape: Shape, call: Call) -> int:
        """A lender's pages, also those that it gives back where it fails midway."""
        vmo: int = call.args[0]
        return shape.sizes[vmo] if shape.lender[vmo] else 0

    def steps(self, ref: KernelReference, state: State, call: Call, local: Local) -> Moves:
        """There from here on; or there was no run of pages for it."""
        vmo = call.args[0]
        size = ref.shape.sizes[vmo]
        lends = ref.shape.lender[vmo]
        if local or state.stages[vmo] != UNBORN:
            return
        if call.result == "OK" and (not lends or ref.ordinary(state) >= size):
            after = state.staged(vmo, OPEN)
            yield after.put(vmo, 0, (Filled(ref.shape.zero),) * size if lends else ()), True
        elif call.result == "NO_MEMORY" and lends:
            if ref.shape.faults or ref.scattered(state, call, size):
                yield state, True


class CreateSlice(Operation):
    """``(parent, vmo, whole, resizable)``: a window; ``whole`` where it is all within its parent.

    Neither can change: a resizable VMO has no slices.
    """

    def steps(self, ref: KernelReference, state: State, call: Call, local: Local) -> Moves:
        """There from here on, as long as its parent is."""
        parent, vmo, whole, resizable = call.args
        right = "NOT_SUPPORTED" if resizable else "OK" if whole else "INVALID_ARGS"
        if not local and call.result == right and usable(state, parent):
            yield state.staged(vmo, OPEN) if right == "OK" else state, True


class Refused(Operation):
    """``(vmo,)``: whatever was told that a slice is gone; its own cells are another's."""

    def steps(self, ref: KernelReference, state: State, call: Call, local: Local) -> Moves:
        """None: it is all in the end."""
        yield from ()


class Outside(Operation):
    """``(slice,)``: whatever reached out of a slice, whose size never changes."""

    def steps(self, ref: KernelReference, state: State, call: Call, local: Local) -> Moves:
        """Told so, while there is a handle."""
        if not local and call.result == "OUT_OF_RANGE" and usable(state, call.args[0]):
            yield state, True


class Detach(Operation):
    """``(vmo,)``: atomic; what is pinned stays."""

    def holds(self, shape: Shape, call: Call) -> int:
        """What the VMO had."""
        vmo: int = call.args[0]
        return shape.sizes[vmo]

    def steps(self, ref: KernelReference, state: State, call: Call, local: Local) -> Moves:
        """No other page is left, and no more will come."""
        vmo = call.args[0]
        if local or not usable(state, vmo) or call.result != "OK":
            return
        detached = state._replace(detached=state.detached | 1 << vmo)
        # What a pin under way has pinned already stays, too: any of its pages, from the first on.
        ways = {0: detached.kept(vmo, [])}
        for other in ref.beside(call):
            if other.name == "pin" and other.args[0] == vmo:
                _, first, count, _ = other.args
                for pages in range(1, count + 1):
                    ways[len(ways)] = detached.kept(vmo, range(first, first + pages))
        for after in ways.values():
            yield after, True


class Close(Operation):
    """``(vmo,)``: the handle, not yet the VMO."""

    def holds(self, shape: Shape, call: Call) -> int:
        """What the VMO had."""
        vmo: int = call.args[0]
        return shape.sizes[vmo]

    def steps(self, ref: KernelReference, state: State, call: Call, local: Local) -> Moves:
        """Closed; a second close is none."""
        vmo = call.args[0]
        if not local:
            yield state.staged(vmo, max(CLOSED, state.stages[vmo])), True
