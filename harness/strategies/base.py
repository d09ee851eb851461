"""What a strategy is, and where it registers.

A strategy is a pure function of ``(seed, schedule)`` and of the program: nothing that an earlier
schedule did may reach a later one, except through the pilot schedule (which is itself such a
function), through the lore of the epochs before (see ``lore``) or, for a search that enumerates,
through the search's own stack. So a schedule can be run again anywhere, by its number alone.

A new strategy is one file with one ``@register``.
"""

from __future__ import annotations

import hashlib
import math
import struct
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, ClassVar, Final

from harness.errors import UsageError
from harness.strategies.lore import Lore
from harness.strategies.profile import Profile

if TYPE_CHECKING:
    from harness.engine.core import Choose, Core
    from harness.engine.thread import Thread
    from harness.strategies.lookout import Lookout

_REGISTRY: Final[dict[str, type[Strategy]]] = {}


class Options:
    """What the caller of ``explore`` may set.

    Attributes:
        seed: Not negative; the only source of randomness.
        depth: Ordering constraints that ``pct`` aims at, from 1.
        preemptions: Bound of ``dfs`` and ``dpor``; None explores all.
        length: Steps of the longest pilot schedule from its first decision on.
        threads: Threads of the pilot schedules, at most.
        profile: What the pilot schedules did.
    """

    __slots__ = ("depth", "length", "preemptions", "profile", "seed", "threads")

    def __init__(self, seed: int = 0, depth: int = 3, preemptions: int | None = None) -> None:
        """Check what a caller may get wrong.

        Raises:
            UsageError: A value out of its range.
        """
        if seed < 0:
            raise UsageError(f"seed must be 0 or more, got {seed}")
        if depth < 1:
            raise UsageError(
                f"depth must be at least 1 (it counts ordering constraints), got {depth}"
            )
        if preemptions is not None and preemptions < 0:
            raise UsageError(
                f"preemptions must be 0 or more, or None for no bound, got {preemptions}"
            )
        self.seed = seed
        self.depth = depth
        self.preemptions = preemptions
        self.length = 0
        self.threads = 1
        self.profile = Profile()

    def stream(self, name: str, schedule: int) -> int:
        """A seed for the random generator of one schedule of one strategy.

        Unequal arguments give unequal numbers, without anybody's ``hash()``.
        """
        return (int.from_bytes(name.encode(), "little") << 128) | (self.seed << 64) | schedule


class Blocks:
    """Random bytes of a strategy, 64 at a time, addressed by schedule and number of the block.

    BLAKE2b in counter mode: nothing has to be seeded for a schedule, which costs ``random.Random``
    more than a short schedule takes, and every Python gives the same bytes.
    """

    __slots__ = ("_base",)

    _counter: ClassVar = struct.Struct("<QQ").pack

    def __init__(self, name: str, seed: int) -> None:
        """Args: name: Of the strategy. seed: As in ``Options``, of any size."""
        size = max(8, (seed.bit_length() + 7) // 8)
        self._base = hashlib.blake2b(seed.to_bytes(size, "little"), person=name.encode()[:16])

    def of(self, schedule: int) -> Callable[[], bytes]:
        """A function that returns one block of ``schedule`` after the other."""
        base = self._base
        counter = self._counter
        number = -1

        def block() -> bytes:
            nonlocal number
            number += 1
            digest = base.copy()
            digest.update(counter(schedule, number))
            return digest.digest()

        return block


class Strategy:
    """Decides which thread takes the next step.

    Attributes:
        name: How callers ask for it.
        fair: Every enabled thread runs eventually, so a run that hits the step bound is a livelock.
        needs_pilot: Wants ``length`` and ``threads`` of ``Options`` measured first.
        needs_profile: Wants ``profile`` too, for which every step of the pilots is looked at.
        sequential: Schedule n is only reached through 1 to n-1; cannot be split over processes.
        bounded: Takes ``preemptions``.
        learns: Wants to be told by ``learn`` what earlier epochs showed, from about one in so many
            of their schedules; 0 for one that does not.
        samples: Schedules are random draws, so that what was seen bounds what was not.
    """

    name: ClassVar[str]
    fair: ClassVar[bool] = True
    needs_pilot: ClassVar[bool] = False
    needs_profile: ClassVar[bool] = False
    sequential: ClassVar[bool] = False
    bounded: ClassVar[bool] = False
    learns: ClassVar[int] = 0
    samples: ClassVar[bool] = True

    def __init__(self, options: Options) -> None:
        """Keep ``options``; they do not change afterwards."""
        self.options = options

    def begin(self, core: Core, schedule: int) -> Choose:
        """Return the ``choose`` of one schedule.

        ``choose`` is called once for each step with the operation of every enabled thread
        published. It counts the step, calls ``core.over()`` beyond the bound, and returns its
        choice. Where more than one thread is enabled, ``core.choices`` gets its index, at once or
        later; what is missing at the end are choices that let the running thread go on.
        """
        raise NotImplementedError

    def learn(self, lore: Lore) -> None:
        """Take in what is known at the beginning of an epoch; schedules of that epoch follow.

        Whatever was learned before is replaced: epochs may come in any order.
        """

    def member(self, schedule: int) -> str:
        """Which strategy decides schedule number ``schedule``; a portfolio has several."""
        return self.name

    def fair_in(self, schedule: int) -> bool:
        """Whether schedule number ``schedule`` is fair; a portfolio mixes both."""
        return self.fair

    @property
    def exhausted(self) -> bool:
        """Whether every schedule (within the bound) has been run."""
        return False

    @property
    def left(self) -> float | None:
        """An estimate of the schedules that are left; None where a search has no end."""
        return None


def register(strategy: type[Strategy]) -> type[Strategy]:
    """Make ``strategy`` known by its name."""
    if strategy.name in _REGISTRY:
        raise UsageError(f"a strategy named {strategy.name!r} is registered already")
    _REGISTRY[strategy.name] = strategy
    return strategy


def strategy_named(name: str) -> type[Strategy]:
    """Look a strategy up.

    Raises:
        UsageError: There is none of that name; the message lists those there are.
    """
    try:
        return _REGISTRY[name]
    except KeyError:
        # A store or a token of strangers may name anything.
        raise UsageError(f"unknown strategy {name[:80]!r}; known: {', '.join(names())}") from None


def names() -> list[str]:
    """Names of all strategies, sorted."""
    return sorted(_REGISTRY)


def numbers(block: Callable[[], bytes]) -> Callable[[], int]:
    """A function that returns one number below 2**32 after the other, from ``Blocks.of``."""
    drawn: list[int] = []

    def draw() -> int:
        if not drawn:
            drawn.extend(_NUMBERS.unpack(block()))
        return drawn.pop()

    return draw


_NUMBERS: Final = struct.Struct("<16I")


def deciding(
    core: Core,
    pick: Callable[[list[Thread]], Thread],
    *,
    always: bool = False,
    lookout: Lookout | None = None,
) -> Choose:
    """A ``choose`` around ``pick``, for strategies whose speed is not critical.

    Args:
        core: The engine.
        pick: Called with the enabled threads in the order of their creation.
        always: Call it also where one thread only can run; otherwise where there is a decision.
        lookout: Looks for threads that spin.
    """
    run = core.run
    record = core.choices.append

    def choose() -> Thread:
        core.steps = steps = core.steps + 1
        if steps > core.limit:
            again = itself()
            if lookout is not None and again is not None:
                return lookout.due(again)
            core.over()
        if len(run) == 1:
            return pick(run) if always else run[0]
        thread = pick(sorted(run, key=_index))
        record(thread.index)
        return thread

    # Were it to refer to itself, only the collector could free it and all of its schedule.
    itself = weakref.ref(choose)
    return choose


def diverged(core: Core, before: Sequence[int], enabled: Sequence[Thread]) -> None:
    """End the schedule: the same choices led somewhere else, the program is not deterministic.

    Args:
        core: The engine.
        before: Indexes of the threads that could run here in an earlier schedule.
        enabled: Threads that can run now.
    """
    names = [core.threads[i].name for i in before if i < len(core.threads)]
    now = [thread.name for thread in enabled]
    core.nondeterministic(
        f"after the same choices, step {core.steps} had {', '.join(names) or 'no thread'} "
        f"enabled before and has {', '.join(now)} now"
    )


def estimated_left(path: Iterable[tuple[int, int]], schedules: int) -> float:
    """How many schedules a depth-first search still has to run, about.

    Every alternative of a decision is taken to hold as much of the tree as its siblings.

    Reference: Knuth, "Estimating the Efficiency of Backtrack Programs", 1975; read backwards, as in
    Kilby, Slaney, Thiebaux and Walsh, "Estimating Search Tree Size", AAAI 2006, section 3.

    Args:
        path: For each decision from the root on, how many alternatives are done and how many are
            there or under way.
        schedules: Run so far.
    """
    done, share = 0.0, 1.0
    for over, still in path:
        share /= over + still
        done += over * share
    return schedules * (1 - done) / done if done else math.inf


def _index(thread: Thread) -> int:
    return thread.index
