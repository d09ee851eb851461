"""Running a campaign: parts out to whoever runs them, outcomes into the store.

Nothing that matters is in this process: killed at any moment, it leaves the parts that are in the
store and nothing of the others, and ``resume`` runs those.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, Protocol

from harness.errors import UsageError
from stress.campaigns import parts
from stress.campaigns.parts import Outcome, run_bounded, worn
from stress.campaigns.plan import Job, Plan, Take
from stress.campaigns.store import Campaign, Store
from stress.pool import Crash, Task, run_tasks

# A part is tried so often in one session, before it is given up and reported.
ATTEMPTS: Final = 2


class Workers(Protocol):
    """Whoever runs parts.

    Attributes:
        jobs: How many at a time, about.
        place: "local", or where they are.
    """

    jobs: int
    place: str

    def run(self, take: Take) -> Iterator[tuple[Job, Outcome | Crash]]:
        """Run what ``take`` gives until it gives nothing and nothing runs, in any order."""

    def close(self) -> None:
        """Let go of them."""


class Local:
    """Worker processes on this machine, one core each."""

    place = "local"

    def __init__(self, jobs: int, seconds: float, memory: int | None = None) -> None:
        """Args: seconds: Of a part, at most. memory: Address space of a worker in MB, at most."""
        self.jobs = jobs
        self._seconds = seconds
        self._memory = memory

    def run(self, take: Take) -> Iterator[tuple[Job, Outcome | Crash]]:
        """See ``Workers``; a worker that dies or hangs costs its part, and is replaced."""

        def task() -> Task | None:
            job = take()
            if job is None:
                return None
            args = job, self._memory
            return Task(job, run_bounded, args, seconds=self._seconds, contained=True)

        yield from run_tasks(task, self.jobs, worn=worn)

    def close(self) -> None:
        """Each run ends its processes."""


class Watcher(Protocol):
    """Is told how a campaign goes on."""

    def part(self, job: Job, outcome: Outcome, fresh: list[str]) -> None:
        """A part is in the store; these fingerprints are new in this session."""

    def lost(self, job: Job, crash: Crash, *, given_up: bool) -> None:
        """An attempt at a part came to nothing."""


@dataclass
class Session:
    """What one process did of a campaign.

    Attributes:
        done: Parts that it entered.
        given_up: Parts that came to nothing each time.
        interrupted: Ctrl-C ended it.
        over: The time that the plan gives is over.
    """

    done: int = 0
    given_up: list[int] = field(default_factory=list)
    interrupted: bool = False
    over: bool = False


class Driver:
    """One session of a campaign; use it once."""

    def __init__(
        self, store: Store, campaign: Campaign, plan: Plan, workers: Workers, watcher: Watcher
    ) -> None:
        """Refuse what would mix the results of different programs.

        Raises:
            UsageError: The sources have changed since the campaign began.
        """
        if campaign.code != parts.code_digest():
            raise UsageError(
                f"campaign {campaign.name} was begun with other sources of harness, model or "
                "scenarios; go on with those, or begin a new one"
            )
        self._store = store
        self._campaign = campaign
        self._plan = plan
        self._workers = workers
        self._watcher = watcher
        self._again: deque[Job] = deque()
        self._attempts: dict[int, int] = {}  # at parts that were lost
        self._seen: set[str] = set()
        self._session = Session()
        self._number = 0
        self._began = 0.0
        self._until: float | None = None

    def run(self) -> Session:
        """Run what is left.

        Raises:
            UsageError: The store cannot be written; what is in it stays.
        """
        self._began = time.monotonic()
        if self._plan.seconds is not None:
            left = self._plan.seconds - self._store.spent(self._campaign)
            self._until = self._began + left
        self._number = self._store.begin(self._campaign, self._workers.jobs, self._workers.place)
        self._store.reopen(self._campaign)
        done = self._store.done(self._campaign)
        self._todo = (job for job in self._plan.jobs() if job.number not in done)
        try:
            for job, value in self._workers.run(self._take):
                self._enter(job, value)
        except KeyboardInterrupt:
            self._session.interrupted = True
            return self._session
        if not self._session.over:
            self._store.finish(self._campaign)
        return self._session

    def _take(self) -> Job | None:
        """The next part; one that came to nothing before all others."""
        job = self._again.popleft() if self._again else next(self._todo, None)
        if job is not None and self._until is not None and time.monotonic() >= self._until:
            self._session.over = True
            return None
        return job

    def _enter(self, job: Job, value: Outcome | Crash) -> None:
        if isinstance(value, Outcome) and value.code != self._campaign.code:
            raise UsageError(
                f"the worker {value.worker} has other sources than the campaign "
                f"{self._campaign.name}; install the same ones everywhere"
            )
        attempt = self._attempts.pop(job.number, 0) + 1
        last = attempt >= ATTEMPTS
        if isinstance(value, Outcome) and value.cut == "hang" and not last:
            # A machine that stood still for seconds looks the same; a program that hangs, hangs.
            thread = value.detail.split("\n", 1)[0]
            value = Crash(None, f"thread {thread} hung", value.schedules, value.detail)
        if isinstance(value, Crash):
            self._lose(job, value, attempt)
            return
        seconds = time.monotonic() - self._began
        if self._store.commit(self._campaign, self._number, job, value, seconds):
            self._session.done += 1
        fresh = [one.fingerprint for one in value.found if one.fingerprint not in self._seen]
        self._seen.update(fresh)
        self._watcher.part(job, value, fresh)

    def _lose(self, job: Job, crash: Crash, attempt: int) -> None:
        last = attempt >= ATTEMPTS
        self._store.lose(self._campaign, self._number, job, crash)
        if last:
            self._session.given_up.append(job.number)
        else:
            self._attempts[job.number] = attempt
            self._again.append(job)
        self._watcher.lost(job, crash, given_up=last)
