"""Predictions agree with an exhaustive oracle; `benchmarks/audit_fuzz.py` compares 100,000."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from orders import Op, Oracle, draw, reachable, trace_of

from harness.predict import Trace, patterns, predict
from harness.predict.closure import Closure, Order
from harness.predict.judge import REORDERED, SYNC_PRESERVING, Prediction
from harness.predict.search import Search
from harness.predict.trace import HELD_MAX


@pytest.mark.parametrize("seed", [0, *(pytest.param(n, marks=pytest.mark.once) for n in (1, 2, 3))])
def test_no_prediction_is_false_and_none_is_missed(seed: int) -> None:
    rng = random.Random(seed)
    counted: Counter[str] = Counter()
    while counted["patterns"] < 60:
        run = draw(rng, readers=seed % 2 == 1)
        trace = trace_of(run)
        predictions = predict(trace, budget=1 << 40).predictions
        if not predictions:
            continue
        oracle = Oracle(run)
        every, preserving = oracle.reaches(preserving=False), oracle.reaches(preserving=True)
        for each in predictions:
            real = reachable(oracle, trace, each.pattern, every)
            plain = reachable(oracle, trace, each.pattern, preserving)
            counted.update(("patterns", each.tier, each.reason))
            assert (each.reason == SYNC_PRESERVING) == plain, run
            assert (each.tier == "predicted") == real, run
    assert counted["refuted"] > 5 < counted[SYNC_PRESERVING]


def witnesses() -> list[tuple[Trace, Prediction]]:
    rng = random.Random(9)
    found: list[tuple[Trace, Prediction]] = []
    while len(found) < 60:
        trace = trace_of(draw(rng, readers=rng.random() < 0.5))
        found += [(trace, p) for p in predict(trace).predictions if p.tier == "predicted"]
    return found


def test_every_witness_is_a_run_that_ends_in_its_deadlock() -> None:
    for trace, prediction in witnesses():
        positions = [0] * len(trace.threads)
        held: dict[int, dict[int, bool]] = {}
        for index in prediction.schedule:
            event = trace.events[index]
            assert event.position == positions[event.thread] + 1
            assert all(
                trace.events[i].position <= positions[trace.events[i].thread] for i in event.after
            )
            positions[event.thread] += 1
            holders = held.setdefault(event.obj, {})
            if event.kind == 0:
                assert all(event.shared and shared for shared in holders.values())
                holders[event.thread] = event.shared
            elif event.kind == 1:
                del holders[event.thread]
        for request, event in zip(prediction.pattern, prediction.events, strict=True):
            assert positions[event.thread] == event.position - 1
            if request.lock is not None:
                blockers = held[request.lock]
                others = {each.thread for each in prediction.pattern} - {event.thread}
                assert any(
                    thread in others and not (shared and event.shared)
                    for thread, shared in blockers.items()
                )


# A closure that looks at each lock once misses what the second look brings in: its schedule of the
# second pattern would not run. One that does run must change the places of critical sections.
TWICE = """
0 acq 1|0 rel 1|2 r 100|1 acq 2|1 w 100|0 acq 1|2 r 101|2 r 101|0 acq 0|0 rel 0|1 rel 2|2 acq 0
0 rel 1|2 w 100|2 w 101|2 acq 1|1 r 100|0 r 101|2 rel 1|2 rel 0|1 w 100|0 w 101|1 acq 0|0 w 100
1 acq 1|1 rel 1|1 rel 0|2 r 101|2 acq 2|0 w 100|0 r 101|2 rel 2
"""


def one_pass(self: Closure) -> bool:
    for lock in self._walk():
        for section in self._unfinished(self._last[lock]):
            assert section.released is not None
            self._order.join(self.inside, section.released)
    return True


def test_the_closure_goes_on_until_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    words = [op.split() for op in TWICE.strip().replace("\n", "|").split("|")]
    trace = trace_of([Op(int(thread), kind, int(obj)) for thread, kind, obj in words])
    reasons = [each.reason for each in predict(trace).predictions]
    assert reasons == [SYNC_PRESERVING, REORDERED]
    monkeypatch.setattr(Closure, "close", one_pass)
    reasons = [each.reason for each in predict(trace).predictions]
    assert reasons == [SYNC_PRESERVING, SYNC_PRESERVING]


def test_a_try_of_ones_own_lock_fails_in_every_order() -> None:
    trace = Trace()
    trace.acquire(1, 10)
    trace.fail(1, 10)
    trace.release(1, 10)
    for thread, first, second in ((1, 10, 11), (2, 11, 10)):
        trace.acquire(thread, first)
        trace.acquire(thread, second)
        trace.release(thread, second)
        trace.release(thread, first)
    trace.close()
    heads = [occasions[0] for request, occasions in trace.requests.items() if request.held]
    path, _ = Search(Order(trace), tuple(heads)).run(1000)
    assert path is not None


def test_a_search_without_an_end_is_given_up_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seven threads that nest locks in a ring have no circle of four; a few have one of two."""
    trace = Trace()
    for thread in range(7):
        for outer, inner in ((thread, (thread + 1) % 7), (7, 8), (8, 7)):
            trace.acquire(thread, outer)
            trace.acquire(thread, inner)
            trace.release(thread, inner)
            trace.release(thread, outer)
    trace.close()
    whole = predict(trace)
    assert whole.predictions
    assert not whole.cut

    monkeypatch.setattr(patterns, "PATHS_MAX", 10)
    part = predict(trace)

    assert part.cut
    assert len(part.predictions) < len(whole.predictions)
    assert len(part.dropped) < len(whole.dropped)


@pytest.mark.parametrize(("others", "cut"), [(HELD_MAX - 1, False), (HELD_MAX, True)])
def test_what_is_wanted_with_very_many_locks_held_is_left_out_and_said(
    others: int, cut: bool
) -> None:
    run = Trace()
    for lock in range(100, 100 + others):
        run.acquire(1, lock)
    for thread, first, second in ((1, 10, 11), (2, 11, 10)):
        run.acquire(thread, first)
        run.acquire(thread, second)
        run.release(thread, second)
        run.release(thread, first)
    run.close()
    found = predict(run)

    assert found.cut == cut
    assert [each.tier for each in found.predictions] == ([] if cut else ["predicted"])
