"""Whether a known race is still there, asked of the program as it stands in some folder.

The command line there is asked, in processes of its own: what is judged may be another revision of
this very tool, and a program that crashes or hangs costs its own answer only. Three questions, each
only where the one before says nothing:

1. the token: its schedule fails, or fits and passes;
2. the named operations, where the token no longer fits: they lead to the same failure, or all of
   them take place in the recorded order and it passes;
3. a search with the scenario, the strategy and the seed of the token, where one is asked for.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from harness.errors import UsageError
from harness.search.named import Named
from harness.strategies import names as strategy_names
from harness.trace.token import FILE_PREFIX, TOKEN_FOLDER, Token, decode
from stress.catalogue import Spec
from stress.exit_codes import ExitCode
from stress.program import CALLED_INSTALLED

State = Literal["fails", "passes", "unfit", "unknown"]
How = Literal["", "token", "operations", "search"]

# Far beyond what an answer takes; a program that hangs is noticed long before by itself.
_SECONDS_MAX: Final = 900.0
_NUMBER: Final = re.compile(r"\d+")


@dataclass(frozen=True, slots=True)
class Race:
    """A failure that was found once.

    Attributes:
        text: Its token.
        named: Its schedule by the names of its operations; None where there is none.
        message: What it said; empty where nobody has noted it.
    """

    text: str
    named: Named | None = None
    message: str = ""

    @property
    def token(self) -> Token:
        """What the token holds."""
        return decode(self.text)

    def met(self, kind: str, message: str) -> bool:
        """Whether a failure with another fingerprint reads like this one, but for numbers.

        A fingerprint is of the operations around the failure, which an edit may have changed.
        """
        alike = bool(self.message) and _NUMBER.sub("", message) == _NUMBER.sub("", self.message)
        return alike and kind == self.token.kind


@dataclass(frozen=True, slots=True)
class Standing:
    """What became of a race.

    Attributes:
        state: "fails"; "passes"; "unfit" where the program has changed too much for the schedule
            and nothing was searched; "unknown" where no answer could be had.
        how: What gave the answer.
        said: The reason, in a line.
        token: Of the failure as a search found it; empty otherwise.
        message: Of the failure; empty where there is none.
    """

    state: State
    how: How
    said: str
    token: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the command line said.

    Attributes:
        code: Its exit code; negative for a signal.
        document: Of ``--json``; empty where there is none.
        error: The last line on standard error.
    """

    code: int
    document: dict[str, Any]
    error: str

    @property
    def failure(self) -> tuple[str, str]:
        """Kind and message, of ``replay``; empty where there is none."""
        kind = self.document.get("kind") or ""
        return kind, " ".join(self.document.get("message", "").split()) if kind else ""


@dataclass(frozen=True, slots=True)
class Place:
    """Where the program stands.

    Attributes:
        folder: The working directory of its commands.
        environment: Of its commands.
    """

    folder: Path = field(default_factory=Path.cwd)
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))

    def ask(self, *args: str) -> Answer:
        """Run one command with ``--json`` and wait for it."""
        # `-m` puts the working directory on the path, the installed program does not.
        isolated = ["-P"] if CALLED_INSTALLED else []
        command = [sys.executable, *isolated, "-m", "stress", *args, "--json"]
        try:
            ended = subprocess.run(
                command,
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_SECONDS_MAX,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return Answer(ExitCode.INTERNAL, {}, f"no answer within {_SECONDS_MAX:g} s")
        lines = ended.stderr.decode(errors="replace").split("\n")
        error = next((line.strip() for line in reversed(lines) if line.strip()), "")
        try:
            document = msgspec.json.decode(ended.stdout, type=dict[str, Any])
        except (msgspec.MsgspecError, UnicodeDecodeError):
            document = {}
        return Answer(
            ended.returncode, document, error.removeprefix("error: ") or _ending(ended.returncode)
        )

    def bring(self, text: str) -> None:
        """Put the file of a token that is too long for its text where the commands look for it."""
        path = TOKEN_FOLDER / f"{text.removeprefix(FILE_PREFIX)}.ll1"
        there = self.folder / path
        if text.startswith(FILE_PREFIX) and not there.exists():
            there.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, there)


def _ending(code: int) -> str:
    return f"ended by signal {-code}" if code < 0 else f"exit code {code}"


def stands(race: Race, place: Place, *, schedules: int, jobs: int) -> Standing:
    """What became of ``race`` in the program of ``place``.

    Args:
        race: The one.
        place: Where.
        schedules: To search where the schedule no longer fits; 0 to search nothing.
        jobs: Worker processes of the search.

    Raises:
        TokenError: The token cannot be read.
    """
    token = race.token
    place.bring(race.text)
    answer = place.ask("replay", race.text)
    kind, message = answer.failure
    if answer.code == ExitCode.FINDING and kind:
        other = "" if kind == token.kind else f", now as {kind}"
        said = f"the schedule fits and fails{other}"
        return Standing("fails", "token", said, message=message)
    if answer.code == ExitCode.PASS:
        return Standing("passes", "token", "the schedule fits and no longer fails")
    if answer.code != ExitCode.INCONCLUSIVE:
        return Standing("unknown", "", answer.error)
    followed = Standing("unfit", "token", answer.error)
    if race.named is not None:
        followed = _followed(race, race.named, place)
    if followed.state != "unfit" or schedules == 0:
        return followed
    return _searched(race, place, max(schedules, token.schedule), jobs, followed.said)


def _followed(race: Race, named: Named, place: Place) -> Standing:
    """The recorded operations, as far as they still take place."""
    with tempfile.TemporaryDirectory(prefix="lockloom-") as folder:
        path = Path(folder) / "race.json"
        path.write_text(named.text(), encoding="utf-8")
        answer = place.ask("replay", str(path))
    aligned = answer.document.get("aligned")
    if aligned is None:
        # None of them takes place, or the revision there cannot follow names.
        return Standing("unfit", "operations", answer.error)
    gone, moved = len(aligned["gone"]), len(aligned["moved"])
    fit = f"{aligned['fitted']} of {aligned['fitted'] + gone} recorded operations take place"
    if moved:
        fit += f", {moved} later than recorded"
    kind, message = answer.failure
    if aligned["same"] or (kind and race.met(kind, message)):
        said = f"{fit}, and it fails in the same way"
        return Standing("fails", "operations", said, message=message)
    if kind:
        return Standing("unfit", "operations", f"{fit}; it fails in another way: {message}")
    if gone or moved:
        return Standing("unfit", "operations", fit)
    return Standing("passes", "operations", f"{fit}, and it no longer fails")


def _searched(race: Race, place: Place, schedules: int, jobs: int, why: str) -> Standing:
    """The same failure, looked for anew."""
    token = race.token
    try:
        args = search_arguments(token, schedules)
    except UsageError as error:
        return Standing("unknown", "", f"{why}; {error}")
    answer = place.ask("run", *args, "--keep-going", "--jobs", str(jobs))
    told = f"{why}; searched {schedules} schedules"
    if not answer.document.get("scenarios"):
        return Standing("unknown", "", f"{why}; {answer.error}")
    (found,) = answer.document["scenarios"]
    for each in found["failures"]:
        same = each["fingerprint"] == token.fingerprint and each["kind"] == token.kind
        if same or race.met(each["kind"], each["message"]):
            said = f"{told}: the same failure"
            return Standing("fails", "search", said, each["token"], each["message"])
    if found["failures"]:
        said = f"{told}: it fails in another way: {found['failures'][0]['message']}"
        return Standing("unknown", "search", said)
    if found["verdict"] != "pass":
        return Standing("unknown", "search", f"{told}: {found['reason']}")
    return Standing("passes", "search", f"{told}: none fails")


def search_arguments(token: Token, schedules: int) -> list[str]:
    """Of ``run``, for the search that may have found ``token``.

    Raises:
        UsageError: ``run`` cannot search so.
    """
    spec = Spec.from_meta(token.meta)
    if spec.mutant or spec.defects is not None:
        what = f"mutant {spec.mutant}" if spec.mutant else "a chosen set of defects"
        raise UsageError(f"nothing is searched: run plants no {what}")
    # What Hypothesis drew, or what ran freely, has no strategy that could be asked again.
    known = token.strategy in strategy_names()
    options = {
        "--strategy": token.strategy if known else "portfolio",
        "--seed": str(token.seed),
        "--schedules": str(schedules),
        "--steps-max": str(token.steps_max),
        "--revision": spec.revision,
        "--faults": spec.faults,
    }
    args = [spec.scenario]
    for name, value in options.items():
        args += [name, value] if value else []
    for name, value in spec.params:
        args += ["--param", f"{name}={value}"]
    return args + (["--early-timeouts"] if token.early_timeouts else [])
