"""What each operation does, in steps, for the reference (``model.reference``)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from model.reference_access import Load, Map, Read, Store, Touch, Unmap, Write, Zero
from model.reference_commit import Ask, Commit, Fault, Moves, Need, Operation, Pin, Unpin
from model.reference_dirty import Agree, Agreed, DirtyRanges, WritebackBegin, WritebackEnd
from model.reference_lives import Close, Create, CreateSlice, Detach, Outside, Refused
from model.reference_state import CLEAN, CLOSED, GONE, OPEN, Filled, Shape, State, usable

if TYPE_CHECKING:
    from harness.sync.history import Call, Local
    from model.reference import KernelReference

# Operations that may put another page where one is, and leave it clean.
_MOVING: Final = frozenset(("replace", "churn", "pin", "need"))


class Replace(Operation):
    """``(vmo, page, with_loaned)`` of a borrower: the content stays, what lies under it changes."""

    def holds(self, shape: Shape, call: Call) -> int:
        """The new page, and the old one."""
        del shape, call
        return 2

    def steps(self, ref: KernelReference, state: State, call: Call, local: Local) -> Moves:
        """Any lender's absent page may lie under it now, or none does."""
        vmo, page, with_loaned = call.args
        cell = state.cells[vmo][page] if page < len(state.cells[vmo]) else None
        if local or not usable(state, vmo):
            return
        dirty = cell is not None and cell.dirty != CLEAN
        match call.result:
            case "OK":
                ordinary = dirty or ref.shape.traps(vmo)
                stays = state.pinned(vmo, page, 1) or (with_loaned and ordinary)
                if cell is not None and not stays:
                    under = cell.under | ref.borrowable(state, vmo) if with_loaned else 0
                    yield state.put(vmo, page, [cell._replace(under=under)]), True
            case "NOT_FOUND":
                # Or found, evicted and supplied again: then it was another page.
                if cell is None or ref.beside(call):
                    yield state, True
            case "NO_MEMORY":
                if with_loaned or ref.short(state, call, 1) or ref.shape.faults:
                    yield state, True
            case "BAD_STATE":
                kept = ref.may_be_pinned(state, call, page, 1) or state.needed >> vmo & 1
                # Needed is, too, what a hint under way has just been told.
                kept = kept or (with_loaned and dirty)
                if kept or any(other.name == "need" for other in ref.beside(call)):
                    yield state, True
            case "NOT_SUPPORTED":
                size = len(state.cells[vmo])
                sober = state.sober >> vmo & 1 or ref.shape.traps(vmo)
                if sober or ref.pinning(call, vmo, 0, size):
                    yield state, True


class Churn(Operation):
    """``()``: a sweep, or aging: the content stays, and anything may lie under any of it."""

    begun = True

    def holds(self, shape: Shape, call: Call) -> int:
        """A new page and an old one, at a time."""
        del shape, call
        return 2

    def steps(self, ref: KernelReference, state: State, call: Call, local: Local) -> Moves:
        """Each page at its own time: so this is taken as often as more may be borrowed."""
        absent = ref.absent(state)
        after = state
        for vmo, row in enumerate(state.cells):
            if not ref.shape.lender[vmo] and not ref.shape.traps(vmo):
                cells = [
                    cell
                    if cell is None or cell.dirty != CLEAN
                    else Filled(cell.content, cell.under | absent)
                    for cell in row
                ]
                after = after.put(vmo, 0, cells)
        if after != state:
            yield after, local

    def ends(self, ref: KernelReference, state: State, call: Call, local: Local) -> State | None:
        """However many were replaced."""
        del ref, call, local
        return state


class Hint(Operation):
    """``(vmo, first, count)``: changes nothing that can be seen, and keeps the VMO meanwhile."""

    begun = True

    def steps(self, ref: KernelReference, state: State, call: Call, local: Local) -> Moves:
        """None."""
        yield from ()


class Sensitive(Operation):
    """``(vmo,)``: it borrows no more; what it has stays."""

    def steps(self, ref: KernelReference, state: State, call: Call, local: Local) -> Moves:
        """From here on."""
        vmo = call.args[0]
        if not local and call.result == "OK" and usable(state, vmo):
            yield state._replace(sober=state.sober | 1 << vmo), True


class Decommit(Operation):
    """``(vmo, first, count)``: atomic; refused while one of the pages is pinned, and only then."""

    def steps(self, ref: KernelReference, state: State, call: Call, local: Local) -> Moves:
        """All of the range is absent."""
        vmo, first, count = call.args[:3]
        if local or not usable(state, vmo):
            return
        if not ref.shape.lender[vmo]:
            if call.result == "NOT_SUPPORTED":
                yield state, True
        elif call.result == "OK":
            if not state.pinned(vmo, first, count):
                yield state.put(vmo, first, (None,) * count), True
        elif call.result == "BAD_STATE" and ref.may_be_pinned(state, call, first, count):
            yield state, True


class DecommitMapped(Decommit):
    """``(vmo, first, count, mapping)``: through a mapping, while there is one."""

    def steps(self, ref: KernelReference, state: State, call: Call, local: Local) -> Moves:
        """As a decommit; or see that nothing is mapped any more."""
        if state.maps(call.args[3]):
            yield from super().steps(ref, state, call, local)
        elif not local and call.result == "BAD_STATE":
            yield state, True


class Supply(Operation):
    """``(vmo, first, count, content)``: atomic, and pages that are there stay as they are."""

    def holds(self, shape: Shape, call: Call) -> int:
        """What it is about to supply."""
        del shape
        count: int = call.args[2]
        return count

    def steps(self, ref: KernelReference, state: State, call: Call, local: Local) -> Moves:
        """Fill what is absent; a fault ends it after any number of pages."""
        vmo, first, count, content = call.args
        if local or not usable(state, vmo):
            return
        if call.result == "OK":
            if ref.ordinary(state) >= count and first + count <= len(state.cells[vmo]):
                yield self.filled(ref, state, vmo, first, count, content), True
        elif call.result == "NO_MEMORY":
            if ref.short(state, call, count):
                yield state, True
            elif ref.shape.faults:
                for filled in range(count):
                    yield self.filled(ref, state, vmo, first, filled, content), True

    def filled(
        self, ref: KernelReference, state: State, vmo: int, first: int, count: int, content: bytes
    ) -> State:
        """With content where there was none; any absent page of a lender may lie under it."""
        fresh = Filled(content, ref.borrowable(state, vmo))
        row = state.cells[vmo][first : first + count]
        return state.put(vmo, first, [fresh if cell is None else cell for cell in row])


class EvictPage(Operation):
    """``(vmo, page)``: whether it was there and went."""

    def holds(self, shape: Shape, call: Call) -> int:
        """The page."""
        del shape, call
        return 1

    def looks(self, shape: Shape, call: Call) -> bool:
        """Where nothing went."""
        return call.result is False

    def steps(self, ref: KernelReference, state: State, call: Call, local: Local) -> Moves:
        """Take it, or see it absent. Found, lost and filled again in between: it was absent.

        Found and replaced in between it is another page, which stays.
        """
        vmo, page = call.args
        if local:
            return
        row = state.cells[vmo]
        there = page < len(row) and row[page] is not None and not ref.shape.lender[vmo]
        if call.result is True and there and usable(state, vmo):
            if not state.stuck(vmo, page):
                yield state.put(vmo, page, [None]), True
        elif call.result is False:
            moved = any(other.name in _MOVING for other in ref.beside(call))
            stays = there and (state.stuck(vmo, page) or ref.pinning(call, vmo, page, 1))
            stays = stays or bool(state.needed >> vmo & 1)
            if not there or moved or stays or state.stages[vmo] != OPEN:
                yield state, True


class Evict(Operation):
    """``(target,)``: how many pages it took, one after the other, whosever.

    The local state is how many it has taken, and -1 at its end. It takes fewer than ``target`` only
    where it saw that there are no more; it may take more, since loaned pages do not count.
    """

    begun = 0

    def holds(self, shape: Shape, call: Call) -> int:
        """Whatever a borrower has."""
        del call
        return sum(size for size, lends in zip(shape.sizes, shape.lender, strict=True) if not lends)

    def steps(self, ref: KernelReference, state: State, call: Call, local: Local) -> Moves:
        """Take one more, or see that there is none, or only those of a VMO that is dying."""
        assert isinstance(local, int)
        empty = dying = False
        if local < 0:
            return
        if local < call.result:
            for vmo, row in enumerate(state.cells):
                if not ref.shape.lender[vmo]:
                    for page, cell in enumerate(row):
                        if cell is not None and not state.stuck(vmo, page):
                            yield state.put(vmo, page, [None]), local + 1
        else:
            borrowers = [v for v, lends in enumerate(ref.shape.lender) if not lends]
            empty = all(
                cell is None or state.needed >> vmo & 1 or self.stays(ref, state, call, vmo, page)
                for vmo in borrowers
                for page, cell in enumerate(state.cells[vmo])
            )
            dying = any(state.stages[vmo] in (CLOSED, GONE) for vmo in borrowers)
            empty = empty or local >= call.args[0]
        if empty or dying:
            yield state, -1

    def stays(self, ref: KernelReference, state: State, call: Call, vmo: int, page: int) -> bool:
        """Whether that page is dirty, may be pinned, or needed by a hint that is under way."""
        needing = any(other.name == "need" for other in ref.beside(call))
        return needing or state.stuck(vmo, page) or ref.pinning(call, vmo, page, 1)

    def ends(self, ref: KernelReference, state: State, call: Call, local: Local) -> State | None:
        """Done."""
        del ref, call
        return state if local == -1 else None


class Fill(Supply):
    """``(vmo, first, count, content)``: a pager answers a request; nobody is told what came of it.

    Where it has no memory it fails the request, and whoever waits is told NO_MEMORY.
    """

    def steps(self, ref: KernelReference, state: State, call: Call, local: Local) -> Moves:
        """Fill what is absent of what is left, or fail midway."""
        vmo, first, count, content = call.args
        if local:
            return
        count = max(min(count, len(state.cells[vmo]) - first), 0)
        if ref.ordinary(state) >= count:
            yield self.filled(ref, state, vmo, first, count, content), True
        if ref.shape.faults or ref.short(state, call, count):
            for filled in range(count if ref.shape.faults else 1):
                after = self.filled(ref, state, vmo, first, filled, content)
                yield after.fails(vmo, "NO_MEMORY"), True


class Refuse(Operation):
    """``(vmo, status)``: a pager fails a request; who waits for it is told the status."""

    def steps(self, ref: KernelReference, state: State, call: Call, local: Local) -> Moves:
        """From here on."""
        if not local:
            yield state.fails(*call.args), True


class Resize(Operation):
    """``(vmo, pages)``: atomic; refused while a page beyond is pinned."""

    def holds(self, shape: Shape, call: Call) -> int:
        """What is cut off."""
        vmo: int = call.args[0]
        return shape.sizes[vmo]

    def steps(self, ref: KernelReference, state: State, call: Call, local: Local) -> Moves:
        """Cut off what is beyond, or add absent pages."""
        vmo, pages = call.args
        if local or not usable(state, vmo):
            return
        row = state.cells[vmo]
        beyond = max(len(row) - pages, 0)
        if call.result == "OK" and not (beyond and state.pinned(vmo, pages, beyond)):
            yield state.sized(vmo, (*row[:pages], *(None,) * (pages - len(row)))), True
        elif call.result == "BAD_STATE" and ref.may_be_pinned(state, call, pages, beyond):
            yield state, True


class Beyond(Operation):
    """``(vmo, first, count)``: whatever was told OUT_OF_RANGE."""

    def holds(self, shape: Shape, call: Call) -> int:
        """As many as a pager brings along."""
        del shape
        count: int = call.args[2]
        return count

    def looks(self, shape: Shape, call: Call) -> bool:
        """Only that."""
        del shape, call
        return True

    def steps(self, ref: KernelReference, state: State, call: Call, local: Local) -> Moves:
        """See the end of the VMO before that of the range."""
        vmo, first, count = call.args
        if not local and usable(state, vmo) and first + count > len(state.cells[vmo]):
            yield state, True


class Interrupt(Operation):
    """``(thread,)``: a kill or suspend of the thread of that name."""

    def steps(self, ref: KernelReference, state: State, call: Call, local: Local) -> Moves:
        """From here on its waits may end early."""
        if not local:
            bit = 1 << ref.thread_named(call.args[0])
            yield state._replace(suspended=state.suspended | bit), True


class Look(Operation):
    """``()``: what every open VMO holds while nothing runs, and every other one is gone."""

    begun = True

    def steps(self, ref: KernelReference, state: State, call: Call, local: Local) -> Moves:
        """None: it is all in the end."""
        yield from ()

    def ends(self, ref: KernelReference, state: State, call: Call, local: Local) -> State | None:
        """Every cell as it was seen; closed VMOs were not looked at."""
        for vmo, row in enumerate(state.cells):
            seen = call.result[vmo]
            if (seen is None) == (state.stages[vmo] == OPEN):
                return None
            if seen is not None and seen != tuple(cell and cell.content for cell in row):
                return None
        return state


# What each operation of a history does. A new one is one entry here.
OPERATIONS: Final[dict[str, Operation]] = {
    "commit": Commit(),
    "fault": Fault(),
    "ask": Ask(),
    "pin": Pin(),
    "unpin": Unpin(),
    "need": Need(),
    "map": Map(),
    "unmap": Unmap(),
    "touch": Touch(),
    "load": Load(),
    "store": Store(),
    "decommit_mapped": DecommitMapped(),
    "resize": Resize(),
    "beyond": Beyond(),
    "refused": Refused(),
    "replace": Replace(),
    "churn": Churn(),
    "hint": Hint(),
    "sensitive": Sensitive(),
    "decommit": Decommit(),
    "supply": Supply(),
    "evict_page": EvictPage(),
    "evict": Evict(),
    "fill": Fill(),
    "read": Read(),
    "write": Write(),
    "zero": Zero(),
    "detach": Detach(),
    "create": Create(),
    "slice": CreateSlice(),
    "close": Close(),
    "agree": Agree(),
    "agreed": Agreed(),
    "refuse": Refuse(),
    "dirty_ranges": DirtyRanges(),
    "writeback_begin": WritebackBegin(),
    "writeback_end": WritebackEnd(),
    "outside": Outside(),
    "suspend": Interrupt(),
    "kill": Interrupt(),
    "look": Look(),
}
