"""Every invariant, broken on purpose: the finding names it, and shows the values involved."""

from __future__ import annotations

import pytest

from harness import WaitQueue, current_thread, explore, spawn, yield_now
from model import GOLDEN_EDGES, Kernel, PageState, Status, judge_edges
from model.page import PAGE_SIZE, StackOwner
from model.page_request import INACTIVE, PageRequest, PageRequestType
from model.pmm import AllocFlag
from model.solpi import StackOwnedLoanedPagesInterval

BORROW = AllocFlag.CAN_BORROW | AllocFlag.MUST_BORROW


def boot(pages=3, absent=2):
    kernel = Kernel(pages=8)
    vmo = kernel.lender(pages, absent=absent)
    return kernel, vmo, vmo.cow.page_source, vmo.cow.page_source.provider


def lent(kernel):
    """A page on the loaned list."""
    return kernel.pmm.free_loaned_list.pages()[0]


def release(lock) -> None:
    with lock:
        pass


# -- step -----------------------------------------------------------------------------------------


def i2_half_a_loan():
    kernel, *_ = boot()
    page = lent(kernel)
    page.loan_cancelled = True
    page.clear_is_loaned()
    yield_now()


def i2_cancelled_by_nobody():
    kernel, *_ = boot()
    lent(kernel).set_is_loan_cancelled()
    yield_now()


def i2_left_cancelled():
    kernel, _, _, provider = boot()
    provider.in_flight.append((0, provider.size))
    kernel.pmm.cancel_loan(lent(kernel).paddr, 1)
    kernel.quiesce()


def i3_wrong_page():
    _kernel, vmo, _, provider = boot(3, 3)
    with vmo.cow.lock:
        vmo.cow.page_list.set(0, provider.page_at(PAGE_SIZE))
        yield_now()


def i4_loaned_at_home():
    _kernel, _, _, provider = boot()
    provider.page_at(0).set_is_loaned()
    yield_now()


def i5_cancelled_page_allocated():
    """What M14 makes possible: a cancelled page that stayed on the list is borrowed."""
    kernel, _, _, provider = boot()
    provider.in_flight.append((0, provider.size))
    lent(kernel).loan_cancelled = True
    with StackOwnedLoanedPagesInterval(kernel._world):
        kernel.pmm.alloc_page(BORROW)


def i14_owner_is_gone():
    kernel, *_ = boot()
    interval = StackOwnedLoanedPagesInterval(kernel._world)
    _, page = kernel.pmm.alloc_page(BORROW)
    interval.alive = False
    page.touch()
    yield_now()


def i14_free_and_owned():
    kernel, *_ = boot()
    interval = StackOwnedLoanedPagesInterval(kernel._world)
    page = lent(kernel)
    page.word.store(StackOwner(interval, False))
    page.touch()
    yield_now()


def i16_owned_by_nobody():
    kernel, *_ = boot()
    interval = StackOwnedLoanedPagesInterval(kernel._world)
    _, page = kernel.pmm.alloc_page(BORROW)
    assert interval.alive
    page.word.store(None)
    page.touch()
    yield_now()


# -- locks ----------------------------------------------------------------------------------------


def i1_absent_and_not_loaned():
    _kernel, vmo, *_ = boot()
    with vmo.cow.lock:
        vmo.cow._unmap_and_remove_pages_locked(0, PAGE_SIZE)


def i1_at_rest():
    kernel, _, _, provider = boot()
    page = provider.page_at(0)
    page.slots.clear()
    kernel.quiesce()


def i7_queued_twice():
    kernel, vmo, _, provider = boot()
    pending = kernel.begin_commit(vmo)
    with provider.mtx:
        provider.pending_requests.append(pending.request)


def i7_queued_and_not_outstanding():
    kernel, vmo, source, _ = boot()
    kernel.begin_commit(vmo)
    with source.mtx:
        source.outstanding_requests[PageRequestType.READ].clear()


def i7_out_of_range():
    kernel, vmo, _, provider = boot()
    kernel.begin_commit(vmo).request.length += PAGE_SIZE
    release(provider.mtx)


def i8_closed_with_requests():
    kernel, vmo, _, provider = boot()
    kernel.begin_commit(vmo)
    with provider.mtx:
        provider.detached = provider.closed = True


def i8_closed_before_detached():
    *_, provider = boot()
    with provider.mtx:
        provider.closed = True


def i9_ranges_meet():
    kernel, vmo, source, _ = boot(4, 4)
    kernel.begin_commit(vmo, 0, 2)
    kernel.begin_commit(vmo, 2, 2).request.offset.set(PAGE_SIZE)
    release(source.mtx)


def i9_pending_size():
    kernel, vmo, source, _ = boot()
    kernel.begin_commit(vmo).request.pending_size = 0
    release(source.mtx)


def i10_inactive_and_linked():
    kernel, vmo, source, _ = boot()
    request = kernel.begin_commit(vmo).request
    waiting = kernel.begin_commit(vmo).request
    with source.mtx:
        source.recent.append(waiting)
        waiting.offset.set(INACTIVE)
        request.overlap.clear()
        waiting.provider_owned = True


def i11_dead_request_queued():
    kernel, vmo, _, provider = boot()
    kernel.begin_commit(vmo).request.alive = False
    release(provider.mtx)


def i11_dead_request_dequeued():
    kernel, vmo, _, provider = boot()
    request = kernel.begin_commit(vmo).request
    provider.mtx.checks.clear()
    request.alive = False
    provider._dequeue_request()


def i12_lost():
    kernel, *_ = boot()
    kernel.pmm.alloc_page()
    kernel.quiesce()


def i12_two_slots():
    kernel, vmo, _, provider = boot()
    page = provider.page_at(0)
    page.slots.append((vmo.cow, 0))
    page.touch()
    release(kernel.pmm.lock)


def i12_free_and_lost():
    kernel, *_ = boot()
    pmm = kernel.pmm
    with pmm.lock:
        pmm.free_list.remove_head()
        pmm.free_count -= 1


def i13_p1():
    kernel, *_ = boot()
    pmm = kernel.pmm
    with pmm.lock:
        pmm.free_list.pages()[0].set_is_loaned()


def i13_p2():
    kernel, *_ = boot()
    pmm = kernel.pmm
    with pmm.lock:
        page = lent(kernel)
        pmm.loaned_count -= 1
        page.clear_is_loaned()


def i13_p4():
    kernel, *_ = boot()
    with kernel.pmm.lock:
        kernel.pmm.free_count += 1


def i13_p5():
    kernel, *_ = boot()
    with kernel.pmm.lock:
        kernel.pmm.loaned_count += 1


# -- actions --------------------------------------------------------------------------------------


def i6_loaned_page_for_anybody():
    kernel, *_ = boot()
    kernel._world.oracle.at_alloc(lent(kernel), can_borrow=False)


def i15_interval_ends_with_a_page():
    kernel, *_ = boot()
    with StackOwnedLoanedPagesInterval(kernel._world):
        kernel.pmm.alloc_page(BORROW)


def i17_end_of_a_standing_loan():
    kernel, *_ = boot()
    kernel.pmm.end_loan(lent(kernel).paddr, 1, [])


def i17_end_of_a_page_in_use():
    kernel, _, _, provider = boot()
    provider.in_flight.append((0, provider.size))
    with StackOwnedLoanedPagesInterval(kernel._world):
        _, page = kernel.pmm.alloc_page(BORROW)
        kernel.pmm.cancel_loan(page.paddr, 1)
        kernel.pmm.end_loan(page.paddr, 1, [])


def i18_cancel_twice():
    kernel, _, _, provider = boot()
    provider.in_flight.append((0, provider.size))
    page = lent(kernel)
    kernel.pmm.cancel_loan(page.paddr, 1)
    kernel.pmm.cancel_loan(page.paddr, 1)


def i18_cancel_at_home():
    kernel, _, _, provider = boot()
    kernel.pmm.cancel_loan(provider.page_at(0).paddr, 1)


def i19_loan_of_a_loaned_page():
    kernel, *_ = boot()
    kernel.pmm.begin_loan([lent(kernel)])


def i19_loan_of_a_page_in_use():
    kernel, _, _, provider = boot()
    kernel.pmm.begin_loan([provider.page_at(0)])


def i20_delete_with_pages_at_home():
    *_, provider = boot()
    provider.on_detach()
    provider.on_close()


def i21_pinned_and_loaned():
    kernel, *_ = boot()
    vmo = kernel.borrower(1)
    kernel.supply(vmo)
    kernel.pages_of(vmo)[0].always_need = True
    release(vmo.cow.lock)


def i21_loaned_page_for_a_slow_vmo():
    """What M106 makes possible."""
    kernel, *_ = boot()
    vmo = kernel.borrower(1)
    kernel.mark_latency_sensitive(vmo)
    with vmo.cow.lock:
        vmo.cow.can_borrow_locked = lambda: True
        kernel._world.oracle.at_add(lent(kernel), vmo.cow)


def i22_slot_without_a_queue():
    kernel = Kernel()
    vmo = kernel.borrower(1)
    kernel.supply(vmo)
    with vmo.cow.lock:
        kernel.page_queues.remove(vmo.cow.page_list.lookup(0))


def i22_backlink_without_a_slot():
    kernel, *_ = boot()
    vmo = kernel.borrower(1)
    kernel.supply(vmo)
    with vmo.cow.lock:
        vmo.cow.page_list.remove(0)


def i22_backlink_elsewhere():
    kernel, *_ = boot()
    vmo = kernel.borrower(1)
    kernel.supply(vmo)
    kernel.pages_of(vmo)[0].page_offset = PAGE_SIZE
    release(vmo.cow.lock)


def i22_pinned_and_not_wired():
    """What M102 makes of it."""
    kernel, *_ = boot()
    vmo = kernel.borrower(1)
    kernel.supply(vmo)
    kernel.pin(vmo)
    with vmo.cow.lock:
        kernel.page_queues.move_to_pager_backed(vmo.cow.page_list.lookup(0))


def i23_pinned_and_loaned():
    kernel, *_ = boot()
    vmo = kernel.borrower(1)
    kernel.supply(vmo)
    page = kernel.pages_of(vmo)[0]
    page.pin_count = 1
    page.touch()
    yield_now()


def i25_told_too_early():
    """What M35 makes of it: the waiter is told after the first of two pages."""
    kernel = Kernel()
    vmo = kernel.borrower(2)
    with PageRequest(kernel._world) as request:
        assert vmo.send_commit(0, 2 * PAGE_SIZE, request) is Status.SHOULD_WAIT
        with vmo.cow.lock:
            vmo.cow.page_source.on_pages_supplied(0, 2 * PAGE_SIZE)
        assert request.wait() is Status.OK
        vmo.send_commit(0, 2 * PAGE_SIZE, request)


def i24_loops():
    kernel, *_ = boot()
    for n in range(1, 11):
        kernel._world.oracle.alarm("WaitOnEvent", n, 10, lent(kernel))


def i26_written_while_free():
    kernel, *_ = boot()
    lent(kernel).contents[0] = 0
    kernel.pmm.check_all_free_pages()


def i26_supplied_with_content():
    kernel, _, _, provider = boot()
    page = provider.page_at(0)
    page.contents[:] = b"y" * 16
    kernel._world.oracle.at_supplied(page)


def i28_dead_vmo():
    kernel, vmo, *_ = boot()
    cow = vmo.cow
    kernel.destroy(vmo)
    cow.release()


def i28_dead_container():
    kernel, *_ = boot()
    vmo = kernel.borrower(1)
    container = vmo.cow.raw_container()
    kernel.destroy(vmo)
    container.try_upgrade()


def i28_failed_upgrade():
    kernel, _, _, provider = boot()
    kernel._world.oracle.at_upgrade_failed(provider.page_at(0))


def i29_nobody_inherits():
    """What M53 makes of it: a waiter sleeps, and the owner is as lowly as before."""
    kernel, *_ = boot()
    interval = StackOwnedLoanedPagesInterval(kernel._world)
    _, page = kernel.pmm.alloc_page(BORROW)
    _, queue = asleep_on(interval, kernel, page)
    queue.assign_owner(None)


def asleep_on(interval, kernel, page):
    """A thread of priority 3 that sleeps until ``interval`` ends, and what it sleeps on."""
    wait = StackOwnedLoanedPagesInterval.wait_until_contiguous_page_not_stack_owned
    thread = spawn(wait, kernel._world, page, priority=3)
    while not ((queue := interval.owned_wait_queue) and queue.waiters):
        yield_now()
    return thread, queue


def i29_priority_does_not_relax():
    """The end of an interval wakes nobody, and its owner is as urgent as before."""
    kernel, *_ = boot()
    interval = StackOwnedLoanedPagesInterval(kernel._world)
    _, page = kernel.pmm.alloc_page(BORROW)
    asleep_on(interval, kernel, page)
    assert current_thread().effective_priority == 3
    kernel._world.oracle.after_wake(interval)


def i29_queue_is_kept():
    """The end of an interval forgets to give the queue up."""
    kernel, *_ = boot()
    interval = StackOwnedLoanedPagesInterval(kernel._world)
    interval.owned_wait_queue = WaitQueue("queue")
    interval.owned_wait_queue.assign_owner(interval.owning_thread)
    kernel._world.oracle.after_wake(interval)


def i26_replaced_with_other_content():
    kernel, *_ = boot()
    first, second = kernel.pmm.pages[:2]
    second.contents[:] = b"y" * 16
    kernel._world.oracle.at_replaced(first, second)


def i30_generations():
    kernel, *_ = boot()
    kernel.age()
    with kernel.page_queues.lock:
        kernel.page_queues.mru_generation = 0
    kernel.age()


def i30_counters():
    kernel, *_ = boot()
    kernel.counters["physical.reclaim.total_requests"] += 1
    kernel.quiesce()


def i31_woken_too_early():
    kernel, vmo, _, provider = boot()
    request = kernel.begin_commit(vmo).request
    provider._dequeue_request()
    request.event.signal(Status.OK)
    request.wait()


def i32_pages_missing():
    kernel, *_ = boot()
    kernel.pmm.alloc_page()
    kernel.destroy_all()


BREAKERS = [
    value for name, value in sorted(globals().items()) if name[0] == "i" and name[1].isdigit()
]


@pytest.mark.parametrize("breaker", BREAKERS, ids=lambda breaker: breaker.__name__)
def test_a_broken_invariant_is_named(run, breaker):
    failure = run.finding(breaker)
    name = breaker.__name__.split("_")[0].upper()
    assert f"{name}:" in failure.message, failure.message
    assert failure.kind in ("invariant", "assertion")


def test_every_invariant_of_this_part_has_a_breaker():
    broken = {int(breaker.__name__.split("_")[0][1:]) for breaker in BREAKERS}
    # I27 is judged over lock classes, below.
    assert broken == {*range(1, 33)} - {27}


@pytest.mark.parametrize("excuse", ["evicted", "detached", "none"])
def test_i25_knows_its_excuses(run, excuse):
    """Told that a page is there, and it is not: fine where something left, or the pager has."""

    def program():
        kernel = Kernel()
        vmo = kernel.borrower(1)
        with PageRequest(kernel._world) as request:
            vmo.send_commit(0, PAGE_SIZE, request)
            if excuse == "detached":
                kernel.detach(vmo)
            else:
                kernel.supply(vmo)
            assert request.wait() is Status.OK
            if excuse == "evicted":
                assert kernel.evict_page(vmo)
            return vmo.send_commit(0, PAGE_SIZE, request)

    expected = {"evicted": Status.SHOULD_WAIT, "detached": Status.BAD_STATE, "none": Status.OK}
    assert run.once(program) is expected[excuse]


def test_a_finding_shows_page_state_loan_and_place(run):
    message = run.finding(i18_cancel_at_home).message
    for part in ("page0", "OBJECT", "Unswappable", "in lender1 at 0x0"):
        assert part in message


@pytest.mark.parametrize("breaker", [i12_lost, i2_left_cancelled, i1_at_rest])
def test_checks_can_be_switched_off(run, breaker, monkeypatch):
    monkeypatch.setattr(Kernel, "__init__", _without_checks(Kernel.__init__))
    run.once(breaker)


def _without_checks(original):
    def init(self, *args, **kwargs):
        original(self, *args, **kwargs, checks=False)

    return init


def test_checks_change_no_step(run):
    """Checks on and off take the same steps, one for one, but those of the explicit ``quiesce``."""

    def program(checks):
        def body():
            kernel = Kernel(checks=checks)
            vmo = kernel.lender(2, absent=2)
            borrower = kernel.borrower(1)
            kernel.supply(borrower)
            kernel.commit(vmo)
            kernel.destroy(vmo)

        return body

    steps = {explore(program(checks), schedules=3).steps for checks in (False, True)}
    assert len(steps) == 1


def test_i27_an_edge_off_the_golden_list_is_named():
    assert judge_edges(GOLDEN_EDGES) == []
    assert "forbidden" in judge_edges([("PageQueues", "VmHierarchy")])[0]
    assert "never" in judge_edges([("PageQueues", "PageSource")])[0]


@pytest.mark.parametrize("others", [0, 2])
def test_i29_allows_what_others_lend_after_the_wake(run, others):
    """What is lent through another queue stays; what this interval's waiters lent goes."""

    def program():
        kernel, *_ = boot()
        me = current_thread()
        other = WaitQueue("other")
        sleeper = spawn(other.block, priority=others)
        with StackOwnedLoanedPagesInterval(kernel._world) as interval:
            _, page = kernel.pmm.alloc_page(BORROW)
            other.assign_owner(me)
            while not other.waiters:
                yield_now()
            waiter, _ = asleep_on(interval, kernel, page)
            kernel.pmm.free_page(page)
            assert me.effective_priority == 3
        assert me.effective_priority == others
        other.wake_all()
        other.assign_owner(None)
        for thread in (waiter, sleeper):
            thread.join()

    run.clean(program, 20)


def test_i29_says_which_priority_is_wrong(run):
    message = run.finding(i29_priority_does_not_relax).message
    assert "of 0 has woken its waiters and is of 3" in message


def test_a_dead_request_reads_as_use_after_free(run):
    def program():
        kernel = Kernel()
        request = PageRequest(kernel._world)
        request.destroy()
        request.destroy()

    assert "I11" in run.finding(program).message


def test_pages_in_hand_are_not_lost(run):
    def program():
        kernel = Kernel()
        _, page = kernel.pmm.alloc_page()
        assert page is not None
        assert page.state.peek() is PageState.ALLOC
        kernel.quiesce(held=[page])

    run.once(program)
