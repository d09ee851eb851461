"""Threads that run operation programs drawn at random: what nobody thought of.

A program is a system and what each thread does to it. It is drawn from the seed, or given as text
in the parameter ``program``, which is also what a failing one is reduced to::

    L1.3.2+S1.2.1+B1.2.1/commit.L1.0.2+evict.1/supply.B1.0.1

Parts end at a slash: the system first, then one part for each thread. A lender (L) has its pages
and how many of them are on loan at the start; a borrower (B) its pages and how many are there; a
slice (S) its pages and where they begin in the lender of its number. D is a borrower whose written
pages are dirty, T one whose pager is asked before they are. Where an operation has to wait for a
pager, each borrower has a thread that serves it. No scenario says here what an operation may
answer: the reference judges all of it (``model.reference``).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from harness.errors import UsageError
from harness.sync import Thread, current_thread, note
from stress.catalogue import PARAMETER_MAX, Context, Drawing, scenario
from stress.given import short
from stress.scenarios import boot, expect, finish, race
from stress.scenarios.dirty import flush

if TYPE_CHECKING:
    from model.kernel import Kernel
    from model.vm_aspace import VmMapping
    from model.vmo import VmObjectPaged


class Vmo(NamedTuple):
    """One VMO of a program.

    Attributes:
        name: L and a number for a lender, B, D or T for a borrower, S for a slice of that lender.
        pages: Its size.
        some: Pages that are on loan at the start, or there; of a slice, its first page.
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
        working: How many workers have not ended.
        pagers: Names of the borrowers that a pager serves.
    """

    def __init__(self, ctx: Context, program: Program) -> None:
        """Set the system up."""
        self.kernel: Kernel = boot(ctx, sum(vmo.pages for vmo in program.system))
        self.kernel.ppb(on_mru=True)
        self.vmos: dict[str, VmObjectPaged] = {}
        self.threads: dict[int, Thread] = {}
        self.working = len(program.threads)
        run = [operation for thread in program.threads for operation in thread]
        resized = {operation.vmo for operation in run if operation.name == "resize"}
        for name, pages, some in program.system:
            if name[0] == "L":
                self.vmos[name] = self.kernel.lender(pages, name, absent=some)
            elif name[0] == "S":
                self.vmos[name] = self.kernel.sliced(self.vmos[f"L{name[1:]}"], some, pages)
            else:
                self.vmos[name] = self.kernel.borrower(
                    pages,
                    name,
                    resizable=name in resized,
                    dirty_tracked=name[0] == "D",
                    trap_dirty=name[0] == "T",
                )
                if some:
                    expect(self.kernel.supply(self.vmos[name], 0, some, b"first"))
        served = any(OPERATIONS[operation.name].waits for operation in run)
        self.pagers = [name for name in self.vmos if name[0] in _PAGED and served]
        self._aspace = self.kernel.aspace()
        self._mappings: dict[str, VmMapping] = {}

    def mapping(self, vmo: VmObjectPaged) -> VmMapping | None:
        """The last mapping of all of ``vmo``, else a new one; None where it is gone."""
        if vmo.name not in self._mappings:
            _, mapping = self.kernel.map(self._aspace, vmo)
            if mapping is None:
                return None
            self._mappings[vmo.name] = mapping
        return self._mappings[vmo.name]

    def unmapping(self, vmo: VmObjectPaged) -> VmMapping | None:
        """That mapping, for whoever unmaps it; the next to ask makes a new one."""
        return self._mappings.pop(vmo.name, None)

    def ended(self) -> None:
        """A worker has; with the last of them the pagers go home."""
        self.working -= 1
        for name in () if self.working else self.pagers:
            self.kernel.detach(self.vmos[name])

    def serve(self, name: str) -> None:
        """Be the pager of that borrower."""
        while self.kernel.serve_pager(self.vmos[name]):
            pass

    def run(self, operation: Operation, content: bytes) -> None:
        """Run one operation; ``content`` is what it writes, if it does."""
        vmo = self.vmos.get(operation.vmo)
        OPERATIONS[operation.name].run(self, vmo, operation.numbers, content)


# Kinds of VMO that have a pager.
_PAGED: Final = "BDT"
Run = Callable[[Running, Any, tuple[int, ...], bytes], object]


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of operation.

    Attributes:
        weight: How often it is drawn.
        on: Letters of the kinds of VMO that it is about; empty for none.
        numbers: What its numbers are: "page", "count" (of pages from there), "thread", "target".
        run: Runs it on a system, a VMO, its numbers, and content to write.
        waits: It may wait for a pager.
    """

    weight: int
    on: str
    numbers: tuple[str, ...]
    run: Run
    waits: bool = False


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


def _by_mapping(access: Callable[[Kernel, VmMapping, tuple[int, ...], bytes], object]) -> Run:
    """An access by way of a mapping, which is made where there is none."""

    def run(system: Running, vmo: VmObjectPaged, numbers: tuple[int, ...], to: bytes) -> None:
        mapping = system.mapping(vmo)
        if mapping is not None and max(numbers) < len(mapping.entries):
            access(system.kernel, mapping, numbers, to)

    return run


def _unmap(system: Running, vmo: VmObjectPaged, _numbers: tuple[int, ...], _to: bytes) -> None:
    """Unmap what is mapped."""
    mapping = system.unmapping(vmo)
    if mapping is not None:
        system.kernel.unmap(mapping)


_load: Final = _by_mapping(lambda kernel, mapping, n, _: kernel.load(mapping, n[0]))
_store: Final = _by_mapping(lambda kernel, mapping, n, to: kernel.store(mapping, n[0], to))
_touch: Final = _by_mapping(lambda kernel, mapping, n, _: kernel.fault(mapping, n[0]))
_loan: Final = _by_mapping(lambda kernel, mapping, n, _: kernel.decommit_mapped(mapping, n[0], 1))

_RANGE: Final = ("page", "count")
# A new operation is one entry here, and one in ``model.reference_operations``.
OPERATIONS: Final[dict[str, Kind]] = {
    "commit": Kind(6, "LS", _RANGE, lambda s, v, n, _: s.kernel.commit(v, *n)),
    "decommit": Kind(4, "LS", _RANGE, lambda s, v, n, _: s.kernel.decommit(v, *n)),
    "fault": Kind(3, "LS", _RANGE, lambda s, v, n, _: s.kernel.begin_commit(v, *n).wait()),
    "give-up": Kind(3, "LS", _RANGE, lambda s, v, n, _: s.kernel.begin_commit(v, *n).cancel()),
    "write": Kind(2, "LS", ("page",), lambda s, v, n, to: s.kernel.write(v, n[0], to)),
    "read": Kind(1, "LS", ("page",), lambda s, v, n, _: s.kernel.read(v, *n)),
    "pin": Kind(3, "LS", _RANGE, _pin),
    "zero": Kind(1, "LS", _RANGE, lambda s, v, n, _: s.kernel.zero(v, *n)),
    "supply": Kind(6, _PAGED, _RANGE, lambda s, v, n, to: s.kernel.supply(v, n[0], n[1], to)),
    "fault-in": Kind(2, _PAGED, ("page",), _fault_in),
    "borrow": Kind(
        2, _PAGED, ("page",), lambda s, v, n, _: s.kernel.replace_page(v, *n, with_loaned=True)
    ),
    "own": Kind(
        2, _PAGED, ("page",), lambda s, v, n, _: s.kernel.replace_page(v, *n, with_loaned=False)
    ),
    "sweep": Kind(1, "", (), lambda s, _v, _n, _: s.kernel.sweep()),
    "age": Kind(1, "", (), _age),
    "dont-need": Kind(1, _PAGED, _RANGE, lambda s, v, n, _: s.kernel.dont_need(v, *n)),
    "evict-page": Kind(4, _PAGED, ("page",), lambda s, v, n, _: s.kernel.evict_page(v, *n)),
    "evict": Kind(2, "", ("target",), lambda s, _v, n, _: s.kernel.evict(*n)),
    "suspend": Kind(2, "", ("thread",), _suspend),
    "load": Kind(1, "LS", ("page",), _load),
    "store": Kind(2, "LS", ("page",), _store),
    "touch": Kind(2, "LS", ("page",), _touch),
    "loan": Kind(1, "LS", ("page",), _loan),
    "unmap": Kind(1, "LS", (), _unmap),
    "load-paged": Kind(1, _PAGED, ("page",), _load, waits=True),
    "store-paged": Kind(1, _PAGED, ("page",), _store, waits=True),
    "unmap-paged": Kind(1, _PAGED, (), _unmap),
    "pin-paged": Kind(1, _PAGED, _RANGE, _pin, waits=True),
    "need": Kind(1, _PAGED, _RANGE, lambda s, v, n, _: s.kernel.always_need(v, *n), waits=True),
    "write-paged": Kind(
        2, _PAGED, ("page",), lambda s, v, n, to: s.kernel.write(v, n[0], to), waits=True
    ),
    "zero-paged": Kind(1, _PAGED, _RANGE, lambda s, v, n, _: s.kernel.zero(v, *n), waits=True),
    "agree": Kind(2, "T", ("page",), lambda s, v, n, _: s.kernel.dirty_pages(v, n[0], 1)),
    "write-back": Kind(3, "DT", _RANGE, lambda s, v, n, _: flush(s.kernel, v, *n), waits=True),
    "resize": Kind(1, _PAGED, ("pages",), lambda s, v, n, _: s.kernel.resize(v, *n)),
    "detach": Kind(1, _PAGED, (), lambda s, v, _n, _: s.kernel.detach(v)),
    "close": Kind(2, _PAGED, (), lambda s, v, _n, _: s.kernel.destroy(v)),
    "close-lender": Kind(1, "LS", (), lambda s, v, _n, _: s.kernel.destroy(v)),
}


# -- drawing --------------------------------------------------------------------------------------


def draw_program(seed: int, threads: int, operations: int) -> Program:
    """A program with so many threads and operations of each: a function of the arguments alone."""
    draw = random.Random(seed)
    system = [Vmo("L1", pages := draw.choice((2, 3)), draw.randrange(1, pages + 1))]
    if draw.random() < 0.5:
        system.append(Vmo("L2", 2, draw.randrange(3)))
    if draw.random() < 0.25:
        first = draw.randrange(pages)
        system.append(Vmo("S1", 1 + draw.randrange(pages - first), first))
    system += [
        Vmo(f"{draw.choice('BBDT')}{number}", 2, draw.randrange(2))
        for number in range(1, draw.choice((2, 3)))
    ]
    letters = {vmo.name[0] for vmo in system}
    kinds = [
        name
        for name, kind in OPERATIONS.items()
        if not kind.on or letters & set(kind.on)
        for _ in range(kind.weight)
    ]

    def one() -> Operation:
        name = draw.choice(kinds)
        kind = OPERATIONS[name]
        on = [vmo for vmo in system if vmo.name[0] in kind.on]
        vmo = draw.choice(on) if on else Vmo("", 0, 0)
        numbers: list[int] = []
        for what in kind.numbers:
            sizes = {"page": vmo.pages, "pages": vmo.pages + 1, "target": 2, "thread": threads}
            size = sizes.get(what, 0)
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
        _check_slices(system)
        sizes = {vmo.name: vmo.pages for vmo in system}
        threads = tuple(
            tuple(_read_operation(part, sizes) for part in each.split("+") if part) for each in rest
        )
    except ValueError as error:
        raise UsageError(
            f"program {short(text)!r}: {short(error)}; "
            "write it like L1.2.1+B1.2.0/commit.L1.0.2/evict.1"
        ) from None
    if not any(threads):
        raise UsageError(f"program {short(text)!r} has no operation; add one after a slash")
    numbers = [each for vmo in system for each in vmo[1:]]
    numbers += [each for thread in threads for operation in thread for each in operation.numbers]
    # A token may carry one.
    if max(len(threads), *numbers, *map(len, threads)) > PARAMETER_MAX:
        raise UsageError(
            f"program {short(text)!r} has more than {PARAMETER_MAX:,} threads, pages or operations"
        )
    return Program(system, threads)


def _read_vmo(part: str) -> Vmo:
    name, *numbers = part.split(".")
    if len(numbers) != 2 or name[:1] not in ("L", "S", *_PAGED) or not name[1:].isdecimal():
        raise ValueError(f"{part!r} is no VMO")
    pages, some = map(int, numbers)
    if name[0] == "S" and pages > 0 <= some:
        return Vmo(name, pages, some)
    if not 0 <= some <= pages or not pages:
        raise ValueError(f"{name} has {some} of {pages} pages")
    return Vmo(name, pages, some)


def _check_slices(system: tuple[Vmo, ...]) -> None:
    """Each slice comes after the lender that it is a window into."""
    sizes: dict[str, int] = {}
    for name, pages, first in system:
        sizes[name] = pages
        if name[0] == "S" and sizes.get(f"L{name[1:]}", 0) < first + pages:
            raise ValueError(f"{name} reaches out of L{name[1:]}, or comes before it")


def _read_operation(part: str, sizes: dict[str, int]) -> Operation:
    name, *rest = part.split(".")
    kind = OPERATIONS.get(name)
    if kind is None:
        raise ValueError(f"there is no operation {name!r}")
    vmo = rest.pop(0) if kind.on and rest else ""
    if (kind.on and vmo not in sizes) or vmo[:1] not in kind.on:
        raise ValueError(f"{part!r} is about no VMO of the program")
    if len(rest) != len(kind.numbers):
        raise ValueError(f"{part!r} needs {len(kind.numbers)} numbers: {', '.join(kind.numbers)}")
    numbers = tuple(map(int, rest))
    if "page" in kind.numbers and sum(numbers) + (len(numbers) == 1) > sizes[vmo]:
        raise ValueError(f"{part!r} goes beyond the {sizes[vmo]} pages of {vmo}")
    if any(
        number < (what not in ("page", "pages"))
        for what, number in zip(kind.numbers, numbers, strict=True)
    ):
        raise ValueError(f"{part!r} has a number that is too small")
    return Operation(name, vmo, numbers)


def lines(text: str) -> list[str]:
    """A program for a reader."""
    program = read(text)
    shown = []
    for name, pages, some in program.system:
        if name[0] == "S":
            shown.append(f"{name}: {pages} pages of L{name[1:]}, from page {some} on")
            continue
        what = {"L": "on loan", "D": "there, dirty when written"}.get(name[0], "there")
        what += ", writes trapped" * (name[0] == "T")
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
    used |= {f"L{vmo.name[1:]}" for vmo in system if vmo.name[0] == "S"}
    for at, vmo in enumerate(system):
        if vmo.name not in used and len(system) > 1:
            yield replace(program, system=system[:at] + system[at + 1 :])
    yield from _plainer(program)
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


def _plainer(program: Program) -> Iterator[Program]:
    """With a borrower in the place of one that tracks dirty pages, where its operations allow."""
    for at, vmo in enumerate(program.system):
        name = f"B{vmo.name[1:]}"
        done = {each.name for thread in program.threads for each in thread if each.vmo == vmo.name}
        if vmo.name[0] not in "DT" or any("B" not in OPERATIONS[each].on for each in done):
            continue
        if name not in {other.name for other in program.system}:
            system = (*program.system[:at], vmo._replace(name=name), *program.system[at + 1 :])
            threads = tuple(
                tuple(each._replace(vmo=name) if each.vmo == vmo.name else each for each in thread)
                for thread in program.threads
            )
            yield Program(system, threads)


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
        "fault",
        "unmap",
        "slice",
        "resize",
        "dirty",
        "write",
        "proxy",
    ),
    threads=5,  # the two pagers included
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
            system.ended()

        return work

    race(
        system.kernel,
        *(worker(number, thread) for number, thread in enumerate(program.threads, 1)),
        *(partial(system.serve, name) for name in system.pagers),
        names=[
            *(f"worker{number}" for number in range(1, len(program.threads) + 1)),
            *(f"pager-{name}" for name in system.pagers),
        ],
    )
    finish(system.kernel)
