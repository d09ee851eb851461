"""Kill, suspend and timers of a thread that commits or waits."""

from __future__ import annotations

from harness.sync import Thread, current_thread, sometimes
from stress.catalogue import Context, scenario
from stress.scenarios import boot, expect, expect_zero, finish, race


@scenario(
    "suspend-waiter",
    summary="suspend of a thread whose request another one may be processing",
    tags=("interrupt",),
    threads=3,
    exercises=("R9", "R10", "R14", "Event::Wait", "CancelRequest", "ClearAsyncRequest"),
    defects=("L1",),
)
def suspend_waiter(ctx: Context) -> None:
    """The suspended thread gives its request up and, resumed, asks for the same page again."""
    kernel = boot(ctx, 2)
    lender = kernel.lender(2, absent=2)
    mine, theirs = kernel.begin_commit(lender, 0, 1), kernel.begin_commit(lender, 1, 1)
    suspended: list[Thread] = []

    def waiter() -> None:
        suspended.append(current_thread())
        if expect(mine.wait(), "OK", "INTR_RETRY").name == "INTR_RETRY":
            sometimes("the wait was ended by the suspend")
            expect(kernel.commit(lender, 0, 1))

    def other() -> None:
        expect(theirs.wait())

    def suspender() -> None:
        kernel.suspend(suspended[0])

    race(kernel, waiter, other, suspender)
    assert None not in kernel.pages_of(lender)
    expect_zero(kernel, lender, 0, 1)
    finish(kernel)


@scenario(
    "kill-waiter",
    summary="kill of a thread whose request is in flight and overlapped by another's",
    tags=("interrupt", "overlap"),
    threads=3,
    exercises=("R9", "R10", "R14", "Event::Wait", "CancelRequest", "SwapAsyncRequest"),
)
def kill_waiter(ctx: Context) -> None:
    """The killed thread leaves; who waited along with its request gets the page all the same."""
    kernel = boot(ctx, 2)
    lender = kernel.lender(2, absent=2)
    mine, along = kernel.begin_commit(lender, 0, 2), kernel.begin_commit(lender, 1, 1)
    killed: list[Thread] = []

    def victim() -> None:
        killed.append(current_thread())
        if expect(mine.wait(), "OK", "INTR_KILLED").name == "INTR_KILLED":
            sometimes("the wait was ended by the kill")

    def survivor() -> None:
        expect(along.wait())

    def killer() -> None:
        kernel.kill(killed[0])

    race(kernel, victim, survivor, killer)
    assert None not in kernel.pages_of(lender)
    expect_zero(kernel, lender, 0, 1)
    finish(kernel)


@scenario(
    "evict-timer",
    summary="a reclaimer whose timer runs out while it waits for the evictor that has its page",
    tags=("interrupt", "evict"),
    exercises=("R3", "R12", "WaitUntilContiguousPageNotStackOwned", "EvictPageQueues"),
    defects=("L4",),
    early_timeouts=True,
)
def evict_timer(ctx: Context) -> None:
    """Whoever comes back from a timer may find the interval gone that it waited for (L4)."""
    kernel = boot(ctx, 2)
    lender = kernel.lender(1, absent=1)
    borrower = kernel.borrower(1)
    expect(kernel.supply(borrower))

    def committer() -> None:
        expect(kernel.commit(lender))

    def evictor() -> None:
        kernel.evict_page(borrower)

    race(kernel, committer, evictor)
    expect_zero(kernel, lender, 0)
    finish(kernel)
