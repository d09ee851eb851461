"""Files that a replay writes on request: trace, picture for the Perfetto UI, HTML report."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from loguru import logger

from harness.errors import UsageError
from harness.search.named import Named
from harness.trace import chrome, document
from harness.trace.locklog import LockLog
from harness.trace.token import decode
from stress.artefacts import writable
from stress.catalogue import Spec
from stress.work import Replayed


def check_stacks(lock_log: Path | None, *, stacks: bool) -> None:
    """Refuse stacks that would go nowhere.

    Raises:
        UsageError: Says what to do.
    """
    if stacks and lock_log is None:
        raise UsageError("--lock-log-stacks says what is in a lock log; give --lock-log FILE too")


@dataclass(frozen=True, slots=True)
class Pictures:
    """Where they go; None for those that nobody wants.

    Attributes:
        trace: ``.json`` gets the whole document, any other name the steps as JSON lines.
        html: The report.
        perfetto: The lanes.
        named: The schedule as named operations, where it fails.
        lock_log: What its locks did; see ``audit``.
        stacks: That log has whole stacks.
    """

    trace: Path | None = None
    html: Path | None = None
    perfetto: Path | None = None
    named: Path | None = None
    lock_log: Path | None = None
    stacks: bool = False

    def check(self) -> None:
        """See that they can be written, before anything runs.

        Raises:
            UsageError: One cannot, or two are the same file; stacks, and no log of them.
        """
        check_stacks(self.lock_log, stacks=self.stacks)
        wanted = [
            (name.replace("_", "-"), path)
            for name in ("trace", "html", "perfetto", "named", "lock_log")
            if (path := getattr(self, name)) is not None
        ]
        for name, path in wanted:
            writable(path, f"--{name}")
        if len({path.resolve() for _, path in wanted}) < len(wanted):
            names = " and ".join(f"--{name}" for name, _ in wanted)
            raise UsageError(f"{names} name the same file; each needs one of its own")

    def write(self, replayed: Replayed, spec: Spec) -> None:
        """Write them."""
        facts = facts_of(replayed, spec)
        if self.trace is not None:
            whole = self.trace.suffix == ".json"
            story = replayed.story
            text = document.as_json(story, **facts) if whole else document.as_lines(story)
            self.trace.write_bytes(text)
        if self.perfetto is not None:
            self.perfetto.write_bytes(chrome.of_story(replayed.story, **facts))
        if self.html is not None:
            self.html.write_text(replayed.page, encoding="utf-8")
        if self.lock_log is not None:
            with LockLog(self.lock_log) as log:
                number = facts.get("schedule", "")
                log.story(f"{spec.scenario}#{number}", replayed.story, **facts)
        if self.named is not None and replayed.found is not None:
            named = Named.of(replayed.found.failure.token, replayed.story.steps)
            self.named.write_text(named.text(), encoding="utf-8")
        elif self.named is not None:
            logger.warning("the schedule does not fail, so {} is not written", self.named)


def facts_of(replayed: Replayed, spec: Spec) -> dict[str, str | int]:
    """What a trace says beside its steps."""
    facts = dict(spec.meta())
    if replayed.found is not None:
        failure = replayed.found.failure
        token = decode(failure.token)
        facts |= {"strategy": token.strategy, "seed": token.seed, "schedule": failure.schedule}
        facts |= {"fingerprint": failure.fingerprint, "digest": failure.digest}
        facts |= {"preemptions": failure.preemptions, "token": failure.token}
    return facts
