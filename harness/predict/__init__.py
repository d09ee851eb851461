"""Deadlocks that a run did not reach but could have: patterns, proofs and refutations.

The input is one run's trace of locks, data, forks, joins, waits and signals. A *correct reordering*
executes a prefix of each thread, so that every read sees the write that it saw, every wake-up
follows what woke it, and locks exclude. A deadlock is predicted where some correct reordering ends
with a circle of threads, each at a request that the next one blocks.

References: Tunc, Mathur, Pavlogiannis, Viswanathan, "Sound dynamic deadlock prediction in linear
time" (sync-preserving closure); Bensalem, Havelund, "Dynamic deadlock analysis of multi-threaded
programs" (patterns, guard locks). Ours: read-write modes, joins and wake-ups in the same patterns,
and the bounded exhaustive search that decides what the closure leaves open.
"""

from __future__ import annotations

from harness.predict.judge import Prediction, predict
from harness.predict.trace import Trace

__all__ = ["Prediction", "Trace", "predict"]
