"""As much HTTP/1.1 as the load needs: one request built once, and responses decoded without IO."""

import json
import re
from enum import Enum
from typing import Final

CONTENT_LENGTH: Final = re.compile(rb"(?i)\r\ncontent-length:[ \t]*(\d+)")
CHUNKED: Final = re.compile(rb"(?i)\r\ntransfer-encoding:[ \t]*chunked")
AFTER_END: Final = "expected nothing after the end of the response, got {!r}"
PROMPT: Final = "Say in two sentences what a penstock is, and why a mill needs one. " * 4  # a short question's size


class Framing(Enum):
    """How a response's body ends."""

    NOT_YET_KNOWN = "the head has not ended"
    LENGTH = "content-length"
    CHUNKED = "chunked"


def chat_request(port: int, model_name: str, *, stream: bool, fresh: bool = False) -> bytes:
    """A chat completion request as an SDK sends it, head and body; usage is not asked for.

    ``fresh``: no kept answer will do.
    """
    fields: dict[str, object] = {
        "model": model_name,
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": PROMPT}],
        "temperature": 0.2,
    }
    if stream:
        fields["stream"] = True
    body = json.dumps(fields, separators=(",", ":")).encode()
    control = "cache-control: no-cache\r\n" if fresh else ""
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\n"
        f"host: 127.0.0.1:{port}\r\n"
        "accept: application/json\r\n"
        "accept-encoding: identity\r\n"
        "authorization: Bearer anything\r\n"
        "content-type: application/json\r\n"
        "user-agent: bench\r\n"
        f"{control}"
        f"content-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class ResponseDecoder:
    """One response, fed with bytes as they arrive.

    *Shapes*: ``feed`` returns the body bytes that became readable: any piece of a body of known length, whole chunks
    of a chunked one. ``complete`` turns true with the last byte. Trailers, and bodies that end by closing, are
    not handled.
    *Errors*: ValueError for what is not handled and for bytes after the end; the decoder is of no use afterwards.
    """

    __slots__ = ("_framing", "_pending", "_remaining_bytes", "complete", "status")

    def __init__(self) -> None:
        self.status = 0
        self.complete = False
        self._pending = b""
        self._framing = Framing.NOT_YET_KNOWN
        self._remaining_bytes = 0

    def feed(self, data: bytes) -> bytes:
        if self.complete:
            raise ValueError(AFTER_END.format(data[:80]))
        self._pending = self._pending + data if self._pending else data
        if self._framing is Framing.NOT_YET_KNOWN:
            self._read_head()
        match self._framing:
            case Framing.NOT_YET_KNOWN:
                return b""
            case Framing.LENGTH:
                return self._take_piece()
            case Framing.CHUNKED:
                return self._take_chunks()

    def _read_head(self) -> None:
        end = self._pending.find(b"\r\n\r\n")
        if end < 0:
            return
        head, self._pending = self._pending[:end], self._pending[end + 4 :]
        self.status = int(head[9:12])
        if CHUNKED.search(head):
            self._framing = Framing.CHUNKED
        elif length := CONTENT_LENGTH.search(head):
            self._framing = Framing.LENGTH
            self._remaining_bytes = int(length[1])
        else:
            raise ValueError(f"expected a content-length or chunked response, got {head!r}")

    def _take_piece(self) -> bytes:
        piece, self._pending = self._pending[: self._remaining_bytes], self._pending[self._remaining_bytes :]
        self._remaining_bytes -= len(piece)
        self._end_if(ended=self._remaining_bytes == 0)
        return piece

    def _take_chunks(self) -> bytes:
        pending, position, chunks, ended = self._pending, 0, [], False
        while not ended and (line_end := pending.find(b"\r\n", position)) >= 0:
            size = int(pending[position:line_end].partition(b";")[0], 16)
            chunk_end = line_end + 2 + size
            if len(pending) < chunk_end + 2:
                break
            chunks.append(pending[line_end + 2 : chunk_end])
            position = chunk_end + 2
            ended = size == 0
        self._pending = pending[position:]
        self._end_if(ended=ended)
        return b"".join(chunks)

    def _end_if(self, *, ended: bool) -> None:
        if ended and self._pending:
            raise ValueError(AFTER_END.format(self._pending[:80]))
        self.complete = ended
