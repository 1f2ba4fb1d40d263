"""Whether a target may answer within its cost tier, how long the answer may be, and what is held for it. Pure.

A request that names an output cap is taken at its word; for one that names none, the largest cap that fits is found, where
there is a cost tier or the file says how long an answer of the target may be. Of a price that nobody knows, what the
route's policy says is held, and never more than the cost tier allows. Held by `tests/core/test_afford.py`.
"""

from dataclasses import dataclass
from typing import NamedTuple

from proxy.core.budget import usd
from proxy.core.cost import (
    OUTPUT_TOKENS_DEFAULT,
    OUTPUT_TOKENS_MIN,
    Bounds,
    hold,
    output_cap_that_fits,
)
from proxy.core.pricing import Terms
from proxy.core.tariff import Tariff, Unpriced
from proxy.terms import NanoUsd


class Afforded(NamedTuple):
    """It fits. ``output_cap``: the tokens a choice to insert; None: nothing. ``hold_nanousd``: what it costs at most."""

    output_cap: int | None
    hold_nanousd: NanoUsd


@dataclass(frozen=True, slots=True)
class NotAfforded:
    """It is skipped. ``why`` in words; ``unpriced``: because nobody knows its price, and the route rejects that."""

    why: str
    unpriced: bool = False


def afford(
    terms: Terms,
    limits: Bounds,
    at_s: int,
    *,
    output_cap: int | None = None,
    choices: int = 1,
    may_insert: bool = True,
    expected: int = 0,
) -> Afforded | NotAfforded:
    """What to do with a target at ``terms`` for a request within ``limits``, which leave out the output that a cap bounds.

    ``output_cap``: what the client set, for each of its ``choices``; None: it set none, and one may be inserted if
    ``may_insert``. ``expected``: the tokens of a choice that answers without a cap have had.
    """
    cap = output_cap
    if output_cap is None and may_insert:
        cap = _cap(terms, limits, at_s, choices)
    longest = max(OUTPUT_TOKENS_DEFAULT if terms.output_tokens_max is None else terms.output_tokens_max, expected)
    tokens = (longest if cap is None else cap) * choices
    held = hold(terms.price, limits, at_s, terms.unpriced, output_tokens=tokens)
    if held is None:
        why = terms.price.tariff.why if isinstance(terms.price.tariff, Unpriced) else ""
        return NotAfforded(f"its price is unknown ({why}), and the route says unpriced: reject", unpriced=True)
    if terms.ceiling_nanousd is not None and held > terms.ceiling_nanousd:
        return NotAfforded(_too_dear(terms, limits, at_s, output_cap=output_cap, choices=choices))
    return Afforded(cap if output_cap is None else None, held)


def afford_text(terms: Terms, input_tokens: int, output_tokens: int) -> NanoUsd | None:
    """What `afford` would hold for a prompt of nothing but text and this output, where a price has one rate for each.

    None: it takes a closer look. Most requests are such, and this takes a tenth of the time.
    """
    rates = terms.flat
    if rates is None or terms.ceiling_nanousd is not None:
        return None
    return NanoUsd(-(-(input_tokens * rates.input + output_tokens * rates.output + rates.request) // 1000))


def _cap(terms: Terms, limits: Bounds, at_s: int, choices: int) -> int | None:
    """What to insert; where nothing fits, the shortest that would be of use, which then is too dear."""
    if terms.ceiling_nanousd is None:
        return terms.output_tokens_max
    most = terms.output_tokens_max
    if not isinstance(terms.price.tariff, Tariff):
        return OUTPUT_TOKENS_DEFAULT if most is None else most
    found = output_cap_that_fits(terms.ceiling_nanousd, limits, terms.price.tariff, at_s, choices=choices, most=most)
    return _shortest(terms) if found is None else found


def _shortest(terms: Terms) -> int:
    most = terms.output_tokens_max
    return OUTPUT_TOKENS_MIN if most is None else min(OUTPUT_TOKENS_MIN, most)


def _too_dear(terms: Terms, limits: Bounds, at_s: int, *, output_cap: int | None, choices: int) -> str:
    name = terms.cost_tier or "asked for"
    allowed = f"cost tier {name} allows {usd(terms.ceiling_nanousd or 0)} USD"
    tokens = (_shortest(terms) if output_cap is None else output_cap) * choices
    dear = hold(terms.price, limits, at_s, terms.unpriced, output_tokens=tokens) or 0
    answer = f"{tokens} tokens of answer may cost" if tokens else "it may cost"
    return f"{answer} {usd(dear)} USD with this prompt, and {allowed}"
