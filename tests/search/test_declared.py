"""``sometimes("name")`` must have been reached in some schedule, else a run proves too little."""

from __future__ import annotations

import functools
from collections.abc import Callable

import pytest

import harness
from harness import Shared, explore, parallel, spawn
from harness import sometimes as now_and_then
from harness.search.declared import declared
from harness.sync import sometimes


def _seen(value: int) -> None:
    if value > 1:
        sometimes("more than one")


def _unused() -> None:
    sometimes("of a function that nobody calls")


def _late_reader() -> None:
    """Reads 2 only where both writes come first."""
    cell = Shared(0)

    def write() -> None:
        cell.set(1)
        cell.set(2)

    parallel(write, lambda: _seen(cell.get()))


def _never() -> None:
    cell = Shared(0)

    def read() -> None:
        if cell.get() == 5:
            now_and_then("five")
        sometimes("read")

    parallel(read, lambda: cell.set(1))


class Program:
    """A program that is an object; what it calls is a method of its own."""

    def __call__(self) -> None:
        parallel(self.read, Shared(0).get)

    def read(self) -> None:
        if Shared(1).get() == 2:
            harness.sometimes("by attribute")

    @staticmethod
    def other() -> None:
        sometimes("static")


def test_what_no_schedule_reached_makes_a_run_inconclusive() -> None:
    for strategy, schedules in (("random", 50), ("dfs", None)):
        report = explore(_never, strategy, schedules)

        assert report.verdict == "inconclusive"
        assert "reached sometimes('five')" in report.reason
        assert report.reached == ("read",)


def test_one_schedule_that_reaches_it_is_enough() -> None:
    assert explore(_late_reader, "dfs", 1).verdict == "inconclusive"
    assert explore(_late_reader, "random", 100).verdict == "pass"


def test_a_failure_comes_before_what_was_not_reached() -> None:
    def program() -> None:
        parallel(Shared(0).get, Shared(0).get)
        assert sometimes.__name__ == "always"
        sometimes("never")

    assert explore(program, "random", 5).verdict == "fail"


def test_several_processes_need_one_of_them_to_reach_it() -> None:
    report = explore(_late_reader, "random", 130, processes=2)

    assert (report.verdict, report.reached) == ("pass", ("more than one",))


def _closed_over() -> Callable[[], None]:
    def inner() -> None:
        sometimes("in a closure")

    def program() -> None:
        spawn(inner).join()

    return program


@pytest.mark.parametrize(
    ("program", "names"),
    [
        (_late_reader, {"more than one"}),
        (_never, {"five", "read"}),
        (Program(), {"by attribute", "static"}),
        (Program().read, {"by attribute"}),
        (functools.partial(_seen, 1), {"more than one"}),
        (_closed_over(), {"in a closure"}),
        (lambda: sometimes("early" if Shared(0).get() else "late"), set()),
        (print, set()),
    ],
    ids=["global", "alias", "object", "method", "partial", "closure", "no literal", "builtin"],
)
def test_names_are_found_in_the_code_of_the_program(
    program: Callable[[], None], names: set[str]
) -> None:
    assert declared(program) == names
