"""``bisect``: which commit brought a race in."""

from __future__ import annotations

import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from harness.errors import UsageError
from harness.search.named import Named
from harness.trace.token import FILE_PREFIX
from stress import documents
from stress.console import say
from stress.exit_codes import ExitCode
from stress.triage.revisions import Repository
from stress.triage.standing import Place, Race, Standing, stands

Judgement = Literal["good", "bad", "skipped"]

_JUDGED: Final[dict[str, Judgement]] = {"passes": "good", "fails": "bad"}
_SHORT: Final = 12


@dataclass(frozen=True, slots=True)
class Revision:
    """One commit that was judged.

    Attributes:
        commit: Its full name.
        subject: The first line of its message.
        standing: What became of the race there.
    """

    commit: str
    subject: str
    standing: Standing

    @property
    def judgement(self) -> Judgement:
        """As far as it says one."""
        return _JUDGED.get(self.standing.state, "skipped")

    def line(self) -> str:
        """For a person."""
        return (
            f"{self.commit[:_SHORT]} {self.judgement:7}  {self.subject}\n    {self.standing.said}"
        )


@dataclass(slots=True)
class Bisection:
    """Narrows down which commit brought a race in.

    Attributes:
        repository: Whose commits.
        race: The race; what is learnt of it where it fails first is added.
        schedules: To search where the schedule no longer fits.
        jobs: Worker processes of such a search.
        tell: Is called with each revision as it is judged.
        judged: All of them, in that order.
    """

    repository: Repository
    race: Race
    schedules: int
    jobs: int
    tell: Callable[[Revision], None]
    judged: list[Revision] = field(default_factory=list)

    def first_bad(self, good: str, bad: str) -> list[str]:
        """The first bad commit; more than one where skipped ones leave it open.

        Raises:
            UsageError: The race passes at ``bad``, fails at ``good``, or no answer is to be had at
                ``bad``.
        """
        with tempfile.TemporaryDirectory(prefix="lockloom-bisect-") as made:
            folder = Path(made).resolve()
            self._must_fail(self._judge(bad, folder))
            if self._judge(good, folder).judgement == "bad":
                raise UsageError(f"the race is in --good {good[:_SHORT]} too; name an older commit")
            goods, skipped = [good], {bad}
            while True:
                suspects = self.repository.suspects(goods, bad)
                left = [commit for commit in suspects if commit not in skipped]
                if not left:
                    return [bad, *(commit for commit in suspects if commit != bad)]
                judgement = self._judge(left[0], folder).judgement
                if judgement == "good":
                    goods.append(left[0])
                else:
                    skipped.add(left[0])
                if judgement == "bad":
                    bad = left[0]

    def _judge(self, commit: str, folder: Path) -> Revision:
        subject = self.repository.subject(commit)
        with self.repository.checked_out(commit, folder) as tree:
            try:
                place = self.repository.place(tree)
            except UsageError as error:
                standing = Standing("unknown", "", str(error))
            else:
                standing = stands(self.race, place, schedules=self.schedules, jobs=self.jobs)
                self._learn(standing, place, folder)
        revision = Revision(commit, subject, standing)
        self.judged.append(revision)
        self.tell(revision)
        return revision

    def _learn(self, standing: Standing, place: Place, folder: Path) -> None:
        """Where the race is met first: how it reads, and its operations by name.

        Revisions that the token does not fit are judged by them.
        """
        if self.race.message or standing.state != "fails":
            return
        # The file of a long token that a search wrote goes away with its working tree.
        found = "" if standing.token.startswith(FILE_PREFIX) else standing.token
        text, named = found or self.race.text, self.race.named
        path = folder / "race.json"
        if named is None or found:
            place.ask("replay", text, "--named", str(path))
            # The schedule of a livelock has no names: then all revisions are searched.
            written = path.is_file() and path.stat().st_size > 0
            named = Named.read(path.read_bytes()) if written else None
        self.race = Race(text, named, standing.message)

    @staticmethod
    def _must_fail(revision: Revision) -> None:
        if revision.judgement != "bad":
            raise UsageError(
                f"the race is not met at --bad {revision.commit[:_SHORT]} "
                f"({revision.standing.said}); name the commit at which it was found"
            )


def bisect(race: Race, good: str, bad: str, *, schedules: int, jobs: int, json: bool) -> ExitCode:
    """The command.

    Raises:
        UsageError: A revision is no commit, or does not stand as the command line says.
    """
    if schedules < 1:
        raise UsageError(f"--schedules must be at least 1, got {schedules}")
    if jobs < 1:
        raise UsageError(f"--jobs must be at least 1, got {jobs}")
    repository = Repository.around(Path.cwd())
    first, last = repository.commit(good, "--good"), repository.commit(bad, "--bad")
    if first == last or not repository.is_ancestor(first, last):
        raise UsageError(f"--good {good!r} must be an ancestor of --bad {bad!r}")
    token = race.token
    say(f"{token.kind} {token.fingerprint} of {token.program}", json=json)
    bisection = Bisection(
        repository, race, schedules, jobs, lambda each: say(each.line(), json=json)
    )
    with _killed_as_interrupted():
        suspects = bisection.first_bad(first, last)
    if json:
        print(documents.encode(_document(bisection, suspects)))
    else:
        say("\n".join(_conclusion(repository, bisection, suspects)), json=json)
    return ExitCode.PASS if len(suspects) == 1 else ExitCode.INCONCLUSIVE


@contextmanager
def _killed_as_interrupted() -> Iterator[None]:
    """A CI job that is cancelled is sent SIGTERM: it must leave no working tree behind either."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _conclusion(repository: Repository, bisection: Bisection, suspects: list[str]) -> list[str]:
    searched = sum(each.standing.how == "search" for each in bisection.judged)
    lines = [f"{commit[:_SHORT]} {repository.subject(commit)}" for commit in suspects]
    if len(suspects) == 1:
        lines = [f"\nfirst bad commit: {lines[0]}"]
    else:
        lines = ["\nskipped commits leave it open; the first bad one is among:", *lines]
    if searched:
        lines.append(
            f"{searched} of {len(bisection.judged)} commits were judged by a search, which may miss"
            " a race; --schedules searches more"
        )
    return lines


def _document(bisection: Bisection, suspects: list[str]) -> documents.Document:
    """``bisect --json``."""
    token = bisection.race.token
    return {
        "first_bad": suspects[0] if len(suspects) == 1 else None,
        "suspects": suspects,
        "kind": token.kind,
        "fingerprint": token.fingerprint,
        "revisions": [
            {
                "commit": each.commit,
                "subject": each.subject,
                "judgement": each.judgement,
                "how": each.standing.how,
                "said": each.standing.said,
            }
            for each in bisection.judged
        ],
    }
