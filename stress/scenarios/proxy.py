"""The pager proxy: one packet in flight, requests that wait for it, and a pager that answers."""

from __future__ import annotations

from stress.catalogue import Context, scenario
from stress.scenarios import boot, expect, finish, race


@scenario(
    "proxy-packets",
    summary="reads of a pager-backed VMO, a request that is given up, and the pager's packets",
    tags=("proxy", "supply", "cancel"),
    threads=3,
    exercises=("PagerProxy", "QueuePacketLocked", "ClearAsyncRequest", "OnPacketFreedLocked"),
    mutants=("M211", "M212", "M213", "M216"),
)
def proxy_packets(ctx: Context) -> None:
    """The request that has the packet may be taken back in the port, or in the pager's hands."""
    kernel = boot(ctx, 4)
    vmo = kernel.borrower(4)
    given_up, waiting = kernel.begin_commit(vmo, 2, 1), kernel.begin_commit(vmo, 3, 1)

    def reader() -> None:
        for page in range(2):
            status, content = kernel.read(vmo, page)
            expect(status)
            assert content == b"pager...........", content
        expect(kernel.detach(vmo))

    def quitter() -> None:
        given_up.cancel()

    def pager() -> None:
        while kernel.serve_pager(vmo):
            pass

    race(kernel, reader, quitter, pager)
    # Answered, or completed by the detach.
    expect(waiting.wait())
    finish(kernel)


@scenario(
    "proxy-swap",
    summary="a request is given up that has the packet, and that another request waits along with",
    tags=("proxy", "cancel", "overlap"),
    threads=3,
    exercises=("R10", "PagerProxy", "SwapAsyncRequest", "CancelRequest", "OnPacketFreedLocked"),
    mutants=("M214",),
)
def proxy_swap(ctx: Context) -> None:
    """The heir has the packet from then on, or waits for it in the old one's place."""
    kernel = boot(ctx, 4)
    vmo = kernel.borrower(3)
    first, second = kernel.begin_commit(vmo, 0, 1), kernel.begin_commit(vmo, 1, 1)
    along = kernel.begin_commit(vmo, 0, 1)
    beside = kernel.begin_commit(vmo, 1, 1)

    def quitter() -> None:
        first.cancel()
        second.cancel()

    def heir() -> None:
        expect(along.wait())
        expect(beside.wait())
        expect(kernel.detach(vmo))

    def pager() -> None:
        while kernel.serve_pager(vmo):
            pass

    race(kernel, quitter, heir, pager)
    finish(kernel)


@scenario(
    "proxy-close",
    summary="the last reference of a pager-backed VMO against a fault and its pager",
    tags=("proxy", "close", "fault"),
    threads=3,
    exercises=("PagerProxy", "OnClose", "OnDetach", "VmAspace::PageFault", "fbl_recycle"),
    mutants=("M215",),
)
def proxy_close(ctx: Context) -> None:
    """Close sends the last packet, which waits for the one in flight; the pager always ends."""
    kernel = boot(ctx, 3)
    vmo = kernel.borrower(2)
    mapping = kernel.mapped(vmo, close=True)

    def faulter() -> None:
        expect(kernel.fault(mapping, 1), "OK", "NOT_FOUND")

    def pager() -> None:
        while kernel.serve_pager(vmo):
            pass

    def unmapper() -> None:
        expect(kernel.unmap(mapping))

    race(kernel, faulter, pager, unmapper)
    finish(kernel)
