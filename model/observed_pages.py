"""Operations on single pages, noted for the reference: see ``model.page_operations``."""

from __future__ import annotations

import functools
from collections.abc import Callable

from model.cow_slice import VmCowSlice
from model.observed_calls import NotedKernel, named, span
from model.pinned import PinnedVmObject
from model.status import Status
from model.vmo import VmObjectPaged


class ObservedPages(NotedKernel):
    """The part of ``ObservedKernel`` that is about what happens to pages that are in a VMO."""

    def pin(
        self,
        vmo: VmObjectPaged,
        first: int = 0,
        count: int | None = None,
        *,
        reuse_request: bool = False,
    ) -> tuple[Status, PinnedVmObject | None]:
        """See ``Kernel``; noted together with its unpin, for lenders."""
        first, count = span(vmo, first, count)
        run = functools.partial(super().pin, vmo, first, count, reuse_request=reuse_request)
        args = (first, count, self.system.known(vmo.name))
        status, pinned = self._note("pin", vmo, args, run, lambda got: got[0].name)
        if pinned is not None:
            self.system.pins.append(pinned)
        return status, pinned

    def unpin(self, pinned: PinnedVmObject) -> None:
        """See ``Kernel``."""
        self.system.pins.remove(pinned)
        run = functools.partial(super().unpin, pinned)
        if self._known(pinned.vmo) is None or self.history is None:
            run()
        else:
            self.history.run("unpin", self.system.pinned(pinned), run)

    def resize(self, vmo: VmObjectPaged, pages: int) -> Status:
        """See ``Kernel``."""
        run = functools.partial(super().resize, vmo, pages)
        number = self._known(vmo)
        if self.history is None or number is None:
            return run()
        return self.history.run("resize", (number, pages), run, named)

    def always_need(self, vmo: VmObjectPaged, first: int = 0, count: int | None = None) -> Status:
        """See ``Kernel``."""
        first, count = span(vmo, first, count)
        run = functools.partial(super().always_need, vmo, first, count)
        return self._note("need", vmo, (first, count), run, named)

    def replace_page(self, vmo: VmObjectPaged, page: int = 0, *, with_loaned: bool) -> Status:
        """See ``Kernel``."""
        run = functools.partial(super().replace_page, vmo, page, with_loaned=with_loaned)
        return self._note("replace", vmo, (page, with_loaned), run, named)

    def dont_need(self, vmo: VmObjectPaged, first: int = 0, count: int | None = None) -> Status:
        """See ``Kernel``."""
        first, count = span(vmo, first, count)
        run = functools.partial(super().dont_need, vmo, first, count)
        return self._note("hint", vmo, (first, count), run, named)

    def dirty_pages(self, vmo: VmObjectPaged, first: int = 0, count: int | None = None) -> Status:
        """See ``Kernel``."""
        first, count = span(vmo, first, count)
        run = functools.partial(super().dirty_pages, vmo, first, count)
        return self._note("agree", vmo, (first, count), run, named)

    def dirty_ranges(
        self, vmo: VmObjectPaged, first: int = 0, count: int | None = None
    ) -> list[int]:
        """See ``Kernel``."""
        first, count = span(vmo, first, count)
        run = functools.partial(super().dirty_ranges, vmo, first, count)
        if vmo.alive and isinstance(vmo.cow, VmCowSlice):
            # That there are none says as little as that the handle is closed.
            self._abandon("dirty pages of slices")
        return self._note("dirty_ranges", vmo, (first, count), run, tuple)

    def writeback_begin(
        self, vmo: VmObjectPaged, first: int = 0, count: int | None = None
    ) -> Status:
        """See ``Kernel``."""
        first, count = span(vmo, first, count)
        run = functools.partial(super().writeback_begin, vmo, first, count)
        return self._note("writeback_begin", vmo, (first, count), run, named)

    def writeback_end(self, vmo: VmObjectPaged, first: int = 0, count: int | None = None) -> Status:
        """See ``Kernel``."""
        first, count = span(vmo, first, count)
        run = functools.partial(super().writeback_end, vmo, first, count)
        return self._note("writeback_end", vmo, (first, count), run, named)

    def mark_latency_sensitive(self, vmo: VmObjectPaged) -> Status:
        """See ``Kernel``."""
        run = functools.partial(super().mark_latency_sensitive, vmo)
        return self._note("sensitive", vmo, (), run, named)

    def sweep(self) -> int:
        """See ``Kernel``."""
        return self._churn(super().sweep)

    def age(self) -> int:
        """See ``Kernel``."""
        return self._churn(super().age)

    def process_queues(self) -> int:
        """See ``Kernel``."""
        return self._churn(super().process_queues)

    def start_queue_threads(self, active_ratio_multiplier: int) -> None:
        """See ``Kernel``; to the reference, aging that lasts until the threads are stopped."""
        self._begin_churn("the threads of the page queues")
        super().start_queue_threads(active_ratio_multiplier)

    def stop_queue_threads(self) -> None:
        """See ``Kernel``."""
        super().stop_queue_threads()
        self._end_churn("the threads of the page queues")

    def start_sweeper_thread(self) -> None:
        """See ``Kernel``; to the reference, a sweep that lasts until the thread is stopped."""
        self._begin_churn("the thread of the sweeper")
        super().start_sweeper_thread()

    def stop_sweeper_thread(self) -> None:
        """See ``Kernel``."""
        super().stop_sweeper_thread()
        self._end_churn("the thread of the sweeper")

    def _begin_churn(self, thread: str) -> None:
        call = None
        if self._noting and self.history is not None:
            call = self.history.call("churn")
        self._threads[thread] = call

    def _end_churn(self, thread: str) -> None:
        call = self._threads.pop(thread, None)
        if call is not None and self.history is not None:
            self.history.returns(call, 0)

    def _churn(self, run: Callable[[], int]) -> int:
        if not self._noting or self.history is None:
            return run()
        return self.history.run("churn", (), run)
