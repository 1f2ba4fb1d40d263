"""Every recorded and golden stream to JSON: the text is that of the deltas, the form what the SDK's types ask for."""

import json
from collections import defaultdict
from typing import Any, Final

import pydantic
import pytest
from openai.types import Completion
from openai.types.chat import ChatCompletion
from openai.types.responses import Response

from proxy.core.assembly import forms
from proxy.terms import Api
from tests.core.assembly import sdk
from tests.core.streams import Recording, recordings
from tests.golden import oracle
from tests.golden.bench import golden_cases

# What has no JSON form, and why.
WITHOUT_FORM: Final = {
    "openai/chat-stream-2.sse": "ends with [DONE] and never says how the choice finished",
    "snowflake/chat-stream-1.sse": "the same",
    "anthropic/messages-stream-overloaded": "an error",
    "cerebras/chat-stream-error": "an error",
    "groq/chat-stream-error": "an error",
    "openrouter/chat-stream-error": "an error",
    "openai/responses-stream": "its last event has an empty output, though text was streamed",
    "openrouter/responses-stream": "the same",
    "perplexity/responses-stream": "the same",
}
# What the SDK's types do not allow though the provider says it.
NOT_BY_TYPE: Final = {
    "mistral/chat-stream": ("choices", 0, "message", "content"),  # a list of parts, as in Mistral's JSON
    **dict.fromkeys(
        [
            "deepseek/responses-stream-1.sse",
            *(f"openai/responses-stream-{number}.sse" for number in range(1, 5)),
            "openrouter/responses-stream-1.sse",
        ],
        ("usage", "input_tokens_details", "cache_write_tokens"),  # younger than the answers
    ),
}
# What the SDK's accumulator itself does not take.
NOT_ACCUMULATED: Final = {
    "anthropic/chat-stream-1.sse": IndexError,  # a first call of a tool with index 1
    "mistral/chat-stream-1.sse": TypeError,  # a call of a tool without an index
    "mistral/chat-stream": UserWarning,  # content in parts
}
TYPES: Final[dict[str, type[pydantic.BaseModel]]] = {
    "chat": ChatCompletion,
    "completions": Completion,
    "responses": Response,
}

STREAMS: Final = [
    *recordings(".sse", lambda recording: recording.meta["api"] in {*TYPES, "messages"}),
    *(
        pytest.param(Recording(case.name, case.body, {"api": case.api}), id=case.name)
        for case in golden_cases()
        if case.streamed
    ),
]


def whole(recording: Recording) -> bytes:
    return oracle.relayed(recording.body, withhold=False)


def documents(events: bytes) -> list[dict[str, Any]]:
    data = [oracle.data_in(event) for event in oracle.events_of(events)]
    return [json.loads(one) for one in data if one is not None and one != b"[DONE]"]


def streamed_texts(events: bytes, api: str) -> dict[Any, str]:
    """Each text that the deltas spell, by where it belongs."""
    texts: dict[Any, str] = defaultdict(str)
    for document in documents(events):
        if api in ("chat", "completions"):
            for choice in document["choices"]:
                pieces = choice["delta"] if api == "chat" else {"text": choice["text"]}
                for name in ("text", "content", "reasoning", "reasoning_content", "refusal"):
                    texts[choice["index"], name] += _plain(pieces.get(name))
                for call in pieces.get("tool_calls") or ():
                    function = call.get("function", {})
                    texts[choice["index"], "arguments"] += function.get("arguments") or ""
        elif document["type"] in ("response.output_text.delta", "response.function_call_arguments.delta"):
            texts[document["output_index"]] += document["delta"]
        elif document["type"] == "content_block_delta":
            texts[document["index"]] += document["delta"]["text"]
    return {place: text for place, text in texts.items() if text}


def texts_of(answer: dict[str, Any], api: str) -> dict[Any, str]:
    texts: dict[Any, str] = {}
    if api in ("chat", "completions"):
        for choice in answer["choices"]:
            message = choice["message"] if api == "chat" else {"text": choice["text"]}
            for name in ("text", "content", "reasoning", "reasoning_content", "refusal"):
                texts[choice["index"], name] = _plain(message.get(name))
            calls = message.get("tool_calls") or ()
            texts[choice["index"], "arguments"] = "".join(call["function"]["arguments"] for call in calls)
    elif api == "responses":
        for place, item in enumerate(answer["output"]):
            parts = item.get("content") or ()
            texts[place] = item.get("arguments") or "".join(part.get("text", "") for part in parts)
    else:
        texts = {place: block["text"] for place, block in enumerate(answer["content"])}
    return {place: text for place, text in texts.items() if text}


def _plain(content: Any) -> str:
    """The text of content, also of content in parts."""
    if isinstance(content, list):
        return "".join(_plain(part.get("text") or part.get("thinking")) for part in content)
    return content or ""


@pytest.mark.parametrize("recording", STREAMS)
def test_the_text_is_that_of_the_deltas(recording: Recording) -> None:
    api, events = recording.meta["api"], whole(recording)
    body = forms.to_json(Api(api), events)
    assert (body is None) is (recording.name in WITHOUT_FORM)
    if body is not None:
        assert texts_of(json.loads(body), api) == streamed_texts(events, api)


@pytest.mark.parametrize("recording", STREAMS)
def test_the_form_is_what_the_sdk_expects(recording: Recording) -> None:
    api = recording.meta["api"]
    body = forms.to_json(Api(api), whole(recording))
    if body is None or api == "messages":
        return
    if recording.name not in NOT_BY_TYPE:
        TYPES[api].model_validate_json(body)
        return
    with pytest.raises(pydantic.ValidationError) as raised:
        TYPES[api].model_validate_json(body)
    assert [error["loc"] for error in raised.value.errors()] == [NOT_BY_TYPE[recording.name]]


@pytest.mark.parametrize("recording", STREAMS)
def test_the_sdk_assembles_the_same(recording: Recording) -> None:
    events = whole(recording)
    body = forms.to_json(Api(recording.meta["api"]), events)
    if body is None or recording.meta["api"] != "chat":
        return
    failure = NOT_ACCUMULATED.get(recording.name)
    if failure is not None:
        with pytest.raises(failure):
            sdk.chat_of_stream(events)
        return
    assembled = sdk.chat_of_stream(events)
    answer = sdk.chat_of_json(body)
    for choice, own in zip(_choices(assembled), _choices(answer), strict=True):
        assert own == choice
    if assembled.get("usage"):
        assert answer["usage"] == assembled["usage"]


def _choices(answer: dict[str, Any]) -> list[dict[str, Any]]:
    """What the types of the SDK know of the choices. It joins a role that is told twice, and keeps the calls' indices."""
    found = []
    for choice in answer["choices"]:
        message = choice["message"]
        calls = [{name: call[name] for name in call if name != "index"} for call in message.get("tool_calls") or ()]
        for call in calls:
            call.setdefault("type", "function")
            call["function"]["arguments"] = call["function"].get("arguments") or ""
            call["function"].pop("parsed_arguments", None)
        known = {name: message.get(name) for name in ("content", "refusal", "function_call", "audio")}
        known["content"] = known["content"] or None
        beside = {name: choice.get(name) for name in ("index", "finish_reason", "logprobs")}
        found.append({**beside, **known, "calls": calls})
    return found


@pytest.mark.parametrize("recording", STREAMS)
def test_json_to_events_and_back_is_the_same_answer(recording: Recording) -> None:
    api = Api(recording.meta["api"])
    body = forms.to_json(api, whole(recording))
    if body is None or api not in (Api.CHAT, Api.COMPLETIONS):
        return
    events = forms.to_stream(api, body, include_usage=True)
    assert events is not None
    assert events.endswith(b"\n\ndata: [DONE]\n\n")
    again = forms.to_json(api, events)
    assert again is not None
    assert json.loads(again) == json.loads(body)


@pytest.mark.parametrize("recording", STREAMS)
def test_usage_is_withheld_as_the_relay_withholds_it(recording: Recording) -> None:
    if "error" in recording.name or "overloaded" in recording.name:
        return
    api = recording.meta["api"]
    withhold = api in ("chat", "completions")
    assert forms.without_usage(Api(api), whole(recording)) == oracle.relayed(recording.body, withhold=withhold)
    assert forms.without_usage(Api(api), recording.body) == oracle.relayed(recording.body, withhold=withhold)


def variations(events: bytes) -> dict[str, bytes]:
    lines = events.replace(b"data: [DONE]\n\n", b"")
    return {
        "CRLF": events.replace(b"\n", b"\r\n"),
        "CR": events.replace(b"\n", b"\r"),
        "BOM": b"\xef\xbb\xbf" + events,
        "comments": b": hello\n\n" + events.replace(b"\n\n", b"\n\n: still here\n\n"),
        "other fields": events.replace(b"data: {", b"id: 7\nretry: 3000\ndata: {"),
        "no space": events.replace(b"data: ", b"data:"),
        "blank lines": events.replace(b"\n\n", b"\n\n\n\n"),
        "no [DONE]": lines,
        "more behind [DONE]": events + (b"data: no JSON\n\n" if b"[DONE]" in events else b""),
    }


@pytest.mark.parametrize("recording", STREAMS)
def test_how_events_are_written_does_not_matter(recording: Recording) -> None:
    api, events = Api(recording.meta["api"]), whole(recording)
    if b"\r" in events:
        return
    expected = forms.to_json(api, events)
    for name, variation in variations(events).items():
        assert forms.to_json(api, variation) == expected, name


@pytest.mark.parametrize("recording", STREAMS)
def test_what_was_cut_has_no_form(recording: Recording) -> None:
    """Cut within an event, or before the end: never a shorter answer. Behind the finish there may be one without usage."""
    api, events = Api(recording.meta["api"]), whole(recording)
    expected = forms.to_json(api, events)
    if expected is None:
        return
    for at in range(0, len(events), 97):
        body = forms.to_json(api, events[:at])
        if body is not None:
            assert texts_of(json.loads(body), api.value) == texts_of(json.loads(expected), api.value), at
