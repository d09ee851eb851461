"""What each operation does, in steps, for the reference (``model.reference``)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from model.reference_state import CLOSED, GONE, OPEN, Shape, State, gone, usable

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

    def looks(self, call: Call) -> bool:
        """Whether it only looks; then a look that helps it is never taken too early."""
        del call
        return False

    def steps(self, ref: KernelReference, state: State, call: Call, local: Local) -> Moves:
        """Steps that lead to the result that it had."""
        raise NotImplementedError

    def ends(self, ref: KernelReference, state: State, call: Call, local: Local) -> State | None:
        """The state that it leaves on its return; None where it is not done."""
        del ref
        if call.result == "BAD_HANDLE":
            return gone(state, call.args[0])
        return state if local else None


class Commit(Operation):
    """``(vmo, first, count)``; the local state counts the pages seen present, first to last."""

    reclaims = True
    begun = 0

    def wants(self, shape: Shape, call: Call) -> int:
        """All of the range, also what it has seen: until it returns it may ask again."""
        return shape.span(*call.args[:3])

    def looks(self, call: Call) -> bool:
        """What comes home on the way is nobody's own step."""
        del call
        return True

    def steps(self, ref: KernelReference, state: State, call: Call, local: Local) -> Moves:
        """See as many pages as are there."""
        vmo, first, count = call.args
        seen = local
        assert isinstance(seen, int)
        if call.result == "OK" and usable(state, vmo):
            while seen < count and state.cells[vmo][first + seen] is not None:
                seen += 1
            if seen > local:
                yield state, seen

    def ends(self, ref: KernelReference, state: State, call: Call, local: Local) -> State | None:
        """OK with every page seen; what was given up on may come home without us."""
        vmo, _, count = call.args
        match call.result:
            case "OK":
                return state if local == count else None
            case "BAD_STATE":
                return state if state.detached >> vmo & 1 else None
            case "NO_MEMORY":
                return state if ref.shape.faults else None
            case _:
                left = super().ends(ref, state, call, False)
                if left is None and ref.interrupted(state, call):
                    left = state._replace(wished=state.wished | self.wants(ref.shape, call))
                return left


class Fault(Commit):
    """``(vmo, first, count)``: asks once, waits, and keeps no VMO alive meanwhile.

    One request ends where pages are present (16.5): OK says no more than that the first page that
    was absent when it asked was there afterwards. Not even that where the VMO was closed or
    detached, or another operation on it was running: what that one brings in is counted, not
    looked at (15.29). The local state is -1 before it asks, then the page that it waits for, then
    ``count``.
    """

    begun = -1

    def looks(self, call: Call) -> bool:
        """Which page it waits for depends on when it asks."""
        del call
        return False

    def steps(self, ref: KernelReference, state: State, call: Call, local: Local) -> Moves:
        """Ask; or see that the page is there."""
        vmo, first, count = call.args
        row = state.cells[vmo][first : first + count]
        if local < 0 and usable(state, vmo):
            yield state, row.index(None) if None in row else count
        elif 0 <= local < count:
            beside = any(other.args[:1] == (vmo,) for other in ref.beside(call))
            if beside or row[local] is not None:
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

    def looks(self, call: Call) -> bool:
        """Only that."""
        del call
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
    """``(vmo, first, count)`` of a lender: from the call of the pin to the return of its unpin.

    All pages are there at one time; what was given up on may come home without us.
    """

    begun = False

    def steps(self, ref: KernelReference, state: State, call: Call, local: Local) -> Moves:
        """See the whole range present, at once."""
        vmo, first, count = call.args
        if not local and call.result == "OK" and usable(state, vmo):
            if None not in state.cells[vmo][first : first + count]:
                yield state, True

    def ends(self, ref: KernelReference, state: State, call: Call, local: Local) -> State | None:
        """OK once seen; otherwise as a commit."""
        if call.result == "OK":
            return state if local else None
        return super().ends(ref, state, call, local)


class Replace(Operation):
    """``(vmo, page, with_loaned)`` of a borrower: the content stays, what lies under it changes."""

    def holds(self, shape: Shape, call: Call) -> int:
        """The new page, and the old one."""
        del shape, call
        return 2

    def steps(self, ref: KernelReference, state: State, call: Call, local: Local) -> Moves:
        """Any lender's absent page may lie under it now, or none does."""
        vmo, page, with_loaned = call.args
        cell = state.cells[vmo][page]
        if local or not usable(state, vmo):
            return
        match call.result:
            case "OK":
                if cell is not None:
                    under = cell[1] | ref.absent(state) if with_loaned else 0
                    yield state.put(vmo, page, [(cell[0], under)]), True
            case "NOT_FOUND":
                # Or found, evicted and supplied again: then it was another page.
                if cell is None or ref.beside(call):
                    yield state, True
            case "NO_MEMORY":
                short = ref.ordinary(state, held=ref.held(state, call)) < 1
                if with_loaned or short or ref.shape.faults:
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
            if not ref.shape.lender[vmo]:
                cells = [None if cell is None else (cell[0], cell[1] | absent) for cell in row]
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


class Decommit(Operation):
    """``(vmo, first, count)``: atomic; refused while one of the pages is pinned."""

    def steps(self, ref: KernelReference, state: State, call: Call, local: Local) -> Moves:
        """All of the range is absent."""
        vmo, first, count = call.args
        if not local and usable(state, vmo):
            if ref.shape.lender[vmo] and call.result == "OK":
                yield state.put(vmo, first, (None,) * count), True
            elif not ref.shape.lender[vmo] and call.result == "NOT_SUPPORTED":
                yield state, True
            elif call.result == "BAD_STATE" and any(
                other.name == "pin"
                and other.args[0] == vmo
                and other.args[1] < first + count
                and first < other.args[1] + other.args[2]
                for other in ref.beside(call)
            ):
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
            if ref.ordinary(state) >= count:
                yield self.filled(ref, state, vmo, first, count, content), True
        elif call.result == "NO_MEMORY":
            if ref.ordinary(state, held=ref.held(state, call)) < count:
                yield state, True
            elif ref.shape.faults:
                for filled in range(count):
                    yield self.filled(ref, state, vmo, first, filled, content), True

    def filled(
        self, ref: KernelReference, state: State, vmo: int, first: int, count: int, content: bytes
    ) -> State:
        """With content where there was none; any absent page of a lender may lie under it."""
        fresh = content, ref.absent(state)
        row = state.cells[vmo][first : first + count]
        return state.put(vmo, first, [fresh if cell is None else cell for cell in row])


class EvictPage(Operation):
    """``(vmo, page)``: whether it was there and went."""

    def holds(self, shape: Shape, call: Call) -> int:
        """The page."""
        del shape, call
        return 1

    def looks(self, call: Call) -> bool:
        """Where nothing went."""
        return call.result is False

    def steps(self, ref: KernelReference, state: State, call: Call, local: Local) -> Moves:
        """Take it, or see it absent. Found, lost and filled again in between: it was absent.

        Found and replaced in between it is another page, which stays.
        """
        vmo, page = call.args
        if local:
            return
        there = state.cells[vmo][page] is not None and not ref.shape.lender[vmo]
        if call.result is True and there and usable(state, vmo):
            yield state.put(vmo, page, [None]), True
        elif call.result is False:
            moved = any(other.name in ("replace", "churn") for other in ref.beside(call))
            if not there or moved or state.stages[vmo] != OPEN:
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
                        if cell is not None:
                            yield state.put(vmo, page, [None]), local + 1
        else:
            borrowers = [v for v, lends in enumerate(ref.shape.lender) if not lends]
            empty = all(cell is None for vmo in borrowers for cell in state.cells[vmo])
            dying = any(state.stages[vmo] in (CLOSED, GONE) for vmo in borrowers)
            empty = empty or local >= call.args[0]
        if empty or dying:
            yield state, -1

    def ends(self, ref: KernelReference, state: State, call: Call, local: Local) -> State | None:
        """Done."""
        del ref, call
        return state if local == -1 else None


class Answer(Operation):
    """``(vmo, content)``: whether a request was answered; the pager knows which, we do not.

    Any pages may come, one after the other.
    """

    def holds(self, shape: Shape, call: Call) -> int:
        """At most the whole VMO."""
        vmo: int = call.args[0]
        return shape.sizes[vmo]

    def steps(self, ref: KernelReference, state: State, call: Call, local: Local) -> Moves:
        """Bring one page, or none."""
        del local
        vmo, content = call.args
        yield state, True
        if call.result is True and usable(state, vmo):
            for page, cell in enumerate(state.cells[vmo]):
                if cell is None and ref.ordinary(state) > 0:
                    yield state.put(vmo, page, [(content, ref.absent(state))]), True


class Read(Operation):
    """``(vmo, page)``: status and content."""

    def looks(self, call: Call) -> bool:
        """Only that."""
        del call
        return True

    def steps(self, ref: KernelReference, state: State, call: Call, local: Local) -> Moves:
        """See the content; what is absent of a lender reads as zeroes."""
        vmo, page = call.args
        if local or not usable(state, vmo):
            return
        status, content = call.result
        cell = state.cells[vmo][page]
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
            return gone(state, call.args[0])
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
        vmo, page, content = call.args
        cell = state.cells[vmo][page]
        if not local and cell is not None and call.result == "OK" and usable(state, vmo):
            yield state.put(vmo, page, [(content, cell[1])]), True

    def ends(self, ref: KernelReference, state: State, call: Call, local: Local) -> State | None:
        """OK once written."""
        if call.result == "OK":
            return state if local else None
        return super().ends(ref, state, call, local)


class Zero(Operation):
    """``(vmo, first, count)``: page by page; the local state counts them."""

    begun = 0

    def steps(self, ref: KernelReference, state: State, call: Call, local: Local) -> Moves:
        """Zero the next page, or pass over a lender's absent one."""
        vmo, first, count = call.args
        if local == count or not usable(state, vmo):
            return
        page = first + local
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
        if call.result == "BAD_STATE" and state.detached >> vmo & 1:
            return state
        interrupted = ref.interrupted(state, call)
        return state if interrupted else super().ends(ref, state, call, False)


class Detach(Operation):
    """``(vmo,)``: atomic."""

    def holds(self, shape: Shape, call: Call) -> int:
        """What the VMO had."""
        vmo: int = call.args[0]
        return shape.sizes[vmo]

    def steps(self, ref: KernelReference, state: State, call: Call, local: Local) -> Moves:
        """No page is left, and no more will come."""
        vmo = call.args[0]
        if not local and usable(state, vmo) and call.result == "OK":
            after = state.put(vmo, 0, (None,) * ref.shape.sizes[vmo])
            yield after._replace(detached=after.detached | 1 << vmo), True


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
            if seen is not None and seen != tuple(cell and cell[0] for cell in row):
                return None
        return state


# What each operation of a history does. A new one is one entry here.
OPERATIONS: Final[dict[str, Operation]] = {
    "commit": Commit(),
    "fault": Fault(),
    "ask": Ask(),
    "pin": Pin(),
    "replace": Replace(),
    "churn": Churn(),
    "hint": Hint(),
    "decommit": Decommit(),
    "supply": Supply(),
    "evict_page": EvictPage(),
    "evict": Evict(),
    "answer": Answer(),
    "read": Read(),
    "write": Write(),
    "zero": Zero(),
    "detach": Detach(),
    "close": Close(),
    "suspend": Interrupt(),
    "kill": Interrupt(),
    "look": Look(),
}
