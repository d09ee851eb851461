"""A real browser, for ``tox -e browser`` alone: the other environments have no driver for one."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser

# The environment that has the driver collects these tests, and fails where there is no browser.
collect_ignore_glob = [] if importlib.util.find_spec("playwright") else ["test_*.py"]

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# It runs as root in a container, and must not call home.
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PICTURES = Path(__file__).parents[2] / "docs" / "pictures"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-pictures", action="store_true", help="take the pictures of docs/ anew"
    )


def executable() -> str:
    """The browser of this system; ``LOCKLOOM_BROWSER`` names another."""
    named = os.environ.get("LOCKLOOM_BROWSER", "")
    found = named or next(filter(None, map(shutil.which, NAMES)), "")
    if not found:
        pytest.fail(
            "there is no browser: install chromium, or name one in LOCKLOOM_BROWSER", pytrace=False
        )
    return found


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=executable(), args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def pictures(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where pictures go: into the documentation on request, else to be thrown away."""
    if not request.config.getoption("--update-pictures"):
        return tmp_path_factory.mktemp("pictures")
    PICTURES.mkdir(exist_ok=True)
    return PICTURES
