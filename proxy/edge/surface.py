"""The surface: the handler that aiohttp calls for every request.

aiohttp's low-level server is used without its application layer: there is one table and no middleware, so a router and
its signals would be paid for by every request and used by none.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Final
from urllib.parse import parse_qs, unquote

from aiohttp import web

from proxy.core import redact
from proxy.core.failure import Failure, FailureKind, Rejected
from proxy.core.nearest import did_you_mean
from proxy.core.presented_keys import CARRIERS
from proxy.core.request_id import new_id, request_id
from proxy.edge import cors, paths
from proxy.edge.admin.shell import Admin
from proxy.edge.downstream import AiohttpDownstream
from proxy.edge.health import Outlook, health_body
from proxy.edge.intake import Intake
from proxy.edge.models import model_body, models_body, usable
from proxy.phases import lifecycle
from proxy.phases.accept import FORMS
from proxy.phases.ask import NOT_WRITABLE
from proxy.phases.door import challenges
from proxy.phases.exchange import Exchange
from proxy.phases.flight import landed
from proxy.phases.refuse import refuse
from proxy.phases.runtime import Runtime
from proxy.phases.telling import tell
from proxy.ports import ClientGone
from proxy.terms import Api

LAST_WORDS_S: Final = 2.0  # for telling the clients of what still runs at the end of the drain


class Surface:
    """``runtime`` is what a request that begins now runs on. ``running`` counts the exchanges that are under way.

    ``admin`` None: the admin API is not on this port.
    """

    def __init__(
        self,
        runtime: Runtime,
        admin: Admin | None = None,
        outlook: Outlook | None = None,
        intake: Intake | None = None,
    ) -> None:
        self.runtime = runtime
        self.intake = intake or Intake()
        self._admin = admin
        self._outlook = outlook or Outlook()
        self.running = 0
        self._outliving: set[asyncio.Task[None]] = set()  # kept, or the collector would take them
        self._idle = asyncio.Event()

    async def drain(self, patience_s: float) -> None:
        """Refuse what is new and wait until what runs is over; after `patience_s` tell what still runs to end."""
        self.intake.refusing = self.intake.closing = True
        ends_at = self.runtime.now() + patience_s
        await self._until_idle(patience_s)
        await landed(self.runtime, max(ends_at - self.runtime.now(), 0.0))
        if self.running or self.runtime.flying:
            self.runtime.ticker.expire_all(FailureKind.SHUTTING_DOWN)
            await self._until_idle(LAST_WORDS_S)
            await landed(self.runtime, LAST_WORDS_S)

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
        api = paths.EXCHANGES.get(path)
        if api is not None and request.method == "POST" and api not in FORMS and "content-type" in request.headers:
            return await self._exchange(request, api)
        return await self._unusual(request, path, api)

    async def _exchange(self, request: web.BaseRequest, api: Api) -> web.StreamResponse:
        runtime = self.runtime
        x = _exchange(request, api, runtime)
        downstream = self._downstream(request)
        refusal = self.intake.refusal(self.running)
        if refusal is not None:
            await _tell(x, runtime, refusal, downstream)
            return _sent(downstream)
        if runtime.books.trouble is not None:
            await _tell(x, runtime, Failure(FailureKind.OVERLOADED_HERE, NOT_WRITABLE), downstream)
            return _sent(downstream)
        self.running += 1
        if runtime.table.may_outlive:
            await self._outlive(x, runtime, downstream)
            return _sent(downstream)
        try:
            await lifecycle.run(x, runtime, downstream)
        finally:
            self._ended()
        return _sent(downstream)

    async def _outlive(self, x: Exchange, runtime: Runtime, downstream: AiohttpDownstream) -> None:
        """Run an exchange in a task of its own: aiohttp cancels the one that it gave us as soon as the client leaves."""
        task = asyncio.create_task(lifecycle.run(x, runtime, downstream))
        task.add_done_callback(self._ended)
        self._outliving.add(task)
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            if x.outlives:
                downstream.lose()
            else:
                task.cancel()
            raise

    def _ended(self, task: asyncio.Task[None] | None = None) -> None:
        self.running -= 1
        if task is not None:
            self._outliving.discard(task)
        if not self.running:
            self._idle.set()

    def _downstream(self, request: web.BaseRequest) -> AiohttpDownstream:
        origins = self.runtime.table.cors_origins
        return AiohttpDownstream(
            request, cors.answer_headers(origins, request.headers) if origins else (), intake=self.intake
        )

    async def _unusual(self, request: web.BaseRequest, path: str, api: Api | None) -> web.StreamResponse:
        """All but the JSON requests that Penstock is there for."""
        if self._admin is not None and paths.ADMIN.fullmatch(path):
            return await self._admin.handle(request, self.runtime)
        origins = self.runtime.table.cors_origins
        if request.headers.get("upgrade", "").lower() == "websocket":
            return await self._refuse(request, api, _no_websocket())
        if request.method == "OPTIONS" and (allowed := cors.preflight_headers(origins, request.headers)) is not None:
            return web.Response(status=204, headers={**dict(allowed), "server": "penstock"})
        methods = paths.allowed(path)
        if request.method in methods and methods != ("POST",):
            return await self._read(request, path)
        if api is not None and request.method == "POST":
            passed: Api | None = api
        else:
            passed = Api.PASSTHROUGH if self._is_passed(request, known=bool(methods)) else None
        if passed is None and request.method == "OPTIONS" and not methods and path.startswith("/v1/"):
            methods = tuple(sorted(paths.PASSED_METHODS))
        if passed is None:
            failure = _wrong_method(request, methods) if methods else _unknown_path(request, path)
            return await self._refuse(request, api, failure, (("allow", ", ".join(methods)),) if methods else ())
        if cors.is_foreign_page(origins, request.headers):
            return await self._refuse(request, api, _foreign(request))
        return await self._exchange(request, passed)

    def _is_passed(self, request: web.BaseRequest, *, known: bool) -> bool:
        """Whether to relay a path without a route, or with one where another method and a provider are named."""
        if not paths.is_passed(request.method, request.raw_path):
            return False
        return not known or "x-penstock-provider" in request.headers or self.runtime.table.default_provider is not None

    async def _read(self, request: web.BaseRequest, path: str) -> web.StreamResponse:
        """What is asked by GET: models and health."""
        if path in paths.LIVE:
            return self._json(request, 200, b'{"status":"live"}')
        if path in paths.READY:
            return self._json(request, *self._readiness())
        if path == paths.HEALTH:
            strict = parse_qs(request.raw_path.partition("?")[2]).get("strict") == ["1"]
            return self._json(request, *health_body(self.runtime, self._outlook, strict=strict))
        return await self._models(request, path)

    async def _models(self, request: web.BaseRequest, path: str) -> web.StreamResponse:
        try:
            principal = self.runtime.door.principal_of(self._downstream(request))
        except Rejected as rejected:
            return await self._refuse(request, Api.CHAT, rejected.failure, challenges(rejected.failure))
        table = self.runtime.table.of(principal.account)
        match = paths.MODELS.fullmatch(path)
        name = unquote(match.group(1) or "") if match is not None else ""
        body = model_body(table, principal, name) if name else models_body(table, principal)
        if body is not None:
            told = self._json(request, 200, body)
            if not self.runtime.door.is_open:  # another key is told something else
                told.headers["cache-control"] = "no-store"
                told.headers["vary"] = ", ".join((*filter(None, (told.headers.get("vary"),)), *CARRIERS))
            return told
        near = did_you_mean(name, [known for known, _ in usable(table, principal)])
        message = f"The model '{redact.cut(name, 80)}' is not served here.{near} GET /v1/models lists what is."
        return await self._refuse(request, Api.CHAT, Failure(FailureKind.MODEL_UNKNOWN, message, param="model"))

    def _readiness(self) -> tuple[int, bytes]:
        if self.intake.unready or self.intake.refusing:
            return 503, b'{"status":"draining"}'
        if self.intake.overload is not None:
            return 503, b'{"status":"overloaded"}'
        if self.runtime.books.trouble is not None:
            return 503, b'{"status":"refusing","reason":"what is spent cannot be written down"}'
        return 200, b'{"status":"ready"}'

    def _json(self, request: web.BaseRequest, status: int, body: bytes) -> web.Response:
        exchange_id = request_id(request.headers.get("x-request-id"), self.runtime.rng)
        headers = {"server": "penstock", "x-request-id": exchange_id}
        headers.update(cors.answer_headers(self.runtime.table.cors_origins, request.headers))
        response = web.Response(status=status, body=body, content_type="application/json", headers=headers)
        if self.intake.is_last:
            response.force_close()
        return response

    async def _refuse(
        self, request: web.BaseRequest, api: Api | None, failure: Failure, more: Sequence[tuple[str, str]] = ()
    ) -> web.StreamResponse:
        downstream = self._downstream(request)
        await _tell(_exchange(request, api or Api.CHAT, self.runtime), self.runtime, failure, downstream, more)
        return _sent(downstream)


def _exchange(request: web.BaseRequest, api: Api, runtime: Runtime) -> Exchange:
    given = request.headers.get("x-request-id")
    seen_as = request_id(given, runtime.rng)
    booked_as = new_id(runtime.rng) if seen_as == given else seen_as
    admitted_ms = int(runtime.wall() * 1000)
    path = request.raw_path
    return Exchange(seen_as, booked_as, api, request.method, path, request.headers, runtime.now(), admitted_ms)


def _sent(downstream: AiohttpDownstream) -> web.StreamResponse:
    # A client that left before anything was sent leaves no response; aiohttp wants one, which goes nowhere.
    return downstream.response or web.Response(status=499)


async def _tell(
    x: Exchange,
    runtime: Runtime,
    failure: Failure,
    downstream: AiohttpDownstream,
    more: Sequence[tuple[str, str]] = (),
) -> None:
    """Refuse a request that begins no exchange; it is in the log all the same."""
    with contextlib.suppress(ClientGone):
        await refuse(x, failure, downstream, more)
    tell(x, runtime, runtime.now())


def _no_websocket() -> Failure:
    message = "Penstock speaks HTTP with server-sent events, no WebSocket: send the request by POST, with stream: true."
    return Failure(FailureKind.UPGRADE_REFUSED, message)


def _foreign(request: web.BaseRequest) -> Failure:
    origin = request.headers.get("origin", "null")
    message = (
        f"A web page of {redact.cut(origin, 80)!r} may not ask here. To allow it, add that origin to cors.origins."
    )
    return Failure(FailureKind.ORIGIN_REFUSED, message)


def _wrong_method(request: web.BaseRequest, methods: Sequence[str]) -> Failure:
    path = request.raw_path.partition("?")[0]
    return Failure(FailureKind.WRONG_METHOD, f"{redact.cut(path, 80)} takes {methods[0]}, got {request.method}.")


def _unknown_path(request: web.BaseRequest, path: str) -> Failure:
    message = f"There is no {request.method} {redact.cut(request.raw_path, 80)} here.{paths.nearest(path)}"
    return Failure(FailureKind.UNKNOWN_PATH, message)
