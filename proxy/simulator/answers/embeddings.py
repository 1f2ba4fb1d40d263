"""POST /v1/embeddings. Source: platform.openai.com/docs/api-reference/embeddings."""

import base64
import hashlib
from array import array
from typing import Any, Final

import orjson

from proxy.simulator.ask import Ask, UsagePlace

_DIMENSIONS: Final = 1536  # text-embedding-3-small
_DIMENSIONS_MAX: Final = 8192
_INPUTS_MAX: Final = 2048  # OpenAI's bound, read 2025-06-01


def whole(ask: Ask) -> bytes:
    dimensions = ask.fields.get("dimensions")
    dimensions = min(max(dimensions, 1), _DIMENSIONS_MAX) if isinstance(dimensions, int) else _DIMENSIONS
    in_base64 = ask.fields.get("encoding_format") == "base64"
    answer: dict[str, Any] = {
        "object": "list",
        "data": [
            {"object": "embedding", "index": index, "embedding": _vector(text, dimensions, in_base64)}
            for index, text in enumerate(_inputs(ask.fields.get("input")))
        ],
        "model": ask.model,
    }
    if ask.usage_place is not UsagePlace.NOWHERE:
        tokens = ask.usage.input_tokens
        answer["usage"] = {"prompt_tokens": tokens, "total_tokens": tokens}
    return orjson.dumps(answer)


def _inputs(asked: Any) -> list[bytes]:
    """One of: a text, texts, a text's tokens, several texts' tokens."""
    if not isinstance(asked, list):
        return [orjson.dumps(asked)]
    if all(isinstance(one, int) for one in asked):
        return [orjson.dumps(asked)]
    return [orjson.dumps(one) for one in asked[:_INPUTS_MAX]]


def _vector(text: bytes, dimensions: int, in_base64: bool) -> list[float] | str:
    """The same text, the same vector: float32 in [-1, 1), little-endian where it is packed."""
    digest = array("h", hashlib.shake_128(text).digest(dimensions * 2))
    numbers = [number / 32768 for number in digest]
    return base64.b64encode(array("f", numbers).tobytes()).decode() if in_base64 else numbers
