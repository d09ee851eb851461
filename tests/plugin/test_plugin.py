"""The pytest plugin as a project that uses it sees it: what pytest prints, and its exit codes."""

from __future__ import annotations

import json
import re
import shlex
import xml.etree.ElementTree as ET
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from stress.audit import AuditReport, audit_paths

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parents[2]
RACE = """
import pytest
from harness import Shared, parallel

@pytest.mark.schedules(200, strategy="random")
def test_count():
    cell = Shared(0, "cell")

    def count():
        cell.set(cell.get() + 1)

    parallel(count, count)
    assert cell.get() == 2
"""
FINE = """
import pathlib
import pytest
from harness import Mutex, current_schedule, parallel

def body(path, *lines):
    mutex = Mutex("mutex")

    def locked():
        with mutex:
            pass

    parallel(locked, locked)
    with open(path, "a") as log:
        print(current_schedule(), *lines, file=log)
"""
TOKEN = re.compile(r"^token: (ll1-\S+)$", re.MULTILINE)


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch):
    """Run pytest on a file, with this plugin loaded exactly once and no other of the project's."""
    if not _installed():
        monkeypatch.setenv("PYTHONPATH", str(ROOT))
    sources: list[str] = []

    def ran(source: str, *args: str, fresh: bool = False) -> pytest.RunResult:
        # A name of its own for each: bytecode of an edit within the same second is stale.
        if source not in sources:
            sources.append(source)
        path = pytester.makepyfile(**{f"test_{sources.index(source)}": source})
        arguments = [*_plugin(), *args, path.name]
        if fresh:
            return pytester.runpytest_subprocess(*arguments)
        return pytester.runpytest_inprocess(*arguments)

    return ran


def _installed() -> bool:
    """Whether pytest finds the plugin by itself."""
    return any(point.name == "lockloom" for point in entry_points(group="pytest11"))


def _plugin() -> list[str]:
    """Loads the plugin where it is not installed; twice is an error."""
    return [*([] if _installed() else ["-p", "harness.pytest_plugin"]), "-p", "no:cacheprovider"]


def token_of(result: pytest.RunResult) -> str:
    # Where CI is set, pytest repeats a failure's whole message in its summary.
    found: set[str] = set(TOKEN.findall(result.stdout.str()))
    assert len(found) == 1, result.stdout.str()
    return found.pop()


def bodies(path: Path) -> list[str]:
    """What each run of a body has written."""
    return path.read_text(encoding="utf-8").splitlines()


def test_a_failing_test_shows_its_token_its_minimized_interleaving_and_the_command(run) -> None:
    result = run(RACE)

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "assertion in schedule *: AssertionError: assert 1 == 2",
            "token: ll1-*",
            "replay it: python -m pytest test_*.py::test_count --schedule-token ll1-*",
            "*- Captured schedule call -*",
            "*3 threads, 6 steps, 4 switches, 1 preemption,*",
            "step  0 main *1 count *2 count#2*",
            "*P get cell → 0*",
            "*✗ assertion",
            "replay it:",
            "FAILED test_*.py::test_count - assertion in schedule *",
        ]
    )
    assert "pytest_plugin.py" not in result.stdout.str()


def test_the_printed_command_replays_the_same_schedule(run, pytester: pytest.Pytester) -> None:
    result = run(RACE)
    command = re.findall(r"^replay it: (.+)$", result.stdout.str(), re.MULTILINE)[0]
    _, _, _, node, *options = shlex.split(command)
    again = pytester.runpytest_inprocess(*_plugin(), node, *options)

    again.assert_outcomes(failed=1)
    assert token_of(again) == token_of(result)
    digest = re.compile(r"digest (\w{16})")
    assert digest.findall(again.stdout.str()) == digest.findall(result.stdout.str())


def test_a_token_that_no_longer_fails_passes_and_one_that_does_not_fit_fails(run) -> None:
    token = token_of(run(RACE))

    run(RACE.replace("== 2", ">= 1"), "--schedule-token", token).assert_outcomes(passed=1)
    other = run(RACE.replace("cell.get() + 1", "1"), "--schedule-token", token)
    other.assert_outcomes(failed=1)
    other.stdout.fnmatch_lines(["the schedule does not fit this program from step *"])


def test_the_token_is_a_property_in_junit_files(run, pytester: pytest.Pytester) -> None:
    result = run(RACE, "--junit-xml", "junit.xml")
    case = ET.parse(pytester.path / "junit.xml").find(".//testcase")

    assert case is not None
    properties = {each.get("name"): each.get("value") for each in case.iter("property")}
    assert properties == {"schedule_token": token_of(result)}


@pytest.mark.once
def test_two_workers_explore_the_same_schedules_as_none(run) -> None:
    alone = run(RACE, "--schedule-seed", "5")
    divided = run(RACE, "--schedule-seed", "5", "-n", "2", fresh=True)

    divided.assert_outcomes(failed=1)
    assert token_of(divided) == token_of(alone)
    divided.stdout.fnmatch_lines(["*P get cell → 0*"])


def test_nothing_interleaved_is_a_failure_with_its_reason(run) -> None:
    result = run("import pytest\n@pytest.mark.schedules\ndef test_nothing(): pass\n")

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "inconclusive: no schedule ever had two threads to choose from*",
            "threads and locks of `threading` are controlled with patch=True in the mark",
        ]
    )
    patched = run("import pytest\n@pytest.mark.schedules(patch=True)\ndef test_nothing(): pass\n")
    patched.stdout.fnmatch_lines(["threads that share plain attributes switch *lines=[[]module]*"])


def test_a_hang_is_a_failure_with_the_stacks_in_a_section(run) -> None:
    result = run(
        """
import select
import pytest
from harness import Shared, parallel

@pytest.mark.schedules(5, hang_seconds=0.2)
def test_hang():
    cell = Shared(0, "cell")

    def stuck():
        cell.get()
        select.select((), (), (), 0.6)

    parallel(stuck, cell.get)
"""
    )

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "inconclusive: thread stuck blocked in something the harness does not control*",
            "*- Captured schedule call -*",
            "*select.select(*",
        ]
    )


def test_the_command_line_overrides_the_mark(run, pytester: pytest.Pytester) -> None:
    marked = FINE + "\n@pytest.mark.schedules(7, strategy='random')\ndef test_it(): body('log')\n"
    log = pytester.path / "log"

    run(marked).assert_outcomes(passed=1)
    assert [str(number) for number in range(1, 8)] == bodies(log)
    log.unlink()
    run(marked, "--schedules", "3").assert_outcomes(passed=1)
    assert ["1", "2", "3"] == bodies(log)
    log.unlink()
    run(marked, "--schedule-strategy", "dfs", "--schedules", "100").assert_outcomes(passed=1)
    # Every interleaving of two critical sections; the first runs once more, to compare.
    assert ["1", "1", "2"] == bodies(log)


def test_fixtures_are_made_once_and_the_body_runs_once_per_schedule(
    run, pytester: pytest.Pytester
) -> None:
    result = run(
        FINE
        + """
@pytest.fixture
def made(tmp_path):
    with open("fixtures", "a") as log:
        print("up", file=log)
    yield tmp_path
    with open("fixtures", "a") as log:
        print("down", file=log)

@pytest.mark.schedules(4, strategy="random")
@pytest.mark.parametrize("word", ["one", "two"])
def test_it(made, word):
    assert made.is_dir()
    body("log", word)
"""
    )

    result.assert_outcomes(passed=2)
    assert ["up", "down"] * 2 == bodies(pytester.path / "fixtures")
    wanted = [f"{number} {word}" for word in ("one", "two") for number in range(1, 5)]
    assert wanted == bodies(pytester.path / "log")


def test_state_that_a_fixture_keeps_between_schedules_is_found_out(run) -> None:
    result = run(
        """
import pytest
from harness import Shared, parallel

@pytest.fixture
def seen():
    return []

@pytest.mark.schedules(50, strategy="random")
def test_it(seen):
    cell = Shared(0, "cell")
    parallel(cell.get, cell.get)
    seen.append(1)
    assert len(seen) != 3
"""
    )

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["nondeterminism in schedule 3: *"])


def test_a_method_of_a_test_case_is_explored_between_its_set_up_and_tear_down(
    run, pytester: pytest.Pytester
) -> None:
    result = run(
        FINE
        + """
import unittest

class CaseTest(unittest.TestCase):
    def setUp(self):
        self.path = "log"
        body_log = open("fixtures", "a")
        print("up", file=body_log)
        body_log.close()

    @pytest.mark.schedules(3, strategy="random")
    def test_fine(self):
        body(self.path)

    @pytest.mark.schedules(3, strategy="random")
    def test_wrong(self):
        body(self.path)
        self.assertEqual(1, 2)

    @pytest.mark.schedules(3, strategy="random")
    def test_skipped(self):
        self.skipTest("not here")
"""
    )

    result.assert_outcomes(passed=1, failed=1, skipped=1)
    assert ["up"] * 3 == bodies(pytester.path / "fixtures")
    result.stdout.fnmatch_lines(["assertion in schedule 1: AssertionError: 1 != 2"])


def test_a_skip_in_the_body_skips_the_test(run) -> None:
    source = "import pytest\n@pytest.mark.schedules\ndef test_it(): pytest.skip('not today')\n"
    result = run(source, "-rs")

    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["SKIPPED * not today"])


@pytest.mark.parametrize("where", ["between steps", "in the calling thread"])
def test_a_time_limit_ends_the_exploration_cleanly_and_the_next_test_runs(run, where: str) -> None:
    """pytest-timeout by signal raises in the main thread, wherever it is parked."""
    stuck = "select.select((), (), (), 20)" if where == "in the calling thread" else "pass"
    result = run(
        FINE
        + f"""
import select

@pytest.mark.timeout(0.4, method="signal")
@pytest.mark.schedules(10**9, strategy="random")
def test_endless():
    body("log")
    {stuck}

@pytest.mark.schedules(3, strategy="random")
def test_after():
    body("log")
"""
    )

    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*Failed: Timeout (>0.4s) from pytest-timeout."])


@pytest.mark.parametrize(
    ("mark", "said"),
    [
        ("schedules(5, stategy='pct')", "does not know stategy; it takes strategy, seed, *"),
        ("schedules(5, 6)", "takes one number, got 2"),
    ],
)
def test_a_mark_that_cannot_work_stops_the_run_before_it_begins(run, mark: str, said: str) -> None:
    result = run(f"import pytest\n@pytest.mark.{mark}\ndef test_it(): pass\n")

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: test_*.py::test_it: @pytest.mark.schedules {said}"])


def test_a_coroutine_cannot_be_marked(run) -> None:
    result = run("import pytest\n@pytest.mark.schedules\nasync def test_it(): pass\n")

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*@pytest.mark.schedules needs a plain test function"])


def test_a_value_that_cannot_work_fails_the_test_with_one_line(run) -> None:
    source = "import pytest\n@pytest.mark.schedules(0)\ndef test_it(): pass\n"
    result = run(source)

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["schedules must be at least 1, *"])


@pytest.mark.parametrize(
    ("token", "said"),
    [
        ("nonsense", "ERROR: --schedule-token: 'nonsense' is not a token*"),
        ("ll1-AAAA", "ERROR: --schedule-token: the token 'll1-AAAA' is damaged or cut short*"),
    ],
)
def test_a_damaged_token_is_a_usage_error(run, token: str, said: str) -> None:
    result = run(RACE, "--schedule-token", token)

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([said])


def test_a_token_is_of_one_test(run) -> None:
    token = token_of(run(RACE))
    result = run(RACE + RACE.replace("test_count", "test_twice"), "--schedule-token", token)

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: --schedule-token is of one test marked with schedules()*"])


def test_a_run_without_a_marked_test_imports_nothing_of_the_harness(run) -> None:
    result = run(
        """
import sys

def test_it():
    loaded = {name for name in sys.modules if name.partition(".")[0] == "harness"}
    assert loaded == {"harness", "harness.pytest_plugin"}
    assert "msgspec" not in sys.modules
""",
        "-p",
        "no:xdist",
        fresh=True,
    )

    result.assert_outcomes(passed=1)


def test_the_mark_takes_the_options_of_explore_unmodified_code_included(run) -> None:
    result = run(
        """
import threading
import pytest

@pytest.mark.schedules(300, patch=True, depth=2, strategy="pct", twice_every=0)
def test_count():
    lock, count = threading.Lock(), [0]

    def add():
        with lock:
            seen = count[0]
        with lock:
            count[0] = seen + 1

    threads = [threading.Thread(target=add) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert count == [2]
"""
    )

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*Thread-1 (add)*Thread-2 (add)*", "*acquire Lock*"])


ORDERS = """
import pytest
from harness import LockClass, Mutex, parallel

def nested(*names):
    locks = [Mutex(name, LockClass(name.upper())) for name in names]

    def one():
        with locks[0], locks[1]:
            pass

    parallel(one, one)

@pytest.mark.schedules(4, strategy="random")
def test_one():
    nested("a", "b")

@pytest.mark.schedules(100, strategy="dfs")
def test_other():
    nested("b", "a")

def test_unmarked():
    pass
"""


def audited(path: Path) -> AuditReport:
    return audit_paths([path])


def test_a_lock_log_of_all_marked_tests_shows_what_no_single_one_does(
    run, pytester: pytest.Pytester
) -> None:
    result = run(ORDERS, "--lock-log", "locks.jsonl")

    result.assert_outcomes(passed=3)
    result.stdout.fnmatch_lines(
        [
            "lock log of 5 schedules; judge it: python -m stress audit locks.jsonl",
            "lock log: the first schedule alone of 1 test whose strategy enumerates",
        ]
    )
    report = audited(pytester.path / "locks.jsonl")
    assert report.integrity == ()
    assert report.runs == 5
    (finding,) = report.findings
    assert (finding.rule, finding.classes) == ("ORD001", ("A", "B"))
    assert [edge.run for edge in finding.edges] == [
        "test_0.py::test_one#1",
        "test_0.py::test_other#1",
    ]
    again = run(ORDERS, "--lock-log", "again.jsonl")
    again.assert_outcomes(passed=3)
    read = (pytester.path / "locks.jsonl").read_bytes()
    assert (pytester.path / "again.jsonl").read_bytes() == read


def test_the_lock_log_has_whole_stacks_where_they_are_wanted(
    run, pytester: pytest.Pytester
) -> None:
    through = ORDERS.replace("parallel(one, one)", "parallel(*[lambda: one()] * 2)")
    run(through, "--lock-log", "x.jsonl", "--lock-log-stacks").assert_outcomes(passed=3)
    (finding,) = audited(pytester.path / "x.jsonl").findings
    callers = [each.rpartition(" in ")[2] for e in finding.edges for each in e.inner_stack]
    assert callers == ["nested.<locals>.<lambda>"] * 2
    refused = run(ORDERS, "--lock-log-stacks")
    assert refused.ret == pytest.ExitCode.USAGE_ERROR
    refused.stderr.fnmatch_lines(["ERROR: --lock-log-stacks: give --lock-log FILE too"])


FORESEEN = """
import pytest
from harness import Mutex, parallel

@pytest.mark.schedules(1, strategy="random", predict=1)
def test_crossing():
    a, b = Mutex("a"), Mutex("b")

    def forth():
        with a, b:
            pass

    def back():
        with b, a:
            pass

    parallel(forth, back)
"""


def test_a_test_fails_by_a_deadlock_that_no_schedule_reached(run) -> None:
    run(FORESEEN.replace(", predict=1", "")).assert_outcomes(passed=1)
    result = run(FORESEEN)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*deadlock in schedule 1: 2 threads wait in a cycle*"])
    again = run(FORESEEN, "--schedule-token", token_of(result))
    again.assert_outcomes(failed=1)


def test_runs_in_free_mode_are_logged_as_they_run(run, pytester: pytest.Pytester) -> None:
    free = ORDERS.replace('strategy="random"', 'mode="free"')
    result = run(free, "--lock-log", "x.jsonl", "-k", "test_one")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["lock log of 4 schedules; judge it: *"])
    lines = (pytester.path / "x.jsonl").read_text(encoding="utf-8").splitlines()
    headers = [json.loads(line) for line in lines if line.startswith('{"zlock"')]
    assert [(head["mode"], head["clock"]) for head in headers] == [("free", "mono_ns")] * 4
    report = audited(pytester.path / "x.jsonl")
    assert [(edge.outer, edge.inner, edge.runs) for edge in report.edges] == [("A", "B", 4)]


def test_a_replayed_token_is_logged(run, pytester: pytest.Pytester) -> None:
    token = token_of(run(RACE))
    run(RACE, "--schedule-token", token, "--lock-log", "one.jsonl").assert_outcomes(failed=1)
    report = audited(pytester.path / "one.jsonl")
    assert report.runs == 1
    assert {finding.rule for finding in report.findings} == {"RACE001"}


@pytest.mark.once
def test_each_process_writes_a_lock_log_of_its_own(run, pytester: pytest.Pytester) -> None:
    result = run(ORDERS, "-n", "1", "--lock-log", "locks.jsonl")
    result.assert_outcomes(passed=3)
    result.stdout.fnmatch_lines(["lock logs: one for each worker, *-locks.jsonl, in ./"])
    assert audit_paths([pytester.path]).runs == 5


def test_a_lock_log_that_cannot_be_written_is_a_usage_error(run) -> None:
    result = run(ORDERS, "--lock-log", "no/where.jsonl")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: --lock-log: cannot write the lock log no/where.jsonl: *"])
