"""Amounts in the currency that reports are read in. The books are integer nano-USD; this is for the eye."""

from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal, InvalidOperation
from typing import Any, Final

NANO: Final = 10**9
_DIGITS: Final = Decimal(1).scaleb(-6)
_PER_USD_MAX: Final = Decimal(10**6)


@dataclass(frozen=True, slots=True)
class Currency:
    """``per_usd``: how much of it one USD buys."""

    code: str
    per_usd: Decimal


USD: Final = Currency("USD", Decimal(1))


def amount(nanousd: int, currency: Currency = USD) -> Decimal:
    """Rounded to the millionth, half to even: a thousand calls at a tenth of a cent must not vanish."""
    return (Decimal(nanousd) / NANO * currency.per_usd).quantize(_DIGITS, ROUND_HALF_EVEN)


def figure(nanousd: int, currency: Currency = USD) -> float:
    """For JSON: the amount as a number, beside the exact nano-USD."""
    return float(amount(nanousd, currency))


def document(currency: Currency) -> dict[str, Any]:
    """What a report says of the currency that it is in."""
    return {"code": currency.code, "per_usd": float(currency.per_usd)}


def shown(nanousd: int, currency: Currency = USD) -> str:
    """For a table: `12.35 CAD`; small amounts with the digits that tell them from nothing."""
    exact = amount(nanousd, currency)
    places = 2 if abs(exact) >= 1 or not exact else 6
    return f"{exact:,.{places}f} {currency.code}"


def parse(text: str) -> Currency | None:
    """`CAD=1.38`; None where it is none."""
    code, _, rate = text.partition("=")
    try:
        per_usd = Decimal(rate)
    except InvalidOperation:
        return None
    if not (len(code) == 3 and code.isascii() and code.isalpha()) or not per_usd.is_finite():
        return None
    return Currency(code.upper(), per_usd) if 0 < per_usd <= _PER_USD_MAX else None
