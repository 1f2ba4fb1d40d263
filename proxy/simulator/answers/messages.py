"""POST /v1/messages and /v1/messages/count_tokens. Source: docs.anthropic.com/en/api/messages-streaming."""

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final

import orjson

from proxy.simulator.answers.stream import Stream, named
from proxy.simulator.ask import Ask, Finish, UsagePlace

_STOP: Final[Mapping[Finish, str]] = MappingProxyType(
    {Finish.STOP: "end_turn", Finish.LENGTH: "max_tokens", Finish.TOOL: "tool_use"}
)
_PING: Final = b'event: ping\ndata: {"type":"ping"}\n\n'


def whole(ask: Ask) -> bytes:
    block: dict[str, Any] = {"type": "text", "text": ask.text}
    if ask.tool is not None:
        block = {**_tool_block(ask, ask.tool.name), "input": orjson.loads(ask.tool.arguments)}
    answer = {**_message(ask), "content": [block], "stop_reason": _STOP[ask.finish]}
    if ask.usage_place is not UsagePlace.NOWHERE:
        answer["usage"] = _usage(ask, ask.usage.output_tokens)
    return orjson.dumps(answer)


def count(ask: Ask) -> bytes:
    return orjson.dumps({"input_tokens": ask.usage.input_tokens})


def stream(ask: Ask) -> Stream:
    closing = (b'event: content_block_stop\ndata: {"type":"content_block_stop","index":0}\n\n', _message_delta(ask))
    stop = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
    return Stream(tuple(_opening(ask)), _content(ask), closing, (stop,))


def _opening(ask: Ask) -> Iterator[bytes]:
    message = _message(ask)
    if ask.usage_place is not UsagePlace.NOWHERE:
        message["usage"] = _usage(ask, 1)
    yield named("message_start", {"type": "message_start", "message": message})
    block: dict[str, Any] = {"type": "text", "text": ""}
    if ask.tool is not None:
        block = _tool_block(ask, ask.tool.name)
    yield named("content_block_start", {"type": "content_block_start", "index": 0, "content_block": block})
    yield _PING


def _content(ask: Ask) -> Iterator[bytes]:
    delta = b'"text_delta","text":' if ask.tool is None else b'"input_json_delta","partial_json":'
    head = b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,"delta":{"type":' + delta
    for piece in ask.pieces:
        yield head + orjson.dumps(piece) + b"}}\n\n"


def _message_delta(ask: Ask) -> bytes:
    delta = {"stop_reason": _STOP[ask.finish], "stop_sequence": None}
    fields: dict[str, Any] = {"type": "message_delta", "delta": delta}
    if ask.usage_place is not UsagePlace.NOWHERE:
        fields["usage"] = {"output_tokens": ask.usage.output_tokens}
    return named("message_delta", fields)


def _message(ask: Ask) -> dict[str, Any]:
    return {
        "id": f"msg_{ask.digest.decode()}",
        "type": "message",
        "role": "assistant",
        "model": ask.model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
    }


def _tool_block(ask: Ask, name: str) -> dict[str, Any]:
    return {"type": "tool_use", "id": f"toolu_{ask.digest.decode()}", "name": name, "input": {}}


def _usage(ask: Ask, output_tokens: int) -> dict[str, Any]:
    """Anthropic's `input_tokens` leaves out what was read from or written to the cache."""
    usage = ask.usage
    return {
        "input_tokens": usage.input_tokens - usage.cached_tokens - usage.cache_write_tokens,
        "cache_creation_input_tokens": usage.cache_write_tokens,
        "cache_read_input_tokens": usage.cached_tokens,
        "output_tokens": output_tokens,
        "service_tier": "standard",
    }
