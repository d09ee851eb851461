"""Threads that run operation programs drawn at random: what nobody thought of."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

from harness.sync import Thread, current_thread, note
from stress.catalogue import Context, scenario
from stress.scenarios import GONE, boot, expect, finish, race

# Pages of the lender, all of them but the first on loan at the start, and of each borrower.
LENDER_PAGES: Final = 3
BORROWER_PAGES: Final = 2
# Operation and weight. Whoever closes or detaches does it once: much comes to nothing afterwards.
OPERATIONS: Final[dict[str, int]] = {
    "commit": 6,
    "decommit": 4,
    "supply": 6,
    "evict-page": 4,
    "evict": 2,
    "give-up": 3,
    "write": 2,
    "read": 1,
    "suspend": 2,
    "detach": 1,
    "close": 2,
}

Operation = tuple[str, int, int]
Program = tuple[Operation, ...]


def draw_programs(seed: int, threads: int, operations: int) -> list[Program]:
    """Operation programs, one for each thread: a function of the arguments alone.

    An operation is its name and two small numbers: for the lender a first page and a count, for
    the borrowers which one and a page of it, for a suspend which thread.
    """
    draw = random.Random(seed)
    names = [name for name, weight in OPERATIONS.items() for _ in range(weight)]

    def one() -> Operation:
        name = names[draw.randrange(len(names))]
        return name, draw.randrange(LENDER_PAGES), draw.randrange(LENDER_PAGES)

    return [tuple(one() for _ in range(operations)) for _ in range(threads)]


class _System:
    """A lender, two borrowers, and what the operations do to them."""

    def __init__(self, ctx: Context, threads: int) -> None:
        self.kernel = boot(ctx, LENDER_PAGES + 2 * BORROWER_PAGES)
        self.lender = self.kernel.lender(LENDER_PAGES, absent=LENDER_PAGES - 1)
        self.borrowers = [self.kernel.borrower(BORROWER_PAGES) for _ in range(2)]
        expect(self.kernel.supply(self.borrowers[0], 0, 1))
        self.threads: list[Thread | None] = [None] * threads

    def run(self, operation: Operation) -> None:
        """Run one operation; every status that it may answer here is named."""
        name, first, second = operation
        kernel, lender = self.kernel, self.lender
        count = min(second + 1, LENDER_PAGES - first)
        borrower, page = self.borrowers[first % 2], second % BORROWER_PAGES
        match name:
            case "commit":
                expect(kernel.commit(lender, first, count), "OK", "NO_MEMORY")
            case "decommit":
                expect(kernel.decommit(lender, first, count))
            case "supply":
                expect(kernel.supply(borrower, page, 1), "OK", "NO_MEMORY", GONE)
            case "evict-page":
                kernel.evict_page(borrower, page)
            case "evict":
                kernel.evict(1 + second % 2)
            case "give-up":
                kernel.begin_commit(lender, first, count).cancel()
            case "write":
                expect(kernel.write(lender, first, b"w"), "OK", "NO_MEMORY", "INTR_RETRY")
            case "read":
                expect(kernel.read(lender, first)[0])
            case "suspend":
                thread = self.threads[second % len(self.threads)]
                if thread is not None:
                    kernel.suspend(thread)
            case "detach":
                expect(kernel.detach(borrower), "OK", GONE)
            case _:
                kernel.destroy(borrower)


@scenario(
    "mixed",
    summary="threads that run operation programs drawn from the seed, fresh for every schedule",
    tags=(
        "drawn",
        "commit",
        "decommit",
        "borrow",
        "evict",
        "cancel",
        "interrupt",
        "detach",
        "close",
    ),
    threads=3,
    exercises=("R1", "R2", "R3", "R4", "R6", "R8", "R9", "R10", "R13", "R14", "R17"),
    params={"threads": 3, "operations": 2},
    drawn=True,
)
def mixed(ctx: Context) -> None:
    """The lender stays open to the end; everything else may happen to everybody."""
    threads, operations = int(ctx.params["threads"]), int(ctx.params["operations"])
    programs = draw_programs(ctx.seed, threads, operations)
    system = _System(ctx, threads)

    def worker(index: int) -> Callable[[], None]:
        def work() -> None:
            system.threads[index] = current_thread()
            note(f"program: {programs[index]}")
            for operation in programs[index]:
                system.run(operation)

        return work

    race(
        system.kernel,
        *(worker(index) for index in range(threads)),
        names=[f"worker{index}" for index in range(1, threads + 1)],
    )
    finish(system.kernel)
