"""Parts on a Dask cluster: the same parts, the same store, the same result.

The scheduler hands parts to whoever is there; those of a worker that is lost go to another. On each
worker a part runs in a process of its own below it, as it does locally: what kills a part never
kills a worker. Only this process, the client, sees the store.

Dask moves functions and values by pickle: a cluster is to be trusted, and so is its network.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import queue
import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError
from typing import Any, Final

from harness.errors import UsageError
from stress.campaigns.parts import Outcome, run_bounded, worn
from stress.campaigns.plan import Job, Take
from stress.pool import Crash, Keeper, Task, interrupt_held_back

# So many parts for each thread of a worker: one runs, one waits there.
_AHEAD: Final = 2
_LOOK_SECONDS: Final = 1.0
_REACH_SECONDS: Final = 20.0
LOCAL: Final = "local"

_kept = threading.local()


class Cluster:
    """Whoever is connected to a Dask scheduler, at each moment."""

    def __init__(self, address: str, jobs: int, seconds: float, memory: int | None = None) -> None:
        """Connect.

        Args:
            address: Of the scheduler; ``local`` starts one here, with workers.
            jobs: How many workers ``local`` starts.
            seconds: Of a part, at most.
            memory: Address space of a part's process in MB, at most.

        Raises:
            UsageError: Dask is not installed, or nobody answers at that address.
        """
        try:
            import distributed
        except ImportError:
            raise UsageError("--cluster needs Dask: pip install 'lockloom[cluster]'") from None
        # A scheduler that is gone is said in a line of ours, and by Dask in a traceback beside it.
        logging.getLogger("distributed.client").setLevel(logging.CRITICAL)
        self.place = address
        self._seconds = seconds
        self._memory = memory
        self._open = contextlib.ExitStack()
        self._futures: dict[Any, Job] = {}
        try:
            if address == LOCAL:
                with interrupt_held_back():
                    address = self._open.enter_context(started_here(jobs))
            self._client = self._open.enter_context(
                distributed.Client(address, timeout=_REACH_SECONDS, set_as_default=False)
            )
        except (OSError, ValueError) as error:
            self._open.close()
            raise UsageError(
                f"no Dask scheduler answers at {address}: {error}; start one with `dask scheduler`"
            ) from None
        except BaseException:
            self._open.close()
            raise
        self.jobs = self._threads()

    def close(self) -> None:
        """Let go of the cluster; one that was started here ends."""
        self._open.close()

    def run(self, take: Take) -> Iterator[tuple[Job, Outcome | Crash]]:
        """See ``Workers``.

        Raises:
            UsageError: The scheduler is gone; what was committed stays.
        """
        done: queue.SimpleQueue[Any] = queue.SimpleQueue()
        try:
            while True:
                self._feed(take, done)
                if not self._futures:
                    return
                with contextlib.suppress(queue.Empty):
                    future = done.get(timeout=_LOOK_SECONDS)
                    yield self._futures.pop(future), self._value(future)
        finally:
            # What is still out there is for nobody.
            with contextlib.suppress(Exception):
                self._client.cancel(list(self._futures), force=True)
            self._futures.clear()

    def _feed(self, take: Take, done: queue.SimpleQueue[Any]) -> None:
        """Hand out as many parts as there are workers for, which may have come or gone."""
        room = max(1, _AHEAD * self._threads()) - len(self._futures)
        for _ in range(room):
            job = take()
            if job is None:
                return
            with self._asking():
                future = self._client.submit(
                    run_apart,
                    job,
                    self._seconds,
                    self._memory,
                    key=f"part-{job.number}-{time.monotonic_ns()}",
                    pure=False,
                )
            self._futures[future] = job
            future.add_done_callback(done.put)

    def _threads(self) -> int:
        """How many parts can run at this moment."""
        with self._asking():
            return sum(self._client.nthreads().values())

    def _value(self, future: Any) -> Outcome | Crash:
        """What came of a part."""
        if future.status == "cancelled":
            raise self._gone("the parts under way were cancelled")
        with self._asking():  # what a part raised is returned, and raises nothing here
            error = future.exception()
            if error is None:
                value: Outcome | Crash = future.result()
                return value
        return Crash(None, f"{type(error).__name__} on the cluster: {error}".splitlines()[0])

    @contextlib.contextmanager
    def _asking(self) -> Iterator[None]:
        """Whatever goes wrong while the scheduler is asked for something, it is gone."""
        try:
            yield
        except (OSError, RuntimeError, ValueError, CancelledError) as error:
            raise self._gone(str(error)) from None

    def _gone(self, why: str) -> UsageError:
        why = " ".join(why.split())
        return UsageError(
            f"the Dask scheduler at {self.place} is gone ({why}); what was committed is safe, and "
            "`campaign resume` goes on from there"
        )


def started_here(jobs: int) -> Any:
    """A cluster on this machine."""
    import distributed

    return distributed.LocalCluster(
        n_workers=jobs,
        threads_per_worker=1,
        worker_dashboard_address=None,
        # Without an address its web server takes port 8787, and complains where somebody has it.
        scheduler_kwargs={"dashboard": False, "dashboard_address": "127.0.0.1:0"},
        memory_limit=0,
        silence_logs=40,
    )


def run_apart(job: Job, seconds: float, memory: int | None) -> Outcome | Crash:
    """On a worker: run a part in the process that this thread keeps for it."""
    keeper = getattr(_kept, "keeper", None)
    if keeper is None:
        # Dask starts its workers as daemons, which may have no processes of their own: those would
        # outlive them. Ours die with the thread that started them.
        multiprocessing.current_process()._config["daemon"] = False  # type: ignore[attr-defined]
        keeper = _kept.keeper = Keeper(_core(), worn=worn)
    value: Outcome | Crash = keeper.call(
        Task(job, run_bounded, (job, memory), seconds=seconds, contained=True)
    )
    return value


def _core() -> int:
    """Which core to take: workers of one machine are told apart by the number in their name."""
    from distributed import get_worker

    worker = get_worker()
    named = re.search(r"(\d+)$", str(worker.name)) or re.search(r"(\d+)$", str(worker.address))
    return int(named[1]) if named else 0
