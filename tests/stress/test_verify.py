"""``dpor`` on the model: what sampling meets is among what it explored."""

from __future__ import annotations

import pytest
from partial_orders import explored, sampled

from stress.catalogue import Spec, program_of


@pytest.mark.parametrize(
    "scenario", ["commit-supply", "commit-decommit", "close-request", "create-lender"]
)
def test_every_class_that_sampling_meets_is_explored(scenario: str) -> None:
    """So what threads of the model share without a primitive is ordered by one, or is told."""
    program = program_of(Spec(scenario))
    all_classes = explored(program)

    met = sampled(program, "random", 150) | sampled(program, "pct", 50)

    assert 3 < len(met) <= len(all_classes)
    assert met <= all_classes
