"""Strategies: who takes the next step. Importing this package registers all of them."""

from harness.strategies import (
    dfs,
    dpor,
    mutate,
    pct,
    portfolio,
    pos,
    random_walk,
    round_robin,
    surw,
    urw,
)
from harness.strategies.base import Options, Strategy, names, register, strategy_named

__all__ = [
    "Options",
    "Strategy",
    "dfs",
    "dpor",
    "mutate",
    "names",
    "pct",
    "portfolio",
    "pos",
    "random_walk",
    "register",
    "round_robin",
    "strategy_named",
    "surw",
    "urw",
]
