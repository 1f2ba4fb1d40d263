"""What an exchange has used and what it costs, from what was reported of it, or estimated where nobody reported."""

from dataclasses import replace
from typing import Final

from proxy.core import cost, estimate, usage
from proxy.core.cost import Charge
from proxy.core.failure import Charge as Used
from proxy.core.failure import Failure
from proxy.phases.exchange import Attempt, Bill, Exchange
from proxy.phases.quote import CAPPED, UNBILLED, prompt_of
from proxy.terms import Api, NanoUsd, PriceSource, Usage

AUDIO_BYTES_A_MS: Final = 8  # 64 kbit/s, a usual mp3
_MAY_BE_BILLED: Final = frozenset({Used.ESTIMATED_INPUT, Used.ESTIMATED, Used.REPORTED_OR_ESTIMATED})


def bill(x: Exchange, *, whole: bool) -> Bill:
    """What the answer that was relayed has used and costs. ``whole``: the provider's report is its last word."""
    quote = x.attempts[-1].quote
    reported = _reported(x)
    if reported is not None and whole and (reported.input_tokens or x.api not in CAPPED):
        used = reported
    else:
        used = estimate.fill(reported, _guessed(x))
    if x.api in UNBILLED:
        source = PriceSource.FREE if x.api is Api.COUNT_TOKENS else PriceSource.UNKNOWN
        return Bill(reported, used, Charge(NanoUsd(0), source))
    at_s = x.admitted_ms // 1000
    return Bill(reported, used, cost.charge(used, quote.terms.price, at_s, quote.terms.unpriced, whole=whole))


def wasted(x: Exchange, attempt: Attempt, failure: Failure) -> NanoUsd:
    """What an attempt that failed before content may have cost: its input, where the provider may have read it."""
    if failure.row.charge not in _MAY_BE_BILLED or x.api in UNBILLED or not attempt.quote.hold_nanousd:
        return NanoUsd(0)
    used = Usage(_input_tokens(x), 0, estimated=True)
    at_s = x.admitted_ms // 1000
    return cost.charge(used, attempt.quote.terms.price, at_s, attempt.quote.terms.unpriced).cost_nanousd


def _reported(x: Exchange) -> Usage | None:
    reported = usage.normalise(x.figures) if x.figures is not None else None
    if x.reported_cost is not None and (reported is None or reported.cost_nanousd is None):
        reported = replace(reported or Usage(0, 0), cost_nanousd=x.reported_cost)
    return reported


def _guessed(x: Exchange) -> Usage:
    if x.api in CAPPED:
        streamed = estimate.output_of_stream(x.relayed_bytes, x.data_events) if x.streamed else 0
        return Usage(_input_tokens(x), max(streamed, x.guessed_output))
    match x.api:
        case Api.SPEECH:
            text = x.body.fields.get("input") if x.body is not None else None
            return Usage(_input_tokens(x), 0, characters=len(text) if type(text) is str else 0)
        case Api.TRANSCRIPTIONS | Api.TRANSLATIONS:
            heard_bytes = x.upload.seen_bytes if x.upload is not None else 0
            return Usage(0, 0, audio_ms=heard_bytes // AUDIO_BYTES_A_MS)
        case Api.IMAGES | Api.IMAGE_EDITS:
            return Usage(_input_tokens(x), 0, images=x.choices)
        case Api.RERANK:
            return Usage(_input_tokens(x), 0, searches=1)
        case _:
            return Usage(_input_tokens(x), 0)


def _input_tokens(x: Exchange) -> int:
    if x.body is None:
        return 0
    if x.input_tokens_guessed is None:
        x.input_tokens_guessed = estimate.input_tokens(prompt_of(x), x.body.raw)
    return x.input_tokens_guessed
