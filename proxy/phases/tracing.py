"""An exchange's spans: one of the server's for itself, one of a client's for each attempt.

While it runs nothing is noted but ids, and those only where a call is made that carries one. The spans are made of the
exchange's own times, after it was settled, in the tracer's thread. They name routes, providers, models, sizes and failures;
never what was said, by whom, or with which key.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Final

from proxy.core import gen_ai
from proxy.core.ledger import LedgerRow
from proxy.core.trace import Attributes, SpanKind, TraceContext, TraceSpan, traceparent_of
from proxy.phases.exchange import Attempt, Exchange
from proxy.phases.runtime import Runtime
from proxy.ports import Call
from proxy.terms import Api

_NS: Final = 1_000_000_000
_NAMES_MODEL: Final = 200  # characters; clients can choose names


def traced(call: Call, x: Exchange, runtime: Runtime, attempt: Attempt) -> Call:
    """The call, with its attempt's own span as its parent; as it came where nothing is traced."""
    if runtime.tracer is None:
        return call
    if x.trace is None:
        x.trace = runtime.tracer.begin(x.headers.get("traceparent"))
    attempt.span_id = runtime.tracer.span_id()
    own = traceparent_of(x.trace.trace_id, attempt.span_id, sampled=x.trace.sampled)
    return replace(call, headers={**call.headers, "traceparent": own})


def trace(x: Exchange, runtime: Runtime, now: float, booked: LedgerRow) -> None:
    """Hand an exchange that is over to the tracer. ``now``: monotonic."""
    if runtime.tracer is None:
        return
    context = x.trace or runtime.tracer.begin(x.headers.get("traceparent"))
    if context.sampled:
        runtime.tracer.ended(partial(_spans, x, context, now, booked))


def _spans(x: Exchange, context: TraceContext, now: float, booked: LedgerRow) -> Sequence[TraceSpan]:
    began_ns = booked.started_us * 1000
    own = TraceSpan(
        SpanKind.SERVER,
        f"{x.method} {x.api.value}",
        context.trace_id,
        context.span_id,
        context.parent_id,
        began_ns,
        began_ns + int((now - x.started) * _NS),
        _own_attributes(x, booked),
        None if x.failure is None or booked.outcome in ("refused", "client_cancelled") else x.failure.row.code,
        remote=context.parent_id is not None,
    )
    return [own, *(_attempt(x, context, one, booked, now) for one in x.attempts)]


def _own_attributes(x: Exchange, booked: LedgerRow) -> Attributes:
    told: dict[str, str | int | float | bool] = {
        "http.request.method": x.method,
        "http.response.status_code": x.status,
        "penstock.request_id": x.id,
        "penstock.api": x.api.value,
        "penstock.outcome": booked.outcome,
        "penstock.attempts": booked.attempts,
        "penstock.cache": booked.cache,
        "penstock.cost_usd": booked.cost_nanousd / 1e9,
        "penstock.streamed": booked.streamed,
    }
    if booked.route is not None:
        told["penstock.route"] = booked.route
    if booked.code is not None:
        told["error.type"] = booked.code
    if x.overhead_s is not None:
        told["penstock.overhead_ms"] = round(x.overhead_s * 1000, 3)
    return told


def _attempt(x: Exchange, context: TraceContext, attempt: Attempt, booked: LedgerRow, now: float) -> TraceSpan:
    began_ns = booked.started_us * 1000
    answered = attempt.failure is None and x.target is attempt.target
    failure = x.failure if answered else attempt.failure
    # What answered was read until the end of the exchange; `ended` is when its first content was there.
    ended = now if answered or not attempt.ended else attempt.ended
    return TraceSpan(
        SpanKind.CLIENT,
        f"{gen_ai.operation_of(x.api.value)} {attempt.target.model[:_NAMES_MODEL]}",
        context.trace_id,
        attempt.span_id,
        context.span_id,
        began_ns + int((attempt.started - x.started) * _NS),
        began_ns + int((ended - x.started) * _NS),
        _attempt_attributes(x, attempt, booked, answered=answered),
        None if failure is None else failure.kind.value,
    )


def _attempt_attributes(x: Exchange, attempt: Attempt, booked: LedgerRow, *, answered: bool) -> Attributes:
    target = attempt.target
    told: dict[str, str | int | float | bool] = {
        "gen_ai.operation.name": gen_ai.operation_of(x.api.value),
        "gen_ai.provider.name": gen_ai.provider_of(target.provider.id),
        "penstock.provider": target.provider.id,
    }
    if x.api is not Api.PASSTHROUGH:
        told["gen_ai.request.model"] = target.model[:_NAMES_MODEL]
    if x.streamed:
        told["gen_ai.request.stream"] = True
    if attempt.quote.output_cap is not None:
        told["gen_ai.request.max_tokens"] = attempt.quote.output_cap
    if answered and booked.input_tokens + booked.output_tokens:
        told["gen_ai.usage.input_tokens"] = booked.input_tokens
        told["gen_ai.usage.output_tokens"] = booked.output_tokens
        told["gen_ai.usage.cache_read.input_tokens"] = booked.cached_tokens
        told["penstock.usage_estimated"] = booked.estimated
    if answered and x.first_event_at is not None:
        told["gen_ai.response.time_to_first_chunk"] = round(x.first_event_at - attempt.started, 6)
    failure = x.failure if answered else attempt.failure
    if failure is not None:
        told["error.type"] = failure.kind.value
        if failure.upstream_status is not None:
            told["http.response.status_code"] = failure.upstream_status
    return told
