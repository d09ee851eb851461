"""``VmHierarchyState``: what all VMOs of one tree share, their lock above all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.sync import Mutex, guarded_by
from model.locks import VM_HIERARCHY

if TYPE_CHECKING:
    from model.cow_pages import VmCowPages


class VmHierarchyState:
    """The lock of a VMO and of all its slices, and parents that wait for their last drop.

    Attributes:
        lock: Guards page lists, children, sizes and pin counts of the whole tree. Never two of
            this class at once.
        delete_list: Parents that children gave up; the list has one reference of each.
        running_delete: Some thread works through the list.

    Kernel: ``VmHierarchyState``.
    """

    delete_list = guarded_by("lock")
    running_delete = guarded_by("lock")

    def __init__(self, name: str) -> None:
        """Nothing to delete. No schedule points."""
        self.lock = Mutex(f"{name}.lock", VM_HIERARCHY)
        self.delete_list = []
        self.running_delete = False

    def do_deferred_delete(self, cow: VmCowPages) -> None:
        """Drop the caller's reference of ``cow`` while no lock of the tree is held.

        The last drop recycles, which takes the lock; and the recycling of a slice gives up its
        parent in turn. One thread works through the list, so that no chain of slices recurses.

        Locks: none of the tree may be held; takes ``lock``.
        Kernel: ``VmHierarchyState::DoDeferredDelete``.
        """
        with self.lock:
            if cow in self.delete_list:
                # The list has a reference, so this is not the last one.
                cow.release()
            else:
                self.delete_list.insert(0, cow)
            if self.running_delete:
                return
            self.running_delete = True
        while (given_up := self._next()) is not None:
            given_up.release()

    def _next(self) -> VmCowPages | None:
        """The next to be dropped; None where all is done, and the next caller begins anew."""
        with self.lock:
            if self.delete_list:
                found: VmCowPages = self.delete_list.pop(0)
                return found
            self.running_delete = False
            return None
