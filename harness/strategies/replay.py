"""Following a schedule that is known: by the threads chosen, or by deviations from a default.

The *default* runs the current thread on while it is enabled, and else the enabled thread of the
lowest index. A *deviation* is a decision that does otherwise. Few deviations make a short token.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from harness.strategies.base import deciding

if TYPE_CHECKING:
    from harness.engine.core import Choose, Core
    from harness.engine.thread import Thread


def default_order(core: Core, enabled: Sequence[Thread]) -> list[Thread]:
    """The enabled threads as a token counts them: the default first, then by index."""
    cur = core.cur
    return sorted(enabled, key=lambda thread: (thread is not cur, thread.index))


class Script:
    """Takes the recorded choices one by one; where they end, the default."""

    def __init__(self, choices: Sequence[int]) -> None:
        """Args: choices: Thread indices, one for each decision among several threads."""
        self._choices = choices

    def begin(self, core: Core) -> Choose:
        """Return ``choose``; a choice that cannot run is nondeterminism of the program."""
        choices = self._choices
        position = 0

        def pick(enabled: list[Thread]) -> Thread:
            nonlocal position
            if position == len(choices):
                return default_order(core, enabled)[0]
            index = choices[position]
            position += 1
            found = [thread for thread in enabled if thread.index == index]
            if not found:
                core.nondeterministic(
                    f"at step {core.steps} the recorded choice was thread {index}, "
                    f"but only {', '.join(t.name for t in enabled)} can run"
                )
            return found[0]

        return deciding(core, pick)


class Deviations:
    """Takes the default but for the given decisions, and remembers what every decision was.

    Attributes:
        taken: Which alternative each decision took; 0 is the default.
    """

    def __init__(self, deviations: Mapping[int, int]) -> None:
        """Args: deviations: Decision number (from 0) to alternative (from 1)."""
        self._deviations = deviations
        self.taken: list[int] = []
        # First step at which a deviation had no such alternative.
        self.misfit: tuple[int, int, int] | None = None

    def begin(self, core: Core) -> Choose:
        """Return ``choose``; ends the schedule as ``diverged`` where a deviation does not exist."""
        deviations = self._deviations

        def pick(enabled: list[Thread]) -> Thread:
            order = default_order(core, enabled)
            alternative = deviations.get(len(self.taken), 0)
            if alternative >= len(order):
                self.misfit = (core.steps, alternative, len(order))
                core.end("diverged")
            self.taken.append(alternative)
            return order[alternative]

        return deciding(core, pick)

    @property
    def unused(self) -> int:
        """How many deviations lie beyond the last decision: the program ended early."""
        return sum(1 for decision in self._deviations if decision >= len(self.taken))
