"""A campaign on a Dask cluster: the same parts, the same result, whoever comes and goes."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from campaigning import Watcher, begin, drive, outcome_of, small_plan
from distributed import LocalCluster, Scheduler
from distributed.comm import CommClosedError
from kill_campaigns import Rig
from stress_cli import environment

from harness.errors import UsageError
from stress.campaigns.cluster import Cluster, started_here
from stress.campaigns.drive import Driver, Local
from stress.campaigns.parts import Outcome
from stress.campaigns.plan import Job, made
from stress.campaigns.store import Store

pytestmark = [
    pytest.mark.timeout(120),
    # Dask's own, while workers come and go.
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """The engine does not matter here."""
    with Store(str(tmp_path / "store.sqlite"), make=True, patience=5.0) as store:
        yield store


@pytest.fixture
def dask() -> Iterator[LocalCluster]:
    """Two workers, and a scheduler that is reached by its address."""
    with started_here(2) as cluster:
        yield cluster


def test_a_cluster_here_takes_no_port_of_others_and_its_workers_see_no_ctrl_c() -> None:
    """Its web server wanted port 8787; Ctrl-C is for who runs the campaign."""

    # Local functions travel whole: no worker can import this module.
    def served(dask_scheduler: Scheduler) -> tuple[str, int]:
        return dask_scheduler.http_server.address, dask_scheduler.http_server.port

    def interrupt_held_back() -> bool:
        return signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ())

    with contextlib.closing(Cluster("local", 1, 60.0)) as cluster:
        host, port = cluster._client.run_on_scheduler(served)
        held_back = cluster._client.run(interrupt_held_back)

    assert host == "127.0.0.1"
    assert port != 8787
    assert [*held_back.values()] == [True]


def elsewhere() -> Local:
    """Not in this process: in an installed plugin's package, pytest makes assertions say more."""
    return Local(1, 60.0)


class Meanwhile(Watcher):
    """Does something as the nth part comes in."""

    def __init__(self, number: int, act: object) -> None:
        super().__init__()
        self._number = number
        self._act = act

    def part(self, job: Job, outcome: Outcome, fresh: list[str]) -> None:
        super().part(job, outcome, fresh)
        if len(self.parts) == self._number:
            self._act()  # type: ignore[operator]


def test_workers_come_and_go_and_nothing_is_lost(store: Store, dask: LocalCluster) -> None:
    plan = made(["toy-abba", "toy-drawn"], seeds="0-9", schedules=60)
    undisturbed = begin(store, plan, "undisturbed")
    drive(store, undisturbed, elsewhere())
    campaign = begin(store, plan)

    def upset() -> None:
        # One is killed with what it runs and what waits there; its nanny brings another. A third
        # one comes as well.
        victim = next(iter(dask.workers.values()))
        os.kill(victim.pid, signal.SIGKILL)
        dask.scale(3)

    workers = Cluster(dask.scheduler_address, 1, 60.0)
    watcher = Meanwhile(4, upset)
    try:
        session = Driver(store, campaign, plan, workers, watcher).run()
    finally:
        workers.close()

    assert session.done == plan.count == 22
    assert sorted(watcher.parts) == list(range(1, 23))
    assert len(watcher.fresh) == len(set(watcher.fresh))
    assert outcome_of(store, campaign) == outcome_of(store, undisturbed)


def test_a_scheduler_that_dies_ends_the_session_in_a_line(
    store: Store, dask: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    # For as long the client looks for another one at that address.
    monkeypatch.setattr("stress.campaigns.cluster._REACH_SECONDS", 5.0)
    campaign = begin(store, small_plan(seeds="0-9"))
    workers = Cluster(dask.scheduler_address, 1, 60.0)
    began = time.monotonic()
    try:
        with pytest.raises(UsageError, match=r"the Dask scheduler at .* is gone .*resume` goes on"):
            Driver(store, campaign, campaign.plan(), workers, Meanwhile(3, dask.close)).run()
    finally:
        workers.close()

    assert time.monotonic() - began < 60
    done = store.done(campaign)
    assert 3 <= len(done) < campaign.plan().count
    drive(store, campaign, elsewhere())
    undisturbed = begin(store, small_plan(seeds="0-9"), "undisturbed")
    drive(store, undisturbed, elsewhere())
    assert outcome_of(store, campaign) == outcome_of(store, undisturbed)


def test_a_scheduler_that_dies_while_a_result_is_fetched_is_gone_like_any_other() -> None:
    """It used to be an error of our own, exit code 70."""

    class Fetched:
        status = "finished"

        def exception(self) -> None:
            return None

        def result(self) -> Outcome:
            raise CommClosedError("in <TCP (closed) ConnectionPool.gather>: Stream is closed")

    workers = Cluster.__new__(Cluster)
    workers.place = "tcp://127.0.0.1:9"
    with pytest.raises(UsageError, match=r"is gone \(in <TCP .*closed\); .*resume` goes on"):
        workers._value(Fetched())


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds workers through /proc")
def test_a_scheduler_that_is_killed_costs_nothing_that_was_committed(tmp_path: Path) -> None:
    """Once; benchmarks/kill_campaigns.py --cluster apart does this by the dozen."""
    plan = 'seeds = "0-19"\nschedules = 60\n[[scenario]]\nname = "toy-drawn"\nweight = 2'
    rigs = []
    for cluster in ("", "apart"):
        folder = tmp_path / f"at-{cluster}"
        folder.mkdir()
        rigs.append(Rig(folder, plan=plan, cluster=cluster, variables=environment()))
    undisturbed, rig = rigs
    try:
        assert rig.disturb("scheduler", 3, random.Random(7))
        assert rig.entered() in range(3, 20)
        assert rig.end() == undisturbed.end()
    finally:
        rig.close()


def test_nobody_at_that_address_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stress.campaigns.cluster._REACH_SECONDS", 0.3)
    with pytest.raises(UsageError, match="no Dask scheduler answers at"):
        Cluster("tcp://127.0.0.1:9", 1, 60.0)
