"""Exact sets of outcomes under sequential consistency, and what locks allow."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import pytest
from exploring import every, failure, outcomes, passes

from harness import Atomic, Mutex, RwLock, Semaphore, Shared, explore, parallel, spawn


class SharedCell:
    def __init__(self) -> None:
        self._cell = Shared(0)

    def write(self, value: int) -> None:
        self._cell.set(value)

    def read(self) -> int:
        return self._cell.get()


class AtomicCell:
    def __init__(self) -> None:
        self._cell = Atomic(0)

    def write(self, value: int) -> None:
        self._cell.store(value)

    def read(self) -> int:
        return self._cell.load()


Cell = SharedCell | AtomicCell
MakeCell = Callable[[], Cell]
cells = pytest.mark.parametrize("cell", [SharedCell, AtomicCell])


# -- what sequential consistency allows ---------------------------------------------------------


@cells
def test_store_buffering_never_reads_two_zeros(cell: MakeCell) -> None:
    def program() -> object:
        x, y = cell(), cell()

        def left() -> int:
            x.write(1)
            return y.read()

        def right() -> int:
            y.write(1)
            return x.read()

        return tuple(parallel(left, right))

    assert {(0, 1), (1, 0), (1, 1)} == outcomes(program)
    assert every(program).schedules == 6


@cells
def test_message_passing_never_sees_the_flag_without_the_data(cell: MakeCell) -> None:
    def program() -> object:
        data, flag = cell(), cell()

        def send() -> None:
            data.write(1)
            flag.write(1)

        def receive() -> tuple[int, int]:
            return flag.read(), data.read()

        return parallel(send, receive)[1]

    assert {(0, 0), (0, 1), (1, 1)} == outcomes(program)


@cells
def test_load_buffering_never_reads_two_ones(cell: MakeCell) -> None:
    def program() -> object:
        x, y = cell(), cell()

        def left() -> int:
            seen = x.read()
            y.write(1)
            return seen

        def right() -> int:
            seen = y.read()
            x.write(1)
            return seen

        return tuple(parallel(left, right))

    assert {(0, 0), (0, 1), (1, 0)} == outcomes(program)


@cells
def test_independent_readers_never_disagree_on_the_order_of_writes(cell: MakeCell) -> None:
    def program() -> object:
        x, y = cell(), cell()
        results = parallel(
            lambda: x.write(1),
            lambda: y.write(1),
            lambda: (x.read(), y.read()),
            lambda: (y.read(), x.read()),
        )
        return results[2] + results[3]

    assert set(product((0, 1), repeat=4)) - {(1, 0, 1, 0)} == outcomes(program)
    assert every(program).schedules == 180


@cells
def test_reads_of_one_cell_never_go_back(cell: MakeCell) -> None:
    def program() -> object:
        x = cell()
        return parallel(lambda: x.write(1), lambda: (x.read(), x.read()))[1]

    assert {(0, 0), (0, 1), (1, 1)} == outcomes(program)


@cells
def test_crossed_writes_never_both_lose(cell: MakeCell) -> None:
    def program() -> object:
        x, y = cell(), cell()

        def left() -> None:
            x.write(1)
            y.write(2)

        def right() -> None:
            y.write(1)
            x.write(2)

        parallel(left, right)
        return x.read(), y.read()

    assert {(1, 2), (2, 1), (2, 2)} == outcomes(program)


@pytest.mark.parametrize("strategy", ["random", "pct", "round-robin", "portfolio"])
def test_other_strategies_reach_only_what_dfs_reaches(strategy: str) -> None:
    """And ``random`` all of it: each outcome has a chance of at least 1/16 per schedule."""
    seen = set()

    def program() -> None:
        x, y = Shared(0), Shared(0)

        def left() -> int:
            x.set(1)
            return y.get()

        def right() -> int:
            y.set(1)
            return x.get()

        seen.add(tuple(parallel(left, right)))

    explore(program, strategy, schedules=400)

    allowed = {(0, 1), (1, 0), (1, 1)}
    assert seen <= allowed
    assert strategy != "random" or seen == allowed


def test_an_unlocked_increment_loses_updates() -> None:
    def program() -> object:
        counter = Shared(0)

        def increment() -> None:
            counter.set(counter.get() + 1)

        parallel(increment, increment)
        return counter.peek()

    assert {1, 2} == outcomes(program)
    assert every(program).schedules == 6


def test_fetch_add_loses_no_update() -> None:
    def program() -> object:
        counter = Atomic(0)
        before = parallel(counter.fetch_add, counter.fetch_add, lambda: counter.fetch_add(5))
        return min(before), counter.peek()

    assert {(0, 7)} == outcomes(program)
    assert every(program).schedules == 6


def test_one_compare_exchange_of_many_wins() -> None:
    def program() -> object:
        owner = Atomic(0)
        won = parallel(*[lambda i=i: owner.compare_exchange(0, i) for i in (1, 2, 3)])
        assert won.count(True) == 1
        return owner.peek(), won.index(True) + 1

    assert {(1, 1), (2, 2), (3, 3)} == outcomes(program)


def test_exchange_hands_each_value_to_exactly_one() -> None:
    def program() -> object:
        slot = Atomic("free")
        return tuple(parallel(lambda: slot.exchange("a"), lambda: slot.exchange("b")))

    assert {("free", "a"), ("b", "free")} == outcomes(program)


# -- locks (exploration 6A, 9-18) ---------------------------------------------------------------


def abba() -> None:
    a, b = Mutex("a"), Mutex("b")

    def forwards() -> None:
        with a, b:
            pass

    def backwards() -> None:
        with b, a:
            pass

    parallel(forwards, backwards)


def test_opposite_lock_orders_deadlock_under_dfs_random_and_pct_2_but_not_pct_1() -> None:
    assert failure(abba).kind == "deadlock"
    assert failure(abba, "random", schedules=100).kind == "deadlock"
    assert failure(abba, "pct", depth=2, schedules=100).kind == "deadlock"
    passes(abba, "pct", depth=1, schedules=1_000)


def test_a_deadlock_names_every_thread_lock_and_owner() -> None:
    message = failure(abba).message

    assert "forwards waits for b (acquire), held by backwards" in message
    assert "backwards waits for a (acquire), held by forwards" in message


def test_reading_and_writing_under_two_locks_in_turn_loses_an_update() -> None:
    def program() -> None:
        lock, counter = Mutex(), Shared(0)

        def increment() -> None:
            with lock:
                seen = counter.get()
            with lock:
                counter.set(seen + 1)

        parallel(increment, increment)
        assert counter.peek() == 2

    assert failure(program).kind == "assertion"


def test_reading_and_writing_under_one_lock_loses_none() -> None:
    def program() -> object:
        lock, counter = Mutex(), Shared(0)

        def increment() -> None:
            with lock:
                counter.set(counter.get() + 1)

        parallel(increment, increment, increment)
        return counter.peek()

    assert {3} == outcomes(program)


def test_taking_a_lock_twice_waits_for_oneself() -> None:
    def program() -> None:
        lock = Mutex("m")

        def twice() -> None:
            with lock, lock:
                pass

        parallel(twice)

    found = failure(program)
    assert found.kind == "deadlock"
    assert "twice waits for m (acquire), held by twice" in found.message


def test_trying_ones_own_lock_fails_and_harms_nothing() -> None:
    def program() -> object:
        lock = Mutex()
        with lock:
            tried = lock.acquire(blocking=False)
        return tried, lock.owner

    assert {(False, None)} == outcomes(program)


def test_trying_a_lock_succeeds_or_fails_with_who_comes_first() -> None:
    def program() -> object:
        lock = Mutex()

        def attempt() -> bool:
            taken = lock.acquire(blocking=False)
            if taken:
                lock.release()
            return taken

        return tuple(parallel(attempt, attempt))

    assert {(True, True), (True, False), (False, True)} == outcomes(program)


def test_an_exception_under_a_lock_releases_it_and_is_reported_once() -> None:
    def program() -> None:
        lock = Mutex("m")

        def careless() -> None:
            with lock:
                raise KeyError("gone")

        def careful() -> None:
            with lock:
                pass

        parallel(careless, careful)

    report = every(program)

    assert {"exception": report.schedules} == report.failing
    assert len(report.failures) == 1
    assert "KeyError" in report.failures[0].message


def test_an_exception_that_is_caught_leaves_the_lock_to_others() -> None:
    def program() -> object:
        lock = Mutex("m")

        def careless() -> bool:
            try:
                with lock:
                    raise KeyError("gone")
            except KeyError:
                return True

        def careful() -> bool:
            with lock:
                return True

        return tuple(parallel(careless, careful))

    assert {(True, True)} == outcomes(program)


def test_readers_meet_and_writers_never_do() -> None:
    def program() -> object:
        lock = RwLock("rw")
        inside: list[str] = []
        most: list[tuple[str, ...]] = []

        def enter(name: str) -> None:
            inside.append(name)
            most.append(tuple(sorted(inside)))

        def reader(name: str) -> None:
            with lock.read():
                enter(name)
                step.get()
                inside.remove(name)

        def writer() -> None:
            with lock.write():
                enter("w")
                step.get()
                inside.remove("w")

        step = Shared(0)
        parallel(lambda: reader("r1"), lambda: reader("r2"), writer)
        return max(most, key=len)

    seen = outcomes(program)
    assert {("r1",), ("r2",), ("w",), ("r1", "r2")} >= seen
    assert ("r1", "r2") in seen
    assert not any("w" in together and len(together) > 1 for together in seen)  # type: ignore[operator, arg-type] # tuples of names


@pytest.mark.parametrize("prefer", ["writer", "reader"])
def test_a_reader_that_wants_to_write_waits_for_itself(prefer: str) -> None:
    def program() -> None:
        lock = RwLock("rw", prefer=prefer)  # type: ignore[arg-type] # one of the two literals

        def upgrade() -> None:
            with lock.read(), lock.write():
                pass

        parallel(upgrade)

    found = failure(program)
    assert found.kind == "deadlock"
    assert "upgrade waits for rw (write-acquire)" in found.message


def _read_twice(prefer: str) -> Callable[[], None]:
    def program() -> None:
        lock = RwLock("rw", prefer=prefer)  # type: ignore[arg-type] # one of the two literals

        def reader() -> None:
            with lock.read(), lock.read():
                pass

        def writer() -> None:
            with lock.write():
                pass

        parallel(reader, writer)

    return program


def test_reading_twice_deadlocks_with_a_writer_in_between() -> None:
    """RADBench bug6: the writer queues between the two acquisitions of the reader."""
    found = failure(_read_twice("writer"))

    assert found.kind == "deadlock"
    assert "reader waits for rw (read-acquire)" in found.message
    assert "writer waits for rw (write-acquire), held by reader" in found.message


def test_reading_twice_is_safe_where_readers_are_preferred() -> None:
    passes(_read_twice("reader"))


@pytest.mark.parametrize("philosophers", [3, 5])
def test_dining_philosophers_starve_in_a_cycle_of_all_of_them(philosophers: int) -> None:
    def program() -> None:
        forks = [Mutex(f"fork{i}") for i in range(philosophers)]

        def dine(i: int) -> None:
            with forks[i], forks[(i + 1) % philosophers]:
                pass

        parallel(
            *[lambda i=i: dine(i) for i in range(philosophers)],
            names=[f"p{i}" for i in range(philosophers)],
        )

    found = failure(program, "pct", depth=philosophers, schedules=2_000)
    assert found.kind == "deadlock"
    assert f"{philosophers} threads wait in a cycle" in found.message
    for i in range(philosophers):
        held = (i + 1) % philosophers
        assert f"p{i} waits for fork{held} (acquire), held by p{held}" in found.message


def test_a_right_handed_philosopher_saves_them_all() -> None:
    def program() -> None:
        forks = [Mutex(f"fork{i}") for i in range(3)]

        def dine(first: int, second: int) -> None:
            with forks[first], forks[second]:
                pass

        parallel(lambda: dine(0, 1), lambda: dine(1, 2), lambda: dine(0, 2))

    passes(program)


# -- threads (31, 33) ---------------------------------------------------------------------------


def test_join_waits_and_gives_the_result() -> None:
    def program() -> object:
        cell = Shared(0)

        def work() -> int:
            cell.set(1)
            return 42

        thread = spawn(work)
        alive = thread.is_alive()
        thread.join()
        return alive, thread.is_alive(), thread.result, cell.peek()

    assert {(True, False, 42, 1)} == outcomes(program)


def test_an_exception_in_a_spawned_thread_fails_the_schedule_before_the_join() -> None:
    def program() -> None:
        def work() -> None:
            raise LookupError("nothing there")

        spawn(work, name="finder").join()

    found = failure(program)
    assert found.kind == "exception"
    assert "LookupError: nothing there" in found.message
    assert "in work" in found.story().exception_text


def test_joining_a_thread_that_wants_our_lock_is_a_deadlock() -> None:
    def program() -> None:
        lock = Mutex("m")

        def work() -> None:
            with lock:
                pass

        with lock:
            spawn(work).join()

    found = failure(program)
    assert found.kind == "deadlock"
    assert "main waits for work (join)" in found.message
    assert "work waits for m (acquire), held by main" in found.message


def test_joining_a_thread_that_nobody_wakes_is_a_lost_wakeup() -> None:
    def program() -> None:
        gate = Semaphore(0, "gate")
        spawn(gate.acquire, name="guest").join()

    found = failure(program)
    assert found.kind == "lost-wakeup"
    assert "guest waits for gate (sem-acquire)" in found.message
    assert "main waits for guest (join)" in found.message


def test_a_thread_is_known_by_its_place_in_the_program_in_every_schedule() -> None:
    def program() -> object:
        def work() -> None:
            Shared(0).get()

        first = spawn(work)
        second = spawn(work)
        named = spawn(work, name="named")
        for thread in (first, second, named):
            thread.join()
        return tuple((thread.index, thread.name) for thread in (first, second, named))

    assert {((1, "work"), (2, "work#2"), (3, "named"))} == outcomes(program)
