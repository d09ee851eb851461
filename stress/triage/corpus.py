"""``corpus``: a committed file of known races, and which of them are fixed.

``run`` and the main job ask the same first with ``--corpus``. A TOML file, one ``[[race]]`` each
with ``token`` and, as far as they are known, ``title``, ``since`` (a date, a release), ``message``
(what the failure said) and ``schedule``: a file with its named operations, in the folder of the
corpus or below it. A token alone ends at the first edit that moves one of its choices. A folder is
all such files in it, in the order of their names.
"""

from __future__ import annotations

import datetime as dt
import json as json_text
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from harness.errors import TokenError, UsageError
from harness.search.named import Named
from harness.trace.token import FILE_PREFIX, TOKEN_BYTES_MAX, decode
from stress import documents
from stress.artefacts import write_text
from stress.catalogue import Spec
from stress.console import say
from stress.exit_codes import ExitCode, of_verdict, worst
from stress.given import is_file, is_folder, read_bytes, read_toml, short
from stress.triage.standing import Place, Race, Standing, State, stands

_FILE_BYTES_MAX: Final = 4 << 20
_SAID: Final[dict[State, str]] = {
    "fails": "still fails",
    "passes": "fixed",
    "unfit": "no longer fits",
    "unknown": "no answer",
}
_VERDICTS: Final[dict[State, str]] = {
    "fails": "fail",
    "passes": "pass",
    "unfit": "inconclusive",
    "unknown": "inconclusive",
}


class _Entry(msgspec.Struct, forbid_unknown_fields=True):
    token: str
    title: str = ""
    since: Any = ""
    message: str = ""
    schedule: str = ""


class _File(msgspec.Struct, forbid_unknown_fields=True):
    race: list[_Entry] = []


@dataclass(frozen=True, slots=True)
class Known:
    """One race of a corpus.

    Attributes:
        race: What is asked for.
        title: What a person calls it; kind and scenario where nobody does.
        since: When it was entered, as somebody wrote it.
    """

    race: Race
    title: str
    since: str


@dataclass(frozen=True, slots=True)
class Standings:
    """What became of the races of a corpus.

    Attributes:
        path: Of the corpus.
        judged: Every race, in the order of the file.
    """

    path: Path
    judged: list[tuple[Known, Standing]]

    @property
    def verdict(self) -> str:
        """The worst; ``inconclusive`` where there is no race."""
        return worst([_VERDICTS[standing.state] for _, standing in self.judged])

    def count(self, state: State) -> int:
        """How many races stand so."""
        return sum(standing.state == state for _, standing in self.judged)

    def counted(self) -> str:
        """How many of each, on one line."""
        counts = [(self.count(state), said) for state, said in _SAID.items()]
        parts = [f"{count} {said}" for count, said in counts if count]
        return ", ".join(parts) or f"{self.path} holds no race"

    def part(self) -> documents.Document:
        """A line of a summary."""
        return {"name": "known races", "verdict": self.verdict, "detail": self.counted()}

    def document(self) -> documents.Document:
        """``corpus --json``."""
        return {"verdict": self.verdict, "races": [_race(*each) for each in self.judged]}


def read(path: Path) -> list[Known]:
    """The races in a file, or in all files of a folder.

    Raises:
        UsageError: It cannot be read, or an entry makes no sense; the message says which.
    """
    if is_folder(path):
        return [known for file in sorted(path.glob("*.toml")) for known in read(file)]
    written = read_toml(path, "the corpus", _File, "is no corpus", bytes_max=_FILE_BYTES_MAX)
    found = []
    for number, entry in enumerate(written.race, 1):
        try:
            found.append(_known(entry, path.parent))
        except (UsageError, TokenError) as error:
            raise UsageError(f"{path}, race {number}: {error}") from None
    return found


def _known(entry: _Entry, folder: Path) -> Known:
    token = decode(entry.token)
    spec = Spec.from_meta(token.meta)
    named = None
    if entry.schedule:
        path = folder / entry.schedule
        if "\0" in entry.schedule or not path.resolve().is_relative_to(folder.resolve()):
            shown = short(repr(entry.schedule))
            raise UsageError(f"schedule {shown} lies outside of the corpus's folder")
        named = Named.read(read_bytes(path, "the schedule", bytes_max=TOKEN_BYTES_MAX))
        if named.token != entry.token:
            raise UsageError(
                f"the schedule {entry.schedule} is of another token; add the race anew"
            )
    title = entry.title or f"{token.kind} in {spec.scenario}"
    return Known(Race(entry.token, named, entry.message), title, _since(entry.since))


def _since(value: Any) -> str:
    """As it was written; TOML has longer numbers than Python shows."""
    small = isinstance(value, int) and abs(value) < 1 << 63
    if not small and not isinstance(value, (str, float, dt.date, dt.time)):
        raise UsageError("since is a text, a date, or the number of a release")
    return str(value)


def judge(path: Path, *, search: int, jobs: int, json: bool) -> Standings:
    """Ask for every race, and tell of each as its answer comes.

    Args:
        path: Of the corpus.
        search: Schedules to search where one no longer fits; 0 for none.
        jobs: Worker processes of such a search.
        json: Whether standard output is for a document.

    Raises:
        UsageError: The corpus cannot be read.
    """
    place = Place()
    judged = []
    for known in read(path):
        standing = stands(known.race, place, schedules=search, jobs=jobs)
        judged.append((known, standing))
        since = f", since {known.since}" if known.since else ""
        say(
            f"{_SAID[standing.state]:14}  {known.title}{since}\n    {standing.said}"
            + ("" if standing.state == "passes" else f"\n    {known.race.text}"),
            json=json,
        )
    return Standings(path, judged)


def replay(path: Path, *, search: int, jobs: int, json: bool) -> ExitCode:
    """The command without ``--add``: every race again.

    Raises:
        UsageError: The corpus cannot be read.
    """
    if search < 0:
        raise UsageError(f"--search must be at least 0, got {search}")
    if jobs < 1:
        raise UsageError(f"--jobs must be at least 1, got {jobs}")
    found = judge(path, search=search, jobs=jobs, json=json)
    if json:
        print(documents.encode(found.document()))
    else:
        say(f"{found.verdict}: {found.counted()}", json=json)
        if found.count("unfit") and not search:
            say("--search N looks for those that no longer fit, in N schedules each", json=json)
    return of_verdict(found.verdict)


def _race(known: Known, standing: Standing) -> documents.Document:
    token = known.race.token
    return {
        "title": known.title,
        "since": known.since,
        "token": known.race.text,
        "scenario": token.meta["scenario"],
        "kind": token.kind,
        "fingerprint": token.fingerprint,
        "state": _SAID[standing.state],
        "how": standing.how,
        "said": standing.said,
    }


def add(path: Path, text: str, *, title: str, since: str, json: bool) -> ExitCode:
    """``--add TOKEN``: enter a race that fails here and now, with its named operations.

    Raises:
        UsageError: It does not fail, is there already, or the files cannot be written.
    """
    text = text.strip()
    token = decode(text)
    if is_folder(path):
        raise UsageError(f"{path} is a folder; name the file in it that shall have the race")
    if text.startswith(FILE_PREFIX):
        raise UsageError("the token names a file that stays on this machine; minimize it first")
    for known in read(path) if is_file(path) else []:
        if known.race.token.fingerprint == token.fingerprint:
            raise UsageError(f"{path} has that race already: {known.title}")
    place = Place()
    standing = stands(Race(text), place, schedules=0, jobs=1)
    if standing.state != "fails":
        raise UsageError(f"the token does not fail here ({standing.said}), so it is not added")
    fields = {
        "token": text,
        "title": title,
        "since": since or dt.datetime.now(dt.UTC).date().isoformat(),
        "message": standing.message,
    }
    named = _named(text, place)
    if named is not None:
        schedule = Path(path.stem) / f"{token.fingerprint}.json"
        _write(path.parent / schedule, named.text())
        fields["schedule"] = schedule.as_posix()
    before = (
        read_bytes(path, "the corpus", bytes_max=_FILE_BYTES_MAX).decode() if is_file(path) else ""
    )
    lines = [f"{name} = {_toml(value)}" for name, value in fields.items() if value]
    _write(path, before + ("\n" if before else "") + "\n".join(["[[race]]", *lines, ""]))
    if json:
        print(documents.encode({**fields, "corpus": str(path)}))
    else:
        by = "its token alone" if named is None else f"its token and {fields['schedule']}"
        say(f"added to {path} by {by}; commit {'both' if named else 'it'}", json=json)
    return ExitCode.PASS


def _named(text: str, place: Place) -> Named | None:
    """The schedule by its operations; None where they do not lead to the failure again.

    That of a livelock has no names, and a timeout that fired early is no operation.
    """
    with tempfile.TemporaryDirectory(prefix="lockloom-") as folder:
        path = Path(folder) / "race.json"
        place.ask("replay", text, "--named", str(path))
        if not path.is_file() or not path.stat().st_size:
            return None
        again = place.ask("replay", str(path)).document.get("aligned") or {}
        return Named.read(path.read_bytes()) if again.get("same") else None


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot make {path.parent}: {error.strerror}") from None
    write_text(path, text)


def _toml(value: str) -> str:
    """A string of TOML: JSON's, but that it must not hold a bare DEL."""
    return json_text.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
