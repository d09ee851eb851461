"""From a real failing schedule to what its report says of the exception."""

from __future__ import annotations

from exploring import failure

from harness import Shared, parallel


def require(condition: object, text: str) -> None:
    """Only raises: failures are the callers'."""
    if not condition:
        __tracebackhide__ = True
        raise AssertionError(text)


def first() -> None:
    parallel(lambda: Shared(0).get())
    require(condition=False, text="first")


def second() -> None:
    parallel(lambda: Shared(0).get())
    require(condition=False, text="second")


def test_a_helper_that_only_raises_is_not_where_the_failure_struck() -> None:
    head, *_rest = failure(first).text().splitlines()

    assert head.startswith("assertion, at tests/trace/test_story.py:")
    assert head.endswith(" in first")
    assert " in require" not in failure(first).text()


def test_failures_raised_by_one_helper_are_told_apart_by_their_callers() -> None:
    assert failure(first).fingerprint != failure(second).fingerprint


def test_a_traceback_names_no_file_of_the_harness_and_no_absolute_path() -> None:
    text = failure(first).story().exception_text

    assert "harness/" not in text
    assert 'File "tests/trace/test_story.py", line ' in text
    assert text.endswith("AssertionError: first")


def test_a_chained_exception_keeps_its_cause() -> None:
    def program() -> None:
        parallel(lambda: Shared(0).get())
        try:
            require(condition=False, text="inner")
        except AssertionError as error:
            raise ValueError("outer") from error

    text = failure(program).story().exception_text

    assert text.index("AssertionError: inner") < text.index("ValueError: outer")
    assert "in require" not in text
