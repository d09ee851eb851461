"""Campaigns that are killed at random instants, and must end with the result of an undisturbed one.

    python benchmarks/kill_campaigns.py [--campaigns N] [--seed K] [--jobs J]
                                        [--store URL] [--cluster local|apart]

Each campaign is disturbed a few times, every time in one of these ways, at an instant that is drawn
from the seed (the first may come before the store exists):

    worker   kill -9 of one worker process
    parent   kill -9 of the process that runs the campaign
    all      kill -9 of it and of all its workers
    disk     the disk is full: of a tiny file system of our own where we may mount one (ENOSPC),
             else by a limit on the size of files (EFBIG); then there is room again, or a kill
    lock     somebody else holds the store's write lock; then lets go, or a kill

Then it is resumed and left alone. Its canonical result must equal, byte by byte, that of a campaign
with the same plan that nobody disturbed. Needs Linux, for /proc. With --store, a database URL, only
the processes are killed. With --cluster local each session has a Dask cluster of its own: the
scheduler is killed with the session's process, workers and the processes of their parts each by
themselves; at the end no folder of any of them may be left. With --cluster apart scheduler and
workers are processes beside the session, which outlive it; one more way is then

    scheduler   kill -9 of the scheduler; the next session has another one, and other workers
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

_ROOT: Final = Path(__file__).resolve().parent.parent
WAYS: Final = ("worker", "parent", "all", "disk", "lock")
LOCAL: Final = "local"
_APART: Final = "apart"
_DISK_BYTES: Final = 4 << 20
_NAME: Final = "killed"
PLAN: Final = """
seeds = "0-5"
schedules = 150

[[scenario]]
name = "toy-abba"
faults = ["", "none"]

[[scenario]]
name = "toy-drawn"
weight = 2
strategies = ["portfolio", "pct"]

[[scenario]]
name = "commit-decommit"
seeds = "0-2"
"""


@dataclass
class Tally:
    """What was done to one campaign."""

    sessions: int = 0
    ways: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        """On one line."""
        left = f"; LEFT BEHIND {', '.join(self.left)}" if self.left else ""
        return f"{self.sessions} sessions: {', '.join(self.ways)}{left}"


class Rig:
    """A folder with a plan in it, and what can be done to a campaign there."""

    def __init__(
        self,
        folder: Path,
        *,
        jobs: int = 2,
        plan: str = PLAN,
        store: str = "",
        name: str = _NAME,
        cluster: str = "",
        variables: Mapping[str, str] | None = None,
    ) -> None:
        """Make them.

        Args:
            folder: Empty.
            jobs: Processes of a session.
            plan: As TOML.
            store: A database URL; empty for a file in the folder.
            name: Of the campaign.
            cluster: Run the parts on Dask: ``local``, or ``apart`` from the session.
            variables: The environment of the sessions; None for that of this script.
        """
        self._variables = dict(environment() if variables is None else variables)
        self._scratch: tempfile.TemporaryDirectory[str] | None = None
        if cluster:
            # Dask's processes have folders, which those that are killed leave to the next ones.
            self._scratch = tempfile.TemporaryDirectory(prefix="kill-campaigns-dask-")
            self._variables["DASK_TEMPORARY_DIRECTORY"] = self._scratch.name
        self._cluster = cluster
        self._dask = Dask(jobs, self._variables) if cluster == _APART else None
        self.folder = folder
        self._jobs = jobs
        self._url = store
        self._name = name
        self._process: subprocess.Popen[bytes] | None = None
        self.sessions = 0
        self.store = folder / "store.sqlite"
        (folder / "plan.toml").write_text(plan, encoding="utf-8")

    def run(self, output: int = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
        """Begin the campaign, or go on with it."""
        words = ["resume", self._name]
        if self.entered() is None:
            words = ["run", "plan.toml", "--name", self._name]
        words += ["--store", self._url or str(self.store), "--json"]
        if self._dask is not None:
            words += ["--cluster", self._dask.address()]
        else:
            words += ["--jobs", str(self._jobs)]
            words += ["--cluster", self._cluster] if self._cluster else []
        return subprocess.Popen(  # noqa: S603 - ours
            [sys.executable, "-m", "stress", "campaign", *words],
            cwd=self.folder,
            env=self._variables,
            stdout=output,
            stderr=output,
        )

    def entered(self) -> int | None:
        """Parts that are in; None where there is no campaign yet."""
        if self._url:
            return self._entered_elsewhere()
        try:
            with contextlib.closing(self._open("ro")) as database:
                rows = database.execute(
                    "SELECT id FROM campaigns WHERE name = ?", (self._name,)
                ).fetchall()
                if not rows:
                    return None
                (count,) = database.execute(
                    "SELECT count(*) FROM parts WHERE campaign = ?", rows[0]
                ).fetchone()
                return int(count)
        except sqlite3.OperationalError:
            return None

    def _entered_elsewhere(self) -> int | None:
        from sqlalchemy import create_engine, text
        from sqlalchemy.exc import DBAPIError

        engine = create_engine(self._url)
        try:
            with engine.connect() as connection:
                found = connection.execute(
                    text("SELECT id FROM campaigns WHERE name = :name"), {"name": self._name}
                ).scalar()
                count = "SELECT count(*) FROM parts WHERE campaign = :id"
                return found and int(connection.execute(text(count), {"id": found}).scalar() or 0)
        except DBAPIError:
            return None
        finally:
            engine.dispose()

    def _open(self, mode: str) -> sqlite3.Connection:
        return sqlite3.connect(f"file:{self.store}?mode={mode}", uri=True, isolation_level=None)

    def end(self) -> dict[str, Any]:
        """Go on undisturbed to the end, and give the canonical result."""
        if self._process is not None:
            self._process.wait(timeout=600)
        process = self.run(subprocess.PIPE)
        out, err = process.communicate(timeout=600)
        if process.returncode not in (0, 1, 3):
            raise SystemExit(f"the campaign ended with {process.returncode}: {err.decode()}")
        result: dict[str, Any] = json.loads(out)["result"]
        return result

    def left(self) -> list[str]:
        """Folders of Dask's processes that are there still."""
        scratch = [] if self._scratch is None else [Path(self._scratch.name)]
        return sorted(path.name for each in scratch for path in each.glob("dask-scratch*/*/"))

    def end_dask(self) -> None:
        """``kill -9`` of what runs beside the sessions."""
        if self._dask is not None:
            self._dask.close()

    def close(self) -> None:
        """End what runs beside the sessions, and leave nothing."""
        self.end_dask()
        if self._scratch is not None:
            self._scratch.cleanup()

    # -- disturbances ---------------------------------------------------------------------------

    def disturb(self, way: str, parts: int, draw: random.Random) -> bool:
        """Disturb the session, a new one where there is none, a little after so many parts are in.

        Returns:
            Whether it still ran.
        """
        if self._process is None or self._process.poll() is not None:
            self._process = self.run()
            self.sessions += 1
        process = self._process
        while process.poll() is None and parts and (self.entered() or 0) < parts:
            time.sleep(0.005)
        time.sleep(draw.uniform(0.0, 0.15 if parts else 1.5))
        running = process.poll() is None
        self._strike(way, process, draw)
        return running

    def _strike(self, way: str, process: subprocess.Popen[bytes], draw: random.Random) -> None:
        workers = children(process.pid if self._dask is None else self._dask.workers)
        if way == "worker" and workers:
            kill(draw.choice(workers))
        elif way == "scheduler" and self._dask is not None:
            kill(self._dask.scheduler)
        elif way == "parent":
            kill(process.pid)
        elif way == "all":
            for pid in draw.sample([process.pid, *workers], 1 + len(workers)):
                kill(pid)
            self.end_dask()
        elif way == "disk":
            with self._full(process.pid):
                self._wait(process, draw)
        elif way == "lock":
            self._hold(process, draw)
        if way in ("parent", "all"):
            process.wait()
            if self._dask is None or way == "all":
                gone(workers)

    def _wait(self, process: subprocess.Popen[bytes], draw: random.Random) -> None:
        """Keep things as bad as they are for a while; one campaign in two is killed meanwhile."""
        time.sleep(draw.uniform(0.2, 2.5))
        if draw.random() < 0.5:
            kill(process.pid)

    @contextlib.contextmanager
    def _full(self, pid: int) -> Iterator[None]:
        """No room for anything more."""
        if self.folder.is_mount():
            filler = self.folder / "filler"
            with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
                while True:
                    file.write(b"\0" * 4096)
            yield
            filler.unlink()
            return
        log = self.store.with_name(self.store.name + "-wal")
        size = log.stat().st_size if log.exists() else 0
        try:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
            yield
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        except ProcessLookupError:
            return

    def _hold(self, process: subprocess.Popen[bytes], draw: random.Random) -> None:
        """Hold the write lock; whoever writes at this moment comes first."""
        if not self.store.exists():
            return
        with contextlib.closing(self._open("rw")) as database:
            database.execute("PRAGMA busy_timeout=30000")
            database.execute("BEGIN IMMEDIATE")
            self._wait(process, draw)
            database.execute("ROLLBACK")


class Dask:
    """A scheduler and its workers, processes of their own."""

    def __init__(self, jobs: int, variables: Mapping[str, str]) -> None:
        """None of them is started yet."""
        self._jobs = jobs
        self._variables = variables
        self._running: list[subprocess.Popen[bytes]] = []
        self._folder = tempfile.TemporaryDirectory(prefix="kill-campaigns-dask-")
        self._address = ""

    @property
    def scheduler(self) -> int:
        """The process."""
        return self._running[0].pid

    @property
    def workers(self) -> int:
        """The process that keeps the workers, and starts another where one has died."""
        return self._running[-1].pid

    def address(self) -> str:
        """Of the scheduler; where one of the two has ended, both are started anew."""
        if self._running and all(process.poll() is None for process in self._running):
            return self._address
        self.close()
        said = Path(self._folder.name) / "scheduler.json"
        said.unlink(missing_ok=True)
        self._start("scheduler", "--port", "0", "--scheduler-file", str(said))
        until = time.monotonic() + 120
        while not self._address:
            if time.monotonic() > until:
                raise SystemExit("Dask's scheduler does not start")
            time.sleep(0.05)
            with contextlib.suppress(OSError, ValueError):
                self._address = json.loads(said.read_text(encoding="utf-8"))["address"]
        each = ["--nthreads", "1", "--memory-limit", "0", "--local-directory", self._folder.name]
        self._start("worker", self._address, "--nworkers", str(self._jobs), *each)
        return self._address

    def _start(self, what: str, *args: str) -> None:
        command = [sys.executable, "-m", f"distributed.cli.dask_{what}", *args]
        self._running.append(
            subprocess.Popen(  # noqa: S603 - ours
                [*command, "--host", "127.0.0.1", "--no-dashboard"],
                env=self._variables,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        )

    def close(self) -> None:
        """``kill -9`` of all of them."""
        for process in reversed(self._running):
            for pid in (process.pid, *children(process.pid)):
                kill(pid)
            process.wait()
        self._running.clear()
        self._address = ""


def environment() -> dict[str, str]:
    """Of the campaigns: the toy scenarios beside the shipped ones."""
    return os.environ | {
        "LOCKLOOM_SCENARIOS": str(_ROOT / "tests" / "stress" / "toys"),
        "PYTHONPATH": os.environ.get("PYTHONPATH") or str(_ROOT),
    }


def kill(pid: int) -> None:
    """``kill -9``; one that is gone is no error."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def children(pid: int) -> list[int]:
    """Workers of a campaign, and theirs: what multiprocessing started there for us."""
    below: dict[int, list[int]] = {}
    spawned = set()
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parent = path.joinpath("stat").read_text().rpartition(")")[2].split()[1]
            line = path.joinpath("cmdline").read_bytes()
        except OSError:
            continue
        below.setdefault(int(parent), []).append(int(path.name))
        if b"spawn_main" in line:
            spawned.add(int(path.name))
    found = below.get(pid, [])[:]
    for one_of_them in found:
        found += below.get(one_of_them, [])
    return sorted(spawned.intersection(found))


def gone(workers: list[int]) -> None:
    """See that nobody is left who could take up a core; the store, they never see."""
    until = time.monotonic() + 10
    while any(map(alive, workers)):
        if time.monotonic() > until:
            raise SystemExit(f"workers outlived their campaign: {workers}")
        time.sleep(0.005)


def alive(pid: int) -> bool:
    """Whether a process runs; one that nobody has waited for does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


@contextlib.contextmanager
def small_disk() -> Iterator[Path]:
    """A folder with a file system of its own where that is allowed."""
    folder = Path(tempfile.mkdtemp(prefix="kill-campaigns-"))
    mount, umount = shutil.which("mount"), shutil.which("umount")
    mounted = False
    if mount and umount:
        command = [mount, "-t", "tmpfs", "-o", f"size={_DISK_BYTES}", "tmpfs", str(folder)]
        ended = subprocess.run(command, capture_output=True, check=False)  # noqa: S603 - ours
        mounted = ended.returncode == 0
    try:
        yield folder
    finally:
        if mounted and umount:
            subprocess.run([umount, str(folder)], check=True)  # noqa: S603 - ours
        shutil.rmtree(folder, ignore_errors=True)


def one(number: int, planned: int, given: argparse.Namespace) -> tuple[Tally, Any]:
    """Disturb one campaign, and give its result."""
    store = given.store
    draw = random.Random(f"{given.seed}:{number}")
    tally = Tally()
    ways = (*(WAYS[:3] if store else WAYS), *(["scheduler"] if given.cluster == _APART else []))
    with small_disk() as folder, contextlib.ExitStack() as stack:
        name = f"{_NAME}-{os.getpid()}-{number}"
        rig = Rig(folder, jobs=given.jobs, store=store, name=name, cluster=given.cluster)
        stack.callback(rig.close)
        instants = sorted(draw.randrange(planned - 2) for _ in range(draw.randint(2, 5)))
        if draw.random() < 0.3:
            instants[0] = 0
        for parts in instants:
            way = draw.choice(ways)
            running = rig.disturb(way, parts, draw)
            tally.ways.append(f"{way}@{rig.entered() or 0}{'' if running else ' (had ended)'}")
        result = rig.end()
        tally.sessions = rig.sessions + 1
        tally.left = rig.left() if given.cluster == LOCAL else []
    return tally, result


def main() -> int:
    """Disturb so many campaigns; 0 if each ended as it should."""
    parser = argparse.ArgumentParser(description="campaigns that are killed at random instants")
    parser.add_argument("--campaigns", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--store", default="", help="a database URL")
    parser.add_argument("--cluster", choices=(LOCAL, _APART), default="", help="run on Dask")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        began = time.monotonic()
        undisturbed = json.dumps(Rig(Path(folder), jobs=given.jobs).end(), sort_keys=True)
        seconds = time.monotonic() - began
    planned = json.loads(undisturbed)["parts"]["planned"]
    print(f"undisturbed: {planned} parts in {seconds:.1f} s", flush=True)
    equal = left = 0
    ways: Counter[str] = Counter()
    for number in range(1, given.campaigns + 1):
        tally, result = one(number, planned, given)
        same = json.dumps(result, sort_keys=True) == undisturbed
        equal += same
        left += bool(tally.left)
        ways.update(way.partition("@")[0] for way in tally.ways)
        print(f"{number:3} {'equal' if same else 'DIFFERENT'}; {tally}", flush=True)
    print(f"{equal} of {given.campaigns} equal; {dict(sorted(ways.items()))}")
    return 0 if equal == given.campaigns and not left else 1


if __name__ == "__main__":
    sys.exit(main())
