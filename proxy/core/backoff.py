"""How long to wait before something is tried again: capped exponential, with jitter; and how often the same target is."""

import random
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class BackoffPolicy:
    """Units: seconds. ``jitter``: the share by which a delay may be shorter or longer."""

    first_s: float = 0.1
    factor: float = 2.0
    max_s: float = 5.0
    jitter: float = 0.25


@dataclass(frozen=True, slots=True)
class RetryPolicy(BackoffPolicy):
    """``attempts``: the most sends to one target. ``budget``: how many repeats and hedges there may be, as a share of all
    requests of the process.
    """

    attempts: int = 3
    budget: float = 0.2


STANDARD: Final = RetryPolicy()


def delay(repeat: int, policy: BackoffPolicy, rng: random.Random) -> float:
    """The wait before repeat number `repeat` (from 1). Units: seconds."""
    exact = min(policy.first_s * policy.factor ** (repeat - 1), policy.max_s)
    return exact * (1 + policy.jitter * (2 * rng.random() - 1))
