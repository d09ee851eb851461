"""From lock logs to lock rules: plays the events of any number of logs into one ``LockRules``.

The rules are the live ones. An acquisition is judged when the lock is wanted, so that one that
never came true counts too; a run that ends in a wait-for cycle is a deadlock by itself. A log is
not trusted blindly: what cannot have happened is reported beside the findings.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import IO, Final

from harness.lockorder.classes import LockClass, flags_from_names
from harness.lockorder.deadlocks import Deadlocks
from harness.lockorder.rules import LockRules
from harness.predict.judge import BUDGET, SIZE_MAX
from harness.trace.events import Site, Story
from harness.trace.locklog import VERSION, Event, LockLog
from harness.trace.lockread import Damage, Record, definition, read_log
from harness.trace.logrun import LogRun
from harness.trace.logstate import (
    HARMLESS,
    INTEGRITY,
    Breach,
    Standstill,
)
from harness.trace.logtrace import together

__all__ = ["INTEGRITY", "Breach", "LogJudge", "deadlocks_of"]

WINDOW: Final = 1_000_000
"""Events of one run that predictions look at together; of a longer run one such stretch after the
other, each half over the one before."""

BEYOND: Final = "%d events: no circle farther apart than half of that"


def deadlocks_of(story: Story, schedule: int, *, mode_blind: bool) -> Deadlocks:
    """Judge a recorded schedule as the audit judges its log."""
    stream = io.BytesIO()
    with LockLog(stream) as log:
        log.story(f"#{schedule}", story)
    stream.seek(0)
    judge = LogJudge(mode_blind=mode_blind)
    judge.read("this exploration", stream, schedule - 1)
    return judge.deadlocks


class LogJudge:
    """Judges logs by the lock rules.

    Attributes:
        rules: Where edges and findings accumulate; the index of a run counts as its schedule.
        runs: Names of the runs by index.
        headers: What each run says of itself, by index.
        deadlocks: Those that runs ended in, and those that are predicted.
        kinds: Of each lock class, in lower case.
        breaches: Broken integrity, by log and rule.
        untrusted: Indexes of the runs that contradict themselves.
        events: Events read.
        unclassed: Acquisitions of locks without a class.
        classes: By name, as the logs define them, whether acquired or not.
        heard: Called after each piece of a log that was judged; may be None.
        playing: The run that the log is in the middle of; None between logs.
    """

    def __init__(
        self,
        *,
        mode_blind: bool = False,
        predict: bool = True,
        size_max: int = SIZE_MAX,
        budget: int = BUDGET,
        window: int = WINDOW,
    ) -> None:
        """Start with no log read.

        Args:
            mode_blind: Judge readers like writers, in the rules on classes.
            predict: Look for deadlocks that a run did not reach.
            size_max: Longest circle of threads that is predicted.
            budget: States that the exhaustive search may visit for one candidate.
            window: Events of a run that are looked at together for that; at least 2.
        """
        self.heard: Callable[[], None] | None = None
        self.playing: LogRun | None = None
        self.window = window if predict else 0
        self.limits = (size_max, budget)
        self.rules = LockRules(mode_blind=mode_blind, fatal=False)
        self.runs: dict[int, str] = {}
        self.headers: dict[int, dict[str, str | int]] = {}
        self._index = 0
        self.deadlocks = Deadlocks()
        self.kinds: dict[str, str] = {}
        self.breaches: dict[tuple[str, str], Breach] = {}
        self.untrusted: set[int] = set()
        self.events = 0
        self.unclassed = 0
        self.classes: dict[str, LockClass] = {}
        # Runs of one program define the same things again and again.
        self._made: dict[tuple[str, tuple[str, ...]], tuple[LockClass, str]] = {}
        self.sites: dict[tuple[str, str, int, str, int], Site] = {}

    def read(self, name: str, stream: IO[bytes], after: int | None = None) -> None:
        """Judge one log; never fails on what is in it.

        Args:
            name: Of the log, for messages.
            stream: Its bytes, compressed or not.
            after: Its runs are numbered from here on; None goes on where the last log ended.
        """
        self._index = self._index if after is None else after
        run: LogRun | None = None
        before = len(self.runs)
        for first, records in read_log(stream):
            index = 0
            while index < len(records):
                if run is not None:
                    index = run.play(records, index, first)
                if index < len(records):
                    run = self._unusual(name, run, records[index], first + index)
                    index += 1
            self.playing = run
            if self.heard is not None:
                self.heard()
        self.playing = None
        self._close(run)
        if len(self.runs) == before and (name, "LOG009") not in self.breaches:
            self.breach(name, "LOG009", 1, "no header: not a lock log, or an empty one")

    def merge(self, other: LogJudge) -> bool:
        """Take over what another judge saw in other logs, its runs numbered higher than all here.

        The result is that of reading those logs here.

        Returns:
            Whether it was done: not where a class has other flags there. Read the log here then.
        """
        for name, theirs in other.classes.items():
            if self.classes.get(name, theirs).bits != theirs.bits:
                return False
        self.classes = {**other.classes, **self.classes}
        self._made.clear()
        self.rules.merge(other.rules)
        self.runs.update(other.runs)
        self.headers.update(other.headers)
        self.deadlocks.merge(other.deadlocks)
        self.kinds = {**other.kinds, **self.kinds}
        self.breaches.update(other.breaches)
        self.untrusted |= other.untrusted
        self.events += other.events
        self.unclassed += other.unclassed
        return True

    def breach(self, log: str, rule: str, line: int, message: str) -> None:
        """Note broken integrity."""
        known = self.breaches.get((log, rule))
        if known is None:
            self.breaches[log, rule] = Breach(rule, log, line, message)
        else:
            known.count += 1

    def lock_class(self, name: str, flags: tuple[str, ...]) -> tuple[LockClass, str]:
        """Return the class of that name, and a complaint if it is known with other flags.

        Raises:
            UsageError: The flags are unknown or exclude each other.
        """
        found = self._made.get((name, flags))
        if found is None:
            made = LockClass(name, flags=flags_from_names(flags))
            known = self.classes.setdefault(name, made)
            complaint = ""
            if known.bits != made.bits:
                complaint = f"{known!r} is now {made!r}; the first one is kept"
            found = self._made[name, flags] = known, complaint
        return found

    def _unusual(self, log: str, run: LogRun | None, record: Record, line: int) -> LogRun | None:
        """Take a record that is no event of a known run; return the run that goes on."""
        if isinstance(record, Damage):
            self.breach(log, record.rule, record.line, record.message)
            if run is not None and record.rule not in HARMLESS:
                self.untrusted.add(run.index)
            return run
        if isinstance(record, Event):
            self.breach(log, "LOG009", line, "an event before any header")
            return None
        read = definition(record, line)
        if isinstance(read, Damage):
            return self._unusual(log, run, read, line)
        if not read.zlock:
            if run is None:
                self.breach(log, "LOG009", line, "a definition before any header")
            else:
                run.line = line
                run.define(read)
            return run
        self._close(run)
        if read.zlock != VERSION:
            message = f"version {read.zlock} of the format; this reads version {VERSION}"
            self.breach(log, "LOG009", line, message)
            return None
        self._index += 1
        self.runs[self._index] = read.run
        self.headers[self._index] = {k: v for k, v in record.items() if isinstance(v, (str, int))}
        self.rules.begin(self._index)
        return LogRun(self, log, self._index, str(record.get("clock", "")))

    def _close(self, run: LogRun | None) -> None:
        """End a run: what it was stuck in, and its count."""
        if run is not None:
            self.events += run.events
            if run.index not in self.untrusted:
                self._end(run)
            # A run and its rules know each other, so it stays until the collector comes round.
            run.kept, run.foretold = [], []

    def _end(self, run: LogRun) -> None:
        """Judge a whole run: what it was stuck in, and what it could have been stuck in."""
        run.close()
        end = Standstill(run.index, run.threads, run.locks, run.sites)
        finding = end.deadlock() or end.lost_wakeup()
        if finding is not None:
            self.deadlocks.add(finding, 1)
        foretold = together(run.foretold)
        for each in foretold.findings:
            self.deadlocks.add(each.finding, each.patterns)
        for subject, count in foretold.dropped.items():
            self.deadlocks.drop(subject, count)
        if run.before.events and run.watch.may_circle():
            self.deadlocks.drop(("longer than the window of predictions", BEYOND % self.window), 1)
