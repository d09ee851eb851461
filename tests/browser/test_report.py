"""The HTML report in a real browser: it shows what the story says, by mouse and by keyboard."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page
from stress_cli import run_stress

from harness import (
    Atomic,
    Event,
    LockClass,
    Mutex,
    Placed,
    Shared,
    explore,
    observe,
    parallel,
    spawn,
    yield_now,
)
from harness.engine.view import Placed as Shown
from harness.explore import Setup, minimize, record_schedule, replay, replay_story
from harness.search.recording import Failure
from harness.trace.events import Story
from harness.trace.page import render, story_data
from stress import catalogue
from stress.catalogue import Spec, program_of
from stress.work import picture_of

HOSTILE = "<img src=x onerror=alert(1)></script><script>alert(2)</script>"
SECONDS_MAX = 3.0
# Drags the slider through all steps, and says where everything was at each.
WHOLE_FILM = """(last) => Array.from({ length: last }, (_, at) => {
  slider.value = at + 1;
  slider.dispatchEvent(new Event("input"));
  return Object.fromEntries([...document.querySelectorAll(".thing")].map((thing) => [
    thing.dataset.thing, thing.closest(".place").querySelector("h4").textContent]));
})"""
# Texts of rows that a point of an arrow lies on; the line of a text has room above and below.
CROSSED = """() => [...document.querySelectorAll(".row .text")].filter((text) => {
  const range = document.createRange();
  range.selectNodeContents(text);
  const box = range.getBoundingClientRect();
  const right = Math.min(box.right, text.getBoundingClientRect().right);
  return [...document.querySelectorAll(".lanes path.arrow")].some((arrow) => {
    const at = arrow.getScreenCTM();
    const length = arrow.getTotalLength();
    return Array.from({ length: Math.ceil(length) + 1 }, (_, n) =>
      arrow.getPointAtLength(Math.min(n, length)).matrixTransform(at))
      .some(({ x, y }) => box.left < x && x < right && box.top + 2 < y && y < box.bottom - 2);
  });
}).map((text) => text.textContent)"""
# Edges of a lock graph that leave its frame.
CUT_OFF = """() => [...document.querySelectorAll(".graph svg")].flatMap((graph) => {
  const frame = graph.getBoundingClientRect();
  return [...graph.querySelectorAll(".edge")].map((edge) => edge.getBoundingClientRect())
    .filter((box) => box.top < frame.top || box.bottom > frame.bottom);
}).length"""


def hand_over() -> None:
    """Two threads that take two locks in opposite orders, after some work of their own."""
    left, right = Mutex("left"), Mutex("right")
    moved = {"ball": "nobody"}
    observe(lambda: {"ball": Placed(f"held by {moved['ball']}", state="ball")})

    def give() -> None:
        with left:
            moved["ball"] = "give"
            with right:
                pass

    def take() -> None:
        with right:
            moved["ball"] = "take"
            with left:
                pass

    parallel(give, take)


def failing(program: Callable[[], object], kind: str) -> Failure:
    report = explore(program, "dfs", schedules=None, stop_at_first=False)
    token = next(failure.token for failure in report.failures if failure.kind == kind)
    failure = replay(program, token)
    assert failure is not None
    return failure


@contextmanager
def opened(browser: Browser, path: Path, **options: Any) -> Iterator[Page]:
    """The page; fails where it says anything on the console or asks for any other file."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, **options)
    page = context.new_page()
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: said.append(f"error: {error}"))
    page.on("dialog", lambda dialog: said.append(f"dialog: {dialog.message}"))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(path.as_uri())
    page.wait_for_selector("html[data-ready]")
    yield page
    assert said == []
    assert asked == [path.as_uri()]
    context.close()


@pytest.fixture(scope="module")
def deadlock(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Story]:
    failure = failing(hand_over, "deadlock")
    path = tmp_path_factory.mktemp("deadlock") / "report.html"
    path.write_text(failure.html(title="hand_over"), encoding="utf-8")
    return path, failure.story()


@pytest.fixture(scope="module")
def lost_page(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Story]:
    """The defect L2 of the seed: pages that belong to a lender end up on the free list."""
    entry = catalogue.find("supply-fails")
    spec = Spec(entry.name, revision="seed", defects=("L2",))
    program = program_of(spec)
    setup = Setup(strategy="pct", meta=spec.meta())
    found = next(
        failure
        for number in range(1, 400)
        if (failure := record_schedule(program, setup, number)[0]) is not None
    )
    token = minimize(program, found).token
    story = replay_story(program, token)[1]
    data = picture_of(spec, token, pair=True)
    path = tmp_path_factory.mktemp("lost") / "report.html"
    path.write_text(render(entry.name, [data or {}]), encoding="utf-8")
    return path, story


def now(page: Page) -> int:
    return int(page.locator("#slider").input_value())


def height(page: Page) -> int:
    """Of all rows together, in sight or not."""
    return int(page.evaluate("document.querySelector('.sheet').clientHeight"))


def film(page: Page) -> dict[str, tuple[str, str]]:
    """Place and text of every thing that the page shows."""
    found: dict[str, tuple[str, str]] = page.evaluate(
        """() => Object.fromEntries([...document.querySelectorAll(".thing")].map((thing) => [
            thing.dataset.thing,
            [thing.closest(".place").querySelector("h4").textContent, thing.textContent]]))"""
    )
    return {name: (place, text) for name, (place, text) in found.items()}


def told(story: Story, step: int) -> dict[str, Shown]:
    """What the story has at that step."""
    shown: dict[str, Shown] = {}
    for frame in story.film:
        if frame.step <= step:
            shown.update(frame.changed)
            for name in frame.gone:
                del shown[name]
    return shown


def assert_shows(page: Page, story: Story, step: int) -> None:
    """Lanes, cursor and film are at ``step``, and say of it what the story says."""
    assert now(page) == step
    row = story.steps[step - 1]
    marked = page.locator(".row.now")
    assert marked.count() == 1
    assert row.kind in marked.inner_text()
    cursor = page.locator(".cursor").inner_text()
    assert f"step {step}\n" in cursor
    assert str(row.site) in cursor
    assert all(lock in cursor for lock in row.held)
    assert page.locator(".source .here .no").inner_text() == str(row.site.line if row.site else "")
    shown = film(page)
    wanted = told(story, step)
    assert {name: place for name, (place, _) in shown.items()} == {
        name: placed.place for name, placed in wanted.items()
    }
    for name, placed in wanted.items():
        for part in (placed.at, placed.state, *placed.marks):
            assert part in shown[name][1]


# -- one failure ----------------------------------------------------------------------------------


def test_a_deadlock_is_told_in_words_before_any_picture(
    browser: Browser, deadlock: tuple[Path, Story], pictures: Path
) -> None:
    path, story = deadlock
    with opened(browser, path) as page:
        assert page.locator("h1").inner_text() == "✗ deadlock in hand_over"
        happened = page.locator("ol.happened").inner_text()
        for wait in story.cycle:
            assert f"{wait.thread} waits for {wait.wants}, held by {wait.holder}" in happened
        assert page.locator(".row.end").count() == 2
        assert "✗ deadlock" in page.locator(".rows").inner_text()
        assert page.locator(".graph .edge.cyclic").count() == 2
        page.screenshot(path=pictures / "deadlock.png")


def test_the_slider_moves_lanes_cursor_and_film_together(
    browser: Browser, lost_page: tuple[Path, Story]
) -> None:
    path, story = lost_page
    with opened(browser, path) as page:
        slider = page.locator("#slider")
        for step in sorted({1, 2, len(story.steps) // 3, len(story.steps) // 2, len(story.steps)}):
            slider.fill(str(step))
            assert_shows(page, story, step)


def test_the_keyboard_moves_it_too(browser: Browser, lost_page: tuple[Path, Story]) -> None:
    path, story = lost_page
    with opened(browser, path) as page:
        page.keyboard.press("Home")
        assert_shows(page, story, 1)
        page.keyboard.press("ArrowRight")
        page.keyboard.press("j")
        assert_shows(page, story, 3)
        page.keyboard.press("ArrowLeft")
        assert_shows(page, story, 2)
        page.keyboard.press("n")
        at = now(page)
        assert story.steps[at - 1].thread != story.steps[at - 2].thread
        page.keyboard.press("p")
        assert now(page) < at
        page.keyboard.press("End")
        assert now(page) == len(story.steps) + 1
        # On the slider itself its own keys work, once each.
        page.locator("#slider").focus()
        page.keyboard.press("ArrowLeft")
        assert_shows(page, story, len(story.steps))


def test_every_step_of_the_film_is_the_storys(
    browser: Browser, lost_page: tuple[Path, Story], pictures: Path
) -> None:
    path, story = lost_page
    with opened(browser, path) as page:
        shown = page.evaluate(WHOLE_FILM, len(story.steps))
        for step, places in enumerate(shown, 1):
            assert places == {name: p.place for name, p in told(story, step).items()}
        page.keyboard.press("End")
        assert story.message.splitlines()[-1] in page.locator(".cursor pre").inner_text()
        # The page that the message names is marked, and leads to where it went astray.
        (named,) = page.locator(".thing.named").all()
        name = named.get_attribute("data-thing")
        page.screenshot(path=pictures / "lost-page.png", full_page=False)
        named.click()
        assert name in next(f for f in story.film if f.step == now(page)).changed


def test_quiet_steps_are_folded_and_a_click_opens_them(
    browser: Browser, lost_page: tuple[Path, Story]
) -> None:
    path, story = lost_page
    with opened(browser, path) as page:
        page.keyboard.press("Home")
        fold = page.locator(".row.fold").first
        hidden = int(fold.inner_text().split()[1])
        before = height(page)
        fold.click()
        assert height(page) == before + (hidden - 1) * 22
        page.keyboard.press("f")
        assert page.locator(".row.fold").count() == 0
        assert height(page) >= len(story.steps) * 22


def test_no_arrow_crosses_a_text(
    browser: Browser, lost_page: tuple[Path, Story], deadlock: tuple[Path, Story]
) -> None:
    for path, story in (lost_page, deadlock):
        with opened(browser, path) as page:
            assert page.locator("path.arrow").count() >= len(story.final) - 1
            assert page.evaluate(CROSSED) == []


def test_the_passing_order_stands_beside_the_failing_one(
    browser: Browser, deadlock: tuple[Path, Story]
) -> None:
    path, story = deadlock
    with opened(browser, path) as page:
        assert page.locator("tr.pair").count() == 2
        page.get_by_role("button", name="nearest that passes").click()
        page.keyboard.press("End")
        assert "✗" not in page.locator(".rows").inner_text()
        assert now(page) > len(story.steps)
        page.get_by_role("button", name="this schedule").click()
        assert "✗ deadlock" in page.locator(".rows").inner_text()


def test_an_edge_of_the_lock_graph_leads_to_where_it_was_made(
    browser: Browser, deadlock: tuple[Path, Story]
) -> None:
    path, story = deadlock
    with opened(browser, path) as page:
        edge = page.locator(".graph g[role=button]").first
        edge.focus()
        page.keyboard.press("Enter")
        assert now(page) == len(story.steps) + 1  # wanted, and never had


def order() -> None:
    first, second = Mutex("first", LockClass("First")), Mutex("second", LockClass("Second"))
    with first, second:
        pass

    def other_way() -> None:
        with second, first:
            pass

    spawn(other_way).join()


def asleep() -> None:
    event = Event("event")
    parallel(event.wait, yield_now)


def spinning() -> None:
    flag = Atomic(0, "flag")

    def spin() -> None:
        while not flag.load():
            yield_now()

    parallel(spin, spin)


def forgetful() -> None:
    lock = Mutex("lock")
    parallel(lock.acquire, yield_now)


def racing() -> None:
    cell = Shared(0, "cell")
    parallel(lambda: cell.set(1), lambda: cell.set(2))


def at_once() -> None:
    raise ValueError("before any step")


@pytest.mark.parametrize(
    ("program", "kind"),
    [
        (order, "lock-order"),
        (asleep, "lost-wakeup"),
        (spinning, "livelock"),
        (forgetful, "leak"),
        (racing, "data-race"),
        (at_once, "exception"),
    ],
)
def test_a_failure_of_any_kind_is_shown(
    browser: Browser, tmp_path: Path, program: Callable[[], None], kind: str
) -> None:
    races = kind == "data-race"
    failure = explore(program, "random", schedules=20, steps_max=2_500, races=races).failure
    assert failure is not None
    assert failure.kind == kind
    path = tmp_path / "report.html"
    path.write_text(failure.html(), encoding="utf-8")
    with opened(browser, path) as page:
        assert page.locator("h1").inner_text().startswith(f"✗ {kind} in ")
        assert failure.message.splitlines()[0] in page.locator("header").inner_text()
        for key in ("Home", "ArrowRight", "n", "f", "End", "f"):
            page.keyboard.press(key)
        last = page.locator("#slider")
        assert last.count() == (failure.steps > 0)
        assert not last.count() or int(last.input_value()) >= failure.steps


# -- what holds of every page ---------------------------------------------------------------------


def test_hostile_names_are_shown_as_they_are(browser: Browser, tmp_path: Path) -> None:
    def program() -> None:
        lock = Mutex(HOSTILE)
        cell = Shared(0, HOSTILE)
        observe(lambda: {HOSTILE: Placed(HOSTILE, HOSTILE, HOSTILE, (HOSTILE,))})

        def work() -> None:
            with lock:
                cell.set(cell.get() + 1)
            raise ValueError(HOSTILE)

        parallel(work, work, names=[HOSTILE, "other"])

    failure = explore(program, "random", schedules=50).failure
    assert failure is not None
    path = tmp_path / "hostile.html"
    path.write_text(failure.html(title=HOSTILE, command=HOSTILE), encoding="utf-8")
    with opened(browser, path) as page:
        assert page.locator("img").count() == 0
        assert page.locator("script").count() == 2
        assert HOSTILE in page.locator("h1").inner_text()
        assert HOSTILE in page.locator(".film").inner_text()


def test_twenty_thousand_steps_open_in_three_seconds(browser: Browser, tmp_path: Path) -> None:
    def program() -> None:
        locks = [Mutex(f"lock {i}") for i in range(4)]
        boxes = {f"box{i}": 0 for i in range(8)}
        observe(lambda: {name: Placed(f"place {n % 5}", str(n)) for name, n in boxes.items()})

        def work(me: int) -> None:
            for i in range(1667):
                with locks[(me + i) % 4]:
                    boxes[f"box{(me + i) % 8}"] = i % 7
                    yield_now()

        parallel(*(lambda me=me: work(me) for me in range(4)))

    story = record_schedule(program, Setup(strategy="random", steps_max=30_000), 1)[1]
    assert len(story.steps) > 20_000
    data = story_data("long", [("this schedule", story)], facts={})
    path = tmp_path / "long.html"
    path.write_text(render("long", [data]), encoding="utf-8")
    with opened(browser, path) as page:
        opening = page.evaluate("performance.getEntriesByType('navigation')[0].duration") / 1000
        assert opening < SECONDS_MAX
        page.locator("#slider").fill("10000")
        assert_shows(page, story, 10_000)
        page.keyboard.press("f")
        # Whatever the length, only what is in sight is in the document.
        assert page.locator(".row").count() < 120


def test_it_follows_the_systems_light_and_dark(
    browser: Browser, deadlock: tuple[Path, Story]
) -> None:
    path, _ = deadlock
    seen = []
    for scheme in ("light", "dark"):
        with opened(browser, path, color_scheme=scheme) as page:
            color = page.evaluate("getComputedStyle(document.body).backgroundColor")
            seen.append(sum(map(int, color[4:-1].split(","))))
    assert seen[0] > 700
    assert seen[1] < 150


def test_everything_can_be_reached_and_has_a_name(
    browser: Browser, lost_page: tuple[Path, Story]
) -> None:
    path, _ = lost_page
    with opened(browser, path) as page:
        nameless = page.evaluate(
            """() => [...document.querySelectorAll("button, input, select, [role=button]")]
              .filter((node) => !(node.getAttribute("aria-label") || node.textContent.trim()))
              .map((node) => node.outerHTML)"""
        )
        assert nameless == []
        for _ in range(12):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.id") == "slider":
                break
        else:
            raise AssertionError("the slider cannot be reached by Tab")
        page.set_viewport_size({"width": 700, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth") <= 700


# -- a campaign -----------------------------------------------------------------------------------


def test_a_campaign_leads_from_each_finding_to_its_story(
    browser: Browser, tmp_path: Path, pictures: Path
) -> None:
    names = ["commit-evictor", "close-lender", "mixed", "canary"]
    options = ["--schedules", "200", "--html", "campaign.html", "--json"]
    ran = run_stress(tmp_path, "run", *names, *options, scenarios=None)
    *_, canary = ran.json["scenarios"]
    (failure,) = canary["failures"]
    with opened(browser, tmp_path / "campaign.html") as page:
        assert page.locator("h1").first.inner_text() == "fail: 4 scenarios"
        shown = page.locator(".campaign").inner_text()
        for scenario in ran.json["scenarios"]:
            assert f"{scenario['steps']:,}" in shown
        assert page.locator(".meter").count() == 4
        assert page.locator("figure path").count() >= 6
        assert page.locator(".campaign .graph .edge").count() > 5
        page.screenshot(path=pictures / "campaign.png")
        assert "fail, as it must" in shown
        assert "assertion, expected" in shown
        assert page.evaluate(CUT_OFF) == 0
        page.get_by_role("button", name=failure["fingerprint"]).click()
        assert page.locator("#story h1").inner_text() == "✗ assertion in canary"
