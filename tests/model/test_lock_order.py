"""The lock order that the model shows: a subset of the golden edges always, all of them in all."""

from __future__ import annotations

import pytest

from harness import explore, parallel, spawn
from model import FORBIDDEN_EDGES, GOLDEN_EDGES, Kernel, judge_edges


def reclaim():
    kernel = Kernel()
    lender, borrower = kernel.lender(2, absent=2), kernel.borrower(2)
    kernel.supply(borrower)
    parallel(lambda: kernel.commit(lender), lambda: kernel.evict(1), names=["C", "E"])
    kernel.destroy_all()


def lifetime():
    kernel = Kernel()
    lender, borrower = kernel.lender(2, absent=1), kernel.borrower(1)
    pending = kernel.begin_commit(borrower)
    parallel(lambda: kernel.answer_pager(borrower), lambda: kernel.destroy(lender))
    pending.wait()
    kernel.detach(borrower)
    kernel.destroy_all()


def interrupted():
    kernel = Kernel()
    lender = kernel.lender(2, absent=2)
    first = spawn(lambda: kernel.commit(lender), name="C1")
    second = spawn(lambda: kernel.commit(lender), name="C2")
    kernel.suspend(first)
    first.join()
    second.join()
    kernel.destroy_all()


def mapped():
    kernel = Kernel()
    lender, borrower = kernel.lender(2, absent=1), kernel.borrower(1)
    mapping, other = kernel.mapped(lender, close=True), kernel.mapped(borrower)
    parallel(lambda: kernel.load(other), lambda: kernel.supply(borrower), names=["U", "S"])
    parallel(lambda: kernel.fault(mapping, 1), lambda: kernel.decommit_mapped(mapping))
    kernel.unmap(mapping)
    kernel.destroy_all()


def swept():
    kernel = Kernel()
    kernel.lender(1, absent=1)
    vmo = kernel.borrower(1)
    kernel.supply(vmo)
    parallel(kernel.sweep, lambda: kernel.pin(vmo), lambda: kernel.age(), names=["L", "P", "A"])
    assert kernel.sweep() == 0


PROGRAMS = (reclaim, lifetime, interrupted, mapped, swept)


def edges(program, schedules=100):
    report = explore(program, strategy="random", schedules=schedules, seed=5)
    assert report.failure is None, report.failure.message
    return report.lock_order.edges


@pytest.mark.parametrize("program", PROGRAMS)
def test_observed_edges_are_golden(program):
    assert judge_edges(edges(program)) == []


def test_all_golden_edges_are_observed():
    observed = {edge for program in PROGRAMS for edge in edges(program)}
    assert observed == set(GOLDEN_EDGES)


def test_golden_and_forbidden_edges_are_disjoint():
    assert not FORBIDDEN_EDGES & set(GOLDEN_EDGES)
