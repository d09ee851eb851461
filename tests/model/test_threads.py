"""The kernel's own threads: those that age the page queues, and the loan sweeper's."""

from __future__ import annotations

from harness import parallel, sleep, sometimes, spawn, yield_now
from model import Kernel, Status
from model.page_queues import GENERATIONS


def in_use(pages=1):
    """A kernel whose generations are all in use, and a VMO with pages of the newest one."""
    kernel = Kernel(pages=pages + 3)
    kernel.lender(1, absent=1)
    kernel.ppb(in_supplypages=False, on_mru=True)
    vmo = kernel.borrower(pages)
    assert kernel.supply(vmo) is Status.OK
    for _ in range(GENERATIONS - 1):
        assert kernel.age() == 0
    for page in range(pages):
        assert kernel.read(vmo, page)[0] is Status.OK
    return kernel, vmo


def generations(kernel):
    queues = kernel.page_queues
    with queues.lock:
        return queues.mru_generation, queues.lru_generation


def settle():
    """Let every thread of the kernel go on until it sleeps: time moves when nothing else can."""
    sleep(1.0)


# -- aging ----------------------------------------------------------------------------------------


def test_generations_begin_until_the_pages_in_use_are_few_enough(run):
    """The oldest one has to be emptied each time: one thread waits for the other."""

    def program():
        kernel, vmo = in_use()
        assert generations(kernel) == (GENERATIONS - 1, 0)
        kernel.start_queue_threads(active_ratio_multiplier=1)
        settle()
        assert kernel.page_queues.queue_counts()["active"] == 0
        newest, oldest = generations(kernel)
        kernel.stop_queue_threads()
        counters = kernel.counters
        assert newest > GENERATIONS - 1
        assert newest - oldest < GENERATIONS
        assert counters["pq.aging.blocked_on_lru"] >= 1
        assert counters["pq.aging.reason.active_ratio"] == newest - (GENERATIONS - 1)
        page = kernel.pages_of(vmo)[0]
        assert page is not None
        assert page.loaned, "the LRU thread borrows for a page in use"
        kernel.quiesce()
        kernel.destroy_all()

    run.clean(program, 15)


def test_a_page_that_is_used_again_wakes_the_mru_thread(run):
    def program():
        kernel, vmo = in_use()
        kernel.start_queue_threads(active_ratio_multiplier=1)
        settle()
        assert kernel.page_queues.queue_counts()["active"] == 0
        newest, _ = generations(kernel)
        assert kernel.read(vmo)[0] is Status.OK
        settle()
        assert generations(kernel)[0] > newest
        kernel.stop_queue_threads()

    run.clean(program, 12)


def test_without_a_ratio_no_generation_begins(run):
    def program():
        kernel, _ = in_use()
        kernel.start_queue_threads(active_ratio_multiplier=0)
        kernel.stop_queue_threads()
        newest, oldest = generations(kernel)
        assert newest == GENERATIONS - 1
        assert oldest <= 1, "who is woken to end may make room before"

    run.clean(program, 40)


def test_whoever_else_begins_a_generation_waits_for_the_lru_thread_too(run):
    def program():
        kernel, _ = in_use()
        kernel.start_queue_threads(active_ratio_multiplier=0)
        assert kernel.age() == 0, "the LRU thread borrows, not the caller"
        assert generations(kernel) == (GENERATIONS, 1)
        kernel.stop_queue_threads()
        assert kernel.counters["pq.aging.blocked_on_lru"] == 1

    run.clean(program, 40)


def test_threads_of_the_kernel_are_stopped_at_any_moment_and_start_again(run):
    def program():
        kernel, _ = in_use()
        for _ in range(2):
            kernel.start_queue_threads(active_ratio_multiplier=1)
            kernel.stop_queue_threads()
        if kernel.counters["pq.aging.blocked_on_lru"]:
            sometimes("the one waits for the other as they are stopped")
        kernel.quiesce()
        kernel.destroy_all()

    run.clean(program, 200)


def test_nothing_but_a_signal_ends_the_sleep_of_a_kernel_thread(run):
    """``Interruptible::No``: no thread kills or suspends those."""

    def program():
        kernel = Kernel()
        event = kernel.page_queues.threads.lru_event
        sleeper = spawn(lambda: event.wait(interruptible=False))
        kernel.suspend(sleeper)
        kernel.kill(sleeper)
        settle()
        assert not sleeper.done
        event.signal()
        sleeper.join()
        assert sleeper.result is Status.OK

    run.clean(program, 60)


# -- sweeping -------------------------------------------------------------------------------------


def swept(kernel):
    return kernel.counters["vm.reclamation.sweep_pages_swept"]


def test_the_sweepers_thread_sweeps_once_for_each_time_it_is_woken(run):
    def program():
        kernel, vmo = in_use()
        kernel.start_sweeper_thread()
        kernel.wake_sweeper_thread()
        settle()
        assert swept(kernel) == 1
        page = kernel.pages_of(vmo)[0]
        assert page is not None
        assert page.loaned
        kernel.ppb(on_mru=False)
        kernel.wake_sweeper_thread()
        settle()
        assert swept(kernel) == 2
        kernel.stop_sweeper_thread()
        page = kernel.pages_of(vmo)[0]
        assert page is not None
        assert not page.loaned
        kernel.quiesce()
        kernel.destroy_all()

    run.clean(program, 30)


def test_a_sweep_that_is_disabled_stops_where_it_is(run):
    def program():
        kernel, vmo = in_use(2)
        kernel.start_sweeper_thread()
        kernel.wake_sweeper_thread()
        for _ in range(8):
            yield_now()
        kernel.stop_sweeper_thread()
        if swept(kernel):
            sometimes("it was stopped after a page")
        if not swept(kernel):
            sometimes("it was stopped before any")
        assert kernel.read(vmo)[0] is Status.OK
        kernel.quiesce()
        kernel.destroy_all()

    run.clean(program, 100)


def test_without_a_thread_there_is_nothing_to_stop(run):
    def program():
        kernel, _ = in_use()
        kernel.stop_sweeper_thread()
        kernel.stop_queue_threads()
        parallel(kernel.sweep, kernel.age)
        kernel.destroy_all()

    run.clean(program, 20)
