"""What is made of the answers that the command line gives about a known race."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
import till

from harness import Named
from harness.trace.token import Token, decode, encode
from stress.triage.standing import Answer, Place, Race, search_arguments, stands

TOKEN = decode(till.CANARY)
DIVERGED = Answer(3, {"reproduced": False, "kind": None, "message": "from step 4 on"}, "step 4")


@dataclass(frozen=True)
class Answers(Place):
    """A place whose commands have these answers: of a token, a file, a search."""

    replay: Answer = DIVERGED
    followed: Answer = DIVERGED
    search: Answer = DIVERGED
    asked: list[tuple[str, ...]] = field(default_factory=list)

    def ask(self, *args: str) -> Answer:
        self.asked.append(args)
        if args[0] == "run":
            return self.search
        return self.replay if args[1].startswith("ll") else self.followed


def failed(kind: str, message: str, **aligned: Any) -> Answer:
    document = {"reproduced": True, "kind": kind, "message": message}
    return Answer(1, document | ({"aligned": aligned} if aligned else {}), "")


def followed(kind: str | None = None, message: str = "no longer fails", **other: Any) -> Answer:
    aligned = {"same": False, "fitted": 3, "gone": [], "added": [], "moved": []} | other
    document = {"reproduced": bool(kind), "kind": kind, "message": message, "aligned": aligned}
    return Answer(1 if kind else 0, document, "")


def searched(verdict: str, *failures: tuple[str, str, str]) -> Answer:
    listed = [
        {"kind": kind, "message": message, "fingerprint": fingerprint, "token": "ll1-found"}
        for kind, message, fingerprint in failures
    ]
    found = {"verdict": verdict, "reason": "because", "failures": listed}
    return Answer({"pass": 0, "fail": 1}.get(verdict, 3), {"scenarios": [found]}, "")


RACE = Race(till.CANARY, Named(till.CANARY, ()), "read 1 of 2")


@pytest.mark.parametrize(
    ("place", "state", "how", "said"),
    [
        (Answers(replay=failed("assertion", "x")), "fails", "token", "the schedule fits and fails"),
        (Answers(replay=failed("deadlock", "x")), "fails", "token", "fails, now as deadlock"),
        (Answers(replay=Answer(0, {}, "")), "passes", "token", "no longer fails"),
        (Answers(replay=Answer(2, {}, "unknown scenario")), "unknown", "", "unknown scenario"),
        (Answers(replay=Answer(70, {}, "broken")), "unknown", "", "broken"),
        (Answers(replay=Answer(-9, {}, "ended by signal 9")), "unknown", "", "signal 9"),
        (Answers(), "unfit", "operations", "step 4"),
        (Answers(followed=followed()), "passes", "operations", "3 of 3 recorded"),
        (Answers(followed=followed(gone=[1])), "unfit", "operations", "3 of 4 recorded"),
        (Answers(followed=followed(moved=[1])), "unfit", "operations", "1 later than recorded"),
        (
            Answers(followed=followed("assertion", "y", same=True, gone=[1])),
            "fails",
            "operations",
            "3 of 4 recorded operations take place, and it fails in the same way",
        ),
        # Another fingerprint, since the operations around it are others, and the same message.
        (Answers(followed=followed("assertion", "read 3 of 4")), "fails", "operations", "same way"),
        (Answers(followed=followed("deadlock", "read 1 of 2")), "unfit", "operations", "another"),
        (Answers(followed=followed("assertion", "read none")), "unfit", "operations", "another"),
    ],
)
def test_without_a_search_only_what_fits_is_judged(
    place: Answers, state: str, how: str, said: str
) -> None:
    standing = stands(RACE, place, schedules=0, jobs=1)

    assert (standing.state, standing.how) == (state, how)
    assert said in standing.said
    assert not [args for args in place.asked if args[0] == "run"]


@pytest.mark.parametrize(
    ("answer", "state", "said"),
    [
        (searched("pass"), "passes", "searched 7 schedules: none fails"),
        (searched("inconclusive"), "unknown", "because"),
        (searched("fail", ("assertion", "z", TOKEN.fingerprint)), "fails", "the same failure"),
        (searched("fail", ("assertion", "read 5 of 6", "0")), "fails", "the same failure"),
        (
            searched("fail", ("deadlock", "ab", "0"), ("assertion", "read 1 of 2", "1")),
            "fails",
            "the same failure",
        ),
        (searched("fail", ("deadlock", "ab", "0")), "unknown", "fails in another way: ab"),
        (Answer(2, {}, "no such option"), "unknown", "no such option"),
    ],
)
def test_a_search_looks_for_the_same_failure(answer: Answer, state: str, said: str) -> None:
    place = Answers(followed=followed(gone=[1]), search=answer)
    standing = stands(RACE, place, schedules=7, jobs=1)

    assert standing.state == state
    assert said in standing.said
    assert standing.token == ("ll1-found" if state == "fails" else "")
    assert "--keep-going" in place.asked[-1]


def test_a_search_goes_at_least_as_far_as_the_race_was_found() -> None:
    place = Answers(search=searched("pass"))
    stands(replace(RACE, named=None), place, schedules=1, jobs=1)

    assert place.asked[-1][place.asked[-1].index("--schedules") + 1] == str(TOKEN.schedule)
    assert TOKEN.schedule > 1


def _token(**changed: Any) -> Token:
    return msgspec.structs.replace(TOKEN, **changed)


def test_a_search_has_all_that_the_token_says() -> None:
    meta = {"scenario": "till", "revision": "seed", "faults": "alloc@1", "params": "a=1,b=2"}
    token = _token(meta=meta, strategy="pct", seed=9, early_timeouts=True)

    assert " ".join(search_arguments(token, 5)) == (
        "till --strategy pct --seed 9 --schedules 5 --steps-max 20000 --revision seed "
        "--faults alloc@1 --param a=1 --param b=2 --early-timeouts"
    )
    # Nobody can ask Hypothesis for the same schedules again.
    assert search_arguments(_token(strategy="drawn"), 5)[2] == "portfolio"


@pytest.mark.parametrize(
    ("more", "said"), [({"mutant": "M08"}, "mutant M08"), ({"defects": "L1"}, "set of defects")]
)
def test_what_run_cannot_plant_is_not_searched(more: dict[str, str | int], said: str) -> None:
    race = Race(encode(_token(meta=TOKEN.meta | more)))
    place = Answers()
    standing = stands(race, place, schedules=5, jobs=1)

    assert standing.state == "unknown"
    assert said in standing.said
    assert len(place.asked) == 1


def test_the_file_of_a_long_token_comes_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    long = encode(_token(meta=TOKEN.meta | {"params": "program=" + "x" * 3_000}))
    assert long.startswith("ll1f-")

    stands(Race(long), Answers(tmp_path / "there"), schedules=0, jobs=1)
    monkeypatch.chdir(tmp_path / "there")

    assert decode(long).meta["scenario"] == "canary"
