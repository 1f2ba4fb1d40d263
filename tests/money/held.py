"""An upstream that keeps its requests waiting for as long as a test wants, and remembers who asked."""

import asyncio
from dataclasses import dataclass, field

import orjson

USED_IN, USED_OUT = 20, 7
_ANSWER = orjson.dumps(
    {
        "choices": [{"index": 0, "message": {"content": "dry"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": USED_IN, "completion_tokens": USED_OUT},
    }
)
_EVENTS = [
    {"choices": [{"index": 0, "delta": {"content": "dry"}, "finish_reason": None}]},
    {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
    {"choices": [], "usage": {"prompt_tokens": USED_IN, "completion_tokens": USED_OUT}},
]
_STREAM = b"".join(b"data: " + orjson.dumps(event) + b"\n\n" for event in _EVENTS) + b"data: [DONE]\n\n"


@dataclass
class Held:
    """``seen``: the `user` of each request, in order. ``go``: set, and everybody is answered."""

    seen: list[str] = field(default_factory=list)
    go: asyncio.Event = field(default_factory=asyncio.Event)
    _server: asyncio.Server | None = None

    async def start(self) -> str:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=1024)
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"

    async def stop(self) -> None:
        self.go.set()
        if self._server is not None:
            self._server.close()

    async def until_seen(self, count: int, within_s: float = 15.0) -> None:
        async with asyncio.timeout(within_s):
            while len(self.seen) < count:
                await asyncio.sleep(0.01)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                if head.startswith(b"GET "):  # a look at its models, which are nobody's subject
                    writer.write(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")
                    continue
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                asked = orjson.loads(await reader.readexactly(length))
                self.seen.append(asked.get("user", ""))
                await self.go.wait()
                kind, body = ("text/event-stream", _STREAM) if asked.get("stream") else ("application/json", _ANSWER)
                writer.write(
                    b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\ncontent-length: %d\r\n\r\n%b"
                    % (kind.encode(), len(body), body)
                )
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.transport.abort()
        finally:
            writer.close()
