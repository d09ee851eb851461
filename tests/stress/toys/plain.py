"""Small scenarios without the kernel: what the runner's own tests explore."""

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
from stress.catalogue import Context, scenario


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


def _handovers(rounds: int) -> int:
    """How often the turn changed hands; all 2 * rounds in one interleaving of many."""
    turn = Shared(0, "turn")

    def count(rest: int) -> None:
        for _ in range(rounds):
            if turn.get() % 2 == rest:
                turn.set(turn.get() + 1)

    parallel(lambda: count(0), lambda: count(1), names=["even", "odd"])
    return turn.peek()


@scenario(
    "toy-rare",
    summary="fails in one interleaving of hundreds",
    tags=("toy",),
    params={"rounds": 2, "word": "turn"},
)
def rare(ctx: Context) -> None:
    rounds = int(ctx.params["rounds"])
    turns = _handovers(rounds)
    assert turns < 2 * rounds - 1, f"{ctx.params['word']} {turns}"


@scenario("toy-order", summary="locks nested both ways, in different schedules", tags=("toy",))
def order(ctx: Context) -> None:
    """No schedule nests them both ways: only the graph over all of them has the cycle."""
    first, second = Mutex("first", LockClass("First")), Mutex("second", LockClass("Second"))
    outer, inner = (second, first) if _handovers(2) == 3 else (first, second)
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
