"""The shipped scenarios, in modules by subject, and what their outcomes are held against.

No module here imports the model: a planted bug has to be in place before it is imported, which the
first ``Context.kernel`` of a process does. So statuses are compared by name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from harness.sync import parallel

if TYPE_CHECKING:
    from model.kernel import Kernel
    from model.status import Status
    from model.vmo import VmObjectPaged
    from stress.catalogue import Context

# What a system call may answer whose VMO somebody else is closing.
GONE: Final = "BAD_HANDLE"


def boot(ctx: Context, pages: int) -> Kernel:
    """A system of so many physical pages, for the setup: no fault is injected before ``race``."""
    kernel = ctx.kernel(pages=pages)
    kernel.faults.pause()
    return kernel


def race(
    kernel: Kernel, *threads: Callable[[], object], names: Sequence[str] | None = None
) -> None:
    """Run ``threads`` against each other, with faults injected; return when all have ended.

    What they do is noted, and must be explained by the reference when the schedule ends.
    """
    watch, look = getattr(kernel, "watch", None), getattr(kernel, "look", None)
    if watch is not None:
        watch()
    kernel.faults.restart()
    parallel(*threads, names=names)
    kernel.faults.pause()
    if look is not None:
        look()


def expect(status: Status, *allowed: str) -> Status:
    """Require one of the statuses named in ``allowed`` ("OK" where there are none); return it.

    Raises:
        AssertionError: It is another one.
    """
    allowed = allowed or ("OK",)
    assert status.name in allowed, f"got {status.name}, allowed here: {', '.join(allowed)}"
    return status


def expect_content(kernel: Kernel, vmo: VmObjectPaged, page: int, *allowed: bytes) -> None:
    """Require that ``page`` reads as one of ``allowed`` (padded with zeroes).

    Raises:
        AssertionError: It reads as something else, or cannot be read.
    """
    status, content = kernel.read(vmo, page)
    expect(status)
    found = content.rstrip(b"\0")
    assert found in allowed, f"page {page} of {vmo} reads {found!r}, allowed here: {allowed!r}"


def expect_zero(kernel: Kernel, vmo: VmObjectPaged, *pages: int) -> None:
    """Require that every one of ``pages`` reads as zeroes.

    Raises:
        AssertionError: One does not.
    """
    for page in pages:
        expect_content(kernel, vmo, page, b"")


def finish(kernel: Kernel) -> None:
    """End a scenario: everything at rest is as it must be, and every page comes back (I32)."""
    kernel.quiesce()
    kernel.destroy_all()
