"""Injected faults: the nth occurrence of a named site fails.

A plan is written ``"page_list_node@2,kill.pager@1"``. ``alloc.supply`` is one of the places of the
site ``alloc``, which counts them all. ``alloc@1-3`` is one of the first three occurrences; which of
them, ``drawn`` takes from a seed.
"""

from __future__ import annotations

import random
from typing import Final, Self

from harness.errors import UsageError

# Site: what failing there means, and its places.
SITES: Final[dict[str, tuple[str, tuple[str, ...]]]] = {
    "page_list_node": (
        "VmPageList has no memory for a node: AddPageLocked returns NO_MEMORY",
        (),
    ),
    "alloc": (
        "the PMM has no ordinary page to give: the allocation returns NO_MEMORY",
        ("supply", "replace"),
    ),
    "alloc_contiguous": (
        "the PMM has no run of ordinary pages: a lender cannot be created",
        (),
    ),
    "borrow": (
        "the PMM has no loaned page to give: a borrowing allocation returns NO_MEMORY",
        ("supply", "replace"),
    ),
    "kill": (
        "a thread that is about to sleep for a request is killed: the wait returns INTR_KILLED",
        ("reclaim", "pager"),
    ),
    "suspend": (
        "a thread that is about to sleep for a request is suspended: INTR_RETRY",
        ("reclaim", "pager"),
    ),
    "timer": (
        "a timer expires at once: of a wait for a pager (TIMED_OUT), or, with L4, for an interval",
        ("pager", "interval"),
    ),
}
ALIASES: Final = {"no_memory": "page_list_node"}
NONE: Final = "none"
_DIGITS_MAX: Final = 18

# Site, first and last occurrence: equal unless one of them is to be drawn.
Fault = tuple[str, int, int]


class FaultPlan:
    """Which occurrences of which sites fail; counts from the last ``restart``.

    Invariant: ``hit`` is a pure function of the plan and of the number of earlier hits.

    Attributes:
        occurrences: Of all planned sites, ever; never reset.
    """

    def __init__(self, faults: tuple[Fault, ...] = ()) -> None:
        """``faults`` are in the order in which they were written."""
        for site, first, last in faults:
            if site not in known_sites():
                raise UsageError(
                    f"unknown fault site {site[:80]!r}; the sites are {', '.join(known_sites())}"
                )
            if not 1 <= first <= last:
                raise UsageError(f"a fault strikes from occurrence 1 on, got {site}@{first}-{last}")
        self.faults = faults
        self._planned: dict[str, set[int]] = {}
        for site, first, _ in faults:
            self._planned.setdefault(site, set()).add(first)
        self._seen: dict[str, int] = {}
        self._paused = False
        self.occurrences = 0

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``"page_list_node@2,borrow.supply@1-3"``; an empty text, or "none", plans nothing.

        Raises:
            UsageError: The text names an unknown site or no occurrence.
        """
        faults: list[Fault] = []
        for part in text.split(","):
            written = part.strip()
            if not written or written == NONE:
                continue
            site, _, count = written.partition("@")
            first, dash, last = count.partition("-")
            begin = _occurrence(first)
            end = _occurrence(last) if dash else begin
            if not (begin and end):
                raise UsageError(
                    f"a fault is written site@n or site@n-m with n from 1, got {written[:80]!r}"
                )
            faults.append((ALIASES.get(site, site), begin, end))
        return cls(tuple(faults))

    @property
    def draws(self) -> bool:
        """Whether an occurrence is still to be drawn."""
        return any(first != last for _, first, last in self.faults)

    def strikes(self, *sites: str) -> bool:
        """Whether it plans a fault of one of ``sites``, at any place of it."""
        return any(site.partition(".")[0] in sites for site, _, _ in self.faults)

    def drawn(self, seed: int) -> Self:
        """This plan with every range replaced by one of its occurrences: a function of ``seed``."""
        draw = random.Random(seed)
        chosen = [(site, draw.randint(first, last)) for site, first, last in self.faults]
        return type(self)(tuple((site, count, count) for site, count in chosen))

    def without(self, index: int) -> Self:
        """This plan but for one fault."""
        return type(self)(self.faults[:index] + self.faults[index + 1 :])

    def copy(self) -> Self:
        """The same plan, nothing counted yet."""
        return type(self)(self.faults)

    def pause(self) -> None:
        """Count nothing and fail nothing until ``restart``: for the setup of a scenario."""
        self._paused = True

    def restart(self) -> None:
        """Count occurrences from here on: what the setup did does not count."""
        self._paused = False
        self._seen.clear()

    def hit(self, site: str, place: str = "") -> bool:
        """Count one occurrence of ``site``, at ``place`` of it; True where it shall fail."""
        if not self._planned or self._paused:
            return False
        struck = self._count(site)
        return (self._count(f"{site}.{place}") if place else False) or struck

    def _count(self, site: str) -> bool:
        planned = self._planned.get(site)
        if planned is None:
            return False
        seen = self._seen.get(site, 0) + 1
        self._seen[site] = seen
        self.occurrences += 1
        return seen in planned

    def __str__(self) -> str:
        """The text that ``parse`` reads; empty for an empty plan."""
        return ",".join(_written(*fault) for fault in self.faults)


def known_sites() -> list[str]:
    """Every site, each followed by its places."""
    return [
        name
        for site, (_, places) in SITES.items()
        for name in (site, *(f"{site}.{place}" for place in places))
    ]


def _occurrence(text: str) -> int:
    """The number that is written; 0 for what is none, or of no schedule."""
    small = text.isascii() and text.isdigit() and len(text) <= _DIGITS_MAX
    return int(text) if small else 0


def _written(site: str, first: int, last: int) -> str:
    return f"{site}@{first}" if first == last else f"{site}@{first}-{last}"
