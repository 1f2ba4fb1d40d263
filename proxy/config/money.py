"""The sections of the routes file that are about money: prices, cost tiers, what to do without a price, the currency.

Amounts are USD, written as numbers or as text, and read exactly: a number as the decimal that stands in the file, never as
the binary fraction next to it.
"""

import math
import re
from decimal import ROUND_CEILING, Decimal
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, WithJsonSchema

from proxy.config.section import Section, invalid, shown
from proxy.core.cost import CEILING_DEFAULT, UnpricedMode, UnpricedPolicy
from proxy.core.currency import USD, Currency
from proxy.core.tariff import Period, Rates, Tariff, Tier, rates
from proxy.terms import NanoUsd

USD_MAX: Final = 1_000_000  # for a million tokens, or for one request: more is a mistyped unit
BUDGET_USD_MAX: Final = 9_000_000  # in nano-USD this is what a double holds exactly, and so a Lua script
PRICE_DECIMALS: Final = 6  # micro-USD for a million tokens: the step of a tariff
COST_DECIMALS: Final = 9  # nano-USD: the step of the books
FLOAT_MAX: Final = 1_000_000  # a double holds 15 digits of a decimal fraction: nine behind the point leave six
OUTPUT_TOKENS_MAX: Final = 10_000_000
TIER_NAME: Final = r"[a-z0-9_][a-z0-9_-]{0,63}"
# What a file has that sets no cost tiers of its own.
COST_TIERS: Final = {
    "ultra_economy": Decimal("0.0001"),
    "economy": Decimal("0.001"),
    "standard": Decimal("0.01"),
    "premium": Decimal("0.05"),
    "enterprise": Decimal("0.50"),
}

_AMOUNT: Final = r"[0-9]{1,7}(\.[0-9]{1,12})?"
_CURRENCY: Final = r"[A-Z]{3}"


def amount(value: object) -> Decimal | None:
    """A number or a text as a decimal, exactly as it was written; None where it is none."""
    if isinstance(value, Decimal):
        return value
    if isinstance(value, str):
        return Decimal(value) if re.fullmatch(_AMOUNT, value) else None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return Decimal(str(value))


def _usd(value: object, decimals: int, *, above_zero: bool = False, most: int = USD_MAX) -> Decimal:
    exact = amount(value)
    if exact is None:
        raise invalid(f"expected an amount in USD such as 0.15, got {shown(value)}")
    if exact < 0 or (above_zero and exact == 0):
        raise invalid(f"expected an amount of {'more than' if above_zero else 'at least'} 0, got {shown(value)}")
    if exact > most:
        raise invalid(f"expected at most {most} USD, got {shown(value)}")
    if isinstance(value, float) and value >= FLOAT_MAX and not value.is_integer():
        raise invalid(f'{shown(value)} has more digits than a number here keeps. Write it in quotes: "1234567.89"')
    if exact != exact.quantize(Decimal(1).scaleb(-decimals), rounding=ROUND_CEILING):
        raise invalid(f"expected at most {decimals} decimals, got {shown(value)}")
    return exact


def _price(value: object) -> Decimal:
    return _usd(value, PRICE_DECIMALS)


def _fee(value: object) -> Decimal:
    return _usd(value, 12)


def _ceiling(value: object) -> Decimal:
    return _usd(value, COST_DECIMALS, above_zero=True)


def budget_usd(value: object) -> Decimal:
    """An amount that a budget may be. Errors: PydanticCustomError, which says what is wrong with it."""
    return _usd(value, COST_DECIMALS, most=BUDGET_USD_MAX)


def _per_usd(value: object) -> Decimal:
    exact = amount(value)
    if exact is None or not 0 < exact <= USD_MAX:
        raise invalid(f"expected how much of the currency one USD is, such as 1.38, got {shown(value)}")
    return exact


def _code(value: object) -> str:
    if isinstance(value, str) and len(value) == 3 and value.isascii() and value.isalpha() and value.isupper():
        return value
    raise invalid(f"expected the three letters of a currency such as CAD, got {shown(value)}")


def _output_tokens(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= OUTPUT_TOKENS_MAX:
        return value
    raise invalid(f"expected a number of tokens from 1 to {OUTPUT_TOKENS_MAX}, got {shown(value)}")


def _mode(value: object) -> str:
    if isinstance(value, str) and value in _MODES:
        return value
    raise invalid(f"expected {', '.join(_MODES)} or {{reserve: <USD>}}, got {shown(value)}")


def _schema_of(most: int = USD_MAX, **more: Any) -> WithJsonSchema:
    number = {"type": "number", "minimum": 0, "maximum": most}
    return WithJsonSchema({"anyOf": [number, {"type": "string", "pattern": f"^{_AMOUNT}$"}], **more})


_MODES: Final = tuple(mode.value for mode in UnpricedMode)

MtokUsd = Annotated[Decimal, BeforeValidator(_price), _schema_of(examples=[0.15, "2.50"])]
FeeUsd = Annotated[Decimal, BeforeValidator(_fee), _schema_of(examples=[0.005, "0.04"])]
CeilingUsd = Annotated[Decimal, BeforeValidator(_ceiling), _schema_of(examples=[0.01, "0.05"])]
BudgetUsd = Annotated[Decimal, BeforeValidator(budget_usd), _schema_of(BUDGET_USD_MAX, examples=[100, "12.50"])]
PerUsd = Annotated[Decimal, BeforeValidator(_per_usd), _schema_of(examples=[1.38])]
CurrencyCode = Annotated[
    str, BeforeValidator(_code), WithJsonSchema({"type": "string", "pattern": f"^{_CURRENCY}$", "examples": ["CAD"]})
]
OutputTokens = Annotated[
    int,
    BeforeValidator(_output_tokens),
    WithJsonSchema({"type": "integer", "minimum": 1, "maximum": OUTPUT_TOKENS_MAX}),
]


class TokenPrices(Section):
    """What tokens cost, in USD for a million of them. A kind that is not named costs what its whole does."""

    input: MtokUsd | None = Field(default=None, description="Tokens of the request.")
    output: MtokUsd | None = Field(default=None, description="Tokens of the answer.")
    cached: MtokUsd | None = Field(default=None, description="Input read from the provider's cache.")
    cache_write: MtokUsd | None = Field(default=None, description="Input written to the provider's cache.")
    cache_write_1h: MtokUsd | None = Field(default=None, description="Input written to a cache of an hour.")
    reasoning: MtokUsd | None = Field(default=None, description="Output that the model reasoned with.")
    audio_input: MtokUsd | None = Field(default=None, description="Audio tokens of the request.")
    audio_output: MtokUsd | None = Field(default=None, description="Audio tokens of the answer.")
    image_input: MtokUsd | None = Field(default=None, description="Image tokens of the request.")
    image_output: MtokUsd | None = Field(default=None, description="Image tokens of the answer.")


class LargeInput(TokenPrices):
    """What every token costs where the input is large."""

    input_tokens: OutputTokens = Field(description="Holds for an input of more tokens than this.")


class PriceEntry(TokenPrices):
    """What a model charges: USD for a million tokens, and fees beside them."""

    request: FeeUsd = Field(default=Decimal(0), description="USD for each request.")
    image: FeeUsd = Field(default=Decimal(0), description="USD for each image made.")
    audio_minute: FeeUsd = Field(default=Decimal(0), description="USD for a minute of audio heard.")
    characters: MtokUsd = Field(default=Decimal(0), description="USD for a million characters spoken.")
    search: FeeUsd = Field(default=Decimal(0), description="USD for each search unit of a rerank, or web search.")
    above: list[LargeInput] = Field(
        default_factory=list, max_length=10, description="What tokens cost where the input is larger, by its size."
    )


class ReserveUpTo(Section):
    """A ceiling to hold and to book for an answer whose price is unknown."""

    reserve: CeilingUsd = Field(description="USD for each answer.")


class CurrencyEntry(Section):
    """The money that reports are shown in. The books are kept in nano-USD."""

    code: CurrencyCode = Field(description="Three letters, such as CAD.")
    per_usd: PerUsd = Field(description="How much of it one USD is.")


def _unpriced_form(value: object) -> str:
    return "mapping" if isinstance(value, dict | ReserveUpTo) else "word"


UnpricedWord = Annotated[
    Literal["reserve", "reject", "free"],
    BeforeValidator(_mode),
    WithJsonSchema({"type": "string", "enum": list(_MODES)}),
]
UnpricedEntry = Annotated[
    Annotated[UnpricedWord, Tag("word")] | Annotated[ReserveUpTo, Tag("mapping")], Discriminator(_unpriced_form)
]


def tariff(entry: PriceEntry) -> Tariff:
    """The tariff that a price in the file means."""
    fees = {
        "request": _picousd(entry.request),
        "image": _picousd(entry.image),
        "audio_minute": _picousd(entry.audio_minute),
        "character": _micro(entry.characters),
        "search": _picousd(entry.search),
    }
    larger = sorted(entry.above, key=lambda one: one.input_tokens)
    tiers = [Tier(0, _rates(entry, fees)), *(Tier(one.input_tokens, _rates(one, fees)) for one in larger)]
    return Tariff((Period(tuple(tiers)),))


def _rates(prices: TokenPrices, fees: dict[str, int]) -> Rates:
    named = {name: getattr(prices, name) for name in TokenPrices.model_fields}
    return rates(**fees, **{name: _micro(usd) for name, usd in named.items() if usd is not None})


def nanousd(usd: Decimal) -> NanoUsd:
    """Exactly: no more decimals than that are accepted."""
    return NanoUsd(int(usd.scaleb(COST_DECIMALS)))


def policy(entry: str | ReserveUpTo | None) -> UnpricedPolicy:
    """What `unpriced` means. Absent: an answer without a price is booked at 0.01 USD."""
    match entry:
        case None:
            return UnpricedPolicy()
        case ReserveUpTo():
            return UnpricedPolicy(UnpricedMode.RESERVE, nanousd(entry.reserve))
        case _:
            return UnpricedPolicy(UnpricedMode(entry), CEILING_DEFAULT)


def currency(entry: CurrencyEntry | None) -> Currency:
    return USD if entry is None else Currency(entry.code, entry.per_usd)


def _micro(usd: Decimal) -> int:
    return int(usd.scaleb(6))


def _picousd(usd: Decimal) -> int:
    return int(usd.scaleb(12))
