"""A request that is on its way, noted for the reference."""

from __future__ import annotations

from typing import TYPE_CHECKING

from model.kernel import PendingCommit
from model.page_request import PageRequest
from model.status import Status

if TYPE_CHECKING:
    from harness.sync.history import Call
    from model.observed import ObservedKernel
    from model.vmo import VmObjectPaged
    from model.world import World


class ObservedPending(PendingCommit):
    """A request on its way; noted as a fault where it is waited for, else as one given up."""

    def __init__(
        self, kernel: ObservedKernel, world: World, vmo: VmObjectPaged, pages: tuple[int, int]
    ) -> None:
        """Before it is sent."""
        super().__init__(PageRequest(world), Status.SHOULD_WAIT)
        self._kernel, self._vmo, self._pages = kernel, vmo, pages
        self._noted: Call | None = None
        self._over = False

    def sent(self, pending: PendingCommit) -> None:
        """It was sent."""
        self.request, self.status = pending.request, pending.status

    def note(self) -> None:
        """Note it from here on, unless it is over."""
        if not self._over:
            self._noted = self._kernel.ranged("ask", self._vmo, *self._pages)

    def wait(self) -> Status:
        """See ``PendingCommit``."""
        if self._noted is not None and self._noted.name == "ask":
            self._noted.name = "fault"
        status = super().wait()
        self._end(status)
        return status

    def cancel(self) -> None:
        """See ``PendingCommit``."""
        super().cancel()
        self._end(self.status)

    def _end(self, status: Status) -> None:
        self._over = True
        number = self._kernel.system.known(self._vmo.name)
        if self._noted is not None and number is not None:
            self._kernel.end_call(self._noted, status.name, number)
