"""A schedule by the names of its operations still replays after the program has been edited."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from exploring import failure

from harness import (
    Atomic,
    Mutex,
    Named,
    Operation,
    ReplayDivergence,
    Shared,
    TokenError,
    UsageError,
    explore,
    parallel,
    replay,
    replay_named,
    sleep,
    yield_now,
)

Edit = Callable[[str], None]


def _nothing(_where: str) -> None:
    """The program as it was recorded."""


class Account:
    """A check and an act under one lock each; what stands between and around them is edited."""

    def __init__(self, edit: Edit) -> None:
        self.lock = Mutex("account")
        self.balance = Shared(100, "balance")
        self.edit = edit

    def withdraw(self) -> None:
        self.edit("begin")
        with self.lock:
            self.edit("locked")
            enough = self.balance.get() >= 80
        self.edit("between")
        if enough:
            with self.lock:
                self.balance.set(self.balance.get() - 80)
        self.edit("end")


def _program(edit: Edit = _nothing) -> Callable[[], None]:
    def program() -> None:
        account = Account(edit)
        parallel(account.withdraw, account.withdraw, names=["one", "two"])
        assert account.balance.peek() >= 0, "overdrawn"

    return program


def _logging(place: str) -> Edit:
    def edit(where: str) -> None:
        if where == place:
            log = Mutex("log")
            with log:
                yield_now()

    return edit


def _mended() -> None:
    lock, balance = Mutex("account"), Shared(100, "balance")

    def withdraw() -> None:
        with lock:
            if balance.get() >= 80:
                balance.set(balance.get() - 80)

    parallel(withdraw, withdraw, names=["one", "two"])
    assert balance.peek() >= 0, "overdrawn"


def _named(program: Callable[[], None]) -> Named:
    return failure(program, "random", seed=2).named()


def test_operations_are_counted_by_thread_kind_and_object() -> None:
    named = _named(_program())

    assert named.operations[0] == Operation("main", "parallel", "-", 1)
    ones = [op for op in named.operations if (op.thread, op.kind) == ("one", "acquire")]
    assert [(op.obj, op.ordinal) for op in ones] == [("account", 1), ("account", 2)]


def test_the_unchanged_program_fails_in_the_same_way_with_the_same_digest() -> None:
    program = _program()
    found = failure(program, "random", seed=2)
    aligned = replay_named(program, found.named())

    assert aligned.same
    assert aligned.failure is not None
    assert aligned.failure.digest == found.digest
    assert (aligned.gone, aligned.added, aligned.moved) == ((), (), ())
    assert aligned.fitted == found.steps


@pytest.mark.parametrize("place", ["begin", "locked", "between", "end"])
def test_it_survives_operations_that_are_put_in(place: str) -> None:
    found = failure(_program(), "random", seed=2)
    edited = _program(_logging(place))
    with pytest.raises(ReplayDivergence):
        replay(edited, found.token)

    aligned = replay_named(edited, found.named())

    assert aligned.same, aligned.text()
    assert aligned.gone == ()
    # The last of them may come after all that was recorded.
    assert place == "end" or {op.obj for op in aligned.added} >= {"log"}
    assert aligned.failure is not None
    again = replay(edited, aligned.failure.token)
    assert again is not None
    assert again.digest == aligned.failure.digest


@pytest.mark.parametrize("place", ["begin", "locked", "between"])
def test_it_survives_operations_that_are_taken_out(place: str) -> None:
    found = failure(_program(_logging(place)), "random", seed=2)
    aligned = replay_named(_program(), found.named())

    assert aligned.same, aligned.text()
    assert {op.obj for op in aligned.gone} <= {"log", "log#2", "-"}
    assert aligned.gone
    assert aligned.added == ()


def test_a_mended_program_passes_and_is_told_what_is_gone() -> None:
    aligned = replay_named(_mended, _named(_program()))

    assert aligned.failure is None
    assert not aligned.same
    assert {"acquire", "release"} <= {op.kind for op in aligned.gone}
    assert aligned.fitted > 0
    text = aligned.text()
    assert "recorded operations took place" in text
    assert "gone: " in text


def test_an_order_that_is_not_possible_any_more_is_told() -> None:
    """With one lock around all of it, the other thread's operations come later than recorded."""

    def apart() -> None:
        cell = Shared(0, "cell")

        def add() -> None:
            cell.set(cell.get() + 1)

        parallel(add, add, names=["one", "two"])
        assert cell.peek() == 2

    def together() -> None:
        cell, lock = Shared(0, "cell"), Mutex("m")

        def add() -> None:
            with lock:
                cell.set(cell.get() + 1)

        parallel(add, add, names=["one", "two"])
        assert cell.peek() == 2

    aligned = replay_named(together, _named(apart))

    assert aligned.failure is None
    assert [(op.kind, op.obj) for op in aligned.moved] == [("get", "cell")]
    assert {op.obj for op in aligned.added} == {"m"}
    assert "later than recorded" in aligned.text()


def test_what_the_failing_recording_did_not_live_to_see_is_not_called_added() -> None:
    def program(*, checks: bool) -> None:
        cell = Shared(0, "cell")

        def check() -> None:
            if checks:
                assert cell.get() == 0, "too late"
            else:
                cell.get()
            for _ in range(5):
                cell.get()

        parallel(lambda: cell.set(1), check, names=["setter", "checker"])

    found = failure(lambda: program(checks=True), "random", seed=1)
    aligned = replay_named(lambda: program(checks=False), found.named())

    assert (aligned.failure, aligned.added, aligned.gone) == (None, (), ())


def test_a_renamed_object_is_gone_and_added_but_the_rest_still_leads() -> None:
    def program(name: str) -> None:
        other = Atomic(0, name)
        account = Account(lambda _where: other.store(1))
        parallel(account.withdraw, account.withdraw, names=["one", "two"])
        assert account.balance.peek() >= 0, "overdrawn"

    found = failure(lambda: program("old"), "random", seed=2)
    aligned = replay_named(lambda: program("new"), found.named())

    assert aligned.same, aligned.text()
    assert {op.obj for op in aligned.gone} == {"old"}
    assert {op.obj for op in aligned.added} == {"new"}


def test_time_and_timeouts_are_part_of_the_order() -> None:
    def program(edit: Edit) -> None:
        lock, cell = Mutex("m"), Shared(0, "cell")

        def hold() -> None:
            with lock:
                edit("locked")
                sleep(2)

        def give_up() -> None:
            cell.set(1 if lock.acquire(timeout=1) else 2)
            assert cell.get() == 1, "gave up"
            lock.release()

        parallel(hold, give_up, names=["holder", "waiter"])

    found = failure(lambda: program(_nothing), "random", seed=2)
    aligned = replay_named(lambda: program(_logging("locked")), found.named())

    assert aligned.same, aligned.text()


def test_a_deadlock_is_met_again() -> None:
    def program(edit: Edit) -> None:
        a, b = Mutex("a"), Mutex("b")

        def take(first: Mutex, second: Mutex) -> None:
            with first:
                edit("locked")
                with second:
                    pass

        parallel(lambda: take(a, b), lambda: take(b, a), names=["ab", "ba"])

    found = failure(lambda: program(_nothing), "random", seed=2)
    assert found.kind == "deadlock"
    aligned = replay_named(lambda: program(_logging("locked")), found.named())

    assert aligned.same, aligned.text()


# -- as a file ----------------------------------------------------------------------------------


def test_a_file_has_one_operation_a_line_and_reads_back() -> None:
    named = _named(_program())
    text = named.text()

    assert Named.read(text) == named
    assert Named.read(text.encode()) == named
    assert len(text.splitlines()) == len(named.operations) + 2
    assert '["one","acquire","account",2]' in text


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "no named schedule"),
        ("not json", "no named schedule"),
        (b"\xff\xfe", "no named schedule"),
        ('{"format":"lockloom-named-1","token":"x"}', "operations"),
        ('{"format":"lockloom-named-9","token":"x","operations":[]}', "lockloom-named-9"),
        ('{"format":"lockloom-named-1","token":"x","operations":[[1,2,3,4]]}', "no named"),
    ],
)
def test_what_is_no_named_schedule_says_so(text: str | bytes, told: str) -> None:
    with pytest.raises(TokenError, match=told):
        Named.read(text)


def test_a_damaged_token_in_it_says_so() -> None:
    named = _named(_program())
    with pytest.raises(TokenError, match="damaged"):
        replay_named(_program(), Named(named.token[:-4], named.operations))


def test_a_livelock_has_no_names_for_all_it_did() -> None:
    def spin() -> None:
        cell = Shared(0)

        def turn() -> None:
            while True:
                cell.get()

        parallel(turn, turn)

    found = explore(spin, "random", 1, steps_max=2_500).failure
    assert found is not None
    with pytest.raises(UsageError, match="livelock"):
        found.named()
