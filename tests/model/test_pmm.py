"""Loans and counters of the PMM, sequentially: every count after every call."""

from __future__ import annotations

import pytest

from harness.sync import guarded_by  # noqa: F401 - the annotations are live in every test here
from model import Kernel, Status
from model.page import FREE_PATTERN, PAGE_SIZE, PageState, VmPage
from model.pmm import AllocFlag, PmmNode
from model.solpi import StackOwnedLoanedPagesInterval

BORROW = AllocFlag.CAN_BORROW | AllocFlag.MUST_BORROW


def counts(pmm: PmmNode) -> tuple[int, int, int, int]:
    """Free, free-loaned, loaned, cancelled."""
    return (
        pmm.count_free_pages(),
        pmm.count_loaned_free_pages(),
        pmm.count_loaned_pages(),
        pmm.count_loan_cancelled_pages(),
    )


def take(pmm: PmmNode, count: int, flags: AllocFlag = AllocFlag.ANY) -> list[VmPage]:
    status, pages = pmm.alloc_pages(count, flags)
    assert status is Status.OK
    return pages


def test_loan_borrow_cancel_reclaim_end_keeps_every_count(run):
    """W1: the whole way of a loan, with a page's count checked after each call."""

    def program():
        kernel = Kernel(pages=8)
        pmm = kernel.pmm
        pages = take(pmm, 6)
        paddrs = sorted(page.paddr for page in pages)
        assert counts(pmm) == (2, 0, 0, 0)
        pmm.begin_loan(pages)
        assert pages == []
        assert counts(pmm) == (2, 6, 6, 0)
        with StackOwnedLoanedPagesInterval(kernel._world):
            borrowed = take(pmm, 6, BORROW)
            assert all(page.loaned for page in borrowed)
            assert counts(pmm) == (2, 0, 6, 0)
            for page in borrowed:
                pmm.cancel_loan(page.paddr, 1)
            assert counts(pmm) == (2, 0, 6, 6)
            pmm.free_list_of_pages(borrowed)
        assert counts(pmm) == (2, 0, 6, 6)
        assert pmm.count_loaned_not_free_pages() == 6
        assert pmm.alloc_pages(3, AllocFlag.CAN_BORROW) == (Status.NO_MEMORY, [])
        rest = take(pmm, 2, AllocFlag.CAN_BORROW)
        assert not any(page.loaned for page in rest)
        ended: list[VmPage] = []
        for n, paddr in enumerate(paddrs):
            pmm.end_loan(paddr, 1, ended)
            assert ended[-1].paddr == paddr
            assert counts(pmm) == (0, 0, 5 - n, 5 - n)
        pmm.free_list_of_pages(ended)
        pmm.free_list_of_pages(rest)
        assert counts(pmm) == (8, 0, 0, 0)
        pmm.check_all_free_pages()
        everything = take(pmm, 8)
        pmm.free_list_of_pages(everything)
        kernel.quiesce()
        kernel.destroy_all()

    run.once(program)


def test_delete_lender_while_all_pages_are_free(run):
    """W2 (a)."""

    def program():
        kernel = Kernel(pages=8)
        pmm = kernel.pmm
        status, pages = pmm.alloc_contiguous(5)
        assert status is Status.OK
        base = pages[0].paddr
        pmm.begin_loan(list(pages))
        assert counts(pmm) == (3, 5, 5, 0)
        pmm.delete_lender(base, 5)
        assert counts(pmm) == (8, 0, 0, 0)
        kernel.quiesce()

    run.once(program)


def test_delete_lender_while_all_pages_are_borrowed(run):
    """W2 (b): a borrowed page becomes ordinary where it is, and is freed to the ordinary list."""

    def program():
        kernel = Kernel(pages=8)
        pmm = kernel.pmm
        _, pages = pmm.alloc_contiguous(5)
        base = pages[0].paddr
        pmm.begin_loan(list(pages))
        with StackOwnedLoanedPagesInterval(kernel._world):
            borrowed = take(pmm, 5, BORROW)
            pmm.delete_lender(base, 5)
            assert counts(pmm) == (3, 0, 0, 0)
            assert not any(page.loaned for page in borrowed)
            pmm.free_list_of_pages(borrowed)
        assert counts(pmm) == (8, 0, 0, 0)
        kernel.quiesce()

    run.once(program)


def test_delete_lender_takes_pages_out_of_limbo(run):
    def program():
        kernel = Kernel(pages=4)
        pmm = kernel.pmm
        _, pages = pmm.alloc_contiguous(3)
        base = pages[0].paddr
        pmm.begin_loan(list(pages))
        pmm.cancel_loan(base, 2)
        assert counts(pmm) == (1, 1, 3, 2)
        pmm.delete_lender(base, 3)
        assert counts(pmm) == (4, 0, 0, 0)
        kernel.quiesce()

    run.once(program)


def test_flags_decide_which_list_gives_the_page(run):
    """CAN prefers loaned, MUST takes only loaned, neither never takes loaned."""

    def program():
        kernel = Kernel(pages=4)
        pmm = kernel.pmm
        pmm.begin_loan(take(pmm, 1))
        got = []
        with StackOwnedLoanedPagesInterval(kernel._world):
            for flags in (AllocFlag.ANY, AllocFlag.CAN_BORROW, AllocFlag.CAN_BORROW, BORROW):
                status, page = pmm.alloc_page(flags)
                got.append((status, page is not None and page.loaned))
                if page is not None:
                    pmm.free_page(page)
        return got

    assert run.once(program) == [
        (Status.OK, False),
        (Status.OK, True),
        (Status.OK, True),
        (Status.OK, True),
    ]


def test_must_borrow_fails_without_a_loaned_page_although_others_are_free(run):
    def program():
        pmm = Kernel(pages=4).pmm
        return pmm.alloc_page(BORROW), pmm.alloc_pages(1, BORROW)

    assert run.once(program) == ((Status.NO_MEMORY, None), (Status.NO_MEMORY, []))


def test_borrowing_flags_mean_nothing_while_no_site_may_borrow(run):
    def program():
        kernel = Kernel(pages=4)
        kernel.borrowing.set_borrowing_in_supplypages_enabled(False)
        status, page = kernel.pmm.alloc_page(BORROW)
        return status, page is not None and page.loaned

    assert run.once(program) == (Status.OK, False)


def test_contiguous_allocation_skips_loaned_pages(run):
    def program():
        pmm = Kernel(pages=6).pmm
        _, pages = pmm.alloc_contiguous(2)
        pmm.begin_loan([pages[1]])
        pmm.free_page(pages[0])
        status, run_of = pmm.alloc_contiguous(3)
        assert pmm.alloc_contiguous(3) == (Status.NO_MEMORY, [])
        return status, [page.index for page in run_of]

    assert run.once(program) == (Status.OK, [2, 3, 4])


def test_a_freed_list_is_allocated_in_its_own_order(run):
    def program():
        pmm = Kernel(pages=4).pmm
        pages = take(pmm, 4)
        order = [page.index for page in (pages[2], pages[0], pages[3])]
        pmm.free_list_of_pages([pages[2], pages[0], pages[3]])
        return order, [page.index for page in take(pmm, 3)]

    wanted, got = run.once(program)
    assert got == wanted


def test_freed_memory_holds_the_pattern_and_a_write_to_it_is_found(run):
    def program():
        kernel = Kernel(pages=2)
        page = take(kernel.pmm, 1)[0]
        page.contents[:] = b"x" * 16
        kernel.pmm.free_page(page)
        assert page.contents == FREE_PATTERN
        page.contents[3] = 0
        kernel.pmm.alloc_pages(2)

    failure = run.finding(program)
    assert "I26" in failure.message
    assert "written while FREE" in failure.message


def test_cancel_if_loaned_claims_runs_and_leaves_the_rest(run):
    """Pages at home, and pages that another thread is taking back, are nobody else's to take."""

    def program():
        kernel = Kernel(pages=8)
        pmm = kernel.pmm
        _, pages = pmm.alloc_contiguous(6)
        base = pages[0].paddr
        pmm.begin_loan([pages[0], pages[1], pages[3], pages[4], pages[5]])
        pmm.cancel_loan(pages[4].paddr, 1)
        runs = pmm.cancel_loan_if_loaned(base, 6)
        again = pmm.cancel_loan_if_loaned(base, 6)
        return [((paddr - base) // PAGE_SIZE, count) for paddr, count in runs], again

    assert run.once(program) == ([(0, 2), (3, 1), (5, 1)], [])


@pytest.mark.parametrize("site", ["alloc", "borrow"])
def test_an_injected_fault_fails_one_allocation(run, site):
    from model import FaultPlan

    def program():
        kernel = Kernel(pages=4, faults=FaultPlan.parse(f"{site}@2"))
        kernel.pmm.begin_loan(kernel.pmm.alloc_contiguous(2)[1])
        flags = BORROW if site == "borrow" else AllocFlag.ANY
        got = []
        with StackOwnedLoanedPagesInterval(kernel._world):
            for _ in range(3):
                status, page = kernel.pmm.alloc_page(flags)
                got.append(status)
                if page is not None:
                    kernel.pmm.free_page(page)
        return got

    assert run.once(program) == [Status.OK, Status.NO_MEMORY, Status.OK]


def test_is_loaned_asks_under_the_lock(run):
    def program():
        kernel = Kernel(pages=2)
        page = take(kernel.pmm, 1)[0]
        before = kernel.pmm.is_loaned(page)
        kernel.pmm.begin_loan([page])
        return before, kernel.pmm.is_loaned(page), page.state.peek()

    assert run.once(program) == (False, True, PageState.FREE)
