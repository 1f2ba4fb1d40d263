"""Estimated tokens: near enough to what providers counted, and never in the way of what they reported."""

import base64
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.estimate import fill, input_tokens, output_of_body, output_of_stream, tokens_of_text
from proxy.core.prompt import measure
from proxy.core.usage import normalise, of_body
from proxy.terms import NanoUsd, Usage
from tests.core.streams import Recording, recordings


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", 0),
        ("a", 1),
        ("water", 2),
        ("How high is the water?!!", 6),
        ("水位はいくつですか", 7),  # nine characters at three quarters
        ("Уровень", 6),  # fourteen bytes at 2.6 each
        ("\\u6c34\\u4f4d", 2),  # two characters, escaped
        ("😀", 2),
    ],
)
def test_tokens_of_a_text(text: str, tokens: int) -> None:
    assert tokens_of_text(text.encode()) == tokens


@given(st.text(max_size=200), st.text(max_size=200))
def test_more_text_is_no_fewer_tokens(text: str, more: str) -> None:
    assert 0 <= tokens_of_text(text.encode()) <= tokens_of_text((text + more).encode())


def test_a_picture_counts_as_a_picture() -> None:
    data = base64.b64encode(bytes(3 * 10**5)).decode()
    text = [{"role": "user", "content": "How high is the water?"}]
    picture = [
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}]}
    ]

    def tokens(messages: list[dict[str, Any]]) -> tuple[int, int]:
        fields = {"messages": messages}
        body = orjson.dumps(fields)
        prompt = measure(len(body), fields)
        return input_tokens(prompt, body), input_tokens(prompt)

    assert tokens(text) == (17, 17)
    assert tokens(picture) == (1022, 1022)


@pytest.mark.parametrize(
    ("relayed_bytes", "events", "tokens"),
    [(0, 0, 0), (1000, 10, 10), (3200, 10, 10), (3240, 10, 10), (3241, 10, 11), (32_000, 10, 7200)],
)
def test_an_event_is_a_token_and_a_large_one_is_more(relayed_bytes: int, events: int, tokens: int) -> None:
    assert output_of_stream(relayed_bytes, events) == tokens


def test_an_envelope_that_is_known_tells_more() -> None:
    assert output_of_stream(20_534, 93) == 93
    assert output_of_stream(20_534, 93, envelope_bytes=198) == 530  # recorded of Z.ai: 564


@pytest.mark.parametrize(
    ("document", "tokens"),
    [
        ({}, 0),
        ({"choices": [{"message": {"role": "assistant", "content": "The water is high."}}]}, 5),
        ({"choices": [{"message": {"content": None, "reasoning_content": "Hm."}}, {"message": {"content": "No"}}]}, 2),
        ({"choices": [{"text": "The water is high."}]}, 5),
        ({"choices": [{"message": {"tool_calls": [{"function": {"name": "f", "arguments": '{"a": 1}'}}]}}]}, 2),
        ({"output": [{"type": "message", "content": [{"type": "output_text", "text": "The water is high."}]}]}, 5),
        ({"content": [{"type": "text", "text": "The water is high."}, {"type": "thinking", "thinking": "Hm."}]}, 6),
        ({"data": [{"embedding": [0.1]}], "model": "m"}, 0),
        ({"choices": "junk", "output": None, "content": [1, [None]]}, 0),
        ({"choices": [{"text": "\ud800"}]}, 1),
    ],
)
def test_the_texts_of_a_whole_answer(document: dict[str, Any], tokens: int) -> None:
    assert output_of_body(document) == tokens


GUESS = Usage(100, 50)


@pytest.mark.parametrize(
    ("reported", "known"),
    [
        (None, Usage(100, 50, estimated=True)),
        # Messages, cut: the input was told at the start, of the output one token.
        (Usage(80, 1, cached_tokens=60), Usage(80, 50, cached_tokens=60, estimated=True)),
        (Usage(80, 200), Usage(80, 200)),
        (Usage(0, 200), Usage(100, 200, estimated=True)),
        (Usage(80, 60, cost_nanousd=NanoUsd(5)), Usage(80, 60, cost_nanousd=NanoUsd(5))),
    ],
)
def test_what_was_reported_is_kept(reported: Usage | None, known: Usage) -> None:
    assert fill(reported, GUESS) == known


def _tells_all(recording: Recording) -> bool:
    """Whether a recorded answer was counted, and shows all that it was counted for: no hidden reasoning."""
    if recording.meta["status"] != 200 or not recording.meta["usage"]:
        return False
    used = normalise(recording.meta["usage"])
    return used is not None and used.output_tokens >= 10 and used.reasoning_tokens == 0


@pytest.mark.parametrize("recording", recordings("chat-json-*.json", _tells_all))
def test_recorded_answers_are_estimated_to_their_order(recording: Recording) -> None:
    document = orjson.loads(recording.body)
    used = normalise(of_body(document) or {})
    assert used is not None
    assert used.output_tokens / 6 < output_of_body(document) < used.output_tokens * 2


@pytest.mark.parametrize("recording", recordings("chat-stream-*.sse", _tells_all))
def test_recorded_streams_are_estimated_to_their_order(recording: Recording) -> None:
    used = normalise(recording.meta["usage"])
    assert used is not None
    events = recording.body.count(b"data: {")
    guessed = output_of_stream(len(recording.body), events)
    assert used.output_tokens / 12 < guessed < used.output_tokens * 2 + 100
