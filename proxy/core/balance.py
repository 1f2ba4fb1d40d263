"""The order of the targets within a tier: who is asked first, and who follows.

- ``weighted``: drawn by weight for every request; the others follow, drawn by theirs.
- ``fastest``: by the time to a first answer that was lately seen. What was seen fades: half of it is gone every
  `HALF_LIFE_S`, so a target that was slow or down is asked again by and by, and one that was never asked is asked first.

A tier without a balance keeps the file's order. Held by `tests/core/test_balance.py`.
"""

import random
from collections.abc import Sequence
from typing import Final

from proxy.core.routing import Balance, Target, Tier
from proxy.terms import TargetName

HALF_LIFE_S: Final = 300.0
NEWEST_SHARE: Final = 0.2  # of the latest answer in the running mean
FAILED_S: Final = 10.0  # what a failure counts as, beyond the time that it took


class Speeds:
    """How fast each target has answered lately, streams apart from whole answers. Bounded by the targets of the file."""

    __slots__ = ("_seen",)

    def __init__(self) -> None:
        self._seen: dict[tuple[TargetName, bool], tuple[float, float]] = {}  # mean in seconds, when it was made

    def note(self, target: Target, took_s: float, now: float, *, streamed: bool, failed: bool) -> None:
        seconds = took_s + FAILED_S if failed else took_s
        key = target.name, streamed
        before = self._seen.get(key)
        mean = seconds if before is None else before[0] + NEWEST_SHARE * (seconds - before[0])
        self._seen[key] = mean, now

    def expected_s(self, target: Target, now: float, *, streamed: bool) -> float:
        """The time to expect, faded; 0 where nothing is known."""
        mean, at = self._seen.get((target.name, streamed), (0.0, now))
        return mean * float(0.5 ** (max(0.0, now - at) / HALF_LIFE_S))


def order(
    tiers: Sequence[Tier], speeds: Speeds, rng: random.Random, now: float, *, streamed: bool
) -> tuple[Target, ...]:
    """The targets of all tiers, in the order in which to ask them."""
    ordered: list[Target] = []
    for tier in tiers:
        match tier.balance:
            case Balance.WEIGHTED:
                ordered += _drawn(tier, rng)
            case Balance.FASTEST:
                ordered += sorted(
                    tier.targets, key=lambda target: speeds.expected_s(target, now, streamed=streamed)
                )  # stable: equals keep the file's order
            case None:
                ordered += tier.targets
    return tuple(ordered)


def _drawn(tier: Tier, rng: random.Random) -> list[Target]:
    """Drawn one after the other, each with its share of the weights that are left.

    Source: Efraimidis and Spirakis, Weighted random sampling with a reservoir (2006): sorting by u**(1/w) does just that.
    """
    draws = [(rng.random() ** (1 / weight), index) for index, weight in enumerate(tier.weights)]
    return [tier.targets[index] for _, index in sorted(draws, reverse=True)]
