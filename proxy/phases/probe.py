"""The active probe: is each provider there? Asks for its list of models, which costs nothing, and never for a completion.

What it finds is for `/health` alone: what is asked next is decided by the breakers, from what real requests met with.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from proxy.core import headers
from proxy.core.credential import Credential
from proxy.core.failure import TABLE, FailureKind, Tally
from proxy.core.routing import ANY_MODEL, Provider, Target
from proxy.ports import Call, Fault, Reply, Upstream
from proxy.providers import errors
from proxy.terms import Api, ProviderId

WAIT_S: Final = 5.0
AT_ONCE: Final = 8
LIST_BYTES_MAX: Final = 8 * 1024 * 1024  # OpenRouter's is 1 MiB
_UNWELL: Final = (Tally.FAILURE, Tally.QUARANTINE_CREDENTIAL, Tally.COOL_DOWN_LONG)


@dataclass(frozen=True, slots=True)
class Check:
    """What one probe found. Units: seconds; ``at`` is the wall clock. ``error`` None: healthy."""

    at: float
    latency_s: float
    error: str | None

    @property
    def healthy(self) -> bool:
        return self.error is None


class Probe:
    """Asks every active provider that has a list of models, again and again. ``checks`` holds the last answers."""

    def __init__(
        self, upstream: Upstream, now: Callable[[], float], wall: Callable[[], float], *, every_s: float
    ) -> None:
        self._upstream = upstream
        self._now = now
        self._wall = wall
        self._every_s = every_s
        self.checks: dict[ProviderId, Check] = {}

    async def run(self, providers: Callable[[], Iterable[Provider]]) -> None:
        """Until cancelled. ``providers`` gives those of the table that is served from now."""
        while True:
            await self.ask(providers())
            await asyncio.sleep(self._every_s)

    async def ask(self, providers: Iterable[Provider]) -> Mapping[ProviderId, Check]:
        """Probe once."""
        waiting = asyncio.Semaphore(AT_ONCE)
        asked = {one.id: one for one in providers if one.inactive is None and one.models_url is not None}

        async def one(provider: Provider) -> None:
            async with waiting:
                self.checks[provider.id] = await self._check(provider)

        async with asyncio.TaskGroup() as group:
            for provider in asked.values():
                group.create_task(one(provider))
        for gone in self.checks.keys() - asked.keys():
            del self.checks[gone]
        return self.checks

    async def _check(self, provider: Provider) -> Check:
        began = self._now()
        try:
            async with asyncio.timeout(WAIT_S):
                error = await self._ask(provider)
        except TimeoutError:
            error = f"no answer within {WAIT_S:.0f} s"
        return Check(self._wall(), self._now() - began, error)

    async def _ask(self, provider: Provider) -> str | None:
        """What is wrong; of several credentials each is shown where the one before is refused."""
        found: FailureKind | None = None
        for credential in provider.credentials or (None,):
            found = await self._shown(provider, credential)
            if found is not FailureKind.CREDENTIAL_REJECTED:
                break
        return None if found is None else found.value

    async def _shown(self, provider: Provider, credential: Credential | None) -> FailureKind | None:
        target = Target(provider, ANY_MODEL)
        passed = headers.to_upstream({}, target, Api.PASSTHROUGH, credential)
        call = Call(target, provider.models_url or "", passed, b"", WAIT_S, method="GET")
        reply = await self._upstream.send(call)
        if isinstance(reply, Fault):
            return reply.kind
        try:
            body = await _list_of(reply)
        finally:
            reply.close()
        if isinstance(body, Fault):
            return body.kind
        if 200 <= reply.status < 300:
            return None
        # A server may have no such list; that it says so shows that it is there.
        kind, _ = errors.of_answer(reply.status, reply.headers, body, self._wall())
        return kind if TABLE[kind].tally in _UNWELL else None


async def _list_of(reply: Reply) -> bytes | Fault:
    body = b""
    while len(body) <= LIST_BYTES_MAX:
        chunk = await reply.read()
        if isinstance(chunk, Fault):
            return chunk
        if not chunk:
            break
        body += chunk
    return body
