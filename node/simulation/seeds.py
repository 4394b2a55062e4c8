"""Running one scenario for many seeds, and the failing one again.

RPYCHORD_SEED in the environment, one number or a range as in "100-200", says which seeds are run instead.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Coroutine
from typing import Any

from node.simulation.loop import run

VARIABLE = "RPYCHORD_SEED"


def seeds(n: int, first: int = 0) -> range:
    """The `n` seeds from `first` on, or those that RPYCHORD_SEED names."""
    chosen = os.environ.get(VARIABLE)
    if not chosen:
        return range(first, first + n)
    low, _, high = chosen.partition("-")
    return range(int(low), int(high or low) + 1)


def for_each_seed(
    n: int,
    scenario: Callable[[int], Coroutine[Any, Any, Any]],
    first: int = 0,
    *,
    shuffle: bool = False,
    max_steps: int = 100_000_000,
    max_seconds: float = 120.0,
) -> None:
    """Run `scenario(seed)` in a simulation of its own for each seed. Raises AssertionError that names the first seed
    that fails and how to run it again. The budgets are for each seed."""
    for seed in seeds(n, first):
        try:
            run(scenario(seed), seed=seed, shuffle=shuffle, max_steps=max_steps, max_seconds=max_seconds)
        except Exception as error:
            raise AssertionError(
                f"seed {seed}: {type(error).__name__}: {error}\n(again: {VARIABLE}={seed} and the same test)"
            ) from error
