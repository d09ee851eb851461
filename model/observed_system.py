"""What there is of a kernel, by the numbers and in the words of the reference."""

from __future__ import annotations

from typing import TYPE_CHECKING

from model.cow_slice import VmCowSlice
from model.page import PAGE_SIZE, ZEROES
from model.physical_page_provider import PhysicalPageProvider
from model.reference import KernelReference
from model.reference_state import AWAITING_CLEAN, CLEAN, CLOSED, DIRTY, OPEN, Cell, Filled, Shape

if TYPE_CHECKING:
    from model.cow_pages import VmCowPages
    from model.kernel import Kernel
    from model.page import VmPage
    from model.pinned import PinnedVmObject
    from model.vm_aspace import VmMapping
    from model.vmo import VmObjectPaged

# Both begin as the pager has it; a page that nobody tracks is as good as clean.
_DIRTY = {"Dirty": DIRTY, "AwaitingClean": AWAITING_CLEAN}


class System:
    """VMOs, mappings and pins of a kernel, numbered from the beginning of its history on.

    Attributes:
        reference: What the history is held against; it learns of VMOs that are made meanwhile.
        pins: Pinned ranges, in the order in which they were made.
        mappings: All mappings that there ever were, likewise.
        places: Of each mapping, by its name: the VMO that it keeps, the one that has the pages, and
            which of its pages comes first.
    """

    reference: KernelReference

    def __init__(self, kernel: Kernel) -> None:
        """Nothing is numbered yet."""
        self._kernel = kernel
        self.pins: list[PinnedVmObject] = []
        self.mappings: list[VmMapping] = []
        self.places: dict[str, tuple[int, int, int]] = {}
        self._index: dict[str, int] = {}
        # None for what could not be made.
        self._vmos: list[VmObjectPaged | None] = []
        self._cows: dict[int, VmCowPages] = {}

    def begin(self) -> KernelReference:
        """Number what there is; nothing runs, and no closed VMO has a slice."""
        kept = [mapping.vmo for mapping in self.mappings if mapping.vmo is not None]
        kept += [pin.vmo for pin in self.pins]
        for number, vmo in enumerate(dict.fromkeys((*self._kernel.vmos, *kept))):
            self._index[vmo.name] = number
            self._vmos.append(vmo)
            self._cows[number] = vmo.cow
        for mapping in self.mappings:
            self.found(mapping)
        cells, shape = self._at_rest()
        self.reference = KernelReference(
            shape,
            cells,
            [OPEN if vmo in self._kernel.vmos else CLOSED for vmo in self._vmos],
            [
                (number, self._index[mapping.vmo.name])
                for number, mapping in enumerate(self.mappings)
                if mapping.vmo is not None
            ],
            map(self.pinned, self.pins),
        )
        return self.reference

    # -- what is made meanwhile -----------------------------------------------------------------

    def expect(
        self, name: str, pages: int, *, lends: bool = False, parent: int = -1, dirty: int = 0
    ) -> int:
        """The number of a VMO that somebody is about to make; see ``KernelReference.expect``."""
        self._vmos.append(None)
        return self.reference.expect(name, pages, lends=lends, parent=parent, dirty=dirty)

    def made(self, number: int, vmo: VmObjectPaged) -> None:
        """Here it is."""
        self._index[vmo.name] = number
        self._vmos[number] = vmo
        self._cows[number] = vmo.cow

    def found(self, mapping: VmMapping) -> None:
        """Keep what a mapping shows: unmapped it does not say so any more."""
        if mapping.vmo is not None:
            place = self.place(mapping.vmo, mapping.object_offset // PAGE_SIZE)
            self.places[mapping.name] = self._index[mapping.vmo.name], *place

    # -- which is which -------------------------------------------------------------------------

    def known(self, name: str) -> int | None:
        """The number of the VMO of that name; None where it has none."""
        return self._index.get(name)

    def place(self, vmo: VmObjectPaged, first: int) -> tuple[int, int]:
        """The VMO that has the pages of ``vmo``, and which its page ``first`` is there."""
        if vmo.alive and isinstance(vmo.cow, VmCowSlice):
            root, offset = vmo.cow.paged_parent(first * PAGE_SIZE)
            return self._of(root), offset // PAGE_SIZE
        return self._index[vmo.name], first

    def within(self, vmo: VmObjectPaged, pages: int) -> bool:
        """Whether there are so many pages; of what is no slice that may change at any time."""
        sliced = vmo.alive and isinstance(vmo.cow, VmCowSlice)
        return not sliced or pages * PAGE_SIZE <= vmo.size

    def _of(self, cow: VmCowPages | None) -> int:
        """The number of the VMO that has these pages."""
        return next(number for number, mine in self._cows.items() if mine is cow)

    def pinned(self, pin: PinnedVmObject) -> tuple[int, int, int, int]:
        """As the reference knows a pin."""
        root, first = self.place(pin.vmo, pin.offset // PAGE_SIZE)
        return root, first, pin.length // PAGE_SIZE, self._index[pin.vmo.name]

    # -- what there is --------------------------------------------------------------------------

    def seen(self) -> tuple[tuple[bytes | None, ...] | None, ...]:
        """The content of every page of every VMO. Locks: takes each VMO's lock."""
        return tuple(map(self._seen, self._vmos))

    def _seen(self, vmo: VmObjectPaged | None) -> tuple[bytes | None, ...] | None:
        """The content of every page; None where there is no handle (any more)."""
        if vmo is None or vmo not in self._kernel.vmos:
            return None
        return tuple(None if page is None else bytes(page.contents) for page in self._pages(vmo))

    def _pages(self, vmo: VmObjectPaged) -> list[VmPage | None]:
        """The pages that are a VMO's own."""
        return [] if isinstance(vmo.cow, VmCowSlice) else self._kernel.pages_of(vmo)

    def _at_rest(self) -> tuple[list[list[Cell]], Shape]:
        """What there is while nothing runs, for the reference. Locks: takes each VMO's lock."""
        bits: list[int] = []
        known: dict[int, int] = {}
        parents: list[int] = []
        there = [vmo for vmo in self._vmos if vmo is not None]
        for vmo in there:
            bits.append(len(known))
            provider = vmo.cow.page_source.provider
            cow = vmo.cow
            parents.append(self._of(cow.parent) if isinstance(cow, VmCowSlice) else -1)
            if parents[-1] < 0 and isinstance(provider, PhysicalPageProvider):
                for offset in range(0, vmo.size, PAGE_SIZE):
                    known[provider.page_at(offset).index] = len(known)
        cells: list[list[Cell]] = []
        ordinary = 0
        for vmo in there:
            row: list[Cell] = []
            for page in self._pages(vmo):
                if page is None:
                    row.append(None)
                    continue
                ordinary += page.index not in known
                under = 1 << known[page.index] if page.loaned else 0
                dirty = _DIRTY.get(page.dirty_state.value, CLEAN)
                row.append(Filled(bytes(page.contents), under, dirty))
            cells.append(row)
        kernel = self._kernel
        contiguous = [vmo.cow.is_contiguous() for vmo in there]
        return cells, Shape(
            names=tuple(vmo.cow.name for vmo in there),
            lender=tuple(of < 0 and lends for of, lends in zip(parents, contiguous, strict=True)),
            sizes=tuple(map(len, cells)),
            bits=tuple(bits),
            pages=len(known) + ordinary + kernel.pmm.count_free_pages(),
            machine=len(kernel.pmm.pages),
            faults=kernel.faults.strikes("page_list_node", "alloc", "alloc_contiguous", "borrow"),
            zero=ZEROES,
            struck=kernel.faults.strikes("kill", "suspend", "timer"),
            parents=tuple(parents) if max(parents, default=-1) >= 0 else (),
            tracked=sum(vmo.cow.dirty_tracked << number for number, vmo in enumerate(there)),
            trapped=sum(vmo.cow.trap_dirty << number for number, vmo in enumerate(there)),
        )
