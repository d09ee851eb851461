"""Priority inheritance: a reclaimer lends its priority to whoever has its page."""

from __future__ import annotations

from typing import Final

from harness.sync import Event, priority_scheduling, spawn, yield_now
from stress.catalogue import Context, scenario
from stress.scenarios import boot, expect, expect_zero, finish

# Steps that a hog takes: more than an owner needs to give its pages up.
HOG_STEPS: Final = 40
# All below the thread that starts them.
LOW, MIDDLE, HIGH = -3, -2, -1


@scenario(
    "inherit-owner",
    summary="two urgent reclaimers wait for pages that one thread of low priority holds, and a hog",
    tags=("priority", "commit", "borrow"),
    threads=4,
    exercises=("R12", "R13", "StackOwnedLoanedPagesInterval", "PrepareForWaiter", "OwnedWaitQueue"),
    mutants=("M53",),
)
def inherit_owner(ctx: Context) -> None:
    """One processor, given to the most urgent: without inheritance the owner never runs again.

    The scheduler has a choice where two are equally urgent: between the reclaimers, and between one
    of them and the owner, once the other sleeps and lends it its priority.
    """
    kernel = boot(ctx, 3)
    from model.pmm import AllocFlag

    lender = kernel.lender(2, absent=2)
    owned = Event("owned")
    committed: list[int] = []
    ranked = priority_scheduling()

    def owner() -> None:
        with kernel.interval():
            flags = AllocFlag.CAN_BORROW | AllocFlag.MUST_BORROW
            status, pages = kernel.pmm.alloc_pages(2, flags)
            expect(status)
            owned.set()
            kernel.pmm.free_list_of_pages(pages)

    def committer(page: int) -> None:
        owned.wait()
        expect(kernel.commit(lender, page, 1))
        committed.append(page)

    def hog() -> None:
        owned.wait()
        for _ in range(HOG_STEPS):
            yield_now()
        assert len(committed) == 2 or not ranked, (
            "the hog ran to its end while an urgent thread was waiting"
        )

    threads = [
        spawn(owner, priority=LOW),
        spawn(committer, 0, name="left", priority=HIGH),
        spawn(committer, 1, name="right", priority=HIGH),
        spawn(hog, priority=MIDDLE),
    ]
    for thread in threads:
        thread.join()
    expect_zero(kernel, lender, 0, 1)
    finish(kernel)
