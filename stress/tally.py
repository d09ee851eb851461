"""How a run stands while it goes on: counted from its parts, said in one line."""

from __future__ import annotations

from collections.abc import Sequence

from harness.explore import Part


class Tally:
    """What has come back so far.

    Attributes:
        schedules: In all scenarios.
        saved: That need not be run, since their scenario is finished.
        total: To run at most; None for no such bound.
        findings: Fingerprints of the failures, the expected ones included.
    """

    def __init__(self, scenarios: int, schedules: int | None, seconds: float | None) -> None:
        """Nothing has.

        Args:
            scenarios: How many there are.
            schedules: Of each, at most; None for no such bound.
            seconds: Of all together, at most; None for no such bound.
        """
        self.total = None if schedules is None else schedules * scenarios
        self._each = schedules
        self._seconds = seconds
        self.schedules = 0
        self.saved = 0
        self.findings: set[str] = set()
        self._looked = 0
        self._classes: set[tuple[str, int]] = set()

    def add(self, scenario: str, parts: Sequence[Part]) -> None:
        """Count ``parts`` of a scenario."""
        for part in parts:
            self.schedules += part.schedules
            self.findings.update(failure.fingerprint for failure in part.failures)
            self._looked += part.coverage.looked
            self._classes.update((scenario, number) for number in part.coverage.classes)

    def finish(self, schedules: int) -> None:
        """A scenario is finished after so many; what it saved counts as done."""
        if self._each is not None:
            self.saved += max(0, self._each - schedules)

    def line(self, elapsed: float) -> str:
        """Rate, behaviour, findings and the time that is left.

        Args:
            elapsed: Seconds since the run began.
        """
        rate = self.schedules / elapsed if elapsed > 0 else 0.0
        told = [f"{self.schedules:,} schedules", f"{rate:,.0f}/s"]
        if self._looked:
            told.append(f"{len(self._classes):,} classes in {self._looked:,} looked at")
        found = len(self.findings)
        told.append(f"{found} finding{'' if found == 1 else 's'}")
        left = self.left(elapsed)
        return ", ".join([*told, f"about {left:.0f} s left"] if left is not None else told)

    def left(self, elapsed: float) -> float | None:
        """Seconds until the first bound is reached, about; None where nothing tells."""
        bounds = []
        if self._seconds is not None:
            bounds.append(max(0.0, self._seconds - elapsed))
        if self.total is not None and self.schedules:
            missing = max(0, self.total - self.schedules - self.saved)
            bounds.append(missing * elapsed / self.schedules)
        return min(bounds, default=None)
