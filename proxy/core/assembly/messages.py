"""Messages: `message_start` holds the frame, the blocks come in pieces, `message_delta` tells how it ended.

An event or a delta that nobody here knows may hold content: then there is no JSON form. `input` of a call of a tool comes as
pieces of JSON text; one that was cut (by `max_tokens`) is no JSON.

Source: docs.claude.com, "Streaming Messages"; anthropic-sdk-python, `lib/streaming/_messages.py` (read 2026-11-21).
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

from proxy.core import lenient_json
from proxy.core.assembly.gather import Gatherer, Items, Last, Text
from proxy.core.assembly.recorded import Unclear, dump, read
from proxy.terms import Api

# A kind of delta: the block's member, the delta's member that is a piece of it, how the pieces come together.
_DELTAS: Final[Mapping[str, tuple[str, str, Callable[[], Gatherer]]]] = MappingProxyType(
    {
        "text_delta": ("text", "text", Text),
        "input_json_delta": ("input", "partial_json", Text),
        "thinking_delta": ("thinking", "thinking", Text),
        "signature_delta": ("signature", "signature", Last),
        "citations_delta": ("citations", "citation", Items),
        "compaction_delta": ("content", "content", Text),
    }
)


class _Block:
    """A block of content on its way."""

    __slots__ = ("_gathered", "_start")

    def __init__(self, start: Any) -> None:
        if type(start) is not dict:
            raise Unclear("a block of content is no object")
        self._start = start
        self._gathered: dict[str, Gatherer] = {}

    def add(self, delta: Any) -> None:
        row = _DELTAS.get(str(delta.get("type"))) if type(delta) is dict else None
        if row is None:
            raise Unclear("a delta is of a kind that is not known")
        name, told, new = row
        if name not in self._gathered:
            self._gathered[name] = new()
            before = self._start.get(name)
            if before and name != "input":
                self._gathered[name].add(before)
        piece = delta.get(told)
        if piece is not None:
            self._gathered[name].add([piece] if new is Items else piece)

    def value(self) -> dict[str, Any]:
        whole = {name: gatherer.value() for name, gatherer in self._gathered.items()}
        if "input" in whole:
            whole["input"] = _input(whole["input"]) if whole["input"] else self._start.get("input", {})
        return {**self._start, **whole}


def to_json(events: bytes) -> bytes:
    message: dict[str, Any] | None = None
    blocks: dict[int, _Block] = {}
    recorded = read(events, Api.MESSAGES)
    if not recorded.readings or not any(reading.terminal for reading in recorded.readings):
        raise Unclear("it has no last event")
    for document in recorded.documents:
        kind = document.get("type")
        if kind == "ping":
            continue
        if kind == "message_start":
            message = _frame(document)
        elif message is None:
            raise Unclear("it does not begin with a message")
        elif kind == "message_stop":
            break
        elif kind == "message_delta":
            _end(message, document)
        else:
            _take(blocks, document)
    if message is None:
        raise Unclear("it does not begin with a message")
    return dump({**message, "content": [blocks[index].value() for index in sorted(blocks)]})


def _frame(document: dict[str, Any]) -> dict[str, Any]:
    message = document.get("message")
    if type(message) is not dict or message.get("content"):
        raise Unclear("it begins with a message that is none, or that has content")
    return dict(message)


def _take(blocks: dict[int, _Block], document: dict[str, Any]) -> None:
    index = document.get("index")
    if type(index) is not int:
        raise Unclear("an event is of a kind that is not known")
    match document.get("type"):
        case "content_block_start" if index not in blocks:
            blocks[index] = _Block(document.get("content_block"))
        case "content_block_delta" if index in blocks:
            blocks[index].add(document.get("delta"))
        case "content_block_stop":
            return
        case _:
            raise Unclear("an event is of a kind that is not known, or out of order")


def _end(message: dict[str, Any], document: dict[str, Any]) -> None:
    """What `message_delta` tells: its figures are totals, and take the place of what the beginning told of them."""
    for name, value in document.items():
        if name == "delta" and type(value) is dict:
            message |= value
        elif name == "usage" and type(value) is dict:
            before = message.get("usage")
            told = {figure: count for figure, count in value.items() if count is not None}
            message["usage"] = {**(before if type(before) is dict else {}), **told}
        elif name not in ("type", "delta", "usage"):
            message[name] = value


def _input(text: str) -> Any:
    try:
        return lenient_json.loads(text.encode("utf-8", "surrogatepass"))
    except ValueError:
        raise Unclear("the input of a call of a tool is no JSON") from None
