"""From a real failing schedule to what its report says of the exception."""

from __future__ import annotations

import io

from exploring import failure

from harness import Mutex, Shared, explore, note, parallel, replay
from harness.trace import chrome, document
from harness.trace.locklog import LockLog


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


def test_text_that_utf8_cannot_carry_comes_escaped_in_everything_that_is_written() -> None:
    """Lone surrogates: names of files that are no UTF-8, as Python hands them to a program."""

    def program() -> None:
        mutex, cell = Mutex("mutex \udc80"), Shared("\ud800", "cell \udcfe")

        def work() -> None:
            with mutex:
                before = cell.get()
            note("note \udc81")
            with mutex:
                cell.set(before + "\udcff")

        parallel(work, work, names=("one \udc82", "two"))
        assert len(cell.get()) == 3, "lost \udc83"

    found = explore(program).failure
    assert found is not None
    story = found.story()
    with io.BytesIO() as log:
        with LockLog(log) as writer:
            writer.story("run", story)
        written = log.getvalue()

    for text in (
        found.text(),
        document.as_json(story).decode(),
        document.as_lines(story).decode(),
        chrome.of_story(story).decode(),
        found.named().text(),
        written.decode(),
        found.html(),
    ):
        assert text.encode()
        assert "udc80" in text
    again = replay(program, found.token)
    assert again is not None
    assert again.digest == found.digest
