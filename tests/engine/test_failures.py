"""Every kind of failure: when it is found, and what it says."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from exploring import every, failure, passes

from harness import (
    Atomic,
    Condition,
    Event,
    Failure,
    LockClass,
    LockFlags,
    Mutex,
    RwLock,
    Semaphore,
    Shared,
    SpinLock,
    WaitQueue,
    assert_held,
    assert_no_locks_held,
    check,
    current_thread,
    excludes,
    explore,
    guarded_by,
    invariant,
    parallel,
    replay,
    requires,
    sleep,
    sometimes,
    spawn,
)
from harness.errors import ScheduleFailure


def _states(found: Failure) -> dict[str, str]:
    return {state.name: state.state for state in found.story().final}


# -- deadlock -----------------------------------------------------------------------------------


def _abba_beside_a_busy_thread() -> None:
    a, b, cell = Mutex("a"), Mutex("b"), Shared(0, "cell")

    def forwards() -> None:
        with a, b:
            pass

    def backwards() -> None:
        with b, a:
            pass

    def busy() -> None:
        for _ in range(300):
            cell.get()

    parallel(forwards, backwards, busy)


def test_a_deadlock_is_reported_the_moment_it_closes_though_others_could_go_on() -> None:
    found = failure(_abba_beside_a_busy_thread, "random", schedules=500)

    assert "deadlock" == found.kind
    assert found.steps < 100
    assert {
        "main": "blocked",
        "forwards": "blocked",
        "backwards": "blocked",
        "busy": "running",
    } == _states(found)


def test_a_cycle_names_where_each_waits_and_where_the_other_took_the_lock() -> None:
    story = failure(_abba_beside_a_busy_thread, "random", schedules=500).story()

    waits = {wait.thread: wait for wait in story.cycle}
    assert {"forwards", "backwards"} == set(waits)
    for name, wants, holder in (("forwards", "b", "backwards"), ("backwards", "a", "forwards")):
        wait = waits[name]
        assert ("acquire", wants, holder) == (wait.kind, wait.wants, wait.holder)
        assert wait.site is not None
        assert wait.held_since is not None
        assert wait.site.qualname.endswith(f".{name}")
        assert wait.held_since.qualname.endswith(f".{holder}")


def test_the_schedule_ends_with_the_last_step_before_the_cycle() -> None:
    """parallel, a, b: the third acquisition is announced in the third step and closes the cycle."""

    def program() -> None:
        a, b = Mutex("a"), Mutex("b")

        def forwards() -> None:
            with a, b:
                pass

        def backwards() -> None:
            with b, a:
                pass

        parallel(forwards, backwards)

    report = every(program)

    assert {"deadlock": 2} == report.failing
    assert 3 == report.failures[0].steps
    assert ["parallel", "acquire", "acquire"] == [s.kind for s in report.failures[0].trace()]


def test_a_deadlock_through_a_join() -> None:
    def program() -> None:
        lock, go = Mutex("m"), Event("go")

        def worker() -> None:
            go.wait()
            with lock:
                pass

        thread = spawn(worker)
        with lock:
            go.set()
            thread.join()

    found = failure(program)
    assert "deadlock" == found.kind
    assert "main waits for worker (join), which has not ended" in found.message
    assert "worker waits for m (acquire), held by main" in found.message


def test_a_deadlock_of_two_that_join_each_other() -> None:
    def program() -> None:
        threads: list[object] = []

        def join(other: int) -> None:
            ready.wait()
            threads[other].join()  # type: ignore[attr-defined] # threads, filled below

        ready = Event("ready")
        threads += [spawn(join, 1, name="first"), spawn(join, 0, name="second")]
        ready.set()
        for thread in threads:
            thread.join()  # type: ignore[attr-defined] # threads

    found = failure(program)
    assert "deadlock" == found.kind
    assert "first waits for second (join)" in found.message
    assert "second waits for first (join)" in found.message


def test_a_deadlock_through_parallel() -> None:
    def program() -> None:
        lock = Mutex("m")
        with lock:
            parallel(lambda: lock.acquire(), names=["inner"])

    found = failure(program)
    assert "deadlock" == found.kind
    assert "inner waits for m (acquire), held by main" in found.message
    assert "main waits for inner (parallel)" in found.message


def test_a_deadlock_through_an_owned_wait_queue_is_found_when_the_owner_is_named_late() -> None:
    def program() -> None:
        lock, queue, asleep = Mutex("m"), WaitQueue("q"), Semaphore(0, "asleep")

        def sleeper() -> None:
            with lock:
                asleep.release()
                queue.block()

        def owner() -> None:
            with lock:
                pass

        thread = spawn(sleeper)
        asleep.acquire()
        other = spawn(owner)
        queue.assign_owner(other)
        thread.join()

    found = failure(program)
    assert "deadlock" == found.kind
    assert "sleeper waits for q (queue-block), held by owner" in found.message
    assert "owner waits for m (acquire), held by sleeper" in found.message


@pytest.mark.parametrize("late", [True, False])
def test_a_lock_whose_holder_has_ended_is_a_deadlock_for_who_wants_it(late: bool) -> None:
    def program() -> None:
        lock = Mutex("m")

        def forgetful() -> None:
            lock.acquire()

        thread = spawn(forgetful)
        if late:
            thread.join()
        else:
            sleep(0)
        lock.acquire()
        lock.release()
        thread.join()

    report = every(program)

    found = next(found for found in report.failures if found.kind == "deadlock")
    assert "main waits for m (acquire), kept by forgetful, which has ended" in found.message
    assert {"deadlock", "leak"} >= set(report.failing)


def test_a_timed_wait_in_a_cycle_is_no_deadlock() -> None:
    def program() -> None:
        a, b = Mutex("a"), Mutex("b")

        def patient() -> None:
            with a, b:
                pass

        def impatient() -> None:
            with b:
                if a.acquire(timeout=1):
                    a.release()

        parallel(patient, impatient)

    passes(program)


def test_a_deadlock_of_readers_and_writers() -> None:
    def program() -> None:
        rw, lock = RwLock("rw"), Mutex("m")

        def reader() -> None:
            with rw.read(), lock:
                pass

        def writer() -> None:
            with lock, rw.write():
                pass

        parallel(reader, writer)

    found = failure(program)
    assert "deadlock" == found.kind
    assert "writer waits for rw (write-acquire), held by reader" in found.message
    assert "reader waits for m (acquire), held by writer" in found.message


# -- lost wakeups -------------------------------------------------------------------------------


def test_a_lost_wakeup_names_what_every_thread_waits_for() -> None:
    def program() -> None:
        event, queue, gate = Event("e"), WaitQueue("q"), Semaphore(0, "gate")
        condition = Condition(Mutex("m"), "c")

        def in_condition() -> None:
            with condition:
                condition.wait()

        parallel(event.wait, queue.block, gate.acquire, in_condition, names=["a", "b", "c", "d"])

    found = failure(program)
    assert "lost-wakeup" == found.kind
    for line in (
        "a waits for e (event-wait)",
        "b waits for q (queue-block)",
        "c waits for gate (sem-acquire)",
        "d waits for c (wait)",
        "main waits for a+b+c+d (parallel)",
    ):
        assert line in found.message


def test_a_lock_held_by_a_sleeper_is_no_cycle() -> None:
    """The wanter waits for the sleeper, who waits for nobody in particular."""

    def program() -> None:
        lock, event = Mutex("m"), Event("e")

        def sleeper() -> None:
            with lock:
                event.wait()

        def wanter() -> None:
            with lock:
                event.set()

        parallel(sleeper, wanter)

    report = every(program)
    assert ["lost-wakeup"] == list(report.failing)
    assert "wanter waits for m (acquire)" in report.failures[0].message


# -- exceptions and assertions ------------------------------------------------------------------


def test_an_assertion_keeps_its_message_and_its_place() -> None:
    def program() -> None:
        cell = Shared(0)

        def checker() -> None:
            seen = cell.get()
            assert seen == 1, f"saw {seen}"

        parallel(checker, lambda: cell.set(1))

    found = failure(program)
    assert "assertion" == found.kind
    assert "saw 0" in found.message
    assert "in checker" in found.story().exception_text
    assert "saw 0" in found.story().exception_text


def test_an_exception_in_any_thread_comes_with_its_traceback_and_without_our_frames() -> None:
    def program() -> None:
        lock = Mutex("m")

        def fetch() -> None:
            with lock:
                dict[str, int]()["missing"]

        def outer() -> None:
            fetch()

        parallel(outer)

    found = failure(program)
    assert "exception" == found.kind
    assert "KeyError: 'missing'" in found.message
    text = found.story().exception_text
    assert text.index("in outer") < text.index("in fetch")
    assert "KeyError: 'missing'" in text
    assert "harness/engine" not in text
    assert "harness/sync" not in text


def test_an_exception_ends_the_schedule_at_once() -> None:
    def program() -> None:
        cell = Shared(0)

        def raiser() -> None:
            cell.get()
            raise ValueError("now")

        def other() -> None:
            for _ in range(5):
                cell.get()

        parallel(raiser, other)

    for found in (explore(program, "random", schedules=30, seed=i).failure for i in range(5)):
        assert found is not None
        assert "raiser" == found.trace()[-1].name
        assert found.steps == len(found.trace()) <= 7


def test_an_exception_of_the_program_itself_is_a_failure() -> None:
    def program() -> None:
        parallel(Shared(0).get, Shared(0).get)
        raise OSError("disk on fire")

    found = failure(program)
    assert "exception" == found.kind
    assert "OSError: disk on fire" in found.message


@pytest.mark.parametrize("error", [SystemExit, GeneratorExit, KeyboardInterrupt])
def test_exceptions_that_are_no_errors_are_failures_too(error: type[BaseException]) -> None:
    def program() -> None:
        def work() -> None:
            raise error("odd")

        parallel(work)

    found = failure(program)
    assert "exception" == found.kind
    assert error.__name__ in found.message


def test_failures_at_two_places_are_two_failures() -> None:
    def program() -> None:
        cell = Shared(0)

        def checker() -> None:
            first = cell.get()
            assert first != 1, "at the first"
            second = cell.get()
            assert second != 1, "at the second"

        parallel(checker, lambda: cell.set(1))

    report = every(program)

    assert {"assertion": 2} == report.failing
    assert 2 == len(report.failures) == len({found.fingerprint for found in report.failures})
    assert 2 == len({found.digest for found in report.failures})


def test_a_failure_at_one_place_is_one_failure_whatever_its_message() -> None:
    def program() -> None:
        cell = Atomic(0)

        def worker() -> None:
            place = cell.fetch_add()
            raise RuntimeError(f"worker was number {place} of {current_thread().name}")

        parallel(worker, worker)

    report = every(program)

    assert 2 == report.failing["exception"]
    assert 1 == len(report.failures)


# -- leaks --------------------------------------------------------------------------------------


def test_a_thread_left_running_is_a_leak() -> None:
    def program() -> None:
        cell = Shared(0)

        def straggler() -> None:
            cell.get()
            cell.get()

        spawn(straggler)
        cell.get()

    report = every(program)

    assert ["leak"] == list(report.failing)
    # Where the straggler is quicker than the program, nothing leaks.
    assert report.failing["leak"] < report.schedules
    assert "straggler" in report.failures[0].message
    assert "still run" in report.failures[0].message


@pytest.mark.parametrize("kind", [Mutex, SpinLock])
def test_a_lock_held_at_the_end_of_its_thread_is_a_leak(kind: type[Mutex | SpinLock]) -> None:
    def program() -> None:
        lock = kind("m")

        def forgetful() -> None:
            lock.acquire()

        parallel(forgetful)

    found = failure(program)
    assert "leak" == found.kind
    assert "forgetful ended while it held m" in found.message


def test_a_lock_held_by_the_program_at_its_end_is_a_leak() -> None:
    def program() -> None:
        Mutex("m").acquire()

    found = failure(program)
    assert "leak" == found.kind
    assert "main ended while it held m" in found.message


# -- livelock -----------------------------------------------------------------------------------


def test_a_livelock_says_how_many_steps_and_who_still_runs() -> None:
    def program() -> None:
        left, right = Shared(True, "left"), Shared(True, "right")

        def step_aside(mine: Shared[bool], other: Shared[bool]) -> None:
            while other.get():
                mine.set(False)
                mine.set(True)

        parallel(
            lambda: step_aside(left, right),
            lambda: step_aside(right, left),
            names=["polite", "courteous"],
        )

    report = explore(program, "round-robin", schedules=1, steps_max=200)

    assert report.failure is not None
    assert "livelock" == report.failure.kind
    assert "200 steps" in report.failure.message
    assert "polite" in report.failure.message
    assert "courteous" in report.failure.message


# -- guards -------------------------------------------------------------------------------------


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


# -- invariants ---------------------------------------------------------------------------------


def _transfer(register: Callable[[Callable[[], object], Mutex], None]) -> Callable[[], None]:
    """Moves 1 from one cell to another, in two steps, under a lock."""

    def program() -> None:
        lock = Mutex("m")
        left, right = Shared(5, "left"), Shared(5, "right")

        def sum_is_kept() -> None:
            total = left.peek() + right.peek()
            assert total == 10, f"left + right is {total}"

        register(sum_is_kept, lock)

        def move() -> None:
            with lock:
                left.set(left.get() - 1)
                right.set(right.get() + 1)

        parallel(move, move)

    return program


def test_an_invariant_of_every_step_is_broken_between_two_steps() -> None:
    found = failure(_transfer(lambda predicate, _: invariant(predicate)))

    assert "invariant" == found.kind
    assert "sum_is_kept: left + right is 9" == found.message.splitlines()[0]
    # parallel, acquire, get, set: broken by the fourth step.
    assert 4 == found.steps
    assert ("set", "left") == (found.trace()[-1].kind, found.trace()[-1].obj)


def test_an_invariant_of_a_lock_is_checked_at_its_release_only() -> None:
    passes(_transfer(lambda predicate, lock: invariant(predicate, every=lock)))


def test_an_invariant_at_rest_is_checked_at_the_end_only() -> None:
    passes(_transfer(lambda predicate, _: invariant(predicate, every="quiescent")))


def test_a_broken_lock_invariant_is_found_at_the_release() -> None:
    def program() -> None:
        cell = Shared(0, "cell")
        lock = Mutex("m", invariant=lambda: cell.peek() != 3)

        def count() -> None:
            for _ in range(2):
                with lock:
                    cell.set(cell.get() + 1)

        parallel(count, count)

    found = failure(program)
    assert "invariant" == found.kind
    assert "release" == found.trace()[-1].kind
    assert 3 == sum(step.kind == "set" for step in found.trace())


def test_a_broken_invariant_at_rest_is_found_at_the_end() -> None:
    def program() -> None:
        cell = Shared(0, "cell")
        invariant(lambda: cell.peek() == 2, "all counted", every="quiescent")

        def count() -> None:
            cell.set(cell.get() + 1)

        parallel(count, count)

    found = failure(program)
    assert "invariant" == found.kind
    assert "all counted" in found.message


def test_an_invariant_sees_no_switch_and_makes_no_step() -> None:
    def program() -> None:
        cell, lock = Shared(0, "cell"), Mutex("m")

        def reads() -> bool:
            return cell.get() == cell.get() and lock.acquire(blocking=False) in (True, False)

        def quiet() -> bool:
            return cell.get() <= 2

        invariant(quiet)
        parallel(lambda: cell.set(1), lambda: cell.set(2))

    report = every(program)
    assert not report.failing
    assert 3 * report.schedules == report.steps


def test_an_error_in_an_invariant_is_reported_as_an_exception() -> None:
    def program() -> None:
        cell = Shared(0, "cell")
        invariant(lambda: 1 // (1 - cell.peek()))
        parallel(lambda: cell.set(1), lambda: cell.get())

    found = failure(program)
    assert "exception" == found.kind
    assert "ZeroDivisionError" in found.message


# -- lock order ---------------------------------------------------------------------------------


def _opposite_orders_one_after_the_other() -> None:
    a, b = Mutex(lock_class=LockClass("A")), Mutex(lock_class=LockClass("B"))
    cell = Shared(0)

    def forwards() -> None:
        with a, b:
            cell.get()

    def backwards() -> None:
        with b, a:
            cell.get()

    spawn(forwards).join()
    spawn(backwards).join()
    parallel(cell.get, cell.get)


def test_a_lock_order_finding_does_not_end_the_schedule() -> None:
    report = every(_opposite_orders_one_after_the_other)

    assert "fail" == report.verdict
    assert report.failure is not None
    assert "lock-order" == report.failure.kind
    assert "A" in report.failure.message
    assert "B" in report.failure.message
    assert report.schedules > 1
    assert not report.failing.get("deadlock")


def test_a_lock_order_finding_replays_alone() -> None:
    """Its token carries what earlier schedules contributed."""

    def program() -> None:
        a, b = Mutex(lock_class=LockClass("A")), Mutex(lock_class=LockClass("B"))
        first = Atomic(True)

        def one() -> None:
            if first.exchange(False):
                with a, b:
                    pass

        def two() -> None:
            if first.exchange(False):
                with b, a:
                    pass

        parallel(one, two)

    report = explore(program, "random", schedules=100, stop_at_first=False)

    assert report.failure is not None
    again = replay(program, report.failure.token)
    assert again is not None
    assert ("lock-order", report.failure.digest) == (again.kind, again.digest)


def test_blocking_under_a_spinlock_ends_the_schedule() -> None:
    def program() -> None:
        spin, lock = SpinLock("spin"), Mutex("m")

        def wrong() -> None:
            with spin, lock:
                pass

        parallel(wrong)

    found = failure(program)
    assert "lock-order" == found.kind
    assert "wrong would block in acquire while it holds the spinlock spin" in found.message


def test_taking_any_lock_under_a_leaf_lock_ends_the_schedule() -> None:
    def program() -> None:
        leaf = Mutex(lock_class=LockClass("Leaf", flags=LockFlags.LEAF))
        other = Mutex(lock_class=LockClass("Other"))
        reached = []

        def wrong() -> None:
            with leaf, other:
                reached.append(1)

        parallel(wrong)

    found = failure(program)
    assert "lock-order" == found.kind
    assert "Leaf" in found.message


def test_holding_a_lock_where_none_may_be_held_ends_the_schedule() -> None:
    def program() -> None:
        lock = Mutex(lock_class=LockClass("Held"))

        def wrong() -> None:
            with lock:
                assert_no_locks_held("entering user space")

        parallel(wrong)

    found = failure(program)
    assert "lock-order" == found.kind
    assert "Held" in found.message
    assert "entering user space" in found.message


# -- nondeterminism -----------------------------------------------------------------------------


def test_a_failure_that_does_not_come_again_is_nondeterminism() -> None:
    calls = [0]

    def program() -> None:
        calls[0] += 1
        parallel(Shared(0).get, Shared(0).get)
        assert calls[0] != 3, "third time unlucky"

    found = failure(program, "random", schedules=10)
    assert "nondeterminism" == found.kind
    assert 3 == found.schedule
    assert "third time unlucky" in found.message
    assert "passed" in found.message


def test_other_threads_after_the_same_choices_are_nondeterminism() -> None:
    calls = [0]

    def program() -> None:
        calls[0] += 1
        cell = Shared(0)
        parallel(*[cell.get] * (2 + calls[0] % 2), names=["a", "b", "c"][: 2 + calls[0] % 2])

    found = failure(program, "dfs")
    assert "nondeterminism" == found.kind
    assert "step 2" in found.message


def test_other_operations_after_the_same_choices_are_nondeterminism() -> None:
    calls = [0]

    def program() -> None:
        calls[0] += 1
        even = calls[0] % 2 == 0
        cell, lock = Shared(0, "cell"), Mutex("m")

        def work() -> None:
            if even:
                cell.get()
            else:
                with lock:
                    pass
            cell.set(1)
            assert cell.get() == 2, "always"

        parallel(work, work)

    found = failure(program, "random", schedules=10)
    assert "nondeterminism" == found.kind


# -- check --------------------------------------------------------------------------------------


def test_check_raises_the_failure_with_the_replay_command_last() -> None:
    with pytest.raises(ScheduleFailure) as caught:
        check(_abba_beside_a_busy_thread, "random", schedules=500)

    found = caught.value.failure
    assert "deadlock" == found.kind
    text = str(caught.value).rstrip()
    assert max(map(len, text.splitlines())) <= 100
    # The shell joins continued lines, as we do here.
    assert found.token in text.replace("\\\n", "").splitlines()[-1]


def test_check_returns_what_it_ran_where_nothing_fails() -> None:
    def program() -> None:
        sometimes("reached")
        parallel(Shared(0).get, Shared(0).get)

    report = check(program, "dfs", schedules=100)
    assert ("pass", 2) == (report.verdict, report.schedules)
    assert ("reached",) == report.reached
