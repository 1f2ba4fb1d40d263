"""JSON as providers send it: orjson first, and what it refuses though others read it by the standard library.

orjson refuses lone surrogate escapes, which RFC 8259 allows, and `NaN` and `Infinity`, which Python servers put into
logprobs. An answer that the client could read must not fail here. Requests are read by orjson alone.
"""

import json
from typing import Any

import orjson


def loads(data: bytes) -> Any:
    """The document. Raises ValueError for what nobody reads, and for what is nested too deep."""
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        try:
            return json.loads(data.removeprefix(b"\xef\xbb\xbf"))
        except RecursionError:
            raise ValueError("nested too deep") from None
