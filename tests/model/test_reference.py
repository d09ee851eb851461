"""The reference: what the kernel leaves open it leaves open, and nothing more."""

from __future__ import annotations

from typing import Any

import pytest

from harness import History, explore, parallel
from model.kernel import Kernel
from model.observed import NOTED, UNKNOWN, UNNOTED, ObservedKernel
from model.page import ZEROES
from model.reference import KernelReference
from model.reference_operations import OPERATIONS
from model.reference_state import CLEAN, Cell, Filled, Shape
from model.status import Status
from stress.catalogue import Spec, program_of
from stress.scenarios import mixed

LENDER, BORROWER, NEW, SLICE = range(4)
W, P = b"w", b"p"


def judged(
    events: str,
    calls: dict[str, tuple[Any, ...]],
    start: tuple[Any, ...],
    *,
    dirty: int = CLEAN,
    meanwhile: bool = False,
    **shape: Any,
) -> str:
    """Hold a history of a lender of two pages and a borrower of one against the reference.

    Args:
        events: A letter at the call of an operation and again at its return.
        calls: By letter: thread, name, arguments, result.
        start: Content of the lender's pages and of the borrower's, None where absent.
        dirty: Of the borrower's page.
        meanwhile: Another lender of two pages may be made, and a slice of the first.
        shape: What differs from the default.

    Returns:
        The letter of the operation that no order explains; empty where there is an order.
    """
    fixed = Shape(
        ("lender", "borrower"), (True, False), (2, 1), (0, 2), pages=3, faults=False, zero=ZEROES
    )
    for name, value in shape.items():
        object.__setattr__(fixed, name, value)
    cells: list[Cell] = [None if content is None else Filled(content) for content in start]
    cells[2:] = [cell and cell._replace(dirty=dirty) for cell in cells[2:]]
    found: list[str] = []

    def program() -> None:
        reference = KernelReference(fixed, (cells[:2], cells[2:]))
        if meanwhile:
            assert reference.expect("new", 2, lends=True) == NEW
            assert reference.expect("slice", 0, parent=LENDER) == SLICE
        history = History(reference)
        running = {}
        for letter in events:
            thread, name, args, result = calls[letter]
            if letter not in running:
                running[letter] = history.call(name, *args)
                continue
            history.returns(running[letter], result)
            running[letter].thread = thread
        at = history.explain().at
        found.extend(letter for letter, call in running.items() if call is at)
        history.abandon("judged here")

    assert explore(program, "round-robin", schedules=1).failure is None
    return "".join(found)


COMMIT = ("t1", "commit", (LENDER, 0, 2), "OK")
DECOMMIT = ("t2", "decommit", (LENDER, 0, 1), "OK")
READ_W = ("t2", "read", (LENDER, 0), ("OK", W))
READ_0 = ("t2", "read", (LENDER, 0), ("OK", ZEROES))
GIVE_UP = ("t2", "ask", (LENDER, 0, 1), "SHOULD_WAIT")
SUPPLY = ("t2", "supply", (BORROWER, 0, 1, P), "OK")
THERE = ("t2", "ask", (BORROWER, 0, 1), "OK")
AWAY = ("t2", "ask", (BORROWER, 0, 1), "SHOULD_WAIT")
EVICTED = ("t2", "evict_page", (BORROWER, 0), True)
HOME = ("t3", "ask", (LENDER, 0, 1), "OK")
CLOSE = ("t3", "close", (LENDER,), None)
PIN = ("t1", "pin", (LENDER, 0, 2, LENDER), "OK")
UNPIN = ("t1", "unpin", (LENDER, 0, 2, LENDER), None)
REFUSED = ("t2", "decommit", (LENDER, 0, 1), "BAD_STATE")
BORROW = ("t1", "replace", (BORROWER, 0, True), "OK")
OWN = ("t1", "replace", (BORROWER, 0, False), "OK")
SWEEP = ("t1", "churn", (), 1)
HINT = ("t1", "hint", (BORROWER, 0, 1), "OK")
PIN_B = ("t1", "pin", (BORROWER, 0, 1, BORROWER), "OK")
UNPIN_B = ("t1", "unpin", (BORROWER, 0, 1, BORROWER), None)
DETACH = ("t3", "detach", (BORROWER,), "OK")
NO_BORROW = ("t3", "replace", (BORROWER, 0, True), "NOT_SUPPORTED")
NEED = ("t1", "need", (BORROWER, 0, 1), "OK")
MAP = ("t1", "map", (LENDER, 0), "OK")
UNMAP = ("t1", "unmap", (LENDER, 0), "OK")
LOAD_W = ("t2", "load", (LENDER, 0, 0), ("OK", W))
LOAD_0 = ("t2", "load", (LENDER, 0, 0), ("OK", ZEROES))
UNMAPPED = ("t2", "load", (LENDER, 0, 0), ("NOT_FOUND", b""))
STORE = ("t2", "store", (LENDER, 0, P, 0), "OK")
READ_STORED = ("t2", "read", (LENDER, 0), ("OK", P))
TOUCH = ("t2", "touch", (LENDER, 0, True, 0), "OK")
MAPPED_DECOMMIT = ("t2", "decommit_mapped", (LENDER, 0, 1, 0), "OK")
BAD_HANDLE = ("t2", "read", (LENDER, 0), ("BAD_HANDLE", b""))
SHRINK = ("t1", "resize", (BORROWER, 0), "OK")
BEYOND_ZERO = ("t2", "zero", (BORROWER, 0, 1), "OUT_OF_RANGE")
GROW = ("t1", "resize", (BORROWER, 1), "OK")
UNSHRUNK = ("t1", "resize", (BORROWER, 0), "BAD_STATE")
BEYOND = ("t2", "beyond", (BORROWER, 0, 1), "OUT_OF_RANGE")
READ_P = ("t2", "read", (BORROWER, 0), ("OK", P))


def look(*contents: bytes | None) -> tuple[Any, ...]:
    return "main", "look", (), (contents[:2], contents[2:])


@pytest.mark.parametrize(
    ("events", "calls", "start", "unexplained"),
    [
        # Gone again while the commit was still under way, but not before it began.
        ("cddcll", {"c": COMMIT, "d": DECOMMIT, "l": look(None, W, None)}, (W, W, None), ""),
        ("ddccll", {"c": COMMIT, "d": DECOMMIT, "l": look(None, W, None)}, (W, W, None), "l"),
        # What comes home is empty; what was there stays.
        ("ccll", {"c": COMMIT, "l": look(ZEROES, W, None)}, (None, W, None), ""),
        ("ccll", {"c": COMMIT, "l": look(W, W, None)}, (None, W, None), "l"),
        ("ccll", {"c": COMMIT, "l": look(None, W, None)}, (None, W, None), "l"),
        ("ccll", {"c": COMMIT, "l": look(ZEROES, W, None)}, (W, W, None), "l"),
        # A decommit is atomic, and a read before it is not one after it.
        ("dwwzzd", {"d": DECOMMIT, "w": READ_W, "z": READ_0}, (W, W, None), ""),
        ("dzzwwd", {"d": DECOMMIT, "w": READ_W, "z": READ_0}, (W, W, None), "w"),
        ("ddww", {"d": DECOMMIT, "w": READ_W}, (W, W, None), "w"),
        # A request given up may be in another thread's hands; without one it comes to nothing.
        (
            "cggcll",
            {
                "c": ("t1", "commit", (LENDER, 1, 1), "OK"),
                "g": GIVE_UP,
                "l": look(ZEROES, W, None),
            },
            (None, W, None),
            "",
        ),
        (
            "ggccll",
            {
                "c": ("t1", "commit", (LENDER, 1, 1), "OK"),
                "g": GIVE_UP,
                "l": look(ZEROES, W, None),
            },
            (None, W, None),
            "l",
        ),
        # A borrower's page goes where a lender's comes home that may lie under it.
        ("ssccaa", {"s": SUPPLY, "c": COMMIT, "a": AWAY}, (None, W, None), ""),
        ("ssccaa", {"s": SUPPLY, "c": COMMIT, "a": THERE}, (None, W, None), ""),
        ("ssccaa", {"s": SUPPLY, "c": COMMIT, "a": AWAY}, (W, W, None), "a"),
        ("ccssaa", {"s": SUPPLY, "c": COMMIT, "a": AWAY}, (None, W, None), "a"),
        # It has left before the lender's page is home: nobody sees both.
        (
            "cahhac",
            {"c": COMMIT, "a": EVICTED, "h": HOME},
            (None, W, P),
            "",
        ),
        # An eviction takes what is there, once.
        ("eeff", {"e": EVICTED, "f": EVICTED}, (W, W, P), "f"),
        ("eeff", {"e": EVICTED, "f": ("t3", "evict_page", (BORROWER, 0), False)}, (W, W, P), ""),
        ("ff", {"f": ("t3", "evict_page", (BORROWER, 0), False)}, (W, W, P), "f"),
        ("ee", {"e": ("t2", "evict", (1,), 1)}, (W, W, P), ""),
        ("ee", {"e": ("t2", "evict", (1,), 0)}, (W, W, P), "e"),
        ("ee", {"e": ("t2", "evict", (2,), 1)}, (W, W, P), ""),
        ("ee", {"e": ("t2", "evict", (1,), 2)}, (W, W, P), "e"),
        # A write takes effect once and at one time; it brings its page home.
        (
            "wwrr",
            {
                "w": ("t1", "write", (LENDER, 0, P), "OK"),
                "r": ("t2", "read", (LENDER, 0), ("OK", P)),
            },
            (None, W, None),
            "",
        ),
        ("wwrr", {"w": ("t1", "write", (LENDER, 0, P), "OK"), "r": READ_W}, (W, W, None), "r"),
        # Whatever lay under the borrower's page is its own once the lender is gone.
        ("ssxxtt", {"s": SUPPLY, "x": CLOSE, "t": THERE}, (None, W, None), ""),
        # Gone for one is gone for all; and nobody is told so before it is closed.
        (
            "xxbbdd",
            {"x": CLOSE, "b": ("t1", "commit", (LENDER, 0, 1), "BAD_HANDLE"), "d": DECOMMIT},
            (W, W, None),
            "d",
        ),
        ("bb", {"b": ("t1", "commit", (LENDER, 0, 1), "BAD_HANDLE")}, (W, W, None), "b"),
        # Interrupted is who was suspended.
        ("ii", {"i": ("t1", "commit", (LENDER, 0, 1), "INTR_RETRY")}, (None, W, None), "i"),
        (
            "isksik",
            {
                "i": ("t1", "commit", (LENDER, 0, 1), "INTR_RETRY"),
                "s": ("t2", "suspend", ("t1",), None),
                "k": ("t3", "commit", (LENDER, 1, 1), "OK"),
            },
            (None, W, None),
            "",
        ),
        # Memory runs out where somebody else may have it, or none is left.
        ("ss", {"s": ("t2", "supply", (BORROWER, 0, 1, P), "NO_MEMORY")}, (W, W, None), "s"),
        (
            "sets",
            {
                "s": ("t2", "supply", (BORROWER, 0, 1, P), "NO_MEMORY"),
                "e": ("t3", "evict_page", (BORROWER, 0), True),
                "t": ("t3", "evict_page", (BORROWER, 0), True),
            },
            (W, W, P),
            "",
        ),
        ("cc", {"c": ("t1", "commit", (LENDER, 0, 1), "NO_MEMORY")}, (None, W, None), "c"),
        # What is zeroed is empty and stays; what is loaned stays so.
        (
            "zzll",
            {"z": ("t1", "zero", (LENDER, 0, 2), "OK"), "l": look(ZEROES, None, None)},
            (W, None, None),
            "",
        ),
        (
            "zzll",
            {"z": ("t1", "zero", (LENDER, 0, 2), "OK"), "l": look(None, None, None)},
            (W, None, None),
            "l",
        ),
        # Detached, it has no page, and asks for none.
        (
            "xxaa",
            {"x": ("t1", "detach", (BORROWER,), "OK"), "a": THERE},
            (W, W, P),
            "a",
        ),
        (
            "xxaa",
            {
                "x": ("t1", "detach", (BORROWER,), "OK"),
                "a": ("t2", "ask", (BORROWER, 0, 1), "BAD_STATE"),
            },
            (W, W, P),
            "",
        ),
        # Who waits once is told OK by what another brings in, but not all alone.
        ("ff", {"f": ("t1", "fault", (BORROWER, 0, 1), "OK")}, (W, W, None), "f"),
        # One request covers the absent pages before the first that is there, no more.
        (
            "ffll",
            {"f": ("t1", "fault", (LENDER, 0, 2), "OK"), "l": look(ZEROES, W, None)},
            (None, W, None),
            "",
        ),
        (
            "ffll",
            {"f": ("t1", "fault", (LENDER, 0, 2), "OK"), "l": look(None, ZEROES, None)},
            (None, None, None),
            "l",
        ),
        ("fssf", {"f": ("t1", "fault", (BORROWER, 0, 1), "OK"), "s": SUPPLY}, (W, W, None), ""),
        # A pin has seen all its pages at one time, and refuses a decommit from then on until its
        # unpin, no longer; while it is under way, it may have come so far or not.
        ("pddpuu", {"p": PIN, "d": DECOMMIT, "u": UNPIN}, (W, None, None), ""),
        ("pbbpuu", {"p": PIN, "b": REFUSED, "u": UNPIN}, (W, None, None), ""),
        ("ppbbuu", {"p": PIN, "b": REFUSED, "u": UNPIN}, (W, None, None), ""),
        ("ppdduu", {"p": PIN, "d": DECOMMIT, "u": UNPIN}, (W, None, None), "d"),
        ("ppudud", {"p": PIN, "d": DECOMMIT, "u": UNPIN}, (W, None, None), ""),
        ("ppuubb", {"p": PIN, "b": REFUSED, "u": UNPIN}, (W, None, None), "b"),
        ("uu", {"u": UNPIN}, (W, W, None), "u"),
        ("bb", {"b": REFUSED}, (W, None, None), "b"),
        (
            "pbbpuu",
            {
                "p": ("t1", "pin", (LENDER, 1, 1, LENDER), "OK"),
                "b": REFUSED,
                "u": ("t1", "unpin", (LENDER, 1, 1, LENDER), None),
            },
            (W, W, None),
            "b",
        ),
        # A borrower's pinned page stays, whoever takes pages; nor is it on loan any more.
        ("pp", {"p": PIN_B}, (W, W, None), "p"),
        ("ppeeuu", {"p": PIN_B, "e": EVICTED, "u": UNPIN_B}, (W, W, P), "e"),
        ("ppff", {"p": PIN_B, "f": ("t3", "evict_page", (BORROWER, 0), False)}, (W, W, P), ""),
        ("ppxxuu", {"p": PIN_B, "x": ("t3", "evict", (1,), 1), "u": UNPIN_B}, (W, W, P), "x"),
        ("ppxxuu", {"p": PIN_B, "x": ("t3", "evict", (1,), 0), "u": UNPIN_B}, (W, W, P), ""),
        ("ppddrr", {"p": PIN_B, "d": DETACH, "r": READ_P}, (W, W, P), ""),
        ("ddrr", {"d": DETACH, "r": READ_P}, (W, W, P), "r"),
        ("bbppccaa", {"b": BORROW, "p": PIN_B, "c": COMMIT, "a": AWAY}, (None, W, P), "a"),
        ("ppuunn", {"p": PIN_B, "u": UNPIN_B, "n": NO_BORROW}, (None, W, P), ""),
        ("nn", {"n": NO_BORROW}, (None, W, P), "n"),
        # So does one that is always needed; and it is there.
        ("nn", {"n": NEED}, (W, W, None), "n"),
        ("bbnnccaa", {"b": BORROW, "n": NEED, "c": COMMIT, "a": AWAY}, (None, W, P), "a"),
        ("nnff", {"n": NEED, "f": ("t3", "evict_page", (BORROWER, 0), False)}, (W, W, P), ""),
        # What is mapped is there as long as it is mapped, also where the handle is closed.
        ("mmll", {"m": MAP, "l": LOAD_W}, (W, W, None), ""),
        ("ll", {"l": LOAD_W}, (W, W, None), "l"),
        ("mmuull", {"m": MAP, "u": UNMAP, "l": LOAD_W}, (W, W, None), "l"),
        ("mmuull", {"m": MAP, "u": UNMAP, "l": UNMAPPED}, (W, W, None), ""),
        ("mmll", {"m": MAP, "l": UNMAPPED}, (W, W, None), "l"),
        ("mmddll", {"m": MAP, "d": DECOMMIT, "l": LOAD_W}, (W, W, None), "l"),
        ("mmddll", {"m": MAP, "d": DECOMMIT, "l": LOAD_0}, (W, W, None), ""),
        ("mmxxll", {"m": MAP, "x": CLOSE, "l": LOAD_W}, (W, W, None), ""),
        ("mmxxuull", {"m": MAP, "x": CLOSE, "u": UNMAP, "l": UNMAPPED}, (W, W, None), ""),
        ("mmxxbb", {"m": MAP, "x": CLOSE, "b": BAD_HANDLE}, (W, W, None), "b"),
        ("mmxxuubb", {"m": MAP, "x": CLOSE, "u": UNMAP, "b": BAD_HANDLE}, (W, W, None), ""),
        ("mmssrr", {"m": MAP, "s": STORE, "r": READ_STORED}, (None, W, None), ""),
        ("mmssrr", {"m": MAP, "s": STORE, "r": READ_0}, (None, W, None), "r"),
        ("mmttll", {"m": MAP, "t": TOUCH, "l": look(ZEROES, W, None)}, (None, W, None), ""),
        ("mmttll", {"m": MAP, "t": TOUCH, "l": look(None, W, None)}, (None, W, None), "l"),
        ("mmuuvv", {"m": MAP, "u": UNMAP, "v": UNMAP}, (W, W, None), "v"),
        ("mmppdd", {"m": MAP, "p": PIN, "d": MAPPED_DECOMMIT}, (W, W, None), "d"),
        # Who is told that a slice is gone saw it closed.
        ("ff", {"f": ("t2", "refused", (BORROWER,), "BAD_HANDLE")}, (W, W, P), "f"),
        # A resize cuts off, and what comes back is empty; nobody sees beyond the end.
        ("rrssaa", {"r": SHRINK, "s": GROW, "a": AWAY}, (W, W, P), ""),
        ("rrssaa", {"r": SHRINK, "s": GROW, "a": THERE}, (W, W, P), "a"),
        ("rrbb", {"r": SHRINK, "b": BEYOND}, (W, W, P), ""),
        ("bb", {"b": BEYOND}, (W, W, P), "b"),
        # Whoever zeroes may see the end while it is nearer for a while.
        ("zrrssz", {"z": BEYOND_ZERO, "r": SHRINK, "s": GROW}, (W, W, P), ""),
        ("zssz", {"z": BEYOND_ZERO, "s": GROW}, (W, W, P), "z"),
        ("ppssuu", {"p": PIN_B, "s": SHRINK, "u": UNPIN_B}, (W, W, P), "s"),
        ("ppssuu", {"p": PIN_B, "s": UNSHRUNK, "u": UNPIN_B}, (W, W, P), ""),
        ("ss", {"s": UNSHRUNK}, (W, W, P), "s"),
        ("ppll", {"p": PIN, "l": look(None, ZEROES, None)}, (None, None, None), "l"),
        # What replaces a page keeps its content, and says what may lie under it.
        ("xxrr", {"x": BORROW, "r": READ_P}, (None, W, P), ""),
        ("xx", {"x": BORROW}, (None, W, None), "x"),
        ("xxccaa", {"x": BORROW, "c": COMMIT, "a": AWAY}, (None, W, P), ""),
        ("xxooccaa", {"x": BORROW, "o": OWN, "c": COMMIT, "a": AWAY}, (None, W, P), "a"),
        ("ooccaa", {"o": OWN, "c": COMMIT, "a": AWAY}, (None, W, P), "a"),
        ("nn", {"n": ("t1", "replace", (BORROWER, 0, False), "NOT_FOUND")}, (W, W, P), "n"),
        ("ssccaa", {"s": SWEEP, "c": COMMIT, "a": AWAY}, (None, W, P), ""),
        ("ssccaa", {"s": SWEEP, "c": COMMIT, "a": AWAY}, (W, W, P), "a"),
        ("sffs", {"s": SWEEP, "f": ("t3", "evict_page", (BORROWER, 0), False)}, (W, W, P), ""),
        # A hint changes nothing, and keeps a closed VMO alive.
        ("hrrh", {"h": HINT, "r": READ_P}, (W, W, P), ""),
        (
            "hxxrrh",
            {"h": HINT, "x": ("t3", "close", (BORROWER,), None), "r": READ_P},
            (W, W, P),
            "",
        ),
        # One on another VMO does not; one that looks through all pages may.
        ("hxxrrh", {"h": HINT, "x": CLOSE, "r": READ_W}, (W, W, P), "r"),
        ("hxxrrh", {"h": SWEEP, "x": CLOSE, "r": READ_W}, (W, W, P), ""),
    ],
)
def test_a_history_is_explained_where_the_kernel_allows_it(
    events: str, calls: dict[str, tuple[Any, ...]], start: tuple[Any, ...], unexplained: str
) -> None:
    assert judged(events, calls, start) == unexplained


CREATE = ("t1", "create", (NEW,), "OK")
NO_RUN = ("t1", "create", (NEW,), "NO_MEMORY")
SLICED = ("t1", "slice", (LENDER, SLICE, True, False), "OK")
NO_SLICE = ("t1", "slice", (LENDER, SLICE, False, False), "INVALID_ARGS")
COMMIT_NEW = ("t2", "commit", (NEW, 0, 2), "OK")
LOAN_NEW = ("t2", "decommit", (NEW, 0, 2), "OK")
EVICT_0 = ("t2", "evict_page", (BORROWER, 0), False)
CLOSE_B = ("t3", "close", (BORROWER,), None)
NO_SUPPLY = ("t2", "supply", (BORROWER, 0, 1, P), "NO_MEMORY")


@pytest.mark.parametrize(
    ("events", "calls", "start", "pages", "unexplained"),
    [
        # A lender is made of free pages, all there and empty, and it is no lender before.
        ("nnoo", {"n": CREATE, "o": COMMIT_NEW}, (W, W, None), 4, ""),
        ("nnrr", {"n": CREATE, "r": ("t2", "read", (NEW, 1), ("OK", ZEROES))}, (W, W, P), 5, ""),
        ("nnrr", {"n": CREATE, "r": ("t2", "read", (NEW, 1), ("OK", W))}, (W, W, P), 5, "r"),
        ("oo", {"o": COMMIT_NEW}, (W, W, None), 4, "o"),
        ("nn", {"n": CREATE}, (W, W, P), 4, "n"),
        ("nn", {"n": CREATE}, (W, W, P), 5, ""),
        ("neen", {"n": CREATE, "e": EVICTED}, (W, W, P), 4, ""),
        ("nnxx", {"n": CREATE, "x": CREATE}, (W, W, P), 9, "x"),
        # What it has nobody else can have; what it loans anybody can.
        ("nnss", {"n": CREATE, "s": SUPPLY}, (W, W, None), 4, "s"),
        ("nnllss", {"n": CREATE, "l": LOAN_NEW, "s": SUPPLY}, (W, W, None), 5, ""),
        ("nnss", {"n": CREATE, "s": NO_SUPPLY}, (W, W, None), 5, "s"),
        ("nssn", {"n": CREATE, "s": NO_SUPPLY}, (W, W, None), 5, ""),
        # It may find no run of pages, unless so many are free that there must be one.
        ("nn", {"n": NO_RUN}, (W, W, None), 4, ""),
        ("nn", {"n": NO_RUN}, (W, W, None), 8, "n"),
        ("nn", {"n": NO_RUN}, (W, W, P), 7, ""),
        ("nxxn", {"n": NO_RUN, "x": CLOSE_B}, (W, W, P), 8, ""),
        # A slice comes to be of a VMO that there is, and keeps its pages.
        ("ss", {"s": SLICED}, (W, W, None), 3, ""),
        ("ss", {"s": NO_SLICE}, (W, W, None), 3, ""),
        ("ss", {"s": (*SLICED[:3], "INVALID_ARGS")}, (W, W, None), 3, "s"),
        ("ss", {"s": (*NO_SLICE[:3], "OK")}, (W, W, None), 3, "s"),
        ("ss", {"s": (*SLICED[:3], "NOT_SUPPORTED")}, (W, W, None), 3, "s"),
        ("ssxxrr", {"s": SLICED, "x": CLOSE, "r": READ_W}, (W, W, None), 3, ""),
        ("xxssrr", {"s": (*SLICED[:3], "BAD_HANDLE"), "x": CLOSE, "r": READ_W}, (W, W, P), 3, "r"),
        ("ss", {"s": (*SLICED[:3], "BAD_HANDLE")}, (W, W, P), 3, "s"),
        ("ssoo", {"s": SLICED, "o": ("t2", "outside", (SLICE,), "OUT_OF_RANGE")}, (W, W, P), 3, ""),
        ("oo", {"o": ("t2", "outside", (SLICE,), "OUT_OF_RANGE")}, (W, W, P), 3, "o"),
    ],
)
def test_a_vmo_that_is_made_meanwhile_is_judged(
    events: str,
    calls: dict[str, tuple[Any, ...]],
    start: tuple[Any, ...],
    pages: int,
    unexplained: str,
) -> None:
    got = judged(events, calls, start, meanwhile=True, pages=pages, machine=pages)
    assert got == unexplained


WRITE_B = ("t1", "write", (BORROWER, 0, W), "OK")
READ_B = ("t2", "read", (BORROWER, 0), ("OK", W))
STORE_B = ("t1", "store", (BORROWER, 0, W, 0), "OK")
STORE_OUT = (*STORE_B[:3], "OUT_OF_RANGE")
TOUCH_B = ("t1", "touch", (BORROWER, 0, True, 0), "OK")
MAP_B = ("t1", "map", (BORROWER, 0), "OK")
UNMAP_B = ("t2", "unmap", (BORROWER, 0), "OK")
IS_DIRTY = ("t2", "dirty_ranges", (BORROWER, 0, 1), (0,))
NONE_DIRTY = ("t2", "dirty_ranges", (BORROWER, 0, 1), ())
BEGIN = ("t2", "writeback_begin", (BORROWER, 0, 1), "OK")
END = ("t2", "writeback_end", (BORROWER, 0, 1), "OK")
AGREE = ("t3", "agree", (BORROWER, 0, 1), "OK")
AGREED = ("t3", "agreed", (BORROWER, 0, 1), None)
STAYS = ("t3", "evict_page", (BORROWER, 0), False)
GOES = ("t3", "evict_page", (BORROWER, 0), True)
ZERO_B = ("t1", "zero", (BORROWER, 0, 1), "OK")
READ_Z = ("t2", "read", (BORROWER, 0), ("OK", ZEROES))
NO_SPACE = ("t1", "write", (BORROWER, 0, W), "NO_SPACE")
FAILS = ("t3", "refuse", (BORROWER, "NO_SPACE"), None)
NOTHING = ("t3", "evict", (1,), 0)
LOANED = ("t3", "replace", (BORROWER, 0, True), "OK")
UNLOANED = ("t3", "replace", (BORROWER, 0, True), "BAD_STATE")
UNWRITTEN = ("t1", "write", (BORROWER, 0, W), "NO_MEMORY")


@pytest.mark.parametrize(
    ("events", "calls", "start", "unexplained"),
    [
        # What is written is dirty, until it is written back and not written meanwhile.
        ("wwdd", {"w": WRITE_B, "d": IS_DIRTY}, (W, W, P), ""),
        ("wwdd", {"w": WRITE_B, "d": NONE_DIRTY}, (W, W, P), "d"),
        ("dd", {"d": IS_DIRTY}, (W, W, P), "d"),
        ("zzdd", {"z": ZERO_B, "d": NONE_DIRTY}, (W, W, P), "d"),
        ("wwbbdd", {"w": WRITE_B, "b": BEGIN, "d": NONE_DIRTY}, (W, W, P), "d"),
        ("wwbbeedd", {"w": WRITE_B, "b": BEGIN, "e": END, "d": NONE_DIRTY}, (W, W, P), ""),
        ("wwbbeedd", {"w": WRITE_B, "b": BEGIN, "e": END, "d": IS_DIRTY}, (W, W, P), "d"),
        ("bbwweedd", {"w": WRITE_B, "b": BEGIN, "e": END, "d": NONE_DIRTY}, (W, W, P), "d"),
        ("wwxxdd", {"w": WRITE_B, "x": CLOSE_B, "d": NONE_DIRTY}, (W, W, P), ""),
        # Dirty it stays: no evictor takes it, no detach, and it is not on loan.
        ("wwgg", {"w": WRITE_B, "g": GOES}, (W, W, P), "g"),
        ("wwgg", {"w": WRITE_B, "g": STAYS}, (W, W, P), ""),
        ("wwbbgg", {"w": WRITE_B, "b": BEGIN, "g": GOES}, (W, W, P), "g"),
        ("wwbbeegg", {"w": WRITE_B, "b": BEGIN, "e": END, "g": GOES}, (W, W, P), ""),
        ("wwbbeegg", {"w": WRITE_B, "b": BEGIN, "e": END, "g": STAYS}, (W, W, P), "g"),
        ("wggw", {"w": WRITE_B, "g": STAYS}, (W, W, P), ""),
        ("wwgg", {"w": WRITE_B, "g": NOTHING}, (W, W, P), ""),
        ("gg", {"g": NOTHING}, (W, W, P), "g"),
        ("wwgg", {"w": WRITE_B, "g": ("t3", "evict", (1,), 1)}, (W, W, P), "g"),
        ("wwddrr", {"w": WRITE_B, "d": DETACH, "r": READ_B}, (W, W, P), ""),
        ("ddrr", {"d": DETACH, "r": READ_P}, (W, W, P), "r"),
        ("wwll", {"w": WRITE_B, "l": LOANED}, (None, W, P), "l"),
        ("wwll", {"w": WRITE_B, "l": UNLOANED}, (None, W, P), ""),
        ("ll", {"l": UNLOANED}, (None, W, P), "l"),
        ("llwwccaa", {"l": LOANED, "w": WRITE_B, "c": COMMIT, "a": AWAY}, (None, W, P), "a"),
        ("llccaa", {"l": LOANED, "c": COMMIT, "a": AWAY}, (None, W, P), ""),
        (
            "wwsscc",
            {"w": WRITE_B, "s": SWEEP, "c": ("t1", "ask", (BORROWER, 0, 1), "SHOULD_WAIT")},
            (None, W, P),
            "c",
        ),
        # A store faults first: dirty with the old content, then with the new.
        ("mmsddrrs", {"m": MAP_B, "s": STORE_B, "d": IS_DIRTY, "r": READ_P}, (W, W, P), ""),
        ("mmssdd", {"m": MAP_B, "s": STORE_B, "d": NONE_DIRTY}, (W, W, P), "d"),
        ("mmsddrrs", {"m": MAP_B, "s": STORE_OUT, "d": IS_DIRTY, "r": SHRINK}, (W, W, P), ""),
        ("mmsdds", {"m": MAP_B, "s": STORE_OUT, "d": IS_DIRTY}, (W, W, P), "s"),
        ("mmttdd", {"m": MAP_B, "t": TOUCH_B, "d": NONE_DIRTY}, (W, W, P), "d"),
        ("mmttrr", {"m": MAP_B, "t": TOUCH_B, "r": READ_P}, (W, W, P), ""),
        (
            "mmsbbeesrr",
            {"m": MAP_B, "s": STORE_B, "b": BEGIN, "e": END, "r": READ_B},
            (W, W, P),
            "",
        ),
        # A page that is on loan takes memory to be written.
        ("uu", {"u": UNWRITTEN}, (W, W, P), "u"),
        # A pager that fails one who waits has been asked; without one nobody is failed.
        ("nn", {"n": NO_SPACE}, (W, W, P), "n"),
        ("nffn", {"n": NO_SPACE, "f": FAILS}, (W, W, P), ""),
        # Only a pager that traps writes is asked before.
        ("aa", {"a": AGREE}, (W, W, P), "a"),
        ("aa", {"a": (*AGREE[:3], "NOT_SUPPORTED")}, (W, W, P), ""),
    ],
)
def test_what_is_dirty_is_judged(
    events: str, calls: dict[str, tuple[Any, ...]], start: tuple[Any, ...], unexplained: str
) -> None:
    got = judged(events, calls, start, pages=9, machine=9, tracked=1 << BORROWER)
    assert got == unexplained


@pytest.mark.parametrize(
    ("events", "calls", "start", "unexplained"),
    [
        # Nothing is written before its pager agrees, and he agrees to what is there.
        ("ww", {"w": WRITE_B}, (W, W, P), "w"),
        ("aaww", {"a": AGREE, "w": WRITE_B}, (W, W, P), ""),
        ("waaw", {"a": AGREED, "w": WRITE_B}, (W, W, P), ""),
        ("aa", {"a": AGREE}, (W, W, None), "a"),
        ("aa", {"a": (*AGREE[:3], "NOT_FOUND")}, (W, W, None), ""),
        ("aa", {"a": (*AGREE[:3], "NOT_FOUND")}, (W, W, P), "a"),
        ("aazzrr", {"a": AGREE, "z": ZERO_B, "r": READ_Z}, (W, W, P), ""),
        ("zz", {"z": ZERO_B}, (W, W, P), "z"),
        ("aabbww", {"a": AGREE, "b": BEGIN, "w": WRITE_B}, (W, W, P), "w"),
        ("mmss", {"m": MAP_B, "s": STORE_B}, (W, W, P), "s"),
        ("mmtt", {"m": MAP_B, "t": TOUCH_B}, (W, W, P), "t"),
        ("mmsaas", {"m": MAP_B, "s": STORE_B, "a": AGREED}, (W, W, P), ""),
        ("aadd", {"a": AGREE, "d": NONE_DIRTY}, (W, W, P), "d"),
        # It never borrows.
        ("ll", {"l": LOANED}, (None, W, P), "l"),
        ("ll", {"l": (*LOANED[:3], "NOT_SUPPORTED")}, (None, W, P), ""),
        ("ssccaa", {"s": SUPPLY, "c": COMMIT, "a": AWAY}, (None, W, None), "a"),
        ("ssccaa", {"s": SWEEP, "c": COMMIT, "a": AWAY}, (None, W, P), "a"),
    ],
)
def test_a_pager_that_traps_writes_is_asked_before(
    events: str, calls: dict[str, tuple[Any, ...]], start: tuple[Any, ...], unexplained: str
) -> None:
    bit = 1 << BORROWER
    got = judged(events, calls, start, pages=9, machine=9, tracked=bit, trapped=bit)
    assert got == unexplained


def test_a_store_that_finds_no_memory_leaves_its_page_clean() -> None:
    """Its fault would have replaced the page, and made it dirty by that."""
    fails = (*STORE_B[:3], "NO_MEMORY")
    calls = {"m": MAP_B, "s": fails, "d": NONE_DIRTY}

    def at(pages: int) -> str:
        tracked = 1 << BORROWER
        return judged("mmssdd", calls, (W, W, P), pages=pages, machine=pages, tracked=tracked)

    assert at(3) == ""
    assert at(4) == "s"


@pytest.mark.parametrize("name", ["pin", "need", "write"])
def test_memory_may_have_been_short_for_a_while_only(name: str) -> None:
    """Who found none is told so later, when others have given theirs back."""
    args: dict[str, tuple[Any, ...]] = {
        "pin": (BORROWER, 0, 1, BORROWER),
        "need": (BORROWER, 0, 1),
        "write": (BORROWER, 0, W),
    }
    fails = ("t1", name, args[name], "NO_MEMORY")
    calls = {"f": fails, "n": LOAN_NEW, "c": CREATE, "x": ("t2", "close", (NEW,), None)}
    shape: dict[str, Any] = {"meanwhile": True, "pages": 5, "machine": 5}
    shape["tracked"] = 1 << BORROWER

    assert judged("ccfxxf", calls, (W, W, P), **shape) == ""
    assert judged("ccxxff", calls, (W, W, P), **shape) == "f"
    assert judged("ff", calls, (W, W, P), **shape) == "f"


def test_injected_faults_let_memory_run_out_midway() -> None:
    failed = ("t1", "commit", (LENDER, 0, 1), "NO_MEMORY")

    assert judged("cc", {"c": failed}, (None, W, None), faults=True) == ""
    assert judged("cc", {"c": failed}, (None, W, None), faults=False) == "c"


# -- the kernel -----------------------------------------------------------------------------------


def test_every_operation_is_noted_or_known_not_to_be() -> None:
    """A new one fails this: it needs an entry of its own, or is none that others can see."""
    public = {n for n in dir(Kernel) if callable(getattr(Kernel, n)) and not n.startswith("_")}
    noted = {name for name in public if name in NOTED}

    assert public == noted | UNNOTED | set(UNKNOWN)
    assert not noted & UNNOTED
    assert UNKNOWN == ("attributed", "pinned_pages")
    assert {"commit", "decommit", "supply", "evict", "read", "write", "detach"} <= set(OPERATIONS)


def lie(monkeypatch: pytest.MonkeyPatch, name: str, answer: Any) -> None:
    """Make one operation of the kernel say something else than it did."""
    truth = getattr(Kernel, name)

    def lying(self: Kernel, *args: Any, **options: Any) -> Any:
        return answer(truth, self, *args, **options)

    monkeypatch.setattr(Kernel, name, lying)


LIES: dict[str, Any] = {
    "commit": lambda *_args, **_options: Status.OK,
    "decommit": lambda *_args, **_options: Status.OK,
    "supply": lambda truth, kernel, *args: truth(kernel, *args) and Status.NO_MEMORY,
    "evict_page": lambda truth, kernel, *args: truth(kernel, *args) or True,
    "evict": lambda truth, kernel, *args: truth(kernel, *args) + 1,
    "read": lambda truth, kernel, *args: (Status.OK, b"old".ljust(16, b"\0")),
    "write": lambda *_args, **_options: Status.OK,
}


@pytest.mark.parametrize("name", LIES)
def test_an_operation_that_lies_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lie(monkeypatch, name, LIES[name])
    failure = explore(program_of(Spec("mixed", draw=1)), "random", schedules=400).failure

    assert failure is not None
    assert (failure.kind, failure.message.split(":")[0]) == ("invariant", "reference")


PLANTED: list[tuple[str, str, Any]] = [
    ("zero", "L1.1.0/write.L1.0+zero.L1.0.1/read.L1.0", lambda *_: Status.OK),
    ("detach", "L1.1.0+B1.1.1/detach.B1/read.L1.0", lambda *_: Status.OK),
    ("store", "L1.2.1/store.L1.1/touch.L1.0", lambda *_: Status.OK),
    ("load", "L1.2.1/load.L1.0/touch.L1.1", lambda *_: (Status.OK, b"old".ljust(16, b"\0"))),
    ("load", "L1.1.0+B1.1.0/load-paged.B1.0/read.L1.0", lambda *_: (Status.OK, ZEROES)),
    ("fault", "L1.1.1/touch.L1.0/read.L1.0", lambda *_, **_options: Status.OK),
    ("unmap", "L1.1.0/load.L1.0+unmap.L1/read.L1.0", lambda *_: Status.NOT_FOUND),
    ("decommit_mapped", "L1.1.0/loan.L1.0/read.L1.0", lambda *_: Status.OK),
    ("resize", "L1.1.0+B1.2.2/resize.B1.1/read.L1.0", lambda *_: Status.OK),
    ("always_need", "L1.1.0+B1.1.0/need.B1.0.1/read.L1.0", lambda *_: Status.OK),
    ("decommit", "L1.2.0+S1.1.1/decommit.S1.0.1/read.L1.0", lambda *_: Status.OK),
    ("read", "L1.1.0+S1.1.0/write.L1.0+read.S1.0/touch.L1.0", lambda *_: (Status.OK, ZEROES)),
    (
        "pin",
        "L1.1.1+B1.1.0/pin-paged.B1.0.1/read.L1.0",
        lambda *_, **_o: (Status.UNAVAILABLE, None),
    ),
    ("replace_page", "L1.1.1+B1.1.1/own.B1.0/read.L1.0", lambda *_, **_o: Status.NOT_SUPPORTED),
    ("map", "L1.1.0/load.L1.0/read.L1.0", lambda *_: (Status.BAD_HANDLE, None)),
    ("dirty_ranges", "L1.1.0+D1.1.1/write-paged.D1.0+write-back.D1.0.1/read.L1.0", lambda *_: []),
    ("dirty_ranges", "L1.1.0+D1.1.1/write-back.D1.0.1/read.L1.0", lambda *_, **_o: [0]),
    (
        "writeback_end",
        "L1.1.0+D1.1.1/write-paged.D1.0+write-back.D1.0.1+evict-page.D1.0/read.L1.0",
        lambda *_: Status.OK,
    ),
    (
        "writeback_begin",
        "L1.1.0+D1.1.1/write-paged.D1.0+write-back.D1.0.1+evict-page.D1.0/read.L1.0",
        lambda *_: Status.OK,
    ),
    ("dirty_pages", "L1.1.0+T1.1.1/agree.T1.0+write-back.T1.0.1/read.L1.0", lambda *_: Status.OK),
    ("dirty_pages", "L1.1.0+T1.1.0/agree.T1.0/read.L1.0", lambda *_: Status.OK),
]


@pytest.mark.parametrize(("name", "program", "answer"), PLANTED)
def test_a_wrong_outcome_is_found_where_it_is_planted(
    name: str, program: str, answer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = Spec("mixed", params=(("program", program),))
    assert explore(program_of(spec), "random", schedules=5).failure is None
    lie(monkeypatch, name, lambda _truth, _kernel, *args, **options: answer(*args, **options))
    failure = explore(program_of(spec), "random", schedules=5).failure

    assert failure is not None
    assert (failure.kind, failure.message.split(":")[0]) == ("invariant", "reference")


def test_an_operation_that_the_reference_does_not_know_abandons_the_history() -> None:
    def program() -> None:
        kernel = ObservedKernel(pages=4)
        lender = kernel.lender(2, absent=1)
        kernel.watch()
        assert kernel.attributed(lender) == 1
        assert kernel.history is not None
        assert "attributed" in kernel.history.abandoned
        kernel.look()

    assert explore(program, "round-robin", schedules=1).failure is None


# Whose histories the reference judges.
JUDGED = [
    "commit-supply",
    "commit-reborrow",
    "commit-evict-page",
    "commit-evictor",
    "commit-last-reference",
    "commit-interval",
    "cancel-clear",
    "cancel-retry",
    "cancel-swap",
    "commit-decommit",
    "commit-overlap",
    "supply-fails",
    "supply-fails-overlap",
    "suspend-waiter",
    "kill-waiter",
    "evict-timer",
    "supply-pieces",
    "detach-request",
    "commit-detach",
    "close-request",
    "close-lender",
    "close-lender-borrowed",
    "mixed",
    "zero-decommit",
    "aging-threads",
    "sweep-thread",
    "close-lender-fault",
    "fault-decommit",
    "fault-detach",
    "fault-reclaim",
    "fault-unmap",
    "inject-pager-waits",
    "pin-contiguous",
    "pin-exhausted",
    "pin-race",
    "pin-reclaim",
    "proxy-close",
    "proxy-packets",
    "proxy-swap",
    "replace-need",
    "resize-reclaim",
    "resize-wait",
    "slice-decommit",
    "slice-last-reference",
    "workload-single-vmo",
    "workload-multi-vmo",
    "workload-instances",
    "workload-writeback",
    "create-lender",
    "inject-memory",
    "replace-dirty",
    "dirty-writeback",
    "dirty-trap",
    "dirty-resize",
    "dirty-detach",
]


@pytest.mark.parametrize("name", JUDGED)
def test_a_scenario_is_held_against_the_reference(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged: list[bool] = []
    check = History.check

    def checking(history: History[Any]) -> None:
        judged.append(not history.abandoned and history.calls[-1].name == "look")
        check(history)

    monkeypatch.setattr(History, "check", checking)
    report = explore(program_of(Spec(name, draw=int(name == "mixed"))), schedules=8)

    assert report.failure is None, report.failure
    assert judged == [True] * len(judged)
    assert len(judged) >= 8


def test_what_was_asked_for_before_is_noted_from_the_start() -> None:
    """Another thread may work on it at once."""

    def program() -> None:
        kernel = ObservedKernel(pages=3)
        lender = kernel.lender(2, absent=2)
        pending = kernel.begin_commit(lender, 0, 1)
        kernel.watch()
        assert kernel.commit(lender, 1, 1) is Status.OK
        pending.cancel()
        kernel.look()
        assert kernel.history is not None
        assert [call.name for call in kernel.history.calls] == ["ask", "commit", "look"]
        assert kernel.history.calls[-1].result == ((ZEROES, ZEROES),)

    assert explore(program, "round-robin", schedules=1).failure is None


def test_what_all_pages_are_is_settled_before_the_call() -> None:
    """The VMO may have grown by the time that its kernel looks."""

    def program() -> None:
        kernel = ObservedKernel(pages=3)
        vmo = kernel.borrower(1, resizable=True, dirty_tracked=True)
        kernel.resize(vmo, 0)
        kernel.watch()

        def grow() -> None:
            kernel.resize(vmo, 1)
            kernel.supply(vmo, 0, 1)
            kernel.write(vmo, 0, b"new")

        parallel(lambda: kernel.dirty_ranges(vmo), grow)
        kernel.look()

    report = explore(program, "pct", schedules=100)

    assert report.failure is None, report.failure
    assert report.evidence is not None
    assert report.evidence.histories.checked == 100


@pytest.mark.parametrize("name", sorted(mixed.OPERATIONS))
def test_an_operation_on_what_was_closed_says_so(name: str) -> None:
    """Nobody looks into a VMO whose handle may be closed at any moment."""
    kind = mixed.OPERATIONS[name]
    borrower = f"{'B' if set('BL') & set(kind.on) or not kind.on else kind.on[0]}1"
    numbers = {"page": 0, "count": 1, "thread": 1, "target": 1, "pages": 1}
    vmo = ("L1" if "L" in kind.on else borrower) if kind.on else ""
    operation = mixed.Operation(name, vmo, tuple(numbers[what] for what in kind.numbers))
    closes = (mixed.Operation("close-lender", "L1", ()), mixed.Operation("close", borrower, ()))
    program = mixed.Program(
        (mixed.Vmo("L1", 1, 1), mixed.Vmo(borrower, 1, 0)), ((operation, operation), closes)
    )
    spec = Spec("mixed", params=(("program", mixed.write(program)),))
    report = explore(program_of(spec), schedules=25)

    assert report.failure is None, report.failure.message


@pytest.mark.parametrize("before", [False, True])
def test_a_thread_of_the_kernel_is_churn_until_it_is_stopped(before: bool) -> None:
    """One that runs when the history begins may have pages in its hands: nothing is judged."""

    def program() -> None:
        kernel = ObservedKernel(pages=3)
        kernel.lender(1, absent=1)
        kernel.supply(kernel.borrower(1))
        if before:
            kernel.start_sweeper_thread()
        kernel.watch()
        if not before:
            kernel.start_sweeper_thread()
        kernel.wake_sweeper_thread()
        kernel.stop_sweeper_thread()
        kernel.look()
        assert kernel.history is not None
        assert bool(kernel.history.abandoned) is before
        names = [call.name for call in kernel.history.calls]
        assert names == (["look"] if before else ["churn", "look"])
        assert all(call.returned >= 0 for call in kernel.history.calls)

    assert explore(program, "round-robin", schedules=1).failure is None
