"""The call that an attempt makes: the target's URL, the headers that pass, the body with the spans that are ours."""

from collections.abc import AsyncIterable
from typing import Final

from proxy.core import headers, splice
from proxy.core.routing import Plan, Target
from proxy.core.splice import Body
from proxy.core.tour import Step
from proxy.phases.exchange import Attempt, Exchange
from proxy.phases.runtime import Runtime
from proxy.phases.upload import Upload
from proxy.ports import Call
from proxy.terms import Api

WITH_PARAMS: Final = (Api.CHAT, Api.COMPLETIONS)
# One thing under several names: whoever says one of them has said them all.
OUTPUT_CAPS: Final = frozenset({"max_tokens", "max_completion_tokens", "max_output_tokens"})
USAGE_ASKED: Final = ("stream_options", b'{"include_usage":true}')


def call_to(x: Exchange, runtime: Runtime, plan: Plan, step: Step, attempt: Attempt) -> tuple[Call, bool]:
    """The call that `attempt` makes to this step's target, and whether usage is asked for in the client's stead.

    Its output cap is inserted where the client says none and the request may cost only so much.
    """
    if x.upload is not None:
        return _upload_call(x, x.upload, plan, step, attempt), False
    output_cap = attempt.quote.output_cap
    assert x.body is not None  # noqa: S101 - accept has read it
    target = step.target
    inserted = _params(x.body, plan) if plan.params and x.api in WITH_PARAMS else ()
    asks_usage = (
        x.streamed
        and x.api in WITH_PARAMS
        and target.provider.asks_usage
        and "stream_options" not in x.body.fields
        and not step.plain
        and target.name not in runtime.plain_targets
    )
    if output_cap is not None:
        inserted = (*inserted, (_cap_name(x.api, target), b"%d" % output_cap))
    if asks_usage:
        inserted = (*inserted, USAGE_ASKED)
    body = splice.rewrite(x.body, target.model, inserted)
    passed = headers.to_upstream(x.headers, target, x.api, attempt.credential)
    passed["Content-Length"] = str(len(body))
    call = Call(target, target.provider.urls[x.api], passed, body, plan.timeouts.connect_s, fresh=step.fresh)
    return call, asks_usage


def _params(body: Body, plan: Plan) -> tuple[tuple[str, bytes], ...]:
    """The route's parameters that the client has not said anything about."""
    said = body.fields.keys()
    caps = said & OUTPUT_CAPS
    return tuple(
        (name, value) for name, value in plan.params if name not in said and not (caps and name in OUTPUT_CAPS)
    )


def _cap_name(api: Api, target: Target) -> str:
    match api:
        case Api.CHAT:
            return target.provider.chat_output_cap
        case Api.RESPONSES:
            return "max_output_tokens"
        case _:
            return "max_tokens"


def _upload_call(x: Exchange, upload: Upload, plan: Plan, step: Step, attempt: Attempt) -> Call:
    """A call whose body is still on its way from the client."""
    target = step.target
    passed = headers.to_upstream(x.headers, target, x.api, attempt.credential)
    if x.api is Api.PASSTHROUGH:
        return _passthrough_call(x, upload, plan, step, passed)
    patch = upload.patch(target.model)
    length = upload.length(patch)
    if length is not None:
        passed["Content-Length"] = str(length)
    url = target.provider.urls[x.api]
    return Call(target, url, passed, upload.patched(patch), plan.timeouts.connect_s, fresh=step.fresh)


def _passthrough_call(x: Exchange, upload: Upload, plan: Plan, step: Step, passed: dict[str, str]) -> Call:
    body: bytes | AsyncIterable[bytes] = b""
    length = upload.length(None)
    if length != 0:
        body = upload.patched(None)
    if length or (length == 0 and x.method in {"POST", "PUT", "PATCH"}):
        passed["Content-Length"] = str(length)
    url = step.target.provider.base_url + x.path.removeprefix("/v1")
    # A kept connection may be gone, and only what is safe to repeat could be sent again.
    fresh = x.method not in {"GET", "HEAD"}
    return Call(step.target, url, passed, body, plan.timeouts.connect_s, fresh=fresh, method=x.method)
