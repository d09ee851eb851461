"""Small scenarios, all but one without the kernel: what the runner's own tests explore."""

import random

from harness import (
    LockClass,
    Mutex,
    Shared,
    current_thread,
    parallel,
    spawn,
    yield_now,
)
from harness.sync import current_schedule
from stress.catalogue import Context, scenario
from stress.scenarios import boot, finish, race


@scenario("toy-abba", summary="two locks in two orders", tags=("toy",), threads=2)
def abba(ctx: Context) -> None:
    left, right = Mutex("left"), Mutex("right")

    def one() -> None:
        yield_now()
        with left, right:
            pass

    def two() -> None:
        yield_now()
        with right, left:
            pass

    parallel(one, two)


@scenario("toy-clean", summary="a counter under its lock", tags=("toy",), threads=3)
def clean(ctx: Context) -> None:
    lock, cell = Mutex("lock", LockClass("Cell")), Shared(0, "cell")

    def add() -> None:
        for _ in range(2):
            with lock:
                cell.set(cell.get() + 1)

    parallel(add, add, add)
    assert cell.peek() == 6


@scenario(
    "toy-late",
    summary="fails from a late schedule on",
    tags=("toy",),
    params={"from": 150, "word": "late"},
)
def late(ctx: Context) -> None:
    """Late by its number: whatever the strategies do, the failure lies beyond the first blocks."""
    parallel(yield_now, yield_now)
    number = current_schedule()
    assert number < int(ctx.params["from"]), f"{ctx.params['word']}: {number}"


@scenario("toy-order", summary="locks nested both ways, in different schedules", tags=("toy",))
def order(ctx: Context) -> None:
    """No schedule nests them both ways: only the graph over all of them has the cycle."""
    first, second = Mutex("first", LockClass("First")), Mutex("second", LockClass("Second"))
    parallel(yield_now, yield_now)
    outer, inner = (second, first) if current_schedule() == 170 else (first, second)
    with outer, inner:
        pass


@scenario("toy-drawn", summary="operations drawn from the seed", tags=("toy",), drawn=True)
def drawn(ctx: Context) -> None:
    draw = random.Random(ctx.seed)
    locks = [Mutex(name) for name in "abc"]

    def work() -> None:
        one, two = draw.sample(locks, 2)
        with one, two:
            pass

    parallel(work, work)


@scenario("toy-canary", summary="a planted race", expected="finding", tags=("canary",))
def canary(ctx: Context) -> None:
    cell = Shared(0, "cell")

    def add() -> None:
        cell.set(cell.get() + 1)

    parallel(add, add)
    assert cell.peek() == 2, f"one update was lost: {cell.peek()}"


@scenario("toy-vacuous", summary="nothing to interleave", expected="inconclusive", threads=1)
def vacuous(ctx: Context) -> None:
    thread = spawn(lambda: current_thread().index)
    thread.join()
    assert thread.result == 1


@scenario("toy-unjudged", summary="does what the reference of the kernel does not know")
def unjudged(ctx: Context) -> None:
    kernel = boot(ctx, 3)
    lender = kernel.lender(2)
    race(kernel, lambda: kernel.attributed(lender), lambda: kernel.decommit(lender, 0, 1))
    finish(kernel)
