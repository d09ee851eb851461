"""The audit's page in a real browser: the circle, what could happen, and nothing asked for."""

from __future__ import annotations

from pathlib import Path

from locklogs import write
from playwright.sync_api import Browser

from stress.audit import audit_paths
from stress.audit_html import page

# Three classes in a circle; the edge that closes it was made once, the others often.
OFTEN = "T1: +aspace1 +vmo1 -vmo1 -aspace1; T2: +vmo1 +queues1 -queues1 -vmo1"
RING = f"{OFTEN}; {OFTEN}; T3: +queues1 +aspace1 -aspace1 -queues1"


def test_a_circle_of_three_is_drawn_without_asking_for_anything(
    browser: Browser, tmp_path: Path, pictures: Path
) -> None:
    path = tmp_path / "audit.html"
    path.write_text(page(audit_paths([write(tmp_path / "x.jsonl", RING)])), encoding="utf-8")
    context = browser.new_context(viewport={"width": 960, "height": 900})
    shown = context.new_page()
    asked: list[str] = []
    said: list[str] = []
    shown.on("request", lambda request: asked.append(request.url))
    shown.on("console", lambda message: said.append(message.text))
    shown.goto(path.as_uri())
    assert asked == [path.as_uri()]
    assert said == []
    assert shown.locator("h1").inner_text() == "Lock-order audit: fail"
    lanes = shown.locator("svg").first
    for text in ("lock(aspace aspace1)", "lock(vmo vmo1)", "lock(queues queues1)"):
        assert lanes.get_by_text(text, exact=True).is_visible()
    assert shown.locator("svg path.edge.wrong").count() >= 3
    # Nothing is cut off: every drawing is as wide as what is in it.
    for at in range(shown.locator("svg").count()):
        box = shown.locator("svg").nth(at).bounding_box()
        assert box is not None
        for name in shown.locator("svg").nth(at).locator("text").all():
            inside = name.bounding_box()
            assert inside is not None
            assert inside["x"] >= box["x"]
            assert inside["x"] + inside["width"] <= box["x"] + box["width"]
    shown.screenshot(path=pictures / "audit.png")
    context.close()
