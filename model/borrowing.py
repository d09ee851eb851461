"""Which allocation sites may borrow loaned pages, and whether contiguous VMOs may loan."""

from __future__ import annotations

from harness.sync import Atomic


class PhysicalPageBorrowingConfig:
    """Switches that the ``k ppb`` console command toggles at run time.

    Kernel: ``PhysicalPageBorrowingConfig``.
    Omits: replace-on-unloan, a later switch.
    """

    def __init__(self) -> None:
        """Everything on, as the tests of the kernel set it."""
        self._loaning = Atomic(True, "ppb.loaning")
        self._supply_pages = Atomic(True, "ppb.borrow_in_supplypages")
        self._mru = Atomic(False, "ppb.borrow_on_mru")

    def set_loaning_enabled(self, enabled: bool) -> None:
        """Whether decommit of a contiguous VMO is supported.

        Kernel: ``set_loaning_enabled``.
        """
        self._loaning.store(enabled)

    def set_borrowing_in_supplypages_enabled(self, enabled: bool) -> None:
        """Whether SupplyPages replaces pages by loaned ones.

        Kernel: ``set_borrowing_in_supplypages_enabled``.
        """
        self._supply_pages.store(enabled)

    def set_borrowing_on_mru_enabled(self, enabled: bool) -> None:
        """Whether pages that are found in use as queues age are replaced by loaned ones.

        Kernel: ``set_borrowing_on_mru_enabled``.
        """
        self._mru.store(enabled)

    # A flip may land anywhere; that readers see it late is legal, so reading is no schedule point
    # of its own: the steps around each use are points enough.

    def is_loaning_enabled(self) -> bool:
        """Kernel: ``is_loaning_enabled``."""
        return self._loaning.peek()

    def is_borrowing_in_supplypages_enabled(self) -> bool:
        """Kernel: ``is_borrowing_in_supplypages_enabled``."""
        return self._supply_pages.peek()

    def is_borrowing_on_mru_enabled(self) -> bool:
        """Kernel: ``is_borrowing_on_mru_enabled``."""
        return self._mru.peek()

    def is_any_borrowing_enabled(self) -> bool:
        """Kernel: ``is_any_borrowing_enabled``."""
        return self._supply_pages.peek() or self._mru.peek()

    def __str__(self) -> str:
        """All switches, for ``dump``; no schedule point."""
        switches = (
            ("loaning", self._loaning),
            ("in_supplypages", self._supply_pages),
            ("on_mru", self._mru),
        )
        return "ppb " + " ".join(f"{name} {'on' if on.peek() else 'off'}" for name, on in switches)
