"""How many processes there are decides how long a run takes, and nothing else."""

from __future__ import annotations

import errno
import itertools
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import worker_tasks
from kill_campaigns import alive
from stress_cli import TOYS as TOYS_FOLDER
from stress_cli import Cli, environment
from worker_tasks import (
    break_down,
    cores_of,
    die,
    double,
    hang,
    hold_the_gil,
    process_of,
    rest,
    run_out_of_memory,
    segfault,
    spin,
)

from harness.errors import UsageError
from harness.explore import BLOCK, Part
from stress import console, documents, pool
from stress.catalogue import Spec
from stress.hunts import Bag, Catch, Quarry
from stress.pool import Crash, Keeper, Task, WorkerError, call_fresh, run_tasks
from stress.runner import Options, Run

TOYS = ["toy-abba", "toy-clean", "toy-late", "toy-order", "toy-drawn"]


def timeless(document: Any) -> Any:
    for scenario in document["scenarios"]:
        del scenario["seconds"]
    return document


@pytest.mark.parametrize(
    ("seed", "options"),
    [
        (0, ()),
        pytest.param(7, ("--keep-going",), marks=pytest.mark.once),
        pytest.param(7, ("--strategy", "random"), marks=pytest.mark.once),
    ],
)
def test_jobs_change_no_finding_no_count_and_no_token(
    call: Cli, options: tuple[str, ...], seed: int
) -> None:
    """toy-late and toy-order fail in the third block; toy-order only with edges of two blocks."""
    one, three = (
        timeless(call("run", *TOYS, "--seed", seed, "--jobs", jobs, *options, "--json").json)
        for jobs in (1, 3)
    )

    assert one == three
    first = {s["name"]: [f["schedule"] for f in s["failures"]] for s in one["scenarios"]}
    assert first["toy-late"] == [150]
    assert first["toy-order"] == [170]


@pytest.mark.once
def test_lock_logs_are_the_same_for_any_number_of_jobs(call: Cli, tmp_path: Path) -> None:
    for jobs in (1, 2):
        call("run", "toy-clean", "toy-order", "--lock-log", f"{jobs}.jsonl", "--jobs", jobs)

    assert (tmp_path / "1.jsonl").read_bytes() == (tmp_path / "2.jsonl").read_bytes()


def test_a_lock_log_is_handed_on_while_its_scenario_still_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LOCKLOOM_SCENARIOS", str(TOYS_FOLDER))
    told: list[tuple[str, int]] = []

    class Watching(console.Silent):
        def advance(self, name: str, parts: Sequence[Part]) -> None:
            told.append((name, len(parts)))

    def log(data: bytes) -> None:
        told.append(("log", len(data)))

    options = Options(schedules=3 * BLOCK, logged=3 * BLOCK, strategy="random")
    Run([Spec("toy-clean")], options, Watching(), counted=True, log=log).run()

    assert [name for name, _ in told] == ["toy-clean", "log"] * 3
    assert all(size for _, size in told)


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_ends_with_what_was_found_so_far(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "stress", "run", "toy-abba", "toy-clean", "--seconds", "60"]
    running = subprocess.Popen(
        [*command, "--json"],
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert running.stderr is not None
    # The first scenario is done as soon as it is announced.
    for line in running.stderr:
        if line.startswith("toy-abba"):
            break
    time.sleep(0.5)
    os.killpg(running.pid, signal.SIGINT)  # as a terminal does: to the workers too
    out, err = running.communicate(timeout=30)

    assert running.returncode == 130
    assert '"kind": "deadlock"' in out
    assert '"verdict": "inconclusive"' in out
    assert "Traceback" not in err
    assert "KeyboardInterrupt" not in err


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_while_the_program_is_being_imported_shows_no_traceback(tmp_path: Path) -> None:
    interrupting = "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(30)\n"
    (tmp_path / "typer.py").write_text(interrupting)
    path = os.pathsep.join([str(tmp_path), environment()["PYTHONPATH"]])
    done = subprocess.run(
        [sys.executable, "-m", "stress", "list"],
        env={**environment(), "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=25,
        check=False,
    )

    # By the signal itself, so that a shell's loop around it ends as well.
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


def test_an_interrupted_hunt_says_what_it_left_out() -> None:
    quarries = [Quarry(name, "a bug", Spec("toy-abba")) for name in ("B1", "B2")]
    found = Catch(quarries[0], 3, "pass", "", None, 0.1)

    assert not Bag([], quarries, interrupted=True).as_expected
    assert not Bag([found], quarries).as_expected
    assert documents.of_bag(Bag([found], quarries, interrupted=True))["total"] == 2


# -- the worker processes ------------------------------------------------------------------------


def tasks(*made: Task) -> Any:
    waiting = list(reversed(made))
    return lambda: waiting.pop() if waiting else None


def test_every_task_is_answered() -> None:
    made = [Task(number, double, (number,)) for number in range(20)]

    assert dict(run_tasks(tasks(*made), 3)) == {number: 2 * number for number in range(20)}


def test_a_fresh_process_for_each_task_where_asked() -> None:
    made = [Task(number, process_of, (number,)) for number in range(4)]
    shared = {pid for _, pid in run_tasks(tasks(*made), 1)}
    fresh = {pid for _, pid in run_tasks(tasks(*made), 1, fresh=True)}

    assert len(shared) == 1
    assert len(fresh) == 4


def test_a_process_that_dies_takes_only_its_own_task_along() -> None:
    made = [Task("dead", die, (3,)), *(Task(number, double, (number,)) for number in range(6))]
    answers = dict(run_tasks(tasks(*made), 2))

    assert answers.pop("dead") == Crash(3)
    assert answers == {number: 2 * number for number in range(6)}


def test_a_task_that_is_late_is_ended_and_says_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock that stands until the task has begun: how busy the machine is decides nothing."""
    begun = tmp_path / "begun"
    ticks = itertools.count()
    clock = SimpleNamespace(monotonic=lambda: 0.1 * next(ticks) if begun.exists() else 0.0)
    monkeypatch.setattr(pool, "time", clock)
    made = [
        Task("late", spin, (41, str(begun)), seconds=0.3),
        *(Task(number, double, (number,), seconds=60.0) for number in range(4)),
    ]
    answers = dict(run_tasks(tasks(*made), 2))
    late = answers.pop("late")

    assert (str(late), late.note) == ("no answer within 0.3 s", 41)
    assert "in spin" in late.stacks
    assert answers == {number: 2 * number for number in range(4)}


def test_a_task_whose_own_thread_hangs_costs_its_process_alone() -> None:
    """That thread cannot be abandoned, as spawned ones can; a run would wait for ever."""
    modes = ("controlled", "free")
    made = [*(Task(mode, hang, (mode,)) for mode in modes), Task("after", double, (4,))]
    answers = dict(run_tasks(tasks(*made), 1))

    assert answers.pop("after") == 8
    assert [str(answers[mode]) for mode in modes] == ["thread main hung"] * 2
    assert all("time.sleep" in answers[mode].stacks for mode in modes)


@pytest.mark.once
def test_a_thread_that_keeps_the_gil_costs_its_process_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No watchdog in that process can run, so a run would wait for ever."""
    # Twelve of them: in less a busy machine may not have come to the thread that keeps it.
    monkeypatch.setattr(pool, "_BEAT_SECONDS", 0.4)
    made = [Task("held", hold_the_gil, ()), Task("long", rest, (5.5,)), Task("", double, (4,))]
    answers = dict(run_tasks(tasks(*made), 2))

    assert answers == {"held": answers["held"], "long": 5.5, "": 8}
    assert str(answers["held"]) == "something has held the GIL of the worker process for 4.8 s"
    assert answers["held"].where.endswith(" in hold")
    assert answers["held"].where.startswith("worker_tasks.py:")
    # The main thread, which the signal met, waits for the one that has the baton.
    first, *others = answers["held"].stacks.split("\n\n")
    assert " in hold\n" in first + "\n"
    assert " in hold_the_gil\n" in "".join(others)


def test_the_thread_that_ran_is_told_from_those_that_waited_wherever_the_harness_lies() -> None:
    stacks = (
        "Current thread 0x1 (most recent call first):\n"
        '  File "/elsewhere/harness/engine/core.py", line 1 in switch\n'
        '  File "/p/a.py", line 2 in program\n\n'
        "Thread 0x2 (most recent call first):\n"
        '  File "/p/a.py", line 5 in hold\n'
    )

    assert pool.Crash(None, "late", stacks=pool._culprit_first(stacks)).where == "a.py:5 in hold"


def test_a_machine_that_slept_is_one_missed_beat(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1_000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def stopped_after(pulse: pool._Pulse, seconds: float) -> bool:
        now[0] += seconds
        return pulse.stopped()

    with tempfile.TemporaryFile() as file:
        pulse = pool._Pulse(file)
        looks = [stopped_after(pulse, 5.0) for _ in range(12)]
        slept = stopped_after(pool._Pulse(file), 86_400.0)
        last = stopped_after(pulse, 5.0)
        os.utime(file.fileno(), (1, 1))
        beaten = stopped_after(pulse, 5.0)

    # The first look only learns of the last beat.
    assert (looks, last, slept, beaten) == ([False] * 12, True, False, False)


def test_a_worker_that_is_slow_to_start_is_waited_for_and_not_polled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pool, "_BEAT_SECONDS", 0.0)
    starting = pool._Worker.__new__(pool._Worker)
    starting.task, starting._deadline, starting._up = Task("", double, (1,)), None, False
    starting._pulse = pool._Pulse(None)
    monkeypatch.setattr(pool, "_BEAT_SECONDS", 5.0)

    assert starting.left == 0
    assert not starting.late
    assert starting.left > 0


def test_a_fault_in_c_says_where_it_was() -> None:
    ((_, crash),) = run_tasks(tasks(Task("", segfault, ())), 1)

    assert str(crash) == "the worker process was ended by SIGSEGV"
    assert crash.stacks.startswith("Current thread") or "Segmentation fault" in crash.stacks
    assert "in segfault" in crash.stacks


def test_what_a_contained_task_raises_costs_its_process_alone() -> None:
    made = [
        Task("first", process_of, (0,)),
        Task("broken", break_down, (), contained=True),
        Task("second", process_of, (0,)),
    ]
    answers = dict(run_tasks(tasks(*made), 1))

    assert "ZeroDivisionError in a worker process: planted" in str(answers["broken"])
    assert "break_down" in answers["broken"].stacks
    assert answers["first"] != answers["second"]


def test_an_exception_without_a_message_is_named_alone() -> None:
    answers = dict(run_tasks(tasks(Task("full", run_out_of_memory, (), contained=True)), 1))

    assert str(answers["full"]) == "MemoryError in a worker process"


def test_a_worn_process_is_replaced() -> None:
    made = [Task(number, process_of, (0,)) for number in range(3)]
    answers = dict(run_tasks(tasks(*made), 1, worn=lambda _: True))

    assert len(set(answers.values())) == 3


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="nothing is pinned here")
def test_workers_are_on_a_core_each_from_the_one_that_the_system_chose(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Runs side by side, of one job each, do not all crowd on the first core."""
    cores = sorted(os.sched_getaffinity(0))
    assert pool._core_here() in range(len(cores))
    for first in range(2):
        monkeypatch.setattr(pool, "_core_here", lambda first=first: first)
        made = [Task(number, cores_of, (0,)) for number in range(1)]

        assert dict(run_tasks(tasks(*made), 1)) == {0: {cores[first % len(cores)]}}


def test_a_process_that_cannot_be_started_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_number: int) -> object:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(pool, "_Worker", refused)
    with pytest.raises(UsageError, match=r"worker process 1 of 9: Too many .* fewer --jobs"):
        next(run_tasks(tasks(Task(0, double, (1,))), 9))


ORPHAN = """
from stress.pool import Task, run_tasks
from worker_tasks import announce_and_spin

if __name__ == "__main__":
    waiting = [Task("", announce_and_spin, ("worker.pid",))]
    list(run_tasks(lambda: waiting.pop() if waiting else None, 1))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a worker ends after its task")
def test_no_worker_outlives_a_parent_that_is_killed(tmp_path: Path) -> None:
    """Not even one that would never look whether there is still a parent."""
    (tmp_path / "orphan.py").write_text(ORPHAN)
    parent = subprocess.Popen(
        [sys.executable, "orphan.py"],
        cwd=tmp_path,
        env=environment(path=Path(worker_tasks.__file__).parent),
    )
    said = tmp_path / "worker.pid"
    until = time.monotonic() + 60
    while not (said.exists() and said.read_text()) and time.monotonic() < until:
        time.sleep(0.01)
    worker = int(said.read_text())
    # It is the first child of its parent: nor did it ever see Ctrl-C, not even as it started.
    status = Path(f"/proc/{worker}/status").read_text(encoding="utf-8")
    blocked = int(status.partition("SigBlk:")[2].split()[0], 16)
    parent.kill()
    parent.wait()
    until = time.monotonic() + 10
    while alive(worker) and time.monotonic() < until:
        time.sleep(0.01)

    survived = alive(worker)
    if survived:
        os.kill(worker, signal.SIGKILL)
    assert not survived
    assert blocked >> (signal.SIGINT - 1) & 1


def test_a_process_that_is_kept_serves_call_after_call_until_it_dies() -> None:
    keeper = Keeper(0, worn=lambda value: value == 42)
    first, second = (keeper.call(Task("", process_of, (0,))) for _ in range(2))
    crash = keeper.call(Task("", die, (3,)))
    third = keeper.call(Task("", process_of, (0,)))
    late = keeper.call(Task("", spin, (1,), seconds=0.2))
    fourth = keeper.call(Task("", process_of, (0,)))
    worn = keeper.call(Task("", double, (21,)))
    fifth = keeper.call(Task("", process_of, (0,)))
    keeper.close()

    assert first == second
    assert (crash, str(late), worn) == (Crash(3), "no answer within 0.2 s", 42)
    assert len({first, third, fourth, fifth}) == 4
    assert not any(map(alive, (first, third, fourth, fifth)))


def test_what_a_task_raises_arrives_with_its_traceback() -> None:
    with pytest.raises(WorkerError, match=r"ZeroDivisionError.*planted") as caught:
        call_fresh(break_down)

    assert "break_down" in caught.value.trace


DYING = """
import os
from harness import parallel, yield_now
from harness.sync import current_schedule
from stress.catalogue import scenario

def dying(name, at):
    @scenario(name, summary="ends its process")
    def program(ctx):
        parallel(yield_now, yield_now)
        if current_schedule() == at:
            os._exit(9)

dying("dying", 100)
dying("dying-at-once", 1)
"""


@pytest.mark.once
def test_a_process_that_dies_makes_its_scenario_inconclusive_and_no_other(
    cli: Cli, tmp_path: Path
) -> None:
    (tmp_path / "dying.py").write_text(DYING)
    one, two = (
        timeless(cli("run", "canary", "dying*", "--jobs", jobs, "--json", scenarios=tmp_path).json)
        for jobs in (1, 2)
    )

    assert one == two
    told = {row["name"]: (row["verdict"], row["schedules"]) for row in one["scenarios"]}
    assert told.pop("canary")[0] == "fail"
    assert told == {"dying": ("inconclusive", 64), "dying-at-once": ("inconclusive", 0)}
    for row in one["scenarios"][1:]:
        at = row["schedules"] + 1
        assert f"ended with exit code 9, in schedules {at} and following" in row["reason"]
