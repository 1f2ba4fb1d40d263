"""What an answer costs, what a request may cost at most, and which of several targets is the cheapest.

Everything is counted in pico-USD, which is exact, and rounded up to nano-USD once an entry; there is no float here. Audio is
charged by the minute and counted in milliseconds, so sums are kept in sixty-thousandths of a pico-USD.

The price of an answer is, in this order: what the provider itself reports; the configured price; 0 for a server of one's
own; the price list; and where none of them knows, what the route's policy says. A `Charge` says which it was.

Not handled: discounts and surcharges that a request asks for (batches, `service_tier`), and fees for tools that run at the
provider and are not counted in its usage. Held by `tests/core/test_cost.py` against arithmetic with fractions.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Final, NamedTuple, TypeVar

from proxy.core.prompt import Prompt
from proxy.core.tariff import MINUTE_MS, Price, Rates, Tariff, Unpriced
from proxy.terms import NanoUsd, PriceSource, Usage

OUTPUT_TOKENS_DEFAULT: Final = 4096  # the largest cap that is inserted where a target names no maximum
OUTPUT_TOKENS_MIN: Final = 256  # with less than that an answer is of no use: the target is skipped
TEXT_BYTES_A_TOKEN: Final = 2  # fewer than any prose, JSON or code needs
AUDIO_BYTES_A_TOKEN: Final = 64  # ten tokens a second, at the lowest rate that speech is sent with
IMAGE_TOKENS_MAX: Final = 2000  # of one image in a prompt, where its maximum is not known
CEILING_DEFAULT: Final = NanoUsd(10_000_000)  # 0.01 USD, for an answer whose price is unknown
HORIZON_S: Final = 3600  # a price that comes within this time after a request may apply to its answer

_PICO: Final = 1000  # to the nano-USD
_PARTS: Final = MINUTE_MS * _PICO  # of a nano-USD, in which sums are kept
_BLEND: Final = Usage(1500, 500)  # a request as they are on the average, to compare prices by: three in, one out

_Asked = TypeVar("_Asked")


class UnpricedMode(Enum):
    """What to do with a target whose price nobody knows."""

    RESERVE = "reserve"  # hold a ceiling, and book it
    REJECT = "reject"  # do not use the target
    FREE = "free"  # book 0, and say that it is unknown


@dataclass(frozen=True, slots=True)
class UnpricedPolicy:
    mode: UnpricedMode = UnpricedMode.RESERVE
    ceiling_nanousd: NanoUsd = CEILING_DEFAULT


class Charge(NamedTuple):
    """What is booked for one exchange, and where its price is known from."""

    cost_nanousd: NanoUsd
    source: PriceSource


@dataclass(frozen=True, slots=True)
class Bounds:
    """The most that one request can use, as far as its body tells.

    Units: tokens, unless the name says otherwise. ``output_tokens`` is of all choices together. The flags say what may be
    among the tokens: what a request does not ask for is not held at its rate. ``keeps_an_hour``: it asks for a cache of an
    hour, which costs more to write.
    """

    input_tokens: int
    output_tokens: int = 0
    images: int = 0
    audio_ms: int = 0
    characters: int = 0
    searches: int = 0
    has_audio: bool = False
    has_images: bool = False
    keeps_an_hour: bool = False


def bounds(
    prompt: Prompt, *, output_cap: int = 0, choices: int = 1, image_tokens_max: int = IMAGE_TOKENS_MAX
) -> Bounds:
    """The bounds of a request: two bytes of text a token, the most that an image takes, every choice at its cap."""
    input_tokens = -(-prompt.text_bytes // TEXT_BYTES_A_TOKEN)
    if prompt.images or prompt.has_audio:
        input_tokens += -(-prompt.audio_bytes // AUDIO_BYTES_A_TOKEN) + prompt.images * image_tokens_max
    return Bounds(
        input_tokens,
        output_cap * choices,
        has_audio=prompt.has_audio,
        has_images=prompt.images > 0 or prompt.makes_images,
        keeps_an_hour=prompt.keeps_an_hour,
    )


def cost(usage: Usage, tariff: Tariff, at_s: int) -> NanoUsd:
    """The cost of an answer that began at `at_s` (seconds of the epoch), rounded up to a nano-USD.

    Where kinds of input overlap (cached audio), those with a rate of their own come first: never lower than the bill.
    """
    charged = tariff.rates(at_s, usage.input_tokens)
    return _nanousd(_input(usage, charged) + _output(usage, charged) + _beside_tokens(usage, charged))


def worst_case(
    limits: Bounds, tariff: Tariff, at_s: int, *, output_tokens: int = 0, horizon_s: int = HORIZON_S
) -> NanoUsd:
    """No usage within `limits` costs more, whichever tier, kind of token or period within the horizon applies.

    ``output_tokens`` come on top of those of the limits.
    """
    tokens = limits.output_tokens + output_tokens
    return _nanousd(max(worst.fixed + worst.a_token * tokens for worst in _worst(limits, tariff, at_s, horizon_s)))


def output_cap_that_fits(
    ceiling_nanousd: NanoUsd,
    limits: Bounds,
    tariff: Tariff,
    at_s: int,
    *,
    choices: int = 1,
    most: int | None = None,
    horizon_s: int = HORIZON_S,
) -> int | None:
    """The largest cap of output tokens a choice with which the worst case stays within the ceiling.

    It is `most` or less (4,096 where the target names no maximum); None where less than 256 would be left, or less than
    `most` if that is smaller. The output of `limits` is not looked at.
    """
    largest = OUTPUT_TOKENS_DEFAULT if most is None else most
    cap = largest
    for worst in _worst(limits, tariff, at_s, horizon_s):
        left = ceiling_nanousd * _PARTS - worst.fixed
        if left < 0:
            return None
        if worst.a_token:
            cap = min(cap, left // (worst.a_token * choices))
    return cap if cap >= min(OUTPUT_TOKENS_MIN, largest) else None


def hold(
    price: Price,
    limits: Bounds,
    at_s: int,
    policy: UnpricedPolicy,
    *,
    output_tokens: int = 0,
    horizon_s: int = HORIZON_S,
) -> NanoUsd | None:
    """What to reserve before a request is sent; None where the policy rejects a target without a price.

    ``output_tokens`` come on top of those of the limits.
    """
    if isinstance(price.tariff, Tariff):
        return worst_case(limits, price.tariff, at_s, output_tokens=output_tokens, horizon_s=horizon_s)
    match policy.mode:
        case UnpricedMode.RESERVE:
            return policy.ceiling_nanousd
        case UnpricedMode.REJECT:
            return None
        case UnpricedMode.FREE:
            return NanoUsd(0)


def charge(usage: Usage, price: Price, at_s: int, policy: UnpricedPolicy, *, whole: bool = True) -> Charge:
    """What to book for an answer. ``whole`` False: it broke off, so a cost that was reported by then is but a part.

    An unknown price is booked at the policy's ceiling unless the route says that it is free.
    """
    reported = usage.cost_nanousd
    if reported is not None and whole:
        return Charge(reported, PriceSource.REPORTED)
    known = _known(usage, price, at_s, policy)
    if reported is not None and reported >= known.cost_nanousd:
        return Charge(reported, PriceSource.REPORTED)
    return known


def rank(targets: Iterable[_Asked], price_of: Callable[[_Asked], Price], at_s: int) -> tuple[_Asked, ...]:
    """The cheapest first, by a blend of three input tokens to one of output; unknown last; equals keep their order."""

    def blended(target: _Asked) -> tuple[bool, int]:
        tariff = price_of(target).tariff
        return (True, 0) if isinstance(tariff, Unpriced) else (False, cost(_BLEND, tariff, at_s))

    return tuple(sorted(targets, key=blended))


def _known(usage: Usage, price: Price, at_s: int, policy: UnpricedPolicy) -> Charge:
    if isinstance(price.tariff, Tariff):
        return Charge(cost(usage, price.tariff, at_s), price.source)
    free = policy.mode is UnpricedMode.FREE
    return Charge(NanoUsd(0) if free else policy.ceiling_nanousd, PriceSource.UNKNOWN)


def _input(usage: Usage, charged: Rates) -> int:
    rest = usage.input_tokens
    audio = usage.audio_input_tokens if charged.audio_input != charged.input else 0
    images = usage.image_input_tokens if charged.image_input != charged.input else 0
    rest -= audio + images
    cached = min(usage.cached_tokens, rest)
    rest -= cached
    written = min(usage.cache_write_tokens, rest)
    rest -= written
    an_hour = min(usage.cache_write_1h_tokens, written)
    return MINUTE_MS * (
        rest * charged.input
        + cached * charged.cached
        + (written - an_hour) * charged.cache_write
        + an_hour * charged.cache_write_1h
        + audio * charged.audio_input
        + images * charged.image_input
    )


def _output(usage: Usage, charged: Rates) -> int:
    rest = usage.output_tokens
    audio = usage.audio_output_tokens if charged.audio_output != charged.output else 0
    images = usage.image_output_tokens if charged.image_output != charged.output else 0
    rest -= audio + images
    reasoning = min(usage.reasoning_tokens, rest)
    rest -= reasoning
    return MINUTE_MS * (
        rest * charged.output
        + reasoning * charged.reasoning
        + audio * charged.audio_output
        + images * charged.image_output
    )


def _beside_tokens(usage: Usage | Bounds, charged: Rates) -> int:
    heard_ms = max(usage.audio_ms, charged.audio_ms_min) if usage.audio_ms else 0
    return heard_ms * charged.audio_minute + MINUTE_MS * (
        charged.request
        + usage.images * charged.image
        + usage.characters * charged.character
        + usage.searches * charged.search
    )


class _Worst(NamedTuple):
    """The most that some rates can charge. Units: sixty-thousandths of a pico-USD."""

    fixed: int  # everything but the output
    a_token: int  # of output


def _worst(limits: Bounds, tariff: Tariff, at_s: int, horizon_s: int) -> Iterator[_Worst]:
    """What may be charged under each set of rates that may apply."""
    for period in tariff.within(at_s, at_s + horizon_s):
        for index, tier in enumerate(period.tiers):
            if index == 0 or limits.input_tokens > tier.above:
                charged = tier.rates
                fixed = MINUTE_MS * limits.input_tokens * _dearest_input(limits, charged)
                yield _Worst(fixed + _beside_tokens(limits, charged), MINUTE_MS * _dearest_output(limits, charged))


def _dearest_input(limits: Bounds, charged: Rates) -> int:
    return max(
        charged.input,
        charged.cached,
        charged.cache_write,
        charged.cache_write_1h if limits.keeps_an_hour else 0,
        charged.audio_input if limits.has_audio else 0,
        charged.image_input if limits.has_images else 0,
    )


def _dearest_output(limits: Bounds, charged: Rates) -> int:
    return max(
        charged.output,
        charged.reasoning,
        charged.audio_output if limits.has_audio else 0,
        charged.image_output if limits.has_images else 0,
    )


def _nanousd(parts: int) -> NanoUsd:
    return NanoUsd(-(-parts // _PARTS))
