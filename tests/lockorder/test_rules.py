"""Each lock rule with a case that breaks it and one that does not."""

from __future__ import annotations

import pytest

from harness.errors import UsageError
from harness.lockorder import Finding, HeldLocks, LockClass, LockFlags, LockRules, rules

A = LockClass("A")
B = LockClass("B")
C = LockClass("C")


class Program:
    """Threads that acquire and release by name, before one set of rules."""

    def __init__(self, **options: bool) -> None:
        self.rules = LockRules(**options)
        self.rules.begin(1)
        self.threads: dict[str, HeldLocks] = {}

    def held(self, thread: str = "t") -> HeldLocks:
        return self.threads.setdefault(thread, HeldLocks(thread))

    def take(
        self,
        lock_class: LockClass,
        address: int = 1,
        *,
        order: int = 0,
        mode: str = "exclusive",
        attempt: bool = False,
        thread: str = "t",
    ) -> Finding | None:
        site = f"{thread}:{lock_class.name}{address}"
        held = self.held(thread)
        return self.rules.acquired(held, lock_class, address, order, mode, attempt, site)

    def drop(self, address: int = 1, *, thread: str = "t") -> None:
        self.rules.released(self.held(thread), address)

    def nest(self, *classes: LockClass, thread: str = "t", mode: str = "exclusive") -> None:
        """Acquire locks of these classes one inside the other, and release them."""
        for index, lock_class in enumerate(classes):
            self.take(lock_class, _address(lock_class), thread=thread, mode=mode)
            assert len(self.held(thread).entries) == index + 1
        for lock_class in reversed(classes):
            self.drop(_address(lock_class), thread=thread)

    @property
    def results(self) -> list[str]:
        return [finding.result for finding in self.rules.findings]


def _address(lock_class: LockClass) -> int:
    return 100 + sum(map(ord, lock_class.name))


# ---- static rules ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "flags",
    [
        LockFlags.MULTI_ACQUIRE | LockFlags.NESTABLE,
        LockFlags.MULTI_ACQUIRE | LockFlags.RE_ACQUIRE_FATAL,
        LockFlags.SINGLETON | LockFlags.MULTI_ACQUIRE,
        LockFlags.SINGLETON | LockFlags.NESTABLE,
    ],
)
def test_contradicting_flags_are_refused(flags: LockFlags) -> None:
    with pytest.raises(UsageError, match="exclude each other"):
        LockClass("X", flags=flags)


@pytest.mark.parametrize("flag", list(LockFlags))
def test_each_flag_alone_is_fine(flag: LockFlags) -> None:
    assert LockClass("X", flags=flag).flags == flag


def test_flags_have_the_kernels_values() -> None:
    assert [int(flag) for flag in LockFlags] == [1, 2, 4, 8, 16, 32, 64, 128, 256]


def test_a_class_is_its_name() -> None:
    assert LockClass("X") == LockClass("X")
    assert hash(LockClass("X")) == hash(LockClass("X"))
    assert LockClass("X") != LockClass("Y")
    program = Program()
    program.nest(A, LockClass("B"))
    program.nest(LockClass("B"), LockClass("A"))
    assert program.results == ["OutOfOrder"]


def test_one_class_has_one_set_of_flags() -> None:
    program = Program()
    program.nest(A)
    with pytest.raises(UsageError, match="two sets of flags: none and leaf"):
        program.take(LockClass("A", flags=LockFlags.LEAF))


def test_flags_are_compared_on_known_chains_too() -> None:
    program = Program()
    for _ in range(3):
        program.nest(A)
    with pytest.raises(UsageError, match="two sets of flags"):
        program.take(LockClass("A", flags=LockFlags.LEAF))


def test_a_nameless_class_is_refused() -> None:
    with pytest.raises(UsageError, match="needs a name"):
        LockClass("")


# ---- same class -----------------------------------------------------------------------------


def test_the_same_class_twice_is_already_acquired() -> None:
    program = Program()
    program.take(A, 1)
    assert program.take(A, 2) is None, "not fatal"
    assert program.results == ["AlreadyAcquired"]
    assert program.rules.findings[0].rule == "ORD004"
    assert len(program.held().entries) == 2, "a violation does not prevent the acquisition"


def test_the_same_class_one_after_the_other_is_fine() -> None:
    program = Program()
    for address in (1, 2, 1):
        program.take(A, address)
        program.drop(address)
    assert program.results == []


def test_the_same_lock_twice_is_reentrance() -> None:
    program = Program()
    program.take(A, 7)
    program.take(A, 7)
    assert program.results == ["Reentrance"]
    assert program.rules.findings[0].rule == "ORD005"
    assert program.rules.findings[0].tier == "observed"


NESTABLE = LockClass("N", flags=LockFlags.NESTABLE)


def test_nestable_by_increasing_order_is_fine() -> None:
    program = Program()
    for order in (1, 2, 5):
        program.take(NESTABLE, order, order=order)
    assert program.results == []


@pytest.mark.parametrize("order", [1, 2])
def test_nestable_by_equal_or_decreasing_order_is_invalid(order: int) -> None:
    program = Program()
    program.take(NESTABLE, 1, order=2)
    program.take(NESTABLE, 2, order=order)
    assert program.results == ["InvalidNesting"]


def test_nestable_without_order_is_invalid_nesting() -> None:
    program = Program()
    program.take(NESTABLE, 1)
    program.take(NESTABLE, 2)
    assert program.results == ["InvalidNesting"]


def test_addresses_as_order_allow_several_of_one_class() -> None:
    """What taking several locks at once does: ascending, with the address as order."""
    program = Program()
    for address in (3, 4, 9):
        program.take(A, address, order=address)
    assert program.results == []


def test_addresses_as_order_against_the_order() -> None:
    program = Program()
    program.take(A, 9, order=9)
    program.take(A, 3, order=3)
    assert program.results == ["InvalidNesting"]


def test_order_is_compared_with_every_lock_held() -> None:
    program = Program()
    for order in (5, 7):
        program.take(NESTABLE, order, order=order)
    program.take(NESTABLE, 6, order=6)
    assert program.results == ["InvalidNesting"]


MULTI = LockClass("M", flags=LockFlags.MULTI_ACQUIRE)


def test_multi_acquire_has_no_order_of_its_own() -> None:
    program = Program()
    for address in (5, 3, 9):
        program.take(MULTI, address)
    assert program.results == []


def test_multi_acquire_still_may_not_re_enter() -> None:
    program = Program()
    program.take(MULTI, 5)
    program.take(MULTI, 5)
    assert program.results == ["Reentrance"]


def test_re_acquire_fatal_is_returned_each_time_and_recorded_once() -> None:
    fatal = LockClass("F", flags=LockFlags.RE_ACQUIRE_FATAL)
    program = Program()
    for _ in range(3):
        assert program.take(fatal, 1) is None
        finding = program.take(fatal, 2)
        assert isinstance(finding, Finding)
        assert finding.fatal
        assert finding.result == "AlreadyAcquired"
        program.drop(2)
        program.drop(1)
    assert program.results == ["AlreadyAcquired"]
    assert program.rules.counts(program.rules.findings[0]) == (3, 1)


# ---- leaf -----------------------------------------------------------------------------------

LEAF = LockClass("L", flags=LockFlags.LEAF)


def test_anything_after_a_leaf_is_fatal() -> None:
    for other in (A, LEAF):
        program = Program()
        program.take(LEAF, 1)
        finding = program.take(other, 2)
        assert finding is not None
        assert (finding.rule, finding.result, finding.fatal) == ("ORD006", "AcquireAfterLeaf", True)


def test_a_leaf_below_the_top_counts() -> None:
    program = Program()
    program.nest(A, B)
    program.take(LEAF, 1)
    assert program.take(A, 2) is not None
    assert program.take(B, 3) is not None, "still held below A"


def test_a_leaf_last_is_fine() -> None:
    program = Program()
    for _ in range(2):
        program.nest(A, LEAF)
    assert program.results == []


def test_fatal_findings_are_only_recorded_where_asked() -> None:
    program = Program(fatal=False)
    program.take(LEAF, 1)
    assert program.take(A, 2) is None
    assert program.results == ["AcquireAfterLeaf"]


# ---- irq safety -----------------------------------------------------------------------------

IRQ = LockClass("I", flags=LockFlags.IRQ_SAFE)
IRQ2 = LockClass("I2", flags=LockFlags.IRQ_SAFE)


def test_not_irq_safe_under_irq_safe() -> None:
    program = Program()
    for _ in range(3):
        program.nest(IRQ, A)
    assert program.results == ["InvalidIrqSafety"], "once for the new edge"
    assert program.rules.findings[0].rule == "CTX002"


def test_irq_safe_under_anything() -> None:
    program = Program()
    program.nest(IRQ, IRQ2)
    program.nest(A, IRQ)
    assert program.results == []


# ---- order between classes ------------------------------------------------------------------


def test_an_inversion_is_out_of_order_on_the_second_edge() -> None:
    program = Program()
    program.nest(A, B, thread="one")
    assert program.results == []
    program.nest(B, A, thread="two")
    assert program.results == ["OutOfOrder"]
    finding = program.rules.findings[0]
    assert finding.classes == ("A", "B")
    assert [(w.outer, w.inner, w.outer_site, w.inner_site, w.thread) for w in finding.edges] == [
        ("A", "B", "one:A165", "one:B166", "one"),
        ("B", "A", "two:B166", "two:A165", "two"),
    ]
    program.nest(B, A, thread="two")
    assert program.results == ["OutOfOrder"], "an edge that exists is not checked again"


def test_one_order_everywhere_is_fine() -> None:
    program = Program()
    program.nest(A, B, C)
    program.nest(A, C)
    program.nest(B, C, thread="two")
    assert program.results == []
    assert sorted(program.rules.edges) == [("A", "B"), ("A", "C"), ("B", "C")]


def test_every_held_lock_gives_an_edge_not_only_the_last() -> None:
    program = Program()
    program.nest(A, B, C)
    assert program.rules.edges["A", "C"].outer_site == "t:A165"
    assert program.rules.edges["A", "C"].inner_site == "t:C167"


def test_a_release_that_is_not_the_last_leaves_the_rest_held() -> None:
    program = Program()
    for lock_class in (A, B):
        program.take(lock_class, _address(lock_class))
    program.drop(_address(A))
    program.take(C, _address(C))
    assert [entry.lock_class.name for entry in program.held().entries] == ["B", "C"]
    program.drop(_address(B))
    program.take(A, _address(A))
    assert sorted(program.rules.edges) == [("A", "B"), ("B", "C"), ("C", "A")]
    assert program.results == ["CircularDependency"]


def test_counts_are_right_on_the_hot_path() -> None:
    program = Program()
    for schedule in (1, 2, 3):
        program.rules.begin(schedule)
        for _ in range(5):
            program.nest(A, B)
    edge = program.rules.edges["A", "B"]
    assert (edge.count, edge.schedules, edge.schedule) == (15, 3, 1)


@pytest.mark.parametrize(
    ("threads", "schedules", "tier"),
    [
        (("one", "two"), (1, 1), "possible"),
        (("one", "one"), (1, 1), "latent"),
        (("one", "two"), (1, 2), "latent"),
    ],
)
def test_the_tier_of_an_inversion(
    threads: tuple[str, str], schedules: tuple[int, int], tier: str
) -> None:
    program = Program()
    for classes, thread, schedule in zip(((A, B), (B, A)), threads, schedules, strict=True):
        program.rules.begin(schedule)
        program.nest(*classes, thread=thread)
    assert program.rules.findings[0].tier == tier


def test_a_common_guard_keeps_an_inversion_latent() -> None:
    program = Program()
    program.nest(C, A, B, thread="one")
    program.nest(C, B, A, thread="two")
    assert [f.tier for f in program.rules.findings if f.result == "OutOfOrder"] == ["latent"]


def test_other_instances_keep_an_inversion_latent() -> None:
    program = Program()
    program.take(A, 1, thread="one")
    program.take(B, 2, thread="one")
    program.take(B, 3, thread="two")
    program.take(A, 4, thread="two")
    assert [f.tier for f in program.rules.findings] == ["latent"]


# ---- modes ----------------------------------------------------------------------------------


def test_readers_that_wait_for_readers_are_no_finding() -> None:
    program = Program()
    program.nest(A, B, mode="shared")
    program.nest(B, A, mode="shared")
    program.take(A, 1, mode="shared")
    program.take(A, 1, mode="shared")
    program.take(A, 2, mode="shared")
    assert program.results == []
    assert program.rules.reader_cycles() == [("A", "B")]


def test_the_kernels_rule_does_not_see_modes() -> None:
    program = Program(mode_blind=True)
    program.nest(A, B, mode="shared")
    program.nest(B, A, mode="shared")
    assert program.results == ["OutOfOrder"]
    program.take(A, 1, mode="shared")
    program.take(A, 1, mode="shared")
    program.take(A, 2, mode="shared")
    assert program.results[1:] == ["Reentrance", "AlreadyAcquired"]


@pytest.mark.parametrize(("first", "second"), [("shared", "exclusive"), ("exclusive", "shared")])
def test_a_reader_and_a_writer_of_one_class(first: str, second: str) -> None:
    program = Program()
    program.take(A, 1, mode=first)
    program.take(A, 2, mode=second)
    assert program.results == ["AlreadyAcquired"]


E, S, N, R = "exclusive", "shared", "exclusive", "shared"


@pytest.mark.parametrize(
    ("kinds", "dead"),
    [
        (((E, R), (E, R), (E, R)), True),
        (((E, N), (S, R), (E, R)), True),
        (((E, N), (S, R), (S, N)), False),
        (((E, R), (S, R), (E, N)), False),
    ],
)
def test_strong_cycles_of_three(kinds: tuple[tuple[str, str], ...], dead: bool) -> None:
    """Conformance cases of Linux lockdep; lock-audit 2.8."""
    program = Program()
    for (outer, inner), (held, wanted) in zip(((A, B), (B, C), (C, A)), kinds, strict=True):
        program.take(outer, _address(outer), mode=held)
        program.take(inner, _address(inner), mode=wanted)
        program.drop(_address(inner))
        program.drop(_address(outer))
    assert program.results == (["CircularDependency"] if dead else [])


def test_a_stronger_mode_of_a_known_edge_closes_the_cycle() -> None:
    program = Program()
    program.nest(A, B, mode="shared")
    program.nest(B, A, mode="shared")
    assert program.results == []
    program.nest(A, B)
    assert program.results == ["OutOfOrder"], "A exclusively: a reader under B waits for it"


# ---- try-acquire ----------------------------------------------------------------------------


def test_a_try_makes_no_edge_into_it_but_counts_as_held() -> None:
    program = Program()
    program.take(A, 1)
    program.take(B, 2, attempt=True)
    assert program.rules.edges == {}
    program.take(C, 3)
    assert sorted(program.rules.edges) == [("A", "C"), ("B", "C")]
    assert program.rules.dropped == {("a try-acquire makes no edge", "B"): 1}


def test_a_try_of_the_same_class_is_no_finding() -> None:
    program = Program()
    program.take(A, 1)
    program.take(A, 2, attempt=True)
    assert program.results == []
    program.take(A, 3)
    assert program.results == ["AlreadyAcquired"] * 2, "from each of the two that are held"


def test_a_try_and_an_acquire_are_different_chains() -> None:
    program = Program()
    for _ in range(2):
        program.take(A, 1)
        program.take(B, 2, attempt=True)
        program.drop(2)
        program.drop(1)
    program.nest(A, B)
    assert sorted(program.rules.edges) == [("A", "B")]
    assert program.rules.edges["A", "B"].count == 1


# ---- flags that hide ------------------------------------------------------------------------


def test_tracking_disabled_is_invisible() -> None:
    hidden = LockClass("H", flags=LockFlags.TRACKING_DISABLED)
    program = Program()
    program.nest(A)
    program.take(A, 1)
    assert program.take(hidden, 2) is None
    program.take(B, 3)
    program.drop(2)
    assert sorted(program.rules.edges) == [("A", "B")]
    assert len(program.held().entries) == 2
    assert program.rules.dropped == {("tracking disabled", "H"): 1}
    assert program.rules.none_held(HeldLocks("t"), None) is None


def test_reporting_disabled_keeps_findings_aside_while_held() -> None:
    quiet = LockClass("Q", flags=LockFlags.REPORTING_DISABLED)
    program = Program()
    program.nest(A, B)
    program.take(quiet, 1)
    program.take(B, 2)
    program.take(A, 3)
    assert program.results == []
    assert [finding.result for finding in program.rules.muted] == ["OutOfOrder"]
    program.drop(1)
    program.take(A, 4)
    assert program.results == ["AlreadyAcquired"], "reporting is on again"


def test_reporting_disabled_does_not_hide_fatal_findings() -> None:
    quiet = LockClass("Q", flags=LockFlags.REPORTING_DISABLED)
    program = Program()
    program.take(quiet, 1)
    program.take(LEAF, 2)
    assert program.take(A, 3) is not None
    fatal = LockClass("F", flags=LockFlags.RE_ACQUIRE_FATAL)
    program = Program()
    program.take(quiet, 1)
    program.take(fatal, 2)
    assert program.take(fatal, 3) is not None
    assert program.results == ["AlreadyAcquired"]
    assert program.rules.muted == []


def test_active_list_disabled_is_checked_and_not_held() -> None:
    unlisted = LockClass("U", flags=LockFlags.ACTIVE_LIST_DISABLED)
    program = Program()
    program.take(A, 1)
    for address in (2, 3):
        program.take(unlisted, address)
    program.take(B, 4)
    assert sorted(program.rules.edges) == [("A", "B"), ("A", "U")]
    assert program.rules.edges["A", "U"].count == 2
    assert [entry.lock_class.name for entry in program.held().entries] == ["A", "B"]


# ---- waits ----------------------------------------------------------------------------------


def test_held_across_a_wait() -> None:
    program = Program()
    program.take(A, 1)
    program.take(B, 2)
    program.rules.waits(program.held(), "here", "event", giving_up=2)
    assert program.results == ["HeldAcrossWait"]
    finding = program.rules.findings[0]
    assert (finding.rule, finding.classes, finding.fatal) == ("CTX003", ("A",), False)
    assert (finding.edges[0].outer_site, finding.edges[0].inner_site) == ("t:A1", "here")


def test_a_wait_that_gives_up_all_that_is_held() -> None:
    program = Program()
    program.rules.waits(program.held(), "here", "event")
    program.take(A, 1)
    program.rules.waits(program.held(), "here", "condition", giving_up=1)
    assert program.results == []


def test_no_locks_held() -> None:
    program = Program()
    assert program.rules.none_held(program.held(), "here", "commit") is None
    program.take(A, 1)
    for _ in range(2):
        finding = program.rules.none_held(program.held(), "here", "commit")
        assert finding is not None
        assert (finding.result, finding.fatal) == ("ShouldNotHold", True)
        assert finding.message == "A held where no lock may be: commit"
    assert program.results == ["ShouldNotHold"]


# ---- what is recorded -----------------------------------------------------------------------


def test_one_finding_for_the_same_rule_classes_and_sites() -> None:
    program = Program()
    for schedule in (1, 2):
        program.rules.begin(schedule)
        for _ in range(2):
            program.take(A, 1)
            program.take(A, 2)
            program.drop(2)
            program.drop(1)
    assert program.results == ["AlreadyAcquired"]
    assert program.rules.counts(program.rules.findings[0]) == (4, 2)
    program.take(A, 1)
    program.take(A, 3)
    assert program.results == ["AlreadyAcquired"] * 2, "another site"


def test_earlier_edges_of_a_finding() -> None:
    program = Program()
    program.nest(A, B)
    program.rules.begin(2)
    program.nest(B, A)
    finding = program.rules.findings[0]
    assert [(w.outer, w.inner) for w in finding.earlier()] == [("A", "B")]


def test_preloaded_edges_close_a_cycle_and_report_nothing_by_themselves() -> None:
    first = Program()
    first.nest(A, B)
    first.nest(B, A)
    again = Program()
    again.rules.preload(first.rules.edges.values())
    assert again.results == []
    assert again.rules.muted == []
    again.rules.begin(2)
    again.nest(C, A)
    assert again.results == []
    again = Program()
    again.rules.preload([first.rules.edges["A", "B"].witnesses[0]])
    again.rules.begin(2)
    again.nest(B, A)
    assert again.results == ["OutOfOrder"]
    assert again.rules.findings[0].earlier() == first.rules.edges["A", "B"].witnesses
    assert again.rules.edges["A", "B"].count == 0


def test_resolved_sites_are_everywhere() -> None:
    program = Program()
    program.nest(A, B)
    program.nest(B, A)
    program.take(A, 1)
    program.take(A, 2)
    program.drop(2)
    program.drop(1)
    program.rules.resolve(lambda site: f"<{site}>")
    sites = [w.inner_site for finding in program.rules.findings for w in finding.edges]
    assert sites == ["<t:B166>", "<t:A165>", "<t:A2>"]
    assert program.rules.edges["A", "B"].outer_site == "<t:A165>"
    assert program.rules.counts(program.rules.findings[0]) == (1, 1)
    program.nest(A, B)
    assert program.rules.edges["A", "B"].count == 2, "it goes on"


def test_merging_with_other_options_is_refused() -> None:
    with pytest.raises(UsageError, match="mode_blind"):
        LockRules().merge(LockRules(mode_blind=True))


# ---- limits ---------------------------------------------------------------------------------


def test_a_thread_that_holds_very_many_locks_takes_further_ones_unjudged() -> None:
    program = Program()
    for number in range(rules.HELD_MAX):
        program.take(LockClass(f"c{number}"), number + 1)
    assert len(program.rules.edges) == rules.HELD_MAX * (rules.HELD_MAX - 1) // 2
    assert program.rules.dropped == {}

    program.take(A, 1000)
    assert [edge for edge in program.rules.edges if "A" in edge] == []
    reason = f"{rules.BEYOND}taken by a thread that holds 64 locks"
    assert program.rules.dropped == {(reason, "A"): 1}

    program.drop(rules.HELD_MAX)
    program.take(A, 1000)
    assert len([edge for edge in program.rules.edges if "A" in edge]) == rules.HELD_MAX - 1
    assert len(program.rules.dropped) == 1


def test_edges_beyond_the_limit_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "EDGES_MAX", 2)
    program = Program()
    program.nest(A, B, C)
    program.nest(A, B)
    program.nest(B, A)

    assert {names: edge.count for names, edge in program.rules.edges.items()} == {
        ("A", "B"): 2,
        ("A", "C"): 1,
    }
    assert program.rules.dropped == {
        (f"{rules.BEYOND}more than 2 edges", "C"): 1,
        (f"{rules.BEYOND}more than 2 edges", "A"): 1,
    }
    assert program.results == []


def test_findings_beyond_the_limit_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "FINDINGS_MAX", 2)
    program = Program()
    for thread in ("one", "two", "three", "one"):
        program.take(A, 1, thread=thread)
        program.take(A, 2, thread=thread)
        program.drop(2, thread=thread)
        program.drop(1, thread=thread)

    assert [finding.thread for finding in program.rules.findings] == ["one", "two"]
    assert [program.rules.counts(finding)[0] for finding in program.rules.findings] == [2, 1]
    assert program.rules.dropped == {(f"{rules.BEYOND}more than 2 findings", "ORD004"): 1}
    assert program.rules.unjudged == 1
