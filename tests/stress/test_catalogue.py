"""Scenarios, specs, and what tokens carry of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stress_cli import TOYS, Cli, environment

from harness import TokenError, UsageError, explore
from harness.strategies import base
from stress import catalogue
from stress.catalogue import Context, Scenario, Spec

NAMES = st.text("abcdefghij-0123456789", min_size=1, max_size=8)


@given(
    st.builds(
        Spec,
        scenario=NAMES,
        params=st.dictionaries(NAMES, NAMES, max_size=3).map(lambda d: tuple(d.items())),
        revision=st.sampled_from(["fixed", "seed"]),
        defects=st.sampled_from([None, (), ("L1",), ("L1", "L2")]),
        mutant=st.sampled_from(["", "M01"]),
        edit=st.sampled_from(["", "0a1b2c3d"]),
        faults=st.sampled_from(["", "no_memory@2"]),
        draw=st.integers(0, 2**64 - 1),
        redraw=st.booleans(),
    )
)
def test_a_spec_survives_the_way_through_a_token(spec: Spec) -> None:
    assert Spec.from_meta(spec.meta()) == spec


def test_a_token_of_another_program_is_no_spec() -> None:
    with pytest.raises(TokenError, match=r"harness\.replay"):
        Spec.from_meta({})


def drawing(name: str, *, drawn: bool) -> tuple[Scenario, list[int]]:
    seeds: list[int] = []

    def program(ctx: Context) -> None:
        seeds.append(ctx.seed)

    return Scenario(name, "draws", program, drawn=drawn), seeds


@pytest.mark.parametrize(("redraw", "different"), [(True, 5), (False, 1)])
def test_every_schedule_draws_its_own_program_unless_a_search_enumerates(
    monkeypatch: pytest.MonkeyPatch, redraw: bool, different: int
) -> None:
    entry, seeds = drawing("drawing", drawn=True)
    monkeypatch.setitem(catalogue._REGISTRY, "drawing", entry)
    program = catalogue.program_of(Spec("drawing", draw=9, redraw=redraw))
    explore(program, strategy="random", schedules=5)
    first = list(seeds)
    seeds.clear()
    explore(program, strategy="random", schedules=5)

    assert seeds == first
    assert len(set(first)) == different


def test_only_a_drawn_scenario_has_a_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    entry, _ = drawing("undrawn", drawn=False)
    monkeypatch.setitem(catalogue._REGISTRY, "undrawn", entry)

    with pytest.raises(UsageError, match="drawn=True"):
        explore(catalogue.program_of(Spec("undrawn")), schedules=1)


def test_parameters_take_the_type_of_their_default() -> None:
    entry = Scenario("p", "takes two", lambda _: None, params={"pages": 2, "word": "x"})
    context = Context(Spec("p", params=(("pages", "5"), ("word", "7"))), entry)

    assert dict(context.params) == {"pages": 5, "word": "7"}


@pytest.mark.parametrize("name", ["", "two words", "semi;colon", "a/b"])
def test_a_name_that_a_shell_would_not_leave_alone_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="name is letters"):
        catalogue.scenario(name, summary="badly named")(lambda _: None)


@pytest.mark.once
def test_a_schedule_imports_nothing_of_ours() -> None:
    """On a busy machine an import may take longer than a thread may stand still."""
    code = (
        "import sys\n"
        "from harness.explore import Setup, explore_part\n"
        "from stress.catalogue import Spec, program_of\n"
        "program = program_of(Spec('evict-evict'))\n"
        "before = set(sys.modules)\n"
        "assert explore_part(program, Setup(), 1, 1).schedules == 1\n"
        "ours = ('harness', 'model', 'stress')\n"
        "print(sorted(m for m in set(sys.modules) - before if m.split('.')[0] in ours))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment(), check=True
    )

    assert done.stdout == "[]\n"


TURNS = """
from harness.strategies.base import Strategy, deciding, register

@register
class Turns(Strategy):
    "Everybody in turn."
    name = "turns"

    def begin(self, core, schedule):
        return deciding(core, lambda enabled: enabled[core.steps % len(enabled)])
"""


def test_a_strategy_of_a_folder_of_scenarios_is_known_by_its_name(
    call: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the processes of ``--jobs 2`` too; what it finds replays where nobody knows it."""
    monkeypatch.setattr(base, "_REGISTRY", dict(base._REGISTRY))
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "turns.py").write_text(TURNS)
    known = call("run", "toy-abba", "--strategy", "turns")
    assert (known.code, "unknown strategy 'turns'" in known.err) == (2, True)
    monkeypatch.setenv("LOCKLOOM_SCENARIOS", os.pathsep.join((str(TOYS), str(folder))))

    ran = call("run", "toy-abba", "--strategy", "turns", "--jobs", 2, "--schedules", 4, "--json")

    assert ran.code == 1, ran.err
    failures = ran.json["scenarios"][0]["failures"]
    monkeypatch.setattr(
        base, "_REGISTRY", {k: v for k, v in base._REGISTRY.items() if k != "turns"}
    )
    assert call("replay", failures[0]["token"]).code == 1
