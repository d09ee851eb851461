"""What earlier schedules of an exploration showed, for strategies that learn from it.

Learning goes by *epochs* of fixed boundaries. What is known in an epoch comes from those schedules
of earlier epochs that were looked at, and which ones is a function of their number. So a schedule
is still named by the seed and its number alone: to run one by itself takes the looked-at schedules
of the earlier epochs again, not all of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

# Schedules of the first epochs, a multiple of the block that work is divided into; so many epochs
# are of one length, then the length doubles.
EPOCH: Final = 64
_ALIKE: Final = 4
# Epochs double in length as often until fewer of their schedules are looked at, so that what is
# kept of an epoch stays as it is: beyond schedule 65,280.
_THIN_ROUNDS: Final = 8
UNIT: Final = 1_024
# Fibonacci hashing: no member of a rotation of strategies is left out.
_SPREAD: Final = 0x9E3779B97F4A7C15


def spread(schedule: int) -> int:
    """A number below 2**24 that is spread evenly over every arithmetic sequence of schedules."""
    return (schedule * _SPREAD & (1 << 64) - 1) >> 40


def epoch_of(schedule: int) -> int:
    """The epoch of schedule number ``schedule``, from 0."""
    rounds = ((schedule - 1) // (EPOCH * _ALIKE) + 1).bit_length() - 1
    within = (schedule - 1 - EPOCH * _ALIKE * ((1 << rounds) - 1)) // (EPOCH << rounds)
    return rounds * _ALIKE + within


def first_of(epoch: int) -> int:
    """The first schedule of an epoch."""
    rounds, within = divmod(epoch, _ALIKE)
    return EPOCH * (_ALIKE * ((1 << rounds) - 1) + (within << rounds)) + 1


def thinning(schedule: int) -> int:
    """By how many doublings fewer schedules are looked at around this one than at the beginning."""
    rounds = ((schedule - 1) // (EPOCH * _ALIKE) + 1).bit_length() - 1
    return max(0, rounds - _THIN_ROUNDS + 1)


def learned_from(epoch: int, every: int) -> Iterator[int]:
    """Schedules of an epoch that are looked at; see ``teaches``."""
    for schedule in range(first_of(epoch), first_of(epoch + 1)):
        if teaches(schedule, every):
            yield schedule


def teaches(schedule: int, every: int) -> bool:
    """Whether schedule number ``schedule`` is looked at.

    Args:
        schedule: From 1.
        every: About one in so many is, beyond the first epoch; 0 for none. Of long explorations
            fewer, see ``thinning``.
    """
    if every <= 0 or spread(schedule) % every:
        return every > 0 and schedule <= EPOCH
    return spread(schedule) % (every << thinning(schedule)) == 0


@dataclass(frozen=True)
class Lore:
    """What is known at the beginning of an epoch.

    Attributes:
        looked: Schedules looked at, by member of the strategy, ``UNIT`` for each; what is an epoch
            older counts half.
        fresh: The same of those that showed something new: a new class of schedules counts for a
            quarter of two operations in an order that was never seen.
        corpus: Choices of schedules that showed something new, the newest last.
        length: Steps of the longest, from its first decision on.
    """

    looked: dict[str, int] = field(default_factory=dict)
    fresh: dict[str, int] = field(default_factory=dict)
    corpus: tuple[Sequence[int], ...] = ()
    length: int = 0


NOTHING: Final = Lore()
