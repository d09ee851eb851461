"""Address spaces: mappings, faults, and what stands in the page tables."""

from __future__ import annotations

import pytest

from harness import Mutex, current_thread, parallel, spawn
from model import Kernel, Status
from model.locks import DISCARDABLE_VMOS, PAGE_QUEUES, PMM_NODE, VM_ASPACE
from model.page import CONTENT_BYTES, PAGE_SIZE, ZEROES
from model.page_request import PageRequestType
from model.vm_aspace import ZERO_PAGE


def asked(vmo):
    """Requests that are outstanding."""
    with vmo.cow.page_source.mtx:
        return list(vmo.cow.page_source.outstanding_requests[PageRequestType.READ])


def entries(mapping):
    return [entry.page if (entry := cell.peek()) else None for cell in mapping.entries]


def test_a_read_fault_of_an_absent_page_maps_the_zero_page_and_asks_for_nothing(run):
    def program():
        kernel = Kernel(pages=2)
        lender = kernel.lender(1, absent=1)
        mapping = kernel.mapped(lender)
        assert kernel.load(mapping) == (Status.OK, ZEROES)
        assert entries(mapping) == [ZERO_PAGE]
        assert kernel.pages_of(lender) == [None]
        assert kernel.store(mapping, 0, b"x") is Status.OK
        assert entries(mapping) == kernel.pages_of(lender)
        kernel.quiesce()
        kernel.destroy_all()

    run.once(program)


def test_decommit_takes_the_pages_from_every_mapping_of_the_tree(run):
    def program():
        kernel = Kernel(pages=4)
        lender = kernel.lender(3)
        child = kernel.sliced(lender, 1, 2)
        whole, part = kernel.mapped(lender), kernel.mapped(child, 1)
        for page in range(3):
            kernel.load(whole, page)
        kernel.load(part)
        assert kernel.decommit_mapped(part) is Status.OK
        present = kernel.pages_of(lender)
        assert present[2] is None
        assert entries(whole) == present
        assert entries(part) == [None]
        kernel.destroy_all()

    run.once(program)


def test_a_mapping_keeps_its_vmo_alive_and_unmapping_destroys_it(run):
    def program():
        kernel = Kernel(pages=2)
        lender = kernel.lender(2, absent=1)
        mapping = kernel.mapped(lender, close=True)
        cow = lender.cow
        assert kernel.fault(mapping, 1) is Status.OK
        assert cow.death is None
        assert kernel.unmap(mapping) is Status.OK
        assert kernel.pmm.count_free_pages() == 2
        assert not cow.alive
        assert kernel.unmap(mapping) is Status.NOT_FOUND
        assert kernel.fault(mapping, 1) is Status.NOT_FOUND
        assert kernel.decommit_mapped(mapping) is Status.BAD_STATE
        kernel.destroy_all()

    run.once(program)


def test_nothing_is_mapped_beyond_the_end_or_after_close(run):
    def program():
        kernel = Kernel(pages=2)
        lender = kernel.lender(1)
        beyond = kernel.map(kernel.aspace(), lender, 1, 1)
        kernel.destroy(lender)
        return beyond, kernel.map(kernel.aspace(), lender, 0, 1)

    assert run.once(program) == ((Status.OUT_OF_RANGE, None), (Status.BAD_HANDLE, None))


def test_a_faulting_thread_holds_its_page_source_and_no_vmo(run):
    """L3: while it waits, nothing but the request's reference of the source is its own."""

    def program():
        kernel = Kernel(pages=2)
        vmo = kernel.borrower(1)
        source = vmo.cow.page_source
        mapping = kernel.mapped(vmo, close=True)
        got = []
        faulter = spawn(lambda: got.append(kernel.fault(mapping)))
        while not asked(vmo):
            kernel.pmm.count_free_pages()
        counts = (vmo.ref_count, vmo.cow.ref_count, source.ref_count)
        kernel.unmap(mapping)
        faulter.join()
        assert got == [Status.NOT_FOUND]
        assert not source.alive
        return counts

    assert run.once(program) == (1, 1, 2)


def test_a_killed_fault_gives_its_request_up(run):
    def program():
        kernel = Kernel(pages=2)
        vmo = kernel.borrower(1)
        mapping = kernel.mapped(vmo)
        got = []
        faulter = spawn(lambda: got.append(kernel.fault(mapping)))
        kernel.kill(faulter)
        faulter.join()
        assert got == [Status.INTR_KILLED]
        assert not asked(vmo)
        kernel.destroy_all()

    run.clean(program, 100)


def test_a_suspended_fault_faults_again_once_resumed(run):
    def program():
        kernel = Kernel(pages=2)
        vmo = kernel.borrower(1)
        mapping = kernel.mapped(vmo)
        got = []

        def faulter():
            kernel.suspend(current_thread())
            got.append(kernel.fault(mapping, retry=False))
            kernel.suspend(current_thread())
            got.append(kernel.fault(mapping))

        parallel(faulter, lambda: kernel.supply(vmo))
        assert got[1] is Status.OK
        assert got[0] in (Status.INTR_RETRY, Status.OK)
        kernel.destroy_all()

    run.clean(program, 200)


def test_a_signal_that_is_there_beats_the_suspend_of_a_fault(run):
    """Whoever takes his lender's page back himself has been answered before he would sleep."""

    def program():
        kernel = Kernel(pages=2)
        mapping = kernel.mapped(kernel.lender(1, absent=1))
        kernel.suspend(current_thread())
        return kernel.fault(mapping, retry=False)

    assert run.once(program) is Status.OK


def test_user_code_writes_whole_pages_padded_with_zeroes(run):
    def program():
        kernel = Kernel(pages=1)
        lender = kernel.lender(1)
        mapping = kernel.mapped(lender)
        kernel.store(mapping, 0, b"abc")
        return kernel.load(mapping)[1], kernel.read(lender)[1]

    assert run.once(program) == (b"abc".ljust(CONTENT_BYTES, b"\0"),) * 2


def test_a_stale_entry_is_a_finding_at_the_touch(run):
    """I26: what user code reaches through an entry is the page that its VMO has there."""

    def program():
        kernel = Kernel(pages=3)
        vmo = kernel.borrower(2)
        kernel.supply(vmo)
        mapping = kernel.mapped(vmo)
        kernel.load(mapping, 0)
        kernel.load(mapping, 1)
        mapping.entries[0].store(mapping.entries[1].peek())
        kernel.load(mapping, 0)

    assert "I26" in run.finding(program).message


def test_a_vmo_that_dies_mapped_panics(run):
    def program():
        kernel = Kernel(pages=1)
        lender = kernel.lender(1)
        kernel.mapped(lender)
        lender.release()
        kernel.destroy(lender)

    assert "a.cow.recycle_unmapped" in run.finding(program).message


@pytest.mark.parametrize("lock_class", [VM_ASPACE, PMM_NODE, PAGE_QUEUES, DISCARDABLE_VMOS])
def test_no_lock_may_be_held_while_a_request_waits(run, lock_class):
    """F6: the row "any lock above a blocking wait" of the forbidden nestings."""

    def program():
        kernel = Kernel(pages=2)
        pending = kernel.begin_commit(kernel.lender(1, absent=1))
        with Mutex("other", lock_class):
            pending.wait()

    failure = run.finding(program)
    assert failure.kind == "lock-order"
    assert "a.ps.nolocks" in failure.message


def test_two_address_spaces_fault_the_same_page_once(run):
    def program():
        kernel = Kernel(pages=1)
        lender = kernel.lender(1, absent=1)
        first, second = kernel.mapped(lender), kernel.mapped(lender)
        parallel(lambda: kernel.store(first, 0, b"1"), lambda: kernel.store(second, 0, b"2"))
        assert entries(first) == entries(second) == kernel.pages_of(lender)
        assert kernel.load(first) == kernel.load(second)
        kernel.quiesce()
        kernel.destroy_all()

    run.clean(program, 200)


def test_a_mapping_shows_its_part_of_the_vmo(run):
    def program():
        kernel = Kernel(pages=4)
        lender = kernel.lender(4)
        mapping = kernel.mapped(lender, 2, 2)
        kernel.store(mapping, 1, b"last")
        assert mapping.size == 2 * PAGE_SIZE
        return kernel.read(lender, 3)[1].rstrip(b"\0")

    assert run.once(program) == b"last"
