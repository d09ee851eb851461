"""A corpus says of each known race whether it is fixed, also after edits of its program."""

from __future__ import annotations

from pathlib import Path

import pytest
import till
from stress_cli import PACKAGES, Cli, Ran


@pytest.fixture
def stress(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Cli:
    """A command in this process: the corpus asks processes of its own."""
    till.surround(monkeypatch, tmp_path)
    return till.caller(capsys)


def write(text: str) -> Path:
    path = Path("races.toml")
    path.write_text(text, encoding="utf-8")
    return path


def states(ran: Ran) -> list[tuple[str, str]]:
    return [(race["state"], race["how"]) for race in ran.json["races"]]


@pytest.mark.once
def test_a_race_is_followed_through_edits_until_it_is_fixed(stress: Cli, logged_token: str) -> None:
    till.write(Path("scenarios"), till.LOGGED)
    title = 'the "till"\x7f\\ loses a sale'
    args = ["--add", logged_token, "--title", title, "--since", "v1"]
    added = stress("corpus", "races.toml", *args)
    assert added.code == 0, added.err
    assert "commit both" in added.out

    ran = stress("corpus", "races.toml", "--json")
    assert (ran.code, states(ran)) == (1, [("still fails", "token")])
    assert ran.json["verdict"] == "fail"
    assert (ran.json["races"][0]["title"], ran.json["races"][0]["since"]) == (title, "v1")

    till.write(Path("scenarios"), till.RACY)  # the log is gone, the race is not
    ran = stress("corpus", "races.toml", "--json")
    assert (ran.code, states(ran)) == (1, [("still fails", "operations")])

    till.write(Path("scenarios"), till.CAREFUL)
    ran = stress("corpus", "races.toml", "--search", "60", "--json")
    assert (ran.code, states(ran)) == (0, [("fixed", "search")])
    assert "searched 60 schedules: none fails" in ran.json["races"][0]["said"]


@pytest.mark.once
def test_fixed_is_only_what_fits_and_passes(stress: Cli, racy_token: str) -> None:
    path = write(f'[[race]]\ntoken = "{racy_token}"\nsince = 2026-11-25\n')
    till.write(Path("scenarios"), till.RACY, missing="nothing")
    ran = stress("corpus", path)
    assert ran.code == 0
    assert "fixed           assertion in till, since 2026-11-25" in ran.out
    assert ran.out.splitlines()[-1] == "pass: 1 fixed"

    refused = stress("corpus", "new.toml", "--add", racy_token)
    assert refused.code == 2
    assert "the schedule fits and no longer fails" in refused.error
    assert not Path("new.toml").exists()

    till.write(Path("scenarios"), till.CAREFUL)
    ran = stress("corpus", path)
    assert ran.code == 3
    assert "inconclusive: 1 no longer fits" in ran.out
    assert "--search N" in ran.out

    till.write(Path("scenarios"), "")
    ran = stress("corpus", path, "--json")
    assert (ran.code, states(ran)) == (3, [("no answer", "")])
    assert "unknown scenario 'till'" in ran.json["races"][0]["said"]


def test_an_empty_corpus_proves_nothing(stress: Cli) -> None:
    ran = stress("corpus", write(""))

    assert ran.code == 3
    assert "holds no race" in ran.out


@pytest.mark.parametrize(
    ("text", "args", "said"),
    [
        ("[[race]]\n", [], "is no corpus: Object missing required field `token`"),
        ("no toml", [], "races.toml is no corpus"),
        ('[[race]]\ntoken = "x"\n', [], "races.toml, race 1: 'x' is not a token"),
        ('[[race]]\ntoken = "{token}"\ntitel = "y"', [], "unknown field `titel`"),
        ('[[race]]\ntoken = "{token}"\nschedule = "no.json"', [], "cannot read the schedule no"),
        ('[[race]]\ntoken = "{token}"\nschedule = "../a.json"', [], "lies outside of the corpus"),
        ('[[race]]\ntoken = "{token}"\nschedule = "races.toml"', [], "this is no named schedule"),
        ('[[race]]\ntoken = "{token}"\n', ["--add", "{token}"], "has that race already: assertion"),
        ("", ["--add", "ll1f-0123"], "is damaged"),
        ("", ["--title", "x"], "give --add TOKEN too"),
        ("", ["--search", "-1"], "--search must be at least 0"),
        ("", ["--jobs", "0"], "--jobs must be at least 1"),
    ],
)
def test_wrong_usage_is_one_line(stress: Cli, text: str, args: list[str], said: str) -> None:
    path = write(text.replace("{token}", till.CANARY))
    ran = stress("corpus", path, *[arg.replace("{token}", till.CANARY) for arg in args])

    assert ran.code == 2
    assert said in ran.error


@pytest.mark.once
def test_known_races_come_first_and_decide_with_the_run(
    call: Cli, racy_token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Among the toys there is no till, so nothing can be said of its race."""
    monkeypatch.setenv("PYTHONPATH", PACKAGES)
    folder = Path("races")
    folder.mkdir()
    run = "run", "toy-clean", "--schedules", "20", "--jobs", "1", "--corpus", folder
    (folder / "b.toml").write_text(f'[[race]]\ntoken = "{racy_token}"\n')
    ran = call(*run)
    lines = ran.out.splitlines()
    assert ran.code == 3
    assert lines[:2] == ["seed 0", "no answer       assertion in till"]
    assert lines[-2] == "inconclusive, with the known races: 1 no answer"

    (folder / "a.toml").write_text(f'[[race]]\ntoken = "{till.CANARY}"\n')
    ran = call(*run, "--json", "--html", "run.html")
    assert ran.code == 1
    assert (ran.json["verdict"], ran.json["scenarios"][0]["verdict"]) == ("fail", "pass")
    assert ran.json["corpus"]["verdict"] == "fail"
    found = [(race["scenario"], race["state"]) for race in ran.json["corpus"]["races"]]
    assert found == [("canary", "still fails"), ("till", "no answer")]
    assert "1 still fails, 1 no answer" in Path("run.html").read_text(encoding="utf-8")


@pytest.mark.once
def test_a_run_searches_for_a_known_race_that_no_longer_fits(
    cli: Cli, tmp_path: Path, racy_token: str
) -> None:
    till.write(tmp_path / "scenarios", till.CAREFUL)
    (tmp_path / "races.toml").write_text(f'[[race]]\ntoken = "{racy_token}"\n')
    run = "run", "till", "--schedules", "60", "--corpus", "races.toml", "--json"
    ran = cli(*run, scenarios=tmp_path / "scenarios")

    assert ran.code == 0, ran.err
    (race,) = ran.json["corpus"]["races"]
    assert (race["state"], race["how"]) == ("fixed", "search")
    assert "searched 60 schedules" in race["said"]


def test_a_run_with_an_empty_corpus_proves_nothing(call: Cli) -> None:
    ran = call("run", "toy-clean", "--schedules", "5", "--jobs", "1", "--corpus", write(""))

    assert ran.code == 3
    assert ran.out.splitlines()[-2].endswith("known races: races.toml holds no race")


@pytest.mark.parametrize("command", [[], ["run", "toy-clean"]], ids=["main job", "run"])
def test_a_corpus_is_read_before_anything_runs(call: Cli, command: list[str]) -> None:
    ran = call(*command, "--jobs", "1", "--corpus", write("[[race]]\n"))

    assert ran.code == 2
    assert ran.out == "seed 0\n"
    assert "is no corpus" in ran.error


def test_a_race_is_added_to_a_file(call: Cli, tmp_path: Path) -> None:
    ran = call("corpus", tmp_path, "--add", till.CANARY)

    assert ran.code == 2
    assert "is a folder; name the file in it" in ran.error


def test_a_corpus_that_is_not_there_is_named(stress: Cli) -> None:
    ran = stress("corpus", "nowhere.toml")

    assert ran.code == 2
    assert "cannot read the corpus nowhere.toml: No such file" in ran.error
