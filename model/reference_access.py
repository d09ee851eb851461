"""What reads, writes and mappings do, in steps, for the reference."""

from __future__ import annotations

from typing import TYPE_CHECKING

from model.reference_commit import Commit, Moves, Operation
from model.reference_state import OPEN, Shape, State, usable

if TYPE_CHECKING:
    from harness.sync.history import Call, Local
    from model.reference import KernelReference


class Read(Operation):
    """``(vmo, page)``: status and content."""

    def looks(self, call: Call) -> bool:
        """Only that."""
        del call
        return True

    def steps(self, ref: KernelReference, state: State, call: Call, local: Local) -> Moves:
        """See the content; what is absent of a lender reads as zeroes."""
        vmo, page = call.args[:2]
        if local or not usable(state, vmo):
            return
        status, content = call.result
        cell = state.cells[vmo][page] if page < len(state.cells[vmo]) else None
        if cell is None and ref.shape.lender[vmo]:
            cell = ref.shape.zero, 0
        if status == "OK" and cell is not None and cell[0] == content:
            yield state, True
        elif status == "BAD_STATE" and state.detached >> vmo & 1:
            yield state, True

    def ends(self, ref: KernelReference, state: State, call: Call, local: Local) -> State | None:
        """Done, gone, or interrupted."""
        status = call.result[0]
        if status == "BAD_HANDLE":
            return ref.gone(state, call.args[0])
        if status == "NO_MEMORY":
            return state if ref.starved(state, call.args[0]) else None
        return state if local or ref.interrupted(state, call) else None


class Write(Commit):
    """``(vmo, page, content)``: a commit of the page, and then its new content, at once."""

    begun = False

    def wants(self, shape: Shape, call: Call) -> int:
        """The page."""
        return shape.span(call.args[0], call.args[1], 1)

    def looks(self, call: Call) -> bool:
        """It does not."""
        del call
        return False

    def steps(self, ref: KernelReference, state: State, call: Call, local: Local) -> Moves:
        """Write to the page, once, where it is there."""
        vmo, page, content = call.args[:3]
        cell = state.cells[vmo][page] if page < len(state.cells[vmo]) else None
        if not local and cell is not None and call.result == "OK" and usable(state, vmo):
            yield state.put(vmo, page, [(content, cell[1])]), True

    def ends(self, ref: KernelReference, state: State, call: Call, local: Local) -> State | None:
        """OK once written."""
        if call.result == "OK":
            return state if local else None
        return super().ends(ref, state, call, local)


class Zero(Operation):
    """``(vmo, first, count)``: page by page; the local state counts them; -1: it saw the end."""

    begun = 0

    def steps(self, ref: KernelReference, state: State, call: Call, local: Local) -> Moves:
        """Zero the next page, or pass over a lender's absent one; or find the VMO too short."""
        vmo, first, count = call.args
        assert isinstance(local, int)
        if local in (-1, count) or not usable(state, vmo):
            return
        page = first + local
        size = len(state.cells[vmo])
        if call.result == "OUT_OF_RANGE" and first + count > size:
            # It may be longer again by the time that the answer comes.
            yield state, -1
        if page >= size:
            return
        cell = state.cells[vmo][page]
        if cell is not None:
            yield state.put(vmo, page, [(ref.shape.zero, cell[1])]), local + 1
        elif ref.shape.lender[vmo]:
            yield state, local + 1

    def ends(self, ref: KernelReference, state: State, call: Call, local: Local) -> State | None:
        """All of them; a borrower's may not come."""
        vmo, _, count = call.args
        if call.result == "OK":
            return state if local == count else None
        if call.result == "NO_MEMORY":
            return state if ref.starved(state, vmo) else None
        if call.result == "OUT_OF_RANGE":
            return state if local == -1 else None
        if call.result == "BAD_STATE" and state.detached >> vmo & 1:
            return state
        interrupted = ref.interrupted(state, call)
        return state if interrupted else super().ends(ref, state, call, False)


class Touch(Commit):
    """``(vmo, page, write, mapping)``: a page fault; it waits with no VMO kept alive."""

    begun = False

    def wants(self, shape: Shape, call: Call) -> int:
        """The page, where it is written."""
        vmo, page, write, _ = call.args
        return shape.span(vmo, page, 1) if write else 0

    def steps(self, ref: KernelReference, state: State, call: Call, local: Local) -> Moves:
        """See the page there while it is mapped; a lender's absent one can be read."""
        vmo, page, write, mapping = call.args
        if local or call.result != "OK" or not state.maps(mapping):
            return
        row = state.cells[vmo]
        there = page < len(row) and row[page] is not None
        if there or (ref.shape.lender[vmo] and not write):
            yield state, True

    def ends(self, ref: KernelReference, state: State, call: Call, local: Local) -> State | None:
        """OK once seen; else mapped no more, or as a commit."""
        if call.result == "OK":
            return state if local else None
        return unmapped(state, call) or super().ends(ref, state, call, local)


class Load(Read):
    """``(vmo, page, mapping)``: a read as user code does it."""

    def steps(self, ref: KernelReference, state: State, call: Call, local: Local) -> Moves:
        """As a read, while it is mapped."""
        if state.maps(call.args[-1]) or call.result[0] == "BAD_STATE":
            yield from super().steps(ref, state, call, local)

    def ends(self, ref: KernelReference, state: State, call: Call, local: Local) -> State | None:
        """Done, or mapped no more."""
        return unmapped(state, call) or super().ends(ref, state, call, local)


class Store(Write):
    """``(vmo, page, content, mapping)``: a write as user code does it."""

    def steps(self, ref: KernelReference, state: State, call: Call, local: Local) -> Moves:
        """As a write, while it is mapped."""
        if state.maps(call.args[-1]):
            yield from super().steps(ref, state, call, local)

    def ends(self, ref: KernelReference, state: State, call: Call, local: Local) -> State | None:
        """Done, or mapped no more."""
        return unmapped(state, call) or super().ends(ref, state, call, local)


class Map(Operation):
    """``(vmo, mapping)``: from here on the mapping keeps the VMO."""

    def steps(self, ref: KernelReference, state: State, call: Call, local: Local) -> Moves:
        """Mapped."""
        vmo, mapping = call.args
        if not local and call.result == "OK" and usable(state, vmo):
            mapped = tuple(sorted((*state.mapped, (mapping, vmo))))
            yield state._replace(mapped=mapped), True


class Unmap(Operation):
    """``(vmo, mapping)``: no more; NOT_FOUND where it was not."""

    def holds(self, shape: Shape, call: Call) -> int:
        """What the VMO had: this may be the end of it."""
        vmo: int = call.args[0]
        return shape.sizes[vmo]

    def steps(self, ref: KernelReference, state: State, call: Call, local: Local) -> Moves:
        """Take the mapping away, once."""
        vmo, mapping = call.args
        if local or state.maps(mapping) != (call.result == "OK"):
            return
        left = tuple(pair for pair in state.mapped if pair != (mapping, vmo))
        yield state._replace(mapped=left), True


def unmapped(state: State, call: Call) -> State | None:
    """The state where an access found nothing mapped."""
    status = call.result[0] if isinstance(call.result, tuple) else call.result
    if state.maps(call.args[-1]):
        return None
    # Or its request was answered by a source that was closed.
    closed = status == "BAD_STATE" and state.stages[call.args[0]] != OPEN
    return state if status == "NOT_FOUND" or closed else None
