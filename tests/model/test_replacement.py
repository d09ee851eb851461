"""Pages replaced where they are: hints, writes, the sweeper, aging; and who may borrow."""

from __future__ import annotations

import pytest

from harness import explore, parallel, sometimes
from model import Kernel, Status
from model.cow_pages import EvictionHintAction
from model.page import DirtyState, PageQueue
from model.page_queues import DEFERRED_MAX, GENERATIONS


def booted(pages=8, absent=2, **options):
    """A kernel with a lender, and a borrower of one page that is a loaned one."""
    kernel = Kernel(pages=pages)
    lender = kernel.lender(absent, absent=absent)
    vmo = kernel.borrower(1, **options)
    assert kernel.supply(vmo) is Status.OK
    return kernel, lender, vmo


def page_of(kernel, vmo, index=0):
    page = kernel.pages_of(vmo)[index]
    assert page is not None
    return page


def write_back(kernel, vmo):
    """Have all that was written written back; how many pages that was."""
    dirty = kernel.dirty_ranges(vmo)
    for page in dirty:
        assert kernel.writeback_begin(vmo, page, 1) is Status.OK
        assert kernel.writeback_end(vmo, page, 1) is Status.OK
    return len(dirty)


# -- replace --------------------------------------------------------------------------------------


def test_w11_a_page_moves_to_an_ordinary_one_and_back(run):
    def program():
        kernel, lender, vmo = booted()
        for with_loaned in (False, True, False):
            before = page_of(kernel, vmo)
            assert kernel.replace_page(vmo, with_loaned=with_loaned) is Status.OK
            after = page_of(kernel, vmo)
            assert after is not before
            assert after.loaned is with_loaned
            assert kernel.read(vmo) == (Status.OK, b"pager...........")
        assert kernel.commit(lender) is Status.OK
        assert not page_of(kernel, vmo).loaned
        kernel.quiesce()
        kernel.destroy_all()

    run.once(program)


def test_what_must_stay_is_not_replaced(run):
    def program():
        kernel, _, vmo = booted(dirty_tracked=True)
        kernel.write(vmo, 0, b"w")
        dirty = [kernel.replace_page(vmo, with_loaned=loaned) for loaned in (True, False)]
        write_back(kernel, vmo)
        kernel.always_need(vmo)
        needed = kernel.replace_page(vmo, with_loaned=True)
        kernel.dont_need(vmo)
        _, pinned = kernel.pin(vmo)
        wired = kernel.replace_page(vmo, with_loaned=False)
        kernel.unpin(pinned)
        kernel.evict_page(vmo)
        return [*dirty, needed, wired, kernel.replace_page(vmo, with_loaned=False)]

    assert run.once(program) == [
        Status.BAD_STATE,
        Status.OK,
        Status.BAD_STATE,
        Status.BAD_STATE,
        Status.NOT_FOUND,
    ]


@pytest.mark.parametrize("how", ["latency", "switches"])
def test_who_may_not_borrow_is_told_so(run, how):
    def program():
        kernel, _, vmo = booted()
        if how == "latency":
            kernel.mark_latency_sensitive(vmo)
        else:
            kernel.ppb(in_supplypages=False)
        return kernel.replace_page(vmo, with_loaned=True)

    assert run.once(program) is Status.NOT_SUPPORTED


def test_a_pager_that_traps_writes_never_lends_out(run):
    def program():
        kernel, _, vmo = booted(trap_dirty=True)
        return page_of(kernel, vmo).loaned, kernel.replace_page(vmo, with_loaned=True)

    assert run.once(program) == (False, Status.NOT_SUPPORTED)


def test_replacement_at_every_moment_of_a_reclaim(run):
    """R7, R17, in every interleaving with one preemption."""

    def program():
        kernel, lender, vmo = booted(pages=4, absent=1)
        parallel(
            lambda: kernel.replace_page(vmo, with_loaned=False),
            lambda: kernel.commit(lender),
            names=["replacer", "C"],
        )
        kernel.quiesce()

    report = run.clean(program, 2_000, strategy="dfs", preemptions=1)
    assert report.exhausted


# -- hints and writes -----------------------------------------------------------------------------


def test_w7_a_page_that_is_always_needed_is_not_a_loaned_one(run):
    """Each time another page is borrowed; the hint leaves an ordinary one that stays."""

    def program():
        kernel = Kernel(pages=16)
        for _ in range(10):
            kernel.lender(1, absent=1)
        for _ in range(3):
            vmo = kernel.borrower(1)
            kernel.supply(vmo)
            assert page_of(kernel, vmo).loaned
            assert kernel.always_need(vmo) is Status.OK
            assert not page_of(kernel, vmo).loaned
            assert not kernel.evict_page(vmo)
            kernel.destroy(vmo)
        kernel.quiesce()

    run.once(program)


def test_hints_decide_who_is_evicted_next(run):
    def program():
        kernel = Kernel(pages=8)
        vmos = [kernel.borrower(1) for _ in range(3)]
        for vmo in vmos:
            kernel.supply(vmo)
        kernel.dont_need(vmos[2])
        kernel.evict()
        kernel.evict()
        gone = [kernel.attributed(vmo) for vmo in vmos]
        assert kernel.dont_need(vmos[1], 0, 2) is Status.OUT_OF_RANGE
        return gone

    assert run.once(program) == [0, 1, 0]


def test_a_page_that_is_used_again_is_not_evicted_first(run):
    def program():
        kernel = Kernel(pages=8)
        vmos = [kernel.borrower(1) for _ in range(2)]
        for vmo in vmos:
            kernel.supply(vmo)
        kernel.dont_need(vmos[0])
        kernel.age()
        kernel.read(vmos[0])
        counts = kernel.page_queues.queue_counts()
        assert counts["DontNeed"] == 0
        kernel.evict()
        return [kernel.attributed(vmo) for vmo in vmos]

    assert run.once(program) == [1, 0]


def test_a_written_page_is_dirty_ordinary_and_stays(run):
    def program():
        kernel, lender, vmo = booted(dirty_tracked=True)
        assert page_of(kernel, vmo).loaned
        assert kernel.write(vmo, 0, b"w") is Status.OK
        page = page_of(kernel, vmo)
        assert page.dirty_state is DirtyState.DIRTY
        assert not page.loaned
        assert page.page_queue is PageQueue.PAGER_BACKED_DIRTY
        assert kernel.evict() == 0
        assert not kernel.evict_page(vmo)
        assert kernel.commit(lender) is Status.OK
        assert page_of(kernel, vmo) is page
        assert (write_back(kernel, vmo), write_back(kernel, vmo)) == (1, 0)
        assert kernel.evict_page(vmo)
        kernel.quiesce()

    run.once(program)


def test_a_write_through_a_mapping_makes_dirty_too(run):
    """A clean page is write-protected: the first store faults, also after a write-back."""

    def program():
        kernel, _, vmo = booted(dirty_tracked=True)
        mapping = kernel.mapped(vmo)
        assert kernel.load(mapping)[0] is Status.OK
        assert not mapping.store(0, b"direct")
        for _ in range(2):
            assert kernel.store(mapping, 0, b"w") is Status.OK
            assert mapping.store(0, b"again")
            assert write_back(kernel, vmo) == 1
            assert not mapping.store(0, b"late")
        assert kernel.read(vmo)[1].startswith(b"again")
        kernel.quiesce()

    run.once(program)


def test_a_write_to_a_loaned_page_may_run_out_of_memory(run):
    def program():
        kernel, _, vmo = booted(pages=3, dirty_tracked=True)
        _, kept = kernel.pmm.alloc_page()
        assert kernel.write(vmo, 0, b"w") is Status.NO_MEMORY
        assert kernel.read(vmo)[1] == b"pager..........."
        kernel.quiesce(held=[kept])

    run.once(program)


# -- sweeper --------------------------------------------------------------------------------------


def test_w13_the_sweeper_moves_all_that_it_may(run):
    def program():
        kernel = Kernel(pages=12)
        kernel.lender(3, absent=3)
        kernel.ppb(in_supplypages=False, on_mru=True)
        plain, pinned, needed, slow = (kernel.borrower(1) for _ in range(4))
        for vmo in (plain, pinned, needed, slow):
            kernel.ppb(on_mru=False)
            kernel.supply(vmo)
            kernel.ppb(on_mru=True)
        kernel.pin(pinned)
        kernel.always_need(needed)
        kernel.mark_latency_sensitive(slow)
        assert kernel.sweep() == 1
        assert [page_of(kernel, vmo).loaned for vmo in (plain, pinned, needed, slow)] == [
            True,
            False,
            False,
            False,
        ]
        assert kernel.sweep() == 0
        kernel.ppb(on_mru=False)
        assert kernel.sweep() == 1
        assert not page_of(kernel, plain).loaned
        kernel.quiesce()

    run.once(program)


@pytest.mark.once
def test_the_sweeper_may_have_the_last_reference_and_takes_no_lock_for_it(run):
    """What is left of a dead VMO goes then, under the sweeper's lock: it asks nobody."""

    def program():
        kernel = Kernel(pages=4)
        kernel.lender(1, absent=1)
        kernel.ppb(in_supplypages=False, on_mru=False)
        vmo = kernel.borrower(1)
        kernel.supply(vmo)
        kernel.ppb(on_mru=True)
        container = vmo.cow.raw_container()

        def sweeper():
            if kernel.sweep() == 1:
                sometimes("the page was replaced")
            if not container.alive:
                sometimes("the VMO died meanwhile")

        parallel(sweeper, lambda: kernel.destroy(vmo), names=["L", "X"])
        kernel.destroy_all()

    report = run.clean(program, 1_500, strategy="pct")
    edges = {inner for outer, inner in report.lock_order.edges if outer == "LoanSweeper"}
    assert edges == {"PageQueues", "VmHierarchy", "PmmNode"}


def test_w13_the_sweeper_stops_where_there_is_nothing_to_borrow(run):
    def program():
        kernel = Kernel(pages=10)
        kernel.lender(2, absent=2)
        kernel.ppb(in_supplypages=False)
        vmo = kernel.borrower(4)
        kernel.supply(vmo)
        kernel.ppb(on_mru=True)
        replaced = kernel.sweep()
        kernel.quiesce()
        return replaced, sum(page_of(kernel, vmo, index).loaned for index in range(4))

    assert run.once(program) == (2, 2)


def test_the_sweeper_does_not_wait_for_a_page_on_a_stack(run):
    def program():
        kernel, _, vmo = booted()
        kernel.ppb(in_supplypages=False)
        with kernel.interval():
            page = page_of(kernel, vmo)
            assert vmo.cow.remove_page_for_eviction(page, 0, EvictionHintAction.FOLLOW)
            assert kernel.sweep() == 0
            kernel.pmm.free_page(page)
        kernel.quiesce()

    run.once(program)


# -- aging ----------------------------------------------------------------------------------------


def aged(kernel, vmos):
    """Supply without borrowing, let a generation pass, and use every page."""
    kernel.ppb(in_supplypages=False, on_mru=True)
    for vmo in vmos:
        assert kernel.supply(vmo) is Status.OK
    kernel.age()
    for vmo in vmos:
        assert kernel.read(vmo)[0] is Status.OK


def test_aging_borrows_for_pages_in_use_alone(run):
    def program():
        kernel = Kernel(pages=10)
        kernel.lender(3, absent=3)
        used, unused = kernel.borrower(1), kernel.borrower(1)
        kernel.ppb(in_supplypages=False)
        kernel.supply(unused)
        aged(kernel, [used])
        assert kernel.process_queues() == 1
        assert page_of(kernel, used).loaned
        assert not page_of(kernel, unused).loaned
        assert kernel.read(used)[1] == b"pager..........."
        kernel.quiesce()
        kernel.destroy_all()

    run.once(program)


def test_aging_does_not_borrow_while_that_is_switched_off(run):
    def program():
        kernel = Kernel(pages=6)
        kernel.lender(1, absent=1)
        vmo = kernel.borrower(1)
        aged(kernel, [vmo])
        kernel.ppb(on_mru=False)
        return kernel.process_queues(), page_of(kernel, vmo).loaned

    assert run.once(program) == (0, False)


def test_more_pages_than_one_hold_of_the_lock_sets_aside(run):
    def program():
        count = DEFERRED_MAX + 3
        kernel = Kernel(pages=2 * count + 2)
        kernel.lender(count, absent=count)
        vmo = kernel.borrower(count)
        aged(kernel, [vmo])
        for page in range(count):
            kernel.read(vmo, page)
        assert kernel.process_queues() == count
        assert all(page_of(kernel, vmo, index).loaned for index in range(count))
        kernel.quiesce()

    run.once(program)


def test_generations_pass_and_pages_that_are_not_used_grow_old(run):
    def program():
        kernel = Kernel(pages=4)
        vmo = kernel.borrower(2)
        kernel.supply(vmo)
        seen = []
        for _ in range(2 * GENERATIONS):
            kernel.age()
            kernel.read(vmo, 0)
            counts = kernel.page_queues.queue_counts()
            seen.append((counts["active"], counts["inactive"]))
        assert seen[0] == (2, 0)
        assert seen[1:] == [(1, 1)] * (2 * GENERATIONS - 1)
        kernel.evict()
        return [page is None for page in kernel.pages_of(vmo)]

    assert run.once(program) == [False, True]


# -- numbers --------------------------------------------------------------------------------------


def test_the_numbers_follow_each_operation(run):
    """The table of counters: what each operation changes, and by how much."""

    def program():
        kernel = Kernel(pages=8)
        seen = []

        def note():
            stats = kernel.memory_stats()
            seen.append([stats[name] for name in ("free", "free_loaned", "loaned", "vmo", "wired")])

        lender = kernel.lender(4)
        note()
        kernel.decommit(lender, 1, 3)
        note()
        vmo = kernel.borrower(2)
        kernel.supply(vmo)
        note()
        _, pinned = kernel.pin(vmo, 0, 1)
        assert pinned is not None
        note()
        kernel.commit(lender, 1, 3)
        note()
        kernel.unpin(pinned)
        kernel.destroy(lender)
        note()
        assert kernel.memory_stats()["loan_cancelled"] == 0
        return seen

    assert run.once(program) == [
        [4, 0, 0, 4, 0],
        [4, 3, 3, 1, 0],
        [4, 1, 3, 3, 0],
        [3, 2, 3, 3, 1],
        [3, 0, 0, 5, 1],
        [7, 0, 0, 1, 0],
    ]


def test_the_switches_are_shown_and_so_is_everything_else(run):
    def program():
        kernel, _, vmo = booted()
        assert "loaning off in_supplypages on on_mru on" in kernel.ppb(loaning=False, on_mru=True)
        kernel.pin(vmo)
        kernel.mark_latency_sensitive(vmo)
        return kernel.dump()

    text = run.once(program)
    for part in ("MRU generation 0", "Wired 1", "pinned 1", "latency-sensitive ever-pinned", "ppb"):
        assert part in text


def test_an_evictor_that_finds_only_what_is_always_needed_gives_up() -> None:
    """It met the page again and again, which goes back to the youngest generation each time."""

    def program() -> None:
        kernel = Kernel(pages=3)
        borrower = kernel.borrower(2)
        assert kernel.supply(borrower) is Status.OK
        assert kernel.always_need(borrower, 0, 1) is Status.OK
        assert kernel.evict(3) == 1
        assert [page is None for page in kernel.pages_of(borrower)] == [False, True]
        kernel.destroy_all()

    assert explore(program, "round-robin", schedules=1).failure is None
