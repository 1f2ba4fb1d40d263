"""Which path is answered by what. A new API is a row here, in `ask`'s dialects and in `delivery`'s tables."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import unquote

import orjson

from proxy.simulator.answers.stream import CREATED_AT
from proxy.simulator.reader import Request
from proxy.simulator.scripts.script import Memory
from proxy.simulator.scripts.table import SCRIPTS, error, perform
from proxy.simulator.wire import JSON, Steps, head, length
from proxy.terms import Api

_POSTED: Final[Mapping[str, Api]] = MappingProxyType(
    {
        "/chat/completions": Api.CHAT,
        "/completions": Api.COMPLETIONS,
        "/embeddings": Api.EMBEDDINGS,
        "/responses": Api.RESPONSES,
        "/messages": Api.MESSAGES,
        "/messages/count_tokens": Api.COUNT_TOKENS,
    }
)
_MODELS: Final = "/models"
_PLAIN_MODEL: Final = "simulator"


def answer(request: Request, memory: Memory) -> Steps:
    path = request.path.removeprefix("/v1")
    api = _POSTED.get(path)
    allowed = "POST" if api is not None else "GET"
    if api is None and path != _MODELS and not path.startswith(_MODELS + "/"):
        return error(None, 404, f"Unknown request URL: {request.method} {request.path}.")
    if request.method == "HEAD":
        return iter((head(405, JSON, length(b"")),))
    if request.method != allowed:
        return error(None, 405, f"Not allowed to {request.method} on {request.path}; it takes {allowed}.")
    if api is not None:
        return perform(api, request, memory)
    if path == _MODELS:
        return _document({"object": "list", "data": [_model(name) for name in (_PLAIN_MODEL, *SCRIPTS)]})
    return _document(_model(unquote(path.removeprefix(_MODELS + "/"))))  # any name is served


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": CREATED_AT, "owned_by": "penstock"}


def _document(fields: dict[str, Any]) -> Steps:
    body = orjson.dumps(fields)
    return iter((head(200, JSON, length(body)) + body,))
