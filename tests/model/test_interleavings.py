"""The interleavings that the source worries about (R1-R17), explored; none of them may fail."""

from __future__ import annotations

import pytest

from harness import parallel, sometimes, spawn
from model import FaultPlan, Kernel, PageState, Status
from model.cow_pages import EvictionHintAction
from model.page import PAGE_SIZE, ZEROES
from model.page_request import PageRequestType
from model.solpi import StackOwnedLoanedPagesInterval

pytestmark = pytest.mark.once

STRATEGIES = ["random", "pct"]


def at_home(kernel, vmo):
    return [page is not None for page in kernel.pages_of(vmo)]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_r1_r2_commit_against_borrowing(run, strategy):
    """The page is FREE when the request is sent, ALLOC or borrowed when it is processed."""

    def program():
        kernel = Kernel(pages=6)
        lender, borrower = kernel.lender(1, absent=1), kernel.borrower(1)

        def commit():
            assert kernel.commit(lender) is Status.OK

        def supply():
            assert kernel.supply(borrower) is Status.OK

        parallel(commit, supply, names=["C", "B"])
        assert at_home(kernel, lender) == [True]
        kernel.quiesce()
        kernel.destroy_all()

    run.clean(program, 500, strategy=strategy)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_r3_r6_r17_commit_against_evictors(run, strategy):
    """The page leaves between the backlink and the borrower's lock; the reclaimer waits for it."""

    def program():
        kernel = Kernel(pages=6)
        lender, borrower = kernel.lender(2, absent=2), kernel.borrower(2)
        kernel.supply(borrower)

        def commit():
            assert kernel.commit(lender) is Status.OK

        parallel(
            commit, kernel.evict, lambda: kernel.evict_page(borrower, 1), names=["C", "E", "F"]
        )
        assert at_home(kernel, lender) == [True, True]
        kernel.quiesce()
        kernel.destroy_all()

    run.clean(program, 400, strategy=strategy)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_r4_commit_against_the_borrowers_last_reference(run, strategy):
    """The borrower's count is zero and it recycles, while the reclaimer comes by its container."""

    def program():
        kernel = Kernel(pages=6)
        lender, borrower = kernel.lender(2, absent=2), kernel.borrower(2)
        kernel.supply(borrower)
        cow = borrower.cow
        container = cow.raw_container()

        def commit():
            assert kernel.commit(lender) is Status.OK

        parallel(commit, lambda: kernel.destroy(borrower), names=["C", "X"])
        assert not cow.alive
        assert not container.alive
        kernel.quiesce()
        kernel.destroy_all()

    run.clean(program, 400, strategy=strategy)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_r8_commit_against_decommit(run, strategy):
    """A commit may return with a page absent again; whatever is absent is loaned."""

    def program():
        kernel = Kernel(pages=6)
        lender = kernel.lender(3, absent=2)

        def commit():
            assert kernel.commit(lender) is Status.OK

        def decommit():
            assert kernel.decommit(lender, 0, 2) is Status.OK

        parallel(commit, decommit, names=["C", "D"])
        for page, present in enumerate(at_home(kernel, lender)):
            if present:
                assert kernel.read(lender, page) == (Status.OK, ZEROES)
        kernel.quiesce()
        kernel.destroy_all()

    run.clean(program, 400, strategy=strategy)


def test_r9_a_waiter_may_have_to_wait_for_another_thread(run):
    """Somebody else dequeued my request: the wait on the event really sleeps."""

    def program():
        kernel = Kernel(pages=6)
        lender = kernel.lender(2, absent=2)

        def commit(page):
            pending = kernel.begin_commit(lender, page, 1)
            if pending.request.in_flight and pending.request.active:
                sometimes("dequeued by another")
            assert pending.wait() is Status.OK

        parallel(lambda: commit(0), lambda: commit(1), names=["C1", "C2"])
        kernel.quiesce()
        kernel.destroy_all()

    run.clean(program, 800, strategy="pct")


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_r10_cancel_at_every_moment(run, strategy):
    """While queued, in flight, with others waiting along, or after the end."""

    def program():
        kernel = Kernel(pages=6)
        lender = kernel.lender(2, absent=2)

        def give_up():
            kernel.begin_commit(lender, 0, 2).cancel()
            assert kernel.commit(lender, 0, 1) is Status.OK

        def commit():
            assert kernel.commit(lender, 0, 2) is Status.OK

        parallel(give_up, commit, commit, names=["G", "C1", "C2"])
        kernel.quiesce()
        kernel.destroy_all()

    run.clean(program, 600, strategy=strategy)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_r11_the_lender_dies_while_its_pages_are_borrowed(run, strategy):
    def program():
        kernel = Kernel(pages=6)
        lender, borrower = kernel.lender(2, absent=2), kernel.borrower(2)

        parallel(
            lambda: kernel.destroy(lender),
            lambda: kernel.supply(borrower),
            kernel.evict,
            names=["X", "B", "E"],
        )
        assert kernel.pmm.count_loaned_pages() == 0
        kernel.quiesce()
        kernel.destroy_all()

    run.clean(program, 400, strategy=strategy)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("signal", ["kill", "suspend"])
def test_r14_kill_and_suspend_of_a_waiter(run, strategy, signal):
    def program():
        kernel = Kernel(pages=6)
        lender, borrower = kernel.lender(2, absent=2), kernel.borrower(1)
        kernel.supply(borrower)
        statuses = []

        def commit():
            statuses.append(kernel.commit(lender))

        threads = [spawn(commit, name="C1"), spawn(commit, name="C2")]
        getattr(kernel, signal)(threads[0])
        for thread in threads:
            thread.join()
        allowed = {Status.OK, Status.INTR_KILLED} if signal == "kill" else {Status.OK}
        assert set(statuses) <= allowed
        assert Status.OK in statuses
        kernel.quiesce()
        kernel.destroy_all()

    run.clean(program, 400, strategy=strategy)


def test_r14_a_suspend_is_seen_where_the_caller_wants_it(run):
    """Without retry a suspended commit returns INTR_RETRY; the pages come home all the same."""

    def program():
        kernel = Kernel(pages=6)
        vmo = kernel.borrower(1)
        statuses = []
        waiter = spawn(lambda: statuses.append(kernel.commit(vmo, retry=False)), name="W")
        kernel.suspend(waiter)
        waiter.join()
        assert statuses == [Status.INTR_RETRY]
        with vmo.cow.page_source.mtx:
            assert vmo.cow.page_source.outstanding_requests[PageRequestType.READ] == []
        kernel.destroy_all()

    run.clean(program, 200)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_r15_a_supply_fails_midway_while_others_ask(run, strategy):
    def program():
        kernel = Kernel(pages=6, faults=FaultPlan.parse("page_list_node@5"))
        lender = kernel.lender(3, absent=3)
        statuses = []

        def commit(first, count):
            statuses.append(kernel.commit(lender, first, count))

        parallel(lambda: commit(0, 3), lambda: commit(1, 2), names=["C1", "C2"])
        assert set(statuses) <= {Status.OK, Status.NO_MEMORY}
        assert Status.NO_MEMORY in statuses
        kernel.quiesce()
        assert Status.OK in [kernel.commit(lender), kernel.commit(lender)]
        kernel.quiesce()
        kernel.destroy_all()

    run.clean(program, 400, strategy=strategy)


def test_r16_the_last_loan_bit_only_falls_while_a_page_is_borrowed(run):
    """DeleteLender against eviction: freed as loaned or as ordinary, never lost."""

    def program():
        kernel = Kernel(pages=4)
        lender, borrower = kernel.lender(1, absent=1), kernel.borrower(1)
        kernel.supply(borrower)
        parallel(lambda: kernel.destroy(lender), kernel.evict, names=["X", "E"])
        kernel.quiesce()
        kernel.destroy_all()

    run.clean(program, 800)


@pytest.mark.parametrize("operation", ["pin", "replace"])
def test_r16_a_page_stops_being_loaned_before_it_is_replaced(run, operation):
    """DeleteLender against those who read the loan bit: the page is replaced in vain, or not."""

    def program():
        kernel = Kernel(pages=4)
        lender, borrower = kernel.lender(1, absent=1), kernel.borrower(1)
        kernel.supply(borrower)

        def user():
            if operation == "pin":
                status, pinned = kernel.pin(borrower)
                assert status is Status.OK
                assert pinned is not None
                kernel.unpin(pinned)
            else:
                assert kernel.replace_page(borrower, with_loaned=False) is Status.OK

        parallel(lambda: kernel.destroy(lender), user, names=["X", "P"])
        assert kernel.read(borrower) == (Status.OK, b"pager...........")
        kernel.quiesce()
        kernel.destroy_all()

    run.clean(program, 400)


def test_r17_sweeper_evictor_and_pin_race_for_one_page(run):
    """Each looks again under the VMO lock; whoever evicts supplies, so that the pin succeeds."""

    def program():
        kernel = Kernel(pages=6)
        lender, borrower = kernel.lender(1, absent=1), kernel.borrower(1)
        kernel.ppb(in_supplypages=False, on_mru=True)
        kernel.supply(borrower)

        def evictor():
            kernel.evict_page(borrower)
            kernel.supply(borrower)

        def pinner():
            status, pinned = kernel.pin(borrower)
            assert status is Status.OK
            assert pinned is not None
            kernel.unpin(pinned)

        parallel(kernel.sweep, evictor, pinner, names=["L", "E", "P"])
        assert at_home(kernel, borrower) == [True]
        assert kernel.commit(lender) is Status.OK
        kernel.quiesce()
        kernel.destroy_all()

    run.clean(program, 400)


def test_detach_and_pager_answers_race_with_waiters(run):
    def program():
        kernel = Kernel(pages=8)
        vmo = kernel.borrower(2)
        statuses = []
        parallel(
            lambda: statuses.append(kernel.commit(vmo)),
            lambda: kernel.answer_pager(vmo),
            lambda: kernel.detach(vmo),
            names=["W", "P", "D"],
        )
        assert statuses[0] in (Status.OK, Status.BAD_STATE)
        kernel.quiesce()
        kernel.destroy_all()

    run.clean(program, 800)


def test_two_lenders_and_a_shared_borrower(run):
    """Reclaimers of two lenders meet in one VMO and in one evictor's interval."""

    def program():
        kernel = Kernel(pages=8)
        first, second = kernel.lender(1, absent=1), kernel.lender(1, absent=1)
        borrower = kernel.borrower(2)
        kernel.supply(borrower)

        def commit(vmo):
            assert kernel.commit(vmo) is Status.OK

        parallel(
            lambda: commit(first), lambda: commit(second), kernel.evict, names=["C1", "C2", "E"]
        )
        kernel.quiesce()
        kernel.destroy_all()

    run.clean(program, 800)


def test_w9_eviction_of_a_page_that_is_not_there_fails(run):
    """Eviction through the wrong VMO, the wrong offset, or of a pinned page changes nothing."""

    def program():
        kernel = Kernel(pages=6)
        vmo, other = kernel.borrower(1), kernel.borrower(1)
        kernel.supply(vmo)
        (page,) = kernel.pages_of(vmo)
        assert page is not None
        follow = EvictionHintAction.FOLLOW
        with StackOwnedLoanedPagesInterval(kernel._world):
            assert not other.cow.remove_page_for_eviction(page, 0, follow)
            assert not vmo.cow.remove_page_for_eviction(page, PAGE_SIZE, follow)
            _, pinned = kernel.pin(vmo)
            assert pinned is not None
            assert not vmo.cow.remove_page_for_eviction(page, 0, follow)
            kernel.unpin(pinned)
            kernel.always_need(vmo)
            assert not vmo.cow.remove_page_for_eviction(page, 0, follow)
            assert vmo.cow.remove_page_for_eviction(page, 0, EvictionHintAction.IGNORE)
            kernel.pmm.free_page(page)
        assert page.state.peek() is PageState.FREE
        assert not kernel.evict_page(vmo, 0)
        kernel.quiesce()
        kernel.destroy_all()

    run.once(program)


def test_an_early_completion_makes_the_committer_loop(run):
    """The pending size counts, it does not remember: waking with a page absent is legal."""

    def program():
        kernel = Kernel(pages=10)
        kernel.borrowing.set_borrowing_in_supplypages_enabled(False)
        vmo = kernel.borrower(3)
        done = []
        waiter = spawn(lambda: done.append(kernel.commit(vmo)), name="C")
        for page in (0, 0, 1):
            kernel.supply(vmo, page, 1)
            if page == 0:
                kernel.evict_page(vmo, 0)
        while not done:
            if not kernel.answer_pager(vmo) and not waiter.is_alive():
                break
            sometimes("served")
        waiter.join()
        assert done == [Status.OK]
        kernel.quiesce()
        kernel.destroy_all()

    run.clean(program, 100)


def test_early_timeouts_do_not_disturb_the_fixed_revision_without_waiters(run):
    """The only timeout is the interval's; where no interval is waited for, nothing changes."""

    def program():
        kernel = Kernel(pages=6)
        lender = kernel.lender(2, absent=2)
        parallel(lambda: kernel.commit(lender), lambda: kernel.decommit(lender), names=["C", "D"])
        kernel.quiesce()
        kernel.destroy_all()

    run.clean(program, 200, early_timeouts=True)
