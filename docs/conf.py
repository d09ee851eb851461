"""The documentation as HTML: ``tox -e docs``; what Sphinx warns of is an error."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main
from sphinx.application import Sphinx

from stress.cli import PROGRAM, app

project = "Lockloom"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
# The Python interface: what has a docstring, in the order of the source.
autodoc_default_options = {"members": True, "member-order": "bysource", "inherited-members": False}
autodoc_typehints = "signature"
napoleon_google_docstring = True
napoleon_use_ivar = True
html_theme = "furo"
html_title = "Lockloom"
exclude_patterns = ["_build"]
myst_heading_anchors = 3
# Examples say what a reader types, not what Python is asked.
highlight_language = "text"


def every_command(group: Any) -> Iterator[tuple[str, Any]]:
    """Commands by their names, those below a command included."""
    for name, command in group.commands.items():
        yield name, command
        for below, inner in getattr(command, "commands", {}).items():
            yield f"{name} {below}", inner


def write_commands(_app: Sphinx) -> None:
    """Every command with its help, as the program itself gives it."""
    group = typer.main.get_command(app)
    lines = ["# Commands", "", f"What follows is what `{PROGRAM} COMMAND --help` says.", ""]
    for name, command in every_command(group):
        context = command.make_context(f"{PROGRAM} {name}", [], resilient_parsing=True)
        lines += [f"## {name}", "", "```text", command.get_help(context), "```", ""]
    path = Path(__file__).parent / "reference" / "commands.md"
    path.write_text("\n".join(lines), encoding="utf-8")


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("builder-inited", write_commands)
