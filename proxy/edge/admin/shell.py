"""The door of the admin API: nobody is let in but with a key that may, and everybody is told alike who is not.

A request is judged in this order, and what comes later is not looked at before: the key, the host, the path, the method,
the role, the account, the query, the body. So an answer without the key tells nothing of what there is, and no byte of a
body is read. A right key is let in whatever wrong ones came from the same address before it. What
changes something (every method but GET) is in the audit log before it is done, and when it was refused; `record` does it.
"""

import asyncio
import contextlib
import hashlib
import hmac
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import orjson
from aiohttp import web

from proxy.core import audit, error_body, redact
from proxy.core.failure import Failure, FailureKind, Rejected
from proxy.core.key_record import KeyRecord
from proxy.core.key_rights import OPERATOR, Actor
from proxy.core.nearest import did_you_mean
from proxy.core.own_host import is_own_host
from proxy.core.presented_keys import presented_keys
from proxy.core.request_id import request_id
from proxy.core.wrong_keys import WrongKeys, peer_of
from proxy.edge.admin.endpoint import Ask, Endpoint, Feed, Page, matching, methods
from proxy.edge.admin.entry import body_of, query_of
from proxy.edge.admin.record import Record, Who
from proxy.edge.admin.table import ENDPOINTS
from proxy.edge.downstream import AiohttpDownstream
from proxy.phases.key_ring import KeyProblem, Refusal
from proxy.phases.runtime import Runtime
from proxy.ports import AuditLog, ClientGone
from proxy.terms import ExchangeId, Role

FEED_WRITE_S: Final = 30.0  # a client that takes nothing for so long is cut off
_JSON: Final = "application/json"
_HEADERS: Final = (
    ("server", "penstock"),
    ("cache-control", "no-store"),
    ("vary", "Authorization, x-api-key, api-key"),
    ("x-content-type-options", "nosniff"),
    ("content-security-policy", "default-src 'none'; frame-ancestors 'none'"),
    ("referrer-policy", "no-referrer"),
)
_OFF: Final = (
    "The admin API is off, because this process has no admin key; its log says why. "
    "Set PENSTOCK_ADMIN_KEY, or let it write to its data directory, and restart it."
)
_REFUSED: Final = (
    "The admin key is missing or wrong. Send it as Authorization: Bearer, x-api-key or api-key. "
    "It is what PENSTOCK_ADMIN_KEY is set to where Penstock runs, or else in admin.key in its data directory."
)
_LIMITED: Final = "Too many wrong admin keys came from this address. The right one is let in at any time."
_TWO: Final = "The request carries two different keys; send one of Authorization, x-api-key and api-key."
_IN_URL: Final = (
    "The URL holds the key, and URLs are kept in logs and histories. Send it in a header alone, and make a new one."
)
_FOREIGN: Final = (
    "The admin API is not served by this host name. Use the server's address or localhost, "
    "or add the name to PENSTOCK_ADMIN_HOSTS."
)

_EVERYBODYS: Final = (
    "This concerns all accounts, and the key is bound to one. It takes the admin key, or a key without an account."
)

RoleOf = Callable[[str], Role | None]  # what the holder of the admin key may do; None: the key is another
KeyOf = Callable[[str], KeyRecord | Refusal]  # the virtual key that is presented


class AdminKey:
    """Knows the admin key when it is shown. Holds its digest alone."""

    __slots__ = ("_digest",)

    def __init__(self, key: str) -> None:
        self._digest = _digest(key)

    def role_of(self, presented: str) -> Role | None:
        """ADMIN for the admin key, else None. Takes the same time for every wrong one of a length."""
        return Role.ADMIN if hmac.compare_digest(_digest(presented), self._digest) else None


@dataclass(frozen=True, slots=True)
class _Call:
    """One request at the door. ``presented``: the keys that it carries."""

    request: web.BaseRequest
    runtime: Runtime
    presented: tuple[str, ...] = field(repr=False)
    id: ExchangeId
    downstream: AiohttpDownstream

    @property
    def path(self) -> str:
        return self.request.raw_path.partition("?")[0]

    @property
    def query(self) -> str:
        return self.request.raw_path.partition("?")[2]


class Admin:
    """``role_of`` None: there is no admin key, and everybody is told so. ``names``: host names of this server.

    To the holder of the admin key all accounts are their own; a virtual key is bound to its account, and where ``key_of`` is
    None none is let in. `close` once no request comes any more.
    """

    def __init__(
        self,
        role_of: RoleOf | None,
        audit_log: AuditLog,
        wall: Callable[[], float],
        names: Collection[str] = (),
        endpoints: Sequence[Endpoint] = ENDPOINTS,
        *,
        key_of: KeyOf | None = None,
    ) -> None:
        self._role_of = role_of
        self._key_of = key_of
        self._audit = audit_log
        self._record = Record(audit_log, wall)
        self._names = frozenset(name.lower() for name in names)
        self._endpoints = endpoints
        self._wrong = WrongKeys()

    async def handle(self, request: web.BaseRequest, runtime: Runtime) -> web.StreamResponse:
        """Answer one request, whatever its path. What a handler raises beside `Rejected` is a bug, and passes."""
        presented = presented_keys(request.headers.items())
        call_id = request_id(request.headers.get("x-request-id"), runtime.rng, presented)
        call = _Call(request, runtime, presented, call_id, AiohttpDownstream(request))
        headers = [*_HEADERS, ("x-request-id", call_id)]
        status, content_type = 200, _JSON
        with contextlib.suppress(ClientGone):
            try:
                answer = await self._answer(call)
                if isinstance(answer, Feed):
                    await _fed(call, answer, headers)
                    return call.downstream.response or web.Response(status=499)
                if isinstance(answer, Page):
                    content_type, body = answer.content_type, answer.body
                else:
                    body = orjson.dumps(answer)
            except Rejected as rejected:
                failure = rejected.failure
                status, body = failure.status, _error(failure, call)
                headers += self._headers_of(failure, call)
            await call.downstream.answer(status, [("content-type", content_type), *headers], body)
        return call.downstream.response or web.Response(status=499)

    async def close(self) -> None:
        await self._record.close()

    async def _answer(self, call: _Call) -> Mapping[str, Any] | Page | Feed:
        """What the endpoint answers. Raises `Rejected`, `ClientGone`."""
        who, key = self._who(call)
        if not call.request.raw_path.isascii():
            raise _refusal(FailureKind.BAD_REQUEST, "The URL holds what is not ASCII; percent-encode it.")
        endpoint, steps = self._endpoint(call.request.method, call.path)
        if endpoint.method == "GET":
            return await endpoint.handler(await self._ask(call, who, key, endpoint, steps))
        try:
            ask = await self._ask(call, who, key, endpoint, steps)
        except Rejected as rejected:
            await self._record.refuse(who, endpoint, steps, rejected.failure, call.runtime.log)
            raise
        return await self._carried_out(call, who, endpoint, ask)

    async def _ask(self, call: _Call, who: Who, key: Actor, endpoint: Endpoint, steps: Mapping[str, str]) -> Ask:
        """Raises `Rejected`, `ClientGone`."""
        if who.role < endpoint.role:
            needed, has = endpoint.role.name.lower(), who.role.name.lower()
            raise _refusal(FailureKind.ROLE_TOO_LOW, f"This takes the role {needed}, and the key has {has}.")
        if who.account is not None and not endpoint.per_account:
            raise _refusal(FailureKind.ROLE_TOO_LOW, _EVERYBODYS)
        query = query_of(call.query, endpoint)
        body = await body_of(call.downstream, endpoint)
        accept = call.request.headers.get("accept", "")
        return Ask(call.runtime, who.role, steps, query, body, who.actor, who.account, self._audit, key, accept)

    async def _carried_out(self, call: _Call, who: Who, endpoint: Endpoint, ask: Ask) -> Mapping[str, Any]:
        """Do what changes something, between the two entries that say so."""
        log = call.runtime.log
        begun = await self._record.begin(who, endpoint, ask.steps, ask.body)
        log.event("admin act", method=endpoint.method, endpoint=endpoint.path, id=call.id)
        try:
            answer = await endpoint.handler(ask)
        except Rejected as rejected:
            await self._record.end(begun, "refused", {"code": rejected.failure.row.code}, log)
            raise
        except BaseException as error:
            await self._record.end(begun, "failed", {"error": type(error).__name__}, log)
            raise
        assert isinstance(answer, Mapping)  # noqa: S101 - what changes something answers in JSON
        await self._record.end(begun, "done", audit.told(answer, endpoint.recorded), log)
        return answer

    def _who(self, call: _Call) -> tuple[Who, Actor]:
        """Who asks. Raises `Rejected` for everybody but the holder of a key, at a host that is ours."""
        presented = call.presented
        if self._role_of is None:
            raise _refusal(FailureKind.ADMIN_OFF, _OFF)
        if not presented:
            raise _refusal(FailureKind.KEY_REFUSED, _REFUSED)
        if len(presented) > 1:
            raise _refusal(FailureKind.BAD_REQUEST, _TWO)
        who, key = self._holder(call)
        if not is_own_host(call.request.headers.getall("host", []), self._names):
            self._record.note(who, "key used at a foreign host", call.runtime.log)
            raise _refusal(FailureKind.FOREIGN_HOST, _FOREIGN)
        if presented[0] in call.request.raw_path:
            self._record.note(who, "key sent in a URL", call.runtime.log)
            raise _refusal(FailureKind.BAD_REQUEST, _IN_URL)
        self._record.note(who, "key used", call.runtime.log)
        return who, key

    def _holder(self, call: _Call) -> tuple[Who, Actor]:
        """Whose key it is. Raises `Rejected` where it is nobody's."""
        presented, peer = call.presented[0], peer_of(call.request.remote or "")
        role = None if self._role_of is None else self._role_of(presented)
        if role is not None:
            return Who(audit.ADMIN_KEY, role, None, peer, call.id), OPERATOR
        found = None if self._key_of is None else self._key_of(presented)
        if isinstance(found, KeyRecord):
            return Who(f"key:{found.id}", found.role, found.account, peer, call.id), found
        if found is not None and found.problem is KeyProblem.UNAVAILABLE:
            raise Rejected(found.failure)
        self._record.note(Who(audit.NOBODY, Role.USER, None, peer, call.id), "wrong admin key", call.runtime.log)
        raise Rejected(self._wrong_key(call, peer))

    def _wrong_key(self, call: _Call, peer: str) -> Failure:
        wrong = self._wrong.add(peer, call.runtime.now())
        if not wrong.is_too_many:
            call.runtime.log.event("wrong admin key", peer=peer, id=call.id)
            return Failure(FailureKind.KEY_REFUSED, _REFUSED)
        if wrong.is_first_too_many:
            call.runtime.log.event("too many wrong admin keys; the next ones are not told", peer=peer, id=call.id)
        return Failure(FailureKind.WRONG_KEYS_LIMITED, _LIMITED, retry_after_s=wrong.left_s)

    def _endpoint(self, method: str, path: str) -> tuple[Endpoint, dict[str, str]]:
        found = list(matching(self._endpoints, path))
        wanted = "GET" if method == "HEAD" else method
        for endpoint, steps in found:
            if endpoint.method == wanted:
                return endpoint, steps
        if found:
            takes = " or ".join(methods([endpoint for endpoint, _ in found]))
            raise _refusal(FailureKind.WRONG_METHOD, f"{path[:80]} takes {takes}, got {method[:16]}.")
        known = [endpoint.path for endpoint in self._endpoints]
        hint = did_you_mean(path, known) or f" There are: {', '.join(dict.fromkeys(known))}."
        raise _refusal(FailureKind.UNKNOWN_PATH, f"There is no {path[:80]} here.{hint}")

    def _headers_of(self, failure: Failure, call: _Call) -> list[tuple[str, str]]:
        headers = [("x-should-retry", "true" if error_body.is_retryable(failure) else "false")]
        match failure.kind:
            case FailureKind.KEY_REFUSED:
                headers.append(("www-authenticate", 'Bearer realm="penstock admin"'))
            case FailureKind.WRONG_METHOD:
                allowed = methods([endpoint for endpoint, _ in matching(self._endpoints, call.path)])
                headers.append(("allow", ", ".join(allowed)))
            case FailureKind.WRONG_KEYS_LIMITED:
                headers.append(("retry-after", str(math.ceil(failure.retry_after_s or 1))))
            case FailureKind.STORE_UNAVAILABLE if failure.retry_after_s is not None:
                headers.append(("retry-after", str(math.ceil(failure.retry_after_s))))
        return headers


async def _fed(call: _Call, feed: Feed, headers: Sequence[tuple[str, str]]) -> None:
    """Send what comes, until its end. Raises `ClientGone`."""
    downstream = call.downstream
    given = [("content-type", "text/event-stream"), ("x-accel-buffering", "no"), *headers]
    try:
        if call.request.method == "HEAD":
            await downstream.answer(200, given, b"")
            return
        await downstream.begin(200, given)
        async for part in feed.parts:
            async with asyncio.timeout(FEED_WRITE_S):
                await downstream.write(part)
        await downstream.end()
    except TimeoutError:
        downstream.abort()
    finally:
        feed.close()


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()


def _refusal(kind: FailureKind, message: str) -> Rejected:
    return Rejected(Failure(kind, message))


def _error(failure: Failure, call: _Call) -> bytes:
    """The error's body; what it quotes of the request holds no key that the request carried."""
    told = replace(
        failure,
        message=redact.text(failure.message, call.presented),
        param=None if failure.param is None else redact.text(failure.param, call.presented),
    )
    return error_body.body(told, told.status, None, (), call.id)
