"""The interleaving of a recorded schedule as a table: one lane per thread, one row per step.

A row's text begins in the lane of its thread and may run on over the lanes to its right, which are
empty in that row; so many threads fit, and the eye follows the indentation. Runs of steps in which
nothing switches are folded.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Iterator
from itertools import accumulate
from operator import attrgetter

import msgspec

from harness.trace.events import Site, Step, Story, ThreadState

ROWS_MAX = 40
_LANES_MAX = 6
# Lanes may be this narrow: names are readable where there are few, indentation is where there are
# many.
_LANE_MIN = {1: 11, 2: 11, 3: 11, 4: 8}
_LANE_MAX = 18
# Widths of the columns for places and for held locks, from the widest down; the first that leaves
# the operations enough room.
_WIDTHS = ((30, 26), (30, 16), (24, 12), (18, 8))
_TEXT_MIN = 12
# The final steps are the failure itself: always shown.
_TAIL = 8
# Waits for the end of threads: every parent does it, and it tells nothing.
_ENDS = frozenset({"join", "parallel"})
_TAKES = frozenset({"acquire", "try-acquire", "re-acquire", "read-acquire", "write-acquire"})


class Row(msgspec.Struct, frozen=True):
    """One line of the table.

    Attributes:
        key: Position: step number, then 0 for a thread found blocked before it, 1 for the step
            itself, 2 for the end of the schedule.
        thread: Index of the thread in whose lane the text stands.
        text: Operation and object.
        site: Where it stands in the source.
        held: Locks that the thread held.
        step: The step; None for the other rows.
    """

    key: tuple[int, int]
    thread: int
    text: str
    site: Site | None
    held: tuple[str, ...]
    step: Step | None = None


def place(site: Site | None, width: int = 0) -> str:
    """``file:line`` of a site.

    Args:
        site: The site; None gives the empty text.
        width: Where more than 0, the most columns: folders go first, from the left, then the
            beginning of the name.
    """
    if site is None:
        return ""
    text = f"{site.file}:{site.line}"
    while width and len(text) > width and "/" in text:
        text = text.partition("/")[2]
    if width and len(text) > width:
        text = f"…{text[1 - width :]}"
    return text


def compact(steps: Iterable[Step], width: int) -> str:
    """The schedule on one line: ``S0---P1--S0-!``.

    ``S`` and ``P`` name the thread that runs from here on, ``P`` where the switch was a preemption;
    each ``-`` is a step, ``{12}`` that many, ``!`` the failure.

    Args:
        steps: All steps of the schedule.
        width: The most columns; the beginning gives way, with the number of switches left out.
    """
    parts: list[str] = []
    run = 0
    last: int | None = None
    for step in steps:
        if step.thread != last:
            parts.append(_dashes(run))
            parts.append(f"{'P' if step.preemption else 'S'}{step.thread}")
            run = 0
        last = step.thread
        run += 1
    parts.append(_dashes(run) + "!")
    text = "".join(parts)
    if len(text) <= width:
        return text
    switches = [f"{mark}{dashes}" for mark, dashes in zip(parts[1::2], parts[2::2], strict=True)]
    kept: list[str] = []
    room = width - len("… 00000 switches, ")
    while switches and len(switches[-1]) <= room:
        room -= len(switches[-1])
        kept.append(switches.pop())
    return f"… {len(switches)} switches, {''.join(reversed(kept))}"


def _dashes(count: int) -> str:
    return "-" * count if count <= 5 else f"{{{count}}}"


def involved(story: Story) -> frozenset[int]:
    """Threads that the failure is about: in the cycle, blocked at the end, or where it struck."""
    index = {state.name: state.thread for state in story.final}
    found = {index[wait.thread] for wait in story.cycle if wait.thread in index}
    found |= {state.thread for state in stuck(story)}
    found |= {step.thread for step in story.steps[-1:]}
    found |= {step.thread for step in story.steps if step.preemption}
    return frozenset(found)


def table(story: Story, width: int) -> list[str]:
    """The lines of the table, header first; empty where the story has no steps.

    Args:
        story: A recorded failing schedule.
        width: The most columns of a line.
    """
    if not story.steps:
        return []
    names = {state.thread: state.name for state in story.final}
    names |= {step.thread: step.name for step in story.steps}
    lanes = _lanes(story, sorted(names))
    rows = _chosen(_rows(story), lanes, story)
    letters = _letters(rows)
    layout = _Layout(rows, {lane: names[lane] for lane in lanes}, letters, width)
    lines = [f"lock {letter} is {name}" for name, letter in letters.items()]
    if lines:
        lines.append("")
    lines.append(layout.header())
    lines += _folded(rows, story.steps, layout)
    shown = sum(row.step is not None for row in rows)
    if shown < story.steps[-1].step or len(lanes) < len(names):
        threads = f", {len(lanes)} of {len(names)} threads" if len(lanes) < len(names) else ""
        lines.append(f"({shown} of {story.steps[-1].step} steps shown{threads})")
    return lines


def _lanes(story: Story, threads: list[int]) -> list[int]:
    """Threads with a lane: all where they fit, else those involved, else the last that ran."""
    if len(threads) <= _LANES_MAX:
        return threads
    wanted = involved(story)
    lanes: list[int] = []
    for step in reversed(story.steps):
        if step.thread in wanted and step.thread not in lanes:
            lanes.append(step.thread)
    return sorted(lanes[:_LANES_MAX])


def _operation(kind: str, obj: str) -> str:
    return kind if obj in ("", "-") else f"{kind} {obj}"


def stuck(story: Story) -> list[ThreadState]:
    """Threads that wait for good; of those that only wait for others to end, none."""
    in_cycle = {wait.thread for wait in story.cycle}
    # A lost wakeup leaves nobody running, whoever ran last.
    lost = story.kind == "lost-wakeup"
    return [
        state
        for state in story.final
        if state.name in in_cycle
        or (state.state == "blocked" and state.kind not in _ENDS)
        or (lost and state.state == "running" and state.kind not in _ENDS)
    ]


def closing(story: Story) -> ThreadState | None:
    """The thread whose wait closed the cycle: it ran last."""
    in_cycle = {wait.thread for wait in story.cycle}
    inside = [state for state in story.final if state.name in in_cycle]
    last = story.steps[-1].thread if story.steps else None
    return max(inside, key=lambda state: (state.thread == last, state.published), default=None)


def _rows(story: Story) -> list[Row]:
    """Every row there could be, in order: steps, threads found blocked, the end."""
    rows = []
    for step in story.steps:
        text = _operation(step.kind, step.obj)
        # That a wait blocks is said by the wait.
        if step.waited and step.kind not in _ENDS and step.kind != "re-acquire":
            since = _blocked_since(story.steps, step.thread, step.published)
            if since < step.step:
                blocked = f"{text}  ✗ blocked"
                rows.append(Row((since, 0), step.thread, blocked, step.site, step.held))
        if step.outcome not in ("", "None"):
            text = f"{text} → {step.outcome}"
        if step.preemption:
            text = f"P {text}"
        rows.append(Row((step.step, 1), step.thread, text, step.site, step.held, step))
    rows += ends(story)
    return sorted(rows, key=attrgetter("key"))


def _blocked_since(steps: tuple[Step, ...], thread: int, published: int) -> int:
    """The first step from ``published`` on at which ``thread`` could not run."""
    first = steps[0].step
    for step in steps[max(0, published - first) :]:
        if thread not in step.enabled:
            return step.step
    return steps[-1].step + 1


def ends(story: Story) -> Iterator[Row]:
    """Where threads are blocked for good, and where the failure struck."""
    end = story.steps[-1].step + 1
    last = closing(story)
    waiting = stuck(story)
    for state in waiting:
        text = _operation(state.kind, state.obj)
        if state is last:
            yield Row((end, 2), state.thread, f"{text}  ✗ deadlock", state.site, state.held)
        elif story.kind == "lost-wakeup":
            yield Row((end, 2), state.thread, f"{text}  ✗ for good", state.site, state.held)
        else:
            since = _blocked_since(story.steps, state.thread, state.published)
            yield Row((since, 0), state.thread, f"{text}  ✗ blocked", state.site, state.held)
    # A lock order is wrong in the schedule as a whole, which went on to its end.
    if (
        last is None
        and story.kind != "lock-order"
        and not (waiting and story.kind == "lost-wakeup")
    ):
        yield Row((end, 2), story.steps[-1].thread, f"✗ {story.kind}", None, ())


def _chosen(rows: list[Row], lanes: list[int], story: Story) -> list[Row]:
    """The rows worth showing, at most ``ROWS_MAX`` with the folds between them."""
    rows = [row for row in rows if row.thread in lanes]
    positions = {(row.key, row.thread): i for i, row in enumerate(rows)}
    first, last = story.steps[0].step, story.steps[-1].step
    chosen: list[int] = []
    for row in _by_worth(rows, story):
        position = positions[row.key, row.thread]
        at = bisect.bisect_left(chosen, position)
        if at < len(chosen) and chosen[at] == position:
            continue
        chosen.insert(at, position)
        if len(chosen) + _gaps(chosen, rows, first, last) > ROWS_MAX:
            chosen.pop(at)
            break
    return [rows[position] for position in _unfolded(chosen, rows)]


def _unfolded(chosen: list[int], rows: list[Row]) -> list[int]:
    """Rows in place of folds that would hide one row only: as short, and they say more."""
    shown: list[int] = []
    for position in chosen:
        if shown and position - shown[-1] == 2 and rows[position - 1].key[1] == 1:
            shown.append(position - 1)
        shown.append(position)
    return shown


def _by_worth(rows: list[Row], story: Story) -> Iterator[Row]:
    """Rows around switches, the most telling first; some come up more than once."""
    yield from (row for row in rows if row.key[1] == 2)
    steps = [row for row in rows if row.step is not None]
    yield from reversed(steps[-_TAIL:])
    held_up = {
        (_blocked_since(story.steps, state.thread, state.published), state.thread)
        for state in stuck(story)
    }
    yield from (row for row in rows if row.key[1] == 0 and (row.key[0], row.thread) in held_up)
    yield from _takes(rows, story)
    yield from steps[:1]
    yield from reversed([row for row in steps if row.step is not None and row.step.preemption])
    for i in range(len(rows) - 1, 0, -1):
        if rows[i].thread != rows[i - 1].thread:
            yield rows[i]
            yield rows[i - 1]


def _takes(rows: list[Row], story: Story) -> Iterator[Row]:
    """For each edge of the cycle, the step at which its holder took what is wanted."""
    for wait in story.cycle:
        for row in reversed(rows):
            step = row.step
            if step is None or step.name != wait.holder or step.obj != wait.wants:
                continue
            if step.kind in _TAKES:
                yield row
                break


def _gaps(chosen: list[int], rows: list[Row], first: int, last: int) -> int:
    """How many fold lines stand between the chosen rows."""
    before = first - 1
    gaps = 0
    for position in chosen:
        number, part = rows[position].key
        gaps += before < number - 1
        before = max(before, number if part == 1 else number - 1)
    return gaps + (before < last)


def _letters(rows: list[Row]) -> dict[str, str]:
    """A letter for each lock that is held, where their names are too long for a column."""
    if all(len(" ".join(row.held)) <= _WIDTHS[1][1] for row in rows):
        return {}
    names = list(dict.fromkeys(name for row in rows for name in row.held))
    if len(names) > 26:
        return {}
    return {name: chr(ord("A") + i) for i, name in enumerate(names)}


class _Layout:
    """Where the columns of one table stand."""

    def __init__(
        self, rows: list[Row], names: dict[int, str], letters: dict[str, str], width: int
    ) -> None:
        self.letters = letters
        self.width = width
        self._names = names
        self._number = max([4, *(len(str(row.key[0])) for row in rows)])
        rank = {lane: i for i, lane in enumerate(names)}
        self._lane_min = _LANE_MIN.get(len(names), 5)
        ends = [rank[row.thread] * self._lane_min + len(self._text(row)) for row in rows]
        needed = max([20, *ends])
        for self._site_max, self._held_max in _WIDTHS:
            self._site = max([5, *(len(place(row.site, self._site_max)) for row in rows)])
            self._held = max([4, *(len(self._holds(row)) for row in rows)])
            self._area = width - self._number - self._site - self._held - 6
            if self._area >= needed:
                break
        self._starts = self._place_lanes(rows)

    def _place_lanes(self, rows: list[Row]) -> dict[int, int]:
        """Lanes as wide as their text where that fits; else even, texts running on rightwards."""
        lanes = list(self._names)
        wide = {lane: len(self._title(lane)) + 2 for lane in lanes}
        for row in rows:
            wide[row.thread] = max(wide[row.thread], len(self._text(row)) + 2)
        if sum(wide.values()) > self._area + 2:
            rank = {lane: i for i, lane in enumerate(lanes)}
            room = [
                (self._area - len(self._text(row))) // rank[row.thread]
                for row in rows
                if rank[row.thread]
            ]
            most = (self._area - _TEXT_MIN) // max(1, len(lanes) - 1)
            each = max(self._lane_min, min([_LANE_MAX, *room]))
            wide = dict.fromkeys(lanes, max(1, min(each, most)))
        return dict(zip(lanes, accumulate([0, *wide.values()]), strict=False))

    def _title(self, lane: int) -> str:
        return f"{lane} {self._names[lane]}"

    def _text(self, row: Row) -> str:
        text = row.text
        for name, letter in self.letters.items():
            if f" {name}" in text:
                head, _, tail = text.partition(f" {name}")
                if tail[:1] in ("", " "):
                    text = f"{head} {letter}{tail}"
        return text

    def _holds(self, row: Row) -> str:
        text = " ".join(self.letters.get(name, name) for name in row.held)
        return text if len(text) <= self._held_max else f"{text[: self._held_max - 1]}…"

    def header(self) -> str:
        """The names of the columns; thread names give way where lanes are narrow."""
        starts = [*self._starts.values(), self._area]
        titles = ""
        for i, lane in enumerate(self._starts):
            room = starts[i + 1] - starts[i] - 1
            title = self._title(lane)
            if len(title) > room:
                title = f"{title[: max(1, room - 1)]}…"
            titles = titles.ljust(starts[i]) + title
        return self._line("step", titles, "where", "held")

    def line(self, row: Row) -> str:
        """One row."""
        indent = " " * self._starts[row.thread]
        text = self._text(row)
        room = self._area - len(indent)
        if len(text) > room:
            # The mark at the end says more than the end of a name.
            head, mark, tail = text.rpartition("  ✗")
            keep = f"{mark}{tail}" if head else ""
            kept = max(1, room - 1 - len(keep))
            text = f"{(head or text)[:kept]}…{keep}"[:room]
        number = str(row.key[0]) if row.step is not None else ""
        return self._line(number, indent + text, place(row.site, self._site_max), self._holds(row))

    def fold(self, steps: tuple[Step, ...]) -> str:
        """A line in place of ``steps``."""
        text = f"… {len(steps)} step{'s' if len(steps) > 1 else ''} ({', '.join(_who(steps))})"
        return self._line("", text, "", "")[: self.width]

    def _line(self, number: str, text: str, where: str, held: str) -> str:
        cells = (number.rjust(self._number), text.ljust(self._area), where.ljust(self._site), held)
        return "  ".join(cells).rstrip()


def _folded(rows: list[Row], steps: tuple[Step, ...], layout: _Layout) -> Iterator[str]:
    """The rows' lines with the runs between them folded."""
    offset = steps[0].step - 1
    before = offset
    for row in rows:
        number, part = row.key
        if before < number - 1:
            yield layout.fold(steps[before - offset : number - 1 - offset])
        before = max(before, number if part == 1 else number - 1)
        yield layout.line(row)
    if before < steps[-1].step:
        yield layout.fold(steps[before - offset :])


def _who(steps: tuple[Step, ...]) -> list[str]:
    """Who took those steps, in the order of appearance; no more than fit a line."""
    names = list(dict.fromkeys(step.name for step in steps))
    return [*names[:4], f"{len(names) - 4} more"] if len(names) > 5 else names
