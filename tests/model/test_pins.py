"""Pins: what is pinned is present, ordinary, wired, and stays until it is unpinned."""

from __future__ import annotations

import pytest

from harness import parallel, spawn
from model import Kernel, Status
from model.cow_pins import PIN_COUNT_MAX
from model.faults import FaultPlan
from model.page import PageQueue


def borrowed(kernel, pages=1, **options):
    """A borrower whose pages are all loaned ones."""
    vmo = kernel.borrower(pages, **options)
    assert kernel.supply(vmo) is Status.OK
    assert all(page.loaned for page in kernel.pages_of(vmo))
    return vmo


def pin(kernel, *where, **options):
    status, pinned = kernel.pin(*where, **options)
    assert status is Status.OK
    assert pinned is not None
    return pinned


def attempt(kernel, *where):
    return kernel.pin(*where)[0]


def pages_of(kernel, vmo):
    return kernel.pages_of(vmo)


def test_w3_a_pin_of_a_lender_brings_its_own_pages_home(run):
    """Commit, pin and decommit accounting of one contiguous VMO."""

    def program():
        kernel = Kernel(pages=4)
        lender = kernel.lender(4, absent=3)
        home = [kernel.pmm.pages[n] for n in range(4)]
        assert kernel.attributed(lender) == 1
        pinned = pin(kernel, lender, 1, 2)
        assert pages_of(kernel, lender) == [*home[:3], None]
        assert kernel.attributed(lender) == 3
        assert kernel.pinned_pages(lender) == 2
        assert [page.page_queue for page in home[:3]] == [
            PageQueue.UNSWAPPABLE,
            PageQueue.WIRED,
            PageQueue.WIRED,
        ]
        assert kernel.decommit(lender, 0, 2) is Status.BAD_STATE
        assert kernel.decommit(lender, 0, 1) is Status.OK
        kernel.unpin(pinned)
        assert kernel.decommit(lender, 1, 2) is Status.OK
        assert kernel.attributed(lender) == kernel.pinned_pages(lender) == 0
        kernel.quiesce()
        kernel.destroy_all()

    run.once(program)


def test_w3_pins_of_one_page_are_counted(run):
    def program():
        kernel = Kernel(pages=2)
        lender = kernel.lender(2)
        first, second = pin(kernel, lender), pin(kernel, lender, 0, 1)
        assert [page.pin_count for page in pages_of(kernel, lender)] == [2, 1]
        kernel.unpin(first)
        assert [page.pin_count for page in pages_of(kernel, lender)] == [1, 0]
        assert kernel.decommit(lender) is Status.BAD_STATE
        kernel.unpin(second)
        assert kernel.decommit(lender) is Status.OK

    run.once(program)


def test_a_pin_of_a_borrower_replaces_its_loaned_pages(run):
    def program():
        kernel = Kernel(pages=6)
        lender = kernel.lender(2, absent=2)
        vmo = borrowed(kernel, 2)
        before = pages_of(kernel, vmo)
        pinned = pin(kernel, vmo, 1, 1)
        after = pages_of(kernel, vmo)
        assert after[0] is before[0]
        assert after[1] is not before[1]
        assert not after[1].loaned
        assert after[1].contents == b"pager..........."
        assert not kernel.evict_page(vmo, 1)
        # The commit takes page 0 away, and leaves what is pinned.
        assert kernel.commit(lender) is Status.OK
        assert pages_of(kernel, vmo) == [None, after[1]]
        kernel.unpin(pinned)
        assert after[1].page_queue is PageQueue.PAGER_BACKED
        kernel.quiesce()
        kernel.destroy_all()

    run.once(program)


def test_a_vmo_that_was_ever_pinned_borrows_no_more(run):
    def program():
        kernel = Kernel(pages=6)
        kernel.lender(1, absent=1)
        vmo = kernel.borrower(1)
        kernel.supply(vmo)
        kernel.unpin(pin(kernel, vmo))
        assert kernel.evict_page(vmo)
        assert kernel.supply(vmo) is Status.OK
        assert not pages_of(kernel, vmo)[0].loaned
        assert kernel.replace_page(vmo, with_loaned=True) is Status.NOT_SUPPORTED

    run.once(program)


def test_a_pin_needs_an_ordinary_page_for_each_loaned_one(run):
    """All or nothing: one page can be replaced, the next cannot."""

    def program():
        kernel = Kernel(pages=6)
        kernel.lender(2, absent=2)
        vmo = borrowed(kernel, 2)
        _, kept = kernel.pmm.alloc_pages(3)
        status, pinned = kernel.pin(vmo)
        assert (status, pinned) == (Status.NO_MEMORY, None)
        assert kernel.pinned_pages(vmo) == 0
        kernel.quiesce(held=kept)
        return [page.loaned for page in pages_of(kernel, vmo)]

    assert run.once(program) == [False, True]


def test_an_absent_page_of_a_borrower_comes_from_its_pager_first(run):
    def program():
        kernel = Kernel(pages=4)
        vmo = kernel.borrower(2)
        kernel.supply(vmo, 0, 1)
        pinner = spawn(lambda: kernel.pin(vmo), name="pinner")
        while not kernel.answer_pager(vmo):
            assert pinner.is_alive()
        pinner.join()
        status, pinned = pinner.result
        assert status is Status.OK
        assert kernel.pinned_pages(vmo) == 2
        kernel.unpin(pinned)
        kernel.quiesce()

    run.once(program)


def test_a_pin_outlives_the_handle(run):
    def program():
        kernel = Kernel(pages=3)
        lender = kernel.lender(2, absent=1)
        pinned = pin(kernel, lender)
        kernel.destroy(lender)
        kernel.quiesce()
        assert kernel.attributed(lender) == 2
        kernel.unpin(pinned)
        assert kernel.attributed(lender) == 0
        kernel.destroy_all()

    run.once(program)


def test_what_cannot_be_pinned_says_why(run):
    def program():
        kernel = Kernel(pages=4, faults=FaultPlan.parse("page_list_node@1"))
        kernel.faults.pause()
        lender, gone, detached = kernel.lender(2, absent=1), kernel.lender(1), kernel.borrower(1)
        kernel.destroy(gone)
        kernel.detach(detached)
        kernel.faults.restart()
        where = [(lender, 1, 2), (lender, 0, 0), (lender, 1, 1), (gone,), (detached,)]
        return [attempt(kernel, *arguments) for arguments in where]

    assert run.once(program) == [
        Status.OUT_OF_RANGE,
        Status.INVALID_ARGS,
        Status.NO_MEMORY,
        Status.BAD_HANDLE,
        Status.BAD_STATE,
    ]


def test_a_page_has_room_for_so_many_pins(run):
    def program():
        kernel = Kernel(pages=1)
        lender = kernel.lender(1)
        pins = [pin(kernel, lender) for _ in range(PIN_COUNT_MAX)]
        assert kernel.pin(lender)[0] is Status.UNAVAILABLE
        assert pages_of(kernel, lender)[0].pin_count == PIN_COUNT_MAX
        for pinned in pins:
            kernel.unpin(pinned)
        kernel.quiesce()

    run.once(program)


def test_a_killed_pinner_has_nothing_pinned(run):
    """Page 0 is pinned already when the wait for page 1 ends; or the kill comes too late."""

    def program():
        kernel = Kernel(pages=3)
        lender = kernel.lender(2, absent=1)
        pinner = spawn(lambda: kernel.pin(lender), name="pinner")
        kernel.kill(pinner)
        pinner.join()
        status, pinned = pinner.result
        if pinned is None:
            assert status is Status.INTR_KILLED
        else:
            kernel.unpin(pinned)
        assert kernel.pinned_pages(lender) == 0
        assert kernel.decommit(lender) is Status.OK

    run.clean(program, 200)


def test_pins_through_a_slice_are_pins_of_the_parent(run):
    def program():
        kernel = Kernel(pages=3)
        lender = kernel.lender(3, absent=2)
        pinned = pin(kernel, kernel.sliced(lender, 1, 2), 1, 1)
        assert [page and page.pin_count for page in pages_of(kernel, lender)] == [0, None, 1]
        assert kernel.decommit(lender) is Status.BAD_STATE
        kernel.unpin(pinned)
        kernel.quiesce()
        kernel.destroy_all()

    run.once(program)


def pin_race(**options):
    """W10: pins of neighbouring pages; one gives its request up and asks anew."""

    def program():
        kernel = Kernel(pages=4, **options)
        lender = kernel.lender(3, absent=2)
        other = kernel.begin_commit(lender, 2, 1)
        # Its waiter has been answered already, and will work through whatever else is queued.
        kernel.commit(lender, 2, 1)
        parallel(
            lambda: kernel.unpin(pin(kernel, lender, 0, 2, reuse_request=True)),
            other.wait,
            names=["pinner", "other"],
        )
        assert None not in pages_of(kernel, lender)
        kernel.quiesce()
        kernel.destroy_all()

    return program


@pytest.mark.once
def test_w10_a_request_given_up_for_a_pin_may_be_in_flight(run):
    """L1: the other thread goes on with it, and the pages are its to take back."""
    failure = run.finding(pin_race(defects={"L1"}), 2_000)
    assert "I18" in failure.message
    run.clean(pin_race(), 600)


@pytest.mark.parametrize("reuse_request", [False, True])
def test_both_ways_to_pin_end_alike(run, reuse_request):
    def program():
        kernel = Kernel(pages=5)
        lender = kernel.lender(5, absent=4)
        kernel.commit(lender, 2, 1)
        pinned = pin(kernel, lender, reuse_request=reuse_request)
        assert kernel.pinned_pages(lender) == 5
        kernel.unpin(pinned)
        kernel.quiesce()

    run.once(program)
