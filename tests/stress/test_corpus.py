"""A corpus says of each known race whether it is fixed, also after edits of its program."""

from __future__ import annotations

from pathlib import Path

import pytest
import till
from stress_cli import Cli, Ran


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
        ("", ["--add", "ll1f-0123"], "cannot be read"),
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


def test_a_corpus_that_is_not_there_is_named(stress: Cli) -> None:
    ran = stress("corpus", "nowhere.toml")

    assert ran.code == 2
    assert "cannot read the corpus nowhere.toml: No such file" in ran.error
