"""What the operations of the model do, in sequence: the reference for concurrent histories.

It knows neither pages of memory nor loans, locks or threads: a VMO is a row of cells, each absent
or with content. What the kernel leaves open is open here, and these are the liberties taken, each
because the kernel takes it:

* *A commit is not atomic.* It has seen every page present, one after the other; on its return any
  of them may be gone again. Waiting for one request says less (``Fault``).
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
* *A pin in the making* pins page by page: what may not touch a pinned page may be refused while
  one is under way. Once it has returned, all its pages stay until its unpin is called.
* *A page that is always needed* may be evicted nevertheless, and a page of a VMO that was told so
  may stay: which pages are meant is not kept.
* *Whatever replaces pages leaves their content*, but any lender's absent page may lie under it.
* *A page that is written* through a mapping may be dirty before it has its new content: a fault
  makes it so, and the store follows. Who takes a page to replace it may lack the memory.
* *A lender takes a run of pages.* Which ones are in use is not known: where the free ones may be
  scattered, none may be found.
* *With injected faults* any operation that takes memory may run out of it midway.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from model.reference_commit import told
from model.reference_operations import OPERATIONS
from model.reference_state import (
    CLOSED,
    GONE,
    OPEN,
    RECYCLED,
    UNBORN,
    Cell,
    Filled,
    Pinned,
    Shape,
    State,
)

if TYPE_CHECKING:
    from harness.sync.history import Call, Local, Locals


# Operations that look pages up by their queues, and keep the VMO of one meanwhile.
_KEEPS_ANY: Final = frozenset(("evict", "churn"))
# Operations that are about no VMO.
_NO_VMO: Final = frozenset(("evict", "kill", "suspend", "look", "churn"))


class KernelReference:
    """The modelled system as its operations show it; a ``harness.sync.history.Reference``."""

    def __init__(
        self,
        shape: Shape,
        cells: Iterable[Iterable[Cell]],
        stages: Sequence[int] = (),
        mapped: Iterable[tuple[int, int]] = (),
        pins: Iterable[Pinned] = (),
    ) -> None:
        """A system at rest.

        Args:
            shape: What does not change.
            cells: Of every VMO.
            stages: Of every VMO; all are open where it is empty.
            mapped: See ``State``.
            pins: Likewise.
        """
        self.shape = shape
        rows = tuple(tuple(row) for row in cells)
        self._initial = State(
            rows,
            tuple(stages) or (OPEN,) * len(rows),
            mapped=tuple(sorted(mapped)),
            pins=(held := tuple(sorted(pins))),
            sober=sum(1 << vmo for vmo in {pin[0] for pin in held}),
        )
        self._threads: dict[str, int] = {}
        self._running: Sequence[Call] = ()

    @property
    def key(self) -> tuple[Shape, State]:
        """See ``Reference``."""
        return self.shape, self._initial

    def expect(
        self, name: str, pages: int, *, lends: bool = False, parent: int = -1, dirty: int = 0
    ) -> int:
        """A VMO that somebody is about to make.

        Args:
            name: Of it.
            pages: Its size; of a slice, which has no cells of its own, 0.
            lends: It is contiguous.
            parent: Of a slice the number of what it is a window into.
            dirty: 1 where its written pages are dirty, 2 where its pager is asked before.

        Returns:
            Its number.
        """
        shape = self.shape
        number = len(shape.names)
        parents = shape.parents or (-1,) * number
        self.shape = replace(
            shape,
            names=(*shape.names, name),
            lender=(*shape.lender, lends),
            sizes=(*shape.sizes, pages),
            bits=(*shape.bits, shape.lent()),
            parents=(*parents, parent) if shape.parents or parent >= 0 else (),
            tracked=shape.tracked | (dirty > 0) << number,
            trapped=shape.trapped | (dirty > 1) << number,
        )
        first = self._initial
        self._initial = first._replace(
            cells=(*first.cells, (None,) * pages), stages=(*first.stages, UNBORN)
        )
        return number

    def thread_named(self, name: str) -> int:
        """The number of a thread."""
        return self._threads.setdefault(name, len(self._threads))

    def thread(self, call: Call) -> int:
        """The number of the thread that made a call."""
        return self.thread_named(call.thread)

    def interrupted(self, state: State, call: Call) -> bool:
        """Whether a call was interrupted, as it says, by somebody who did so or by a fault."""
        early = told(call) in ("INTR_KILLED", "INTR_RETRY", "TIMED_OUT")
        return early and (self.shape.struck or bool(state.suspended >> self.thread(call) & 1))

    def refused(self, state: State, call: Call) -> bool:
        """Whether a call failed, as it says, for a pager that is gone or has failed it."""
        vmo, status = call.args[0], told(call)
        if status == "BAD_STATE" and state.detached >> vmo & 1:
            return True
        return (vmo, status) in state.failed or (status == "NO_MEMORY" and self.shape.faults)

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
            if operation.looks(self.shape, call):
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
            if not operation.looks(self.shape, call):
                for after, mine in operation.steps(self, state, call, local[index]):
                    yield after, (*local[:index], mine, *local[index + 1 :])
        if reclaims and wanted:
            for after in self._reclaimed(state, wanted):
                yield after, local
        for vmo in range(len(state.stages)):
            if self._dying(state, vmo):
                yield self._recycled(state, vmo), local

    def ends(
        self, state: State, running: Sequence[Call], local: Locals, index: int
    ) -> Iterator[State]:
        """See ``Reference``; wishes end with who reclaims last, closed VMOs with who keeps them."""
        call = running[index]
        left = OPERATIONS[call.name].ends(self, state, call, local[index])
        if left is None:
            return
        others = [other for other in running if other is not call]
        if not any(OPERATIONS[other.name].reclaims for other in others):
            left = left._replace(wished=0)
        vmos = range(len(left.stages))
        if not any(self._dying(left, vmo) and not self._kept(vmo, others) for vmo in vmos):
            yield left

    def _kept(self, vmo: int, running: Sequence[Call]) -> bool:
        """Whether a running operation may keep a closed VMO from being recycled.

        Where there are slices, what one leaves behind another thread may be deleting.
        """
        if self.shape.parents:
            return bool(running)
        return any(other.name in _KEEPS_ANY or other.args[:1] == (vmo,) for other in running)

    def _dying(self, state: State, vmo: int) -> bool:
        """Whether nothing but a running operation keeps a closed VMO from being recycled."""
        if state.stages[vmo] not in (CLOSED, GONE) or state.referred(vmo):
            return False
        return not self._parent(state, vmo)

    def _parent(self, state: State, vmo: int) -> bool:
        """Whether there is a slice of this VMO."""
        windows = zip(self.shape.parents, state.stages, strict=False)
        return any(parent == vmo and stage < RECYCLED for parent, stage in windows)

    def gone(self, state: State, vmo: int) -> State | None:
        """Where somebody is told that a VMO is gone; None where he should not be."""
        if state.stages[vmo] == OPEN or state.referred(vmo):
            return None
        if self._parent(state, vmo):
            return state  # Its slices go on with what it has.
        return state.staged(vmo, max(GONE, state.stages[vmo]))

    def _reclaimed(self, state: State, wanted: int) -> Iterator[State]:
        """A page that is asked for comes home, or leaves the borrower that has it."""
        shape = self.shape
        for vmo, row in enumerate(state.cells):
            if not shape.lender[vmo] or state.stages[vmo] >= RECYCLED:
                continue
            for page, cell in enumerate(row):
                bit = 1 << (shape.bits[vmo] + page)
                if cell is not None or not wanted & bit:
                    continue
                yield state.cleared(bit).put(vmo, page, [Filled(shape.zero)])
                for borrower, slots in enumerate(state.cells):
                    for at, slot in enumerate(slots):
                        if slot is not None and slot.under & bit:
                            yield self._lost(state, borrower, at, bit)

    def _lost(self, state: State, borrower: int, at: int, bit: int) -> State:
        """The page lay under this cell, so it lies under no other."""
        wished = state.wished
        return state.put(borrower, at, [None]).cleared(bit)._replace(wished=wished)

    def _recycled(self, state: State, vmo: int) -> State:
        """A closed VMO gives its pages back; what lay under others is theirs."""
        size = len(state.cells[vmo])
        after = state.put(vmo, 0, (None,) * size).staged(vmo, RECYCLED)
        return after.cleared(self.shape.span(vmo, 0, size))

    def beside(self, call: Call) -> list[Call]:
        """What runs beside an operation, while its steps are taken."""
        return [other for other in self._running if other is not call]

    def pinning(self, call: Call, vmo: int, first: int, count: int) -> bool:
        """Whether a pin is under way beside an operation, of some of these pages."""
        return any(
            other.name == "pin"
            and other.args[0] == vmo
            and other.args[1] < first + count
            and first < other.args[1] + other.args[2]
            for other in self.beside(call)
        )

    def may_be_pinned(self, state: State, call: Call, first: int, count: int) -> bool:
        """Whether an operation may find some of these pages of its VMO pinned."""
        vmo = call.args[0]
        return state.pinned(vmo, first, count) or self.pinning(call, vmo, first, count)

    def borrowable(self, state: State, vmo: int) -> int:
        """Bits of the lenders' pages that may lie under what is put into a VMO now."""
        sober = state.sober >> vmo & 1 or self.shape.traps(vmo)
        return 0 if sober else self.absent(state)

    # -- memory ---------------------------------------------------------------------------------

    def absent(self, state: State) -> int:
        """Bits of the lenders' pages that are not at home: those that may be borrowed."""
        bits = 0
        for vmo, row in enumerate(state.cells):
            if self.shape.lender[vmo] and state.stages[vmo] < RECYCLED:
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
                free -= shape.sizes[vmo] if state.stages[vmo] < RECYCLED else 0
            else:
                taken += sum(cell is not None for cell in row)
                sure += sum(cell is not None and not cell.under for cell in row)
        if held is not None:
            return free - taken - held
        return free - max(sure, taken - self.absent(state).bit_count())

    def held(self, state: State, call: Call) -> int:
        """Ordinary pages in the hands of operations that run beside ``call``, at most."""
        others = self.beside(call)
        held = sum(OPERATIONS[other.name].holds(self.shape, other) for other in others)
        if others:
            sizes = zip(self.shape.sizes, state.stages, strict=True)
            held += sum(size for size, stage in sizes if stage not in (OPEN, UNBORN))
        return held

    def short(self, state: State, call: Call, count: int) -> bool:
        """Whether ``call`` may find fewer than ``count`` ordinary pages free."""
        return self.ordinary(state, held=self.held(state, call)) < count

    def scattered(self, state: State, call: Call, count: int) -> bool:
        """Whether ``call`` may find no run of ``count`` ordinary pages free.

        The pages in use part the free ones into one run more than they are, at most: where even
        so many runs, each too short, are fewer pages than are free, one of them is long enough.
        """
        free = self.ordinary(state, held=self.held(state, call))
        runs = self.shape.machine - free + 1
        return free <= runs * (count - 1)

    # -- for readers ----------------------------------------------------------------------------

    def describe(self, state: State) -> str:
        """See ``Reference``."""
        words = ("", " closed", " gone", " recycled", " not made yet")
        rows = []
        for vmo, row in enumerate(state.cells):
            cells = self._row(row)
            detached = " detached" if state.detached >> vmo & 1 else ""
            rows.append(f"{self.shape.names[vmo]}{words[state.stages[vmo]]}{detached} {cells}")
        return ", ".join(rows)

    def tell(self, call: Call) -> str:
        """See ``Reference``: VMOs by their names, pages by their content."""
        args = list(call.args)
        result = call.result
        if call.name not in _NO_VMO:
            args[0] = self.shape.names[args[0]]
        if call.name == "slice":
            args = [args[0], self.shape.names[args[1]]]
        words = [self._text(arg) if isinstance(arg, bytes) else str(arg) for arg in args]
        text = f"{call.name}({', '.join(words)})"
        if call.name == "look":
            names = zip(self.shape.names, result or (), strict=False)
            rows = [f"{name} {self._row(row)}" for name, row in names if row is not None]
            return f"{text} -> {', '.join(rows)}"
        if isinstance(result, tuple):
            words = [self._text(one) if isinstance(one, bytes) else str(one) for one in result]
            result = " ".join(words) or "none"
        return text if result is None else f"{text} -> {result}"

    def _row(self, cells: Iterable[Cell | bytes]) -> str:
        return f"[{' '.join(map(self._cell, cells))}]"

    def _cell(self, cell: Cell | bytes) -> str:
        """Content, and what the pager does not know of it."""
        if cell is None or isinstance(cell, bytes):
            return "-" if cell is None else self._text(cell)
        return self._text(cell.content) + ("", "*", "~")[cell.dirty]

    def _text(self, content: bytes) -> str:
        if content == self.shape.zero:
            return "0"
        return content.rstrip(b"\0.").decode("ascii", "backslashreplace")
