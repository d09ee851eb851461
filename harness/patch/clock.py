"""``time`` on the virtual clock, for threads of a schedule."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

from harness.patch.inside import inside
from harness.sync.base import now
from harness.sync.threads import sleep as virtual_sleep

# Every schedule begins at the same moment.
_EPOCH: Final = 1_700_000_000
_START: Final = 1_000

_real_sleep: Final = time.sleep


def sleep(seconds: Any, /) -> None:
    """As the real one, on the virtual clock; one step."""
    if inside() is None or not isinstance(seconds, (int, float)):
        _real_sleep(seconds)
    else:
        virtual_sleep(seconds)


def _reading(real: Callable[[], Any], start: int, unit: int) -> Callable[[], Any]:
    """A clock that reads ``start`` seconds when a schedule begins."""

    def read() -> Any:
        if inside() is None:
            return real()
        if unit == 1:
            return start + now()
        return start * unit + round(now() * unit)

    return read


CLOCKS: Final[dict[Any, Any]] = {
    time.sleep: sleep,
    time.time: _reading(time.time, _EPOCH, 1),
    time.time_ns: _reading(time.time_ns, _EPOCH, 10**9),
    time.monotonic: _reading(time.monotonic, _START, 1),
    time.monotonic_ns: _reading(time.monotonic_ns, _START, 10**9),
    time.perf_counter: _reading(time.perf_counter, _START, 1),
    time.perf_counter_ns: _reading(time.perf_counter_ns, _START, 10**9),
}
