"""The seed's latent defects: found on the seed revision, absent from the fixed one."""

from __future__ import annotations

import pytest

from harness import UsageError, explore, parallel, replay, spawn
from model import FaultPlan, Kernel, Status

pytestmark = pytest.mark.once


def suspended_while_in_flight(**options):
    """L1: a request is cancelled by a suspend while another thread processes it."""

    def program():
        kernel = Kernel(**options)
        lender = kernel.lender(3, absent=2)

        def commit(page):
            assert kernel.commit(lender, page, 1) is Status.OK

        c1 = spawn(commit, 1, name="C1")
        c2 = spawn(commit, 2, name="C2")
        kernel.suspend(c1)
        c1.join()
        c2.join()
        kernel.quiesce()
        kernel.destroy_all()

    return program


def supply_fails_midway(**options):
    """L2: no memory for the second page list node of a three-page supply."""

    def program():
        kernel = Kernel(faults=FaultPlan.parse("page_list_node@5"), **options)
        lender = kernel.lender(3, absent=3)
        assert kernel.commit(lender) is Status.NO_MEMORY
        kernel.quiesce()
        assert [page is not None for page in kernel.pages_of(lender)] == [True, False, False]
        assert kernel.commit(lender) is Status.OK
        kernel.quiesce()
        kernel.destroy_all()

    return program


@pytest.mark.parametrize("options", [{"revision": "seed"}, {"defects": {"L1"}}])
def test_l1_is_found(options):
    report = explore(
        suspended_while_in_flight(**options), strategy="pct", depth=3, schedules=3000, seed=1
    )
    assert report.failure is not None
    assert "I18" in report.failure.message
    again = replay(suspended_while_in_flight(**options), report.failure.token)
    assert again is not None
    assert again.digest == report.failure.digest


@pytest.mark.parametrize("strategy", ["random", "pct"])
@pytest.mark.parametrize("options", [{"revision": "fixed"}, {"defects": {"L2"}}])
def test_l1_is_absent_where_it_is_corrected(run, strategy, options):
    run.clean(suspended_while_in_flight(**options), 800, strategy=strategy)


@pytest.mark.parametrize("options", [{"revision": "seed"}, {"defects": {"L2"}}])
def test_l2_is_found(run, options):
    failure = run.finding(supply_fails_midway(**options))
    assert "I1:" in failure.message
    assert "absent and not loaned" in failure.message


def test_l2_is_found_by_the_kernels_own_asserts_too(run):
    """Without invariants the loss shows at the next cancel of the loan."""
    failure = run.finding(supply_fails_midway(revision="seed", checks=False))
    assert "a.pmm." in failure.message


@pytest.mark.parametrize("options", [{"revision": "fixed"}, {"defects": {"L1"}}])
def test_l2_is_absent_where_it_is_corrected(run, options):
    run.once(supply_fails_midway(**options))


@pytest.mark.parametrize("at", [4, 5, 6])
def test_a_failed_supply_leaves_every_absent_page_loaned(run, at):
    def program():
        kernel = Kernel(faults=FaultPlan.parse(f"page_list_node@{at}"))
        lender = kernel.lender(3, absent=3)
        assert kernel.commit(lender) is Status.NO_MEMORY
        kernel.quiesce()
        assert kernel.pmm.count_loaned_free_pages() == 7 - at
        kernel.destroy_all()

    run.once(program)


def closes_under_a_fault(**options):
    """L3: the last reference of the VMO goes while a faulting thread takes its page back."""

    def program():
        kernel = Kernel(**options)
        lender = kernel.lender(2, absent=1)
        pending = kernel.begin_commit(lender, 1, 1)

        def fault():
            assert pending.wait() is Status.OK

        parallel(fault, lambda: kernel.destroy(lender), names=["F", "X"])
        kernel.quiesce()
        kernel.destroy_all()

    return program


@pytest.mark.parametrize("options", [{"revision": "seed"}, {"defects": {"L3"}}])
def test_l3_is_found(options):
    """One preemption suffices for L3."""
    report = explore(closes_under_a_fault(**options), "dfs", None, preemptions=1)
    assert report.failure is not None
    assert report.failure.preemptions == 1
    assert any(oracle in report.failure.message for oracle in ("I17", "I20", "I28", "a.pmm"))


@pytest.mark.parametrize("options", [{"revision": "fixed"}, {"defects": {"L1", "L2", "L4", "L5"}}])
def test_l3_is_absent_where_it_is_corrected(run, options):
    """Exhaustively to two preemptions, and further out by chance."""
    report = explore(closes_under_a_fault(**options), "dfs", None, preemptions=2)
    assert (report.verdict, report.exhausted) == ("pass", True)
    run.clean(closes_under_a_fault(**options), 800)


def test_unknown_revisions_and_defects_are_refused(run):
    def program():
        with pytest.raises(UsageError, match="known are seed, fixed"):
            Kernel("upstream")
        with pytest.raises(UsageError, match="L1 to L5"):
            Kernel(defects={"L9"})

    run.once(program)


def racing_for_the_same_pages(**options):
    """Overlapping commits, decommit, suspends: claims and completions cross in every way."""

    def program():
        kernel = Kernel(**options)
        lender = kernel.lender(3, absent=3)

        def first():
            assert kernel.commit(lender, 0, 2) is Status.OK

        def second():
            assert kernel.commit(lender, 1, 2) is Status.OK

        def third():
            kernel.decommit(lender, 1, 1)
            assert kernel.commit(lender, 0, 3) is Status.OK

        threads = [spawn(first, name="C1"), spawn(second, name="C2"), spawn(third, name="C3")]
        kernel.suspend(threads[0])
        kernel.suspend(threads[1])
        for thread in threads:
            thread.join()
        kernel.quiesce()
        kernel.destroy_all()

    return program


@pytest.mark.parametrize("strategy", ["random", "pct"])
def test_the_fixed_revision_never_leaves_a_request_pending(run, strategy):
    run.clean(racing_for_the_same_pages(), 600, strategy=strategy)


@pytest.mark.parametrize("fault", ["page_list_node@4", "page_list_node@5,page_list_node@7"])
def test_failures_and_suspends_cross_and_nobody_waits_for_ever(run, fault):
    """L1 with NO_MEMORY: one thread's failure reaches another's second request by range."""

    def program():
        kernel = Kernel(pages=6, faults=FaultPlan.parse(fault))
        lender = kernel.lender(3, absent=3)

        def commit():
            assert kernel.commit(lender) in (Status.OK, Status.NO_MEMORY)

        threads = [spawn(commit, name="C1"), spawn(commit, name="C2")]
        kernel.suspend(threads[0])
        for thread in threads:
            thread.join()
        kernel.quiesce()
        # A fault that is still to come may hit here, once.
        assert Status.OK in [kernel.commit(lender), kernel.commit(lender)]
        kernel.quiesce()
        kernel.destroy_all()

    run.clean(program, 400)
    run.clean(program, 400, strategy="pct")
