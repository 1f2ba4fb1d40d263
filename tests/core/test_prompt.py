"""What a request holds, by its size."""

import base64
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core import prompt
from proxy.core.prompt import Prompt, measure

DATA = base64.b64encode(bytes(range(256)) * 40).decode()
URL = f"data:image/png;base64,{DATA}"


def asked(**fields: Any) -> Prompt:
    return measure(len(orjson.dumps(fields)), fields)


def user(*parts: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"role": "user", "content": list(parts)}]


# fields of a request -> images, bytes of images, bytes of audio
ROWS: dict[str, tuple[dict[str, Any], tuple[int, int, int]]] = {
    "text": ({"messages": [{"role": "user", "content": "How high is the water?"}]}, (0, 0, 0)),
    "chat": (
        {"messages": user({"type": "text", "text": "?"}, {"type": "image_url", "image_url": {"url": URL}})},
        (1, len(URL), 0),
    ),
    "chat, by address": (
        {"messages": user({"type": "image_url", "image_url": {"url": "https://example.com/a.png"}})},
        (1, 0, 0),
    ),
    "responses": (
        {"input": user({"type": "input_image", "image_url": URL}, {"type": "input_image", "image_url": URL})},
        (2, 2 * len(URL), 0),
    ),
    "messages": (
        {"messages": user({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": DATA}})},
        (1, len(DATA), 0),
    ),
    "messages, within the result of a tool": (
        {
            "messages": user(
                {
                    "type": "tool_result",
                    "tool_use_id": "t",
                    "content": [{"type": "image", "source": {"type": "base64", "data": DATA}}],
                }
            )
        },
        (1, len(DATA), 0),
    ),
    "audio": (
        {"messages": user({"type": "input_audio", "input_audio": {"data": DATA, "format": "wav"}})},
        (0, 0, len(DATA)),
    ),
    "a document counts as text": (
        {"messages": user({"type": "document", "source": {"type": "base64", "data": DATA}})},
        (0, 0, 0),
    ),
    "text that looks like data counts as text": ({"messages": [{"role": "user", "content": URL}]}, (0, 0, 0)),
    "a tool's schema is no prompt": ({"tools": [{"type": "image", "data": DATA}], "input": "?"}, (0, 0, 0)),
    "junk": ({"messages": [None, 5, [[{"type": ["image"]}]]], "input": {"type": {}}, "tools": 5}, (0, 0, 0)),
}


@pytest.mark.parametrize(("fields", "expected"), ROWS.values(), ids=ROWS)
def test_what_a_request_holds(fields: dict[str, Any], expected: tuple[int, int, int]) -> None:
    found = asked(**fields)
    assert (found.images, found.image_bytes, found.audio_bytes) == expected
    assert found.text_bytes == len(orjson.dumps(fields)) - expected[1] - expected[2]


@pytest.mark.parametrize(
    ("fields", "has_audio", "makes_images", "an_hour"),
    [
        ({"messages": []}, False, False, False),
        ({"modalities": ["text", "audio"], "audio": {"voice": "alloy"}}, True, False, False),
        ({"audio": {"voice": "alloy"}}, True, False, False),
        ({"modalities": ["image", "text"]}, False, True, False),
        ({"modalities": "image"}, False, False, False),
        ({"system": [{"type": "text", "text": "", "cache_control": {"type": "ephemeral"}}]}, False, False, False),
        ({"system": [{"text": "", "cache_control": {"type": "ephemeral", "ttl": "1h"}}]}, False, False, True),
        ({"tools": [{"name": "t", "cache_control": {"type": "ephemeral", "ttl": "1h"}}]}, False, False, True),
        ({"messages": user({"type": "image", "source": {}, "cache_control": {"ttl": "1h"}})}, False, False, True),
    ],
)
def test_what_a_request_asks_for(fields: dict[str, Any], has_audio: bool, makes_images: bool, an_hour: bool) -> None:
    found = asked(**fields)
    assert (found.has_audio, found.makes_images, found.keeps_an_hour) == (has_audio, makes_images, an_hour)


def test_a_prompt_of_too_many_parts_is_not_walked_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompt, "PARTS_MAX", 10)
    assert asked(messages=[{"role": "user", "content": "x"}] * 9).images == 0
    assert asked(messages=[{"role": "user", "content": "x"}] * 100).images == 91


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=5) | st.just("data:x"),
    lambda values: (
        st.lists(values, max_size=4)
        | st.dictionaries(
            st.sampled_from(["type", "data", "image_url", "content", "cache_control", "ttl", "source"]),
            values | st.sampled_from(["image", "input_audio", "image_url", "1h"]),
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(
    fields=st.dictionaries(
        st.sampled_from(["messages", "input", "system", "prompt", "tools", "modalities", "audio"]), _JSON, max_size=5
    )
)
def test_no_request_raises_and_no_text_is_lost(fields: dict[str, Any]) -> None:
    found = asked(**fields)
    assert found.text_bytes >= 0
    assert found.text_bytes + found.image_bytes + found.audio_bytes == len(orjson.dumps(fields))
