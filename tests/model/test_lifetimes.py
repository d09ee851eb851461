"""Lifetimes: who drops the last reference destroys, and who touches the dead is found."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from harness import Event, explore, parallel
from model.asserts import InvariantBroken
from model.kernel import Kernel
from model.page_request import PageRequest
from model.refs import Mortal, RefCounted
from model.solpi import StackOwnedLoanedPagesInterval
from model.status import Status

# What a test of one kind needs: how it dies, and how it is touched after that.
Deeds = tuple[Callable[[], object], Callable[[], object]]
Kind = Callable[[Kernel], Deeds]


def a_vmo(kernel: Kernel) -> Deeds:
    vmo = kernel.lender(1)
    return lambda: kernel.destroy(vmo), lambda: vmo.size


def pages_of_a_vmo(kernel: Kernel) -> Deeds:
    vmo = kernel.lender(1)
    cow = vmo.cow
    return lambda: kernel.destroy(vmo), lambda: cow.lock


def a_container(kernel: Kernel) -> Deeds:
    vmo = kernel.borrower(1)
    container = vmo.cow.raw_container()
    return lambda: kernel.destroy(vmo), container.try_upgrade


def a_page_source(kernel: Kernel) -> Deeds:
    vmo = kernel.lender(1)
    source = vmo.cow.page_source
    return lambda: kernel.destroy(vmo), lambda: source.detach()


def a_request(kernel: Kernel) -> Deeds:
    pending = kernel.begin_commit(kernel.lender(1, absent=1))
    request = pending.request
    return pending.cancel, lambda: request.pending_size


def a_request_written_to(kernel: Kernel) -> Deeds:
    pending = kernel.begin_commit(kernel.lender(1, absent=1))
    request = pending.request

    def complete() -> None:
        request.provider_owned = False

    return pending.cancel, complete


def an_interval(kernel: Kernel) -> Deeds:
    made: list[StackOwnedLoanedPagesInterval] = []

    def end() -> None:
        with kernel.interval() as interval:
            made.append(interval)

    return end, lambda: made[0].owned_wait_queue


def a_pin(kernel: Kernel) -> Deeds:
    status, pinned = kernel.pin(kernel.lender(1))
    assert status is Status.OK
    assert pinned is not None
    return lambda: kernel.unpin(pinned), lambda: pinned.length


KINDS: dict[str, tuple[Kind, str, str]] = {
    # How it is called, the invariant that a touch breaks, and a function on the way to its death.
    "VmObjectPaged": (a_vmo, "I28", "VmObjectPaged._on_zero"),
    "VmCowPages": (pages_of_a_vmo, "I28", "VmCowPagesContainer._on_zero"),
    "VmCowPagesContainer": (a_container, "I28", "VmCowPagesContainer._on_zero"),
    "PageSource": (a_page_source, "I28", "PageSource._on_zero"),
    "PageRequest": (a_request, "I11", "PageRequest.destroy"),
    "PageRequest, written": (a_request_written_to, "I11", "PageRequest.destroy"),
    "PinnedVmObject": (a_pin, "I28", "PinnedVmObject.unpin"),
    "StackOwnedLoanedPagesInterval": (an_interval, "I24", "StackOwnedLoanedPagesInterval._end"),
}


@pytest.mark.parametrize("name", KINDS)
def test_a_touch_of_the_dead_names_who_killed_it_and_who_touches_it(name: str) -> None:
    kind, invariant, function = KINDS[name]
    said: list[tuple[str, str]] = []

    def program() -> None:
        kernel = Kernel(pages=4)
        kill, touch = kind(kernel)
        dead = Event("dead")

        def killer() -> None:
            kill()
            dead.set()

        def toucher() -> None:
            dead.wait()
            with pytest.raises(InvariantBroken) as raised:
                touch()
            said.append((raised.value.rule, str(raised.value)))

        parallel(killer, toucher, names=["killer", "toucher"])

    report = explore(program, "random", schedules=5)
    assert report.failure is None, report.failure
    assert len(said) == 5
    for rule, text in said:
        first, death, touched = text.splitlines()
        assert rule == invariant
        assert " was destroyed, and " in first
        assert re.match(
            rf"destroyed by killer at step \d+ in .*{function} \(model/\w+.py:\d+\)", death
        )
        assert re.match(
            r"touched by toucher at step \d+ in .*\(model/test_lifetimes.py:\d+\)", touched
        )


def test_every_kind_that_dies_is_tried() -> None:
    def all_below(kind: type[Mortal]) -> set[str]:
        below: list[type[Mortal]] = kind.__subclasses__()
        return {kind.__name__}.union(*map(all_below, below))

    kinds = {k for k in all_below(Mortal) if not k.startswith(("Dead", "_Dead"))}
    # A slice of a VMO dies as any other; a dead mapping remains for whoever knows it.
    assert kinds - {"Mortal", "RefCounted", "VmCowSlice", "VmMapping"} == {
        name.partition(",")[0] for name in KINDS
    }


def test_the_dead_can_be_named_and_are_of_their_kind() -> None:
    def program() -> None:
        kernel = Kernel(pages=2)
        vmo = kernel.borrower(1)
        cow = vmo.cow
        kernel.destroy(vmo)
        assert isinstance(cow, type(kernel.borrower(1).cow))
        assert (repr(cow), str(cow), cow.name) == (
            "borrower1 (dead)",
            "borrower1 (dead)",
            "borrower1",
        )
        assert cow.death is not None
        assert cow.death.thread == "main"

    assert explore(program, "round-robin", schedules=1).failure is None


def test_a_destructor_runs_in_the_thread_that_drops_the_last_reference() -> None:
    threads: set[str] = set()

    def program() -> None:
        counted = RefCounted("counted")
        counted.add_ref()
        parallel(counted.release, counted.release, names=["left", "right"])
        assert counted.death is not None
        threads.add(counted.death.thread)

    report = explore(program, "dfs", schedules=None)
    assert (report.verdict, report.exhausted) == ("pass", True), report.failure
    assert threads == {"left", "right"}


def test_a_raw_pointer_is_upgraded_only_where_something_keeps_the_memory() -> None:
    """A handle's lookup may lose the race; a raw pointer's upgrade must not be in one."""

    def racing(upgrade: Callable[[RefCounted], bool]) -> Callable[[], None]:
        def program() -> None:
            counted = RefCounted("counted")

            def user() -> None:
                if counted.alive and upgrade(counted):
                    counted.release()

            parallel(counted.release, user, names=["owner", "user"])
            assert not counted.alive

        return program

    by_handle = explore(racing(RefCounted.try_use), "dfs", schedules=None)
    by_pointer = explore(racing(RefCounted.try_upgrade), "dfs", schedules=None)

    assert (by_handle.verdict, by_handle.exhausted) == ("pass", True), by_handle.failure
    assert by_pointer.failure is not None
    assert "a raw pointer to it was being upgraded" in by_pointer.failure.message
    assert "destroyed by owner" in by_pointer.failure.message


def test_nobody_dies_twice_and_nothing_is_revived() -> None:
    def program() -> None:
        kernel = Kernel(pages=2)
        request = PageRequest(kernel._world)
        request.destroy()
        with pytest.raises(InvariantBroken, match=r"I11: .*its destroy is read"):
            request.destroy()
        with pytest.raises(InvariantBroken, match=r"I11: .*is destroyed again"):
            request.die()
        with pytest.raises(InvariantBroken, match=r"I11: .*its alive is written"):
            request.alive = True

    assert explore(program, "round-robin", schedules=1).failure is None


def test_a_dead_mapping_remains_and_says_that_it_is_unmapped() -> None:
    def program() -> None:
        kernel = Kernel(pages=2)
        mapping = kernel.mapped(kernel.lender(1))
        assert kernel.unmap(mapping) is Status.OK
        assert not mapping.alive
        assert kernel.fault(mapping) is Status.NOT_FOUND

    assert explore(program, "round-robin", schedules=1).failure is None
