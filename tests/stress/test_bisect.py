"""``bisect`` names the commit that brought a race in, and leaves the repository as it was."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest
import till
from stress_cli import Cli, environment

from harness import Named
from stress.cli import main
from stress.triage import bisect as bisecting
from stress.triage.revisions import Repository
from stress.triage.standing import Answer, Place, Race, Standing


@dataclass
class History:
    """A small repository, made commit by commit."""

    top: Path

    def git(self, *args: str) -> str:
        settled = ["-c", "user.name=one", "-c", "user.email=one@example.org"]
        ran = subprocess.run(
            ["git", *settled, *args],
            cwd=self.top,
            env=os.environ | {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"},
            capture_output=True,
            text=True,
            check=True,
        )
        return ran.stdout.strip()

    def commit(self, subject: str, body: str | None) -> str:
        """Write the scenario, or something else, and commit it."""
        folder = self.top / "scenarios"
        folder.mkdir(exist_ok=True)
        (self.top / "notes.txt").write_text(subject)
        if body is not None:
            till.write(folder, body)
        self.git("add", ".")
        self.git("commit", "-q", "-m", subject)
        return self.git("rev-parse", "HEAD")

    def state(self) -> list[str]:
        """All that nobody but the user may change."""
        asked = ("status --porcelain", "worktree list", "for-each-ref", "stash list", "log --all")
        return [self.git(*command.split()) for command in asked]


@pytest.fixture
def history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> History:
    made = History(tmp_path / "repo")
    made.top.mkdir()
    made.git("init", "-q", "-b", "main")
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    till.surround(monkeypatch, made.top)
    return made


@pytest.fixture
def stress(history: History, capsys: pytest.CaptureFixture[str]) -> Cli:
    """A command in this process: bisecting asks processes of its own."""
    return till.caller(capsys)


def empty(history: History) -> bool:
    return not list((history.top.parent / "tmp").iterdir())


@pytest.mark.once
def test_the_commit_is_named_also_where_the_schedule_has_to_be_followed_or_searched(
    history: History, stress: Cli, logged_token: str
) -> None:
    careful = history.commit("careful", till.CAREFUL)
    racy = history.commit("faster", till.RACY)
    logged = history.commit("a log", till.LOGGED)
    last = history.commit("notes", None)
    # What the user is at work on is neither read nor touched.
    (history.top / "scenarios" / "till.py").write_text("not finished(")
    (history.top / "mine.txt").write_text("not committed")
    before = history.state()

    ran = stress("bisect", logged_token, "--good", careful, "--schedules", "60", "--json")

    assert ran.code == 0, ran.err
    assert ran.json["first_bad"] == racy
    assert ran.json["suspects"] == [racy]
    judged = {each["commit"]: (each["judgement"], each["how"]) for each in ran.json["revisions"]}
    judged.pop(logged, None)  # the commits in the middle may be asked in either order
    assert judged == {
        last: ("bad", "token"),
        careful: ("good", "search"),
        racy: ("bad", "operations"),
    }
    said = {each["commit"]: each["said"] for each in ran.json["revisions"]}
    assert "searched 60 schedules: none fails" in said[careful]
    assert "13 of 17 recorded operations take place" in said[racy]
    assert history.state() == before
    assert empty(history)


@pytest.mark.once
def test_commits_that_give_no_answer_are_skipped_and_leave_it_open(
    history: History, stress: Cli, racy_token: str
) -> None:
    nothing = history.commit("nothing", None)
    broken = history.commit("broken", "")
    racy = history.commit("racy", till.RACY)

    ran = stress("bisect", racy_token, "--good", nothing)

    assert ran.code == 3, ran.err
    assert "the first bad one is among" in ran.out
    assert f"{nothing[:12]} skipped" in ran.out
    assert "scenarios, which is no folder" in ran.out
    assert f"{broken[:12]} skipped" in ran.out
    assert "unknown scenario 'till'" in ran.out
    assert f"{racy[:12]} bad" in ran.out
    assert empty(history)


@pytest.fixture
def forked(history: History) -> dict[str, str]:
    """Two branches and their merge, by subject; each commit touches a file of its own."""

    def commit(subject: str) -> str:
        (history.top / subject).write_text("")
        history.git("add", ".")
        history.git("commit", "-q", "-m", subject)
        return history.git("rev-parse", "HEAD")

    made = {subject: commit(subject) for subject in ("base", "left-1", "left-2")}
    history.git("checkout", "-q", "-b", "right", made["base"])
    made |= {subject: commit(subject) for subject in ("right-1", "right-2")}
    history.git("merge", "-q", "-m", "merge", "main")
    return made | {"merge": history.git("rev-parse", "HEAD"), "tip": commit("tip")}


def judged_by(history: History, monkeypatch: pytest.MonkeyPatch, culprit: str, silent: str) -> Path:
    """Have commits with ``culprit`` fail, and no answer from ``silent``; the race as a file."""

    def stands(race: Race, place: Place, *, schedules: int, jobs: int) -> Standing:
        commit = place.folder.name
        if commit == silent:
            return Standing("unknown", "", "silent")
        fails = history.git("merge-base", culprit, commit) == culprit
        return Standing("fails" if fails else "passes", "token", "judged")

    monkeypatch.setattr(bisecting, "stands", stands)
    path = history.top.parent / "race.json"
    path.write_text(Named(till.CANARY, ()).text())
    return path


@pytest.mark.parametrize(
    ("culprit", "silent", "left"),
    [
        ("left-2", "right-1", {"left-2"}),
        ("right-1", "", {"right-1"}),
        ("merge", "", {"merge"}),
        ("left-2", "left-1", {"left-1", "left-2"}),
    ],
)
def test_branches_are_searched_and_what_is_skipped_matters_only_beside_the_culprit(
    history: History,
    stress: Cli,
    monkeypatch: pytest.MonkeyPatch,
    forked: dict[str, str],
    culprit: str,
    silent: str,
    left: set[str],
) -> None:
    race = judged_by(history, monkeypatch, forked[culprit], forked.get(silent, ""))
    ran = stress("bisect", race, "--good", forked["base"], "--json")

    assert set(ran.json["suspects"]) == {forked[subject] for subject in left}
    assert ran.code == (0 if len(left) == 1 else 3)
    assert ran.json["first_bad"] == (forked[culprit] if len(left) == 1 else None)
    assert empty(history)


def test_a_race_that_is_older_or_not_there_is_wrong_usage(
    history: History, stress: Cli, monkeypatch: pytest.MonkeyPatch, forked: dict[str, str]
) -> None:
    race = judged_by(history, monkeypatch, forked["left-1"], forked["right-2"])

    older = stress("bisect", race, "--good", forked["left-1"])
    assert older.code == 2
    assert f"the race is in --good {forked['left-1'][:12]} too" in older.err

    absent = stress("bisect", race, "--good", forked["base"], "--bad", forked["right-1"])
    assert absent.code == 2
    assert f"the race is not met at --bad {forked['right-1'][:12]} (judged)" in absent.err

    silent = stress("bisect", race, "--good", forked["base"], "--bad", forked["right-2"])
    assert silent.code == 2
    assert f"the race is not met at --bad {forked['right-2'][:12]} (silent)" in silent.err
    assert empty(history)


def test_a_token_whose_file_goes_away_with_its_checkout_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Place, "ask", lambda *_: Answer(2, {}, ""))
    repository = Repository(tmp_path)
    bisection = bisecting.Bisection(repository, Race(till.CANARY), 1, 1, lambda _: None)
    bisection._learn(Standing("fails", "search", "", "ll1f-0", "read 1"), Place(), tmp_path)

    assert bisection.race == Race(till.CANARY, None, "read 1")


@pytest.mark.once
@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize("ended_by", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_a_plain_kill_leave_nothing_behind(
    history: History, racy_token: str, ended_by: signal.Signals
) -> None:
    good = history.commit("careful", till.CAREFUL)
    history.commit("racy", till.RACY)
    before = history.state()
    with subprocess.Popen(
        [sys.executable, "-m", "stress", "bisect", racy_token, "--good", good, "--json"],
        env=environment(scenarios=history.top / "scenarios"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as bisecting:
        assert bisecting.stderr is not None
        said = "begun"
        # The first commit is judged, so the second is being checked out or asked.
        while said and " bad " not in said:
            said = bisecting.stderr.readline()
        bisecting.send_signal(ended_by)
        rest = bisecting.stderr.read()
        code = bisecting.wait(60)

    assert code == 130, rest
    assert history.state() == before
    assert empty(history)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--good", "nowhere"], "--good 'nowhere' is no commit of"),
        (["--good", "--help"], "--good '--help' is no commit of"),
        (["--good", "HEAD"], "must be an ancestor of"),
        (["--good", "HEAD~1", "--bad", "HEAD~2"], "no commit of"),
        (["--good", "HEAD", "--bad", "HEAD~1"], "must be an ancestor of"),
        (["--good", "HEAD~1", "--schedules", "0"], "--schedules must be at least 1"),
        (["--good", "HEAD~1", "--jobs", "0"], "--jobs must be at least 1"),
    ],
)
def test_wrong_usage_is_one_line(history: History, stress: Cli, args: list[str], said: str) -> None:
    history.commit("one", None)
    history.commit("two", None)

    ran = stress("bisect", till.CANARY, *args)

    assert ran.code == 2
    assert said in ran.error


def test_outside_of_a_repository_git_is_quoted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))

    assert main(["bisect", till.CANARY, "--good", "HEAD~1"]) == 2
    assert "git rev-parse: fatal: not a git repository" in capsys.readouterr().err
