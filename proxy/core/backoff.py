"""How long to wait before the same target is asked again: capped exponential, with jitter."""

import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BackoffPolicy:
    """Units: seconds. ``jitter`` is the share by which a delay may be shorter or longer."""

    first_s: float = 0.1
    factor: float = 2.0
    max_s: float = 5.0
    jitter: float = 0.25


def delay(repeat: int, policy: BackoffPolicy, rng: random.Random) -> float:
    """The wait before repeat number `repeat` (from 1). Units: seconds."""
    exact = min(policy.first_s * policy.factor ** (repeat - 1), policy.max_s)
    return exact * (1 + policy.jitter * (2 * rng.random() - 1))
