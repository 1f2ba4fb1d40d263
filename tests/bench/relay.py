"""The yardstick: the least that an aiohttp relay can honestly do. Bytes in, bytes out, no features.

Run as ``python -m tests.bench.relay PORT UPSTREAM_PORT``. JSON takes the same path as streams: reading it
whole first costs the same within the noise (0.98x at 16 connections, 1.04x at one, 21 rounds).
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Final

import uvloop
from aiohttp import ClientSession, ClientTimeout, DummyCookieJar, TCPConnector, web
from multidict import CIMultiDict, CIMultiDictProxy

BACKLOG: Final = 2048  # more than the streams that the harness opens at once
BODY_BYTES_MAX: Final = 64 * 1024 * 1024
HOP_BY_HOP: Final = (
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
)


def end_to_end(headers: CIMultiDictProxy[str], *also_dropped: str) -> CIMultiDict[str]:
    kept = CIMultiDict(headers)
    for name in (*HOP_BY_HOP, *also_dropped):
        kept.popall(name, None)
    return kept


def relay_to(upstream: str, session: ClientSession) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def relay(request: web.Request) -> web.StreamResponse:
        async with session.request(
            request.method,
            upstream + request.raw_path,
            headers=end_to_end(request.headers, "host", "content-length"),
            data=await request.read(),
            allow_redirects=False,
        ) as answer:
            response = web.StreamResponse(status=answer.status, headers=end_to_end(answer.headers))
            await response.prepare(request)
            async for piece in answer.content.iter_any():
                await response.write(piece)
            await response.write_eof()
            return response

    return relay


async def serve(port: int, upstream: str) -> None:
    session = ClientSession(
        connector=TCPConnector(limit=0),
        cookie_jar=DummyCookieJar(),
        timeout=ClientTimeout(total=None),
        auto_decompress=False,
        skip_auto_headers=("user-agent", "accept", "accept-encoding", "content-type"),
    )
    async with session:
        application = web.Application(client_max_size=BODY_BYTES_MAX)
        application.router.add_route("*", "/{path:.*}", relay_to(upstream, session))
        runner = web.AppRunner(application, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port, backlog=BACKLOG).start()
        await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), f"http://127.0.0.1:{sys.argv[2]}"))
