"""How an exchange ends that sent nothing: the failure becomes an answer in the API's own form."""

import math
from collections.abc import Sequence
from typing import Any, Final

from proxy.core import error_body
from proxy.core.failure import Failure, FailureKind
from proxy.phases.admit import limit_headers
from proxy.phases.exchange import Exchange
from proxy.phases.gate import skipped_told
from proxy.ports import Downstream
from proxy.providers import errors
from proxy.terms import Api

RETRY_AFTER_S: Final = 5.0
MESSAGES: Final = (Api.MESSAGES, Api.COUNT_TOKENS)


async def refuse(x: Exchange, failure: Failure, downstream: Downstream, more: Sequence[tuple[str, str]] = ()) -> None:
    """Tell the client of `failure`, with ``more`` headers than every refusal has. Raises `ClientGone`."""
    x.failure = failure
    x.status = failure.status
    headers = [
        ("content-type", "application/json"),
        ("server", "penstock"),
        ("x-request-id", x.id),
        ("x-should-retry", "true" if error_body.is_retryable(failure) else "false"),
        *limit_headers(x),
        *more,
    ]
    wait_s = failure.retry_after_s
    if wait_s is None and failure.kind is FailureKind.THROTTLED:
        wait_s = RETRY_AFTER_S  # no provider said how long
    if wait_s is not None:
        headers.append(("retry-after", str(max(1, math.ceil(wait_s)))))
    if x.plan is not None and x.plan.route is not None:
        headers.append(("x-penstock-route", x.plan.route))
    if x.attempts:
        headers.append(("x-penstock-provider", x.attempts[-1].target.provider.id))
        headers.append(("x-penstock-attempts", str(len(x.attempts))))
    await downstream.answer(x.status, headers, _body(x, failure))


def _body(x: Exchange, failure: Failure) -> bytes:
    if failure.as_it_came and failure.upstream_body:
        has_form = errors.conforms_to_messages if x.api in MESSAGES else errors.conforms
        if has_form(failure.upstream_body):
            return failure.upstream_body
    return error_body.body(failure, x.status, x.api, [*attempts_told(x), *skipped_told(x)], x.id)


def attempts_told(x: Exchange) -> list[dict[str, Any]]:
    """The attempts, as the error's metadata and the log tell them."""
    told: list[dict[str, Any]] = []
    for attempt in x.attempts:
        one: dict[str, Any] = {"target": attempt.target.name, "ms": round((attempt.ended - attempt.started) * 1000, 1)}
        if attempt.failure is not None:
            one["failure"] = attempt.failure.kind.value
            if attempt.failure.upstream_status is not None:
                one["status"] = attempt.failure.upstream_status
            one["message"] = attempt.failure.message
        told.append(one)
    return told
