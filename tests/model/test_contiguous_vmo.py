"""Contiguous VMOs, sequentially: what the kernel's own unit tests check."""

from __future__ import annotations

import pytest

from model import FaultPlan, Kernel, PageState, Status
from model.page import PAGE_SIZE, ZEROES


def presence(kernel, vmo):
    """Which pages are present; each judged as the kernel's decommit test judges it."""
    found = []
    provider = vmo.cow.page_source.provider
    for index, page in enumerate(kernel.pages_of(vmo)):
        own = provider.page_at(index * PAGE_SIZE)
        assert not own.loan_cancelled
        if page is None:
            assert own.loaned
        else:
            assert page is own
            assert not page.loaned
        found.append(page is not None)
    return found


def expected(total, absent):
    return [index not in absent for index in range(total)]


def test_create_has_every_page_and_loans_none(run):
    def program():
        kernel = Kernel(pages=8)
        vmo = kernel.lender(4)
        assert presence(kernel, vmo) == [True] * 4
        assert all(page and page.contents == ZEROES for page in kernel.pages_of(vmo))
        assert kernel.pmm.count_loaned_pages() == 0
        assert kernel.pmm.count_free_pages() == 4
        kernel.quiesce()
        kernel.destroy_all()

    run.once(program)


def test_decommit_in_overlapping_ranges(run):
    """W4, first part: after each step each page is present or loaned, as expected."""

    def program():
        kernel = Kernel(pages=20)
        vmo = kernel.lender(16)
        absent: set[int] = set()
        for first, count in ((1, 4), (0, 4), (15, 1), (0, 16)):
            assert kernel.decommit(vmo, first, count) is Status.OK
            absent.update(range(first, first + count))
            assert presence(kernel, vmo) == expected(16, absent)
            assert kernel.pmm.count_loaned_free_pages() == len(absent)
            assert kernel.pmm.count_free_pages() == 4
        kernel.quiesce()
        kernel.destroy_all()

    run.once(program)


def test_decommit_and_commit_with_a_living_borrower(run):
    """W4, second part: a borrower holds some of the pages; commit takes them all back."""

    def program():
        kernel = Kernel(pages=20)
        vmo = kernel.lender(8, absent=8)
        borrower = kernel.borrower(4)
        assert kernel.supply(borrower) is Status.OK
        lent = [page for page in kernel.pages_of(borrower) if page is not None and page.loaned]
        assert len(lent) == 4
        assert kernel.commit(vmo, 0, 4) is Status.OK
        assert presence(kernel, vmo) == expected(8, {4, 5, 6, 7})
        assert kernel.commit(vmo) is Status.OK
        assert presence(kernel, vmo) == [True] * 8
        assert all(page and page.contents == ZEROES for page in kernel.pages_of(vmo))
        assert kernel.pages_of(borrower) == [None] * 4
        assert kernel.pmm.count_loaned_pages() == 0
        kernel.quiesce()
        kernel.decommit(vmo)
        kernel.destroy_all()

    run.once(program)


def test_the_borrower_dies_first(run):
    def program():
        kernel = Kernel(pages=12)
        vmo = kernel.lender(4, absent=4)
        borrower = kernel.borrower(4)
        kernel.supply(borrower)
        kernel.destroy(borrower)
        assert kernel.pmm.count_loaned_free_pages() == 4
        assert kernel.commit(vmo) is Status.OK
        kernel.quiesce()
        kernel.destroy_all()

    run.once(program)


def test_the_lender_dies_first_and_its_pages_become_ordinary(run):
    """The borrower keeps the pages and their content."""

    def program():
        kernel = Kernel(pages=8)
        vmo = kernel.lender(2, absent=2)
        borrower = kernel.borrower(2)
        kernel.supply(borrower, content=b"precious")
        pages = kernel.pages_of(borrower)
        assert all(page is not None and page.loaned for page in pages)
        kernel.destroy(vmo)
        assert kernel.pages_of(borrower) == pages
        assert not any(page is not None and page.loaned for page in pages)
        assert kernel.read(borrower, 1) == (Status.OK, b"precious........")
        kernel.quiesce()
        kernel.destroy_all()

    run.once(program)


def test_decommit_is_not_supported_while_loaning_is_off(run):
    """W5."""

    def program():
        kernel = Kernel(pages=20)
        kernel.borrowing.set_loaning_enabled(False)
        vmo = kernel.lender(16)
        got = [kernel.decommit(vmo, *span) for span in ((1, 4), (0, 4), (15, 1))]
        assert presence(kernel, vmo) == [True] * 16
        return got

    assert run.once(program) == [Status.NOT_SUPPORTED] * 3


def test_decommitted_content_is_gone(run):
    """W6: fill, decommit, and read zeroes; what stayed keeps its content."""

    def program():
        kernel = Kernel(pages=8)
        vmo = kernel.lender(4)
        for page in range(4):
            assert kernel.write(vmo, page, b"\x42" * 16) is Status.OK
        assert kernel.decommit(vmo, 1, 2) is Status.OK
        assert presence(kernel, vmo) == expected(4, {1, 2})
        # A read of an absent page sees the zero page and commits nothing.
        assert kernel.read(vmo, 1) == (Status.OK, ZEROES)
        assert presence(kernel, vmo) == expected(4, {1, 2})
        assert kernel.commit(vmo) is Status.OK
        contents = [kernel.read(vmo, page)[1] for page in range(4)]
        assert contents == [b"\x42" * 16, ZEROES, ZEROES, b"\x42" * 16]
        kernel.quiesce()

    run.once(program)


def test_a_write_to_an_absent_page_commits_that_page(run):
    def program():
        kernel = Kernel(pages=8)
        vmo = kernel.lender(3, absent=3)
        assert kernel.write(vmo, 1, b"here") is Status.OK
        assert presence(kernel, vmo) == expected(3, {0, 2})
        assert kernel.read(vmo, 1)[1].startswith(b"here")

    run.once(program)


def test_ranges_outside_of_the_vmo_are_refused(run):
    def program():
        kernel = Kernel(pages=8)
        vmo = kernel.lender(2)
        return (
            kernel.decommit(vmo, 1, 2),
            kernel.commit(vmo, 1, 2),
            vmo.decommit_range(1, PAGE_SIZE),
            kernel.read(vmo, 2)[0],
            kernel.write(vmo, 2, b""),
        )

    assert run.once(program) == (
        Status.OUT_OF_RANGE,
        Status.OUT_OF_RANGE,
        Status.INVALID_ARGS,
        Status.OUT_OF_RANGE,
        Status.OUT_OF_RANGE,
    )


def test_there_may_be_no_run_of_pages(run):
    def program():
        kernel = Kernel(pages=4)
        kernel.lender(2)
        status, vmo = kernel.create_contiguous(3)
        assert vmo is None
        kernel.destroy_all()
        return status

    assert run.once(program) is Status.NO_MEMORY


def test_a_vmo_of_size_zero_is_never_initialised_and_dies_cleanly(run):
    def program():
        kernel = Kernel(pages=2)
        status, vmo = kernel.create_contiguous(0)
        assert status is Status.OK
        assert vmo is not None
        kernel.destroy_all()

    run.once(program)


def creation_fails(loaned, **options):
    """L5: no memory for the second page list node of a new lender of three pages."""

    def program():
        kernel = Kernel(pages=6, faults=FaultPlan.parse("page_list_node@2"), **options)
        status, vmo = kernel.create_contiguous(3)
        assert (status, vmo) == (Status.NO_MEMORY, None)
        assert kernel.pmm.count_loaned_pages() == loaned
        assert kernel.pmm.count_free_pages() == 6 - loaned
        kernel.quiesce()
        kernel.destroy_all()

    return program


@pytest.mark.parametrize("options", [{"revision": "seed"}, {"defects": {"L5"}}])
def test_a_lender_whose_creation_fails_leaves_its_pages_loaned(run, options):
    failure = run.finding(creation_fails(3, **options))
    assert "I12" in failure.message or "I32" in failure.message


@pytest.mark.parametrize("options", [{"revision": "fixed"}, {"defects": {"L1", "L2", "L3", "L4"}}])
def test_pages_of_a_lender_that_never_came_to_be_are_ordinary_again(run, options):
    run.once(creation_fails(0, **options))


def test_closed_handles_are_refused(run):
    def program():
        kernel = Kernel(pages=4)
        vmo = kernel.lender(1)
        kernel.destroy(vmo)
        return {
            kernel.commit(vmo),
            kernel.decommit(vmo),
            kernel.supply(vmo),
            kernel.detach(vmo),
            kernel.read(vmo)[0],
            kernel.write(vmo, 0, b""),
            kernel.begin_commit(vmo).wait(),
        }

    assert run.once(program) == {Status.BAD_HANDLE}


def test_a_reclaimed_page_is_taken_from_eviction_not_copied(run):
    """The borrower loses exactly the page that the lender takes back."""

    def program():
        kernel = Kernel(pages=8)
        vmo = kernel.lender(2, absent=2)
        borrower = kernel.borrower(2)
        kernel.supply(borrower)
        first, second = kernel.pages_of(borrower)
        assert first is not None
        assert second is not None
        index = first.index
        assert kernel.commit(vmo, index, 1) is Status.OK
        assert kernel.pages_of(borrower) == [None, second]
        assert first.state.peek() is PageState.OBJECT
        assert kernel.counters["physical.reclaim.total_requests"] == 1
        assert kernel.counters["physical.reclaim.succeeded_requests"] == 1
        assert kernel.counters["physical.reclaim.failed_requests"] == 0
        kernel.quiesce()

    run.once(program)


def test_dump_names_what_there_is(run):
    def program():
        kernel = Kernel(pages=4)
        vmo = kernel.lender(2, "camera", absent=1)
        pending = kernel.begin_commit(vmo)
        text = kernel.dump()
        pending.cancel()
        return text

    text = run.once(program)
    assert "pmm free 2 free-loaned 1 loaned 1 cancelled 0" in text
    assert "vm_cow_pages camera size 0x2000" in text
    assert "physical_page_provider camera.provider" in text
    assert "pending request1 [0x1000, 0x2000)" in text
