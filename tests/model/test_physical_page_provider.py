"""``PhysicalPageProvider``, method by method, and its asserts."""

from __future__ import annotations

import pytest

from model import Kernel, Status
from model.event import AutounsignalEvent
from model.page import PAGE_SIZE
from model.page_request import PageRequest, PageRequestType
from model.page_source import PageSource
from model.physical_page_provider import PhysicalPageProvider


def parts(pages=3, absent=3, **options):
    kernel = Kernel(pages=8, **options)
    vmo = kernel.lender(pages, absent=absent)
    return kernel, vmo, vmo.cow.page_source.provider


def bare():
    """A provider that was never initialised, as creation leaves it where it fails early."""
    kernel = Kernel(pages=2)
    return kernel, PhysicalPageProvider(kernel._world, "bare", PAGE_SIZE)


def panics(run, name, program):
    message = run.finding(program).message
    assert name in message, message


def test_properties_are_those_of_a_provider_of_specific_pages(run):
    properties = run.once(lambda: parts()[2].properties)
    assert tuple(properties) == (False, False, True, True)


def test_only_read_requests_are_supported(run):
    provider = run.once(lambda: parts()[2])
    supported = [kind for kind in PageRequestType if provider.supports_page_request_type(kind)]
    assert supported == [PageRequestType.READ]


def test_nothing_is_provided_synchronously(run):
    assert run.once(lambda: parts()[2].get_page_sync(0)) is None


def test_init_twice_panics(run):
    def program():
        _, vmo, provider = parts()
        provider.init(vmo.cow, vmo.cow.page_source, provider.phys_base)

    panics(run, "a.ppp.init", program)


def test_init_with_an_address_within_a_page_panics(run):
    def program():
        kernel, provider = bare()
        vmo = kernel.lender(1)
        provider.init(vmo.cow, vmo.cow.page_source, 1)

    panics(run, "a.ppp.init", program)


@pytest.mark.parametrize("method", ["get_page_sync", "send", "clear", "swap"])
def test_use_before_init_panics(run, method):
    def program():
        kernel, provider = bare()
        request = PageRequest(kernel._world)
        {
            "get_page_sync": lambda: provider.get_page_sync(0),
            "send": lambda: provider.send_async_request(request),
            "clear": lambda: provider.clear_async_request(request),
            "swap": lambda: provider.swap_async_request(request, request),
        }[method]()

    panics(run, "a.ppp.inited", program)


def test_before_init_any_page_is_fine_and_destruction_is_quiet(run):
    """Creation error paths: DebugIsPageOk knows nothing yet, and close deletes no lender."""

    def program():
        kernel, provider = bare()
        assert provider.debug_is_page_ok(kernel.pmm.pages[1], 0)
        source = PageSource(kernel._world, "source", provider)
        source.close()
        source.release()

    run.once(program)


def test_a_page_is_fine_at_its_own_offset_only(run):
    def program():
        _, _, provider = parts()
        page = provider.page_at(PAGE_SIZE)
        return [provider.debug_is_page_ok(page, index * PAGE_SIZE) for index in range(3)]

    assert run.once(program) == [False, True, False]


def test_a_request_of_another_type_panics(run):
    def program():
        kernel, _, provider = parts()
        request = PageRequest(kernel._world)
        request.type = PageRequestType.DIRTY
        request.provider_owned = True
        provider.send_async_request(request)

    panics(run, "a.ppp.type", program)


def test_a_request_that_the_source_does_not_own_panics(run):
    def program():
        kernel, _, provider = parts()
        provider.send_async_request(PageRequest(kernel._world))

    panics(run, "a.ppp.type", program)


@pytest.mark.parametrize("method", ["send", "clear", "swap", "on_detach", "on_close"])
def test_use_after_close_panics(run, method):
    def program():
        kernel, vmo, provider = parts()
        request = PageRequest(kernel._world)
        request.provider_owned = True
        kernel.destroy(vmo)
        {
            "send": lambda: provider.send_async_request(request),
            "clear": lambda: provider.clear_async_request(request),
            "swap": lambda: provider.swap_async_request(request, request),
            "on_detach": provider.on_detach,
            "on_close": provider.on_close,
        }[method]()

    panics(run, "a.ppp.notclosed", program)


def test_swap_keeps_the_place_in_the_queue(run):
    def program():
        kernel, vmo, provider = parts()
        old = kernel.begin_commit(vmo, 0, 1)
        other = kernel.begin_commit(vmo, 2, 1)
        new = kernel.begin_commit(vmo, 0, 1)
        old.cancel()
        with provider.mtx:
            queue = list(provider.pending_requests)
        result = queue == [new.request, other.request]
        assert new.wait() is Status.OK
        assert other.wait() is Status.OK
        return result

    assert run.once(program)


def test_swap_of_one_that_is_in_flight_links_nothing(run):
    """The thread that dequeued it completes the new one, by range."""

    def program():
        kernel, vmo, provider = parts()
        old = kernel.begin_commit(vmo, 0, 1)
        new = kernel.begin_commit(vmo, 0, 1)
        assert provider._dequeue_request() == (0, PAGE_SIZE)
        old.cancel()
        with provider.mtx:
            queue = list(provider.pending_requests)
        # What the dequeuing thread would do next.
        runs = provider._cancel_loans(0, PAGE_SIZE)
        provider._take_back_pages(*runs[0])
        provider._done(0, PAGE_SIZE)
        return queue, new.wait()

    assert run.once(program) == ([], Status.OK)


def test_one_waiter_works_through_everybodys_requests(run):
    def program():
        kernel, vmo, _ = parts()
        first = kernel.begin_commit(vmo, 0, 1)
        second = kernel.begin_commit(vmo, 2, 1)
        assert second.wait() is Status.OK
        present = [page is not None for page in kernel.pages_of(vmo)]
        assert first.request.event.is_signalled()
        assert first.wait() is Status.OK
        kernel.quiesce()
        return present

    assert run.once(program) == [True, False, True]


def test_a_wait_counts_once_however_many_requests_it_served(run):
    def program():
        kernel, vmo, _ = parts()
        first = kernel.begin_commit(vmo, 0, 1)
        assert kernel.commit(vmo, 2, 1) is Status.OK
        first.cancel()
        return dict(kernel.counters)

    assert run.once(program) == {
        "physical.reclaim.total_requests": 1,
        "physical.reclaim.succeeded_requests": 1,
    }


def test_a_range_outside_of_the_provider_panics(run):
    def program():
        _, _, provider = parts()
        request = PageRequest(provider._world)
        request.provider_owned = True
        request.length = PAGE_SIZE
        request.offset.set(3 * PAGE_SIZE)
        provider.send_async_request(request)
        provider._dequeue_request()

    message = run.finding(program).message
    # The invariant of the provider's lock sees it one step earlier than the assert does.
    assert "I7" in message or "a.ppp.range" in message


def test_without_checks_the_assert_speaks(run):
    def program():
        _, _, provider = parts(checks=False)
        request = PageRequest(provider._world)
        request.provider_owned = True
        request.length = PAGE_SIZE
        request.offset.set(3 * PAGE_SIZE)
        provider.send_async_request(request)
        provider._dequeue_request()

    panics(run, "a.ppp.range", program)


def test_dequeue_of_a_closed_provider_panics_where_something_is_queued(run):
    def program():
        kernel, vmo, provider = parts(checks=False)
        kernel.destroy(vmo)
        with provider.mtx:
            provider.pending_requests.append(PageRequest(kernel._world))
        provider._dequeue_request()

    panics(run, "a.ppp.closed_empty", program)


def test_a_signal_that_came_first_is_not_lost(run):
    def program():
        kernel, _, provider = parts()
        event = AutounsignalEvent(kernel._world, "event")
        event.signal(Status.NO_MEMORY)
        first = provider.wait_on_event(event)
        event.signal()
        event.unsignal()
        return first, event.is_signalled()

    assert run.once(program) == (Status.NO_MEMORY, False)


def test_dump_lists_the_queue(run):
    def program():
        kernel, vmo, provider = parts()
        pending = kernel.begin_commit(vmo, 1, 2)
        lines = provider.dump()
        pending.cancel()
        return lines

    lines = run.once(program)
    assert "closed False" in lines[0]
    assert "[0x1000, 0x3000)" in lines[1]
