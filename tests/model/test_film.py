"""The page film: where every physical page is, at every step."""

from __future__ import annotations

from harness.engine.view import Placed
from harness.explore import Setup, record_schedule
from harness.trace.events import Story
from model.film import LIMBO, page_film
from model.kernel import Kernel
from model.page import VmPage
from stress import catalogue
from stress.catalogue import Spec, program_of


def recorded(name: str, schedule: int = 1) -> Story:
    entry = catalogue.find(name)
    return record_schedule(
        program_of(Spec(name)), Setup(strategy="random", steps_max=entry.steps_max), schedule
    )[1]


def way_of(story: Story, page: str) -> list[tuple[str, str, str]]:
    """Every place that a page is shown in, one after the other."""
    way: list[tuple[str, str, str]] = []
    for frame in story.film:
        placed = frame.changed.get(page)
        if placed is not None and (placed.place, placed.at, placed.state) not in way[-1:]:
            way.append((placed.place, placed.at, placed.state))
    return way


def test_a_page_goes_from_the_free_list_into_its_vmo_and_on_loan() -> None:
    def program() -> None:
        kernel = Kernel(pages=2)
        lender = kernel.lender(1, absent=1)
        kernel.destroy(lender)

    story = record_schedule(program, Setup(strategy="random"), 1)[1]

    assert way_of(story, "page0") == [
        ("free list", "", "FREE"),
        (LIMBO, "", "FREE"),
        (LIMBO, "", "ALLOC"),
        (LIMBO, "", "OBJECT"),
        ("lender1", "0x0", "OBJECT"),
        (LIMBO, "", "OBJECT"),
        ("free, loaned", "", "FREE"),
        ("free list", "", "FREE"),
    ]
    assert way_of(story, "page1") == [("free list", "", "FREE")]


def test_a_page_in_a_threads_hands_is_shown_on_its_stack() -> None:
    places = [place for place, _, _ in way_of(recorded("commit-evict-page"), "page0")]

    assert "borrower1" in places
    assert "stack of evictor" in places


def test_the_last_picture_is_how_the_kernel_is_left() -> None:
    kernels: list[Kernel] = []

    def program() -> None:
        kernel = Kernel(pages=4)
        kernels.append(kernel)
        lender = kernel.lender(2, absent=1)
        borrower = kernel.borrower(1)
        kernel.supply(borrower)
        assert lender.alive

    story = record_schedule(program, Setup(strategy="random"), 1)[1]
    shown: dict[str, Placed] = {}
    for frame in story.film:
        shown.update(frame.changed)

    assert shown == page_film(kernels[-1].pmm)
    assert [name for name, placed in shown.items() if placed.place == "borrower1"] == ["page1"]
    assert shown["page1"].marks[:2] == ("of lender1", "loaned")


def test_looking_is_no_operation_and_costs_exploring_nothing() -> None:
    def program() -> None:
        kernel = Kernel(pages=1)
        (page,) = kernel.pmm.pages
        assert isinstance(page, VmPage)
        before = (page.state.peek(), page.word.peek())
        page_film(kernel.pmm)
        assert before == (page.state.peek(), page.word.peek())

    assert len(record_schedule(program, Setup(strategy="random"), 1)[1].steps) == 0
