"""``PinnedVmObject``: a range of a VMO that is pinned for as long as somebody has this."""

from __future__ import annotations

from typing import TYPE_CHECKING

from model.refs import Mortal

if TYPE_CHECKING:
    from model.vmo import VmObjectPaged


class PinnedVmObject(Mortal):
    """Keeps a VMO alive, and a range of its pages where they are, until ``unpin``.

    Attributes:
        vmo: The pinned VMO.
        offset: Bytes.
        length: Bytes.

    Kernel: ``PinnedVmObject``.
    """

    def __init__(self, vmo: VmObjectPaged, offset: int, length: int) -> None:
        """The range is pinned; takes a reference of ``vmo``."""
        super().__init__(f"pin of {vmo.name}")
        vmo.add_ref()
        self.vmo = vmo
        self.offset = offset
        self.length = length

    def unpin(self) -> None:
        """Unpin, and let the VMO go; this may be its last reference.

        Locks: takes the VMO lock.
        Kernel: ``~PinnedVmObject``.
        """
        vmo, offset, length = self.vmo, self.offset, self.length
        self.die()
        vmo.unpin(offset, length)
        vmo.release()
