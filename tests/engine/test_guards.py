"""What a lock guards is not touched without it: every access without the lock is a finding."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from exploring import every, failure, passes

from harness import (
    Mutex,
    RwLock,
    assert_held,
    excludes,
    guarded_by,
    invariant,
    parallel,
    requires,
)


class Account:
    balance = guarded_by("_lock")

    def __init__(self) -> None:
        self._lock = Mutex("account")
        self.balance = 100

    @requires("_lock")
    def _add_locked(self, amount: int) -> None:
        self.balance += amount

    @excludes("_lock")
    def add(self, amount: int) -> None:
        with self._lock:
            self._add_locked(amount)


def _with_account(act: Callable[[Account], object], *, locked: bool = False) -> Callable[[], None]:
    def program() -> None:
        account = Account()

        def actor() -> None:
            if locked:
                with account._lock:
                    act(account)
            else:
                act(account)

        def holder() -> None:
            with account._lock:
                assert account.balance >= 0

        parallel(actor, holder)

    return program


@pytest.mark.parametrize(
    ("act", "locked", "message"),
    [
        (lambda a: a.balance, False, "Account.balance was read by actor without account"),
        (
            lambda a: setattr(a, "balance", 0),
            False,
            "Account.balance was written by actor without account",
        ),
        (lambda a: a._add_locked(1), False, "Account._add_locked() needs account"),
        (
            lambda a: a.add(1),
            True,
            "Account.add() must be called without account, which actor holds",
        ),
        (lambda a: assert_held(a._lock), False, "assert_held() needs account"),
    ],
    ids=["read", "write", "requires", "excludes", "assert_held"],
)
def test_an_access_without_the_lock_is_a_guard_finding(
    act: Callable[[Account], object], locked: bool, message: str
) -> None:
    found = failure(_with_account(act, locked=locked))

    assert "guard" == found.kind
    assert message in found.message


@pytest.mark.parametrize(
    ("act", "locked"),
    [
        (lambda a: a.balance, True),
        (lambda a: setattr(a, "balance", 0), True),
        (lambda a: a._add_locked(1), True),
        (lambda a: a.add(1), False),
        (lambda a: assert_held(a._lock), True),
    ],
    ids=["read", "write", "requires", "excludes", "assert_held"],
)
def test_an_access_with_the_lock_is_none(act: Callable[[Account], object], locked: bool) -> None:
    passes(_with_account(act, locked=locked))


def test_a_guard_finding_names_the_holder() -> None:
    report = every(_with_account(lambda a: a.balance))
    messages = {found.message.rsplit("held by ", 1)[1] for found in report.failures}

    assert {"nobody"} >= messages - {"holder"}


def test_guards_are_free_outside_of_schedules_and_inside_invariants() -> None:
    assert 100 == Account().balance

    def program() -> None:
        account = Account()
        invariant(lambda: account.balance >= 0)
        parallel(lambda: account.add(1), lambda: account.add(-1))

    passes(program)


def test_a_read_write_lock_guards_for_readers_and_writers() -> None:
    class Table:
        rows = guarded_by("_rw")

        def __init__(self) -> None:
            self._rw = RwLock("table")
            self.rows = 0

    def program(*, careful: bool) -> None:
        table = Table()

        def reader() -> None:
            if careful:
                with table._rw.read():
                    assert table.rows >= 0
            else:
                assert table.rows >= 0

        def writer() -> None:
            with table._rw.write():
                table.rows += 1

        parallel(reader, writer)

    passes(lambda: program(careful=True))
    found = failure(lambda: program(careful=False))
    assert "guard" == found.kind
    assert "Table.rows was read by reader without table" in found.message
