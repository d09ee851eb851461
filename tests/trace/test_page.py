"""The HTML report as a file: self-contained, safe, small, the same for the same schedule.

What it does in a browser is tested in tests/browser.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from harness import Mutex, Placed, Shared, explore, observe, parallel, yield_now
from harness.explore import Setup, record_schedule
from harness.search.minimize import explain
from harness.trace.document import as_json, document, trace_schema
from harness.trace.events import Story
from harness.trace.graph import cyclic, layers, nestings
from harness.trace.page import render, story_data

HOSTILE = "</script><script>alert(1)</script><!--data--> & \" ' \u2028 \0 <!--"


def story_of(program: Callable[[], object], number: int = 1) -> Story:
    return record_schedule(program, Setup(strategy="random", seed=2), number)[1]


def page_of(story: Story, title: str = "toy") -> str:
    return render(title, [story_data(title, [("this schedule", story)], facts={"seed": 2})])


class Read(HTMLParser):
    """Tags with their attributes, and the text inside of each script, as a browser has them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.title = ""
        self._inside = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts[-1] += data
        elif self._inside == "title":
            self.title += data

    @property
    def data(self) -> Any:
        return json.loads(self.scripts[0])


def deadlock() -> None:
    a, b = Mutex("a"), Mutex("b")

    def one() -> None:
        with a, b:
            pass

    def two() -> None:
        with b, a:
            pass

    parallel(one, two)


def deadlocked() -> tuple[Story, str]:
    for number in range(1, 50):
        failure, story = record_schedule(deadlock, Setup(strategy="random", seed=2), number)
        if failure is not None and failure.kind == "deadlock":
            return story, failure.token
    raise AssertionError("no schedule of 50 deadlocks")


def test_the_page_needs_nothing_from_outside() -> None:
    page = page_of(deadlocked()[0])
    read = Read(page)

    assert [tag for tag, _ in read.tags if tag in ("link", "img", "iframe", "base")] == []
    assert not any("src" in attrs or "href" in attrs for _, attrs in read.tags)
    assert "url(" not in page
    assert "import " not in read.scripts[1]
    policy = next(a["content"] for t, a in read.tags if t == "meta" and "http-equiv" in a)
    assert policy is not None
    assert policy.startswith("default-src 'none'; script-src 'sha256-")


def test_hostile_names_stay_data() -> None:
    def program() -> None:
        cell = Shared(0, HOSTILE)
        observe(lambda: {HOSTILE: Placed(HOSTILE, HOSTILE, HOSTILE, (HOSTILE,))})
        parallel(lambda: cell.set(1), cell.get, names=[HOSTILE, "b"])

    page = page_of(story_of(program), HOSTILE)
    read = Read(page)

    assert len(read.scripts) == 2
    assert Read(page_of(story_of(lambda: None))).scripts[1] == read.scripts[1]
    assert read.title == HOSTILE.replace("\0", "\N{REPLACEMENT CHARACTER}") or HOSTILE in read.title
    assert HOSTILE in read.data["stories"][0]["strings"]
    assert "alert(1)</script>" not in page


def test_a_text_that_is_no_unicode_is_shown_all_the_same() -> None:
    story = story_of(lambda: None)
    data = story_data("toy", [("this", story)], facts={"odd": "\udcff"}, text="\udcff")

    assert "odd" in render("toy", [data], text="\udcff").encode("utf-8").decode()


def test_the_same_schedule_gives_the_same_page() -> None:
    story, token = deadlocked()
    again = record_schedule(deadlock, Setup(strategy="random", seed=2), 1)

    assert page_of(story) == page_of(deadlocked()[0])
    assert again is not None
    assert token


def test_the_page_says_what_the_story_says() -> None:
    story, _ = deadlocked()
    (shown,) = Read(page_of(story)).data["stories"]
    (run,) = shown["runs"]
    strings = shown["strings"]

    assert shown["kind"] == "deadlock"
    assert {(w["thread"], w["wants"], w["holder"]) for w in shown["cycle"]} == {
        ("one", "b", "two"),
        ("two", "a", "one"),
    }
    assert [strings[row[1]] for row in run["steps"]] == [step.kind for step in story.steps]
    assert [lane for lane, *_ in run["ends"]] == [1, 2]
    file, line, _ = shown["sites"][run["steps"][-1][4]]
    assert "with " in shown["sources"][file][str(line)]


def test_the_pair_that_decides_is_shown_with_both_schedules() -> None:
    story, token = deadlocked()
    flip = explain(deadlock, token)
    assert flip is not None
    assert flip.passes
    assert [s.thread for s in flip.stories[0].steps][: flip.at] == [
        s.thread for s in flip.stories[1].steps
    ][: flip.at]
    assert flip.stories[0].kind == "deadlock"
    assert flip.stories[1].kind == ""
    assert story.kind == "deadlock"


def long_program(threads: int, rounds: int) -> Callable[[], None]:
    def program() -> None:
        locks = [Mutex(f"a lock with a rather long name {i}") for i in range(4)]
        boxes = {f"box{i}": 0 for i in range(8)}
        observe(lambda: {name: Placed(f"place {n % 5}", str(n)) for name, n in boxes.items()})

        def work(me: int) -> None:
            for i in range(rounds):
                with locks[(me + i) % 4]:
                    boxes[f"box{(me + i) % 8}"] += 1
                    yield_now()

        parallel(*(lambda me=me: work(me) for me in range(threads)))

    return program


def test_a_thousand_steps_are_far_below_two_megabytes() -> None:
    story = story_of(long_program(4, 84))

    assert len(story.steps) > 1000
    assert len(page_of(story).encode()) < 500_000


def test_the_trace_document_is_what_its_schema_says_and_the_same_each_time() -> None:
    story, _ = deadlocked()
    encoded = as_json(story, scenario="toy", seed=2)
    read = json.loads(encoded)
    schema = trace_schema()
    whole = schema["$defs"]["TraceDocument"]

    assert encoded == as_json(deadlocked()[0], scenario="toy", seed=2)
    assert set(read) == set(whole["properties"])
    assert set(whole["required"]) <= set(read)
    assert read["format"] == "lockloom-trace-1"
    assert len(read["story"]["steps"]) == len(document(story).story.steps) > 0
    assert set(read["story"]["steps"][0]) == set(schema["$defs"]["Step"]["properties"])


def test_the_lock_graph_has_both_orders_of_the_deadlock() -> None:
    edges = nestings(deadlocked()[0])

    assert {(edge.outer, edge.inner, edge.cyclic) for edge in edges} == {
        ("a", "b", True),
        ("b", "a", True),
    }
    assert all(edge.step and edge.thread for edge in edges)


@pytest.mark.parametrize(
    ("edges", "found"),
    [
        ([], []),
        ([("a", "b"), ("b", "c"), ("a", "c")], [["a"], ["b"], ["c"]]),
        ([("a", "b"), ("b", "a")], [["a"], ["b"]]),
        ([("a", "a"), ("a", "b")], [["a"], ["b"]]),
    ],
)
def test_layers_follow_the_order_of_nesting(
    edges: list[tuple[str, str]], found: list[list[str]]
) -> None:
    assert layers(edges) == found


def test_an_edge_is_cyclic_where_a_way_leads_back() -> None:
    edges = [("a", "b"), ("b", "c"), ("c", "b"), ("c", "d")]

    assert cyclic(edges) == {("b", "c"), ("c", "b")}


def test_no_asset_reaches_out_or_makes_html_of_text() -> None:
    script = Read(page_of(story_of(lambda: None))).scripts[1]

    assert not re.search(r"innerHTML|insertAdjacentHTML|document\.write|eval\(|fetch\(", script)
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", script)


def test_a_failure_draws_itself(tmp_path: Path) -> None:
    failure = explore(deadlock, "random", schedules=50).failure
    assert failure is not None
    page = failure.html(title="two locks")
    (shown,) = Read(page).data["stories"]

    assert (shown["title"], shown["kind"]) == ("two locks", "deadlock")
    assert shown["command"] == failure.command()
    assert dict(shown["facts"])["digest"] == failure.digest
    assert page == failure.html(title="two locks")
