"""Threads that run operation programs drawn at random: what nobody thought of.

A program is a system and what each thread does to it. It is drawn from the seed, or given as text
in the parameter ``program``, which is also what a failing one is reduced to::

    L1.3.2+B1.2.1/commit.L1.0.2+evict.1/supply.B1.0.1

Parts end at a slash: the system first, then one part for each thread. A lender has its pages and
how many of them are on loan at the start; a borrower its pages and how many are there. No scenario
says here what an operation may answer: the reference judges all of it (``model.reference``).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from harness.errors import UsageError
from harness.sync import Thread, current_thread, note
from stress.catalogue import Context, Drawing, scenario
from stress.scenarios import boot, expect, finish, race

if TYPE_CHECKING:
    from model.kernel import Kernel
    from model.vmo import VmObjectPaged


class Vmo(NamedTuple):
    """One VMO of a program.

    Attributes:
        name: L and a number for a lender, B and a number for a borrower.
        pages: Its size.
        some: Pages that are on loan at the start, or there.
    """

    name: str
    pages: int
    some: int


class Operation(NamedTuple):
    """One operation: its name, the VMO (empty where it has none), and small numbers."""

    name: str
    vmo: str
    numbers: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Program:
    """A system, and what threads do to it."""

    system: tuple[Vmo, ...]
    threads: tuple[tuple[Operation, ...], ...]


class Running:
    """A system that a program runs on.

    Attributes:
        kernel: The kernel.
        vmos: By name.
        threads: The workers that have begun, by number.
    """

    def __init__(self, ctx: Context, program: Program) -> None:
        """Set the system up."""
        self.kernel: Kernel = boot(ctx, sum(vmo.pages for vmo in program.system))
        self.kernel.ppb(on_mru=True)
        self.vmos: dict[str, VmObjectPaged] = {}
        self.threads: dict[int, Thread] = {}
        for name, pages, some in program.system:
            if name[0] == "L":
                self.vmos[name] = self.kernel.lender(pages, name, absent=some)
            else:
                self.vmos[name] = self.kernel.borrower(pages, name)
                if some:
                    expect(self.kernel.supply(self.vmos[name], 0, some, b"first"))

    def run(self, operation: Operation, content: bytes) -> None:
        """Run one operation; ``content`` is what it writes, if it does."""
        vmo = self.vmos.get(operation.vmo)
        OPERATIONS[operation.name].run(self, vmo, operation.numbers, content)


Run = Callable[[Running, Any, tuple[int, ...], bytes], object]


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of operation.

    Attributes:
        weight: How often it is drawn.
        on: "L" or "B" for the kind of VMO that it is about; empty for none.
        numbers: What its numbers are: "page", "count" (of pages from there), "thread", "target".
        run: Runs it on a system, a VMO, its numbers, and content to write.
    """

    weight: int
    on: str
    numbers: tuple[str, ...]
    run: Run


def _fault_in(system: Running, vmo: VmObjectPaged, numbers: tuple[int, ...], to: bytes) -> None:
    """Ask for a borrower's page, supply it, and wait: somebody always answers."""
    pending = system.kernel.begin_commit(vmo, numbers[0], 1)
    if pending.status.name != "SHOULD_WAIT":
        pending.wait()
    elif system.kernel.supply(vmo, numbers[0], 1, to).name == "NO_MEMORY":
        pending.cancel()
    else:
        pending.wait()


def _suspend(system: Running, _vmo: None, numbers: tuple[int, ...], _to: bytes) -> None:
    """Suspend a worker that has begun."""
    thread = system.threads.get(numbers[0])
    if thread is not None:
        system.kernel.suspend(thread)


def _pin(system: Running, vmo: VmObjectPaged, numbers: tuple[int, ...], _to: bytes) -> None:
    """Pin pages, and let them go again."""
    _, pinned = system.kernel.pin(vmo, *numbers)
    if pinned is not None:
        system.kernel.unpin(pinned)


def _age(system: Running, _vmo: None, _numbers: tuple[int, ...], _to: bytes) -> None:
    """Let a generation of pages pass, borrowing for those in use."""
    system.kernel.age()
    system.kernel.process_queues()


_RANGE: Final = ("page", "count")
# A new operation is one entry here, and one in ``model.reference_operations``.
OPERATIONS: Final[dict[str, Kind]] = {
    "commit": Kind(6, "L", _RANGE, lambda s, v, n, _: s.kernel.commit(v, *n)),
    "decommit": Kind(4, "L", _RANGE, lambda s, v, n, _: s.kernel.decommit(v, *n)),
    "fault": Kind(3, "L", _RANGE, lambda s, v, n, _: s.kernel.begin_commit(v, *n).wait()),
    "give-up": Kind(3, "L", _RANGE, lambda s, v, n, _: s.kernel.begin_commit(v, *n).cancel()),
    "write": Kind(2, "L", ("page",), lambda s, v, n, to: s.kernel.write(v, n[0], to)),
    "read": Kind(1, "L", ("page",), lambda s, v, n, _: s.kernel.read(v, *n)),
    "pin": Kind(3, "L", _RANGE, _pin),
    "zero": Kind(1, "L", _RANGE, lambda s, v, n, _: s.kernel.zero(v, *n)),
    "supply": Kind(6, "B", _RANGE, lambda s, v, n, to: s.kernel.supply(v, n[0], n[1], to)),
    "fault-in": Kind(2, "B", ("page",), _fault_in),
    "borrow": Kind(
        2, "B", ("page",), lambda s, v, n, _: s.kernel.replace_page(v, *n, with_loaned=True)
    ),
    "own": Kind(
        2, "B", ("page",), lambda s, v, n, _: s.kernel.replace_page(v, *n, with_loaned=False)
    ),
    "sweep": Kind(1, "", (), lambda s, _v, _n, _: s.kernel.sweep()),
    "age": Kind(1, "", (), _age),
    "dont-need": Kind(1, "B", _RANGE, lambda s, v, n, _: s.kernel.dont_need(v, *n)),
    "evict-page": Kind(4, "B", ("page",), lambda s, v, n, _: s.kernel.evict_page(v, *n)),
    "evict": Kind(2, "", ("target",), lambda s, _v, n, _: s.kernel.evict(*n)),
    "suspend": Kind(2, "", ("thread",), _suspend),
    "detach": Kind(1, "B", (), lambda s, v, _n, _: s.kernel.detach(v)),
    "close": Kind(2, "B", (), lambda s, v, _n, _: s.kernel.destroy(v)),
    "close-lender": Kind(1, "L", (), lambda s, v, _n, _: s.kernel.destroy(v)),
}


# -- drawing --------------------------------------------------------------------------------------


def draw_program(seed: int, threads: int, operations: int) -> Program:
    """A program with so many threads and operations of each: a function of the arguments alone."""
    draw = random.Random(seed)
    system = [Vmo("L1", pages := draw.choice((2, 3)), draw.randrange(1, pages + 1))]
    if draw.random() < 0.5:
        system.append(Vmo("L2", 2, draw.randrange(3)))
    system += [Vmo(f"B{number}", 2, draw.randrange(2)) for number in range(1, draw.choice((2, 3)))]
    kinds = [name for name, kind in OPERATIONS.items() for _ in range(kind.weight)]

    def one() -> Operation:
        name = draw.choice(kinds)
        kind = OPERATIONS[name]
        on = [vmo for vmo in system if kind.on and vmo.name[0] == kind.on]
        vmo = draw.choice(on) if on else Vmo("", 0, 0)
        numbers: list[int] = []
        for what in kind.numbers:
            size = {"page": vmo.pages, "target": 2, "thread": threads}.get(what, 0)
            numbers.append(
                draw.randrange(size) if size else 1 + draw.randrange(vmo.pages - numbers[-1])
            )
            numbers[-1] += what in ("target", "thread")
        return Operation(name, vmo.name, tuple(numbers))

    return Program(
        tuple(system), tuple(tuple(one() for _ in range(operations)) for _ in range(threads))
    )


# -- as text --------------------------------------------------------------------------------------


def write(program: Program) -> str:
    """As the parameter ``program`` takes it."""
    system = "+".join(f"{name}.{pages}.{some}" for name, pages, some in program.system)
    threads = ["+".join(map(_write_operation, thread)) for thread in program.threads]
    return "/".join([system, *threads])


def _write_operation(operation: Operation) -> str:
    parts = [operation.name, *filter(None, [operation.vmo]), *map(str, operation.numbers)]
    return ".".join(parts)


def read(text: str) -> Program:
    """What ``write`` wrote.

    Raises:
        UsageError: The text is no program, or names what there is not.
    """
    first, *rest = text.split("/")
    try:
        system = tuple(_read_vmo(part) for part in first.split("+"))
        sizes = {vmo.name: vmo.pages for vmo in system}
        threads = tuple(
            tuple(_read_operation(part, sizes) for part in each.split("+") if part) for each in rest
        )
    except ValueError as error:
        raise UsageError(
            f"program {text!r}: {error}; write it like L1.2.1+B1.2.0/commit.L1.0.2/evict.1"
        ) from None
    if not any(threads):
        raise UsageError(f"program {text!r} has no operation; add one after a slash")
    return Program(system, threads)


def _read_vmo(part: str) -> Vmo:
    name, *numbers = part.split(".")
    if len(numbers) != 2 or name[:1] not in ("L", "B") or not name[1:].isdigit():
        raise ValueError(f"{part!r} is no VMO")
    pages, some = map(int, numbers)
    if not 0 <= some <= pages or not pages:
        raise ValueError(f"{name} has {some} of {pages} pages")
    return Vmo(name, pages, some)


def _read_operation(part: str, sizes: dict[str, int]) -> Operation:
    name, *rest = part.split(".")
    kind = OPERATIONS.get(name)
    if kind is None:
        raise ValueError(f"there is no operation {name!r}")
    vmo = rest.pop(0) if kind.on and rest else ""
    if (kind.on and vmo not in sizes) or not vmo.startswith(kind.on):
        raise ValueError(f"{part!r} is about no VMO of the program")
    if len(rest) != len(kind.numbers):
        raise ValueError(f"{part!r} needs {len(kind.numbers)} numbers: {', '.join(kind.numbers)}")
    numbers = tuple(map(int, rest))
    if "page" in kind.numbers and sum(numbers) + (len(numbers) == 1) > sizes[vmo]:
        raise ValueError(f"{part!r} goes beyond the {sizes[vmo]} pages of {vmo}")
    if any(number < (what != "page") for what, number in zip(kind.numbers, numbers, strict=True)):
        raise ValueError(f"{part!r} has a number that is too small")
    return Operation(name, vmo, numbers)


def lines(text: str) -> list[str]:
    """A program for a reader."""
    program = read(text)
    shown = []
    for name, pages, some in program.system:
        what = "on loan" if name[0] == "L" else "there"
        shown.append(f"{name}: {pages} pages, {some} {what}")
    for number, thread in enumerate(program.threads, 1):
        shown += [f"worker{number}: {'; '.join(map(_say, thread)) or 'nothing'}"]
    return shown


def _say(operation: Operation) -> str:
    kind = OPERATIONS[operation.name]
    numbers = zip(kind.numbers, operation.numbers, strict=True)
    words = [operation.name, *filter(None, [operation.vmo])]
    return " ".join([*words, *(f"{what} {number}" for what, number in numbers)])


# -- reducing -------------------------------------------------------------------------------------


def simpler(text: str) -> Iterator[str]:
    """Programs with less in them, the boldest first."""
    program = read(text)
    for smaller in _simpler(program):
        if any(smaller.threads):
            yield write(smaller)


def _simpler(program: Program) -> Iterator[Program]:
    """Without a thread, without operations, without a VMO, with smaller ranges and sizes."""
    threads, system = program.threads, program.system
    for at in range(len(threads)):
        yield replace(program, threads=threads[:at] + threads[at + 1 :])
    for at, thread in enumerate(threads):
        size = len(thread)
        while size:
            for start in range(0, len(thread), size):
                less = thread[:start] + thread[start + size :]
                if less:
                    yield replace(program, threads=(*threads[:at], less, *threads[at + 1 :]))
            size //= 2
    used = {operation.vmo for thread in threads for operation in thread}
    for at, vmo in enumerate(system):
        if vmo.name not in used and len(system) > 1:
            yield replace(program, system=system[:at] + system[at + 1 :])
    for at, thread in enumerate(threads):
        for place, operation in enumerate(thread):
            if "count" in OPERATIONS[operation.name].numbers and operation.numbers[1] > 1:
                page, count = operation.numbers
                for numbers in ((page, count - 1), (page + 1, count - 1)):
                    less = (
                        *thread[:place],
                        operation._replace(numbers=numbers),
                        *thread[place + 1 :],
                    )
                    yield replace(program, threads=(*threads[:at], less, *threads[at + 1 :]))


def drawn(ctx: Context, seed: int) -> str:
    """The program of one schedule, as text."""
    given = str(ctx.params["program"])
    if given:
        return given
    return write(draw_program(seed, int(ctx.params["threads"]), int(ctx.params["operations"])))


@scenario(
    "mixed",
    summary="threads that run operation programs drawn from the seed, fresh for every schedule",
    tags=(
        "drawn",
        "commit",
        "decommit",
        "borrow",
        "evict",
        "pin",
        "replace",
        "sweep",
        "aging",
        "cancel",
        "interrupt",
        "detach",
        "close",
    ),
    threads=3,
    exercises=("R1", "R2", "R3", "R4", "R6", "R8", "R9", "R10", "R13", "R14", "R17", "W14", "W16"),
    params={"threads": 3, "operations": 2, "program": ""},
    drawn=True,
    drawing=Drawing("program", drawn, simpler, lines),
)
def mixed(ctx: Context) -> None:
    """Everything may happen to everybody; the reference says what is right."""
    given = str(ctx.params["program"])
    program = read(given or drawn(ctx, ctx.seed))
    system = Running(ctx, program)

    def worker(number: int, operations: tuple[Operation, ...]) -> Callable[[], None]:
        def work() -> None:
            system.threads[number] = current_thread()
            note(f"program: {'; '.join(map(_say, operations))}")
            for place, operation in enumerate(operations):
                system.run(operation, b"%d%c" % (number, ord("a") + place % 26))

        return work

    race(
        system.kernel,
        *(worker(number, thread) for number, thread in enumerate(program.threads, 1)),
        names=[f"worker{number}" for number in range(1, len(program.threads) + 1)],
    )
    finish(system.kernel)
