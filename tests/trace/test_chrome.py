"""The trace for the Perfetto UI: its format, its lanes, and how many slices and flows it has."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest

from harness import Condition, Mutex, parallel, yield_now
from harness.explore import Setup, record_schedule
from harness.trace.chrome import ChromeTrace, of_story
from harness.trace.events import Story
from harness.trace.lanes import arrows, holds, waits

Event = dict[str, Any]
# What each phase must have, by the format's own document.
NEEDED: dict[str, dict[str, type]] = {
    "X": {"ts": int, "dur": int, "name": str, "cat": str, "args": dict},
    "i": {"ts": int, "s": str, "name": str, "cat": str},
    "s": {"ts": int, "id": int, "name": str, "cat": str},
    "f": {"ts": int, "id": int, "name": str, "cat": str, "bp": str},
    "C": {"ts": int, "name": str, "args": dict},
    "M": {"name": str, "args": dict},
}


def exchange() -> None:
    """Two consumers and a producer: holds, waits, wakes and hand-offs."""
    ready = Condition(Mutex("m"))
    extra = Mutex("extra")
    box: list[int] = []

    def consumer() -> None:
        with ready:
            while not box:
                ready.wait()
            box.pop()
            extra.acquire()
        extra.release()  # outlives the other: the two do not nest

    def producer() -> None:
        for item in range(2):
            yield_now()
            with ready:
                box.append(item)
                ready.notify()

    parallel(consumer, consumer, producer)


def story_of(number: int) -> Story:
    return record_schedule(exchange, Setup(strategy="random", seed=5), number)[1]


def events(story: Story) -> list[Event]:
    document = json.loads(of_story(story, scenario="exchange", seed=5))
    assert set(document) == {"traceEvents", "displayTimeUnit", "otherData"}
    assert document["otherData"] == {"scenario": "exchange", "seed": 5}
    found: list[Event] = document["traceEvents"]
    return found


@pytest.mark.parametrize("number", range(1, 9))
def test_every_event_has_what_its_phase_needs(number: int) -> None:
    for event in events(story_of(number)):
        assert event["ph"] in NEEDED
        assert type(event["pid"]) is int
        assert type(event["tid"]) is int
        for field, kind in NEEDED[event["ph"]].items():
            assert type(event[field]) is kind, (event, field)


@pytest.mark.parametrize("number", range(1, 9))
def test_there_is_a_slice_for_each_step_hold_and_wait_and_a_flow_for_each_arrow(
    number: int,
) -> None:
    story = story_of(number)
    drawn = events(story)
    slices = Counter(event["cat"] for event in drawn if event["ph"] == "X")
    flows = Counter(event["cat"] for event in drawn if event["ph"] == "s")

    assert slices["step"] == len(story.steps)
    assert slices["hold"] == len(holds(story)) > 0
    assert slices["wait"] == len(waits(story))
    assert flows == Counter(arrow.kind for arrow in arrows(story))
    assert flows["start"] == 3


@pytest.mark.parametrize("number", range(1, 9))
def test_slices_of_a_lane_nest_and_flows_join_two_of_them(number: int) -> None:
    """What the UI cannot draw, it drops without a word."""
    drawn = events(story_of(number))
    lanes: dict[int, list[tuple[int, int]]] = {}
    for event in drawn:
        if event["ph"] == "X":
            assert event["dur"] > 0
            lanes.setdefault(event["tid"], []).append((event["ts"], event["ts"] + event["dur"]))
    for spans in lanes.values():
        ends: list[int] = []
        for begin, end in sorted(spans, key=lambda span: (span[0], -span[1])):
            while ends and ends[-1] <= begin:
                ends.pop()
            assert not ends or end <= ends[-1]
            ends.append(end)
    pairs: dict[int, list[str]] = {}
    for event in drawn:
        if event["ph"] in "sf":
            pairs.setdefault(event["id"], []).append(event["ph"])
            assert any(a <= event["ts"] < b for a, b in lanes[event["tid"]]), event
    assert all(pair == ["s", "f"] for pair in pairs.values())


def test_lanes_are_named_and_ordered() -> None:
    named = [e for e in events(story_of(1)) if e["ph"] == "M" and e["name"] == "thread_name"]
    names = [event["args"]["name"] for event in sorted(named, key=lambda event: event["tid"])]

    assert names[0] == "0 main"
    assert [name for name in names if not name.endswith("holds")] == [
        "0 main",
        "1 consumer",
        "2 consumer#2",
        "3 producer",
    ]
    assert names.count("1 consumer holds") == 2  # m and extra, which overlap


def test_the_writer_draws_what_has_no_schedule() -> None:
    """Another exporter needs no more than this."""
    trace = ChromeTrace("audit")
    trace.lane(1, "a lane")
    trace.slice(1, "hold", 10, 12, "hold", lock="x")
    trace.counter("locks", 10, {"held": 1})
    trace.instant(1, "finding", 11, "finding")
    trace.flow("next", "hand-off", (1, 10), (1, 11))
    document = json.loads(trace.encode(log="locks.jsonl"))

    assert Counter(event["ph"] for event in document["traceEvents"]) == Counter("MMMXCisf")
    assert document["otherData"] == {"log": "locks.jsonl"}
