"""An answer that is kept, given again: byte for byte, or in its other form."""

import asyncio
from typing import Final
from urllib.parse import quote

import orjson

from proxy.core import usage
from proxy.core.assembly import forms
from proxy.core.budget import usd
from proxy.core.cached_answer import CachedAnswer, Form
from proxy.core.cost import Charge
from proxy.core.ledger import CacheState
from proxy.phases.exchange import Bill, Exchange
from proxy.phases.runtime import Runtime
from proxy.phases.watchdog import WRITE_S
from proxy.ports import Downstream
from proxy.terms import Commitment, NanoUsd, PriceSource, Usage

PACE_S: Final = 0.01  # between two events of a paced replay: a hundred tokens a second
_SHOWN_AS_THEY_ARE: Final = "".join(chr(code) for code in range(0x21, 0x7F))


async def replay(
    x: Exchange, runtime: Runtime, answer: CachedAnswer, downstream: Downstream, *, state: CacheState = "hit"
) -> bool:
    """Give a kept answer. False: it has no form that this client asks for. Errors: `ClientGone`."""
    streams = x.streamed and (answer.form is Form.STREAM or forms.has_stream(x.api))
    body = _body(x, answer, streams=streams)
    if body is None:
        return False
    now = runtime.now()
    x.cache, x.recalled = state, answer.labels
    x.status, x.first_event_at, x.commitment = answer.status, now, Commitment.CONTENT
    x.overhead_s = now - x.started
    x.bill = _bill(answer)
    x.saved_nanousd = answer.cost_nanousd or NanoUsd(0)
    content_type = "text/event-stream" if streams else "application/json"
    if streams is (answer.form is Form.STREAM):
        content_type = answer.content_type
    age_s = max(0, int(runtime.wall() - answer.stored_at_s))
    own = own_headers(x, runtime, answer.labels.provider, answer.labels.model)
    sent = [*answer.headers, ("content-type", content_type), *own, ("age", str(age_s))]
    x.relayed_bytes = len(body)
    if not streams:
        sent.append(("x-penstock-cost-usd", usd(0)))
        await downstream.answer(answer.status, sent, body)
    else:
        await _stream(x, answer.status, sent, body, downstream)
    x.commitment = Commitment.COMPLETE
    return True


async def _stream(x: Exchange, status: int, sent: list[tuple[str, str]], body: bytes, downstream: Downstream) -> None:
    await downstream.begin(status, sent)
    policy = x.plan.cache if x.plan is not None else None
    if policy is not None and policy.paced:
        for event in body.split(b"\n\n"):
            if event:
                await downstream.write(event + b"\n\n")
                await asyncio.sleep(PACE_S)
    else:
        async with asyncio.timeout(WRITE_S):
            await downstream.write(body)
    await downstream.end()


def _body(x: Exchange, answer: CachedAnswer, *, streams: bool) -> bytes | None:
    """The bytes for this client; None where the answer has no such form."""
    if x.streamed and not streams:
        return None
    if not streams:
        return answer.body if answer.form is Form.JSON else forms.to_json(x.api, answer.body)
    if answer.form is Form.JSON:
        return forms.to_stream(x.api, answer.body, include_usage=x.wants_usage)
    return answer.body if x.wants_usage or not answer.usage_asked else forms.without_usage(x.api, answer.body)


def _bill(answer: CachedAnswer) -> Bill:
    reported = None if answer.usage is None else usage.normalise(orjson.loads(answer.usage))
    return Bill(reported, reported or Usage(0, 0), Charge(NanoUsd(0), PriceSource.FREE))


def own_headers(x: Exchange, runtime: Runtime, provider: str, model: str) -> list[tuple[str, str]]:
    """Penstock's own headers of an answer that this exchange did not ask a provider for."""
    own = [
        ("server", "penstock"),
        ("x-request-id", x.id),
        ("x-penstock-provider", provider),
        ("x-penstock-model", model if model.isascii() else quote(model, safe=_SHOWN_AS_THEY_ARE)),
        ("x-penstock-attempts", "0"),
        ("x-penstock-cache", x.cache),
        ("x-penstock-overhead-ms", f"{(runtime.now() - x.started) * 1000:.2f}"),
    ]
    if x.plan is not None and x.plan.route is not None:
        own.append(("x-penstock-route", x.plan.route))
    return own
