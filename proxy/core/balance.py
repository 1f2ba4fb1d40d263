"""The order of the targets within a tier: who is asked first, and who follows.

- ``weighted``: drawn by weight for every request; the others follow, drawn by theirs.
- ``fastest``: by the time to a first answer that was lately seen. What was seen fades: half of it is gone every
  `HALF_LIFE_S`, so a target that was slow or down is asked again by and by, and one that was never asked is asked first.

- ``cheapest``: by what they charge now, those whose price nobody knows last.
- ``sticky``: by the beginning of the prompt, so that requests which share it meet at one target, whose provider has it in
  its prompt cache. Shares follow the weights, and when a target joins or leaves only its own requests move.

A tier without a balance keeps the file's order. Held by `tests/core/test_balance.py`.
"""

import hashlib
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import orjson

from proxy.core.routing import Balance, Target, Tier
from proxy.terms import TargetName

HALF_LIFE_S: Final = 300.0
NEWEST_SHARE: Final = 0.2  # of the latest answer in the running mean
PREFIX_BYTES: Final = 4096
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
    tiers: Sequence[Tier],
    speeds: Speeds,
    rng: random.Random,
    now: float,
    *,
    streamed: bool,
    affinity: Callable[[], bytes] = bytes,
    rank: Callable[[Sequence[Target]], Sequence[Target]] = tuple,
) -> tuple[Target, ...]:
    """The targets of all tiers, in the order in which to ask them.

    ``affinity`` is called where a tier is sticky, ``rank`` where the cheapest is first.
    """
    ordered: list[Target] = []
    for tier in tiers:
        match tier.balance:
            case Balance.WEIGHTED:
                ordered += _drawn(tier, rng)
            case Balance.FASTEST:
                ordered += sorted(
                    tier.targets, key=lambda target: speeds.expected_s(target, now, streamed=streamed)
                )  # stable: equals keep the file's order
            case Balance.CHEAPEST:
                ordered += rank(tier.targets)
            case Balance.STICKY:
                ordered += _sticking(tier, affinity())
            case None:
                ordered += tier.targets
    return tuple(ordered)


def _drawn(tier: Tier, rng: random.Random) -> list[Target]:
    """Drawn one after the other, each with its share of the weights that are left.

    Source: Efraimidis and Spirakis, Weighted random sampling with a reservoir (2006): sorting by u**(1/w) does just that.
    """
    draws = [(rng.random() ** (1 / weight), index) for index, weight in enumerate(tier.weights)]
    return [tier.targets[index] for _, index in sorted(draws, reverse=True)]


def _sticking(tier: Tier, prefix: bytes) -> list[Target]:
    """By weighted rendezvous: each target draws a number from the prefix and its own name, and the highest is first.

    Source: Schindelhauer and Schomaker, Weighted distributed hash tables (2005).
    """
    draws = []
    for index, (target, weight) in enumerate(zip(tier.targets, tier.weights, strict=True)):
        digest = hashlib.blake2b(target.name.encode() + b"\n" + prefix, digest_size=8).digest()
        share = (int.from_bytes(digest) + 1) / (2**64 + 1)
        draws.append((-weight / math.log(share), -index))
    return [tier.targets[-index] for _, index in sorted(draws, reverse=True)]


def prompt_prefix(fields: Mapping[str, Any]) -> bytes:
    """What a request shares with those that its provider's prompt cache may serve it from.

    The client's own `prompt_cache_key` where it names one. Else the instructions and the messages, from the first on and
    without the last, up to `PREFIX_BYTES`: what comes later differs, and what is shorter is cached by nobody (OpenAI begins
    at 1,024 tokens, Anthropic likewise; read 2026-11-21).
    """
    named = fields.get("prompt_cache_key")
    if type(named) is str and named:
        return named.encode("utf-8", "replace")[:PREFIX_BYTES]
    prefix = b""
    for part in _prompt(fields):
        prefix += _dumped(part)
        if len(prefix) >= PREFIX_BYTES:
            break
    return prefix[:PREFIX_BYTES]


def _prompt(fields: Mapping[str, Any]) -> Iterator[Any]:
    for name in ("instructions", "system"):
        if fields.get(name):
            yield fields[name]
    turns = fields.get("messages") or fields.get("input") or fields.get("prompt") or ()
    if type(turns) is not list:
        yield turns
    elif len(turns) == 1:
        yield turns[0]
    else:
        yield from turns[:-1]


def _dumped(part: Any) -> bytes:
    try:
        return orjson.dumps(part)
    except orjson.JSONEncodeError:  # a lone surrogate
        return repr(part).encode("utf-8", "replace")
