"""What a model charges: whole numbers, so that a cost is exact.

Units: pico-USD for one of what is counted. For tokens that is the same number as micro-USD per million tokens, which is how
providers print their prices: 2.50 USD per million is 2,500,000. A rate that is finer than a pico-USD is rounded up once,
where it is read.

A tariff is a list of periods, because prices change on a day and some differ by the time of day (all UTC); a period is a
list of tiers, because some charge more for a large input, and then for all of it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from proxy.terms import PriceSource

DAY_S: Final = 86_400
MINUTE_MS: Final = 60_000


@dataclass(frozen=True, slots=True)
class Rates:
    """What one of each costs. Units: pico-USD; of audio a minute. ``audio_ms_min``: what the shortest recording counts as.

    Every rate is what is charged; `rates` fills in those that a provider does not name.
    """

    input: int
    output: int
    cached: int
    cache_write: int
    cache_write_1h: int
    reasoning: int
    audio_input: int
    audio_output: int
    image_input: int
    image_output: int
    request: int
    image: int
    audio_minute: int
    character: int
    search: int
    audio_ms_min: int = 0


def rates(
    *,
    input: int = 0,  # noqa: A002 - the word that prices use
    output: int = 0,
    cached: int | None = None,
    cache_write: int | None = None,
    cache_write_1h: int | None = None,
    reasoning: int | None = None,
    audio_input: int | None = None,
    audio_output: int | None = None,
    image_input: int | None = None,
    image_output: int | None = None,
    request: int = 0,
    image: int = 0,
    audio_minute: int = 0,
    character: int = 0,
    search: int = 0,
    audio_ms_min: int = 0,
) -> Rates:
    """Rates of which only some are named: a kind of token without a rate of its own costs what its whole costs."""
    write = input if cache_write is None else cache_write
    return Rates(
        input=input,
        output=output,
        cached=input if cached is None else cached,
        cache_write=write,
        cache_write_1h=write if cache_write_1h is None else cache_write_1h,
        reasoning=output if reasoning is None else reasoning,
        audio_input=input if audio_input is None else audio_input,
        audio_output=output if audio_output is None else audio_output,
        image_input=input if image_input is None else image_input,
        image_output=output if image_output is None else image_output,
        request=request,
        image=image,
        audio_minute=audio_minute,
        character=character,
        search=search,
        audio_ms_min=audio_ms_min,
    )


@dataclass(frozen=True, slots=True)
class Tier:
    """The rates of every token of an answer whose input is larger than ``above`` tokens."""

    above: int
    rates: Rates


@dataclass(frozen=True, slots=True)
class Period:
    """When some rates hold.

    Shapes: ``tiers`` by size, the first holds for the smallest input whatever its ``above``. ``since_s``: seconds of the
    epoch, None: always. ``daily``: the half-open span of seconds of a UTC day, which may go over midnight; None: all day.
    """

    tiers: tuple[Tier, ...]
    since_s: int | None = None
    daily: tuple[int, int] | None = None

    def holds(self, at_s: int) -> bool:
        if self.since_s is not None and at_s < self.since_s:
            return False
        if self.daily is None:
            return True
        start, end = self.daily
        second = at_s % DAY_S
        return start <= second < end if start <= end else second >= start or second < end

    def rates(self, input_tokens: int) -> Rates:
        found = self.tiers[0]
        for tier in self.tiers[1:]:
            if input_tokens > tier.above:
                found = tier
        return found.rates


@dataclass(frozen=True, slots=True)
class Tariff:
    """All the rates of a model. Of the periods the last one that holds counts; the first, where none does."""

    periods: tuple[Period, ...]

    def period(self, at_s: int) -> Period:
        return next((period for period in reversed(self.periods) if period.holds(at_s)), self.periods[0])

    def rates(self, at_s: int, input_tokens: int) -> Rates:
        return self.period(at_s).rates(input_tokens)

    def within(self, start_s: int, end_s: int) -> tuple[Period, ...]:
        """Every period that counts at some second from `start_s` to `end_s`. Linear in the days between."""
        if len(self.periods) == 1:
            return self.periods
        moments = {start_s, *(moment for moment in self._changes(start_s, end_s) if start_s < moment <= end_s)}
        return tuple(dict.fromkeys(self.period(moment) for moment in sorted(moments)))

    def _changes(self, start_s: int, end_s: int) -> Iterable[int]:
        days = range(start_s - start_s % DAY_S, end_s + 1, DAY_S)
        for period in self.periods:
            if period.since_s is not None:
                yield period.since_s
            for second in period.daily or ():
                yield from (day + second for day in days)


def flat(charged: Rates) -> Tariff:
    """A tariff of the same rates at every size and time."""
    return Tariff((Period((Tier(0, charged),)),))


def usd_per_million(rate: int) -> str:
    """A rate of tokens as providers print it: USD for a million of them, exactly."""
    return f"{Decimal(rate).scaleb(-6).normalize():f}"


FREE: Final = flat(rates())


@dataclass(frozen=True, slots=True)
class Unpriced:
    """That no price is known, and why, in words. It is not zero: what to do about it is the route's policy."""

    why: str


@dataclass(frozen=True, slots=True)
class Price:
    """What a target charges, and where that is known from."""

    tariff: Tariff | Unpriced
    source: PriceSource


LOCAL: Final = Price(FREE, PriceSource.LOCAL)


def unknown(why: str) -> Price:
    return Price(Unpriced(why), PriceSource.UNKNOWN)
