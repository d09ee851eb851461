"""Pages that are written: the pager that is asked before, and the one that writes them back."""

from __future__ import annotations

import pytest

from harness import parallel, spawn, yield_now
from model import Kernel, Status
from model.page import PAGE_SIZE, ZEROES, DirtyState
from model.page_request import PageRequestType
from model.pager_port import PacketKind

DIRTY, READ = PageRequestType.DIRTY, PageRequestType.READ


def trapped(pages=2, **options):
    """A kernel, and a VMO with all its pages there, whose pager wants to be asked."""
    kernel = Kernel(pages=pages + 2)
    vmo = kernel.borrower(pages, trap_dirty=True, **options)
    assert kernel.supply(vmo) is Status.OK
    return kernel, vmo


def outstanding(vmo, kind=DIRTY):
    """Outstanding ranges of that kind, and how many wait along with each; in pages."""
    source = vmo.cow.page_source
    with source.mtx:
        nodes = source.outstanding_requests[kind]
        return [
            (node.offset.peek() // PAGE_SIZE, node.end // PAGE_SIZE, len(node.overlap))
            for node in nodes
        ]


def states(kernel, vmo):
    return [page and page.dirty_state for page in kernel.pages_of(vmo)]


def until(condition):
    while not condition():
        yield_now()


# -- the pager is asked ---------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["write", "fault", "zero", "slice"])
def test_whoever_writes_to_a_clean_page_asks_the_pager_first(run, how):
    def program():
        kernel, vmo = trapped(1)
        mapping, child = kernel.mapped(vmo), kernel.sliced(vmo)
        ways = {
            "write": lambda: kernel.write(vmo, 0, b"w"),
            "fault": lambda: kernel.store(mapping, 0, b"w"),
            "zero": lambda: kernel.zero(vmo),
            "slice": lambda: kernel.write(child, 0, b"w"),
        }
        writer = spawn(ways[how])
        packet = kernel.read_packet(vmo)
        assert (packet.kind, packet.offset, packet.length) == (PacketKind.DIRTY, 0, PAGE_SIZE)
        assert states(kernel, vmo) == [DirtyState.CLEAN]
        assert kernel.read(vmo)[1] == b"pager..........."
        assert kernel.dirty_pages(vmo) is Status.OK
        writer.join()
        assert writer.result is Status.OK
        assert states(kernel, vmo) == [DirtyState.DIRTY]
        assert kernel.read(vmo)[1].rstrip(b"\0") == (b"" if how == "zero" else b"w")
        assert not kernel.answer_pager(vmo)
        kernel.destroy_all()

    run.clean(program, 30)


def test_a_page_that_is_dirty_is_written_without_asking(run):
    def program():
        kernel, vmo = trapped(1)
        assert kernel.dirty_pages(vmo) is Status.OK
        assert kernel.write(vmo, 0, b"w") is Status.OK
        assert outstanding(vmo) == []

    run.once(program)


def test_one_request_covers_the_run_of_pages_that_are_to_be_written(run):
    """It ends at a page that is dirty, and at one that is absent."""

    def program():
        kernel, vmo = trapped(5)
        kernel.dirty_pages(vmo, 2, 1)
        kernel.evict_page(vmo, 4)
        zeroer = spawn(lambda: kernel.zero(vmo))
        asked: list[tuple[int, int]] = []
        while (packet := kernel.read_packet(vmo)).kind is PacketKind.DIRTY and len(asked) < 2:
            asked.append((packet.offset // PAGE_SIZE, packet.length // PAGE_SIZE))
            kernel.dirty_pages(vmo, *asked[-1])
        assert asked == [(0, 2), (3, 1)]
        assert packet.kind is PacketKind.READ
        kernel.supply(vmo, 4, 1)
        assert kernel.serve_pager(vmo)
        zeroer.join()
        assert [kernel.read(vmo, page)[1] for page in range(5)] == [ZEROES] * 5

    run.clean(program, 30)


def test_who_wants_to_write_what_is_asked_for_waits_along(run):
    """And inherits the request where the first one gives up."""

    def program():
        kernel, vmo = trapped(1)
        first = spawn(lambda: kernel.write(vmo, 0, b"first"))
        until(lambda: outstanding(vmo) == [(0, 1, 0)])
        second = spawn(lambda: kernel.write(vmo, 0, b"second"))
        until(lambda: outstanding(vmo) == [(0, 1, 1)])
        kernel.kill(first)
        first.join()
        assert outstanding(vmo) == [(0, 1, 0)]
        assert kernel.answer_pager(vmo)
        second.join()
        assert (first.result, second.result) == (Status.INTR_KILLED, Status.OK)
        assert kernel.read(vmo)[1].rstrip(b"\0") == b"second"
        kernel.destroy_all()

    run.clean(program, 60)


def test_asking_for_a_page_and_asking_to_write_it_are_two_requests(run):
    def program():
        kernel, vmo = trapped(1)
        writer = spawn(lambda: kernel.write(vmo, 0, b"w"))
        until(lambda: outstanding(vmo))
        assert kernel.evict_page(vmo)
        reader = spawn(lambda: kernel.read(vmo))
        until(lambda: outstanding(vmo, READ))
        assert outstanding(vmo) == outstanding(vmo, READ) == [(0, 1, 0)]
        assert "DIRTY" in kernel.dump()
        assert kernel.supply(vmo) is Status.OK
        reader.join()
        assert outstanding(vmo) == [(0, 1, 0)]
        assert kernel.dirty_pages(vmo) is Status.OK
        writer.join()
        assert writer.result is Status.OK
        kernel.detach(vmo)
        kernel.destroy_all()

    run.clean(program, 60)


def test_leave_for_a_page_that_was_evicted_lets_the_writer_ask_for_the_page(run):
    def program():
        kernel, vmo = trapped(1)
        writer = spawn(lambda: kernel.write(vmo, 0, b"w"))
        until(lambda: outstanding(vmo))
        kernel.evict_page(vmo)
        assert kernel.dirty_pages(vmo) is Status.NOT_FOUND
        until(lambda: outstanding(vmo, READ))
        assert outstanding(vmo) == []
        kernel.supply(vmo)
        until(lambda: outstanding(vmo))
        kernel.dirty_pages(vmo)
        writer.join()
        assert writer.result is Status.OK

    run.clean(program, 60)


def test_a_pager_that_refuses_fails_the_page_that_was_to_be_written(run):
    """Not for another page of the run, which the page source had added by itself."""

    def program():
        kernel, vmo = trapped(2)
        zeroer = spawn(lambda: kernel.zero(vmo))
        until(lambda: outstanding(vmo) == [(0, 2, 0)])
        vmo.fail_pages(PAGE_SIZE, PAGE_SIZE, Status.NO_SPACE)
        until(lambda: outstanding(vmo) == [(0, 2, 0)])
        kernel.dirty_pages(vmo, 0, 1)
        vmo.fail_pages(0, PAGE_SIZE, Status.NO_SPACE)
        zeroer.join()
        assert zeroer.result is Status.NO_SPACE
        assert states(kernel, vmo) == [DirtyState.DIRTY, DirtyState.CLEAN]

    run.clean(program, 60)


@pytest.mark.parametrize("how", ["resize", "detach"])
def test_whoever_waits_for_leave_learns_that_the_page_is_gone(run, how):
    def program():
        kernel, vmo = trapped(2, resizable=True)
        writer = spawn(lambda: kernel.write(vmo, 1, b"w"))
        until(lambda: outstanding(vmo))
        if how == "resize":
            assert kernel.resize(vmo, 1) is Status.OK
        else:
            assert kernel.detach(vmo) is Status.OK
        writer.join()
        gone = {"resize": Status.OUT_OF_RANGE, "detach": Status.BAD_STATE}
        assert writer.result is gone[how]
        kernel.destroy_all()

    run.clean(program, 60)


def test_a_shrink_leaves_the_rest_of_a_run_to_the_pager(run):
    def program():
        kernel, vmo = trapped(2, resizable=True)
        zeroer = spawn(lambda: kernel.zero(vmo, 0, 2))
        until(lambda: outstanding(vmo))
        kernel.resize(vmo, 1)
        assert outstanding(vmo) == [(0, 2, 0)]
        assert kernel.serve_pager(vmo)
        zeroer.join()
        assert zeroer.result is Status.OUT_OF_RANGE
        assert states(kernel, vmo) == [DirtyState.DIRTY]

    run.clean(program, 60)


def test_who_did_not_ask_need_not_agree(run):
    def program():
        kernel = Kernel(pages=4)
        vmo = kernel.borrower(1, dirty_tracked=True)
        kernel.supply(vmo)
        assert kernel.dirty_pages(vmo) is Status.NOT_SUPPORTED
        assert kernel.write(vmo, 0, b"w") is Status.OK
        beyond = trapped(1)
        return [
            beyond[0].dirty_pages(beyond[1], 0, 2),
            beyond[0].writeback_begin(beyond[1], 0, 2),
            beyond[0].writeback_end(beyond[1], 0, 2),
        ]

    assert run.once(program) == [Status.OUT_OF_RANGE] * 3


# -- writing back ---------------------------------------------------------------------------------


def test_a_page_goes_from_dirty_to_clean_in_two_steps(run):
    def program():
        kernel, vmo = trapped(1)
        mapping = kernel.mapped(vmo)
        kernel.dirty_pages(vmo)
        assert kernel.store(mapping, 0, b"w") is Status.OK
        assert kernel.dirty_ranges(vmo) == [0]
        assert kernel.writeback_end(vmo) is Status.OK
        assert states(kernel, vmo) == [DirtyState.DIRTY]
        kernel.writeback_begin(vmo)
        assert states(kernel, vmo) == [DirtyState.AWAITING_CLEAN]
        # Still there for who reads; who writes must fault.
        assert mapping.load(0).rstrip(b"\0") == b"w"
        assert not mapping.store(0, b"late")
        assert kernel.dirty_ranges(vmo) == [0]
        assert not kernel.evict_page(vmo)
        kernel.writeback_end(vmo)
        assert states(kernel, vmo) == [DirtyState.CLEAN]
        assert kernel.dirty_ranges(vmo) == []
        assert kernel.evict_page(vmo)

    run.once(program)


def test_what_a_resize_has_cut_off_is_not_to_be_written_back(run):
    """Who asks may have had the size from before."""

    def program():
        kernel = Kernel(pages=4)
        vmo = kernel.borrower(2, dirty_tracked=True, resizable=True)
        assert kernel.supply(vmo) is Status.OK
        assert kernel.write(vmo, 0, b"w") is Status.OK
        assert kernel.write(vmo, 1, b"w") is Status.OK
        assert kernel.dirty_ranges(vmo, 0, 2) == [0, 1]
        assert kernel.resize(vmo, 1) is Status.OK
        assert kernel.dirty_ranges(vmo, 0, 2) == [0]
        assert kernel.dirty_ranges(vmo, 1, 1) == []
        kernel.destroy_all()

    run.once(program)


@pytest.mark.parametrize("trap_dirty", [False, True])
def test_what_is_written_during_a_writeback_stays_dirty(run, trap_dirty):
    def program():
        kernel = Kernel(pages=4)
        vmo = kernel.borrower(1, dirty_tracked=True, trap_dirty=trap_dirty)
        kernel.supply(vmo)
        writer = spawn(lambda: kernel.write(vmo, 0, b"first"))
        if trap_dirty:
            kernel.serve_pager(vmo)
        writer.join()
        kernel.writeback_begin(vmo)
        writer = spawn(lambda: kernel.write(vmo, 0, b"last"))
        if trap_dirty:
            assert kernel.serve_pager(vmo)
        writer.join()
        kernel.writeback_end(vmo)
        assert states(kernel, vmo) == [DirtyState.DIRTY]
        assert not kernel.evict_page(vmo)
        assert kernel.read(vmo)[1].rstrip(b"\0") == b"last"

    run.once(program)


def test_a_page_that_is_written_back_is_dirty_again_only_with_leave(run):
    """Every interleaving of a store and a writeback with one preemption."""

    def program():
        kernel, vmo = trapped(1)
        mapping = kernel.mapped(vmo)
        kernel.dirty_pages(vmo)
        kernel.store(mapping, 0, b"first")

        def pager():
            kernel.writeback_begin(vmo)
            content = kernel.read(vmo)[1].rstrip(b"\0")
            kernel.writeback_end(vmo)
            if states(kernel, vmo) == [DirtyState.CLEAN]:
                assert kernel.read(vmo)[1].rstrip(b"\0") == content
            kernel.answer_pager(vmo)

        def user():
            if not mapping.store(0, b"last"):
                assert kernel.fault(mapping, retry=False) in (Status.OK, Status.BAD_STATE)

        user_and_pager = spawn(user), spawn(pager)
        user_and_pager[1].join()
        kernel.detach(vmo)
        user_and_pager[0].join()
        kernel.destroy_all()

    report = run.clean(program, 3_000, strategy="dfs", preemptions=1)
    assert report.exhausted


def test_a_pinned_page_stays_wired_while_it_is_written_and_written_back(run):
    def program():
        kernel, vmo = trapped(1)
        _, pinned = kernel.pin(vmo)
        kernel.dirty_pages(vmo)
        kernel.write(vmo, 0, b"w")
        kernel.writeback_begin(vmo)
        kernel.writeback_end(vmo)
        kernel.dirty_pages(vmo)
        kernel.unpin(pinned)
        assert states(kernel, vmo) == [DirtyState.DIRTY]
        assert not kernel.evict_page(vmo)
        kernel.quiesce()

    run.once(program)


@pytest.mark.once
def test_two_writers_and_one_leave(run):
    def program():
        kernel, vmo = trapped(1)
        parallel(
            lambda: kernel.write(vmo, 0, b"one"),
            lambda: kernel.write(vmo, 0, b"two"),
            lambda: kernel.serve_pager(vmo),
        )
        assert kernel.read(vmo)[1].rstrip(b"\0") in (b"one", b"two")
        kernel.destroy_all()

    run.clean(program, 300)
