"""What the tests read from a socket: everything until it ends, falls silent, or is reset."""

import asyncio
import re
import socket
import struct
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import orjson

SILENT_S = 0.1  # where nothing more is expected
PATIENT_S = 5.0  # where more is: only a machine that stands still is slower
_DRIPPED = re.compile(rb"\r\n1\r\n.\r\n1\r\n.\r\n\Z")  # the last two chunks are a byte each: it goes on for ten minutes
PATHS = {
    "chat": "/chat/completions",
    "completions": "/completions",
    "responses": "/responses",
    "messages": "/messages",
    "embeddings": "/embeddings",
    "count_tokens": "/messages/count_tokens",
    "moderations": "/moderations",
    "images": "/images/generations",
    "image_edits": "/images/edits",
    "speech": "/audio/speech",
    "transcriptions": "/audio/transcriptions",
    "translations": "/audio/translations",
    "rerank": "/rerank",
}
FORMS = ("image_edits", "transcriptions", "translations")
FILE = b"RIFF\x00\r\n--not the boundary\r\n\xff" * 40
_BOUNDARY = b"a-boundary-of-the-tests"
ASKED: dict[str, dict[str, Any]] = {
    "chat": {"messages": [{"role": "user", "content": "How high is the water?"}]},
    "completions": {"prompt": "How high is the water?"},
    "responses": {"input": "How high is the water?"},
    "messages": {"max_tokens": 1000, "messages": [{"role": "user", "content": "How high is the water?"}]},
    "embeddings": {"input": "How high is the water?", "dimensions": 16},
    "count_tokens": {"messages": [{"role": "user", "content": "How high is the water?"}]},
    "moderations": {"input": "How high is the water?"},
    "images": {"prompt": "A weir at dawn"},
    "image_edits": {"prompt": "A weir at dawn"},
    "speech": {"input": "How high is the water?", "voice": "alloy"},
    "transcriptions": {},
    "translations": {},
    "rerank": {"query": "high water", "documents": ["a dry field", "the water is high", "high noon"]},
}


@dataclass(frozen=True, slots=True)
class Answer:
    """``end``: how the connection ended: eof, reset, or open (nothing more came)."""

    raw: bytes
    end: str

    @property
    def head(self) -> bytes:
        return self.raw.partition(b"\r\n\r\n")[0] + b"\r\n"

    @property
    def status(self) -> int:
        return int(self.raw.split(b" ", 2)[1])

    @property
    def after_head(self) -> bytes:
        return self.raw.partition(b"\r\n\r\n")[2]

    @property
    def body(self) -> bytes:
        """Without its chunks, as far as it came."""
        if b"\r\ntransfer-encoding: chunked\r\n" not in self.head:
            return self.after_head
        rest, out = self.after_head, b""
        while rest:
            size, _, rest = rest.partition(b"\r\n")
            out, rest = out + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
        return out

    @property
    def whole(self) -> bool:
        """A chunked body came to its end."""
        return self.after_head.endswith(b"0\r\n\r\n")

    def json(self) -> Any:
        return orjson.loads(self.body)


def body_of(api: str, model: str, **more: Any) -> bytes:
    return orjson.dumps({"model": model, **ASKED[api], **more})


def form_of(api: str, model: str, *, file: bytes = FILE, model_last: bool = False, **more: Any) -> bytes:
    """A multipart body. ``model_last``: the model's field stands behind the file."""
    fields = {name: str(value).lower() if value is True else value for name, value in {**ASKED[api], **more}.items()}
    parts = [(f'name="{name}"', str(value).encode()) for name, value in fields.items()]
    name = "image" if api == "image_edits" else "file"
    parts.append((f'name="{name}"; filename="weir.bin"\r\nContent-Type: application/x-weir', file))
    parts.insert(len(parts) if model_last else 0, ('name="model"', model.encode()))
    shown = (
        b"--%b\r\nContent-Disposition: form-data; %b\r\n\r\n%b\r\n" % (_BOUNDARY, about.encode(), value)
        for about, value in parts
    )
    return b"".join(shown) + b"--%b--\r\n" % _BOUNDARY


def request_of(path: str, body: bytes) -> bytes:
    form = body.startswith(b"--" + _BOUNDARY)
    content_type = f"multipart/form-data; boundary={_BOUNDARY.decode()}" if form else "application/json"
    head = (
        f"POST /v1{path} HTTP/1.1\r\nhost: test\r\ncontent-type: {content_type}\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def opened(base_url: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    url = urlsplit(base_url)
    return await asyncio.open_connection(url.hostname, url.port, limit=1 << 24)


async def ask(base_url: str, api: str, model: str, *, silence: bool = False, **more: Any) -> Answer:
    reader, writer = await opened(base_url)
    body = form_of(api, model, **more) if api in FORMS else body_of(api, model, **more)
    writer.write(request_of(PATHS[api], body))
    try:
        return await read(reader, silence)
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def read(reader: asyncio.StreamReader, silence: bool = False) -> Answer:
    """Until the body's end by its framing (`silence`: and until nothing follows), or the connection's end."""
    raw = b""
    while silence or not _complete(raw):
        try:
            async with asyncio.timeout(SILENT_S if silence else PATIENT_S):
                data = await reader.read(1 << 20)
        except TimeoutError:
            break
        except ConnectionResetError:
            return Answer(raw, "reset")
        if not data:
            return Answer(raw, "eof")
        raw += data
        if _DRIPPED.search(raw[-20:]):
            break
    return Answer(raw, "open")


def _complete(raw: bytes) -> bool:
    """Only for an answer that is framed as it should be; everything odd is read until silence."""
    head, blank, body = raw.partition(b"\r\n\r\n")
    while head.startswith(b"HTTP/1.1 1"):
        head, blank, body = body.partition(b"\r\n\r\n")
    if not blank:
        return False
    lengths = [int(line[16:]) for line in head.split(b"\r\n") if line.startswith(b"content-length: ")]
    if b"\r\ntransfer-encoding: chunked" in head:
        return body.endswith(b"0\r\n\r\n")
    return len(lengths) == 1 and len(body) >= lengths[0]


def reset(writer: asyncio.StreamWriter) -> None:
    """Leave as a client does that is killed: RST."""
    own = writer.get_extra_info("socket")
    own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def data_of(body: bytes) -> list[bytes]:
    """The data of each event, by the obvious way: lines, joined at blank ones."""
    lines = body.replace(b"\r\n", b"\n").replace(b"\r", b"\n").removeprefix(b"\xef\xbb\xbf").split(b"\n")
    events: list[bytes] = []
    held: list[bytes] = []
    for line in lines:
        if line.startswith(b"data:"):
            held.append(line[5:].removeprefix(b" "))
        elif not line and held:
            events.append(b"\n".join(held))
            held = []
    return events


def text_of(body: bytes) -> str:
    """The text of a stream of any API."""
    out = ""
    for data in data_of(body):
        if not data.startswith(b"{"):
            continue
        event = orjson.loads(data)
        choice = (event.get("choices") or [{}])[0]
        delta = event.get("delta", "")
        out += choice.get("text") or (choice.get("delta") or {}).get("content") or ""
        out += delta if isinstance(delta, str) else delta.get("text", "")
    return out
