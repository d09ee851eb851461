"""Holds, waits and arrows, deduced from the steps of a recorded schedule."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from harness import (
    Condition,
    Event,
    Mutex,
    RwLock,
    Shared,
    explore,
    parallel,
    replay,
    sleep,
    spawn,
    yield_now,
)
from harness.explore import Setup, record_schedule
from harness.trace.events import Story
from harness.trace.lanes import Arrow, Span, arrows, holds, waits


def recorded(program: Callable[[], object], strategy: str = "round-robin") -> Story:
    """The first schedule of a program."""
    return record_schedule(program, Setup(strategy=strategy), 1)[1]


def found(program: Callable[[], object], kind: str) -> Story:
    """The first schedule that fails in that way, in the order of dfs."""
    report = explore(program, "dfs", schedules=None, stop_at_first=False)
    failure = next(failure for failure in report.failures if failure.kind == kind)
    again = replay(program, failure.token)
    assert again is not None
    return again.story()


def steps(story: Story) -> list[tuple[int, str, str, str]]:
    return [(step.step, step.name, step.kind, step.obj) for step in story.steps]


def test_a_lock_is_held_from_the_step_that_takes_it_to_the_one_that_gives_it_up() -> None:
    def program() -> None:
        outer, inner = Mutex("outer"), Mutex("inner")
        with outer:
            yield_now()
            inner.acquire()
        inner.release()

    story = recorded(program)

    assert steps(story) == [
        (1, "main", "acquire", "outer"),
        (2, "main", "yield", "-"),
        (3, "main", "acquire", "inner"),
        (4, "main", "release", "outer"),
        (5, "main", "release", "inner"),
    ]
    assert holds(story) == [Span("hold", 0, "outer", 1, 4), Span("hold", 0, "inner", 3, 5)]
    assert waits(story) == []


def test_a_deadlock_leaves_both_holds_and_both_waits_open() -> None:
    def program() -> None:
        a, b = Mutex("a"), Mutex("b")

        def one() -> None:
            with a, b:
                pass

        def two() -> None:
            with b, a:
                pass

        parallel(one, two)

    story = found(program, "deadlock")
    past = len(story.steps) + 1

    assert [(span.obj, span.open, span.end) for span in holds(story)] == [
        ("a", True, past),
        ("b", True, past),
    ]
    assert sorted((span.obj, span.open, span.end) for span in waits(story)) == [
        ("a", True, past),
        ("b", True, past),
    ]


def test_a_hand_off_leads_from_the_release_to_the_acquisition_that_waited_for_it() -> None:
    def program() -> None:
        lock = Mutex("lock")

        def work() -> None:
            with lock:
                yield_now()

        parallel(work, work)

    story = recorded(program)
    taken = [step for step in story.steps if step.kind == "acquire"]
    released = next(step for step in story.steps if step.kind == "release")
    handed = [arrow for arrow in arrows(story) if arrow.kind == "hand-off"]

    assert taken[1].step > released.step
    one, other = taken[0].thread, taken[1].thread
    assert handed == [Arrow("hand-off", "lock", one, released.step, other, taken[1].step)]
    assert waits(story) == [
        Span("wait", other, "lock", taken[0].step + 1, taken[1].step, operation="acquire")
    ]


def test_a_notified_thread_is_woken_by_the_notify_and_let_go_on_by_the_release() -> None:
    def program() -> None:
        ready = Condition(Mutex("m"))
        box: list[int] = []

        def consumer() -> None:
            with ready:
                while not box:
                    ready.wait()

        def producer() -> None:
            yield_now()
            with ready:
                box.append(1)
                ready.notify()

        parallel(consumer, producer)

    story = recorded(program)
    at = {step.kind: step.step for step in story.steps if step.name == "producer"}
    back = next(step.step for step in story.steps if step.kind == "re-acquire")
    slept = next(step for step in story.steps if step.kind == "wait")

    assert [arrow for arrow in arrows(story) if arrow.end == back] == [
        Arrow("wake", slept.obj, 2, at["notify"], 1, back),
        Arrow("hand-off", "m", 2, at["release"], 1, back),
    ]
    (asleep,) = [span for span in waits(story) if span.thread == 1]
    assert (asleep.obj, asleep.operation, asleep.end) == (slept.obj, "wait", back)
    assert asleep.begin == slept.step + 1


def test_an_event_wakes_and_a_thread_starts_and_ends_with_arrows() -> None:
    def program() -> None:
        event = Event("event")

        def waiter() -> None:
            event.wait()

        thread = spawn(waiter)
        yield_now()
        event.set()
        thread.join()

    story = recorded(program)
    at = {(step.name, step.kind): step.step for step in story.steps}
    drawn = {arrow.kind: arrow for arrow in arrows(story)}

    assert set(drawn) == {"start", "wake", "end"}
    assert drawn["start"].begin == at["main", "spawn"]
    assert drawn["wake"] == Arrow(
        "wake", "event", 0, at["main", "event-set"], 1, at["waiter", "event-wait"]
    )
    assert drawn["end"].obj == "waiter"
    assert drawn["end"].end == at["main", "join"]


def test_time_that_runs_out_is_nobodys_arrow() -> None:
    def program() -> None:
        def sleeper() -> None:
            sleep(1.0)

        def busy() -> None:
            yield_now()

        parallel(sleeper, busy)

    story = recorded(program)

    assert [arrow.kind for arrow in arrows(story)] == ["start", "start"]


def test_readers_hold_a_lock_at_the_same_time() -> None:
    def program() -> None:
        lock = RwLock("rw")

        def reader() -> None:
            with lock.read():
                yield_now()

        parallel(reader, reader)

    spans = holds(recorded(program))

    assert [(span.thread, span.obj) for span in spans] == [(1, "rw"), (2, "rw")]
    assert max(span.begin for span in spans) < min(span.end for span in spans)


@pytest.mark.parametrize("strategy", ["random", "pct", "pos"])
def test_no_thread_takes_a_step_while_it_waits_nor_holds_what_it_does_not(strategy: str) -> None:
    """Against the recorder's own word: what each step says its thread held."""

    def program() -> None:
        locks = [Mutex(f"lock{i}") for i in range(3)]

        def work(first: int) -> None:
            for i in range(3):
                with locks[(first + i) % 3]:
                    yield_now()

        parallel(*(lambda i=i: work(i) for i in range(3)))

    story = recorded(program, strategy)
    spans = holds(story)

    for step in story.steps:
        held = [s.obj for s in spans if s.thread == step.thread and s.begin < step.step <= s.end]
        assert tuple(held) == step.held
    for span in waits(story):
        own = [s.step for s in story.steps if s.thread == span.thread]
        assert not any(span.begin <= number < span.end for number in own)


def test_what_an_exception_let_go_of_on_its_way_out_is_shown_as_held_where_it_struck() -> None:
    def program() -> None:
        outer, inner, cell = Mutex("outer"), Mutex("inner"), Shared(0)

        def fails() -> None:
            with outer:
                inner.acquire()
                inner.release()
                with inner:
                    assert cell.get()

        parallel(fails, fails)

    story = found(program, "assertion")
    last = story.steps[-1].step + 1

    assert [state.held for state in story.final] == [(), (), ()]
    assert [(span.obj, span.end, span.open) for span in holds(story)] == [
        ("outer", last, True),
        ("inner", 4, False),
        ("inner", last, True),
    ]
