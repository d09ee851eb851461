"""What operations do that bring pages in and keep them, in steps, for the reference."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from model.reference_state import OPEN, Shape, State, usable

if TYPE_CHECKING:
    from harness.sync.history import Call, Local
    from model.reference import KernelReference

# What an operation's own steps lead to: the state, and its local state.
Moves = Iterator[tuple[State, "Local"]]


class Operation:
    """One kind of operation; the local state is False until it is done, unless said otherwise.

    Attributes:
        reclaims: It works through the requests of lenders while it runs.
        begun: The local state of one that was called.
    """

    reclaims = False
    begun: Local = False

    def wants(self, shape: Shape, call: Call) -> int:
        """Bits of the lenders' pages that it asks for."""
        del shape, call
        return 0

    def holds(self, shape: Shape, call: Call) -> int:
        """Ordinary pages that it may have in its hands, at most."""
        del shape, call
        return 0

    def looks(self, shape: Shape, call: Call) -> bool:
        """Whether it only looks; then a look that helps it is never taken too early."""
        del shape, call
        return False

    def steps(self, ref: KernelReference, state: State, call: Call, local: Local) -> Moves:
        """Steps that lead to the result that it had."""
        raise NotImplementedError

    def ends(self, ref: KernelReference, state: State, call: Call, local: Local) -> State | None:
        """The state that it leaves on its return; None where it is not done."""
        if call.result == "BAD_HANDLE":
            return ref.gone(state, call.args[0])
        return state if local else None


def told(call: Call) -> str:
    """The status that an operation returned."""
    status: str = call.result[0] if isinstance(call.result, tuple) else call.result
    return status


class Commit(Operation):
    """``(vmo, first, count)``; the local state counts the pages seen present, first to last."""

    reclaims = True
    begun = 0

    def wants(self, shape: Shape, call: Call) -> int:
        """All of the range, also what it has seen: until it returns it may ask again."""
        return shape.span(*call.args[:3])

    def looks(self, shape: Shape, call: Call) -> bool:
        """What comes home on the way is nobody's own step."""
        del shape, call
        return True

    def steps(self, ref: KernelReference, state: State, call: Call, local: Local) -> Moves:
        """See as many pages as are there."""
        vmo, first, count = call.args
        seen = local
        assert isinstance(seen, int)
        if call.result == "OK" and usable(state, vmo):
            row = state.cells[vmo]
            # What a resize has cut off needs no commit.
            while seen < count and (first + seen >= len(row) or row[first + seen] is not None):
                seen += 1
            if seen > local:
                yield state, seen

    def ends(self, ref: KernelReference, state: State, call: Call, local: Local) -> State | None:
        """OK with every page seen; what was given up on may come home without us."""
        if call.result == "OK":
            return state if local == call.args[2] else None
        if ref.refused(state, call):
            return state
        left = super().ends(ref, state, call, False)
        if left is None and ref.interrupted(state, call):
            left = state._replace(wished=state.wished | self.wants(ref.shape, call))
        return left


class Fault(Commit):
    """``(vmo, first, count)``: asks once, waits, and keeps no VMO alive meanwhile.

    One request ends where pages are present (``PageRequest`` takes one run of absent pages): OK
    says no more than that the first page that was absent when it asked was there afterwards. Not
    even that where the VMO was closed or detached, or another operation on it was running: what
    that one brings in is counted, not looked at. The local state is -1 before it asks, then the
    page that it waits for, then ``count``.
    """

    begun = -1

    def looks(self, shape: Shape, call: Call) -> bool:
        """Which page it waits for depends on when it asks."""
        del shape, call
        return False

    def steps(self, ref: KernelReference, state: State, call: Call, local: Local) -> Moves:
        """Ask; or see that the page is there."""
        vmo, first, count = call.args
        row = state.cells[vmo][first : first + count]
        if local < 0 and usable(state, vmo):
            yield state, row.index(None) if None in row else count
        elif 0 <= local < count:
            beside = any(other.args[:1] == (vmo,) for other in ref.beside(call))
            if beside or local >= len(row) or row[local] is not None:
                yield state, count

    def ends(self, ref: KernelReference, state: State, call: Call, local: Local) -> State | None:
        """As a commit, but for a VMO that is closed or detached."""
        vmo = call.args[0]
        if call.result == "OK" and (state.stages[vmo] != OPEN or state.detached >> vmo & 1):
            return state
        return super().ends(ref, state, call, local)


class Ask(Operation):
    """``(vmo, first, count)``: sends a commit's request, and gives up or waits later."""

    def wants(self, shape: Shape, call: Call) -> int:
        """All of the range."""
        return shape.span(*call.args[:3])

    def looks(self, shape: Shape, call: Call) -> bool:
        """Only that."""
        del shape, call
        return True

    def steps(self, ref: KernelReference, state: State, call: Call, local: Local) -> Moves:
        """Look at the range, once: all there, or not."""
        vmo, first, count = call.args
        if not local and usable(state, vmo):
            whole = None not in state.cells[vmo][first : first + count]
            if call.result == ("OK" if whole else "SHOULD_WAIT"):
                yield state, True
            elif call.result == "BAD_STATE" and not whole and state.detached >> vmo & 1:
                yield state, True

    def ends(self, ref: KernelReference, state: State, call: Call, local: Local) -> State | None:
        """What it asked for may be in flight."""
        left = super().ends(ref, state, call, local)
        if left is not None and call.result == "SHOULD_WAIT":
            left = left._replace(wished=left.wished | self.wants(ref.shape, call))
        return left


class Pin(Commit):
    """``(vmo, first, count, handle)``: until the pages are pinned; ``handle`` is what is kept.

    All pages are there at one time; what was given up on may come home without us. A borrower's
    page that was on loan is an ordinary one from then on.
    """

    begun = False

    def holds(self, shape: Shape, call: Call) -> int:
        """Of a borrower a new page, and the old one."""
        return 0 if shape.lender[call.args[0]] else 2

    def looks(self, shape: Shape, call: Call) -> bool:
        """It changes what others may do."""
        del shape, call
        return False

    def steps(self, ref: KernelReference, state: State, call: Call, local: Local) -> Moves:
        """See the whole range present, at once, and pin it."""
        vmo, first, count, handle = call.args
        if local or not usable(state, vmo):
            return
        if call.result == "OUT_OF_RANGE" and first + count > len(state.cells[vmo]):
            yield state, True
        if call.result == "NO_MEMORY" and not ref.shape.lender[vmo] and ref.short(state, call, 1):
            yield state, True
        if call.result == "UNAVAILABLE" and ref.may_be_pinned(state, call, first, count):
            yield state, True
        if call.result != "OK":
            if call.result != "BAD_HANDLE" and not state.sober >> vmo & 1:
                # It may have come so far before it failed.
                yield state._replace(sober=state.sober | 1 << vmo), local
            return
        found = [cell for cell in state.cells[vmo][first : first + count] if cell is not None]
        if len(found) == count:
            after = state.put(vmo, first, [cell._replace(under=0) for cell in found])
            pins = tuple(sorted((*state.pins, (vmo, first, count, handle))))
            once = state.sober | 1 << vmo
            yield after._replace(pins=pins, sober=once), True

    def ends(self, ref: KernelReference, state: State, call: Call, local: Local) -> State | None:
        """OK once pinned; otherwise as a commit."""
        if local:
            return state
        match call.result:
            case "OK":
                return None
            case "INVALID_ARGS":
                return state if not call.args[2] else None
            case "BAD_HANDLE":
                return ref.gone(state, call.args[3])
            case _:
                return super().ends(ref, state, call, False)


class Unpin(Operation):
    """``(vmo, first, count, handle)``: the end of a pin."""

    def steps(self, ref: KernelReference, state: State, call: Call, local: Local) -> Moves:
        """One pin less."""
        if not local and call.args in state.pins:
            pins = list(state.pins)
            pins.remove(call.args)
            yield state._replace(pins=tuple(pins)), True


class Need(Commit):
    """``(vmo, first, count)``: each page in turn, there and from then on an ordinary one.

    The local state counts them, and is -1 where there is no such page, or no memory to replace it.
    A lender needs no such hint.
    """

    reclaims = False

    def wants(self, shape: Shape, call: Call) -> int:
        """No lender's page."""
        del shape, call
        return 0

    def holds(self, shape: Shape, call: Call) -> int:
        """A new page, and the old one."""
        del shape, call
        return 2

    def looks(self, shape: Shape, call: Call) -> bool:
        """It does not."""
        del shape, call
        return False

    def steps(self, ref: KernelReference, state: State, call: Call, local: Local) -> Moves:
        """The next page."""
        vmo, first, count = call.args
        assert isinstance(local, int)
        if local in (-1, count) or not usable(state, vmo):
            return
        if call.result == "NO_MEMORY" and ref.short(state, call, 1):
            yield state, -1
        if ref.shape.lender[vmo]:
            yield state, count
        elif first + local >= len(state.cells[vmo]):
            if call.result == "OUT_OF_RANGE":
                yield state, -1
        else:
            cell = state.cells[vmo][first + local]
            if cell is not None:
                after = state.put(vmo, first + local, [cell._replace(under=0)])
                yield after._replace(needed=after.needed | 1 << vmo), local + 1

    def ends(self, ref: KernelReference, state: State, call: Call, local: Local) -> State | None:
        """OK with every page; a loaned one takes memory to be replaced."""
        return state if local == -1 else super().ends(ref, state, call, local)
