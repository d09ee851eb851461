"""The kernel's result codes, as far as the modelled paths return them."""

from __future__ import annotations

import enum


class Status(enum.Enum):
    """What a kernel call returned; compared by identity.

    Kernel: ``zx_status_t``.
    """

    OK = "OK"
    SHOULD_WAIT = "SHOULD_WAIT"
    NEXT = "NEXT"
    BAD_STATE = "BAD_STATE"
    BAD_HANDLE = "BAD_HANDLE"
    INVALID_ARGS = "INVALID_ARGS"
    OUT_OF_RANGE = "OUT_OF_RANGE"
    NO_MEMORY = "NO_MEMORY"
    NOT_FOUND = "NOT_FOUND"
    NOT_SUPPORTED = "NOT_SUPPORTED"
    UNAVAILABLE = "UNAVAILABLE"
    ALREADY_EXISTS = "ALREADY_EXISTS"
    IO = "IO"
    IO_DATA_INTEGRITY = "IO_DATA_INTEGRITY"
    NO_SPACE = "NO_SPACE"
    BUFFER_TOO_SMALL = "BUFFER_TOO_SMALL"
    TIMED_OUT = "TIMED_OUT"
    INTR_KILLED = "INTR_KILLED"
    INTR_RETRY = "INTR_RETRY"

    def __repr__(self) -> str:
        """The bare name, since traces and messages show it."""
        return self.value

    __str__ = __repr__


_EXTERNAL_FAILURES = (
    Status.IO,
    Status.IO_DATA_INTEGRITY,
    Status.BAD_STATE,
    Status.NO_SPACE,
    Status.BUFFER_TOO_SMALL,
)


def is_valid_external_failure_code(status: Status) -> bool:
    """Whether a pager outside the kernel may fail a request with ``status``.

    Kernel: ``PageSource::IsValidExternalFailureCode``.
    """
    return status in _EXTERNAL_FAILURES


def is_valid_internal_failure_code(status: Status) -> bool:
    """Whether the kernel itself may fail a request with ``status``.

    Kernel: ``PageSource::IsValidInternalFailureCode``.
    """
    return status is Status.NO_MEMORY or status in _EXTERNAL_FAILURES
