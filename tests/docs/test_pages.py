"""The pages of docs/ hang together, as far as that is known without building them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from harness import public

DOCS = Path(__file__).parents[2] / "docs"
# Made when the documentation is built.
BUILT = "reference/commands"
PAGES = sorted(path for path in DOCS.rglob("*.md") if path.stem != "commands")


def name(page: Path) -> str:
    return page.relative_to(DOCS).with_suffix("").as_posix()


def test_every_page_has_its_place_in_the_contents_once() -> None:
    text = (DOCS / "index.md").read_text(encoding="utf-8")
    trees = re.findall(r"```\{toctree\}\n(.*?)```", text, re.DOTALL)
    listed = [line for tree in trees for line in tree.splitlines() if line and line[0] != ":"]

    assert sorted(listed) == sorted({*map(name, PAGES), BUILT} - {"index"})


def test_the_page_of_the_python_interface_has_every_public_name_once_and_each_has_a_docstring() -> (
    None
):
    """Sphinx takes signatures and docstrings from the program itself, and fails where it cannot."""
    text = (DOCS / "reference" / "python.md").read_text(encoding="utf-8")
    module, _, drawn = text.partition(".. currentmodule:: harness.drawn\n")
    directive = re.compile(r"^\.\. auto(?:function|class|exception):: (\w+)$", re.MULTILINE)

    assert sorted(directive.findall(module)) == sorted(public.__all__)
    assert directive.findall(drawn) == ["schedules", "Schedule"]
    # ``BrokenBarrierError`` is that of threading.
    bare = [name for name in public.__all__ if not vars(public)[name].__doc__]
    assert bare == ["BrokenBarrierError"]


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_link_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    here = [link.partition("#")[0] for link in links if "://" not in link]

    assert [link for link in here if link and not (page.parent / link).exists()] == []
