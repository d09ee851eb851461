"""Calls of a kernel's operations, noted for the reference as they begin and end.

Between ``watch`` and ``look`` every operation is noted as it is called and as it returns; noting is
no schedule point. An operation that the reference does not know abandons the history, so that
nothing is judged by halves.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar

from harness.sync.history import Call, History
from model.kernel import Kernel
from model.observed_system import System
from model.page import CONTENT_BYTES, PAGE_SIZE

if TYPE_CHECKING:
    from model.observed_request import ObservedPending
    from model.reference_state import State
    from model.status import Status
    from model.vmo import VmObjectPaged

R = TypeVar("R")

# A history that needs more at once takes the better part of a second.
_STATES_MAX: Final = 1_500
# Operations that name pages of a VMO: one page, or the first of some.
_ONE_PAGE: Final = frozenset(("load", "read", "store", "touch", "write"))
_SOME_PAGES: Final = frozenset(
    (
        "agree",
        "ask",
        "commit",
        "decommit",
        "decommit_mapped",
        "fault",
        "hint",
        "map",
        "supply",
        "writeback_begin",
        "writeback_end",
    )
)


# Those that may have done something before they saw the end.
_OWN_END: Final = frozenset(("store",))
# Operations that see the end of a slice.
_BOUNDED: Final = frozenset(
    ("ask", "commit", "decommit", "hint", "map", "need", "pin", "read", "write", "zero")
)


class NotedKernel(Kernel):
    """A kernel with a history, in which operations note themselves.

    Attributes:
        history: What was noted; None where nothing is held against the reference.
        system: What there is, as the reference knows it.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        """As a kernel; nothing is noted yet."""
        super().__init__(*args, **options)
        self.history: History[State] | None = None
        self._noting = False
        # Threads of the kernel's own that run, and the call that stands for each.
        self._threads: dict[str, Call | None] = {}
        self._pending: list[ObservedPending] = []
        self._inside: set[str] = set()  # threads whose faults are parts of another operation
        self._fills: dict[str, Call] = {}  # by the thread of the pager
        self.system = System(self)

    # -- the history ----------------------------------------------------------------------------

    def watch(self) -> None:
        """Note operations from here on; nothing runs, and no closed VMO has a slice."""
        self.history = History(self.system.begin(), states_max=_STATES_MAX)
        self._noting = True
        for thread in self._threads:
            self._abandon(thread)
        for pending in self._pending:
            pending.note()

    def look(self) -> None:
        """Note what there is, once nothing runs any more, and note no more.

        Locks: takes each VMO's lock.
        """
        if self.history is not None and self._noting:
            self._noting = False
            call = self.history.call("look")
            self.history.returns(call, self.system.seen())

    def _note(
        self,
        name: str,
        vmo: VmObjectPaged,
        args: tuple[Any, ...],
        run: Callable[[], R],
        seen: Callable[[R], Any] | None = None,
    ) -> R:
        number = self._known(vmo)
        if number is None or self.history is None:
            return run()
        if args and isinstance(args[0], int):
            call = self.ranged(name, vmo, *args)
        else:
            call = self.history.call(name, number, *args)
        result = run()
        self.end_call(call, result if seen is None else seen(result), number)
        return result

    def ranged(self, name: str, vmo: VmObjectPaged, first: int, *args: Any) -> Call:
        """Note the call of an operation on pages of a VMO; what reaches out of a slice is alike."""
        assert self.history is not None
        end = first + (1 if name in _ONE_PAGE or not args else args[0])
        if name in _BOUNDED and not self.system.within(vmo, end):
            return self.history.call("outside", self.system.known(vmo.name))
        return self.history.call(name, *self.system.place(vmo, first), *args)

    def end_call(self, call: Call, result: object, number: int) -> None:
        """Note the result of a call on that VMO; whatever is refused is alike."""
        assert self.history is not None
        status = result[0] if isinstance(result, tuple) and result else result
        if call.name == "outside":
            result = status
        elif status == "BAD_HANDLE" and call.args[0] != number:
            call.name, call.args, result = "refused", (number,), status
        elif status == "OUT_OF_RANGE" and call.name in (_ONE_PAGE | _SOME_PAGES) - _OWN_END:
            count = call.args[2] if call.name in _SOME_PAGES else 1
            call.name, call.args, result = "beyond", (*call.args[:2], count), status
        self.history.returns(call, result)

    def _known(self, vmo: VmObjectPaged) -> int | None:
        """The number of a VMO while operations are noted; None otherwise."""
        number = self.system.known(vmo.name) if self._noting else None
        if number is None:
            self._abandon("a VMO that was closed before it began")
        return number

    def _abandon(self, what: str) -> None:
        if self._noting and self.history is not None:
            self.history.abandon(f"the reference does not know {what}")


def named(status: Status) -> str:
    """As the reference judges a status."""
    return status.name


def span(vmo: VmObjectPaged, first: int, count: int | None) -> tuple[int, int]:
    """First page and number of pages, where None stands for all that follow.

    What is asked is settled here, before the call: read within it, the size could be another one by
    then, and the call would do what no history says that it was asked.
    """
    if count is None:
        # Of a VMO that is gone, none: the operation will say so.
        count = vmo.size // PAGE_SIZE - first if vmo.alive else 0
    return first, count


def stored(content: bytes) -> bytes:
    """What a page reads after it was written."""
    return content[:CONTENT_BYTES].ljust(CONTENT_BYTES, b"\0")


def filled(content: bytes) -> bytes:
    """What a page reads as its pager supplied it."""
    return content[:CONTENT_BYTES].ljust(CONTENT_BYTES, b".")
