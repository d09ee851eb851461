"""``vm_page_t``: one physical page, and the lists that pages are linked on.

``state`` and the object-or-stack-owner word are separate atomics, since reclaimers read both
without a lock: two orders of stores carry the whole argument.

* A page leaves FREE by borrowing: its stack owner is visible *before* it is ALLOC.
* A page becomes FREE: FREE is visible *before* its stack owner is cleared.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final, NamedTuple

from harness.sync import Atomic
from model.asserts import KernelPanic, kassert
from model.solpi import current_interval

if TYPE_CHECKING:
    from model.cow_pages import VmCowPages
    from model.physical_page_provider import PhysicalPageProvider
    from model.solpi import StackOwnedLoanedPagesInterval
    from model.world import World

PAGE_SIZE: Final = 0x1000
# Real bytes that stand for the whole page.
CONTENT_BYTES: Final = 16
FREE_PATTERN: Final = b"\x42" * CONTENT_BYTES
ZEROES: Final = bytes(CONTENT_BYTES)


class PageState(enum.Enum):
    """Kernel: ``vm_page_state``. Omits: states that no modelled page takes."""

    FREE = "FREE"
    ALLOC = "ALLOC"
    OBJECT = "OBJECT"
    WIRED = "WIRED"

    def __repr__(self) -> str:
        """The bare name."""
        return self.value

    __str__ = __repr__


class PageQueue(enum.Enum):
    """Which page queue a page is on; the generations of PagerBacked are numbers of their own.

    Kernel: ``PageQueues::PageQueue``.
    """

    NONE = "None"
    UNSWAPPABLE = "Unswappable"
    WIRED = "Wired"
    PAGER_BACKED = "PagerBacked"
    PAGER_BACKED_DIRTY = "PagerBackedDirty"
    DONT_NEED = "DontNeed"

    def __repr__(self) -> str:
        """The bare name."""
        return self.value

    __str__ = __repr__


class DirtyState(enum.Enum):
    """What the pager knows of a page's content. Kernel: ``VmCowPages::DirtyState``."""

    UNTRACKED = "Untracked"
    CLEAN = "Clean"
    DIRTY = "Dirty"
    AWAITING_CLEAN = "AwaitingClean"

    def __repr__(self) -> str:
        """The bare name."""
        return self.value

    __str__ = __repr__


_UNCLEAN: Final = (DirtyState.DIRTY, DirtyState.AWAITING_CLEAN)


class StackOwner(NamedTuple):
    """The word of a page that a thread's stack owns, with the waiter bit."""

    interval: StackOwnedLoanedPagesInterval
    has_waiter: bool


PageWord = StackOwner | object | None


class PageList:
    """An intrusive list of pages: a page is linked on at most one, through its ``queue_node``.

    Kernel: ``list_node`` with ``vm_page_t::queue_node``.
    """

    __slots__ = ("_pages", "name")

    def __init__(self, name: str) -> None:
        """Empty; ``name`` appears in messages."""
        self.name = name
        self._pages: list[VmPage] = []

    def __len__(self) -> int:
        """Number of linked pages."""
        return len(self._pages)

    def __repr__(self) -> str:
        """The name."""
        return self.name

    def pages(self) -> tuple[VmPage, ...]:
        """The pages from head to tail."""
        return tuple(self._pages)

    def add_head(self, page: VmPage) -> None:
        """Link ``page`` in front. Kernel: ``list_add_head``."""
        self._link(page)
        self._pages.insert(0, page)

    def add_tail(self, page: VmPage) -> None:
        """Link ``page`` at the end. Kernel: ``list_add_tail``."""
        self._link(page)
        self._pages.append(page)

    def remove_head(self) -> VmPage | None:
        """Unlink and return the first page. Kernel: ``list_remove_head_type``."""
        if not self._pages:
            return None
        page = self._pages[0]
        self.remove(page)
        return page

    def peek_tail(self) -> VmPage | None:
        """The last page, still linked. Kernel: ``list_peek_tail_type``."""
        return self._pages[-1] if self._pages else None

    def remove(self, page: VmPage) -> None:
        """Unlink ``page``. Kernel: ``list_delete``."""
        kassert("a.list.remove", page.queue_node is self, page, "is not linked on", self.name)
        self._pages.remove(page)
        page.queue_node = None
        page.touch()

    def _link(self, page: VmPage) -> None:
        # Linking a linked node corrupts both lists in the kernel: the page would be in two places.
        kassert("a.list.add", page.queue_node is None, page, "is linked again, on", self.name)
        page.queue_node = self
        page.touch()


class VmPage:
    """One physical page.

    Attributes:
        state: Atomic ``PageState``; FREE and ALLOC change under the PMM lock only.
        word: Atomic object-or-stack-owner word: None, a ``StackOwner``, or the ``VmCowPages``
            that the page belongs to.
        loaned: PMM lock data. A lender gave the page away.
        loan_cancelled: PMM lock data. The lender wants it back.
        dirty_state: VMO lock data. Whether the pager has the content.
        page_offset: Offset in its VMO, bytes; valid while there is a backlink; page queues lock.
        generation: When the page was last used, counted by the page queues, under their lock.
        queue_node: The list that the page is linked on, by whoever owns the page.
        contents: Real bytes standing for the page's content.
        lender: For the invariants only: the provider whose range holds this page.
        slots: For the invariants only: VMO slots that hold the page, ``(cow, offset)``.
        marked: For the invariants only: BeginLoan has marked the page and not freed it yet.
        alloc_cancelled: For the invariants only: the page was cancelled when it left FREE.

    Kernel: ``vm_page_t``. Omits: the other union members, split bits.
    """

    __slots__ = (
        "_changed",
        "_thread_lock",
        "_touched",
        "alloc_cancelled",
        "always_need",
        "changed",
        "contents",
        "counted",
        "dirty_state",
        "generation",
        "index",
        "lender",
        "loan_cancelled",
        "loaned",
        "marked",
        "page_offset",
        "page_queue",
        "paddr",
        "pin_count",
        "queue_node",
        "slots",
        "state",
        "touched",
        "word",
    )

    def __init__(self, world: World, index: int, paddr: int) -> None:
        """A FREE page that nobody has loaned; the PMM links it."""
        self.index = index
        self.paddr = paddr
        self.state: Atomic[PageState] = Atomic(PageState.FREE, f"page{index}.state")
        self.word: Atomic[PageWord] = Atomic(None, f"page{index}.object")
        self.loaned = False
        self.loan_cancelled = False
        self.page_offset = 0
        self.page_queue = PageQueue.NONE
        self.generation = 0
        self.pin_count = 0
        self.always_need = False
        self.dirty_state = DirtyState.UNTRACKED
        self.queue_node: PageList | None = None
        self.contents = bytearray(FREE_PATTERN)
        self.lender: PhysicalPageProvider | None = None
        self.slots: list[tuple[VmCowPages, int]] = []
        self.marked = False
        self.alloc_cancelled = False
        self.counted = (False, False)
        self.touched = False
        self.changed = False
        self._touched = world.touched
        self._changed = world.changed
        self._thread_lock = world.thread_lock

    @property
    def unclean(self) -> bool:
        """Whether the page was written and the pager does not have that; no schedule point.

        Kernel: ``VmCowPages::is_page_dirty`` or ``VmCowPages::is_page_awaiting_clean``.
        """
        return self.dirty_state in _UNCLEAN

    def touch(self) -> None:
        """Tell the invariants that this page changed."""
        if not self.touched:
            self.touched = True
            self._touched.append(self)
        if not self.changed:
            self.changed = True
            self._changed.append(self)

    # -- state ----------------------------------------------------------------------------------

    def is_free(self) -> bool:
        """Whether the page is FREE, read without a lock; a schedule point.

        Kernel: ``vm_page::is_free``.
        """
        return self.state.load() is PageState.FREE

    def set_state(self, state: PageState) -> None:
        """Store the state; a schedule point. Kernel: ``vm_page::set_state``."""
        self.state.store(state)
        if state is PageState.FREE:
            self.marked = False
        self.touch()

    # -- loan bits ------------------------------------------------------------------------------

    def set_is_loaned(self) -> None:
        """Kernel: ``vm_page::set_is_loaned``."""
        self.loaned = True
        self.marked = self.state.peek() is not PageState.FREE
        self.touch()

    def clear_is_loaned(self) -> None:
        """Kernel: ``vm_page::clear_is_loaned``."""
        self.loaned = False
        self.touch()

    def set_is_loan_cancelled(self) -> None:
        """Kernel: ``vm_page::set_is_loan_cancelled``."""
        self.loan_cancelled = True
        self.touch()

    def clear_is_loan_cancelled(self) -> None:
        """Kernel: ``vm_page::clear_is_loan_cancelled``."""
        self.loan_cancelled = False
        self.touch()

    # -- the object-or-stack-owner word ---------------------------------------------------------

    def get_object(self) -> VmCowPages | None:
        """The VMO the page belongs to; None while a stack owns it or nobody does.

        Kernel: ``object_or_stack_owner::get_object``.
        """
        word = self.word.load()
        return None if isinstance(word, StackOwner) else word  # type: ignore[return-value]

    def is_stack_owned(self) -> bool:
        """Whether a thread's stack owns the page, read without a lock; a schedule point.

        Kernel: ``object_or_stack_owner::is_stack_owned``.
        """
        return isinstance(self.word.load(), StackOwner)

    def set_object(self, cow: VmCowPages, offset: int) -> None:
        """Give the page to ``cow``: the stack owner goes as the backlink comes (t4).

        Locks: page queues lock held; takes the thread lock where somebody waits.
        Kernel: ``vm_page::set_object``.
        """
        word = self.word.peek()
        owned = isinstance(word, StackOwner)
        if self.loaned and (owned or word is None):
            mine = isinstance(word, StackOwner) and word.interval is current_interval()
            kassert("a.page.set_object", mine, self, "is loaned and not owned by this stack")
        elif self.loaned:
            moving = current_interval() is not None
            kassert("a.page.set_object", moving, self, "moves between VMOs without an interval")
        cow.backlinks += 1
        if owned:
            self._replace_stack_owner(cow)
        else:
            self.word.store(cow)
        self.page_offset = offset
        self.touch()

    def clear_object(self) -> None:
        """Take the page from its VMO: a loaned page goes to the caller's stack (t5).

        Locks: page queues lock held.
        Kernel: ``vm_page::clear_object``.
        """
        word = self.word.peek()
        kassert("a.page.clear_object", not isinstance(word, StackOwner), self, "has no object")
        if word is not None:
            word.backlinks -= 1  # type: ignore[attr-defined] # a VmCowPages
        if self.loaned:
            interval = current_interval()
            if interval is None:
                raise KernelPanic("a.page.clear_object", f"{self} needs an interval")
            self.word.store(StackOwner(interval, False))
            interval.pages.append(self)
        else:
            self.word.store(None)
        self.page_offset = 0
        self.touch()

    def set_stack_owner(self, interval: StackOwnedLoanedPagesInterval) -> None:
        """The calling thread's stack owns the page from here on (first half of t2).

        Kernel: ``object_or_stack_owner::set_stack_owner``.
        """
        word = self.word.peek()
        kassert("a.page.set_owner", not isinstance(word, StackOwner), self, "is owned already")
        self.word.store(StackOwner(interval, False))
        interval.pages.append(self)
        self.touch()

    def clear_stack_owner(self) -> None:
        """No stack owns the page any more (second half of t6).

        Locks: takes the thread lock where somebody waits.
        Kernel: ``object_or_stack_owner::clear_stack_owner``.
        """
        word = self.word.peek()
        kassert("a.page.clear_owner", isinstance(word, StackOwner), self, "is not stack-owned")
        self._replace_stack_owner(None)

    def _replace_stack_owner(self, new: VmCowPages | None) -> None:
        """Store ``new`` over the stack owner, under the thread lock if there is a waiter.

        With the waiter bit set, the thread lock makes us wait until that waiter really sleeps: so
        the owner cannot end its interval between the waiter's look and its block.
        """
        while True:
            word = self.word.load()
            if isinstance(word, StackOwner) and word.has_waiter:
                with self._thread_lock:
                    done = self.word.compare_exchange(word, new)
            else:
                done = self.word.compare_exchange(word, new)
            if done:
                self.touch()
                return

    def try_set_has_waiter(self) -> tuple[StackOwnedLoanedPagesInterval, bool] | None:
        """Set the waiter bit; None if no stack owns the page any more.

        Returns:
            The owning interval, and whether this call was the one that set the bit.

        Locks: thread lock held.
        Kernel: ``object_or_stack_owner::try_set_has_waiter``.
        """
        while True:
            word = self.word.load()
            if not isinstance(word, StackOwner):
                return None
            if word.has_waiter:
                return word.interval, False
            if self.word.compare_exchange(word, StackOwner(word.interval, True)):
                self.touch()
                return word.interval, True

    # -- content --------------------------------------------------------------------------------

    def zero(self) -> None:
        """Fill with zeroes. Kernel: ``arch_zero_page``."""
        self.contents[:] = ZEROES

    def copy_from(self, other: VmPage) -> None:
        """Copy the content of ``other``. Kernel: ``CopyPage``."""
        self.contents[:] = other.contents

    def fill_pattern(self) -> None:
        """Fill with the pattern of free memory. Kernel: ``PmmChecker::FillPattern``."""
        self.contents[:] = FREE_PATTERN

    def __repr__(self) -> str:
        """The name; ``str`` tells everything."""
        return f"page{self.index}"

    def __str__(self) -> str:
        """State, loan bits, word and whereabouts, for messages."""
        bits = " loaned" * self.loaned + " cancelled" * self.loan_cancelled
        bits += f" pinned {self.pin_count}" * (self.pin_count > 0)
        bits += " always-need" * self.always_need + f" {self.dirty_state}" * self.unclean
        places = [f"linked on {self.queue_node.name}"] if self.queue_node is not None else []
        places += [f"in {cow.name} at {offset:#x}" for cow, offset in self.slots]
        word = self.word.peek()
        if isinstance(word, StackOwner):
            waiter = " with a waiter" if word.has_waiter else ""
            places.append(f"owned by {word.interval}{waiter}")
        elif word is not None:
            places.append(f"backlink {word!r}+{self.page_offset:#x}")
        where = ", ".join(places) or "nowhere"
        return f"page{self.index} [{self.state.peek()}{bits}, {where}]"
