"""JSON to events and back, judged by openai-python; and what streams of chat and completions hold beside text."""

import base64
import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from proxy.core import lenient_json
from proxy.core.assembly import forms
from proxy.core.assembly.choices import PIECE_CHARS
from proxy.terms import Api
from tests.core.assembly import sdk


def stream(*documents: dict[str, Any], done: bool = True) -> bytes:
    events = [b"data: " + json.dumps(document).encode() + b"\n\n" for document in documents]
    return b"".join(events) + (b"data: [DONE]\n\n" if done else b"")


def chunk(delta: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """One chunk of chat; what is not of the chunk is of its choice."""
    around: dict[str, Any] = {
        name: more.pop(name) for name in ("usage", "x_groq", "citations", "model", "id") if name in more
    }
    choice = {"index": 0, "delta": {} if delta is None else delta, "finish_reason": None, **more}
    return {"id": "c1", "object": "chat.completion.chunk", "created": 7, "model": "m", "choices": [choice], **around}


END = chunk(finish_reason="stop")


def answer_of(*documents: dict[str, Any]) -> dict[str, Any]:
    body = forms.to_json(Api.CHAT, stream(*documents))
    assert body is not None
    found: dict[str, Any] = json.loads(body)
    return found


def message_of(*deltas: dict[str, Any]) -> dict[str, Any]:
    answer = answer_of(*map(chunk, deltas), END)
    message: dict[str, Any] = answer["choices"][0]["message"]
    return message


# Whole answers.

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
WORD = st.sampled_from(["a", "call_1", "weather", "x-y"])
JSON = st.recursive(
    st.booleans() | st.integers(-9, 9) | TEXT,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXT, inner, max_size=2),
    max_leaves=4,
)
LONG = st.just("é\n" * PIECE_CHARS)
PROSE = TEXT | LONG
TOKEN = st.fixed_dictionaries(
    {"token": TEXT, "logprob": st.floats(-9, 0), "bytes": st.none(), "top_logprobs": st.just([])}
)
CALL = st.fixed_dictionaries(
    {
        "id": WORD,
        "type": st.just("function"),
        "function": st.fixed_dictionaries({"name": WORD, "arguments": TEXT | LONG}),
    }
)
DETAIL = st.fixed_dictionaries({"type": st.just("reasoning.text"), "text": TEXT, "index": st.just(0)})
MESSAGE = st.fixed_dictionaries(
    {"role": st.just("assistant"), "content": st.none() | PROSE},
    optional={
        "refusal": st.none() | TEXT,
        "reasoning_content": st.none() | PROSE,
        "reasoning": PROSE,
        "reasoning_details": st.lists(DETAIL, max_size=1),
        "tool_calls": st.none() | st.lists(CALL, max_size=3),
        "function_call": st.none() | st.fixed_dictionaries({"name": WORD, "arguments": TEXT}),
        "audio": st.none()
        | st.fixed_dictionaries(
            {
                "id": WORD,
                "data": st.binary(max_size=9).map(lambda data: base64.b64encode(data).decode()),
                "expires_at": st.integers(0, 9),
                "transcript": TEXT,
            }
        ),
        "annotations": st.just([{"type": "url_citation", "url_citation": {"url": "u", "title": "t"}}]),
        "never_heard_of": JSON,
    },
)
CHOICE = st.fixed_dictionaries(
    {"message": MESSAGE, "finish_reason": st.sampled_from(["stop", "length", "tool_calls"])},
    optional={
        "logprobs": st.none()
        | st.fixed_dictionaries(
            {"content": st.none() | st.lists(TOKEN, max_size=2), "refusal": st.none() | st.lists(TOKEN, max_size=2)}
        ),
        "native_finish_reason": WORD,
        "token_ids": st.lists(st.integers(0, 9), max_size=3),
    },
)
ANSWER = st.fixed_dictionaries(
    {
        "id": WORD,
        "object": st.just("chat.completion"),
        "created": st.integers(1, 9),
        "model": WORD,
        "choices": st.lists(CHOICE, min_size=1, max_size=3).map(
            lambda choices: [{"index": index, **choice} for index, choice in enumerate(choices)]
        ),
    },
    optional={
        "usage": st.just({"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}),
        "system_fingerprint": st.none() | WORD,
        "service_tier": st.sampled_from(["default", "flex"]),
        "citations": st.lists(WORD, min_size=1, max_size=3),
        "provider": WORD,
    },
)


@settings(deadline=None)
@given(ANSWER)
def test_an_answer_survives_its_other_form(answer: dict[str, Any]) -> None:
    events = forms.to_stream(Api.CHAT, json.dumps(answer).encode(), include_usage=True)
    assert events is not None
    body = forms.to_json(Api.CHAT, events)
    assert body is not None
    assert _settled(json.loads(body)) == _settled(answer)


@settings(deadline=None, max_examples=40)
@given(ANSWER, st.booleans())
def test_the_sdk_assembles_the_same_answer(answer: dict[str, Any], include_usage: bool) -> None:
    body = json.dumps(answer).encode()
    events = forms.to_stream(Api.CHAT, body, include_usage=include_usage)
    assert events is not None
    assembled, given = sdk.chat_of_stream(events), sdk.chat_of_json(body)
    if not include_usage:
        given.pop("usage", None)
    assert _seen(assembled) == _seen(given)
    usage = b'"usage"' in events
    assert usage is (include_usage and "usage" in answer)


def _settled(answer: dict[str, Any]) -> dict[str, Any]:
    """Two spellings of nothing are one: lists of logprobs that are null, calls of tools without any."""
    for choice in answer["choices"]:
        if not choice["message"].get("tool_calls"):
            choice["message"].pop("tool_calls", None)
    return answer


def _seen(document: Any) -> Any:
    """What a program sees of the SDK's objects: there null is what is absent. The SDK adds fields of its own parsing."""
    if isinstance(document, dict):
        own = {"parsed", "parsed_arguments"}
        if "function" in document or "index" in document:
            own |= {"index"}
        members = {name: _seen(value) for name, value in document.items() if name not in own}
        return {name: value for name, value in members.items() if value is not None and value not in ([], {})}
    return [_seen(item) for item in document] if isinstance(document, list) else document


# Completions.


def test_completions_go_both_ways() -> None:
    logprobs = {"tokens": ["a", "b"], "token_logprobs": [-0.1, -0.2], "top_logprobs": None, "text_offset": [0, 1]}
    answer: dict[str, Any] = {
        "id": "cmpl-1",
        "object": "text_completion",
        "created": 7,
        "model": "m",
        "choices": [
            {"index": 0, "text": "x" * (2 * PIECE_CHARS + 1), "logprobs": logprobs, "finish_reason": "length"},
            {"index": 1, "text": "", "logprobs": None, "finish_reason": "stop", "stop_reason": 7},
        ],
        "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
    }
    body = json.dumps(answer).encode()
    events = forms.to_stream(Api.COMPLETIONS, body, include_usage=True)
    assert events is not None
    back = forms.to_json(Api.COMPLETIONS, events)
    assert back is not None
    assert json.loads(back) == answer == sdk.completion_of_json(body)
    chunks = sdk.completions_of_stream(events)
    assert len(chunks) == 7
    for index, choice in enumerate(answer["choices"]):
        own = [one for each in chunks for one in each["choices"] if one["index"] == index]
        assert "".join(one["text"] for one in own) == choice["text"]
        assert [one["finish_reason"] for one in own if one["finish_reason"]] == [choice["finish_reason"]]
    plain = forms.to_stream(Api.COMPLETIONS, body, include_usage=False)
    assert plain == forms.without_usage(Api.COMPLETIONS, events)


def test_logprobs_of_completions_follow_each_other() -> None:
    def piece(text: str, reason: str | None) -> dict[str, Any]:
        logprobs = {
            "tokens": [text],
            "token_logprobs": [-1.5],
            "top_logprobs": [{text: -1.5}],
            "text_offset": [len(text)],
        }
        return {"choices": [{"index": 0, "text": text, "logprobs": logprobs, "finish_reason": reason}]}

    body = forms.to_json(Api.COMPLETIONS, stream(piece("a", None), piece("bc", "stop")))
    assert body is not None
    (choice,) = json.loads(body)["choices"]
    assert choice == {
        "index": 0,
        "text": "abc",
        "finish_reason": "stop",
        "logprobs": {
            "tokens": ["a", "bc"],
            "token_logprobs": [-1.5, -1.5],
            "top_logprobs": [{"a": -1.5}, {"bc": -1.5}],
            "text_offset": [1, 2],
        },
    }


# What a message is made of.


def test_calls_of_tools_come_together_by_their_index() -> None:
    message = message_of(
        {"tool_calls": [{"index": 1, "id": "b", "type": "function", "function": {"name": "two", "arguments": ""}}]},
        {"tool_calls": [{"index": 0, "id": "a", "type": "function", "function": {"name": "one", "arguments": '{"x'}}]},
        {
            "tool_calls": [
                {"index": 1, "function": {"arguments": "{}"}},
                {"index": 0, "function": {"arguments": '":1}'}},
            ]
        },
    )
    assert message["tool_calls"] == [
        {"id": "a", "type": "function", "function": {"name": "one", "arguments": '{"x":1}'}},
        {"id": "b", "type": "function", "function": {"name": "two", "arguments": "{}"}},
    ]


@pytest.mark.parametrize(
    ("calls", "expected"),
    [
        # Mistral's, whole and without an index.
        (
            [[{"id": "a", "function": {"name": "f", "arguments": "{}"}}, {"id": "b", "function": {"name": "g"}}]],
            "a:f{} b:g",
        ),
        # vLLM's, which repeats id and name with every piece.
        (
            [[{"index": 0, "id": "a", "function": {"name": "f", "arguments": piece}}] for piece in ('{"a"', ":1}")],
            'a:f{"a":1}',
        ),
        # A name in pieces, and pieces without an index.
        (
            [[{"id": "a", "function": {"name": "get_"}}], [{"function": {"name": "it", "arguments": "{}"}}]],
            "a:get_it{}",
        ),
        # Null arguments, as OpenRouter sends them of Meta's.
        ([[{"index": 0, "id": "a", "function": {"name": "f", "arguments": None}}]], "a:f"),
        (
            [
                [{"index": 0, "id": "a", "type": "function", "function": {"name": "f"}}],
                [{"index": 0, "id": "", "type": ""}],
            ],
            "a:f",
        ),
    ],
)
def test_calls_as_providers_stream_them(calls: list[list[dict[str, Any]]], expected: str) -> None:
    message = message_of(*({"tool_calls": piece} for piece in calls))
    shown = [
        f"{call['id']}:{call['function']['name']}{call['function']['arguments']}" for call in message["tool_calls"]
    ]
    assert " ".join(shown) == expected
    assert {call["type"] for call in message["tool_calls"]} == {"function"}


def test_two_calls_under_one_index_have_no_form() -> None:
    calls = [{"index": 0, "id": one, "function": {"name": "f", "arguments": "{}"}} for one in "ab"]
    assert forms.to_json(Api.CHAT, stream(*(chunk({"tool_calls": [call]}) for call in calls), END)) is None


def test_custom_tools_and_functions() -> None:
    custom = {"index": 0, "id": "a", "type": "custom", "custom": {"name": "sql", "input": "SELECT"}}
    message = message_of(
        {"tool_calls": [custom]},
        {"tool_calls": [{"index": 0, "custom": {"input": " 1"}}], "function_call": {"name": "f", "arguments": "{"}},
        {"function_call": {"arguments": "}"}},
    )
    assert message["tool_calls"] == [{"id": "a", "type": "custom", "custom": {"name": "sql", "input": "SELECT 1"}}]
    assert message["function_call"] == {"name": "f", "arguments": "{}"}


def test_steps_of_reasoning() -> None:
    def step(kind: str, index: int | None, **more: Any) -> dict[str, Any]:
        return {"reasoning_details": [{"type": f"reasoning.{kind}", "index": index, **more}]}

    message = message_of(
        step("text", 0, text="a", signature=None),
        step("text", 0, text="b"),
        step("text", 0, signature="s"),
        step("encrypted", 0, data="d"),
        step("summary", 1, summary="s"),
        step("text", None, text="x"),
        step("text", None, text="y"),
    )
    assert message["reasoning_details"] == [
        {"type": "reasoning.text", "index": 0, "text": "ab", "signature": "s"},
        {"type": "reasoning.encrypted", "index": 0, "data": "d"},
        {"type": "reasoning.summary", "index": 1, "summary": "s"},
        {"type": "reasoning.text", "index": None, "text": "x"},
        {"type": "reasoning.text", "index": None, "text": "y"},
    ]


@pytest.mark.parametrize("cuts", [[3, 6], [1, 5], [4], []])
def test_sound_in_pieces(cuts: list[int]) -> None:
    """Each piece base64 on its own; and one base64 text cut anywhere."""
    sound = bytes(range(10))
    edges = [0, *cuts, len(sound)]
    own = [base64.b64encode(sound[a:b]).decode() for a, b in pairwise(edges)]
    whole = base64.b64encode(sound).decode()
    anywhere = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    for pieces in (own, anywhere):
        message = message_of(
            {"audio": {"id": "au"}}, *({"audio": {"data": piece, "transcript": "x"}} for piece in pieces)
        )
        assert base64.b64decode(message["audio"]["data"], validate=True) == sound
        assert message["audio"]["transcript"] == "x" * len(pieces)


def test_content_in_parts_is_joined_like_text() -> None:
    def thinking(text: str) -> list[dict[str, Any]]:
        return [{"type": "thinking", "thinking": [{"type": "text", "text": text}]}]

    message = message_of(
        {"content": ""}, {"content": thinking("a")}, {"content": thinking("b")}, {"content": "c"}, {"content": "d"}
    )
    assert message["content"] == [*thinking("ab"), {"type": "text", "text": "cd"}]
    assert message_of({"content": "a"}, {"content": [{"type": "text", "text": "b"}]})["content"] == [
        {"type": "text", "text": "ab"}
    ]


def test_lists_follow_each_other_and_labels_do_not() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}, "index": 0}
    message = message_of({"images": [image], "channel": "analysis"}, {"images": [image], "channel": "analysis"})
    assert message["images"] == [image, image]
    assert message["channel"] == "analysis"


def test_logprobs_of_chat_follow_each_other() -> None:
    def told(token: str) -> dict[str, Any]:
        return {"content": [{"token": token, "logprob": -1}], "refusal": None}

    answer = answer_of(
        chunk({"content": "a"}, logprobs=told("a")),
        chunk({"content": "b"}, logprobs=told("b")),
        chunk(finish_reason="stop", logprobs=None),
    )
    assert answer["choices"][0]["logprobs"] == {"content": told("a")["content"] + told("b")["content"], "refusal": None}


def test_pieces_of_a_character_make_it_whole() -> None:
    raw = (
        stream(chunk({"content": "x"}), chunk({"content": "y"}), END)
        .replace(b'"x"', b'"\\ud83d"')
        .replace(b'"y"', b'"\\ude00"')
    )
    body = forms.to_json(Api.CHAT, raw)
    assert body is not None
    assert json.loads(body)["choices"][0]["message"]["content"] == "😀"


# What stands around the choices.


def test_usage_goes_where_json_has_it() -> None:
    usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
    apart = {"id": "c1", "choices": [], "usage": usage}
    text = chunk({"content": "a"})
    assert answer_of(text, END, apart)["usage"] == usage
    assert answer_of(text, {**END, "usage": usage})["usage"] == usage
    assert (
        answer_of(text, chunk(finish_reason="stop", usage=None) | {"x_groq": {"id": "r", "usage": usage}})["usage"]
        == usage
    )
    inside = chunk()
    inside["choices"][0] |= {"finish_reason": "stop", "usage": usage}
    found = answer_of(text, inside)
    assert (found["usage"], "usage" in found["choices"][0]) == (usage, False)
    growing = [chunk({"content": "a"}, usage={**usage, "completion_tokens": count}) for count in (1, 2, 3)]
    assert answer_of(*growing, END)["usage"]["completion_tokens"] == 3
    zeros = dict.fromkeys(usage, 0)
    assert answer_of(chunk({"content": "a"}, usage=usage), {**END, "usage": zeros})["usage"] == usage
    assert answer_of(text, {**END, "usage": zeros})["usage"] == zeros
    assert "usage" not in answer_of(text, END)


def test_the_first_that_says_who_and_the_last_that_says_anything_else() -> None:
    empty = {"id": "", "created": 0, "model": "", "object": "", "choices": [], "prompt_filter_results": [1]}
    first = chunk({"content": "a"}, citations=["u"]) | {"system_fingerprint": None, "obfuscation": "xyz"}
    last = END | {"system_fingerprint": "fp", "citations": ["u", "v"], "id": "c2"}
    answer = answer_of(empty, first, last)
    assert {name: answer[name] for name in answer if name != "choices"} == {
        "id": "c1",
        "object": "chat.completion",
        "created": 7,
        "model": "m",
        "prompt_filter_results": [1],
        "system_fingerprint": "fp",
        "citations": ["u", "v"],
    }


# What has no other form.


@pytest.mark.parametrize(
    "events",
    [
        b"",
        b"data: [DONE]\n\n",
        b": hello\n\n",
        stream(chunk({"content": "a"})),
        stream(chunk({"content": "a"}), chunk({"content": "b"}, index=1, finish_reason="stop")),
        stream(chunk({"content": "a"}), END, done=False)[:-1] + b"data: {",
        stream(chunk({"content": "a"}), {"error": {"message": "no"}}),
        stream(chunk({"content": "a"}), chunk(finish_reason="error")),
        stream(END) + b"event: error\ndata: {}\n\n",
        b"data: no JSON\n\n" + stream(END),
        b"data: [1]\n\n" + stream(END),
        stream(chunk({"content": 7}), END),
        stream(chunk({"content": "a"}), chunk({"content": {"a": 1}}), END),
        stream(chunk({"tool_calls": {"index": 0}}), END),
        stream(chunk({"tool_calls": ["a"]}), END),
        stream(chunk({"audio": {"data": "AA=="}}), chunk({"audio": {"data": "A"}}), END),
        stream({"choices": [{"index": 0, "message": {"content": "a"}, "finish_reason": "stop"}]}),
        stream(chunk({"content": "a"}), chunk(finish_reason="stop", logprobs=-0.5)),
    ],
)
def test_events_without_a_json_form(events: bytes) -> None:
    if events.startswith(stream(END)):  # behind [DONE] nothing counts
        events = events.replace(b"data: [DONE]\n\n", b"")
    assert forms.to_json(Api.CHAT, events) is None


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"no JSON",
        b'{"error":{"message":"no"}}',
        b'{"choices":[]}',
        b'{"choices":[7]}',
        b'{"choices":[{"index":0,"message":{"content":"a"},"finish_reason":null}]}',
        b'{"choices":[{"index":0,"text":"a","finish_reason":"stop"}]}',
        b'{"choices":[{"index":0,"message":{"tool_calls":["a"]},"finish_reason":"stop"}]}',
    ],
)
def test_json_without_a_form_in_events(body: bytes) -> None:
    assert forms.to_stream(Api.CHAT, body, include_usage=True) is None


def test_apis_without_another_form() -> None:
    for api in Api:
        if api not in (Api.CHAT, Api.COMPLETIONS):
            assert (
                forms.to_stream(
                    api, b'{"choices":[{"message":{},"text":"","finish_reason":"stop"}]}', include_usage=True
                )
                is None
            )
        if api not in forms.FORMS:
            assert forms.to_json(api, stream(END)) is None
        if api not in (Api.CHAT, Api.COMPLETIONS):
            assert forms.without_usage(api, stream(END)) == stream(END)


MEMBER_NAMES = st.sampled_from(
    [
        "choices",
        "delta",
        "index",
        "content",
        "tool_calls",
        "function",
        "arguments",
        "name",
        "id",
        "finish_reason",
        "message",
        "text",
        "usage",
        "logprobs",
        "audio",
        "data",
        "type",
        "x_groq",
        "reasoning_details",
        "error",
        "response",
        "output",
        "item",
        "output_index",
        "content_block",
        "partial_json",
        "object",
        "role",
    ]
)
TYPES = st.sampled_from(
    [
        "message_start",
        "message_delta",
        "message_stop",
        "content_block_start",
        "content_block_delta",
        "text_delta",
        "input_json_delta",
        "text",
        "thinking",
        "response.completed",
        "response.output_item.done",
        "function",
        "stop",
    ]
)
ODD = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 2) | st.floats() | TYPES | st.just("A==="),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(MEMBER_NAMES, inner, max_size=4),
    max_leaves=12,
)
ODD_CHOICES = st.fixed_dictionaries(
    {
        "choices": st.lists(
            st.fixed_dictionaries(
                {"index": st.integers(0, 1), "delta": ODD, "message": ODD, "text": ODD, "finish_reason": ODD}
            ),
            max_size=2,
        )
    }
)


@given(
    st.lists(st.dictionaries(MEMBER_NAMES, ODD, max_size=4) | ODD_CHOICES, max_size=4),
    st.sampled_from(sorted(forms.FORMS, key=lambda api: api.value)),
)
@example([{"choices": True}], Api.CHAT)
def test_whatever_comes_it_has_a_form_or_none(documents: list[dict[str, Any]], api: Api) -> None:
    body = forms.to_json(api, stream(*documents))
    if body is not None:
        assert type(lenient_json.loads(body)) is dict
    for document in documents:
        events = forms.to_stream(api, json.dumps(document).encode(), include_usage=True)
        assert events is None or events.endswith(b"data: [DONE]\n\n")


def test_figures_of_a_recorded_stream() -> None:
    usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
    events = stream(chunk({"content": "a"}), END, {"choices": [], "usage": usage})
    assert forms.figures(Api.CHAT, events) == usage
    assert forms.figures(Api.CHAT, forms.without_usage(Api.CHAT, events)) is None
