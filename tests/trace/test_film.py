"""Views: looked at after every step of a recorded schedule, and at no other time."""

from __future__ import annotations

from collections.abc import Callable

from harness import Mutex, Placed, explore, observe, parallel, replay, yield_now
from harness.explore import Setup, record_schedule
from harness.trace.events import Frame
from harness.trace.film import merged


def program_showing(view: Callable[[list[int]], dict[str, Placed]] | None) -> Callable[[], None]:
    """Two threads that overdraw a box; the view is given the box."""

    def program() -> None:
        box = [2]
        lock = Mutex("lock")
        if view is not None:
            observe(lambda: view(box))

        def take() -> None:
            with lock:
                enough = box[0] >= 2
            if enough:
                with lock:
                    box[0] -= 2

        parallel(take, take)
        assert box[0] >= 0

    return program


def plain(box: list[int]) -> dict[str, Placed]:
    return {"box": Placed("here", state=str(box[0]))}


def broken(box: list[int]) -> dict[str, Placed]:
    raise RuntimeError(box)


def failing(program: Callable[[], None]) -> tuple[str, str]:
    failure = explore(program, "dfs", schedules=None).failure
    assert failure is not None
    return failure.digest, failure.token


def test_a_frame_tells_what_a_step_changed_and_nothing_where_nothing_did() -> None:
    program = program_showing(plain)
    failure = replay(program, failing(program)[1])
    assert failure is not None
    story = failure.story()
    taken = [s.step for s in story.steps if s.kind == "acquire" and s.step > story.steps[0].step]

    assert [(frame.step, frame.changed["box"].state) for frame in story.film] == [
        (0, "2"),
        (taken[2], "0"),
        (taken[3], "-2"),
    ]


def test_nobody_looks_while_schedules_are_only_explored() -> None:
    looks: list[int] = []

    def view(box: list[int]) -> dict[str, Placed]:
        looks.append(box[0])
        return plain(box)

    def passing() -> None:
        observe(lambda: view([1]))
        parallel(lambda: None, lambda: None)

    explore(passing, "random", schedules=20)
    assert looks == []
    record_schedule(passing, Setup(strategy="random"), 1)
    assert looks


def test_a_view_changes_neither_choices_nor_digest() -> None:
    digests = {failing(program_showing(view))[0] for view in (None, plain, broken)}

    assert len(digests) == 1


def test_a_view_that_wants_a_lock_is_refused_and_changes_nothing() -> None:
    """It would wait for its own thread, or take what the program is about to."""

    def program(looks: bool) -> Callable[[], None]:
        def body() -> None:
            lock = Mutex("lock")
            box = [0]

            def locking() -> dict[str, Placed]:
                with lock:
                    return plain(box)

            if looks:
                observe(locking)

            def work() -> None:
                with lock:
                    yield_now()
                    box[0] += 1

            parallel(work, work)
            assert box[0] == 1

        return body

    digests = {failing(program(looks))[0] for looks in (False, True)}
    failure = replay(program(looks=True), failing(program(looks=True))[1])
    assert failure is not None

    assert len(digests) == 1
    assert {p.state for f in failure.story().film for p in f.changed.values()} == {"UsageError"}


def test_a_view_that_fails_is_shown_as_one() -> None:
    program = program_showing(broken)
    failure = replay(program, failing(program)[1])
    assert failure is not None

    (frame,) = failure.story().film
    assert frame.changed == {"this view": Placed("cannot be shown", state="RuntimeError")}


def test_the_last_step_of_a_schedule_that_passes_is_shown_too() -> None:
    def program() -> None:
        box = [0]
        lock = Mutex("lock")
        observe(lambda: plain(box))
        with lock:
            box[0] = 1
        box[0] = 2

    story = record_schedule(program, Setup(strategy="random"), 1)[1]

    assert [(frame.step, frame.changed["box"].state) for frame in story.film] == [
        (0, "0"),
        (1, "1"),
        (2, "2"),
    ]


def test_a_film_that_begins_later_begins_with_a_whole_picture() -> None:
    a, b = Placed("x"), Placed("y")
    frames = [Frame(0, {"a": a, "b": a}), Frame(3, {"a": b}, ("b",)), Frame(7, {"b": b})]

    assert merged(frames, 5) == (Frame(3, {"a": b}), Frame(7, {"b": b}))
    assert merged(frames, 0) == tuple(frames)
