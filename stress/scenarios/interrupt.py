"""Kill and suspend of a thread that commits or waits."""

from __future__ import annotations

from harness.sync import Thread, current_thread, parallel, sometimes
from stress.catalogue import Context, scenario
from stress.scenarios import expect, expect_zero, finish


@scenario(
    "suspend-waiter",
    summary="suspend of a committer whose request another committer may be processing",
    tags=("interrupt",),
    threads=3,
    exercises=("R9", "R10", "R14", "Event::Wait", "CancelRequest"),
    defects=("L1",),
)
def suspend_waiter(ctx: Context) -> None:
    """The suspended thread gives its request up and, resumed, asks again."""
    kernel = ctx.kernel(pages=2)
    lender = kernel.lender(2, absent=2)
    suspended: list[Thread] = []

    def committer() -> None:
        suspended.append(current_thread())
        expect(kernel.commit(lender, 0, 1))

    def other() -> None:
        expect(kernel.commit(lender, 1, 1))

    def suspender() -> None:
        kernel.suspend(suspended[0])

    parallel(committer, other, suspender)
    expect_zero(kernel, lender, 0, 1)
    finish(kernel)


@scenario(
    "kill-waiter",
    summary="kill of a committer that waits along with another's request",
    tags=("interrupt", "overlap"),
    threads=3,
    exercises=("R9", "R10", "R14", "Event::Wait", "CancelRequest", "SwapAsyncRequest"),
)
def kill_waiter(ctx: Context) -> None:
    """The killed thread leaves; who waited along with its request gets the pages all the same."""
    kernel = ctx.kernel(pages=2)
    lender = kernel.lender(2, absent=2)
    killed: list[Thread] = []

    def victim() -> None:
        killed.append(current_thread())
        status = expect(kernel.commit(lender), "OK", "INTR_KILLED")
        if status.name == "INTR_KILLED":
            sometimes("the wait was ended by the kill")

    def survivor() -> None:
        expect(kernel.commit(lender, 1, 1))

    def killer() -> None:
        kernel.kill(killed[0])

    parallel(victim, survivor, killer)
    assert kernel.pages_of(lender)[1] is not None
    kernel.quiesce()
    finish(kernel)
