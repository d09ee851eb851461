"""What the model tells its invariants; this base class does nothing.

A kernel with checks off has a plain ``Oracle``. No call here may change what the model does: an
oracle looks and raises, it never repairs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from model.cow_pages import VmCowPages
    from model.page import VmPage
    from model.page_request import PageRequest
    from model.page_source import PageSource
    from model.physical_page_provider import PhysicalPageProvider
    from model.pmm import PmmNode
    from model.solpi import StackOwnedLoanedPagesInterval

LockInvariant = Callable[[], object]


class Oracle:
    """Action-scope checks and the lock invariants of new objects, all switched off."""

    def pmm_lock(self, pmm: PmmNode) -> LockInvariant | None:
        """What to check whenever the PMM lock is released."""

    def vmo_lock(self, cow: VmCowPages) -> LockInvariant | None:
        """What to check whenever this VMO's lock is released."""

    def source_lock(self, source: PageSource) -> LockInvariant | None:
        """What to check whenever this page source's lock is released."""

    def provider_lock(self, provider: PhysicalPageProvider) -> LockInvariant | None:
        """What to check whenever this provider's lock is released."""

    def at_alloc(self, page: VmPage, *, can_borrow: bool) -> None:
        """An allocation is about to return ``page``."""

    def at_begin_loan(self, page: VmPage) -> None:
        """BeginLoan is about to mark ``page``."""

    def at_cancel_loan(self, page: VmPage) -> None:
        """CancelLoan is about to mark ``page``."""

    def at_end_loan(self, page: VmPage) -> None:
        """EndLoan is about to take ``page`` back."""

    def at_delete_lender(self, page: VmPage) -> None:
        """DeleteLender is about to clear the loan of ``page``."""

    def after_delete_lender(self, pages: list[VmPage]) -> None:
        """DeleteLender has ended the loans of ``pages``."""

    def at_interval_end(self, interval: StackOwnedLoanedPagesInterval) -> None:
        """An outermost interval is about to end."""

    def at_add(self, page: VmPage, cow: VmCowPages) -> None:
        """``page`` is about to join ``cow``, whose lock is held."""

    def at_signal(self, request: PageRequest, *, told: bool) -> None:
        """The waiter of ``request`` is about to be signalled; ``told`` that its pages are there."""

    def at_look(self, cow: VmCowPages, offset: int, request: PageRequest) -> None:
        """A page of ``cow`` was found absent and is about to be asked for by ``request``."""

    def at_wait_ok(self, request: PageRequest) -> None:
        """The waiter of ``request`` was told OK."""

    def at_upgrade_failed(self, page: VmPage) -> None:
        """The container of a page in hand could not be referenced any more."""

    def at_supplied(self, page: VmPage) -> None:
        """``page`` was zeroed and is about to be supplied to its contiguous VMO."""

    def at_replaced(self, old: VmPage, new: VmPage) -> None:
        """``new`` is about to stand for ``old`` in a VMO."""

    def at_rotate(self, mru_generation: int, lru_generation: int) -> None:
        """A new generation of pages begins."""

    def at_content(self, page: VmPage) -> None:
        """``page`` is about to be handed out: its free pattern must be intact."""

    def at_access(self, page: VmPage, cow: VmCowPages, offset: int) -> None:
        """User code touches ``page`` through an entry for ``offset`` of a mapping of ``cow``."""

    def alarm(self, what: str, iterations: int, limit: int, page: VmPage) -> None:
        """A loop about ``page`` is in its nth iteration; ``limit`` is one too many."""

    def at_sleep(self, interval: StackOwnedLoanedPagesInterval, page: VmPage) -> None:
        """A waiter for ``page`` is about to sleep on ``interval`` (again)."""

    def after_wake(self, interval: StackOwnedLoanedPagesInterval) -> None:
        """``interval`` has woken its waiters."""
