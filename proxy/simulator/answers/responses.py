"""POST /v1/responses. Source: platform.openai.com/docs/api-reference/responses-streaming, and recorded answers.

Every event has an `event:` line and a `sequence_number`; the last event holds the whole answer, and there is no [DONE].
"""

from collections.abc import Iterator
from typing import Any, Final

import orjson

from proxy.simulator.answers.stream import CREATED_AT, Stream, named
from proxy.simulator.ask import Ask, Finish, UsagePlace

_ECHOED: Final = (
    "instructions",
    "max_output_tokens",
    "metadata",
    "previous_response_id",
    "temperature",
    "top_p",
    "user",
)


def whole(ask: Ask) -> bytes:
    return orjson.dumps(_response(ask, [_item(ask, ask.text, "completed")]))


def stream(ask: Ask) -> Stream:
    opening = tuple(_numbered(_opening(ask), 0))
    closing = tuple(_numbered(_closing(ask), len(opening) + len(ask.pieces)))
    return Stream(opening, _content(ask, len(opening)), closing, ())


def _opening(ask: Ask) -> Iterator[dict[str, Any]]:
    started = _response(ask, None)
    yield {"type": "response.created", "response": started}
    yield {"type": "response.in_progress", "response": started}
    yield {"type": "response.output_item.added", "output_index": 0, "item": _item(ask, "", "in_progress")}
    if ask.tool is None:
        yield {"type": "response.content_part.added", **_place(ask), "part": _part("")}


def _content(ask: Ask, first: int) -> Iterator[bytes]:
    place = {"item_id": _item_id(ask), "output_index": 0}
    kind, tail = b"response.function_call_arguments.delta", b"}\n\n"
    if ask.tool is None:
        place = _place(ask)
        kind, tail = b"response.output_text.delta", b',"logprobs":[]}\n\n'
    head = b'event: %b\ndata: {"type":"%b","sequence_number":' % (kind, kind)
    middle = b",%b," % orjson.dumps(place)[1:-1] + b'"delta":'
    for sequence, piece in enumerate(ask.pieces, first):
        yield b"%b%d%b%b%b" % (head, sequence, middle, orjson.dumps(piece), tail)


def _closing(ask: Ask) -> Iterator[dict[str, Any]]:
    text = ask.text
    if ask.tool is None:
        yield {"type": "response.output_text.done", **_place(ask), "text": text, "logprobs": []}
        yield {"type": "response.content_part.done", **_place(ask), "part": _part(text)}
    else:
        yield {
            "type": "response.function_call_arguments.done",
            "item_id": _item_id(ask),
            "output_index": 0,
            "name": ask.tool.name,
            "arguments": text,
        }
    item = _item(ask, text, "completed")
    yield {"type": "response.output_item.done", "output_index": 0, "item": item}
    last = "response.incomplete" if ask.finish is Finish.LENGTH else "response.completed"
    yield {"type": last, "response": _response(ask, [item])}


def _numbered(events: Iterator[dict[str, Any]], first: int) -> Iterator[bytes]:
    for sequence, fields in enumerate(events, first):
        yield named(fields["type"], {"type": fields["type"], "sequence_number": sequence, **fields})


def _response(ask: Ask, output: list[dict[str, Any]] | None) -> dict[str, Any]:
    """``output`` None: it has only begun."""
    cut_short = ask.finish is Finish.LENGTH and output is not None
    tools = ask.fields.get("tools")
    return {
        "id": f"resp_{ask.digest.decode()}",
        "object": "response",
        "created_at": CREATED_AT,
        "status": "in_progress" if output is None else "incomplete" if cut_short else "completed",
        "background": False,
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if cut_short else None,
        "model": ask.model,
        "output": output or [],
        "parallel_tool_calls": True,
        "reasoning": {"effort": None, "summary": None},
        "service_tier": "default",
        "store": False,
        "text": ask.fields.get("text") or {"format": {"type": "text"}},
        "tool_choice": ask.fields.get("tool_choice") or "auto",
        "tools": tools if isinstance(tools, list) else [],
        "truncation": "disabled",
        "usage": None if output is None or ask.usage_place is UsagePlace.NOWHERE else _usage(ask),
        **{name: ask.fields.get(name) for name in _ECHOED},
    }


def _usage(ask: Ask) -> dict[str, Any]:
    usage = ask.usage
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens},
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }


def _item(ask: Ask, text: str, status: str) -> dict[str, Any]:
    if ask.tool is not None:
        return {
            "id": _item_id(ask),
            "type": "function_call",
            "status": status,
            "arguments": text,
            "call_id": f"call_{ask.digest.decode()}",
            "name": ask.tool.name,
        }
    content = [] if status == "in_progress" else [_part(text)]
    return {"id": _item_id(ask), "type": "message", "status": status, "content": content, "role": "assistant"}


def _item_id(ask: Ask) -> str:
    return ("msg_" if ask.tool is None else "fc_") + ask.digest.decode()


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "annotations": [], "logprobs": [], "text": text}


def _place(ask: Ask) -> dict[str, Any]:
    return {"item_id": _item_id(ask), "output_index": 0, "content_index": 0}
