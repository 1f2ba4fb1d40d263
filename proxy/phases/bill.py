"""What an exchange has used and what it costs, from what was reported of it, or estimated where nobody reported."""

from dataclasses import replace
from typing import Final

from proxy.core import cost, estimate, usage
from proxy.core.cost import Charge
from proxy.core.failure import Blame, Failure
from proxy.core.failure import Charge as Used
from proxy.phases.exchange import Attempt, Bill, Exchange
from proxy.phases.quote import CAPPED, UNBILLED, prompt_of, searches
from proxy.terms import Api, NanoUsd, PriceSource, Usage

AUDIO_BYTES_A_MS: Final = 8  # 64 kbit/s, a usual mp3
# gpt-4o-mini-tts: 0.015 USD a minute at 12 USD a million tokens; some 900 characters are read in a minute.
SPOKEN_TOKENS: Final = 1250
SPOKEN_CHARACTERS: Final = 900
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
    """What an attempt that failed before content may have cost: its input, where the provider may have read it.

    It may have where it was this proxy that ended the attempt, because it shuts down or has a bug.
    """
    may_be_billed = failure.row.charge in _MAY_BE_BILLED or failure.row.blame is Blame.PROXY
    if not may_be_billed or x.api in UNBILLED or not attempt.quote.hold_nanousd:
        return NanoUsd(0)
    used = Usage(input_tokens(x), 0, estimated=True)
    at_s = x.admitted_ms // 1000
    return cost.charge(used, attempt.quote.terms.price, at_s, attempt.quote.terms.unpriced).cost_nanousd


def tokens_of(x: Exchange, attempt: Attempt) -> int:
    """How many tokens an attempt that is over used, in and out: of its answer, or of what its provider may have read."""
    if x.api in UNBILLED:
        return 0
    if x.target is not None and attempt is x.attempts[-1]:
        return 0 if x.bill is None else x.bill.used.input_tokens + x.bill.used.output_tokens
    failure = attempt.failure or x.failure
    if failure is None or not (failure.row.charge in _MAY_BE_BILLED or failure.row.blame is Blame.PROXY):
        return 0
    return input_tokens(x)


def _reported(x: Exchange) -> Usage | None:
    reported = usage.normalise(x.figures) if x.figures is not None else None
    # The head of a stream is older than its answer: a zero in it is only what was known by then.
    is_told = x.reported_cost is not None and not (x.streamed and x.reported_cost == 0)
    if is_told and (reported is None or reported.cost_nanousd is None):
        reported = replace(reported or Usage(0, 0), cost_nanousd=x.reported_cost)
    return reported


def _guessed(x: Exchange) -> Usage:
    if x.api in CAPPED:
        streamed = estimate.output_of_stream(x.relayed_bytes, x.data_events) if x.streamed else 0
        guessed = max(streamed, x.guessed_output)
        most = x.attempts[-1].quote.output_tokens_max
        return Usage(input_tokens(x), guessed if most is None else min(guessed, most))
    match x.api:
        case Api.SPEECH:
            text = x.body.fields.get("input") if x.body is not None else None
            spoken = len(text) if type(text) is str else 0
            tokens = -(-spoken * SPOKEN_TOKENS // SPOKEN_CHARACTERS)
            return Usage(input_tokens(x), tokens, characters=spoken, audio_output_tokens=tokens)
        case Api.TRANSCRIPTIONS | Api.TRANSLATIONS:
            heard_bytes = x.upload.seen_bytes if x.upload is not None else 0
            return Usage(0, 0, audio_ms=heard_bytes // AUDIO_BYTES_A_MS)
        case Api.IMAGES | Api.IMAGE_EDITS:
            return Usage(input_tokens(x), 0, images=x.choices)
        case Api.RERANK:
            return Usage(input_tokens(x), 0, searches=searches(x))
        case _:
            return Usage(input_tokens(x), 0)


def input_tokens(x: Exchange) -> int:
    """About how many tokens the request is, guessed once."""
    if x.input_tokens_guessed is None:
        if x.body is None:
            return 0
        x.input_tokens_guessed = estimate.input_tokens(prompt_of(x), x.body.raw)
    return x.input_tokens_guessed
