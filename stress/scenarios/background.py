"""Threads of the kernel's own: the page queues' two, and the loan sweeper's."""

from __future__ import annotations

from harness.sync import Event, sometimes
from stress.catalogue import Context, scenario
from stress.scenarios import boot, expect, expect_zero, finish, race


@scenario(
    "aging-threads",
    summary="the two threads that age pages, and borrow for those in use, against commit and close",
    tags=("aging", "threads", "replace", "commit", "close"),
    threads=4,
    exercises=("R4", "R17", "MruThread", "LruThread", "RotatePagerBackedQueues"),
    mutants=("M311", "M312", "M313", "M315"),
)
def aging_threads(ctx: Context) -> None:
    """All generations are in use: for a new one, one thread has to wait for the other."""
    kernel = boot(ctx, 3)
    from model.page_queues import GENERATIONS

    lender = kernel.lender(1, absent=1)
    kernel.ppb(in_supplypages=False, on_mru=True)
    vmo = kernel.borrower(1)
    expect(kernel.supply(vmo))
    for _ in range(GENERATIONS - 1):
        kernel.age()
    expect(kernel.read(vmo)[0])
    committed = Event("committed")

    def system() -> None:
        kernel.start_queue_threads(active_ratio_multiplier=1)
        committed.wait()
        kernel.destroy(vmo)
        kernel.stop_queue_threads()

    def committer() -> None:
        expect(kernel.commit(lender))
        committed.set()

    race(kernel, system, committer)
    if kernel.counters["pq.aging.blocked_on_lru"]:
        sometimes("a generation waits for the oldest one")
    expect_zero(kernel, lender, 0)
    finish(kernel)


@scenario(
    "sweep-thread",
    summary="the loan sweeper's thread, woken and stopped at any moment, against commit and close",
    tags=("sweep", "threads", "replace", "commit", "close"),
    threads=4,
    exercises=("R4", "R7", "R17", "LoanSweeper::ThreadLoop", "DisableContinuousSweep"),
    mutants=("M314",),
)
def sweep_thread(ctx: Context) -> None:
    """Whoever stops it does not know how far it is; nothing is left half moved."""
    kernel = boot(ctx, 6)
    lender = kernel.lender(2, absent=2)
    kernel.ppb(in_supplypages=False, on_mru=True)
    stays, closes = kernel.borrower(1), kernel.borrower(1)
    for vmo in (stays, closes):
        expect(kernel.supply(vmo))
    committed = Event("committed")

    def system() -> None:
        kernel.start_sweeper_thread()
        kernel.wake_sweeper_thread()
        committed.wait()
        kernel.ppb(on_mru=False)
        kernel.wake_sweeper_thread()
        kernel.stop_sweeper_thread()

    def committer() -> None:
        expect(kernel.commit(lender, 0, 1))
        committed.set()

    def closer() -> None:
        kernel.destroy(closes)

    race(kernel, system, committer, closer)
    if kernel.counters["vm.reclamation.sweep_pages_swept"]:
        sometimes("the sweeper's thread moves a page")
    expect_zero(kernel, lender, 0)
    finish(kernel)
