"""The surface: one table of paths, and the handler that aiohttp calls for every request.

aiohttp's low-level server is used without its application layer: there is one table and no middleware, so a router and
its signals would be paid for by every request and used by none.
"""

import asyncio
import contextlib
import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import unquote

from aiohttp import web

from proxy.core.failure import Failure, FailureKind
from proxy.core.nearest import did_you_mean
from proxy.core.routing import listing
from proxy.edge.downstream import AiohttpDownstream
from proxy.edge.health import health_body
from proxy.edge.models import model_body, models_body
from proxy.phases import lifecycle
from proxy.phases.exchange import Exchange
from proxy.phases.refuse import refuse
from proxy.phases.runtime import Runtime
from proxy.phases.settle import settle
from proxy.ports import ClientGone
from proxy.terms import Api, ExchangeId

_APIS: Final[Mapping[str, Api]] = {
    "/chat/completions": Api.CHAT,
    "/responses": Api.RESPONSES,
    "/messages": Api.MESSAGES,
    "/messages/count_tokens": Api.COUNT_TOKENS,
    "/embeddings": Api.EMBEDDINGS,
    "/completions": Api.COMPLETIONS,
}
_EXCHANGES: Final[Mapping[str, Api]] = {f"{prefix}{path}": api for path, api in _APIS.items() for prefix in ("/v1", "")}
_LIVE: Final = frozenset({"/livez", "/health/live", "/health/liveness", "/health/liveliness"})
_READY: Final = frozenset({"/readyz", "/health/ready", "/health/readiness"})
_PLAIN_PATHS: Final = ("/v1/models", "/health", *sorted(_LIVE), *sorted(_READY))
_MODELS: Final = re.compile(r"(?:/v1)?/models(?:/(.+))?")
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")


LAST_WORDS_S: Final = 2.0  # for telling the clients of what still runs at the end of the drain


class Surface:
    """``runtime`` is what a request that begins now runs on. ``running`` counts the exchanges that are under way."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.running = 0
        self._draining = False
        self._idle = asyncio.Event()

    async def drain(self, patience_s: float) -> None:
        """Refuse what is new and wait until what runs is over; after `patience_s` tell what still runs to end."""
        self._draining = True
        await self._until_idle(patience_s)
        if self.running:
            self.runtime.ticker.expire_all(FailureKind.SHUTTING_DOWN)
            await self._until_idle(LAST_WORDS_S)

    def hurry(self) -> None:
        """End the drain's patience."""
        self._idle.set()

    async def _until_idle(self, patience_s: float) -> None:
        self._idle.clear()
        if self.running:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._idle.wait(), patience_s)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """aiohttp's handler: one request, one prepared response."""
        path = request.raw_path.partition("?")[0]
        api = _EXCHANGES.get(path)
        if api is not None and request.method == "POST":
            return await self._exchange(request, api)
        return await self._plain(request, path, api)

    async def _exchange(self, request: web.BaseRequest, api: Api) -> web.StreamResponse:
        runtime = self.runtime
        downstream = AiohttpDownstream(request)
        x = _exchange(request, api, runtime)
        if self._draining:
            failure = Failure(FailureKind.SHUTTING_DOWN, "Penstock is shutting down; send the request again.")
            await _tell(x, runtime, failure, downstream)
            return _sent(downstream)
        self.running += 1
        try:
            await lifecycle.run(x, runtime, downstream)
        finally:
            self.running -= 1
            if not self.running:
                self._idle.set()
        return _sent(downstream)

    async def _plain(self, request: web.BaseRequest, path: str, api: Api | None) -> web.StreamResponse:
        runtime = self.runtime
        is_get = request.method in ("GET", "HEAD")
        models = _MODELS.fullmatch(path)
        if is_get and models is not None:
            return await self._models(request, runtime, unquote(models.group(1) or ""))
        if is_get and path in _LIVE:
            return _json(200, b'{"status":"live"}')
        if is_get and path in _READY:
            return _json(503, b'{"status":"draining"}') if self._draining else _json(200, b'{"status":"ready"}')
        if is_get and path == "/health":
            status, body = health_body(runtime.table)
            return _json(status, body)
        known = api is not None or models is not None or path in _PLAIN_PATHS
        failure = _wrong_method(request) if known else _unknown_path(request)
        downstream = AiohttpDownstream(request)
        await _tell(_exchange(request, api or Api.CHAT, runtime), runtime, failure, downstream)
        return _sent(downstream)

    async def _models(self, request: web.BaseRequest, runtime: Runtime, name: str) -> web.StreamResponse:
        if not name:
            return _json(200, models_body(runtime.table))
        body = model_body(runtime.table, name)
        if body is not None:
            return _json(200, body)
        near = did_you_mean(name, [known for known, _ in listing(runtime.table)])
        failure = Failure(
            FailureKind.MODEL_UNKNOWN,
            f"The model '{name[:80]}' is not served here.{near} GET /v1/models lists what is.",
            param="model",
        )
        downstream = AiohttpDownstream(request)
        await _tell(_exchange(request, Api.CHAT, runtime), runtime, failure, downstream)
        return _sent(downstream)


def _exchange(request: web.BaseRequest, api: Api, runtime: Runtime) -> Exchange:
    given = request.headers.get("x-request-id")
    exchange_id = (
        given if given is not None and _REQUEST_ID.fullmatch(given) else f"req_{runtime.rng.getrandbits(96):024x}"
    )
    return Exchange(ExchangeId(exchange_id), api, request.method, request.raw_path, request.headers, runtime.now())


def _sent(downstream: AiohttpDownstream) -> web.StreamResponse:
    # A client that left before anything was sent leaves no response; aiohttp wants one, which goes nowhere.
    return downstream.response or web.Response(status=499)


async def _tell(x: Exchange, runtime: Runtime, failure: Failure, downstream: AiohttpDownstream) -> None:
    """Refuse a request that begins no exchange; it is in the log all the same."""
    with contextlib.suppress(ClientGone):
        await refuse(x, failure, downstream)
    settle(x, runtime)


def _wrong_method(request: web.BaseRequest) -> Failure:
    path = request.raw_path.partition("?")[0]
    right = "POST" if path in _EXCHANGES else "GET"
    return Failure(FailureKind.WRONG_METHOD, f"{path[:80]} takes {right}, got {request.method}.")


def _unknown_path(request: web.BaseRequest) -> Failure:
    known = [*(f"/v1{path}" for path in _APIS), *_PLAIN_PATHS]
    return Failure(
        FailureKind.UNKNOWN_PATH,
        f"There is no {request.method} {request.raw_path[:80]} here.{did_you_mean(request.raw_path, known)}",
    )


def _json(status: int, body: bytes) -> web.Response:
    return web.Response(status=status, body=body, content_type="application/json", headers={"server": "penstock"})
