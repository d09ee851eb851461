"""Logs of runs that nobody can repeat: they say what the rules said while the runs ran."""

from __future__ import annotations

import io
import json
from collections.abc import Callable

import pytest

from harness import (
    Condition,
    Event,
    LockClass,
    Mutex,
    RwLock,
    Semaphore,
    Shared,
    assert_held,
    invariant,
    parallel,
    spawn,
)
from harness.search.captured import free_part
from harness.search.setup import Setup
from harness.sync.threads import note
from harness.trace.events import Story
from harness.trace.locklog import LockLog
from harness.trace.logjudge import LogJudge

A, B, C = LockClass("A"), LockClass("B"), LockClass("C")
SCHEDULES = 12


def nested() -> None:
    a, b, c = Mutex("a", A), Mutex("b", B), RwLock("c", C)
    invariant(lambda: True)

    def one() -> None:
        with a, b, c.read():
            pass

    def two() -> None:
        with a:
            if b.acquire(blocking=False):
                b.release()
            with c.write():
                pass

    parallel(one, two, one)


def turned_around() -> None:
    a, b, turn = Mutex("a", A), Mutex("b", B), Event("turn")

    def one() -> None:
        with a, b:
            pass
        turn.set()

    def two() -> None:
        turn.wait()
        with b, a:
            pass

    parallel(one, two)


def handed_over() -> None:
    mutex, ready, permits = Mutex("m", A), Shared(0, "ready"), Semaphore(0, "permits")
    condition = Condition(mutex, "condition")

    def consumer() -> None:
        with mutex:
            while not ready.get():
                condition.wait()
        permits.release()

    def producer() -> None:
        with mutex:
            ready.set(1)
            condition.notify()

    threads = [spawn(consumer), spawn(producer)]
    permits.acquire()
    for thread in threads:
        thread.join()


@pytest.mark.parametrize("program", [nested, turned_around, handed_over])
def test_the_log_of_a_free_run_agrees_with_the_rules_that_watched_it(
    program: Callable[[], None],
) -> None:
    stream = io.BytesIO()
    with LockLog(stream) as log:

        def sink(schedule: int, story: Story, times: list[int]) -> None:
            assert len(times) == len(story.steps)
            log.free_story(f"x#{schedule}", story, times)

        setup = Setup(mode="free", stop_at_first=False)
        part = free_part(program, setup, 1, SCHEDULES, sink=sink)
    assert part.schedules == SCHEDULES
    judge = LogJudge()
    judge.read("log", io.BytesIO(stream.getvalue()))
    assert judge.breaches == {}, "its time goes forward, too"
    assert len(judge.runs) == SCHEDULES
    seen = {pair: (edge.count, edge.schedules) for pair, edge in part.rules.edges.items()}
    read = {pair: (edge.count, edge.schedules) for pair, edge in judge.rules.edges.items()}
    assert read == seen
    found = [f.rule for f in judge.rules.findings if f.rule != "HOT001"]
    assert found == [finding.rule for finding in part.rules.findings]
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert {line["clock"] for line in lines if "zlock" in line} == {"mono_ns"}
    assert {line[2] for line in lines if isinstance(line, list)} <= {0, 1, 2, 3}


def test_what_threads_say_at_the_same_time_is_all_in_the_log() -> None:
    rounds, each = 60, 5

    def program() -> None:
        def work() -> None:
            own = Mutex("own", A)
            for _ in range(rounds):
                with own:
                    for _ in range(each):
                        assert_held(own)
                        note("held")

        parallel(work, work, work)

    stories: list[Story] = []
    setup = Setup(mode="free")
    free_part(program, setup, 1, SCHEDULES, sink=lambda _at, story, _times: stories.append(story))
    for story in stories:
        assert [step.step for step in story.steps] == list(range(1, len(story.steps) + 1))
        assert sum(len(step.claims) for step in story.steps) == 3 * rounds * each
        assert sum(len(step.note) for step in story.steps) == 3 * rounds * each
