"""The pytest plugin: ``@pytest.mark.schedules(1000, strategy="pct", depth=3)``.

The body of a marked test is a program: it runs once per schedule. Fixtures (and a ``setUp``) are
made once, before the first schedule, and taken down after the last; state that the threads change
belongs into the body, where each schedule makes it anew.

Every pytest run that finds this package installed imports this module, so it imports nothing of
the harness before a marked test runs.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Generator
from typing import Any, Final

import pytest

MARK: Final = "schedules"
SCHEDULES: Final = 1_000


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options that override what the marks say."""
    group = parser.getgroup("lockloom", "exploring the schedules of threaded tests (lockloom)")
    group.addoption(
        "--schedules",
        type=int,
        metavar="N",
        help="run each test marked with schedules() under at most N schedules",
    )
    group.addoption(
        "--schedule-seed", type=int, metavar="K", help="the seed that decides every schedule"
    )
    group.addoption("--schedule-strategy", metavar="NAME", help="the strategy that searches")
    group.addoption(
        "--schedule-token",
        metavar="TOKEN",
        help="replay this one schedule of the one marked test that is selected",
    )
    group.addoption(
        "--lock-log",
        metavar="FILE",
        help="write what the locks of marked tests did, to be judged by `python -m stress audit`; "
        "runs each schedule once more, but for those in free mode",
    )
    group.addoption(
        "--lock-log-stacks",
        action="store_true",
        help="the lock log has whole stacks; it is larger",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Make the mark known; refuse a damaged token before anything is collected.

    Raises:
        pytest.UsageError: The token cannot be read.
    """
    config.addinivalue_line(
        "markers",
        f"{MARK}(n={SCHEDULES}, **options): run the test's body as a program, under n schedules; "
        "the options are those of harness.explore",
    )
    token = config.getoption("--schedule-token")
    if token is not None:
        from harness.errors import TokenError
        from harness.trace.token import decode

        try:
            decode(token)
        except TokenError as error:
            raise pytest.UsageError(f"--schedule-token: {error}") from None
    if config.getoption("--lock-log-stacks") and config.getoption("--lock-log") is None:
        raise pytest.UsageError("--lock-log-stacks: give --lock-log FILE too")
    if config.getoption("--lock-log") is not None:
        from harness.errors import UsageError
        from harness.pytest_run import Logging

        try:
            config.pluginmanager.register(Logging(config), "lockloom-lock-log")
        except UsageError as error:
            raise pytest.UsageError(f"--lock-log: {error}") from None


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Refuse marks that cannot work before any test runs.

    Raises:
        pytest.UsageError: A mark that cannot work, or a token and several tests that it may be of.
    """
    marked = [item for item in items if item.get_closest_marker(MARK) is not None]
    for item in marked:
        _wanted(item)
    if config.getoption("--schedule-token") is not None and len(marked) != 1:
        raise pytest.UsageError(
            f"--schedule-token is of one test marked with {MARK}(), and {len(marked)} are "
            "selected; name the one, as the failure's replay command does"
        )


def _options() -> list[str]:
    """What the mark takes beside the number of schedules: what ``explore`` does.

    But for processes: a test's body cannot be imported by its name, and pytest has its own.
    """
    from harness.explore import explore

    not_ours = ("program", "schedules", "processes")
    return [name for name in inspect.signature(explore).parameters if name not in not_ours]


def _wanted(item: pytest.Item) -> dict[str, Any] | None:
    """The options that ``item`` is explored with; None for a test without the mark.

    The command line overrides the mark that is closest to the test.

    Raises:
        pytest.UsageError: The mark cannot work.
    """
    mark = item.get_closest_marker(MARK)
    if mark is None:
        return None
    where = f"{item.nodeid}: @pytest.mark.{MARK}"
    if len(mark.args) > 1:
        raise pytest.UsageError(f"{where} takes one number, got {len(mark.args)}")
    unknown = sorted(mark.kwargs.keys() - set(_options()))
    if unknown:
        raise pytest.UsageError(
            f"{where} does not know {', '.join(unknown)}; it takes {', '.join(_options())}"
        )
    function = getattr(item, "obj", None)
    if not callable(function) or inspect.iscoroutinefunction(function):
        raise pytest.UsageError(f"{where} needs a plain test function")
    options = {"schedules": mark.args[0] if mark.args else SCHEDULES, **mark.kwargs}
    for option, name in (
        ("--schedules", "schedules"),
        ("--schedule-seed", "seed"),
        ("--schedule-strategy", "strategy"),
    ):
        given = item.config.getoption(option)
        if given is not None:
            options[name] = given
    return options


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """While a marked test runs, its function is the exploration of its body."""
    __tracebackhide__ = True
    options = _wanted(item)
    if options is None:
        return (yield)
    test: Any = item
    body = test.obj

    @functools.wraps(body)
    def scheduled(*args: Any, **fixtures: Any) -> None:
        from harness.pytest_run import explored

        __tracebackhide__ = True
        explored(item, functools.wraps(body)(lambda: body(*args, **fixtures)), options)

    test.obj = scheduled
    try:
        return (yield)
    finally:
        test.obj = body


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failing schedule is shown by its story, a reason as it is; no frames that explored."""
    report = yield
    if call.excinfo is not None and item.get_closest_marker(MARK) is not None:
        error: Any = call.excinfo.value
        told = isinstance(error, pytest.fail.Exception) and not error.pytrace
        if told or getattr(error, "told_by_section", False):
            shown = call.excinfo.getrepr(style="value")
            if shown.reprcrash is not None:
                shown.reprcrash.message = str(call.excinfo.value)
            report.longrepr = shown
    return report
