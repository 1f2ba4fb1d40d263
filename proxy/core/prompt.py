"""What a request holds, by its size: text, pictures, sound. A walk over what was parsed anyway.

Data in base64 is no text: a picture of a megabyte takes a thousand tokens, not half a million. Documents (PDF) are left
among the text: how many tokens they take nobody can tell from outside, and they may take that many.

Only where prompts stand is looked (`messages`, `input`, `system`, `prompt`); tools and schemas are text. It takes less time
than to parse the body: 3 us for 46 KB of prose, 0.5 ms for a conversation of 400 messages. A prompt of more parts than
`PARTS_MAX` is not walked to its end: what is left counts as text, and each part of it as an image. Held by
`tests/core/test_prompt.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

PARTS_MAX: Final = 200_000  # a conversation of a thousand messages has some five thousand

_PROMPTS: Final = ("messages", "input", "system", "prompt")
# With these alone a request can hold nothing but text.
_PLAIN: Final = frozenset(
    {"model", "messages", "stream", "stream_options", "temperature", "top_p", "max_tokens", "max_completion_tokens"}
    | {"n", "stop", "seed", "user", "frequency_penalty", "presence_penalty", "response_format", "logprobs"}
)
_PLAIN_MESSAGE: Final = frozenset({"role", "content", "name", "tool_call_id"})
_IMAGES: Final = ("image_url", "input_image", "image")  # a tuple: a client's `type` may be anything


@dataclass(frozen=True, slots=True)
class Prompt:
    """Units: bytes of the body. ``text_bytes`` is all that is neither picture nor sound."""

    text_bytes: int
    audio_bytes: int = 0
    image_bytes: int = 0
    images: int = 0
    has_audio: bool = False  # in the prompt, or asked for
    makes_images: bool = False
    keeps_an_hour: bool = False  # asks for a cache of an hour (Messages)


def measure(body_bytes: int, fields: Mapping[str, Any]) -> Prompt:
    """What a request of `body_bytes` holds; `fields` are its parsed members."""
    if is_plain(fields):
        return Prompt(body_bytes)
    images = image_bytes = audio_bytes = 0
    keeps_an_hour = any(_an_hour(tool) for tool in _list(fields.get("tools")) if type(tool) is dict)
    waiting: list[Any] = [fields[name] for name in _PROMPTS if type(fields.get(name)) in (list, dict)]
    walked = 0
    while waiting and walked < PARTS_MAX:
        part = waiting.pop()
        walked += 1
        if type(part) is list:
            waiting += [item for item in part if type(item) in (list, dict)]
            continue
        kind = part.get("type")
        if kind in _IMAGES:
            images += 1
            image_bytes += _data(part)
        elif kind == "input_audio":
            audio_bytes += _data(part)
        else:
            waiting += [value for value in part.values() if type(value) in (list, dict)]
        keeps_an_hour = keeps_an_hour or ("cache_control" in part and _an_hour(part))
    modalities = _list(fields.get("modalities"))
    return Prompt(
        text_bytes=body_bytes - image_bytes - audio_bytes,
        audio_bytes=audio_bytes,
        image_bytes=image_bytes,
        images=images + len(waiting),
        has_audio=audio_bytes > 0 or "audio" in modalities or bool(fields.get("audio")),
        makes_images="image" in modalities,
        keeps_an_hour=keeps_an_hour,
    )


def is_plain(fields: Mapping[str, Any]) -> bool:
    """Whether it is a chat of texts alone, as most are."""
    messages = fields.get("messages")
    if type(messages) is not list or len(messages) > PARTS_MAX or not fields.keys() <= _PLAIN:
        return False
    for message in messages:
        if type(message) is not dict or not message.keys() <= _PLAIN_MESSAGE or type(message.get("content")) is not str:
            return False
    return True


def _an_hour(part: Mapping[str, Any]) -> bool:
    control = part.get("cache_control")
    return type(control) is dict and control.get("ttl") == "1h"


def _data(part: Mapping[str, Any]) -> int:
    """How much base64 a part holds: data URLs and members called `data`, at most two levels below it."""
    found = 0
    for name, value in part.items():
        inner = value.items() if type(value) is dict else ((name, value),)
        found += sum(
            len(text) for key, text in inner if type(text) is str and (key == "data" or text.startswith("data:"))
        )
    return found


def _list(value: object) -> list[Any]:
    return value if type(value) is list else []
