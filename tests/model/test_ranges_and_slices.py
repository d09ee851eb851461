"""Resize, zeroing, detach and slices, sequentially and under exploration."""

from __future__ import annotations

import pytest

from harness import parallel, spawn
from model import Kernel, Status
from model.page import ZEROES, DirtyState
from model.page_request import PageRequestType


def present(kernel, vmo):
    return [page is not None for page in kernel.pages_of(vmo)]


def page_at(kernel, vmo, index):
    page = kernel.pages_of(vmo)[index]
    assert page is not None
    return page


def pin(kernel, vmo, index):
    status, pinned = kernel.pin(vmo, index, 1)
    assert pinned is not None, status
    return pinned


def asked(vmo):
    """Requests that are outstanding."""
    with vmo.cow.page_source.mtx:
        return list(vmo.cow.page_source.outstanding_requests[PageRequestType.READ])


# -- resize ---------------------------------------------------------------------------------------


def test_a_shrink_drops_the_tail_and_growing_brings_nothing_back(run):
    def program():
        kernel = Kernel(pages=4)
        kernel.lender(1, absent=1)
        vmo = kernel.borrower(3, resizable=True)
        kernel.supply(vmo)
        assert kernel.pmm.count_loaned_free_pages() == 0
        assert kernel.resize(vmo, 0) is Status.OK
        assert kernel.pmm.count_loaned_free_pages() == 1
        assert kernel.pmm.count_free_pages() == 3
        assert kernel.resize(vmo, 2) is Status.OK
        assert present(kernel, vmo) == [False, False]
        kernel.quiesce()
        kernel.destroy_all()

    run.once(program)


def test_who_waits_for_what_is_cut_off_learns_so_and_others_go_on_waiting(run):
    def program():
        kernel = Kernel(pages=3)
        vmo = kernel.borrower(3, resizable=True)
        within, beyond = kernel.begin_commit(vmo, 0, 1), kernel.begin_commit(vmo, 1, 2)
        kernel.resize(vmo, 1)
        assert beyond.wait() is Status.OK
        assert asked(vmo) == [within.request]
        kernel.supply(vmo, 0, 1)
        assert within.wait() is Status.OK
        kernel.destroy_all()

    run.once(program)


def test_a_commit_whose_end_is_cut_off_commits_the_rest(run):
    """As if all had been committed, and the end dropped again."""

    def program():
        kernel = Kernel(pages=3)
        vmo = kernel.borrower(3, resizable=True)
        got = []
        committer = spawn(lambda: got.append(kernel.commit(vmo)))
        while not asked(vmo):
            kernel.pmm.count_free_pages()
        kernel.resize(vmo, 1)
        kernel.supply(vmo, 0, 1)
        committer.join()
        assert got == [Status.OK]
        kernel.destroy_all()

    run.once(program)


def test_a_pinned_page_keeps_the_size(run):
    def program():
        kernel = Kernel(pages=2)
        vmo = kernel.borrower(2, resizable=True)
        kernel.supply(vmo)
        pinned = pin(kernel, vmo, 1)
        assert kernel.resize(vmo, 1) is Status.BAD_STATE
        assert present(kernel, vmo) == [True, True]
        kernel.unpin(pinned)
        assert kernel.resize(vmo, 1) is Status.OK
        kernel.destroy_all()

    run.once(program)


def test_what_is_not_resizable_stays_as_it_is(run):
    def program():
        kernel = Kernel(pages=2)
        lender, borrower = kernel.lender(1), kernel.borrower(1)
        return kernel.resize(lender, 2), kernel.resize(borrower, 0)

    assert run.once(program) == (Status.UNAVAILABLE, Status.UNAVAILABLE)


def test_a_packet_for_a_page_that_is_cut_off_is_answered_in_vain(run):
    def program():
        kernel = Kernel(pages=2)
        vmo = kernel.borrower(2, resizable=True)
        reads = []
        parallel(
            lambda: reads.append(kernel.read(vmo, 1)[0]),
            lambda: kernel.answer_pager(vmo),
            lambda: kernel.resize(vmo, 1),
        )
        assert reads[0] in (Status.OK, Status.OUT_OF_RANGE)
        kernel.quiesce()
        kernel.destroy_all()

    run.clean(program, 300)


# -- zero -----------------------------------------------------------------------------------------


def test_zeroing_a_lender_loans_nothing(run):
    def program():
        kernel = Kernel(pages=3)
        lender = kernel.lender(3, absent=1)
        kernel.write(lender, 0, b"old")
        before = kernel.pages_of(lender)
        assert kernel.zero(lender) is Status.OK
        assert kernel.pages_of(lender) == before
        assert kernel.pmm.count_loaned_pages() == 1
        assert kernel.read(lender, 0) == (Status.OK, ZEROES)
        assert kernel.zero(lender, 2, 2) is Status.OUT_OF_RANGE
        kernel.destroy_all()

    run.once(program)


def test_zeroing_a_pagers_page_brings_it_in_first(run):
    def program():
        kernel = Kernel(pages=2)
        vmo = kernel.borrower(2)
        kernel.supply(vmo, 0, 1)
        zeroer = spawn(lambda: kernel.zero(vmo))
        while not kernel.answer_pager(vmo):
            pass
        zeroer.join()
        assert present(kernel, vmo) == [True, True]
        assert [kernel.read(vmo, page)[1] for page in range(2)] == [ZEROES, ZEROES]
        kernel.destroy_all()

    run.once(program)


def test_zeroing_is_a_write_where_writes_are_tracked(run):
    """A loaned page is replaced first: a dirty page is never a loaned one."""

    def program():
        kernel = Kernel(pages=3)
        kernel.lender(1, absent=1)
        vmo = kernel.borrower(1, dirty_tracked=True)
        child = kernel.sliced(vmo, 0, 1)
        kernel.supply(vmo)
        assert page_at(kernel, vmo, 0).loaned
        assert kernel.zero(child) is Status.OK
        page = page_at(kernel, vmo, 0)
        assert page.dirty_state is DirtyState.DIRTY
        assert not page.loaned
        assert kernel.read(vmo)[1] == ZEROES
        kernel.quiesce()
        kernel.destroy_all()

    run.once(program)


# -- detach ---------------------------------------------------------------------------------------


def test_detach_drops_what_it_may_and_keeps_pinned_and_dirty_pages(run):
    def program():
        kernel = Kernel(pages=3)
        vmo = kernel.borrower(3, dirty_tracked=True)
        kernel.supply(vmo)
        pinned = pin(kernel, vmo, 1)
        kernel.write(vmo, 2, b"dirty")
        assert kernel.detach(vmo) is Status.OK
        assert present(kernel, vmo) == [False, True, True]
        assert kernel.read(vmo, 0)[0] is Status.BAD_STATE
        assert kernel.read(vmo, 1)[0] is Status.OK
        kernel.unpin(pinned)
        kernel.destroy_all()

    run.once(program)


# -- slices ---------------------------------------------------------------------------------------


def test_a_slice_shows_and_commits_its_part_of_the_parent(run):
    def program():
        kernel = Kernel(pages=4)
        lender = kernel.lender(4, absent=2)
        outer = kernel.sliced(lender, 1, 3)
        inner = kernel.sliced(outer, 1, 2)
        assert kernel.commit(inner, 1, 1) is Status.OK
        assert present(kernel, lender) == [True, True, False, True]
        assert kernel.write(inner, 1, b"deep") is Status.OK
        assert kernel.read(lender, 3)[1].rstrip(b"\0") == b"deep"
        assert kernel.zero(outer, 2, 1) is Status.OK
        assert kernel.read(inner, 1)[1] == ZEROES
        kernel.destroy_all()

    run.once(program)


def test_decommit_through_nested_slices_and_the_pins_in_its_way(run):
    """The rules of the user-space tests of child slices: a pin refuses, wherever it was made."""

    def program():
        kernel = Kernel(pages=4)
        lender = kernel.lender(4)
        outer = kernel.sliced(lender, 1, 3)
        inner = kernel.sliced(outer, 1, 2)
        pinned = pin(kernel, inner, 1)
        assert kernel.decommit(inner, 1, 1) is Status.BAD_STATE
        assert kernel.decommit(outer) is Status.BAD_STATE
        assert kernel.decommit(lender, 2, 2) is Status.BAD_STATE
        assert present(kernel, lender) == [True] * 4
        assert kernel.decommit(inner, 0, 1) is Status.OK
        assert present(kernel, lender) == [True, True, False, True]
        kernel.unpin(pinned)
        assert kernel.decommit(outer) is Status.OK
        assert present(kernel, lender) == [True, False, False, False]
        assert kernel.decommit(inner, 2, 1) is Status.OUT_OF_RANGE
        kernel.destroy_all()

    run.once(program)


def test_a_slice_has_pages_neither_to_supply_nor_to_evict_of_its_own(run):
    def program():
        kernel = Kernel(pages=2)
        vmo = kernel.borrower(2)
        child = kernel.sliced(vmo, 1, 1)
        assert kernel.supply(child) is Status.NOT_SUPPORTED
        kernel.supply(vmo)
        assert kernel.evict_page(child)
        assert present(kernel, vmo) == [True, False]
        kernel.destroy_all()

    run.once(program)


def test_a_slice_must_fit_and_its_parent_keep_its_size(run):
    def program():
        kernel = Kernel(pages=2)
        lender, borrower = kernel.lender(1), kernel.borrower(1, resizable=True)
        wrong = kernel.slice(lender, 1, 1)[0], kernel.slice(borrower, 0, 1)[0]
        kernel.destroy(lender)
        return *wrong, kernel.slice(lender, 0, 1)[0]

    wanted = (Status.INVALID_ARGS, Status.NOT_SUPPORTED, Status.BAD_HANDLE)
    assert run.once(program) == wanted


def test_the_parent_lives_as_long_as_a_slice_of_a_slice(run):
    def program():
        kernel = Kernel(pages=2)
        lender = kernel.lender(2, absent=1)
        outer = kernel.sliced(lender, 0, 2)
        inner = kernel.sliced(outer, 1, 1)
        cows = [lender.cow, outer.cow]
        hierarchy = lender.cow.hierarchy
        kernel.destroy(lender)
        kernel.destroy(outer)
        assert [cow.alive for cow in cows] == [True, True]
        assert kernel.commit(inner) is Status.OK
        kernel.destroy(inner)
        assert [cow.alive for cow in cows] == [False, False]
        assert not hierarchy.lock.locked()
        kernel.destroy_all()

    run.once(program)


@pytest.mark.once
def test_one_thread_deletes_for_all_and_in_any_order(run):
    """Two slices give the same parent up at once: it is queued once, and dropped as often."""

    def program():
        kernel = Kernel(pages=2)
        lender = kernel.lender(2, absent=1)
        first = kernel.sliced(lender, 0, 1)
        second = kernel.sliced(lender, 1, 1)
        cow = lender.cow
        kernel.destroy(lender)
        parallel(lambda: kernel.destroy(first), lambda: kernel.destroy(second))
        assert not cow.alive
        kernel.destroy_all()

    run.clean(program, 500)
