"""Batching, overlap, cancel, completion: the golden cases of the page source."""

from __future__ import annotations

from model import Kernel, Status
from model.page import PAGE_SIZE
from model.page_request import BatchState, PageRequest, PageRequestType


def source_of(vmo):
    return vmo.cow.page_source


def span(request):
    return (request.offset.peek() // PAGE_SIZE, request.end // PAGE_SIZE)


def tree(vmo, kind=PageRequestType.READ):
    """Outstanding ranges, and for each the ranges that wait along; in pages."""
    source = source_of(vmo)
    with source.mtx:
        nodes = source.outstanding_requests[kind]
        return [(span(node), [span(o) for o in node.overlap]) for node in nodes]


def queue(vmo):
    """What the provider has queued, in order."""
    provider = source_of(vmo).provider
    with provider.mtx:
        return [span(request) for request in provider.pending_requests]


def fresh(pages=5, absent=None):
    kernel = Kernel(pages=pages + 3)
    return kernel, kernel.lender(pages, absent=pages if absent is None else absent)


def test_16_1_one_batch_covers_the_whole_range(run):
    def program():
        kernel, vmo = fresh(4)
        pending = kernel.begin_commit(vmo, 0, 4)
        assert pending.status is Status.SHOULD_WAIT
        assert pending.request.batch is BatchState.FINALIZED
        result = tree(vmo), queue(vmo)
        assert pending.wait() is Status.OK
        kernel.quiesce()
        return result

    assert run.once(program) == ([((0, 4), [])], [(0, 4)])


def test_16_2_a_batch_ends_where_an_outstanding_one_begins(run):
    def program():
        kernel, vmo = fresh(4)
        first = kernel.begin_commit(vmo, 2, 2)
        second = kernel.begin_commit(vmo, 0, 4)
        result = tree(vmo), queue(vmo)
        first.cancel()
        second.cancel()
        return result

    assert run.once(program) == ([((0, 2), []), ((2, 4), [])], [(2, 4), (0, 2)])


def test_16_3_a_contained_batch_waits_along_and_the_provider_is_not_told(run):
    def program():
        kernel, vmo = fresh(4)
        first = kernel.begin_commit(vmo, 0, 4)
        second = kernel.begin_commit(vmo, 1, 3)
        result = tree(vmo), queue(vmo)
        assert not second.request.provider_owned
        second.cancel()
        first.cancel()
        return result

    assert run.once(program) == ([((0, 4), [(1, 4)])], [(0, 4)])


def test_16_4_what_reaches_beyond_the_outstanding_one_comes_later(run):
    def program():
        kernel, vmo = fresh(5)
        first = kernel.begin_commit(vmo, 0, 4)
        second = kernel.begin_commit(vmo, 3, 2)
        result = tree(vmo), queue(vmo)
        second.cancel()
        first.cancel()
        return result

    assert run.once(program) == ([((0, 4), [(3, 4)])], [(0, 4)])


def test_16_5_a_present_page_ends_the_batch_at_the_next_absent_one(run):
    def program():
        kernel, vmo = fresh(3)
        assert kernel.commit(vmo, 1, 1) is Status.OK
        pending = kernel.begin_commit(vmo, 0, 3)
        result = tree(vmo), queue(vmo)
        pending.cancel()
        return result

    assert run.once(program) == ([((0, 1), [])], [(0, 1)])


def test_16_6_an_unbatched_request_asks_for_one_page(run):
    def program():
        kernel, vmo = fresh(3)
        source = source_of(vmo)
        request = PageRequest(kernel._world, batching=False)
        with vmo.cow.lock:
            status, page = vmo.cow.lookup_page_locked(PAGE_SIZE, request, write=True)
        assert (status, page) == (Status.SHOULD_WAIT, None)
        result = tree(vmo), queue(vmo)
        source.cancel_request(request)
        request.destroy()
        return result

    assert run.once(program) == ([((1, 2), [])], [(1, 2)])


def test_16_7_cancel_promotes_the_first_that_waits_along(run):
    """The promoted request takes range, pending size and the place in the provider's queue."""

    def program():
        kernel, vmo = fresh(5)
        first = kernel.begin_commit(vmo, 0, 3)
        other = kernel.begin_commit(vmo, 4, 1)
        second = kernel.begin_commit(vmo, 1, 2)
        third = kernel.begin_commit(vmo, 2, 1)
        first.cancel()
        result = tree(vmo), queue(vmo), span(second.request), second.request.pending_size
        assert second.request.provider_owned
        assert third.wait() is Status.OK
        assert second.wait() is Status.OK
        assert other.wait() is Status.OK
        kernel.quiesce()
        return result

    assert run.once(program) == (
        [((0, 3), [(2, 3)]), ((4, 5), [])],
        [(0, 3), (4, 5)],
        (0, 3),
        3 * PAGE_SIZE,
    )


def test_16_8_cancel_of_one_that_waits_along_only_unlinks_it(run):
    def program():
        kernel, vmo = fresh(4)
        first = kernel.begin_commit(vmo, 0, 4)
        second = kernel.begin_commit(vmo, 1, 3)
        second.cancel()
        result = tree(vmo), queue(vmo)
        assert first.wait() is Status.OK
        return result

    assert run.once(program) == ([((0, 4), [])], [(0, 4)])


def test_16_9_a_supply_completes_what_it_covers_and_counts_the_rest(run):
    def program():
        kernel, vmo = fresh(4)
        source = source_of(vmo)
        first = kernel.begin_commit(vmo, 0, 2)
        second = kernel.begin_commit(vmo, 2, 2)
        with vmo.cow.lock:
            source.on_pages_supplied(PAGE_SIZE, 2 * PAGE_SIZE)
        halves = first.request.pending_size, second.request.pending_size
        with vmo.cow.lock:
            source.on_pages_supplied(0, 4 * PAGE_SIZE)
        done = first.request.active, second.request.active
        result = halves, done, tree(vmo), queue(vmo)
        assert first.request.event.is_signalled()
        assert first.wait() is Status.OK
        assert second.wait() is Status.OK
        return result

    assert run.once(program) == ((PAGE_SIZE, PAGE_SIZE), (False, False), [], [])


def test_16_10_a_failure_fails_whole_requests_and_who_waits_along(run):
    def program():
        kernel, vmo = fresh(4)
        first = kernel.begin_commit(vmo, 0, 4)
        second = kernel.begin_commit(vmo, 2, 2)
        source_of(vmo).on_pages_failed(PAGE_SIZE, PAGE_SIZE, Status.NO_MEMORY)
        result = first.wait(), second.wait(), tree(vmo), queue(vmo)
        kernel.quiesce()
        return result

    assert run.once(program) == (Status.NO_MEMORY, Status.NO_MEMORY, [], [])


def test_16_11_close_completes_queued_requests_and_empties_the_queue(run):
    """A faulting thread keeps the source alive, but not the VMO."""

    def program():
        kernel, vmo = fresh(2)
        pending = kernel.begin_commit(vmo, 0, 2)
        source = source_of(vmo)
        kernel.destroy(vmo)
        assert not pending.request.active
        assert pending.wait() is Status.OK
        assert not source.alive
        kernel.destroy_all()

    run.once(program)


def test_detach_completes_requests_and_refuses_new_ones(run):
    def program():
        kernel = Kernel(pages=6)
        vmo = kernel.borrower(2)
        pending = kernel.begin_commit(vmo, 0, 1)
        assert kernel.detach(vmo) is Status.OK
        assert kernel.detach(vmo) is Status.OK
        assert pending.wait() is Status.OK
        refused = kernel.commit(vmo)
        kernel.destroy_all()
        return refused

    assert run.once(program) is Status.BAD_STATE


def test_the_pager_answers_in_order_and_may_fail(run):
    def program():
        kernel = Kernel(pages=8)
        vmo = kernel.borrower(3)
        first = kernel.begin_commit(vmo, 0, 1)
        second = kernel.begin_commit(vmo, 1, 1)
        assert kernel.answer_pager(vmo)
        assert kernel.answer_pager(vmo, Status.IO)
        assert not kernel.answer_pager(vmo)
        result = first.wait(), second.wait()
        present = [page is not None for page in kernel.pages_of(vmo)]
        kernel.destroy_all()
        return result, present

    assert run.once(program) == ((Status.OK, Status.IO), [True, False, False])


def test_an_inactive_request_can_be_cancelled_again(run):
    def program():
        kernel, vmo = fresh(1)
        pending = kernel.begin_commit(vmo)
        source_of(vmo).cancel_request(pending.request)
        source_of(vmo).cancel_request(pending.request)
        pending.cancel()
        return tree(vmo), queue(vmo)

    assert run.once(program) == ([], [])


def test_a_request_that_is_still_built_can_be_cancelled(run):
    """Case (d) of cancel: nobody but its thread knows of it yet."""

    def program():
        kernel, vmo = fresh(2)
        request = PageRequest(kernel._world)
        with vmo.cow.lock:
            vmo.cow.lookup_page_locked(0, request, write=True)
            source_of(vmo).cancel_request(request)
        request.destroy()
        assert kernel.commit(vmo) is Status.OK
        kernel.quiesce()
        kernel.destroy_all()

    run.once(program)


def test_pages_that_are_there_already_split_the_supply(run):
    """ALREADY_EXISTS: the extra page is freed, the runs on both sides are reported."""

    def program():
        kernel = Kernel(pages=8)
        kernel.borrowing.set_borrowing_in_supplypages_enabled(False)
        vmo = kernel.borrower(3)
        kernel.supply(vmo, 1, 1, b"old")
        pending = kernel.begin_commit(vmo, 0, 1)
        free = kernel.pmm.count_free_pages()
        assert kernel.supply(vmo, 0, 3, b"new") is Status.OK
        assert pending.wait() is Status.OK
        assert kernel.pmm.count_free_pages() == free - 2
        return [kernel.read(vmo, page)[1][:3] for page in range(3)]

    assert run.once(program) == [b"new", b"old", b"new"]
