"""The fidelity page: which kernel function is mirrored where, what is left out, and why.

Most of it is in the model itself: a docstring ends with ``Kernel:`` and, where something is left
out, ``Omits:``. What no docstring can say is in ``docs/fidelity.toml``.
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[2]
TABLE: Final = ROOT / "docs" / "fidelity.toml"
PAGE: Final = ROOT / "docs" / "fidelity.md"

_KERNEL: Final = re.compile(r"\bKernel: (.*?)(?=\s+Omits: |\Z)", re.DOTALL)
_OMITS: Final = re.compile(r"\bOmits: (.*)", re.DOTALL)
_SEE: Final = re.compile(r"\ASee ``([\w.]+)``")
# Paragraphs of a docstring end where the next one begins.
_PARAGRAPH: Final = re.compile(r"\n\s*\n")


@dataclass(frozen=True, slots=True)
class Member:
    """One public function, method or class of the model.

    Attributes:
        module: Name of its module, without the package.
        name: Qualified name in it.
        kernel: What it mirrors, as the docstring says it; empty where it says nothing.
        omits: What is left out.
        see: The member whose docstring speaks for it.
    """

    module: str
    name: str
    kernel: str
    omits: str
    see: str

    @property
    def symbol(self) -> str:
        """As a row of the table names it."""
        return f"model.{self.module}:{self.name}"


def table() -> dict[str, list[dict[str, Any]]]:
    """``docs/fidelity.toml``."""
    return tomllib.loads(TABLE.read_text(encoding="utf-8"))


def modules() -> dict[str, str]:
    """Modules of the model, with their first lines."""
    return {path.stem: _first_line(path) for path in _sources()}


def members() -> list[Member]:
    """Everything public in the model, in the order of the source."""
    return [member for path in _sources() for member in _members(path)]


def _sources() -> list[Path]:
    return [path for path in sorted((ROOT / "model").glob("*.py")) if path.stem != "__init__"]


def _first_line(path: Path) -> str:
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return text.partition("\n")[0]


def _members(path: Path) -> Iterator[Member]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    yield from _within(tree, path.stem, "")


def _within(parent: ast.Module | ast.ClassDef, module: str, prefix: str) -> Iterator[Member]:
    for node in parent.body:
        if not isinstance(node, ast.FunctionDef | ast.ClassDef) or node.name.startswith("_"):
            continue
        text = ast.get_docstring(node) or ""
        kernel, omits, see = (_found(pattern, text) for pattern in (_KERNEL, _OMITS, _SEE))
        yield Member(module, prefix + node.name, kernel, omits, see)
        if isinstance(node, ast.ClassDef):
            yield from _within(node, module, f"{prefix}{node.name}.")


def _found(pattern: re.Pattern[str], text: str) -> str:
    for paragraph in _PARAGRAPH.split(text):
        match = pattern.search(paragraph)
        if match:
            return " ".join(match.group(1).split()).rstrip(".")
    return ""


# -- the page -------------------------------------------------------------------------------------


def page() -> str:
    """The whole page."""
    rows = table()
    parts = [
        "# Fidelity",
        "",
        "What the model mirrors, function by function, what it leaves out, and why. Made from the",
        "docstrings of `model` and from [fidelity.toml](fidelity.toml) by",
        "`pytest tests/docs --update-golden`; a test fails where it is stale.",
        "",
        *_seed(rows),
        *_model(rows),
        *_left_out(rows),
        *_workloads(rows),
    ]
    return "\n".join(parts) + "\n"


def _seed(rows: dict[str, list[dict[str, Any]]]) -> Iterator[str]:
    yield from ("## The seed", "", "| function of the seed | in the model | exercised by |")
    yield "|---|---|---|"
    for row in rows["function"]:
        yield _row(_code(row["seed"]), _code(row.get("model", "")), _shown_by(row))
    yield from ("", "| assert of the seed | name | exercised by |", "|---|---|---|")
    for row in rows["assert"]:
        what = f"{_code(row['seed'])}: {_code(row['condition'])}"
        yield _row(what, _code(row.get("name", "")), _shown_by(row))
    yield from ("", "| race | what | exercised by |", "|---|---|---|")
    for row in rows["race"]:
        yield _row(row["id"], row["what"], _shown_by(row))
    yield from ("", "| beyond the seed | in the model | exercised by |", "|---|---|---|")
    for row in rows["kernel"]:
        yield _row(_code(row["kernel"]), _code(row.get("model", "")), _shown_by(row))
    yield ""


def _model(rows: dict[str, list[dict[str, Any]]]) -> Iterator[str]:
    apart = {row["name"]: row["why"] for row in rows["module"]}
    own = {row["model"]: row["why"] for row in rows["own"]}
    yield from ("## The model", "")
    for module, line in modules().items():
        yield from (f"### model/{module}.py", "", line, "")
        if module in apart:
            yield from (f"No part of the kernel: {apart[module]}.", "")
            continue
        yield from ("| in the model | in the kernel | left out |", "|---|---|---|")
        for member in members():
            if member.module == module:
                kernel, omits = member.kernel.replace("``", "`"), member.omits.replace("``", "`")
                if not kernel and member.see:
                    kernel = f"as `{member.see}`"
                yield _row(_code(member.name), kernel or f"none: {own[member.symbol]}", omits)
        yield ""


def _left_out(rows: dict[str, list[dict[str, Any]]]) -> Iterator[str]:
    yield from ("## Left out", "", "| of the kernel | why |", "|---|---|")
    for row in rows["omission"]:
        yield _row(row["what"], row["why"])
    yield ""


def _workloads(rows: dict[str, list[dict[str, Any]]]) -> Iterator[str]:
    yield from ("## Workloads of the kernel", "", "| id | what | rebuilt as |", "|---|---|---|")
    for row in rows["workload"]:
        scenario = f"scenario {_code(row['scenario'])}" if "scenario" in row else ""
        yield _row(row["id"], row["what"], "; ".join(filter(None, [scenario, _shown_by(row)])))


def _shown_by(row: dict[str, Any]) -> str:
    test = row.get("test", "")
    return "; ".join(filter(None, [_code(test.partition("::")[2]), row.get("why", "")]))


def _code(text: str) -> str:
    return f"`{text}`" if text else ""


def _row(*cells: str) -> str:
    # Spaces of its own where a cell is empty: a reader of the source sees where the columns are.
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
