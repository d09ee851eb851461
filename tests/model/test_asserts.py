"""The kernel's asserts, under their names: each is in the source, and each can fail."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

import model
from harness import spawn
from model import Kernel, PageState, Status
from model.cow_pages import EvictionHintAction
from model.cow_replace import replace_page
from model.page import PAGE_SIZE, DirtyState, PageQueue, StackOwner
from model.page_queues import GENERATIONS
from model.page_request import PageRequest
from model.page_source import PageSource
from model.pager_proxy import PagerProxy
from model.pmm import AllocFlag
from model.solpi import StackOwnedLoanedPagesInterval
from model.splice_list import VmPageSpliceList

BORROW = AllocFlag.CAN_BORROW | AllocFlag.MUST_BORROW

# Every assert of these parts; a.ps.nolocks is the harness's ``assert_no_locks_held``.
NAMES = [
    "a.ppp.init",
    "a.ppp.inited",
    "a.ppp.type",
    "a.ppp.notclosed",
    "a.ppp.closed_empty",
    "a.ppp.range",
    "a.ppp.nonzero",
    "a.ppp.free_after_none",
    "a.ppp.free_after_evict",
    "a.ppp.not_self",
    "a.ppp.not_always_need",
    "a.ppp.supply_status",
    "a.pmm.alloc_free",
    "a.pmm.borrow_flag",
    "a.pmm.interval",
    "a.pmm.free_not_free",
    "a.pmm.free_unlinked",
    "a.pmm.begin",
    "a.pmm.cancel",
    "a.pmm.end",
    "a.pmm.delete",
    "a.pmm.count",
    "a.pq.set",
    "a.pq.move",
    "a.pq.remove",
    "a.pq.panic_self",
    "a.pq.rotate",
    "a.pq.upgrade_free",
    "a.page.set_object",
    "a.page.clear_object",
    "a.page.set_owner",
    "a.page.clear_owner",
    "a.solpi.owner",
    "a.solpi.not_self",
    "a.solpi.ready",
    "a.solpi.wake_owner",
    "a.cow.init",
    "a.cow.add",
    "a.cow.recycle_unpinned",
    "a.cow.pin_not_loaned",
    "a.cow.replace_not_loaned",
    "a.cow.unpin",
    "a.cow.evict_not_loaned",
    "a.ps.current",
    "a.ps.owned",
    "a.ps.batch",
    "a.ps.code",
    "a.ps.dtor",
    "a.ps.nolocks",
]

# These fire in tests of their own: test_physical_page_provider.py and test_intervals.py.
ELSEWHERE = {
    "a.ppp.init",
    "a.ppp.inited",
    "a.ppp.type",
    "a.ppp.notclosed",
    "a.ppp.closed_empty",
    "a.ppp.range",
    "a.pmm.interval",
    "a.solpi.not_self",
}

BREAKERS: dict[str, Callable[[], None]] = {}


def breaks(name):
    def register(function):
        BREAKERS[name] = function
        return function

    return register


def boot(pages=2, absent=1):
    kernel = Kernel(pages=6, checks=False)
    vmo = kernel.lender(pages, absent=absent)
    return kernel, vmo, vmo.cow.page_source, vmo.cow.page_source.provider


def borrowed(kernel):
    """A borrower with one borrowed page, and that page."""
    borrower = kernel.borrower(1)
    kernel.supply(borrower)
    return borrower, kernel.pages_of(borrower)[0]


# -- provider -----------------------------------------------------------------------------------


@breaks("a.ppp.nonzero")
def empty_request():
    kernel, vmo, _, _ = boot()
    request = kernel.begin_commit(vmo).request
    request.length = 0
    request.wait()


@breaks("a.ppp.free_after_none")
def page_leaves_free_again():
    kernel, _, _, provider = boot()
    kernel.page_queues.get_cow_with_replaceable_page = lambda *_: None
    provider._evict_page(provider.page_at(0))


@breaks("a.ppp.free_after_evict")
def page_is_neither_here_nor_owned():
    kernel, _, _, provider = boot()
    borrower, page = borrowed(kernel)
    with borrower.cow.lock:
        borrower.cow.page_list.remove(0)
    provider._evict_page(page)


@breaks("a.ppp.not_self")
def backlink_leads_home():
    kernel, vmo, _, provider = boot()
    page = provider.page_at(0)
    page.word.store(vmo.cow)
    provider.cow_pages, own = kernel.borrower(1).cow, provider.cow_pages
    found = kernel.page_queues.get_cow_with_replaceable_page(page, provider.cow_pages)
    kernel.page_queues.get_cow_with_replaceable_page = lambda *_: found
    provider.cow_pages = own
    provider._evict_page(page)


@breaks("a.ppp.not_always_need")
def loaned_page_is_always_needed():
    kernel, _, _, provider = boot()
    _, page = borrowed(kernel)
    page.always_need = True
    provider._evict_page(page)


@breaks("a.ppp.supply_status")
def supply_fails_for_another_reason():
    kernel, vmo, _, _provider = boot()
    vmo.cow.supply_pages = lambda *_, **__: Status.OUT_OF_RANGE
    kernel.commit(vmo)


# -- PMM ----------------------------------------------------------------------------------------


@breaks("a.pmm.alloc_free")
def allocated_twice():
    kernel, *_ = boot()
    kernel.pmm.free_list.pages()[0].set_state(PageState.ALLOC)
    kernel.pmm.alloc_page()


@breaks("a.pmm.borrow_flag")
def must_without_can():
    kernel, *_ = boot()
    kernel.pmm.alloc_page(AllocFlag.MUST_BORROW)


@breaks("a.pmm.free_not_free")
def freed_twice():
    kernel, *_ = boot()
    _, page = kernel.pmm.alloc_page()
    kernel.pmm.free_page(page)
    with kernel.pmm.lock:
        kernel.pmm.free_list.remove(page)
    kernel.pmm.free_page(page)


@breaks("a.pmm.free_unlinked")
def freed_while_queued():
    kernel, _, _, provider = boot()
    kernel.pmm.free_page(provider.page_at(0))


@breaks("a.pmm.begin")
def loaned_twice():
    kernel, *_ = boot()
    kernel.pmm.begin_loan([kernel.pmm.free_loaned_list.pages()[0]])


@breaks("a.pmm.cancel")
def cancelled_at_home():
    kernel, _, _, provider = boot()
    kernel.pmm.cancel_loan(provider.page_at(0).paddr, 1)


@breaks("a.pmm.end")
def ended_without_cancel():
    kernel, *_ = boot()
    kernel.pmm.end_loan(kernel.pmm.free_loaned_list.pages()[0].paddr, 1, [])


@breaks("a.pmm.delete")
def deleted_with_a_page_at_home():
    *_, provider = boot()
    provider.on_close()


@breaks("a.pmm.count")
def counter_off():
    kernel, *_ = boot()
    with kernel.pmm.lock:
        kernel.pmm.free_count += 1
    kernel.pmm.check_all_free_pages()


# -- page queues and pages ----------------------------------------------------------------------


@breaks("a.pq.set")
def queued_twice():
    kernel, _, _, provider = boot()
    kernel.page_queues.set_unswappable(provider.page_at(0))


@breaks("a.pq.move")
def moved_and_never_queued():
    kernel, *_ = boot()
    kernel.page_queues.move_to_pager_backed(kernel.pmm.alloc_page()[1])


@breaks("a.pq.remove")
def removed_and_never_queued():
    kernel, *_ = boot()
    kernel.page_queues.remove(kernel.pmm.alloc_page()[1])


@breaks("a.pq.rotate")
def room_is_told_of_that_there_is_not():
    kernel, *_ = boot()
    kernel.page_queues.threads.mru_semaphore.release()
    for _ in range(GENERATIONS):
        kernel.age()


@breaks("a.pq.panic_self")
def found_at_home():
    kernel, vmo, _, provider = boot()
    page = provider.page_at(0)
    page.word.store(vmo.cow)
    kernel.page_queues.get_cow_with_replaceable_page(page, vmo.cow)


@breaks("a.pq.upgrade_free")
def container_goes_before_its_pages():
    kernel, vmo, _, _ = boot()
    borrower, page = borrowed(kernel)
    borrower.cow.raw_container().try_upgrade = lambda: False
    kernel.page_queues.get_cow_with_replaceable_page(page, vmo.cow)


@breaks("a.page.set_object")
def another_stack_owns_it():
    kernel, *_ = boot()
    borrower = kernel.borrower(1)
    with StackOwnedLoanedPagesInterval(kernel._world):
        _, page = kernel.pmm.alloc_page(BORROW)
        spawn(page.set_object, borrower.cow, 0).join()


@breaks("a.page.clear_object")
def leaves_without_an_interval():
    kernel, *_ = boot()
    _, page = borrowed(kernel)
    kernel.page_queues.remove(page)


@breaks("a.page.set_owner")
def owned_twice():
    kernel, *_ = boot()
    with StackOwnedLoanedPagesInterval(kernel._world) as interval:
        _, page = kernel.pmm.alloc_page(BORROW)
        page.set_stack_owner(interval)


@breaks("a.page.clear_owner")
def owned_by_nobody():
    kernel, *_ = boot()
    kernel.pmm.pages[0].clear_stack_owner()


# -- intervals ----------------------------------------------------------------------------------


@breaks("a.solpi.owner")
def ends_in_another_thread():
    kernel, *_ = boot()
    interval = StackOwnedLoanedPagesInterval(kernel._world)
    spawn(interval._end).join()


@breaks("a.solpi.ready")
def bit_without_a_queue():
    kernel, *_ = boot()
    interval = StackOwnedLoanedPagesInterval(kernel._world)
    page = kernel.pmm.pages[0]
    page.word.store(StackOwner(interval, True))
    interval.wait_until_contiguous_page_not_stack_owned(kernel._world, page)


@breaks("a.solpi.wake_owner")
def queue_of_nobody():
    """M53: without AssignOwner nobody inherits, and the wake notices."""
    kernel, *_ = boot()
    with StackOwnedLoanedPagesInterval(kernel._world) as interval:
        spawn(interval._prepare_for_waiter).join()
        assert interval.owned_wait_queue is not None
        interval.owned_wait_queue.assign_owner(None)


# -- VMOs ---------------------------------------------------------------------------------------


@breaks("a.cow.pin_not_loaned")
def pinned_while_loaned():
    """What M39 makes of it: here the PMM does not know of the loan."""
    kernel, *_ = boot()
    borrower, _ = borrowed(kernel)
    kernel.pmm.is_loaned = lambda _: False
    kernel.pin(borrower)


@breaks("a.cow.replace_not_loaned")
def replaced_though_needed():
    kernel, *_ = boot()
    borrower, page = borrowed(kernel)
    page.always_need = True
    replace_page(borrower.cow, page, 0, with_loaned=False)


@breaks("a.cow.unpin")
def unpinned_too_often():
    kernel, vmo, *_ = boot()
    _, pinned = kernel.pin(vmo, 0, 1)
    vmo.unpin(0, PAGE_SIZE)
    kernel.unpin(pinned)


@breaks("a.cow.init")
def initialised_twice():
    _, vmo, _, provider = boot()
    vmo.cow.initialize_vm_page(provider.page_at(0))


@breaks("a.cow.add")
def wrong_page_for_the_offset():
    kernel, vmo, _, _ = boot()
    _, page = kernel.pmm.alloc_page()
    with vmo.cow.lock:
        vmo.cow.add_new_page_locked(PAGE_SIZE, page, zero=True)


@breaks("a.cow.recycle_unpinned")
def dies_pinned():
    kernel, vmo, _, provider = boot()
    provider.page_at(0).pin_count = 1
    kernel.destroy(vmo)


@breaks("a.cow.evict_not_loaned")
def loaned_and_dirty():
    kernel, *_ = boot()
    borrower, page = borrowed(kernel)
    page.dirty_state = DirtyState.DIRTY
    borrower.cow.remove_page_for_eviction(page, 0, EvictionHintAction.FOLLOW)


# -- page source --------------------------------------------------------------------------------


@breaks("a.ps.current")
def two_requests_are_built():
    kernel, _vmo, source, _ = boot(3, 3)
    for _ in range(2):
        source.get_page(0, PageRequest(kernel._world))


@breaks("a.ps.owned")
def completed_and_never_sent():
    kernel, vmo, source, _ = boot()
    kernel.begin_commit(vmo).request.provider_owned = False
    source.on_pages_supplied(0, vmo.size)


@breaks("a.ps.batch")
def waited_for_while_accepting():
    kernel, _, source, _ = boot(3, 3)
    request = PageRequest(kernel._world)
    source.get_page(0, request)
    request.wait()


@breaks("a.ps.code")
def failed_with_ok():
    *_, source, _ = boot()
    source.on_pages_failed(0, PAGE_SIZE, Status.OK)


@breaks("a.ps.dtor")
def source_dies_open():
    kernel, *_ = boot()
    PageSource(kernel._world, "source", PagerProxy(kernel._world, "proxy")).release()


@breaks("a.ps.nolocks")
def commit_with_a_lock_held():
    kernel, vmo, _, _ = boot()
    with kernel.borrower(1).cow.lock:
        vmo.commit_range(0, PAGE_SIZE)


@pytest.mark.parametrize("name", sorted(BREAKERS))
def test_the_assert_fires_under_its_name(run, name):
    failure = run.finding(BREAKERS[name])
    assert name in failure.message
    assert failure.kind == ("lock-order" if name == "a.ps.nolocks" else "assertion")


def test_every_assert_of_these_parts_is_in_the_source_and_fires():
    source = "\n".join(path.read_text() for path in Path(model.__file__).parent.glob("*.py"))
    present = set(re.findall(r'"(a\.[a-z]+\.[a-z_]+)[":]', source))
    assert set(NAMES) <= present
    assert set(BREAKERS) | ELSEWHERE == set(NAMES)


def test_the_splice_list_frees_what_nobody_took(run):
    """The trap of L2: as ordinary pages."""

    def program():
        kernel, *_ = boot()
        status, pages = kernel.pmm.alloc_pages(2)
        assert status is Status.OK
        splice = VmPageSpliceList.create_from_page_list(kernel._world, 0, 2 * PAGE_SIZE, pages)
        assert pages == []
        first = splice.pop()
        splice.destroy()
        assert splice.is_done()
        return first.state.peek(), kernel.pmm.count_free_pages(), first.page_queue

    assert run.once(program) == (PageState.ALLOC, 3, PageQueue.NONE)
