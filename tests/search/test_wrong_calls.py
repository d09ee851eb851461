"""What a caller may get wrong is refused in one line that says what, where and what would do."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

import harness
from harness import HarnessError, Mutex, UsageError, explore, minimize, parallel, replay
from harness.drawn import Schedule, schedules


def program() -> None:
    lock = Mutex("lock")

    def work() -> None:
        with lock:
            pass

    parallel(work, work)


# Options of explore, each with something else than it takes, and what the message has.
OPTIONS: dict[str, tuple[Any, str]] = {
    "strategy": ("randm", "unknown strategy 'randm'; known: dfs, "),
    "schedules": ("10", "schedules must be a whole number or None, got '10'"),
    "seed": (1.5, "seed must be a whole number, got 1.5"),
    "depth": ("3", "depth must be a whole number, got '3'"),
    "preemptions": ("2", "preemptions must be a whole number or None, got '2'"),
    "steps_max": (None, "steps_max must be a whole number, got None"),
    "seconds": ("1", "seconds must be a number of seconds or None, got '1'"),
    "hang_seconds": ("1", "hang_seconds must be a number of seconds, got '1'"),
    "processes": ("2", "processes must be a whole number, got '2'"),
    "mode": ("fre", "mode must be 'controlled' or 'free', got 'fre'"),
    "lines": ("threading", "lines takes a list of modules or their names, got 'threading'"),
    "twice_every": ("x", "twice_every must be a whole number, got 'x'"),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_an_option_of_another_type_is_named_with_what_would_do(name: str) -> None:
    value, said = OPTIONS[name]
    with pytest.raises(UsageError) as raised:
        explore(program, **{name: value})
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


OUTSIDE: dict[str, tuple[Callable[[], object], str]] = {
    "explore": (lambda: explore(3), "a program is a function without arguments, got 3"),  # type: ignore[arg-type] # what is tested, here and below
    "check": (lambda: harness.check(None), "got None"),  # type: ignore[arg-type]
    "replay program": (lambda: replay(None, "ll1-x"), "got None"),  # type: ignore[arg-type]
    "replay token": (lambda: replay(program, None), "begins with ll1-, got None"),  # type: ignore[arg-type]
    "minimize": (lambda: minimize(program, "ll1-x"), "takes a Failure, from"),  # type: ignore[arg-type]
    "replay_named": (lambda: harness.replay_named(program, "x"), "Failure.named() gives"),  # type: ignore[arg-type]
    "LockClass": (lambda: harness.LockClass(3), "needs a name"),  # type: ignore[arg-type]
    "LockClass flags": (lambda: harness.LockClass("x", flags="LEAF"), "joined by |, got 'LEAF'"),  # type: ignore[arg-type]
    "guarded_by": (lambda: harness.guarded_by(3), "got 3"),  # type: ignore[arg-type]
    "requires": (lambda: harness.requires(3), "requires() takes a lock"),  # type: ignore[arg-type]
    "excludes": (lambda: harness.excludes(3), "excludes() takes a lock"),  # type: ignore[arg-type]
    "Mutex name": (lambda: Mutex(3), "the name of a Mutex must be a text, got 3"),  # type: ignore[arg-type]
    "Mutex class": (lambda: Mutex("a", "b"), "must be a LockClass, or None for none, got 'b'"),  # type: ignore[arg-type]
    "RwLock class": (lambda: harness.RwLock("a", "b"), "must be a LockClass"),  # type: ignore[arg-type]
    "Mutex invariant": (lambda: Mutex(invariant=3), "is a function, got 3"),  # type: ignore[arg-type]
    "Condition": (lambda: harness.Condition(3), "under a lock of the harness, got 3"),  # type: ignore[arg-type]
    "acquire_all": (lambda: harness.acquire_all(3), "takes locks of the harness, got 3"),  # type: ignore[arg-type]
    "Schedule text": (lambda: Schedule(("a", 1)), "got ('a', 1)"),  # type: ignore[arg-type]
    "Schedule number": (lambda: Schedule(3), "a deviation is (decisions before it"),  # type: ignore[arg-type]
    "Schedule three": (lambda: Schedule((1, 2, 3)), "got (1, 2, 3)"),  # type: ignore[arg-type]
    "Schedule float": (lambda: Schedule((1.5, 2)), "got (1.5, 2)"),  # type: ignore[arg-type]
    "Schedule negative": (lambda: Schedule((-1, 2)), "got (-1, 2)"),
    "Schedule.run": (lambda: Schedule().run(None), "got None"),  # type: ignore[arg-type]
    "nearby": (lambda: Schedule().run(program, nearby="x"), "nearby must be a whole number"),  # type: ignore[arg-type]
    "schedules": (lambda: schedules(deviations="x"), "deviations must be a whole number"),  # type: ignore[arg-type]
    "outside": (lambda: harness.sleep(1), "use it inside the program"),
}


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_wrong_argument_is_refused_in_one_line(name: str) -> None:
    call, said = OUTSIDE[name]
    with pytest.raises(HarnessError) as raised:
        call()
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


INSIDE: dict[str, tuple[Callable[[], object], str]] = {
    "spawn": (lambda: harness.spawn(3), "spawn() takes a function and its arguments, got 3"),  # type: ignore[arg-type]
    "spawn name": (lambda: harness.spawn(program, name=3), "must be a text, got 3"),  # type: ignore[arg-type]
    "priority": (lambda: harness.spawn(program, priority="x"), "must be a whole number"),  # type: ignore[arg-type]
    "parallel": (lambda: parallel([program, program]), "takes functions without arguments"),  # type: ignore[arg-type]
    "parallel names": (lambda: parallel(program, names=[3]), "must be a text, got 3"),  # type: ignore[list-item]
    "invariant": (lambda: harness.invariant(3), "takes a function without arguments, got 3"),  # type: ignore[arg-type]
    "sometimes": (lambda: harness.sometimes(3), "the name of a place, a text, got 3"),  # type: ignore[arg-type]
    "note": (lambda: harness.note(3), "note() takes a text, got 3"),  # type: ignore[arg-type]
    "observe": (lambda: harness.observe(3), "takes a function without arguments, got 3"),  # type: ignore[arg-type]
    "explore": (lambda: explore(program), "was called inside a schedule"),
}


@pytest.mark.parametrize("name", INSIDE)
def test_a_wrong_call_in_a_program_ends_the_exploration_and_is_no_finding(name: str) -> None:
    call, said = INSIDE[name]
    with pytest.raises(UsageError) as raised:
        explore(call, schedules=2)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_the_bounds_stay_what_they_were() -> None:
    for options in ({"seconds": math.nan}, {"seconds": 0}, {"schedules": 0}, {"hang_seconds": 0}):
        with pytest.raises(UsageError):
            explore(program, **options)
