"""What the operations of the model do, in sequence: the reference for concurrent histories.

It knows neither pages of memory nor loans, locks or threads: a VMO is a row of cells, each absent
or with content. What the kernel leaves open is open here, and these are the liberties taken, each
because the kernel takes it:

* *A commit is not atomic.* It has seen every page present, one after the other; on its return any
  of them may be gone again (15.28). Waiting for one page says no more (15.29).
* *Whoever waits works for all.* While some thread reclaims, any page that a running operation asks
  for may come home, whoever asked. The same holds for pages that an operation asked for and gave
  up on: another thread may have them in flight. Nobody can tell from outside, so such a wish lasts
  until the page is home or nobody reclaims any more.
* *A borrower's page may vanish* when a lender's page comes home that may lie under it. Which one
  lies there is not known: a cell keeps the lender's pages that were absent when it was filled, and
  one that has come home since is none of them. Two cells may suspect the same page.
* *Memory is free early and late.* A page on its way to the free list counts as free for one who
  got memory, and as taken for one who got none (R8).
* *A closed handle works for a while*: as long as another operation keeps the VMO. Once one has
  been told that it is gone, it is gone for all. Its pages leave at any time after the close.
* *Whoever was ever suspended may be interrupted* from then on: resuming is not seen from outside.
* *With injected faults* any operation that takes memory may run out of it midway.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from harness.sync.history import Call, Local, Locals

OPEN: Final = 0
CLOSED: Final = 1
# Somebody was told so.
GONE: Final = 2
# Its pages have left.
RECYCLED: Final = 3

# What an operation's own steps lead to: the state, and its local state.
Moves = Iterator[tuple["State", "Local"]]
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
        faults: Faults are injected.
        zero: Content of a fresh page.
    """

    names: tuple[str, ...]
    lender: tuple[bool, ...]
    sizes: tuple[int, ...]
    bits: tuple[int, ...]
    pages: int
    faults: bool
    zero: bytes

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


def gone(state: State, vmo: int) -> State | None:
    """Where somebody is told that a VMO is gone."""
    if state.stages[vmo] == OPEN:
        return None
    return state.staged(vmo, max(GONE, state.stages[vmo]))


def usable(state: State, vmo: int) -> bool:
    """Whether a handle may still work."""
    return state.stages[vmo] <= CLOSED


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

    OK says that every page of the range was there at some time, unless the VMO was closed or
    detached, or another operation on it was running: what that one brings in is counted, not looked
    at (15.29). The local state has a bit for every page seen; all of them if nothing is said.
    """

    def steps(self, ref: KernelReference, state: State, call: Call, local: Local) -> Moves:
        """See what is there."""
        vmo, first, count = call.args
        assert isinstance(local, int)
        beside = any(other.args[:1] == (vmo,) for other in ref.beside(call))
        seen = local
        for page in range(count):
            seen |= (beside or state.cells[vmo][first + page] is not None) << page
        if seen != local:
            yield state, seen

    def ends(self, ref: KernelReference, state: State, call: Call, local: Local) -> State | None:
        """As a commit, but for a VMO that is closed or detached."""
        vmo, _, count = call.args
        if call.result == "OK":
            away = state.stages[vmo] != OPEN or state.detached >> vmo & 1
            return state if away or local == (1 << count) - 1 else None
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


class Decommit(Operation):
    """``(vmo, first, count)``: atomic."""

    def steps(self, ref: KernelReference, state: State, call: Call, local: Local) -> Moves:
        """All of the range is absent."""
        vmo, first, count = call.args
        if not local and usable(state, vmo):
            if ref.shape.lender[vmo] and call.result == "OK":
                yield state.put(vmo, first, (None,) * count), True
            elif not ref.shape.lender[vmo] and call.result == "NOT_SUPPORTED":
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
        """Take it, or see it absent. Found, lost and filled again in between: it was absent."""
        vmo, page = call.args
        if local:
            return
        there = state.cells[vmo][page] is not None and not ref.shape.lender[vmo]
        if call.result is True and there and usable(state, vmo):
            yield state.put(vmo, page, [None]), True
        elif call.result is False and (not there or state.stages[vmo] != OPEN):
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


class KernelReference:
    """The modelled system as its operations show it; a ``harness.sync.history.Reference``."""

    def __init__(self, shape: Shape, cells: Iterable[Iterable[Cell]]) -> None:
        """A system at rest.

        Args:
            shape: What does not change.
            cells: Of every VMO, all of them open.
        """
        self.shape = shape
        rows = tuple(tuple(row) for row in cells)
        self._initial = State(rows, (OPEN,) * len(rows))
        self.key = shape, rows
        self._threads: dict[str, int] = {}
        self._running: Sequence[Call] = ()

    def thread_named(self, name: str) -> int:
        """The number of a thread."""
        return self._threads.setdefault(name, len(self._threads))

    def thread(self, call: Call) -> int:
        """The number of the thread that made a call."""
        return self.thread_named(call.thread)

    def interrupted(self, state: State, call: Call) -> bool:
        """Whether a call was interrupted, as it says, by somebody who did so."""
        status = call.result[0] if isinstance(call.result, tuple) else call.result
        told = isinstance(status, str) and status.startswith("INTR_")
        return told and bool(state.suspended >> self.thread(call) & 1)

    def initial(self) -> State:
        """See ``Reference``."""
        return self._initial

    def begin(self, call: Call) -> Local:
        """See ``Reference``."""
        return OPERATIONS[call.name].begun

    def steps(
        self, state: State, running: Sequence[Call], local: Locals
    ) -> Iterator[tuple[State, Locals]]:
        """Looks at once, where they help; else the operations' own steps, and those on the way."""
        self._running = running
        looked = list(local)
        for index, call in enumerate(running):
            operation = OPERATIONS[call.name]
            if operation.looks(call):
                for _, mine in operation.steps(self, state, call, local[index]):
                    looked[index] = mine
        if looked != list(local):
            yield state, tuple(looked)
            return
        wanted = state.wished
        reclaims = False
        for index, call in enumerate(running):
            operation = OPERATIONS[call.name]
            wanted |= operation.wants(self.shape, call)
            reclaims = reclaims or operation.reclaims
            if not operation.looks(call):
                for after, mine in operation.steps(self, state, call, local[index]):
                    yield after, (*local[:index], mine, *local[index + 1 :])
        if reclaims and wanted:
            for after in self._reclaimed(state, wanted):
                yield after, local
        for vmo, stage in enumerate(state.stages):
            if stage in (CLOSED, GONE):
                yield self._recycled(state, vmo), local

    def ends(
        self, state: State, running: Sequence[Call], local: Locals, index: int
    ) -> Iterator[State]:
        """See ``Reference``; wishes end with the last that reclaims, closed VMOs with the last."""
        call = running[index]
        left = OPERATIONS[call.name].ends(self, state, call, local[index])
        if left is None:
            return
        others = [other for other in running if other is not call]
        if not any(OPERATIONS[other.name].reclaims for other in others):
            left = left._replace(wished=0)
        if others or not any(stage in (CLOSED, GONE) for stage in left.stages):
            yield left

    def _reclaimed(self, state: State, wanted: int) -> Iterator[State]:
        """A page that is asked for comes home, or leaves the borrower that has it."""
        shape = self.shape
        for vmo, row in enumerate(state.cells):
            if not shape.lender[vmo] or state.stages[vmo] == RECYCLED:
                continue
            for page, cell in enumerate(row):
                bit = 1 << (shape.bits[vmo] + page)
                if cell is not None or not wanted & bit:
                    continue
                yield state.cleared(bit).put(vmo, page, [(shape.zero, 0)])
                for borrower, slots in enumerate(state.cells):
                    for at, slot in enumerate(slots):
                        if slot is not None and slot[1] & bit:
                            yield self._lost(state, borrower, at, bit)

    def _lost(self, state: State, borrower: int, at: int, bit: int) -> State:
        """The page lay under this cell, so it lies under no other."""
        wished = state.wished
        return state.put(borrower, at, [None]).cleared(bit)._replace(wished=wished)

    def _recycled(self, state: State, vmo: int) -> State:
        """A closed VMO gives its pages back; what lay under others is theirs."""
        size = self.shape.sizes[vmo]
        after = state.put(vmo, 0, (None,) * size).staged(vmo, RECYCLED)
        return after.cleared(self.shape.span(vmo, 0, size))

    def beside(self, call: Call) -> list[Call]:
        """What runs beside an operation, while its steps are taken."""
        return [other for other in self._running if other is not call]

    # -- memory ---------------------------------------------------------------------------------

    def absent(self, state: State) -> int:
        """Bits of the lenders' pages that are not at home: those that may be borrowed."""
        bits = 0
        for vmo, row in enumerate(state.cells):
            if self.shape.lender[vmo] and state.stages[vmo] != RECYCLED:
                for page, cell in enumerate(row):
                    bits |= (cell is None) << (self.shape.bits[vmo] + page)
        return bits

    def ordinary(self, state: State, held: int | None = None) -> int:
        """Ordinary pages that are free.

        Args:
            state: The state.
            held: None for the most that there can be; else the fewest, with so many in the hands
                of running operations.
        """
        shape = self.shape
        free = shape.pages
        taken = sure = 0
        for vmo, row in enumerate(state.cells):
            if shape.lender[vmo]:
                free -= shape.sizes[vmo] if state.stages[vmo] != RECYCLED else 0
            else:
                taken += sum(cell is not None for cell in row)
                sure += sum(cell is not None and not cell[1] for cell in row)
        if held is not None:
            return free - taken - held
        return free - max(sure, taken - self.absent(state).bit_count())

    def held(self, state: State, call: Call) -> int:
        """Ordinary pages in the hands of operations that run beside ``call``, at most."""
        others = self.beside(call)
        held = sum(OPERATIONS[other.name].holds(self.shape, other) for other in others)
        if others:
            sizes = zip(self.shape.sizes, state.stages, strict=True)
            held += sum(size for size, stage in sizes if stage != OPEN)
        return held

    # -- for readers ----------------------------------------------------------------------------

    def describe(self, state: State) -> str:
        """See ``Reference``."""
        words = ("", " closed", " gone", " recycled")
        rows = []
        for vmo, row in enumerate(state.cells):
            cells = self._row(cell and cell[0] for cell in row)
            detached = " detached" if state.detached >> vmo & 1 else ""
            rows.append(f"{self.shape.names[vmo]}{words[state.stages[vmo]]}{detached} {cells}")
        return ", ".join(rows)

    def tell(self, call: Call) -> str:
        """See ``Reference``: VMOs by their names, pages by their content."""
        args = list(call.args)
        result = call.result
        if call.name not in ("evict", "kill", "suspend", "look"):
            args[0] = self.shape.names[args[0]]
        words = [self._text(arg) if isinstance(arg, bytes) else str(arg) for arg in args]
        text = f"{call.name}({', '.join(words)})"
        if call.name == "look":
            names = zip(self.shape.names, result or (), strict=False)
            rows = [f"{name} {self._row(row)}" for name, row in names if row is not None]
            return f"{text} -> {', '.join(rows)}"
        if isinstance(result, tuple):
            result = " ".join(self._text(one) if isinstance(one, bytes) else one for one in result)
        return text if result is None else f"{text} -> {result}"

    def _row(self, contents: Iterable[bytes | None]) -> str:
        return f"[{' '.join('-' if one is None else self._text(one) for one in contents)}]"

    def _text(self, content: bytes) -> str:
        if content == self.shape.zero:
            return "0"
        return content.rstrip(b"\0.").decode("ascii", "backslashreplace")
