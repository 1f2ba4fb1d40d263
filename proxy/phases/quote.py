"""What asking a target may cost at most: its price, the ceiling that holds, and the output cap that makes it fit."""

from dataclasses import dataclass, replace
from typing import Any, Final

from proxy.core import cost, prompt
from proxy.core.afford import NotAfforded, afford, afford_text
from proxy.core.cost import Bounds, UnpricedMode, UnpricedPolicy
from proxy.core.failure import Failure, FailureKind
from proxy.core.pricing import Terms
from proxy.core.prompt import Prompt, measure
from proxy.core.routing import Plan, Target
from proxy.core.splice import Body
from proxy.core.tariff import LOCAL, Tariff
from proxy.phases.accept import UPLOAD_BYTES_MAX
from proxy.phases.call import OUTPUT_CAPS, WITH_PARAMS
from proxy.phases.exchange import Exchange, Quote
from proxy.phases.runtime import Runtime
from proxy.terms import Api, NanoUsd

CAPPED: Final = frozenset({Api.CHAT, Api.COMPLETIONS, Api.RESPONSES, Api.MESSAGES})
# Nobody bills for counting tokens, and whoever bills for a relayed path does not say so in it.
UNBILLED: Final = frozenset({Api.COUNT_TOKENS, Api.PASSTHROUGH})
IMAGE_TOKENS_MADE_MAX: Final = 6240  # gpt-image-1, high quality, 1024 x 1536 (platform.openai.com/docs/guides/images)
AUDIO_BYTES_A_MS_MIN: Final = 2  # 16 kbit/s: speech is hardly ever packed tighter
AUDIO_MS_A_TOKEN: Final = 100
SPOKEN_TOKENS_A_CHARACTER: Final = 2
OUTPUT_CAP_MAX: Final = 10**9  # larger than any answer: what a client says must not overflow the books
RERANKED_A_SEARCH: Final = 100  # documents to a search unit (docs.cohere.com)

_FREE: Final = Quote(Terms(LOCAL), NanoUsd(0))
_FREE_IF_UNPRICED: Final = UnpricedPolicy(UnpricedMode.FREE)


@dataclass(frozen=True, slots=True)
class _Cap:
    """The output cap of a request. ``said``: by the client or the route; ``tokens`` None: it says none."""

    said: bool
    tokens: int | None = None


_UNCAPPED: Final = _Cap(False)


def quote(x: Exchange, runtime: Runtime, plan: Plan, target: Target) -> Quote | Failure:
    """The most that this exchange may cost at this target, or why it may not be asked."""
    if x.api in UNBILLED:
        return _FREE
    terms = runtime.terms(x.account, plan.route, target)
    if x.cost_tier is not None:
        terms = terms.within(*x.cost_tier)
    if x.api is Api.MODERATIONS and not isinstance(terms.price.tariff, Tariff):
        terms = replace(terms, unpriced=_FREE_IF_UNPRICED)  # OpenAI bills none, and lists no price for it
    at_s = x.admitted_ms // 1000
    said: int | None = None
    if x.api not in CAPPED:
        found = afford(terms, _bounds(x), at_s, output_cap=0)
    else:
        cap = _cap(x, plan)
        said = cap.tokens
        expected = runtime.output_sizes.p99(target.name) if said is None else 0
        if terms.output_tokens_max is None and x.body is not None and _is_text(x.api, x.body):
            tokens = said or max(cost.OUTPUT_TOKENS_DEFAULT, expected)
            held = afford_text(terms, -(-len(x.body.raw) // cost.TEXT_BYTES_A_TOKEN), tokens * x.choices)
            if held is not None:
                return Quote(terms, held, None, None if said is None else said * x.choices)
        found = afford(
            terms,
            _bounds(x),
            at_s,
            output_cap=said,
            choices=generated(x),
            may_insert=not cap.said,
            expected=expected,
        )
    if isinstance(found, NotAfforded):
        return _refusal(target, found)
    capped = found.output_cap if said is None else said
    return Quote(terms, found.hold_nanousd, found.output_cap, None if capped is None else capped * generated(x))


def _cap(x: Exchange, plan: Plan) -> _Cap:
    fields = x.body.fields if x.body is not None else {}
    said = [fields[name] for name in OUTPUT_CAPS if name in fields]
    if not said and plan.params and x.api in WITH_PARAMS:
        said = [int(value) for name, value in plan.params if name in OUTPUT_CAPS and value.isdigit()]
    return _Cap(True, _largest(said)) if said else _UNCAPPED


def client_cap(x: Exchange) -> int | None:
    """The output cap that the client says, of one choice; None: it says none."""
    fields = x.body.fields if x.body is not None else {}
    return _largest([fields[name] for name in OUTPUT_CAPS if name in fields])


def _largest(said: list[Any]) -> int | None:
    caps = [int(min(value, OUTPUT_CAP_MAX)) for value in said if type(value) in (int, float) and value >= 1]
    return max(caps) if caps else None


def _bounds(x: Exchange) -> Bounds:
    """The most that the request can use, in whatever its API is billed by, but for the output that a cap bounds."""
    fields = x.body.fields if x.body is not None else {}
    limits = cost.bounds(prompt_of(x))
    match x.api:
        case Api.IMAGES | Api.IMAGE_EDITS:
            made = x.choices
            taken = limits.input_tokens if x.upload is None else cost.IMAGE_TOKENS_MAX
            output = made * IMAGE_TOKENS_MADE_MAX
            return replace(limits, input_tokens=taken, images=made, output_tokens=output, has_images=True)
        case Api.SPEECH:
            spoken = _characters(fields.get("input"))
            return replace(limits, characters=spoken, output_tokens=spoken * SPOKEN_TOKENS_A_CHARACTER, has_audio=True)
        case Api.TRANSCRIPTIONS | Api.TRANSLATIONS:
            heard_ms = _upload_bytes(x) // AUDIO_BYTES_A_MS_MIN
            heard = heard_ms // AUDIO_MS_A_TOKEN
            return replace(limits, audio_ms=heard_ms, input_tokens=heard, output_tokens=heard, has_audio=True)
        case Api.RERANK:
            return replace(limits, searches=searches(x))
        case _:
            return limits


def _is_text(api: Api, body: Body) -> bool:
    """Whether a request holds nothing but text, and generates what it shows."""
    return api is Api.CHAT and prompt.is_plain(body.fields)


def prompt_of(x: Exchange) -> Prompt:
    """What the request holds, measured once."""
    if x.prompt is None:
        x.prompt = Prompt(0) if x.body is None else measure(len(x.body.raw), x.body.fields)
    return x.prompt


def searches(x: Exchange) -> int:
    """How many search units a rerank is."""
    documents = x.body.fields.get("documents") if x.body is not None else None
    return max(1, -(-len(documents) // RERANKED_A_SEARCH)) if type(documents) is list else 1


def generated(x: Exchange) -> int:
    """How many choices are generated: `best_of` makes more of each prompt than `n` shows."""
    if x.body is None or x.api is not Api.COMPLETIONS:
        return x.choices
    shown, best_of = x.body.fields.get("n") or 1, x.body.fields.get("best_of")
    return x.choices // shown * max(shown, best_of) if type(best_of) is int else x.choices


def _characters(text: object) -> int:
    return len(text) if type(text) is str else 0


def _upload_bytes(x: Exchange) -> int:
    """How long the body will be; where the client does not say it, as long as one may be."""
    length = x.headers.get("content-length", "")
    return int(length) if length.isascii() and length.isdecimal() else UPLOAD_BYTES_MAX


def _refusal(target: Target, found: NotAfforded) -> Failure:
    message = f"{target.name} is not asked: {found.why}. "
    if found.unpriced:
        advice = "Give it a price in the routes file."
        return Failure(FailureKind.MODEL_UNPRICED, message + advice, target=target.name)
    advice = "Shorten the prompt, lower the output cap, or ask a route of a higher cost tier."
    return Failure(FailureKind.COST_TIER_EXCEEDED, message + advice, target=target.name)
