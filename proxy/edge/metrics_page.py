"""`/metrics`: what was counted and how the process stands, as text, made in a thread."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from proxy.core.own_host import is_own_host
from proxy.telemetry.metrics import Snapshot

PATH: Final = "/metrics"
_HEADERS: Final = {"server": "penstock", "cache-control": "no-store", "x-content-type-options": "nosniff"}


@dataclass(slots=True)
class MetricsPage:
    """An `Exposition`. ``look``: all that is to be told of, as it is now."""

    look: Callable[[], Awaitable[Snapshot]]

    async def page(self, accept: str) -> tuple[str, bytes]:
        return await asyncio.to_thread(_rendered, await self.look(), accept)

    async def handle(self, request: web.BaseRequest, *, own_names_only: bool) -> web.StreamResponse:
        """The handler of a port that serves nothing else, and asks for no key.

        ``own_names_only``: where only this machine can connect, so that no web page reads it under a name of its own.
        """
        if own_names_only and not is_own_host(request.headers.getall("host", []), ()):
            return web.Response(status=421, text="Ask by an address or localhost.\n", headers=_HEADERS)
        if request.raw_path.partition("?")[0] != PATH:
            return web.Response(status=404, text=f"There is {PATH} here, and nothing else.\n", headers=_HEADERS)
        if request.method not in ("GET", "HEAD"):
            return web.Response(status=405, headers={**_HEADERS, "allow": "GET, HEAD"})
        content_type, body = await self.page(request.headers.get("accept", ""))
        return web.Response(body=body, headers={**_HEADERS, "content-type": content_type})


def _rendered(told: Snapshot, accept: str) -> tuple[str, bytes]:
    from proxy.telemetry.exposition import rendered  # noqa: PLC0415 - 50 ms, when somebody asks

    return rendered(told, accept)
