"""A Hypothesis state machine over the kernel model: operations and schedule shrink together.

    python examples/drawn_kernel.py

The machine plans what two threads do to a contiguous VMO that is mapped, and lets them race under a
drawn schedule. On the seed revision a fault keeps nothing alive but the page source (defect L3), so
what is left of the drawn operations in the end is one fault, one unmap, and one preemption.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    precondition,
    rule,
    run_state_machine_as_test,
)

from harness import ScheduleFailure, parallel
from harness.drawn import Schedule, schedules
from model.kernel import Kernel

OPERATIONS = ("commit", "decommit", "fault", "unmap")


def program(revision: str, *lanes: Sequence[str]) -> None:
    """A fresh system, and a thread for each lane; every page must come back."""
    kernel = Kernel(revision, pages=3)
    lender = kernel.lender(2, absent=1)
    mapping = kernel.mapped(lender, close=True)
    calls = {
        "commit": lambda: kernel.commit(lender),
        "decommit": lambda: kernel.decommit(lender, 1, 1),
        "fault": lambda: kernel.fault(mapping, 1),
        "unmap": lambda: kernel.unmap(mapping),
    }

    def work(lane: Sequence[str]) -> None:
        for operation in lane:
            calls[operation]()

    parallel(*(partial(work, lane) for lane in lanes))
    kernel.quiesce()
    kernel.destroy_all()


def machine(revision: str) -> type[RuleBasedStateMachine]:
    """Make the state machine for a revision of the kernel."""

    class Machine(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            self.lanes: tuple[list[str], list[str]] = ([], [])

        @rule(lane=st.integers(0, 1), operation=st.sampled_from(OPERATIONS))
        def plan(self, lane: int, operation: str) -> None:
            self.lanes[lane].append(operation)

        @precondition(lambda self: all(self.lanes))
        @rule(schedule=schedules(deviations=2))
        def race(self, schedule: Schedule) -> None:
            lanes, self.lanes = self.lanes, ([], [])
            schedule.run(partial(program, revision, *lanes))

    return Machine


SETTINGS = settings(
    max_examples=3000,
    stateful_step_count=8,
    derandomize=True,
    deadline=None,
    database=None,
    print_blob=False,
    phases=(Phase.generate, Phase.shrink),
)

if __name__ == "__main__":
    run_state_machine_as_test(machine("fixed"), settings=settings(SETTINGS, max_examples=50))
    print("fixed: no failing example")
    try:
        run_state_machine_as_test(machine("seed"), settings=SETTINGS)
    except ScheduleFailure as error:
        print(f"\nseed: {error.failure.text()}\n")
        print("\n".join(error.__notes__))
