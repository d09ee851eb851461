"""Stories as one HTML file that needs nothing else: no server, no network, no other file.

Here the data is put together; ``assets/`` holds the page that shows it. Everything from outside is
data in a JSON block, and reaches the page as text only; the page's policy lets no other script run.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from typing import Any, Final

from harness.trace.events import Site, Step, Story, Wait
from harness.trace.graph import Nesting, layers, nestings
from harness.trace.interleaving import ends, place
from harness.trace.lanes import arrows, holds, waits
from harness.trace.site import source_lines

Data = dict[str, Any]

_ASSETS: Final = files("harness.trace") / "assets"
_SCRIPTS: Final = ("base.js", "lanes.js", "film.js", "story.js", "campaign.js", "main.js")
_PLACE: Final = re.compile(r"<!--(\w+)-->")
# Lines of source before and after the one at the cursor.
_BEFORE: Final = 4
_AFTER: Final = 3
_LINE_CHARS_MAX: Final = 160
_MESSAGE_CHARS_MAX: Final = 20_000


def render(
    title: str, stories: Sequence[Data], *, text: str = "", campaign: Data | None = None
) -> str:
    """The file.

    Args:
        title: Of the page.
        stories: From ``story_data``; the first is shown first.
        text: The same for a reader without scripts, as plain text.
        campaign: Tables and charts above the stories; see ``stress.run_page``.
    """
    style = _asset("page.css")
    script = "\n".join(_asset(name) for name in _SCRIPTS)
    data = {"title": title, "stories": list(stories), "campaign": campaign}
    parts = {
        "title": _plain(title),
        "policy": f"script-src '{_digest(script)}'; style-src '{_digest(style)}'",
        "style": style,
        "script": script,
        "data": _embedded(data),
        "text": _plain(text),
    }
    # In one pass: what a part holds is never looked at for places.
    return _PLACE.sub(lambda match: parts[match[1]], _asset("page.html"))


def still(title: str, body: str, style: str) -> str:
    """A file that runs nothing: the same look, and a policy that lets no script run.

    Args:
        title: Of the page.
        body: HTML, escaped by its maker.
        style: Rules beyond those that all pages have.
    """
    style = _asset("page.css") + style
    policy = f"default-src 'none'; style-src '{_digest(style)}'"
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{_plain(title)}</title>\n<style>{style}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def story_data(
    title: str,
    runs: Sequence[tuple[str, Story]],
    *,
    facts: Mapping[str, object],
    text: str = "",
    command: str = "",
    pair: tuple[int, bool] | None = None,
) -> Data:
    """What the page shows of one failure.

    Args:
        title: What failed.
        runs: The schedule that failed, and others to compare it with, each with its label.
        facts: Names and values for the head, in this order.
        text: The report as plain text.
        command: Replays it.
        pair: How many steps the last two runs have in common before the two whose order decides;
            and whether the last one passes.
    """
    table = _Table()
    first = runs[0][1]
    return {
        "title": title,
        "kind": first.kind,
        "message": first.message[:_MESSAGE_CHARS_MAX],
        "exception": first.exception_text[-_MESSAGE_CHARS_MAX:],
        "cycle": [_wait(wait) for wait in first.cycle],
        "findings": list(first.lock_findings),
        "facts": [[name, str(value)] for name, value in facts.items()],
        "command": command,
        "text": text,
        "pair": None if pair is None else {"at": pair[0], "passes": pair[1]},
        "runs": [_run(label, story, table) for label, story in runs],
        "graph": graph_data(nestings(first)),
        "strings": list(table.strings),
        "sites": [[site.file, site.line, _short(site.qualname)] for site in table.sites],
        "sources": _sources(table.sites),
    }


class _Table:
    """Strings and places, each stored once."""

    def __init__(self) -> None:
        self.strings: dict[str, int] = {}
        self.sites: dict[Site, int] = {}

    def text(self, value: str) -> int:
        return self.strings.setdefault(value, len(self.strings))

    def site(self, site: Site | None) -> int:
        return -1 if site is None else self.sites.setdefault(site, len(self.sites))


def _run(label: str, story: Story, table: _Table) -> Data:
    """One schedule: numbers into the tables wherever a text would be repeated."""
    names = {step.thread: step.name for step in story.steps}
    names |= {state.thread: state.name for state in story.final}
    order = sorted(names)
    lane = {thread: at for at, thread in enumerate(order)}
    text = table.text
    return {
        "label": label,
        "kind": story.kind,
        "threads": [[thread, names[thread]] for thread in order],
        "first": story.steps[0].step if story.steps else 1,
        "steps": [_step(step, lane, table) for step in story.steps],
        "holds": [[lane[s.thread], text(s.obj), s.begin, s.end, int(s.open)] for s in holds(story)],
        "waits": [
            [lane[s.thread], text(s.obj), s.begin, s.end, int(s.open), text(s.operation)]
            for s in waits(story)
        ],
        "arrows": [
            [text(a.kind), text(a.obj), lane[a.source], a.begin, lane[a.target], a.end]
            for a in arrows(story)
        ],
        "ends": [
            [lane[row.thread], row.text, table.site(row.site)]
            for row in (ends(story) if story.kind and story.steps else ())
        ],
        "film": [
            [
                frame.step,
                [
                    [text(name), text(p.place), text(p.at), text(p.state), list(map(text, p.marks))]
                    for name, p in frame.changed.items()
                ],
                list(map(text, frame.gone)),
            ]
            for frame in story.film
        ],
    }


def _step(step: Step, lane: Mapping[int, int], table: _Table) -> list[Any]:
    """Lane, operation, object, outcome, site, preemption, and notes and clock where there are."""
    outcome = "" if step.outcome == "None" else step.outcome
    obj = "" if step.obj == "-" else step.obj
    row: list[Any] = [
        lane[step.thread],
        table.text(step.kind),
        table.text(obj),
        table.text(outcome),
        table.site(step.site),
        int(step.preemption),
    ]
    if step.note or step.clock:
        row += [list(step.note), step.clock]
    return row


def _wait(wait: Wait) -> Data:
    return {
        "thread": wait.thread,
        "wants": wait.wants,
        "holder": wait.holder,
        "at": _where(wait.site),
        "since": _where(wait.held_since),
    }


def _where(site: Site | None) -> str:
    return "" if site is None else f"{place(site)} in {_short(site.qualname)}"


def _short(qualname: str) -> str:
    return qualname.rpartition(".<locals>.")[2]


def graph_data(edges: Iterable[Nesting]) -> Data:
    """Nodes in layers, and edges with where they were first seen."""
    known = list(edges)
    return {
        "layers": layers([(edge.outer, edge.inner) for edge in known]),
        "edges": [
            {
                "outer": edge.outer,
                "inner": edge.inner,
                "step": edge.step,
                "said": _said(edge),
                "cyclic": edge.cyclic,
            }
            for edge in known
        ],
    }


def _said(edge: Nesting) -> str:
    parts = ["once" if edge.count == 1 else f"{edge.count:,} times"] if edge.count else []
    parts += [f"first by {edge.thread}"] if edge.thread else []
    parts += [f"at {_where(edge.site)}"] if edge.site is not None else []
    return ", ".join(parts)


def _sources(sites: Iterable[Site]) -> dict[str, dict[int, str]]:
    """The lines around every place, by file and number; none of files that are not here."""
    found: dict[str, dict[int, str]] = {}
    for site in sites:
        lines = source_lines(site.file)
        kept = found.setdefault(site.file, {})
        for number in range(max(1, site.line - _BEFORE), site.line + _AFTER + 1):
            if number <= len(lines):
                kept[number] = lines[number - 1].rstrip()[:_LINE_CHARS_MAX]
    return found


def _embedded(data: Data) -> str:
    """JSON that no parser of HTML takes for anything else."""
    # In ASCII, so that no name, not even one that is no proper Unicode, can spoil the file.
    text = json.dumps(data, separators=(",", ":"))
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def _plain(text: str) -> str:
    return html.escape(text.encode("utf-8", "replace").decode())


def _asset(name: str) -> str:
    return (_ASSETS / name).read_text(encoding="utf-8")


def _digest(script: str) -> str:
    """What the policy knows the one script by."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
