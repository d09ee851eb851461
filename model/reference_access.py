"""What reads, writes and mappings do, in steps, for the reference."""

from __future__ import annotations

from typing import TYPE_CHECKING

from model.reference_commit import Commit, Moves, Operation, told
from model.reference_state import DIRTY, OPEN, Filled, Shape, State, usable

if TYPE_CHECKING:
    from harness.sync.history import Call, Local
    from model.reference import KernelReference


class Read(Operation):
    """``(vmo, page)``: status and content."""

    def looks(self, shape: Shape, call: Call) -> bool:
        """Only that."""
        del shape, call
        return True

    def steps(self, ref: KernelReference, state: State, call: Call, local: Local) -> Moves:
        """See the content; what is absent of a lender reads as zeroes."""
        vmo, page = call.args[:2]
        if local or not usable(state, vmo):
            return
        status, content = call.result
        cell = state.cells[vmo][page] if page < len(state.cells[vmo]) else None
        if cell is None and ref.shape.lender[vmo]:
            cell = Filled(ref.shape.zero)
        if status == "OK" and cell is not None and cell.content == content:
            yield state, True

    def ends(self, ref: KernelReference, state: State, call: Call, local: Local) -> State | None:
        """Done, gone, or interrupted."""
        if told(call) == "BAD_HANDLE":
            return ref.gone(state, call.args[0])
        early = ref.refused(state, call) or ref.interrupted(state, call)
        return state if local or early else None


def written(ref: KernelReference, state: State, vmo: int, page: int, to: bytes) -> State | None:
    """With other content in a page; None where it is absent, or its pager has to agree first.

    Where that is tracked the page is dirty from here on, and an ordinary one.
    """
    cell = state.cells[vmo][page] if page < len(state.cells[vmo]) else None
    if cell is None or (ref.shape.traps(vmo) and cell.dirty != DIRTY):
        return None
    after = Filled(to, 0, DIRTY) if ref.shape.tracks(vmo) else Filled(to, cell.under)
    return state.put(vmo, page, [after])


def lacks(ref: KernelReference, state: State, call: Call) -> bool:
    """Whether an operation that says so may find no memory to replace a page that it writes."""
    replaces = ref.shape.tracks(call.args[0]) and not ref.shape.traps(call.args[0])
    return told(call) == "NO_MEMORY" and replaces and ref.short(state, call, 1)


def replaced(shape: Shape, call: Call) -> int:
    """Pages in the hands of an operation that writes: a new one and the old one, or none."""
    vmo = call.args[0]
    return 2 if shape.tracks(vmo) and not shape.traps(vmo) else 0


class Write(Commit):
    """``(vmo, page, content)``: a commit of the page, and then its new content, at once."""

    begun = False

    def wants(self, shape: Shape, call: Call) -> int:
        """The page."""
        return shape.span(call.args[0], call.args[1], 1)

    def holds(self, shape: Shape, call: Call) -> int:
        """Where written pages are replaced, a new page, and the old one."""
        return replaced(shape, call)

    def looks(self, shape: Shape, call: Call) -> bool:
        """It does not."""
        del shape, call
        return False

    def steps(self, ref: KernelReference, state: State, call: Call, local: Local) -> Moves:
        """Write to the page, once, where it is there."""
        vmo, page, content = call.args[:3]
        if local or not usable(state, vmo):
            return
        after = written(ref, state, vmo, page, content)
        if call.result == "OK" and after is not None:
            yield after, True
        elif lacks(ref, state, call):
            yield state, True

    def ends(self, ref: KernelReference, state: State, call: Call, local: Local) -> State | None:
        """OK once written."""
        if call.result == "OK" or local:
            return state if local else None
        return super().ends(ref, state, call, local)


class Zero(Operation):
    """``(vmo, first, count)``: page by page, each written as a write does it.

    The local state counts them, and is -1 where it saw the end of the VMO, or that of the memory.
    """

    begun = 0

    def holds(self, shape: Shape, call: Call) -> int:
        """Where written pages are replaced, a new page, and the old one."""
        return replaced(shape, call)

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
        after = written(ref, state, vmo, page, ref.shape.zero)
        if lacks(ref, state, call):
            yield state, -1
        if after is not None:
            yield after, local + 1
        elif ref.shape.lender[vmo]:
            yield state, local + 1

    def ends(self, ref: KernelReference, state: State, call: Call, local: Local) -> State | None:
        """All of them; a borrower's may not come."""
        if call.result == "OK":
            return state if local == call.args[2] else None
        if local == -1 or ref.refused(state, call):
            return state
        interrupted = ref.interrupted(state, call)
        return state if interrupted else super().ends(ref, state, call, False)


class Touch(Commit):
    """``(vmo, page, write, mapping)``: a page fault; it waits with no VMO kept alive."""

    begun = False

    def wants(self, shape: Shape, call: Call) -> int:
        """The page, where it is written to."""
        vmo, page, write, _ = call.args
        return shape.span(vmo, page, 1) if write else 0

    def holds(self, shape: Shape, call: Call) -> int:
        """As a write, where it is one."""
        return replaced(shape, call) if call.args[2] else 0

    def looks(self, shape: Shape, call: Call) -> bool:
        """Only that, unless it makes the page dirty."""
        return not (call.args[2] and shape.tracks(call.args[0]))

    def steps(self, ref: KernelReference, state: State, call: Call, local: Local) -> Moves:
        """See the page there while it is mapped; a lender's absent one can be read."""
        vmo, page, write, mapping = call.args
        if local or not state.maps(mapping):
            return
        if call.result != "OK":
            if write and lacks(ref, state, call):
                yield state, True
            return
        row = state.cells[vmo]
        cell = row[page] if page < len(row) else None
        if write and cell is not None:
            after = written(ref, state, vmo, page, cell.content)
            if after is not None:
                yield after, True
        elif cell is not None or (ref.shape.lender[vmo] and not write):
            yield state, True

    def ends(self, ref: KernelReference, state: State, call: Call, local: Local) -> State | None:
        """OK once seen; else mapped no more, or as a commit."""
        if call.result == "OK" or local:
            return state if local else None
        return unmapped(state, call) or super().ends(ref, state, call, local)


class Load(Read):
    """``(vmo, page, mapping)``: a read as user code does it."""

    def steps(self, ref: KernelReference, state: State, call: Call, local: Local) -> Moves:
        """As a read, while it is mapped."""
        if state.maps(call.args[-1]):
            yield from super().steps(ref, state, call, local)

    def ends(self, ref: KernelReference, state: State, call: Call, local: Local) -> State | None:
        """Done, or mapped no more."""
        return unmapped(state, call) or super().ends(ref, state, call, local)


class Store(Write):
    """``(vmo, page, content, mapping)``: a write as user code does it."""

    def steps(self, ref: KernelReference, state: State, call: Call, local: Local) -> Moves:
        """As a write, while it is mapped; but where dirty pages are tracked a fault comes first."""
        vmo, page = call.args[:2]
        if not state.maps(call.args[-1]):
            return
        row = state.cells[vmo]
        cell = row[page] if page < len(row) else None
        if call.result == "OUT_OF_RANGE" and page >= len(row):
            yield state, True
        elif ref.shape.tracks(vmo) and (cell is None or cell.dirty != DIRTY):
            after = None if cell is None else written(ref, state, vmo, page, cell.content)
            if after is not None and not local:
                yield after, local
            if not local and lacks(ref, state, call):
                yield state, True
        else:
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
    if state.maps(call.args[-1]):
        return None
    status = told(call)
    # Or its request was answered by a source that was closed.
    closed = status == "BAD_STATE" and state.stages[call.args[0]] != OPEN
    return state if status == "NOT_FOUND" or closed else None
