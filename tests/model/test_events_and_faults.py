"""Events with a status, kill and suspend, fault plans, and the pager's side."""

from __future__ import annotations

from pathlib import Path

import pytest
from pythons import on_each

from harness import UsageError, current_thread, explore, parallel, spawn
from model import FaultPlan, Kernel, Status
from model.event import AutounsignalEvent, pending_signal, resume_after_suspend
from model.faults import SITES, known_sites
from model.status import is_valid_external_failure_code, is_valid_internal_failure_code


def test_a_signal_wakes_one_waiter_with_its_status(run):
    def program():
        event = AutounsignalEvent(Kernel()._world, "event")
        got = []
        parallel(
            lambda: got.append(event.wait()), lambda: event.signal(Status.IO), names=["W", "S"]
        )
        assert got == [Status.IO]
        assert not event.is_signalled()

    run.clean(program, 200)


def test_a_kill_ends_every_wait_from_then_on(run):
    def program():
        kernel = Kernel()
        event = AutounsignalEvent(kernel._world, "event")

        def waiter():
            assert event.wait() is Status.INTR_KILLED
            assert event.wait() is Status.INTR_KILLED
            assert not resume_after_suspend(current_thread())

        thread = spawn(waiter)
        kernel.kill(thread)
        kernel.suspend(thread)
        thread.join()
        assert pending_signal(thread) is Status.INTR_KILLED

    run.clean(program, 200)


def test_a_suspend_ends_one_wait_and_is_forgotten_on_resume(run):
    def program():
        kernel = Kernel()
        event = AutounsignalEvent(kernel._world, "event")

        def waiter():
            assert event.wait() is Status.INTR_RETRY
            assert resume_after_suspend(current_thread())
            assert event.wait() is Status.OK

        thread = spawn(waiter)
        kernel.suspend(thread)
        while pending_signal(thread) is not None:
            current_thread()
            kernel.pmm.count_free_pages()
        event.signal()
        thread.join()

    run.clean(program, 100)


def test_a_signal_that_is_there_beats_a_kill(run):
    def program():
        kernel = Kernel()
        event = AutounsignalEvent(kernel._world, "event")
        event.signal()
        kernel.kill(current_thread())
        return event.wait(), event.wait()

    assert run.once(program) == (Status.OK, Status.INTR_KILLED)


def test_a_plan_counts_each_site_apart(run):
    plan = FaultPlan.parse("page_list_node@2,borrow@1,page_list_node@3")
    hits = [plan.hit("page_list_node") for _ in range(4)]
    assert hits == [False, True, True, False]
    assert plan.hit("borrow")
    assert not plan.hit("alloc")
    plan.restart()
    assert [plan.hit("page_list_node") for _ in range(2)] == [False, True]


def test_a_plan_prints_what_it_reads():
    text = "page_list_node@2,page_list_node@3,borrow@1"
    assert str(FaultPlan.parse(text)) == text
    assert str(FaultPlan.parse("no_memory@2")) == "page_list_node@2"
    assert str(FaultPlan.parse("")) == str(FaultPlan.parse("none")) == ""
    assert str(FaultPlan.parse("alloc.supply@1-3,kill@2")) == "alloc.supply@1-3,kill@2"


@pytest.mark.parametrize(
    "text",
    [
        "page_list_node",
        "page_list_node@0",
        "page_list_node@x",
        "disk@1",
        "alloc.disk@1",
        "alloc@3-1",
        "alloc@1-",
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(text):
    with pytest.raises(UsageError):
        FaultPlan.parse(text)


def test_a_place_counts_for_itself_and_for_its_site(run):
    plan = FaultPlan.parse("alloc.supply@1,alloc@3")
    hits = [plan.hit("alloc", place) for place in ("replace", "supply", "supply", "")]
    assert hits == [False, True, True, False]


def test_a_range_is_drawn_from_a_seed_alone():
    plan = FaultPlan.parse("alloc@1-4,borrow@2,kill@1-9")
    assert plan.draws
    assert not plan.drawn(1).draws
    assert str(plan.drawn(1)) == str(plan.drawn(1))
    assert len({str(plan.drawn(seed)) for seed in range(50)}) > 20
    assert all(fault[1] == 2 for fault in plan.drawn(7).faults if fault[0] == "borrow")
    assert str(plan.without(0)) == "borrow@2,kill@1-9"


def test_the_documentation_names_every_site_and_place():
    text = (Path(__file__).parents[2] / "docs" / "reference" / "formats.md").read_text("utf-8")
    rows = [row for row in text.splitlines() if row.startswith("| `")]
    for site, (_, places) in SITES.items():
        found = [row for row in rows if f"`{site}`" in row and all(f"`{p}`" in row for p in places)]
        assert found, f"{site} with {places}"


@pytest.mark.parametrize("site", on_each({"alloc", "kill", "timer.interval"}, known_sites()))
def test_every_site_strikes_somewhere(run, site):
    """A plan that names it changes what some operation answers, or what it does."""

    def program(text):
        kernel = Kernel(defects=["L4"], pages=12, faults=FaultPlan.parse(text))
        kernel.faults.pause()
        got: list[object] = []
        lender = kernel.lender(2, absent=2)
        vmo = kernel.borrower(2)
        kernel.faults.restart()
        got.append(kernel.supply(vmo))
        got.append(kernel.pmm.count_loaned_free_pages())
        got.append(kernel.replace_page(vmo, with_loaned=False))
        got.append(kernel.replace_page(vmo, with_loaned=True))
        got.append(kernel.create_contiguous(1)[0])
        parallel(
            lambda: got.append(kernel.commit(lender, retry=False)),
            lambda: got.append(kernel.commit(lender, 0, 1, retry=False)),
            lambda: [(kernel.evict_page(vmo, page), kernel.supply(vmo)) for page in (0, 1, 0)],
        )
        other = kernel.borrower(1)
        parallel(
            lambda: got.append(kernel.read(other)[0]),
            lambda: [kernel.pmm.count_free_pages() for _ in range(90)] and kernel.supply(other),
        )
        return got

    def answers(text):
        """What the schedules answer, and how many steps they take."""
        seen = set()

        def noting():
            seen.add(str(program(text)))

        report = explore(noting, "random", schedules=25, seed=3, stop_at_first=False)
        return seen, report.steps

    assert answers(f"{site}@1") != answers("")


def test_a_struck_thread_takes_its_request_back(run):
    for fault, status in (
        ("kill.pager@1", Status.INTR_KILLED),
        ("suspend.pager@1", Status.INTR_RETRY),
        ("timer.pager@1", Status.TIMED_OUT),
    ):

        def program(fault=fault):
            kernel = Kernel(faults=FaultPlan.parse(fault))
            vmo = kernel.borrower(1)
            pending = kernel.begin_commit(vmo)
            status = pending.wait()
            assert not kernel.answer_pager(vmo)
            kernel.destroy_all()
            return status

        assert run.once(program) is status


@pytest.mark.once
def test_a_timer_that_strikes_shows_the_fourth_defect_without_early_timeouts(run):
    """L4: out of the queue and into it again, and the interval has ended meanwhile."""

    def program(revision="seed"):
        kernel = Kernel(revision, pages=2, faults=FaultPlan.parse("timer.interval@1"))
        lender, borrower = kernel.lender(1, absent=1), kernel.borrower(1)
        kernel.supply(borrower)
        parallel(lambda: kernel.commit(lender), lambda: kernel.evict_page(borrower))

    assert "I24" in run.finding(program, 3_000, strategy="portfolio").message
    run.clean(lambda: program("fixed"), 500)


def test_a_kernel_takes_a_copy_of_its_plan(run):
    plan = FaultPlan.parse("alloc@1")
    plan.hit("alloc")

    def program():
        return Kernel(faults=plan).pmm.alloc_page()[0]

    assert run.once(program) is Status.NO_MEMORY
    assert run.once(program) is Status.NO_MEMORY


def test_no_memory_is_an_internal_failure_only():
    assert is_valid_internal_failure_code(Status.NO_MEMORY)
    assert not is_valid_external_failure_code(Status.NO_MEMORY)
    assert is_valid_external_failure_code(Status.IO)
    assert not is_valid_internal_failure_code(Status.INTR_KILLED)


def test_a_failed_borrow_supplies_the_pagers_own_page(run):
    def program():
        kernel = Kernel(faults=FaultPlan.parse("borrow@1"))
        kernel.lender(1, absent=1)
        borrower = kernel.borrower(2)
        assert kernel.supply(borrower) is Status.OK
        pages = kernel.pages_of(borrower)
        kernel.quiesce()
        kernel.destroy_all()
        return [page is not None and page.index for page in pages]

    assert run.once(program) == [1, 0]


def test_a_supply_without_memory_frees_what_was_borrowed(run):
    """The borrowed page goes back to the loaned list, the pager's own to the free list."""

    def program():
        kernel = Kernel(faults=FaultPlan.parse("page_list_node@2"))
        kernel.lender(1, absent=1)
        borrower = kernel.borrower(1)
        assert kernel.supply(borrower) is Status.NO_MEMORY
        assert kernel.pmm.count_loaned_free_pages() == 1
        assert kernel.pmm.count_free_pages() == 7
        kernel.quiesce()
        kernel.destroy_all()

    run.once(program)


def test_there_may_be_nothing_to_supply(run):
    def program():
        kernel = Kernel(pages=2)
        kernel.lender(2)
        borrower = kernel.borrower(1)
        waiting = kernel.begin_commit(borrower)
        assert kernel.answer_pager(borrower)
        return kernel.supply(borrower), waiting.wait()

    assert run.once(program) == (Status.NO_MEMORY, Status.NO_MEMORY)


def test_reading_a_pager_backed_page_waits_for_the_pager(run):
    def program():
        kernel = Kernel()
        vmo = kernel.borrower(1)
        got = []

        def pager():
            while not kernel.answer_pager(vmo):
                pass

        parallel(lambda: got.append(kernel.read(vmo)), pager, names=["R", "P"])
        assert got == [(Status.OK, b"pager...........")]
        kernel.destroy_all()

    run.clean(program, 100)


@pytest.mark.once
def test_the_evictor_leaves_a_dying_vmo_to_its_recycler(run):
    def program():
        kernel = Kernel()
        vmo = kernel.borrower(2)
        kernel.supply(vmo)
        parallel(lambda: kernel.evict(2), lambda: kernel.destroy(vmo), names=["E", "X"])
        kernel.quiesce()
        kernel.destroy_all()

    run.clean(program, 500)
