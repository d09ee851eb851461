"""Requests that are given up: queued, in flight, completed, overlapping, overlapped."""

from __future__ import annotations

from stress.catalogue import Context, scenario
from stress.scenarios import boot, expect, expect_zero, finish, race


@scenario(
    "cancel-clear",
    summary="a request is given up before, during or after its processing by another committer",
    tags=("cancel",),
    exercises=("R10", "ClearAsyncRequest", "CancelRequest", "DequeueRequest"),
    mutants=("M01", "M04", "M06"),
)
def cancel_clear(ctx: Context) -> None:
    """The other one may wait along with the given-up request, or process it, or never meet it."""
    kernel = boot(ctx, 1)
    lender = kernel.lender(1, absent=1)

    def quitter() -> None:
        pending = kernel.begin_commit(lender)
        expect(pending.status, "OK", "SHOULD_WAIT")
        pending.cancel()

    def committer() -> None:
        expect(kernel.commit(lender))

    race(kernel, quitter, committer)
    expect_zero(kernel, lender, 0)
    finish(kernel)


@scenario(
    "cancel-retry",
    summary="a request is given up in flight, and the same page asked for again",
    tags=("cancel",),
    exercises=("R9", "R10", "ClearAsyncRequest", "CancelRequest", "CancelLoan"),
    mutants=("M220",),
    defects=("L1",),
)
def cancel_retry(ctx: Context) -> None:
    """The other thread may be at work on the page when it is asked for anew (L1)."""
    kernel = boot(ctx, 2)
    lender = kernel.lender(2, absent=2)

    def retrier() -> None:
        pending = kernel.begin_commit(lender, 0, 1)
        expect(pending.status, "SHOULD_WAIT")
        pending.cancel()
        expect(kernel.commit(lender, 0, 1))

    def other() -> None:
        expect(kernel.commit(lender, 1, 1))

    race(kernel, retrier, other)
    assert None not in kernel.pages_of(lender)
    expect_zero(kernel, lender, 0, 1)
    finish(kernel)


@scenario(
    "cancel-swap",
    summary="a queued request is given up that others wait along with; the queue keeps its order",
    tags=("cancel", "overlap"),
    threads=3,
    exercises=("R10", "SwapAsyncRequest", "CancelRequest"),
    mutants=("M02", "M03"),
)
def cancel_swap(ctx: Context) -> None:
    """Three requests are queued, the first is overlapped; its heir takes its place in the queue."""
    kernel = boot(ctx, 3)
    lender = kernel.lender(3, absent=3)
    first = kernel.begin_commit(lender, 0, 1)
    second = kernel.begin_commit(lender, 1, 1)
    third = kernel.begin_commit(lender, 2, 1)
    along = kernel.begin_commit(lender, 0, 1)

    def quitter() -> None:
        first.cancel()
        third.cancel()

    def heir() -> None:
        expect(along.wait())

    def other() -> None:
        expect(second.wait())

    race(kernel, quitter, heir, other)
    pages = kernel.pages_of(lender)
    assert pages[0] is not None
    assert pages[1] is not None
    expect_zero(kernel, lender, 0, 1, 2)
    finish(kernel)
