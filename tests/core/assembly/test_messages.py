"""The Messages API's blocks, as anthropic-sdk-python assembles them, and the last event of Responses."""

import json
from typing import Any

import pytest

from proxy.core.assembly import forms
from proxy.terms import Api

START = {
    "type": "message_start",
    "message": {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 9, "cache_read_input_tokens": 5, "output_tokens": 1},
    },
}
END = {
    "type": "message_delta",
    "delta": {"stop_reason": "tool_use", "stop_sequence": None},
    "usage": {"output_tokens": 30, "input_tokens": None, "server_tool_use": {"web_search_requests": 1}},
    "context_management": {"applied_edits": []},
}
STOP = {"type": "message_stop"}


def events_of(*documents: dict[str, Any]) -> bytes:
    return b"".join(f"event: {one['type']}\ndata: {json.dumps(one)}\n\n".encode() for one in documents)


def block(index: int, start: dict[str, Any], *deltas: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"type": "content_block_start", "index": index, "content_block": start},
        *({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": index},
    ]


def message_of(*documents: dict[str, Any]) -> dict[str, Any] | None:
    body = forms.to_json(Api.MESSAGES, events_of(START, *documents, END, STOP))
    return None if body is None else json.loads(body)


def content_of(start: dict[str, Any], *deltas: dict[str, Any]) -> dict[str, Any]:
    message = message_of(*block(0, start, *deltas))
    assert message is not None
    (content,) = message["content"]
    assert isinstance(content, dict)
    return content


def tool(*pieces: str) -> list[dict[str, Any]]:
    return [{"type": "input_json_delta", "partial_json": piece} for piece in pieces]


def test_the_whole_message() -> None:
    message = message_of(
        {"type": "ping"},
        *block(0, {"type": "thinking", "thinking": "", "signature": ""}, {"type": "thinking_delta", "thinking": "Hm"}),
        *block(1, {"type": "text", "text": ""}, *({"type": "text_delta", "text": piece} for piece in ("Ça", " va"))),
    )
    assert message == {
        **START["message"],  # type: ignore[dict-item] # a literal's type
        "content": [{"type": "thinking", "thinking": "Hm", "signature": ""}, {"type": "text", "text": "Ça va"}],
        "stop_reason": "tool_use",
        "usage": {
            "input_tokens": 9,
            "cache_read_input_tokens": 5,
            "output_tokens": 30,
            "server_tool_use": {"web_search_requests": 1},
        },
        "context_management": {"applied_edits": []},
    }


def test_thinking_and_its_signature() -> None:
    pieces = [{"type": "thinking_delta", "thinking": piece} for piece in "ab"]
    content = content_of({"type": "thinking", "thinking": ""}, *pieces, {"type": "signature_delta", "signature": "s"})
    assert content == {"type": "thinking", "thinking": "ab", "signature": "s"}


def test_citations() -> None:
    cites = [{"type": "citations_delta", "citation": {"cited_text": text}} for text in "xy"]
    nothing_yet: list[dict[str, Any]] = [{"citations": None}, {"citations": []}, {}]
    for more in nothing_yet:
        start = {"type": "text", "text": "", **more}
        content = content_of(start, *cites, {"type": "text_delta", "text": "a"})
        assert content == {"type": "text", "text": "a", "citations": [{"cited_text": "x"}, {"cited_text": "y"}]}


def test_the_input_of_a_tool() -> None:
    start = {"type": "tool_use", "id": "t", "name": "f", "input": {}}
    assert content_of(start, *tool("", '{"a": "', "é", '"}')) == {**start, "input": {"a": "é"}}
    assert content_of(start, *tool("")) == start
    assert content_of({**start, "input": {"a": 1}}) == {**start, "input": {"a": 1}}


def test_a_block_that_comes_whole() -> None:
    found = {
        "type": "web_search_tool_result",
        "tool_use_id": "t",
        "content": [{"type": "web_search_result", "url": "u"}],
    }
    assert content_of(found) == found


@pytest.mark.parametrize(
    "documents",
    [
        block(0, {"type": "tool_use", "input": {}}, *tool('{"cut": ')),
        block(0, {"type": "text", "text": ""}, {"type": "never_heard_of"}),
        block(0, {"type": "text", "text": ""}, {"type": "text_delta", "text": 7}),
        [{"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "a"}}],
        [*block(0, {"type": "text", "text": ""}), *block(0, {"type": "text", "text": ""})],
        [{"type": "content_block_start", "index": 0, "content_block": "text"}],
        [{"type": "never_heard_of"}],
        [{"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}],
    ],
)
def test_what_cannot_be_assembled_truthfully(documents: list[dict[str, Any]]) -> None:
    assert message_of(*documents) is None


def test_what_is_not_whole() -> None:
    text = block(0, {"type": "text", "text": ""}, {"type": "text_delta", "text": "a"})
    assert forms.to_json(Api.MESSAGES, events_of(START, *text, END)) is None
    assert forms.to_json(Api.MESSAGES, events_of(*text, END, STOP)) is None
    assert forms.to_json(Api.MESSAGES, events_of(STOP)) is None


# Responses.


def responses(*documents: dict[str, Any], kind: str = "response.completed", **response: Any) -> dict[str, Any] | None:
    last = {"type": kind, "response": {"id": "resp_1", "status": kind.partition(".")[2], **response}}
    body = forms.to_json(Api.RESPONSES, events_of({"type": "response.created", "response": {}}, *documents, last))
    return None if body is None else json.loads(body)


def test_the_last_event_holds_the_answer() -> None:
    item = {"type": "message", "content": [{"type": "output_text", "text": "a"}]}
    for kind in ("completed", "incomplete"):
        answer = responses(kind=f"response.{kind}", output=[item])
        assert answer == {"id": "resp_1", "status": kind, "output": [item]}
    assert responses(kind="response.failed", output=[]) is None
    assert forms.to_json(Api.RESPONSES, events_of({"type": "response.created", "response": {}})) is None
    assert forms.to_json(Api.RESPONSES, events_of({"type": "response.completed"})) is None


def test_items_that_the_last_event_does_not_repeat() -> None:
    added = [{"type": "response.output_item.added", "output_index": index, "item": {}} for index in range(2)]
    done = [{"type": "response.output_item.done", "output_index": index, "item": {"id": index}} for index in range(2)]
    answer = responses(*added, done[1], done[0], output=[])
    assert answer is not None
    assert answer["output"] == [{"id": 0}, {"id": 1}]
    assert responses(*added, done[1], output=[]) is None
    assert responses(output=[]) == {"id": "resp_1", "status": "completed", "output": []}
