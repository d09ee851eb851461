"""``lines=[module]``: each statement of a module is a schedule point, the same on every Python."""

from __future__ import annotations

import importlib
import itertools
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import ordinary
import pytest
from exploring import passes

from harness import Event, UsageError, explore, invariant, minimize, parallel, replay
from harness.patch.lines import Statements
from harness.search.recording import record_schedule
from harness.search.setup import Setup

HERE = Path(__file__).parent
TOKEN = (
    "ll1-O5irE5-kcmFjZaZyYW5kb20AA8QCAAAGAcQGe5-u1tauqWFzc2VydGlvbqgx"
    "MzM4ZTVlYs1OIMKAkJGob3JkaW5hcnk"
)


def race() -> None:
    counter = ordinary.Counter()
    parallel(counter.add, counter.add)
    assert counter.value == 2


def test_a_race_in_plain_attributes_shows_with_lines_alone() -> None:
    assert "inconclusive" == explore(race, schedules=200).verdict

    report = explore(race, schedules=200, lines=[ordinary])
    assert report.failure is not None
    least = minimize(race, report.failure)

    assert ("assertion", 1) == (least.kind, least.preemptions)
    assert ["line", "parallel", *["line"] * 4] == [step.kind for step in least.trace()]
    again = replay(race, least.token)
    assert again is not None
    assert least.digest == again.digest


def test_every_interleaving_of_statements_is_a_schedule() -> None:
    """Two threads of two statements each: (2+2)! / (2! 2!) orders, of which four lose one."""
    report = explore(race, "dfs", schedules=None, lines=["ordinary"], stop_at_first=False)

    assert (True, 6, 4) == (report.exhausted, report.schedules, report.failing["assertion"])


def test_one_statement_is_not_divided() -> None:
    def program() -> None:
        counter = ordinary.Counter()
        parallel(counter.add_at_once, counter.add_at_once)
        assert counter.value == 2

    assert 2 == passes(program, "dfs", lines=[ordinary]).schedules


def test_the_token_is_the_same_on_every_python() -> None:
    """Found on one, written here, replayed on all."""
    report = explore(race, "random", lines=[ordinary])

    assert report.failure is not None
    assert TOKEN == report.failure.token
    assert "62c07f3d1431a57f" == report.failure.digest


def test_a_token_replays_in_a_process_that_has_not_loaded_the_module() -> None:
    report = explore(race, "random", lines=[ordinary])
    assert report.failure is not None
    code = (
        "import sys; sys.path[:0] = sys.argv[2:]\n"
        "from test_lines import race\n"
        "from harness import replay\n"
        "again = replay(race, sys.argv[1])\n"
        "print(again.kind, again.steps, again.preemptions)\n"
    )
    folders = [str(HERE), str(HERE.parent / "support"), str(HERE.parents[1])]
    ran = subprocess.run(
        [sys.executable, "-c", code, report.failure.token, *folders],
        capture_output=True,
        text=True,
        check=True,
    )

    found = report.failure
    assert f"{found.kind} {found.steps} {found.preemptions}" == ran.stdout.strip()


@pytest.fixture
def statements(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Callable[[], int], Path]:
    """The program of statements.txt, and the file that it was imported from."""
    file = tmp_path / "every_statement.py"
    file.write_text((HERE / "statements.txt").read_text(encoding="utf-8"), encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("every_statement")
    monkeypatch.delitem(sys.modules, "every_statement")
    monkeypatch.setitem(sys.modules, "every_statement", module)
    run: Callable[[], int] = module.run
    return run, file


def test_every_kind_of_statement_is_a_point_as_often_on_every_python(
    statements: tuple[Callable[[], int], Path], golden: Callable[[str, str], None]
) -> None:
    run, file = statements
    setup = Setup(strategy="random", control=("every_statement",))
    _, story = record_schedule(run, setup, 1)
    known = Statements(file.read_text(encoding="utf-8"))
    lines = []
    sites = [step.site for step in story.steps if step.site is not None]
    for name, group in itertools.groupby(sites, lambda site: site.qualname):
        first = [known.first(site.line) for site in group]
        lines.append(f"{name}: {' '.join(map(str, first))}\n")

    golden("statements.txt", "".join(lines))


def test_nothing_is_watched_afterwards() -> None:
    before = sys.gettrace()
    if sys.version_info >= (3, 12):
        tools = [sys.monitoring.get_tool(tool) for tool in range(6)]
        explore(race, schedules=3, lines=[ordinary])
        assert tools == [sys.monitoring.get_tool(tool) for tool in range(6)]
    else:
        explore(race, schedules=3, lines=[ordinary])
    assert before is sys.gettrace()
    report = explore(race, schedules=20)

    assert "inconclusive" == report.verdict


def test_lines_of_unwinding_and_of_invariants_are_no_points() -> None:
    """A loop in a ``finally`` block runs to its end, however long it is."""
    ends: list[int] = []

    def program() -> None:
        counter, never = ordinary.Counter(), Event()
        invariant(lambda: counter.bump() > 0)

        def long_way_out() -> None:
            try:
                never.wait()
            finally:
                before = counter.value
                for _ in range(2_000):
                    counter.add()
                ends.append(counter.value - before)

        def fail() -> None:
            raise LookupError

        parallel(long_way_out, fail)

    report = explore(program, "random", schedules=1, lines=[ordinary])

    assert report.failure is not None
    assert "exception" == report.failure.kind
    assert 2 == report.failure.steps
    assert {2_000} == set(ends)


@pytest.mark.parametrize(
    ("module", "said"),
    [
        ("no.such.module", "lines: cannot import the module 'no.such.module'"),
        ("_queue", "lines: the module _queue has no Python source here"),
        (itertools, "lines: the module itertools has no Python source here"),
        ("", "lines: cannot import the module ''"),
    ],
    ids=["missing", "binary", "built in", "empty"],
)
def test_a_module_that_cannot_be_watched_is_refused(module: object, said: str) -> None:
    with pytest.raises(UsageError, match=f"^{said}"):
        explore(race, lines=[module])
