"""Injected faults: the nth occurrence of a named site fails."""

from __future__ import annotations

from typing import Final

from harness.errors import UsageError

# Site: what failing there means.
SITES: Final[dict[str, str]] = {
    "page_list_node": "VmPageList has no memory for a node: AddPageLocked returns NO_MEMORY",
    "borrow": "the PMM has no loaned page to give: a borrowing allocation returns NO_MEMORY",
    "alloc": "the PMM has no ordinary page to give: the allocation returns NO_MEMORY",
}


class FaultPlan:
    """Which occurrences of which sites fail; counts from the last ``restart``.

    Invariant: ``hit`` is a pure function of the plan and of the number of earlier hits.
    """

    def __init__(self, faults: dict[str, tuple[int, ...]] | None = None) -> None:
        """``faults`` maps a site to the occurrences (from 1) that fail there."""
        self._faults = dict(faults or {})
        for site in self._faults:
            if site not in SITES:
                known = ", ".join(SITES)
                raise UsageError(f"unknown fault site {site!r}; the sites are {known}")
        self._seen: dict[str, int] = {}
        self._paused = False

    @classmethod
    def parse(cls, text: str) -> FaultPlan:
        """Read ``"page_list_node@2,borrow@1"``; an empty text plans nothing.

        Raises:
            UsageError: The text names an unknown site or no occurrence.
        """
        faults: dict[str, tuple[int, ...]] = {}
        for part in text.split(","):
            if not part.strip():
                continue
            site, at, count = part.strip().partition("@")
            if site == "no_memory":
                site = "page_list_node"
            if not at or not count.isdigit() or int(count) < 1:
                raise UsageError(f"a fault is written site@n with n from 1, got {part.strip()!r}")
            faults[site] = (*faults.get(site, ()), int(count))
        return cls(faults)

    def copy(self) -> FaultPlan:
        """The same plan, nothing counted yet."""
        return FaultPlan(self._faults)

    def pause(self) -> None:
        """Count nothing and fail nothing until ``restart``: for the setup of a scenario."""
        self._paused = True

    def restart(self) -> None:
        """Count occurrences from here on: what the setup did does not count."""
        self._paused = False
        self._seen.clear()

    def hit(self, site: str) -> bool:
        """Count one occurrence of ``site``; True where it shall fail."""
        planned = self._faults.get(site)
        if planned is None or self._paused:
            return False
        seen = self._seen.get(site, 0) + 1
        self._seen[site] = seen
        return seen in planned

    def __str__(self) -> str:
        """The text that ``parse`` reads."""
        return ",".join(f"{site}@{n}" for site, counts in self._faults.items() for n in counts)
