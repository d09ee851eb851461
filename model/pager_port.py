"""The port between a pager proxy and its pager thread: one packet of the proxy at a time."""

from __future__ import annotations

import enum
from typing import NamedTuple

from harness.sync import Condition, Mutex
from model.asserts import kassert


class PacketKind(enum.Enum):
    """What a pager is asked to do.

    Kernel: ``ZX_PAGER_VMO_READ``, ``ZX_PAGER_VMO_DIRTY``, ``ZX_PAGER_VMO_COMPLETE``.
    """

    READ = "READ"
    DIRTY = "DIRTY"
    COMPLETE = "COMPLETE"


class Packet(NamedTuple):
    """What a pager thread reads: plain values, no pointer to the request."""

    kind: PacketKind
    offset: int
    length: int


class PagerPort:
    """Where the proxy's one packet lies until a pager thread takes it.

    Kernel: ``PortDispatcher`` with the ``PortPacket`` of one ``PagerProxy``. Omits: packets of
    others; its lock has no class here, since nothing is ever taken under it.
    """

    def __init__(self, name: str) -> None:
        """No packet. No schedule points."""
        self._mutex = Mutex(f"{name}.port")
        self._ready = Condition(self._mutex)
        self._packet: Packet | None = None

    def queue(self, packet: Packet) -> None:
        """Queue the packet, which must not be here already. Kernel: ``PortDispatcher::Queue``."""
        with self._mutex:
            kassert("a.pager.packet", self._packet is None, packet, "meets", self._packet)
            self._packet = packet
            self._ready.notify()

    def cancel_queued(self) -> bool:
        """Take the packet back; False where a pager thread has it.

        Kernel: ``PortDispatcher::CancelQueued``.
        """
        with self._mutex:
            found = self._packet is not None
            self._packet = None
            return found

    def dequeue(self, *, wait: bool) -> Packet | None:
        """Take the packet; where there is none, None or (``wait``) sleep until there is one.

        Kernel: ``PortDispatcher::Dequeue``.
        """
        with self._mutex:
            while self._packet is None:
                if not wait:
                    return None
                self._ready.wait()
            packet = self._packet
            self._packet = None
            return packet
