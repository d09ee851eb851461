"""A failing schedule as a person reads it: what, where, how it came about, how to replay it.

Pure functions of a ``Story``: no colour, no terminal, nothing that differs between two recordings.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from harness.trace.events import Site, Step, Story, ThreadState, Wait, writable
from harness.trace.interleaving import closing, compact, place, stuck, table

_FRAMES_MAX = 4
_ONE = {
    "threads": "thread",
    "steps": "step",
    "switches": "switch",
    "preemptions": "preemption",
}
_FRAME = re.compile(r'^(\s*)File "(?P<file>[^"]+)", line (?P<line>\d+)(?:, in (?P<name>.+))?$')
# What ends a wait of which kind; for "was it signalled at all?".
_SIGNALS: Mapping[str, tuple[str, ...]] = {
    "wait": ("notify", "set"),
    "event-wait": ("event-set",),
    "queue-block": ("queue-wake",),
    "sem-acquire": ("sem-release",),
}


def render(
    story: Story,
    *,
    replay_command: str,
    width: int = 100,
    facts: Mapping[str, object] | None = None,
) -> str:
    """The report of one failing schedule; its last line is the replay command.

    Args:
        story: The schedule, recorded in full.
        replay_command: What a reader pastes to see it again: a POSIX shell's command, or a call
            whose last argument is the token. Wider than ``width``, it is broken so that shell or
            Python joins it again.
        width: The most columns of any line.
        facts: What else the head says, in this order: ``scenario`` (or ``program``) names what
            failed, every other one is shown as "name value".
    """
    told = dict(facts or {})
    lines = _head(story, told, width)
    for section in (
        _what(story, width),
        _traceback(story, width),
        _lock_findings(story, width),
        table(story, width),
        _schedule(story, width),
    ):
        if section:
            lines += ["", *section]
    lines += ["", "replay it:", *command_lines(replay_command, width)]
    return writable("\n".join(lines))


def _head(story: Story, facts: dict[str, object], width: int) -> list[str]:
    """Kind and place, then the numbers."""
    program = facts.pop("scenario", None) or facts.pop("program", None)
    title = story.kind or "no failure"
    if program:
        title = f"{title} in {program}"
    where = _strikes(story)
    if where:
        title = f"{title}, at {where}"
    switches = sum(a.thread != b.thread for a, b in zip(story.steps, story.steps[1:], strict=False))
    numbers: dict[str, Any] = {
        "threads": len(story.final) or len({step.thread for step in story.steps}),
        "steps": len(story.steps),
        "switches": switches,
        "preemptions": sum(step.preemption for step in story.steps),
    }
    numbers = {name: facts.pop(name, value) for name, value in numbers.items()}
    said = [f"{n} {_ONE[name] if n == 1 else name}" for name, n in numbers.items()]
    said += [f"{name} {value}" for name, value in facts.items()]
    # Unbreakable inside each, so that a number never ends up without its name.
    told = _wrapped(", ".join(text.replace(" ", "\0") for text in said), width, "  ")
    return [*_wrapped(title, width), *(line.replace("\0", " ") for line in told)]


def _strikes(story: Story) -> str:
    """Where the failure struck: the last frame of its exception, or the place of the last wait."""
    frames = _frames(story.exception_text)
    if frames:
        match = _FRAME.match(frames[-1][0])
        if match is not None:
            file = match["file"]
            name = match["name"]
            return f"{file}:{match['line']}" + (f" in {name}" if name else "")
    if story.cycle:
        last = closing(story)
        return _in(story.cycle[0].site if last is None else last.site)
    if story.kind in ("lost-wakeup", "lock-order"):
        # One strikes where nobody runs; the other has a place for each of its edges, named below.
        return ""
    return _in(story.steps[-1].site) if story.steps else ""


def _in(site: Site | None) -> str:
    return "" if site is None else f"{place(site)} in {site.qualname.rpartition('.<locals>.')[2]}"


def _what(story: Story, width: int) -> list[str]:
    """The cycle, the threads that nobody will wake, or the message with its values."""
    if story.cycle:
        return [line for wait in story.cycle for line in _edge(wait, width)]
    lines = [line for text in story.message.splitlines() for line in _wrapped(text, width, "  ")]
    if story.kind == "lost-wakeup":
        lines = [line for state in stuck(story) for line in _asleep(state, story, width)] or lines
    return lines


def _edge(wait: Wait, width: int) -> Iterator[str]:
    """One edge of the cycle: who wants what, who has it, and where both came to it."""
    verb = "waits for" if wait.wants != wait.holder else f"waits ({wait.kind}) for"
    held = "" if wait.wants == wait.holder else f", held by {wait.holder}"
    yield from _wrapped(f"{wait.thread} {verb} {wait.wants}{held}", width, "  ")
    if wait.site is not None:
        yield from _wrapped(f"wanted at {_in(wait.site)}", width, "      ")
    if wait.held_since is not None:
        yield from _wrapped(f"taken at  {_in(wait.held_since)}", width, "      ")


def _asleep(state: ThreadState, story: Story, width: int) -> Iterator[str]:
    """A thread that waits for good, and what became of the signal."""
    yield from _wrapped(f"{state.name} waits for good: {state.kind} {state.obj}", width, "  ")
    if state.site is not None:
        yield from _wrapped(f"waiting at  {_in(state.site)}", width, "      ")
    kinds = _SIGNALS.get(state.kind)
    if kinds is None:
        return
    signals = [step for step in story.steps if step.obj == state.obj and step.kind in kinds]
    yield from _wrapped(f"signalled   {_signalled(signals, state)}", width, "      ")


def _signalled(signals: list[Step], state: ThreadState) -> str:
    if not signals:
        return "never"
    last = signals[-1]
    since = (
        f" before the wait began (step {state.published})" if last.step < state.published else ""
    )
    return f"last at step {last.step} by {last.name}, {place(last.site)}{since}"


def _frames(exception_text: str) -> list[list[str]]:
    """The frames of a traceback, each with its source line."""
    frames: list[list[str]] = []
    for line in exception_text.splitlines():
        match = _FRAME.match(line)
        if match is not None:
            frames.append([line])
        elif frames and line.startswith("    "):
            frames[-1].append(line)
    return frames


def _traceback(story: Story, width: int) -> list[str]:
    """The last frames of the exception, then what it says; nothing where there was none."""
    if not story.exception_text:
        return []
    frames = _frames(story.exception_text)
    lines = []
    if len(frames) > _FRAMES_MAX:
        lines.append(f"  … {len(frames) - _FRAMES_MAX} outer frames")
    for frame in frames[-_FRAMES_MAX:]:
        match = _FRAME.match(frame[0])
        assert match is not None, "only lines that match begin a frame"
        name = f" in {match['name']}" if match["name"] else ""
        lines += _wrapped(f"{match['file']}:{match['line']}{name}", width, "  ")
        # Below the source line stand carets, which differ between Pythons and say nothing new here.
        lines += [_cut(f"      {text.strip()}", width) for text in frame[1:2]]
    last = story.exception_text.strip().splitlines()[-1]
    if not last.strip().endswith(story.message.splitlines()[-1] if story.message else last):
        lines += _wrapped(last.strip(), width, "  ")
    return lines


def _lock_findings(story: Story, width: int) -> list[str]:
    lines = []
    for finding in story.lock_findings:
        for text in finding.splitlines():
            if text == story.message:
                continue
            indent = " " * (2 + len(text) - len(text.lstrip()))
            lines += _wrapped(text.strip(), width, indent)
    return lines


def _schedule(story: Story, width: int) -> list[str]:
    if not story.steps:
        return []
    label = "schedule  "
    return [f"{label}{compact(story.steps, width - len(label))}"]


def _wrapped(text: str, width: int, indent: str = "") -> list[str]:
    return textwrap.wrap(
        text,
        width,
        initial_indent=indent,
        subsequent_indent=indent + ("  " if text else ""),
        break_on_hyphens=False,
    )


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"


def command_lines(command: str, width: int = 100) -> list[str]:
    """The command, broken where it is too wide so that a shell, or Python, reads the same."""
    if len(command) <= width:
        return [command]
    call = re.fullmatch(r"([\w.]+\()(.*), '([^']*)'\)", command)
    if call is not None:
        token = call[3]
        chunks = [token[at : at + width - 7] for at in range(0, len(token), width - 7)]
        quoted = [f"    '{chunk}'" for chunk in chunks]
        return [f"{call[1]}{call[2]},", *quoted[:-1], f"{quoted[-1]})"]
    # A backslash at the end of a line joins it with the next, also inside double quotes.
    lines = []
    line = ""
    for word in command.split(" "):
        grown = f"{line} {word}" if line else word
        if len(grown) <= width - 2:
            line = grown
            continue
        if line:
            lines.append(f"{line} \\")
        line = word
        while len(line) > width:
            lines.append(f"{line[: width - 1]}\\")
            line = line[width - 1 :]
    return [*lines, line]
