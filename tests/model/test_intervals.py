"""Stack-owned intervals: ownership, the waiter handshake, priority inheritance."""

from __future__ import annotations

import pytest

from harness import Event, WaitQueue, parallel, sleep, spawn
from model import Kernel, PageState, Status
from model.page import StackOwner, VmPage
from model.pmm import AllocFlag
from model.solpi import StackOwnedLoanedPagesInterval, current_interval
from stress.catalogue import Spec, program_of

BORROW = AllocFlag.CAN_BORROW | AllocFlag.MUST_BORROW
wait_for = StackOwnedLoanedPagesInterval.wait_until_contiguous_page_not_stack_owned


def loaned(kernel, count):
    _, pages = kernel.pmm.alloc_contiguous(count)
    kernel.pmm.begin_loan(list(pages))
    return pages


def test_an_interval_without_pages_does_nothing(run):
    def program():
        kernel = Kernel(pages=2)
        assert current_interval() is None
        with StackOwnedLoanedPagesInterval(kernel._world) as interval:
            assert current_interval() is interval
        assert current_interval() is None

    run.once(program)


def test_the_outermost_interval_wins(run):
    def program():
        kernel = Kernel(pages=4)
        loaned(kernel, 1)
        with StackOwnedLoanedPagesInterval(kernel._world) as outer:
            with StackOwnedLoanedPagesInterval(kernel._world):
                _, page = kernel.pmm.alloc_page(BORROW)
                assert page is not None
                word = page.word.peek()
                assert isinstance(word, StackOwner)
                assert word.interval is outer
            assert current_interval() is outer
            kernel.pmm.free_page(page)

    run.once(program)


def test_a_page_that_nobody_waits_for_needs_no_thread_lock(run):
    """W8, the common case: ownership begins and ends without the global spinlock."""

    def program():
        kernel = Kernel(pages=4)
        loaned(kernel, 1)
        with StackOwnedLoanedPagesInterval(kernel._world):
            _, page = kernel.pmm.alloc_page(BORROW)
            assert page is not None
            kernel.pmm.free_page(page)
        raise AssertionError("the end, so that there is a trace")

    steps = [step.obj for step in run.finding(program).trace()]
    assert "pmm.lock" in steps
    assert "thread_lock" not in steps


def test_many_waiters_lend_their_priority_and_all_wake(run):
    """W8: a LOW owner of 4 pages, two DEFAULT waiters for each; all wake, the priority relaxes."""

    def program():
        kernel = Kernel(pages=6)
        loaned(kernel, 4)
        ready, done, seen = Event("ready"), Event("done"), []
        pages: list[VmPage] = []

        def owner():
            with StackOwnedLoanedPagesInterval(kernel._world):
                pages.extend(kernel.pmm.alloc_pages(4, BORROW)[1])
                ready.set()
                done.wait()
                seen.append(thread.effective_priority)
                kernel.pmm.free_list_of_pages(pages[:])
            seen.append(thread.effective_priority)

        thread = spawn(owner, name="owner", priority=-5)
        ready.wait()
        woken = []

        def waiter(page):
            wait_for(kernel._world, page)
            woken.append(page)

        waiters = [spawn(waiter, page, priority=3) for page in pages for _ in range(2)]
        # Virtual time passes only when everybody sleeps: well within the debugging timeout.
        sleep(0.1)
        assert woken == []
        assert thread.effective_priority == 3
        done.set()
        thread.join()
        for other in waiters:
            other.join()
        assert len(woken) == 8
        assert seen == [3, -5]
        assert all(page.state.peek() is PageState.FREE for page in pages)
        kernel.quiesce()

    run.clean(program, 30)


def test_a_waiter_that_owns_pages_itself_passes_the_priority_on(run):
    """A chain: the urgent thread waits for the middle one, which waits for the lowly one."""

    def program():
        kernel = Kernel(pages=4)
        first, second = loaned(kernel, 2)
        owned = [Event("first"), Event("second")]
        go = Event("go")

        def low():
            with StackOwnedLoanedPagesInterval(kernel._world):
                kernel.pmm.alloc_page(BORROW)
                owned[0].set()
                go.wait()
                kernel.pmm.free_page(first)

        def middle():
            owned[0].wait()
            with StackOwnedLoanedPagesInterval(kernel._world):
                kernel.pmm.alloc_page(BORROW)
                owned[1].set()
                wait_for(kernel._world, first)
                kernel.pmm.free_page(second)

        threads = [spawn(low, priority=-5), spawn(middle, priority=-2)]
        owned[1].wait()
        threads.append(spawn(wait_for, kernel._world, second, priority=7))
        sleep(0.1)
        lent = [thread.effective_priority for thread in threads]
        go.set()
        for thread in threads:
            thread.join()
        assert lent == [7, 7, 7]
        assert [thread.effective_priority for thread in threads] == [-5, -2, 7]
        kernel.quiesce()

    run.clean(program, 60)


def test_an_owner_that_inherits_nothing_starves(run, monkeypatch):
    """M53 with checks off: the kernel sees nothing, but an urgent thread waits for ever."""
    program = program_of(Spec("inherit-owner", checks=False))
    run.clean(program, 20)
    monkeypatch.setattr(StackOwnedLoanedPagesInterval, "_prepare_for_waiter", _without_owner)

    assert "the hog ran to its end" in run.finding(program, 20).message


def _without_owner(interval):
    if interval.owned_wait_queue is None:
        interval.owned_wait_queue = WaitQueue("queue")
        interval.is_ready_for_waiter.store(True)


def test_a_waiter_returns_at_once_where_no_stack_owns_the_page(run):
    def program():
        kernel = Kernel(pages=2)
        wait_for(kernel._world, kernel.pmm.pages[0])

    run.once(program)


def test_a_waiter_and_the_end_of_the_interval_never_miss_each_other(run):
    """R12, in every interleaving with up to three preemptions."""

    def program():
        kernel = Kernel(pages=2)
        (page,) = loaned(kernel, 1)

        def owner():
            with StackOwnedLoanedPagesInterval(kernel._world):
                kernel.pmm.alloc_page(BORROW)
                kernel.pmm.free_page(page)

        parallel(owner, lambda: wait_for(kernel._world, page), names=["owner", "waiter"])

    report = run.clean(program, 20_000, strategy="dfs", preemptions=3)
    assert report.exhausted


@pytest.mark.once
def test_two_waiters_of_one_page_wake_together(run):
    """R13: the second waiter finds the bit set and the queue ready."""

    def program():
        kernel = Kernel(pages=2)
        (page,) = loaned(kernel, 1)

        def owner():
            with StackOwnedLoanedPagesInterval(kernel._world):
                kernel.pmm.alloc_page(BORROW)
                kernel.pmm.free_page(page)

        waiter = lambda: wait_for(kernel._world, page)
        parallel(owner, waiter, waiter, names=["owner", "w1", "w2"])
        kernel.quiesce()

    run.clean(program, 1500)


def test_waiting_with_a_lock_held_is_a_finding(run):
    """F7: the owner of the interval may need that lock."""

    def program():
        kernel = Kernel(pages=2)
        with kernel.page_queues.lock:
            wait_for(kernel._world, kernel.pmm.pages[0])

    assert run.finding(program).kind == "lock-order"


def test_a_loaned_page_needs_an_interval(run):
    def program():
        kernel = Kernel(pages=2)
        loaned(kernel, 1)
        kernel.pmm.alloc_page(BORROW)

    assert "a.pmm.interval" in run.finding(program).message


def test_the_owner_cannot_wait_for_itself(run):
    def program():
        kernel = Kernel(pages=2)
        loaned(kernel, 1)
        with StackOwnedLoanedPagesInterval(kernel._world):
            _, page = kernel.pmm.alloc_page(BORROW)
            assert page is not None
            wait_for(kernel._world, page)

    assert "a.solpi.not_self" in run.finding(program).message


def times_out_on_an_interval(**options):
    """L4: the waiter's timer runs out, the owner ends its interval, the waiter blocks again."""

    def program():
        kernel = Kernel(pages=2, **options)
        (page,) = loaned(kernel, 1)

        def owner():
            with StackOwnedLoanedPagesInterval(kernel._world):
                kernel.pmm.alloc_page(BORROW)
                kernel.pmm.free_page(page)

        parallel(owner, lambda: wait_for(kernel._world, page), names=["owner", "waiter"])

    return program


@pytest.mark.parametrize("options", [{"revision": "seed"}, {"defects": {"L4"}}])
def test_the_timed_block_can_miss_the_end_of_the_interval(run, options):
    failure = run.finding(times_out_on_an_interval(**options), 5_000, early_timeouts=True)
    assert "I24" in failure.message


@pytest.mark.once
@pytest.mark.parametrize("options", [{"revision": "fixed"}, {"defects": {"L1", "L2", "L3", "L5"}}])
def test_an_infinite_block_misses_nothing(run, options):
    run.clean(times_out_on_an_interval(**options), 2_000, early_timeouts=True)


def test_supply_from_within_an_interval_is_nested(run):
    def program():
        kernel = Kernel(pages=6)
        kernel.lender(1, absent=1)
        borrower = kernel.borrower(1)
        with StackOwnedLoanedPagesInterval(kernel._world) as outer:
            assert kernel.supply(borrower) is Status.OK
            assert current_interval() is outer
        kernel.quiesce()
        kernel.destroy_all()

    run.once(program)
