"""Files of strangers, mutated: every reader ends with a value or one of our own errors.

    python benchmarks/fuzz.py [--inputs N] [--seed S] [--only NAME] [--index I]

Tokens, lock logs and traces of others, caches of audits, plans, stores of campaigns, catalogues,
policies, and results that ``report`` draws: as many of each kind, but for a few of which one costs
much more. They come in rounds, so that what has run when somebody interrupts it is even, too. Each
input is a function of seed, kind and index, so that one that is printed comes back with
``--seed``, ``--only`` and ``--index``. Wrong is any other exception, more time or memory than an
input may cost, a file that is written outside of the fuzzer's folder, and anything that executes
code or leaves the process. Ends with exit code 1 where something was wrong.
"""

from __future__ import annotations

import argparse
import base64
import math
import os
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))

from fuzz_readers import Reader, readers
from loguru import logger

from harness.errors import HarnessError, InternalError

INPUTS: Final = 1_000_000
SECONDS_MAX: Final = 10.0
# How much the peak of the process may rise by one input.
BYTES_MAX: Final = 256 << 20
ADDRESS_SPACE_MAX: Final = 6 << 30
_SHOWN_MAX: Final = 20
_ROUNDS: Final = 20
_WAITS_MAX: Final = 12
# What no reader does: run code, start other programs, talk to others.
_NEVER: Final = (
    "exec",
    "compile",
    "subprocess.Popen",
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.fork",
    "pickle.find_class",
    "marshal.loads",
    "socket.connect",
    "ctypes.dlopen",
)
_WRITES: Final = ("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink")


class TooSlow(BaseException):
    """An input took longer than it may; no reader may swallow it."""


class Wrong(NamedTuple):
    """An input that did harm.

    Attributes:
        what: One line.
        detail: The traceback.
    """

    what: str
    detail: str


class Guard:
    """Watches what the process does while an input is read."""

    def __init__(self, folder: Path) -> None:
        """Writing is allowed below ``folder``."""
        self._inside = f"{folder.resolve()}{os.sep}"
        self._on = False
        self.seen: list[str] = []
        sys.addaudithook(self._hear)
        signal.signal(signal.SIGALRM, self._late)
        signal.signal(signal.SIGPROF, self._late)

    def _late(self, _number: int, _frame: object) -> None:
        raise TooSlow

    def _hear(self, event: str, args: tuple[Any, ...]) -> None:
        if not self._on:
            return
        if event == "open":
            path, mode, flags = args
            writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            if writes or (isinstance(mode, str) and set(mode) & set("wax+")):
                self._must_be_inside(event, path)
        elif event in _WRITES:
            for path in args[:2]:
                self._must_be_inside(event, path)
        elif event in _NEVER:
            self.seen.append(f"{event} {str(args)[:200]}")

    def _must_be_inside(self, event: str, path: object) -> None:
        if not isinstance(path, (str, bytes)):
            return  # a descriptor that was opened before
        if not os.path.realpath(os.fsdecode(path)).startswith(self._inside):
            self.seen.append(f"{event} of {path!r}, which is outside of the folder")

    @contextmanager
    def on(self, seconds: float) -> Iterator[None]:
        """Watch what is done in here."""
        self.seen.clear()
        # What computes is told by its CPU time: the machine may be somebody else's for a while.
        signal.setitimer(signal.ITIMER_PROF, seconds)
        signal.setitimer(signal.ITIMER_REAL, _WAITS_MAX * seconds)
        self._on = True
        try:
            yield
        finally:
            self._on = False
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.setitimer(signal.ITIMER_REAL, 0)


def peak(*, afresh: bool = False) -> int:
    """The most memory of this process so far, in bytes; ``afresh`` counts from now on.

    ``ru_maxrss`` would begin with that of whoever started us, and never go down.
    """
    if afresh:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) << 10


def judged(reader: Reader, data: bytes, folder: Path, guard: Guard) -> Wrong | str:
    """What came of one input: "read", the name of an error of our own, or what was wrong."""
    before = peak(afresh=True)
    outcome: Wrong | str = "read"
    try:
        with guard.on(SECONDS_MAX):
            reader.read(data, folder)
    except InternalError as error:
        outcome = Wrong(f"InternalError: {str(error)[:200]}", traceback.format_exc())
    except HarnessError as error:
        outcome = type(error).__name__
        if len(str(error)) > 4_000:
            outcome = Wrong(f"a message of {len(str(error)):,} characters", str(error)[:200])
    except TooSlow:
        outcome = Wrong(f"more than {SECONDS_MAX:g} s", traceback.format_exc())
    except Exception as error:
        outcome = Wrong(f"{type(error).__name__}: {str(error)[:200]}", traceback.format_exc())
    if guard.seen:
        return Wrong(guard.seen[0], "")
    rise = peak() - before
    if rise > BYTES_MAX and isinstance(outcome, str):
        return Wrong(f"{rise:,} bytes more", "")
    return outcome


def made(reader: Reader, seed: int, index: int) -> bytes:
    """The input of that number."""
    rng = random.Random(f"{seed} {reader.name} {index}")
    return reader.mutate(rng, reader.seeds)


class Kind:
    """What came of the inputs of one reader so far."""

    def __init__(self, reader: Reader, seed: int) -> None:
        """Nothing was read."""
        self.reader = reader
        self.inputs = 0
        self._seed = seed
        self._seconds = 0.0
        self._slowest = (0.0, 0)
        self._counted: Counter[str] = Counter()
        self._wrong: Counter[str] = Counter()

    @property
    def wrong(self) -> int:
        """How many inputs did harm."""
        return sum(self._wrong.values())

    def run(self, indices: range, folder: Path, guard: Guard) -> None:
        """Read a range of inputs."""
        start = time.process_time()
        for index in indices:
            data = made(self.reader, self._seed, index)
            began = time.process_time()
            outcome = judged(self.reader, data, folder, guard)
            self._slowest = max(self._slowest, (time.process_time() - began, index))
            self.inputs += 1
            if isinstance(outcome, str):
                self._counted[outcome] += 1
            else:
                self._enter(outcome, index, data)
        self._seconds += time.process_time() - start

    def _enter(self, outcome: Wrong, index: int, data: bytes) -> None:
        where = outcome.what + "".join(outcome.detail.splitlines()[-3:-1])
        self._wrong[where] += 1
        if self._wrong[where] == 1 and len(self._wrong) <= _SHOWN_MAX:
            name = self.reader.name
            print(f"WRONG {name}: {outcome.what}\n{outcome.detail}")
            print(f"again with --seed {self._seed} --only {name!r} --index {index}")
            print(f"input: {base64.b64encode(data[:20_000]).decode()}", flush=True)

    def __str__(self) -> str:
        """On one line; inputs a second of CPU time, and the one that took most of it."""
        told = ", ".join(f"{name} {count:,}" for name, count in self._counted.most_common())
        slowest, index = self._slowest
        rate = self.inputs / self._seconds if self._seconds else 0.0
        return (
            f"{self.reader.name:<17}{self.inputs:>9,} inputs {rate:>9,.0f}/s "
            f"{self.wrong:>6,} wrong; {told}; {slowest:.2f} s for index {index}"
        )


def shares(chosen: Sequence[Reader], inputs: int) -> list[int]:
    """How many inputs each reader has: the same for all that cost the same, at least one."""
    each = inputs / sum(1 / reader.every for reader in chosen)
    return [max(1, math.ceil(each / reader.every)) for reader in chosen]


def main() -> int:
    """Divide the inputs among the readers, evenly."""
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("--inputs", type=int, default=INPUTS)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--only", default="", help="one kind of input")
    options.add_argument("--index", type=int, help="one input")
    given = options.parse_args()
    logger.remove()
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="lockloom-fuzz-") as name:
        inside = Path(name) / "inside"
        folder = inside / "input"
        folder.mkdir(parents=True)
        os.chdir(inside)
        chosen = [reader for reader in readers(folder) if given.only in ("", reader.name)]
        kinds = [Kind(reader, given.seed) for reader in chosen]
        guard = Guard(inside)
        for reader in chosen:
            for right in reader.seeds:
                reader.read(right, folder)  # what is right is read, and what it needs is imported
        resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE_MAX, resource.RLIM_INFINITY))
        counts = shares(chosen, given.inputs)
        with suppress(KeyboardInterrupt):
            for number in range(_ROUNDS):
                for kind, count in zip(kinds, counts, strict=True):
                    indices = range(count * number // _ROUNDS, count * (number + 1) // _ROUNDS)
                    if given.index is not None:
                        indices = range(given.index, given.index + (number == 0))
                    kind.run(indices, folder, guard)
        os.chdir("/")
        # What code in C writes, Python's audit events do not tell.
        outside = sorted(path.name for path in Path(name).iterdir() if path != inside)
    for kind in kinds:
        print(kind)
    for path in outside:
        print(f"WRONG: {path!r} was written outside of the folder")
    wrong = sum(kind.wrong for kind in kinds) + len(outside)
    count = sum(kind.inputs for kind in kinds)
    seconds = time.monotonic() - start
    print(f"{count:,} inputs in {seconds:.0f} s, {wrong:,} wrong, seed {given.seed}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
