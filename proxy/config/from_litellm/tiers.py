"""The deployments of one name as tiers: by `order` first, and within an order by what LiteLLM weighs them with."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from math import gcd, inf, lcm
from typing import Final

from proxy.config.from_litellm.deployments import WEIGHTS, Deployment
from proxy.config.from_litellm.endpoints import Endpoint
from proxy.config.from_litellm.source import Source, reason
from proxy.config.scalars import WEIGHT_MAX

WEIGHTED: Final = "weighted"
_FINEST_WEIGHT: Final = 1000  # LiteLLM takes fractions, Penstock whole numbers


@dataclass(frozen=True, slots=True)
class Share:
    """A target, and how much of its tier's requests it gets. ``weight`` None: the order of the tier does not ask for it."""

    deployment: Deployment
    endpoint: Endpoint
    weight: float | None = None

    @property
    def target(self) -> tuple[Endpoint, str]:
        return self.endpoint, self.deployment.model


Tier = tuple[Share, ...]


def tiers(source: Source, deployments: Iterable[Deployment], balance: str) -> Iterator[Tier]:
    """Those of the lowest `order` first, those without one last; within an order those without a weight last."""
    by_order: dict[float, list[Share]] = {}
    for one in deployments:
        if one.endpoint is not None:
            by_order.setdefault(inf if one.order is None else one.order, []).append(Share(one, one.endpoint))
    for order in sorted(by_order):
        if balance == WEIGHTED:
            yield from _weighted(source, by_order[order])
        else:
            for share in by_order[order]:
                _lose(source, share.deployment, WEIGHTS, "that routing strategy does not look at weights")
            yield tuple(by_order[order])


def _weighted(source: Source, shares: list[Share]) -> Iterator[Tier]:
    """LiteLLM weighs by the first of weight, rpm and tpm that is there, and evenly where none is."""
    key = next((key for key in WEIGHTS if any(key in one.deployment.weights for one in shares)), None)
    weighted: list[Share] = []
    spare: list[Share] = []
    for share in shares:
        one = share.deployment
        weight = 1.0 if key is None else one.weights.get(key)
        if weight is None:
            spare.append(Share(one, share.endpoint, 1.0))
            source.note(one.path, f"it has no {key}, so it is tried after those that have one")
        elif weight == 0:
            source.note(one.path, f"left out: its {key} is 0, so LiteLLM does not pick it")
        else:
            weighted.append(Share(one, share.endpoint, weight))
        weighs = key if len(shares) > 1 else None
        _lose(source, one, [limit for limit in ("rpm", "tpm") if limit != weighs])
        if weighs in {"rpm", "tpm"} and weighs in one.weights:
            source.note(one.places[weighs], f"carried over as a weight alone: {reason(weighs)}")
    yield from (tuple(tier) for tier in (weighted, spare) if tier)


def _lose(source: Source, deployment: Deployment, keys: Iterable[str], why: str | None = None) -> None:
    for key in keys:
        if key in deployment.weights:
            source.lost(deployment.places[key], why if key == "weight" else None)


def fresh(source: Source, tier: Tier, seen: set[tuple[Endpoint, str]]) -> Tier:
    """The tier without the targets that were seen before, and with each of its own once."""
    made: dict[tuple[Endpoint, str], Share] = {}
    for share in tier:
        known = made.get(share.target)
        if share.target in seen:
            continue
        if known is None:
            made[share.target] = share
            continue
        source.note(share.deployment.path, "the same target as another of its name: here both are one")
        if known.weight is not None and share.weight is not None:
            made[share.target] = Share(known.deployment, known.endpoint, known.weight + share.weight)
    return tuple(made.values())


def whole(weights: list[float]) -> list[int]:
    """Weights as the smallest whole numbers in the same proportion; beyond `WEIGHT_MAX` as near to it as they can be."""
    parts = [max(Fraction(weight).limit_denominator(_FINEST_WEIGHT), Fraction(1, _FINEST_WEIGHT)) for weight in weights]
    common = lcm(*(part.denominator for part in parts))
    numbers = [int(part * common) for part in parts]
    shared = gcd(*numbers) or 1
    largest = max(numbers) // shared
    if largest <= WEIGHT_MAX:
        return [number // shared for number in numbers]
    return [max(number // shared * WEIGHT_MAX // largest, 1) for number in numbers]
