"""POST /v1/chat/completions. Source: platform.openai.com/docs/api-reference/chat, and recorded answers of providers."""

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final

import orjson

from proxy.simulator.answers.stream import CREATED_AT, DONE, Stream, data
from proxy.simulator.ask import Ask, Finish, ToolCall, UsagePlace

FINISH: Final[Mapping[Finish, str]] = MappingProxyType(
    {Finish.STOP: "stop", Finish.LENGTH: "length", Finish.TOOL: "tool_calls"}
)


def usage_of(ask: Ask) -> dict[str, Any]:
    usage = ask.usage
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens, "audio_tokens": 0},
    }


def whole(ask: Ask) -> bytes:
    message: dict[str, Any] = {"role": "assistant", "content": None, "refusal": None, "annotations": []}
    if ask.tool is None:
        message["content"] = ask.text
    else:
        message["tool_calls"] = [_call(ask, ask.tool, ask.text)]
    answer: dict[str, Any] = {
        "id": _id(ask),
        "object": "chat.completion",
        "created": CREATED_AT,
        "model": ask.model,
        "choices": [
            {"index": index, "message": message, "logprobs": None, "finish_reason": FINISH[ask.finish]}
            for index in range(ask.choices)
        ],
        "service_tier": "default",
        "system_fingerprint": "fp_simulator",
    }
    if ask.usage_place is not UsagePlace.NOWHERE:
        answer["usage"] = usage_of(ask)
    return orjson.dumps(answer)


def stream(ask: Ask) -> Stream:
    return Stream(tuple(_opening(ask)), _content(ask), tuple(_closing(ask)), (DONE,))


def finish_event(ask: Ask, index: int) -> bytes:
    """The chunk that ends one choice, with the usage where this provider's dialect puts it there."""
    choice: dict[str, Any] = {"index": index, "delta": {}, "logprobs": None, "finish_reason": FINISH[ask.finish]}
    more: dict[str, Any] = {}
    match ask.usage_place:
        case UsagePlace.LAST_CHOICE | UsagePlace.EVERY:
            more["usage"] = usage_of(ask)
        case UsagePlace.X_GROQ:
            more["x_groq"] = {"id": "req_simulator", "usage": usage_of(ask)}
        case UsagePlace.IN_CHOICE:
            choice["usage"] = usage_of(ask)
        case UsagePlace.ASKED if ask.include_usage:
            more["usage"] = None
        case UsagePlace.ASKED | UsagePlace.NOWHERE:
            more = {}
    return data({**_envelope(ask), "choices": [choice], **more})


def _opening(ask: Ask) -> Iterator[bytes]:
    delta: dict[str, Any] = {"role": "assistant", "content": "", "refusal": None}
    if ask.tool is not None:
        delta = {"role": "assistant", "content": None, "tool_calls": [{"index": 0, **_call(ask, ask.tool, "")}]}
    nulls = {"usage": None} if ask.include_usage and ask.usage_place is UsagePlace.ASKED else {}
    for index in range(ask.choices):
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}
        yield data({**_envelope(ask), "choices": [choice], **nulls})


def _content(ask: Ask) -> Iterator[bytes]:
    """Put together from bytes: encoding a dict for each event would be most of the simulator's CPU."""
    before, after = _delta_frame(ask)
    prefix = b"data: " + orjson.dumps(_envelope(ask))[:-1] + b',"choices":[{"index":'
    heads = tuple(b"%b%d%b" % (prefix, index, before) for index in range(ask.choices))
    encode = orjson.dumps
    if ask.usage_place is UsagePlace.EVERY:
        yield from _counted(ask, heads, after[:-3])
        return
    for piece in ask.pieces:
        for head in heads:
            yield head + encode(piece) + after


def _counted(ask: Ask, heads: tuple[bytes, ...], after: bytes) -> Iterator[bytes]:
    usage = usage_of(ask)
    for count, piece in enumerate(ask.pieces, 1):
        so_far = {**usage, "completion_tokens": count, "total_tokens": usage["prompt_tokens"] + count}
        for head in heads:
            yield b'%b%b%b,"usage":%b}\n\n' % (head, orjson.dumps(piece), after, orjson.dumps(so_far))


def _delta_frame(ask: Ask) -> tuple[bytes, bytes]:
    """What stands around a piece's JSON string, after the choice's index."""
    tail = b',"logprobs":null,"finish_reason":null}]'
    tail += b',"usage":null}\n\n' if ask.include_usage and ask.usage_place is UsagePlace.ASKED else b"}\n\n"
    if ask.tool is None:
        return b',"delta":{"content":', b"}" + tail
    return b',"delta":{"tool_calls":[{"index":0,"function":{"arguments":', b"}}]}" + tail


def _closing(ask: Ask) -> Iterator[bytes]:
    for index in range(ask.choices):
        yield finish_event(ask, index)
    if (ask.include_usage and ask.usage_place is UsagePlace.ASKED) or ask.usage_place is UsagePlace.EVERY:
        yield data({**_envelope(ask), "choices": [], "usage": usage_of(ask)})


def _envelope(ask: Ask) -> dict[str, Any]:
    return {
        "id": _id(ask),
        "object": "chat.completion.chunk",
        "created": CREATED_AT,
        "model": ask.model,
        "system_fingerprint": "fp_simulator",
    }


def _call(ask: Ask, tool: ToolCall, arguments: str) -> dict[str, Any]:
    function = {"name": tool.name, "arguments": arguments}
    return {"id": f"call_{ask.digest.decode()}", "type": "function", "function": function}


def _id(ask: Ask) -> str:
    return f"chatcmpl-{ask.digest.decode()}"
