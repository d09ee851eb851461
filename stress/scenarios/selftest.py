"""Two scenarios that watch the watchers; neither touches the model."""

from __future__ import annotations

from harness.sync import Shared, parallel
from stress.catalogue import Context, scenario


@scenario(
    "canary",
    summary="a reader that does not wait for its writer: every campaign must find this",
    tags=("self-test",),
    expected="finding",
)
def canary(ctx: Context) -> None:
    """A campaign that misses this one explores nothing."""
    del ctx
    cell = Shared(0, "cell")

    def writer() -> None:
        cell.set(1)
        cell.set(2)

    def reader() -> None:
        seen = cell.get()
        assert seen == 2, f"the canary: read {seen} before the writer was done"

    parallel(writer, reader)


@scenario(
    "vacuous",
    summary="two threads that never perform an operation: no campaign may call this a pass",
    tags=("self-test",),
    expected="inconclusive",
)
def vacuous(ctx: Context) -> None:
    """A scenario whose threads never meet says nothing about the code, whatever its colour."""
    del ctx
    done: list[str] = []

    def left() -> None:
        done.append("left")

    def right() -> None:
        done.append("right")

    parallel(left, right)
    assert len(done) == 2
