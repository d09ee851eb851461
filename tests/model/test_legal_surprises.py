"""Schedules that look wrong and are not: no check may take them for a bug."""

from __future__ import annotations

import pytest

from harness import parallel
from model import Kernel, Status


@pytest.mark.once
def test_a_commit_asks_again_for_what_was_decommitted_before_it_looked(run):
    """Supplied, gone again, asked for anew: the ping-pong has no bound, and is no bug."""
    sent = set()

    def program():
        kernel = Kernel(pages=2)
        lender = kernel.lender(2, absent=2)
        got = []
        parallel(lambda: got.append(kernel.commit(lender)), lambda: kernel.decommit(lender, 0, 1))
        assert got == [Status.OK]
        # One for the whole range; a second one only where page 0 was found gone again.
        sent.add(lender.cow.page_source._sent)
        kernel.quiesce()
        kernel.destroy_all()

    run.clean(program, 600, strategy="pct")
    assert sent == {1, 2}


def test_what_was_supplied_twice_counts_twice(run):
    """The pending size counts bytes, not pages: whoever is woken must look, and may ask again."""

    def program():
        kernel = Kernel(pages=4)
        vmo = kernel.borrower(3)
        pending = kernel.begin_commit(vmo)
        kernel.supply(vmo, 0, 1)
        assert kernel.evict_page(vmo, 0)
        kernel.supply(vmo, 0, 2)
        assert pending.wait() is Status.OK
        assert [page is not None for page in kernel.pages_of(vmo)] == [True, True, False]
        again = kernel.begin_commit(vmo)
        kernel.supply(vmo, 2, 1)
        assert again.wait() is Status.OK
        kernel.quiesce()
        kernel.destroy_all()

    run.once(program)


def test_a_borrowed_page_becomes_the_borrowers_own_as_its_lender_goes(run):
    def program():
        kernel = Kernel(pages=2)
        lender, borrower = kernel.lender(1, absent=1), kernel.borrower(1)
        kernel.supply(borrower, content=b"mine")
        page = kernel.pmm.pages[0]
        assert kernel.pages_of(borrower) == [page]
        assert kernel.pmm.is_loaned(page)
        kernel.destroy(lender)
        assert kernel.pages_of(borrower) == [page]
        assert not kernel.pmm.is_loaned(page)
        assert kernel.read(borrower)[1].rstrip(b".") == b"mine"
        kernel.quiesce()
        kernel.destroy(borrower)
        assert kernel.pmm.count_free_pages() == 2
        kernel.destroy_all()

    run.once(program)
