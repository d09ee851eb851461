"""What the tests of campaigns share: plans of toy scenarios, and workers without processes."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

import msgspec

from stress.campaigns import parts, result
from stress.campaigns.drive import Driver, Session, Workers
from stress.campaigns.parts import Outcome
from stress.campaigns.plan import Job, Plan, Take, made
from stress.campaigns.store import Campaign, Store
from stress.documents import Document
from stress.pool import Crash

Value = Outcome | Crash


def small_plan(**options: object) -> Plan:
    """Two watchers and nine parts, one of which finds nothing, in less than a tenth of a second."""
    choices = {"seeds": "0-2", "schedules": 10} | options
    return made(["toy-abba", "toy-clean", "toy-drawn"], **choices)  # type: ignore[arg-type]


@functools.cache
def _outcome(job: Job) -> Outcome:
    """A part is the same whenever it is run; so once is enough."""
    return parts.run(job)


class Here:
    """Runs parts in this process, several "at once", and completes them in an order of its own.

    Args:
        upset: Called with each part and its outcome, in the order of completion; what it returns
            takes the outcome's place.
    """

    place = "here"

    def __init__(
        self,
        jobs: int = 3,
        *,
        newest_first: bool = False,
        upset: Callable[[Job, Outcome], Value] = lambda _, outcome: outcome,
    ) -> None:
        self.jobs = jobs
        self._newest_first = newest_first
        self._upset = upset
        self.ran: list[int] = []

    def run(self, take: Take) -> Iterator[tuple[Job, Value]]:
        waiting: list[Job] = []
        while True:
            while len(waiting) < self.jobs and (job := take()) is not None:
                waiting.append(job)
            if not waiting:
                return
            job = waiting.pop(-1 if self._newest_first else 0)
            self.ran.append(job.number)
            yield job, self._upset(job, _outcome(job))

    def close(self) -> None:
        """Nothing is open."""


class Watcher:
    """Keeps what a campaign said."""

    def __init__(self) -> None:
        self.parts: list[int] = []
        self.fresh: list[str] = []
        self.losses: list[tuple[int, bool]] = []

    def part(self, job: Job, outcome: Outcome, fresh: list[str]) -> None:
        self.parts.append(job.number)
        self.fresh += fresh

    def lost(self, job: Job, crash: Crash, *, given_up: bool) -> None:
        self.losses.append((job.number, given_up))


def begin(store: Store, plan: Plan, name: str = "it") -> Campaign:
    return store.create(name, plan, parts.code_digest())


def drive(store: Store, campaign: Campaign, workers: Workers | None = None) -> Session:
    return Driver(store, campaign, campaign.plan(), workers or Here(), Watcher()).run()


def outcome_of(store: Store, campaign: Campaign) -> Document:
    """The result that must not depend on how it came about."""
    return result.canonical(result.gather(store, campaign))


def timeless(outcomes: Iterator[tuple[int, str, str, Outcome]]) -> list[tuple[int, str, Outcome]]:
    return [(index, seed, outcome.timeless()) for index, seed, _, outcome in outcomes]


def altered(outcome: Outcome, **changes: object) -> Outcome:
    return msgspec.structs.replace(outcome, **changes)
