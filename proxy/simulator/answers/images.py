"""POST /v1/images/generations and /v1/images/edits. Source: platform.openai.com/docs/api-reference/images and
openai-python 3.52 types, read 2026-11-21.
"""

import base64
from collections.abc import Iterator
from typing import Any, Final

import orjson

from proxy.simulator import media
from proxy.simulator.answers.received import received
from proxy.simulator.answers.stream import CREATED_AT, Stream, named
from proxy.simulator.ask import Ask, UsagePlace
from proxy.terms import Api

_TEXT_TOKENS_OF: Final = 4  # of the input, what is no image


def whole(ask: Ask) -> bytes:
    answer: dict[str, Any] = {"created": CREATED_AT, "data": [_image(ask, index) for index in range(ask.choices)]}
    answer |= _form(ask) | received(ask)
    if ask.usage_place is not UsagePlace.NOWHERE:
        answer["usage"] = _usage(ask)
    return orjson.dumps(answer)


def stream(ask: Ask) -> Stream:
    closing = tuple(_completed(ask, index) for index in range(ask.choices))
    return Stream((), _content(ask), closing, ())


def _content(ask: Ask) -> Iterator[bytes]:
    kind = f"{_kind(ask)}.partial_image"
    for index, piece in enumerate(ask.pieces):
        for _ in range(ask.choices):
            yield named(
                kind,
                {
                    "type": kind,
                    "b64_json": piece,
                    "partial_image_index": index,
                    "created_at": CREATED_AT,
                    **_form(ask),
                },
            )


def _completed(ask: Ask, index: int) -> bytes:
    kind = f"{_kind(ask)}.completed"
    fields = {"type": kind, "b64_json": _drawn(ask, index), "created_at": CREATED_AT, **_form(ask), **received(ask)}
    if ask.usage_place is not UsagePlace.NOWHERE:
        fields["usage"] = _usage(ask)
    return named(kind, fields)


def _kind(ask: Ask) -> str:
    return "image_edit" if ask.api is Api.IMAGE_EDITS else "image_generation"


def _image(ask: Ask, index: int) -> dict[str, str]:
    drawn = _drawn(ask, index)
    if ask.fields.get("response_format") == "url":
        return {"url": f"data:image/png;base64,{drawn}"}
    return {"b64_json": drawn}


def _drawn(ask: Ask, index: int) -> str:
    """The same request, the same picture; each of several has its own colour."""
    colour = int(ask.digest, 16) + 70 * index
    return base64.b64encode(media.png(colour & 255, colour >> 8 & 255, colour >> 16 & 255)).decode()


def _form(ask: Ask) -> dict[str, str]:
    """What is said of a picture: as asked for, but for its format, which is PNG always."""
    size, quality, background = (ask.fields.get(name) for name in ("size", "quality", "background"))
    return {
        "size": size if isinstance(size, str) and size != "auto" else "1024x1024",
        "quality": quality if isinstance(quality, str) and quality != "auto" else "high",
        "background": "transparent" if background == "transparent" else "opaque",
        "output_format": "png",
    }


def _usage(ask: Ask) -> dict[str, Any]:
    usage = ask.usage
    images = usage.input_tokens - usage.input_tokens // _TEXT_TOKENS_OF if ask.files else 0
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {"image_tokens": images, "text_tokens": usage.input_tokens - images},
        "output_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }
