"""One request of a warm-up: a bare chat body, or a line of OpenAI's batch form.

    {"model": "simple", "messages": [...]}
    {"custom_id": "1", "method": "POST", "url": "/v1/responses", "body": {"model": "simple", "input": "..."}}

Source: platform.openai.com/docs/guides/batch, read 2026-11-20.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from proxy.core.nearest import did_you_mean
from proxy.edge import paths
from proxy.phases.accept import FORMS
from proxy.terms import Api

_CHAT: Final = "/v1/chat/completions"
_BATCH: Final = ("custom_id", "method", "url", "body")
_URLS: Final[Mapping[str, Api]] = {
    path: api for path, api in paths.EXCHANGES.items() if api not in FORMS and path.startswith("/v1/")
}
_TOLD_CHARS_MAX: Final = 64


@dataclass(frozen=True, slots=True)
class WarmRequest:
    """Shapes: ``path`` begins with `/v1`. ``model`` None: the body names none."""

    path: str
    api: Api
    model: str | None
    body: bytes


def read(value: object) -> WarmRequest | str:
    """The request that a JSON value is, or in words why it is none."""
    if not isinstance(value, dict):
        return 'expected an object: a chat body, or {"url": "/v1/chat/completions", "body": {...}}'
    if not value.keys() & {"url", "body"}:
        return _request(_CHAT, value)
    unknown = next((name for name in value if name not in _BATCH), None)
    if unknown is not None:
        return f"unknown member {unknown[:_TOLD_CHARS_MAX]!r} beside 'url' and 'body'.{did_you_mean(unknown, _BATCH)}"
    if value.get("method", "POST") != "POST":
        return f"'method' must be POST, got {_shown(value['method'])}"
    url, body = value.get("url"), value.get("body")
    if not isinstance(url, str) or url not in _URLS:
        hint = did_you_mean(url, _URLS) if isinstance(url, str) else ""
        return f"'url' must be the path of an API that takes JSON, such as {_CHAT}, got {_shown(url)}.{hint}"
    if not isinstance(body, dict):
        return f"'body' must be an object, got {_shown(body)}"
    return _request(url, body)


def _request(path: str, body: dict[str, Any]) -> WarmRequest | str:
    model = body.get("model")
    try:
        raw = orjson.dumps(body)
    except orjson.JSONEncodeError:
        return "it is nested too deeply"
    return WarmRequest(path, _URLS[path], model if isinstance(model, str) else None, raw)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _TOLD_CHARS_MAX else f"{text[:_TOLD_CHARS_MAX]}..."
