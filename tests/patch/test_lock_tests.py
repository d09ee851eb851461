"""The standard library's own tests of locks, run as programs on the patched primitives."""

from __future__ import annotations

import threading
import unittest
from typing import Any

import pytest

from harness import Exploration, explore, patched

lock_tests: Any = pytest.importorskip(
    "test.lock_tests", reason="this interpreter comes without the tests of its library"
)

# Class of tests, what it tests, and how many of its tests have threads to choose from. A test with
# one thread is run all the same: it must not fail, and cannot be more than inconclusive. No test is
# left out: those that ask for wall time are content with the virtual clock.
SUITES = (
    ("LockTests", "Lock", 2),
    ("RLockTests", "RLock", 3),
    ("EventTests", "Event", 3),
    ("ConditionTests", "Condition", 3),
    ("SemaphoreTests", "Semaphore", 3),
    ("BoundedSemaphoreTests", "BoundedSemaphore", 3),
    ("BarrierTests", "Barrier", 8),
)
ALONE = ("no schedule ever had two threads to choose from", "never performed an operation")


def explored(suite: type[unittest.TestCase], kind: str, name: str) -> Exploration:
    """Run one test of ``suite`` under a few schedules."""

    def program() -> None:
        tested = getattr(threading, kind)
        attributes = ("locktype", "eventtype", "condtype", "semtype", "barriertype")
        case = type("Case", (suite,), dict.fromkeys(attributes, staticmethod(tested)))(name)
        case.setUp()
        try:
            getattr(case, name)()
        finally:
            case.tearDown()
            case.doCleanups()

    return explore(program, "random", schedules=10, steps_max=50_000)


@pytest.mark.parametrize(("suite", "kind", "contended"), SUITES, ids=[s[0] for s in SUITES])
def test_the_librarys_own_tests_hold_in_every_schedule(
    suite: str, kind: str, contended: int
) -> None:
    tests = getattr(lock_tests, suite)
    names = unittest.TestLoader().getTestCaseNames(tests)
    passed: list[str] = []
    with patched():
        for name in names:
            report = explored(tests, kind, name)
            assert report.failure is None, f"{name}: {report.failure}"
            if report.verdict == "pass":
                passed.append(name)
            else:
                assert any(reason in report.reason for reason in ALONE), (name, report.reason)

    assert len(passed) >= contended, passed
