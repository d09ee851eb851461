"""The page with the figures of the planted bugs: scripts write its tables, a test reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Final

PAGE: Final = Path(__file__).resolve().parent.parent / "docs" / "reference" / "evidence.md"


def _ends(text: str, name: str) -> tuple[int, int]:
    """Where the part of that name begins and ends, its marks not counted."""
    first, last = f"<!-- written: {name} -->\n", "<!-- end -->\n"
    if text.count(first) != 1:
        raise SystemExit(f"{PAGE} must have the line {first.strip()!r} once")
    begin = text.index(first) + len(first)
    end = text.find(last, begin)
    if end < 0:
        raise SystemExit(f"{PAGE} has no line {last.strip()!r} after {first.strip()!r}")
    return begin, end


def read(name: str) -> list[str]:
    """The lines of a written part, but for the empty ones."""
    text = PAGE.read_text(encoding="utf-8")
    begin, end = _ends(text, name)
    return [line for line in text[begin:end].splitlines() if line]


def write(name: str, lines: list[str]) -> None:
    """Replace a written part; all around it stays."""
    text = PAGE.read_text(encoding="utf-8")
    begin, end = _ends(text, name)
    body = "\n".join(["", *lines, "", ""])
    PAGE.write_text(text[:begin] + body + text[end:], encoding="utf-8")


def cells(line: str) -> list[str]:
    """What stands in a row of a Markdown table."""
    return [cell.strip() for cell in line.strip().strip("|").split("|")]
