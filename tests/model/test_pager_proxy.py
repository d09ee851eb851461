"""The pager proxy: one packet, requests that queue for it, and what a pager reads."""

from __future__ import annotations

import pytest

from harness import UsageError, parallel, spawn
from model import Kernel, Status
from model.page import PAGE_SIZE
from model.pager_port import Packet, PacketKind, PagerPort


def read(page, count=1):
    return Packet(PacketKind.READ, page * PAGE_SIZE, count * PAGE_SIZE)


COMPLETE = Packet(PacketKind.COMPLETE, 0, 0)


def asked(kernel, vmo, *pages):
    """One request a page, sent in this order, and the proxy."""
    return [kernel.begin_commit(vmo, page, 1) for page in pages], vmo.cow.page_source.provider


def test_packets_come_one_by_one_in_the_order_of_sending(run):
    def program():
        kernel = Kernel()
        _, proxy = asked(kernel, kernel.borrower(3), 2, 0, 1)
        return [proxy.read_packet() for _ in range(4)]

    assert run.once(program) == [read(2), read(0), read(1), None]


def test_a_request_taken_back_gives_its_packet_to_the_next(run):
    def program():
        kernel = Kernel()
        requests, proxy = asked(kernel, kernel.borrower(3), 0, 1, 2)
        requests[0].cancel()
        requests[2].cancel()
        return [proxy.read_packet() for _ in range(2)]

    assert run.once(program) == [read(1), None]


def test_a_packet_that_was_read_outlives_its_request(run):
    """The pager's supply is then for nobody, and harmless."""

    def program():
        kernel = Kernel()
        vmo = kernel.borrower(1)
        requests, proxy = asked(kernel, vmo, 0)
        assert proxy.read_packet() == read(0)
        requests[0].cancel()
        assert kernel.supply(vmo) is Status.OK
        kernel.quiesce()
        kernel.destroy_all()

    run.once(program)


def test_the_heir_of_a_request_has_its_packet(run):
    def program():
        kernel = Kernel()
        vmo = kernel.borrower(2)
        requests, proxy = asked(kernel, vmo, 0, 0, 1)
        requests[0].cancel()
        with proxy.mtx:
            assert proxy.active_request is requests[1].request
        assert proxy.read_packet() == read(0)
        kernel.supply(vmo)
        assert requests[1].wait() is Status.OK
        requests[2].cancel()
        kernel.destroy_all()

    run.once(program)


def test_the_last_packet_waits_for_the_one_in_flight_and_outlives_the_vmo(run):
    def program():
        kernel = Kernel()
        vmo = kernel.borrower(1)
        requests, proxy = asked(kernel, vmo, 0)
        packet = proxy.port.dequeue(wait=False)
        kernel.destroy(vmo)
        assert requests[0].wait() is Status.OK
        with proxy.mtx:
            assert proxy.complete_pending
            assert proxy.packet_busy
        proxy._free()
        return packet, proxy.read_packet(), proxy.read_packet()

    assert run.once(program) == (read(0), COMPLETE, None)


def test_a_pager_sleeps_at_its_port_until_it_is_told_to_end(run):
    def program():
        kernel = Kernel()
        vmo = kernel.borrower(2)
        answers: list[bool] = []
        pager = spawn(lambda: answers.extend(iter(lambda: kernel.serve_pager(vmo), False)))
        assert kernel.read(vmo, 1)[0] is Status.OK
        assert kernel.read(vmo, 0)[0] is Status.OK
        kernel.detach(vmo)
        pager.join()
        assert answers == [True, True]
        kernel.destroy_all()

    run.clean(program, 200)


def test_a_pager_may_fail_what_it_is_asked_for(run):
    def program():
        kernel = Kernel()
        vmo = kernel.borrower(1)
        got = []
        parallel(
            lambda: got.append(kernel.read(vmo)[0]), lambda: kernel.serve_pager(vmo, Status.IO)
        )
        kernel.destroy_all()
        return got

    assert run.once(program) == [Status.IO]


def test_a_second_packet_at_the_port_panics(run):
    def program():
        port = PagerPort("port")
        port.queue(COMPLETE)
        port.queue(COMPLETE)

    assert "a.pager.packet" in run.finding(program).message


def test_a_packet_is_cancelled_only_while_nobody_has_it(run):
    def program():
        port = PagerPort("port")
        port.queue(COMPLETE)
        first = port.cancel_queued()
        port.queue(COMPLETE)
        port.dequeue(wait=True)
        return first, port.cancel_queued()

    assert run.once(program) == (True, False)


def test_a_lender_has_no_pager(run):
    def program():
        kernel = Kernel()
        with pytest.raises(UsageError, match="no pager"):
            kernel.serve_pager(kernel.lender(1))

    run.once(program)


def test_the_proxy_shows_what_waits_for_its_packet(run):
    def program():
        kernel = Kernel()
        asked(kernel, kernel.borrower(2, "b"), 0, 1)
        return [line for line in kernel.dump().splitlines() if "active" in line or "pend" in line]

    active, *rest = run.once(program)[-2:]
    assert active.startswith("  active request1 [0x0, 0x1000)")
    assert rest[0].startswith("  pending request2 [0x1000, 0x2000)")
