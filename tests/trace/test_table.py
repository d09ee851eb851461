"""The text story, on stories built by hand: what a reader sees first, last, and never too wide."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.trace.events import Site, Step, Story, ThreadState, Wait
from harness.trace.interleaving import ROWS_MAX, compact, place
from harness.trace.site import shown_file
from harness.trace.table import render

COMMAND = "python -m stress replay ll1-AQkC1w4"


def site(line: int, name: str = "reclaim", file: str = "model/cow_pages.py") -> Site:
    return Site(module="model.cow_pages", qualname=name, ordinal=0, file=file, line=line)


def abba() -> Story:
    """Two threads, one preemption between two acquisitions."""
    acquire_a = Step(2, 1, "evict", "acquire", "A", site=site(148), enabled=(1, 2), published=2)
    acquire_b = Step(
        3, 2, "detach", "acquire", "B", site=site(212), enabled=(1, 2), published=2, preemption=True
    )
    return Story(
        kind="deadlock",
        message="2 threads wait in a cycle",
        cycle=(
            Wait("evict", "B", "acquire", "detach", site(149), site(212)),
            Wait("detach", "A", "acquire", "evict", site(213), site(148)),
        ),
        steps=(
            Step(1, 0, "main", "parallel", "evict+detach", site=site(9), enabled=(0,), published=1),
            acquire_a,
            acquire_b,
        ),
        final=(
            ThreadState("main", "blocked", "parallel", "evict+detach", site(9), (), 0, 2),
            ThreadState("evict", "blocked", "acquire", "B", site(149), ("A",), 1, 3),
            ThreadState("detach", "running", "acquire", "A", site(213), ("B",), 2, 4),
        ),
        objects={},
    )


def straight(count: int, threads: int = 1, every: int = 1) -> Story:
    """``count`` steps; another of ``threads`` threads takes over after ``every`` of them."""
    steps = tuple(
        Step(
            i,
            (i - 1) // every % threads,
            f"t{(i - 1) // every % threads}",
            "store",
            "cell",
            site=site(i),
            enabled=tuple(range(threads)),
            published=i,
        )
        for i in range(1, count + 1)
    )
    final = tuple(ThreadState(f"t{i}", "ended", thread=i) for i in range(threads))
    return Story(kind="assertion", message="AssertionError: 1 != 2", steps=steps, final=final)


def test_a_deadlock_names_its_edges_before_the_table(golden: Callable[[str, str], None]) -> None:
    golden("deadlock.txt", render(abba(), replay_command=COMMAND, facts={"scenario": "abba"}))


def test_a_lost_wakeup_says_when_it_was_last_signalled(golden: Callable[[str, str], None]) -> None:
    story = Story(
        kind="lost-wakeup",
        message="nothing can run",
        steps=(
            Step(1, 0, "main", "spawn", "taker", site=site(1), enabled=(0,), published=1),
            Step(2, 0, "main", "event-set", "posted", site=site(2), enabled=(0, 1), published=2),
            Step(3, 1, "taker", "load", "seen", "False", site(7), enabled=(0, 1), published=2),
        ),
        final=(
            ThreadState("main", "blocked", "join", "taker", site(3), (), 0, 3),
            ThreadState("taker", "blocked", "event-wait", "posted", site(8), (), 1, 4),
        ),
    )
    golden("lost-wakeup.txt", render(story, replay_command=COMMAND))


def test_an_exception_shows_its_last_frames_and_strikes_there(
    golden: Callable[[str, str], None],
) -> None:
    frames = "".join(
        f'  File "model/pmm.py", line {i}, in f{i}\n    f{i + 1}()\n' for i in range(1, 7)
    )
    story = straight(3)
    story = Story(
        kind="exception",
        message="KeyError: 'page'",
        exception_text=f"Traceback (most recent call last):\n{frames}KeyError: 'page'",
        steps=story.steps,
        final=story.final,
    )
    golden("exception.txt", render(story, replay_command=COMMAND, facts={"scenario": "loan"}))


def test_long_runs_are_folded_and_long_lock_names_get_letters(
    golden: Callable[[str, str], None],
) -> None:
    held = ("VmCowPages::lock_@lender", "PhysicalPageProvider::mtx_", "PmmNode::lock_")
    steps = [
        Step(
            i,
            1 if 20 < i <= 40 else 0,
            "evict" if 20 < i <= 40 else "commit",
            "acquire" if i % 2 else "release",
            held[i % 3],
            site=site(i, file="model/physical_page_provider_requests.py"),
            held=held[: i % 4],
            enabled=(0, 1),
            published=i,
            preemption=i == 21,
        )
        for i in range(1, 61)
    ]
    final = (ThreadState("commit", "running", thread=0), ThreadState("evict", "ended", thread=1))
    story = Story(kind="invariant", message="I7: 3 pages free, 4 counted", steps=tuple(steps))
    story = Story(story.kind, story.message, steps=story.steps, final=final)
    golden("folded.txt", render(story, replay_command=COMMAND, facts={"schedule": "9 of 2000"}))


def test_more_threads_than_lanes_shows_those_involved_and_says_so() -> None:
    text = render(straight(60, threads=9), replay_command=COMMAND)

    assert "of 9 threads)" in text
    assert "of 60 steps shown" in text


def test_the_replay_command_is_the_last_line() -> None:
    assert render(abba(), replay_command=COMMAND).splitlines()[-1] == COMMAND


@pytest.mark.parametrize(
    "command",
    [
        f"python -m stress replay ll1-{'A' * 500}",
        f'python -c "from m import p; print(replay(p, {"B" * 300!r}).text())"',
        "python -m stress replay " + " ".join(["--option=value"] * 20),
    ],
)
def test_a_wide_command_is_broken_so_that_a_shell_reads_the_same(command: str) -> None:
    text = render(abba(), replay_command=command)
    said = text.partition("replay it:\n")[2]

    assert all(len(line) <= 100 for line in said.splitlines())
    shell = ["sh", "-c", said.replace("python", "printf '%s\\n'", 1)]
    read = subprocess.run(shell, capture_output=True, text=True, check=True).stdout.splitlines()
    assert read == shlex.split(command)[1:]


def test_a_wide_call_is_broken_so_that_python_reads_the_same() -> None:
    token = "ll1-" + "C" * 400
    said = render(abba(), replay_command=f"harness.replay(program, {token!r})")
    said = said.partition("replay it:\n")[2]

    assert all(len(line) <= 100 for line in said.splitlines())
    assert eval(said.replace("harness.replay", "dict"), {"program": {}}, {"dict": _second}) == token


def _second(_first: object, second: object) -> object:
    return second


@given(
    count=st.integers(1, 400),
    threads=st.integers(1, 12),
    every=st.integers(1, 40),
    width=st.sampled_from([80, 100]),
)
def test_no_report_is_wider_than_asked_or_longer_than_a_screen(
    count: int, threads: int, every: int, width: int
) -> None:
    text = render(straight(count, threads, every), replay_command=COMMAND, width=width)
    lines = text.splitlines()
    header = next(i for i, line in enumerate(lines) if line.startswith("step"))
    blank = lines.index("", header)

    assert max(map(len, lines)) <= width
    assert blank - header - 1 <= ROWS_MAX + 1
    assert text == render(straight(count, threads, every), replay_command=COMMAND, width=width)


def test_long_names_on_many_threads_stay_within_the_width() -> None:
    held = ("VmCowPages::lock_@lender", "PhysicalPageProvider::mtx_")
    steps = tuple(
        Step(
            i,
            i % 6,
            f"committer-of-range-{i % 6}",
            "re-acquire",
            held[i % 2],
            site=site(1000 + i, file="model/physical_page_provider.py"),
            held=held[: i % 3],
            enabled=(0, 1, 2, 3, 4, 5),
            published=i,
        )
        for i in range(1, 60)
    )
    text = render(Story("assertion", "no", steps=steps), replay_command=COMMAND)

    assert max(map(len, text.splitlines())) <= 100
    assert "re-acquire" in text


@given(count=st.integers(1, 200), threads=st.integers(1, 5), every=st.integers(1, 9))
def test_every_step_is_shown_or_counted_in_a_fold(count: int, threads: int, every: int) -> None:
    lines = render(straight(count, threads, every), replay_command=COMMAND).splitlines()
    lines = lines[next(i for i, line in enumerate(lines) if line.startswith("step")) :]
    shown = sum(line[:4].strip().isdigit() for line in lines)
    folded = sum(int(line.split()[1]) for line in lines if line.lstrip().startswith("… "))

    assert shown + folded == count


def test_a_livelocks_kept_end_is_numbered_as_it_ran() -> None:
    whole = straight(50, threads=2)
    text = render(Story("livelock", "no end", steps=whole.steps[30:]), replay_command=COMMAND)

    assert "  31  " in text
    assert "of 50 steps shown" in text


def test_the_schedule_line_marks_switches_preemptions_and_the_failure() -> None:
    assert compact(abba().steps, 80) == "S0-S1-P2-!"
    assert compact(straight(8, 2, 7).steps, 80) == "S0{7}S1-!"


def test_a_long_schedule_line_keeps_its_end_and_counts_the_rest() -> None:
    line = compact(straight(500, 2).steps, 60)

    assert len(line) <= 60
    assert line.startswith("… 4")
    assert line.endswith("S1-!")


def test_a_file_is_named_without_the_environment_it_is_installed_in() -> None:
    assert shown_file("/x/.tox/lib/python3.11/site-packages/model/pmm.py") == "model/pmm.py"
    assert shown_file(str(Path.cwd() / "model" / "pmm.py")) == "model/pmm.py"
    assert shown_file("/elsewhere/far/away/pmm.py") == "away/pmm.py"


def test_a_place_drops_folders_and_then_the_beginning_of_the_name() -> None:
    assert place(site(7)) == "model/cow_pages.py:7"
    assert place(site(7), 14) == "cow_pages.py:7"
    assert place(site(7), 10) == "…ages.py:7"
    assert place(None) == ""


def test_a_story_without_steps_still_says_what_and_how_to_replay() -> None:
    text = render(Story("lock-order", "A before B"), replay_command=COMMAND)

    assert text.splitlines()[0] == "lock-order"
    assert text.splitlines()[-1] == COMMAND
