"""Planted bugs: read, refused, planted in a fresh process, found, and replayed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from stress_cli import PACKAGES, Cli, Ran, run_stress

from harness import InternalError
from stress import mutants
from stress.mutants import Mutant, MutantError

BOX = '''"""A kernel of one class."""

from harness import Mutex, Shared


class Box:
    def __init__(self):
        self.lock = Mutex("box")
        self.cell = Shared(0, "cell")

    def add(self):
        # The lock makes the two accesses one.
        with self.lock:
            self.cell.set(self.cell.get() + 1)
'''
SCENARIO = """
from harness import parallel
from stress.catalogue import scenario

@scenario("toy-box", summary="two threads add to a box", mutants=("T1",))
def box(ctx):
    from toykernel.box import Box

    box = Box()
    parallel(box.add, box.add)
    assert box.cell.peek() == 2, f"I7: {box.cell.peek()} of 2"

@scenario("toy-other", summary="imports no box")
def other(ctx):
    from harness import yield_now
    parallel(yield_now, yield_now)
"""
UNLOCKED = {
    "id": "T1",
    "title": "add without the lock",
    "file": "toykernel/box.py",
    "before": "        with self.lock:\n            self.cell",
    "after": "        if self.lock:\n            self.cell",
    "depth": 1,
    "oracle": "I7",
    "scenario": "toy-box",
}
SAME = UNLOCKED | {
    "id": "T2",
    "title": "another comment",
    "before": "# The lock",
    "after": "# A lock",
    "depth": 0,
    "control": True,
}


# Noticed twice in one schedule: by the lost update, and by a cycle of lock classes.
TWICE = UNLOCKED | {
    "after": """        from harness import LockClass, Mutex
        a, b = Mutex("a", LockClass("A")), Mutex("b", LockClass("B"))
        with a, b:
            pass
        with b, a:
            pass
        if self.lock:
            self.cell""",
}


def toml(*entries: dict[str, object]) -> str:
    lines: list[str] = []
    for entry in entries:
        lines.append("[[mutant]]")
        for key, value in entry.items():
            if isinstance(value, bool):
                lines.append(f"{key} = {str(value).lower()}")
            elif isinstance(value, int):
                lines.append(f"{key} = {value}")
            else:
                lines.append(f"{key} = '''{value}'''")
    return "\n".join(lines)


def make_world(folder: Path) -> dict[str, Path]:
    """A package to mutate, a scenario on it, and the options that make them known."""
    package = folder / "lib" / "toykernel"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "box.py").write_text(BOX)
    scenarios = folder / "scenarios"
    scenarios.mkdir()
    (scenarios / "box.py").write_text(SCENARIO)
    (folder / "bugs.toml").write_text(toml(UNLOCKED, SAME))
    return {"path": folder / "lib", "scenarios": scenarios}


@pytest.fixture
def world(tmp_path: Path) -> dict[str, Path]:
    return make_world(tmp_path)


@pytest.fixture(scope="module")
def hunted(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """The hunt after both entries of the catalogue, elsewhere in a world of the same content."""
    folder = tmp_path_factory.mktemp("hunted")
    options = ("--catalogue", "bugs.toml", "--schedules", "300", "--json")
    made = make_world(folder)
    return run_stress(folder, "mutants", *options, scenarios=made["scenarios"], path=made["path"])


@pytest.fixture
def token(hunted: Ran) -> str:
    """Of the planted bug."""
    found: str = hunted.json["mutants"][0]["token"]
    return found


@pytest.mark.once
def test_what_the_catalogue_names_first_is_what_is_told_of_a_schedule(
    cli: Cli, world: dict[str, Path]
) -> None:
    oracles = {"T3": "lock-order, I7", "T4": "I7, lock-order"}
    entries = [TWICE | {"id": id_, "oracle": oracle} for id_, oracle in oracles.items()]
    (world["path"].parent / "bugs.toml").write_text(toml(*entries))

    ran = cli("mutants", "--catalogue", "bugs.toml", "--strategy", "round-robin", "--json", **world)

    kinds = {bug["id"]: (bug["kind"], bug["schedules"]) for bug in ran.json["mutants"]}
    assert kinds == {"T3": ("lock-order", 1), "T4": ("assertion", 1)}


def test_a_bug_is_found_and_a_control_is_not(hunted: Ran) -> None:
    assert hunted.code == 0
    assert {key: hunted.json[key] for key in ("found", "total", "controls")} == {
        "found": 1,
        "total": 1,
        "controls": {"found": 0, "total": 1},
    }
    (bug,) = hunted.json["mutants"]
    assert set(bug) == {"id", "found", "schedules", "kind", "oracle", "scenario", "token"}
    assert (bug["id"], bug["found"], bug["kind"], bug["oracle"]) == ("T1", True, "assertion", "I7")


@pytest.mark.once
def test_a_person_reads_how_many_were_found(cli: Cli, world: dict[str, Path]) -> None:
    text = cli("mutants", "--catalogue", "bugs.toml", "--schedules", "300", **world)

    assert "1 of 1 found, 0 of 1 controls found" in text.out


@pytest.mark.parametrize("mutant", mutants.read(), ids=lambda mutant: mutant.id)
def test_every_edit_of_the_catalogue_fits_the_model(mutant: Mutant) -> None:
    """A change of the model that no longer has the text shows here, and not in a hunt."""
    path = Path(PACKAGES) / mutant.file
    compile(mutant.apply(path.read_text(encoding="utf-8"), mutant.file), mutant.file, "exec")


@pytest.mark.once
def test_the_token_of_a_mutant_replays_in_fresh_processes(
    cli: Cli, world: dict[str, Path], token: str
) -> None:
    replays = [
        cli("replay", token, "--catalogue", "bugs.toml", "--json", PYTHONHASHSEED=seed, **world)
        for seed in ("1", "2")
    ]

    assert [again.code for again in replays] == [1, 1]
    assert replays[0].json["reproduced"] is True
    assert replays[0].json == replays[1].json
    shown = cli("show", token, "--json", **world).json
    assert (shown["mutant"], shown["scenario"]) == ("T1", "toy-box")


@pytest.mark.once
def test_the_report_of_a_mutant_shows_the_edited_line(
    cli: Cli, world: dict[str, Path], token: str
) -> None:
    text = cli("replay", token, "--catalogue", "bugs.toml", **world).out

    assert "toykernel/box.py:14" in text
    assert "--catalogue bugs.toml" in text.replace("\\\n", "")


@pytest.mark.once
def test_findings_do_not_depend_on_the_number_of_jobs(cli: Cli, world: dict[str, Path]) -> None:
    one, two = (
        cli("mutants", "--catalogue", "bugs.toml", "--jobs", jobs, "--json", **world).json
        for jobs in (1, 2)
    )

    assert one == two


@pytest.mark.once
def test_a_search_with_a_bound_takes_the_depth_of_the_catalogue(
    cli: Cli, world: dict[str, Path], tmp_path: Path
) -> None:
    command = ("mutants", "--catalogue", "bugs.toml", "--only", "T1", "--strategy", "dfs", "--json")
    enough = cli(*command, **world)
    too_little = cli(*command, "--preemptions", "0", **world)

    assert enough.json["mutants"][0]["found"] is True
    assert too_little.json["mutants"][0]["found"] is False
    assert too_little.code == 1  # a bug was missed


@pytest.mark.once
def test_a_control_that_is_found_fails_the_command(
    cli: Cli, world: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "bugs.toml").write_text(toml(UNLOCKED | {"control": True}))
    ran = cli("mutants", "--catalogue", "bugs.toml", "--json", **world)

    assert ran.code == 1
    assert ran.json["controls"] == {"found": 1, "total": 1}


@pytest.mark.once
def test_an_edit_of_the_mutant_makes_its_tokens_stale(
    cli: Cli, world: dict[str, Path], token: str, tmp_path: Path
) -> None:
    command = ("replay", token, "--catalogue", "bugs.toml", "--json")

    (tmp_path / "bugs.toml").write_text(
        toml(UNLOCKED | {"after": "        if True:\n            self.cell"})
    )
    edited = cli(*command, **world)
    assert (edited.code, edited.out) == (2, "")
    assert "has been edited since this token was made" in edited.error

    (tmp_path / "bugs.toml").write_text(toml(SAME))
    removed = cli(*command, **world)
    assert removed.code == 2
    assert "mutant T1 is not in bugs.toml" in removed.error


@pytest.mark.once
@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"before": "no such line"}, "mutant T1: its `before` is not in toykernel/box.py"),
        ({"before": "self"}, "mutant T1: its `before` stands 7 times in toykernel/box.py"),
        ({"file": "toykernel/bag.py"}, "mutant T1: there is no file toykernel/bag.py"),
        ({"file": "nowhere/box.py"}, "mutant T1: there is no file nowhere/box.py"),
        ({"after": "        with self.lock\n"}, "mutant T1: after the edit toykernel/box.py no"),
        ({"scenario": "toy-other"}, "mutant T1: scenario toy-other never imports toykernel.box"),
        ({"scenario": "toy-bax"}, "mutant T1: unknown scenario 'toy-bax'; did you mean toy-box"),
        ({"revision": "new"}, "mutant T1: unknown revision 'new'"),
    ],
)
def test_a_mutant_that_cannot_be_planted_is_an_error_that_names_it(
    cli: Cli, world: dict[str, Path], tmp_path: Path, change: dict[str, str], expected: str
) -> None:
    (tmp_path / "bugs.toml").write_text(toml(UNLOCKED | change))
    ran = cli("mutants", "--catalogue", "bugs.toml", "--schedules", "50", "--json", **world)

    assert (ran.code, ran.out) == (2, "")
    assert expected in ran.err.splitlines()[-1]
    assert "Traceback" not in ran.err


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[[mutant", "no valid TOML"),
        ("", "holds no"),
        ("mutant = 3", "holds no"),
        ("mutant = [3]", "is no table"),
        (toml({"id": "T1"}), "mutant T1 in .*: the field 'title' is missing"),
        (toml(UNLOCKED | {"depth": "1"}), "'depth' must be of type int"),
        (toml(UNLOCKED | {"colour": "red"}), "unknown field 'colour'"),
        (toml(UNLOCKED, UNLOCKED), "mutant T1 stands twice"),
        (toml(UNLOCKED | {"before": ""}), "`before` is empty"),
        (toml(UNLOCKED | {"after": UNLOCKED["before"]}), "equals `after`"),
    ],
)
def test_a_damaged_catalogue_says_where_it_is_damaged(
    tmp_path: Path, text: str, expected: str
) -> None:
    path = tmp_path / "bugs.toml"
    path.write_text(text)

    with pytest.raises(MutantError, match=expected):
        mutants.read(path)


def test_only_takes_known_ids(call: Cli, tmp_path: Path) -> None:
    (tmp_path / "bugs.toml").write_text(toml(UNLOCKED, SAME))
    ran = call("mutants", "--catalogue", "bugs.toml", "--only", "T1,T3")

    assert ran.code == 2
    assert "unknown mutant 'T3'" in ran.error


def test_planting_leaves_the_file_and_the_bytecode_cache_alone(
    tmp_path: Path, world: dict[str, Path]
) -> None:
    """A mutant must not leak into processes that come later."""
    program = f"""
import linecache, sys
sys.path[:0] = [{str(world["path"])!r}, {PACKAGES!r}]
from pathlib import Path
from stress import mutants
mutant = mutants.read(Path({str(tmp_path / "bugs.toml")!r}))[0]
installed = mutants.install(mutant)
import toykernel.box
installed.confirm()
print(linecache.getline(toykernel.box.__file__, 13).strip())
"""
    command = [sys.executable, "-c", program]
    reading = f"""
import sys
sys.path.insert(0, {str(world["path"])!r})
import toykernel.box
print(toykernel.box.Box.add.__code__.co_names)
"""
    plain = [sys.executable, "-c", reading]
    before = subprocess.run(plain, capture_output=True, check=True).stdout
    planted = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    after = subprocess.run(plain, capture_output=True, check=True).stdout

    assert planted.stdout.strip() == "if self.lock:"
    assert before == after
    assert (world["path"] / "toykernel" / "box.py").read_text() == BOX


def test_a_module_that_is_imported_already_is_refused() -> None:
    late = Mutant("T9", "late", "stress/mutants.py", "x", "y", 0, "I1", "toy-box")

    with pytest.raises(InternalError, match="needs a fresh process"):
        mutants.install(late)
